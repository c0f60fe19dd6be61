//! How a request gets to its server: tried a few times, one after the other, in a task of its own
//! for each channel. A server that hangs holds up neither a backup nor another channel.
//!
//! Addresses are secrets: no text that is made here holds more of one than its host.

use std::time::Duration;

use prometheus::IntCounter;
use reqwest::redirect::{Action, Attempt, Policy};
use simplebackup_engine::{LOG, text};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use url::Url;

use super::notice::Kind;

/// How long one try may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long the only try of a request may take on which nothing depends.
const SHORT_TIMEOUT: Duration = Duration::from_secs(2);

/// The pauses between the tries of a request: four tries in half a minute.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];

/// The pause when the service is about to exit.
const LAST_PAUSE: Duration = Duration::from_millis(200);

/// Notices that may wait for a slow server, in each channel.
const WAITING_MAX: usize = 16;

/// How many redirections are followed, all on one host: from `http` to `https`, say.
const REDIRECTIONS_MAX: usize = 3;

/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 300;

/// What a request brings along.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) content_type: &'static str,
    pub(super) text: String,
}

/// A request to be sent.
#[derive(Clone)]
pub(super) struct Request {
    url: Url,
    body: Option<Body>,
    header: Option<(String, String)>,
    is_tried_once: bool,
}

/// Why a request did not do what it was sent for.
#[derive(Debug, Error)]
pub(super) enum DeliveryError {
    /// There was no answer.
    #[error("no answer from {host}")]
    Silent {
        host: String,
        /// Without the address.
        source: reqwest::Error,
    },
    /// The answer was no success.
    #[error("{host} answered {}", in_words(*status, answer))]
    Refused { host: String, status: reqwest::StatusCode, answer: String },
}

impl DeliveryError {
    /// Returns whether another try may go well: not if the server knows what it refuses.
    fn is_transient(&self) -> bool {
        match self {
            Self::Silent { .. } => true,
            Self::Refused { status, .. } => {
                status.is_server_error() || [408, 425, 429].contains(&status.as_u16())
            }
        }
    }
}

impl Request {
    pub(super) fn get(url: Url) -> Self {
        Self { url, body: None, header: None, is_tried_once: false }
    }

    pub(super) fn post(url: Url, body: Body) -> Self {
        Self { body: Some(body), ..Self::get(url) }
    }

    pub(super) fn with_header(self, header: Option<(String, String)>) -> Self {
        Self { header, ..self }
    }

    pub(super) fn tried_once(self) -> Self {
        Self { is_tried_once: true, ..self }
    }

    /// Returns what is sent where, without what is secret in the address.
    pub(super) fn redacted(&self) -> String {
        let method = if self.body.is_some() { "POST" } else { "GET" };
        format!("{method} {}://{}/[redacted]", self.url.scheme(), host_of(&self.url))
    }

    #[cfg(test)]
    pub(super) fn in_words(&self) -> String {
        match &self.body {
            Some(body) => format!("POST {} {}", self.url, body.text),
            None => format!("GET {}", self.url),
        }
    }

    /// Sends it once and returns the answer: its status, and how its text begins.
    pub(super) async fn send(&self) -> Result<String, DeliveryError> {
        let host = host_of(&self.url);
        let silent = |error: reqwest::Error| DeliveryError::Silent {
            host: host.clone(),
            source: error.without_url(),
        };
        let mut answer = self.exchange().await.map_err(silent)?;
        let status = answer.status();
        let mut begun = Vec::new();
        while begun.len() < ANSWER_BYTES_MAX {
            match answer.chunk().await {
                Ok(Some(piece)) => begun.extend_from_slice(&piece),
                // The status says enough.
                Ok(None) | Err(_) => break,
            }
        }
        let text = self.shown(&begun[..begun.len().min(ANSWER_BYTES_MAX)]);
        // The public server says so with status 200.
        let is_unknown =
            text.starts_with("OK (not found)") || text.starts_with("OK (rate limited)");
        if status.is_success() && !is_unknown {
            return Ok(in_words(status, &text));
        }
        Err(DeliveryError::Refused { host, status, answer: text })
    }

    async fn exchange(&self) -> Result<reqwest::Response, reqwest::Error> {
        // One for each request: an idle service keeps neither connections nor certificates.
        let timeout = if self.is_tried_once { SHORT_TIMEOUT } else { TIMEOUT };
        let client = reqwest::Client::builder()
            .timeout(timeout)
            // The address and the header are secrets of this host alone.
            .referer(false)
            .redirect(Policy::custom(stay_on_host))
            .build()?;
        let mut request = match &self.body {
            Some(body) => client
                .post(self.url.clone())
                .header("Content-Type", body.content_type)
                .body(body.text.clone()),
            None => client.get(self.url.clone()),
        };
        if let Some((name, value)) = &self.header {
            request = request.header(name, value);
        }
        request
            .header("User-Agent", concat!("simplebackup/", env!("CARGO_PKG_VERSION")))
            .send()
            .await
    }

