//! Damaged backups at a restore, and databases that are no use at a backup: each is refused
//! for its own reason, and nothing is left behind.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use simplebackup_engine::archive::{self, Piece};
use simplebackup_engine::backup::BackupError;
use simplebackup_engine::blocking::Stop;
use simplebackup_engine::disk::Disk;
use simplebackup_engine::restore::{Fallback, Outcome, RestoreError};
use simplebackup_engine::store::Fault;
use simplebackup_engine::text;

use crate::support::store::{Call, Trouble};
use crate::support::{START, Site, db, files_in, gunzip, gzip, name};

/// Makes a database by `build` and returns its file.
fn database_file(build: impl FnOnce(&Path)) -> Vec<u8> {
    let root = tempfile::tempdir().expect("a temporary folder");
    let path = root.path().join("made.db");
    build(&path);
    fs::read(&path).expect("read")
}

/// Returns an archive that the engine made, with its manifest.
async fn archive() -> Vec<u8> {
    let site = Site::with_database();
    site.back_up().await.expect("made");
    site.get(&name(START)).await.to_vec()
}

/// Packs `bytes` under the manifest of a database of `claimed` bytes.
fn packed_with_claim(bytes: &[u8], claimed: u64) -> Vec<u8> {
    use std::io::Write;

    let comment = format!(
        r#"{{"database_bytes":{claimed},"journal_mode":"wal","owner":{{"mode":384,"uid":0,"gid":0}}}}"#
    );
    let builder = flate2::GzBuilder::new().comment(comment);
    let mut gzip = builder.write(Vec::new(), flate2::Compression::default());
    gzip.write_all(bytes).expect("to memory");
    gzip.finish().expect("to memory")
}

/// Every way of being damaged: what it is called, the stored object, and words of its error.
async fn damaged_archives() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let sound = archive().await;
    let database = gunzip(&sound);
    let wrong_index = database_file(db::create_with_wrong_index);
    let broken_page = database_file(|path| {
        db::create(path, "delete", 100);
        db::break_page(path);
    });
    let mut flipped = sound.clone();
    // In the packed database: what the header says is not covered by a checksum.
    let at = flipped.len() - 20;
    flipped[at] = !flipped[at];
    let no_checksum = sound[..sound.len() - 8].to_vec();
    let half_database = gzip(&database[..database.len() / 2]);
    let claim = database.len() as u64;
    vec![
        ("an empty object", Vec::new(), "cut short"),
        ("gzip of nothing", gzip(b""), "the file is empty"),
        ("half an archive", sound[..sound.len() / 2].to_vec(), "cut short"),
        ("an archive without its last bytes", no_checksum, "cut short"),
        ("only a header", sound[..10].to_vec(), "cut short"),
        ("not gzip", b"<html>maintenance</html>".to_vec(), "it is not gzip"),
        ("a database without gzip", database.clone(), "it is not gzip"),
        ("not SQLite", gzip(&db::noise(1, 8192)), "not a SQLite database"),
        ("half a database", half_database, "corrupt"),
        ("an index that lacks a row", gzip(&wrong_index), "integrity check found"),
        ("a broken page", gzip(&broken_page), "database is corrupt"),
        ("a flipped bit", flipped, "archive is damaged"),
        ("text after the archive", [&sound[..], b"0123456789abcdef"].concat(), "other bytes"),
        ("a byte after the archive", [&sound[..], b"x"].concat(), "archive is damaged"),
        ("more than it claims", packed_with_claim(&database, claim - 1), "more than it claims"),
        ("less than it claims", packed_with_claim(&database, claim + 1), "instead of"),
    ]
}

#[tokio::test]
async fn i6_a_damaged_newest_backup_is_refused_and_no_older_one_taken() {
    let older = archive().await;
    for (case, damaged, words) in damaged_archives().await {
        let site = Site::new();
        site.put(&name(1), older.clone()).await;
        site.put(&name(2), damaged).await;

        let refused = site.restore().await.expect_err(case);

        let RestoreError::Damaged { key, .. } = &refused else { panic!("{case}: {refused:?}") };
        assert_eq!(key.to_string(), name(2), "{case}");
        let chain = text::chain(&refused);
        assert!(chain.contains(words), "{case}: {chain}");
        assert_eq!(files_in(site.root()), [""; 0], "{case}: neither a database nor a leftover");
        assert_eq!(site.script().calls(), [Call::List, Call::Get], "{case}");
    }
}

