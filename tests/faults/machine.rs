//! What is wrong on this side of the store: the database, the work folder, the lock, the target.

use std::any::Any;
use std::fs;
use std::time::Duration;

use simplebackup_engine::backup::BackupError;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Outcome, RestoreError};
use simplebackup_engine::text;
use simplebackup_engine::work_dir::WorkFolder;

use super::backup::{Ledger, assert_no_leftovers};
use crate::support::script::Gate;
use crate::support::store::{Call, Trouble};
use crate::support::{Site, db, deadline, gzip, leftovers, name};

/// What is wrong, and during what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// A backup: somebody holds the database's lock.
    Locked,
    /// A backup: the database is gone.
    Missing,
    /// A backup: a page of the database is noise.
    BrokenPage,
    /// A backup: an index lacks a row, which only the check of the snapshot sees.
    BrokenIndex,
    /// A backup: the database is an empty file.
    Empty,
    /// A backup: a folder is in the database's place.
    Folder,
    /// A backup: a file is where the work folder has to be.
    NoWorkFolder,
    /// A backup: another process backs up the same database.
    RunElsewhere,
    /// A backup: half of the snapshot vanishes while it is packed.
    SnapshotShrinks,
    /// A restore: a database appears while the backup is downloaded.
    TargetAppears,
    /// A restore: a file is where the work folder has to be.
    NoWorkFolderToRestore,
    /// A restore: the newest backup holds a database with a broken index.
    DamagedInside,
}

pub(super) const CASES: [Case; 12] = [
    Case::Locked,
    Case::Missing,
    Case::BrokenPage,
    Case::BrokenIndex,
    Case::Empty,
    Case::Folder,
    Case::NoWorkFolder,
    Case::RunElsewhere,
    Case::SnapshotShrinks,
    Case::TargetAppears,
    Case::NoWorkFolderToRestore,
    Case::DamagedInside,
];

/// One case: the job, its error, the invariants; then what was wrong is mended.
pub(super) async fn check(case: Case) {
    let mut ledger = Ledger::with_backups().await;
    ledger.next_hour();
    match case {
        Case::TargetAppears | Case::NoWorkFolderToRestore => {
            check_restore(case, &ledger).await;
        }
        Case::DamagedInside => check_damaged(&ledger).await,
        Case::SnapshotShrinks => check_shrinking(&mut ledger).await,
        _ => check_backup(case, &ledger).await,
    }
    assert_no_leftovers(&ledger.site);
    ledger.assert_next_run_succeeds(&format!("{case:?}")).await;
}

async fn check_backup(case: Case, ledger: &Ledger) {
    let (site, objects) = (&ledger.site, ledger.objects().await);
    let writes = || {
        let mut calls = site.script().calls();
        calls.retain(|call| !matches!(call, Call::List | Call::Get));
        calls.len()
    };
    let before = writes();
    let sound = fs::read(site.database()).expect("read");
    let engine = site.backup_engine().with_busy_timeout(Duration::from_millis(20));
    let held = spoil(case, site);
    let spoilt = fs::read(site.database()).ok();

    let refused = engine.back_up(deadline(), &Progress::default()).await.expect_err("spoilt");

    let words = text::chain(&refused);
    let is_expected = match case {
        Case::Locked | Case::Missing | Case::Empty | Case::Folder | Case::BrokenPage => {
            matches!(refused, BackupError::Snapshot(_) | BackupError::Check(_))
        }
        Case::BrokenIndex => matches!(refused, BackupError::Check(_)),
        Case::NoWorkFolder => matches!(refused, BackupError::WorkFolder { .. }),
        Case::RunElsewhere => matches!(refused, BackupError::InProgress { .. }),
        _ => false,
    };
    assert!(is_expected, "{case:?}: {words}");
    assert_eq!(writes(), before, "{case:?}: the store was written to");
    assert!(ledger.objects().await == objects, "{case:?}: something stored or pruned");
    assert!(fs::read(site.database()).ok() == spoilt, "{case:?}: the database was touched");
    drop(held);
    mend(case, site, &sound);
}

/// Spoils the database or its surroundings. What is returned holds it so.
fn spoil(case: Case, site: &Site) -> Box<dyn Any> {
    let database = site.database();
    let work = WorkFolder::beside(&database);
    match case {
        Case::Locked => {
            let app = db::open(&database);
            let lock = "PRAGMA journal_mode = delete; BEGIN EXCLUSIVE";
            app.execute_batch(lock).expect("locked");
            return Box::new(app);
        }
        Case::RunElsewhere => return Box::new(work.lock_run().expect("free")),
        Case::BrokenPage => db::break_page(&database),
        Case::BrokenIndex => db::break_index(&database),
        Case::NoWorkFolder | Case::NoWorkFolderToRestore => {
            fs::remove_dir_all(work.path()).expect("removed");
            fs::write(work.path(), "in the way").expect("written");
        }
        _ => {
            site.lose_database();
            match case {
                Case::Empty => fs::write(database, "").expect("written"),
                Case::Folder => fs::create_dir(database).expect("made"),
                _ => {}
            }
        }
    }
    Box::new(())
}

