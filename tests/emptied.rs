//! What a backup knows of the one before: an emptied database never evicts good backups, an
//! unchanged one need not be stored again.

use std::io::Write;

use chrono::DateTime;
use object_store::{Attribute, ObjectStoreExt};
use rusqlite::Connection;
use simplebackup_engine::archive;
use simplebackup_engine::backup::{BackupEngine, BackupReport, Unchanged};
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::Outcome;
use simplebackup_engine::store::{Fault, Patience};

use crate::support::store::{Call, Trouble};
use crate::support::{START, Site, db, deadline, gunzip, name};

const MARK: &str = "pruning-suspended.json";

async fn back_up(site: &Site, engine: &BackupEngine) -> BackupReport {
    site.clock.jump(3600);
    engine.back_up(deadline(), &Progress::default()).await.expect("made")
}

fn change(site: &Site, sql: &str) {
    let connection = Connection::open(site.database()).expect("opened");
    connection.execute_batch(sql).expect("changed");
}

/// Returns the backups under the prefix, without the mark.
async fn backups(site: &Site) -> Vec<String> {
    let mut stored = site.stored().await;
    stored.retain(|name| name != MARK);
    stored
}

#[tokio::test]
async fn i1_an_emptied_database_evicts_no_good_backup_until_a_person_confirms() {
    let site = Site::with_database();
    let engine = site.backup_engine();
    let before = back_up(&site, &engine).await;
    assert!(before.contents.tables > 0 && before.contents.rows > 0, "{:?}", before.contents);
    db::drop_all_tables(&site.database());

    let mut suspension = None;
    for hours in 1..=5 {
        // Another process each time: what counts is in the store.
        let report = back_up(&site, &site.backup_engine()).await;
        assert_eq!((report.deleted, report.stored), (0, hours + 1));
        suspension = report.suspension;
    }
    let suspension = suspension.expect("nothing is deleted, and why");
    assert_eq!(suspension.since, DateTime::from_timestamp(START + 2 * 3600, 0).expect("in range"));
    let reason = format!("gone that {} has", before.key);
    assert!(suspension.reason.ends_with(&reason), "{}", suspension.reason);
    assert_eq!(site.script().count(Call::Delete), 0);

    engine.store().resume_pruning(deadline()).await.expect("confirmed");
    let report = back_up(&site, &site.backup_engine()).await;
    assert_eq!((report.deleted, report.stored, report.suspension), (4, 3, None));
    assert!(!backups(&site).await.contains(&before.key.to_string()), "as it was told to");
}

#[tokio::test]
async fn i1_a_database_that_shrinks_below_a_tenth_counts_as_emptied() {
    for (rows_left, is_suspended) in [(30, true), (400, false)] {
        let site = Site::with_database();
        change(
            &site,
            "CREATE TABLE filler AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
             WHERE i < 2000) SELECT i, hex(randomblob(500)) AS text FROM n",
        );
        let engine = site.backup_engine();
        back_up(&site, &engine).await;
        change(&site, &format!("DELETE FROM filler WHERE i > {rows_left}"));
        let report = back_up(&site, &engine).await;
        assert_eq!(report.suspension.is_some(), is_suspended, "{rows_left} rows left");
        assert_eq!(site.stored().await.contains(&MARK.to_owned()), is_suspended);
    }
}

/// A person who confirms the first loss has to be told of the second.
#[tokio::test]
async fn i1_a_second_loss_is_noticed_while_the_first_is_unconfirmed() {
    let site = Site::with_database();
    change(&site, "CREATE TABLE filler AS SELECT hex(zeroblob(100000)) AS x");
    back_up(&site, &site.backup_engine()).await;
    change(&site, "DROP TABLE filler");
    let first = back_up(&site, &site.backup_engine()).await.suspension.expect("it shrank");
    db::drop_all_tables(&site.database());
    for _ in 0..2 {
        let second = back_up(&site, &site.backup_engine()).await.suspension.expect("suspended");
        assert_eq!(second.since, first.since);
        assert!(second.reason.starts_with(&first.reason), "{}", second.reason);
        assert!(second.reason[first.reason.len()..].contains(" gone that "), "{}", second.reason);
    }
    let stored = site.get(MARK).await;
    assert!(String::from_utf8_lossy(&stored).contains(" gone that "), "{stored:?}");
}