    /// Returns an answer's text in one line, without what a server may have copied from us.
    fn shown(&self, answer: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(answer).trim().replace(char::is_control, " ");
        let parts = [self.url.path(), self.url.query().unwrap_or_default()];
        let parts = parts.into_iter().flat_map(|part| part.split(['/', '&', '=']));
        let parts = parts.chain(self.url.password());
        let header = self.header.iter().flat_map(|(_, value)| value.split(' '));
        for secret in parts.chain(header).filter(|part| part.len() > 3) {
            text = text.replace(secret, "[redacted]");
        }
        text
    }
}

fn in_words(status: reqwest::StatusCode, answer: &str) -> String {
    if answer.is_empty() { status.to_string() } else { format!("{status}, \"{answer}\"") }
}

fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A notice on its way.
struct Outgoing {
    kind: Kind,
    request: Request,
}

/// What the task of a channel is asked to do, in order.
enum Asked {
    Send(Outgoing),
    End,
}

/// The way to one server.
#[derive(Clone)]
pub(super) struct Queue {
    /// `snitch` or `webhook`.
    name: &'static str,
    sender: mpsc::Sender<Asked>,
    failures: IntCounter,
}

/// The task that sends; awaited at the exit.
pub(super) struct Sending {
    queue: Queue,
    task: JoinHandle<()>,
    closing: watch::Sender<bool>,
}

impl Queue {
    /// Starts the task of a channel; each notice that is not delivered is counted in `failures`.
    pub(super) fn start(name: &'static str, failures: IntCounter) -> (Self, Sending) {
        let (sender, asked) = mpsc::channel(WAITING_MAX);
        let (closing, is_closing) = watch::channel(false);
        let task = actix::spawn(send_all(name, asked, is_closing, failures.clone()));
        let queue = Self { name, sender, failures };
        (queue.clone(), Sending { queue, task, closing })
    }

    /// Takes a request to be sent. Does not wait.
    pub(super) fn push(&self, kind: Kind, request: Request) {
        match self.sender.try_send(Asked::Send(Outgoing { kind, request })) {
            // Closed: the service is past its stop.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.failures.inc();
                tracing::warn!(
                    target: LOG,
                    "WARNING: The {} is not told of {}: {WAITING_MAX} notices wait for it already; see \
                     \"simplebackup notify --test\"",
                    self.name, kind.name()
                );
            }
        }
    }
}

impl Sending {
    /// Waits until everything was sent, but not longer than `limit`.
    pub(super) async fn finish(self, limit: Duration) {
        self.closing.send_replace(true);
        let abort = self.task.abort_handle();
        // Err means that the task has ended by itself: nothing is left to wait for.
        let ended = async {
            let _ended = self.queue.sender.send(Asked::End).await;
            self.task.await
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            abort.abort();
            self.queue.failures.inc();
            let name = self.queue.name;
            tracing::warn!(
                target: LOG,
                "WARNING: The {name} was not told of the last backup: it did not answer in time; see \
                 \"simplebackup notify --test\""
            );
        }
    }
}

/// Follows a redirection on the same host; another one is taken for a refusal.
fn stay_on_host(attempt: Attempt<'_>) -> Action {
    let is_same = attempt.previous().iter().all(|url| url.host_str() == attempt.url().host_str());
    if is_same && attempt.previous().len() <= REDIRECTIONS_MAX {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

async fn send_all(
    name: &'static str,
    mut asked: mpsc::Receiver<Asked>,
    mut is_closing: watch::Receiver<bool>,
    failures: IntCounter,
) {
    while let Some(Asked::Send(Outgoing { kind, request })) = asked.recv().await {
        match deliver(&request, &mut is_closing).await {
            Ok(()) => tracing::debug!(target: LOG, event = kind.name(), "the {name} was told"),
            Err(error) => {
                failures.inc();
                tracing::warn!(
                    target: LOG,
                    error = %text::chain(&error),
                    "WARNING: The {name} could not be told of {}: {}; all else goes on, see \
                     \"simplebackup notify --test\"",
                    kind.name(), text::chain(&error)
                );
            }
        }
    }
}

/// Sends a request, more than once if need be.
async fn deliver(
    request: &Request,
    is_closing: &mut watch::Receiver<bool>,
) -> Result<(), DeliveryError> {
    let mut pauses = PAUSES.iter();
    loop {
        let Err(error) = request.send().await else { return Ok(()) };
        let is_tried_again = error.is_transient() && !request.is_tried_once;
        let Some(pause) = pauses.next().filter(|_| is_tried_again) else { return Err(error) };
        if tokio::time::timeout(*pause, is_closing.wait_for(|&closing| closing)).await.is_ok() {
            // The service exits: now, or never.
            tokio::time::sleep(LAST_PAUSE).await;
        }
    }
}
