//! Packing, encrypting and sending at the same time: the archive never touches the disk.
//!
//! The snapshot's check may still run meanwhile. The last word, without which the store completes
//! nothing, is said only after it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::inspect::Inspection;
use super::{BackupEngine, BackupError, Run};
use crate::archive::{self, Outlet, PIECES_KEPT_BACK, PIECES_TO_SEND, PackError, Piece};
use crate::deadline::Deadline;
use crate::key::BackupKey;
use crate::manifest::Manifest;
use crate::progress::{Progress, Stage};
use crate::snapshot::Snapshot;
use crate::store::{NewBackup, Uploaded};
use crate::{LOG, processors, text};

/// Whole uploads that are tried, from the same snapshot; after the first, all of it is packed anew. Single
/// requests are retried by the client before that.
const UPLOAD_TRIES: u32 = 3;

/// The pause between two of them.
const UPLOAD_PAUSE: Duration = Duration::from_secs(1);

/// What is packed, and under which name.
pub(super) struct Archive<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) manifest: &'a Manifest,
    pub(super) key: BackupKey,
}

impl BackupEngine {
    /// Packs and sends at the same time; a transient failure packs the same snapshot again.
    pub(super) async fn upload(
        &self,
        run: &Arc<Run>,
        archive: &Archive<'_>,
        inspection: &Inspection,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<u64, BackupError> {
        let mut attempt = 1;
        loop {
            progress.enter(Stage::Upload, archive.snapshot.bytes);
            match self.upload_once(run, archive, inspection, deadline, progress).await {
                Ok(archive_bytes) => {
                    let key = archive.key;
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
        archive: &Archive<'_>,
        inspection: &Inspection,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<u64, BackupError> {
        let (sender, receiver) = mpsc::channel(PIECES_TO_SEND);
        let &Archive { snapshot, manifest, key } = archive;
        let database_bytes = snapshot.bytes;
        let backup = NewBackup { key, database_bytes, metadata: manifest.entries_of(key.form()) };
        let (path, manifest) = (snapshot.path.clone(), manifest.clone());
        let (progress, last_word, keeping) = (progress.clone(), sender.clone(), sender.clone());
        let recipients = self.recipients.clone();
        let (ahead, checked) = (run.take_ahead(), inspection.clone());
        let packing = self.in_run(run, (Stage::Upload, deadline), move |stop| {
            let outlet = match &recipients {
                Some(recipients) => Outlet::encrypted(&sender, recipients)?,
                None => Outlet::plain(&sender),
            };
            // The check beside it, of one thread, is what a backup waits for: it has a processor of its own.
            let processors = processors::count();
            let free = || processors - usize::from(!checked.has_passed());
            let from = (path.as_path(), ahead.end());
            archive::pack(from, key, &manifest, outlet, &free, (stop, &progress))
        });
        let packing = async move {
            // Before anything is packed there is room: only a failed upload has closed the channel.
            let kept_back = keeping.reserve_many(PIECES_KEPT_BACK).await;
            let checking = async {
                let checked = inspection.passed().await;
                drop(kept_back);
                checked
            };
            tokio::pin!(packing);
            let packed = tokio::select! {
                packed = &mut packing => packed,
                checked = checking => match checked {
                    Ok(()) => packing.await,
                    // Nobody needs the rest; the store forgets what it has.
                    Err(refused) => return Err(refused),
                },
            };
            let bytes = packed?.map_err(BackupError::Archive)?;
            tracing::info!(
                target: LOG,
                database_bytes,
                archive_bytes = bytes,
                "Compressed to {} ({}% reduction)",
                text::size(bytes),
                text::reduction_percent(database_bytes, bytes)
            );
            // Closed means that the upload failed, and says why itself.
            let _closed = last_word.send(Piece::Whole).await;
            inspection.passed().await?;
            let _closed = last_word.send(Piece::End).await;
            drop(last_word);
            Ok(bytes)
        };
        let sending = self.store.upload(backup, receiver, deadline);
        let (packed, sent) = tokio::join!(packing, sending);
        match (sent?, packed) {
            (Uploaded::Complete, Ok(bytes)) => Ok(bytes),
            (_, Err(error)) => Err(error),
            (Uploaded::Abandoned, Ok(_)) => Err(BackupError::Archive(PackError::Abandoned)),
        }
    }
}
