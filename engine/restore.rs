//! The way back: from the newest stored backup to a database at its path.
//!
//! list → download and unpack → check → sidecars aside → fsync, rename, fsync. The database's
//! path holds nothing until the checked file takes it in one step. Only this module can make a
//! [`Restored`], the proof without which no app starts.

mod error;
mod fetch;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

pub use self::error::{Damage, RestoreError};
pub use self::fetch::CheckedFile;
use crate::archive;
use crate::blocking;
use crate::clock::Clock;
use crate::deadline::{Deadline, OutOfTime};
use crate::key::BackupKey;
pub use crate::placement::Existing;
use crate::placement::{self, PlaceError};
use crate::progress::{Progress, Stage};
use crate::snapshot;
use crate::store::{BackupStore, Patience, StoredBackup};
use crate::work_dir::{WorkFolder, canonical};
use crate::{LOG, fail_point, text};

/// What a restore does about a newest backup that is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fallback {
    /// Refuse: an administrator has to look. The default, as the specification wants it.
    #[default]
    Refuse,
    /// Take the next older one, and say so.
    NextOlder,
}

/// The proof that the database's path was dealt with. Made by this module only.
#[derive(Debug)]
pub struct Restored {
    outcome: Outcome,
}

/// What a restore came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Backups are switched off: the path was not looked at.
    Disabled,
    /// A database was there, and was not touched.
    AlreadyThere,
    /// The store answered and has no backup: the app starts fresh.
    NothingStored,
    /// A backup was restored.
    FromBackup(RestoreReport),
}

/// A restore that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    /// The backup.
    pub key: BackupKey,
    /// When it was made; see [`StoredBackup::made_at`].
    pub made_at: DateTime<Utc>,
    /// The size of the database in bytes.
    pub database_bytes: u64,
    /// The size of the archive in bytes.
    pub archive_bytes: u64,
    /// From the list to the rename.
    pub took: Duration,
    /// How many backups are stored.
    pub stored: usize,
    /// How many bytes they take together.
    pub stored_bytes: u64,
    /// Tables whose structure could not be verified; see [`crate::check`].
    pub unverified_tables: Vec<String>,
    /// Where a former database was moved that had to make room.
    pub replaced: Option<PathBuf>,
}

/// Restores backups of one store.
#[derive(Debug, Clone)]
pub struct RestoreEngine {
    store: BackupStore,
    clock: Arc<dyn Clock>,
}

impl Restored {
    /// The proof for a service whose backups are switched off: it has nothing to restore.
    #[must_use]
    pub fn disabled() -> Self {
        Self { outcome: Outcome::Disabled }
    }

