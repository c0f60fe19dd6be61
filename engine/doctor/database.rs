//! The database as a backup will meet it: there, readable, and made of nothing that only its app
//! knows. Nothing is created and nothing changed; what a backup does later is done by nobody here.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::{Finding, skip_all};
use crate::blocking::Stop;
use crate::snapshot::{self, SnapshotError};
use crate::sqlite::{self, SqliteError};
use crate::text;

mod header;
mod lacking;

use header::Header;
pub use lacking::Lacking;

/// The checks of this file, in their order.
pub const CHECKS: [&str; 5] = [VERSION, FILE, JOURNAL, SCHEMA, WRITER];

const VERSION: &str = "sqlite.version";
const FILE: &str = "database.file";
const JOURNAL: &str = "database.journal";
const SCHEMA: &str = "database.schema";
const WRITER: &str = "database.writer";

/// How many things that the database needs and we lack are told one by one.
const TOLD_MAX: usize = 3;

/// How long a start waits for what a schema lacks: most are through in a tenth of it.
const TIME_AT_START: Duration = Duration::from_millis(40);

/// What a database says when it is opened.
#[derive(Debug)]
struct Inside {
    journal_mode: String,
    lacking: Vec<Lacking>,
}

/// What the checks found, and what other checks want to know.
#[derive(Debug)]
pub struct Examined {
    /// One finding for each of [`CHECKS`].
    pub findings: Vec<Finding>,
    /// Whether it keeps a write-ahead log, if that could be read.
    pub is_wal: Option<bool>,
}

/// Looks at the database.
#[must_use]
pub fn examine(database: &Path, busy_timeout: Duration, stop: &Stop) -> Examined {
    let mut findings = vec![version()];
    let header = match look_at_file(database) {
        Ok(header) => header,
        Err(finding) => {
            findings.push(finding);
            findings.extend(skip_all(&CHECKS[2..], "there is no database to look into"));
            return Examined { findings, is_wal: None };
        }
    };
    let looked = look_inside(database, busy_timeout, || stop.is_set());
    let Inside { journal_mode, lacking } = match looked {
        Ok(inside) => inside,
        Err(error) => {
            findings.push(unreadable(database, &error));
            findings.extend(skip_all(&CHECKS[2..], "the database cannot be read"));
            return Examined { findings, is_wal: None };
        }
    };
    let is_wal = journal_mode == "wal";
    let bytes = snapshot_bytes(database);
    findings.push(Finding::ok(FILE, format!("{}, {}", database.display(), text::size(bytes))));
    findings.push(journal(&journal_mode));
    findings.push(schema(&lacking));
    findings.push(header.map_or_else(
        || Finding::skipped(WRITER, "all of the database is still in its log"),
        |header| writer(&header, is_wal),
    ));
    Examined { findings, is_wal: Some(is_wal) }
}

/// Looks at a database that is there, before an app starts: what keeps it from being read, and what
/// only its app knows. Waits for no lock, and says nothing of a database that somebody has locked.
#[must_use]
pub fn examine_at_start(database: &Path) -> Option<Finding> {
    let begun = Instant::now();
    match snapshot::inspect(database) {
        Ok(_) => {}
        // The restore has its own words for it, and for an app it is a start like any other.
        Err(SnapshotError::Missing { .. } | SnapshotError::Empty { .. }) => return None,
        Err(error) => return Some(Finding::warning(FILE, found_in(&error), CHECK_THE_PATH)),
    }
    match look_inside(database, Duration::ZERO, || begun.elapsed() > TIME_AT_START) {
        Ok(Inside { lacking, .. }) if lacking.is_empty() => None,
        Ok(Inside { lacking, .. }) => Some(schema(&lacking)),
        Err(SqliteError::Locked { .. } | SqliteError::Stopped) => None,
        Err(error) => Some(unreadable(database, &error)),
    }
}

const CHECK_THE_PATH: &str = "check database.path";

/// Returns what an error says but for its advice: what to do next stands apart here.
fn found_in(error: &dyn std::error::Error) -> String {
    let words = text::chain(error);
    words.split("; ").next().unwrap_or_default().to_owned()
}

fn version() -> Finding {
    let found = format!("SQLite {} is compiled in", rusqlite::version());
    match sqlite::require_sound_version() {
        Ok(()) => Finding::ok(VERSION, found),
        Err(error) => Finding::failure(VERSION, error, "build with the bundled SQLite"),
    }
}

