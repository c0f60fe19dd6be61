//! Packing: the snapshot as gzip members, made beside each other and sent in order.
//!
//! A gzip file may have many members (RFC 1952, 2.2), and every gunzip reads on after the first.
//! That of ours is empty and carries the manifest in its header; each of the others holds the next
//! [`MEMBER_BYTES`] of the snapshot. Memory is a few members, whatever the size.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZero;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope};

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use libdeflater::{CompressionLvl, Compressor};

use super::{Outlet, PackError};
use crate::blocking::{Stop, give_way};
use crate::key::BackupKey;
use crate::manifest::Manifest;
use crate::progress::Progress;

/// Bytes of the snapshot in one member. Twice as many save 0.5 % of the archive and cost twice the
/// memory.
const MEMBER_BYTES: usize = 128 * 1024;

/// Threads that pack; on one processor a single one. More would pay where the processor is what a
/// backup waits for, but the app is to have most of them.
const PACKERS_MAX: usize = 2;

/// Members that one packer has: one in work, one waiting.
const MEMBERS_PER_PACKER: usize = 2;

/// From here on an archive may be 5 % larger than by `gzip -6` if that saves a sixth of the time.
const LARGE_BYTES: u64 = 16 * 1024 * 1024;

/// As small as `gzip -6` in a quarter of its time (`docs/decisions/0017`).
const LEVEL: i32 = 5;

/// Packs as fast as the check beside it goes on, on two processors.
const LEVEL_OF_LARGE: i32 = 4;

