//! Small objects of ours that are no backups, read and written under a condition: whoever wrote
//! last without knowing of the other has not written at all.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};

use super::{BackupStore, Fault, Patience, StoreError};
use crate::deadline::Deadline;

/// A larger object is not ours.
pub(super) const RECORD_BYTES_MAX: u64 = 16 * 1024;

/// A record as it was read.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its content.
    pub content: Bytes,
    /// Which of its versions this is.
    pub version: Version,
    /// When the store received it, by the store's clock.
    pub stored_at: DateTime<Utc>,
}

/// A version of a record; only the store knows what it means.
#[derive(Debug, Clone)]
pub struct Version(UpdateVersion);

impl Version {
    /// Returns a version that no object has: a write on condition of it must be refused.
    #[must_use]
    pub fn of_nothing() -> Self {
        let e_tag = Some("\"00000000000000000000000000000000\"".to_owned());
        Self(UpdateVersion { e_tag, version: None })
    }
}

/// What has to hold for a write.
#[derive(Debug, Clone)]
pub enum Condition {
    /// There is no such record.
    Absent,
    /// It is still this version.
    Unchanged(Version),
}

/// What a write on a condition came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// The record has the new content.
    Done,
    /// The condition does not hold; nothing was written. After a lost answer it may be our own
    /// write that has come before: read it again.
    Refused,
}

impl BackupStore {
    /// Returns the address of a record, for messages.
    #[must_use]
    pub fn record_address(&self, name: &str) -> String {
        format!("{}{name}", self.location())
    }

    /// Reads a record; nothing if there is none.
    pub async fn read_record(
        &self,
        name: &str,
        patience: Patience,
        deadline: Deadline,
    ) -> Result<Option<Record>, StoreError> {
        let operation = format!("reading of {}", self.record_address(name));
        let path = self.record_path(name);
        let read = async || {
            let got = async {
                let answer = self.objects.get(&path).await?;
                let version = UpdateVersion {
                    e_tag: answer.meta.e_tag.clone(),
                    version: answer.meta.version.clone(),
                };
                // Nothing is no record of ours either.
                let is_ours = answer.meta.size <= RECORD_BYTES_MAX;
                let stored_at = answer.meta.last_modified;
                let content = if is_ours { answer.bytes().await? } else { Bytes::new() };
                Ok(Record { content, version: Version(version), stored_at })
            };
            match got.await {
                Ok(record) => Ok(Some(record)),
                Err(error) => match StoreError::new(&operation, &error) {
                    none if none.fault == Fault::NotFound => Ok(None),
                    error => Err(error),
                },
            }
        };
        self.patiently(&operation, patience, deadline, read).await
    }

    /// Writes a record, whatever stands there.
    pub async fn put_record(
        &self,
        name: &str,
        content: Bytes,
        (patience, deadline): (Patience, Deadline),
    ) -> Result<(), StoreError> {
        let operation = format!("creation of {}", self.record_address(name));
        let path = self.record_path(name);
        let put = async || {
            let put = self.objects.put(&path, PutPayload::from(content.clone())).await;
            put.map(drop).map_err(|error| StoreError::new(&operation, &error))
        };
        self.patiently(&operation, patience, deadline, put).await
    }

    /// Writes a record if the condition holds.
    ///
    /// # Errors
    ///
    /// Also where the store does not know conditions; one that ignores them says nothing.
    pub async fn write_record(
        &self,
        name: &str,
        content: Bytes,
        condition: Condition,
        (patience, deadline): (Patience, Deadline),
    ) -> Result<Written, StoreError> {
        let operation = format!("conditional write of {}", self.record_address(name));
        let path = self.record_path(name);
        let mode = match condition {
            Condition::Absent => PutMode::Create,
            Condition::Unchanged(Version(version)) => PutMode::Update(version),
        };
        let write = async || {
            let options = PutOptions::from(mode.clone());
            match self.objects.put_opts(&path, PutPayload::from(content.clone()), options).await {
                Ok(_version) => Ok(Written::Done),
                Err(
                    Error::AlreadyExists { .. }
                    | Error::Precondition { .. }
                    | Error::NotFound { .. },
                ) => Ok(Written::Refused),
                Err(error) => Err(StoreError::new(&operation, &error)),
            }
        };
        self.patiently(&operation, patience, deadline, write).await
    }

    /// Removes a record, whatever it holds. One that is gone already counts as removed.
    pub async fn remove_record(
        &self,
        name: &str,
        (patience, deadline): (Patience, Deadline),
    ) -> Result<(), StoreError> {
        let operation = format!("deletion of {}", self.record_address(name));
        let path = self.record_path(name);
        let remove = async || match self.objects.delete(&path).await {
            Ok(()) => Ok(()),
            Err(error) => match StoreError::new(&operation, &error) {
                gone if gone.fault == Fault::NotFound => Ok(()),
                error => Err(error),
            },
        };
        self.patiently(&operation, patience, deadline, remove).await
    }

    pub(super) fn record_path(&self, name: &str) -> ObjectPath {
        self.prefix.clone().join(name)
    }
}
