//! What a database holds now: its tables, their rows, its versions. For the comparison with a backup,
//! and for nothing that matters more: whatever cannot be read is said, and hinders nobody.
//!
//! The database may be an app's, alive or crashed. It is opened read-only, never created, never
//! checkpointed, and no file is left beside it that was not there.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rustix::process::{Flock, FlockType, fcntl_getlk};

use crate::blocking::{self, Stop};
use crate::check::{TableRows, quoted, tables_of};
use crate::deadline::{Deadline, OutOfTime};
use crate::snapshot;
use crate::sqlite::{SqliteError, immutable, sidecar, stop_with};
use crate::text;

/// How long the locks of others are waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Where SQLite's locks of a database file lie, and how long they are
/// (<https://sqlite.org/fileformat2.html#the_lock_byte_page>).
const LOCK_BYTES: (u64, u64) = (0x4000_0000, 512);

/// What is at a path where a database belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Missing,
    /// A database, as it was when it was read.
    Held(Held),
    /// Something that could not be read in time, or not at all.
    Unreadable {
        /// The size of the file.
        bytes: u64,
        /// Why.
        reason: String,
    },
}

/// What a database holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The size of the file, without its log.
    pub bytes: u64,
    /// Its tables, in order of their names; those that cannot be counted have no number.
    pub tables: Vec<TableRows>,
    /// `PRAGMA schema_version`, which grows with each change of a table or an index.
    pub schema_version: i64,
    /// `PRAGMA user_version`, in which many apps keep the number of their last migration.
    pub user_version: i64,
    /// What SQLite said of the first table that it found corrupt.
    pub damage: Option<String>,
}

impl Present {
    /// Reads what is at `database`, for as long as `deadline` allows.
    pub async fn at(database: &Path, deadline: Deadline) -> Self {
        let path = database.to_owned();
        let read = blocking::run(deadline, move |stop| look(&path, &stop)).await;
        read.unwrap_or_else(|OutOfTime| Self::Unreadable {
            bytes: fs::metadata(database).map_or(0, |metadata| metadata.len()),
            reason: "its rows could not be counted in time".to_owned(),
        })
    }
}

fn look(database: &Path, stop: &Stop) -> Present {
    let metadata = match fs::metadata(database) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Present::Missing,
        Err(error) => return Present::Unreadable { bytes: 0, reason: error.to_string() },
    };
    let bytes = metadata.len();
    let unreadable = |reason: String| Present::Unreadable { bytes, reason };
    if let Some(what) = snapshot::other_than_file(&metadata) {
        return unreadable(format!("it is {what}"));
    }
    if snapshot::is_empty(database, &metadata) {
        return unreadable("it is an empty file".to_owned());
    }
    let read = open(database, stop).and_then(|connection| held(&connection, bytes));
    match read {
        Ok(held) => Present::Held(held),
        Err(error) => {
            let error = SqliteError::from_rusqlite(error, BUSY_TIMEOUT);
            unreadable(text::chain(&error))
        }
    }
}

/// Opens a database so that no file appears beside it. Without a log all is in the file itself,
/// and SQLite is told that it does not change. A log whose index is missing would get one: then
/// the index is kept in memory, which only a sole user may do. Else as everybody does.
fn open(database: &Path, stop: &Stop) -> rusqlite::Result<Connection> {
    let has = |suffix| fs::metadata(sidecar(database, suffix)).is_ok_and(|file| file.len() > 0);
    let is_idle = holder(database).is_none();
    let mut connection = if !has("-wal") && !has("-journal") && is_idle {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(immutable(database), flags)?
    } else if has("-wal") && !has("-shm") && !has("-journal") && is_idle {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let connection = Connection::open_with_flags(database, flags)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection
    } else {
        Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    stop_with(&mut connection, stop)?;
    Ok(connection)
}

fn held(connection: &Connection, bytes: u64) -> rusqlite::Result<Held> {
    // One transaction, so that an app that writes meanwhile is seen at one moment.
    connection.execute_batch("BEGIN")?;
    let mut damage = None;
    let mut tables = Vec::new();
    for table in tables_of(connection)? {
        // Not count(*): SQLite counts that in one step, between which alone it looks at the stop.
        let sql = format!("SELECT count(1) FROM {}", quoted(&table));
        let counted = connection.query_row(&sql, [], |row| row.get::<_, i64>(0));
        let rows = match counted.map_err(|error| SqliteError::from_rusqlite(error, BUSY_TIMEOUT)) {
            Ok(rows) => u64::try_from(rows).ok(),
            Err(SqliteError::Stopped) => return Err(interrupted()),
            Err(SqliteError::Corrupt(words)) => {
                damage.get_or_insert(words);
                None
            }
            // A table of a module that only the app has, say.
            Err(_uncountable) => None,
        };
        tables.push(TableRows { table, rows });
    }
    let number = |pragma: &str| {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0))
    };
    let (schema_version, user_version) = (number("schema_version")?, number("user_version")?);
    Ok(Held { bytes, tables, schema_version, user_version, damage })
}

fn interrupted() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT);
    rusqlite::Error::SqliteFailure(code, None)
}

