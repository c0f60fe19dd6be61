//! The actor that says when: it sends a `Tick` at each due time and awaits the reply.
//!
//! Due times are wall-clock times, waits run on the monotonic clock, and the two part ways when a
//! machine is suspended or its clock is set. So no wait is longer than a minute, the wall clock
//! is read after each, and whatever was missed is said and made up for by one backup.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, Addr, AsyncContext, Context, Handler, SpawnHandle};
use chrono::{DateTime, Utc};
use simplebackup_engine::LOG;
use simplebackup_engine::clock::Clock;

use crate::CRON_LOG;
use crate::backup::BackupActor;
use crate::death_watch::DeathWatch;
use crate::messages::{BackupRequestError, StartTicking, StopTicking, Tick, Trigger};
use crate::schedule::Schedule;
use crate::status::{Event, StatusBoard};

/// The longest wait between two looks at the wall clock: a changed clock is noticed within it,
/// and an idle service wakes up once a minute.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Sends ticks; see the module.
#[derive(Debug)]
pub struct SchedulerActor {
    schedule: Schedule,
    clock: Arc<dyn Clock>,
    backup: Addr<BackupActor>,
    board: StatusBoard,
    /// The loop that waits and sends. Set by `StartTicking`, taken by `StopTicking`.
    ticking: Option<SpawnHandle>,
    /// Tells the supervisor when this actor ends, however it ends.
    _death_watch: DeathWatch,
}

impl SchedulerActor {
    pub(crate) fn new(
        schedule: Schedule,
        clock: Arc<dyn Clock>,
        backup: Addr<BackupActor>,
        board: StatusBoard,
        death_watch: DeathWatch,
    ) -> Self {
        Self { schedule, clock, backup, board, ticking: None, _death_watch: death_watch }
    }
}

impl Actor for SchedulerActor {
    type Context = Context<Self>;
}

impl Handler<StartTicking> for SchedulerActor {
    type Result = ();

    fn handle(&mut self, _message: StartTicking, ctx: &mut Self::Context) {
        if self.ticking.is_some() {
            return;
        }
        let ticking = tick_forever(
            self.schedule.clone(),
            Arc::clone(&self.clock),
            self.backup.clone(),
            self.board.clone(),
        );
        self.ticking = Some(ctx.spawn(wrap_future(ticking)));
    }
}

impl Handler<StopTicking> for SchedulerActor {
    type Result = ();

    fn handle(&mut self, _message: StopTicking, ctx: &mut Self::Context) {
        if let Some(ticking) = self.ticking.take() {
            ctx.cancel_future(ticking);
        }
    }
}

async fn tick_forever(
    schedule: Schedule,
    clock: Arc<dyn Clock>,
    backup: Addr<BackupActor>,
    board: StatusBoard,
) {
    loop {
        let due = schedule.next_after(clock.now());
        board.record(&Event::NextTick(due));
        let Some(due_at) = due else {
            tracing::warn!(
                target: LOG,
                "WARNING: Schedule \"{schedule}\" has no further due time: no more hourly backups"
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
                "WARNING: {missed} tick{} missed since {due_at} (suspended, or the clock was set \
                 forward); one backup now makes up for it",
                if missed == 1 { " was" } else { "s were" }
            );
            board.record(&Event::TicksMissed(missed));
        }
        // Beside the loop: a backup that takes longer than the period must not hide the next
        // tick, which is then refused as in progress, and says so.
        let reply = backup.send(Tick { due_at });
        let (clock, board) = (Arc::clone(&clock), board.clone());
        actix::spawn(async move {
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
        });
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Waited {
    UntilDue,
    ClockWentBack,
}

/// Waits until the wall clock shows `due`, in steps of a minute at most.
async fn wait_until(due: DateTime<Utc>, clock: &dyn Clock) -> Waited {
    let mut before = clock.now();
    while before < due {
        let left = (due - before).to_std().unwrap_or_default();
        tokio::time::sleep(left.min(LONGEST_WAIT)).await;
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
