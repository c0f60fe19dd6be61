//! Why a backup was not made.

use std::path::PathBuf;

use thiserror::Error;

use crate::archive::PackError;
use crate::check::CheckError;
use crate::lease::LeaseError;
use crate::progress::Stage;
use crate::snapshot::SnapshotError;
use crate::store::StoreError;

/// Why a backup was not made. Nothing is visible in the store, nothing was pruned.
#[derive(Debug, Error)]
pub enum BackupError {
    /// Another process backs up the same database.
    #[error("backup already in progress in {holder}")]
    InProgress {
        /// Such as `process 4711`.
        holder: String,
    },
    /// The work folder cannot be used.
    #[error("work folder \"{}\" cannot be used; make it writable for this user", path.display())]
    WorkFolder {
        /// The work folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The snapshot did not pass the check.
    #[error("snapshot refused, nothing uploaded{}", .0.advice())]
    Check(#[source] CheckError),
    /// The newest backup has the last name that there is: no clock of ours gave it.
    #[error(
        "no name is later than that of the newest backup, of the end of the year 9999; check this \
         machine's clock, and delete that backup from the store"
    )]
    NoLaterName,
    /// The snapshot could not be packed.
    #[error("archive could not be made from the snapshot")]
    Archive(#[source] PackError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lease does not say where the backup belongs.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The deadline passed.
    #[error("ran out of time during {}; allow more time", stage.name())]
    OutOfTime {
        /// What was going on.
        stage: Stage,
    },
}
