//! A small notes app on SQLite: `POST /notes` stores the body, `GET /notes` lists what is stored.
//!
//! It is one app in two forms. As a plain program it knows nothing of backups, and stands behind
//! the binary like any other app:
//!
//! ```text
//! simplebackup run --simple-backup --database notes.db -- notes --database notes.db
//! ```
//!
//! With `--embed` the same program carries the service inside and needs no other process:
//!
//! ```text
//! notes --embed --database notes.db
//! ```
//!
//! Start reading at [`EmbeddedNotes`]: implementing [`Application`] is all that embedding takes.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use actix_web::dev::ServerHandle;
use actix_web::web::{Data, get, post};
use actix_web::{App, HttpResponse, HttpServer, error, rt};
use clap::Parser;
use futures::future::LocalBoxFuture;
use rusqlite::Connection;
use serde::Serialize;
use simplebackup::config::{self, Flags, Input};
use simplebackup::{
    AppEnd, AppError, Application, Deadline, Restored, RunningApp, Service, Signals, telemetry,
};

#[derive(Debug, Parser)]
struct Arguments {
    /// The database file
    #[arg(long, default_value = "notes.db")]
    database: PathBuf,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: String,
    /// Carry the backup service inside this process
    #[arg(long)]
    embed: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if !arguments.embed {
        // actix-web leaves in order on SIGTERM by itself.
        return rt::System::new()
            .block_on(async { Ok(serve(&arguments.database, &arguments.listen)?.await?) });
    }
    let database = arguments.database.to_string_lossy().into_owned();
    let config = config::load(&Input::from_process(Flags {
        values: vec![
            ("database.path", "--database", database),
            ("backup.enabled", "--embed", "true".to_owned()),
        ],
        ..Flags::default()
    }))?;
    telemetry::start(config.log_format, 0);
    let code = rt::System::new().block_on(async {
        let signals = Signals::of_process()?;
        let app = EmbeddedNotes { arguments, server: None };
        anyhow::Ok(Service::new(config, app).run(&signals).await?)
    })?;
    std::process::exit(code);
}

/// The app as the service sees it.
struct EmbeddedNotes {
    arguments: Arguments,
    server: Option<ServerHandle>,
}

impl Application for EmbeddedNotes {
    /// Called when the database is in place, never before.
    fn start(
        &mut self,
        _restored: Restored,
    ) -> LocalBoxFuture<'static, Result<RunningApp, AppError>> {
        let server = match serve(&self.arguments.database, &self.arguments.listen) {
            Ok(server) => server,
            Err(error) => {
                let failed = AppError::Failed(format!("{error:#}"));
                return Box::pin(std::future::ready(Err(failed)));
            }
        };
        self.server = Some(server.handle());
        let serving = rt::spawn(server);
        let ended = Box::pin(async move {
            match serving.await {
                Ok(Ok(())) => AppEnd::Left,
                _ => AppEnd::Exited(1),
            }
        });
        Box::pin(std::future::ready(Ok(RunningApp { pid: None, ended })))
    }

    /// When this returns nothing writes to the database any more.
    fn drain(&mut self, deadline: Deadline) -> LocalBoxFuture<'static, AppEnd> {
        let server = self.server.take();
        Box::pin(async move {
            if let Some(server) = server
                && deadline.limit(server.stop(true)).await.is_err()
            {
                server.stop(false).await;
            }
            AppEnd::Left
        })
    }
}

#[derive(Debug, Serialize)]
struct Notes {
    count: i64,
    last: Option<String>,
}

/// Opens the database and serves it; the SQLite connection is shared by all requests.
fn serve(database: &Path, listen: &str) -> anyhow::Result<actix_web::dev::Server> {
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
    Ok(server.run())
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
