//! Restores a SQLite database from S3 before an app starts, backs it up every hour, and once more
//! on SIGTERM.
//!
//! Most people use the binary `simplebackup`. A Rust program that embeds the service implements
//! [`Application`] and hands it to [`Service::run`]; `examples/notes.rs` is one. How a backup is
//! made is the crate `simplebackup-engine`, who may ask for one is `simplebackup-actors`; here is
//! the outside: configuration, signals, HTTP, logs, metrics.

pub mod cli;
mod commands;
pub mod config;
mod demo;
mod exit;
mod http;
mod metrics;
mod output;
mod progress_bar;
mod service;
mod signals;
mod snitch;
pub mod telemetry;

pub use config::Config;
pub use exit::exit_code;
pub use service::{Service, ServiceError};
pub use signals::Signals;
pub use simplebackup_actors::app::{AppEnd, AppError, Application, NoApp, RunningApp};
pub use simplebackup_actors::supervisor::{Ended, FinalBackup};
pub use simplebackup_engine::deadline::Deadline;
pub use simplebackup_engine::restore::Restored;
