//! The rules of SQLite that bind this design: journals and their leftovers, settings in the
//! file, rights, names, and databases that need their own app to be understood.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::Connection;
use simplebackup_engine::backup::{BackupError, BackupReport};
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Fallback, Outcome, RestoreEngine};
use simplebackup_engine::text;
use simplebackup_engine::work_dir::WorkFolder;

use crate::support::script::Gate;
use crate::support::store::{Call, Trouble};
use crate::support::{
    START, Site, assert_no_leftovers, backup_engine, db, deadline, files_in, gunzip, name,
    visible_files_in,
};

/// Backs up `database` into the store of `site`, removes it with all that is beside it, and
/// restores it.
async fn there_and_back(site: &Site, database: &Path) -> BackupReport {
    let engine = backup_engine(database, site.store(), &site.clock);
    let report = engine.back_up(deadline(), &Progress::default()).await.expect("made");
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut file = database.as_os_str().to_owned();
        file.push(suffix);
        let _may_be_missing = fs::remove_file(file);
    }
    restore_to(site, database).await;
    report
}

async fn restore_to(site: &Site, database: &Path) {
    let engine: RestoreEngine = site.restore_engine();
    let progress = Progress::default();
    let restored = engine.restore_if_missing(database, Fallback::Refuse, deadline(), &progress);
    restored.await.expect("restored");
}

/// Rule 5: `VACUUM INTO` always makes a rollback database.
#[tokio::test]
async fn a_database_keeps_its_journal_mode() {
    for (journal_mode, version) in [("wal", 2), ("delete", 1)] {
        let site = Site::new();
        db::create(&site.database(), journal_mode, 20);
        there_and_back(&site, &site.database()).await;

        let header = gunzip(&site.get(&name(START)).await);
        assert_eq!(header[18..20], [version; 2], "{journal_mode}: stored, for stock tools");
        assert_eq!(db::pragma(&site.database(), "journal_mode"), journal_mode);
        assert_eq!(visible_files_in(site.root()), ["app.db"], "no log beside it");
    }
}

/// Rule 7, and decision 14.
#[tokio::test]
async fn settings_in_the_file_survive() {
    let site = Site::new();
    let settings = [
        ("page_size", "8192"),
        ("auto_vacuum", "1"),
        ("encoding", "UTF-16be"),
        ("user_version", "42"),
        ("application_id", "252006673"),
    ];
    {
        let connection = Connection::open(site.database()).expect("opened");
        for (pragma, value) in settings {
            let sql = format!("PRAGMA {pragma} = '{value}'");
            connection.execute_batch(&sql).expect("set");
        }
        connection.execute_batch("PRAGMA journal_mode = WAL").expect("set");
        connection.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES ('Zoë')").expect("made");
    }
    let before = db::dump(&site.database());
    let schema_version = db::pragma(&site.database(), "schema_version");
    there_and_back(&site, &site.database()).await;
    assert_eq!(db::pragma(&site.database(), "schema_version"), schema_version);
    for (pragma, value) in settings {
        assert_eq!(db::pragma(&site.database(), pragma), value, "{pragma}");
    }
    assert_eq!(db::dump(&site.database()), before);
}

/// Decision 31: by itself SQLite leaves in the root of a tree what has moved down to its leaves.
#[tokio::test]
async fn what_the_root_of_a_tree_does_not_use_is_zeros() {
    let site = Site::new();
    let app = db::open_new(&site.database(), "delete");
    for table in 0..20 {
        app.execute_batch(&format!(
            "CREATE TABLE letters{table} (text TEXT NOT NULL);
             CREATE INDEX by_text{table} ON letters{table} (text); BEGIN;
             WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 100)
             INSERT INTO letters{table} SELECT hex(randomblob(50)) FROM n; COMMIT",
        ))
        .expect("filled");
    }
    there_and_back(&site, &site.database()).await;

    let snapshot = gunzip(&site.get(&name(START)).await);
    let unused: Vec<&[u8]> = snapshot.chunks(4096).filter_map(unused_of_root).collect();
    assert_eq!(unused.len(), 40, "one of each table, and of each index");
    let unused = unused.concat();
    assert_eq!(unused.iter().filter(|&&byte| byte != 0).count(), 0, "of {}", unused.len());
}

/// Returns what lies between the pointers to the cells of a page above the leaves and its cells, which grow
/// towards each other (<https://sqlite.org/fileformat2.html#b_tree_pages>).
fn unused_of_root(page: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
    matches!(page[0], 2 | 5).then(|| &page[12 + 2 * number(3)..number(5)])
}

