//! What the lease object says: JSON, so that a person can read who has it. Pure.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::instance::Instance;

/// Who has the lease, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// Whose it is.
    pub holder: Instance,
    /// Since when.
    pub taken_at: DateTime<Utc>,
    /// When the holder left in order, its final backup stored.
    pub released_at: Option<DateTime<Utc>>,
}

impl Tenure {
    /// Returns what a lease object says, or `None` if that is no lease of ours.
    #[must_use]
    pub fn parse(content: &[u8]) -> Option<Self> {
        serde_json::from_slice(content).ok()
    }

    /// Returns whether this instance has it, and has not released it.
    #[must_use]
    pub fn is_held_by(&self, instance: &Instance) -> bool {
        self.holder == *instance && self.released_at.is_none()
    }

    /// Returns the content of its object.
    ///
    /// # Panics
    ///
    /// Never: names and times always encode.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec_pretty(self).expect("names and times always encode").into()
    }
}
