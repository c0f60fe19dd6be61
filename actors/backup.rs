//! The single actor that makes backups, one at a time.
//!
//! Its mailbox stays open while a backup runs, so that a second request is answered "in
//! progress" at once and the final one can queue. What may run is decided by [`crate::admission`];
//! how it runs is the engine's, what runs before and after it is [`crate::hook`]'s.

mod job;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, ResponseFuture};
use chrono::{DateTime, Utc};
use simplebackup_engine::backup::{BackupEngine, BackupError, BackupReport};
use simplebackup_engine::blocking::{CLEAN_UP, Priority};
use simplebackup_engine::clock::Clock;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::memory;
use simplebackup_engine::processors::OneLeftFree;
use simplebackup_engine::progress::{Progress, Stage};
use simplebackup_engine::store::StoreError;
use simplebackup_engine::{LOG, text};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinError;

use crate::admission::{Admission, Decision, Next, Request};
use crate::death_watch::DeathWatch;
use crate::hook::{HookedError, Hooks, Hurry};
use crate::messages::{Backup, BackupRequestError, ResumePruning, Tick, Trigger};
use crate::status::{CurrentRun, Event, StatusBoard};

/// How long the look at the store after the start may take; it only feeds the status.
const SURVEY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long after its deadline a run has ended: its stopped work is given a moment to clean up.
const RUN_ENDS_WITHIN: Duration = CLEAN_UP.saturating_add(Duration::from_millis(50));

type Answer = Result<BackupReport, BackupRequestError>;

/// What the backup actor works with.
#[derive(Debug, Clone)]
pub struct BackupPlan {
    /// The engine.
    pub engine: BackupEngine,
    /// How long a tick's backup may take.
    pub run_timeout: Duration,
    /// Tells the time for reports.
    pub clock: Arc<dyn Clock>,
    /// What runs before and after each backup.
    pub hooks: Hooks,
    /// Whether the app runs on this thread, which no backup may keep off a processor then.
    pub is_app_in_process: bool,
}

/// Makes backups; see the module.
#[derive(Debug)]
pub struct BackupActor {
    plan: BackupPlan,
    board: StatusBoard,
    /// Written and read by the handlers and by `finished`.
    admission: Admission,
    /// The run that goes on, and who waits for it. Written by `start`, taken by `finished`.
    running: Option<Run>,
    /// The final backup behind it. Written by the handlers, taken by `finished`.
    queued: Option<QueuedFinal>,
    /// Tells the supervisor when this actor ends, however it ends.
    _death_watch: DeathWatch,
}

#[derive(Debug)]
struct Run {
    current: CurrentRun,
    started: Instant,
    waiting: Vec<oneshot::Sender<Answer>>,
    /// Tells the hooks of this run that the final backup waits.
    hurry: watch::Sender<bool>,
}

#[derive(Debug)]
struct QueuedFinal {
    deadline: Deadline,
    waiting: Vec<oneshot::Sender<Answer>>,
}

impl BackupActor {
    pub(crate) fn new(plan: BackupPlan, board: StatusBoard, death_watch: DeathWatch) -> Self {
        Self {
            plan,
            board,
            admission: Admission::default(),
            running: None,
            queued: None,
            _death_watch: death_watch,
        }
    }

