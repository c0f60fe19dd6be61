//! Telling somebody outside: pings for those who wait for them, and a webhook for those who want to
//! hear of trouble.
//!
//! The board's events become notices (`notice`), each channel makes requests of those that it
//! wants (`snitch`, `webhook`), and a task for each channel sends them (`delivery`). Nothing here
//! can fail a backup or hold one up. Addresses are secrets: who knows one can keep an alarm quiet.

mod delivery;
mod notice;
mod snitch;
mod webhook;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use futures::future::join_all;
use prometheus::IntCounter;
use simplebackup_actors::status::{Event, Status};
use simplebackup_actors::supervisor::Ended;
use simplebackup_engine::secret::Secret;
use simplebackup_engine::text;
use url::Url;

use self::delivery::{Queue, Request, Sending};
use self::notice::Memory;
pub(crate) use self::notice::{Kind, Notice, taken_by};
use crate::config::{Config, SnitchKind, WebhookEvents};

/// How long the last notices may take at the exit, of the time that is left.
pub(crate) const LAST_NOTICES: Duration = Duration::from_secs(5);

/// How long they may take where no time is left: a final backup that ran out of it is what most
/// has to be told.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// Somebody who is told.
struct Channel {
    target: Target,
    url: Url,
}

enum Target {
    Snitch(SnitchKind),
    Webhook { events: WebhookEvents, header: Option<(String, String)> },
}

/// Where the notices come from.
struct Origin {
    host: String,
    database: PathBuf,
}

impl Channel {
    /// Returns those that are configured.
    fn all(config: &Config) -> Vec<Self> {
        // None: the configuration has looked at the address before.
        let parsed = |url: &Option<Secret>| Url::parse(url.as_ref()?.expose()).ok();
        let snitch = parsed(&config.snitch_url).map(|url| {
            let kind = config.snitch_kind.unwrap_or_else(|| snitch::kind_of(&url));
            Self { target: Target::Snitch(kind), url }
        });
        let webhook = parsed(&config.webhook_url).map(|url| {
            let header = config.webhook_header.as_ref().and_then(|line| {
                let (name, value) = line.expose().split_once(':')?;
                Some((name.to_owned(), value.trim().to_owned()))
            });
            Self { target: Target::Webhook { events: config.webhook_events, header }, url }
        });
        snitch.into_iter().chain(webhook).collect()
    }

    /// Returns its name in log lines.
    fn name(&self) -> &'static str {
        match self.target {
            Target::Snitch(_) => "snitch",
            Target::Webhook { .. } => "webhook",
        }
    }

    fn request(&self, notice: &Notice, origin: &Origin) -> Option<Request> {
        let text = notice.text(&origin.host, &origin.database);
        match &self.target {
            Target::Snitch(kind) => snitch::request(*kind, &self.url, notice, &text),
            Target::Webhook { events, header } => {
                let place = (origin.host.as_str(), origin.database.as_path());
                let is_wanted = webhook::is_wanted(*events, notice);
                let request =
                    is_wanted.then(|| webhook::request(&self.url, notice, place, &text))??;
                Some(request.with_header(header.clone()))
            }
        }
    }
}

impl Origin {
    fn of(config: &Config) -> Self {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy().into_owned();
        Self { host, database: config.database.clone() }
    }
}

/// Tells all channels; may be asked from anywhere, and never waits.
pub(crate) struct Notifier {
    channels: Vec<(Channel, Queue)>,
    origin: Origin,
    memory: Mutex<Memory>,
}

/// The tasks that send; awaited at the exit.
pub(crate) struct Notifying(Vec<Sending>);

impl Notifier {
    /// Starts a task for each channel that is configured; what is not delivered is counted.
    pub(crate) fn start(config: &Config, failures: &IntCounter) -> (Self, Notifying) {
        let channels = Channel::all(config);
        if !channels.is_empty() {
            simplebackup_engine::store::install_tls();
        }
        let started = channels.into_iter().map(|channel| {
            let (queue, sending) = Queue::start(channel.name(), failures.clone());
            ((channel, queue), sending)
        });
        let (channels, sending) = started.unzip();
        let memory = Mutex::default();
        (Self { channels, origin: Origin::of(config), memory }, Notifying(sending))
    }

    /// Hears of an event, as an observer of the board.
    pub(crate) fn hear(&self, event: &Event, status: &Status) {
        if self.channels.is_empty() {
            return;
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        for notice in memory.notices(event, status, Utc::now()) {
            self.tell(&notice);
        }
    }

    /// Tells whoever wants to hear of it.
    pub(crate) fn tell(&self, notice: &Notice) {
        for (channel, queue) in &self.channels {
            if let Some(request) = channel.request(notice, &self.origin) {
                queue.push(notice.kind, request);
            }
        }
    }
}

impl Notifying {
    /// Waits for the notices that are on their way, but not longer than `limit`.
    pub(crate) async fn finish(self, limit: Duration) {
        join_all(self.0.into_iter().map(|sending| sending.finish(limit))).await;
    }
}

/// Returns how long the exit may wait for the last notices, if it waits at all.
pub(crate) fn patience_after(ended: &Ended) -> Option<Duration> {
    match ended {
        Ended::Stopped { final_deadline, .. } => {
            Some(final_deadline.remaining().clamp(LAST_CHANCE, LAST_NOTICES))
        }
        // A second signal: now means now.
        Ended::Abandoned => None,
        Ended::RestoreFailed(_) | Ended::AppFailed(_) | Ended::BeforeStart => Some(LAST_NOTICES),
    }
}

/// Sends a test through every channel and returns what became of each, in a line.
pub(crate) async fn test(config: &Config) -> Vec<Result<String, String>> {
    simplebackup_engine::store::install_tls();
    let (origin, notice) = (Origin::of(config), Notice::of(Kind::Test, Utc::now()));
    let mut told = Vec::new();
    for channel in Channel::all(config) {
        let Some(request) = channel.request(&notice, &origin) else { continue };
        let (name, sent) = (channel.name(), request.redacted());
        told.push(match request.send().await {
            Ok(answer) => Ok(format!("{name}: {sent}: {answer}")),
            Err(error) => Err(format!("{name}: {sent}: FAILED: {}", text::chain(&error))),
        });
    }
    told
}

#[cfg(test)]
mod tests {
    use simplebackup_actors::app::AppEnd;
    use simplebackup_actors::messages::StopCause;
    use simplebackup_actors::supervisor::FinalBackup;
    use simplebackup_engine::deadline::Deadline;

    use super::*;

    /// Part of invariant I5: what a stop may take longer for a server that does not answer.
    #[test]
    fn the_last_notices_have_what_is_left_within_bounds() {
        let stopped = |left| Ended::Stopped {
            cause: StopCause::Signal,
            app: AppEnd::Left,
            final_backup: FinalBackup::Made,
            final_deadline: Deadline::after(left),
        };
        let patience = |left| patience_after(&stopped(left));
        assert_eq!(patience(Duration::ZERO), Some(LAST_CHANCE));
        assert_eq!(patience(Duration::from_mins(1)), Some(LAST_NOTICES));
        let between = patience(Duration::from_secs(4)).expect("some");
        assert!((LAST_CHANCE..=Duration::from_secs(4)).contains(&between), "{between:?}");
        assert_eq!(patience_after(&Ended::Abandoned), None);
        assert_eq!(patience_after(&Ended::BeforeStart), Some(LAST_NOTICES));
    }
}
