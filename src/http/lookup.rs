//! What stored backups say of themselves, read from the store when somebody looks at the page.
//!
//! A backup that this process made needs no look. Of others, such as those of the process before, the
//! first bytes of the newest few are read, each once, and remembered: a page view makes no further
//! request, however often it is asked for.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Data;
use simplebackup_actors::status::{Event, Status};
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::header;
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::manifest::Manifest;
use simplebackup_engine::store::{BackupStore, Fault, StoreError, StoredBackup};
use simplebackup_engine::{LOG, text};
use tokio::sync::Semaphore;

use super::Shared;

/// Headers that are read, those of the newest backups: a GET of 4 KiB each, once.
const HEADERS_MAX: usize = 24;

/// How long that may take in all.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a store that could not be read is left alone.
const REST: Duration = Duration::from_mins(1);

/// The turn to look, of which there is one.
#[derive(Debug, Clone)]
pub(crate) struct Lookup(Arc<Semaphore>);

impl Default for Lookup {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// Begins to read what is not known yet; whoever waits for a change of the status hears of it.
pub(super) fn begin(shared: &Data<Shared>, status: &Status) {
    let unknown = shared.history.undescribed(HEADERS_MAX);
    let Some(store) = shared.store(status).filter(|_| !unknown.is_empty()) else { return };
    let Ok(turn) = Arc::clone(&shared.lookup.0).try_acquire_owned() else { return };
    let is_unknown = |backup: &&StoredBackup| unknown.contains(&backup.key);
    let wanted: Vec<_> = status.backups.iter().rev().filter(is_unknown).cloned().collect();
    let board = shared.board.clone();
    actix::spawn(async move {
        let (described, failure) = describe(&store, &wanted).await;
        if !described.is_empty() {
            board.record(&Event::BackupsDescribed(described));
        }
        if let Some(error) = failure {
            tracing::debug!(
                target: LOG,
                error = %text::chain(&error),
                "Stored backups could not be looked at for the status page"
            );
            tokio::time::sleep(REST).await;
        }
        drop(turn);
    });
}

async fn describe(
    store: &BackupStore,
    wanted: &[StoredBackup],
) -> (Vec<(BackupKey, Option<Manifest>)>, Option<StoreError>) {
    let deadline = Deadline::after(TIMEOUT);
    let mut described = Vec::new();
    for backup in wanted {
        // Without an identity: what an encrypted one holds is no matter for a page.
        match header::read(store, backup, None, deadline).await {
            Ok(header) => described.push((backup.key, header.manifest())),
            // Deleted meanwhile: the next list will not have it.
            Err(gone) if gone.fault == Fault::NotFound => described.push((backup.key, None)),
            Err(error) => return (described, Some(error)),
        }
    }
    (described, None)
}
