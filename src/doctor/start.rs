//! The cheap half, at every start of a service: what this machine alone tells, in milliseconds.
//! A finding is a warning in the log and never keeps the service from starting.

use std::path::Path;

use simplebackup_engine::doctor::database;
use simplebackup_engine::{LOG, disk, preflight};

use super::stop;
use crate::config::{Config, StoreChoice};

/// Warns of what is unsafe or likely to fail. `database` is its one true path.
pub(crate) fn warn(config: &Config, database: &Path) {
    if let Some(kind) = preflight::network_file_system(database) {
        tracing::warn!(
            target: LOG,
            "WARNING: {} lies on {kind}, where SQLite is not safe \
             (https://sqlite.org/useovernet.html); use a local disk", database.display()
        );
    }
    if let Some(finding) = database::examine_at_start(database) {
        let next = finding.next.unwrap_or_default();
        tracing::warn!(target: LOG, "WARNING: {}; {next}", finding.found);
    }
    if let Err(error) = disk::require_for_snapshot(database) {
        tracing::warn!(target: LOG, "WARNING: The next backup is likely to fail: it {error}");
    }
    if let Some(words) = stop::implausible_deadline(config) {
        tracing::warn!(target: LOG, "WARNING: {words}");
    }
    if let StoreChoice::BesideDatabase(store) = &config.store {
        tracing::warn!(
            target: LOG,
            "WARNING: No bucket configured, backups go to {}: this protects from deletion, not \
             from losing the machine; set store.url or MINIO_BUCKET", store.display()
        );
    }
}
