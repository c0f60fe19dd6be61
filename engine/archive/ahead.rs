//! Packing ahead: members of a snapshot that SQLite still writes, and later is checked, on a processor that
//! both leave idle.
//!
//! `VACUUM INTO` writes the copy from the front to the end, and comes back to a page now and then: the
//! first one, and those above the rows. So what is packed meanwhile is kept with a checksum of what it was
//! packed from, and whoever packs the finished snapshot takes it only where that is still there.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;

use super::member::{MemberPacker, Shape};
use crate::blocking::give_way;

/// The most that is packed ahead: what becomes the first part of an upload, so that the peak of memory stays
/// what it is later.
const AHEAD_BYTES_MAX: usize = 5 * 1024 * 1024;

/// How long it takes to notice that the snapshot has grown by a member, which takes SQLite half of it.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

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
pub struct PackingAhead(Option<PackingThread>);

#[derive(Debug)]
struct PackingThread {
    /// Dropped, it ends the thread.
    work: SyncSender<Work>,
    packing: JoinHandle<Ahead>,
}

/// What is to be done with a finished snapshot before more is packed of it.
pub type Work = Box<dyn FnOnce() + Send>;

impl PackingAhead {
    /// Starts one for the snapshot at `path`, about so many bytes, after all others of this process. None, if
    /// the system gives no thread: whatever is not packed ahead is packed later.
    #[must_use]
    pub fn start(path: &Path, database_bytes: u64) -> Self {
        let path = path.to_owned();
        let (work, given) = sync_channel(1);
        let packing = thread::Builder::new().spawn(move || {
            give_way();
            Ahead::pack(&path, database_bytes, &given)
        });
        Self(packing.ok().map(|packing| PackingThread { work, packing }))
    }

    /// Does something with the finished snapshot, between two members: a thread more than there are
    /// processors would hold up the check. Returns where the result is found, and the work if there is no
    /// thread to do it.
    pub fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> (Receiver<thread::Result<T>>, Option<Work>) {
        let (done, result) = sync_channel(1);
        let work: Work = Box::new(move || {
            // Nobody waits for it any more: the deadline has passed.
            let _gone = done.send(catch_unwind(AssertUnwindSafe(work)));
        });
        let left = match &self.0 {
            Some(thread) => thread.work.send(work).err().map(|SendError(work)| work),
            None => Some(work),
        };
        (result, left)
    }

    /// Waits for the end of the member that it packs still, and returns all of them.
    ///
    /// # Panics
    ///
    /// As it did.
    #[must_use]
    pub fn end(mut self) -> Ahead {
        self.join()
            .map_or_else(Ahead::default, |ended| ended.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    fn join(&mut self) -> Option<thread::Result<Ahead>> {
        let PackingThread { work, packing } = self.0.take()?;
        drop(work);
        Some(packing.join())
    }
}

impl Drop for PackingAhead {
    fn drop(&mut self) {
        // Nobody wants what it has; a panic was printed where it happened.
        let _unwanted = self.join();
    }
}

/// A member that was packed ahead.
#[derive(Debug)]
pub(super) struct PackedAhead {
    /// What it was packed from, if that was not finished.
    of: Option<u64>,
    bytes: Bytes,
}

/// Tells whether SQLite has come back to a member; of 2^64 changes it misses one, which a restore refuses.
fn checksum(member: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, member)
}

impl PackedAhead {
    /// Returns the packed bytes, if they are those of `member`, as they are if it was finished.
    pub(super) fn if_of(self, member: &[u8]) -> Option<Bytes> {
        self.of.is_none_or(|of| checksum(member) == of).then_some(self.bytes)
    }
}

impl Ahead {
    /// Packs members of the file at `path` as soon as they are there, until nobody can give it any more work.
    /// About so many bytes are expected; of another shape, nothing that was packed is of use.
    ///
    /// What can't be read is not packed: whoever packs the finished file says why.
    fn pack(path: &Path, database_bytes: u64, given: &Receiver<Work>) -> Self {
        let mut packing = Packing::of(path, database_bytes);
        loop {
            let outlook = packing.outlook();
            let work = match outlook {
                Outlook::There => given.recv_timeout(Duration::ZERO),
                Outlook::ToCome => given.recv_timeout(LOOK_AGAIN),
                Outlook::Over => given.recv().map_err(|_gone| RecvTimeoutError::Disconnected),
            };
            match work {
                Ok(work) => {
                    work();
                    packing.finish();
                }
                Err(RecvTimeoutError::Timeout) if outlook == Outlook::There => packing.pack_next(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let shape = Some(Shape::of(database_bytes));
        Self { members: packing.members, shape, _snapshot: packing.file }
    }

    /// Makes one of what was packed already, and of which bytes.
    #[cfg(test)]
    pub(super) fn of<'a>(shape: Shape, packed: impl Iterator<Item = (&'a [u8], Bytes)>) -> Self {
        let members =
            packed.map(|(member, bytes)| PackedAhead { of: Some(checksum(member)), bytes });
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

/// Whether there is another member to pack ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    There,
    ToCome,
    Over,
}

/// The packing of one file, from the first member on.
struct Packing<'a> {
    path: &'a Path,
    file: Option<File>,
    database_bytes: u64,
    packer: MemberPacker,
    members: VecDeque<PackedAhead>,
    packed_bytes: usize,
    /// Whether nothing that is packed now will change.
    is_finished: bool,
    is_over: bool,
}

impl<'a> Packing<'a> {
    fn of(path: &'a Path, database_bytes: u64) -> Self {
        Self {
            path,
            file: None,
            database_bytes,
            packer: MemberPacker::new(database_bytes),
            members: VecDeque::new(),
            packed_bytes: 0,
            is_finished: false,
            is_over: false,
        }
    }