    /// Asks for admission and answers now, or when the backup is over.
    fn request(
        &mut self,
        trigger: Trigger,
        deadline: Deadline,
        ctx: &mut Context<Self>,
    ) -> ResponseFuture<Answer> {
        let request = match trigger {
            Trigger::Final => Request::Final,
            Trigger::Tick | Trigger::Manual => Request::Ordinary,
        };
        let (sender, receiver) = oneshot::channel();
        match self.admission.request(request) {
            Decision::Run => self.start(trigger, deadline, vec![sender], ctx),
            Decision::RefuseInProgress => {
                let error = self.in_progress();
                return self.refuse(trigger, error);
            }
            Decision::RefuseShuttingDown => {
                return self.refuse(trigger, BackupRequestError::ShuttingDown);
            }
            Decision::Queue => {
                if let Some(run) = &self.running {
                    run.hurry.send_replace(true);
                }
                self.queued = Some(QueuedFinal { deadline, waiting: vec![sender] });
            }
            Decision::Join => match (&mut self.queued, &mut self.running) {
                (Some(queued), _) => queued.waiting.push(sender),
                (None, Some(run)) => run.waiting.push(sender),
                // Dropping the sender answers `ActorGone`; the admission table has no such case.
                (None, None) => {}
            },
        }
        // A run ends by its own deadline; this one ends the wait behind another run.
        let late = RUN_ENDS_WITHIN + self.plan.hooks.ends_within(trigger);
        let patience = Deadline::after(deadline.remaining() + late);
        let (board, clock, since) =
            (self.board.clone(), Arc::clone(&self.plan.clock), Instant::now());
        Box::pin(async move {
            match patience.limit(receiver).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_sender_dropped)) => Err(BackupRequestError::ActorGone),
                Err(_out_of_time) => {
                    let late = BackupError::OutOfTime { stage: Stage::Waiting };
                    let error = BackupRequestError::Failed(Arc::new(late));
                    record_failure(&board, trigger, clock.now(), since.elapsed(), &error);
                    Err(error)
                }
            }
        })
    }

    fn in_progress(&self) -> BackupRequestError {
        match &self.running {
            Some(run) => BackupRequestError::InProgress {
                trigger: run.current.trigger,
                since: run.current.since,
            },
            None => BackupRequestError::ActorGone,
        }
    }

    fn refuse(&self, trigger: Trigger, error: BackupRequestError) -> ResponseFuture<Answer> {
        log_refusal(trigger, &error);
        self.board.record(&Event::BackupRefused { trigger });
        Box::pin(std::future::ready(Err(error)))
    }

    fn start(
        &mut self,
        trigger: Trigger,
        deadline: Deadline,
        waiting: Vec<oneshot::Sender<Answer>>,
        ctx: &mut Context<Self>,
    ) {
        tracing::info!(
            target: LOG,
            trigger = trigger.word(),
            remaining_ms = deadline.remaining().as_millis() as u64,
            "Starting {} backup...", trigger.word()
        );
        let progress = Progress::default();
        let since = self.plan.clock.now();
        let current = CurrentRun { trigger, since, progress: progress.clone() };
        self.board.record(&Event::BackupStarted(current.clone()));
        let (hurry, hurried) = Hurry::new();
        self.running = Some(Run { current, started: Instant::now(), waiting, hurry });
        let priority = match trigger {
            // Beside the app, which has to go on.
            Trigger::Tick | Trigger::Manual => Priority::Low,
            Trigger::Final => Priority::Normal,
        };
        let engine = self.plan.engine.clone().with_priority(priority);
        let (hooks, is_app_in_process) = (self.plan.hooks.clone(), self.plan.is_app_in_process);
        // A task of its own: a panic in it becomes a value, and it outlives this actor, with the
        // lock that keeps a successor from running beside it.
        let job = actix::spawn(async move {
            let made = Box::pin(async {
                // Not around the hooks: what they start would inherit it. Nor on the app's own thread.
                let is_beside = priority == Priority::Low && !is_app_in_process;
                let _beside_the_app = is_beside.then(OneLeftFree::begin);
                job::back_up(&engine, trigger, deadline, &progress).await
            });
            hooks.around((trigger, &hurried), engine.database(), deadline, made).await
        });
        ctx.spawn(
            actix::fut::wrap_future(job)
                .map(|joined, actor: &mut Self, ctx| actor.finished(joined, ctx)),
        );
    }

    /// Reports the run that is over to everyone, and runs the final backup if it waits.
    fn finished(
        &mut self,
        joined: Result<Result<BackupReport, HookedError>, JoinError>,
        ctx: &mut Context<Self>,
    ) {
        let Some(run) = self.running.take() else { return };
        let trigger = run.current.trigger;
        let answer = match joined {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(HookedError::Backup(BackupError::InProgress { holder }))) => {
                Err(BackupRequestError::InProgressElsewhere { holder })
            }
            Ok(Err(HookedError::Backup(error))) => Err(BackupRequestError::Failed(Arc::new(error))),
            Ok(Err(HookedError::Hook(error))) => Err(BackupRequestError::Hook(Arc::new(error))),
            Err(error) => Err(BackupRequestError::Panicked(panic_text(error))),
        };
        self.announce(trigger, run.started.elapsed(), &answer);
        for sender in run.waiting {
            // Err means that whoever asked has stopped waiting: the log and the status have it.
            let _nobody_waits = sender.send(answer.clone());
        }
        match self.admission.finished() {
            Next::RunFinal => {
                if let Some(QueuedFinal { deadline, waiting }) = self.queued.take() {
                    self.start(Trigger::Final, deadline, waiting, ctx);
                }
            }
            Next::Rest => memory::give_back(),
            Next::Close => {}
        }
    }

    fn announce(&self, trigger: Trigger, took: Duration, answer: &Answer) {
        match answer {
            Ok(report) => {
                tracing::info!(
                    target: LOG,
                    trigger = trigger.word(),
                    key = %report.key,
                    database_bytes = report.database_bytes,
                    archive_bytes = report.archive_bytes,
                    took_ms = report.took.as_millis() as u64,
                    "Backup completed in {}", text::seconds(report.took)
                );
                self.board.record(&Event::BackupMade { trigger, report: report.clone() });
            }
            Err(error) if error.is_refusal() => {
                log_refusal(trigger, error);
                self.board.record(&Event::BackupRefused { trigger });
                // Not a run of ours after all: nothing is in progress here.
                self.board.record(&Event::BackupEndedElsewhere);
            }
            Err(error) => {
                record_failure(&self.board, trigger, self.plan.clock.now(), took, error);
            }
        }
    }
}

