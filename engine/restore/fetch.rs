//! Fetching one backup: download, decrypt and unpack at once, then check, all in a private folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Damage, RestoreEngine, RestoreError, work_folder};
use crate::archive::{self, PIECES_RECEIVED, UnpackError};
use crate::blocking;
use crate::check::{self, TableRows, Verdict};
use crate::deadline::{Deadline, OutOfTime};
use crate::disk::Disk;
use crate::encryption::Identities;
use crate::key::BackupKey;
use crate::manifest::{Counted, Manifest};
use crate::present::Present;
use crate::progress::{Progress, Stage};
use crate::store::StoredBackup;
use crate::work_dir::{WorkDir, WorkFolder};
use crate::{LOG, fail_point, text};

/// A backup, downloaded, unpacked and checked, in a private folder beside its target.
#[derive(Debug)]
pub struct CheckedFile {
    pub(super) key: BackupKey,
    pub(super) path: PathBuf,
    pub(super) folder: Arc<WorkDir>,
    pub(super) bytes: u64,
    pub(super) manifest: Option<Manifest>,
    /// The metadata of the object, as far as the store keeps any.
    pub(super) metadata: Vec<(String, String)>,
    pub(super) verdict: Verdict,
}

impl RestoreEngine {
    /// Lets encrypted backups be opened.
    #[must_use]
    pub fn with_identities(mut self, identities: Option<Identities>) -> Self {
        self.identities = identities;
        self
    }

    /// Returns what an encrypted backup is to be opened with, nothing for a plain one.
    pub(super) fn identities_for(
        &self,
        key: BackupKey,
    ) -> Result<Option<Identities>, RestoreError> {
        match (&self.identities, key.is_encrypted()) {
            (_, false) => Ok(None),
            (Some(identities), true) => Ok(Some(identities.clone())),
            (None, true) => Err(RestoreError::NoIdentity { key }),
        }
    }

    pub(super) fn wrong_identity(&self, key: BackupKey) -> RestoreError {
        let path = self.identities.as_ref().map(|identities| identities.path().to_owned());
        RestoreError::WrongIdentity { key, path: path.unwrap_or_default() }
    }

    /// Downloads `backup` into a private folder beside `target`, unpacks and checks it.
    pub async fn fetch(
        &self,
        backup: &StoredBackup,
        target: &Path,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<CheckedFile, RestoreError> {
        self.fetch_onto(Disk::of(target), backup, target, (deadline, progress)).await
    }

    /// Does the same with the room that `disk` gives.
    pub(super) async fn fetch_onto(
        &self,
        disk: Disk,
        backup: &StoredBackup,
        target: &Path,
        (deadline, progress): (Deadline, &Progress),
    ) -> Result<CheckedFile, RestoreError> {
        let key = backup.key;
        let identities = self.identities_for(key)?;
        let folder = work_dir(target.to_owned(), deadline).await?;
        fail_point::reach("restore.folder_made");
        progress.enter(Stage::Download, backup.archive_bytes);
        tracing::info!(
            target: LOG,
            key = %key,
            archive_bytes = backup.archive_bytes,
            "Downloading {} from {}...",
            text::size(backup.archive_bytes), self.store.kind().short_name()
        );
        let (sender, receiver) = mpsc::channel(PIECES_RECEIVED);
        let path = folder.file("restored.db");
        let (held, unpacked_path) = (Arc::clone(&folder), path.clone());
        let unpacking = blocking::run(deadline, move |stop| {
            let room = (&disk, &stop);
            let unpacked = match identities {
                None => archive::unpack(receiver, &unpacked_path, &disk, &stop),
                Some(identities) => {
                    let opened = (key, &identities);
                    archive::unpack_encrypted(receiver, opened, &unpacked_path, room)
                }
            };
            drop(held);
            unpacked
        });
        let downloading = self.store.download(backup, sender, deadline, progress);
        let (downloaded, unpacked) = tokio::join!(downloading, unpacking);
        let metadata = downloaded?;
        let manifest = match unpacked {
            Ok(Ok(manifest)) => manifest,
            Ok(Err(error @ UnpackError::Damaged(_))) => {
                return Err(RestoreError::Damaged { key, source: Damage::Archive(error) });
            }
            Ok(Err(UnpackError::NotForUs)) => return Err(self.wrong_identity(key)),
            Ok(Err(error)) => return Err(unchecked(key, error)),
            Err(OutOfTime) => return Err(RestoreError::OutOfTime { stage: Stage::Download }),
        };
        let bytes = fs::metadata(&path).map_err(|error| unchecked(key, error))?.len();
        tracing::info!(target: LOG, database_bytes = bytes, "Decompressed to {}", text::size(bytes));
        fail_point::reach("restore.unpacked");
        let verdict = check_file(key, &path, bytes, &folder, deadline, progress).await?;
        fail_point::reach("restore.checked");
        Ok(CheckedFile { key, path, folder, bytes, manifest, metadata, verdict })
    }
}

impl CheckedFile {
    /// Returns the size of the database in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns what the check could not verify.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Returns what the database holds.
    pub async fn present(&self, deadline: Deadline) -> Present {
        Present::at(&self.path, deadline).await
    }

