//! The beginning of a run: its lock, its folder, and what it keeps until it ends.

use std::mem;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};

use super::memory::Made;
use super::{BackupEngine, BackupError};
use crate::LOG;
use crate::archive::PackingAhead;
use crate::blocking::{self, CLEAN_UP};
use crate::deadline::{Deadline, OutOfTime};
use crate::instance::Instance;
use crate::progress::Stage;
use crate::snapshot::SnapshotError;
use crate::work_dir::{LockError, RunLock, WorkDir, WorkFolder, canonical};

/// What a run owns: dropped by whoever is last to use it, so that neither the lock nor the
/// folder goes while a stopped thread still winds down.
pub(super) struct Run {
    /// What is packed of the snapshot while it is made and hashed, until it is sent. First, so that it has ended when
    /// the folder goes.
    ahead: Mutex<PackingAhead>,
    pub(super) folder: WorkDir,
    pub(super) work: WorkFolder,
    pub(super) instance: Instance,
    _lock: RunLock,
}

impl Run {
    /// Keeps what is packed ahead for the first try of the upload; another packs everything anew.
    pub(super) fn keep_ahead(&self, ahead: PackingAhead) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
    }

    /// Does something with the finished snapshot on the thread that packs ahead, or on this one.
    ///
    /// # Panics
    ///
    /// As `work` did.
    pub(super) fn beside_check<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (result, left) = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).begin(work);
        if let Some(work) = left {
            work();
        }
        let done =
            result.recv().expect("the thread that packs ahead ended before its work was done");
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Ends what nobody will take, without holding up who waits for other things on this thread.
    pub(super) async fn end_ahead(&self) {
        let ahead = self.take_ahead();
        let ending = tokio::task::spawn_blocking(move || drop(ahead));
        let _ended_or_not = tokio::time::timeout(CLEAN_UP, ending).await;
    }

    /// Takes it.
    pub(super) fn take_ahead(&self) -> PackingAhead {
        mem::take(&mut *self.ahead.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl BackupEngine {
    /// Takes the lock, sweeps what killed runs left, makes the run's folder.
    pub(super) async fn begin(&self, deadline: Deadline) -> Result<Run, BackupError> {
        let store = self.store.clone();
        let database = self.database.clone();
        let begun = blocking::run(deadline, move |_stop| {
            // A work folder where there is no database yet would be litter in the wrong place.
            if !database.exists() {
                return Err(BackupError::from(SnapshotError::Missing { path: database }));
            }
            let work = WorkFolder::beside(&canonical(&database));
            let lock = work.lock_run().map_err(|error| match error {
                LockError::Held { holder } => BackupError::InProgress { holder },
                LockError::Io { path, source } => BackupError::WorkFolder { path, source },
            })?;
            let unusable =
                |source| BackupError::WorkFolder { path: work.path().to_owned(), source };
            let instance = Instance::of(&work).map_err(unusable)?;
            let kept = Made::kept_in(work.path());
            let folder = work.fresh("backup").map_err(unusable)?;
            if let Err(error) = store.sweep() {
                tracing::warn!(
                    target: LOG,
                    "WARNING: Cannot sweep leftovers in {}: {error}", store.location()
                );
            }
            let ahead = Mutex::default();
            Ok((Run { folder, work, instance, ahead, _lock: lock }, kept))
        });
        let out_of_time = |OutOfTime| BackupError::OutOfTime { stage: Stage::Waiting };
        let (run, kept) = begun.await.map_err(out_of_time)??;
        self.memory.recall(kept);
        Ok(run)
    }
}
