//! Packing: the snapshot as gzip members, made beside each other and sent in order.
//!
//! A gzip file may have many members (RFC 1952, 2.2), and every gunzip reads on after the first.
//! That of ours is empty and carries the manifest in its header; each of the others holds the next
//! bytes of the snapshot. Memory is a few members, whatever the size.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope};

use bytes::Bytes;
use flate2::{Compression, GzBuilder};

use super::ahead::{Ahead, PackedAhead};
use super::member::{MemberPacker, Shape};
use super::{Outlet, PackError};
use crate::blocking::{Stop, give_way};
use crate::key::BackupKey;
use crate::manifest::Manifest;
use crate::progress::Progress;

/// Threads that pack; on one processor a single one. More would pay where the processor is what a
/// backup waits for, but the app is to have most of them.
const PACKERS_MAX: usize = 2;

/// Members that one packer has: one in work, one waiting.
const MEMBERS_PER_PACKER: usize = 2;

/// Members that are given to packers and not yet sent.
const IN_WORK_MAX: usize = PACKERS_MAX * MEMBERS_PER_PACKER;

/// Packs the snapshot file into `outlet`, but for what is still right of `ahead`, and returns how many
/// bytes it has sent on. The last word, [`Piece::End`](super::Piece::End), is left to the caller: only
/// after it a backup may become visible.
///
/// `free` says how many processors there are to pack on; it is asked until all packers are at work.
///
/// # Errors
///
/// [`PackError::Read`] also for a snapshot of another size than the manifest says.
/// [`PackError::OtherForm`] before anything is sent under a name that says something else of it.
pub fn pack(
    (snapshot, mut ahead): (&Path, Ahead),
    key: BackupKey,
    manifest: &Manifest,
    mut outlet: Outlet<'_>,
    free: &dyn Fn() -> usize,
    (stop, progress): (&Stop, &Progress),
) -> Result<u64, PackError> {
    if outlet.form() != key.form() {
        return Err(PackError::OtherForm(key));
    }
    let file = File::open(snapshot).map_err(PackError::Read)?;
    outlet.put(head(key, manifest).map_err(PackError::Read)?)?;
    let database_bytes = manifest.database_bytes;
    let shape = Shape::of(database_bytes);
    let count = shape.members(database_bytes);
    let useful = packers_max(count);
    let (give, given) = sync_channel(IN_WORK_MAX);
    let job = Job { file: &file, database_bytes, given: given.into(), still_right: 0.into() };
    thread::scope(|scope| {
        let mut packers = Packers { job: &job, give, started: 0, in_work: VecDeque::new() };
        let (mut given, mut packed) = (0, 0);
        while packed < count {
            if stop.is_set() {
                return Err(PackError::Abandoned);
            }
            if packers.started < useful {
                packers.start(scope, free().clamp(1, useful));
            }
            if given < count && packers.have_room() {
                packers.give(given, ahead.next_of(shape))?;
                given += 1;
            } else {
                let bytes = packers.take();
                if bytes.is_err() {
                    require_whole(&file, database_bytes)?;
                }
                outlet.put(bytes?)?;
                packed += 1;
                progress.set_done(shape.end_of(packed - 1).min(database_bytes));
            }
        }
        require_whole(&file, database_bytes)?;
        tracing::debug!(
            target: crate::LOG,
            "{} of {count} members were packed before the upload began",
            job.still_right.load(Relaxed)
        );
        outlet.finish()
    })
}

/// Refuses a file of another size than the check saw: a restore would.
fn require_whole(snapshot: &File, database_bytes: u64) -> Result<(), PackError> {
    let there = snapshot.metadata().map_err(PackError::Read)?.len();
    if there == database_bytes {
        return Ok(());
    }
    let text = format!("{there} of {database_bytes} bytes are there");
    Err(PackError::Read(io::Error::new(io::ErrorKind::UnexpectedEof, text)))
}

/// Returns how many threads may be of use for so many members.
fn packers_max(members: u64) -> usize {
    usize::try_from(members).map_or(PACKERS_MAX, |members| members.min(PACKERS_MAX))
}

