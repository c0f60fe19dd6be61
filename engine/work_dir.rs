//! The folder beside the database in which jobs work: `.{database}.simplebackup/`.
//!
//! Beside, because a rename is atomic only within one file system. It holds two lock files and
//! one private folder per running job. A job's folder is removed with the job; what a killed
//! process left is swept by the next job. A living job's folder is told apart by the lock that
//! the job holds on it, never by age or by process id.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::fail_point;

mod look;

const RUN_LOCK: &str = "run.lock";
const SERVICE_LOCK: &str = "service.lock";

/// How long a child may take from its fork to its exec, on a busy machine.
const UNTIL_EXEC: Duration = Duration::from_secs(1);

/// Longer than a look at a lock takes.
const LOOK: Duration = Duration::from_millis(20);

/// The folder for work on one database.
#[derive(Debug, Clone)]
pub struct WorkFolder {
    path: PathBuf,
}

/// A lock could not be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another job or process holds it; the text says who, where it can be known.
    #[error("held by {holder}")]
    Held {
        /// Such as `process 4711`.
        holder: String,
    },
    /// The lock file could not be made or opened.
    #[error("work folder \"{}\" cannot be used; make it writable for this user", path.display())]
    Io {
        /// The work folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Held while a backup runs: at most one per database, across processes (invariant I4).
#[derive(Debug)]
pub struct RunLock {
    // In this order: who finds no claim finds no lock of ours either.
    _file: File,
    _claim: Claim,
}

/// Says that a run of this very process works in a folder.
#[derive(Debug)]
struct Claim(PathBuf);

static CLAIMED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

impl Claim {
    fn on(folder: &Path) -> Option<Self> {
        claimed().insert(folder.to_owned()).then(|| Self(folder.to_owned()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        claimed().remove(&self.0);
    }
}

fn claimed() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held for as long as a service works on the database: there is one, and a restore by hand, which
/// takes it too, never replaces a database under a running service.
#[derive(Debug)]
pub struct ServiceLock {
    _file: File,
}

/// A private folder of one job; dropped, it is gone.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    folder: PathBuf,
    // Locked while the job lives; a sweep removes only folders whose lock is free.
    _lock: File,
}

impl WorkFolder {
    /// Returns the work folder for `database`, which need not exist. Nothing is created yet.
    #[must_use]
    pub fn beside(database: &Path) -> Self {
        let name = database.file_name().unwrap_or_default().to_string_lossy();
        Self { path: database.with_file_name(format!(".{name}.simplebackup")) }
    }

    /// Returns where the folder is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock that a backup run holds, or says who has it.
    pub fn lock_run(&self) -> Result<RunLock, LockError> {
        let Some(claim) = Claim::on(&self.path) else {
            return Err(LockError::Held { holder: signature() });
        };
        let file = self.open_lock(RUN_LOCK)?;
        self.settle(try_lock_beside_forks(&file), &file)?;
        sign(&file);
        fail_point::reach("backup.locked");
        Ok(RunLock { _file: file, _claim: claim })
    }

    /// Takes the lock of whoever answers for this database, or says at once who has it.
    pub fn lock_service(&self) -> Result<ServiceLock, LockError> {
        let file = self.open_lock(SERVICE_LOCK)?;
        // Somebody may just look at it.
        let first = file.try_lock();
        let locked = first.or_else(|_held| {
            std::thread::sleep(LOOK);
            file.try_lock()
        });
        self.settle(locked, &file)?;
        sign(&file);
        Ok(ServiceLock { _file: file })
    }

    /// Sweeps what killed jobs left, then makes a new private folder (mode 0700).
    pub fn fresh(&self, purpose: &str) -> io::Result<WorkDir> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        // Another process may remove the empty work folder between two of the steps below.
        const TRIES: usize = 3;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for _ in 0..TRIES {
            self.create()?;
            let count = COUNTER.fetch_add(1, Relaxed);
            let path = self.path.join(format!("{purpose}-{}-{count}", std::process::id()));
            match self.make_private(&path) {
                Ok(lock) => return Ok(WorkDir { path, folder: self.path.clone(), _lock: lock }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Removes the private folders of jobs that no longer live. Lock files stay.
    pub fn sweep(&self) -> io::Result<()> {
        match File::open(&self.path) {
            Ok(folder) => {
                folder.lock()?;
                self.sweep_locked()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the folder if need be and does `work` in it, which nobody else does at the same time.
    pub(crate) fn under_lock<T>(&self, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        self.create()?;
        let folder = File::open(&self.path)?;
        folder.lock()?;
        work(&self.path)
    }

    /// Writes a small file that outlives jobs: whole, or not at all, also when the power fails.
    pub(crate) fn keep(&self, name: &str, text: &str) -> io::Result<()> {
        self.under_lock(|path| keep(path, name, text))
    }

    /// Makes and locks one private folder, under the folder's own lock: between the making and
    /// the locking a sweep of another process would take it for a dead job's.
    fn make_private(&self, path: &Path) -> io::Result<File> {
        let folder = File::open(&self.path)?;
        folder.lock()?;
        self.sweep_locked()?;
        DirBuilder::new().mode(0o700).create(path)?;
        let lock = File::open(path)?;
        lock.lock()?;
        Ok(lock)
    }

    fn sweep_locked(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            match sweep_job(&path) {
                // The job has just removed it itself.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Another user's leftover, say: it costs space, but must not cost a backup.
                Err(error) => tracing::warn!(
                    target: crate::LOG,
                    "WARNING: Cannot remove the leftover {}: {error}; remove it by hand",
                    path.display()
                ),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn create(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)
    }

    fn open_lock(&self, name: &str) -> Result<File, LockError> {
        let open = || {
            self.create()?;
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(self.path.join(name))
        };
        // Another process may remove the empty work folder between the two steps.
        let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let opened = open().or_else(|error| if is_gone(&error) { open() } else { Err(error) });
        opened.map_err(|source| LockError::Io { path: self.path.clone(), source })
    }

    fn settle(&self, locked: Result<(), TryLockError>, file: &File) -> Result<(), LockError> {
        match locked {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(LockError::Held { holder: holder(file) }),
            Err(TryLockError::Error(source)) => {
                Err(LockError::Io { path: self.path.clone(), source })
            }
        }
    }
}

/// Takes a lock that no run of this process holds. A child that another thread is just starting
/// holds whatever we hold, and have held, until its exec: that is waited for.
fn try_lock_beside_forks(file: &File) -> Result<(), TryLockError> {
    let until = Instant::now() + UNTIL_EXEC;
    loop {
        let locked = file.try_lock();
        let is_ours = || holder(file) == signature();
        if matches!(locked, Err(TryLockError::WouldBlock)) && is_ours() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        return locked;
    }
}

fn signature() -> String {
    format!("process {}", std::process::id())
}

/// Writes our process id into a lock that we hold, for the message of whoever meets it. A
/// courtesy: a full disk must not keep the lock's holder from its work.
fn sign(mut file: &File) {
    let _unsigned = file.set_len(0).and_then(|()| write!(file, "{}", signature()));
}

/// Writes a small file in a folder that nobody else writes to now.
pub(crate) fn keep(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, folder.join(name))?;
    File::open(folder)?.sync_all()
}

/// Removes the private folder of a job that no longer lives.
fn sweep_job(path: &Path) -> io::Result<()> {
    // Of a file that was to be kept: whoever writes one holds the folder's lock, as we do.
    if path.extension().is_some_and(|extension| extension == "new") {
        return fs::remove_file(path);
    }
    if !fs::symlink_metadata(path)?.is_dir() || File::open(path)?.try_lock().is_err() {
        return Ok(());
    }
    tracing::debug!(target: crate::LOG, path = %path.display(), "sweeping");
    fs::remove_dir_all(path)
}

/// Returns what the holder wrote into its lock file.
fn holder(mut file: &File) -> String {
    let mut text = String::new();
    // Only a courtesy in a message: a holder that has not signed yet is "another process".
    let _unreadable = file.rewind().and_then(|()| file.read_to_string(&mut text));
    if text.is_empty() { "another process".to_owned() } else { text }
}

impl WorkDir {
    /// Returns a path inside the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(
                target: crate::LOG,
                "WARNING: Cannot remove work folder {}: {error}; the next run tries again",
                self.path.display()
            );
        }
        // Goes only if nothing else is in it, such as the lock files of a service.
        let _not_empty = fs::remove_dir(&self.folder);
    }
}

/// Returns the one true path of a file: two names of a database would be two locks.
#[must_use]
pub fn canonical(path: &Path) -> PathBuf {
    if let Ok(resolved) = path.canonicalize() {
        return resolved;
    }
    // The file is missing: follow a dangling link, else resolve the folder.
    if let Ok(target) = path.read_link() {
        return path.parent().map_or(target.clone(), |folder| folder.join(&target));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, WorkFolder) {
        let root = tempfile::tempdir().expect("a temporary folder");
        let work = WorkFolder::beside(&root.path().join("app.db"));
        (root, work)
    }

    #[test]
    fn i4_a_second_run_is_refused_and_told_who_runs() {
        let (_root, work) = folder();
        let first = work.lock_run().expect("free");
        let refused = work.lock_run().expect_err("held");
        assert_eq!(refused.to_string(), format!("held by process {}", std::process::id()));
        drop(first);
        work.lock_run().expect("free again");
    }

    #[test]
    fn one_service_or_one_restore_answers_for_a_database() {
        let (_root, work) = folder();
        let service = work.lock_service().expect("free");
        work.lock_service().expect_err("a service runs");
        drop(service);
        work.lock_service().expect("free again");
    }

    #[test]
    fn i7_leftovers_of_a_dead_job_are_swept_and_living_jobs_stay() {
        let (_root, work) = folder();
        let living = work.fresh("backup").expect("made");
        let dead = work.path().join("backup-1-1");
        fs::create_dir(&dead).expect("made");
        fs::write(dead.join("snapshot.db"), "left").expect("written");
        fs::write(work.path().join("instance.new"), "0123").expect("written");
        let other = work.fresh("verify").expect("made");
        assert!(!work.path().join("instance.new").exists(), "half a file is swept");
        assert!(!dead.exists(), "the dead job's folder is swept");
        assert!(living.file("").exists() && other.file("").exists(), "living jobs stay");
    }

    #[test]
    fn i7_a_dropped_folder_is_gone_and_an_unlocked_work_folder_with_it() {
        let (_root, work) = folder();
        let job = work.fresh("restore").expect("made");
        fs::write(job.file("restored.db"), "x").expect("written");
        drop(job);
        assert!(!work.path().exists());
    }
}
