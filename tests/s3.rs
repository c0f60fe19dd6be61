//! The S3 protocol itself, spoken over sockets with a real server: what is requested and how
//! often, what is tried again and what is not, what an error says, and what ends a wait.

mod ahead;
mod failures;
mod lines;
mod patience;

use std::time::Duration;

use simplebackup_engine::backup::{BackupError, BackupReport};
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Fallback, Outcome, RestoreEngine, RestoreError, Restored};
use simplebackup_engine::store::{BackupStore, Fault, Patience, StoreError};
use simplebackup_engine::text;

use crate::support::s3::{IfMatch, Request, S3Server, Trouble};
use crate::support::script::Gate;
use crate::support::{START, Site, backup_engine, db, deadline, files_in, name};

/// The path of the backup that a site makes first.
fn path() -> String {
    format!("/mybucket/backups/{}", name(START))
}

async fn back_up(site: &Site, store: &BackupStore) -> Result<BackupReport, BackupError> {
    back_up_until(site, store, deadline()).await
}

async fn back_up_until(
    site: &Site,
    store: &BackupStore,
    deadline: Deadline,
) -> Result<BackupReport, BackupError> {
    let engine = backup_engine(&site.database(), store.clone(), &site.clock);
    engine.back_up(deadline, &Progress::default()).await
}

async fn restore(site: &Site, store: &BackupStore) -> Result<Restored, RestoreError> {
    restore_until(site, store, deadline()).await
}

async fn restore_until(
    site: &Site,
    store: &BackupStore,
    deadline: Deadline,
) -> Result<Restored, RestoreError> {
    let engine = RestoreEngine::new(store.clone(), site.clock.clone());
    let progress = Progress::default();
    engine.restore_if_missing(&site.database(), Fallback::Refuse, deadline, &progress).await
}

/// Makes a site whose archive takes about `mebibytes`.
fn large_site(mebibytes: usize) -> Site {
    let site = Site::new();
    db::create_incompressible(&site.database(), mebibytes);
    site
}

/// Waits for a request to be held, not for ever: it may never come.
async fn arrival(gate: &Gate) {
    let deadline = Deadline::after(Duration::from_mins(1));
    deadline.limit(gate.arrival()).await.expect("the request never came");
}

