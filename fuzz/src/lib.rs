//! What must hold whatever comes from outside: names and contents of objects, headers of answers,
//! files and variables. One function for each kind of input; it panics where something does not.
//!
//! The fuzz targets call them with what libFuzzer makes up, `tests/fuzz.rs` with
//! mutations of the files in `corpus/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use object_store::{HeaderMap, HeaderValue};
use simplebackup::config::{Config, Flags, Input, Problems, SETTINGS, StoreChoice, load, variable};
use simplebackup_engine::archive::{Piece, manifest_at, unpack};
use simplebackup_engine::blocking::Stop;
use simplebackup_engine::disk::Disk;
use simplebackup_engine::instance::Instance;
use simplebackup_engine::key::{BackupKey, Form};
use simplebackup_engine::lease::Tenure;
use simplebackup_engine::manifest::Manifest;
use simplebackup_engine::store::{BackupStore, retry_after};
use simplebackup_engine::text::hex;
use url::Url;

/// Deflate makes at most so many bytes of one.
const INFLATION_MAX: u64 = 1032;

/// Parts the file from the variables in an input of [`config`].
const VARIABLES: &str = "\n--- variables\n";

/// A name is one of ours only if we would write it so, letter by letter.
pub fn names(input: &[u8]) {
    let Ok(name) = str::from_utf8(input) else { return };
    if let Some(key) = BackupKey::parse(name) {
        assert_eq!(key.to_string(), name);
        let plain = name.strip_suffix(".age").unwrap_or(name);
        assert_eq!(key.is_encrypted(), plain.len() < name.len(), "{name:?}");
        let digits = plain.strip_prefix("db-backup-").and_then(|rest| rest.strip_suffix(".db.gz"));
        let digits = digits.expect("the form of all names");
        assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{name:?}");
        assert_eq!(key.timestamp().to_string(), digits);
        assert_eq!(key.created_at().timestamp() as u64, key.timestamp());
        // None: nothing comes after the last name.
        for form in [Form::Plain, Form::Encrypted] {
            if let Some(next) = BackupKey::next(key.created_at(), Some(key), form) {
                assert!(next > key, "{next:?} comes after {key:?}");
            }
        }
    }
    if let Some(instance) = Instance::parse(name) {
        assert_eq!(instance.to_string(), name);
        let is_digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        assert!(name.len() == 16 && name.chars().all(is_digit), "{name:?}");
    }
}

/// A file and variables make a configuration that is valid as a whole, or problems of which each
/// has its place. The two parts of the input stand around a line `--- variables`.
pub fn config(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (file, variables) = text.split_once(VARIABLES).unwrap_or((&text, ""));
    let variables: Vec<_> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        // Whatever file of this machine they name is no part of the input.
        .filter(|(name, _)| !name.ends_with("_FILE") && *name != "SIMPLE_BACKUP_CONFIG")
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("config.toml");
    fs::write(&path, file).expect("written");
    let flags = Flags { config: Some(path.clone()), ..Flags::default() };
    let input = Input { flags, variables };
    let loaded = load(&input);
    assert_eq!(load(&input), loaded, "the same twice");
    match loaded {
        Ok(config) => is_valid(&config),
        Err(problems) => {
            have_places(&problems, &path, file, &input.variables);
            keep_secrets(&problems, &text, &input.variables);
        }
    }
}

