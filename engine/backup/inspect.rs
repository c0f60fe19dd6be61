//! The snapshot: how it is made, what it holds, whether it is sound.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{BackupEngine, BackupError, Run, Unchanged};
use crate::archive::{PackError, PackingAhead};
use crate::blocking::{self, Stop};
use crate::check::{self, TableRows, Verdict};
use crate::deadline::{Deadline, OutOfTime};
use crate::encryption::Recipients;
use crate::manifest::{Contents, Counted, Manifest};
use crate::progress::{Progress, Stage};
use crate::snapshot::{self, JournalMode, Snapshot};
use crate::work_dir::canonical;
use crate::{LOG, fail_point, hash, memory, processors, text};

/// A snapshot of a database without a write-ahead log holds its writers up; from here on it is
/// worth a warning.
const WRITERS_WAITED: Duration = Duration::from_secs(1);

/// From here on the milliseconds that it takes to give memory back beside other threads are no matter,
/// and the peak is: parts of an upload are to come.
const LARGE_BYTES: u64 = 16 * 1024 * 1024;

/// What has become of the snapshot so far.
#[derive(Debug, Default)]
struct Standing {
    made: Option<Arc<Snapshot>>,
    counted: Option<Counted>,
    has_passed: bool,
}

/// Where the thread that makes and checks the snapshot reports.
#[derive(Debug, Clone)]
pub(super) struct Reports(watch::Sender<Standing>);

/// Says what has become of the snapshot to whoever must not go on without it.
#[derive(Debug, Clone)]
pub(super) struct Passed(watch::Receiver<Standing>);

impl Passed {
    /// Returns where it is reported, and those who wait for it.
    pub(super) fn channel() -> (Reports, Self) {
        let (sender, receiver) = watch::channel(Standing::default());
        (Reports(sender), Self(receiver))
    }

    /// Waits for the snapshot; for ever, if there is none: whoever makes it says why.
    pub(super) async fn snapshot(&self) -> Arc<Snapshot> {
        match self.first(|standing| standing.made.clone()).await {
            Some(snapshot) => snapshot,
            None => std::future::pending().await,
        }
    }

    /// Waits for what the snapshot holds.
    ///
    /// # Errors
    ///
    /// If it can't be counted. The check says why: its error goes before this one.
    async fn counted(&self) -> Result<Counted, BackupError> {
        let counted = self.first(|standing| standing.counted).await;
        counted.ok_or(BackupError::Archive(PackError::Abandoned))
    }

    /// Waits for the check.
    ///
    /// # Errors
    ///
    /// If it did not pass. It says itself why: its error goes before this one.
    pub(super) async fn wait(&self) -> Result<(), BackupError> {
        let passed = self.first(|standing| standing.has_passed.then_some(())).await;
        passed.ok_or(BackupError::Archive(PackError::Abandoned))
    }

    /// Waits for what is reported; nothing, if it never will be.
    async fn first<T>(&self, reported: impl Fn(&Standing) -> Option<T>) -> Option<T> {
        let mut receiver = self.0.clone();
        let standing = receiver.wait_for(|standing| reported(standing).is_some()).await;
        standing.ok().and_then(|standing| reported(&standing))
    }

    /// Returns whether the check is over, and found it sound.
    pub(super) fn has_passed(&self) -> bool {
        self.0.borrow().has_passed
    }

