//! Exit codes, and the last lines before them. The README has the same table.

use simplebackup_actors::messages::{RestoreFailure, StopCause};
use simplebackup_actors::supervisor::{Ended, FinalBackup};
use simplebackup_actors::{SERVER_LOG, app::AppError};
use simplebackup_engine::restore::RestoreError;
use simplebackup_engine::store::{BackupStore, Fault, StoreError, StoreKind};
use simplebackup_engine::{LOG, text};

/// Fatal at start: store unreachable, backup damaged, port taken.
pub(crate) const FATAL: i32 = 1;
/// Wrong usage or configuration.
pub(crate) const USAGE: i32 = 2;
/// Actors died too often (`EX_SOFTWARE` of sysexits.h).
pub(crate) const ACTORS_DIED: i32 = 70;
/// `shutdown.strict` and no final backup (`EX_TEMPFAIL` of sysexits.h).
pub(crate) const NO_FINAL_BACKUP: i32 = 75;
/// The command can't be executed, as shells have it.
const NOT_EXECUTABLE: i32 = 126;
/// The command was not found, as shells have it.
const NOT_FOUND: i32 = 127;

/// Says how the service ended and returns the exit code for it.
#[must_use]
pub fn exit_code(ended: &Ended, strict: bool, store: Option<&BackupStore>) -> i32 {
    match ended {
        Ended::RestoreFailed(failure) => {
            log_restore_failure(failure, store);
            FATAL
        }
        Ended::AppFailed(error) => {
            tracing::error!(target: SERVER_LOG, "FATAL: {error}");
            match error {
                AppError::NotFound(_) => NOT_FOUND,
                AppError::NotExecutable(_) => NOT_EXECUTABLE,
                AppError::Failed(_) => FATAL,
            }
        }
        Ended::BeforeStart => {
            tracing::info!(target: SERVER_LOG, "Shutdown complete");
            0
        }
        Ended::Stopped { cause, app, final_backup, .. } => {
            tracing::info!(target: SERVER_LOG, "Shutdown complete");
            match (cause, final_backup) {
                (StopCause::ActorsDied, _) => ACTORS_DIED,
                (_, FinalBackup::Missing) if strict => NO_FINAL_BACKUP,
                _ => app.exit_code(),
            }
        }
        Ended::Abandoned => {
            if strict && store.is_some() {
                NO_FINAL_BACKUP
            } else {
                FATAL
            }
        }
    }
}

/// Prints the lines of the specification for a restore that failed.
fn log_restore_failure(failure: &RestoreFailure, store: Option<&BackupStore>) {
    match failure {
        RestoreFailure::Engine(RestoreError::Store(error)) => {
            let kind = store.map_or(StoreKind::S3, BackupStore::kind);
            log_store_failure(error, kind, store.map_or("the configured place", BackupStore::root));
        }
        RestoreFailure::Engine(RestoreError::Damaged { key, .. }) => {
            tracing::error!(target: LOG, key = %key, "FATAL: Integrity check failed on {key}");
            tracing::error!(
                target: LOG,
                "FATAL: Backup file is corrupted. Manual intervention required."
            );
            tracing::error!(target: LOG, error = %text::chain(failure), "ERROR: Database corruption detected");
            tracing::error!(target: LOG, "ERROR: {}", text::chain(failure));
        }
        other => tracing::error!(target: LOG, "FATAL: Restore failed: {}", text::chain(other)),
    }
}

/// Prints the two lines of the specification for a store that can't be used, and the cause.
pub(crate) fn log_store_failure(error: &StoreError, kind: StoreKind, root: &str) {
    tracing::error!(target: LOG, "FATAL: Cannot connect to {} at {root}", kind.name());
    let next = match error.fault {
        _ if kind == StoreKind::Folder => {
            "Verify store.url, that the folder exists, and that this user may write to it"
        }
        Fault::AccessDenied | Fault::NoCredentials => {
            "Verify MINIO_ACCESS_KEY, MINIO_SECRET_KEY, and their permissions"
        }
        Fault::NoSuchBucket => "Verify MINIO_BUCKET, and that the bucket exists",
        Fault::TlsOnly => "Verify MINIO_USE_SSL and MINIO_ENDPOINT",
        Fault::Certificate => "Verify MINIO_ENDPOINT, and the certificate of the server",
        _ => "Verify MINIO_ENDPOINT, MINIO_ACCESS_KEY, and network connectivity",
    };
    tracing::error!(target: LOG, "FATAL: {next}");
    tracing::error!(target: LOG, error = %text::chain(error), "FATAL: {}", text::chain(error));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use simplebackup_actors::app::AppEnd;
    use simplebackup_engine::deadline::Deadline;

    use super::*;

    fn stopped(cause: StopCause, app: AppEnd, final_backup: FinalBackup) -> Ended {
        let final_deadline = Deadline::after(Duration::ZERO);
        Ended::Stopped { cause, app, final_backup, final_deadline }
    }

    /// The README's table, but for what has no actors: usage, and commands.
    #[test]
    fn every_end_has_its_code() {
        use AppEnd::{Exited, Left, Signalled};
        use FinalBackup::{Made, Missing};

        let not_found = Ended::AppFailed(AppError::NotFound(String::new()));
        let not_executable = Ended::AppFailed(AppError::NotExecutable(String::new()));
        let table = [
            (stopped(StopCause::Signal, Left, Made), false, 0),
            (stopped(StopCause::Signal, Exited(0), Missing), false, 0),
            (stopped(StopCause::Signal, Exited(0), Missing), true, NO_FINAL_BACKUP),
            (stopped(StopCause::AppEnded, Exited(3), Missing), true, NO_FINAL_BACKUP),
            (stopped(StopCause::AppEnded, Exited(3), Made), true, 3),
            (stopped(StopCause::AppEnded, Signalled(9), Made), false, 137),
            (stopped(StopCause::ActorsDied, Exited(0), Made), false, ACTORS_DIED),
            (Ended::BeforeStart, true, 0),
            (Ended::Abandoned, false, FATAL),
            (not_found, false, 127),
            (not_executable, false, 126),
        ];
        for (ended, strict, expected) in table {
            assert_eq!(exit_code(&ended, strict, None), expected, "{ended:?}, strict = {strict}");
        }
    }
}
