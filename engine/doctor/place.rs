//! The place of the database: its file system, the room on it, and the work folder beside it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::{Finding, skip_all};
use crate::disk::{self, Room};
use crate::preflight;
use crate::text;
use crate::work_dir::{LockError, WorkFolder};

/// The checks of this file, in their order.
pub const CHECKS: [&str; 3] = [FILE_SYSTEM, ROOM, FOLDER];

const FILE_SYSTEM: &str = "disk.filesystem";
const ROOM: &str = "disk.room";
const FOLDER: &str = "work.folder";

/// What the checks found, and what other checks want to know.
#[derive(Debug)]
pub struct Examined {
    /// One finding for each of [`CHECKS`].
    pub findings: Vec<Finding>,
    /// Who works on the database now, such as `process 4711`.
    pub service: Option<String>,
}

/// Looks at the place of `database`, which need not exist. `is_wal` is whether it keeps a
/// write-ahead log, if that is known.
#[must_use]
pub fn examine(database: &Path, is_wal: Option<bool>) -> Examined {
    let folder = database.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        let why = format!("{} is no folder yet; the first start makes it", folder.display());
        return Examined { findings: skip_all(&CHECKS, &why), service: None };
    }
    let (work, service) = work_folder(database, folder);
    let findings = vec![file_system(database, folder, is_wal), room(database, folder), work];
    Examined { findings, service }
}

fn file_system(database: &Path, folder: &Path, is_wal: Option<bool>) -> Finding {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let name = mounted_as(&mounts, folder).unwrap_or_else(|| "unknown".to_owned());
    let next = "use a local disk (https://sqlite.org/useovernet.html)";
    if let Some(kind) = preflight::network_file_system(database) {
        let found =
            format!("{} lies on {kind}, where SQLite's locks are not safe", folder.display());
        return match is_wal {
            Some(true) => {
                let found = format!("{found}, and a write-ahead log does not work");
                Finding::failure(FILE_SYSTEM, found, next)
            }
            _ => Finding::warning(FILE_SYSTEM, found, next),
        };
    }
    // "fuse.sshfs" and the like; "fuseblk" is a program that serves a disk of this machine.
    if name == "fuse" || name.starts_with("fuse.") {
        let found = format!(
            "{} lies on {name}, a file system of a program: its locks may not be SQLite's",
            folder.display()
        );
        return Finding::warning(FILE_SYSTEM, found, next);
    }
    if matches!(name.as_str(), "tmpfs" | "ramfs") {
        let found =
            format!("{} lies on {name}: it is gone with the machine's memory", folder.display());
        return Finding::warning(FILE_SYSTEM, found, "use a disk, unless that is what you want");
    }
    Finding::ok(FILE_SYSTEM, format!("{} lies on {name}", folder.display()))
}

/// Returns the type of the file system on which `folder` lies, as the kernel's list of mounts has
/// it (`man 5 proc_pid_mountinfo`).
fn mounted_as(mounts: &[u8], folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let lines = mounts.split(|&byte| byte == b'\n');
    let places = lines.filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let place = unescaped(fields.nth(4)?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        folder.starts_with(&place).then(|| (place, String::from_utf8_lossy(kind).into_owned()))
    });
    // Of two mounts at one place the later hides the earlier.
    let innermost = places.max_by_key(|(place, _)| place.components().count());
    innermost.map(|(_, kind)| kind)
}

/// Blanks and the like stand there as `\040`.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

fn room(database: &Path, folder: &Path) -> Finding {
    let Some(Room { needed_bytes, free_bytes }) = disk::room_for_snapshot(database) else {
        return Finding::skipped(ROOM, "the file system does not tell its room");
    };
    let mut found = format!("{} free in {}", text::size(free_bytes), folder.display());
    if needed_bytes > 0 {
        found = format!("a snapshot needs {}, {found}", text::size(needed_bytes));
    }
    if free_bytes < needed_bytes {
        return Finding::failure(ROOM, found, "free space or move the database to a larger disk");
    }
    Finding::ok(ROOM, found)
}

fn work_folder(database: &Path, folder: &Path) -> (Finding, Option<String>) {
    let work = WorkFolder::beside(database);
    let writable =
        |path: &Path| -> io::Result<()> { Ok(access(path, Access::WRITE_OK | Access::EXEC_OK)?) };
    let written = writable(folder)
        .and_then(|()| if work.path().is_dir() { writable(work.path()) } else { Ok(()) });
    if let Err(error) = written {
        let found = format!("{} cannot be written: {error}", folder.display());
        let next =
            "let this user write the folder of the database: backups and restores work there";
        return (Finding::failure(FOLDER, found, next), None);
    }
    match work.service() {
        Ok(None) => {
            let found = format!("{} can be used; no service runs", work.path().display());
            (Finding::ok(FOLDER, found), None)
        }
        Ok(Some(holder)) => {
            let found = format!("simplebackup runs on this database: {holder}");
            (Finding::ok(FOLDER, found), Some(holder))
        }
        Err(LockError::Io { path, source }) => {
            let found = format!("{} cannot be used: {source}", path.display());
            (Finding::failure(FOLDER, found, "make it writable for this user"), None)
        }
        // The lock is looked at, never taken.
        Err(LockError::Held { holder }) => (Finding::ok(FOLDER, holder.clone()), Some(holder)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn the_innermost_and_latest_mount_counts() {
        let mounts = b"22 1 8:1 / / rw shared:1 - ext4 /dev/root rw\n\
            30 22 0:9 / /srv rw - fuse.sshfs host:/x rw\n\
            31 22 0:9 / /srv/a\\040b rw shared:2 master:1 - nfs4 host:/y rw\n\
            32 22 0:9 / /srv/a\\040b rw - xfs /dev/sdb rw\n";
        let cases = [
            ("/var/lib", Some("ext4")),
            ("/srv", Some("fuse.sshfs")),
            ("/srv/a b/c", Some("xfs")),
            ("/srv/a", Some("fuse.sshfs")),
            ("/srvice", Some("ext4")),
        ];
        for (folder, expect) in cases {
            let found = mounted_as(mounts, Path::new(folder));
            assert_eq!(found.as_deref(), expect, "{folder}");
        }
        assert_eq!(mounted_as(b"garbage\n", Path::new("/")), None);
    }

    #[test]
    fn a_running_service_is_told_and_no_failure() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let database = root.path().join("app.db");
        let look = || examine(&database, None);
        assert_eq!(look().service, None);
        assert!(!WorkFolder::beside(&database).path().exists(), "a look makes nothing");
        let held = WorkFolder::beside(&database).lock_service().expect("free");
        let Examined { findings, service } = look();
        let holder = format!("process {}", std::process::id());
        assert_eq!(service.as_deref(), Some(holder.as_str()));
        assert_eq!(findings[2].verdict, Verdict::Ok, "{findings:?}");
        drop(held);
        assert_eq!(look().service, None);
        WorkFolder::beside(&database).lock_service().expect("a look takes nothing");
    }

    #[test]
    fn a_folder_that_is_missing_is_not_made() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let Examined { findings, .. } = examine(&root.path().join("none/app.db"), None);
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Skipped));
        assert!(!root.path().join("none").exists());
    }
}
