//! What is worth telling somebody outside, made of the events of the board. Pure: what a channel
//! makes of a notice, and how it gets there, is not known here.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use simplebackup_actors::app::AppEnd;
use simplebackup_actors::messages::Trigger;
use simplebackup_actors::status::{Event, Phase, Status};
use simplebackup_engine::backup::BackupReport;
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::lease::Fork;
use simplebackup_engine::restore::Outcome;
use simplebackup_engine::text;

/// What happened. The README lists the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    BackupStarted,
    BackupMade,
    BackupFailed,
    RestoreDone,
    RestoreFailed,
    DrillPassed,
    DrillFailed,
    PruningSuspended,
    PruningResumed,
    Fenced,
    Unfenced,
    AppFailed,
    Test,
}

impl Kind {
    /// Returns its name in the webhook's JSON and in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BackupStarted => "backup_started",
            Self::BackupMade => "backup_made",
            Self::BackupFailed => "backup_failed",
            Self::RestoreDone => "restore_done",
            Self::RestoreFailed => "restore_failed",
            Self::DrillPassed => "drill_passed",
            Self::DrillFailed => "drill_failed",
            Self::PruningSuspended => "pruning_suspended",
            Self::PruningResumed => "pruning_resumed",
            Self::Fenced => "fenced",
            Self::Unfenced => "unfenced",
            Self::AppFailed => "app_failed",
            Self::Test => "test",
        }
    }

    /// Returns whether a person has to look at it.
    pub(crate) fn is_failure(self) -> bool {
        matches!(
            self,
            Self::BackupFailed
                | Self::RestoreFailed
                | Self::DrillFailed
                | Self::PruningSuspended
                | Self::Fenced
                | Self::AppFailed
        )
    }
}

/// Says who has the lease, behind a sentence about it.
pub(crate) fn taken_by(fork: &Fork) -> String {
    format!("instance {} took it", fork.holder)
}

/// One thing that happened. Facts that do not belong to it are not there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Notice {
    pub(crate) kind: Kind,
    pub(crate) at: DateTime<Utc>,
    /// Whether it ends a failure of which was told before.
    pub(crate) is_recovery: bool,
    pub(crate) trigger: Option<Trigger>,
    pub(crate) took: Option<Duration>,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) key: Option<BackupKey>,
    /// Why, of a failure.
    pub(crate) error: Option<String>,
}

impl Notice {
    /// Makes a notice without facts.
    pub(crate) fn of(kind: Kind, at: DateTime<Utc>) -> Self {
        let is_recovery = matches!(kind, Kind::PruningResumed | Kind::Unfenced);
        Self {
            kind,
            at,
            is_recovery,
            trigger: None,
            took: None,
            size_bytes: None,
            key: None,
            error: None,
        }
    }

