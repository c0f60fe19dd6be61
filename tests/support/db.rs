//! Real SQLite databases: sound ones of every kind, broken ones, and dumps to compare them by.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

/// The two journal modes that a file itself knows of.
pub(crate) const JOURNAL_MODES: [&str; 2] = ["wal", "delete"];

/// Makes the sample database: a table of each kind, every type of value, `rows` notes.
pub(crate) fn create(path: &Path, journal_mode: &str, rows: u32) {
    let connection = open_new(path, journal_mode);
    let schema = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, stars REAL, body BLOB);
        CREATE INDEX notes_by_text ON notes (text);
        CREATE TABLE tags (note INTEGER, tag TEXT, PRIMARY KEY (note, tag)) WITHOUT ROWID;
        CREATE TABLE \"an odd \"\"name\"\"\" (x);
        CREATE VIEW starred AS SELECT * FROM notes WHERE stars > 3;
        CREATE TRIGGER untag AFTER DELETE ON notes BEGIN
            DELETE FROM tags WHERE note = old.id;
        END;
        INSERT INTO \"an odd \"\"name\"\"\" VALUES (NULL), (-9223372036854775808), (''), (x''),
            (1e308), ('Zoë\u{1F980}');";
    connection.execute_batch(schema).expect("a sound schema");
    add_notes(&connection, rows);
}

/// Opens a new database without tables in the given journal mode.
pub(crate) fn open_new(path: &Path, journal_mode: &str) -> Connection {
    let connection = Connection::open(path).expect("opened");
    let mode: String = connection
        .query_row(&format!("PRAGMA journal_mode = {journal_mode}"), [], |row| row.get(0))
        .expect("set");
    assert_eq!(mode, journal_mode);
    connection
}

/// Opens a database that exists.
pub(crate) fn open(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).expect("opened")
}

/// Adds rows to the sample database, in one transaction.
pub(crate) fn add_notes(connection: &Connection, rows: u32) {
    let sql = "WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter LIMIT ?1)
        INSERT INTO notes (text, stars, body)
        SELECT 'note ' || n, n / 7.0, CAST('body of ' || n AS BLOB) FROM counter";
    connection.execute("BEGIN", []).expect("begun");
    connection.execute(sql, [rows]).expect("inserted");
    let tags = "INSERT OR IGNORE INTO tags SELECT id, 'tag ' || id % 5 FROM notes";
    connection.execute(tags, []).expect("inserted");
    connection.execute("COMMIT", []).expect("committed");
}

/// Adds a table to a new sample database that only an app with its own order and function can
/// read in full.
pub(crate) fn create_with_own_collation_and_function(path: &Path) -> Connection {
    create(path, "wal", 20);
    let app = open(path);
    app.create_collation("backwards", |a, b| b.cmp(a)).expect("created");
    let length = |context: &Context<'_>| {
        Ok(i64::try_from(context.get::<String>(0)?.len()).expect("a short text"))
    };
    let flags = FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_UTF8;
    app.create_scalar_function("app_length", 1, flags, length).expect("created");
    let tables = "CREATE TABLE lengths (text TEXT);
        CREATE INDEX by_length ON lengths (app_length(text));
        INSERT INTO lengths SELECT text FROM notes;
        CREATE TABLE words (text TEXT COLLATE backwards);
        CREATE INDEX by_word ON words (text);
        INSERT INTO words SELECT text FROM notes;";
    app.execute_batch(tables).expect("made");
    app
}

/// Makes a database of about `mebibytes` that no gzip makes smaller.
pub(crate) fn create_incompressible(path: &Path, mebibytes: usize) {
    let connection = open_new(path, "wal");
    connection.execute_batch("CREATE TABLE blobs (body BLOB); BEGIN").expect("created");
    for seed in 1..=mebibytes {
        // A page each.
        for blob in noise(seed as u64, 1024 * 1024).chunks(4000) {
            connection.execute("INSERT INTO blobs VALUES (?1)", [blob]).expect("inserted");
        }
    }
    connection.execute_batch("COMMIT").expect("committed");
}

/// Returns bytes without a pattern, the same for the same seed (xorshift64).
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// Everything that is in a database: its schema and, by table, its rows with every value's type.
#[derive(Debug, PartialEq)]
pub(crate) struct Dump {
    schema: Vec<Vec<Value>>,
    tables: BTreeMap<String, Vec<Vec<Value>>>,
}