/// Looks at the file from outside, and at its header by hand: no connection of ours is open yet.
fn look_at_file(database: &Path) -> Result<Option<Header>, Finding> {
    if let Err(error) = snapshot::inspect(database) {
        let found = found_in(&error);
        return Err(match error {
            SnapshotError::Missing { .. } => Finding::warning(
                FILE,
                found,
                "right before the first start: the newest backup is restored, or the app starts \
                 fresh; else check database.path",
            ),
            SnapshotError::Empty { .. } => Finding::warning(
                FILE,
                found,
                "right before the app's first start; else check database.path, or restore a backup",
            ),
            _ => Finding::failure(FILE, found, CHECK_THE_PATH),
        });
    }
    let read = || {
        let mut bytes = [0; header::BYTES];
        let file = File::open(database)?;
        // Empty: a database whose every page is in its log.
        if file.metadata()?.len() == 0 {
            return Ok(None);
        }
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Some(bytes))
    };
    let bytes: std::io::Result<_> = read();
    let bytes = bytes.map_err(|error| {
        let next = "let this user read and write it";
        Finding::failure(FILE, format!("{} cannot be read: {error}", database.display()), next)
    })?;
    bytes.map(|bytes| judge_header(database, &bytes)).transpose()
}

fn judge_header(database: &Path, bytes: &[u8; header::BYTES]) -> Result<Header, Finding> {
    let Some(header) = Header::parse(bytes) else {
        let found = format!("{} is not a SQLite database", database.display());
        let next =
            "check database.path; an encrypted database (SQLCipher, SEE) cannot be backed up";
        return Err(Finding::failure(FILE, found, next));
    };
    match header.newer_than_ours() {
        None => Ok(header),
        Some(what) => {
            let found = format!(
                "{} {what}, which SQLite {} cannot read",
                database.display(),
                rusqlite::version()
            );
            Err(Finding::failure(FILE, found, "use a simplebackup with a newer SQLite"))
        }
    }
}

fn look_inside(
    database: &Path,
    busy_timeout: Duration,
    enough: impl Fn() -> bool,
) -> Result<Inside, SqliteError> {
    let look = || {
        let connection = snapshot::open_source(database, busy_timeout, &Stop::default())?;
        let journal_mode = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        let lacking = lacking::lacking(&connection, enough)?;
        close(connection)?;
        Ok(Inside { journal_mode, lacking })
    };
    let looked: rusqlite::Result<Inside> = look();
    looked.map_err(|error| SqliteError::from_rusqlite(error, busy_timeout))
}

fn close(connection: Connection) -> rusqlite::Result<()> {
    connection.close().map_err(|(_connection, error)| error)
}

fn unreadable(database: &Path, error: &SqliteError) -> Finding {
    let found = format!("{}: {}", database.display(), found_in(error));
    match error {
        SqliteError::Locked { .. } => Finding::warning(
            FILE,
            found,
            "a backup waits for the lock as long; keep transactions short",
        ),
        SqliteError::Corrupt(_) => Finding::failure(
            FILE,
            found,
            "restore a backup; or, if the app has a newer SQLite whose schemas ours does not \
             understand, use a newer simplebackup",
        ),
        SqliteError::CannotOpen(_) => Finding::failure(
            FILE,
            found,
            "let this user read and write the file, those beside it, and its folder",
        ),
        _ => Finding::failure(FILE, found, CHECK_THE_PATH),
    }
}

fn journal(mode: &str) -> Finding {
    if mode == "wal" {
        return Finding::ok(JOURNAL, "wal: nobody waits for a backup");
    }
    Finding::warning(
        JOURNAL,
        format!("{mode}: the app cannot commit while a snapshot is made"),
        "let the app set PRAGMA journal_mode = WAL once, or a busy_timeout that is long enough",
    )
}

fn schema(lacking: &[Lacking]) -> Finding {
    if lacking.is_empty() {
        return Finding::ok(SCHEMA, "needs nothing that only the app has");
    }
    let mut told: Vec<_> = lacking.iter().take(TOLD_MAX).map(ToString::to_string).collect();
    if lacking.len() > TOLD_MAX {
        told.push(format!("and {} more", lacking.len() - TOLD_MAX));
    }
    // Without its module a virtual table is copied as its shadow tables are.
    let is_copied = lacking.iter().all(Lacking::is_of_a_virtual_table);
    let next = if is_copied {
        "backups hold it all, but its structure and its rows cannot be verified here"
    } else {
        "backups hold it all, but are copied page by page and not verified in full; to have that, \
         use what SQLite itself brings in indexes, constraints and generated columns"
    };
    let found = format!("our SQLite lacks what the schema needs: {}", told.join("; "));
    Finding::warning(SCHEMA, found, next)
}

fn writer(header: &Header, is_wal: bool) -> Finding {
    let Some(version) = header.writer() else {
        return Finding::skipped(WRITER, "the file does not say which SQLite wrote it last");
    };
    if version.has_wal_bug() && is_wal {
        return Finding::warning(
            WRITER,
            format!(
                "last written by SQLite {version}, which can lose commits of a WAL database \
                 (https://sqlite.org/wal.html#walresetbug)"
            ),
            "give the app SQLite 3.51.3 or newer, or 3.50.7, or 3.44.6",
        );
    }
    Finding::ok(WRITER, format!("last written by SQLite {version}"))
}

fn snapshot_bytes(database: &Path) -> u64 {
    std::fs::metadata(database).map_or(0, |metadata| metadata.len())
}
