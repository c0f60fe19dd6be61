//! Where a packed archive goes: as pieces to the store, encrypted on the way or not.
//!
//! Encryption is one pass over the gzip stream in age's chunks of 64 KiB, each with its own
//! checksum, on the thread that packs. Memory is one chunk, whatever the size.

use std::io::{self, Write};

use age::stream::StreamWriter;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{PackError, Piece};
use crate::encryption::Recipients;
use crate::key::Form;

/// The largest piece, so that so many pieces are so many bytes at most.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Takes an archive in the order of its bytes.
pub struct Outlet<'a>(Way<'a>);

enum Way<'a> {
    Plain(Pieces<'a>),
    Encrypted(Box<StreamWriter<Pieces<'a>>>),
}

impl std::fmt::Debug for Outlet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outlet({:?})", self.form())
    }
}

impl<'a> Outlet<'a> {
    /// Sends the archive as it is.
    #[must_use]
    pub fn plain(pieces: &'a mpsc::Sender<Piece>) -> Self {
        Self(Way::Plain(Pieces::to(pieces)))
    }

    /// Sends it encrypted for these recipients.
    ///
    /// # Errors
    ///
    /// [`PackError::Abandoned`] when nobody takes even its start.
    pub fn encrypted(
        pieces: &'a mpsc::Sender<Piece>,
        recipients: &Recipients,
    ) -> Result<Self, PackError> {
        let encryptor = recipients.encryptor().map_err(|error| PackError::Encrypt(error.into()))?;
        let writer = encryptor.wrap_output(Pieces::to(pieces)).map_err(failure)?;
        Ok(Self(Way::Encrypted(Box::new(writer))))
    }

    /// Returns what the pieces are worth to whoever takes them.
    #[must_use]
    pub fn form(&self) -> Form {
        match self.0 {
            Way::Plain(_) => Form::Plain,
            Way::Encrypted(_) => Form::Encrypted,
        }
    }

    /// Takes the next bytes of the archive.
    pub(super) fn put(&mut self, bytes: Bytes) -> Result<(), PackError> {
        match &mut self.0 {
            Way::Plain(pieces) => pieces.send(bytes),
            Way::Encrypted(writer) => writer.write_all(&bytes).map_err(failure),
        }
    }

    /// Sends what is left, and returns how many bytes were sent. Without this last step an
    /// encrypted archive can't be decrypted: its last chunk says that it is the last.
    pub(super) fn finish(self) -> Result<u64, PackError> {
        let mut pieces = match self.0 {
            Way::Plain(pieces) => pieces,
            Way::Encrypted(writer) => writer.finish().map_err(failure)?,
        };
        pieces.send_gathered()?;
        Ok(pieces.sent_bytes)
    }
}

/// age only hands on what its writer says: that nobody takes the pieces any more.
fn failure(error: io::Error) -> PackError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => PackError::Abandoned,
        _ => PackError::Encrypt(error.into()),
    }
}

/// The channel to the store.
struct Pieces<'a> {
    sender: &'a mpsc::Sender<Piece>,
    /// What was written and is no whole piece yet: age's chunks are a few bytes longer than one.
    gathered: Vec<u8>,
    sent_bytes: u64,
}

impl<'a> Pieces<'a> {
    fn to(sender: &'a mpsc::Sender<Piece>) -> Self {
        Self { sender, gathered: Vec::new(), sent_bytes: 0 }
    }

    fn send(&mut self, mut bytes: Bytes) -> Result<(), PackError> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE_BYTES_MAX));
            self.sent_bytes += piece.len() as u64;
            let sent = self.sender.blocking_send(Piece::Bytes(piece));
            sent.map_err(|_closed| PackError::Abandoned)?;
        }
        Ok(())
    }

    fn send_gathered(&mut self) -> Result<(), PackError> {
        let gathered = std::mem::take(&mut self.gathered);
        self.send(gathered.into())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gathered.capacity() == 0 {
            self.gathered.reserve_exact(PIECE_BYTES_MAX);
        }
        let taken = bytes.len().min(PIECE_BYTES_MAX - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..taken]);
        if self.gathered.len() == PIECE_BYTES_MAX {
            self.send_gathered()
                .map_err(|_abandoned| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
