//! The real actors and the real engine on a real SQLite file, under a paused clock: hours of
//! ticks pass in milliseconds, and every wait can be measured to the millisecond.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use actix::Addr;
use chrono::{DateTime, Utc};
use futures::future::LocalBoxFuture;
use simplebackup_actors::app::{AppEnd, AppError, Application, RunningApp};
use simplebackup_actors::backup::{BackupActor, BackupPlan};
use simplebackup_actors::hook::Hooks;
use simplebackup_actors::messages::{
    Backup, BackupRequestError, Shutdown, StopCause, Trigger, Verify, VerifyRequestError,
};
use simplebackup_actors::restore::RestorePlan;
use simplebackup_actors::status::{Status, StatusBoard};
use simplebackup_actors::supervisor::{
    Addresses, Ended, FinalBackup, Launched, Plan, Protection, Supervisor,
};
use simplebackup_actors::verify::VerifyPlan;
use simplebackup_engine::backup::BackupReport;
use simplebackup_engine::clock::Clock;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::restore::{Drilled, Fallback, Restored};
use tokio::sync::{oneshot, watch};

use super::Site;

/// How long the app may take to leave, as by default.
pub(crate) const APP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the final backup may take, as by default.
pub(crate) const FINAL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a restore may take, as by default.
pub(crate) const RESTORE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a backup of the schedule may take, as by default.
pub(crate) const RUN_TIMEOUT: Duration = Duration::from_mins(15);

/// Runs a test in an actix system whose time stands still unless everything waits for it.
pub(crate) fn on_paused_time(test: impl Future<Output = ()>) {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().expect("a runtime")
    };
    actix::System::with_tokio_rt(runtime).block_on(test);
}

/// A site whose clock runs, with a database.
pub(crate) fn site() -> Site {
    let site = Site::with_database();
    site.clock.start();
    site
}

/// Asserts an orderly stop by a signal.
#[track_caller]
pub(crate) fn assert_stopped(ended: &Ended, expected: &FinalBackup) {
    match ended {
        Ended::Stopped { cause: StopCause::Signal, final_backup, .. } => {
            assert_eq!(final_backup, expected);
        }
        other => panic!("{other:?}"),
    }
}

/// Asserts an orderly stop, whatever its cause, with a final backup.
#[track_caller]
pub(crate) fn assert_final_backup_made(ended: &Ended) {
    assert!(matches!(ended, Ended::Stopped { final_backup: FinalBackup::Made, .. }), "{ended:?}");
}

/// A service that runs, and what it can be asked.
pub(crate) struct Service {
    launched: Launched,
    board: StatusBoard,
    addresses: watch::Receiver<Option<Addresses>>,
}

impl Service {
    /// Launches a service on `site` that backs up every hour.
    pub(crate) fn launch(site: &Site, app: ScriptedApp) -> Self {
        Self::launch_with(site, app, |_protection| {})
    }

    /// Launches a service whose plan was changed.
    pub(crate) fn launch_with(
        site: &Site,
        app: ScriptedApp,
        change: impl FnOnce(&mut Protection),
    ) -> Self {
        let clock: Arc<dyn Clock> = Arc::clone(&site.clock) as _;
        let mut protection = Protection {
            restore: RestorePlan {
                engine: site.restore_engine(),
                database: site.database(),
                fallback: Fallback::Refuse,
            },
            restore_timeout: RESTORE_TIMEOUT,
            backup: BackupPlan {
                engine: site.backup_engine(),
                run_timeout: RUN_TIMEOUT,
                clock: Arc::clone(&clock),
                hooks: Hooks::default(),
                is_app_in_process: false,
            },
            schedule: "0 0 * * * *".parse().expect("a sound schedule"),
            verify: VerifyPlan { schedule: None, timeout: RUN_TIMEOUT },
            final_timeout: FINAL_TIMEOUT,
        };
        change(&mut protection);
        Self::launch_plan(Some(protection), app, clock)
    }

    /// Launches a service whose backups are switched off.
    pub(crate) fn launch_disabled(site: &Site, app: ScriptedApp) -> Self {
        Self::launch_plan(None, app, Arc::clone(&site.clock) as _)
    }

    fn launch_plan(
        protection: Option<Protection>,
        app: ScriptedApp,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let board = StatusBoard::new(protection.is_some(), Vec::new());
        let (sender, addresses) = watch::channel(None);
        let launched = Supervisor::launch(Plan {
            protection,
            app: Box::new(app),
            app_timeout: APP_TIMEOUT,
            clock,
            board: board.clone(),
            addresses: sender,
        });
        Self { launched, board, addresses }
    }

    pub(crate) fn status(&self) -> Status {
        self.board.read()
    }

    /// Waits until the status is as wanted.
    pub(crate) async fn wait_until(&self, wanted: impl FnMut(&Status) -> bool) -> Status {
        self.board.subscribe().wait_for(wanted).await.expect("the board lives").clone()
    }

    /// Waits until the backup actor is there, which is after the app has started.
    pub(crate) async fn is_up(&self) -> Addr<BackupActor> {
        self.workers().await.backup
    }

