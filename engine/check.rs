//! The check that a snapshot passes before its upload and a restored file before its rename.
//!
//! `PRAGMA integrity_check`, in full: `quick_check` overlooks indexes that lack rows. Where a
//! collation or function of the app's own makes that impossible, as much as possible is checked
//! table by table, and the verdict says what was not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use serde::Serialize;
use thiserror::Error;

use crate::blocking::Stop;
use crate::sqlite::{DATABASE_BYTES_MIN, SqliteError, lacks_something, open_finished};

/// The page cache of the checking connection, in KiB. What is read again is in the system's own cache:
/// with 16 MiB a check of 480 MB takes as long, within a tenth, and with 256 KiB twice as long.
const CACHE_KIB: i64 = 1024;

/// How many findings of a damaged database are reported.
const FINDINGS_MAX: i64 = 5;

/// What a check that found no damage has to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// The tables whose structure could not be verified, because an index or a generated column
    /// of theirs needs a collation or a function that only the app has.
    pub unverified_tables: Vec<String>,
}

/// Why a file must not become a database, or a backup.
#[derive(Debug, Error)]
pub enum CheckError {
    /// Zero bytes; SQLite would take it for a valid database without tables.
    #[error("the file is empty")]
    Empty,
    /// SQLite found damage; its first findings.
    #[error("integrity check found: {}", .0.join("; "))]
    Damaged(Vec<String>),
    /// SQLite could not even read it.
    #[error("integrity check could not run")]
    Sqlite(#[source] SqliteError),
    /// The file system could not give it.
    #[error("file cannot be read")]
    Io(#[source] std::io::Error),
}

impl CheckError {
    /// Returns whether the file itself is bad, rather than the machine or the time.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Empty | Self::Damaged(_) => true,
            Self::Sqlite(error) => {
                matches!(error, SqliteError::NotSqlite | SqliteError::Corrupt(_))
            }
            Self::Io(_) => false,
        }
    }

    /// Returns what to do about the source of a bad file: nothing, if it is not bad.
    #[must_use]
    pub(crate) fn advice(&self) -> &'static str {
        if self.is_damage() { "; the database needs repair" } else { "" }
    }
}

/// The name of a table and how many rows it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableRows {
    /// The table's name.
    pub table: String,
    /// Its rows, or nothing where counting needs a module that only the app has.
    pub rows: Option<u64>,
}

/// Checks a database file that is ours alone.
///
/// # Errors
///
/// [`CheckError::is_damage`] tells a bad file from a check that could not run.
pub fn check(path: &Path, stop: &Stop) -> Result<Verdict, CheckError> {
    verdict_on(&open(path, stop)?)
}

/// Counts the rows of each table of a database file that is ours alone, in order of names, tells what it
/// counted, and checks the file. One connection does both: a large schema takes as long to read as all rows
/// to count.
///
/// # Errors
///
/// Those of [`check`], first of all: it says best what is wrong with a file that can't be counted.
pub fn count_and_check(
    path: &Path,
    stop: &Stop,
    tell: impl FnOnce(&[TableRows]),
) -> Result<Verdict, CheckError> {
    let connection = open(path, stop)?;
    let counted = count_on(&connection, stop).map(|tables| tell(&tables));
    // The count used the interruption up.
    if stop.is_set() {
        return Err(CheckError::Sqlite(SqliteError::Stopped));
    }
    let verdict = verdict_on(&connection)?;
    counted.map(|()| verdict)
}

/// Counts the rows of each table of a database file that is ours alone, in order of names.
pub fn count_rows(path: &Path, stop: &Stop) -> Result<Vec<TableRows>, CheckError> {
    count_on(&open(path, stop)?, stop)
}

fn open(path: &Path, stop: &Stop) -> Result<Connection, CheckError> {
    match fs::metadata(path).map_err(CheckError::Io)?.len() {
        0 => return Err(CheckError::Empty),
        1..DATABASE_BYTES_MIN => return Err(CheckError::Sqlite(SqliteError::NotSqlite)),
        _ => {}
    }
    let connection = open_finished(path, stop).map_err(broken)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(broken)?;
    Ok(connection)
}

