//! One life of the service: a start, events that chance decides, an end.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use futures::future::{Either, LocalBoxFuture, select};
use simplebackup_actors::app::{AppEnd, AppError};
use simplebackup_actors::backup::{BackupActor, BackupPlan};
use simplebackup_actors::hook::Hooks;
use simplebackup_actors::messages::{Shutdown, StopCause};
use simplebackup_actors::restore::RestorePlan;
use simplebackup_actors::status::{Observer, Phase, StatusBoard};
use simplebackup_actors::supervisor::{
    Addresses, Ended, FinalBackup, Launched, Plan, Protection, Supervisor,
};
use simplebackup_actors::verify::VerifyPlan;
use simplebackup_engine::backup::BackupEngine;
use simplebackup_engine::restore::{Fallback, Outcome, RestoreEngine};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::draw::Fuse;
use super::month::World;
use super::ticks::{DAILY, FOUR_A_DAY, HOURLY, Period, TWICE_A_DAY, Ticks};
use crate::support::assert_no_leftovers;
use crate::support::service::{
    APP_TIMEOUT, FINAL_TIMEOUT, RESTORE_TIMEOUT, RUN_TIMEOUT, ScriptedApp,
};

/// How much later than its deadline a stop or a restore may end (invariant I5).
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// After this time everything is over that takes no time.
pub(super) const MOMENT: Duration = Duration::from_millis(1);

/// What becomes of the disk at the end of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    /// The process left in order.
    Left,
    /// It ended in the middle of whatever it did.
    Killed,
}

/// A process that runs.
pub(super) struct Life<'a> {
    pub(super) world: &'a mut World,
    pub(super) app: ScriptedApp,
    pub(super) supervisor: Addr<Supervisor>,
    pub(super) board: StatusBoard,
    pub(super) addresses: watch::Receiver<Option<Addresses>>,
    pub(super) ticks: Ticks,
    pub(super) period: Period,
    pub(super) job: Arc<Fuse>,
    pub(super) actor: Arc<Fuse>,
    pub(super) scheduler: Arc<Fuse>,
    /// Until then something may fail that was told to: a run that hangs does so to its deadline.
    pub(super) troubled_until: Instant,
    ended: oneshot::Receiver<Ended>,
}

/// Lives from the start of a process to its end.
pub(super) async fn live(mut world: World, is_last: bool) -> (World, Departure) {
    let born = Instant::now();
    world.clock.run();
    let mut life = Life::launch(&mut world, is_last);
    let departure = life.through(is_last).await;
    drop(life);
    world.awake += born.elapsed();
    world.clock.halt();
    (world, departure)
}

impl<'a> Life<'a> {
    fn launch(world: &'a mut World, is_last: bool) -> Self {
        world.witness.books().restored = None;
        world.witness.note("a process starts");
        // A backup costs some milliseconds even here, and a month has 720 hours.
        let period = match world.draw.between(0, 30) {
            0 => HOURLY,
            1 => FOUR_A_DAY,
            2..5 => TWICE_A_DAY,
            _ => DAILY,
        };
        let app =
            ScriptedApp::obedient().on_start(app_start(world)).on_drain(app_leave(world, is_last));
        let [job, actor, scheduler] = [(); 3].map(|()| Fuse::over(&world.clock));
        let engine = BackupEngine::new(
            world.database.borrow().path().to_owned(),
            world.store.clone(),
            world.retention,
            Arc::clone(&job) as _,
        );
        let protection = Protection {
            verify: VerifyPlan { schedule: None, timeout: RUN_TIMEOUT },
            restore: RestorePlan {
                engine: RestoreEngine::new(world.store.clone(), Arc::clone(&world.clock) as _),
                database: world.database.borrow().path().to_owned(),
                fallback: Fallback::Refuse,
            },
            restore_timeout: RESTORE_TIMEOUT,
            backup: BackupPlan {
                engine: engine.with_unchanged(world.unchanged),
                run_timeout: RUN_TIMEOUT,
                clock: Arc::clone(&actor) as _,
                hooks: Hooks::default(),
                is_app_in_process: false,
            },
            schedule: period.0.parse().expect("a sound schedule"),
            final_timeout: FINAL_TIMEOUT,
        };
        let witness = world.witness.clone();
        let observer: Observer = Arc::new(move |event, _status| witness.books().hear(event));
        let board = StatusBoard::new(true, vec![observer]);
        let (sender, addresses) = watch::channel(None);
        let Launched { supervisor, ended } = Supervisor::launch(Plan {
            protection: Some(protection),
            app: Box::new(app.clone()),
            app_timeout: APP_TIMEOUT,
            clock: Arc::clone(&scheduler) as _,
            board: board.clone(),
            addresses: sender,
        });
        let ticks = Ticks::since(world.clock.now_ms(), period);
        let troubled_until = Instant::now();
        Self {
            world,
            app,
            supervisor,
            board,
            addresses,
            ticks,
            period,
            job,
            actor,
            scheduler,
            troubled_until,
            ended,
        }
    }

