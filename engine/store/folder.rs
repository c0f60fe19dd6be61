//! A folder as a store: protects from deletion and mistakes, not from losing the machine.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use object_store::local::LocalFileSystem;

use crate::key::BackupKey;

/// Makes the folder (mode 0700: it will hold copies of a database) if it is missing.
pub(super) fn make(root: &Path) -> Result<(), object_store::Error> {
    let made = match DirBuilder::new().mode(0o700).create(root) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    made.map_err(|source| object_store::Error::Generic {
        store: "folder",
        source: Box::new(source),
    })
}

/// Opens the folder.
pub(super) fn open(root: &Path) -> Result<LocalFileSystem, object_store::Error> {
    // A backup that a power cut takes away is none.
    Ok(LocalFileSystem::new_with_prefix(root)?.with_fsync(true))
}

/// Removes the staging files (`db-backup-5.db.gz#1`) that a killed upload left. Only while the
/// run lock is held: a living upload of ours has one too.
pub(super) fn sweep(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((object, number)) = name.to_str().and_then(|name| name.split_once('#')) else {
            continue;
        };
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        if is_number && BackupKey::parse(object).is_some() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