    /// Returns what is being done.
    fn stage(&self) -> Stage {
        if self.0.borrow().made.is_some() { Stage::Check } else { Stage::Snapshot }
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

    /// Makes the consistent copy, counts and checks it on the same thread: that is what a backup waits for, and
    /// another would have to wait for a processor.
    pub(super) async fn make(
        &self,
        run: &Arc<Run>,
        (reports, passed): (Reports, &Passed),
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<Verdict, BackupError> {
        progress.enter(Stage::Snapshot, 0);
        let (kept_in, database) = (Arc::clone(run), self.database.clone());
        let target = run.folder.file("snapshot.db");
        let busy_timeout = self.busy_timeout.min(deadline.remaining());
        let (unchanged, told) = (self.unchanged, reports.clone());
        let made = self.in_run(run, (Stage::Snapshot, deadline), move |stop| {
            let database = canonical(&database);
            let ahead = match unchanged {
                Unchanged::Upload => pack_ahead(&database, &target),
                // What is likely not to be uploaded is not packed.
                Unchanged::Skip => PackingAhead::default(),
            };
            // Without a snapshot nobody takes what was packed of it: it ends here, before the lock goes.
            let snapshot = snapshot::take(&database, &target, busy_timeout, stop)?;
            // Of a small one there is little to give back.
            if snapshot.bytes >= LARGE_BYTES {
                memory::trim();
            }
            kept_in.keep_ahead(ahead);
            told.0.send_modify(|standing| standing.made = Some(Arc::new(snapshot)));
            let tell = |tables: &[TableRows]| {
                told.0.send_modify(|standing| standing.counted = Some(Counted::of(tables)));
            };
            let verdict =
                check::count_and_check(&target, stop, tell).map_err(BackupError::Check)?;
            fail_point::reach("backup.checked");
            Ok::<_, BackupError>(verdict)
        });
        let made = made.await;
        let verdict =
            made.map_err(|_out_of_time| BackupError::OutOfTime { stage: passed.stage() })??;
        // Not before its thread has ended: else a deadline could refuse what is already stored.
        reports.0.send_modify(|standing| standing.has_passed = true);
        Ok(verdict)
    }

    /// Tells of a snapshot, and of how long the app had to wait for it.
    pub(super) fn tell_of(snapshot: &Snapshot, took: Duration) {
        tracing::info!(
            target: LOG,
            database_bytes = snapshot.bytes,
            "VACUUM INTO completed: {}", text::size(snapshot.bytes)
        );
        if snapshot.journal_mode == JournalMode::Rollback && took > WRITERS_WAITED {
            tracing::warn!(
                target: LOG,
                "WARNING: The app's writers had to wait {} for the snapshot; \"PRAGMA \
                 journal_mode = WAL\" in the app lets them go on",
                text::seconds(took)
            );
        }
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

    /// Hashes the snapshot, for the manifest that goes before it.
    pub(super) async fn describe(
        &self,
        run: &Arc<Run>,
        (snapshot, passed): (&Snapshot, &Passed),
        deadline: Deadline,
    ) -> Result<Manifest, BackupError> {
        let path = snapshot.path.clone();
        let is_large = snapshot.bytes >= LARGE_BYTES;
        let beside = Arc::clone(run);
        let hashing = self.in_run(run, (Stage::Check, deadline), move |stop| {
            let stop = stop.clone();
            beside.beside_check(move || {
                let sha256 = hash::sha256_of(&path, &stop);
                if is_large {
                    memory::give_back_now();
                }
                sha256
            })
        });
        let (hashed, counted) = tokio::join!(hashing, passed.counted());
        let sha256 = hashed?.map_err(BackupError::Check)?;
        Ok(Manifest {
            database_bytes: snapshot.bytes,
            journal_mode: snapshot.journal_mode,
            owner: snapshot.owner,
            contents: Some(Contents::of(counted?, sha256)),
            instance: Some(run.instance.clone()),
            uncompared_with: None,
            recipients: self.recipients.as_ref().map(Recipients::names).unwrap_or_default(),
        })
    }
}

/// Starts to pack what there will be of the copy, if there is a processor that making it leaves idle.
fn pack_ahead(database: &Path, target: &Path) -> PackingAhead {
    if processors::count() < 2 {
        return PackingAhead::default();
    }
    // What is in the log, or in free pages, counts too. Near the size where members change their shape,
    // nothing that was packed may be of use.
    let about_bytes = fs::metadata(database).map_or(0, |file| file.len());
    PackingAhead::start(target, about_bytes)
}