    /// Looks at the file.
    fn outlook(&mut self) -> Outlook {
        let end = Shape::of(self.database_bytes).end_of(self.members.len() as u64);
        // The last one may end anywhere, and is soon packed.
        if self.is_over || self.packed_bytes >= AHEAD_BYTES_MAX || end > self.database_bytes {
            return Outlook::Over;
        }
        if self.file.is_none() {
            self.file = File::open(self.path).ok();
        }
        let now = self.file.as_ref().and_then(|file| file.metadata().ok());
        match now {
            Some(now) if now.len() >= end => Outlook::There,
            _ if self.is_finished => Outlook::Over,
            _ => Outlook::ToCome,
        }
    }

    /// Packs the next member; no other, if that fails.
    fn pack_next(&mut self) {
        let Some(packed) = self.packed() else {
            self.is_over = true;
            return;
        };
        self.packed_bytes += packed.bytes.len();
        self.members.push_back(packed);
    }

    fn packed(&mut self) -> Option<PackedAhead> {
        let index = self.members.len() as u64;
        let member = self.packer.read(self.file.as_ref()?, index).ok()?;
        let of = (!self.is_finished).then(|| checksum(member));
        Some(PackedAhead { of, bytes: self.packer.pack(index).ok()? })
    }

    /// Takes the file for what it will stay.
    fn finish(&mut self) {
        let which = |file: io::Result<Metadata>| file.ok().map(|file| (file.dev(), file.ino()));
        // A copy that was begun anew is another file.
        let is_other = |file: &File| which(file.metadata()) != which(fs::metadata(self.path));
        self.is_over |= self.file.as_ref().is_some_and(is_other);
        self.is_finished = true;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use tempfile::NamedTempFile;

    use super::*;

    const MEMBER_BYTES: usize = 256 * 1024;

    /// Bytes that differ from member to member.
    fn content(members: usize) -> Vec<u8> {
        (0..members * MEMBER_BYTES).map(|at| (at / 1000) as u8).collect()
    }

    fn file_of(bytes: &[u8]) -> NamedTempFile {
        let file = NamedTempFile::new().expect("a file");
        file.as_file().write_all_at(bytes, 0).expect("written");
        file
    }

    /// Packs all that is there.
    fn packed(mut packing: Packing<'_>) -> Ahead {
        while packing.outlook() == Outlook::There {
            packing.pack_next();
        }
        let shape = Some(Shape::of(packing.database_bytes));
        Ahead { members: packing.members, shape, _snapshot: packing.file }
    }

    /// Begins to pack a file of two members, and has packed the first.
    fn begun(file: &NamedTempFile) -> Packing<'_> {
        let mut packing = Packing::of(file.path(), 2 * MEMBER_BYTES as u64);
        assert_eq!(packing.outlook(), Outlook::There);
        packing.pack_next();
        packing
    }

