//! The first hundred bytes of a database (<https://sqlite.org/fileformat2.html>, 1.3). Pure.

use std::fmt;

/// The size of the header.
pub(super) const BYTES: usize = 100;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The newest file format that SQLite reads: 1 is a rollback journal, 2 a write-ahead log.
const NEWEST_FORMAT: u8 = 2;

/// The newest schema format.
const NEWEST_SCHEMA: u32 = 4;

/// What the header says of use to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    read_format: u8,
    schema_format: u32,
    writer: u32,
}

/// A version of SQLite, as `SQLITE_VERSION_NUMBER` has it: 3051003 is 3.51.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version(u32);

impl Header {
    /// Returns what a header says, or `None` if that is none.
    pub(super) fn parse(bytes: &[u8; BYTES]) -> Option<Self> {
        let number = |at: usize| {
            let four = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            u32::from_be_bytes(four)
        };
        bytes.starts_with(MAGIC).then(|| Self {
            read_format: bytes[19],
            schema_format: number(44),
            writer: number(96),
        })
    }

    /// Returns what of the file is newer than our SQLite.
    pub(super) fn newer_than_ours(self) -> Option<String> {
        if self.read_format > NEWEST_FORMAT {
            return Some(format!("has file format {}", self.read_format));
        }
        (self.schema_format > NEWEST_SCHEMA)
            .then(|| format!("has schema format {}", self.schema_format))
    }

    /// Returns which SQLite wrote last, if the file says so.
    pub(super) fn writer(self) -> Option<Version> {
        (self.writer > 0).then_some(Version(self.writer))
    }
}

impl Version {
    /// Returns whether this version has the WAL-reset bug: 3.7.0 to 3.51.2, but for the branches
    /// that got the fix.
    pub(super) fn has_wal_bug(self) -> bool {
        let is_fixed_branch = matches!(self.0, 3_044_006..3_045_000 | 3_050_007..3_051_000);
        (3_007_000..3_051_003).contains(&self.0) && !is_fixed_branch
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0 / 1_000_000, self.0 / 1000 % 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(change: impl FnOnce(&mut [u8; BYTES])) -> Option<Header> {
        let mut bytes = [0; BYTES];
        bytes[..16].copy_from_slice(MAGIC);
        (bytes[18], bytes[19], bytes[47]) = (2, 2, 4);
        change(&mut bytes);
        Header::parse(&bytes)
    }

    #[test]
    fn a_newer_format_is_told_and_garbage_is_no_header() {
        assert_eq!(header(|bytes| bytes[0] = b's'), None);
        let newer = |header: Option<Header>| header.expect("a header").newer_than_ours();
        assert_eq!(newer(header(|_| {})), None);
        let format = newer(header(|bytes| bytes[19] = 3));
        assert_eq!(format.as_deref(), Some("has file format 3"));
        let schema = newer(header(|bytes| bytes[47] = 5));
        assert_eq!(schema.as_deref(), Some("has schema format 5"));
    }

    #[test]
    fn the_versions_with_the_bug_are_known() {
        let cases = [
            (3_006_023, false),
            (3_007_000, true),
            (3_040_001, true),
            (3_044_005, true),
            (3_044_006, false),
            (3_045_001, true),
            (3_050_006, true),
            (3_050_007, false),
            (3_051_002, true),
            (3_051_003, false),
            (3_054_001, false),
        ];
        for (number, expect) in cases {
            assert_eq!(Version(number).has_wal_bug(), expect, "{}", Version(number));
        }
        assert_eq!(Version(3_051_003).to_string(), "3.51.3");
        assert_eq!(header(|_| {}).expect("a header").writer(), None);
    }
}
