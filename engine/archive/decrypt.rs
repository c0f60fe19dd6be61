//! Decryption: the bytes of an age file as the archive that was encrypted, chunk by chunk.
//!
//! Each chunk of 64 KiB is released only after its checksum has been compared, and the last one says
//! that it is the last: whatever is cut, changed, put in another order or added is an error. What
//! comes first of a damaged file may have been used by then, so nothing may take effect before the
//! end was read.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use age::stream::StreamReader;
use age::{DecryptError, Decryptor};

use super::UnpackError;
use crate::encryption::Identities;

/// A longer header, of hundreds of recipients, is not ours; age itself would read on without end.
const HEADER_BYTES_MAX: usize = 32 * 1024;

/// So is one of more lines, two for each recipient. With each line age parses all before it again: a
/// header of short lines would take minutes.
const HEADER_LINES_MAX: usize = 512;

/// Bytes at the start of an encrypted archive that hold its manifest: a header of as many recipients
/// as we take, and the first chunk, which can be read only as a whole.
pub const ENCRYPTED_START_BYTES: u64 = 96 * 1024;

/// Opens an encrypted archive. `fail` judges what the source itself says.
///
/// # Errors
///
/// [`UnpackError::NotForUs`] if none of the identities fits; a damaged header can look like it.
pub(super) fn decrypt<R: BufRead>(
    source: R,
    identities: &Identities,
    fail: impl Fn(io::Error) -> UnpackError,
) -> Result<Decrypted<R>, UnpackError> {
    let left = Rc::new(Cell::new((HEADER_BYTES_MAX, HEADER_LINES_MAX)));
    let bounded = Bounded { inner: source, left: Rc::clone(&left) };
    let opened =
        Decryptor::new_buffered(bounded).and_then(|found| found.decrypt(identities.iter()));
    // The header is read: from here on chunks are as long as they are.
    left.set((usize::MAX, usize::MAX));
    let damaged = |what: &str| UnpackError::Damaged(what.to_owned());
    opened.map(Decrypted).map_err(|error| match error {
        DecryptError::Io(error) => fail(error),
        DecryptError::NoMatchingKeys => UnpackError::NotForUs,
        DecryptError::InvalidMac => damaged("its age header was changed"),
        // The others are those of passphrases and plugins, and of newer formats.
        _ => damaged("it is no age file that this version reads"),
    })
}

/// An encrypted archive that could be opened.
pub(super) struct Decrypted<R>(StreamReader<Bounded<R>>);

impl<R: BufRead> Read for Decrypted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            // A chunk whose checksum is wrong: cut, changed, moved, or with something behind it.
            io::ErrorKind::InvalidData => io::Error::other(
                "it was cut or changed after it was encrypted, or other bytes follow it",
            ),
            _ => error,
        })
    }
}

/// A source that ends in an error when more is read of it than may be: bytes, and pieces of them, which
/// of a header are its lines.
struct Bounded<R> {
    inner: R,
    left: Rc<Cell<(usize, usize)>>,
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let (bytes_left, lines_left) = self.left.get();
        if bytes_left == 0 || lines_left == 0 {
            return Err(io::Error::other("its age header does not end"));
        }
        let bytes = self.inner.fill_buf()?;
        Ok(&bytes[..bytes.len().min(bytes_left)])
    }

    fn consume(&mut self, bytes: usize) {
        let (bytes_left, lines_left) = self.left.get();
        self.left.set((bytes_left.saturating_sub(bytes), lines_left.saturating_sub(1)));
        self.inner.consume(bytes);
    }
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let taken = bytes.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&bytes[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}