/// The mark comes first: stored without it, the emptied one would be the next one's measure.
#[tokio::test]
async fn i1_without_the_mark_an_emptied_database_is_not_stored() {
    let site = Site::with_database();
    let engine = site.backup_engine();
    back_up(&site, &engine).await;
    let stored = site.stored().await;
    db::drop_all_tables(&site.database());
    site.script().plan(Call::Put, ..1, Trouble::Fail(Fault::AccessDenied));

    let failed = engine.back_up(deadline(), &Progress::default()).await.expect_err("refused");

    assert!(failed.to_string().contains(MARK), "{failed}");
    assert_eq!(site.stored().await, stored);
    let report = back_up(&site, &engine).await;
    assert!(report.suspension.is_some(), "the next run compares with the good one again");
}

/// What can't be compared evicts nothing, and stays the measure for the next run.
#[tokio::test]
async fn i1_a_backup_before_that_cannot_be_read_is_compared_with_later() {
    let site = Site::with_database();
    for _ in 0..3 {
        back_up(&site, &site.backup_engine()).await;
    }
    db::drop_all_tables(&site.database());
    let engine = site.backup_engine();
    site.script().plan(Call::Get, ..1, Trouble::Fail(Fault::AccessDenied));

    let unread = back_up(&site, &engine).await;
    assert_eq!((unread.deleted, unread.stored), (0, 4));
    let warning = unread.delete_warning.expect("told");
    assert!(warning.contains("access denied"), "{warning}");

    let compared = back_up(&site, &engine).await;
    assert!(compared.suspension.is_some() && compared.deleted == 0, "{compared:?}");
}

/// Found by the simulation: the next process took the emptied one, stored unseen, for the measure.
#[tokio::test]
async fn i1_what_could_not_be_compared_is_compared_after_a_restart_too() {
    for unread in 1..=3 {
        let site = Site::with_database();
        for _ in 0..3 {
            back_up(&site, &site.backup_engine()).await;
        }
        db::drop_all_tables(&site.database());
        // Another process each time: nobody remembers anything.
        for _ in 0..unread {
            site.script().plan(Call::Get, ..1, Trouble::Fail(Fault::AccessDenied));
            assert_eq!(back_up(&site, &site.backup_engine()).await.deleted, 0);
        }
        let compared = back_up(&site, &site.backup_engine()).await;
        assert!(compared.suspension.is_some() && compared.deleted == 0, "{compared:?}");
    }
}

#[tokio::test]
async fn a_restore_says_that_the_newest_may_be_of_an_emptied_database() {
    let site = Site::with_database();
    back_up(&site, &site.backup_engine()).await;
    db::drop_all_tables(&site.database());
    back_up(&site, &site.backup_engine()).await;
    site.put(MARK, "someone's own note").await;
    site.lose_database();
    let restored = site.restore().await.expect("restored");
    let Outcome::FromBackup(report) = restored.outcome() else { panic!("{restored:?}") };
    // A mark that is not ours to read still holds.
    let suspension = report.suspension.as_ref().expect("it is told");
    assert!(suspension.reason.ends_with(MARK), "{}", suspension.reason);
}

#[tokio::test]
async fn a_backup_says_what_it_holds_in_its_header_and_in_the_objects_metadata() {
    let site = Site::with_database();
    let report = back_up(&site, &site.backup_engine()).await;
    let archive = site.get(&report.key.to_string()).await;
    let manifest = archive::manifest_at(&archive).expect("ours");
    assert_eq!(manifest.contents, Some(report.contents.clone()));
    let database = gunzip(&archive);
    assert_eq!(manifest.database_bytes, database.len() as u64);
    let digest = ring::digest::digest(&ring::digest::SHA256, &database);
    assert_eq!(report.contents.sha256, simplebackup_engine::text::hex(digest.as_ref()));

    let head = site.objects().get(&site.path_of(&report.key.to_string())).await.expect("stored");
    for (entry, text) in manifest.entries() {
        let stored = head.attributes.get(&Attribute::Metadata(entry.clone().into()));
        assert_eq!(stored.map(|value| &**value), Some(text.as_str()), "{entry}");
    }
    assert_eq!(head.attributes.len(), 6);
}

