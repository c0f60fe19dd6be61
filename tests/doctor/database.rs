//! Databases that are sound, and those that a backup would stumble over.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use simplebackup_engine::blocking::Stop;
use simplebackup_engine::doctor::{Finding, Verdict, database};

use super::{assert_finding, verdicts};
use crate::support::db;

/// A folder with a path for a database.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a temporary folder") }
    }

    fn with_database(journal_mode: &str) -> Self {
        let place = Self::new();
        db::create(&place.database(), journal_mode, 20);
        place
    }

    fn database(&self) -> PathBuf {
        self.root.path().join("app.db")
    }

    fn examine(&self) -> Vec<Finding> {
        let timeout = Duration::from_millis(1);
        let examined = database::examine(&self.database(), timeout, &Stop::default());
        let checks: Vec<_> = examined.findings.iter().map(|finding| finding.check).collect();
        assert_eq!(checks, database::CHECKS);
        examined.findings
    }

    fn at_start(&self) -> Option<Finding> {
        database::examine_at_start(&self.database())
    }

    /// Overwrites bytes of the file.
    fn patch(&self, at: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.database()).expect("opened");
        file.write_all_at(bytes, at).expect("written");
    }
}

#[test]
fn a_sound_database_passes_and_is_not_changed() {
    let place = Place::with_database("wal");
    let before = fs::read(place.database()).expect("read");
    let findings = place.examine();
    assert_eq!(verdicts(&findings), [Verdict::Ok; 5], "{findings:#?}");
    assert_eq!(place.at_start(), None);
    assert!(fs::read(place.database()).expect("read") == before);
}

#[test]
fn a_rollback_journal_is_told() {
    let place = Place::with_database("delete");
    assert_finding(&place.examine(), "database.journal", Verdict::Warning, "journal_mode = WAL");
    assert_eq!(place.at_start(), None, "nothing to say at each start");
}

#[test]
fn what_is_no_database_is_told_and_nothing_is_made() {
    let missing = Place::new();
    assert_finding(&missing.examine(), "database.file", Verdict::Warning, "first start");
    assert_eq!(missing.at_start(), None);
    assert!(!missing.database().exists());

    let empty = Place::new();
    fs::write(empty.database(), "").expect("written");
    assert_finding(&empty.examine(), "database.file", Verdict::Warning, "is empty (0 bytes)");
    assert_eq!(empty.at_start(), None, "an app may begin so");

    let folder = Place::new();
    fs::create_dir(folder.database()).expect("made");
    let garbage = Place::new();
    fs::write(garbage.database(), db::noise(1, 4096)).expect("written");
    let short = Place::new();
    fs::write(short.database(), "a note").expect("written");
    for (place, words, words_at_start) in [
        (folder, "is a folder", "is a folder"),
        (garbage, "encrypted", "file is not a SQLite database"),
        (short, "file is not a SQLite database", "file is not a SQLite database"),
    ] {
        let findings = place.examine();
        assert_finding(&findings, "database.file", Verdict::Failure, words);
        assert_eq!(verdicts(&findings[2..]), [Verdict::Skipped; 3]);
        let at_start = place.at_start().expect("found");
        assert_finding(&[at_start], "database.file", expected_at_start(words), words_at_start);
    }
}

/// A folder is refused before anything is opened.
fn expected_at_start(words: &str) -> Verdict {
    if words == "encrypted" { Verdict::Failure } else { Verdict::Warning }
}

#[test]
fn a_file_newer_than_our_sqlite_is_told_from_garbage() {
    for (at, byte, words) in [(19, 3, "has file format 3"), (47, 5, "has schema format 5")] {
        let place = Place::with_database("delete");
        place.patch(at, &[byte]);
        let findings = place.examine();
        assert_finding(&findings, "database.file", Verdict::Failure, words);
        assert_finding(&findings, "database.file", Verdict::Failure, "newer SQLite");
        place.at_start().expect("it cannot be read");
    }
}

#[test]
fn a_writer_with_the_wal_bug_is_told() {
    let old = 3_040_001_u32.to_be_bytes();
    let place = Place::with_database("wal");
    place.patch(96, &old);
    assert_finding(&place.examine(), "database.writer", Verdict::Warning, "SQLite 3.40.1, which");
    let rollback = Place::with_database("delete");
    rollback.patch(96, &old);
    assert_finding(&rollback.examine(), "database.writer", Verdict::Ok, "3.40.1");
}

