//! What the routes say, as JSON. The service's own types are not serializable: these are, and
//! they are the contract with whoever reads them.

mod history;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use simplebackup_actors::messages::Trigger;
use simplebackup_actors::status::{AppState, Counts, CurrentRun, Phase, Status};
use simplebackup_engine::backup::BackupReport;
use simplebackup_engine::lease::Fork;
use simplebackup_engine::restore::{Drilled, RestoreReport};
use simplebackup_engine::store::Suspension;

pub(super) use self::history::HistoryView;
use super::Shared;
use super::warnings::{Warning, warnings};
use crate::version;

/// `GET /health` and `GET /health/ready`.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    pub(super) status: &'static str,
}

/// An answer that is none.
#[derive(Debug, Serialize)]
pub(super) struct Refusal<'a> {
    pub(super) error: &'a str,
}

/// `GET /health/backup-status`: the six fields of the specification.
#[derive(Debug, Serialize)]
pub(super) struct BackupStatus {
    enabled: bool,
    last_backup: Option<String>,
    last_backup_size_bytes: Option<u64>,
    next_backup: Option<String>,
    backup_count: usize,
    restored_on_startup: bool,
}

impl BackupStatus {
    pub(super) fn of(status: &Status) -> Self {
        let last = status.last_backup.as_ref();
        Self {
            enabled: status.enabled,
            last_backup: last.map(|last| time(last.at)),
            last_backup_size_bytes: last.map(|last| last.archive_bytes),
            next_backup: status.next_tick.map(time),
            // Zero until the store was asked, moments after the start.
            backup_count: status.stored.map_or(0, |(count, _)| count),
            restored_on_startup: status.restored.is_some(),
        }
    }
}

/// `GET /status` and each event of `GET /events`: a status, and when it was so.
#[derive(Debug, Serialize)]
pub(super) struct Timed<'a> {
    now: String,
    #[serde(flatten)]
    status: &'a ServiceStatus,
}

impl<'a> Timed<'a> {
    pub(super) fn now(shared: &Shared, status: &'a ServiceStatus) -> Self {
        Self { now: time(shared.clock.now()), status }
    }
}

/// `GET /status`: everything else.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct ServiceStatus {
    database: String,
    version: &'static str,
    commit: &'static str,
    sqlite: &'static str,
    started_at: String,
    phase: &'static str,
    enabled: bool,
    verdict: &'static str,
    warnings: Vec<Warning>,
    /// Whether a `POST` can be let in at all.
    token_configured: bool,
    /// Changes whenever `GET /history` has something new.
    revision: u64,
    current: Option<Current>,
    last_backup: Option<Newest>,
    last_report: Option<Report>,
    last_error: Option<Failure>,
    counts: ByTrigger,
    next_tick: Option<String>,
    ticks_missed: usize,
    stored: Option<Stored>,
    pruning_suspended: Option<SuspensionView>,
    fork: Option<ForkView>,
    restore: Option<Restore>,
    restore_error: Option<String>,
    store_error: Option<String>,
    drill: Option<Current>,
    last_verified: Option<Verified>,
    last_verify_error: Option<VerifyFailure>,
    app: AppView,
    restarts: u32,
}

impl ServiceStatus {
    pub(super) fn of(shared: &Shared, status: &Status) -> Self {
        let verdict = shared.verdict(status);
        let revision = shared.history.kept().revision;
        Self {
            database: shared.database.clone(),
            version: version::NUMBER,
            commit: version::COMMIT,
            sqlite: rusqlite::version(),
            started_at: time(shared.started_at),
            phase: phase_name(status),
            enabled: status.enabled,
            verdict: verdict.word(),
            warnings: warnings(status, verdict, &shared.surroundings),
            token_configured: shared.token.is_some(),
            revision,
            current: status.current.as_ref().map(Current::of),
            last_backup: status.last_backup.as_ref().map(|last| Newest {
                key: last.key.to_string(),
                at: time(last.at),
                archive_bytes: last.archive_bytes,
            }),
            last_report: status.last_report.as_ref().map(|(by, report)| Report::of(*by, report)),
            last_error: status.last_error.as_ref().map(|error| Failure {
                trigger: error.trigger.word(),
                at: time(error.at),
                error: error.error.clone(),
            }),
            counts: ByTrigger::of(&status.counts),
            next_tick: status.next_tick.map(time),
            ticks_missed: status.ticks_missed,
            stored: status.stored.map(|(count, bytes)| Stored { count, bytes }),
            pruning_suspended: status.suspension.as_ref().map(SuspensionView::of),
            fork: status.fork.as_ref().map(ForkView::of),
            restore: status.restored.as_ref().map(Restore::of),
            restore_error: status.restore_error.clone(),
            store_error: status.survey_error.clone(),
            drill: status.drill.as_ref().map(Current::of),
            last_verified: status.last_verified.as_ref().map(Verified::of),
            last_verify_error: status
                .last_verify_error
                .as_ref()
                .map(|(at, error)| VerifyFailure { at: time(*at), error: error.clone() }),
            app: AppView::of(status.app),
            restarts: status.restarts,
        }
    }
}

#[derive(Debug, PartialEq, Serialize)]
struct Current {
    trigger: &'static str,
    since: String,
    stage: &'static str,
    done_bytes: u64,
    total_bytes: u64,
}

impl Current {
    fn of(run: &CurrentRun) -> Self {
        let (done_bytes, total_bytes) = run.progress.bytes();
        Self {
            trigger: run.trigger.word(),
            since: time(run.since),
            stage: run.progress.stage().name(),
            done_bytes,
            total_bytes,
        }
    }
}

