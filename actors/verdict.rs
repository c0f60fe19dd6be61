//! Whether the data is safe, in one word: what a person wants to know first, and a monitor alone.
//!
//! Pure and total: the status, the schedule and the time go in. What else deserves a look, such as a
//! suspended pruning, is no part of it: the newest state is stored all the same.

use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::Schedule;
use crate::status::{LastBackup, Phase, Status};

/// How long after its due time a backup may be made before it is missed: it takes its time.
const GRACE: TimeDelta = TimeDelta::minutes(2);

/// Whether the data is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Backups are switched off.
    Off,
    /// The database is being restored, or the first backup is still to come.
    Starting,
    /// The last backup was made in time, and nothing has failed since.
    Safe,
    /// Two backups were due since the last one was made, or the next is overdue, or none will come.
    Late,
    /// The last backup or restore drill that was tried failed.
    Failing,
}

impl Verdict {
    /// Returns the word for it in status and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Safe => "safe",
            Self::Late => "late",
            Self::Failing => "failing",
        }
    }
}

/// Judges the status of a service that runs since `started_at` and backs up at the times of
/// `schedule`.
#[must_use]
pub fn verdict(
    status: &Status,
    schedule: &Schedule,
    started_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Verdict {
    if !status.enabled {
        return Verdict::Off;
    }
    if has_failed(status) {
        return Verdict::Failing;
    }
    if status.phase == Phase::Starting {
        return Verdict::Starting;
    }
    if is_late(status, schedule, started_at, now) {
        return Verdict::Late;
    }
    if status.last_backup.is_some() { Verdict::Safe } else { Verdict::Starting }
}

/// A drill that failed is over with the next backup, which is another object.
fn has_failed(status: &Status) -> bool {
    let made_at = status.last_backup.as_ref().map(|last| last.at);
    let verified_at = status.last_verified.as_ref().map(|drilled| drilled.ended_at);
    let is_news =
        |at: DateTime<Utc>, than: Option<DateTime<Utc>>| than.is_none_or(|than| at > than);
    let backup = status.last_error.as_ref().is_some_and(|error| is_news(error.at, made_at));
    let drill = status.last_verify_error.as_ref();
    let drill = drill.is_some_and(|(at, _)| is_news(*at, made_at) && is_news(*at, verified_at));
    backup || drill || status.restore_error.is_some()
}

fn is_late(
    status: &Status,
    schedule: &Schedule,
    started_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> bool {
    let is_stopping = status.phase == Phase::Stopping;
    if status.next_tick.is_some_and(|due| due + GRACE < now) {
        return true;
    }
    let since = match &status.last_backup {
        // What was restored equals its backup, however old that is.
        Some(LastBackup { at, .. }) if status.restored.is_some() => started_at.max(*at),
        Some(LastBackup { at, .. }) => *at,
        None => started_at,
    };
    let Some(first) = schedule.next_after(since) else { return !is_stopping };
    schedule.next_after(first).is_some_and(|second| second + GRACE < now)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use simplebackup_engine::key::BackupKey;
    use simplebackup_engine::manifest::Counted;
    use simplebackup_engine::restore::{Drilled, RestoreReport};

    use super::Verdict::{Failing, Late, Off, Safe, Starting};
    use super::*;
    use crate::messages::Trigger;
    use crate::status::LastError;

    /// Noon; the service started an hour and a half before, backups are due at every full hour.
    const NOON: i64 = 1_732_449_600;
    const STARTED: i64 = NOON - 5400;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("in range")
    }

    fn key() -> BackupKey {
        BackupKey::parse("db-backup-5.db.gz").expect("a valid name")
    }

    fn running() -> Status {
        let next_tick = Some(at(NOON + 3600));
        Status { enabled: true, phase: Phase::Running, next_tick, ..Status::default() }
    }

    fn made(status: Status, second: i64) -> Status {
        let last = LastBackup { key: key(), at: at(second), archive_bytes: 1 };
        Status { last_backup: Some(last), ..status }
    }

    fn failed(status: Status, second: i64) -> Status {
        let error =
            LastError { trigger: Trigger::Tick, at: at(second), error: "refused".to_owned() };
        Status { last_error: Some(error), ..status }
    }

    fn drill_failed(status: Status, second: i64) -> Status {
        Status { last_verify_error: Some((at(second), "damaged".to_owned())), ..status }
    }

    fn verified(status: Status, second: i64) -> Status {
        let drilled = Drilled {
            key: key(),
            ended_at: at(second),
            database_bytes: 1,
            archive_bytes: 1,
            counted: Counted { tables: 1, rows: 1 },
            took: Duration::ZERO,
            unverified_tables: Vec::new(),
            metadata_warning: None,
        };
        Status { last_verified: Some(drilled), ..status }
    }

    fn restored(status: Status) -> Status {
        let report = RestoreReport {
            key: key(),
            made_at: at(0),
            database_bytes: 1,
            archive_bytes: 1,
            took: Duration::ZERO,
            stored: 1,
            stored_bytes: 1,
            backups: Arc::default(),
            unverified_tables: Vec::new(),
            replaced: None,
            suspension: None,
        };
        Status { restored: Some(report), ..status }
    }

    #[track_caller]
    fn check(cases: Vec<(&str, Status, Verdict)>) {
        let hourly: Schedule = "0 0 * * * *".parse().expect("valid");
        for (claim, status, expect) in cases {
            let now = at(NOON + 600);
            assert_eq!(verdict(&status, &hourly, at(STARTED), now), expect, "{claim}");
        }
    }

    #[test]
    fn the_first_backup_is_awaited_not_missed() {
        let restoring = Status { enabled: true, ..Status::default() };
        let unreadable = Status { restore_error: Some("refused".to_owned()), ..restoring.clone() };
        check(vec![
            ("backups are off", Status { enabled: false, ..failed(running(), NOON) }, Off),
            ("restoring", restoring, Starting),
            ("the restore failed", unreadable, Failing),
            ("nothing is stored, two were due since the start", running(), Late),
        ]);
        let hourly: Schedule = "0 0 * * * *".parse().expect("valid");
        // Started at half past ten: the second due time is noon, and it has its two minutes.
        for (now, expect) in [(NOON - 1, Starting), (NOON + 120, Starting), (NOON + 121, Late)] {
            assert_eq!(verdict(&running(), &hourly, at(STARTED), at(now)), expect, "{now}");
        }
    }

    #[test]
    fn what_failed_after_the_last_success_is_failing() {
        let fresh = || made(running(), NOON + 5);
        check(vec![
            ("made in time", fresh(), Safe),
            ("failed before it was made", failed(fresh(), NOON), Safe),
            ("failed after it was made", failed(fresh(), NOON + 6), Failing),
            ("failed, none was ever made", failed(running(), NOON), Failing),
            ("a drill failed after it was made", drill_failed(fresh(), NOON + 6), Failing),
            ("a drill failed before it was made", drill_failed(fresh(), NOON), Safe),
            ("and the next was sound", verified(drill_failed(fresh(), NOON + 6), NOON + 9), Safe),
            ("sound, then failed", drill_failed(verified(fresh(), NOON + 6), NOON + 9), Failing),
        ]);
    }

    #[test]
    fn two_due_times_without_a_success_are_late() {
        let old = || made(running(), NOON - 7200);
        let overdue = Status { next_tick: Some(at(NOON)), ..made(running(), NOON - 3) };
        let stopping = |status| Status { phase: Phase::Stopping, next_tick: None, ..status };
        check(vec![
            ("one was due since", made(running(), NOON - 3600 + 5), Safe),
            ("two were due since", old(), Late),
            ("restored from it an hour and a half ago", restored(old()), Late),
            ("the next is overdue", overdue, Late),
            ("on the way out, in time", stopping(made(running(), NOON + 5)), Safe),
            ("on the way out, late", stopping(old()), Late),
        ]);
        let never: Schedule = "0 0 0 1 1 * 2000".parse().expect("valid");
        let last = Status { next_tick: None, ..made(running(), NOON) };
        assert_eq!(verdict(&last, &never, at(STARTED), at(NOON)), Late, "none will come");
        assert_eq!(verdict(&stopping(last), &never, at(STARTED), at(NOON)), Safe);
        let hourly: Schedule = "0 0 * * * *".parse().expect("valid");
        let just = restored(old());
        assert_eq!(verdict(&just, &hourly, at(NOON - 60), at(NOON + 600)), Safe, "just restored");
    }
}