/// Returns the first member, which holds nothing but what is said about the rest.
fn head(key: BackupKey, manifest: &Manifest) -> io::Result<Bytes> {
    let gzip = GzBuilder::new()
        .filename(key.database_name())
        .comment(serde_json::to_vec(manifest)?)
        .mtime(u32::try_from(key.timestamp()).unwrap_or(0))
        .write(Vec::new(), Compression::none());
    gzip.finish().map(Bytes::from)
}

/// Which member is to be packed, what was packed of it ahead, and who waits for it.
struct Given {
    index: u64,
    ahead: Option<PackedAhead>,
    done: SyncSender<io::Result<Bytes>>,
}

/// What all packers share.
struct Job<'a> {
    file: &'a File,
    database_bytes: u64,
    given: Mutex<Receiver<Given>>,
    /// How many members were sent as they were packed ahead.
    still_right: AtomicU64,
}

impl Job<'_> {
    /// Packs one member after the other, until nobody gives any more.
    fn work(&self) {
        // The check beside it, of one thread, is what a backup waits for.
        give_way();
        let mut packer = MemberPacker::new(self.database_bytes);
        while let Ok(Given { index, ahead, done }) = self.next() {
            let same = |member: &[u8]| ahead.and_then(|ahead| ahead.if_of(member));
            let bytes = match packer.read(self.file, index).map(same) {
                Ok(Some(bytes)) => {
                    self.still_right.fetch_add(1, Relaxed);
                    Ok(bytes)
                }
                Ok(None) => packer.pack(index),
                Err(error) => Err(error),
            };
            if done.send(bytes).is_err() {
                break;
            }
        }
    }

    fn next(&self) -> Result<Given, RecvError> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).recv()
    }
}

/// The threads that pack, and what they have to do; they end when it is dropped.
struct Packers<'a> {
    job: &'a Job<'a>,
    give: SyncSender<Given>,
    started: usize,
    /// Those that are in work, in the order of the archive.
    in_work: VecDeque<Receiver<io::Result<Bytes>>>,
}

impl<'a> Packers<'a> {
    /// Starts more of them, if there are fewer.
    fn start<'scope>(&mut self, scope: &'scope Scope<'scope, '_>, count: usize)
    where
        'a: 'scope,
    {
        let job = self.job;
        while self.started < count {
            scope.spawn(|| job.work());
            self.started += 1;
        }
    }

    fn have_room(&self) -> bool {
        self.in_work.len() < self.started * MEMBERS_PER_PACKER
    }

    fn give(&mut self, index: u64, ahead: Option<PackedAhead>) -> Result<(), PackError> {
        let (done, ready) = sync_channel(1);
        self.give.send(Given { index, ahead, done }).map_err(|_gone| gone())?;
        self.in_work.push_back(ready);
        Ok(())
    }

    /// Waits for the first of those in work.
    fn take(&mut self) -> Result<Bytes, PackError> {
        let first = self.in_work.pop_front().ok_or_else(gone)?;
        first.recv().map_err(|_gone| gone())?.map_err(PackError::Read)
    }
}

