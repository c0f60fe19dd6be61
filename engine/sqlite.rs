//! What every SQLite connection here has in common: how it is opened and what its errors mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use thiserror::Error;

use crate::blocking::Stop;
use crate::text;

/// SQLite 3.51.3, the first without the WAL-reset bug (<https://sqlite.org/wal.html#walresetbug>).
const OLDEST_VERSION: i32 = 3_051_003;

/// The smallest database: one page of the smallest size (<https://sqlite.org/fileformat2.html>).
/// SQLite takes some shorter files for an empty database, and finds it sound.
pub const DATABASE_BYTES_MIN: u64 = 512;

/// How many virtual machine steps lie between two looks at the [`Stop`]: well under a millisecond of work,
/// but for a step that copies a large row, or counts a table. Those are interrupted.
const STEPS_BETWEEN_LOOKS: i32 = 1000;

/// The codes of writes that failed: of a file, of its size, of a log's index.
const WRITES: [i32; 4] = [
    rusqlite::ffi::SQLITE_IOERR_WRITE,
    rusqlite::ffi::SQLITE_IOERR_TRUNCATE,
    rusqlite::ffi::SQLITE_IOERR_SHMSIZE,
    rusqlite::ffi::SQLITE_IOERR_FSYNC,
];

/// Why SQLite could not read a database, by what a person can do about it.
#[derive(Debug, Error)]
pub enum SqliteError {
    /// Not a SQLite database at all.
    #[error("file is not a SQLite database; check the configured path")]
    NotSqlite,
    /// A SQLite database with broken pages or a broken structure.
    #[error(
        "database is corrupt: {0}; restore a backup, or save what \"sqlite3 DB .dump\" still reads"
    )]
    Corrupt(String),
    /// Someone else held a lock for longer than we may wait.
    #[error(
        "database is locked; waited {} ms, another program holds a lock: end its transaction, or \
         raise database.busy_timeout",
        waited.as_millis()
    )]
    Locked {
        /// The busy timeout that was waited.
        waited: Duration,
    },
    /// No room for the copy.
    #[error("no space left on the device of the work folder; free some or move the database")]
    NoSpace,
    /// The copy could not be written for another reason than a full disk.
    #[error(
        "copy cannot be written: {0}; look for a quota, a limit on the size of files (ulimit -f) or \
         a failing disk"
    )]
    CannotWrite(String),
    /// The file could not be opened or read.
    #[error("database cannot be opened: {0}; check the path and its permissions")]
    CannotOpen(String),
    /// The database needs a collation, function or module that only its own program has.
    #[error("database needs what this program lacks: {0}")]
    Missing(String),
    /// We stopped it ourselves: the deadline passed or the job was abandoned.
    #[error("stopped")]
    Stopped,
    /// Anything else, as SQLite says it.
    #[error("SQLite error")]
    Other(#[source] rusqlite::Error),
}

impl SqliteError {
    /// Returns what `error` means; `waited` is the connection's busy timeout.
    #[must_use]
    pub fn from_rusqlite(error: rusqlite::Error, waited: Duration) -> Self {
        let text = match &error {
            rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
            rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
            other => other.to_string(),
        };
        if lacks_something(&text) {
            return Self::Missing(text);
        }
        // SQLite has one code for all that goes wrong at a file, and an extended one for a write.
        if error.sqlite_error().is_some_and(|error| WRITES.contains(&error.extended_code)) {
            return Self::CannotWrite(text);
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotSqlite,
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt(text),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { waited },
            Some(ErrorCode::DiskFull) => Self::NoSpace,
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                Self::CannotOpen(text)
            }
            Some(ErrorCode::OperationInterrupted) => Self::Stopped,
            _ => Self::Other(error),
        }
    }
}

