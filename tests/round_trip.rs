//! The way to the store and back on sound databases: what is stored, what is kept, what a
//! restore makes of it. Starts at the specification's own list of unit tests.

use std::fs;
use std::process::{Command, Stdio};

use simplebackup_engine::backup::BackupError;
use simplebackup_engine::restore::Outcome;
use simplebackup_engine::snapshot::SnapshotError;
use simplebackup_engine::store::Fault;

use crate::support::script::Gate;
use crate::support::store::{Call, Trouble};
use crate::support::{START, Site, db, files_in, gunzip, gzip, name};

/// `TestPerformBackup_Success` of the specification.
#[tokio::test]
async fn a_backup_is_a_gzipped_sqlite_database_that_equals_its_source() {
    let site = Site::with_database();
    let report = site.back_up().await.expect("made");

    assert_eq!(site.stored().await, [name(START)]);
    let archive = site.get(&name(START)).await;
    let unpacked = gunzip(&archive);
    assert!(unpacked.starts_with(b"SQLite format 3\0"));
    let copy = site.root().join("copy.db");
    fs::write(&copy, &unpacked).expect("written");
    assert_eq!(db::dump(&copy), db::dump(&site.database()));
    assert_eq!(report.key.to_string(), name(START));
    assert_eq!(report.archive_bytes, archive.len() as u64);
    assert_eq!(report.database_bytes, unpacked.len() as u64);
    assert_eq!((report.stored, report.stored_bytes), (1, archive.len() as u64));
    assert_eq!((report.deleted, report.delete_warning), (0, None));
    site.assert_no_leftovers();
}

#[tokio::test]
async fn stock_gunzip_reads_a_backup() {
    if Command::new("gzip").arg("--version").output().is_err() {
        return;
    }
    let site = Site::with_database();
    site.back_up().await.expect("made");
    let archive = site.root().join("downloaded.db.gz");
    let stored = site.get(&name(START)).await;
    fs::write(&archive, &stored).expect("written");

    let mut gzip = Command::new("gzip");
    let unpacked = gzip.args(["-dc"]).arg(&archive).stdin(Stdio::null()).output().expect("run");

    let complaint = String::from_utf8_lossy(&unpacked.stderr);
    assert!(unpacked.status.success() && complaint.is_empty(), "{complaint}");
    assert!(unpacked.stdout == gunzip(&stored), "gzip and flate2 disagree");
}

#[tokio::test]
async fn gunzip_restores_the_name_from_the_header() {
    let site = Site::with_database();
    site.back_up().await.expect("made");
    let archive = site.get(&name(START)).await;
    let gzip = flate2::bufread::GzDecoder::new(&archive[..]);
    let header = gzip.header().expect("a header");
    let expect = format!("db-backup-{START}.db");
    assert_eq!(header.filename(), Some(expect.as_bytes()));
    assert_eq!(i64::from(header.mtime()), START);
}

/// `TestPerformBackup_ConcurrentBlocked` of the specification.
#[tokio::test]
async fn i4_a_second_backup_is_refused_while_one_runs() {
    let site = Site::with_database();
    let gate = Gate::default();
    site.script().plan(Call::Put, .., Trouble::Hold(gate.clone()));
    let first = site.back_up();
    let second = async {
        gate.arrival().await;
        let refused = site.back_up().await.expect_err("one runs");
        gate.release();
        refused
    };

    let (first, second) = tokio::join!(first, second);

    let holder = format!("process {}", std::process::id());
    let BackupError::InProgress { holder: named } = &second else { panic!("{second:?}") };
    assert_eq!(*named, holder);
    assert_eq!(second.to_string(), format!("backup already in progress in {holder}"));
    first.expect("the first one goes on");
    assert_eq!(site.script().count(Call::Put), 1);
    site.script().heal();
    site.back_up().await.expect("free again");
}

/// `TestPerformBackup_NilDB` of the specification: here a database is a path, so none is a path
/// without a file.
#[tokio::test]
async fn a_missing_database_is_an_error_and_changes_nothing() {
    let site = Site::new();
    for timestamp in 1..=5 {
        site.put(&name(timestamp), "old").await;
    }
    let error = site.back_up().await.expect_err("missing");

    assert!(matches!(error, BackupError::Snapshot(SnapshotError::Missing { .. })), "{error:?}");
    assert_eq!(files_in(site.root()), [""; 0], "no file is created");
    assert_eq!(site.script().calls(), [], "nothing uploaded, nothing pruned");
    assert_eq!(site.stored().await.len(), 5);
}

