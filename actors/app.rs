//! The app that the service stands in front of, and the actor that starts and stops it.
//!
//! The gate is a type: [`StartApp`] carries a `Restored`, which only a restore can make, so that
//! no code path can start the app on a database that is not there yet (invariant I8).

use std::fmt;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, ResponseActFuture};
use futures::future::LocalBoxFuture;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::restore::Restored;
use thiserror::Error;

use crate::SERVER_LOG;
use crate::death_watch::DeathWatch;
use crate::messages::{Abandon, Drain, Shutdown, StartApp, StopCause};
use crate::status::{Event, StatusBoard};

/// The app, as the service sees it: a child process ([`crate::child::ChildProcess`]), nothing
/// ([`NoApp`]), or a Rust program that embeds the service.
pub trait Application {
    /// Starts the app. Called once, after the database is in place.
    ///
    /// # Errors
    ///
    /// Whatever keeps the app from starting; the service then ends without a final backup.
    fn start(
        &mut self,
        restored: Restored,
    ) -> LocalBoxFuture<'static, Result<RunningApp, AppError>>;

    /// Asks the app to end, waits until `deadline`, then ends it by force where that is possible.
    /// When this returns the app no longer writes to the database.
    fn drain(&mut self, deadline: Deadline) -> LocalBoxFuture<'static, AppEnd>;

    /// Returns whether the app runs in this process. What is done to its thread is done to the app then.
    fn is_in_process(&self) -> bool {
        true
    }

    /// Ends the app by force at once, also in the middle of a drain: a second signal has abandoned
    /// the stop, and the process is about to exit. Nothing to do for an app that exits with it.
    fn abandon(&mut self) {}
}

/// An app that runs.
pub struct RunningApp {
    /// Its process id, if it is a process of its own.
    pub pid: Option<u32>,
    /// Resolves when the app ends by itself, for whatever reason.
    pub ended: LocalBoxFuture<'static, AppEnd>,
}

impl fmt::Debug for RunningApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunningApp({:?})", self.pid)
    }
}

/// How an app ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppEnd {
    /// A process exited with this status.
    Exited(i32),
    /// A process was ended by this signal.
    Signalled(i32),
    /// It has no status of its own: nothing ran, or it is part of this process.
    Left,
}

impl AppEnd {
    /// Returns the exit code that stands for it: its own, or 128 + n for signal n.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signalled(signal) => 128 + signal,
            Self::Left => 0,
        }
    }
}

impl fmt::Display for AppEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signalled(signal) => write!(f, "signal {signal}"),
            Self::Left => f.write_str("left"),
        }
    }
}

/// Why the app did not start.
#[derive(Debug, Error)]
pub enum AppError {
    /// No such program.
    #[error("command \"{0}\" not found; check the words after \"--\" or app.command")]
    NotFound(String),
    /// A file that is no program, or that this user may not run.
    #[error("command \"{0}\" cannot be executed; check its permissions (chmod +x)")]
    NotExecutable(String),
    /// Anything else, in the app's own words.
    #[error("app could not be started: {0}; see its own log")]
    Failed(String),
}

/// No app: another program owns the database, or nothing does.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoApp;

impl Application for NoApp {
    fn is_in_process(&self) -> bool {
        false
    }

    fn start(
        &mut self,
        _restored: Restored,
    ) -> LocalBoxFuture<'static, Result<RunningApp, AppError>> {
        let ended = Box::pin(std::future::pending());
        Box::pin(std::future::ready(Ok(RunningApp { pid: None, ended })))
    }

    fn drain(&mut self, _deadline: Deadline) -> LocalBoxFuture<'static, AppEnd> {
        Box::pin(std::future::ready(AppEnd::Left))
    }
}

/// How much longer than its deadline a drain may take, for the ending by force.
pub(crate) const FORCE_TIMEOUT: Duration = Duration::from_millis(250);

/// Starts the app when shown the proof, and stops it.
pub struct AppActor {
    app: Box<dyn Application>,
    supervisor: Recipient<Shutdown>,
    board: StatusBoard,
    /// How it ended. Written when it does, read by `Drain`.
    end: Option<AppEnd>,
    /// Tells the supervisor when this actor ends, however it ends.
    _death_watch: DeathWatch,
}

impl AppActor {
    pub(crate) fn new(
        app: Box<dyn Application>,
        supervisor: Recipient<Shutdown>,
        board: StatusBoard,
        death_watch: DeathWatch,
    ) -> Self {
        Self { app, supervisor, board, end: None, _death_watch: death_watch }
    }

    fn ended(&mut self, end: AppEnd) {
        if self.end.is_none() {
            if end != AppEnd::Left {
                tracing::info!(target: SERVER_LOG, "Application ended: {end}");
            }
            self.end = Some(end);
            self.board.record(&Event::AppEnded(end));
        }
    }

    /// The app ended by itself: the service has no reason to go on.
    fn ended_by_itself(&mut self, end: AppEnd) {
        if self.end.is_some() {
            return;
        }
        self.ended(end);
        let told = self.supervisor.send(Shutdown { cause: StopCause::AppEnded });
        actix::spawn(async move {
            if let Err(error) = told.await {
                tracing::error!(target: SERVER_LOG, "ERROR: The supervisor is gone: {error}");
            }
        });
    }
}

impl fmt::Debug for AppActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppActor({:?})", self.end)
    }
}

impl Actor for AppActor {
    type Context = Context<Self>;
}

impl Handler<StartApp> for AppActor {
    type Result = ResponseActFuture<Self, Result<(), AppError>>;

    fn handle(&mut self, StartApp(restored): StartApp, _ctx: &mut Self::Context) -> Self::Result {
        tracing::info!(target: SERVER_LOG, "Starting application...");
        let starting = self.app.start(restored);
        Box::pin(wrap_future(starting).map(|started, actor: &mut Self, ctx| {
            let running = started?;
            actor.board.record(&Event::AppStarted(running.pid));
            let ended = wrap_future(running.ended)
                .map(|end, actor: &mut Self, _ctx: &mut Context<Self>| actor.ended_by_itself(end));
            ctx.spawn(ended);
            Ok(())
        }))
    }
}

impl Handler<Drain> for AppActor {
    type Result = ResponseActFuture<Self, AppEnd>;

    fn handle(&mut self, message: Drain, _ctx: &mut Self::Context) -> Self::Result {
        let draining = self.app.drain(message.deadline);
        Box::pin(wrap_future(draining).map(|end, actor: &mut Self, _ctx| {
            // An app that ended before the drain keeps the end that it had.
            actor.ended(end);
            actor.end.unwrap_or(end)
        }))
    }
}

impl Handler<Abandon> for AppActor {
    type Result = ();

    fn handle(&mut self, _message: Abandon, _ctx: &mut Self::Context) {
        self.app.abandon();
    }
}
