//! The way back: from the newest stored backup to a database at its path.
//!
//! list → download and unpack → check → sidecars aside → fsync, rename, fsync. The database's
//! path holds nothing until the checked file takes it in one step. Only this module can make a
//! [`Restored`], the proof without which no app starts.

mod by_hand;
mod drill;
mod error;
mod fetch;
mod plan;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

pub use self::drill::{DrillError, Drilled};
pub use self::error::{Damage, RestoreError};
pub use self::fetch::CheckedFile;
pub use self::plan::Plan;
use crate::archive;
use crate::blocking;
use crate::clock::Clock;
use crate::deadline::{Deadline, OutOfTime};
use crate::encryption::Identities;
use crate::key::BackupKey;
use crate::lease::{Lease, Standing};
pub use crate::placement::Existing;
use crate::placement::{self, PlaceError};
use crate::progress::{Progress, Stage};
use crate::snapshot;
use crate::store::{BackupStore, Patience, StoredBackup, Suspension};
use crate::work_dir::{WorkFolder, canonical};
use crate::{LOG, fail_point, text};

/// How long the release of the lease may take after a restore that failed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// Those backups, oldest first.
    pub backups: Arc<[StoredBackup]>,
    /// Tables whose structure could not be verified; see [`crate::check`].
    pub unverified_tables: Vec<String>,
    /// Where a former database was moved that had to make room.
    pub replaced: Option<PathBuf>,
    /// Whether and why nothing is deleted: the newest backup may be of an emptied database.
    pub suspension: Option<Suspension>,
}

/// Restores backups of one store.
#[derive(Debug, Clone)]
pub struct RestoreEngine {
    store: BackupStore,
    lease: Option<Lease>,
    /// What opens encrypted backups.
    identities: Option<Identities>,
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
        Self { store, lease: None, identities: None, clock }
    }

    /// Has the restore at the start take the lease first.
    #[must_use]
    pub fn with_lease(mut self, lease: Option<Lease>) -> Self {
        self.lease = lease;
        self
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
        self.take_lease(exists, deadline).await?;
        if exists {
            return Ok(Restored { outcome: Outcome::AlreadyThere });
        }
        let restored = self.restore_newest(database, target, fallback, deadline, progress).await;
        if restored.is_err() {
            self.give_lease_back().await;
        }
        let mut outcome = restored?;
        if let Outcome::FromBackup(report) = &mut outcome {
            report.took = started.elapsed();
            tracing::info!(
                target: LOG,
                key = %report.key,
                took_ms = report.took.as_millis() as u64,
                "Restore completed in {}", text::seconds(report.took)
            );
        }
        Ok(Restored { outcome })
    }

    /// Takes the lease, if there is one. A database that is there does not wait for a store that
    /// is down: each backup asks again where it belongs.
    async fn take_lease(&self, has_database: bool, deadline: Deadline) -> Result<(), RestoreError> {
        let Some(lease) = &self.lease else { return Ok(()) };
        match lease.acquire(has_database, deadline).await {
            Ok(Standing::Line) => Ok(()),
            Ok(Standing::Fork(fork)) => {
                tracing::error!(
                    target: LOG,
                    "ERROR: The backups have gone on without this disk: instance {} took the lease \
                     at {}; backups of this database go beside theirs, to forks/{}/; to join them, \
                     stop, move the database away and start again",
                    fork.holder, text::moment(fork.since), fork.instance
                );
                Ok(())
            }
            Err(error) if has_database && error.is_of_the_store() => {
                tracing::warn!(
                    target: LOG,
                    error = %text::chain(&error),
                    "WARNING: The lease cannot be taken now: {}", text::chain(&error)
                );
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A start that came to nothing must not keep the next one waiting.
    async fn give_lease_back(&self) {
        let Some(lease) = &self.lease else { return };
        if let Err(error) = lease.give_back(Deadline::after(RELEASE_TIMEOUT)).await {
            tracing::warn!(
                target: LOG,
                error = %text::chain(&error),
                "WARNING: The lease cannot be given back: {}", text::chain(&error)
            );
        }
    }

    async fn restore_newest(
        &self,
        database: &Path,
        target: PathBuf,
        fallback: Fallback,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<Outcome, RestoreError> {
        tracing::info!(target: LOG, "Local database not found at {}", database.display());
        tracing::info!(
            target: LOG,
            "Listing backups from {}: {}", self.store.kind().short_name(), self.store.location()
        );
        progress.enter(Stage::List, 0);
        let inventory = self.store.inventory(deadline, Patience::UntilDeadline).await?;
        fail_point::reach("restore.listed");
        let stored = inventory.backups;
        let Some(newest) = stored.last() else {
            tracing::warn!(
                target: LOG,
                "No backups found in {} at {}", self.store.kind().name(), self.store.location()
            );
            tracing::info!(
                target: LOG,
                "Starting with fresh database, first backup will run in next hour"
            );
            return Ok(Outcome::NothingStored);
        };
        tracing::info!(
            target: LOG,
            key = %newest.key,
            "Found {} backup{}, selecting latest: {}",
            stored.len(), if stored.len() == 1 { "" } else { "s" }, newest.key
        );
        if let Some(suspension) = &inventory.suspension {
            tracing::warn!(
                target: LOG,
                "WARNING: The newest backup may be of an emptied database, nothing is deleted \
                 since {}: {}; see \"simplebackup list\"",
                text::moment(suspension.since),
                suspension.reason
            );
        }
        let (backup, file) =
            self.fetch_newest(&stored, &target, fallback, deadline, progress).await?;
        progress.enter(Stage::Place, 0);
        let mut report = report(&backup, &stored, &file);
        report.suspension = inventory.suspension;
        let now = self.clock.now().timestamp();
        in_background(deadline, Stage::Place, move || finish(file, &target, Existing::Refuse, now))
            .await??;
        Ok(Outcome::FromBackup(report))
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
        backups: stored.into(),
        unverified_tables: file.verdict.unverified_tables.clone(),
        replaced: None,
        suspension: None,
    }
}

fn work_folder(target: &Path, source: std::io::Error) -> RestoreError {
    RestoreError::WorkFolder { path: WorkFolder::beside(target).path().to_owned(), source }
}
