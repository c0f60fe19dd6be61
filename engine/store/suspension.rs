//! The mark under the prefix that says: delete nothing until a person has looked.
//!
//! It lies in the store because that is what outlives the machine and what every instance sees,
//! and it costs nothing: the list that each backup reads anyway shows whether it is there.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};

use super::record::RECORD_BYTES_MAX;
use super::{BackupStore, Fault, Patience, StoreError};
use crate::deadline::Deadline;

/// The name of the mark under the prefix.
pub(super) const MARK: &str = "pruning-suspended.json";

/// Why nothing is deleted, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// When the loss was noticed.
    pub since: DateTime<Utc>,
    /// What was lost, in words.
    pub reason: String,
}

/// Between the first loss and the latest.
const FOLLOWED_BY: &str = ", and then ";

impl Suspension {
    /// Returns the same suspension with another loss. Only the first and the latest are told, so
    /// that the text does not grow without end.
    #[must_use]
    pub fn followed_by(self, loss: &str) -> Self {
        let first = self.reason.split(FOLLOWED_BY).next().unwrap_or_default();
        Self { reason: format!("{first}{FOLLOWED_BY}{loss}"), ..self }
    }
}

impl BackupStore {
    /// Sets the mark; from now on each [`super::Inventory`] has it.
    pub async fn suspend_pruning(
        &self,
        suspension: &Suspension,
        deadline: Deadline,
    ) -> Result<(), StoreError> {
        let operation = format!("creation of {}", self.record_address(MARK));
        let text = serde_json::to_vec_pretty(suspension).map_err(|error| {
            StoreError::with_text(&operation, Fault::Refused, &error.to_string())
        })?;
        self.put_record(MARK, text.into(), (Patience::FewTries, deadline)).await
    }

    /// Removes the mark. One that is gone already counts as removed.
    pub async fn resume_pruning(&self, deadline: Deadline) -> Result<(), StoreError> {
        self.remove_record(MARK, (Patience::FewTries, deadline)).await
    }

    /// Reads the mark that a list has shown. That it is there is what counts: if its text can't
    /// be had, or is a person's own, it still holds.
    pub(super) async fn read_suspension(&self, set_at: DateTime<Utc>) -> Suspension {
        let read = async {
            let answer = self.objects.get(&self.record_path(MARK)).await?;
            // Nothing is no mark of ours either.
            if answer.meta.size > RECORD_BYTES_MAX {
                Ok(Bytes::new())
            } else {
                answer.bytes().await
            }
        };
        match read.await.map(|bytes| serde_json::from_slice::<Suspension>(&bytes)) {
            // It goes into our log: whoever may write the mark must not write lines there.
            Ok(Ok(Suspension { since, reason })) => {
                Suspension { since, reason: reason.replace(char::is_control, " ") }
            }
            _ => Suspension { since: set_at, reason: format!("see {}", self.record_address(MARK)) },
        }
    }
}
