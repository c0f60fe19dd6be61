//! A small notes app on SQLite, and how to give it backups.
//!
//! `POST /notes` stores the body, `GET /notes` tells what is stored. The same app in two forms:
//!
//! 1. A program of its own. It knows nothing of backups, and stands behind the binary like any other app:
//!
//!    ```text
//!    simplebackup run --simple-backup --database notes.db -- notes --database notes.db
//!    ```
//!
//! 2. With the service inside, no other process needed:
//!
//!    ```text
//!    notes --embed --database notes.db
//!    ```
//!
//! Try the second: store a note, press Ctrl-C, delete `notes.db`, and start it again.
//!
//! ```text
//! cargo run --example notes -- --embed --database notes.db
//! curl -d "buy milk" http://127.0.0.1:3000/notes
//! ```
//!
//! Read [`main`] for how the two differ, then [`with_backups`]: it is all that embedding takes. The rest
//! is an app as you know it.

use std::sync::{Mutex, PoisonError};

use actix_web::web::{Data, get, post};
use actix_web::{App, HttpResponse, HttpServer, dev, error, rt};
use clap::Parser;
use rusqlite::Connection;
use serde::Serialize;

#[derive(Debug, Parser)]
struct Arguments {
    /// The database file
    #[arg(long, default_value = "notes.db")]
    database: String,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: String,
    /// Carry the backup service inside this process
    #[arg(long)]
    embed: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.embed {
        return with_backups(arguments);
    }
    // Without them: actix-web leaves in order on SIGTERM by itself, which is all that the service wants.
    rt::System::new().block_on(async {
        Ok(serve(&arguments.database, &arguments.listen, Signals::OfTheApp)?.await?)
    })
}

/// The app with the service inside.
fn with_backups(Arguments { database, listen, .. }: Arguments) -> anyhow::Result<()> {
    // Where backups go and when is said by config.toml and the environment, as for the binary. What the
    // program knows better wins over both.
    let settings = [("database.path", database.as_str()), ("backup.enabled", "true")];
    let config = simplebackup::config::load_with(&settings)?;

    // From here on the service has the say. It brings the database back if it is missing, and calls us
    // when that is done: `_restored` is the proof, nobody else can make one.
    let code = simplebackup::run(config, |_restored, stop| async move {
        let server = serve(&database, &listen, Signals::OfTheService)?;

        // A signal came: answer what was asked, and end. Nothing may write any more when we return,
        // because the last backup is made then.
        let handle = server.handle();
        rt::spawn(async move {
            stop.requested().await;
            handle.stop(true).await;
        });
        Ok(server.await?)
    })?;

    // What it ended with: 0, or what the README says of exit codes.
    std::process::exit(code)
}

#[derive(Debug, Serialize)]
struct Notes {
    count: i64,
    last: Option<String>,
}

/// Who hears of SIGTERM.
#[derive(Clone, Copy)]
enum Signals {
    OfTheApp,
    OfTheService,
}

/// Opens the database and serves it; the SQLite connection is shared by all requests.
fn serve(database: &str, listen: &str, signals: Signals) -> anyhow::Result<dev::Server> {
    let connection = Connection::open(database)?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_row| Ok(()))?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
    )?;
    let connection = Data::new(Mutex::new(connection));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(connection.clone())
            .route("/notes", get().to(list))
            .route("/notes", post().to(add))
    })
    .workers(1)
    .bind(listen)?;
    for address in server.addrs() {
        println!("notes: listening on http://{address}");
    }
    Ok(match signals {
        Signals::OfTheApp => server.run(),
        Signals::OfTheService => server.disable_signals().run(),
    })
}

async fn add(text: String, notes: Data<Mutex<Connection>>) -> actix_web::Result<HttpResponse> {
    let notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    notes
        .execute("INSERT INTO notes (text) VALUES (?1)", [text])
        .map_err(error::ErrorInternalServerError)?;
    Ok(HttpResponse::Created().json(notes.last_insert_rowid()))
}

async fn list(notes: Data<Mutex<Connection>>) -> actix_web::Result<HttpResponse> {
    let notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    let read = || {
        let count = notes.query_row("SELECT count(*) FROM notes", [], |row| row.get(0))?;
        let newest = "SELECT text FROM notes ORDER BY id DESC LIMIT 1";
        let last = notes.prepare(newest)?.query_map([], |row| row.get(0))?.next().transpose()?;
        Ok::<_, rusqlite::Error>(Notes { count, last })
    };
    Ok(HttpResponse::Ok().json(read().map_err(error::ErrorInternalServerError)?))
}
