//! The new state compared with the backup before: has it changed, and has too much gone?

use super::inspect::Inspection;
use super::{BackupEngine, BackupError, FUTURE};
use crate::LOG;
use crate::deadline::Deadline;
use crate::key::BackupKey;
use crate::manifest::Manifest;
use crate::store::{StoreError, StoredBackup, Suspension};

/// What is known of the backup before.
#[derive(Debug)]
pub(super) enum Before {
    /// There is none, or it says nothing about itself: stock `gzip` made it.
    Unknown,
    /// Its manifest.
    Known(StoredBackup, Manifest),
    /// It could not be read. Whether too much has gone cannot be told, so nothing is deleted.
    Unread(BackupKey, StoreError),
    /// It is encrypted, and no identity at hand opens it. Only its size is known.
    Encrypted(StoredBackup),
}

impl Before {
    /// Returns the backup that the new one could not be compared with, and that the next one may be.
    pub(super) fn unread(&self) -> Option<BackupKey> {
        match self {
            Self::Unread(key, _) => Some(*key),
            Self::Unknown | Self::Known(..) | Self::Encrypted(_) => None,
        }
    }

    /// Returns the newest backup if it is known to hold just this, for the same readers.
    pub(super) fn same_as(
        &self,
        now: &Manifest,
        newest: Option<BackupKey>,
    ) -> Option<StoredBackup> {
        match self {
            Self::Known(backup, manifest)
                if Some(backup.key) == newest
                    && backup.key.is_encrypted() != now.recipients.is_empty()
                    && manifest.recipients == now.recipients
                    && manifest.contents.is_some()
                    && manifest.contents == now.contents =>
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
        inspection: &Inspection,
        deadline: Deadline,
    ) -> Result<Option<Suspension>, BackupError> {
        let (backup, loss) = match before {
            Before::Known(backup, manifest) => (backup, now.loss_since(manifest, backup.key)),
            Before::Encrypted(backup) => {
                (backup, now.loss_since_archive(backup.archive_bytes, backup.key))
            }
            Before::Unknown | Before::Unread(..) => return Ok(already),
        };
        let Some(loss) = loss else { return Ok(already) };
        inspection.passed().await?;
        let is_secret = backup.key.is_encrypted() || !now.recipients.is_empty();
        let reason = if is_secret { told_in_the_open(backup.key) } else { loss.clone() };
        let suspension = match already {
            // Noticed by a run whose upload then failed.
            Some(known) if known.reason.ends_with(&reason) => return Ok(Some(known)),
            Some(known) => known.followed_by(&reason),
            None => Suspension { since: self.clock.now(), reason: reason.clone() },
        };
        self.store.suspend_pruning(&suspension, deadline).await?;
        tracing::error!(
            target: LOG,
            key = %backup.key,
            "ERROR: The database looks emptied: {}; nothing is deleted from now on, the good \
             backups stay", if is_secret { &loss } else { &suspension.reason }
        );
        Ok(Some(suspension))
    }

    /// Backups are named after the newest, so that one with a time far ahead drags all along.
    pub(super) fn warn_of_future(&self, newest: Option<BackupKey>) {
        if let Some(newest) = newest.filter(|key| key.created_at() > self.clock.now() + FUTURE) {
            tracing::warn!(
                target: LOG,
                "WARNING: The newest backup {newest} is of {}, which is in the future, and later \
                 ones are named after it; check this machine's clock, or delete that backup",
                newest.created_at()
            );
        }
    }

    /// A variable that got lost must not switch encryption off unnoticed.
    pub(super) fn warn_of_plain_after(&self, newest: Option<BackupKey>) {
        if let Some(newest) = newest.filter(|key| key.is_encrypted() && self.recipients.is_none()) {
            tracing::warn!(
                target: LOG,
                "WARNING: The newest backup {newest} is encrypted and this one will not be: \
                 encryption.recipients is not set here; stop and set it, if that is not meant"
            );
        }
    }
}

/// Says in the store, where everybody may read it, no more of an encrypted backup than that.
fn told_in_the_open(before: BackupKey) -> String {
    format!("far less is left than {before} has; the log of the run that noticed it says how much")
}
