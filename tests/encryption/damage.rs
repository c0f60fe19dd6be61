//! Encrypted backups that were cut, changed, swapped or added to: none is restored, none is verified,
//! and nothing is placed.

use std::fs;
use std::io::Write;

use simplebackup_engine::archive::{self, Piece, UnpackError};
use simplebackup_engine::blocking::Stop;
use simplebackup_engine::disk::Disk;
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{DrillError, Fallback, Outcome, RestoreError};
use simplebackup_engine::text;

use super::{Keys, back_up, encrypted_name, engine, restore};
use crate::support::store::{Call, Trouble};
use crate::support::{START, Site, db, deadline, files_in, gunzip, gzip, name};

/// Bytes of a chunk of age with its checksum.
const CHUNK: usize = 64 * 1024 + 16;

/// When the archives here are made: another name would be one more thing that is wrong with them.
const MADE: i64 = START + 3600;

/// Returns an encrypted archive of more than two chunks.
async fn archive(keys: &Keys) -> Vec<u8> {
    let site = Site::new();
    db::create_incompressible(&site.database(), 1);
    let report = back_up(&site, &engine(&site, &[keys])).await;
    site.get(&report.key.to_string()).await.to_vec()
}

/// Returns where the header and the nonce behind it end.
fn start_of_chunks(archive: &[u8]) -> usize {
    let mac = archive.windows(5).position(|bytes| bytes == b"\n--- ").expect("a MAC");
    let end = archive[mac + 1..].iter().position(|byte| *byte == b'\n').expect("a line");
    mac + 1 + end + 1 + 16
}

fn flipped(archive: &[u8], at: usize) -> Vec<u8> {
    let mut flipped = archive.to_vec();
    flipped[at] ^= 1;
    flipped
}

/// Every way of being damaged: what it is called, the stored object, and words of its error.
async fn damaged_archives(keys: &Keys) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    const CHANGED: &str = "it was cut or changed after it was encrypted";
    let sound = archive(keys).await;
    let start = start_of_chunks(&sound);
    assert!(sound.len() > start + 3 * CHUNK, "{}", sound.len());
    let chunks: Vec<_> = sound[start..].chunks(CHUNK).map(<[u8]>::to_vec).collect();
    let put_together = |chunks: &[Vec<u8>]| [&sound[..start], &chunks.concat()[..]].concat();
    let mut swapped = chunks.clone();
    swapped.swap(1, 2);
    let (last, whole) = chunks.split_last().expect("some");
    let mut doubled = chunks.clone();
    doubled.push(last.clone());
    let another = archive(keys).await;
    let other_start = start_of_chunks(&another);
    let plain = keys.decrypt(&sound);
    let mut many_lines = b"age-encryption.org/v1\n".to_vec();
    many_lines.extend(b"-> X\n\n".repeat(100_000));
    let long_line = [b"age-encryption.org/v1\n-> ", &b"x".repeat(1_000_000)[..]].concat();
    vec![
        ("an empty object", Vec::new(), "cut short"),
        ("half a header", sound[..50].to_vec(), "cut short"),
        ("a header alone", sound[..start].to_vec(), "cut short"),
        ("half an archive", sound[..sound.len() / 2].to_vec(), CHANGED),
        ("without its last byte", sound[..sound.len() - 1].to_vec(), CHANGED),
        ("cut between two chunks", put_together(whole), "cut short"),
        ("a bit of the first chunk", flipped(&sound, start), CHANGED),
        ("a bit of a later chunk", flipped(&sound, start + CHUNK + 7), CHANGED),
        ("a bit of the last byte", flipped(&sound, sound.len() - 1), CHANGED),
        ("a bit of the header's end", flipped(&sound, start - 20), ""),
        ("a byte behind it", [&sound[..], b"x"].concat(), CHANGED),
        ("another backup behind it", [&sound[..], &another].concat(), CHANGED),
        ("its last chunk twice", put_together(&doubled), CHANGED),
        ("two chunks swapped", put_together(&swapped), CHANGED),
        ("a chunk left out", put_together(&[&chunks[..1], &chunks[2..]].concat()), CHANGED),
        (
            "the chunks of another backup",
            [&sound[..start], &another[other_start..]].concat(),
            CHANGED,
        ),
        ("a plain archive", plain.clone(), "it is no age file"),
        ("a page of a proxy", b"<html>maintenance</html>".to_vec(), "it is no age file"),
        ("a header of lines without end", many_lines, "its age header does not end"),
        ("a header of one line without end", long_line, "its age header does not end"),
        ("no archive", keys.encrypt(b"not gzip at all"), "it is not gzip"),
        ("half an archive, encrypted anew", keys.encrypt(&plain[..plain.len() / 2]), "cut short"),
        ("text inside, behind the archive", keys.encrypt(&[&plain[..], b"more"].concat()), ""),
    ]
}

#[tokio::test]
async fn i6_a_damaged_encrypted_backup_is_refused_and_nothing_is_placed() {
    let keys = Keys::new();
    let older = archive(&keys).await;
    for (case, damaged, words) in damaged_archives(&keys).await {
        let site = Site::new();
        site.put(&encrypted_name(1), older.clone()).await;
        site.put(&encrypted_name(MADE), damaged).await;

        let refused = restore(&site, Some(&keys), Fallback::Refuse).await.expect_err(case);
        let chain = text::chain(&refused);
        let RestoreError::Damaged { key, .. } = &refused else { panic!("{case}: {chain}") };
        assert_eq!(key.to_string(), encrypted_name(MADE), "{case}");
        assert!(chain.contains(words), "{case}: {chain}");
        assert_eq!(files_in(site.root()), [""; 0], "{case}: neither a database nor a leftover");

        let engine = site.restore_engine().with_identities(Some(keys.identities()));
        let drilled = engine.drill(&site.database(), deadline(), &Progress::default()).await;
        assert!(matches!(drilled, Err(DrillError::Damaged { .. })), "{case}: {drilled:?}");
        assert_eq!(files_in(site.root()), [""; 0], "{case}");
    }
}

