//! The metrics of the service: names and types as the specification has them, and what an alert
//! needs besides. Fed by the events of the status board, read by `GET /metrics`.

use prometheus::core::Collector;
use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, IntGauge, Registry, TextEncoder};
use simplebackup_actors::status::{Event, Status};
use simplebackup_engine::restore::Outcome;

/// Upper bounds of the duration buckets in seconds: from a small database on a fast store to a
/// large one on a slow line.
const BUCKETS: [f64; 11] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0];

/// The registry and everything in it.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    backup_duration: Histogram,
    backup_size: IntGauge,
    backup_success: IntCounter,
    backup_failure: IntCounter,
    restore_duration: Histogram,
    restore_success: IntCounter,
    restore_failure: IntCounter,
    last_success: IntGauge,
    next_backup: IntGauge,
    in_progress: IntGauge,
    refused: IntCounter,
    missed_ticks: IntCounter,
    restarts: IntCounter,
    database_bytes: IntGauge,
    stored_bytes: IntGauge,
    stored: IntGauge,
    cleanup_failure: IntCounter,
    pruning_suspended: IntGauge,
    fenced: IntGauge,
    last_verified: IntGauge,
    verify_success: IntCounter,
    verify_failure: IntCounter,
    notification_failure: IntCounter,
}

fn histogram(name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()))
}

fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: M,
) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let histogram = |name, help| registered(&registry, histogram(name, help)?);
        let counter = |name, help| registered(&registry, IntCounter::new(name, help)?);
        let gauge = |name, help| registered(&registry, IntGauge::new(name, help)?);
        Ok(Self {
            backup_duration: histogram(
                "simple_backup_duration_seconds",
                "How long backups took, failed ones included",
            )?,
            backup_size: gauge("simple_backup_size_bytes", "Size of the newest stored backup")?,
            backup_success: counter("simple_backup_success_total", "Backups made")?,
            backup_failure: counter("simple_backup_failure_total", "Backups that failed")?,
            restore_duration: histogram(
                "simple_restore_duration_seconds",
                "How long restores took, failed ones included",
            )?,
            restore_success: counter("simple_restore_success_total", "Restores done")?,
            restore_failure: counter("simple_restore_failure_total", "Restores that failed")?,
            last_success: gauge(
                "simple_backup_last_success_timestamp_seconds",
                "When the newest backup was made, seconds since 1970, 0 if none is known",
            )?,
            next_backup: gauge(
                "simple_backup_next_timestamp_seconds",
                "When the next backup is due, seconds since 1970, 0 if none is",
            )?,
            in_progress: gauge("simple_backup_in_progress", "1 while a backup runs")?,
            refused: counter(
                "simple_backup_refused_total",
                "Requests refused: one was in progress, or the service was stopping",
            )?,
            missed_ticks: counter(
                "simple_backup_missed_ticks_total",
                "Due times that went by unseen (suspend, clock set forward)",
            )?,
            restarts: counter("simple_backup_restarts_total", "Actors replaced after they died")?,
            database_bytes: gauge("simple_backup_database_bytes", "Size of the last snapshot")?,
            stored_bytes: gauge("simple_backup_stored_bytes", "Bytes of all stored backups")?,
            stored: gauge("simple_backup_stored", "Number of stored backups")?,
            cleanup_failure: counter(
                "simple_backup_cleanup_failure_total",
                "Backups made whose surplus could not be deleted",
            )?,
            pruning_suspended: gauge(
                "simple_backup_pruning_suspended",
                "1 while nothing is deleted because the database looks emptied",
            )?,
            fenced: gauge(
                "simple_backup_fenced",
                "1 while backups go beside the line because another instance has the lease",
            )?,
            last_verified: gauge(
                "simple_backup_last_verified_timestamp_seconds",
                "When a restore drill last found the newest backup sound, seconds since 1970, 0 if \
                 none has since the start",
            )?,
            verify_success: counter(
                "simple_backup_verify_success_total",
                "Restore drills that found a sound backup",
            )?,
            verify_failure: counter(
                "simple_backup_verify_failure_total",
                "Restore drills that found none, or could not be done",
            )?,
            notification_failure: counter(
                "simple_backup_notification_failure_total",
                "Notices that did not reach the snitch or the webhook",
            )?,
            registry,
        })
    }

    /// Returns the counter of notices that were not delivered, which are no events of the board.
    pub(crate) fn notification_failures(&self) -> &IntCounter {
        &self.notification_failure
    }

    /// Counts an event, and shows the status that it led to.
    pub(crate) fn record(&self, event: &Event, status: &Status) {
        match event {
            Event::RestoreEnded { result: Ok(Outcome::FromBackup(_)), took } => {
                self.restore_duration.observe(took.as_secs_f64());
                self.restore_success.inc();
            }
            Event::RestoreEnded { result: Err(_), took } => {
                self.restore_duration.observe(took.as_secs_f64());
                self.restore_failure.inc();
            }
            Event::BackupMade { report, .. } => {
                self.backup_duration.observe(report.took.as_secs_f64());
                self.backup_success.inc();
                if report.delete_warning.is_some() {
                    self.cleanup_failure.inc();
                }
            }
            Event::BackupFailed { took, .. } => {
                self.backup_duration.observe(took.as_secs_f64());
                self.backup_failure.inc();
            }
            Event::BackupRefused { .. } => self.refused.inc(),
            Event::TicksMissed(count) => self.missed_ticks.inc_by(*count as u64),
            Event::ActorsRestarted => self.restarts.inc(),
            Event::Verified(_) => self.verify_success.inc(),
            Event::VerifyFailed { .. } => self.verify_failure.inc(),
            _ => {}
        }
        self.show(status);
    }

    /// Sets every gauge from the status, so that the two can't disagree.
    fn show(&self, status: &Status) {
        let set = |gauge: &IntGauge, value: u64| gauge.set(value.cast_signed());
        let (stored, stored_bytes) = status.stored.unwrap_or_default();
        set(&self.stored, stored as u64);
        set(&self.stored_bytes, stored_bytes);
        set(&self.backup_size, status.last_backup.as_ref().map_or(0, |last| last.archive_bytes));
        set(&self.database_bytes, status.last_report.as_ref().map_or(0, |(_, r)| r.database_bytes));
        self.pruning_suspended.set(i64::from(status.suspension.is_some()));
        self.fenced.set(i64::from(status.fork.is_some()));
        self.in_progress.set(i64::from(status.current.is_some()));
        self.last_success.set(status.last_backup.as_ref().map_or(0, |last| last.at.timestamp()));
        let verified = status.last_verified.as_ref();
        self.last_verified.set(verified.map_or(0, |drilled| drilled.ended_at.timestamp()));
        self.next_backup.set(status.next_tick.map_or(0, |at| at.timestamp()));
    }

    /// Returns all metrics in Prometheus' text format.
    pub(crate) fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
