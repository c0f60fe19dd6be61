//! What a stored backup says of itself: its manifest, read from its first bytes in one small request.

use crate::archive::{self, ENCRYPTED_START_BYTES, HEADER_BYTES_MAX, UnpackError};
use crate::deadline::Deadline;
use crate::encryption::Identities;
use crate::manifest::Manifest;
use crate::store::{BackupStore, StoreError, StoredBackup};

/// What the first bytes of a stored backup tell.
#[derive(Debug)]
pub enum Header {
    /// What it holds.
    Told(Box<Manifest>),
    /// Nothing: stock `gzip` made it.
    Silent,
    /// It is encrypted and there is no identity at hand. The store was not asked.
    Locked,
    /// It is encrypted for others, or damaged.
    Unopened(UnpackError),
}

impl Header {
    /// Returns the manifest, if it is told.
    #[must_use]
    pub fn manifest(self) -> Option<Manifest> {
        match self {
            Self::Told(manifest) => Some(*manifest),
            Self::Silent | Self::Locked | Self::Unopened(_) => None,
        }
    }
}

/// Reads the header of `backup`.
///
/// # Errors
///
/// Whatever the store says.
pub async fn read(
    store: &BackupStore,
    backup: &StoredBackup,
    identities: Option<&Identities>,
    deadline: Deadline,
) -> Result<Header, StoreError> {
    let told = if backup.key.is_encrypted() {
        let Some(identities) = identities else { return Ok(Header::Locked) };
        let start = store.start_of(backup, ENCRYPTED_START_BYTES, deadline).await?;
        archive::encrypted_manifest_at(&start, identities)
    } else {
        let start = store.start_of(backup, HEADER_BYTES_MAX, deadline).await?;
        Ok(archive::manifest_at(&start))
    };
    Ok(match told {
        Ok(Some(manifest)) => Header::Told(Box::new(manifest)),
        Ok(None) => Header::Silent,
        Err(error) => Header::Unopened(error),
    })
}