    /// Returns which members of the file are taken.
    fn taken(mut ahead: Ahead, file: &File, members: usize) -> Vec<bool> {
        let mut member = vec![0; MEMBER_BYTES];
        let mut is_taken = |index| {
            file.read_exact_at(&mut member, (index * MEMBER_BYTES) as u64).expect("there");
            let packed = ahead.next_of(Shape::of((members * MEMBER_BYTES) as u64));
            packed.and_then(|packed| packed.if_of(&member)).is_some()
        };
        (0..members).map(&mut is_taken).collect()
    }

    #[test]
    fn what_has_changed_since_is_not_taken() {
        let file = file_of(&content(3));
        let ahead = packed(Packing::of(file.path(), 4 * MEMBER_BYTES as u64));
        file.as_file().write_all_at(b"!", MEMBER_BYTES as u64).expect("written");
        file.as_file().set_len(4 * MEMBER_BYTES as u64).expect("grown");
        let taken = taken(ahead, file.as_file(), 4);
        assert_eq!(taken, [true, false, true, false], "the second has changed, the last is new");
    }

    #[test]
    fn what_is_finished_needs_no_hash() {
        let file = file_of(&content(2));
        let mut packing = begun(&file);
        packing.finish();
        let ahead = packed(packing);
        let hashed: Vec<bool> = ahead.members.iter().map(|member| member.of.is_some()).collect();
        assert_eq!(hashed, [true, false]);
        assert_eq!(taken(ahead, file.as_file(), 2), [true, true]);
    }

    /// As where `VACUUM INTO` turns out to be impossible, and pages are copied instead.
    #[test]
    fn nothing_more_is_taken_from_a_file_that_was_replaced() {
        let file = file_of(&content(2));
        let mut packing = begun(&file);
        std::fs::remove_file(file.path()).expect("removed");
        std::fs::write(file.path(), vec![0; 2 * MEMBER_BYTES]).expect("written");
        packing.finish();
        let ahead = packed(packing);
        assert_eq!(ahead.members.len(), 1, "the second is none of the new file");
        let now = File::open(file.path()).expect("there");
        assert_eq!(taken(ahead, &now, 2), [false, false]);
    }

    #[test]
    fn what_is_not_there_yet_is_waited_for() {
        let file = file_of(&content(1));
        let mut packing = begun(&file);
        assert_eq!(packing.outlook(), Outlook::ToCome);
        file.as_file().set_len(2 * MEMBER_BYTES as u64).expect("grown");
        assert_eq!(packing.outlook(), Outlook::There);
        file.as_file().set_len(MEMBER_BYTES as u64).expect("cut");
        packing.finish();
        assert_eq!(packing.outlook(), Outlook::Over, "it has become smaller than expected");
    }

    #[test]
    fn nothing_of_another_shape_is_taken() {
        let file = file_of(&content(2));
        let mut ahead = packed(Packing::of(file.path(), 2 * MEMBER_BYTES as u64));
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
        let file = file_of(&noise);
        let ahead = packed(Packing::of(file.path(), noise.len() as u64));
        let packed_bytes: usize = ahead.members.iter().map(|member| member.bytes.len()).sum();
        assert!(packed_bytes >= AHEAD_BYTES_MAX);
        assert!(packed_bytes < AHEAD_BYTES_MAX + 2 * MEMBER_BYTES, "{packed_bytes}");
    }

    #[test]
    fn a_snapshot_that_never_begins_is_not_waited_for() {
        let ahead = PackingAhead::start(Path::new("/nowhere"), 1).end();
        assert!(ahead.members.is_empty());
    }

    #[test]
    fn work_is_done_between_two_members_or_given_back() {
        let here = thread::current().id();
        let packing = PackingAhead::start(Path::new("/nowhere"), 1 << 20);
        let (panicked, left) = packing.begin(|| panic!("planned"));
        assert!(left.is_none() && panicked.recv().expect("told").is_err());
        let (there, left) = packing.begin(|| thread::current().id());
        assert!(left.is_none());
        assert_ne!(there.recv().expect("told").expect("no panic"), here);
        assert!(packing.end().members.is_empty());

        let (at_hand, left) = PackingAhead::default().begin(|| thread::current().id());
        left.expect("no thread takes it")();
        assert_eq!(at_hand.try_recv().expect("done").expect("no panic"), here);
    }
}
