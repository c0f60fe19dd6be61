//! The lease: which of several instances may add to the line of backups under a prefix.
//!
//! One small object, `lease.json`, taken by a conditional write at the start and released by
//! another after the final backup; nothing renews it in between. A new instance that finds it held
//! waits for that release and then restores the final backup. Past the wait it takes the lease
//! over, and the old one, fenced, stores its further backups under `forks/{instance}/`: nothing is
//! lost, and nothing of the new line is superseded (`docs/decisions/0015`).
//!
//! That an instance has had the lease stands in its work folder too: one that comes back on a disk
//! from which the line has moved on since is fenced as well, however it lost the lease.

mod error;
mod tenure;
mod waiting;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};

pub use error::LeaseError;
pub use tenure::Tenure;
use waiting::Waiting;

use crate::LOG;
use crate::blocking;
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::instance::Instance;
use crate::store::{BackupStore, Condition, Fault, Patience, Record, StoreKind, Version, Written};
use crate::work_dir::{WorkFolder, canonical};

/// The name of the lease under the prefix.
const NAME: &str = "lease.json";

/// The name of the file in the work folder that says: this disk has held the lease.
const HELD: &str = "lease-held";

/// How long a store that does not answer keeps an app waiting whose database is there.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after a write that was refused.
const AFTER_REFUSAL: Duration = Duration::from_millis(500);

/// Takes, checks and releases the lease of one database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lease {
    store: BackupStore,
    database: PathBuf,
    wait: Duration,
    clock: Arc<dyn Clock>,
    /// Shared by all clones.
    doings: Arc<Mutex<Doings>>,
}

/// What this process has done about the lease.
#[derive(Debug, Default)]
struct Doings {
    /// Whether it wants the lease: a service does, until it leaves; a command never.
    wants_it: bool,
    /// Its tenure, once the store has said that it is written.
    ours: Option<Tenure>,
    /// The tenure of somebody who had not released it.
    taken_from: Option<Tenure>,
}

/// A lease object that was read.
struct Found {
    tenure: Tenure,
    record: Record,
}

/// Who we are, and whether the database on our disk was ever the one of the line.
#[derive(Debug, Clone)]
struct Identity {
    instance: Instance,
    has_held: bool,
}

/// Where the backups of an instance belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// In the line of backups under the prefix.
    Line,
    /// Beside it.
    Fork(Fork),
}

/// Why the backups of an instance lie beside the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// Us.
    pub instance: Instance,
    /// Who took the lease.
    pub holder: Instance,
    /// When.
    pub since: DateTime<Utc>,
}

impl Lease {
    /// Prepares the lease of the backups of `database` in `store`; one that another instance
    /// holds is waited for at most `wait`.
    #[must_use]
    pub fn new(
        store: BackupStore,
        database: PathBuf,
        wait: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { store, database, wait, clock, doings: Arc::default() }
    }

    /// Takes the lease, as soon as nobody else holds it or the wait is over.
    ///
    /// `has_database` says whether there is one on this disk already: if the line of backups has
    /// moved on without this disk, its database is a fork, and the lease is left alone.
    ///
    /// # Errors
    ///
    /// [`LeaseError::Unsupported`] for a store that does not obey conditions, before anything that
    /// belongs to someone else is changed.
    pub async fn acquire(
        &self,
        has_database: bool,
        deadline: Deadline,
    ) -> Result<Standing, LeaseError> {
        if self.store.kind() == StoreKind::Folder {
            return Err(self.unsupported("is a folder, which has no conditional writes"));
        }
        // An app whose database is there does not stand still for long because of its backups.
        let patience = if has_database { Patience::FewTries } else { Patience::UntilDeadline };
        self.doings().wants_it = true;
        let me = self.identity(deadline).await?;
        let mut waiting = Waiting::of(self.wait);
        loop {
            let asking = Deadline::after(ASK_TIMEOUT).min(deadline);
            let asking = if has_database { asking } else { deadline };
            let found = self.read(patience, asking).await?;
            if let Some(Found { tenure, .. }) = &found {
                let fork = self.fork(&me, tenure).filter(|_| has_database && me.has_held);
                if let Some(fork) = fork {
                    return Ok(Standing::Fork(fork));
                }
                let is_ours = tenure.holder == me.instance;
                let is_free = is_ours || tenure.released_at.is_some();
                if !is_free && waiting.goes_on(tenure, deadline).await? {
                    continue;
                }
                if !is_free {
                    self.warn_of_takeover(tenure);
                }
            }
            if self.take(&me, found, (patience, deadline)).await? == Written::Done {
                tracing::info!(target: LOG, "Lease taken by instance {}", me.instance);
                return Ok(Standing::Line);
            }
            // Somebody was faster, or an answer was lost: the next look tells.
            deadline.limit(tokio::time::sleep(AFTER_REFUSAL)).await?;
        }
    }