    /// Counts the rows of each table, and compares them with what the backup says of itself.
    pub async fn count_rows(self, deadline: Deadline) -> Result<Vec<TableRows>, RestoreError> {
        let Self { key, path, folder, manifest, .. } = self;
        let counted = blocking::run(deadline, move |stop| {
            let counted = check::count_rows(&path, &stop);
            drop(folder);
            counted
        });
        let tables = match counted.await {
            Ok(counted) => counted.map_err(|error| unchecked(key, error))?,
            Err(OutOfTime) => return Err(RestoreError::OutOfTime { stage: Stage::Check }),
        };
        let held = Counted::of(&tables);
        match manifest.and_then(|manifest| manifest.contents).map(|claimed| claimed.counted()) {
            Some(claimed) if claimed != held => {
                Err(RestoreError::Damaged { key, source: Damage::Contents { held, claimed } })
            }
            _ => Ok(tables),
        }
    }
}

async fn check_file(
    key: BackupKey,
    path: &Path,
    bytes: u64,
    folder: &Arc<WorkDir>,
    deadline: Deadline,
    progress: &Progress,
) -> Result<Verdict, RestoreError> {
    progress.enter(Stage::Check, bytes);
    let (held, path) = (Arc::clone(folder), path.to_owned());
    let checked = blocking::run(deadline, move |stop| {
        let checked = check::check(&path, &stop);
        drop(held);
        checked
    });
    match checked.await {
        Ok(Ok(verdict)) => {
            tracing::info!(target: LOG, "Running integrity check... ok");
            if !verdict.unverified_tables.is_empty() {
                tracing::warn!(
                    target: LOG,
                    "WARNING: Structure not verified, the app's own collation or function is \
                     needed: {}", verdict.unverified_tables.join(", ")
                );
            }
            Ok(verdict)
        }
        Ok(Err(error)) if error.is_damage() => {
            Err(RestoreError::Damaged { key, source: Damage::Database(error) })
        }
        Ok(Err(error)) => Err(unchecked(key, error)),
        Err(OutOfTime) => Err(RestoreError::OutOfTime { stage: Stage::Check }),
    }
}

async fn work_dir(target: PathBuf, deadline: Deadline) -> Result<Arc<WorkDir>, RestoreError> {
    let made = blocking::run(deadline, move |_stop| {
        let folder = target.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)
            .and_then(|()| WorkFolder::beside(&target).fresh("restore"))
            .map_err(|source| work_folder(&target, source))
    });
    let folder =
        made.await.map_err(|OutOfTime| RestoreError::OutOfTime { stage: Stage::List })??;
    Ok(Arc::new(folder))
}

fn unchecked(
    key: BackupKey,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> RestoreError {
    RestoreError::Unchecked { key, source: source.into() }
}
