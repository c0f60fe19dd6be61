//! The dead man's snitch: a GET after every successful backup. When they stop, it alarms.
//!
//! It runs beside the backups and can't fail one. The address is a secret: who knows it can keep
//! the alarm quiet.

use std::time::Duration;

use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::secret::Secret;
use simplebackup_engine::{LOG, text};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long one ping may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Pings that may wait for a slow one.
const PINGS_WAITING: usize = 4;

/// Sends pings; asked by [`Snitch::ping`], from anywhere.
#[derive(Debug, Clone)]
pub(crate) struct Snitch(mpsc::Sender<Asked>);

/// What the task is asked to do, in order.
#[derive(Debug)]
enum Asked {
    Ping,
    End,
}

/// The task that sends; awaited at the stop.
#[derive(Debug)]
pub(crate) struct Pinging {
    task: JoinHandle<()>,
    snitch: Snitch,
}

impl Snitch {
    /// Starts the task.
    pub(crate) fn start(url: Secret) -> (Self, Pinging) {
        simplebackup_engine::store::install_tls();
        let (sender, mut asked) = mpsc::channel(PINGS_WAITING);
        let task = actix::spawn(async move {
            while let Some(Asked::Ping) = asked.recv().await {
                ping(&url).await;
            }
        });
        let snitch = Self(sender);
        (snitch.clone(), Pinging { task, snitch })
    }

    /// Asks for a ping. Does not wait.
    pub(crate) fn ping(&self) {
        // Err: as many wait already, and one ping says as much as two. Or the task has ended: the
        // service is past its stop.
        let _one_of_many = self.0.try_send(Asked::Ping);
    }
}

impl Pinging {
    /// Waits for the pings that were asked for, until the deadline and a few seconds at most.
    pub(crate) async fn finish(self, deadline: Deadline) {
        // Err means that the task has ended by itself: nothing is left to wait for.
        let ended = async {
            let _ended = self.snitch.0.send(Asked::End).await;
            self.task.await
        };
        if tokio::time::timeout(deadline.remaining().min(TIMEOUT), ended).await.is_err() {
            tracing::warn!(target: LOG, "WARNING: The snitch was not told of the last backup");
        }
    }
}

async fn ping(url: &Secret) {
    let sent = async {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        client.get(url.expose()).send().await?.error_for_status()
    };
    match sent.await {
        Ok(_answer) => tracing::debug!(target: LOG, "the snitch was told"),
        Err(error) => {
            let error = error.without_url();
            tracing::warn!(
                target: LOG,
                error = %text::chain(&error),
                "WARNING: The snitch could not be told, the backup itself is made: {}",
                text::chain(&error)
            );
        }
    }
}