#[tokio::test]
async fn a_fallback_takes_the_next_older_backup_instead() {
    let older = archive().await;
    for (case, damaged, _) in damaged_archives().await {
        let site = Site::new();
        site.put(&name(1), older.clone()).await;
        site.put(&name(2), damaged.clone()).await;
        site.put(&name(3), damaged).await;

        let restored = site.restore_with(Fallback::NextOlder).await.expect(case);

        let Outcome::FromBackup(report) = restored.outcome() else { panic!("{case}") };
        assert_eq!(report.key.to_string(), name(1), "{case}");
        assert_eq!(files_in(site.root()), ["app.db"], "{case}");
        db::dump(&site.database());
    }
}

/// `TestRestoreOnStartup_IntegrityCheckFails` of the specification.
#[tokio::test]
async fn a_backup_that_fails_the_integrity_check_is_refused() {
    let site = Site::new();
    let path = site.root().join("broken.db");
    db::create_with_wrong_index(&path);
    // The cheaper check would let it pass.
    assert_eq!(db::pragma(&path, "quick_check"), "ok");
    let finding = db::pragma(&path, "integrity_check");
    assert_eq!(finding, "row 7 missing from index notes_by_text");
    site.put(&name(1), gzip(&fs::read(&path).expect("read"))).await;

    let refused = site.restore().await.expect_err("damaged");

    let chain = text::chain(&refused);
    assert!(chain.contains(&finding), "{chain}");
    assert!(!site.database().exists());
}

/// SQLite takes a file of one byte for an empty database (`unixFileSize`), and finds it sound.
#[tokio::test]
async fn a_backup_of_less_than_a_page_is_refused() {
    for bytes in [1, 2, 99, 100, 511] {
        let site = Site::new();
        site.put(&name(1), gzip(&db::noise(1, bytes))).await;
        let refused = site.restore().await.expect_err("not SQLite");
        assert!(matches!(refused, RestoreError::Damaged { .. }), "{bytes}: {refused:?}");
        assert_eq!(files_in(site.root()), [""; 0], "{bytes}");
    }
}