impl Actor for BackupActor {
    type Context = Context<Self>;

    /// Asks the store what it has, so that the status tells the truth before the first tick.
    fn started(&mut self, _ctx: &mut Self::Context) {
        if self.board.read().stored.is_some() {
            memory::give_back();
            return;
        }
        let (engine, board) = (self.plan.engine.clone(), self.board.clone());
        actix::spawn(async move {
            match job::survey(&engine, Deadline::after(SURVEY_TIMEOUT)).await {
                Ok((inventory, fork)) => board.record(&Event::StoreSurveyed { inventory, fork }),
                Err(error) => {
                    let error = text::chain(&error);
                    board.record(&Event::SurveyFailed(error.clone()));
                    tracing::warn!(
                        target: LOG,
                        error,
                        "WARNING: The next backup is likely to fail: {error}"
                    );
                }
            }
            // Of the start, too.
            memory::give_back();
        });
    }
}

impl Handler<Tick> for BackupActor {
    type Result = ResponseFuture<Answer>;

    fn handle(&mut self, _message: Tick, ctx: &mut Self::Context) -> Self::Result {
        let deadline = Deadline::after(self.plan.run_timeout);
        self.request(Trigger::Tick, deadline, ctx)
    }
}

impl Handler<Backup> for BackupActor {
    type Result = ResponseFuture<Answer>;

    fn handle(&mut self, message: Backup, ctx: &mut Self::Context) -> Self::Result {
        self.request(message.trigger, message.deadline, ctx)
    }
}

impl Handler<ResumePruning> for BackupActor {
    type Result = ResponseFuture<Result<(), Arc<StoreError>>>;

    /// Beside a run that goes on: it read the mark before, and the next one prunes. The mark is
    /// the one that the status shows: a fenced instance has its own, beside the line.
    fn handle(&mut self, message: ResumePruning, _ctx: &mut Self::Context) -> Self::Result {
        let board = self.board.clone();
        let store = self.plan.engine.place_of(board.read().fork.as_ref());
        Box::pin(async move {
            store.resume_pruning(message.deadline).await?;
            tracing::info!(
                target: LOG,
                "Pruning resumed by a person, the next backup deletes the surplus"
            );
            board.record(&Event::PruningResumed);
            Ok(())
        })
    }
}

fn record_failure(
    board: &StatusBoard,
    trigger: Trigger,
    at: DateTime<Utc>,
    took: Duration,
    error: &BackupRequestError,
) {
    let error = error.to_string();
    tracing::error!(
        target: LOG,
        trigger = trigger.word(),
        error,
        took_ms = took.as_millis() as u64,
        "ERROR: {} backup failed: {error}", capitalised(trigger.word())
    );
    board.record(&Event::BackupFailed { trigger, at, took, error });
}

fn log_refusal(trigger: Trigger, error: &BackupRequestError) {
    match error {
        BackupRequestError::ShuttingDown => tracing::warn!(
            target: LOG,
            trigger = trigger.word(),
            "WARNING: Shutting down, {} backup refused", trigger.word()
        ),
        error => tracing::error!(
            target: LOG,
            trigger = trigger.word(),
            error = %error,
            "ERROR: Backup already in progress, skipping this attempt"
        ),
    }
}

/// Returns what a panic said.
pub(crate) fn panic_text(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "without a message".to_owned()),
        Err(_cancelled) => "the task was cancelled".to_owned(),
    }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