fn verdict_on(connection: &Connection) -> Result<Verdict, CheckError> {
    match findings(connection, "integrity_check", None) {
        Ok(found) => sound(found).map(|()| Verdict::default()),
        Err(SqliteError::Missing(_)) => check_by_table(connection),
        Err(error) => Err(CheckError::Sqlite(error)),
    }
}

fn count_on(connection: &Connection, stop: &Stop) -> Result<Vec<TableRows>, CheckError> {
    let mut counts = Vec::new();
    for table in tables(connection)? {
        // A count looks at nothing by itself, and what is set before it begins does not interrupt it.
        if stop.is_set() {
            return Err(CheckError::Sqlite(SqliteError::Stopped));
        }
        let sql = format!("SELECT count(*) FROM {}", quoted(&table));
        let rows = match connection.query_row(&sql, [], |row| row.get::<_, i64>(0)) {
            Ok(rows) => u64::try_from(rows).ok(),
            Err(error) => match SqliteError::from_rusqlite(error, Duration::ZERO) {
                SqliteError::Missing(_) => None,
                other => return Err(CheckError::Sqlite(other)),
            },
        };
        counts.push(TableRows { table, rows });
    }
    Ok(counts)
}

fn check_by_table(connection: &Connection) -> Result<Verdict, CheckError> {
    let mut verdict = Verdict::default();
    for table in tables(connection)? {
        match findings(connection, "integrity_check", Some(&table)) {
            Ok(found) => sound(found)?,
            Err(SqliteError::Missing(_)) => {
                check_pages_of(connection, &table)?;
                verdict.unverified_tables.push(table);
            }
            Err(error) => return Err(CheckError::Sqlite(error)),
        }
    }
    Ok(verdict)
}

/// Checks what can be checked of a table without its collation or function: `quick_check`
/// where it runs, else a walk over the table's own rows.
fn check_pages_of(connection: &Connection, table: &str) -> Result<(), CheckError> {
    match findings(connection, "quick_check", Some(table)) {
        Ok(found) => return sound(found),
        Err(SqliteError::Missing(_)) => {}
        Err(error) => return Err(CheckError::Sqlite(error)),
    }
    let sql = format!("SELECT count(*) FROM {} NOT INDEXED", quoted(table));
    match connection.query_row(&sql, [], |_row| Ok(())) {
        Ok(()) => Ok(()),
        Err(error) => match SqliteError::from_rusqlite(error, Duration::ZERO) {
            // A virtual table without its module: its shadow tables are checked on their own.
            SqliteError::Missing(_) => Ok(()),
            other => Err(CheckError::Sqlite(other)),
        },
    }
}

/// Returns what the pragma reports; one line "ok" means no finding.
///
/// # Errors
///
/// [`SqliteError::Missing`] if nothing is reported but what our connection lacks.
fn findings(
    connection: &Connection,
    pragma: &str,
    table: Option<&str>,
) -> Result<Vec<String>, SqliteError> {
    let argument = table.map_or_else(|| FINDINGS_MAX.to_string(), quoted);
    let read = || {
        let mut statement = connection.prepare(&format!("PRAGMA {pragma}({argument})"))?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    let found = read().map_err(|error| SqliteError::from_rusqlite(error, Duration::ZERO))?;
    // A missing extension can also be a finding, in the words of the error it would be.
    let (missing, found): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|line| lacks_something(line));
    match missing.into_iter().next() {
        Some(missing) if found.is_empty() => Err(SqliteError::Missing(missing)),
        _ => Ok(found),
    }
}

fn sound(found: Vec<String>) -> Result<(), CheckError> {
    if found == ["ok"] { Ok(()) } else { Err(CheckError::Damaged(found)) }
}

fn tables(connection: &Connection) -> Result<Vec<String>, CheckError> {
    tables_of(connection).map_err(broken)
}

/// Returns the names of all tables but SQLite's own, in order.
pub(crate) fn tables_of(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' \
         ESCAPE '\\' ORDER BY name",
    )?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

/// Returns a table's name as SQL spells it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn broken(error: rusqlite::Error) -> CheckError {
    CheckError::Sqlite(SqliteError::from_rusqlite(error, Duration::ZERO))
}
