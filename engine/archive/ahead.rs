//! Packing ahead: members of a snapshot that SQLite still writes, on a processor that it leaves idle.
//!
//! `VACUUM INTO` writes the copy from the front to the end, and comes back to a page now and then: the
//! first one, and those above the rows. So what is packed ahead is kept with the hash of what it was
//! packed from, and whoever packs the finished snapshot takes it only where that is still there.

use std::collections::VecDeque;
use std::fs::File;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use ring::digest::{Digest, SHA256, digest};

use super::member::{MemberPacker, Shape};
use crate::blocking::give_way;

/// The most that is packed ahead: what becomes the first part of an upload, so that the peak of memory stays
/// what it is later.
const AHEAD_BYTES_MAX: usize = 5 * 1024 * 1024;

/// Members that were packed ahead, from the first one on.
#[derive(Debug, Default)]
pub struct Ahead {
    members: VecDeque<PackedAhead>,
    shape: Option<Shape>,
    /// Kept open as long as SQLite writes to it: closing it would drop SQLite's locks
    /// (<https://sqlite.org/howtocorrupt.html>, 2.2).
    _snapshot: Option<File>,
}

/// A thread that packs ahead, or none. Dropped, it is waited for: it never outlives the run that it is for.
#[derive(Debug, Default)]
pub struct PackingAhead(Option<JoinHandle<Ahead>>);

impl PackingAhead {
    /// Starts one, after all others of this process, which ends soon after `grown` does. None, if the system
    /// gives no thread: whatever is not packed ahead is packed later.
    #[must_use]
    pub fn start(path: &Path, database_bytes: u64, grown: Receiver<()>) -> Self {
        let path = path.to_owned();
        let packing = thread::Builder::new().spawn(move || {
            give_way();
            Ahead::pack(&path, database_bytes, &grown)
        });
        Self(packing.ok())
    }

