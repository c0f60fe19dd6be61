//! What a schema needs and our SQLite lacks: collations, functions, modules, tokenizers of the
//! app's own.
//!
//! SQLite itself is asked, as `VACUUM INTO` asks it: the statements of the schema are done again,
//! in memory and without a row. What fails there fails in a backup; of the database itself nothing but
//! the schema is read.

use std::fmt;
use std::time::Duration;

use rusqlite::Connection;

use crate::sqlite::SqliteError;

/// Something that a table or an index needs and this program lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    object: Object,
    /// In SQLite's words: `no such collation sequence: german`.
    what: String,
}

impl Lacking {
    /// Returns whether it is a virtual table that needs it: a module, or a part of one.
    #[must_use]
    pub fn is_of_a_virtual_table(&self) -> bool {
        self.object.is_virtual()
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.object.kind, self.object.name, self.what)
    }
}

/// A row of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Object {
    kind: String,
    name: String,
    sql: String,
}

impl Object {
    /// SQLite stores these words so, however they were typed.
    fn is_virtual(&self) -> bool {
        self.sql.starts_with("CREATE VIRTUAL TABLE")
    }
}

/// Returns what tables and indexes need that we lack, as far as it got until there was `enough`.
pub(super) fn lacking(
    connection: &Connection,
    enough: impl Fn() -> bool,
) -> rusqlite::Result<Vec<Lacking>> {
    let scratch = Connection::open_in_memory()?;
    let mut found = Vec::new();
    for object in objects(connection)?.into_iter().take_while(|_| !enough()) {
        let made = if object.is_virtual() {
            // Each by itself: the tables in which it keeps its rows are in the schema too.
            Connection::open_in_memory()?.execute_batch(&object.sql)
        } else {
            scratch.execute_batch(&object.sql)
        };
        let Err(error) = made else { continue };
        // Another error comes from the place, such as a table that could not be made before.
        if let SqliteError::Missing(what) = SqliteError::from_rusqlite(error, Duration::ZERO) {
            found.push(Lacking { object, what });
        }
    }
    Ok(found)
}

/// Returns tables, then indexes.
fn objects(connection: &Connection) -> rusqlite::Result<Vec<Object>> {
    let mut statement = connection.prepare(
        "SELECT type, name, sql FROM sqlite_schema
         WHERE type IN ('table', 'index') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND sql IS NOT NULL ORDER BY type DESC, name",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(Object { kind: row.get(0)?, name: row.get(1)?, sql: row.get(2)? })
    })?;
    rows.collect()
}