    /// Returns where a backup belongs now. One request; to be asked right before the upload.
    ///
    /// A service whose start could not take the lease takes it now, if it is free.
    pub async fn standing(&self, deadline: Deadline) -> Result<Standing, LeaseError> {
        let me = self.identity(deadline).await?;
        let found = self.read(Patience::FewTries, deadline).await?;
        if let Some(fork) = found.as_ref().and_then(|found| self.fork(&me, &found.tenure)) {
            return Ok(Standing::Fork(fork));
        }
        let is_ours = |found: &Found| found.tenure.is_held_by(&me.instance);
        if self.doings().wants_it && !found.as_ref().is_some_and(is_ours) {
            // Refused: somebody was faster, and the next backup sees who.
            let _taken_or_not = self.take(&me, found, (Patience::FewTries, deadline)).await?;
        }
        Ok(Standing::Line)
    }

    /// Releases the lease if it is ours: whoever waits for it may go on.
    pub async fn release(&self, deadline: Deadline) -> Result<(), LeaseError> {
        self.leave(None, deadline).await
    }

    /// Gives the lease back if it is ours: a start that came to nothing leaves it to whom it was
    /// taken from, who may still run, else to whoever comes.
    pub async fn give_back(&self, deadline: Deadline) -> Result<(), LeaseError> {
        let taken_from = self.doings().taken_from.take();
        self.leave(taken_from, deadline).await
    }

    async fn leave(&self, to: Option<Tenure>, deadline: Deadline) -> Result<(), LeaseError> {
        self.doings().wants_it = false;
        let me = self.identity(deadline).await?;
        let Some(found) = self.read(Patience::FewTries, deadline).await? else { return Ok(()) };
        if !found.tenure.is_held_by(&me.instance) {
            return Ok(());
        }
        let released = || Tenure { released_at: Some(self.clock.now()), ..found.tenure.clone() };
        let tenure = to.unwrap_or_else(released);
        let condition = Condition::Unchanged(found.record.version);
        match self.write(&tenure, condition, (Patience::FewTries, deadline)).await? {
            Written::Done => tracing::info!(
                target: LOG,
                "Lease {} by instance {}",
                if tenure.holder == me.instance { "released" } else { "given back" },
                me.instance
            ),
            // Somebody has taken it over: it is not ours to leave any more.
            Written::Refused => {}
        }
        Ok(())
    }

    /// Writes our tenure where that of somebody else, an old one of ours, or none was found.
    async fn take(
        &self,
        me: &Identity,
        found: Option<Found>,
        patience: (Patience, Deadline),
    ) -> Result<Written, LeaseError> {
        if !self.doings().wants_it {
            // The service stops meanwhile.
            return Ok(Written::Refused);
        }
        let (_, deadline) = patience;
        // Before the write: a disk that has held the lease must know it.
        self.in_work_folder(deadline, |folder| folder.keep(HELD, "")).await?;
        let holder = me.instance.clone();
        let tenure = Tenure { holder, taken_at: self.clock.now(), released_at: None };
        {
            let mut doings = self.doings();
            // Until the store has answered, which of our tenures it has is not known.
            doings.ours = None;
            // Our own may be there after a lost answer.
            if let Some(other) = found.as_ref().filter(|f| f.tenure.holder != me.instance) {
                let is_held = other.tenure.released_at.is_none();
                doings.taken_from = is_held.then(|| other.tenure.clone());
            }
        }
        let is_new = found.is_none();
        let condition = match found {
            Some(found) => {
                self.prove(&found.record.content, deadline).await?;
                Condition::Unchanged(found.record.version)
            }
            None => Condition::Absent,
        };
        let written = self.write(&tenure, condition, patience).await?;
        if written == Written::Done {
            if is_new {
                self.prove(&tenure.encode(), deadline).await?;
            }
            self.doings().ours = Some(tenure);
        }
        Ok(written)
    }

