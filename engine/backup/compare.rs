//! The new state compared with the backup before: has it changed, and has too much gone?

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::inspect::Passed;
use super::{BackupEngine, BackupError};
use crate::LOG;
use crate::archive;
use crate::deadline::Deadline;
use crate::key::BackupKey;
use crate::manifest::{Contents, Manifest};
use crate::store::{BackupStore, Fault, StoreError, StoredBackup, Suspension};

/// The header of an archive is a name and a manifest: a few hundred bytes.
const HEADER_BYTES_MAX: u64 = 4096;

/// What is known of the backup before.
#[derive(Debug)]
pub(super) enum Before {
    /// There is none, or it says nothing about itself: stock `gzip` made it.
    Unknown,
    /// Its manifest.
    Known(StoredBackup, Manifest),
    /// It could not be read. Whether too much has gone cannot be told, so nothing is deleted.
    Unread(BackupKey, StoreError),
}

/// The backup that the last run of this process made, to spare a request.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Option<(StoredBackup, Manifest)>>);

impl Memory {
    /// Returns what is known of the newest of `stored`, with one small request if this process
    /// did not make it. One that could not be compared itself leads on to its own measure: what
    /// was stored unseen since may be the loss.
    pub(super) async fn before(
        &self,
        store: &BackupStore,
        stored: &[StoredBackup],
        deadline: Deadline,
    ) -> Before {
        let Some(mut asked) = stored.last() else { return Before::Unknown };
        loop {
            let manifest = match self.remembered(asked) {
                Some(manifest) => manifest,
                None => match store.start_of(asked, HEADER_BYTES_MAX, deadline).await {
                    Ok(start) => match archive::manifest_at(&start) {
                        Some(manifest) => manifest,
                        None => return Before::Unknown,
                    },
                    Err(gone) if gone.fault == Fault::NotFound => return Before::Unknown,
                    Err(error) => return Before::Unread(asked.key, error),
                },
            };
            let owed = manifest.uncompared_with;
            // Older, or else a header that somebody made could lead round and round.
            let older = stored.iter().take_while(|backup| backup.key < asked.key);
            match older.into_iter().find(|backup| Some(backup.key.timestamp()) == owed) {
                Some(measure) => asked = measure,
                None => return Before::Known(asked.clone(), manifest),
            }
        }
    }

    pub(super) fn remember(&self, made: &StoredBackup, manifest: Manifest) {
        *self.last() = Some((made.clone(), manifest));
    }

    fn remembered(&self, asked: &StoredBackup) -> Option<Manifest> {
        let last = self.last();
        let (_, manifest) = last.as_ref().filter(|(backup, _)| is_same_object(backup, asked))?;
        Some(manifest.clone())
    }

    /// A panic of another run leaves nothing half-written here.
    fn last(&self) -> MutexGuard<'_, Option<(StoredBackup, Manifest)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_same_object(one: &StoredBackup, other: &StoredBackup) -> bool {
    (one.key, one.archive_bytes) == (other.key, other.archive_bytes)
}

impl Before {
    /// Returns the backup that the new one could not be compared with.
    pub(super) fn unread(&self) -> Option<BackupKey> {
        match self {
            Self::Unread(key, _) => Some(*key),
            Self::Unknown | Self::Known(..) => None,
        }
    }

    /// Returns the newest backup if it is known to hold just this.
    pub(super) fn same_as(
        &self,
        contents: &Contents,
        newest: Option<BackupKey>,
    ) -> Option<StoredBackup> {
        match self {
            Self::Known(backup, manifest)
                if Some(backup.key) == newest && manifest.contents.as_ref() == Some(contents) =>
            {
                Some(backup.clone())
            }
            _ => None,
        }
    }
}

impl BackupEngine {
    /// Suspends pruning if so much is gone since the backup before that a mistake is likelier
    /// than a change. Without the mark no backup is made: it would be the next one's measure. What a
    /// damaged snapshot lacks is not gone: the check has to pass before.
    ///
    /// Also while it is suspended `already`: who confirms has to know of the latest loss too.
    pub(super) async fn suspend_after_loss(
        &self,
        before: &Before,
        now: &Manifest,
        already: Option<Suspension>,
        passed: &Passed,
        deadline: Deadline,
    ) -> Result<Option<Suspension>, BackupError> {
        let Before::Known(backup, manifest) = before else { return Ok(already) };
        let Some(loss) = now.loss_since(manifest, backup.key) else { return Ok(already) };
        passed.wait().await?;
        let suspension = match already {
            // Noticed by a run whose upload then failed.
            Some(known) if known.reason.ends_with(&loss) => return Ok(Some(known)),
            Some(known) => known.followed_by(&loss),
            None => Suspension { since: self.clock.now(), reason: loss },
        };
        self.store.suspend_pruning(&suspension, deadline).await?;
        tracing::error!(
            target: LOG,
            key = %backup.key,
            "ERROR: The database looks emptied: {}; nothing is deleted from now on, the good \
             backups stay", suspension.reason
        );
        Ok(Some(suspension))
    }
}
