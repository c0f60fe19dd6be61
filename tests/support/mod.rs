//! What several tests need: databases, stores, and a site where an engine works on both.

pub(crate) mod db;
pub(crate) mod disk;
pub(crate) mod notes;
pub(crate) mod process;
pub(crate) mod running;
pub(crate) mod s3;
pub(crate) mod script;
pub(crate) mod service;
pub(crate) mod store;
pub(crate) mod terminal;
pub(crate) mod web;

use std::fs;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use simplebackup_engine::backup::{BackupEngine, BackupError, BackupReport};
use simplebackup_engine::clock::Clock;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Fallback, RestoreEngine, RestoreError, Restored};
use simplebackup_engine::retention::Retention;
use simplebackup_engine::store::{BackupStore, StoreKind};
use simplebackup_engine::work_dir::WorkFolder;

use tokio::time::Instant;

use script::Script;
use store::{Call, FaultyStore, Trouble};

/// The time at which every site starts: the newest backup of the specification's examples.
pub(crate) const START: i64 = 1_732_442_400;

/// A wall clock that stands still until the test sets it, or lets it run with tokio's clock.
#[derive(Debug)]
pub(crate) struct FakeClock {
    timestamp: AtomicI64,
    running_since: OnceLock<Instant>,
}

impl FakeClock {
    /// Sets the clock; one that runs goes on from there.
    pub(crate) fn set(&self, timestamp: i64) {
        self.timestamp.store(timestamp - self.run().as_secs().cast_signed(), Relaxed);
    }

    /// Moves the clock by this many seconds, back if negative, as an administrator does.
    pub(crate) fn jump(&self, seconds: i64) {
        self.timestamp.fetch_add(seconds, Relaxed);
    }

    /// Lets the clock run with tokio's, which the tests of the actors pause.
    pub(crate) fn start(&self) {
        self.running_since.set(Instant::now()).expect("started once");
    }

    fn run(&self) -> Duration {
        self.running_since.get().map_or(Duration::ZERO, Instant::elapsed)
    }
}

impl Clock for FakeClock {
    fn now(&self) -> DateTime<Utc> {
        let base = DateTime::from_timestamp(self.timestamp.load(Relaxed), 0).expect("in range");
        base + self.run()
    }
}

/// A folder with a database, and an in-memory store that can be made to fail.
#[derive(Debug)]
pub(crate) struct Site {
    root: tempfile::TempDir,
    pub(crate) clock: Arc<FakeClock>,
    objects: Arc<FaultyStore>,
    prefix: &'static str,
}

impl Site {
    /// Makes a site without a database and without backups.
    pub(crate) fn new() -> Self {
        log_to_test_output();
        let root = tempfile::tempdir().expect("a temporary folder");
        let clock = Arc::new(FakeClock {
            timestamp: AtomicI64::new(START),
            running_since: OnceLock::new(),
        });
        let objects = Arc::new(FaultyStore::over(Arc::new(InMemory::new())));
        Self { root, clock, objects, prefix: "backups" }
    }

    /// Makes a site with a small WAL database.
    pub(crate) fn with_database() -> Self {
        let site = Self::new();
        db::create(&site.database(), "wal", 100);
        site
    }