fn is_valid(config: &Config) {
    assert!((1..=1000).contains(&config.retention.keep.get()));
    let day = Duration::from_hours(24);
    for timeout in [config.backup_timeout, config.restore_timeout, config.final_timeout] {
        assert!(!timeout.is_zero() && timeout <= day, "{timeout:?}");
    }
    for wait in [Some(config.app_timeout), Some(config.busy_timeout), config.lease_wait] {
        assert!(wait.is_none_or(|wait| wait <= day), "{wait:?}");
    }
    assert!(!config.database.as_os_str().is_empty());
    if let Some(address) = &config.http_address {
        let port = address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        assert!(port.is_some(), "{address}");
    }
    if let StoreChoice::S3(settings) = &config.store {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(!settings.bucket.is_empty() && settings.bucket.chars().all(is_plain));
        let parts: Vec<_> = settings.prefix.split('/').collect();
        assert!(
            settings.prefix.is_empty() || !parts.iter().any(|part| ["", ".", ".."].contains(part)),
            "{:?}",
            settings.prefix
        );
        assert_eq!(settings.access_key.is_some(), settings.secret_key.is_some());
        if let Some(endpoint) = &settings.endpoint {
            is_address_of_a_host(endpoint);
        }
        // What is accepted can be opened, or is refused in words.
        let _opened_or_refused = BackupStore::s3(settings);
    }
}

/// The client would panic over anything else, and would send keys to whom a path or a user names.
fn is_address_of_a_host(endpoint: &str) {
    let has_scheme = endpoint.starts_with("http://") || endpoint.starts_with("https://");
    let address = if has_scheme { endpoint.to_owned() } else { format!("https://{endpoint}") };
    let url = Url::parse(&address).unwrap_or_else(|error| panic!("{endpoint:?}: {error}"));
    assert!(url.host_str().is_some_and(|host| !host.is_empty()), "{endpoint:?}");
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    assert!(is_bare && url.username().is_empty() && url.password().is_none(), "{endpoint:?}");
}

/// Each problem names a line of the file, a variable that is set, or settings that don't fit.
fn have_places(problems: &Problems, path: &Path, file: &str, variables: &[(String, String)]) {
    assert!(!problems.0.is_empty());
    // As the names of the standard variables are compared.
    let same = |name: &str| name.to_lowercase().to_uppercase();
    let mut known: BTreeSet<_> = variables.iter().map(|(name, _)| same(name)).collect();
    known.extend(["store.access_key", "store.url"].map(same));
    known.insert(same(&path.display().to_string()));
    let lines = file.matches('\n').count() + 1;
    for problem in &problems.0 {
        let line = problem.place.strip_prefix(&format!("{}:", path.display()));
        let is_line = line
            .and_then(|line| line.parse::<usize>().ok())
            .is_some_and(|n| (1..=lines).contains(&n));
        assert!(is_line || known.contains(&same(&problem.place)), "no such place: {problem:?}");
        assert!(!problem.text.is_empty(), "{problem:?}");
    }
}