/// Reads everything in a database and checks its integrity on the way.
pub(crate) fn dump(path: &Path) -> Dump {
    let connection = open(path);
    let verdict: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
    assert_eq!(verdict, "ok", "{}", path.display());
    dump_of(&connection)
}

/// Reads everything that a connection sees.
pub(crate) fn dump_of(connection: &Connection) -> Dump {
    let schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name";
    let schema = rows(connection, schema);
    let mut tables = BTreeMap::new();
    for row in &schema {
        if let (Value::Text(kind), Value::Text(name)) = (&row[0], &row[1])
            && kind == "table"
        {
            let sql = format!("SELECT * FROM \"{}\"", name.replace('"', "\"\""));
            let mut rows = rows(connection, &sql);
            // A table without an order of its own may be read in any.
            rows.sort_by_cached_key(|row| row.iter().map(bytes_of).collect::<Vec<_>>());
            tables.insert(name.clone(), rows);
        }
    }
    Dump { schema, tables }
}

fn rows(connection: &Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = connection.prepare(sql).expect("prepared");
    let columns = statement.column_count();
    let read = statement.query_map([], |row| (0..columns).map(|i| row.get(i)).collect());
    read.expect("queried").collect::<rusqlite::Result<_>>().expect("read")
}

/// Returns something to sort a value by, quickly also for a large one.
fn bytes_of(value: &Value) -> Vec<u8> {
    match value {
        Value::Blob(bytes) => bytes.clone(),
        other => format!("{other:?}").into_bytes(),
    }
}

/// Returns the value of a pragma, as text.
pub(crate) fn pragma(path: &Path, name: &str) -> String {
    let value: Value = open(path)
        .query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
        .expect("a pragma with one value");
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text,
        other => panic!("{name} is {other:?}"),
    }
}

/// Makes a sample database with a [broken index](break_index).
pub(crate) fn create_with_wrong_index(path: &Path) {
    create(path, "delete", 50);
    break_index(path);
}

/// Makes an index lack a row and have another too many: every page is well-formed, and
/// `quick_check` sees nothing.
pub(crate) fn break_index(path: &Path) {
    let behind_its_back = "PRAGMA writable_schema = ON;
        CREATE TEMP TABLE hidden AS SELECT * FROM sqlite_schema WHERE name = 'notes_by_text';
        DELETE FROM sqlite_schema WHERE name = 'notes_by_text';
        PRAGMA writable_schema = RESET;
        UPDATE notes SET text = 'not in the index' WHERE id = 7;
        PRAGMA writable_schema = ON;
        INSERT INTO sqlite_schema SELECT * FROM hidden;";
    open(path).execute_batch(behind_its_back).expect("broken");
}

/// Overwrites the first page of the table `notes` with noise.
pub(crate) fn break_page(path: &Path) {
    let root: i64 = {
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'notes'";
        open(path).query_row(sql, [], |row| row.get(0)).expect("a root page")
    };
    let page_size: u64 = pragma(path, "page_size").parse().expect("a number");
    let file = fs::OpenOptions::new().write(true).open(path).expect("opened");
    let garbage = noise(7, page_size as usize);
    file.write_all_at(&garbage, (root as u64 - 1) * page_size).expect("overwritten");
}

/// Adds a row with this text.
pub(crate) fn add_row(path: &Path, text: &str) {
    let connection = open(path);
    connection.execute_batch("CREATE TABLE IF NOT EXISTS words (word TEXT)").expect("made");
    connection.execute("INSERT INTO words VALUES (?1)", [text]).expect("added");
}

/// Drops every table, as a mistake would.
pub(crate) fn drop_all_tables(path: &Path) {
    let connection = Connection::open(path).expect("opened");
    let mut statement = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        .expect("sound");
    let tables = statement.query_map([], |row| row.get::<_, String>(0)).expect("read");
    for table in tables.map(|table| table.expect("read")).collect::<Vec<_>>() {
        let quoted = table.replace('"', "\"\"");
        connection.execute_batch(&format!("DROP TABLE \"{quoted}\"")).expect("dropped");
    }
}
