//! The SHA-256 by which a database is known: no `PRAGMA` finds a flipped bit in a value.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ring::digest::{Context, SHA256};

use crate::blocking::Stop;
use crate::check::CheckError;
use crate::sqlite::SqliteError;
use crate::text;

/// Bytes hashed at a time.
const PIECE_BYTES: usize = 128 * 1024;

/// Returns the SHA-256 of a file that is ours alone, in hexadecimal.
///
/// # Errors
///
/// Of reading it, or that it was stopped.
pub(crate) fn sha256_of(path: &Path, stop: &Stop) -> Result<String, CheckError> {
    let mut hash = Hash::new();
    let mut file = File::open(path).map_err(CheckError::Io)?;
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CheckError::Io(error)),
        };
        if stop.is_set() {
            return Err(CheckError::Sqlite(SqliteError::Stopped));
        }
        hash.update(&buffer[..read]);
    }
    Ok(hash.finish())
}

/// A SHA-256 in the making.
pub(crate) struct Hash(Context);

impl Hash {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the hash in hexadecimal.
    pub(crate) fn finish(self) -> String {
        text::hex(self.0.finish().as_ref())
    }
}
