//! What the service knows of itself, for whoever asks: readers look at a watch channel and never
//! wait for an actor.
//!
//! The actors record [`Event`]s on the [`StatusBoard`]; the board keeps the [`Status`] up to date
//! and passes each event on, which is how metrics and pings hear of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use simplebackup_engine::backup::BackupReport;
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::lease::Fork;
use simplebackup_engine::manifest::Manifest;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Drilled, Outcome, RestoreReport};
use simplebackup_engine::store::{Inventory, StoredBackup, Suspension};
use tokio::sync::watch;

use crate::app::AppEnd;
use crate::messages::Trigger;

/// Where the service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// The database is being restored; the app has not started.
    #[default]
    Starting,
    /// The app runs.
    Running,
    /// On the way out.
    Stopping,
}

/// What happened; recorded by the actor to which it happened.
#[derive(Debug)]
pub enum Event {
    /// The service entered a phase.
    Phase(Phase),
    /// The restore is over, well or not.
    RestoreEnded {
        /// What it came to, or the error in one line.
        result: Result<Outcome, String>,
        /// How long it took.
        took: Duration,
    },
    /// A backup began.
    BackupStarted(CurrentRun),
    /// A backup was made.
    BackupMade {
        /// Who asked.
        trigger: Trigger,
        /// What was made.
        report: BackupReport,
    },
    /// A backup failed.
    BackupFailed {
        /// Who asked.
        trigger: Trigger,
        /// When.
        at: DateTime<Utc>,
        /// How long it took to fail.
        took: Duration,
        /// The error in one line.
        error: String,
    },
    /// A request was refused: in progress, or stopping.
    BackupRefused {
        /// Who asked.
        trigger: Trigger,
    },
    /// A run found that another process runs one: nothing is in progress here any more.
    BackupEndedElsewhere,
    /// What the store holds was read at the start.
    StoreSurveyed {
        /// What it holds, of ours.
        inventory: Inventory,
        /// Why backups go beside the line, if they do.
        fork: Option<Fork>,
    },
    /// What the store holds could not be read at the start: the error in one line.
    SurveyFailed(String),
    /// What stored backups say of themselves was read; nothing of those that say nothing.
    BackupsDescribed(Vec<(BackupKey, Option<Manifest>)>),
    /// A person confirmed that a database that looked emptied is right.
    PruningResumed,
    /// A restore drill began.
    VerifyStarted(CurrentRun),
    /// A restore drill was dropped, by a stop.
    VerifyStopped,
    /// A restore drill found the newest backup sound.
    Verified(Drilled),
    /// A restore drill failed: a backup that is damaged, or none, or one that can't be had.
    VerifyFailed {
        /// When.
        at: DateTime<Utc>,
        /// The backup, if it is the one that is to blame.
        damaged: Option<BackupKey>,
        /// The error in one line.
        error: String,
    },
    /// The next tick is due, or there is none.
    NextTick(Option<DateTime<Utc>>),
    /// Ticks went by unseen (a suspended machine, a clock set forward).
    TicksMissed(usize),
    /// The app runs; its process id if it has one.
    AppStarted(Option<u32>),
    /// The app ended.
    AppEnded(AppEnd),
    /// Actors were replaced.
    ActorsRestarted,
}

/// A backup that runs, or a restore drill.
#[derive(Debug, Clone)]
pub struct CurrentRun {
    /// Who asked.
    pub trigger: Trigger,
    /// Since when.
    pub since: DateTime<Utc>,
    /// How far it is.
    pub progress: Progress,
}

/// The last backup that was made, or that the store had at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastBackup {
    /// Its name.
    pub key: BackupKey,
    /// When it was complete.
    pub at: DateTime<Utc>,
    /// The size of the archive in bytes.
    pub archive_bytes: u64,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// Who asked for the backup.
    pub trigger: Trigger,
    /// When it failed.
    pub at: DateTime<Utc>,
    /// The error in one line.
    pub error: String,
}

/// What became of the requests of one trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Backups made.
    pub succeeded: u64,
    /// Backups tried and failed.
    pub failed: u64,
    /// Requests refused.
    pub refused: u64,
}

/// How the app is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppState {
    /// It has not started.
    #[default]
    NotStarted,
    /// It runs; its process id if it has one.
    Running(Option<u32>),
    /// It ended.
    Ended(AppEnd),
}

/// Everything at one moment. Written by the board only.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Whether backups are switched on.
    pub enabled: bool,
    /// Where the service is in its life.
    pub phase: Phase,
    /// The restore at the start, if there was one.
    pub restored: Option<RestoreReport>,
    /// Why the restore failed.
    pub restore_error: Option<String>,
    /// The backup that runs.
    pub current: Option<CurrentRun>,
    /// The newest backup.
    pub last_backup: Option<LastBackup>,
    /// The report of the last backup that this process made.
    pub last_report: Option<(Trigger, BackupReport)>,
    /// The last failure.
    pub last_error: Option<LastError>,
    /// Counts by trigger, in the order of [`Trigger::ALL`].
    pub counts: [Counts; 3],
    /// How many backups are stored and their bytes; nothing before the store was asked.
    pub stored: Option<(usize, u64)>,
    /// Those backups, oldest first.
    pub backups: Arc<[StoredBackup]>,
    /// Why what is stored could not be read at the start; until a backup is made.
    pub survey_error: Option<String>,
    /// Why nothing is deleted, for now.
    pub suspension: Option<Suspension>,
    /// Whether a person confirmed during the run that goes on, whose report does not know it.
    pub resumed_in_run: bool,
    /// Why backups go beside the line, if they do.
    pub fork: Option<Fork>,
    /// The restore drill that runs.
    pub drill: Option<CurrentRun>,
    /// The last restore drill of this process that went well.
    pub last_verified: Option<Drilled>,
    /// When the last one that failed did so, and why.
    pub last_verify_error: Option<(DateTime<Utc>, String)>,
    /// When the next tick is due.
    pub next_tick: Option<DateTime<Utc>>,
    /// Ticks that went by unseen.
    pub ticks_missed: usize,
    /// How the app is.
    pub app: AppState,
    /// How often actors were replaced.
    pub restarts: u32,
}