    /// Makes a notice of a failure.
    pub(crate) fn of_failure(kind: Kind, at: DateTime<Utc>, error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::of(kind, at) }
    }

    /// Makes a notice of a start that came to nothing before there was anything to restore.
    pub(crate) fn of_failed_start(error: impl Into<String>) -> Self {
        Self::of_failure(Kind::RestoreFailed, Utc::now(), error)
    }

    /// Makes a notice of a backup that was made.
    pub(crate) fn of_backup(report: &BackupReport) -> Self {
        Self {
            took: Some(report.took),
            size_bytes: Some(report.archive_bytes),
            key: Some(report.key),
            ..Self::of(Kind::BackupMade, report.ended_at)
        }
    }

    /// Returns the sentence for people.
    pub(crate) fn text(&self, host: &str, database: &Path) -> String {
        let database = database.display();
        let trigger = self.trigger.map_or("", Trigger::word);
        let error = self.error.as_deref().unwrap_or("for an unknown reason");
        let after = self.took.map_or_else(String::new, |took| format!(" in {}", text::span(took)));
        let again = if self.is_recovery { " again" } else { "" };
        let key = self.key.map_or_else(String::new, |key| format!(": {key}"));
        let size = self.size_bytes.map_or_else(String::new, |b| format!(" ({})", text::size(b)));
        let sentence = match self.kind {
            Kind::BackupStarted => format!("{trigger} backup of {database} started"),
            Kind::BackupMade => {
                format!("{trigger} backup of {database} made{again}{key}{size}{after}")
            }
            Kind::BackupFailed => format!("{trigger} backup of {database} FAILED{after}: {error}"),
            Kind::RestoreDone => format!("{database} restored{key}{size}{after}"),
            Kind::RestoreFailed => {
                format!("restore of {database} FAILED{after}, the app was not started: {error}")
            }
            Kind::DrillPassed => {
                format!("restore drill of {database} passed{again}{key}{size}{after}")
            }
            Kind::DrillFailed => format!("restore drill of {database} FAILED: {error}"),
            Kind::PruningSuspended => format!(
                "{database} looks EMPTIED, no old backup is deleted until a person confirms: {error}"
            ),
            Kind::PruningResumed => format!("old backups of {database} are deleted again"),
            Kind::Fenced => {
                format!(
                    "another instance has the lease, backups of {database} go beside the line: {error}"
                )
            }
            Kind::Unfenced => format!("backups of {database} go into the line again"),
            Kind::AppFailed => format!("the app of {database} ended badly: {error}"),
            Kind::Test => format!("a test of the notifications about {database}"),
        };
        format!("{host}: {sentence}")
    }
}

/// What was told, so that a recovery is told only after its failure.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Failures that are not over.
    failing: Vec<Kind>,
}

impl Memory {
    /// Returns what is to be told of an event, and of the status that it led to.
    pub(super) fn notices(
        &mut self,
        event: &Event,
        status: &Status,
        now: DateTime<Utc>,
    ) -> Vec<Notice> {
        let mut notices: Vec<_> = self.of_event(event, status, now).into_iter().collect();
        let reason = status.suspension.as_ref().map(|suspension| suspension.reason.clone());
        notices.extend(self.of_state((Kind::PruningSuspended, Kind::PruningResumed), reason, now));
        let holder = status.fork.as_ref().map(taken_by);
        notices.extend(self.of_state((Kind::Fenced, Kind::Unfenced), holder, now));
        notices
    }

    /// Notes that something fails, and returns whether that is new.
    fn begin(&mut self, failure: Kind) -> bool {
        let is_new = !self.failing.contains(&failure);
        if is_new {
            self.failing.push(failure);
        }
        is_new
    }

    /// Notes that something does not fail any more, and returns whether it did.
    fn end(&mut self, failure: Kind) -> bool {
        let before = self.failing.len();
        self.failing.retain(|&kind| kind != failure);
        self.failing.len() < before
    }

    /// Returns what is to be told of a state that lasts: its begin and its end.
    fn of_state(
        &mut self,
        (begun, ended): (Kind, Kind),
        why: Option<String>,
        now: DateTime<Utc>,
    ) -> Option<Notice> {
        match why {
            Some(why) => self.begin(begun).then(|| Notice::of_failure(begun, now, why)),
            None => self.end(begun).then(|| Notice::of(ended, now)),
        }
    }

