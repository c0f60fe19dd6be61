//! The room on a disk, compared with what a job is about to write: better to refuse at once than
//! to fill a disk that other programs write to as well.
//!
//! A comparison is a courtesy and no promise: what others write meanwhile shows itself at the
//! write, whose error says the same. Nothing here opens a file.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::sqlite::sidecar;
use crate::text;

/// What a job writes beside its one large file: the log and the index of a WAL database whose
/// journal mode is set, and what the file system needs for itself.
const MARGIN_BYTES: u64 = 512 * 1024;

/// What an archive that does not say its size has to leave of a disk: a twentieth of it, as file
/// systems themselves keep back for root, but not more than this.
const RESERVE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The twentieth.
const RESERVE_PART: u64 = 20;

/// A disk has less room than a job needs. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "needs {}, {} free in {}; free space or move the database to a larger disk",
    text::size(*needed_bytes), text::size(*free_bytes), folder.display()
)]
pub struct NoRoom {
    /// What the job would write.
    pub needed_bytes: u64,
    /// What this user may write.
    pub free_bytes: u64,
    /// Where.
    pub folder: PathBuf,
}

/// What a job needs of a disk, and what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What the job would write at most.
    pub needed_bytes: u64,
    /// What this user may write.
    pub free_bytes: u64,
}

/// The disk on which a database lies, and all work on it: the work folder is beside it.
#[derive(Debug, Clone)]
pub struct Disk {
    folder: PathBuf,
    /// What another job may need meanwhile.
    kept_bytes: u64,
}

impl Disk {
    /// Returns the disk of `database`, which need not exist; its folder must.
    #[must_use]
    pub fn of(database: &Path) -> Self {
        let folder = database.parent().unwrap_or(Path::new("/")).to_owned();
        Self { folder, kept_bytes: 0 }
    }

    /// Returns the disk of `database` without the room that its next snapshot needs: for a job
    /// that must not cost a backup.
    #[must_use]
    pub fn beside_snapshot_of(database: &Path) -> Self {
        let kept_bytes = snapshot_bytes_max(database).saturating_add(MARGIN_BYTES);
        Self { kept_bytes, ..Self::of(database) }
    }

    /// Makes sure that a file of `bytes` fits, with what SQLite keeps beside it.
    pub fn require(&self, bytes: u64) -> Result<(), NoRoom> {
        self.require_exactly(bytes.saturating_add(MARGIN_BYTES))
    }

    /// Returns what a file of `bytes` needs, with what SQLite keeps beside it, and what is free;
    /// nothing where the file system does not tell.
    #[must_use]
    pub fn room_for(&self, bytes: u64) -> Option<Room> {
        let free_bytes = self.space()?.free_bytes;
        Some(Room { needed_bytes: bytes.saturating_add(MARGIN_BYTES), free_bytes })
    }

    /// Makes sure that `bytes` more can be written and the reserve for others stays.
    pub fn require_beside_reserve(&self, bytes: u64) -> Result<(), NoRoom> {
        let Some(Space { total_bytes, .. }) = self.space() else { return Ok(()) };
        let reserve = (total_bytes / RESERVE_PART).min(RESERVE_BYTES_MAX);
        self.require_exactly(bytes.saturating_add(reserve))
    }

    fn require_exactly(&self, bytes: u64) -> Result<(), NoRoom> {
        let needed_bytes = bytes.saturating_add(self.kept_bytes);
        match self.space() {
            Some(Space { free_bytes, .. }) if free_bytes < needed_bytes => {
                Err(NoRoom { needed_bytes, free_bytes, folder: self.folder.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Returns the room, or `None` where the file system does not tell: then nothing is refused,
    /// and a full disk shows itself at the write.
    fn space(&self) -> Option<Space> {
        let told = rustix::fs::statvfs(&self.folder).ok()?;
        space_of(told.f_blocks, told.f_bavail, told.f_frsize)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Space {
    total_bytes: u64,
    free_bytes: u64,
}

/// `available` leaves out what only root may fill. Some FUSE file systems have no idea of their
/// size, and say 0 blocks.
fn space_of(blocks: u64, available: u64, block_bytes: u64) -> Option<Space> {
    (blocks > 0 && block_bytes > 0).then(|| Space {
        total_bytes: blocks.saturating_mul(block_bytes),
        free_bytes: available.saturating_mul(block_bytes),
    })
}

/// Makes sure, without opening it, that a snapshot of `database` would fit today. One that is
/// missing needs nothing yet.
pub fn require_for_snapshot(database: &Path) -> Result<(), NoRoom> {
    match snapshot_bytes_max(database) {
        0 => Ok(()),
        bytes => Disk::of(database).require(bytes),
    }
}

/// Returns both numbers for a snapshot of `database`, if its file system tells them. Where no database is,
/// none needs anything.
#[must_use]
pub fn room_for_snapshot(database: &Path) -> Option<Room> {
    let needed_bytes = match snapshot_bytes_max(database) {
        0 => 0,
        bytes => bytes.saturating_add(MARGIN_BYTES),
    };
    let Space { free_bytes, .. } = Disk::of(database).space()?;
    Some(Room { needed_bytes, free_bytes })
}

/// A snapshot is at most as large as the database and its log.
fn snapshot_bytes_max(database: &Path) -> u64 {
    let bytes = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    bytes(database).saturating_add(bytes(&sidecar(database, "-wal")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_does_not_tell_its_size_refuses_nothing() {
        assert_eq!(space_of(0, 0, 4096), None);
        assert_eq!(space_of(100, 100, 0), None);
        let full = Space { total_bytes: 409_600, free_bytes: 0 };
        assert_eq!(space_of(100, 0, 4096), Some(full), "full is not unknown");
        let boundless = space_of(u64::MAX, u64::MAX, 4096).expect("told");
        assert_eq!(boundless.free_bytes, u64::MAX);
    }

    #[test]
    fn a_refusal_names_both_numbers_and_the_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let disk = Disk::of(&folder.path().join("app.db"));
        disk.require(0).expect("room for nothing");
        let refused = disk.require(1 << 60).expect_err("no disk is that large");
        assert_eq!(refused.needed_bytes, (1 << 60) + MARGIN_BYTES);
        let place = format!(" free in {}; free space or move", folder.path().display());
        let words = refused.to_string();
        assert!(words.starts_with("needs 1152921.5TB, ") && words.contains(&place), "{words}");
        let database = folder.path().join("app.db");
        fs::write(&database, [0; 1000]).expect("written");
        fs::write(sidecar(&database, "-wal"), [0; 100]).expect("written");
        let refused = Disk::beside_snapshot_of(&database).require(1 << 60).expect_err("as before");
        assert_eq!(refused.needed_bytes, (1 << 60) + MARGIN_BYTES + 1100 + MARGIN_BYTES);
        Disk::of(Path::new("/no/such/folder/app.db")).require(1 << 60).expect("unknown");
    }
}
