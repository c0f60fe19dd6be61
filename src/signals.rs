//! SIGTERM, SIGINT and SIGHUP, counted. The handler is installed once per process; whoever runs a
//! service follows the count, and tests and embedding programs raise it themselves.

use std::sync::Arc;

use rustix::process::Signal;
use tokio::signal::unix::SignalKind;
use tokio::sync::watch;

/// A source of stop requests. Clones share it.
#[derive(Debug, Clone)]
pub struct Signals(Arc<watch::Sender<u64>>);

impl Signals {
    /// Makes a source that only [`Signals::raise`] feeds.
    #[must_use]
    pub fn manual() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// Makes a source that the process's signals feed as well.
    ///
    /// # Errors
    ///
    /// When a handler is installed already: call it once.
    pub fn of_process() -> Result<Self, ctrlc::Error> {
        let signals = Self::manual();
        let handler = signals.clone();
        ctrlc::set_handler(move || handler.raise())?;
        Ok(signals)
    }

    /// Has signals pass by that are not meant for us and would end us without a backup: those for
    /// the app, before it runs, and that of a write past the process's limit of file size, which
    /// then fails instead.
    ///
    /// # Errors
    ///
    /// When no handler can be installed.
    pub(crate) fn survive() -> std::io::Result<()> {
        for signal in [Signal::XFSZ, Signal::USR1, Signal::USR2] {
            // The handler stays for good; nobody needs to hear of the signal here.
            tokio::signal::unix::signal(SignalKind::from_raw(signal.as_raw())).map(drop)?;
        }
        Ok(())
    }

    /// Asks for a stop, as a signal does; a second time, more than a second later, abandons the stop.
    pub fn raise(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    /// Follows the requests from now on.
    #[must_use]
    pub(crate) fn follow(&self) -> Follower {
        let receiver = self.0.subscribe();
        let seen = *receiver.borrow();
        Follower { receiver, seen }
    }
}

/// Hands out requests one by one.
#[derive(Debug)]
pub(crate) struct Follower {
    receiver: watch::Receiver<u64>,
    seen: u64,
}

impl Follower {
    /// Waits for the next request.
    pub(crate) async fn next(&mut self) {
        let seen = self.seen;
        if self.receiver.wait_for(|&count| count > seen).await.is_err() {
            // The source is gone: no request will ever come.
            std::future::pending::<()>().await;
        }
        self.seen += 1;
    }
}