    /// Returns the current backup actor, if the app has started.
    pub(super) fn backup_actor(&self) -> Option<Addr<BackupActor>> {
        self.addresses.borrow().as_ref().map(|current| current.backup.clone())
    }

    async fn through(&mut self, is_last: bool) -> Departure {
        if !is_last {
            self.maybe_trouble_the_restore();
        }
        if !self.starts(is_last).await {
            return Departure::Left;
        }
        self.ticks = Ticks::since(self.world.clock.now_ms(), self.period);
        // What a killed process left is gone by the time that the app runs.
        assert_no_leftovers(self.world.database.borrow().path());
        if is_last {
            return self.leave_after_a_signal().await;
        }
        if !self.is_well() {
            self.heal();
        }
        for _ in 0..self.world.draw.between(1, 9) {
            if self.is_stopping() {
                break;
            }
            self.event().await;
            let longest = Duration::from_millis(self.period.1.unsigned_abs() * 3 / 2);
            let span = self.world.draw.span(MOMENT, longest);
            self.pass(span).await;
        }
        self.depart().await
    }

    /// Waits until the app runs, or the start has come to nothing.
    async fn starts(&mut self, is_last: bool) -> bool {
        if !is_last && self.world.draw.one_in(16) {
            sleep(self.world.draw.span(MOMENT, RESTORE_TIMEOUT)).await;
            if self.board.read().phase == Phase::Starting {
                self.signal().await;
            }
        }
        let mut addresses = self.addresses.clone();
        let is_up = pin!(addresses.wait_for(Option::is_some));
        let started = timeout(RESTORE_TIMEOUT + GRACE, select(is_up, &mut self.ended)).await;
        let ended = match started.expect("I5: the restore ends within its deadline") {
            Either::Left(_) => return true,
            Either::Right((ended, _)) => ended.expect("the supervisor says how it ended"),
        };
        match ended {
            Ended::BeforeStart => {}
            Ended::RestoreFailed(_) if !self.is_well() => {}
            other => panic!("a sound start ended with {other:?}"),
        }
        assert_eq!(self.app.calls(), [], "I8: the app was started");
        false
    }

    pub(super) async fn signal(&self) {
        self.world.witness.note("signal");
        let message = Shutdown { cause: StopCause::Signal };
        self.supervisor.send(message).await.expect("the supervisor lives");
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.board.read().phase == Phase::Stopping
    }

    /// Returns whether nothing has been told to fail, so that everything has to go well.
    pub(super) fn is_well(&self) -> bool {
        Instant::now() >= self.troubled_until
    }

    /// Lets time pass, but no longer than the service goes on, and looks at the invariants.
    pub(super) async fn pass(&mut self, time: Duration) {
        let mut board = self.board.subscribe();
        let stopping = board.wait_for(|status| status.phase == Phase::Stopping);
        // Err means that it goes on.
        let _goes_on = timeout(time, stopping).await.map(|_| ());
        if !self.is_stopping() {
            self.ticks.look(self.world.clock.now_ms());
            self.ticks.check(&self.board.read());
        }
        self.world.check();
    }

