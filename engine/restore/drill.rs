//! A restore drill: the newest backup on the way back, up to the point where it would take the
//! database's place.
//!
//! A backup that was never restored is a hope. The drill does to the newest one what a restore
//! does, in a private folder, and then compares it with what it says of itself. It takes no lock
//! that a backup needs, leaves a backup the room it needs, and never comes near the database.

use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use thiserror::Error;

use super::{Damage, RestoreEngine, RestoreError, in_background};
use crate::LOG;
use crate::deadline::Deadline;
use crate::disk::Disk;
use crate::key::BackupKey;
use crate::manifest::Counted;
use crate::progress::{Progress, Stage};
use crate::store::{Fault, Patience, StoreKind, StoredBackup};
use crate::work_dir::canonical;

/// A backup that would come back whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drilled {
    /// The backup.
    pub key: BackupKey,
    /// When that was known, by the wall clock.
    pub ended_at: DateTime<Utc>,
    /// The size of the database in bytes.
    pub database_bytes: u64,
    /// The size of the archive in bytes.
    pub archive_bytes: u64,
    /// What it holds.
    pub counted: Counted,
    /// From the list to the last comparison.
    pub took: Duration,
    /// Tables whose structure could not be verified; see [`crate::check`].
    pub unverified_tables: Vec<String>,
    /// What is wrong with the object's metadata, which only people read.
    pub metadata_warning: Option<String>,
}

/// Why a drill did not find a sound backup.
#[derive(Debug, Error)]
pub enum DrillError {
    /// The store answered and has no backup.
    #[error("no backup is stored in {location}; if there were some, find out who deleted them")]
    NothingStored {
        /// The store.
        location: String,
    },
    /// The newest backup is damaged.
    #[error(
        "backup {key} is damaged; make a new one now, and see with \"simplebackup verify --all\" \
         which are sound"
    )]
    Damaged {
        /// The backup.
        key: BackupKey,
        /// What is wrong with it.
        source: Damage,
    },
    /// The deadline passed.
    #[error("ran out of time during {}; raise verify.timeout", stage.name())]
    OutOfTime {
        /// What was going on.
        stage: Stage,
    },
    /// The store or this machine kept it from being done.
    #[error(transparent)]
    Undone(RestoreError),
}

impl DrillError {
    /// Returns whether the backup is encrypted and no identity is configured: nothing is wrong with it.
    #[must_use]
    pub fn is_closed_to_us(&self) -> bool {
        matches!(self, Self::Undone(RestoreError::NoIdentity { .. }))
    }
}

impl From<RestoreError> for DrillError {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Damaged { key, source } => Self::Damaged { key, source },
            RestoreError::OutOfTime { stage } => Self::OutOfTime { stage },
            other => Self::Undone(other),
        }
    }
}

impl RestoreEngine {
    /// Downloads the newest backup into a private folder beside `database`, checks it as a restore
    /// does, and compares its tables, its rows and its object's metadata with its header.
    ///
    /// # Errors
    ///
    /// Every variant of [`DrillError`]. Other metadata is no error: nothing is restored by it.
    pub async fn drill(
        &self,
        database: &Path,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<Drilled, DrillError> {
        let started = Instant::now();
        let newest = self.newest(deadline, progress).await?;
        let report = match self.drill_one(&newest, database, deadline, progress).await {
            Err(DrillError::Undone(RestoreError::Store(gone))) if gone.fault == Fault::NotFound => {
                // A backup that ran meanwhile has deleted it, and made a newer one.
                let newer = self.newest(deadline, progress).await?;
                if newer.key == newest.key {
                    return Err(RestoreError::Store(gone).into());
                }
                self.drill_one(&newer, database, deadline, progress).await
            }
            drilled => drilled,
        };
        Ok(Drilled { took: started.elapsed(), ..report? })
    }

    async fn newest(
        &self,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<StoredBackup, DrillError> {
        progress.enter(Stage::List, 0);
        let listed = self.store.list(deadline, Patience::FewTries).await;
        let newest = listed.map_err(RestoreError::Store)?.pop();
        let location = || self.store.location().to_owned();
        newest.ok_or_else(|| DrillError::NothingStored { location: location() })
    }

    async fn drill_one(
        &self,
        backup: &StoredBackup,
        database: &Path,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<Drilled, DrillError> {
        let path = database.to_owned();
        let looked = in_background(deadline, Stage::List, move || {
            let target = canonical(&path);
            let disk = Disk::beside_snapshot_of(&target);
            (target, disk)
        });
        let (target, disk) = looked.await?;
        let file = self.fetch_onto(disk, backup, &target, (deadline, progress)).await?;
        let metadata_warning = match &file.manifest {
            // A folder keeps none.
            Some(manifest) if self.store.kind() == StoreKind::S3 => {
                manifest.metadata_fault(&file.metadata, backup.key.form())
            }
            _ => None,
        };
        if let Some(warning) = &metadata_warning {
            tracing::warn!(
                target: LOG,
                key = %backup.key,
                "WARNING: The metadata of {} {warning}; a restore reads the archive alone and does \
                 not mind, people and tools that look at the object may",
                self.store.address(backup.key)
            );
        }
        let (database_bytes, unverified) = (file.bytes(), file.verdict().unverified_tables.clone());
        let tables = file.count_rows(deadline).await?;
        Ok(Drilled {
            key: backup.key,
            ended_at: self.clock.now(),
            database_bytes,
            archive_bytes: backup.archive_bytes,
            counted: Counted::of(&tables),
            took: Duration::ZERO,
            unverified_tables: unverified,
            metadata_warning,
        })
    }
}
