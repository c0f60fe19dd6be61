//! Giving a checked file the database's name, for good and without ever replacing anything.
//!
//! A stale `-wal` beside a restored database is replayed into it without a word, and a stale
//! `-journal` corrupts it: both are moved aside first, never deleted.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use thiserror::Error;

use crate::fail_point;
use crate::sqlite::{SIDECARS, sidecar};

/// A restored file could not take its place. The database's path is as it was before; where even
/// that failed, the log names each file that could not be moved back.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// Something appeared at the path meanwhile; it is not touched (invariant I3).
    #[error("{} exists by now and is not overwritten; move it away and start again", .0.display())]
    Exists(PathBuf),
    /// The file system refused.
    #[error("{operation} {} failed; check the folder's permissions", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What to do about a database that is at the path already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuses.
    Refuse,
    /// Moves it aside.
    MoveAside,
}

/// What made room for a restored file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MadeRoom {
    /// Where the former database is now: `{database}.replaced-{timestamp}`, its log under the
    /// same stem, so that it can still be opened.
    pub replaced: Option<PathBuf>,
    /// Where files are now that belonged to a former database which is gone:
    /// `{name}.stale-{timestamp}`.
    pub stale: Vec<PathBuf>,
}

/// Returns the files that [`place`] would move aside: a database, and what belongs to one.
#[must_use]
pub fn in_the_way(database: &Path) -> Vec<PathBuf> {
    let files = std::iter::once(database.to_owned())
        .chain(SIDECARS.iter().map(|suffix| sidecar(database, suffix)));
    files.filter(|file| fs::symlink_metadata(file).is_ok()).collect()
}

/// Makes `file` durable and gives it the path of `database`, after moving what is in the way
/// aside. Both lie in the same file system; the last rename is atomic, and durable when this
/// returns.
///
/// # Errors
///
/// With everything moved back to where it was, unless another program's database is there now:
/// an old log must not come to lie beside it.
pub fn place(
    file: &Path,
    database: &Path,
    existing: Existing,
    timestamp: i64,
) -> Result<MadeRoom, PlaceError> {
    let synced = File::open(file).and_then(|file| file.sync_all());
    synced.map_err(|source| fail("sync of", file, source))?;
    fail_point::reach("restore.file_synced");
    let room = take(file, database, existing, timestamp)?;
    fail_point::reach("restore.renamed");
    if let Err(error) = sync_folder_of(database) {
        // The file is in its place, and only a power cut in the next seconds could undo that.
        tracing::warn!(target: crate::LOG, "WARNING: {}", crate::text::chain(&error));
    }
    fail_point::reach("restore.folder_synced");
    Ok(room)
}

/// Does the renames of [`place`], or none.
fn take(
    file: &Path,
    database: &Path,
    existing: Existing,
    timestamp: i64,
) -> Result<MadeRoom, PlaceError> {
    let mut moves = Moves::default();
    let taken = make_room(database, existing, timestamp, &mut moves).and_then(|room| {
        fail_point::reach("restore.room_made");
        move_new(file, database)?;
        Ok(room)
    });
    match &taken {
        Ok(_) => {}
        Err(PlaceError::Exists(_)) => moves.report(),
        Err(_) => moves.undo(),
    }
    taken
}

/// Looks again at what is at the path: minutes may lie between the first look and this one, and
/// the log of a database that came meanwhile must stay where it is.
fn make_room(
    database: &Path,
    existing: Existing,
    timestamp: i64,
    moves: &mut Moves,
) -> Result<MadeRoom, PlaceError> {
    let mut room = MadeRoom::default();
    let exists = fs::symlink_metadata(database).is_ok();
    if exists && existing == Existing::Refuse {
        return Err(PlaceError::Exists(database.to_owned()));
    }
    if exists {
        let aside = unused(&sidecar(database, &format!(".replaced-{timestamp}")));
        moves.make(database, &aside)?;
        room.replaced = Some(aside);
    }
    for suffix in SIDECARS {
        let file = sidecar(database, suffix);
        if fs::symlink_metadata(&file).is_err() {
            continue;
        }
        if let Some(replaced) = &room.replaced {
            moves.make(&file, &sidecar(replaced, suffix))?;
        } else {
            let aside = unused(&sidecar(&file, &format!(".stale-{timestamp}")));
            moves.make(&file, &aside)?;
            room.stale.push(aside);
        }
    }
    Ok(room)
}

/// Renames that were made, so that they can be undone together.
#[derive(Default)]
struct Moves(Vec<(PathBuf, PathBuf)>);

impl Moves {
    fn make(&mut self, from: &Path, to: &Path) -> Result<(), PlaceError> {
        move_new(from, to)?;
        self.0.push((from.to_owned(), to.to_owned()));
        fail_point::reach("restore.one_moved_aside");
        Ok(())
    }