/// Returns who holds a lock of SQLite's on a database, such as `process 4711`: whoever reads or
/// writes right now, or has a WAL database open. No lock is taken, so nobody notices.
///
/// Not for a process that has the database open itself: the close would drop its locks
/// (<https://sqlite.org/howtocorrupt.html>, 2.2).
#[must_use]
pub fn holder(database: &Path) -> Option<String> {
    let file = File::open(database).ok()?;
    let (start, length) = LOCK_BYTES;
    let lock = Flock { start, length, ..Flock::from(FlockType::WriteLock) };
    let held = fcntl_getlk(&file, &lock).ok()??;
    // None: a process that this container does not see.
    let name = |pid: rustix::process::Pid| format!("process {}", pid.as_raw_nonzero());
    Some(held.pid.map_or_else(|| "another program".to_owned(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(journal_mode: &str) -> (tempfile::TempDir, std::path::PathBuf, Connection) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("app.db");
        let connection = Connection::open(&path).expect("opened");
        let set = format!("PRAGMA journal_mode = {journal_mode}");
        connection.query_row(&set, [], |_row| Ok(())).expect("set");
        let schema = "CREATE TABLE notes (text); CREATE TABLE \"a \"\"b\"\"\" (x);
            INSERT INTO notes VALUES (1), (2), (3); PRAGMA user_version = 7;";
        connection.execute_batch(schema).expect("made");
        (folder, path, connection)
    }

    fn files(folder: &tempfile::TempDir) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(folder.path()).expect("read").map(|entry| {
            let path = entry.expect("read").path();
            // The index of a log is a cache in shared memory: its locks and marks may change.
            let is_index = path.to_string_lossy().ends_with("-shm");
            let bytes = if is_index { Vec::new() } else { fs::read(&path).expect("read") };
            (path.file_name().expect("a name").to_string_lossy().into_owned(), bytes)
        });
        let mut files: Vec<_> = entries.collect();
        files.sort();
        files
    }

    fn rows(present: &Present) -> Vec<(&str, Option<u64>)> {
        let Present::Held(held) = present else { panic!("{present:?}") };
        assert_eq!((held.user_version, &held.damage), (7, &None));
        held.tables.iter().map(|table| (table.table.as_str(), table.rows)).collect()
    }

    /// Closed, open, and crashed with and without the index of its log.
    #[test]
    fn a_look_counts_the_rows_and_leaves_every_file_as_it_was() {
        for journal_mode in ["wal", "delete"] {
            for state in ["closed", "open", "crashed", "copied"] {
                let (folder, path, connection) = database(journal_mode);
                let app = match state {
                    "open" => Some(connection),
                    "closed" => {
                        connection.close().expect("closed");
                        None
                    }
                    _ => {
                        // As after a SIGKILL: the log stays.
                        let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
                        connection.set_db_config(keep, true).expect("set");
                        connection.close().expect("closed");
                        None
                    }
                };
                if state == "copied" {
                    let _none_in_this_mode = fs::remove_file(sidecar(&path, "-shm"));
                }
                let before = files(&folder);
                let present = look(&path, &Stop::default());
                assert_eq!(
                    rows(&present),
                    [("a \"b\"", Some(0)), ("notes", Some(3))],
                    "{journal_mode} {state}"
                );
                assert_eq!(files(&folder), before, "{journal_mode} {state}");
                drop(app);
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("app.db");
        assert_eq!(look(&path, &Stop::default()), Present::Missing);
        let cases: [(&[u8], &str); 3] = [
            (b"", "it is an empty file"),
            (b"hello", "file is not a SQLite database"),
            (&[b'x'; 8192], "file is not a SQLite database"),
        ];
        for (bytes, expect) in cases {
            fs::write(&path, bytes).expect("written");
            let Present::Unreadable { bytes: size, reason } = look(&path, &Stop::default()) else {
                panic!("readable: {bytes:?}")
            };
            assert_eq!(size, bytes.len() as u64);
            assert!(reason.starts_with(expect), "{reason}");
        }
        let present = look(folder.path(), &Stop::default());
        assert!(
            matches!(&present, Present::Unreadable { reason, .. } if reason == "it is a folder"),
            "{present:?}"
        );
    }

    #[tokio::test]
    async fn a_locked_database_and_one_that_takes_too_long_are_said() {
        let (_folder, path, connection) = database("delete");
        // With a journal, so that it is opened as everybody does: of this process SQLite alone knows.
        let write = "BEGIN EXCLUSIVE; INSERT INTO notes VALUES (4)";
        connection.execute_batch(write).expect("begun");
        let hour = Deadline::after(Duration::from_hours(1));
        let locked = Present::at(&path, hour).await;
        let Present::Unreadable { reason, .. } = &locked else { panic!("{locked:?}") };
        assert!(reason.starts_with("database is locked"), "{reason}");
        connection.execute_batch("ROLLBACK").expect("ended");
        let stop = Stop::default();
        stop.set();
        let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000)
            INSERT INTO notes SELECT i FROM n";
        connection.execute_batch(many).expect("filled");
        assert!(matches!(look(&path, &stop), Present::Unreadable { .. }));
    }
}