    async fn depart(&mut self) -> Departure {
        // Whoever plans a defect plans it for the service at work.
        self.scheduler.disarm();
        if self.is_stopping() {
            return self.end_of_the_stop(Duration::ZERO).await;
        }
        self.ticks.look(self.world.clock.now_ms());
        match self.world.draw.between(0, 8) {
            0 | 1 => {
                self.world.witness.note("killed");
                self.world.pull_the_plug();
                Departure::Killed
            }
            2 => {
                self.signal().await;
                let patience = self.world.draw.span(MOMENT, APP_TIMEOUT * 2);
                sleep(patience).await;
                self.signal().await;
                self.end_of_the_stop(patience).await
            }
            3 => {
                self.world.database.borrow_mut().close();
                let code = self.world.draw.between(0, 3) as i32;
                self.app.end(AppEnd::Exited(code));
                sleep(MOMENT).await;
                self.end_of_the_stop(Duration::ZERO).await
            }
            _ => self.leave_after_a_signal().await,
        }
    }

    async fn leave_after_a_signal(&mut self) -> Departure {
        self.signal().await;
        self.end_of_the_stop(Duration::ZERO).await
    }

    /// Waits for the end of a stop that has begun some time ago, and looks at how it ended.
    async fn end_of_the_stop(&mut self, ago: Duration) -> Departure {
        let longest = (APP_TIMEOUT + FINAL_TIMEOUT + GRACE).saturating_sub(ago);
        let Ok(ended) = timeout(longest, &mut self.ended).await else {
            panic!("I5: the stop takes longer than {longest:?}");
        };
        let ended = ended.expect("the supervisor says how it ended");
        self.world.witness.note(&format!("ended: {}", name_of(&ended)));
        self.world.check();
        match ended {
            Ended::Stopped { final_backup: FinalBackup::Made, .. } => {
                let books = self.world.witness.books();
                let newest = books.newest().expect("one is stored").1;
                assert_eq!(newest, books.state(), "the final backup lacks what was written last");
                assert_no_leftovers(self.world.database.borrow().path());
                self.ticks.check(&self.board.read());
                Departure::Left
            }
            Ended::Stopped { .. } => {
                assert!(!self.is_well(), "no final backup, and nothing was told to fail");
                self.world.pull_the_plug();
                Departure::Killed
            }
            Ended::Abandoned if !ago.is_zero() => {
                self.world.pull_the_plug();
                Departure::Killed
            }
            other => panic!("a running service ended with {other:?}"),
        }
    }
}

fn name_of(ended: &Ended) -> String {
    match ended {
        Ended::Stopped { cause, app, final_backup, .. } => {
            format!("{cause:?}, {app}, final backup {final_backup:?}")
        }
        Ended::Abandoned => "abandoned".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Returns what the app does when it starts: it looks at what it finds.
fn app_start(world: &World) -> impl FnOnce() -> Result<(), AppError> + 'static {
    let (database, witness) = (world.database.clone(), world.witness.clone());
    let inode = move |path: &std::path::Path| fs::metadata(path).ok().map(|found| found.ino());
    let before = inode(database.borrow().path());
    move || {
        let mut database = database.borrow_mut();
        let found = inode(database.path());
        let restored = witness.books().restored.clone();
        let state = database.open();
        match restored {
            Some(Ok(Outcome::AlreadyThere)) => {
                assert_eq!(found, before, "I3: the database was replaced");
                assert_eq!(state, witness.books().state(), "I3: the database was changed");
            }
            Some(Ok(Outcome::FromBackup(_))) => {
                assert_eq!(before, None, "I3: restored over a database");
                witness.books().brought_back(state);
            }
            Some(Ok(Outcome::NothingStored)) => {
                assert_eq!((before, found, state), (None, None, None), "not fresh");
                let mut books = witness.books();
                assert!(books.stored.is_empty() && books.promised == 0, "lost: one was reported");
                books.write(None);
                drop(books);
                database.write();
            }
            other => panic!("I8: the app starts after {other:?}"),
        }
        Ok(())
    }
}

/// Returns what the app does when it is told to leave.
fn app_leave(world: &mut World, is_last: bool) -> LocalBoxFuture<'static, AppEnd> {
    if !is_last && world.draw.one_in(12) {
        return Box::pin(std::future::pending());
    }
    let database = world.database.clone();
    let takes = world.draw.span(Duration::ZERO, APP_TIMEOUT.saturating_sub(GRACE));
    let has_last_words = world.draw.one_in(2);
    Box::pin(async move {
        sleep(takes).await;
        if has_last_words {
            database.borrow_mut().write();
        }
        database.borrow_mut().close();
        AppEnd::Left
    })
}
