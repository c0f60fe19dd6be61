//! Why the lease could not be taken or read.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::deadline::OutOfTime;
use crate::store::StoreError;

/// Why the lease could not be taken or read.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store writes whatever the condition is, or knows no conditions.
    #[error(
        "{location} {what}, so that a lease there protects from nothing; set lease.enabled = false, \
         or use a store with conditional writes (If-Match, If-None-Match)"
    )]
    Unsupported {
        /// The store.
        location: String,
        /// What it does instead.
        what: &'static str,
    },
    /// What stands there is no lease.
    #[error("{address} is no lease of this program; look at it, and delete it if it is nobody's")]
    Foreign {
        /// Where.
        address: String,
    },
    /// The work folder beside the database cannot be used.
    #[error("work folder \"{}\" cannot be used; make it writable for this user", path.display())]
    WorkFolder {
        /// The work folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The deadline passed.
    #[error("ran out of time at the lease; allow more (restore.timeout, shutdown.backup_timeout)")]
    OutOfTime(#[from] OutOfTime),
}

impl LeaseError {
    /// Returns whether the store gave no answer to judge by: it is down, or our keys are wrong.
    #[must_use]
    pub fn is_of_the_store(&self) -> bool {
        matches!(self, Self::Store(_) | Self::OutOfTime(_))
    }
}