/// Packs the snapshot file into `outlet` and returns how many bytes it has sent on. The last word,
/// [`Piece::End`](super::Piece::End), is left to the caller: only after it a backup may become
/// visible.
///
/// # Errors
///
/// [`PackError::Read`] also for a snapshot of another size than the manifest says.
/// [`PackError::OtherForm`] before anything is sent under a name that says something else of it.
pub fn pack(
    snapshot: &Path,
    key: BackupKey,
    manifest: &Manifest,
    mut outlet: Outlet<'_>,
    stop: &Stop,
    progress: &Progress,
) -> Result<u64, PackError> {
    if outlet.form() != key.form() {
        return Err(PackError::OtherForm(key));
    }
    let mut members = Members { file: File::open(snapshot).map_err(PackError::Read)?, bytes: 0 };
    outlet.put(head(key, manifest).map_err(PackError::Read)?)?;
    let level = level_of(manifest.database_bytes);
    thread::scope(|scope| {
        let packers = packers(manifest.database_bytes);
        let packers: Vec<_> = (0..packers).map(|_| Packer::start(scope, level)).collect();
        let in_work_max = (packers.len() * MEMBERS_PER_PACKER) as u64;
        let (mut read, mut packed) = (0, 0);
        let mut spare = Vec::new();
        let mut is_read = false;
        // In turn: what was given first is ready first, so that the order needs no sorting.
        let turn = |count: u64| &packers[(count % packers.len() as u64) as usize];
        loop {
            if stop.is_set() {
                return Err(PackError::Abandoned);
            }
            if !is_read && read - packed < in_work_max {
                let member = members.next(spare.pop().unwrap_or_default())?;
                is_read = member.is_empty();
                if !is_read {
                    turn(read).give(member)?;
                    read += 1;
                }
            } else if packed < read {
                let (member, bytes) = turn(packed).take()?;
                packed += 1;
                outlet.put(bytes)?;
                progress.set_done((packed * MEMBER_BYTES as u64).min(members.bytes));
                spare.push(member);
            } else {
                break;
            }
        }
        // What the check saw was longer: a restore would refuse the rest of it.
        if members.bytes != manifest.database_bytes {
            let text = format!("{} of {} bytes are there", members.bytes, manifest.database_bytes);
            return Err(PackError::Read(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
        }
        outlet.finish()
    })
}

fn level_of(database_bytes: u64) -> CompressionLvl {
    let level = if database_bytes < LARGE_BYTES { LEVEL } else { LEVEL_OF_LARGE };
    // 1 to 12 are levels; the default is 6.
    CompressionLvl::new(level).unwrap_or_default()
}

/// No more than there are processors, nor than there are members.
fn packers(database_bytes: u64) -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let members = database_bytes.div_ceil(MEMBER_BYTES as u64).max(1);
    processors.min(PACKERS_MAX).min(usize::try_from(members).unwrap_or(PACKERS_MAX))
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

/// The snapshot, member by member.
struct Members {
    file: File,
    bytes: u64,
}

impl Members {
    /// Fills `buffer` with the next member; empty behind the last.
    fn next(&mut self, mut buffer: Vec<u8>) -> Result<Vec<u8>, PackError> {
        buffer.clear();
        buffer.reserve_exact(MEMBER_BYTES);
        let mut next = (&mut self.file).take(MEMBER_BYTES as u64);
        self.bytes += next.read_to_end(&mut buffer).map_err(PackError::Read)? as u64;
        Ok(buffer)
    }
}

/// A thread that packs members, one after the other; it ends when it is dropped.
struct Packer {
    given: SyncSender<Vec<u8>>,
    /// The member, for its memory, and what it was packed to.
    packed: Receiver<(Vec<u8>, Bytes)>,
}

impl Packer {
    fn start<'scope>(scope: &'scope Scope<'scope, '_>, level: CompressionLvl) -> Self {
        let (given, members) = sync_channel::<Vec<u8>>(MEMBERS_PER_PACKER);
        let (done, packed) = sync_channel(MEMBERS_PER_PACKER);
        scope.spawn(move || {
            // The check beside it, of one thread, is what a backup waits for.
            give_way();
            let mut compressor = Compressor::new(level);
            let mut buffer = vec![0; compressor.gzip_compress_bound(MEMBER_BYTES)];
            for member in members {
                // The buffer is as large as any member can become.
                let Ok(bytes) = compressor.gzip_compress(&member, &mut buffer) else { break };
                let bytes = Bytes::copy_from_slice(&buffer[..bytes]);
                if done.send((member, bytes)).is_err() {
                    break;
                }
            }
        });
        Self { given, packed }
    }

    fn give(&self, member: Vec<u8>) -> Result<(), PackError> {
        self.given.send(member).map_err(|_gone| gone())
    }

    fn take(&self) -> Result<(Vec<u8>, Bytes), PackError> {
        self.packed.recv().map_err(|_gone| gone())
    }
}

/// A packer ends by itself in one case only, which cannot be.
fn gone() -> PackError {
    PackError::Read(io::Error::other("a member did not fit its buffer"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

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
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("written");
        let (sender, mut receiver) = mpsc::channel(1);
        let key = BackupKey::parse("db-backup-5.db.gz").expect("a valid name");
        let taking = thread::spawn(move || {
            let mut archive = Vec::new();
            while let Some(piece) = receiver.blocking_recv() {
                match piece {
                    Piece::Bytes(bytes) => archive.extend_from_slice(&bytes),
                    Piece::End => panic!("the last word is the caller's"),
                }
            }
            archive
        });
        let (manifest, progress) = (manifest(claimed), Progress::default());
        let outlet = Outlet::plain(&sender);
        let result = pack(file.path(), key, &manifest, outlet, stop, &progress);
        drop(sender);
        let archive = taking.join().expect("no panic");
        result.map(|sent_bytes| (archive, sent_bytes))
    }

    #[test]
    fn members_hold_the_snapshot_in_order() {
        for bytes in [0, 1, 512, MEMBER_BYTES - 1, MEMBER_BYTES, MEMBER_BYTES + 1, 2_000_000] {
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
        assert_eq!(packers(0), 1);
        assert_eq!(packers(MEMBER_BYTES as u64), 1);
        assert!((1..=PACKERS_MAX).contains(&packers(1 << 40)));
    }
}
