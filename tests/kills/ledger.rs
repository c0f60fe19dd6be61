//! What a database should hold, kept outside of it: every transaction that was begun, when it was
//! committed, and up to where backups were reported as made.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::support::db;

/// Transactions of one life of the app, so that reading all of them back stays quick.
const TRANSACTIONS_MAX: usize = 100;

/// The transactions, of which the first is number 1.
#[derive(Debug)]
pub(super) struct Ledger {
    seed: u64,
    /// Grows with each restore, so that a transaction that was lost and one that came in its
    /// place differ.
    generation: u64,
    rows: Vec<Row>,
    /// How many rows the newest backup that was reported as made has to hold.
    promised: usize,
}

#[derive(Debug)]
struct Row {
    value: i64,
    /// Unset while it is not known whether the database has it.
    committed_at: Option<DateTime<Utc>>,
}

impl Ledger {
    /// Makes the database and an empty ledger of it.
    pub(super) fn start(seed: u64, database: &Path, journal_mode: &str) -> Self {
        let schema = "CREATE TABLE ledger (number INTEGER PRIMARY KEY, value INTEGER);
            CREATE TABLE head (number INTEGER); INSERT INTO head VALUES (0);";
        db::open_new(database, journal_mode).execute_batch(schema).expect("created");
        Self { seed, generation: 0, rows: Vec::new(), promised: 0 }
    }

    /// Begins a transaction: returns its number and its value.
    fn begin(&mut self) -> (i64, i64) {
        let number = self.rows.len() as u64 + 1;
        // Any function that gives no two rows the same value by chance.
        let mixed =
            (self.seed ^ self.generation << 40 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let value = (mixed ^ mixed >> 29).cast_signed();
        self.rows.push(Row { value, committed_at: None });
        (number.cast_signed(), value)
    }

    fn committed(&mut self) {
        self.rows.last_mut().expect("begun").committed_at = Some(Utc::now());
    }

    /// Records that a backup was reported as made that began at this time: it has to hold all
    /// that was committed before.
    pub(super) fn promise(&mut self, began_at: DateTime<Utc>) {
        let is_before = |row: &Row| row.committed_at.is_some_and(|at| at <= began_at);
        self.promised = self.promised.max(self.rows.partition_point(is_before));
    }

    /// Asserts that the database was not touched: it holds every transaction.
    #[track_caller]
    pub(super) fn assert_all_is_in(&self, database: &Path) {
        assert_eq!(self.read(database), self.rows.len(), "transactions are lost");
    }

    /// Asserts that a restored database is a state that this ledger had, no older than promised,
    /// and goes on from there.
    #[track_caller]
    pub(super) fn go_on_from(&mut self, database: &Path) {
        let restored = self.read(database);
        let (promised, known) = (self.promised, self.rows.len());
        assert!(
            restored >= promised,
            "{restored} transactions came back, {promised} were promised"
        );
        assert!(restored <= known, "{restored} transactions came back of {known}");
        self.rows.truncate(restored);
        self.generation += 1;
    }

    /// Returns how many transactions a database holds, after comparing each with the ledger.
    #[track_caller]
    fn read(&self, database: &Path) -> usize {
        let connection = open(database);
        let verdict: String =
            connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
        assert_eq!(verdict, "ok");
        let head: i64 =
            connection.query_row("SELECT number FROM head", [], |row| row.get(0)).expect("read");
        let sql = "SELECT number, value FROM ledger ORDER BY number";
        let mut statement = connection.prepare(sql).expect("prepared");
        let read = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("queried");
        let read: Vec<(i64, i64)> = read.collect::<Result<_, _>>().expect("read");
        let known = self.rows.iter().map(|row| row.value);
        let known: Vec<_> = (1..).zip(known).take(read.len()).collect();
        assert_eq!(read, known, "not what was written");
        assert_eq!(usize::try_from(head), Ok(read.len()), "half of a transaction");
        read.len()
    }
}

/// Opens the database as an app that will be killed: what is in its log stays there.
fn open(database: &Path) -> Connection {
    let connection = db::open(database);
    connection.busy_timeout(Duration::from_secs(30)).expect("set");
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("set");
    connection.pragma_update(None, "synchronous", "OFF").expect("set");
    connection
}

/// Writes transactions until it is told that all is over.
pub(super) fn write(database: &Path, ledger: &Mutex<Ledger>, is_over: &AtomicBool) {
    let mut connection = open(database);
    for _ in 0..TRANSACTIONS_MAX {
        if is_over.load(Relaxed) {
            return;
        }
        // In the ledger first: a backup may hold it before this thread hears of the commit.
        let (number, value) = ledger.lock().expect("sound").begin();
        let transaction = connection.transaction().expect("begun");
        transaction
            .execute("INSERT INTO ledger VALUES (?1, ?2)", [number, value])
            .expect("inserted");
        transaction.execute("UPDATE head SET number = ?1", [number]).expect("updated");
        transaction.commit().expect("committed");
        ledger.lock().expect("sound").committed();
        // The pace of an app, not a wait for anything.
        std::thread::sleep(Duration::from_millis(1));
    }
}
