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
struct Known {
    made: Option<Arc<Snapshot>>,
    counted: Option<Counted>,
    has_passed: bool,
}

/// Where it is reported. Whoever waits for it is told when this is dropped: the thread that makes and checks
/// the snapshot has but a weak one, as it may go on after its deadline.
#[derive(Debug)]
pub(super) struct Reports(Arc<watch::Sender<Known>>);

impl Reports {
    /// Returns what reports as long as somebody waits for the thread that it is for.
    fn of_thread(&self) -> impl Fn(&dyn Fn(&mut Known)) + Send + 'static {
        let reports = Arc::downgrade(&self.0);
        move |change| {
            if let Some(reports) = reports.upgrade() {
                reports.send_modify(change);
            }
        }
    }
}

/// Says what has become of the snapshot to whoever must not go on without it.
#[derive(Debug, Clone)]
pub(super) struct Inspection(watch::Receiver<Known>);

impl Inspection {
    /// Returns where it is reported, and those who wait for it.
    pub(super) fn channel() -> (Reports, Self) {
        let (sender, receiver) = watch::channel(Known::default());
        (Reports(Arc::new(sender)), Self(receiver))
    }

    /// Waits for the snapshot; for ever, if there is none: whoever makes it says why.
    pub(super) async fn snapshot(&self) -> Arc<Snapshot> {
        match self.first(|known| known.made.clone()).await {
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
        let counted = self.first(|known| known.counted).await;
        counted.ok_or(BackupError::Archive(PackError::Abandoned))
    }

    /// Waits for the check.
    ///
    /// # Errors
    ///
    /// If it did not pass. It says itself why: its error goes before this one.
    pub(super) async fn passed(&self) -> Result<(), BackupError> {
        let passed = self.first(|known| known.has_passed.then_some(())).await;
        passed.ok_or(BackupError::Archive(PackError::Abandoned))
    }

    /// Waits for what is reported; nothing, if it never will be.
    async fn first<T>(&self, reported: impl Fn(&Known) -> Option<T>) -> Option<T> {
        let mut receiver = self.0.clone();
        let known = receiver.wait_for(|known| reported(known).is_some()).await;
        known.ok().and_then(|known| reported(&known))
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
    /// another would have to wait for a processor. It ends early when it is `unwanted`.
    pub(super) async fn make(
        &self,
        run: &Arc<Run>,
        (reports, inspection): (Reports, &Inspection),
        unwanted: &Stop,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<Verdict, BackupError> {
        progress.enter(Stage::Snapshot, 0);
        let (kept_in, database) = (Arc::clone(run), self.database.clone());
        let target = run.folder.file("snapshot.db");
        let busy_timeout = self.busy_timeout.min(deadline.remaining());
        let (unchanged, report, unwanted) = (self.unchanged, reports.of_thread(), unwanted.clone());
        let made = self.in_run(run, (Stage::Snapshot, deadline), move |stop| {
            let stopping = stop.clone();
            unwanted.interrupts(move || stopping.set());
            let started = Instant::now();
            let database = canonical(&database);
            let ahead = match unchanged {
                Unchanged::Upload => pack_ahead(&database, &target),
                // What is likely not to be uploaded is not packed.
                Unchanged::Skip => PackingAhead::default(),
            };
            // Without a snapshot nobody takes what was packed of it: it ends here, before the lock goes.
            let snapshot = Arc::new(snapshot::take(&database, &target, busy_timeout, stop)?);
            tell_of(&snapshot, started.elapsed());
            // Of a small one there is little to give back.
            if snapshot.bytes >= LARGE_BYTES {
                memory::trim();
            }
            kept_in.keep_ahead(ahead);
            report(&|known| known.made = Some(Arc::clone(&snapshot)));
            let tell = |tables: &[TableRows]| {
                report(&|known| known.counted = Some(Counted::of(tables)));
            };
            let verdict =
                check::count_and_check(&target, stop, tell).map_err(BackupError::Check)?;
            fail_point::reach("backup.checked");
            Ok::<_, BackupError>(verdict)
        });
        let made = made.await;
        let verdict =
            made.map_err(|_out_of_time| BackupError::OutOfTime { stage: inspection.stage() })??;
        // Not before its thread has ended: else a deadline could refuse what is already stored.
        reports.0.send_modify(|known| known.has_passed = true);
        Ok(verdict)
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

    /// Hashes the snapshot and waits for the count, for the manifest that goes before it.
    pub(super) async fn describe(
        &self,
        run: &Arc<Run>,
        (snapshot, inspection): (&Snapshot, &Inspection),
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
        let (hashed, counted) = tokio::join!(hashing, inspection.counted());
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

/// Tells of a snapshot, and of how long the app had to wait for it.
fn tell_of(snapshot: &Snapshot, took: Duration) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that hangs, on a disk that does not answer, outlives its deadline.
    #[tokio::test]
    async fn nobody_waits_for_what_a_thread_that_was_given_up_could_report() {
        let (reports, inspection) = Inspection::channel();
        let report = reports.of_thread();
        let counted = Counted { tables: 1, rows: 2 };
        report(&|known| known.counted = Some(counted));
        assert_eq!(inspection.counted().await.expect("told"), counted);
        drop(reports);
        let refused = tokio::time::timeout(Duration::from_secs(10), inspection.passed()).await;
        assert!(refused.expect("nobody waits").is_err());
    }
}
