//! `simplebackup demo`: the whole story in ten seconds, through the real actors, with a real
//! signal, on the folder store. It checks what it shows and fails if it is not true.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use rusqlite::Connection;
use simplebackup_actors::app::{AppEnd, AppError, Application, RunningApp};
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::restore::Restored;
use tokio::task::JoinHandle;

use crate::config::{self, Config, Flags, Input};
use crate::exit::FATAL;
use crate::output::{complain, show};
use crate::service::Service;
use crate::signals::Signals;

/// How long the first run lasts: two or three ticks.
const FIRST_RUN: Duration = Duration::from_secs(5);

/// How long the second run lasts: enough to see the restored database in use.
const SECOND_RUN: Duration = Duration::from_secs(1);

/// The pause between two rows.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs the demo and returns its exit code.
pub(crate) async fn run() -> Result<i32, Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("simplebackup-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let database = folder.join("notes.db");
    let signals = Signals::of_process()?;

    say("1. an app starts without a database, writes rows, and is backed up every two seconds");
    let written = Arc::new(AtomicU64::new(0));
    let app = NotesApp::new(&database, Arc::clone(&written));
    let code = run_until_sigterm(configure(&database)?, app, &signals, FIRST_RUN).await?;
    let rows = written.load(SeqCst);
    say(&format!("2. SIGTERM: the app left with {rows} rows written, the final backup is made"));
    if code != 0 || rows == 0 {
        return Ok(fail(&format!("the first run ended with {code} and {rows} rows")));
    }

    for suffix in ["", "-wal", "-shm"] {
        let file = folder.join(format!("notes.db{suffix}"));
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    say(&format!("3. the database is deleted: {}", database.display()));

    say("4. a second start restores it before the app starts");
    let found = Arc::new(AtomicU64::new(0));
    let app = NotesApp::new(&database, Arc::clone(&found));
    let at_start = Arc::clone(&app.rows_at_start);
    let code = run_until_sigterm(configure(&database)?, app, &signals, SECOND_RUN).await?;
    let restored = at_start.load(SeqCst);
    if code != 0 || restored != rows {
        return Ok(fail(&format!("{restored} of {rows} rows came back, exit code {code}")));
    }
    say(&format!("5. every row is there: {restored} of {rows} rows came back"));
    say(&format!("   database: {}", database.display()));
    say(&format!("   backups:  {}", folder.join("notes.db.backups").display()));
    for entry in std::fs::read_dir(folder.join("notes.db.backups"))? {
        say(&format!("             {}", entry?.file_name().to_string_lossy()));
    }
    say(
        "   read one by hand: gunzip < BACKUP > copy.db && sqlite3 copy.db 'SELECT count(*) FROM notes'",
    );
    Ok(0)
}

fn say(line: &str) {
    // Nobody reads the demo any more: it goes on for its exit code.
    let _unread = show(line);
}

fn fail(text: &str) -> i32 {
    complain(&format!("the demo failed: {text}"));
    FATAL
}

fn configure(database: &Path) -> Result<Config, config::Problems> {
    let typed = |key, value: &str| (key, "demo", value.to_owned());
    let values = vec![
        typed("database.path", &database.to_string_lossy()),
        typed("backup.enabled", "true"),
        typed("backup.schedule", "*/2 * * * * *"),
        typed("http.address", "off"),
    ];
    // An environment of its own: a real bucket must not see demo data. The default configuration
    // file of the current folder is out of the way for the same reason.
    let config = Some(PathBuf::from("/dev/null"));
    config::load(&Input { flags: Flags { config, values, command: Vec::new() }, variables: vec![] })
}

/// Runs the service and sends this process a SIGTERM after a while.
async fn run_until_sigterm(
    config: Config,
    app: NotesApp,
    signals: &Signals,
    after: Duration,
) -> Result<i32, Box<dyn std::error::Error>> {
    let signal: JoinHandle<rustix::io::Result<()>> = actix::spawn(async move {
        tokio::time::sleep(after).await;
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
    });
    let code = Service::new(config, app).run(signals).await?;
    signal.abort();
    Ok(code)
}

/// An app within this process: a thread that writes a row every few milliseconds.
#[derive(Debug)]
struct NotesApp {
    database: PathBuf,
    written: Arc<AtomicU64>,
    rows_at_start: Arc<AtomicU64>,
    leave: Arc<AtomicBool>,
    writing: Option<std::thread::JoinHandle<rusqlite::Result<()>>>,
}

impl NotesApp {
    fn new(database: &Path, written: Arc<AtomicU64>) -> Self {
        Self {
            database: database.to_owned(),
            written,
            rows_at_start: Arc::default(),
            leave: Arc::default(),
            writing: None,
        }
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(&self.database)?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |_row| Ok(()))?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
        )?;
        let rows: i64 = connection.query_row("SELECT count(*) FROM notes", [], |row| row.get(0))?;
        self.rows_at_start.store(rows.cast_unsigned(), SeqCst);
        Ok(connection)
    }
}

impl Application for NotesApp {
    fn start(
        &mut self,
        _restored: Restored,
    ) -> LocalBoxFuture<'static, Result<RunningApp, AppError>> {
        let connection = match self.open() {
            Ok(connection) => connection,
            Err(error) => {
                return Box::pin(std::future::ready(Err(AppError::Failed(error.to_string()))));
            }
        };
        let (written, leave) = (Arc::clone(&self.written), Arc::clone(&self.leave));
        self.writing = Some(std::thread::spawn(move || {
            while !leave.load(SeqCst) {
                let note = format!("note {}", written.load(SeqCst) + 1);
                connection.execute("INSERT INTO notes (text) VALUES (?1)", [note])?;
                written.fetch_add(1, SeqCst);
                std::thread::sleep(PAUSE);
            }
            Ok(())
        }));
        let ended = Box::pin(std::future::pending());
        Box::pin(std::future::ready(Ok(RunningApp { pid: None, ended })))
    }

    fn drain(&mut self, _deadline: Deadline) -> LocalBoxFuture<'static, AppEnd> {
        self.leave.store(true, SeqCst);
        let writing = self.writing.take();
        Box::pin(async move {
            let left = tokio::task::spawn_blocking(move || {
                writing.map_or(Ok(Ok(())), std::thread::JoinHandle::join)
            });
            match left.await {
                Ok(Ok(Ok(()))) => AppEnd::Left,
                _ => AppEnd::Exited(FATAL),
            }
        })
    }
}