    /// Waits for the end of the one or two members that it packs still, and returns all of them.
    ///
    /// # Panics
    ///
    /// As it did.
    #[must_use]
    pub fn end(mut self) -> Ahead {
        let ended = self.0.take().map(JoinHandle::join);
        ended
            .map_or_else(Ahead::default, |ended| ended.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl Drop for PackingAhead {
    fn drop(&mut self) {
        if let Some(packing) = self.0.take() {
            // Nobody wants what it has; a panic was printed where it happened.
            let _unwanted = packing.join();
        }
    }
}

/// A member that was packed ahead.
#[derive(Debug)]
pub(super) struct PackedAhead {
    of: Digest,
    bytes: Bytes,
}

impl PackedAhead {
    /// Returns the packed bytes, if they are those of `member`.
    pub(super) fn if_of(self, member: &[u8]) -> Option<Bytes> {
        (digest(&SHA256, member).as_ref() == self.of.as_ref()).then_some(self.bytes)
    }
}

impl Ahead {
    /// Packs members of the file at `path`, as soon as it has `grown` by them, until nobody tells of growth
    /// any more. About so many bytes are expected; of another shape, nothing that was packed is of use.
    ///
    /// What can't be read is not packed: whoever packs the finished file says why.
    fn pack(path: &Path, database_bytes: u64, grown: &Receiver<()>) -> Self {
        // Nobody has written to it before.
        let Ok(()) = grown.recv() else { return Self::default() };
        let Ok(file) = File::open(path) else { return Self::default() };
        let members = packed_ahead(&file, database_bytes, grown);
        Self { members, shape: Some(Shape::of(database_bytes)), _snapshot: Some(file) }
    }

    /// Makes one of what was packed already, and of which bytes.
    #[cfg(test)]
    pub(super) fn of<'a>(shape: Shape, packed: impl Iterator<Item = (&'a [u8], Bytes)>) -> Self {
        let members =
            packed.map(|(member, bytes)| PackedAhead { of: digest(&SHA256, member), bytes });
        Self { members: members.collect(), shape: Some(shape), _snapshot: None }
    }

    /// Takes the next member; none, if they are of another shape.
    pub(super) fn next_of(&mut self, shape: Shape) -> Option<PackedAhead> {
        if self.shape != Some(shape) {
            self.members = VecDeque::new();
        }
        self.members.pop_front()
    }
}

fn packed_ahead(file: &File, database_bytes: u64, grown: &Receiver<()>) -> VecDeque<PackedAhead> {
    let shape = Shape::of(database_bytes);
    let mut packer = MemberPacker::new(file, database_bytes);
    let mut members = VecDeque::new();
    let mut packed_bytes = 0;
    while packed_bytes < AHEAD_BYTES_MAX {
        let index = members.len() as u64;
        let end = shape.end_of(index);
        // The last one may end anywhere, and is soon packed.
        let is_there = end <= database_bytes && file.metadata().is_ok_and(|now| now.len() >= end);
        let is_over = if is_there {
            grown.try_recv() == Err(TryRecvError::Disconnected)
        } else {
            grown.recv().is_err()
        };
        if is_over {
            break;
        }
        if is_there {
            let Ok(of) = packer.read(index).map(|member| digest(&SHA256, member)) else { break };
            let Ok(bytes) = packer.pack(index) else { break };
            packed_bytes += bytes.len();
            members.push_back(PackedAhead { of, bytes });
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::sync::mpsc::sync_channel;

    use super::*;

    const MEMBER_BYTES: usize = 256 * 1024;

    /// Bytes that differ from member to member.
    fn content(members: usize) -> Vec<u8> {
        (0..members * MEMBER_BYTES).map(|at| (at / 1000) as u8).collect()
    }

    /// Packs ahead while `act` writes to the file, and returns what was packed with the file.
    fn ahead_of(
        database_bytes: usize,
        act: impl FnOnce(&File, &dyn Fn()),
    ) -> (Ahead, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        // Without a buffer each word is heard before the next is said.
        let (told, grown) = sync_channel(0);
        let ahead = std::thread::scope(|scope| {
            let packing = scope.spawn(|| {
                let grown = grown;
                Ahead::pack(file.path(), database_bytes as u64, &grown)
            });
            act(file.as_file(), &|| _ = told.send(()));
            drop(told);
            packing.join().expect("no panic")
        });
        (ahead, file)
    }

    #[test]
    fn what_has_changed_since_is_not_taken() {
        let whole = content(4);
        let (mut ahead, file) = ahead_of(whole.len(), |mut file, tell| {
            tell();
            file.write_all(&whole[..3 * MEMBER_BYTES]).expect("written");
            // The first wakes it; the others are heard after one member each.
            (0..4).for_each(|_| tell());
            file.write_all_at(b"!", MEMBER_BYTES as u64).expect("written");
        });
        let now = std::fs::read(file.path()).expect("readable");
        let shape = Shape::of(whole.len() as u64);
        let taken: Vec<bool> = now
            .chunks(MEMBER_BYTES)
            .map(|member| ahead.next_of(shape).and_then(|ahead| ahead.if_of(member)).is_some())
            .collect();
        assert_eq!(taken, [true, false, true], "the second was changed after it was packed");
    }

    #[test]
    fn nothing_of_another_shape_is_taken() {
        let whole = content(2);
        let (mut ahead, _file) = ahead_of(whole.len(), |mut file, tell| {
            tell();
            file.write_all(&whole).expect("written");
            (0..3).for_each(|_| tell());
        });
        assert_eq!(ahead.members.len(), 2);
        assert!(ahead.next_of(Shape::of(1)).is_some());
        assert!(ahead.next_of(Shape::of(1 << 30)).is_none());
        assert!(ahead.members.is_empty(), "of no use any more");
    }

    #[test]
    fn no_more_is_packed_than_becomes_the_first_part() {
        // Noise stays as large as it is.
        let mut lot = 7_u64;
        let noise = std::iter::repeat_with(|| {
            lot = lot.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (lot >> 33) as u8
        });
        let noise: Vec<u8> = noise.take(2 * AHEAD_BYTES_MAX).collect();
        let (ahead, _file) = ahead_of(noise.len(), |mut file, tell| {
            tell();
            file.write_all(&noise).expect("written");
            (0..100).for_each(|_| tell());
        });
        let packed_bytes: usize = ahead.members.iter().map(|member| member.bytes.len()).sum();
        assert!(packed_bytes >= AHEAD_BYTES_MAX);
        assert!(packed_bytes < AHEAD_BYTES_MAX + 2 * MEMBER_BYTES, "{packed_bytes}");
    }

    #[test]
    fn a_snapshot_that_never_begins_is_not_waited_for() {
        let (ahead, _file) = ahead_of(1, |_file, _tell| {});
        assert!(ahead.members.is_empty());
    }
}
