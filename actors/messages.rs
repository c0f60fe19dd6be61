//! Every message between the actors, and every reply.

use std::sync::Arc;

use actix::Message;
use chrono::{DateTime, Utc};
use simplebackup_engine::backup::{BackupError, BackupReport};
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::restore::{DrillError, Drilled, RestoreError, Restored};
use simplebackup_engine::store::StoreError;
use thiserror::Error;

use crate::app::{AppEnd, AppError};
use crate::hook::HookError;

/// Who asked for a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The schedule.
    Tick,
    /// A person, over HTTP or by the command `backup`.
    Manual,
    /// The stop.
    Final,
}

impl Trigger {
    /// All triggers, in the order of status and metrics.
    pub const ALL: [Self; 3] = [Self::Tick, Self::Manual, Self::Final];

    /// Returns the word for it in log lines, as the specification prints them.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tick => "hourly",
            Self::Manual => "manual",
            Self::Final => "shutdown",
        }
    }

    /// Returns its place in [`Trigger::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Tick => 0,
            Self::Manual => 1,
            Self::Final => 2,
        }
    }
}

/// To the restore actor, once: bring the database back if it is missing.
#[derive(Debug, Message)]
#[rtype(result = "Result<Restored, RestoreFailure>")]
pub struct Restore {
    /// By when.
    pub deadline: Deadline,
}

/// Why the restore actor has no [`Restored`] to give.
#[derive(Debug, Error)]
pub enum RestoreFailure {
    /// The engine says why.
    #[error(transparent)]
    Engine(#[from] RestoreError),
    /// A defect of this program.
    #[error("restore panicked: {0}; this is a defect, please report it")]
    Panicked(String),
}

/// To the app actor: start. Only a restore can make the proof.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), AppError>")]
pub struct StartApp(pub Restored);

/// To the app actor: stop the app, gently until the deadline, then by force.
#[derive(Debug, Message)]
#[rtype(result = "AppEnd")]
pub struct Drain {
    /// How long the app may take to leave by itself.
    pub deadline: Deadline,
}

/// To the app actor: end the app by force, now.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Abandon;

/// To the scheduler: begin.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StartTicking;

/// To the scheduler: no tick after this.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopTicking;

/// To the backup actor: a backup is due.
#[derive(Debug, Message)]
#[rtype(result = "Result<BackupReport, BackupRequestError>")]
pub struct Tick {
    /// The time in the schedule, not the time of sending.
    pub due_at: DateTime<Utc>,
}

/// To the backup actor: make a backup now.
#[derive(Debug, Message)]
#[rtype(result = "Result<BackupReport, BackupRequestError>")]
pub struct Backup {
    /// Who asks: a person or the stop.
    pub trigger: Trigger,
    /// By when.
    pub deadline: Deadline,
}

/// To the backup actor: a person has looked at the database that seemed emptied, and it is right.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Arc<StoreError>>")]
pub struct ResumePruning {
    /// By when.
    pub deadline: Deadline,
}

/// Why a request for a backup brought none.
#[derive(Debug, Clone, Error)]
pub enum BackupRequestError {
    /// One runs already, here.
    #[error("backup already in progress ({} backup since {since})", trigger.word())]
    InProgress {
        /// Who asked for the one that runs.
        trigger: Trigger,
        /// Since when it runs.
        since: DateTime<Utc>,
    },
    /// One runs already, in another process.
    #[error("backup already in progress in {holder}")]
    InProgressElsewhere {
        /// Such as `process 4711`.
        holder: String,
    },
    /// The service is stopping; its final backup is or was made.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// It was tried and failed.
    #[error("{}", simplebackup_engine::text::chain(&**.0))]
    Failed(Arc<BackupError>),
    /// It was not tried: `hooks.before_backup` failed.
    #[error("{}", simplebackup_engine::text::chain(&**.0))]
    Hook(Arc<HookError>),
    /// A defect of this program.
    #[error("backup panicked: {0}; this is a defect, please report it")]
    Panicked(String),
    /// The actor went away while the request waited.
    #[error("backup actor ended before it answered; it is being replaced")]
    ActorGone,
}

impl BackupRequestError {
    /// Returns whether the request was refused without trying.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::InProgress { .. } | Self::InProgressElsewhere { .. } | Self::ShuttingDown
        )
    }
}

/// To the verify actor: a restore drill is due, or a person wants one.
#[derive(Debug, Message)]
#[rtype(result = "Result<Drilled, VerifyRequestError>")]
pub struct Verify {
    /// Who asks: the schedule or a person.
    pub trigger: Trigger,
}

/// To the verify actor: end the drill that runs, and begin no other.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopVerifying;

/// Why a request for a restore drill brought none, or no good one.
#[derive(Debug, Clone, Error)]
pub enum VerifyRequestError {
    /// One runs already.
    #[error("restore drill already in progress since {since}")]
    InProgress {
        /// Since when it runs.
        since: DateTime<Utc>,
    },
    /// It was stopped, or the actor was before: the service is, or its actors are being replaced.
    #[error("restore drill stopped; the next one makes up for it")]
    Stopped,
    /// It was tried and failed.
    #[error("{}", simplebackup_engine::text::chain(&**.0))]
    Failed(Arc<DrillError>),
    /// A defect of this program.
    #[error("restore drill panicked: {0}; this is a defect, please report it")]
    Panicked(String),
    /// The actor went away while the request waited.
    #[error("verify actor ended before it answered; it is being replaced")]
    ActorGone,
}

/// Why the service is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// SIGTERM, SIGINT or SIGHUP, or a program that embeds the service.
    Signal,
    /// The app ended by itself.
    AppEnded,
    /// Actors died too often.
    ActorsDied,
}

/// To the supervisor: stop in order; a signal more than a second after the first abandons.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Shutdown {
    /// Why.
    pub cause: StopCause,
}

/// To the supervisor, from the drop guard of an actor: it is gone, orderly or by a panic.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ActorGone {
    /// Its name in logs.
    pub name: &'static str,
    /// Which incarnation it was: the end of a replaced one is no news. Nothing for an actor that
    /// can't be replaced.
    pub generation: Option<u32>,
}