    fn of_event(&mut self, event: &Event, status: &Status, now: DateTime<Utc>) -> Option<Notice> {
        Some(match event {
            Event::BackupStarted(run) => {
                Notice { trigger: Some(run.trigger), ..Notice::of(Kind::BackupStarted, run.since) }
            }
            Event::BackupMade { trigger, report } => Notice {
                is_recovery: self.end(Kind::BackupFailed),
                trigger: Some(*trigger),
                ..Notice::of_backup(report)
            },
            Event::BackupFailed { trigger, at, took, error } => {
                self.begin(Kind::BackupFailed);
                let failure = Notice::of_failure(Kind::BackupFailed, *at, error);
                Notice { trigger: Some(*trigger), took: Some(*took), ..failure }
            }
            Event::RestoreEnded { result: Ok(Outcome::FromBackup(report)), .. } => Notice {
                took: Some(report.took),
                size_bytes: Some(report.archive_bytes),
                key: Some(report.key),
                ..Notice::of(Kind::RestoreDone, now)
            },
            Event::RestoreEnded { result: Err(error), took } => {
                Notice { took: Some(*took), ..Notice::of_failure(Kind::RestoreFailed, now, error) }
            }
            Event::Verified(drilled) => Notice {
                is_recovery: self.end(Kind::DrillFailed),
                took: Some(drilled.took),
                size_bytes: Some(drilled.archive_bytes),
                key: Some(drilled.key),
                ..Notice::of(Kind::DrillPassed, drilled.ended_at)
            },
            Event::VerifyFailed { at, error, .. } => {
                self.begin(Kind::DrillFailed);
                Notice::of_failure(Kind::DrillFailed, *at, error)
            }
            Event::AppEnded(end) if is_bad(*end, status.phase) => {
                Notice::of_failure(Kind::AppFailed, now, format!("it ended with {end}"))
            }
            _ => return None,
        })
    }
}

/// Returns whether an app should not have ended in this way. At a stop each code is its own affair,
/// and SIGTERM is what it was sent; that it had to be killed is not.
fn is_bad(end: AppEnd, phase: Phase) -> bool {
    const KILL: i32 = 9;
    if phase == Phase::Stopping { end == AppEnd::Signalled(KILL) } else { end.exit_code() != 0 }
}

#[cfg(test)]
mod tests {
    use simplebackup_engine::store::Suspension;

    use super::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn failed(error: &str) -> Event {
        Event::BackupFailed {
            trigger: Trigger::Tick,
            at: NOW,
            took: Duration::from_millis(1200),
            error: error.to_owned(),
        }
    }

    fn kinds(memory: &mut Memory, event: &Event, status: &Status) -> Vec<Kind> {
        memory.notices(event, status, NOW).iter().map(|notice| notice.kind).collect()
    }

    #[test]
    fn every_failure_is_told_with_its_words() {
        let mut memory = Memory::default();
        for error in ["one", "two"] {
            let told = memory.notices(&failed(error), &Status::default(), NOW);
            let expected = format!("web-1: hourly backup of /app.db FAILED in 1.2s: {error}");
            assert_eq!(told[0].text("web-1", Path::new("/app.db")), expected);
        }
        assert!(memory.end(Kind::BackupFailed) && !memory.end(Kind::BackupFailed));
    }

    #[test]
    fn a_state_is_told_when_it_begins_and_when_it_ends() {
        let mut memory = Memory::default();
        let suspension = Some(Suspension { since: NOW, reason: "all tables gone".to_owned() });
        let suspended = Status { suspension, ..Status::default() };
        let event = Event::NextTick(None);
        assert_eq!(kinds(&mut memory, &event, &suspended), [Kind::PruningSuspended]);
        assert_eq!(kinds(&mut memory, &event, &suspended), []);
        assert_eq!(kinds(&mut memory, &event, &Status::default()), [Kind::PruningResumed]);
        assert_eq!(kinds(&mut memory, &event, &Status::default()), []);
    }

    #[test]
    fn an_app_ends_badly_or_as_it_should() {
        use AppEnd::{Exited, Left, Signalled};
        let table = [
            (Phase::Running, Exited(0), false),
            (Phase::Running, Exited(3), true),
            (Phase::Running, Signalled(11), true),
            (Phase::Running, Left, false),
            (Phase::Stopping, Exited(1), false),
            (Phase::Stopping, Exited(143), false),
            (Phase::Stopping, Signalled(15), false),
            (Phase::Stopping, Signalled(9), true),
        ];
        for (phase, end, expected) in table {
            let status = Status { phase, ..Status::default() };
            let told = kinds(&mut Memory::default(), &Event::AppEnded(end), &status);
            assert_eq!(told == [Kind::AppFailed], expected, "{phase:?} {end:?}");
        }
    }
}