/// Rule 6.
#[tokio::test]
async fn permissions_survive() {
    for mode in [0o600, 0o644, 0o660, 0o400] {
        let site = Site::with_database();
        let wanted = fs::Permissions::from_mode(mode);
        fs::set_permissions(site.database(), wanted).expect("set");
        there_and_back(&site, &site.database()).await;
        let restored = fs::metadata(site.database()).expect("restored").permissions().mode();
        assert_eq!(restored & 0o7777, mode, "{restored:o}");
    }
}

/// While a backup runs, others of the machine see neither the snapshot nor its folder.
#[tokio::test]
async fn the_snapshot_is_private() {
    let site = Site::with_database();
    let gate = Gate::default();
    site.script().plan(Call::Put, .., Trouble::Hold(gate.clone()));
    let looking = async {
        gate.arrival().await;
        let work = WorkFolder::beside(&site.database()).path().to_owned();
        let run = files_in(&work).into_iter().find(|name| name.starts_with("backup-"));
        let run = work.join(run.expect("the run's folder"));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&work), 0o700);
        assert_eq!(mode(&run), 0o700);
        assert_eq!(mode(&run.join("snapshot.db")), 0o600);
        gate.release();
    };
    let (made, ()) = tokio::join!(site.back_up(), looking);
    made.expect("made");
}

/// Rule 12: SQLite replays a log that it finds beside a database, whosever it was.
#[tokio::test]
async fn a_stale_wal_is_moved_aside_and_not_replayed() {
    let site = Site::new();
    db::create(&site.database(), "wal", 100);
    site.back_up().await.expect("made");
    let backed_up = db::dump(&site.database());
    let stale = {
        let app = db::open(&site.database());
        db::add_notes(&app, 200);
        fs::read(site.root().join("app.db-wal")).expect("a log of the later rows")
    };
    site.lose_database();
    fs::write(site.root().join("app.db-wal"), &stale).expect("written");

    site.restore().await.expect("restored");

    let aside = format!("app.db-wal.stale-{START}");
    assert_eq!(visible_files_in(site.root()), ["app.db", &aside]);
    assert_eq!(fs::read(site.root().join(&aside)).expect("kept"), stale);
    assert_eq!(db::dump(&site.database()), backed_up);
}

/// Leaves `database` as a power cut in the middle of a transaction does: pages half written
/// and a hot journal beside it, which together are the state before.
fn crash_in_transaction(database: &Path) {
    let live = database.with_extension("live");
    fs::rename(database, &live).expect("moved");
    let app = db::open(&live);
    // So small a cache makes SQLite write pages before the commit.
    app.execute_batch("PRAGMA cache_size = 2; BEGIN; UPDATE notes SET text = text || '!'")
        .expect("updated");
    let journal = |path: &Path| path.with_file_name(format!("{}-journal", file_name(path)));
    fs::copy(&live, database).expect("copied");
    fs::copy(journal(&live), journal(database)).expect("copied");
    app.execute_batch("ROLLBACK").expect("rolled back");
    drop(app);
    fs::remove_file(&live).expect("removed");
}

fn file_name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

/// Rule 13: SQLite rolls a journal back that it finds beside a database, and breaks it.
#[tokio::test]
async fn a_stale_journal_is_moved_aside_and_not_rolled_back() {
    let site = Site::new();
    db::create(&site.database(), "delete", 2000);
    site.back_up().await.expect("made");
    let backed_up = db::dump(&site.database());
    db::open(&site.database()).execute("DELETE FROM notes WHERE id % 2", []).expect("deleted");
    crash_in_transaction(&site.database());
    fs::remove_file(site.database()).expect("lost");

    site.restore().await.expect("restored");

    let aside = format!("app.db-journal.stale-{START}");
    assert_eq!(visible_files_in(site.root()), ["app.db", &aside]);
    assert_eq!(db::dump(&site.database()), backed_up);
}

/// Rule 17: a read-only connection refuses a database with a hot journal.
#[tokio::test]
async fn a_database_with_a_hot_journal_is_backed_up_as_before_the_transaction() {
    let site = Site::new();
    db::create(&site.database(), "delete", 2000);
    let before = db::dump(&site.database());
    crash_in_transaction(&site.database());
    there_and_back(&site, &site.database()).await;
    assert_eq!(db::dump(&site.database()), before);
}

/// Rule 16: after `kill -9` the committed rows are in the log alone.
#[tokio::test]
async fn a_log_that_a_killed_app_left_is_in_the_backup() {
    let site = Site::new();
    let live = site.root().join("live.db");
    db::create(&live, "wal", 10);
    let app = db::open(&live);
    app.execute_batch("PRAGMA wal_autocheckpoint = 0").expect("set");
    db::add_notes(&app, 1000);
    let committed = db::dump_of(&app);
    fs::copy(&live, site.database()).expect("copied");
    fs::copy(site.root().join("live.db-wal"), site.root().join("app.db-wal")).expect("copied");
    drop(app);
    let files = ["app.db", "app.db-wal"].map(|file| site.root().join(file));
    let before = files.each_ref().map(|file| fs::read(file).expect("read"));

    site.back_up().await.expect("made");

    let after = files.each_ref().map(|file| fs::read(file).expect("still there"));
    assert!(before == after, "the app's files are as they were");
    site.lose_database();
    site.restore().await.expect("restored");
    assert_eq!(db::dump(&site.database()), committed);
}

