//! Databases that cannot be copied: broken, foreign, locked. The store keeps what it has, and a store
//! that hangs does not hide what is wrong.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use simplebackup_engine::backup::BackupError;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::text;

use crate::support::process::PATIENCE;
use crate::support::store::{Call, Trouble};
use crate::support::{Site, db, deadline, name};

/// A useless database: how it comes about, and words of the error.
type BadDatabase = (&'static str, fn(&Path), &'static str);

const BAD_DATABASES: [BadDatabase; 7] = [
    ("a folder", |path| fs::create_dir(path).expect("made"), "is a folder, not a database"),
    ("a socket", |path| drop(bind(path)), "is a special file, not a database"),
    ("zero bytes", |path| fs::write(path, "").expect("written"), "is empty (0 bytes)"),
    ("text", |path| fs::write(path, "x".repeat(5000)).expect("written"), "not a SQLite database"),
    ("a broken page", broken, "is corrupt"),
    ("a broken page under WAL", broken_under_wal, "is corrupt"),
    ("a wrong index", db::create_with_wrong_index, "integrity check found"),
];

fn bind(path: &Path) -> std::os::unix::net::UnixListener {
    std::os::unix::net::UnixListener::bind(path).expect("bound")
}

fn broken(path: &Path) {
    db::create(path, "delete", 100);
    db::break_page(path);
}

fn broken_under_wal(path: &Path) {
    db::create(path, "wal", 100);
    db::break_page(path);
}

#[tokio::test]
async fn a_useless_database_changes_nothing_in_the_store() {
    for (case, build, words) in BAD_DATABASES {
        let site = Site::new();
        for timestamp in 1..=5 {
            site.put(&name(timestamp), "old").await;
        }
        build(&site.database());

        let refused = site.back_up().await.expect_err(case);

        let chain = text::chain(&refused);
        assert!(chain.contains(words), "{case}: {chain}");
        // Its check runs beside the look at the store, not before.
        let mut calls = site.script().calls();
        calls.retain(|call| !matches!(call, Call::List | Call::Get));
        assert_eq!(calls, [], "{case}: nothing uploaded, nothing pruned");
        assert_eq!(site.stored().await.len(), 5, "{case}");
        site.assert_no_leftovers();
    }
}

/// Asserts that the store was asked, beside the snapshot, for its list at most.
fn assert_only_looked(site: &Site) {
    let calls = site.script().calls();
    assert!(calls.iter().all(|call| *call == Call::List), "{calls:?}");
}

/// Returns a site whose database an app has locked, for as long as its transaction goes on.
fn locked() -> (Site, Connection) {
    let site = Site::new();
    db::create(&site.database(), "delete", 100);
    let app = db::open(&site.database());
    app.execute_batch("BEGIN EXCLUSIVE").expect("locked");
    (site, app)
}

/// A store that hangs must not hide what is wrong with the database.
#[tokio::test]
async fn a_snapshot_that_is_refused_does_not_wait_for_the_store() {
    let site = Site::new();
    fs::write(site.database(), db::noise(1, 4096)).expect("written");
    site.script().plan(Call::List, .., Trouble::Hang);
    let (engine, progress) = (site.backup_engine(), Progress::default());
    let job = engine.back_up(Deadline::after(Duration::from_hours(1)), &progress);
    let refused = tokio::time::timeout(PATIENCE, job).await.expect("at once");
    let refused = refused.expect_err("not SQLite");
    assert!(matches!(refused, BackupError::Snapshot(_)), "{refused:?}");
}

/// What the snapshot waits for is no time to look away: the list is read beside it.
#[tokio::test]
async fn the_list_is_read_while_the_snapshot_is_made() {
    let (site, app) = locked();
    let (engine, progress) = (site.backup_engine(), Progress::default());
    let unlocking = async {
        for _ in 0..1000 {
            if !site.script().calls().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(site.script().calls(), [Call::List]);
        app.execute_batch("ROLLBACK").expect("unlocked");
    };
    let (made, ()) = tokio::join!(engine.back_up(deadline(), &progress), unlocking);
    made.expect("made");
    assert_eq!(site.script().count(Call::List), 1);
}

/// Taken for an empty database, it would be stored, and prune the good backups away.
#[tokio::test]
async fn a_database_of_less_than_a_page_is_refused() {
    for bytes in [1, 2, 99, 100, 511] {
        let site = Site::new();
        fs::write(site.database(), db::noise(1, bytes)).expect("written");
        let refused = site.back_up().await.expect_err("not SQLite");
        let chain = text::chain(&refused);
        assert!(chain.contains("not a SQLite database"), "{bytes}: {chain}");
        assert_only_looked(&site);
    }
}

#[tokio::test]
async fn a_locked_database_is_an_error_and_the_next_run_succeeds() {
    let (site, app) = locked();
    let engine = site.backup_engine().with_busy_timeout(Duration::from_millis(50));

    let progress = Progress::default();
    let refused = engine.back_up(deadline(), &progress).await.expect_err("locked");

    assert!(matches!(refused, BackupError::Snapshot(_)), "{refused:?}");
    let chain = text::chain(&refused);
    assert!(chain.contains("database is locked; waited 50 ms"), "{chain}");
    assert_only_looked(&site);
    site.assert_no_leftovers();
    app.execute_batch("ROLLBACK").expect("unlocked");
    engine.back_up(deadline(), &progress).await.expect("made");
}

#[tokio::test]
async fn a_short_lock_is_waited_for() {
    let (site, app) = locked();
    let unlocking = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        app.execute_batch("ROLLBACK").expect("unlocked");
    };
    let (made, ()) = tokio::join!(site.back_up(), unlocking);
    made.expect("made after the wait");
}
