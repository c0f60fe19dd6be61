//! What is known of the backup before: remembered by this process, kept beside the database, or read
//! from the store.
//!
//! Of an encrypted backup a machine without an identity can read nothing. So what the last one held is
//! kept in the work folder too, where the database itself lies open: a restart does not forget it.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::compare::Before;
use super::{BackupEngine, BackupError, Run};
use crate::deadline::Deadline;
use crate::encryption::Identities;
use crate::header::{self, Header};
use crate::key::BackupKey;
use crate::manifest::Manifest;
use crate::progress::Stage;
use crate::store::{BackupStore, Fault, Inventory, Patience, StoredBackup};
use crate::{LOG, text};

/// The file in the work folder.
const KEPT: &str = "last-stored";

/// The backup that the last run made, to spare a request, or the need for an identity.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Option<Made>>);

/// What a run finds in the store.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) inventory: Inventory,
    pub(super) before: Before,
}

/// A backup and what it holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Made {
    #[serde(with = "name")]
    key: BackupKey,
    archive_bytes: u64,
    manifest: Manifest,
}

/// A key as its name.
mod name {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::key::BackupKey;

    pub(super) fn serialize<S: Serializer>(key: &BackupKey, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(key)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BackupKey, D::Error> {
        let name = String::deserialize(from)?;
        BackupKey::parse(&name).ok_or_else(|| D::Error::custom("no name of a backup"))
    }
}

impl Made {
    /// Reads what was kept in the work folder; nothing where there is nothing that can be read.
    pub(super) fn kept_in(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(KEPT)).ok()?).ok()
    }
}

impl Memory {
    /// Returns what is known of the newest of `stored`, with one small request if nobody on this
    /// machine remembers it. One that could not be compared itself leads on to its own measure: what
    /// was stored unseen since may be the loss.
    pub(super) async fn before(
        &self,
        store: &BackupStore,
        stored: &[StoredBackup],
        identities: Option<&Identities>,
        deadline: Deadline,
    ) -> Before {
        let Some(mut asked) = stored.last() else { return Before::Unknown };
        loop {
            let manifest = match self.remembered(asked) {
                Some(manifest) => manifest,
                None => match read(store, asked, identities, deadline).await {
                    Ok(manifest) => manifest,
                    Err(before) => return before,
                },
            };
            let owed = manifest.uncompared_with;
            // Older, or else a header that somebody made could lead round and round.
            let older = stored.iter().take_while(|backup| backup.key < asked.key);
            match older.into_iter().find(|backup| Some(backup.key.timestamp()) == owed) {
                Some(measure) => asked = measure,
                None => return Before::Known(asked.clone(), manifest),
            }
        }
    }

    pub(super) fn remember(&self, made: &StoredBackup, manifest: Manifest) {
        let StoredBackup { key, archive_bytes, .. } = *made;
        *self.last() = Some(Made { key, archive_bytes, manifest });
    }

    /// Takes what was kept in the work folder, if that is newer: another process may have made it.
    pub(super) fn recall(&self, kept: Option<Made>) {
        let mut last = self.last();
        if kept.as_ref().map(|made| made.key) > last.as_ref().map(|made| made.key) {
            *last = kept;
        }
    }

    fn remembered(&self, asked: &StoredBackup) -> Option<Manifest> {
        let last = self.last();
        let is_same =
            |made: &&Made| (made.key, made.archive_bytes) == (asked.key, asked.archive_bytes);
        Some(last.as_ref().filter(is_same)?.manifest.clone())
    }

    /// A panic of another run leaves nothing half-written here.
    fn last(&self) -> MutexGuard<'_, Option<Made>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the manifest at the start of a stored backup.
async fn read(
    store: &BackupStore,
    asked: &StoredBackup,
    identities: Option<&Identities>,
    deadline: Deadline,
) -> Result<Manifest, Before> {
    match header::read(store, asked, identities, deadline).await {
        Ok(Header::Told(manifest)) => Ok(*manifest),
        Ok(Header::Silent) => Err(Before::Unknown),
        // Of other recipients, or damaged, which cannot be told apart.
        Ok(Header::Locked | Header::Unopened(_)) => Err(Before::Encrypted(asked.clone())),
        Err(gone) if gone.fault == Fault::NotFound => Err(Before::Unknown),
        Err(error) => Err(Before::Unread(asked.key, error)),
    }
}

impl BackupEngine {
    /// Lists what is stored, and learns what the newest of it holds.
    pub(super) async fn look(&self, deadline: Deadline) -> Result<Seen, BackupError> {
        let inventory = self.store.inventory(deadline, Patience::FewTries).await?;
        let (stored, identities) = (&inventory.backups, self.identities.as_ref());
        let before = self.memory.before(&self.store, stored, identities, deadline).await;
        Ok(Seen { inventory, before })
    }

    /// Keeps what an encrypted backup holds beside the database; of a plain one the store tells it.
    pub(super) async fn keep_in_mind(
        &self,
        run: &Arc<Run>,
        made: &StoredBackup,
        manifest: &Manifest,
        deadline: Deadline,
    ) {
        if !made.key.is_encrypted() {
            return;
        }
        let StoredBackup { key, archive_bytes, .. } = *made;
        let made = Made { key, archive_bytes, manifest: manifest.clone() };
        let work = run.work.clone();
        let kept = self.in_run(run, (Stage::Upload, deadline), move |_stop| {
            work.keep(KEPT, &serde_json::to_string(&made)?)
        });
        // Err: the time is over, and the next step says so.
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(
                target: LOG,
                error = %text::chain(&error),
                "WARNING: What {key} holds cannot be kept in the work folder: {error}; after a \
                 restart the next backup cannot be compared with it without an identity"
            );
        }
    }
}
