//! A folder as a store: protects from deletion and mistakes, not from losing the machine.
//!
//! A backup holds the whole database, so nobody else may read it, not even while it is written.
//! [`LocalFileSystem`] leaves that to the umask, which belongs to the whole process and to the
//! app that it starts: it lists, reads and deletes here, and we write.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use object_store::local::LocalFileSystem;
use tokio::sync::mpsc;

use super::Uploaded;
use crate::archive::Piece;
use crate::blocking::Stop;
use crate::fail_point;
use crate::key::BackupKey;

/// Makes the folder (mode 0700: it will hold copies of a database) if it is missing.
pub(super) fn make(root: &Path) -> Result<(), object_store::Error> {
    let made = match DirBuilder::new().mode(0o700).create(root) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    made.map_err(as_store_error)
}

/// Presents an error of the file system as the client would, so that one place judges both.
pub(super) fn as_store_error(source: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "folder", source: Box::new(source) }
}

/// Opens the folder.
pub(super) fn open(root: &Path) -> Result<LocalFileSystem, object_store::Error> {
    LocalFileSystem::new_with_prefix(root)
}

/// Writes the pieces to a new file (mode 0600) under another name, which becomes `key` when it is
/// complete and durable: a backup that a power cut takes away is none.
pub(super) fn write(
    root: &Path,
    key: BackupKey,
    pieces: mpsc::Receiver<Piece>,
    stop: &Stop,
) -> io::Result<Uploaded> {
    // One name for each try: the thread of an earlier one may still hang on a dead disk.
    static TRIES: AtomicU64 = AtomicU64::new(1);
    let staged = root.join(format!("{key}#{}", TRIES.fetch_add(1, Relaxed)));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
    let written = fill(file, pieces, stop).and_then(|written| {
        if written == Uploaded::Complete {
            fs::rename(&staged, root.join(key.to_string()))?;
            File::open(root)?.sync_all()?;
        }
        Ok(written)
    });
    if !matches!(written, Ok(Uploaded::Complete)) {
        // Err: it became the backup before the folder could not be synced; or the disk is gone,
        // and the next run sweeps.
        let _gone = fs::remove_file(&staged);
    }
    written
}

fn fill(mut file: File, mut pieces: mpsc::Receiver<Piece>, stop: &Stop) -> io::Result<Uploaded> {
    loop {
        match pieces.blocking_recv() {
            _ if stop.is_set() => return Ok(Uploaded::Abandoned),
            Some(Piece::Bytes(bytes)) => {
                file.write_all(&bytes)?;
                fail_point::reach("backup.piece_written");
            }
            Some(Piece::Whole) => {}
            Some(Piece::End) => break,
            None => return Ok(Uploaded::Abandoned),
        }
    }
    file.sync_all()?;
    fail_point::reach("backup.all_pieces_written");
    Ok(Uploaded::Complete)
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
