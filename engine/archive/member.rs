//! One gzip member: which part of the snapshot it holds, and how that is packed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use libdeflater::{CompressionLvl, Compressor};

/// The fastest level, and the one that saves most for the time that it takes more. Members packed at
/// either in turn take as many bytes as at a level in between, in less time (`docs/decisions/0029`).
const FAST: i32 = 1;
const SMALL: i32 = 5;

/// From here on packing is what a backup waits for, and half a percent more archive worth its time.
const LARGE_BYTES: u64 = 16 * 1024 * 1024;

/// How a database is cut into members, and at which levels these are packed: by its size alone, so
/// that the same database always makes the same archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Bytes of the snapshot in each member but the last.
    pub(super) member_bytes: usize,
    /// The levels that members take in turn.
    levels: &'static [i32],
}

/// At most a twentieth more than by `gzip -6`, for what `bench/compare` packs: half of the members of a small
/// database at the level that saves, three in ten of a large one. Members of twice the size save half a percent,
/// for twice the memory.
const OF_SMALL: Shape = Shape { member_bytes: 256 * 1024, levels: &[SMALL, FAST] };
const OF_LARGE: Shape = Shape {
    member_bytes: 512 * 1024,
    levels: &[SMALL, FAST, FAST, SMALL, FAST, FAST, SMALL, FAST, FAST, FAST],
};

impl Shape {
    /// Returns the shape of an archive of so many bytes.
    pub(super) fn of(database_bytes: u64) -> Self {
        if database_bytes < LARGE_BYTES { OF_SMALL } else { OF_LARGE }
    }

    /// Returns how many members a database of so many bytes has.
    pub(super) fn members(self, database_bytes: u64) -> u64 {
        database_bytes.div_ceil(self.member_bytes as u64)
    }

    /// Returns where the member at `index` ends in the snapshot, unless that ends before.
    pub(super) fn end_of(self, index: u64) -> u64 {
        (index + 1) * self.member_bytes as u64
    }
}

/// Reads and packs members of one snapshot, one after the other.
pub(super) struct MemberPacker {
    database_bytes: u64,
    shape: Shape,
    fast: Compressor,
    small: Compressor,
    member: Vec<u8>,
}

impl MemberPacker {
    /// Prepares to pack members of a snapshot that has so many bytes, or will have.
    pub(super) fn new(database_bytes: u64) -> Self {
        // 1 to 12 are levels; the default is 6.
        let at = |level| Compressor::new(CompressionLvl::new(level).unwrap_or_default());
        let shape = Shape::of(database_bytes);
        Self { database_bytes, shape, fast: at(FAST), small: at(SMALL), member: Vec::new() }
    }

    /// Reads the member at `index`, counted from zero.
    ///
    /// # Errors
    ///
    /// Also if the file is shorter than it should be.
    pub(super) fn read(&mut self, file: &File, index: u64) -> io::Result<&[u8]> {
        let end = self.shape.end_of(index);
        let start = end - self.shape.member_bytes as u64;
        self.member.resize((self.database_bytes.min(end) - start) as usize, 0);
        file.read_exact_at(&mut self.member, start)?;
        Ok(&self.member)
    }

    /// Packs the member that was read last, from `index`.
    pub(super) fn pack(&mut self, index: u64) -> io::Result<Bytes> {
        let turn = (index % self.shape.levels.len() as u64) as usize;
        let is_fast = self.shape.levels[turn] == FAST;
        let compressor = if is_fast { &mut self.fast } else { &mut self.small };
        // As large as any member can become. Memory that comes from the system, zeroed, is only taken where
        // it is written to: what is handed on is as large as it has to be.
        let mut packed = vec![0; compressor.gzip_compress_bound(self.member.len())];
        let bytes = compressor.gzip_compress(&self.member, &mut packed);
        packed
            .truncate(bytes.map_err(|_full| io::Error::other("a member did not fit its buffer"))?);
        Ok(packed.into())
    }
}