/// Makes it as it was.
fn mend(case: Case, site: &Site, sound: &[u8]) {
    let work = WorkFolder::beside(&site.database());
    match case {
        Case::Locked | Case::RunElsewhere => {}
        Case::NoWorkFolder | Case::NoWorkFolderToRestore => {
            fs::remove_file(work.path()).expect("removed");
        }
        _ => {
            if case == Case::Folder {
                fs::remove_dir(site.database()).expect("removed");
            }
            site.lose_database();
            fs::write(site.database(), sound).expect("written");
        }
    }
}

/// Never upload what a restore would refuse: the check saw another file than the archive holds.
async fn check_shrinking(ledger: &mut Ledger) {
    ledger.grow();
    let (site, gate, objects) = (&ledger.site, Gate::default(), ledger.objects().await);
    site.script().plan(Call::BeginUpload, .., Trouble::Hold(gate.clone()));
    let shrinking = async {
        gate.arrival().await;
        let work = WorkFolder::beside(&site.database()).path().to_owned();
        let snapshots = leftovers(&site.database()).into_iter();
        let snapshots = snapshots.map(|run| work.join(run).join("snapshot.db"));
        let [snapshot] = &snapshots.collect::<Vec<_>>()[..] else { panic!("one run") };
        let file = fs::File::options().write(true).open(snapshot).expect("there");
        let bytes = file.metadata().expect("read").len();
        file.set_len(bytes / 2).expect("cut");
        gate.release();
        bytes
    };
    let (refused, bytes) = tokio::join!(site.back_up(), shrinking);
    assert_eq!(site.script().fired(Call::BeginUpload), 1);
    let refused = refused.expect_err("half a database");
    assert!(matches!(refused, BackupError::Archive(_)), "{refused:?}");
    let words = text::chain(&refused);
    assert!(words.contains(&format!("{} of {bytes} bytes", bytes / 2)), "{words}");
    assert_eq!(site.script().count(Call::Abort), 1);
    assert!(ledger.objects().await == objects, "something stored or pruned");
}

async fn check_restore(case: Case, ledger: &Ledger) {
    let (site, gate) = (&ledger.site, Gate::default());
    let sound = fs::read(site.database()).expect("read");
    site.lose_database();
    site.script().plan(Call::Get, .., Trouble::Hold(gate.clone()));
    if case == Case::NoWorkFolderToRestore {
        spoil(case, site);
        let refused = site.restore().await.expect_err("no room to work in");
        assert!(matches!(refused, RestoreError::WorkFolder { .. }), "{refused:?}");
        assert!(!site.database().exists());
        mend(case, site, &sound);
        fs::write(site.database(), sound).expect("written");
        return;
    }
    let appearing = async {
        gate.arrival().await;
        fs::write(site.database(), &sound).expect("written");
        gate.release();
    };
    let (refused, ()) = tokio::join!(site.restore(), appearing);
    assert_eq!(site.script().fired(Call::Get), 1);
    let refused = refused.expect_err("it is there by now");
    assert!(matches!(refused, RestoreError::Place(_)), "{refused:?}");
    assert!(fs::read(site.database()).expect("there") == sound, "it was touched");
    site.script().heal();
    let again = site.restore().await.expect("there");
    assert_eq!(again.outcome(), &Outcome::AlreadyThere);
}

async fn check_damaged(ledger: &Ledger) {
    let site = &ledger.site;
    let sound = fs::read(site.database()).expect("read");
    let damaged = site.root().join("damaged.db");
    db::create_with_wrong_index(&damaged);
    let newest = ledger.backups().await.pop().expect("stored");
    let intact = site.get(&newest).await;
    site.put(&newest, gzip(&fs::read(&damaged).expect("read"))).await;
    fs::remove_file(damaged).expect("removed");
    site.lose_database();
    let refused = site.restore().await.expect_err("damaged");
    assert!(matches!(refused, RestoreError::Damaged { .. }), "{refused:?}");
    assert!(!site.database().exists());
    assert_ne!(newest, name(1));
    site.put(&newest, intact).await;
    site.restore().await.expect("sound again");
    assert!(db::dump(&site.database()) == *ledger.state(&newest), "other rows");
    site.lose_database();
    fs::write(site.database(), sound).expect("written");
}
