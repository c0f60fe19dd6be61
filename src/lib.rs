//! Restores a SQLite database from S3 before an app starts, backs it up every hour, and once more
//! on SIGTERM.
//!
//! Most people use the binary `simplebackup`. A Rust program can carry the service inside: it hands its
//! work to [`run`], which calls it once the database is in place.
//!
//! ```no_run
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let settings = [("database.path", "notes.db"), ("backup.enabled", "true")];
//!     let config = simplebackup::config::load_with(&settings)?;
//!     let code = simplebackup::run(config, |_restored, stop| async move {
//!         let database = rusqlite::Connection::open("notes.db")?;
//!         // Serve, until:
//!         stop.requested().await;
//!         drop(database);
//!         Ok(())
//!     })?;
//!     std::process::exit(code)
//! }
//! ```
//!
//! `examples/notes.rs` is a whole program of that kind. What [`run`] puts together is there by itself,
//! too: a [`Config`], the [`Signals`], an [`Application`] that starts and drains the app in its own way, and
//! the [`Service`] in front of it.
//!
//! How a backup is made is the crate `simplebackup-engine`, who may ask for one is
//! `simplebackup-actors`; here is the outside: configuration, signals, HTTP, logs, metrics.

pub mod cli;
mod commands;
pub mod config;
mod demo;
mod doctor;
mod embed;
mod encryption;
mod exit;
mod history;
mod http;
mod init;
mod manual;
mod metrics;
mod notify;
mod output;
mod progress_bar;
mod service;
mod signals;
pub mod telemetry;
mod version;

pub use config::Config;
pub use embed::{EmbedError, Embedded, StopRequest, run};
pub use exit::exit_code;
pub use service::{Service, ServiceError};
pub use signals::Signals;
pub use simplebackup_actors::app::{AppEnd, AppError, Application, NoApp, RunningApp};
pub use simplebackup_actors::supervisor::{Ended, FinalBackup};
pub use simplebackup_engine::deadline::Deadline;
pub use simplebackup_engine::restore::Restored;
