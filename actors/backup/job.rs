//! What the backup actor has done outside of itself: a run of the engine, and the look at the store
//! after the start.

use std::time::Duration;

use simplebackup_engine::backup::{BackupEngine, BackupError, BackupReport};
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::lease::Fork;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::store::{Inventory, Patience};

use crate::lease;
use crate::messages::Trigger;

/// The pause between two looks at the lock of another process, while the final backup waits.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Reads what the store has of ours: in the line, or beside it.
pub(super) async fn survey(
    engine: &BackupEngine,
    deadline: Deadline,
) -> Result<(Inventory, Option<Fork>), BackupError> {
    let fork = engine.fork(deadline).await?;
    let inventory = engine.place_of(fork.as_ref()).inventory(deadline, Patience::FewTries).await?;
    Ok((inventory, fork))
}

/// Runs the engine. The final backup waits for another process's run instead of giving up: what
/// that one stores may be older than the app's last write.
pub(super) async fn back_up(
    engine: &BackupEngine,
    trigger: Trigger,
    deadline: Deadline,
    progress: &Progress,
) -> Result<BackupReport, BackupError> {
    loop {
        match engine.back_up(deadline, progress).await {
            Err(BackupError::InProgress { .. })
                if trigger == Trigger::Final && deadline.remaining() > LOCK_PAUSE =>
            {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Ok(report) => {
                if trigger == Trigger::Final {
                    lease::release(engine, deadline).await;
                }
                return Ok(report);
            }
            Err(error) => return Err(error),
        }
    }
}
