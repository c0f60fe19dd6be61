//! Who may do what, and when: the actors of simplebackup.
//!
//! A [`restore::RestoreActor`] gates the [`app::AppActor`]; a [`scheduler::SchedulerActor`] sends
//! ticks to the single [`backup::BackupActor`], and if wanted to the [`verify::VerifyActor`]; the
//! [`supervisor::Supervisor`] starts them in order, replaces the ones that die, and turns a signal
//! into a final backup with a deadline.
//! How a backup is made is the engine's; HTTP, signals and configuration are the outside's.
//!
//! Start reading at [`supervisor`]. The pure parts are [`admission`], [`schedule`], [`jitter`] and
//! [`verdict`].

pub mod admission;
pub mod app;
pub mod backup;
pub mod child;
mod death_watch;
pub mod hook;
pub mod jitter;
mod lease;
pub mod messages;
mod process;
pub mod restore;
pub mod schedule;
pub mod scheduler;
pub mod status;
pub mod supervisor;
pub mod verdict;
pub mod verify;

/// The tracing target of the service's own life; the text format prints it `[SERVER]`.
pub const SERVER_LOG: &str = "server";

/// The tracing target of the scheduler; the text format prints it `[CRONJOB]`.
pub const CRON_LOG: &str = "cronjob";
