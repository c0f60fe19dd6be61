//! How a SQLite database becomes a stored backup, and a stored backup a database again.
//!
//! The words, in order: *snapshot* (the copy that `VACUUM INTO` makes), *archive* (its gzip
//! stream), *backup* (the stored object), *restore* (the way back). This crate knows **how**;
//! it must never know who asks or when: no actix, no HTTP server, no command line.
//!
//! Start reading at [`backup`], then [`restore`]. The pure parts are [`key`] and [`retention`].

pub mod archive;
pub mod backup;
pub mod blocking;
pub mod check;
pub mod clock;
pub mod deadline;
pub mod disk;
pub mod doctor;
pub mod encryption;
pub mod fail_point;
mod hash;
pub mod header;
pub mod instance;
pub mod key;
pub mod lease;
pub mod manifest;
pub mod memory;
pub mod placement;
pub mod preflight;
pub mod present;
pub mod processors;
pub mod progress;
pub mod restore;
pub mod retention;
pub mod secret;
pub mod snapshot;
pub mod sqlite;
pub mod store;
pub mod text;
pub mod work_dir;

/// The tracing target of every event of this crate; the text format prints it `[SIMPLE-BACKUP]`.
pub const LOG: &str = "simple_backup";
