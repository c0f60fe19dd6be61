//! The actor that says when: it sends a `Tick` or a `Verify` at each due time of their schedules,
//! and awaits the reply.
//!
//! Due times are wall-clock times, which a machine that was suspended or a clock that was set jumps
//! over. The clock ends the wait then, too; it is read after each, and whatever was missed is said and
//! made up for by one.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::prelude::Request;
use actix::{Actor, Addr, AsyncContext, Context, Handler, SpawnHandle};
use chrono::{DateTime, Utc};
use simplebackup_engine::clock::Clock;
use simplebackup_engine::{LOG, text};

use crate::CRON_LOG;
use crate::backup::BackupActor;
use crate::death_watch::DeathWatch;
use crate::messages::{
    BackupRequestError, StartTicking, StopTicking, Tick, Trigger, Verify, VerifyRequestError,
};
use crate::schedule::Schedule;
use crate::status::{Event, StatusBoard};
use crate::verify::{self, VerifyActor};

/// Sends ticks; see the module.
#[derive(Debug)]
pub struct SchedulerActor {
    jobs: Vec<(Schedule, Job)>,
    clock: Arc<dyn Clock>,
    board: StatusBoard,
    /// The loops that wait and send, one for each job. Set by `StartTicking`, taken by
    /// `StopTicking`.
    ticking: Vec<SpawnHandle>,
    /// Tells the supervisor when this actor ends, however it ends.
    _death_watch: DeathWatch,
}

/// What is due at the times of a schedule, and who does it.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    Backup(Addr<BackupActor>),
    Drill(Addr<VerifyActor>),
}

impl SchedulerActor {
    pub(crate) fn new(
        jobs: Vec<(Schedule, Job)>,
        clock: Arc<dyn Clock>,
        board: StatusBoard,
        death_watch: DeathWatch,
    ) -> Self {
        Self { jobs, clock, board, ticking: Vec::new(), _death_watch: death_watch }
    }
}

impl Actor for SchedulerActor {
    type Context = Context<Self>;
}

impl Handler<StartTicking> for SchedulerActor {
    type Result = ();

    fn handle(&mut self, _message: StartTicking, ctx: &mut Self::Context) {
        if !self.ticking.is_empty() {
            return;
        }
        for (schedule, job) in self.jobs.clone() {
            let ticking = tick_forever(schedule, job, Arc::clone(&self.clock), self.board.clone());
            self.ticking.push(ctx.spawn(wrap_future(ticking)));
        }
    }
}

impl Handler<StopTicking> for SchedulerActor {
    type Result = ();

    fn handle(&mut self, _message: StopTicking, ctx: &mut Self::Context) {
        for ticking in self.ticking.drain(..) {
            ctx.cancel_future(ticking);
        }
    }
}

async fn tick_forever(schedule: Schedule, job: Job, clock: Arc<dyn Clock>, board: StatusBoard) {
    loop {
        let due = schedule.next_after(clock.now());
        job.announce(due, &board);
        let Some(due_at) = due else {
            tracing::warn!(
                target: LOG,
                "WARNING: Schedule \"{schedule}\" has no further due time: no more {}",
                job.plural()
            );
            return;
        };
        tracing::debug!(target: LOG, next_tick_at = %due_at, "waiting for the next tick");
        if wait_until(due_at, &*clock).await == Waited::ClockWentBack {
            tracing::warn!(target: LOG, "WARNING: The clock went back, the next tick is reckoned anew");
            continue;
        }
        let missed = schedule.missed_between(due_at, clock.now());
        if missed > 0 {
            tracing::warn!(
                target: LOG,
                missed,
                "WARNING: {missed} tick{} missed since {} (suspended, or the clock was set \
                 forward); one {} now makes up for it",
                if missed == 1 { " was" } else { "s were" },
                text::moment(due_at),
                job.singular()
            );
            board.record(&Event::TicksMissed(missed));
        }
        // Beside the loop: a job that takes longer than the period must not hide the next tick,
        // which is then refused as in progress, and says so.
        match &job {
            Job::Backup(actor) => {
                let reply = actor.send(Tick { due_at });
                actix::spawn(await_backup(reply, Arc::clone(&clock), board.clone()));
            }
            Job::Drill(actor) => {
                let reply = actor.send(Verify { trigger: Trigger::Tick });
                actix::spawn(await_drill(reply, Arc::clone(&clock), board.clone()));
            }
        }
    }
}

impl Job {
    /// The status shows the next backup alone, as the specification has it.
    fn announce(&self, due: Option<DateTime<Utc>>, board: &StatusBoard) {
        if let Self::Backup(_) = self {
            board.record(&Event::NextTick(due));
        }
    }

    fn singular(&self) -> &'static str {
        match self {
            Self::Backup(_) => "backup",
            Self::Drill(_) => "restore drill",
        }
    }

    fn plural(&self) -> &'static str {
        match self {
            Self::Backup(_) => "hourly backups",
            Self::Drill(_) => "restore drills",
        }
    }
}

async fn await_backup(
    reply: Request<BackupActor, Tick>,
    clock: Arc<dyn Clock>,
    board: StatusBoard,
) {
    match reply.await {
        Ok(Ok(_report)) => {}
        Ok(Err(error)) if !matches!(error, BackupRequestError::ActorGone) => {
            log_failure(&error);
        }
        // Nobody else can record it: the actor died before it could.
        Ok(Err(_)) | Err(_) => {
            let error = BackupRequestError::ActorGone;
            log_failure(&error);
            let (at, error) = (clock.now(), error.to_string());
            let (trigger, took) = (Trigger::Tick, Duration::ZERO);
            board.record(&Event::BackupFailed { trigger, at, took, error });
        }
    }
}

/// A drill that was made is in the log already; what became of a refused one is said here.
async fn await_drill(
    reply: Request<VerifyActor, Verify>,
    clock: Arc<dyn Clock>,
    board: StatusBoard,
) {
    match reply.await {
        Ok(Ok(_) | Err(VerifyRequestError::Failed(_) | VerifyRequestError::Panicked(_))) => {}
        Ok(Err(error @ VerifyRequestError::InProgress { .. })) => tracing::error!(
            target: CRON_LOG,
            error = %error,
            "ERROR: {error}, skipping this one; allow more time between two (verify.schedule)"
        ),
        Ok(Err(error @ VerifyRequestError::Stopped)) => {
            tracing::warn!(target: CRON_LOG, "WARNING: {error}");
        }
        Ok(Err(VerifyRequestError::ActorGone)) | Err(_) => {
            verify::record_failure(&board, clock.now(), &VerifyRequestError::ActorGone);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Waited {
    UntilDue,
    ClockWentBack,
}

/// Waits until the wall clock shows `due`.
async fn wait_until(due: DateTime<Utc>, clock: &dyn Clock) -> Waited {
    let mut before = clock.now();
    while before < due {
        clock.look_again(due).await;
        let now = clock.now();
        if now < before {
            return Waited::ClockWentBack;
        }
        before = now;
    }
    Waited::UntilDue
}

fn log_failure(error: &BackupRequestError) {
    let short = match error {
        BackupRequestError::InProgress { .. } | BackupRequestError::InProgressElsewhere { .. } => {
            "backup in progress".to_owned()
        }
        other => other.to_string(),
    };
    tracing::error!(target: CRON_LOG, error = %error, "simplebackup: execution failed: {short}");
}
