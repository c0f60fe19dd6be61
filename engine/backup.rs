//! One backup, from the live database to the stored object and the end of its surplus.
//!
//! lock → snapshot → check → list → archive and upload → prune → report. Nothing is uploaded
//! that a restore would refuse, nothing is pruned before the new backup is complete. Who may
//! ask for a backup, and when, is not known here.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::archive::{self, Manifest, PIECES_IN_FLIGHT, PackError};
use crate::blocking;
use crate::check::{self, CheckError, Verdict};
use crate::clock::Clock;
use crate::deadline::{Deadline, OutOfTime};
use crate::key::BackupKey;
use crate::progress::{Progress, Stage};
use crate::retention::surplus;
use crate::snapshot::{self, JournalMode, Snapshot, SnapshotError};
use crate::store::{BackupStore, Patience, StoreError, StoredBackup, Uploaded};
use crate::work_dir::{LockError, RunLock, WorkDir, WorkFolder, canonical};
use crate::{LOG, fail_point, text};

/// Whole uploads that are tried, each packed anew from the same snapshot. Single requests are
/// retried by the client before that.
const UPLOAD_TRIES: u32 = 3;

/// The pause between two of them.
const UPLOAD_PAUSE: Duration = Duration::from_secs(1);

/// How far ahead of the clock a backup's name may be before that is worth a warning.
const FUTURE: chrono::TimeDelta = chrono::TimeDelta::minutes(10);

/// A snapshot of a database without a write-ahead log holds its writers up; from here on it is
/// worth a warning.
const WRITERS_WAITED: Duration = Duration::from_secs(1);

