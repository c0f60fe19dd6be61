//! The snapshot: how it is made, what it holds, whether it is sound.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{BackupEngine, BackupError, Run, Unchanged};
use crate::archive::{PackError, PackingAhead};
use crate::blocking::{self, Stop};
use crate::check::{self, Verdict};
use crate::deadline::{Deadline, OutOfTime};
use crate::encryption::Recipients;
use crate::manifest::{Contents, Manifest};
use crate::progress::{Progress, Stage};
use crate::snapshot::{self, Growth, JournalMode, Snapshot};
use crate::work_dir::canonical;
use crate::{LOG, fail_point, memory, processors, text};

/// A snapshot of a database without a write-ahead log holds its writers up; from here on it is
/// worth a warning.
const WRITERS_WAITED: Duration = Duration::from_secs(1);

/// From here on the milliseconds that it takes to give memory back beside other threads are no matter,
/// and the peak is: parts of an upload are to come.
const LARGE_BYTES: u64 = 16 * 1024 * 1024;

/// Says to whoever must not go on without it that the snapshot passed the check.
#[derive(Debug, Clone)]
pub(super) struct Passed(watch::Receiver<bool>);

impl Passed {
    /// Returns where the check reports, and those who wait for it.
    pub(super) fn channel() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Waits for the check.
    ///
    /// # Errors
    ///
    /// If it did not pass. It says itself why: its error goes before this one.
    pub(super) async fn wait(&self) -> Result<(), BackupError> {
        match self.0.clone().wait_for(|has_passed| *has_passed).await {
            Ok(_passed) => Ok(()),
            Err(_not_passed) => Err(BackupError::Archive(PackError::Abandoned)),
        }
    }
}

impl BackupEngine {
    /// Does a step on a thread, which keeps the run until it has ended: a stopped one winds down
    /// without anybody who waits for it.
    pub(super) async fn in_run<T: Send + 'static>(
        &self,
        run: &Arc<Run>,
        (stage, deadline): (Stage, Deadline),
        work: impl FnOnce(&Stop) -> T + Send + 'static,
    ) -> Result<T, BackupError> {
        let held = Arc::clone(run);
        let done = blocking::run_at(self.priority, deadline, move |stop| {
            let result = work(&stop);
            drop(held);
            result
        });
        done.await.map_err(|OutOfTime| BackupError::OutOfTime { stage })
    }

    /// Makes the consistent copy.
    pub(super) async fn take_snapshot(
        &self,
        run: &Arc<Run>,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<Snapshot, BackupError> {
        progress.enter(Stage::Snapshot, 0);
        let started = Instant::now();
        let database = self.database.clone();
        let target = run.folder.file("snapshot.db");
        let busy_timeout = self.busy_timeout.min(deadline.remaining());
        let unchanged = self.unchanged;
        let taken = self.in_run(run, (Stage::Snapshot, deadline), move |stop| {
            let database = canonical(&database);
            let (growth, mut ahead) = match unchanged {
                Unchanged::Upload => pack_ahead(&database, &target),
                // What is likely not to be uploaded is not packed.
                Unchanged::Skip => (None, PackingAhead::default()),
            };
            let taken = snapshot::take(&database, &target, (busy_timeout, growth), stop);
            // Of a small one there is little to give back.
            if taken.as_ref().is_ok_and(|snapshot| snapshot.bytes >= LARGE_BYTES) {
                memory::trim();
            }
            if taken.is_err() || stop.is_set() {
                // Nobody takes it: it ends here, before the lock goes.
                ahead = PackingAhead::default();
            }
            (taken, ahead)
        });
        let (snapshot, ahead) = taken.await?;
        run.keep_ahead(ahead);
        let snapshot = snapshot?;
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
        Ok(snapshot)
    }

    /// Removes the snapshot, which nobody reads any more: beside the last requests, and not on the
    /// thread of the caller, whom a file of gigabytes would hold up.
    pub(super) async fn remove(
        &self,
        run: &Arc<Run>,
        snapshot: &Snapshot,
        deadline: Deadline,
    ) -> Result<io::Result<()>, BackupError> {
        let path = snapshot.path.clone();
        self.in_run(run, (Stage::Prune, deadline), move |_stop| fs::remove_file(path)).await
    }

    /// Checks the snapshot, and reports to `passing` if it is sound.
    pub(super) async fn check(
        &self,
        run: &Arc<Run>,
        snapshot: &Snapshot,
        passing: watch::Sender<bool>,
        deadline: Deadline,
    ) -> Result<Verdict, BackupError> {
        let path = snapshot.path.clone();
        let checked =
            self.in_run(run, (Stage::Check, deadline), move |stop| check::check(&path, stop));
        let verdict = checked.await?.map_err(BackupError::Check)?;
        fail_point::reach("backup.checked");
        passing.send_replace(true);
        Ok(verdict)
    }

    /// Counts and hashes the snapshot, for the manifest that goes before it.
    pub(super) async fn describe(
        &self,
        run: &Arc<Run>,
        snapshot: &Snapshot,
        deadline: Deadline,
    ) -> Result<Manifest, BackupError> {
        let path = snapshot.path.clone();
        let is_large = snapshot.bytes >= LARGE_BYTES;
        let counted = self.in_run(run, (Stage::Check, deadline), move |stop| {
            let contents = Contents::of(&path, stop);
            if is_large {
                memory::give_back_now();
            }
            contents
        });
        let contents = counted.await?.map_err(BackupError::Check)?;
        Ok(Manifest {
            database_bytes: snapshot.bytes,
            journal_mode: snapshot.journal_mode,
            owner: snapshot.owner,
            contents: Some(contents),
            instance: Some(run.instance.clone()),
            uncompared_with: None,
            recipients: self.recipients.as_ref().map(Recipients::names).unwrap_or_default(),
        })
    }
}

/// Starts to pack what there will be of the copy, if there is a processor that making it leaves idle.
fn pack_ahead(database: &Path, target: &Path) -> (Option<Growth>, PackingAhead) {
    if processors::count() < 2 {
        return (None, PackingAhead::default());
    }
    // What is in the log, or in free pages, counts too. Near the size where members change their shape,
    // nothing that was packed may be of use.
    let about_bytes = fs::metadata(database).map_or(0, |file| file.len());
    let (growth, grown) = Growth::channel();
    (Some(growth), PackingAhead::start(target, about_bytes, grown))
}
