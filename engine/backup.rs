//! One backup, from the live database to the stored object and the end of its surplus.
//!
//! lock → snapshot and list → compare → archive and upload → prune → report, and beside everything
//! after the snapshot its check. Nothing becomes visible that a restore would refuse: the upload is
//! completed after the check has passed. Nothing is pruned before the new backup is complete, nor
//! while it looks as if the database had been emptied. Who may ask for a backup, and when, is not
//! known here.

mod compare;
mod error;
mod inspect;
mod memory;
mod prune;
mod run;
mod upload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

pub use self::error::BackupError;
use self::inspect::Inspection;
use self::memory::{Memory, Seen};
pub use self::prune::Pruned;
use self::run::Run;
use self::upload::Archive;
use crate::blocking::{CLEAN_UP, Priority, Stop};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::encryption::{Identities, Recipients};
use crate::key::{BackupKey, Form};
use crate::lease::{Fork, Lease, Standing};
use crate::manifest::Contents;
use crate::progress::{Progress, Stage};
use crate::retention::Retention;
use crate::snapshot::Snapshot;
use crate::store::{BackupStore, StoredBackup, Suspension};
use crate::{LOG, fail_point, text};

/// How far ahead of the clock a backup's name may be before that is worth a warning.
pub(crate) const FUTURE: chrono::TimeDelta = chrono::TimeDelta::minutes(10);

/// How long a run waits for locks of the app before it gives up, unless its deadline is nearer.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes backups of one database into one store.
#[derive(Debug, Clone)]
pub struct BackupEngine {
    database: PathBuf,
    store: BackupStore,
    retention: Retention,
    busy_timeout: Duration,
    unchanged: Unchanged,
    priority: Priority,
    lease: Option<Lease>,
    /// For whom backups are encrypted; nothing for everybody.
    recipients: Option<Recipients>,
    /// What opens the backup before, to compare with it.
    identities: Option<Identities>,
    clock: Arc<dyn Clock>,
    /// Shared by all clones: what the last run of this process stored.
    memory: Arc<Memory>,
}

/// What a run does about a database that equals its newest stored backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unchanged {
    /// Upload it all the same.
    #[default]
    Upload,
    /// Upload nothing; the run counts as a success.
    Skip,
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
    /// Those backups, oldest first, as the run's one list and its own deeds have it.
    pub backups: Arc<[StoredBackup]>,
    /// The surplus backups that were deleted.
    pub deleted: usize,
    /// Why surplus backups could not be deleted. The backup itself is made.
    pub delete_warning: Option<String>,
    /// Why nothing is deleted at all, for now.
    pub suspension: Option<Suspension>,
    /// Whether nothing was uploaded, because the newest backup holds the same.
    pub is_unchanged: bool,
    /// Why the backup lies beside the line of backups, under `forks/`.
    pub fork: Option<Fork>,
    /// What the database holds.
    pub contents: Contents,
    /// Tables whose structure could not be verified; see [`crate::check`].
    pub unverified_tables: Vec<String>,
}

