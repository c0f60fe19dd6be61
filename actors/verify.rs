//! The actor that makes restore drills, one at a time, beside the backups: when they are due, and
//! when a person asks for one.
//!
//! Its mailbox stays open while one runs, so that a second is refused at once and a stop ends it
//! at once: a drill only reads, and the next one makes up for it. What a drill is, the engine knows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, ResponseFuture, SpawnHandle};
use chrono::{DateTime, Utc};
use simplebackup_engine::clock::Clock;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::memory;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{DrillError, Drilled, RestoreEngine};
use simplebackup_engine::{LOG, text};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};

use crate::backup::panic_text;
use crate::death_watch::DeathWatch;
use crate::messages::{StopVerifying, Trigger, Verify, VerifyRequestError};
use crate::schedule::Schedule;
use crate::status::{CurrentRun, Event, StatusBoard};

type Answer = Result<Drilled, VerifyRequestError>;

/// When the newest backup is verified.
#[derive(Debug, Clone)]
pub struct VerifyPlan {
    /// When drills are due; nothing when only a person asks for one.
    pub schedule: Option<Schedule>,
    /// How long one may take.
    pub timeout: Duration,
}

/// Makes restore drills; see the module.
#[derive(Debug)]
pub struct VerifyActor {
    engine: RestoreEngine,
    database: PathBuf,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    board: StatusBoard,
    /// Written and read by the handlers and by `finished`.
    state: State,
    /// Tells the supervisor when this actor ends, however it ends.
    _death_watch: DeathWatch,
}

#[derive(Debug)]
enum State {
    Idle,
    Running { since: DateTime<Utc>, drill: SpawnHandle, asker: oneshot::Sender<Answer> },
    Stopped,
}

impl VerifyActor {
    pub(crate) fn new(
        (engine, database): (RestoreEngine, PathBuf),
        timeout: Duration,
        clock: Arc<dyn Clock>,
        (board, death_watch): (StatusBoard, DeathWatch),
    ) -> Self {
        let state = State::Idle;
        Self { engine, database, timeout, clock, board, state, _death_watch: death_watch }
    }

    fn start(&mut self, trigger: Trigger, ctx: &mut Context<Self>) -> oneshot::Receiver<Answer> {
        let (since, progress) = (self.clock.now(), Progress::default());
        let current = CurrentRun { trigger, since, progress: progress.clone() };
        self.board.record(&Event::VerifyStarted(current));
        tracing::info!(target: LOG, trigger = trigger.word(), "Starting restore drill...");
        let (asker, answer) = oneshot::channel();
        let (engine, database) = (self.engine.clone(), self.database.clone());
        let deadline = Deadline::after(self.timeout);
        // A task of its own, so that a panic becomes a value; in a set, which ends it when it is
        // dropped, with this actor or by a stop.
        let job = async move {
            let mut only = JoinSet::new();
            only.spawn_local(async move { engine.drill(&database, deadline, &progress).await });
            only.join_next().await
        };
        let drill = ctx
            .spawn(wrap_future(job).map(|joined, actor: &mut Self, _ctx| actor.finished(joined)));
        self.state = State::Running { since, drill, asker };
        answer
    }

    fn finished(&mut self, joined: Option<Result<Result<Drilled, DrillError>, JoinError>>) {
        // None: the set was given a task, which it has returned now.
        let Some(joined) = joined else { return };
        let State::Running { asker, .. } = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        let answer = match joined {
            Ok(Ok(drilled)) => Ok(drilled),
            Ok(Err(error)) => Err(VerifyRequestError::Failed(Arc::new(error))),
            Err(error) => Err(VerifyRequestError::Panicked(panic_text(error))),
        };
        match &answer {
            Ok(drilled) => {
                // First: whoever reads the line finds the routes saying the same.
                self.board.record(&Event::Verified(drilled.clone()));
                tracing::info!(
                    target: LOG,
                    key = %drilled.key,
                    database_bytes = drilled.database_bytes,
                    archive_bytes = drilled.archive_bytes,
                    took_ms = drilled.took.as_millis() as u64,
                    "Restore drill: {} is sound, {}, in {}",
                    drilled.key, drilled.counted.in_words(), text::seconds(drilled.took)
                );
            }
            // Nothing is wrong with a backup that is not for this machine to open.
            Err(VerifyRequestError::Failed(error)) if error.is_closed_to_us() => {
                self.board.record(&Event::VerifyStopped);
                tracing::warn!(target: LOG, "WARNING: {}", text::chain(&**error));
            }
            Err(error) => record_failure(&self.board, self.clock.now(), error),
        }
        // Err means that whoever asked has stopped waiting: the log and the status have it.
        let _nobody_waits = asker.send(answer);
        memory::give_back();
    }
}

/// Says and records that there was no good drill.
pub(crate) fn record_failure(board: &StatusBoard, at: DateTime<Utc>, error: &VerifyRequestError) {
    let damaged = match error {
        VerifyRequestError::Failed(error) => match &**error {
            DrillError::Damaged { key, .. } => Some(*key),
            _ => None,
        },
        _ => None,
    };
    let error = error.to_string();
    board.record(&Event::VerifyFailed { at, damaged, error: error.clone() });
    tracing::error!(target: LOG, error, "ERROR: Restore drill failed: {error}");
}

impl Actor for VerifyActor {
    type Context = Context<Self>;
}

impl Handler<Verify> for VerifyActor {
    type Result = ResponseFuture<Answer>;

    fn handle(&mut self, message: Verify, ctx: &mut Self::Context) -> Self::Result {
        let refused = match &self.state {
            State::Idle => {
                let answer = self.start(message.trigger, ctx);
                // The sender is dropped only with this actor.
                return Box::pin(async move {
                    answer.await.unwrap_or(Err(VerifyRequestError::ActorGone))
                });
            }
            State::Running { since, .. } => VerifyRequestError::InProgress { since: *since },
            State::Stopped => VerifyRequestError::Stopped,
        };
        Box::pin(std::future::ready(Err(refused)))
    }
}

impl Handler<StopVerifying> for VerifyActor {
    type Result = ();

    fn handle(&mut self, _message: StopVerifying, ctx: &mut Self::Context) {
        if let State::Running { drill, asker, .. } =
            std::mem::replace(&mut self.state, State::Stopped)
        {
            ctx.cancel_future(drill);
            self.board.record(&Event::VerifyStopped);
            let _nobody_waits = asker.send(Err(VerifyRequestError::Stopped));
        }
    }
}
