//! One seed: thirty days of one service, its app, its store and its machine.
//!
//! A month is a row of lives, each a process with a runtime of its own. Between two of them lies
//! what happens to a machine: nothing, a while switched off, or another machine with an empty disk.

use std::cell::{Cell, RefCell};
use std::fs;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use rusqlite::Connection;
use simplebackup_engine::backup::Unchanged;
use simplebackup_engine::retention::Retention;
use simplebackup_engine::store::{BackupStore, StoreKind};

use super::database::{Database, state_of};
use super::draw::{Draw, WallClock};
use super::life::{self, Departure};
use super::tap::{Side, Tap};
use super::witness::Witness;
use crate::support::gunzip;
use crate::support::store::FaultyStore;

/// How long a simulated month is.
const MONTH: Duration = Duration::from_hours(30 * 24);

/// Names under the prefix that are none of ours; see `engine/key.rs`.
const FOREIGN: [&str; 4] =
    ["notes.txt", "db-backup-abc.db.gz", "db-backup-007.db.gz", "sub/db-backup-5.db.gz"];

/// What a month came to.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Everything that happened, in order.
    pub(super) trace: String,
    /// How long the machine was on and awake.
    pub(super) awake: Duration,
    /// How long it was off or suspended.
    pub(super) away: Duration,
    pub(super) lives: u64,
    pub(super) made: u64,
    pub(super) brought_back: u64,
}

/// All that outlives a process.
pub(super) struct World {
    pub(super) draw: Draw,
    pub(super) clock: Arc<WallClock>,
    pub(super) witness: Witness,
    pub(super) faults: Arc<FaultyStore>,
    pub(super) store: BackupStore,
    pub(super) retention: Retention,
    pub(super) unchanged: Unchanged,
    /// Shared with what the app does when it is told to start and to leave.
    pub(super) database: Rc<RefCell<Database>>,
    pub(super) awake: Duration,
    pub(super) away: Duration,
    site: PathBuf,
    objects: Arc<dyn ObjectStore>,
    root: tempfile::TempDir,
}

/// Lives through the month of `seed`. Panics at the first violation of an invariant.
pub(super) fn live(seed: u64) -> Summary {
    let mut world = World::new(seed);
    let _tell = TellOnPanic(world.witness.clone());
    world.plant_foreign_objects();
    let mut lives = 0;
    while world.awake + world.away < MONTH {
        world = world.one_life(false);
        lives += 1;
    }
    // At the end whatever is stored has to come back on a new machine.
    world.faults.script().heal();
    world.lose_disk();
    world = world.one_life(true);
    world.check_stored();
    let mut books = world.witness.books();
    Summary {
        trace: std::mem::take(&mut books.trace),
        awake: world.awake,
        away: world.away,
        lives: lives + 1,
        made: books.made,
        brought_back: books.brought_back,
    }
}

/// Prints what happened last, if it ends in a panic.
struct TellOnPanic(Witness);

