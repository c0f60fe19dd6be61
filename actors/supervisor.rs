//! The life of the service, from the restore to the exit code.
//!
//! restore → app → ticks; then, on a signal or when the app ends: no more ticks → drain the app →
//! final backup with its deadline → the outcome. Actors that die are replaced, at most three
//! times in ten minutes. Nothing here knows how any of it is done, nor what a signal is.

mod stop;
mod workers;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, MailboxError};
use simplebackup_engine::clock::Clock;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::restore::Restored;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use self::workers::Workers;
use crate::SERVER_LOG;
use crate::app::{AppActor, AppEnd, AppError, Application};
use crate::backup::{BackupActor, BackupPlan};
use crate::death_watch::DeathWatch;
use crate::messages::{Restore, RestoreFailure, Shutdown, StartApp, StopCause};
use crate::restore::{RestoreActor, RestorePlan};
use crate::schedule::Schedule;
use crate::status::{Event, Phase, StatusBoard};
use crate::verify::{VerifyActor, VerifyPlan};

/// Signals that follow the first within this time mean the same stop.
const ONE_STOP: Duration = Duration::from_secs(1);

/// Everything that the service consists of.
pub struct Plan {
    /// Restore, backup and schedule; nothing when backups are switched off.
    pub protection: Option<Protection>,
    /// The app.
    pub app: Box<dyn Application>,
    /// How long the app may take to leave.
    pub app_timeout: Duration,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where everything is recorded.
    pub board: StatusBoard,
    /// Where the addresses of the current workers are published: others after a restart, none before
    /// the app runs.
    pub addresses: watch::Sender<Option<Addresses>>,
}

/// The actors of which people may ask something.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Takes [`Backup`](crate::messages::Backup) and
    /// [`ResumePruning`](crate::messages::ResumePruning).
    pub backup: Addr<BackupActor>,
    /// Takes [`Verify`](crate::messages::Verify).
    pub verify: Addr<VerifyActor>,
}

/// What protects the database.
#[derive(Debug, Clone)]
pub struct Protection {
    /// The restore at the start.
    pub restore: RestorePlan,
    /// How long it may take.
    pub restore_timeout: Duration,
    /// The backups.
    pub backup: BackupPlan,
    /// When they are due.
    pub schedule: Schedule,
    /// The restore drills.
    pub verify: VerifyPlan,
    /// How long the final backup may take.
    pub final_timeout: Duration,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("protection", &self.protection).finish_non_exhaustive()
    }
}

/// How the service ended.
#[derive(Debug)]
pub enum Ended {
    /// The restore failed; the app was never started.
    RestoreFailed(RestoreFailure),
    /// The app did not start.
    AppFailed(AppError),
    /// Stopped before the app was started.
    BeforeStart,
    /// Stopped in order.
    Stopped {
        /// Why.
        cause: StopCause,
        /// How the app ended.
        app: AppEnd,
        /// What became of the final backup.
        final_backup: FinalBackup,
        /// By when it had to be made.
        final_deadline: Deadline,
    },
    /// A second signal ended the stop.
    Abandoned,
}

/// A service that was started.
#[derive(Debug)]
pub struct Launched {
    /// Takes [`Shutdown`].
    pub supervisor: Addr<Supervisor>,
    /// Hears how the service ended, once.
    pub ended: oneshot::Receiver<Ended>,
}

/// What became of the final backup.
#[derive(Debug, PartialEq, Eq)]
pub enum FinalBackup {
    /// Backups are switched off.
    NotWanted,
    /// It was made.
    Made,
    /// It was not, and the log says why.
    Missing,
}

/// Starts, watches and stops the other actors; see the module.
pub struct Supervisor {
    protection: Option<Protection>,
    app_timeout: Duration,
    clock: Arc<dyn Clock>,
    board: StatusBoard,
    /// The app until its actor is made, in `started`.
    app: Option<Box<dyn Application>>,
    app_actor: Option<Addr<AppActor>>,
    /// The current ones. Written when they are made or replaced.
    workers: Option<Workers>,
    /// Tells the outside which workers are the current ones.
    addresses: watch::Sender<Option<Addresses>>,
    /// Where the stop is. Written by `enter`, read by every handler.
    phase: Phase,
    /// When the first signal came. Set by the handler of `Shutdown`.
    signalled_at: Option<Instant>,
    /// When workers were replaced, oldest first, within the window.
    restarts: VecDeque<Instant>,
    /// Who waits for the end. Taken by `end`.
    ended: Option<oneshot::Sender<Ended>>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Supervisor({:?})", self.phase)
    }
}

