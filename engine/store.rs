//! Where backups lie, and what list, upload, download and delete mean there.
//!
//! A thin layer over [`ObjectStore`], which is the real port: memory, folder and S3 come with
//! it, and tests wrap it to fail, delay or cut a call. Only names that [`BackupKey`] parses,
//! directly under the prefix, exist for this layer. It knows nothing of SQLite or gzip.

mod bucket;
mod fault;
mod folder;
mod held;
mod record;
mod retry;
mod retry_after;
mod s3;
mod strict;
mod suspension;
mod transfer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, ObjectStore};

pub use bucket::{Answer, Bucket, Question};
pub use fault::{Fault, StoreError, classify};
pub use record::{Condition, Record, Version, Written};
use retry::Backoff;
pub use retry::Patience;
pub use retry_after::retry_after;
pub use s3::{S3Settings, install_tls};
pub use suspension::Suspension;
pub use transfer::{NewBackup, Uploaded};

use crate::deadline::Deadline;
use crate::fail_point;
use crate::instance::Instance;
use crate::key::BackupKey;

/// What kind of place it is; log lines name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// S3 or something that speaks its protocol.
    S3,
    /// A folder of this machine.
    Folder,
}

impl StoreKind {
    /// Returns the name in "Listing backups from …", as the specification prints it for S3.
    #[must_use]
    pub fn short_name(self) -> &'static str {
        match self {
            Self::S3 => "MinIO",
            Self::Folder => "folder",
        }
    }

    /// Returns the name in "Cannot connect to …".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::S3 => "S3 storage",
            Self::Folder => "backup folder",
        }
    }
}

/// A backup as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBackup {
    /// Its name.
    pub key: BackupKey,
    /// The size of the archive in bytes.
    pub archive_bytes: u64,
    /// When the store received it, by the store's clock.
    pub stored_at: DateTime<Utc>,
}

impl StoredBackup {
    /// Returns when the backup was made, as far as can be known: its name may lie in the future
    /// (a clock that ran ahead), the store's time may be that of a copy between stores.
    #[must_use]
    pub fn made_at(&self) -> DateTime<Utc> {
        self.key.created_at().min(self.stored_at)
    }
}

/// What the store has of ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// The backups, oldest first.
    pub backups: Vec<StoredBackup>,
    /// Whether and why nothing is to be deleted.
    pub suspension: Option<Suspension>,
}

/// The place where the backups of one database lie. Cheap to clone.
#[derive(Clone)]
pub struct BackupStore {
    objects: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    kind: StoreKind,
    /// `s3://mybucket/backups/`, always with a slash at its end.
    location: String,
    /// The same without the prefix: `s3://mybucket`, for messages about the whole store.
    root: String,
    folder: Option<PathBuf>,
    /// Whether it heeds [`held::Held`].
    holds_back: bool,
}

impl fmt::Debug for BackupStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupStore({})", self.location)
    }
}

impl BackupStore {
    /// Opens an S3 store. No request is made yet.
    pub fn s3(settings: &S3Settings) -> Result<Self, StoreError> {
        let root = format!("s3://{}", settings.bucket);
        let objects =
            s3::open(settings).map_err(|e| StoreError::new(format!("opening of {root}"), &e))?;
        let store = Self::over(Arc::new(objects), StoreKind::S3, &root, &settings.prefix);
        Ok(Self { holds_back: true, ..store })
    }

    /// Opens the folder that serves when no store is configured, and makes it if it is missing.
    pub fn default_folder(path: &Path) -> Result<Self, StoreError> {
        let operation = format!("creation of file://{}", path.display());
        folder::make(path).map_err(|error| StoreError::new(operation, &error))?;
        Self::folder(path)
    }

    /// Opens a folder, which must exist: made on the way, it would hide that its disk is not
    /// mounted, and look like a store that has no backups.
    pub fn folder(path: &Path) -> Result<Self, StoreError> {
        let root = format!("file://{}", path.display());
        let objects =
            folder::open(path).map_err(|e| StoreError::new(format!("opening of {root}"), &e))?;
        let mut store = Self::over(Arc::new(objects), StoreKind::Folder, &root, "");
        store.folder = Some(path.to_owned());
        Ok(store)
    }

    /// Wraps any object store; `root` is its address in messages, such as `s3://mybucket`.
    #[must_use]
    pub fn over(objects: Arc<dyn ObjectStore>, kind: StoreKind, root: &str, prefix: &str) -> Self {
        // As it stands where that is possible: `ü` is a letter, not an escape.
        let prefix = ObjectPath::parse(prefix).unwrap_or_else(|_| ObjectPath::from(prefix));
        let folder = if prefix.as_ref().is_empty() { String::new() } else { format!("{prefix}/") };
        let root = root.trim_end_matches('/').to_owned();
        let location = format!("{root}/{folder}");
        Self { objects, prefix, kind, location, root, folder: None, holds_back: false }
    }

    /// Returns the place for what `instance` stores beside the line of backups.
    #[must_use]
    pub fn fork(&self, instance: &Instance) -> Self {
        let folder = format!("forks/{instance}");
        let prefix = self.prefix.parts().chain(ObjectPath::from(folder.as_str()).parts()).collect();
        let location = format!("{}{folder}/", self.location);
        let folder = self.folder.as_ref().map(|root| root.join(folder));
        Self { prefix, location, folder, ..self.clone() }
    }

