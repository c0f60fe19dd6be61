//! Hooks: commands of the operator's own, before and after each backup.
//!
//! `before_backup` may refuse a backup, by failing; `after_backup` always follows it, whatever came
//! of the backup, so that what the first has paused goes on. The final backup is the last chance:
//! it is made in any case, and its hooks live within its deadline. How one process is run and
//! bounded is in `run`; what a backup is, the engine knows.

mod output;
mod run;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use futures::FutureExt;
use simplebackup_engine::LOG;
use simplebackup_engine::backup::{BackupError, BackupReport};
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::text;
use simplebackup_engine::work_dir::{WorkFolder, canonical};
use thiserror::Error;
use tokio::sync::watch;

pub use self::run::HookError;
use self::run::{ENDS_WITHIN, Facts};
use crate::messages::Trigger;

/// The commands, and how they are run. By default there are none.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// What runs before each backup: a program and its arguments. Empty for nothing.
    pub before_backup: Vec<String>,
    /// What runs after each.
    pub after_backup: Vec<String>,
    /// How long one may take.
    pub timeout: Duration,
    /// Variables of ours that hooks do not inherit: they hold secrets.
    pub withheld: Vec<String>,
}

/// A backup between hooks that was not made.
#[derive(Debug, Error)]
pub enum HookedError {
    /// `before_backup` failed, and the backup was not begun.
    #[error("no backup without its hook")]
    Hook(#[from] HookError),
    /// The engine says why.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

/// Returns who makes a backup already, which has hooks of its own: those of one that is refused must not
/// let go on what they have paused. The final backup is not asked; it waits for the lock itself.
fn other_run(database: &Path, trigger: Trigger) -> Option<String> {
    if trigger == Trigger::Final {
        return None;
    }
    // Err: the run itself will say so.
    WorkFolder::beside(&canonical(database)).runner().ok().flatten()
}

/// Whether a final backup waits for one that is made; the hooks of that one end then.
#[derive(Debug, Clone)]
pub struct Hurry(watch::Receiver<bool>);

impl Hurry {
    /// Makes one, and what sets it.
    #[must_use]
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    async fn is_asked_for(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|hurry| *hurry).await.is_err() {
            // Who would ask is gone.
            std::future::pending::<()>().await;
        }
    }
}

impl Hooks {
    /// Runs `backup` between the hooks, or none of them if another one runs.
    pub async fn around(
        &self,
        (trigger, hurry): (Trigger, &Hurry),
        database: &Path,
        deadline: Deadline,
        backup: impl Future<Output = Result<BackupReport, BackupError>>,
    ) -> Result<BackupReport, HookedError> {
        if let Some(holder) = other_run(database, trigger) {
            return Err(BackupError::InProgress { holder }.into());
        }
        let started = Instant::now();
        let facts = Facts::before(trigger, database);
        let ended = match self.before((trigger, hurry), &facts, deadline).await {
            Err(error) if trigger != Trigger::Final => Ok(Err(error.into())),
            before => {
                if let Err(error) = before {
                    warn(&error, "the final backup is made all the same");
                }
                // A panic goes on below: what was paused has to as well.
                let caught = AssertUnwindSafe(backup).catch_unwind().await;
                caught.map(|made| made.map_err(HookedError::from))
            }
        };
        let facts = facts.after(started.elapsed(), ended.as_ref().ok());
        self.after((trigger, hurry), &facts, deadline).await;
        ended.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Returns how long after its deadline a backup that was asked for in this way may end, because
    /// of what runs after it.
    #[must_use]
    pub fn ends_within(&self, trigger: Trigger) -> Duration {
        let runs_later = trigger != Trigger::Final && !self.after_backup.is_empty();
        if runs_later { self.timeout + ENDS_WITHIN } else { Duration::ZERO }
    }

    async fn before(
        &self,
        (trigger, hurry): (Trigger, &Hurry),
        facts: &Facts,
        deadline: Deadline,
    ) -> Result<(), HookError> {
        let left = match trigger {
            // The other half is for the backup.
            Trigger::Final => deadline.remaining() / 2,
            Trigger::Tick | Trigger::Manual => deadline.remaining(),
        };
        let bounds = (self.timeout.min(left), hurry);
        self.run("before_backup", &self.before_backup, facts, bounds).await
    }

    /// A failure is a warning: the backup stands, or has failed for a reason of its own.
    async fn after(&self, (trigger, hurry): (Trigger, &Hurry), facts: &Facts, deadline: Deadline) {
        let left = match trigger {
            Trigger::Final => deadline.remaining().saturating_sub(ENDS_WITHIN),
            // What was paused before has to go on, also after a backup that used up its time.
            Trigger::Tick | Trigger::Manual => self.timeout,
        };
        let bounds = (self.timeout.min(left), hurry);
        if let Err(error) = self.run("after_backup", &self.after_backup, facts, bounds).await {
            warn(&error, "the backup is as it is");
        }
    }

    async fn run(
        &self,
        name: &'static str,
        command: &[String],
        facts: &Facts,
        (limit, hurry): (Duration, &Hurry),
    ) -> Result<(), HookError> {
        let Some((program, arguments)) = command.split_first() else { return Ok(()) };
        let variables = facts.variables(name);
        // Dropped, it takes its processes along.
        tokio::select! {
            biased;
            () = hurry.is_asked_for() => Err(HookError::GaveWay { name }),
            ended = run::run(name, (program, arguments), (&variables, &self.withheld), limit) => ended,
        }
    }
}

fn warn(error: &HookError, all_the_same: &str) {
    tracing::warn!(
        target: LOG,
        error = %text::chain(error),
        "WARNING: {}; {all_the_same}", text::chain(error)
    );
}