    /// Makes another machine with the same store and the same time, without a database.
    pub(crate) fn another_machine(&self) -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (clock, objects) = (Arc::clone(&self.clock), Arc::clone(&self.objects));
        Self { root, clock, objects, prefix: self.prefix }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.path().join("app.db")
    }

    /// Removes the database and the files that belong to it, as a new machine would.
    pub(crate) fn lose_database(&self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let _may_be_missing = fs::remove_file(self.root.path().join(format!("app.db{suffix}")));
        }
    }

    pub(crate) fn script(&self) -> &Script<Call, Trouble> {
        self.objects.script()
    }

    /// The objects, around the script.
    pub(crate) fn objects(&self) -> &Arc<dyn ObjectStore> {
        self.objects.inner()
    }

    pub(crate) fn store(&self) -> BackupStore {
        let objects: Arc<dyn ObjectStore> = Arc::clone(&self.objects) as _;
        BackupStore::over(objects, StoreKind::S3, "s3://mybucket", self.prefix)
    }

    pub(crate) fn backup_engine(&self) -> BackupEngine {
        backup_engine(&self.database(), self.store(), &self.clock)
    }

    pub(crate) fn restore_engine(&self) -> RestoreEngine {
        RestoreEngine::new(self.store(), Arc::clone(&self.clock) as _)
    }

    pub(crate) async fn back_up(&self) -> Result<BackupReport, BackupError> {
        self.backup_engine().back_up(deadline(), &Progress::default()).await
    }

    pub(crate) async fn restore(&self) -> Result<Restored, RestoreError> {
        self.restore_with(Fallback::Refuse).await
    }

    pub(crate) async fn restore_with(&self, fallback: Fallback) -> Result<Restored, RestoreError> {
        let (engine, progress) = (self.restore_engine(), Progress::default());
        engine.restore_if_missing(&self.database(), fallback, deadline(), &progress).await
    }

    /// Stores an object under the prefix, around the script.
    pub(crate) async fn put(&self, name: &str, bytes: impl Into<Bytes>) {
        let path = self.path_of(name);
        self.objects.inner().put(&path, bytes.into().into()).await.expect("stored");
    }

    /// Returns the bytes of an object under the prefix, around the script.
    pub(crate) async fn get(&self, name: &str) -> Bytes {
        let got = self.objects.inner().get(&self.path_of(name)).await.expect("stored");
        got.bytes().await.expect("read")
    }

    /// Returns the names of all objects under the prefix, sorted, folders included.
    pub(crate) async fn stored(&self) -> Vec<String> {
        let listed = self.objects.inner().list(None).try_collect::<Vec<_>>().await.expect("listed");
        let prefix = format!("{}/", self.prefix);
        let name = |location: &ObjectPath| {
            location.as_ref().strip_prefix(&prefix).expect("under the prefix").to_owned()
        };
        let mut names: Vec<_> = listed.iter().map(|object| name(&object.location)).collect();
        names.sort();
        names
    }

    pub(crate) fn path_of(&self, name: &str) -> ObjectPath {
        ObjectPath::from(format!("{}/{name}", self.prefix))
    }

    /// Asserts that no job left a file, neither beside the database nor in the work folder.
    #[track_caller]
    pub(crate) fn assert_no_leftovers(&self) {
        assert_no_leftovers(&self.database());
    }
}

/// Asserts that the work folder of a database holds nothing but what stays: locks and a name. A thread
/// that was stopped may need a moment to let go of its folder.
#[track_caller]
pub(crate) fn assert_no_leftovers(database: &Path) {
    let begun = std::time::Instant::now();
    while !leftovers(database).is_empty() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let left = leftovers(database);
    assert!(left.is_empty(), "left in the work folder: {left:?}");
}

/// Returns what the work folder of a database holds besides what stays: locks and a name.
pub(crate) fn leftovers(database: &Path) -> Vec<String> {
    const STAYING: [&str; 5] =
        ["instance", "last-stored", "lease-held", "run.lock", "service.lock"];
    let left = files_in(WorkFolder::beside(database).path()).into_iter();
    left.filter(|name| !STAYING.contains(&name.as_str())).collect()
}

/// Returns the names in a folder, sorted; none for a folder that does not exist.
pub(crate) fn files_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("read").file_name();
    let mut names: Vec<_> =
        entries.map(|entry| name(entry).into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// Makes an engine that keeps three backups.
pub(crate) fn backup_engine(
    database: &Path,
    store: BackupStore,
    clock: &Arc<FakeClock>,
) -> BackupEngine {
    let retention = Retention::newest(NonZeroUsize::new(3).expect("not zero"));
    BackupEngine::new(database.to_owned(), store, retention, Arc::clone(clock) as _)
}

/// A deadline that no sound run comes near.
pub(crate) fn deadline() -> Deadline {
    Deadline::after(Duration::from_mins(1))
}

/// Returns the names in a folder that a person sees, sorted: all but the work folders.
pub(crate) fn visible_files_in(folder: &Path) -> Vec<String> {
    let names = files_in(folder).into_iter();
    names.filter(|name| !name.ends_with(".simplebackup")).collect()
}

/// Packs bytes as `gzip` would.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(bytes).expect("to memory");
    gzip.finish().expect("to memory")
}

/// Unpacks all members of a gzip file.
pub(crate) fn gunzip(archive: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(archive).read_to_end(&mut bytes).expect("sound gzip");
    bytes
}

/// Returns the name of the backup with this timestamp.
pub(crate) fn name(timestamp: i64) -> String {
    format!("db-backup-{timestamp}.db.gz")
}

/// Shows the log of a test that fails, and nothing of one that passes.
fn log_to_test_output() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Err means that another test of this process was first.
        let _already = tracing_subscriber::fmt().with_test_writer().try_init();
    });
}