impl Status {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Phase(phase) => self.phase = *phase,
            Event::RestoreEnded { result, .. } => self.restore_ended(result),
            Event::BackupStarted(run) => {
                self.current = Some(run.clone());
                self.resumed_in_run = false;
            }
            Event::BackupMade { trigger, report } => self.backup_made(*trigger, report),
            Event::BackupFailed { trigger, at, error, .. } => {
                self.current = None;
                self.counts[trigger.index()].failed += 1;
                self.last_error =
                    Some(LastError { trigger: *trigger, at: *at, error: error.clone() });
            }
            Event::BackupRefused { trigger } => self.counts[trigger.index()].refused += 1,
            Event::BackupEndedElsewhere => self.current = None,
            Event::StoreSurveyed { inventory, fork } => self.surveyed(inventory, fork.as_ref()),
            Event::SurveyFailed(error) => self.survey_error = Some(error.clone()),
            // Who looks at single backups remembers it; whoever waits for a change hears of one.
            Event::BackupsDescribed(_) => {}
            Event::PruningResumed => {
                self.suspension = None;
                self.resumed_in_run = self.current.is_some();
            }
            Event::VerifyStarted(run) => self.drill = Some(run.clone()),
            Event::VerifyStopped => self.drill = None,
            Event::Verified(drilled) => {
                self.drill = None;
                self.last_verified = Some(drilled.clone());
            }
            Event::VerifyFailed { at, error, .. } => {
                self.drill = None;
                self.last_verify_error = Some((*at, error.clone()));
            }
            Event::NextTick(next) => self.next_tick = *next,
            Event::TicksMissed(count) => self.ticks_missed += count,
            Event::AppStarted(pid) => self.app = AppState::Running(*pid),
            Event::AppEnded(end) => self.app = AppState::Ended(*end),
            Event::ActorsRestarted => {
                self.restarts += 1;
                // The job of the dead actor may still run, but nobody hears of its end.
                self.current = None;
                self.drill = None;
            }
        }
    }

    fn restore_ended(&mut self, result: &Result<Outcome, String>) {
        match result {
            Ok(Outcome::FromBackup(report)) => {
                self.stored = Some((report.stored, report.stored_bytes));
                self.backups = Arc::clone(&report.backups);
                self.last_backup = Some(LastBackup {
                    key: report.key,
                    at: report.made_at,
                    archive_bytes: report.archive_bytes,
                });
                self.suspension.clone_from(&report.suspension);
                self.restored = Some(report.clone());
            }
            Ok(Outcome::NothingStored) => self.stored = Some((0, 0)),
            Ok(Outcome::AlreadyThere | Outcome::Disabled) => {}
            Err(error) => self.restore_error = Some(error.clone()),
        }
    }

    fn backup_made(&mut self, trigger: Trigger, report: &BackupReport) {
        self.current = None;
        self.counts[trigger.index()].succeeded += 1;
        self.stored = Some((report.stored, report.stored_bytes));
        self.backups = Arc::clone(&report.backups);
        self.survey_error = None;
        if !std::mem::take(&mut self.resumed_in_run) {
            self.suspension.clone_from(&report.suspension);
        }
        self.fork.clone_from(&report.fork);
        self.last_backup = Some(LastBackup {
            key: report.key,
            at: report.ended_at,
            archive_bytes: report.archive_bytes,
        });
        self.last_report = Some((trigger, report.clone()));
    }

    /// A survey is older than whatever a backup has reported since.
    fn surveyed(&mut self, inventory: &Inventory, fork: Option<&Fork>) {
        if self.last_report.is_some() {
            return;
        }
        let stored = &inventory.backups;
        self.fork = fork.cloned();
        self.suspension.clone_from(&inventory.suspension);
        self.stored = Some((stored.len(), stored.iter().map(|backup| backup.archive_bytes).sum()));
        self.backups = stored.as_slice().into();
        self.survey_error = None;
        self.last_backup = stored.last().map(|backup| LastBackup {
            key: backup.key,
            at: backup.made_at(),
            archive_bytes: backup.archive_bytes,
        });
    }
}

/// Hears of every event, with the status that it led to. Must not block.
pub type Observer = Arc<dyn Fn(&Event, &Status) + Send + Sync>;

/// Where the actors record what happens. Clones share it.
#[derive(Clone)]
pub struct StatusBoard {
    status: Arc<watch::Sender<Status>>,
    observers: Arc<[Observer]>,
}

impl fmt::Debug for StatusBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatusBoard({:?})", self.status.borrow().phase)
    }
}

impl StatusBoard {
    /// Makes a board for a service with backups switched on or off.
    #[must_use]
    pub fn new(enabled: bool, observers: Vec<Observer>) -> Self {
        let status = watch::Sender::new(Status { enabled, ..Status::default() });
        Self { status: Arc::new(status), observers: observers.into() }
    }

    /// Records an event.
    pub fn record(&self, event: &Event) {
        self.status.send_modify(|status| status.apply(event));
        let status = self.status.borrow();
        for observer in &*self.observers {
            observer(event, &status);
        }
    }

    /// Returns a channel that shows every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Returns the status now.
    #[must_use]
    pub fn read(&self) -> Status {
        self.status.borrow().clone()
    }
}