/// A packer ends by itself when it panics, which goes on in whoever waits for its end.
fn gone() -> PackError {
    PackError::Read(io::Error::other("a thread that packs has ended"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use flate2::bufread::MultiGzDecoder;
    use tokio::sync::mpsc;

    use super::super::{Piece, manifest_at};
    use super::*;
    use crate::snapshot::{JournalMode, Owner};

    /// Bytes that differ from member to member, half of them noise.
    fn content(bytes: usize) -> Vec<u8> {
        let mut lot = 7_u64;
        let mut next = || {
            lot = lot.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if lot >> 63 == 0 { b'x' } else { (lot >> 33) as u8 }
        };
        (0..bytes).map(|_| next()).collect()
    }

    fn manifest(database_bytes: u64) -> Manifest {
        Manifest {
            database_bytes,
            journal_mode: JournalMode::Wal,
            owner: Owner { mode: 0o600, uid: 1, gid: 2 },
            contents: None,
            instance: None,
            uncompared_with: None,
            recipients: Vec::new(),
        }
    }

    /// Packs a file of these bytes under the manifest of so many.
    fn packed(bytes: &[u8], claimed: u64, stop: &Stop) -> Result<(Vec<u8>, u64), PackError> {
        packed_after(Ahead::default(), bytes, claimed, stop)
    }

    fn packed_after(
        ahead: Ahead,
        bytes: &[u8],
        claimed: u64,
        stop: &Stop,
    ) -> Result<(Vec<u8>, u64), PackError> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("written");
        let (sender, mut receiver) = mpsc::channel(1);
        let key = BackupKey::parse("db-backup-5.db.gz").expect("a valid name");
        let taking = thread::spawn(move || {
            let mut archive = Vec::new();
            while let Some(piece) = receiver.blocking_recv() {
                match piece {
                    Piece::Bytes(bytes) => archive.extend_from_slice(&bytes),
                    Piece::Whole | Piece::End => panic!("the last word is the caller's"),
                }
            }
            archive
        });
        let (manifest, progress) = (manifest(claimed), Progress::default());
        let outlet = Outlet::plain(&sender);
        let from = (file.path(), ahead);
        let result = pack(from, key, &manifest, outlet, &|| 2, (stop, &progress));
        drop(sender);
        let archive = taking.join().expect("no panic");
        result.map(|sent_bytes| (archive, sent_bytes))
    }

    #[test]
    fn members_hold_the_snapshot_in_order() {
        let member = Shape::of(0).member_bytes;
        for bytes in [0, 1, 512, member - 1, member, member + 1, 2_000_000] {
            let expected = content(bytes);
            let (archive, sent_bytes) =
                packed(&expected, bytes as u64, &Stop::default()).expect("packed");
            assert_eq!(sent_bytes, archive.len() as u64, "{bytes}");
            assert_eq!(manifest_at(&archive), Some(manifest(bytes as u64)), "{bytes}");
            let mut unpacked = Vec::new();
            MultiGzDecoder::new(&archive[..]).read_to_end(&mut unpacked).expect("gzip");
            assert!(unpacked == expected, "{bytes} bytes come back as {}", unpacked.len());
        }
    }

    /// Packs in a way that no level does: as it is.
    fn stored(member: &[u8]) -> Bytes {
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::none());
        gzip.write_all(member).expect("written");
        gzip.finish().expect("written").into()
    }

    #[test]
    fn what_was_packed_ahead_is_sent_where_it_is_still_right() {
        let now = content(1_000_000);
        let shape = Shape::of(now.len() as u64);
        let mut before = now.clone();
        before[shape.member_bytes] ^= 1;
        let members = before.chunks(shape.member_bytes).take(3);
        let ahead = Ahead::of(shape, members.map(|member| (member, stored(member))));
        let (archive, _sent) =
            packed_after(ahead, &now, now.len() as u64, &Stop::default()).expect("packed");
        let is_sent = |of: &[u8]| {
            let bytes = stored(of);
            archive.windows(bytes.len()).any(|window| window == bytes)
        };
        let sent: Vec<bool> = before.chunks(shape.member_bytes).map(is_sent).collect();
        assert_eq!(sent, [true, false, true, false], "the second has changed, the last is new");
        let mut unpacked = Vec::new();
        MultiGzDecoder::new(&archive[..]).read_to_end(&mut unpacked).expect("gzip");
        assert!(unpacked == now);
    }

    #[test]
    fn a_snapshot_of_another_size_is_refused() {
        for claimed in [299_999, 300_001] {
            let refused = packed(&content(300_000), claimed, &Stop::default());
            assert!(matches!(refused, Err(PackError::Read(_))), "{claimed}");
        }
    }

    #[test]
    fn a_stop_ends_it() {
        let stop = Stop::default();
        stop.set();
        let ended = packed(&content(300_000), 300_000, &stop);
        assert!(matches!(ended, Err(PackError::Abandoned)));
    }

    #[test]
    fn there_are_no_more_packers_than_members() {
        assert_eq!(packers_max(1), 1);
        assert_eq!(packers_max(1 << 40), PACKERS_MAX);
    }
}