#[derive(Debug, PartialEq, Serialize)]
struct Newest {
    key: String,
    at: String,
    archive_bytes: u64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Failure {
    trigger: &'static str,
    at: String,
    error: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Stored {
    count: usize,
    bytes: u64,
}

#[derive(Debug, PartialEq, Serialize)]
struct SuspensionView {
    since: String,
    reason: String,
}

impl SuspensionView {
    fn of(suspension: &Suspension) -> Self {
        Self { since: time(suspension.since), reason: suspension.reason.clone() }
    }
}

#[derive(Debug, PartialEq, Serialize)]
struct ForkView {
    instance: String,
    lease_holder: String,
    since: String,
}

impl ForkView {
    fn of(fork: &Fork) -> Self {
        Self {
            instance: fork.instance.to_string(),
            lease_holder: fork.holder.to_string(),
            since: time(fork.since),
        }
    }
}

#[derive(Debug, PartialEq, Serialize)]
struct ByTrigger {
    hourly: CountsView,
    manual: CountsView,
    shutdown: CountsView,
}

impl ByTrigger {
    fn of(counts: &[Counts; 3]) -> Self {
        let of = |trigger: Trigger| {
            let Counts { succeeded, failed, refused } = counts[trigger.index()];
            CountsView { succeeded, failed, refused }
        };
        Self {
            hourly: of(Trigger::Tick),
            manual: of(Trigger::Manual),
            shutdown: of(Trigger::Final),
        }
    }
}

#[derive(Debug, PartialEq, Serialize)]
struct CountsView {
    succeeded: u64,
    failed: u64,
    refused: u64,
}

/// A backup that was made: in `GET /status` and as the answer to `POST /backup`.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Report {
    trigger: &'static str,
    key: String,
    ended_at: String,
    database_bytes: u64,
    archive_bytes: u64,
    took_ms: u64,
    stored: usize,
    deleted: usize,
    cleanup_warning: Option<String>,
    pruning_suspended: Option<SuspensionView>,
    fork: Option<ForkView>,
    unchanged: bool,
    tables: u64,
    rows: u64,
    sha256: String,
    unverified_tables: Vec<String>,
}

impl Report {
    pub(super) fn of(trigger: Trigger, report: &BackupReport) -> Self {
        Self {
            trigger: trigger.word(),
            key: report.key.to_string(),
            ended_at: time(report.ended_at),
            database_bytes: report.database_bytes,
            archive_bytes: report.archive_bytes,
            took_ms: report.took.as_millis() as u64,
            stored: report.stored,
            deleted: report.deleted,
            cleanup_warning: report.delete_warning.clone(),
            pruning_suspended: report.suspension.as_ref().map(SuspensionView::of),
            fork: report.fork.as_ref().map(ForkView::of),
            unchanged: report.is_unchanged,
            tables: report.contents.tables,
            rows: report.contents.rows,
            sha256: report.contents.sha256.clone(),
            unverified_tables: report.unverified_tables.clone(),
        }
    }
}

#[derive(Debug, PartialEq, Serialize)]
struct Restore {
    key: String,
    database_bytes: u64,
    archive_bytes: u64,
    took_ms: u64,
    unverified_tables: Vec<String>,
}

impl Restore {
    fn of(report: &RestoreReport) -> Self {
        Self {
            key: report.key.to_string(),
            database_bytes: report.database_bytes,
            archive_bytes: report.archive_bytes,
            took_ms: report.took.as_millis() as u64,
            unverified_tables: report.unverified_tables.clone(),
        }
    }
}

/// A restore drill that found a sound backup: in `GET /status` and as the answer to `POST /verify`.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Verified {
    key: String,
    at: String,
    tables: u64,
    rows: u64,
    database_bytes: u64,
    took_ms: u64,
    unverified_tables: Vec<String>,
    metadata_warning: Option<String>,
}

impl Verified {
    pub(super) fn of(drilled: &Drilled) -> Self {
        Self {
            key: drilled.key.to_string(),
            at: time(drilled.ended_at),
            tables: drilled.counted.tables,
            rows: drilled.counted.rows,
            database_bytes: drilled.database_bytes,
            took_ms: drilled.took.as_millis() as u64,
            unverified_tables: drilled.unverified_tables.clone(),
            metadata_warning: drilled.metadata_warning.clone(),
        }
    }
}

#[derive(Debug, PartialEq, Serialize)]
struct VerifyFailure {
    at: String,
    error: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct AppView {
    state: &'static str,
    pid: Option<u32>,
    exit_code: Option<i32>,
}

impl AppView {
    fn of(app: AppState) -> Self {
        match app {
            AppState::NotStarted => Self { state: "not started", pid: None, exit_code: None },
            AppState::Running(pid) => Self { state: "running", pid, exit_code: None },
            AppState::Ended(end) => {
                Self { state: "ended", pid: None, exit_code: Some(end.exit_code()) }
            }
        }
    }
}

/// Returns whether the app may be sent requests.
pub(super) fn is_ready(status: &Status) -> bool {
    status.phase == Phase::Running && matches!(status.app, AppState::Running(_))
}

/// Returns where the service is in its life, as `GET /health/ready` says it.
pub(super) fn phase_name(status: &Status) -> &'static str {
    match status.phase {
        Phase::Starting => "restoring",
        Phase::Running if is_ready(status) => "ready",
        Phase::Running => "starting",
        Phase::Stopping => "stopping",
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
