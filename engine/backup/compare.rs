//! The new state compared with the backup before: has it changed, and has too much gone?

use std::sync::{Mutex, PoisonError};

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
    Unread(StoreError),
}

/// What this process remembers from one run to the next, to spare a request.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    /// The backup that the last run made.
    last: Option<(StoredBackup, Manifest)>,
    /// A backup that could not be read: the next run has to compare with this one, not with what
    /// was stored unseen since.
    owed: Option<BackupKey>,
}

impl Memory {
    /// Returns what is known of the newest of `stored`, with one small request if this process
    /// did not make it.
    pub(super) async fn before(
        &self,
        store: &BackupStore,
        stored: &[StoredBackup],
        deadline: Deadline,
    ) -> Before {
        let Some(newest) = stored.last() else { return Before::Unknown };
        let asked = {
            let remembered = self.remembered();
            let owed = stored.iter().find(|backup| Some(backup.key) == remembered.owed);
            let asked = owed.unwrap_or(newest);
            match &remembered.last {
                Some((backup, manifest)) if is_same_object(backup, asked) => {
                    return Before::Known(asked.clone(), manifest.clone());
                }
                _ => asked,
            }
        };
        let read = store.start_of(asked, HEADER_BYTES_MAX, deadline).await;
        let mut remembered = self.remembered();
        match read {
            Ok(start) => {
                remembered.owed = None;
                archive::manifest_at(&start)
                    .map_or(Before::Unknown, |manifest| Before::Known(asked.clone(), manifest))
            }
            Err(gone) if gone.fault == Fault::NotFound => Before::Unknown,
            Err(error) => {
                remembered.owed = Some(asked.key);
                Before::Unread(error)
            }
        }
    }

    pub(super) fn remember(&self, made: &StoredBackup, manifest: Manifest) {
        self.remembered().last = Some((made.clone(), manifest));
    }

    /// A panic of another run leaves nothing half-written here.
    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_same_object(one: &StoredBackup, other: &StoredBackup) -> bool {
    (one.key, one.archive_bytes) == (other.key, other.archive_bytes)
}

impl Before {
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
    /// than a change. Without the mark no backup is made: it would be the next one's measure.
    ///
    /// Also while it is suspended `already`: who confirms has to know of the latest loss too.
    pub(super) async fn suspend_after_loss(
        &self,
        before: &Before,
        now: &Manifest,
        already: Option<Suspension>,
        deadline: Deadline,
    ) -> Result<Option<Suspension>, BackupError> {
        let Before::Known(backup, manifest) = before else { return Ok(already) };
        let Some(loss) = now.loss_since(manifest, backup.key) else { return Ok(already) };
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