#[tokio::test]
async fn a_fallback_without_a_sound_backup_names_the_newest() {
    let site = Site::new();
    site.put(&name(1), "damaged").await;
    site.put(&name(2), "damaged").await;
    let refused = site.restore_with(Fallback::NextOlder).await.expect_err("both are damaged");
    let RestoreError::Damaged { key, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(key.to_string(), name(2));
    assert_eq!(site.script().count(Call::Get), 2, "both were tried");
    assert_eq!(files_in(site.root()), [""; 0]);
}

/// A store that fails says nothing about the backup: an older one would lose rows for no reason.
#[tokio::test]
async fn a_fallback_is_for_damage_and_not_for_a_failing_store() {
    let site = Site::new();
    let sound = archive().await;
    site.put(&name(1), sound.clone()).await;
    site.put(&name(2), sound).await;
    site.script().plan(Call::Get, ..1, Trouble::Fail(Fault::AccessDenied));
    let refused = site.restore_with(Fallback::NextOlder).await.expect_err("no access");
    assert!(matches!(&refused, RestoreError::Store(e) if e.fault == Fault::AccessDenied));
    assert_eq!(files_in(site.root()), [""; 0]);
}

#[tokio::test]
async fn a_byte_that_changed_on_the_way_is_noticed() {
    let site = Site::new();
    let sound = archive().await;
    let middle = sound.len() / 2;
    site.put(&name(1), sound).await;
    site.script().plan(Call::Get, ..1, Trouble::Corrupt(middle));
    let refused = site.restore().await.expect_err("changed");
    assert!(matches!(refused, RestoreError::Damaged { .. }), "{refused:?}");
    site.restore().await.expect("the next download is sound");
}

/// The last case loses nothing but the end of the answer.
#[tokio::test]
async fn a_download_that_is_cut_at_any_byte_goes_on_there() {
    let sound = archive().await;
    let end = sound.len();
    for cut in [0, 1, end / 2, end - 1, end] {
        let site = Site::new();
        site.put(&name(1), sound.clone()).await;
        site.script().plan(Call::Get, ..1, Trouble::Cut(cut));
        site.restore().await.unwrap_or_else(|error| panic!("{cut}: {}", text::chain(&error)));
        let whole = format!("backups/{}", name(1));
        let expect = match cut {
            0 => vec![whole.clone(), whole],
            _ if cut == end => vec![whole],
            _ => vec![whole.clone(), format!("{whole} bytes={cut}-")],
        };
        assert_eq!(site.script().subjects(Call::Get), expect);
    }
}

/// Cut or taken apart at the ends of its members, an archive is sound gzip all the same.
#[tokio::test]
async fn i2_members_that_are_missing_or_in_disorder_are_noticed() {
    let site = Site::new();
    db::create_incompressible(&site.database(), 1);
    site.back_up().await.expect("made");
    let members = members(&site.get(&name(START)).await);
    assert!(members.len() > 4, "{}", members.len());
    let (last, others) = members.split_last().expect("some");
    let mut swapped = members.clone();
    swapped.swap(2, 3);
    let cases = [
        ("without the last", others.concat(), "instead of"),
        ("the head alone", members[0].clone(), "instead of"),
        ("without the second", [&members[..1], &members[2..]].concat().concat(), "instead of"),
        ("the last twice", [&members.concat()[..], last].concat(), "more than it claims"),
        ("in disorder", swapped.concat(), "other bytes than were packed"),
    ];
    for (case, archive, words) in cases {
        gunzip(&archive);
        let site = Site::new();
        site.put(&name(1), archive).await;
        let refused = site.restore().await.expect_err(case);
        let chain = text::chain(&refused);
        assert!(chain.contains(words), "{case}: {chain}");
        assert_eq!(files_in(site.root()), [""; 0], "{case}");
    }
}

/// Takes a gzip file apart.
fn members(mut archive: &[u8]) -> Vec<Vec<u8>> {
    use std::io::Read;

    let mut members = Vec::new();
    while !archive.is_empty() {
        let mut gzip = flate2::bufread::GzDecoder::new(archive);
        gzip.read_to_end(&mut Vec::new()).expect("sound gzip");
        let rest = gzip.into_inner();
        members.push(archive[..archive.len() - rest.len()].to_vec());
        archive = rest;
    }
    members
}

/// The check runs beside the upload, and the upload waits for it at its end.
#[tokio::test]
async fn i6_parts_of_a_damaged_database_never_become_a_backup() {
    let site = Site::new();
    let path = site.database();
    db::create(&path, "delete", 50);
    for seed in 1..=12 {
        let blob = db::noise(seed, 1024 * 1024);
        let sql = "INSERT INTO notes (text, body) VALUES ('large', ?1)";
        db::open(&path).execute(sql, [blob]).expect("inserted");
    }
    db::break_index(&path);

    let refused = site.back_up().await.expect_err("a broken index");

    assert!(matches!(refused, BackupError::Check(_)), "{}", text::chain(&refused));
    let script = site.script();
    assert_eq!((script.count(Call::Complete), script.count(Call::Put)), (0, 0));
    // Whether it had begun depends on who was faster.
    assert_eq!(script.count(Call::BeginUpload), script.count(Call::Abort));
    assert_eq!(site.stored().await, [""; 0]);
    site.assert_no_leftovers();
}

#[tokio::test]
async fn every_member_of_an_archive_is_read() {
    let site = Site::with_database();
    let before = db::dump(&site.database());
    let bytes = fs::read(site.database()).expect("read");
    let (first, second) = bytes.split_at(bytes.len() / 2);
    site.put(&name(1), [gzip(first), gzip(second)].concat()).await;
    site.lose_database();
    site.restore().await.expect("restored");
    assert_eq!(db::dump(&site.database()), before);
}

/// 8 MiB of zeros in 8 KiB, which claim to be a small database.
#[tokio::test]
async fn an_archive_that_unpacks_to_more_than_it_claims_does_not_fill_the_disk() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let target = root.path().join("restored.db");
    let bomb = packed_with_claim(&vec![0; 8 * 1024 * 1024], 4096);
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    sender.send(Piece::Bytes(Bytes::from(bomb))).await.expect("room");
    sender.send(Piece::End).await.expect("room");
    let (path, disk, stop) = (target.clone(), Disk::of(&target), Stop::default());
    let unpacking = move || archive::unpack(receiver, &path, &disk, &stop);
    let unpacked = tokio::task::spawn_blocking(unpacking).await.expect("no panic");
    unpacked.expect_err("it lies");
    assert!(fs::metadata(&target).expect("made").len() <= 4096);
}