/// Returns whether SQLite's text says that our connection lacks an extension of the app's own.
/// SQLite has no error code for it (all of these are `SQLITE_ERROR`).
#[must_use]
pub fn lacks_something(text: &str) -> bool {
    [
        "no such collation sequence",
        "no such function",
        "unknown function",
        "no such module",
        "no such tokenizer",
        "unknown tokenizer",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// Refuses a SQLite that can lose commits when someone else checkpoints.
pub fn require_sound_version() -> Result<(), String> {
    let found = rusqlite::version_number();
    if found >= OLDEST_VERSION {
        return Ok(());
    }
    Err(format!(
        "linked SQLite {} can corrupt WAL databases (https://sqlite.org/wal.html#walresetbug); \
         build with the bundled one, 3.51.3 or newer",
        rusqlite::version()
    ))
}

/// Opens a database that is ours alone, such as a snapshot. Read-write, so that closing it
/// removes its own `-wal` and `-shm`; never with CREATE.
pub fn open_private(path: &Path, stop: &Stop) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    stop_with(&mut connection, stop)?;
    Ok(connection)
}

/// Opens a database that is ours alone and finished: nobody writes to it, nor do we. No locks are
/// taken and no files made beside it, so that it may be read by other means meanwhile; closing a file
/// that SQLite has open would drop its locks (<https://sqlite.org/howtocorrupt.html>, 2.2).
pub fn open_finished(path: &Path, stop: &Stop) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(immutable(path), flags)?;
    stop_with(&mut connection, stop)?;
    Ok(connection)
}

/// Returns the URI of a file that does not change (<https://sqlite.org/uri.html>).
pub(crate) fn immutable(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let mut uri = "file:".to_owned();
    for &byte in path.as_os_str().as_encoded_bytes() {
        if plain(byte) {
            uri.push(char::from(byte));
        } else {
            uri.push('%');
            uri.push_str(&text::hex(&[byte]));
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// Makes every statement of the connection end with "interrupted" soon after `stop` is set.
pub fn stop_with(connection: &mut Connection, stop: &Stop) -> rusqlite::Result<()> {
    let running = connection.get_interrupt_handle();
    stop.interrupts(move || running.interrupt());
    let looking = stop.clone();
    connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || looking.is_set()))
}

/// Returns whether another connection holds a lock on the database: it reads or writes right now,
/// or has a WAL database open. An idle connection to a database without a log goes unnoticed.
///
/// Asks SQLite for the locks that only a sole user gets. A file that is no database, or a
/// corrupt one, is in nobody's use.
#[must_use]
pub fn is_in_use(database: &Path) -> bool {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let probe = || {
        let connection = Connection::open_with_flags(database, flags)?;
        // What is in its log belongs to the database that is about to be set aside with it.
        let no_checkpoint = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        connection.set_db_config(no_checkpoint, true)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.execute_batch("BEGIN EXCLUSIVE; ROLLBACK")
    };
    let probed: rusqlite::Result<()> = probe();
    probed.is_err_and(|error| {
        matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
    })
}

/// Returns the path of a file that SQLite keeps beside `database`: `-wal`, `-shm`, `-journal`.
#[must_use]
pub fn sidecar(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The endings of the files that belong to a database.
pub const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

#[cfg(test)]
mod tests {
    use super::*;

    /// Statements of few steps never look at the stop, however long a step takes.
    #[test]
    fn a_statement_that_does_not_look_is_interrupted() {
        let rows = "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3";
        let ended = |is_stopped: bool| {
            let (stop, mut connection) = (Stop::default(), Connection::open_in_memory()?);
            stop_with(&mut connection, &stop)?;
            let mut statement = connection.prepare(rows)?;
            let mut found = statement.query([])?;
            assert!(found.next()?.is_some(), "it has begun");
            if is_stopped {
                stop.set();
            }
            while found.next()?.is_some() {}
            Ok::<_, rusqlite::Error>(())
        };
        assert_eq!(ended(false), Ok(()));
        let interrupted = ended(true).expect_err("interrupted");
        assert_eq!(interrupted.sqlite_error_code(), Some(ErrorCode::OperationInterrupted));
    }

    #[test]
    fn a_stop_outlives_the_connections_that_it_interrupts() {
        let (stop, mut connection) =
            (Stop::default(), Connection::open_in_memory().expect("opened"));
        stop_with(&mut connection, &stop).expect("told");
        drop(connection);
        stop.set();
        assert!(stop.is_set());
    }
}