/// Under a later name nobody would find it again.
#[tokio::test]
async fn behind_the_last_name_that_there_is_nothing_is_stored() {
    let site = Site::with_database();
    let last = name(253_402_300_799);
    site.put(&last, "of a clock that ran wild").await;
    let error = site.back_up().await.expect_err("no name is left");
    assert!(matches!(error, BackupError::NoLaterName), "{error:?}");
    assert_eq!(site.stored().await, [last]);
}

/// `TestPerformBackup_UploadFails` of the specification.
#[tokio::test]
async fn i6_an_upload_that_fails_leaves_nothing_behind() {
    // A transient failure is tried three times, any other once.
    let cases = [
        (Fault::AccessDenied, 1),
        (Fault::NoSuchBucket, 1),
        (Fault::Refused, 1),
        (Fault::Unreachable, 3),
        (Fault::Busy, 3),
    ];
    for (fault, tries) in cases {
        let site = Site::with_database();
        for timestamp in 1..=3 {
            site.put(&name(timestamp), "old").await;
        }
        site.script().plan(Call::Put, .., Trouble::Fail(fault));

        let error = site.back_up().await.expect_err("the upload fails");

        let BackupError::Store(error) = error else { panic!("{error:?}") };
        assert_eq!(error.fault, fault);
        assert_eq!(error.operation, format!("upload of s3://mybucket/backups/{}", name(START)));
        assert_eq!(site.script().count(Call::Put), tries, "{fault:?}");
        assert_eq!(site.script().count(Call::Delete), 0, "{fault:?}: nothing is pruned");
        assert_eq!(site.stored().await, [name(1), name(2), name(3)], "{fault:?}");
        site.assert_no_leftovers();
        site.script().heal();
        site.back_up().await.expect("the next run succeeds");
    }
}

#[tokio::test]
async fn an_upload_whose_answer_is_lost_is_sent_again_under_its_name() {
    let site = Site::with_database();
    site.script().plan(Call::Put, ..1, Trouble::LoseAnswer);
    let report = site.back_up().await.expect("made at the second try");
    assert_eq!(site.script().count(Call::Put), 2);
    assert_eq!(site.stored().await, [name(START)]);
    assert_eq!(report.archive_bytes, site.get(&name(START)).await.len() as u64);
}

/// `TestPerformBackup_RetentionDeletesOldest` of the specification.
#[tokio::test]
async fn i1_the_oldest_beyond_the_newest_three_are_deleted() {
    let site = Site::with_database();
    // Whose order by name is not their order by time.
    for timestamp in [9, 10, 1_000, 200] {
        site.put(&name(timestamp), "old").await;
    }
    let report = site.back_up().await.expect("made");

    assert_eq!(site.stored().await, [name(1_000), name(START), name(200)]);
    assert_eq!(
        site.script().subjects(Call::Delete),
        [9, 10].map(|t| format!("backups/{}", name(t)))
    );
    assert_eq!((report.deleted, report.stored), (2, 3));
    assert_eq!(report.stored_bytes, report.archive_bytes + 6);
}

/// `TestPerformBackup_RetentionNoDeleteWhenUnderLimit` of the specification.
#[tokio::test]
async fn i1_nothing_is_deleted_up_to_three() {
    let site = Site::with_database();
    for timestamp in [9, 10] {
        site.put(&name(timestamp), "old").await;
    }
    let report = site.back_up().await.expect("made");
    assert_eq!(site.script().calls(), [Call::List, Call::Get, Call::Put]);
    assert_eq!((report.deleted, report.stored), (0, 3));
}

#[tokio::test]
async fn a_refused_delete_is_a_warning_and_the_backup_counts() {
    let site = Site::with_database();
    for timestamp in 1..=5 {
        site.put(&name(timestamp), "old").await;
    }
    site.script().plan(Call::Delete, 1..2, Trouble::Fail(Fault::AccessDenied));
    let report = site.back_up().await.expect("made");

    let warning = report.delete_warning.expect("a warning");
    let expect = "deletion of s3://mybucket/backups/db-backup-2.db.gz failed: access denied";
    assert!(warning.starts_with(expect), "{warning}");
    assert_eq!((report.deleted, report.stored), (2, 4));
    assert_eq!(site.stored().await, [name(START), name(2), name(4), name(5)]);
}

#[tokio::test]
async fn a_backup_that_is_gone_already_counts_as_deleted() {
    let site = Site::with_database();
    for timestamp in 1..=3 {
        site.put(&name(timestamp), "old").await;
    }
    site.script().plan(Call::Delete, .., Trouble::Fail(Fault::NotFound));
    let report = site.back_up().await.expect("made");
    assert_eq!((report.deleted, report.delete_warning), (1, None));
}

