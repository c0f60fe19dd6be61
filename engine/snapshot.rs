//! The consistent copy of a live database, made by `VACUUM INTO`.
//!
//! The rules behind each line: never create a source that is missing, never checkpoint or
//! change the app's database, never open it by hand (closing a plain file descriptor drops the
//! SQLite locks of a program that embeds us), stop within milliseconds when asked.

use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::blocking::Stop;
use crate::disk::{Disk, NoRoom};
use crate::fail_point;
use crate::sqlite::{DATABASE_BYTES_MIN, SqliteError, open_private, sidecar, stop_with};

/// Pages that one step of a page copy moves; 4 MiB of the usual pages between looks at the stop.
const PAGES_PER_STEP: i32 = 1024;

/// The page caches of the source and of the copy, in KiB each. `VACUUM INTO` reads and writes each
/// page once: with 8 MiB it takes as long, with 256 KiB five times as long (480 MB).
const CACHE_KIB: i64 = 1024;

/// Whether a database keeps a write-ahead log. The other rollback journal modes are settings of
/// a connection and leave no trace in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalMode {
    /// `PRAGMA journal_mode = WAL`, recorded in the file itself.
    Wal,
    /// A rollback journal of some kind.
    Rollback,
}

/// A finished copy, in a folder that is ours alone.
#[derive(Debug)]
pub struct Snapshot {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// The journal mode of the source.
    pub journal_mode: JournalMode,
    /// Permission bits, user and group of the source file.
    pub owner: Owner,
}

/// Who may do what with a database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The permission bits, such as `0o600`.
    pub mode: u32,
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// Why there is no snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// Nothing at the path. No file is created.
    #[error(
        "database not found at {}; nothing is created or deleted, check database.path",
        path.display()
    )]
    Missing {
        /// The configured path.
        path: PathBuf,
    },
    /// A folder, a socket or the like.
    #[error("{} is {what}, not a database file; check database.path", path.display())]
    NotAFile {
        /// The configured path.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// Zero bytes: an app that was never started, or a file that was truncated.
    #[error("database at {} is empty (0 bytes); older backups are kept", path.display())]
    Empty {
        /// The configured path.
        path: PathBuf,
    },
    /// SQLite could not read the source.
    #[error("snapshot of {} could not be made", path.display())]
    Sqlite {
        /// The configured path.
        path: PathBuf,
        /// What SQLite said.
        source: SqliteError,
    },
    /// The disk has less room than the snapshot may need. Nothing was written.
    #[error("no room for a snapshot of {}, older backups are kept", path.display())]
    NoRoom {
        /// The configured path.
        path: PathBuf,
        /// Both numbers.
        source: NoRoom,
    },
    /// The file system refused.
    #[error("snapshot file {} could not be written", path.display())]
    Io {
        /// The file in question.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Copies the live database at `database` into the new file `target` (mode 0600).
///
/// The source is read in one transaction and is not changed. A WAL source gives a snapshot that is itself a WAL
/// database, so that even a restore with stock tools brings the mode back.
///
/// # Errors
///
/// Whatever went wrong, `target` is of no use; its folder is removed by whoever owns it.
pub fn take(
    database: &Path,
    target: &Path,
    busy_timeout: Duration,
    stop: &Stop,
) -> Result<Snapshot, SnapshotError> {
    let owner = inspect(database)?;
    create_private(target)?;
    let fail = |error| SnapshotError::Sqlite {
        path: database.to_owned(),
        source: SqliteError::from_rusqlite(error, busy_timeout),
    };
    let source = open_source(database, busy_timeout, stop).map_err(fail)?;
    let journal_mode = journal_mode(&source).map_err(fail)?;
    let needed = used_bytes(&source).map_err(fail)?;
    Disk::of(database)
        .require(needed)
        .map_err(|source| SnapshotError::NoRoom { path: database.to_owned(), source })?;
    match vacuum_into(&source, target) {
        Ok(()) => keep_schema_version(target).map_err(|source| unwritable(target, source))?,
        Err(error) => match SqliteError::from_rusqlite(error, busy_timeout) {
            SqliteError::Missing(what) => {
                tracing::warn!(
                    target: crate::LOG,
                    "WARNING: VACUUM INTO is impossible ({what}), copying page by page; \
                     the structure of such tables cannot be verified here"
                );
                fs::remove_file(target).map_err(|source| unwritable(target, source))?;
                create_private(target)?;
                copy_pages(&source, target, stop).map_err(fail)?;
            }
            other => {
                return Err(SnapshotError::Sqlite { path: database.to_owned(), source: other });
            }
        },
    }
    drop(source);
    if journal_mode == JournalMode::Wal {
        make_wal(target, stop).map_err(fail)?;
    }
    let bytes = fs::metadata(target).map_err(|source| unwritable(target, source))?.len();
    fail_point::reach("backup.snapshot_taken");
    Ok(Snapshot { path: target.to_owned(), bytes, journal_mode, owner })
}

/// Looks at the source without opening it, and returns whose it is.
pub fn inspect(database: &Path) -> Result<Owner, SnapshotError> {
    let path = || database.to_owned();
    let metadata = match fs::metadata(database) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SnapshotError::Missing { path: path() });
        }
        Err(source) => return Err(unwritable(database, source)),
    };
    if let Some(what) = other_than_file(&metadata) {
        return Err(SnapshotError::NotAFile { path: path(), what });
    }
    if is_empty(database, &metadata) {
        return Err(SnapshotError::Empty { path: path() });
    }
    if (1..DATABASE_BYTES_MIN).contains(&metadata.len()) {
        return Err(SnapshotError::Sqlite { path: path(), source: SqliteError::NotSqlite });
    }
    Ok(Owner { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() })
}

