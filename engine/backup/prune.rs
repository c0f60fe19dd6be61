//! The end of surplus backups, or its putting off.

use super::compare::Before;
use super::{BackupEngine, BackupError};
use crate::deadline::Deadline;
use crate::key::BackupKey;
use crate::store::{Patience, StoreError, StoredBackup, Suspension};
use crate::{LOG, text};

/// What pruning came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// The backups that are stored now.
    pub left: Vec<StoredBackup>,
    /// Those that were deleted, oldest first.
    pub deleted: Vec<BackupKey>,
    /// Why surplus backups could not be deleted.
    pub warning: Option<String>,
}

impl BackupEngine {
    /// Returns what pruning would delete now, and why it is suspended if it is.
    pub async fn surplus(
        &self,
        deadline: Deadline,
    ) -> Result<(Vec<BackupKey>, Option<Suspension>), BackupError> {
        let inventory = self.store.inventory(deadline, Patience::FewTries).await?;
        let keys: Vec<_> = inventory.backups.iter().map(|backup| backup.key).collect();
        Ok((self.retention.surplus(&keys), inventory.suspension))
    }

    /// Deletes the surplus, whatever the suspension: for a person who has looked, and after
    /// [`BackupStore::resume_pruning`](crate::store::BackupStore::resume_pruning).
    pub async fn prune(&self, deadline: Deadline) -> Result<Pruned, BackupError> {
        let stored = self.store.list(deadline, Patience::FewTries).await?;
        Ok(self.prune_surplus(stored, deadline).await)
    }

    /// Deletes the surplus, unless the database looks emptied or that cannot be told.
    pub(super) async fn prune_if_safe(
        &self,
        stored: Vec<StoredBackup>,
        suspension: Option<&Suspension>,
        before: &Before,
        deadline: Deadline,
    ) -> Pruned {
        match (suspension, before) {
            (Some(suspension), _) => spare(stored, suspension),
            (None, Before::Unread(_, error)) => put_off(stored, error),
            (None, Before::Encrypted(backup)) => put_off_beside_encrypted(stored, backup.key),
            (None, _) => self.prune_surplus(stored, deadline).await,
        }
    }

    async fn prune_surplus(&self, mut left: Vec<StoredBackup>, deadline: Deadline) -> Pruned {
        let keys: Vec<_> = left.iter().map(|backup| backup.key).collect();
        let mut deleted = self.retention.surplus(&keys);
        if deleted.is_empty() {
            return Pruned { left, deleted, warning: None };
        }
        let refused = self.store.delete(&deleted, deadline).await;
        deleted.retain(|key| refused.iter().all(|(refused, _)| refused != key));
        left.retain(|backup| !deleted.contains(&backup.key));
        let count = deleted.len();
        if count > 0 {
            tracing::info!(
                target: LOG,
                deleted = count,
                "Cleanup: keeping {} most recent backups, deleted {count} old backup{}",
                left.len() - refused.len(),
                if count == 1 { "" } else { "s" }
            );
        }
        let warning = refused.first().map(|(_, error)| text::chain(error));
        if let Some(error) = &warning {
            tracing::warn!(
                target: LOG,
                error,
                "WARNING: Cleanup failed, {} surplus backups stay stored: {error}", refused.len()
            );
        }
        Pruned { left, deleted, warning }
    }
}

/// Deletes nothing, because the database looks emptied.
fn spare(left: Vec<StoredBackup>, suspension: &Suspension) -> Pruned {
    tracing::warn!(
        target: LOG,
        "WARNING: Nothing is deleted since {}: {}; look at the database: if it is right, run \
         \"simplebackup prune --confirm\" or POST /retention/resume, else restore with \
         \"simplebackup restore --force --from NAME\"",
        text::moment(suspension.since),
        suspension.reason
    );
    Pruned { left, deleted: Vec::new(), warning: None }
}

/// Deletes nothing this time, because the backup before could not be read.
fn put_off(left: Vec<StoredBackup>, error: &StoreError) -> Pruned {
    put_off_because(left, text::chain(error))
}

/// Deletes nothing this time, because no identity at hand opens the backup before.
fn put_off_beside_encrypted(left: Vec<StoredBackup>, before: BackupKey) -> Pruned {
    let because = format!(
        "{before} is encrypted, and no identity at hand opens it; the next one is compared with \
         this one"
    );
    put_off_because(left, because)
}

fn put_off_because(left: Vec<StoredBackup>, warning: String) -> Pruned {
    tracing::warn!(
        target: LOG,
        error = warning,
        "WARNING: Nothing is deleted this time, the new backup cannot be compared with the \
         one before: {warning}"
    );
    Pruned { left, deleted: Vec::new(), warning: Some(warning) }
}