/// The names that the issue lists; each would be the newest, or the oldest, if it counted.
#[tokio::test]
async fn i1_foreign_objects_are_ignored_and_never_deleted() {
    let site = Site::with_database();
    let foreign = [
        "db-backup-5.db.gz.tmp",
        "db-backup-9999999999.db",
        "db-backup-abc.db.gz",
        "notes.txt",
        "sub/db-backup-5.db.gz",
        "sub/db-backup-9999999999.db.gz",
    ];
    for object in foreign {
        site.put(object, "foreign").await;
    }
    for timestamp in [START, START + 1, START + 2, START + 3] {
        site.clock.set(timestamp);
        site.back_up().await.expect("made");
    }
    let mut expect: Vec<_> = (START + 1..=START + 3).map(name).collect();
    expect.extend(foreign.map(str::to_owned));
    expect.sort();
    assert_eq!(site.stored().await, expect);

    site.lose_database();
    let restored = site.restore().await.expect("restored");
    let Outcome::FromBackup(report) = restored.outcome() else { panic!("{restored:?}") };
    assert_eq!((report.key.to_string(), report.stored), (name(START + 3), 3));
}

/// `TestRestoreOnStartup_SkipsWhenDBExists` of the specification.
#[tokio::test]
async fn i3_an_existing_database_is_not_touched_and_the_store_not_asked() {
    let site = Site::new();
    site.put(&name(START), gzip(b"never read")).await;
    fs::write(site.database(), "not even SQLite").expect("written");
    let restored = site.restore().await.expect("skipped");
    assert_eq!(*restored.outcome(), Outcome::AlreadyThere);
    assert_eq!(site.script().calls(), []);
    assert_eq!(fs::read_to_string(site.database()).expect("read"), "not even SQLite");
    assert_eq!(files_in(site.root()), ["app.db"]);
}

/// `TestRestoreOnStartup_NoBackups` of the specification.
#[tokio::test]
async fn no_backup_in_a_reachable_store_is_a_fresh_start() {
    let site = Site::new();
    site.put("notes.txt", "foreign").await;
    let restored = site.restore().await.expect("nothing to restore");
    assert_eq!(*restored.outcome(), Outcome::NothingStored);
    assert_eq!(site.script().calls(), [Call::List]);
    assert_eq!(files_in(site.root()), [""; 0]);
}

/// `TestRestoreOnStartup_Success` of the specification.
#[tokio::test]
async fn i2_the_newest_backup_comes_back_row_for_row() {
    let site = Site::with_database();
    site.back_up().await.expect("made");
    db::add_notes(&db::open(&site.database()), 50);
    site.clock.set(START + 3600);
    let made = site.back_up().await.expect("made");
    let before = db::dump(&site.database());
    site.lose_database();

    let restored = site.restore().await.expect("restored");

    assert_eq!(db::dump(&site.database()), before);
    let Outcome::FromBackup(report) = restored.outcome() else { panic!("{restored:?}") };
    assert_eq!((report.key, report.stored), (made.key, 2));
    assert_eq!(report.database_bytes, made.database_bytes);
    assert_eq!(report.archive_bytes, made.archive_bytes);
    assert_eq!(report.stored_bytes, made.stored_bytes);
    site.assert_no_leftovers();
}

#[tokio::test]
async fn a_backup_that_stock_gzip_made_restores() {
    let site = Site::with_database();
    let before = db::dump(&site.database());
    let bytes = fs::read(site.database()).expect("read");
    site.put(&name(5), gzip(&bytes)).await;
    site.lose_database();
    site.restore().await.expect("restored");
    assert_eq!(db::dump(&site.database()), before);
}

#[tokio::test]
async fn the_newest_backup_is_that_of_the_greatest_number() {
    let site = Site::with_database();
    let bytes = fs::read(site.database()).expect("read");
    site.put(&name(10), gzip(&bytes)).await;
    site.put(&name(9), "the last one by name, and damaged").await;
    site.lose_database();
    site.restore().await.expect("the sound one is restored");
}

/// The clock stands still, then goes back by an hour.
#[tokio::test]
async fn no_backup_is_overwritten_and_the_newest_is_the_last_made() {
    let site = Site::with_database();
    for (now, expect) in [(START, START), (START, START + 1), (START - 3600, START + 2)] {
        site.clock.set(now);
        db::add_notes(&db::open(&site.database()), 1);
        let report = site.back_up().await.expect("made");
        assert_eq!(report.key.to_string(), name(expect));
    }
    assert_eq!(site.stored().await, [name(START), name(START + 1), name(START + 2)]);
    let last = db::dump(&site.database());
    site.lose_database();
    site.restore().await.expect("restored");
    assert_eq!(db::dump(&site.database()), last);
}