/// Returns what something is that is no file.
#[must_use]
pub fn other_than_file(metadata: &Metadata) -> Option<&'static str> {
    if metadata.is_file() {
        return None;
    }
    Some(if metadata.is_dir() { "a folder" } else { "a special file" })
}

/// Returns whether a database has nothing in its file, nor in its log yet.
#[must_use]
pub fn is_empty(database: &Path, metadata: &Metadata) -> bool {
    let has_log = || fs::metadata(sidecar(database, "-wal")).is_ok_and(|log| log.len() > 0);
    metadata.len() == 0 && !has_log()
}

/// Opens the source read-only; a hot journal or a missing `-shm` in a folder that we may not
/// write needs a writing connection, which then must not checkpoint when it closes.
pub(crate) fn open_source(
    database: &Path,
    busy_timeout: Duration,
    stop: &Stop,
) -> rusqlite::Result<Connection> {
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match open_with(database, read_only, busy_timeout, stop) {
        Err(error)
            if matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::CannotOpen)
            ) =>
        {
            let read_write = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            open_with(database, read_write, busy_timeout, stop)
        }
        opened => opened,
    }
}

fn open_with(
    database: &Path,
    flags: OpenFlags,
    busy_timeout: Duration,
    stop: &Stop,
) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_with_flags(database, flags)?;
    connection.busy_timeout(busy_timeout)?;
    stop_with(&mut connection, stop)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // The snapshot is a temporary file: VACUUM INTO syncs it exactly if its source would.
    connection.pragma_update(None, "synchronous", "OFF")?;
    // The copy takes this over, too: what its pages do not use becomes zeros, and is no longer what has moved
    // on to another page (`docs/decisions/0031`). The source is only read.
    connection.pragma_update(None, "secure_delete", "FAST")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // The first read: a hot journal, a foreign file or a lock shows itself here.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_row| Ok(()))?;
    Ok(connection)
}

fn journal_mode(connection: &Connection) -> rusqlite::Result<JournalMode> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    Ok(if mode == "wal" { JournalMode::Wal } else { JournalMode::Rollback })
}

/// Returns the bytes of all pages in use, of the log too: as much as `VACUUM INTO` writes at most.
fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT max(page_count - freelist_count, 0) * page_size
        FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
    // Negative never, but for a header that lies, which the copy itself finds out.
    connection.query_row(sql, [], |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))
}

fn vacuum_into(source: &Connection, target: &Path) -> rusqlite::Result<()> {
    // Bound, not spliced in: a path may hold quotes. Absolute, so never taken for a "file:" URI.
    source.execute("VACUUM INTO ?1", [target.to_string_lossy()])?;
    Ok(())
}

/// Gives the copy its source's schema version, to which `VACUUM` has added one
/// (<https://sqlite.org/fileformat2.html#schema_cookie>). So the same content always makes the
/// same bytes, also after a restore, and an app that looks at it sees no change.
fn keep_schema_version(target: &Path) -> io::Result<()> {
    const AT: u64 = 40;
    let file = OpenOptions::new().read(true).write(true).open(target)?;
    let mut version = [0; 4];
    file.read_exact_at(&mut version, AT)?;
    let version = u32::from_be_bytes(version).wrapping_sub(1);
    file.write_all_at(&version.to_be_bytes(), AT)
}

/// Copies every page within one read transaction of the source, so that a writer can't restart
/// the copy.
fn copy_pages(source: &Connection, target: &Path, stop: &Stop) -> rusqlite::Result<()> {
    let mut copy = open_private(target, stop)?;
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
    let backup = Backup::new(source, &mut copy)?;
    loop {
        match backup.step(PAGES_PER_STEP)? {
            StepResult::Done => break,
            _ if stop.is_set() => return Err(interrupted()),
            _ => {}
        }
    }
    drop(backup);
    source.execute_batch("COMMIT")
}

/// Makes the snapshot what its source was: a WAL database, with nothing left in a log.
fn make_wal(target: &Path, stop: &Stop) -> rusqlite::Result<()> {
    let connection = open_private(target, stop)?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_row| Ok(()))?;
    connection.close().map_err(|(_connection, error)| error)
}

fn interrupted() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT);
    rusqlite::Error::SqliteFailure(code, Some("interrupted".to_owned()))
}

/// Creates an empty file that only we may read; SQLite fills it and keeps its mode.
fn create_private(path: &Path) -> Result<(), SnapshotError> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.map(drop).map_err(|source| unwritable(path, source))
}

fn unwritable(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Io { path: path.to_owned(), source }
}