    /// Moves back in the order of the moves, a database before its log, and stops where that
    /// fails: a log without its database must not be put beside another.
    fn undo(mut self) {
        while !self.0.is_empty() {
            let (from, to) = &self.0[0];
            if let Err(error) = move_new(to, from) {
                tracing::error!(target: crate::LOG, "ERROR: {}", crate::text::chain(&error));
                return self.report();
            }
            self.0.remove(0);
        }
    }

    /// Says where files are that stay moved.
    fn report(self) {
        for (from, to) in self.0 {
            tracing::warn!(
                target: crate::LOG,
                "WARNING: {} was moved aside to {}", from.display(), to.display()
            );
        }
    }
}

/// Makes the names in the folder of `path` durable.
fn sync_folder_of(path: &Path) -> Result<(), PlaceError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| fail("sync of", folder, source))
}

/// Renames without replacing anything at the new name.
fn move_new(from: &Path, to: &Path) -> Result<(), PlaceError> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => Err(PlaceError::Exists(to.to_owned())),
        // Some file systems (NFS among them) lack the flag; the look before the rename leaves a
        // moment in which another process could create the file.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if fs::symlink_metadata(to).is_ok() {
                return Err(PlaceError::Exists(to.to_owned()));
            }
            fs::rename(from, to).map_err(|source| fail("rename to", to, source))
        }
        Err(errno) => Err(fail("rename to", to, errno.into())),
    }
}

/// Returns `wanted`, or the first of `wanted.1`, `wanted.2`, … that does not exist.
fn unused(wanted: &Path) -> PathBuf {
    let is_free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    std::iter::once(wanted.to_owned())
        .chain((1..1000).map(|count| sidecar(wanted, &format!(".{count}"))))
        .find(is_free)
        // A thousand restores within one second: the rename refuses to replace anything anyway.
        .unwrap_or_else(|| wanted.to_owned())
}

fn fail(operation: &'static str, path: &Path, source: io::Error) -> PlaceError {
    PlaceError::Io { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (file, database) = (root.path().join("new"), root.path().join("app.db"));
        fs::write(&file, "new").expect("written");
        (root, file, database)
    }

    fn folder_with_database() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let (root, file, database) = folder();
        fs::write(&database, "old").expect("written");
        fs::write(sidecar(&database, "-wal"), "its log").expect("written");
        (root, file, database)
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).expect("there")
    }

    #[test]
    fn i3_place_never_replaces_and_leaves_a_living_log_alone() {
        let (_root, file, database) = folder_with_database();
        let refused = place(&file, &database, Existing::Refuse, 7).expect_err("exists");
        assert!(matches!(refused, PlaceError::Exists(_)), "{refused:?}");
        assert_eq!(read(&database), "old");
        assert_eq!(read(&sidecar(&database, "-wal")), "its log");
    }

    #[test]
    fn stale_logs_move_aside_and_never_over_an_older_one() {
        let (folder, file, database) = folder();
        fs::write(sidecar(&database, "-wal"), "second").expect("written");
        fs::write(folder.path().join("app.db-wal.stale-7"), "first").expect("written");
        let room = place(&file, &database, Existing::Refuse, 7).expect("placed");
        assert_eq!(room.stale, [folder.path().join("app.db-wal.stale-7.1")]);
        assert_eq!(read(&room.stale[0]), "second");
        assert_eq!(read(&database), "new");
    }

    #[test]
    fn a_replaced_database_keeps_its_log_beside_it() {
        let (_root, file, database) = folder_with_database();
        let room = place(&file, &database, Existing::MoveAside, 7).expect("placed");
        let replaced = room.replaced.expect("moved aside");
        assert_eq!(
            (read(&replaced), read(&sidecar(&replaced, "-wal"))),
            ("old".into(), "its log".into())
        );
        assert_eq!(read(&database), "new");
    }

    #[test]
    fn a_last_rename_that_fails_undoes_those_before_it() {
        let (folder, _file, database) = folder_with_database();
        let missing = folder.path().join("missing");
        take(&missing, &database, Existing::MoveAside, 7).expect_err("nothing to place");
        assert_eq!(read(&database), "old");
        assert_eq!(read(&sidecar(&database, "-wal")), "its log");
    }

    #[test]
    fn no_log_is_moved_back_beside_a_database_that_came_meanwhile() {
        let (_folder, _file, database) = folder_with_database();
        let mut moves = Moves::default();
        let room = make_room(&database, Existing::MoveAside, 7, &mut moves).expect("made");
        fs::write(&database, "another program's").expect("written");
        moves.undo();
        assert_eq!(read(&database), "another program's");
        assert!(!sidecar(&database, "-wal").exists());
        let replaced = room.replaced.expect("moved aside");
        assert_eq!(read(&sidecar(&replaced, "-wal")), "its log");
    }
}