    async fn workers(&self) -> Addresses {
        let mut addresses = self.addresses.clone();
        let current = addresses.wait_for(Option::is_some).await.expect("the supervisor lives");
        current.clone().expect("some")
    }

    /// Asks the current backup actor for a backup, as a person over HTTP does.
    pub(crate) async fn back_up(&self) -> Result<BackupReport, BackupRequestError> {
        let deadline = Deadline::after(RUN_TIMEOUT);
        let message = Backup { trigger: Trigger::Manual, deadline };
        self.is_up().await.send(message).await.unwrap_or(Err(BackupRequestError::ActorGone))
    }

    /// Asks for a restore drill, as a person over HTTP does.
    pub(crate) async fn verify(&self) -> Result<Drilled, VerifyRequestError> {
        let message = Verify { trigger: Trigger::Manual };
        let answer = self.workers().await.verify.send(message).await;
        answer.unwrap_or(Err(VerifyRequestError::ActorGone))
    }

    /// Sends a signal.
    pub(crate) async fn signal(&self) {
        let message = Shutdown { cause: StopCause::Signal };
        self.launched.supervisor.send(message).await.expect("the supervisor lives");
    }

    /// Waits for the end.
    pub(crate) async fn ended(self) -> Ended {
        self.launched.ended.await.expect("the supervisor says how it ended")
    }

    /// Sends a signal and waits for the end.
    pub(crate) async fn stop(self) -> Ended {
        self.signal().await;
        self.ended().await
    }
}

/// What an app was made to do, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppCall {
    Start,
    Drain,
}

/// An app of which the test decides how it behaves. Clones share it.
#[derive(Clone)]
pub(crate) struct ScriptedApp(Rc<RefCell<State>>);

struct State {
    calls: Vec<AppCall>,
    on_start: Option<Box<dyn FnOnce() -> Result<(), AppError>>>,
    on_drain: Option<LocalBoxFuture<'static, AppEnd>>,
    end: Option<oneshot::Sender<AppEnd>>,
}

impl ScriptedApp {
    /// Makes an app that starts, runs and leaves when told to.
    pub(crate) fn obedient() -> Self {
        let on_drain: LocalBoxFuture<'static, _> = Box::pin(async { AppEnd::Left });
        let state =
            State { calls: Vec::new(), on_start: None, on_drain: Some(on_drain), end: None };
        Self(Rc::new(RefCell::new(state)))
    }

    /// Has the app do this when it starts.
    pub(crate) fn on_start(self, act: impl FnOnce() -> Result<(), AppError> + 'static) -> Self {
        self.0.borrow_mut().on_start = Some(Box::new(act));
        self
    }

    /// Has the app do this when it is told to leave.
    pub(crate) fn on_drain(self, act: impl Future<Output = AppEnd> + 'static) -> Self {
        self.0.borrow_mut().on_drain = Some(Box::pin(act));
        self
    }

    /// Makes the running app end by itself.
    pub(crate) fn end(&self, end: AppEnd) {
        let sender = self.0.borrow_mut().end.take().expect("the app runs");
        sender.send(end).expect("somebody waits for the app");
    }

    /// Returns what the app was made to do.
    pub(crate) fn calls(&self) -> Vec<AppCall> {
        self.0.borrow().calls.clone()
    }
}

impl Application for ScriptedApp {
    fn start(
        &mut self,
        _restored: Restored,
    ) -> LocalBoxFuture<'static, Result<RunningApp, AppError>> {
        let mut state = self.0.borrow_mut();
        state.calls.push(AppCall::Start);
        let started = state.on_start.take().map_or(Ok(()), |act| act());
        let (sender, receiver) = oneshot::channel();
        state.end = Some(sender);
        // The test holds the sender for as long as the app runs.
        let ended = Box::pin(async move { receiver.await.unwrap_or(AppEnd::Left) });
        Box::pin(std::future::ready(started.map(|()| RunningApp { pid: None, ended })))
    }

    fn drain(&mut self, _deadline: Deadline) -> LocalBoxFuture<'static, AppEnd> {
        let mut state = self.0.borrow_mut();
        state.calls.push(AppCall::Drain);
        state.on_drain.take().expect("an app is drained once")
    }
}

/// A clock that panics as often as it was told to, then tells the time: a defect to order.
#[derive(Debug)]
pub(crate) struct PanickingClock {
    inner: Arc<dyn Clock>,
    panics_left: AtomicUsize,
}

impl PanickingClock {
    pub(crate) fn over(inner: Arc<dyn Clock>, panics: usize) -> Arc<dyn Clock> {
        Arc::new(Self { inner, panics_left: panics.into() })
    }
}

impl Clock for PanickingClock {
    fn now(&self) -> DateTime<Utc> {
        let left = self.panics_left.load(Relaxed);
        if left > 0 {
            self.panics_left.store(left - 1, Relaxed);
            panic!("planned: the clock is broken");
        }
        self.inner.now()
    }
}