    /// Returns what the restore came to.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}

impl RestoreEngine {
    /// Prepares restores from `store`.
    #[must_use]
    pub fn new(store: BackupStore, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &BackupStore {
        &self.store
    }

    /// Restores the newest backup if there is nothing at `database`, without a call to the store
    /// if there is.
    pub async fn restore_if_missing(
        &self,
        database: &Path,
        fallback: Fallback,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<Restored, RestoreError> {
        let started = Instant::now();
        let path = database.to_owned();
        let looked = in_background(deadline, Stage::List, move || {
            let (target, exists) = look(&path);
            if exists {
                warn_of_useless(&target);
            }
            (target, exists)
        });
        let (target, exists) = looked.await?;
        if exists {
            return Ok(Restored { outcome: Outcome::AlreadyThere });
        }
        tracing::info!(target: LOG, "Local database not found at {}", database.display());
        tracing::info!(
            target: LOG,
            "Listing backups from {}: {}", self.store.kind().short_name(), self.store.location()
        );
        progress.enter(Stage::List, 0);
        let stored = self.store.list(deadline, Patience::UntilDeadline).await?;
        fail_point::reach("restore.listed");
        let Some(newest) = stored.last() else {
            tracing::warn!(
                target: LOG,
                "No backups found in {} at {}", self.store.kind().name(), self.store.location()
            );
            tracing::info!(
                target: LOG,
                "Starting with fresh database, first backup will run in next hour"
            );
            return Ok(Restored { outcome: Outcome::NothingStored });
        };
        tracing::info!(
            target: LOG,
            key = %newest.key,
            "Found {} backup{}, selecting latest: {}",
            stored.len(), if stored.len() == 1 { "" } else { "s" }, newest.key
        );
        let (backup, file) =
            self.fetch_newest(&stored, &target, fallback, deadline, progress).await?;
        progress.enter(Stage::Place, 0);
        let mut report = report(&backup, &stored, &file);
        let now = self.clock.now().timestamp();
        in_background(deadline, Stage::Place, move || finish(file, &target, Existing::Refuse, now))
            .await??;
        report.took = started.elapsed();
        tracing::info!(
            target: LOG,
            key = %report.key,
            took_ms = report.took.as_millis() as u64,
            "Restore completed in {}", text::seconds(report.took)
        );
        Ok(Restored { outcome: Outcome::FromBackup(report) })
    }

    /// Downloads, unpacks and checks the newest backup, or with [`Fallback::NextOlder`] the
    /// newest that is sound.
    async fn fetch_newest(
        &self,
        stored: &[StoredBackup],
        target: &Path,
        fallback: Fallback,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<(StoredBackup, CheckedFile), RestoreError> {
        let mut first_damage = None;
        for backup in stored.iter().rev() {
            match self.fetch(backup, target, deadline, progress).await {
                Ok(file) => return Ok((backup.clone(), file)),
                Err(error @ RestoreError::Damaged { .. }) if fallback == Fallback::NextOlder => {
                    tracing::error!(
                        target: LOG,
                        key = %backup.key,
                        error = %text::chain(&error),
                        "ERROR: {}; trying the next older one", text::chain(&error)
                    );
                    first_damage.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(first_damage.expect("the list is not empty, so each backup was damaged"))
    }

    /// Restores `backup` to `target` by hand: refuses to replace a database unless told to, and
    /// then moves it aside, with its log, instead of deleting it.
    pub async fn restore_to(
        &self,
        backup: &StoredBackup,
        target: &Path,
        existing: Existing,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<RestoreReport, RestoreError> {
        let started = Instant::now();
        let path = target.to_owned();
        let (target, exists, _guard) = in_background(deadline, Stage::List, move || {
            let (target, exists) = look(&path);
            if exists && existing == Existing::Refuse {
                return Err(RestoreError::TargetExists(target));
            }
            let metadata = fs::metadata(&target).ok();
            if let Some(what) = metadata.and_then(|found| snapshot::other_than_file(&found)) {
                return Err(RestoreError::NotAFile { path: target, what });
            }
            let is_guarded = exists || WorkFolder::beside(&target).path().exists();
            let guard = is_guarded.then(|| guard_target(&target)).transpose()?;
            Ok((target, exists, guard))
        })
        .await??;
        let file = self.fetch(backup, &target, deadline, progress).await?;
        progress.enter(Stage::Place, 0);
        let mut report = report(backup, std::slice::from_ref(backup), &file);
        let now = self.clock.now().timestamp();
        report.replaced = in_background(deadline, Stage::Place, move || {
            // Anew: a program may have opened it during the download.
            if exists {
                refuse_if_in_use(&target)?;
            }
            // What appeared meanwhile is nobody's to move aside: its service may run already.
            let existing = if exists { existing } else { Existing::Refuse };
            finish(file, &target, existing, now)
        })
        .await??;
        report.took = started.elapsed();
        Ok(report)
    }
}

/// Gives the file its owner and its place, then lets its folder go. Returns where a former
/// database is now.
fn finish(
    file: CheckedFile,
    target: &Path,
    existing: Existing,
    now: i64,
) -> Result<Option<PathBuf>, RestoreError> {
    if let Some(manifest) = &file.manifest {
        archive::apply_owner(&file.path, manifest.owner).map_err(|source| PlaceError::Io {
            operation: "change of owner or mode of",
            path: file.path.clone(),
            source,
        })?;
    }
    let room = placement::place(&file.path, target, existing, now)?;
    for aside in &room.stale {
        tracing::warn!(
            target: LOG,
            "WARNING: A file of a former database was moved aside to {}", aside.display()
        );
    }
    drop(file.folder);
    Ok(room.replaced)
}

/// Returns the one true path of a database and whether something is there. Sweeps what a killed
/// restore left beside it: nobody else may look for it now.
fn look(database: &Path) -> (PathBuf, bool) {
    let target = canonical(database);
    let exists = fs::symlink_metadata(&target).is_ok();
    if let Err(error) = WorkFolder::beside(&target).sweep() {
        tracing::warn!(
            target: LOG,
            "WARNING: Cannot sweep leftovers in {}: {error}",
            WorkFolder::beside(&target).path().display()
        );
    }
    (target, exists)
}

/// Says what a backup would fail at later: something is there, so nothing is restored, but it is
/// no database yet.
fn warn_of_useless(target: &Path) {
    // Err: a link to nothing, or a file that we may not see, which the first backup tells.
    let Ok(metadata) = fs::metadata(target) else { return };
    let is_empty = || snapshot::is_empty(target, &metadata).then_some("an empty file");
    if let Some(what) = snapshot::other_than_file(&metadata).or_else(is_empty) {
        tracing::warn!(
            target: LOG,
            "WARNING: {} is {what}, so nothing is restored; if a backup should be, stop, move it \
             away and start again", target.display()
        );
    }
}

/// Makes sure that nobody uses the database that is about to be replaced.
fn guard_target(target: &Path) -> Result<crate::work_dir::ServiceLock, RestoreError> {
    use crate::work_dir::LockError;

    let work = WorkFolder::beside(target);
    let lock = work.lock_service().map_err(|error| match error {
        LockError::Held { holder } => RestoreError::InUse {
            path: target.to_owned(),
            holder: format!("simplebackup, {holder}"),
        },
        LockError::Io { path, source } => RestoreError::WorkFolder { path, source },
    })?;
    refuse_if_in_use(target)?;
    Ok(lock)
}

fn refuse_if_in_use(target: &Path) -> Result<(), RestoreError> {
    if crate::sqlite::is_in_use(target) {
        let holder = "another program".to_owned();
        return Err(RestoreError::InUse { path: target.to_owned(), holder });
    }
    Ok(())
}

async fn in_background<T: Send + 'static>(
    deadline: Deadline,
    stage: Stage,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RestoreError> {
    let done = blocking::run(deadline, move |_stop| work());
    done.await.map_err(|OutOfTime| RestoreError::OutOfTime { stage })
}

fn report(backup: &StoredBackup, stored: &[StoredBackup], file: &CheckedFile) -> RestoreReport {
    RestoreReport {
        key: backup.key,
        made_at: backup.made_at(),
        database_bytes: file.bytes,
        archive_bytes: backup.archive_bytes,
        took: Duration::ZERO,
        stored: stored.len(),
        stored_bytes: stored.iter().map(|backup| backup.archive_bytes).sum(),
        unverified_tables: file.verdict.unverified_tables.clone(),
        replaced: None,
    }
}

fn work_folder(target: &Path, source: std::io::Error) -> RestoreError {
    RestoreError::WorkFolder { path: WorkFolder::beside(target).path().to_owned(), source }
}
