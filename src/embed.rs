//! A Rust program as the app: its work is a future in this process.

use std::fmt;
use std::future::Future;

use actix::System;
use futures::FutureExt;
use futures::future::{LocalBoxFuture, Shared};
use simplebackup_actors::SERVER_LOG;
use simplebackup_actors::app::{AppEnd, AppError, Application, RunningApp};
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::restore::Restored;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::config::Config;
use crate::service::{Service, ServiceError};
use crate::signals::Signals;
use crate::telemetry;

/// What a program's work may end with.
type WorkError = Box<dyn std::error::Error>;

type Work =
    Box<dyn FnOnce(Restored, StopRequest) -> LocalBoxFuture<'static, Result<(), WorkError>>>;

/// Why an embedding program got no service.
#[derive(Debug, Error)]
pub enum EmbedError {
    /// Signals have a handler already; make a [`Signals`] and a [`Service`] by hand then.
    #[error(
        "cannot handle signals, something else in this process does; use Service with Signals::manual"
    )]
    Signals(#[from] ctrlc::Error),
    /// The service did not start.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// Runs `work` behind the service, until it ends or a signal asks for the stop, and returns the exit
/// code; the table is in the README.
///
/// Starts an actix system on this thread, the log, and the handler for signals, each of which a process
/// has once. A program that has its own uses [`Service`] with [`Embedded`].
///
/// # Errors
///
/// When the work was not started at all.
///
/// # Examples
///
/// ```no_run
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     // config.toml and the environment say where backups go; what stands here wins over both.
///     let settings = [("database.path", "notes.db"), ("backup.enabled", "true")];
///     let config = simplebackup::config::load_with(&settings)?;
///     let code = simplebackup::run(config, |_restored, stop| async move {
///         let database = rusqlite::Connection::open("notes.db")?;
///         stop.requested().await;
///         database.close().map_err(|(_database, error)| error)?;
///         Ok(())
///     })?;
///     std::process::exit(code)
/// }
/// ```
pub fn run<F, W>(config: Config, work: F) -> Result<i32, EmbedError>
where
    F: FnOnce(Restored, StopRequest) -> W + 'static,
    W: Future<Output = Result<(), WorkError>> + 'static,
{
    telemetry::start(config.log_format, 0);
    let system = System::new();
    let ended = system.block_on(async {
        let signals = Signals::of_process()?;
        Ok(Service::new(config, Embedded::new(work)).run(&signals).await?)
    });
    // Dropping the runtime would wait without limit for its threads, also for one that a hanging disk
    // holds up.
    std::mem::forget(system);
    ended
}

/// Tells the work that it should end.
#[derive(Debug, Clone)]
pub struct StopRequest(watch::Receiver<bool>);

impl StopRequest {
    /// Waits for it. `shutdown.app_timeout` after that the work is dropped where it waits.
    pub async fn requested(&self) {
        // Err: who would ask is gone, and so is the reason to go on.
        let mut stop = self.0.clone();
        let _asked_or_gone = stop.wait_for(|stop| *stop).await.is_ok();
    }
}

/// An [`Application`] that is a future. It starts when the database is in place; when it ends, so does the
/// service, after a last backup.
pub struct Embedded {
    work: Option<Work>,
    stop: watch::Sender<bool>,
    running: Option<(AbortHandle, Shared<LocalBoxFuture<'static, AppEnd>>)>,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("running", &self.running.is_some()).finish_non_exhaustive()
    }
}

impl Embedded {
    /// Makes an app of `work`. Nothing of it may write to the database any more when it has ended, or was
    /// dropped: threads that it started are its own to end.
    pub fn new<F, W>(work: F) -> Self
    where
        F: FnOnce(Restored, StopRequest) -> W + 'static,
        W: Future<Output = Result<(), WorkError>> + 'static,
    {
        let work: Work = Box::new(|restored, stop| work(restored, stop).boxed_local());
        Self { work: Some(work), stop: watch::Sender::new(false), running: None }
    }
}

impl Application for Embedded {
    fn start(
        &mut self,
        restored: Restored,
    ) -> LocalBoxFuture<'static, Result<RunningApp, AppError>> {
        let Some(work) = self.work.take() else {
            let twice = AppError::Failed("it was started before".to_owned());
            return std::future::ready(Err(twice)).boxed_local();
        };
        let job = actix::spawn(work(restored, StopRequest(self.stop.subscribe())));
        let abort = job.abort_handle();
        let ended = job.map(|joined| end_of(&joined)).boxed_local().shared();
        self.running = Some((abort, ended.clone()));
        std::future::ready(Ok(RunningApp { pid: None, ended: ended.boxed_local() })).boxed_local()
    }

    fn drain(&mut self, deadline: Deadline) -> LocalBoxFuture<'static, AppEnd> {
        let Some((abort, ended)) = self.running.take() else {
            return std::future::ready(AppEnd::Left).boxed_local();
        };
        self.stop.send_replace(true);
        async move {
            match deadline.limit(ended.clone()).await {
                Ok(end) => end,
                Err(_out_of_time) => {
                    tracing::warn!(
                        target: SERVER_LOG,
                        "WARNING: The app did not end in time and is dropped; allow it more \
                         (shutdown.app_timeout), or have it look at its StopRequest"
                    );
                    abort.abort();
                    ended.await
                }
            }
        }
        .boxed_local()
    }
}

fn end_of(joined: &Result<Result<(), WorkError>, tokio::task::JoinError>) -> AppEnd {
    match joined {
        Ok(Ok(())) => AppEnd::Left,
        Ok(Err(error)) => {
            let error = simplebackup_engine::text::chain(&**error);
            tracing::error!(target: SERVER_LOG, "ERROR: The app failed: {error}");
            AppEnd::Exited(1)
        }
        Err(error) if error.is_panic() => {
            tracing::error!(target: SERVER_LOG, "ERROR: The app panicked; see above");
            // What a Rust program exits with that panics.
            AppEnd::Exited(101)
        }
        Err(_dropped) => AppEnd::Exited(1),
    }
}