    /// Returns why our backups would lie beside the line: somebody else holds the lease, or has
    /// held it since we did. Somebody else may bear our name: a copy of this disk.
    fn fork(&self, me: &Identity, tenure: &Tenure) -> Option<Fork> {
        let is_theirs = if tenure.holder == me.instance {
            self.doings().ours.as_ref().is_some_and(|ours| ours.taken_at != tenure.taken_at)
        } else {
            me.has_held || tenure.released_at.is_none()
        };
        is_theirs.then(|| Fork {
            instance: me.instance.clone(),
            holder: tenure.holder.clone(),
            since: tenure.taken_at,
        })
    }

    /// A panic of another task leaves nothing half-written here.
    fn doings(&self) -> MutexGuard<'_, Doings> {
        self.doings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn warn_of_takeover(&self, tenure: &Tenure) {
        tracing::warn!(
            target: LOG,
            "WARNING: Instance {} has not released the lease within lease.wait, taking it over; if \
             it still runs, its further backups go to {}",
            tenure.holder,
            self.store.fork(&tenure.holder).location()
        );
    }

    /// Proves that the store obeys both conditions, by writes that must be refused. They carry
    /// the content that stands there, so that a store that ignores them has changed nothing.
    async fn prove(&self, content: &Bytes, deadline: Deadline) -> Result<(), LeaseError> {
        for condition in [Condition::Absent, Condition::Unchanged(Version::of_nothing())] {
            let patience = (Patience::FewTries, deadline);
            match self.store.write_record(NAME, content.clone(), condition, patience).await {
                Ok(Written::Refused) => {}
                Ok(Written::Done) => {
                    return Err(self.unsupported("ignores the condition of a conditional write"));
                }
                Err(error) if error.fault == Fault::Refused => {
                    return Err(self.unsupported("refuses conditional writes"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn unsupported(&self, what: &'static str) -> LeaseError {
        LeaseError::Unsupported { location: self.store.location().to_owned(), what }
    }

    async fn read(
        &self,
        patience: Patience,
        deadline: Deadline,
    ) -> Result<Option<Found>, LeaseError> {
        let Some(record) = self.store.read_record(NAME, patience, deadline).await? else {
            return Ok(None);
        };
        // Never taken for "no lease": it may be the page of a proxy.
        let tenure = Tenure::parse(&record.content)
            .ok_or_else(|| LeaseError::Foreign { address: self.store.record_address(NAME) })?;
        Ok(Some(Found { tenure, record }))
    }

    async fn write(
        &self,
        tenure: &Tenure,
        condition: Condition,
        patience: (Patience, Deadline),
    ) -> Result<Written, LeaseError> {
        Ok(self.store.write_record(NAME, tenure.encode(), condition, patience).await?)
    }

    async fn identity(&self, deadline: Deadline) -> Result<Identity, LeaseError> {
        let identity = |folder: &WorkFolder| {
            let instance = Instance::of(folder)?;
            Ok(Identity { instance, has_held: folder.path().join(HELD).try_exists()? })
        };
        self.in_work_folder(deadline, identity).await
    }

    async fn in_work_folder<T: Send + 'static>(
        &self,
        deadline: Deadline,
        work: impl FnOnce(&WorkFolder) -> io::Result<T> + Send + 'static,
    ) -> Result<T, LeaseError> {
        let database = self.database.clone();
        let done = blocking::run(deadline, move |_stop| {
            let folder = WorkFolder::beside(&canonical(&database));
            work(&folder)
                .map_err(|source| LeaseError::WorkFolder { path: folder.path().to_owned(), source })
        });
        done.await?
    }
}

/// Forgets that the disk has held the lease: a person has put another database in place.
pub(crate) fn forget(folder: &WorkFolder) -> io::Result<()> {
    match fs::remove_file(folder.path().join(HELD)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
