//! Encrypted backups: what is stored of them, who can read them, what is refused and never taken for
//! something else, and what a machine does that can make them and not open them.

mod damage;
mod service;

use std::fs;
use std::io::Read;
use std::path::Path;

use age::secrecy::ExposeSecret;
use age::x25519;
use object_store::{Attribute, ObjectStoreExt};
use simplebackup_engine::archive;
use simplebackup_engine::backup::{BackupEngine, BackupReport, Unchanged};
use simplebackup_engine::encryption::{Identities, Recipients};
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::manifest::Manifest;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Fallback, Outcome, RestoreError, Restored};
use simplebackup_engine::text;

use crate::support::store::Call;
use crate::support::{START, Site, db, deadline, files_in, gunzip, name};

/// A pair of keys, and the file of the secret one.
struct Keys {
    identity: x25519::Identity,
    file: tempfile::NamedTempFile,
}

impl Keys {
    fn new() -> Self {
        let identity = x25519::Identity::generate();
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = format!(
            "# created: 2026-11-23T01:00:00Z\n# public key: {}\n{}\n",
            identity.to_public(),
            identity.to_string().expose_secret()
        );
        fs::write(file.path(), text).expect("written");
        Self { identity, file }
    }

    fn public(&self) -> String {
        self.identity.to_public().to_string()
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    fn identities(&self) -> Identities {
        Identities::read(self.path()).expect("sound")
    }

    /// Decrypts with age alone, none of our code.
    fn decrypt(&self, encrypted: &[u8]) -> Vec<u8> {
        let opened = age::Decryptor::new(encrypted).expect("an age file");
        let mut reader = opened.decrypt([&self.identity as _].into_iter()).expect("for us");
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("whole and unchanged");
        bytes
    }

    /// Encrypts with age alone.
    fn encrypt(&self, bytes: &[u8]) -> Vec<u8> {
        age::encrypt(&self.identity.to_public(), bytes).expect("to memory")
    }
}

fn recipients(keys: &[&Keys]) -> Option<Recipients> {
    let names: Vec<_> = keys.iter().map(|keys| keys.public()).collect();
    Recipients::parse(&names).expect("usable")
}

/// Returns the name of the encrypted backup with this timestamp.
fn encrypted_name(timestamp: i64) -> String {
    format!("{}.age", name(timestamp))
}

/// Returns whether this is the name of an encrypted backup.
pub(crate) fn is_encrypted(name: &str) -> bool {
    BackupKey::parse(name).expect("ours").is_encrypted()
}

/// An engine that encrypts for these keys, in a process of its own, without an identity.
fn engine(site: &Site, keys: &[&Keys]) -> BackupEngine {
    site.backup_engine().with_recipients(recipients(keys))
}

async fn back_up(site: &Site, engine: &BackupEngine) -> BackupReport {
    site.clock.jump(3600);
    engine.back_up(deadline(), &Progress::default()).await.expect("made")
}

async fn restore(
    site: &Site,
    keys: Option<&Keys>,
    fallback: Fallback,
) -> Result<Restored, RestoreError> {
    restore_with(site, keys.map(Keys::identities), fallback).await
}

async fn restore_with(
    site: &Site,
    identities: Option<Identities>,
    fallback: Fallback,
) -> Result<Restored, RestoreError> {
    let (engine, progress) =
        (site.restore_engine().with_identities(identities), Progress::default());
    engine.restore_if_missing(&site.database(), fallback, deadline(), &progress).await
}

/// Forgets what the work folder keeps, as a new disk does.
fn forget(site: &Site) {
    let work = site.root().join(".app.db.simplebackup");
    fs::remove_file(work.join("last-stored")).expect("kept after an encrypted backup");
}

#[tokio::test]
async fn i2_an_encrypted_backup_comes_back_and_age_alone_reads_it() {
    let (keys, other) = (Keys::new(), Keys::new());
    let site = Site::with_database();
    let before = db::dump(&site.database());
    let report = back_up(&site, &engine(&site, &[&keys, &other])).await;
    assert_eq!(report.key.to_string(), encrypted_name(START + 3600));
    assert_eq!(site.stored().await, [encrypted_name(START + 3600)], "and nothing plain");

    let stored = site.get(&report.key.to_string()).await;
    assert_eq!(stored.len() as u64, report.archive_bytes);
    assert!(stored.starts_with(b"age-encryption.org/v1\n-> X25519 "));
    for keys in [&keys, &other] {
        let archive = keys.decrypt(&stored);
        let manifest = archive::manifest_at(&archive).expect("ours");
        assert_eq!(manifest.contents, Some(report.contents.clone()));
        assert_eq!(gunzip(&archive).len() as u64, report.database_bytes);

        site.lose_database();
        let restored = restore(&site, Some(keys), Fallback::Refuse).await.expect("restored");
        assert!(matches!(restored.outcome(), Outcome::FromBackup(_)));
        assert_eq!(db::dump(&site.database()), before);
        site.assert_no_leftovers();
    }
}

/// What is not a whole number of age's chunks, and what is, at each end.
#[tokio::test]
async fn i2_archives_of_every_length_of_the_last_chunk_come_back() {
    let keys = Keys::new();
    let site = Site::with_database();
    let bytes = fs::read(site.database()).expect("read");
    site.lose_database();
    for chunk_bytes in [64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 128 * 1024] {
        // Gzip keeps what is stored uncompressed as long as it is: so it can be measured out.
        let padded = |name: usize| {
            use std::io::Write;

            let builder = flate2::GzBuilder::new().filename(vec![b'x'; name]);
            let mut gzip = builder.write(Vec::new(), flate2::Compression::none());
            gzip.write_all(&bytes).expect("to memory");
            gzip.finish().expect("to memory")
        };
        let shortest = padded(1).len();
        let length = shortest.div_ceil(chunk_bytes) * chunk_bytes;
        let archive = padded(1 + (length - shortest) % 60_000);
        site.put(&encrypted_name(1), keys.encrypt(&archive)).await;
        restore(&site, Some(&keys), Fallback::Refuse).await.expect("restored");
        assert!(fs::read(site.database()).expect("read") == bytes, "{chunk_bytes}");
        site.lose_database();
    }
}

#[tokio::test]
async fn the_object_tells_nothing_of_what_it_holds() {
    let keys = Keys::new();
    let site = Site::with_database();
    let report = back_up(&site, &engine(&site, &[&keys])).await;
    let path = site.path_of(&report.key.to_string());
    let object = site.objects().get(&path).await.expect("stored");
    let names: Vec<_> = object.attributes.iter().map(|(attribute, _)| attribute.clone()).collect();
    assert_eq!(names, [Attribute::Metadata("instance".into())]);

    let engine = site.restore_engine().with_identities(Some(keys.identities()));
    let drilled = engine.drill(&site.database(), deadline(), &Progress::default()).await;
    assert_eq!(drilled.expect("sound").metadata_warning, None, "and that is as it should be");
}

/// Names are one line: whatever the forms, the newest three moments stay.
#[tokio::test]
async fn i1_encryption_switched_on_and_off_strands_nothing() {
    let keys = Keys::new();
    let site = Site::with_database();
    let (plain, encrypting) = (site.backup_engine(), engine(&site, &[&keys]));
    let plain = plain.with_identities(Some(keys.identities()));
    let mut made = Vec::new();
    for engine in [&plain, &plain, &encrypting, &encrypting, &plain, &encrypting] {
        made.push(back_up(&site, engine).await.key.to_string());
        let newest_three = &made[made.len().saturating_sub(3)..];
        assert_eq!(site.stored().await, newest_three);
        site.lose_database();
        let restored = restore(&site, Some(&keys), Fallback::Refuse).await.expect("restored");
        let Outcome::FromBackup(report) = restored.outcome() else { panic!("{restored:?}") };
        assert_eq!(Some(&report.key.to_string()), made.last());
    }
    let encrypted = made.iter().filter(|name| is_encrypted(name));
    assert_eq!(encrypted.count(), 3);
}

/// As a person leaves them who encrypts stored backups by hand and keeps the plain ones for now.
#[tokio::test]
async fn i1_one_backup_in_both_forms_counts_once_and_goes_as_one() {
    let keys = Keys::new();
    let site = Site::with_database();
    for _ in 0..3 {
        let made = back_up(&site, &site.backup_engine()).await.key;
        let archive = site.get(&made.to_string()).await;
        site.put(&format!("{made}.age"), keys.encrypt(&archive)).await;
    }
    assert_eq!(site.stored().await.len(), 6);
    let engine = engine(&site, &[&keys]).with_identities(Some(keys.identities()));
    let report = back_up(&site, &engine).await;
    assert_eq!((report.deleted, report.stored), (2, 5), "both forms of the oldest");
    let oldest = START + 3600;
    let stored = site.stored().await;
    assert!(!stored.contains(&name(oldest)) && !stored.contains(&encrypted_name(oldest)));
}

#[tokio::test]
async fn without_the_right_identity_nothing_is_restored_whatever_else_is_stored() {
    let (keys, other) = (Keys::new(), Keys::new());
    let site = Site::with_database();
    back_up(&site, &site.backup_engine()).await;
    let newest = back_up(&site, &engine(&site, &[&keys])).await.key;
    site.lose_database();
    for fallback in [Fallback::Refuse, Fallback::NextOlder] {
        let refused = restore(&site, None, fallback).await.expect_err("no identity");
        assert!(
            matches!(&refused, RestoreError::NoIdentity { key } if *key == newest),
            "{refused:?}"
        );
        assert!(refused.to_string().contains("encryption.identity_file"), "{refused}");

        let refused = restore(&site, Some(&other), fallback).await.expect_err("another's");
        let said = text::chain(&refused);
        assert!(matches!(refused, RestoreError::WrongIdentity { .. }), "{said}");
        assert!(said.contains(&other.path().display().to_string()), "{said}");
        assert_eq!(files_in(&site.root().join("")), [".app.db.simplebackup"], "nothing placed");
        site.assert_no_leftovers();
    }
    let both = tempfile::NamedTempFile::new().expect("a file");
    let texts = [&other, &keys].map(|keys| fs::read_to_string(keys.path()).expect("read"));
    fs::write(both.path(), texts.concat()).expect("written");
    let identities = Identities::read(both.path()).expect("two");
    let restored = restore_with(&site, Some(identities), Fallback::Refuse).await;
    restored.expect("one of them fits");
}

#[tokio::test]
async fn an_unchanged_database_is_skipped_only_for_the_same_readers() {
    let (keys, other) = (Keys::new(), Keys::new());
    let site = Site::with_database();
    let skipping = |keys: &[&Keys]| engine(&site, keys).with_unchanged(Unchanged::Skip);
    let plain = back_up(&site, &site.backup_engine()).await;
    // Else a plain one would stay the newest after encryption was switched on.
    assert!(!back_up(&site, &skipping(&[&keys])).await.is_unchanged);
    // Another process each time, which has the work folder.
    let same = back_up(&site, &skipping(&[&keys])).await;
    assert!(same.is_unchanged && same.contents == plain.contents);
    // Else what a new key is to open would stay closed to it.
    assert!(!back_up(&site, &skipping(&[&keys, &other])).await.is_unchanged);
    assert!(back_up(&site, &skipping(&[&keys, &other])).await.is_unchanged);
    assert!(!back_up(&site, &skipping(&[])).await.is_unchanged);
    assert!(back_up(&site, &skipping(&[])).await.is_unchanged);
    assert_eq!(site.script().count(Call::Put), 4);
}

/// Nobody here can say that it is the same: it is stored again.
#[tokio::test]
async fn what_cannot_be_opened_is_never_taken_for_unchanged() {
    let keys = Keys::new();
    let site = Site::with_database();
    let skipping = || engine(&site, &[&keys]).with_unchanged(Unchanged::Skip);
    back_up(&site, &skipping()).await;
    forget(&site);
    assert!(!back_up(&site, &skipping()).await.is_unchanged);
    forget(&site);
    let opening = skipping().with_identities(Some(keys.identities()));
    assert!(back_up(&site, &opening).await.is_unchanged, "an identity opens it");
}

fn empty(site: &Site) {
    db::drop_all_tables(&site.database());
}

/// By the memory of the process, of the disk, and by an identity.
#[tokio::test]
async fn i1_an_emptied_database_is_noticed_beside_encrypted_backups() {
    let keys = Keys::new();
    for case in ["process", "disk", "identity"] {
        let site = Site::with_database();
        let first = engine(&site, &[&keys]);
        let before = back_up(&site, &first).await.key;
        empty(&site);
        let report = match case {
            "process" => {
                forget(&site);
                back_up(&site, &first).await
            }
            "disk" => back_up(&site, &engine(&site, &[&keys])).await,
            _ => {
                forget(&site);
                let engine = engine(&site, &[&keys]).with_identities(Some(keys.identities()));
                back_up(&site, &engine).await
            }
        };
        let suspension = report.suspension.unwrap_or_else(|| panic!("{case}: not noticed"));
        // Everybody may read the mark.
        let mark = site.get("pruning-suspended.json").await;
        assert!(String::from_utf8_lossy(&mark).contains(&suspension.reason), "{mark:?}");
        assert!(suspension.reason.contains(&before.to_string()), "{}", suspension.reason);
        let numbers = suspension.reason.replace(&before.to_string(), "");
        assert!(!numbers.contains(|c: char| c.is_ascii_digit()), "{numbers}");
    }
}

/// A machine that can make backups and not open them, on a disk that knows nothing of the last one.
#[tokio::test]
async fn i1_what_cannot_be_compared_deletes_nothing_once_and_suspends_nothing() {
    let keys = Keys::new();
    let site = Site::with_database();
    for _ in 0..3 {
        back_up(&site, &engine(&site, &[&keys])).await;
    }
    forget(&site);
    let unsure = back_up(&site, &engine(&site, &[&keys])).await;
    assert_eq!((unsure.deleted, unsure.stored, unsure.suspension), (0, 4, None));
    let warning = unsure.delete_warning.expect("told");
    assert!(warning.contains("no identity at hand opens it"), "{warning}");
    let sure = back_up(&site, &engine(&site, &[&keys])).await;
    assert_eq!((sure.deleted, sure.stored, sure.suspension), (2, 3, None));
}

/// Its size alone shows that nine tenths are gone, whatever it holds.
#[tokio::test]
async fn i1_an_emptied_database_is_noticed_by_the_size_of_what_cannot_be_opened() {
    let keys = Keys::new();
    let site = Site::new();
    db::create_incompressible(&site.database(), 1);
    back_up(&site, &engine(&site, &[&keys])).await;
    forget(&site);
    site.lose_database();
    db::create(&site.database(), "wal", 10);
    let report = back_up(&site, &engine(&site, &[&keys])).await;
    assert!(report.suspension.is_some() && report.deleted == 0, "{report:?}");
}

/// The manifest of the newest backup, by age alone.
fn manifest_of(keys: &Keys, stored: &[u8]) -> Manifest {
    archive::manifest_at(&keys.decrypt(stored)).expect("ours")
}

#[tokio::test]
async fn the_manifest_inside_names_the_recipients() {
    let (keys, other) = (Keys::new(), Keys::new());
    let site = Site::with_database();
    let report = back_up(&site, &engine(&site, &[&keys, &other])).await;
    let manifest = manifest_of(&other, &site.get(&report.key.to_string()).await);
    assert_eq!(manifest.recipients, [keys.public(), other.public()]);
    assert!(is_encrypted(&report.key.to_string()));
}