#[track_caller]
fn store_error_of_backup(result: Result<BackupReport, BackupError>) -> StoreError {
    match result {
        Err(BackupError::Store(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn store_error_of_restore(result: Result<Restored, RestoreError>) -> StoreError {
    match result {
        Err(RestoreError::Store(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn i2_a_database_travels_over_the_protocol_row_for_row() {
    let (server, site) = (S3Server::start().await, Site::with_database());
    let (store, before) = (server.store(), db::dump(&site.database()));

    let made = back_up(&site, &store).await.expect("made");
    let listed = store.list(deadline(), Patience::FewTries).await.expect("listed");
    site.lose_database();
    let restored = restore(&site, &store).await.expect("restored");

    assert_eq!(db::dump(&site.database()), before);
    assert_eq!(server.stored(), [name(START)]);
    assert_eq!(server.script().subjects(Request::Put), [path()]);
    let listed: Vec<_> = listed.iter().map(|backup| (backup.key, backup.archive_bytes)).collect();
    assert_eq!(listed, [(made.key, server.get(&name(START)).len() as u64)]);
    let Outcome::FromBackup(report) = restored.outcome() else { panic!("{restored:?}") };
    assert_eq!((report.key, report.archive_bytes), (made.key, made.archive_bytes));
    site.assert_no_leftovers();
}

/// Each request costs money and time: none is made that is not needed. The first backup of a
/// process reads the first bytes of the one before, which it did not make.
#[tokio::test]
async fn a_small_backup_is_one_list_one_put_and_one_delete_for_each_surplus() {
    use Request::{Delete, Get, List, Put};

    let (server, site) = (S3Server::start().await, Site::with_database());
    let engine = backup_engine(&site.database(), server.store(), &site.clock);
    for timestamp in [1, 2, 3, 4] {
        server.put(&name(timestamp), b"old");
    }
    let report = engine.back_up(deadline(), &Progress::default()).await.expect("made");
    assert_eq!((report.deleted, report.delete_warning), (2, None));
    assert_eq!(server.script().calls(), [List, Get, Put, Delete, Delete]);

    site.clock.set(START + 3600);
    engine.back_up(deadline(), &Progress::default()).await.expect("made");

    assert_eq!(server.script().calls()[5..], [List, Put, Delete]);
    let deleted = [1, 2, 3].map(|timestamp| format!("/mybucket/backups/{}", name(timestamp)));
    assert_eq!(server.script().subjects(Delete), deleted);
    assert_eq!(server.stored(), [name(START), name(START + 3600), name(4)]);
}

#[tokio::test]
async fn a_restore_is_one_list_and_one_get() {
    let (server, site) = (S3Server::start().await, Site::with_database());
    let store = server.store();
    restore(&Site::new(), &store).await.expect("nothing stored");
    assert_eq!(server.script().calls(), [Request::List]);

    back_up(&site, &store).await.expect("made");
    restore(&Site::new(), &store).await.expect("restored");
    let calls = server.script().calls();
    assert_eq!(calls[calls.len() - 2..], [Request::List, Request::Get]);
    assert_eq!(server.script().subjects(Request::Get), [path()]);
}

#[tokio::test]
async fn i6_a_large_backup_goes_in_parts_and_is_visible_only_when_complete() {
    use Request::{BeginUpload, Complete, PutPart};

    let (server, site) = (S3Server::start().await, large_site(16));
    let (store, gate) = (server.store(), Gate::default());
    server.script().plan(Request::Complete, .., Trouble::Hold(gate.clone()));
    let watching = async {
        arrival(&gate).await;
        assert_eq!(server.stored(), [""; 0]);
        assert_eq!(store.list(deadline(), Patience::FewTries).await.expect("listed"), []);
        assert_ne!(server.unfinished_uploads(), 0);
        gate.release();
    };

    let (made, ()) = tokio::join!(back_up(&site, &store), watching);

    let made = made.expect("made");
    assert!(made.archive_bytes > 3 * 5 * 1024 * 1024, "{}", made.archive_bytes);
    let of_upload = |request: &Request| *request != Request::List;
    let calls: Vec<_> = server.script().calls().into_iter().filter(of_upload).collect();
    assert_eq!(calls, [BeginUpload, PutPart, PutPart, PutPart, PutPart, Complete]);
    assert_eq!(server.stored(), [name(START)]);
    assert_eq!(server.unfinished_uploads(), 0);
    assert_eq!(server.get(&name(START)).len() as u64, made.archive_bytes);
}

#[tokio::test]
async fn i6_an_upload_in_parts_that_fails_is_aborted_and_nothing_is_visible() {
    let site = large_site(6);
    for refused in [Request::PutPart, Request::Complete] {
        let server = S3Server::start().await;
        server.script().plan(refused, .., Trouble::Refuse(403, "AccessDenied"));

        let error = store_error_of_backup(back_up(&site, &server.store()).await);

        assert_eq!(error.fault, Fault::AccessDenied, "{refused:?}");
        assert_eq!(server.script().count(Request::BeginUpload), 1, "{refused:?}");
        assert_eq!(server.script().count(Request::Abort), 1, "{refused:?}");
        assert_eq!(server.unfinished_uploads(), 0, "{refused:?}");
        assert_eq!(server.stored(), [""; 0], "{refused:?}");
        site.assert_no_leftovers();
    }
}

#[tokio::test]
async fn an_upload_that_is_cut_on_its_way_is_sent_again() {
    for (mebibytes, cut) in [(1, Request::Put), (6, Request::PutPart)] {
        let (server, site) = (S3Server::start().await, large_site(mebibytes));
        server.script().plan(cut, ..1, Trouble::CutRequest(500_000));

        let made = back_up(&site, &server.store()).await.expect("made");

        let wanted = if cut == Request::Put { 1 } else { 2 };
        assert_eq!(server.script().count(cut), wanted + 1, "{cut:?}");
        assert_eq!(server.stored(), [name(START)], "{cut:?}");
        assert_eq!(server.get(&name(START)).len() as u64, made.archive_bytes, "{cut:?}");
        let before = db::dump(&site.database());
        site.lose_database();
        restore(&site, &server.store()).await.expect("restored");
        assert!(db::dump(&site.database()) == before, "{cut:?}: the restored database differs");
    }
}

/// Three tries of each request, three uploads: the next tick has another chance.
#[tokio::test]
async fn an_upload_that_is_always_cut_is_given_up() {
    let (server, site) = (S3Server::start().await, large_site(1));
    server.script().plan(Request::Put, .., Trouble::CutRequest(500_000));
    let error = store_error_of_backup(back_up(&site, &server.store()).await);
    assert_eq!(error.fault, Fault::Unreachable, "{}", text::chain(&error));
    assert_eq!(server.script().count(Request::Put), 9);
    assert_eq!(server.stored(), [""; 0]);
}

/// The client itself resumes twice, the engine takes over with the rest.
#[tokio::test]
async fn a_download_that_is_cut_goes_on_where_it_was_cut() {
    let source = large_site(2);
    let (before, archive) = (db::dump(&source.database()), archive_of(source).await);
    for cuts in [1, 5] {
        let (server, site) = (S3Server::start().await, Site::new());
        server.put(&name(START), &archive);
        server.script().plan(Request::Get, ..cuts, Trouble::CutAnswer(300_000));

        restore(&site, &server.store()).await.expect("restored");

        assert!(db::dump(&site.database()) == before, "the restored database differs");
        let gets = server.script().subjects(Request::Get);
        assert_eq!((gets.len(), &gets[0]), (cuts + 1, &path()));
        let start = |get: &String| {
            let range = get.split_once("bytes=").expect("a range").1;
            range.split_once('-').expect("a start").0.parse::<u64>().expect("a number")
        };
        let starts: Vec<_> = gets[1..].iter().map(start).collect();
        // What was on its way at a cut may be lost, but no more than that.
        for (cut, start) in (1..).zip(starts) {
            let sent = cut * 300_000;
            assert!((sent - cut * 20_000..=sent).contains(&start), "{gets:?}");
        }
        let conditional = gets.iter().filter(|get| get.ends_with("if-match")).count();
        assert_eq!(conditional > 0, cuts > 2, "the engine's own resume is conditional: {gets:?}");
    }
}

/// Twice in a row is what the client itself retries, for each kind of request.
#[tokio::test]
async fn a_store_that_is_busy_twice_is_asked_a_third_time() {
    for (status, code) in [(503, "SlowDown"), (500, "InternalError")] {
        let (server, site) = (S3Server::start().await, Site::with_database());
        let store = server.store();
        for timestamp in [1, 2, 3] {
            server.put(&name(timestamp), b"old");
        }
        let kinds = [Request::List, Request::Put, Request::Delete, Request::Get];
        for kind in kinds {
            server.script().plan(kind, ..2, Trouble::Refuse(status, code));
        }
        let report = back_up(&site, &store).await.expect("made");
        assert_eq!(report.deleted, 1, "{:?}", report.delete_warning);
        let before = db::dump(&site.database());
        site.lose_database();
        restore(&site, &store).await.expect("restored");
        assert_eq!(db::dump(&site.database()), before);
        // The restore's list, and its get after that of the backup, went well at once.
        assert_eq!(kinds.map(|kind| server.script().count(kind)), [4, 3, 3, 4], "{code}");
    }
}

/// Longer than the client itself is patient: a restore is.
#[tokio::test]
async fn a_restore_waits_for_a_store_that_comes_back() {
    let (server, site) = (S3Server::start().await, Site::with_database());
    back_up(&site, &server.store()).await.expect("made");
    site.lose_database();
    for kind in [Request::List, Request::Get] {
        server.script().plan(kind, ..4, Trouble::Refuse(503, "SlowDown"));
    }
    let restored = restore(&site, &server.store()).await.expect("restored");
    assert!(matches!(restored.outcome(), Outcome::FromBackup(_)), "{restored:?}");
    assert_eq!(server.script().count(Request::List), 1 + 5);
    assert_eq!(server.script().count(Request::Get), 5);
}

/// A list that ends early would look like a store without backups, and the app start fresh.
#[tokio::test]
async fn a_list_that_is_cut_is_asked_for_again() {
    let (server, site) = (S3Server::start().await, Site::with_database());
    back_up(&site, &server.store()).await.expect("made");
    site.lose_database();
    server.script().plan(Request::List, ..1, Trouble::CutAnswer(20));
    let restored = restore(&site, &server.store()).await.expect("restored");
    assert!(matches!(restored.outcome(), Outcome::FromBackup(_)), "{restored:?}");
    assert_eq!(server.script().count(Request::List), 3);
}

/// The rest of another object would make a file that is neither. Not every store obeys the
/// condition that asks it to refuse.
#[tokio::test]
async fn i2_an_object_that_is_replaced_during_its_download_gives_no_mixture() {
    let (old, new) = (archive_of(large_site(1)).await, archive_of(large_site(2)).await);
    for if_match in [IfMatch::Obeyed, IfMatch::Ignored] {
        let (server, site) = (S3Server::start_with_if_match(if_match).await, Site::new());
        server.put(&name(START), &old);
        let (store, gate) = (server.store(), Gate::default());
        server.script().plan(Request::Get, ..1, Trouble::CutAnswer(300_000));
        server.script().plan(Request::Get, 1..2, Trouble::Hold(gate.clone()));
        let replacing = async {
            arrival(&gate).await;
            server.put(&name(START), &new);
            gate.release();
        };

        let (restored, ()) = tokio::join!(restore(&site, &store), replacing);

        let error = store_error_of_restore(restored);
        assert_eq!(error.fault, Fault::Changed, "{if_match:?}: {}", text::chain(&error));
        assert_eq!(files_in(site.root()), [""; 0], "{if_match:?}");
        let gets = server.script().subjects(Request::Get);
        assert!(gets[2].ends_with("- if-match"), "{if_match:?}: {gets:?}");
        restore(&site, &store).await.expect("the next download is of one object");
    }
}

/// Returns the archive of a site's database.
async fn archive_of(site: Site) -> Vec<u8> {
    site.back_up().await.expect("made");
    site.get(&name(START)).await.to_vec()
}
