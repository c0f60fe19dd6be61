//! Packing and sending at the same time: the archive never touches the disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{BackupEngine, BackupError, Checked, Run};
use crate::archive::{self, PIECES_IN_FLIGHT, PackError};
use crate::blocking;
use crate::deadline::{Deadline, OutOfTime};
use crate::key::BackupKey;
use crate::progress::{Progress, Stage};
use crate::store::{NewBackup, Uploaded};
use crate::{LOG, text};

/// Whole uploads that are tried, each packed anew from the same snapshot. Single requests are
/// retried by the client before that.
const UPLOAD_TRIES: u32 = 3;

/// The pause between two of them.
const UPLOAD_PAUSE: Duration = Duration::from_secs(1);

impl BackupEngine {
    /// Packs and sends at the same time; a transient failure packs the same snapshot again.
    pub(super) async fn upload(
        &self,
        run: &Arc<Run>,
        checked: &Checked,
        key: BackupKey,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<u64, BackupError> {
        let mut attempt = 1;
        loop {
            progress.enter(Stage::Upload, checked.snapshot.bytes);
            match self.upload_once(run, checked, key, deadline, progress).await {
                Ok(archive_bytes) => {
                    tracing::info!(
                        target: LOG,
                        key = %key,
                        archive_bytes,
                        "Uploaded to {}", self.store.address(key)
                    );
                    return Ok(archive_bytes);
                }
                Err(BackupError::Store(error))
                    if error.fault.is_transient() && attempt < UPLOAD_TRIES =>
                {
                    tracing::warn!(
                        target: LOG,
                        attempt,
                        remaining_ms = deadline.remaining().as_millis() as u64,
                        error = %text::chain(&error),
                        "WARNING: {error}; uploading again"
                    );
                    // Out of time shows itself in the next try.
                    let _out_of_time = deadline.limit(tokio::time::sleep(UPLOAD_PAUSE)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn upload_once(
        &self,
        run: &Arc<Run>,
        checked: &Checked,
        key: BackupKey,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<u64, BackupError> {
        let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
        let Checked { snapshot, manifest, .. } = checked;
        let backup =
            NewBackup { key, database_bytes: snapshot.bytes, metadata: manifest.entries() };
        let manifest = manifest.clone();
        let path = snapshot.path.clone();
        let (held, progress) = (Arc::clone(run), progress.clone());
        let database_bytes = snapshot.bytes;
        let packing = blocking::run(deadline, move |stop| {
            let packed = archive::pack(&path, key, &manifest, &sender, &stop, &progress);
            if let Ok(bytes) = &packed {
                tracing::info!(
                    target: LOG,
                    database_bytes,
                    archive_bytes = bytes,
                    "Compressed to {} ({}% reduction)",
                    text::size(*bytes),
                    text::reduction_percent(database_bytes, *bytes)
                );
            }
            drop(held);
            packed
        });
        let sending = self.store.upload(backup, receiver, deadline);
        let (packed, sent) = tokio::join!(packing, sending);
        let late = BackupError::OutOfTime { stage: Stage::Upload };
        match (sent?, packed) {
            (Uploaded::Complete, Ok(Ok(bytes))) => Ok(bytes),
            (_, Err(OutOfTime)) => Err(late),
            (_, Ok(Err(error))) => Err(BackupError::Archive(error)),
            (Uploaded::Abandoned, Ok(Ok(_))) => Err(BackupError::Archive(PackError::Abandoned)),
        }
    }
}