impl Supervisor {
    /// Starts the service.
    ///
    /// # Panics
    ///
    /// Outside an actix system.
    #[must_use]
    pub fn launch(plan: Plan) -> Launched {
        let (ended, receiver) = oneshot::channel();
        let supervisor = Self {
            protection: plan.protection,
            app_timeout: plan.app_timeout,
            clock: plan.clock,
            board: plan.board,
            app: Some(plan.app),
            app_actor: None,
            workers: None,
            addresses: plan.addresses,
            phase: Phase::Starting,
            signalled_at: None,
            restarts: VecDeque::new(),
            ended: Some(ended),
        };
        Launched { supervisor: supervisor.start(), ended: receiver }
    }

    /// Returns whether a signal belongs to the one that began the stop: `timeout` and terminals
    /// send one to the process and another to its group.
    fn is_same_stop(&self) -> bool {
        self.signalled_at.is_some_and(|first| first.elapsed() < ONE_STOP)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.board.record(&Event::Phase(phase));
    }

    fn end(&mut self, ended: Ended) {
        if let Some(sender) = self.ended.take() {
            // Err means that whoever launched us no longer cares.
            let _nobody_waits = sender.send(ended);
        }
    }

    /// The restore is over: start the app, or give up.
    fn restored(
        &mut self,
        answer: Result<Result<Restored, RestoreFailure>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        if self.phase != Phase::Starting {
            return;
        }
        let restored = match answer {
            Ok(Ok(restored)) => restored,
            Ok(Err(failure)) => return self.end(Ended::RestoreFailed(failure)),
            Err(mailbox) => {
                let failure = RestoreFailure::Panicked(mailbox.to_string());
                return self.end(Ended::RestoreFailed(failure));
            }
        };
        let Some(app) = self.app.take() else { return };
        let supervisor = ctx.address();
        let watch = DeathWatch::new(supervisor.clone().recipient(), "AppActor", None);
        let actor = AppActor::new(app, supervisor.recipient(), self.board.clone(), watch).start();
        self.app_actor = Some(actor.clone());
        // From here on a stop has to drain the app.
        self.enter(Phase::Running);
        let started = async move { actor.send(StartApp(restored)).await };
        ctx.spawn(wrap_future(started).map(|answer, this: &mut Self, ctx| {
            this.app_started(answer, ctx);
        }));
    }

    fn app_started(
        &mut self,
        answer: Result<Result<(), AppError>, MailboxError>,
        ctx: &mut Context<Self>,
    ) {
        match answer {
            Ok(Ok(())) if self.phase == Phase::Running => self.start_workers(0, ctx),
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.give_back_and_end(Ended::AppFailed(error), ctx),
            Err(mailbox) => {
                let error = AppError::Failed(mailbox.to_string());
                self.give_back_and_end(Ended::AppFailed(error), ctx);
            }
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let plan = self.protection.as_ref().map(|protection| protection.restore.clone());
        let timeout = self.protection.as_ref().map_or(Duration::ZERO, |p| p.restore_timeout);
        let restore = RestoreActor::new(plan, self.board.clone()).start();
        let deadline = Deadline::after(timeout);
        let restored = async move { restore.send(Restore { deadline }).await };
        ctx.spawn(wrap_future(restored).map(|answer, this: &mut Self, ctx| {
            this.restored(answer, ctx);
        }));
    }
}

impl Handler<Shutdown> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: Shutdown, ctx: &mut Self::Context) {
        if message.cause == StopCause::Signal {
            // Also the first during a stop that the end of the app began.
            self.signalled_at.get_or_insert_with(Instant::now);
        }
        match (self.phase, message.cause) {
            (Phase::Starting, _) => {
                self.enter(Phase::Stopping);
                tracing::info!(target: SERVER_LOG, "Received shutdown signal");
                self.give_back_and_end(Ended::BeforeStart, ctx);
            }
            (Phase::Running, cause) => self.stop(cause, ctx),
            (Phase::Stopping, StopCause::Signal) if self.is_same_stop() => {}
            (Phase::Stopping, StopCause::Signal) => {
                tracing::warn!(
                    target: SERVER_LOG,
                    "WARNING: Received a second shutdown signal, abandoning the shutdown"
                );
                self.say_what_is_missing();
                self.abandon(ctx);
            }
            // The app's end is part of the stop that is under way.
            (Phase::Stopping, _) => {}
        }
    }
}