    /// Returns the kind of place.
    #[must_use]
    pub fn kind(&self) -> StoreKind {
        self.kind
    }

    /// Returns the address with the prefix and a slash at its end: `s3://mybucket/backups/`.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Returns the address without the prefix: `s3://mybucket`.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Returns the full address of a backup.
    #[must_use]
    pub fn address(&self, key: BackupKey) -> String {
        format!("{}{key}", self.location)
    }

    /// Lists the backups, oldest first. An empty list means that the store answered and has none.
    pub async fn list(
        &self,
        deadline: Deadline,
        patience: Patience,
    ) -> Result<Vec<StoredBackup>, StoreError> {
        Ok(self.inventory(deadline, patience).await?.backups)
    }

    /// Lists everything that is ours. One request, and another while pruning is suspended.
    pub async fn inventory(
        &self,
        deadline: Deadline,
        patience: Patience,
    ) -> Result<Inventory, StoreError> {
        let operation = format!("list of {}", self.location);
        let list = async || self.list_once(&operation).await;
        self.patiently(&operation, patience, deadline, list).await
    }

    async fn list_once(&self, operation: &str) -> Result<Inventory, StoreError> {
        self.require_folder(operation).await?;
        // With a delimiter: what lies in deeper folders is not ours and costs no request.
        let listed = self
            .objects
            .list_with_delimiter(Some(&self.prefix))
            .await
            .map_err(|error| StoreError::new(operation, &error))?;
        let mut backups = Vec::new();
        let mut suspension = None;
        for object in listed.objects {
            let Some(name) = object.location.filename() else { continue };
            if let Some(key) = BackupKey::parse(name) {
                let (archive_bytes, stored_at) = (object.size, object.last_modified);
                backups.push(StoredBackup { key, archive_bytes, stored_at });
            } else if name == suspension::MARK {
                suspension = Some(self.read_suspension(object.last_modified).await);
            }
        }
        backups.sort_by_key(|backup| backup.key);
        backups.dedup_by_key(|backup| backup.key);
        Ok(Inventory { backups, suspension })
    }

    /// Returns the first bytes of a backup, or all if it has fewer.
    pub async fn start_of(
        &self,
        backup: &StoredBackup,
        bytes: u64,
        deadline: Deadline,
    ) -> Result<Bytes, StoreError> {
        // S3 refuses a range of nothing.
        let bytes = bytes.min(backup.archive_bytes);
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        let operation = format!("reading of the start of {}", self.address(backup.key));
        let path = self.path_of(backup.key);
        let read = async || {
            let range = Some(GetRange::Bounded(0..bytes));
            let options = GetOptions { range, ..GetOptions::default() };
            let got = async { self.objects.get_opts(&path, options).await?.bytes().await };
            got.await.map_err(|error| StoreError::new(&operation, &error))
        };
        self.patiently(&operation, Patience::FewTries, deadline, read).await
    }

    /// Does `work` again, with pauses, as long as it may succeed and patience lasts.
    async fn patiently<T>(
        &self,
        operation: &str,
        patience: Patience,
        deadline: Deadline,
        work: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut backoff = Backoff::new(patience);
        loop {
            let error = match deadline.limit(work()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => error,
                Err(_out_of_time) => return Err(backoff.out_of_time(operation.to_owned())),
            };
            backoff.wait_after(error, deadline).await?;
        }
    }

    /// Deletes `keys` and returns those that could not be deleted, each with its error. A backup
    /// that is already gone counts as deleted.
    pub async fn delete(
        &self,
        keys: &[BackupKey],
        deadline: Deadline,
    ) -> Vec<(BackupKey, StoreError)> {
        let mut refused = Vec::new();
        for &key in keys {
            let operation = format!("deletion of {}", self.address(key));
            let path = futures::stream::iter([Ok(self.path_of(key))]).boxed();
            let mut deleted = self.objects.delete_stream(path);
            match deadline.limit(deleted.next()).await {
                Ok(Some(Err(error))) => match StoreError::new(operation, &error) {
                    gone if gone.fault == Fault::NotFound => {}
                    error => refused.push((key, error)),
                },
                Ok(Some(Ok(_)) | None) => {}
                Err(_out_of_time) => refused.push((key, StoreError::out_of_time(operation))),
            }
            fail_point::reach("backup.one_deleted");
        }
        fail_point::reach("backup.pruned");
        refused
    }

    /// Removes what a killed upload left where the store itself does not: in a folder. To be
    /// called only by the run that holds the lock.
    pub fn sweep(&self) -> std::io::Result<()> {
        self.folder.as_deref().map_or(Ok(()), folder::sweep)
    }

    /// A folder that has vanished (a disk that is not mounted) must not look like an empty one.
    async fn require_folder(&self, operation: &str) -> Result<(), StoreError> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        // Not on this thread: a dead network file system answers never.
        let is_there = tokio::task::spawn_blocking(move || folder.is_dir()).await;
        if matches!(is_there, Ok(true)) {
            return Ok(());
        }
        Err(StoreError::with_text(operation, Fault::NoSuchFolder, "it has vanished"))
    }

    fn path_of(&self, key: BackupKey) -> ObjectPath {
        self.prefix.clone().join(key.to_string())
    }
}
