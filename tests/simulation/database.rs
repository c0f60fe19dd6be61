//! The app's own side: one connection to one small database, and each write in the ledger.

use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension};

use super::witness::{State, Witness};

/// The app's database, open while the app runs.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    journal_mode: &'static str,
    witness: Witness,
    connection: Option<Connection>,
}

impl Database {
    pub(super) fn new(path: PathBuf, journal_mode: &'static str, witness: Witness) -> Self {
        Self { path, journal_mode, witness, connection: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens what is there, as an app does when it starts, and returns what it holds.
    pub(super) fn open(&mut self) -> State {
        let connection = Connection::open(&self.path).expect("opened");
        connection.set_prepared_statement_cache_capacity(0);
        let set = format!("PRAGMA journal_mode = {}", self.journal_mode);
        connection.query_row(&set, [], |_row| Ok(())).expect("set");
        connection.pragma_update(None, "synchronous", "OFF").expect("set");
        let state = state_of(&connection);
        self.connection = Some(connection);
        state
    }

    /// Adds a row; an app that is not open writes nothing.
    pub(super) fn write(&mut self) {
        let Some(connection) = &self.connection else { return };
        let state = self.witness.books().state();
        let next = state.map_or(1, |rows| rows + 1);
        if state.is_some() {
            connection.execute("INSERT INTO t VALUES (?1)", [next]).expect("written");
        } else {
            connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)").expect("made");
            connection.execute("INSERT INTO t VALUES (?1)", [next]).expect("written");
        }
        self.witness.books().write(Some(next));
    }

    /// Drops every table, as a mistake would.
    pub(super) fn empty(&mut self) {
        let Some(connection) = &self.connection else { return };
        connection.execute_batch("DROP TABLE IF EXISTS t").expect("dropped");
        self.witness.books().write(None);
    }

    /// Leaves in order.
    pub(super) fn close(&mut self) {
        self.connection = None;
    }

    /// Is killed: what is in the log stays there.
    pub(super) fn kill(&mut self) {
        if let Some(connection) = self.connection.take() {
            let stays = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            connection.set_db_config(stays, true).expect("set");
        }
    }
}

/// Returns what a database holds; rows other than 1 to n are a panic.
pub(super) fn state_of(connection: &Connection) -> State {
    let table =
        connection.query_row("SELECT 1 FROM sqlite_schema WHERE name = 't'", [], |_| Ok(()));
    table.optional().expect("read")?;
    let rows = connection.query_row("SELECT count(*), coalesce(max(n), 0) FROM t", [], |row| {
        Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?))
    });
    let (count, greatest) = rows.expect("read");
    assert_eq!(count, greatest, "a row is missing");
    Some(greatest)
}
