//! When the lease is left: after the final backup, and after a start that came to nothing.
//!
//! A failure is a warning: whoever waits for the lease goes on after `lease.wait`.

use std::time::Duration;

use simplebackup_engine::backup::BackupEngine;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::lease::LeaseError;
use simplebackup_engine::{LOG, text};

/// How long the release may take of what the final backup has left of its time.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Lets an instance that waits for the final backup go on: it is there now.
pub(crate) async fn release(engine: &BackupEngine, deadline: Deadline) {
    if let Some(lease) = engine.lease() {
        warn(lease.release(deadline.min(Deadline::after(RELEASE_TIMEOUT))).await);
    }
}

/// Leaves the lease as it was found: nothing was stored under it.
pub(crate) async fn give_back(engine: &BackupEngine, deadline: Deadline) {
    if let Some(lease) = engine.lease() {
        warn(lease.give_back(deadline).await);
    }
}

fn warn(left: Result<(), LeaseError>) {
    if let Err(error) = left {
        tracing::warn!(
            target: LOG,
            error = %text::chain(&error),
            "WARNING: The lease cannot be released, the next instance has to wait: {}",
            text::chain(&error)
        );
    }
}