/// Unpacks an encrypted archive of one piece.
fn unpacked(keys: &Keys, key: BackupKey, archive: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let root = tempfile::tempdir().expect("a temporary folder");
    let path = root.path().join("restored.db");
    let (sender, pieces) = tokio::sync::mpsc::channel(2);
    sender.try_send(Piece::Bytes(archive.to_vec().into())).expect("room for two");
    sender.try_send(Piece::End).expect("room for two");
    let (identities, disk, stop) = (keys.identities(), Disk::of(&path), Stop::default());
    archive::unpack_encrypted(pieces, (key, &identities), &path, (&disk, &stop))?;
    Ok(fs::read(&path).expect("written"))
}

#[test]
fn i2_no_cut_and_no_bit_of_an_encrypted_archive_goes_unnoticed() {
    let (keys, other) = (Keys::new(), Keys::new());
    let key = BackupKey::parse(&encrypted_name(5)).expect("ours");
    let content = db::noise(1, 700);
    let sound = age::Encryptor::with_recipients(
        [&other.identity.to_public() as _, &keys.identity.to_public() as _].into_iter(),
    );
    let mut writer = sound.expect("two").wrap_output(Vec::new()).expect("to memory");
    writer.write_all(&gzip(&content)).expect("to memory");
    let sound = writer.finish().expect("to memory");
    assert!(unpacked(&keys, key, &sound).expect("sound") == content);
    for at in 0..sound.len() {
        unpacked(&keys, key, &sound[..at]).expect_err("cut");
        let bit = at % 8;
        let mut changed = sound.clone();
        changed[at] ^= 1 << bit;
        let refused = unpacked(&keys, key, &changed);
        assert!(refused.is_err(), "bit {bit} of byte {at} of {}", sound.len());
    }
}

/// Whoever may write to the store can't make one, but could give an old one the newest name.
#[tokio::test]
async fn i2_an_old_encrypted_backup_under_a_newer_name_is_refused() {
    let keys = Keys::new();
    let site = Site::with_database();
    let old = back_up(&site, &engine(&site, &[&keys])).await.key;
    let archive = site.get(&old.to_string()).await;
    site.put(&encrypted_name(4_000_000_000), archive.clone()).await;
    site.lose_database();
    let refused = restore(&site, Some(&keys), Fallback::Refuse).await.expect_err("another's name");
    let chain = text::chain(&refused);
    assert!(chain.contains(&format!("it is another backup, {old}, under this name")), "{chain}");
    assert!(!site.database().exists());

    // A person who encrypts or packs by hand gives it what name they like.
    let database = gunzip(&keys.decrypt(&archive));
    site.put(&encrypted_name(4_000_000_001), keys.encrypt(&gzip(&database))).await;
    let restored = restore(&site, Some(&keys), Fallback::Refuse).await.expect("stock tools");
    assert!(matches!(restored.outcome(), Outcome::FromBackup(_)));
}

#[tokio::test]
async fn a_damaged_encrypted_backup_gives_way_to_an_older_one_if_that_is_wanted() {
    let keys = Keys::new();
    let site = Site::new();
    let sound = archive(&keys).await;
    site.put(&name(1), keys.decrypt(&sound)).await;
    site.put(&encrypted_name(MADE), sound[..sound.len() - 1].to_vec()).await;
    let restored = restore(&site, Some(&keys), Fallback::NextOlder).await.expect("restored");
    let Outcome::FromBackup(report) = restored.outcome() else { panic!("{restored:?}") };
    assert_eq!(report.key.to_string(), name(1));
}

/// A download that is cut goes on where it was: that is not the end of the archive.
#[tokio::test]
async fn an_encrypted_download_that_is_cut_goes_on_there() {
    let keys = Keys::new();
    let sound = archive(&keys).await;
    for cut in [1, 100, CHUNK, sound.len() / 2, sound.len() - 1] {
        let site = Site::new();
        site.put(&encrypted_name(MADE), sound.clone()).await;
        site.script().plan(Call::Get, ..1, Trouble::Cut(cut));
        let restored = restore(&site, Some(&keys), Fallback::Refuse).await;
        restored.unwrap_or_else(|error| panic!("{cut}: {}", text::chain(&error)));
        assert_eq!(site.script().count(Call::Get), 2, "{cut}");
    }
}

/// What a machine reads to compare with: damaged, it is one that can't be opened.
#[tokio::test]
async fn a_start_that_is_damaged_says_nothing() {
    let keys = Keys::new();
    let sound = archive(&keys).await;
    let start = start_of_chunks(&sound);
    let read = |bytes: &[u8]| archive::encrypted_manifest_at(bytes, &keys.identities());
    assert!(read(&sound[..96 * 1024]).expect("opened").is_some());
    assert!(read(&sound[..start + CHUNK]).expect("one chunk is enough").is_some());
    assert!(read(&flipped(&sound, start + 9)).map_or(true, |manifest| manifest.is_none()));
    assert!(read(&sound[..start + CHUNK - 1]).map_or(true, |manifest| manifest.is_none()));
    read(&sound[..40]).expect_err("half a header");
}
