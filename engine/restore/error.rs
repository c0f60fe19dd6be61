//! Why a restore failed.

use std::path::PathBuf;

use thiserror::Error;

use crate::archive::UnpackError;
use crate::check::CheckError;
use crate::key::BackupKey;
use crate::lease::LeaseError;
use crate::manifest::Counted;
use crate::placement::PlaceError;
use crate::progress::Stage;
use crate::store::StoreError;

/// Why nothing was restored. Nothing is at the database's path that was not there before.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The store could not be asked, or could not deliver.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lease could not be taken.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The backup is damaged.
    #[error("backup {key} is damaged; restore an older one with \"simplebackup restore --from\"")]
    Damaged {
        /// The backup.
        key: BackupKey,
        /// What is wrong with it.
        source: Damage,
    },
    /// The backup is encrypted, and there is nothing to open it with.
    #[error(
        "backup {key} is encrypted, and there is no identity to open it with; name the file with the \
         secret key in encryption.identity_file, or to restore and verify with --identity FILE"
    )]
    NoIdentity {
        /// The backup.
        key: BackupKey,
    },
    /// The backup is encrypted for others.
    #[error(
        "backup {key} is encrypted, and no identity in \"{}\" opens it; give the file of one whose \
         public key was in encryption.recipients when it was made, or if this is that file, restore \
         another backup with \"simplebackup restore --from\": the header of this one is damaged",
        path.display()
    )]
    WrongIdentity {
        /// The backup.
        key: BackupKey,
        /// The file.
        path: PathBuf,
    },
    /// The machine could not unpack or check it.
    #[error("backup {key} could not be unpacked and checked")]
    Unchecked {
        /// The backup.
        key: BackupKey,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The work folder beside the database cannot be used.
    #[error("work folder \"{}\" cannot be used; make it writable for this user", path.display())]
    WorkFolder {
        /// The work folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The checked file could not take the database's path.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The deadline passed.
    #[error("ran out of time during {}; raise restore.timeout", stage.name())]
    OutOfTime {
        /// What was going on.
        stage: Stage,
    },
    /// Something that is no database file is at the target path.
    #[error("{} is {what}, not a database file; choose another path", path.display())]
    NotAFile {
        /// The target.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// Something is at the target path already.
    #[error("{} exists and is not overwritten; use --force or --to another path", .0.display())]
    TargetExists(PathBuf),
    /// Somebody uses the database that would be replaced.
    #[error("{} is in use by {holder}; stop it first", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
        /// Such as `process 4711`.
        holder: String,
    },
}

/// What is wrong with a backup.
#[derive(Debug, Error)]
pub enum Damage {
    /// The gzip stream.
    #[error(transparent)]
    Archive(UnpackError),
    /// The database inside.
    #[error(transparent)]
    Database(CheckError),
    /// It is sound, and not what the backup says of itself.
    #[error("it holds {} instead of {}", held.in_words(), claimed.in_words())]
    Contents {
        /// What was counted.
        held: Counted,
        /// What stands in the header.
        claimed: Counted,
    },
}