impl BackupEngine {
    /// Prepares backups of `database` into `store`.
    #[must_use]
    pub fn new(
        database: PathBuf,
        store: BackupStore,
        retention: Retention,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            database,
            store,
            retention,
            busy_timeout: BUSY_TIMEOUT,
            unchanged: Unchanged::default(),
            priority: Priority::default(),
            lease: None,
            recipients: None,
            identities: None,
            clock,
            memory: Arc::default(),
        }
    }

    /// Sets how long a run waits for locks of the app.
    #[must_use]
    pub fn with_busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.busy_timeout = busy_timeout;
        self
    }

    /// Sets what a run does about a database that has not changed.
    #[must_use]
    pub fn with_unchanged(mut self, unchanged: Unchanged) -> Self {
        self.unchanged = unchanged;
        self
    }

    /// Sets how much of a processor a run gets that the app wants too.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Lets the lease say where each backup belongs.
    #[must_use]
    pub fn with_lease(mut self, lease: Option<Lease>) -> Self {
        self.lease = lease;
        self
    }

    /// Returns the path of the database, as it was configured.
    #[must_use]
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// Encrypts each backup for these recipients.
    #[must_use]
    pub fn with_recipients(mut self, recipients: Option<Recipients>) -> Self {
        self.recipients = recipients;
        self
    }

    /// Lets a run look into encrypted backups before its own.
    #[must_use]
    pub fn with_identities(mut self, identities: Option<Identities>) -> Self {
        self.identities = identities;
        self
    }

    /// Returns the lease, if there is one.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &BackupStore {
        &self.store
    }

    /// Returns where backups lie that belong into the line, or beside it.
    #[must_use]
    pub fn place_of(&self, fork: Option<&Fork>) -> BackupStore {
        fork.map_or_else(|| self.store.clone(), |fork| self.store.fork(&fork.instance))
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
        let made = Box::pin(self.back_up_in(&run, deadline, progress)).await;
        if made.is_err() {
            run.end_ahead().await;
        }
        Ok(BackupReport { took: started.elapsed(), ..made? })
    }

    async fn back_up_in(
        &self,
        run: &Arc<Run>,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<BackupReport, BackupError> {
        let (reports, inspection) = Inspection::channel();
        let unwanted = Stop::default();
        let making = self.make(run, (reports, &inspection), &unwanted, deadline, progress);
        // Who loses a lease meanwhile stores elsewhere: with one the store is asked afterwards.
        let is_early = self.lease.is_none();
        let early = async { if is_early { Some(self.look(deadline).await) } else { None } };
        let beginning = async { tokio::join!(inspection.snapshot(), early) };
        tokio::pin!(making, beginning);
        let mut checked = None;
        let (snapshot, early) = loop {
            tokio::select! {
                begun = &mut beginning => break begun,
                // Without a snapshot nobody waits for the list; a sound one may come before it.
                made = &mut making, if checked.is_none() => checked = Some(made?),
            }
        };
        let checking =
            async { if let Some(verdict) = checked { Ok(verdict) } else { making.await } };
        let early = match early.transpose() {
            Ok(early) => early,
            Err(error) => {
                // Nor does anybody wait for the check of what can't be stored, but for its end.
                unwanted.set();
                let _ended_or_not = tokio::time::timeout(CLEAN_UP, checking).await;
                return Err(error);
            }
        };
        let made = (run, &*snapshot);
        let storing = self.place_and_store(made, early, &inspection, (deadline, progress));
        let (checked, stored) = tokio::join!(checking, storing);
        // First of all: a snapshot that is refused is why it could not be stored.
        let unverified_tables = checked?.unverified_tables;
        Ok(BackupReport { unverified_tables, ..stored? })
    }

    /// Stores the snapshot in the line, or beside it.
    async fn place_and_store(
        &self,
        made: (&Arc<Run>, &Snapshot),
        early: Option<Seen>,
        inspection: &Inspection,
        (deadline, progress): (Deadline, &Progress),
    ) -> Result<BackupReport, BackupError> {
        progress.enter(Stage::List, 0);
        let Some(fork) = self.fork(deadline).await? else {
            return self.store_snapshot(made, early, inspection, (deadline, progress)).await;
        };
        let beside = Self { store: self.place_of(Some(&fork)), ..self.clone() };
        tracing::error!(
            target: LOG,
            "ERROR: Instance {} has the lease since {}, so this backup goes beside the line, to {}; \
             stop one of the two instances, see \"Rolling deploys\" in the README",
            fork.holder,
            text::moment(fork.since),
            beside.store.location()
        );
        let report = beside.store_snapshot(made, None, inspection, (deadline, progress)).await?;
        Ok(BackupReport { fork: Some(fork), ..report })
    }

    /// Returns why a backup does not belong into the line now, if so.
    ///
    /// # Errors
    ///
    /// When the lease cannot be read.
    pub async fn fork(&self, deadline: Deadline) -> Result<Option<Fork>, BackupError> {
        let Some(lease) = &self.lease else { return Ok(None) };
        Ok(match lease.standing(deadline).await? {
            Standing::Line => None,
            Standing::Fork(fork) => Some(fork),
        })
    }

    /// Compares, uploads, prunes.
    async fn store_snapshot(
        &self,
        (run, snapshot): (&Arc<Run>, &Snapshot),
        early: Option<Seen>,
        inspection: &Inspection,
        (deadline, progress): (Deadline, &Progress),
    ) -> Result<BackupReport, BackupError> {
        let looking =
            async { if let Some(seen) = early { Ok(seen) } else { self.look(deadline).await } };
        let (seen, described) =
            tokio::join!(looking, self.describe(run, (snapshot, inspection), deadline));
        let (Seen { inventory, before }, mut manifest) = (seen?, described?);
        fail_point::reach("backup.listed");
        let newest = inventory.backups.last().map(|backup| backup.key);
        self.warn_of_future(newest);
        self.warn_of_plain_after(newest);
        manifest.uncompared_with = before.unread().map(BackupKey::timestamp);
        let contents = manifest.contents.clone().unwrap_or_default();
        // First of all: a mark that comes too late is one that a kill can prevent.
        let suspension = self
            .suspend_after_loss(&before, &manifest, inventory.suspension, inspection, deadline)
            .await?;
        let same = match self.unchanged {
            Unchanged::Skip => before.same_as(&manifest, newest),
            Unchanged::Upload => None,
        };
        let is_unchanged = same.is_some();
        let made = if let Some(same) = same {
            inspection.passed().await?;
            tracing::info!(
                target: LOG,
                key = %same.key,
                "Database unchanged since {}, nothing uploaded", same.key
            );
            same
        } else {
            let key = self.next_key(newest)?;
            let archive = Archive { snapshot, manifest: &manifest, key };
            let archive_bytes = self.upload(run, &archive, inspection, deadline, progress).await?;
            fail_point::reach("backup.uploaded");
            StoredBackup { key, archive_bytes, stored_at: self.clock.now() }
        };
        let ended_at = self.clock.now();
        self.keep_in_mind(run, &made, &manifest, deadline).await;
        self.memory.remember(&made, manifest);

        progress.enter(Stage::Prune, 0);
        let mut stored = inventory.backups;
        if !is_unchanged {
            stored.push(made.clone());
        }
        let pruning = self.prune_if_safe(stored, suspension.as_ref(), &before, deadline);
        // Whatever is left of it goes with the folder, and is told of there.
        let (pruned, _left) = tokio::join!(pruning, self.remove(run, snapshot, deadline));
        Ok(BackupReport {
            key: made.key,
            database_bytes: snapshot.bytes,
            archive_bytes: made.archive_bytes,
            ended_at,
            took: Duration::ZERO,
            stored: pruned.left.len(),
            stored_bytes: pruned.left.iter().map(|backup| backup.archive_bytes).sum(),
            backups: pruned.left.into(),
            deleted: pruned.deleted.len(),
            delete_warning: pruned.warning,
            suspension,
            is_unchanged,
            contents,
            fork: None,
            unverified_tables: Vec::new(),
        })
    }

    /// Returns the name of a backup that is made now.
    fn next_key(&self, newest: Option<BackupKey>) -> Result<BackupKey, BackupError> {
        let form = if self.recipients.is_some() { Form::Encrypted } else { Form::Plain };
        BackupKey::next(self.clock.now(), newest, form).ok_or(BackupError::NoLaterName)
    }
}
