//! What a restore by hand would do, without doing it: what is in the way, what there is room for,
//! what would be refused. Takes no lock, makes no file and downloads no backup.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Existing, RestoreEngine, RestoreError, in_background};
use crate::archive::UnpackError;
use crate::deadline::Deadline;
use crate::disk::{Disk, Room};
use crate::header::{self, Header};
use crate::manifest::Manifest;
use crate::placement;
use crate::present;
use crate::progress::Stage;
use crate::snapshot;
use crate::store::{StoreError, StoredBackup};
use crate::work_dir::{WorkFolder, canonical};

/// What a restore would do.
#[derive(Debug)]
pub struct Plan {
    /// Where the database would be, links resolved.
    pub target: PathBuf,
    /// What the backup says about itself, if it does.
    pub manifest: Option<Manifest>,
    /// The files that would be moved aside.
    pub in_the_way: Vec<PathBuf>,
    /// The room on the disk, where the backup says its size and the file system tells.
    pub room: Option<Room>,
    /// Why the restore would be refused, if it were asked for now.
    pub refusals: Vec<RestoreError>,
}

impl RestoreEngine {
    /// Returns what `backup` says about itself, with one small request; nothing, if stock `gzip`
    /// made it, or no identity at hand opens it.
    pub async fn manifest_of(
        &self,
        backup: &StoredBackup,
        deadline: Deadline,
    ) -> Result<Option<Manifest>, StoreError> {
        Ok(self.header_of(backup, deadline).await?.manifest())
    }

    async fn header_of(
        &self,
        backup: &StoredBackup,
        deadline: Deadline,
    ) -> Result<Header, StoreError> {
        header::read(&self.store, backup, self.identities.as_ref(), deadline).await
    }

    /// Returns what [`RestoreEngine::restore_to`] would do now.
    pub async fn plan(
        &self,
        backup: &StoredBackup,
        target: &Path,
        existing: Existing,
        deadline: Deadline,
    ) -> Result<Plan, RestoreError> {
        let header = self.header_of(backup, deadline).await?;
        let is_closed = matches!(header, Header::Unopened(UnpackError::NotForUs));
        let manifest = header.manifest();
        let (key, path) = (backup.key, target.to_owned());
        let bytes = manifest.as_ref().map(|manifest| manifest.database_bytes);
        let looked = in_background(deadline, Stage::List, move || {
            let target = canonical(&path);
            let mut refusals: Vec<_> = refusal(&target, existing).into_iter().collect();
            // A restore makes the folder, if it is missing.
            let disk = Disk::of(&beside(&target));
            let room = bytes.and_then(|bytes| disk.room_for(bytes));
            if let Some(Err(none)) = bytes.map(|bytes| disk.require(bytes)) {
                let source = Box::new(UnpackError::NoRoom(none));
                refusals.push(RestoreError::Unchecked { key, source });
            }
            (placement::in_the_way(&target), target, room, refusals)
        });
        let (in_the_way, target, room, mut refusals) = looked.await?;
        refusals.extend(self.identities_for(key).err());
        refusals.extend(is_closed.then(|| self.wrong_identity(key)));
        Ok(Plan { target, manifest, in_the_way, room, refusals })
    }

    /// Returns who uses the database at `target` now, as far as that shows without disturbing them.
    pub async fn user_of(
        &self,
        target: &Path,
        deadline: Deadline,
    ) -> Result<Option<String>, RestoreError> {
        let path = target.to_owned();
        in_background(deadline, Stage::List, move || user(&canonical(&path))).await
    }
}

/// Returns what a restore says first, in the order in which it looks.
fn refusal(target: &Path, existing: Existing) -> Option<RestoreError> {
    let exists = fs::symlink_metadata(target).is_ok();
    if exists && existing == Existing::Refuse {
        return Some(RestoreError::TargetExists(target.to_owned()));
    }
    let metadata = fs::metadata(target).ok();
    if let Some(what) = metadata.and_then(|found| snapshot::other_than_file(&found)) {
        return Some(RestoreError::NotAFile { path: target.to_owned(), what });
    }
    user(target).map(|holder| RestoreError::InUse { path: target.to_owned(), holder })
}

fn user(target: &Path) -> Option<String> {
    // Err: the restore itself will say so.
    let service = WorkFolder::beside(target).service().ok().flatten();
    let service = service.map(|holder| format!("simplebackup, {holder}"));
    service.or_else(|| present::holder(target))
}

/// Returns a path in the nearest folder above `target` that exists.
fn beside(target: &Path) -> PathBuf {
    let folder = target.ancestors().skip(1).find(|folder| folder.is_dir());
    folder.unwrap_or(Path::new("/")).join("database")
}