#[test]
fn a_locked_database_is_a_warning_and_delays_no_start() {
    let place = Place::with_database("delete");
    let app = db::open(&place.database());
    app.execute_batch("BEGIN EXCLUSIVE").expect("begun");
    assert_finding(&place.examine(), "database.file", Verdict::Warning, "database is locked");
    assert_eq!(place.at_start(), None);
}

#[test]
fn a_broken_schema_is_a_failure() {
    let place = Place::with_database("delete");
    edit_schema(
        &place.database(),
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE notes (id FROM AFAR' WHERE name = 'notes'",
    );
    let findings = place.examine();
    assert_finding(&findings, "database.file", Verdict::Failure, "malformed database schema");
    assert_finding(
        &[place.at_start().expect("found")],
        "database.file",
        Verdict::Failure,
        "schema",
    );
}

#[test]
fn collations_and_functions_of_the_app_are_told_with_what_needs_them() {
    let place = Place::new();
    drop(db::create_with_own_collation_and_function(&place.database()));
    let findings = place.examine();
    let lacks = "index by_length: no such function: app_length";
    assert_finding(&findings, "database.schema", Verdict::Warning, lacks);
    let lacks = "table words: no such collation sequence: backwards";
    assert_finding(&findings, "database.schema", Verdict::Warning, lacks);
    assert_finding(&findings, "database.schema", Verdict::Warning, "copied page by page");
    let at_start = [place.at_start().expect("found")];
    assert_finding(&at_start, "database.schema", Verdict::Warning, "app_length");
}

#[test]
fn functions_in_generated_columns_constraints_and_partial_indexes_are_found() {
    let cases = [
        ("CREATE TABLE t (a, b AS (secret(a)) STORED)", "table t"),
        ("CREATE TABLE t (a, b AS (secret(a)))", "table t"),
        ("CREATE TABLE t (a CHECK (secret(a)))", "table t"),
        ("CREATE TABLE t (a); CREATE INDEX i ON t (a) WHERE secret(a)", "index i"),
        ("CREATE TABLE t (a); CREATE INDEX i ON t (a, secret(a))", "index i"),
    ];
    for (sql, object) in cases {
        let place = Place::new();
        let app = db::open_new(&place.database(), "delete");
        let flags = rusqlite::functions::FunctionFlags::SQLITE_DETERMINISTIC;
        app.create_scalar_function("secret", 1, flags, |_context| Ok(1)).expect("created");
        app.execute_batch(sql).expect(sql);
        let findings = place.examine();
        assert_finding(&findings, "database.schema", Verdict::Warning, "secret");
        assert_finding(&findings, "database.schema", Verdict::Warning, object);
    }
}

#[test]
fn modules_and_tokenizers_of_the_app_are_found() {
    let place = Place::with_database("wal");
    edit_schema(
        &place.database(),
        "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql)
         VALUES ('table', 'gone', 'gone', 0, 'CREATE VIRTUAL TABLE gone USING spellfix1')",
    );
    let words = "table gone: no such module: spellfix1";
    assert_finding(&place.examine(), "database.schema", Verdict::Warning, words);
    assert_finding(&place.examine(), "database.schema", Verdict::Warning, "cannot be verified");

    let search = Place::with_database("wal");
    db::open(&search.database())
        .execute_batch("CREATE VIRTUAL TABLE search USING fts5(text)")
        .expect("made");
    assert_finding(&search.examine(), "database.schema", Verdict::Ok, "nothing");
    edit_schema(
        &search.database(),
        "UPDATE sqlite_schema SET sql =
         'CREATE VIRTUAL TABLE search USING fts5(text, tokenize = icu)' WHERE name = 'search'",
    );
    let words = "table search: no such tokenizer: icu";
    assert_finding(&search.examine(), "database.schema", Verdict::Warning, words);
}

/// Changes a schema as another version of SQLite would have it.
fn edit_schema(path: &Path, sql: &str) {
    let connection = Connection::open(path).expect("opened");
    connection.execute_batch("PRAGMA writable_schema = ON").expect("on");
    connection.execute_batch(sql).expect("edited");
}