/// How long a run waits for locks of the app before it gives up, unless its deadline is nearer.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes backups of one database into one store.
#[derive(Debug, Clone)]
pub struct BackupEngine {
    database: PathBuf,
    store: BackupStore,
    keep: NonZeroUsize,
    busy_timeout: Duration,
    clock: Arc<dyn Clock>,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// Its name.
    pub key: BackupKey,
    /// The size of the snapshot in bytes.
    pub database_bytes: u64,
    /// The size of the stored archive in bytes.
    pub archive_bytes: u64,
    /// When the backup was complete, by the wall clock.
    pub ended_at: DateTime<Utc>,
    /// How long it took from the lock to the report.
    pub took: Duration,
    /// How many backups are stored now.
    pub stored: usize,
    /// How many bytes they take together.
    pub stored_bytes: u64,
    /// The surplus backups that were deleted.
    pub deleted: usize,
    /// Why surplus backups could not be deleted. The backup itself is made.
    pub delete_warning: Option<String>,
    /// Tables whose structure could not be verified; see [`check`].
    pub unverified_tables: Vec<String>,
}

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
    #[error("snapshot refused, nothing uploaded; the database needs repair")]
    Check(#[source] CheckError),
    /// The snapshot could not be packed.
    #[error("archive could not be made from the snapshot")]
    Archive(#[source] PackError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The deadline passed.
    #[error("ran out of time during {}; allow more time", stage.name())]
    OutOfTime {
        /// What was going on.
        stage: Stage,
    },
}

/// What a run owns: dropped by whoever is last to use it, so that neither the lock nor the
/// folder goes while a stopped thread still winds down.
struct Run {
    folder: WorkDir,
    _lock: RunLock,
}

impl BackupEngine {
    /// Prepares backups of `database` into `store`, of which the newest `keep` stay.
    #[must_use]
    pub fn new(
        database: PathBuf,
        store: BackupStore,
        keep: NonZeroUsize,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { database, store, keep, busy_timeout: BUSY_TIMEOUT, clock }
    }

    /// Sets how long a run waits for locks of the app.
    #[must_use]
    pub fn with_busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.busy_timeout = busy_timeout;
        self
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &BackupStore {
        &self.store
    }

    /// Makes one backup.
    ///
    /// # Errors
    ///
    /// Every variant of [`BackupError`]; at the deadline, half a second of cleaning up included.
    pub async fn back_up(
        &self,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<BackupReport, BackupError> {
        let started = Instant::now();
        let run = Arc::new(self.begin(deadline).await?);
        let (snapshot, verdict) = self.make_snapshot(&run, deadline, progress).await?;

        progress.enter(Stage::List, 0);
        let stored = self.store.list(deadline, Patience::FewTries).await?;
        fail_point::reach("backup.listed");
        let newest = stored.last().map(|backup| backup.key);
        self.warn_of_future(newest);
        let key = BackupKey::next(self.clock.now(), newest);

        let archive_bytes = self.upload(&run, &snapshot, key, deadline, progress).await?;
        fail_point::reach("backup.uploaded");
        let ended_at = self.clock.now();
        tracing::info!(target: LOG, key = %key, archive_bytes, "Uploaded to {}", self.store.address(key));

        progress.enter(Stage::Prune, 0);
        let made = StoredBackup { key, archive_bytes, stored_at: ended_at };
        let pruned = self.prune(stored, made, deadline).await;
        Ok(BackupReport {
            key,
            database_bytes: snapshot.bytes,
            archive_bytes,
            ended_at,
            took: started.elapsed(),
            stored: pruned.left.len(),
            stored_bytes: pruned.left.iter().map(|backup| backup.archive_bytes).sum(),
            deleted: pruned.deleted,
            delete_warning: pruned.warning,
            unverified_tables: verdict.unverified_tables,
        })
    }

    /// Backups are named after the newest, so that one with a time far ahead drags all along.
    fn warn_of_future(&self, newest: Option<BackupKey>) {
        if let Some(newest) = newest.filter(|key| key.created_at() > self.clock.now() + FUTURE) {
            tracing::warn!(
                target: LOG,
                "WARNING: The newest backup {newest} is of {}, which is in the future, and later \
                 ones are named after it; check this machine's clock, or delete that backup",
                newest.created_at()
            );
        }
    }

    /// Takes the lock, sweeps what killed runs left, makes the run's folder.
    async fn begin(&self, deadline: Deadline) -> Result<Run, BackupError> {
        let store = self.store.clone();
        let database = self.database.clone();
        let begun = blocking::run(deadline, move |_stop| {
            // A work folder where there is no database yet would be litter in the wrong place.
            if !database.exists() {
                return Err(SnapshotError::Missing { path: database }.into());
            }
            let work = WorkFolder::beside(&canonical(&database));
            let lock = work.lock_run().map_err(|error| match error {
                LockError::Held { holder } => BackupError::InProgress { holder },
                LockError::Io { path, source } => BackupError::WorkFolder { path, source },
            })?;
            let unusable =
                |source| BackupError::WorkFolder { path: work.path().to_owned(), source };
            let folder = work.fresh("backup").map_err(unusable)?;
            if let Err(error) = store.sweep() {
                tracing::warn!(
                    target: LOG,
                    "WARNING: Cannot sweep leftovers in {}: {error}", store.location()
                );
            }
            Ok(Run { folder, _lock: lock })
        });
        begun.await.map_err(|OutOfTime| BackupError::OutOfTime { stage: Stage::Waiting })?
    }

    async fn make_snapshot(
        &self,
        run: &Arc<Run>,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<(Snapshot, Verdict), BackupError> {
        progress.enter(Stage::Snapshot, 0);
        let started = Instant::now();
        let database = self.database.clone();
        let target = run.folder.file("snapshot.db");
        let busy_timeout = self.busy_timeout.min(deadline.remaining());
        let held = Arc::clone(run);
        let taken = blocking::run(deadline, move |stop| {
            let taken = snapshot::take(&canonical(&database), &target, busy_timeout, &stop);
            drop(held);
            taken
        });
        let snapshot = taken
            .await
            .map_err(|OutOfTime| BackupError::OutOfTime { stage: Stage::Snapshot })??;
        tracing::info!(
            target: LOG,
            database_bytes = snapshot.bytes,
            "VACUUM INTO completed: {}", text::size(snapshot.bytes)
        );
        if snapshot.journal_mode == JournalMode::Rollback && started.elapsed() > WRITERS_WAITED {
            tracing::warn!(
                target: LOG,
                "WARNING: The app's writers had to wait {} for the snapshot; \"PRAGMA \
                 journal_mode = WAL\" in the app lets them go on",
                text::seconds(started.elapsed())
            );
        }

        progress.enter(Stage::Check, snapshot.bytes);
        let path = snapshot.path.clone();
        let held = Arc::clone(run);
        let checked = blocking::run(deadline, move |stop| {
            let checked = check::check(&path, &stop);
            drop(held);
            checked
        });
        let verdict = checked
            .await
            .map_err(|OutOfTime| BackupError::OutOfTime { stage: Stage::Check })?
            .map_err(BackupError::Check)?;
        fail_point::reach("backup.checked");
        Ok((snapshot, verdict))
    }

    /// Packs and sends at the same time; a transient failure packs the same snapshot again.
    async fn upload(
        &self,
        run: &Arc<Run>,
        snapshot: &Snapshot,
        key: BackupKey,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<u64, BackupError> {
        let mut attempt = 1;
        loop {
            progress.enter(Stage::Upload, snapshot.bytes);
            match self.upload_once(run, snapshot, key, deadline, progress).await {
                Err(BackupError::Store(error))
                    if error.fault.is_transient() && attempt < UPLOAD_TRIES =>
                {
                    tracing::warn!(
                        target: LOG,
                        attempt,
                        remaining_ms = deadline.remaining().as_millis() as u64,
                        error = %text::chain(&error),
                        "WARNING: {error}; uploading again"
                    );
                    // Out of time shows itself in the next try.
                    let _out_of_time = deadline.limit(tokio::time::sleep(UPLOAD_PAUSE)).await;
                    attempt += 1;
                }
                ended => return ended,
            }
        }
    }

    async fn upload_once(
        &self,
        run: &Arc<Run>,
        snapshot: &Snapshot,
        key: BackupKey,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<u64, BackupError> {
        let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
        let manifest = Manifest {
            database_bytes: snapshot.bytes,
            journal_mode: snapshot.journal_mode,
            owner: snapshot.owner,
        };
        let path = snapshot.path.clone();
        let (held, progress) = (Arc::clone(run), progress.clone());
        let database_bytes = snapshot.bytes;
        let packing = blocking::run(deadline, move |stop| {
            let packed = archive::pack(&path, key, &manifest, &sender, &stop, &progress);
            if let Ok(bytes) = &packed {
                tracing::info!(
                    target: LOG,
                    database_bytes,
                    archive_bytes = bytes,
                    "Compressed to {} ({}% reduction)",
                    text::size(*bytes),
                    text::reduction_percent(database_bytes, *bytes)
                );
            }
            drop(held);
            packed
        });
        let sending = self.store.upload(key, database_bytes, receiver, deadline);
        let (packed, sent) = tokio::join!(packing, sending);
        let late = BackupError::OutOfTime { stage: Stage::Upload };
        match (sent?, packed) {
            (Uploaded::Complete, Ok(Ok(bytes))) => Ok(bytes),
            (_, Err(OutOfTime)) => Err(late),
            (_, Ok(Err(error))) => Err(BackupError::Archive(error)),
            (Uploaded::Abandoned, Ok(Ok(_))) => Err(BackupError::Archive(PackError::Abandoned)),
        }
    }

    async fn prune(
        &self,
        mut left: Vec<StoredBackup>,
        made: StoredBackup,
        deadline: Deadline,
    ) -> Pruned {
        left.push(made);
        let keys: Vec<_> = left.iter().map(|backup| backup.key).collect();
        let surplus = surplus(&keys, self.keep);
        if surplus.is_empty() {
            return Pruned { left, deleted: 0, warning: None };
        }
        let refused = self.store.delete(&surplus, deadline).await;
        let is_refused = |key| refused.iter().any(|(refused, _)| *refused == key);
        left.retain(|backup| !surplus.contains(&backup.key) || is_refused(backup.key));
        let deleted = surplus.len() - refused.len();
        let warning = refused.first().map(|(_, error)| text::chain(error));
        if deleted > 0 {
            tracing::info!(
                target: LOG,
                deleted,
                "Cleanup: keeping {} most recent backups, deleted {deleted} old backup{}",
                self.keep,
                if deleted == 1 { "" } else { "s" }
            );
        }
        if let Some(error) = &warning {
            tracing::warn!(
                target: LOG,
                error,
                "WARNING: Cleanup failed, {} surplus backups stay stored: {error}", refused.len()
            );
        }
        Pruned { left, deleted, warning }
    }
}

struct Pruned {
    left: Vec<StoredBackup>,
    deleted: usize,
    warning: Option<String>,
}