/// No problem repeats the value of a secret that stands nowhere else.
fn keep_secrets(problems: &Problems, input: &str, variables: &[(String, String)]) {
    let shown = problems.to_string();
    let secrets = SETTINGS.iter().filter(|setting| setting.is_secret).map(|s| variable(s.key));
    let mut names: Vec<_> = secrets.collect();
    names.extend(
        ["MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "AWS_SECRET_ACCESS_KEY"].map(str::to_owned),
    );
    for (name, value) in variables.iter().filter(|(name, _)| names.contains(name)) {
        let is_unlike_words = value.len() >= 8 && value.bytes().any(|byte| byte.is_ascii_digit());
        if is_unlike_words && input.matches(value.as_str()).count() == 1 {
            assert!(!shown.contains(value.as_str()), "{name} is shown: {shown}");
        }
    }
}

/// An archive unpacks to what it claims or is refused, and never to more than that. Returns what
/// came out of one that was accepted.
pub fn archive(input: &[u8]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("restored.db");
    // As a network brings it, in two pieces.
    let (start, rest) = input.split_at(input.len() / 3);
    let (sender, pieces) = tokio::sync::mpsc::channel(3);
    for piece in [start, rest].map(Bytes::copy_from_slice).map(Piece::Bytes) {
        sender.try_send(piece).expect("room for three");
    }
    sender.try_send(Piece::End).expect("room for three");
    let unpacked = unpack(pieces, &path, &Disk::of(&path), &Stop::default());
    let written = fs::metadata(&path).map_or(0, |metadata| metadata.len());
    assert!(written <= INFLATION_MAX * input.len() as u64, "{written}");
    // A manifest is read with the first bytes, so that a claim holds for what was refused too.
    if let Some(claimed) = manifest_at(input)
        && !starts_with_an_empty_member(input)
    {
        assert!(written <= claimed.database_bytes, "{written} of {claimed:?}");
    }
    let manifest = unpacked.ok()?;
    let bytes = fs::read(&path).expect("there");
    if let Some(manifest) = manifest {
        assert_eq!(manifest.database_bytes, bytes.len() as u64);
        if let Some(contents) = manifest.contents {
            let hash = ring::digest::digest(&ring::digest::SHA256, &bytes);
            assert_eq!(contents.sha256, hex(hash.as_ref()));
        }
    }
    Some(bytes)
}

/// Nothing comes out of such a member, so the next one's manifest is the one that counts.
fn starts_with_an_empty_member(input: &[u8]) -> bool {
    let mut first = flate2::bufread::GzDecoder::new(input);
    std::io::copy(&mut first, &mut std::io::sink()).is_ok_and(|bytes| bytes == 0)
}

/// What a manifest says survives the way through the header, and only plain facts become
/// metadata of an object. The input is the start of an archive, or the manifest itself.
pub fn manifest(input: &[u8]) {
    if let Some(manifest) = manifest_at(input) {
        travels(&manifest);
    }
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(input) {
        travels(&manifest);
    }
}

/// The names in an object's metadata.
const FACTS: [&str; 6] = ["database-bytes", "instance", "journal-mode", "rows", "sha256", "tables"];

fn travels(manifest: &Manifest) {
    let comment = serde_json::to_vec(manifest).expect("a manifest always encodes");
    assert!(!comment.contains(&0), "the header ends at a zero");
    let read: Manifest = serde_json::from_slice(&comment).expect("what we wrote");
    assert_eq!(&read, manifest);
    let archive = GzBuilder::new().comment(comment).write(Vec::new(), Compression::fast());
    let archive = archive.finish().expect("to memory");
    // A header that is too long is refused as a whole.
    if archive.len() < 60_000 {
        assert_eq!(manifest_at(&archive).as_ref(), Some(manifest));
    }
    for (name, _) in manifest.entries() {
        assert!(FACTS.contains(&name.as_str()), "{name}");
    }
}

/// A lease object is read as what it says, or not at all.
pub fn lease(input: &[u8]) {
    let Some(tenure) = Tenure::parse(input) else { return };
    let encoded = tenure.encode();
    assert_eq!(Tenure::parse(&encoded), Some(tenure.clone()));
    assert_eq!(Instance::parse(&tenure.holder.to_string()), Some(tenure.holder));
}

/// A store asks for seconds, or for a time seen from its own date, or for nothing. The lines of
/// the input are the two headers.
pub fn retry_after_header(input: &[u8]) {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in ["retry-after", "date"] {
        if let Some(Ok(value)) = lines.next().map(HeaderValue::from_bytes) {
            headers.insert(name, value);
        }
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let wait = retry_after(&headers);
    match (wait, text("retry-after")) {
        (None, Some(asked)) => assert!(asked.parse::<u64>().is_err(), "{asked:?} is a number"),
        (Some(_), None) => panic!("nothing was asked for"),
        (Some(wait), Some(asked)) => {
            assert_eq!(wait.subsec_nanos(), 0, "{asked:?} has seconds at most");
            if let Ok(seconds) = asked.parse::<u64>() {
                assert_eq!(wait.as_secs(), seconds);
            } else {
                // Of two dates one comes first, so that there is a wait in one order at most.
                let [asked, date] = ["retry-after", "date"].map(|name| headers[name].clone());
                headers.insert("retry-after", date);
                headers.insert("date", asked);
                let other = retry_after(&headers).expect("two dates");
                assert!(wait.is_zero() || other.is_zero(), "{wait:?} and {other:?}");
            }
        }
        (None, None) => {}
    }
}