/// Rules 15 and 18: the log belongs to the app; nobody else checkpoints it.
#[tokio::test]
async fn a_backup_does_not_change_the_database_of_a_running_app() {
    for journal_mode in db::JOURNAL_MODES {
        let site = Site::new();
        db::create(&site.database(), journal_mode, 100);
        let app = db::open(&site.database());
        db::add_notes(&app, 10);
        let read_all = || {
            let names = files_in(site.root()).into_iter().filter(|name| !name.ends_with("-shm"));
            let files = names.filter(|name| name.starts_with("app.db"));
            files.map(|n| (n.clone(), fs::read(site.root().join(n)).expect("read"))).collect()
        };
        let before: Vec<_> = read_all();
        site.back_up().await.expect("made");
        let after: Vec<_> = read_all();
        assert!(before == after, "{journal_mode}: the app's files are as they were");
        db::add_notes(&app, 1);
    }
}

/// Rule 10.
#[tokio::test]
async fn a_database_that_needs_its_own_app_is_copied_and_said_to_be_unverified() {
    let site = Site::new();
    let before = db::dump_of(&db::create_with_own_collation_and_function(&site.database()));

    let report = site.back_up().await.expect("made page by page");
    site.lose_database();
    let restored = site.restore().await.expect("restored");

    assert_eq!(report.unverified_tables, ["lengths", "words"]);
    let Outcome::FromBackup(restored) = restored.outcome() else { panic!("{restored:?}") };
    assert_eq!(restored.unverified_tables, ["lengths", "words"]);
    assert_eq!(db::dump_of(&db::open(&site.database())), before);
    assert_eq!(db::pragma(&site.database(), "journal_mode"), "wal");
}

/// One table that cannot be verified must not hide the damage of another.
#[tokio::test]
async fn what_can_be_verified_beside_an_unverified_table_is() {
    let site = Site::new();
    let path = site.database();
    drop(db::create_with_own_collation_and_function(&path));
    db::break_index(&path);
    let refused = site.back_up().await.expect_err("a broken index");
    assert!(matches!(refused, BackupError::Check(_)), "{refused:?}");
    let chain = text::chain(&refused);
    assert!(chain.contains("row 7 missing from index notes_by_text"), "{chain}");
    assert_eq!(site.stored().await.len(), 0);
}

#[tokio::test]
async fn odd_names_are_backed_up_and_restored() {
    let names = ["it's; a \"data\" base.db", "Zoë \u{1F980}.db", "100%41?mode=ro#.db", "file:x.db"];
    for odd in names {
        let site = Site::new();
        let folder = site.root().join(format!("in {odd}"));
        fs::create_dir(&folder).expect("made");
        let database = folder.join(odd);
        db::create(&database, "wal", 20);
        let before = db::dump(&database);
        there_and_back(&site, &database).await;
        assert_eq!(db::dump(&database), before, "{odd}");
        assert_no_leftovers(&database);
    }
}

/// Rule 25: two names would be two locks, and a journal beside the wrong one.
#[tokio::test]
async fn a_link_and_its_target_are_one_database() {
    let site = Site::with_database();
    let link = site.root().join("link.db");
    std::os::unix::fs::symlink("app.db", &link).expect("linked");
    let before = db::dump(&site.database());
    let gate = Gate::default();
    site.script().plan(Call::Put, ..1, Trouble::Hold(gate.clone()));
    let engine = backup_engine(&link, site.store(), &site.clock);
    let progress = Progress::default();
    let meanwhile = async {
        gate.arrival().await;
        let refused = site.back_up().await.expect_err("the link's backup runs");
        assert!(matches!(refused, BackupError::InProgress { .. }), "{refused:?}");
        gate.release();
    };
    let (made, ()) = tokio::join!(engine.back_up(deadline(), &progress), meanwhile);
    made.expect("made through the link");

    site.lose_database();
    restore_to(&site, &link).await;

    assert!(fs::symlink_metadata(&link).expect("there").is_symlink(), "the link stays one");
    assert_eq!(db::dump(&site.database()), before);
    assert_no_leftovers(&site.database());
}

/// A folder that is missing on a new machine is made.
#[tokio::test]
async fn a_restore_makes_the_folder_of_the_database() {
    let site = Site::with_database();
    let before = db::dump(&site.database());
    site.back_up().await.expect("made");
    let database = site.root().join("var/lib/app/app.db");
    restore_to(&site, &database).await;
    assert_eq!(db::dump(&database), before);
}