#[tokio::test]
async fn an_unchanged_database_is_not_stored_again_and_counts_as_a_success() {
    let site = Site::with_database();
    let engine = || site.backup_engine().with_unchanged(Unchanged::Skip);
    let first = back_up(&site, &engine()).await;
    let second = back_up(&site, &engine()).await;
    assert!(!first.is_unchanged && second.is_unchanged);
    assert_eq!((second.key, second.archive_bytes), (first.key, first.archive_bytes));
    assert_eq!((second.contents, second.stored), (first.contents.clone(), 1));
    assert!(second.ended_at > first.ended_at, "the data is as safe as it was then");

    // Not even a restore changes a byte of the next snapshot.
    site.lose_database();
    site.restore().await.expect("restored");
    assert!(back_up(&site, &engine()).await.is_unchanged);

    change(&site, "CREATE TABLE news (x)");
    let third = back_up(&site, &engine()).await;
    assert!(!third.is_unchanged && third.stored == 2);
    // Back to what an older backup holds is a change too.
    change(&site, "DROP TABLE news");
    assert!(!back_up(&site, &engine()).await.is_unchanged);
}

#[tokio::test]
async fn a_backup_that_the_store_lost_is_made_again() {
    let site = Site::with_database();
    let engine = site.backup_engine().with_unchanged(Unchanged::Skip);
    let first = back_up(&site, &engine).await;
    site.objects().delete(&site.path_of(&first.key.to_string())).await.expect("deleted");
    let second = back_up(&site, &engine).await;
    assert!(!second.is_unchanged);
    // A file that only has the name: its header says something else, or nothing.
    site.put(&second.key.to_string(), "not what was stored").await;
    let third = back_up(&site, &engine).await;
    assert!(!third.is_unchanged && third.key > second.key);
    assert_eq!(backups(&site).await.len(), 2);
    assert!(backups(&site).await.contains(&name(START + 3 * 3600)));
}

/// What is the same as an older backup than the newest has to become the newest.
#[tokio::test]
async fn only_the_newest_backup_makes_an_upload_needless() {
    let site = Site::with_database();
    change(&site, "CREATE TABLE news (x)");
    back_up(&site, &site.backup_engine()).await;
    let engine = site.backup_engine().with_unchanged(Unchanged::Skip);
    site.script().plan(Call::Get, ..1, Trouble::Fail(Fault::AccessDenied));
    change(&site, "INSERT INTO news VALUES ('war')");
    back_up(&site, &engine).await;
    change(&site, "DELETE FROM news");
    let report = back_up(&site, &engine).await;
    assert!(!report.is_unchanged && report.stored == 3, "{report:?}");
}

/// Sound gzip and a sound database, but not the one that was stored: no other check sees it.
#[tokio::test]
async fn i2_a_backup_of_other_bytes_than_it_promises_is_refused() {
    let site = Site::with_database();
    let name = back_up(&site, &site.backup_engine()).await.key.to_string();
    let archive = site.get(&name).await;
    let manifest = archive::manifest_at(&archive).expect("ours");
    let mut database = gunzip(&archive);
    // The application id, of which SQLite thinks nothing.
    database[68] ^= 1;
    let comment = serde_json::to_vec(&manifest).expect("sound");
    let mut forged =
        flate2::GzBuilder::new().comment(comment).write(Vec::new(), flate2::Compression::default());
    forged.write_all(&database).expect("to memory");
    site.put(&name, forged.finish().expect("to memory")).await;
    site.lose_database();

    let error = site.restore().await.expect_err("refused");

    let chain = simplebackup_engine::text::chain(&error);
    assert!(chain.contains("damaged") && chain.contains("SHA-256"), "{chain}");
    assert!(!site.database().exists());
}

/// Anyone who may write to the store can write the mark: it must not write our log, nor fill
/// our memory.
#[tokio::test]
async fn a_mark_of_someone_else_is_bounded_and_one_line() {
    let site = Site::with_database();
    let marked = async |text: String| {
        site.put(MARK, text).await;
        let inventory = site.store().inventory(deadline(), Patience::FewTries).await;
        inventory.expect("listed").suspension.expect("suspended").reason
    };
    let since = "\"since\":\"2024-11-24T12:00:00Z\"";
    let forged = format!("{{{since},\"reason\":\"a\\n[SERVER] FATAL: \\u001b[31mb\"}}");
    assert_eq!(marked(forged).await, "a [SERVER] FATAL:  [31mb");
    let huge = format!("{{{since},\"reason\":\"{}\"}}", "x".repeat(100_000));
    let reason = marked(huge).await;
    assert!(reason.starts_with("see ") && reason.ends_with(MARK), "{} bytes", reason.len());
}