impl Drop for TellOnPanic {
    fn drop(&mut self) {
        const LINES: usize = 60;
        if std::thread::panicking() {
            let books = self.0.books();
            let lines: Vec<_> = books.trace.lines().rev().take(LINES).collect();
            for line in lines.into_iter().rev() {
                eprintln!("  {line}");
            }
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let root = root();
        let site = root.path().join("site");
        fs::create_dir(&site).expect("made");
        let clock = Arc::new(WallClock::new());
        let keep = NonZeroUsize::new(draw.between(1, 5) as usize).expect("not zero");
        let folder = root.path().to_str().expect("UTF-8").to_owned();
        let retention = Retention {
            daily: if draw.one_in(3) { 4 } else { 0 },
            min_spacing: Duration::from_mins(draw.of(&[0, 0, 60])),
            ..Retention::newest(keep)
        };
        let witness = Witness::new(Arc::clone(&clock), &retention, folder);
        let tap = |inner, side| Arc::new(Tap { inner, witness: witness.clone(), side });
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let faults = Arc::new(FaultyStore::over(tap(Arc::clone(&objects), Side::Done)));
        let asked = tap(Arc::clone(&faults) as _, Side::Asked);
        let journal_mode = draw.of(&["wal", "wal", "delete"]);
        let database = Database::new(site.join("app.db"), journal_mode, witness.clone());
        Self {
            unchanged: draw.of(&[Unchanged::Upload, Unchanged::Skip]),
            draw,
            clock,
            witness,
            faults,
            store: BackupStore::over(asked, StoreKind::S3, "s3://mybucket", "backups"),
            retention,
            database: Rc::new(RefCell::new(database)),
            awake: Duration::ZERO,
            away: Duration::ZERO,
            site,
            objects,
            root,
        }
    }

    fn plant_foreign_objects(&self) {
        let planted = async {
            for name in FOREIGN {
                let path = ObjectPath::from(format!("backups/{name}"));
                self.objects.put(&path, name.into()).await.expect("stored");
            }
        };
        planted.now_or_never().expect("in memory");
    }

    /// Lives from the start of a process to its end, and through what follows it.
    fn one_life(self, is_last: bool) -> Self {
        let (mut world, departure) = in_a_system(life::live(self, is_last));
        world.database.borrow_mut().close();
        if departure == Departure::Killed {
            world.undo_the_cleaning();
        }
        world.check();
        if is_last {
            return world;
        }
        let off = match world.draw.between(0, 4) {
            0..3 => world.draw.span(Duration::from_hours(1), Duration::from_hours(168)),
            _ => world.draw.span(Duration::from_millis(50), Duration::from_mins(5)),
        };
        world.pass_away(off);
        if world.draw.one_in(4) {
            world.lose_disk();
        }
        world
    }

    /// Time passes without the process.
    pub(super) fn pass_away(&mut self, time: Duration) {
        self.away += time;
        self.clock.jump(i64::try_from(time.as_millis()).expect("some days"));
    }

    /// Takes the site away from a process that is about to be killed: what its destructors do
    /// from now on, a killed process does not.
    pub(super) fn pull_the_plug(&mut self) {
        fs::rename(&self.site, self.root.path().join("as-it-was")).expect("moved");
        self.database.borrow_mut().kill();
    }

    fn undo_the_cleaning(&self) {
        let _nothing_was_made = fs::remove_dir_all(&self.site);
        fs::rename(self.root.path().join("as-it-was"), &self.site).expect("moved back");
    }

    fn lose_disk(&mut self) {
        fs::remove_dir_all(&self.site).expect("removed");
        fs::create_dir(&self.site).expect("made");
        self.witness.note("the disk is lost");
    }

    /// Ends the test if something has happened that must not.
    pub(super) fn check(&self) {
        let violation = self.witness.books().violation.clone();
        if let Some(violation) = violation {
            panic!("{violation}");
        }
    }

    /// Opens every stored backup with stock tools, and looks whether strangers' objects are there.
    fn check_stored(&self) {
        let books = self.witness.books();
        for (timestamp, stored) in &books.stored {
            let path = self.root.path().join("look.db");
            fs::write(&path, gunzip(&stored.archive)).expect("written");
            let connection = Connection::open(&path).expect("opened");
            let verdict: String = connection
                .query_row("PRAGMA integrity_check", [], |row| row.get(0))
                .expect("checked");
            let state = state_of(&connection);
            assert_eq!((&*verdict, state), ("ok", books.ledger[stored.position]), "{timestamp}");
        }
        for name in FOREIGN {
            let path = ObjectPath::from(format!("backups/{name}"));
            let read = async { self.objects.get(&path).await?.bytes().await };
            let bytes = read.now_or_never().expect("in memory").expect("I1: it is still there");
            assert_eq!(bytes, name);
        }
    }
}

/// Runs a future in an actix system of its own, on paused time, and drops what it leaves behind.
fn in_a_system<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    let runtime = || {
        // Without the driver of sockets, of which there are none: it costs a system call for each
        // of the scheduler's wake-ups.
        let mut builder = tokio::runtime::Builder::new_current_thread();
        super::be_quiet_on(&mut builder);
        builder.enable_time().start_paused(true).build().expect("a runtime")
    };
    let system = actix::System::with_tokio_rt(runtime);
    let result = Rc::new(Cell::new(None));
    let told = Rc::clone(&result);
    // A task, and `run` rather than `block_on`: what waits is then compiled where tokio is, and
    // optimised with it.
    system.runtime().spawn(async move {
        told.set(Some(AssertUnwindSafe(future).catch_unwind().await));
        actix::System::current().stop();
    });
    system.run().expect("stopped");
    match result.take().expect("told before the stop") {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Makes a folder in memory where the system has one: nobody waits for a disk then.
fn root() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder")
}
