//! Unpacking: the pieces of an archive, ours or of any gzip, as a file; decrypted first if need be.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::Bytes;
use flate2::bufread::{GzDecoder, MultiGzDecoder};
use tokio::sync::mpsc;

use super::decrypt::decrypt;
use super::{Piece, UnpackError, manifest_in};
use crate::blocking::Stop;
use crate::disk::Disk;
use crate::encryption::Identities;
use crate::hash::Hash;
use crate::key::BackupKey;
use crate::manifest::Manifest;

/// Bytes read, unpacked and written at a time.
const PIECE_BYTES: usize = 128 * 1024;

/// Bytes unpacked between two looks at the disk, of an archive that does not say its size.
const BYTES_BETWEEN_LOOKS: u64 = 1024 * 1024;

/// Unpacks the pieces of an archive into the new file `target` (mode 0600) and returns what
/// the archive says about itself, where it does.
///
/// A stream that is cut short, is not gzip, or has bytes after its last member is an error; so
/// is one that unpacks to another size than it claims, before `disk` is filled. One that claims
/// nothing may be a bomb: it has to leave other programs some room.
pub fn unpack(
    pieces: mpsc::Receiver<Piece>,
    target: &Path,
    disk: &Disk,
    stop: &Stop,
) -> Result<Option<Manifest>, UnpackError> {
    let ending = Ending::default();
    let source = ending.read(pieces);
    unpack_gzip(source, None, Output::create(target, disk, stop)?, &ending)
}

/// Does the same with the archive of the encrypted backup `key`, which is decrypted on the way.
///
/// # Errors
///
/// [`UnpackError::Damaged`] also for the archive of another backup: whoever may write to the store
/// can't change what is encrypted, but could give an old backup the name of the newest.
pub fn unpack_encrypted(
    pieces: mpsc::Receiver<Piece>,
    (key, identities): (BackupKey, &Identities),
    target: &Path,
    (disk, stop): (&Disk, &Stop),
) -> Result<Option<Manifest>, UnpackError> {
    let ending = Ending::default();
    let decrypted = decrypt(ending.read(pieces), identities, |error| ending.judge(&error))?;
    let source = io::BufReader::with_capacity(PIECE_BYTES, decrypted);
    unpack_gzip(source, Some(key), Output::create(target, disk, stop)?, &ending)
}

/// Unpacks a gzip stream, of this backup if it is known to be.
fn unpack_gzip(
    source: impl BufRead,
    key: Option<BackupKey>,
    mut output: Output<'_>,
    ending: &Ending,
) -> Result<Option<Manifest>, UnpackError> {
    let fail = |error: io::Error| ending.judge(&error);
    // The manifest is in the header of the first member, which in archives of ours is empty, and in
    // those of version 0.1.0 and of stock gzip the only one.
    let mut first = GzDecoder::new(source);
    let mut read = first.read(&mut output.buffer).map_err(fail)?;
    if let (Some(key), Some(header)) = (key, first.header()) {
        require_name(key, header.filename())?;
    }
    output.set_manifest(first.header().and_then(|header| manifest_in(header.comment()?)))?;
    while read > 0 {
        output.write(read)?;
        read = first.read(&mut output.buffer).map_err(fail)?;
    }
    let mut source = first.into_inner();
    if !source.fill_buf().map_err(fail)?.is_empty() {
        let mut others = MultiGzDecoder::new(source);
        loop {
            let read = others.read(&mut output.buffer).map_err(fail)?;
            if read == 0 {
                break;
            }
            output.write(read)?;
        }
    }
    output.finish()
}

/// Refuses the archive of another backup than `key`. A name that is not one of ours is that of a file
/// which a person packed, and says nothing.
fn require_name(key: BackupKey, filename: Option<&[u8]>) -> Result<(), UnpackError> {
    let Some(name) = filename.and_then(|name| str::from_utf8(name).ok()) else { return Ok(()) };
    match BackupKey::parse(&format!("{name}.gz")) {
        Some(other) if other.timestamp() != key.timestamp() => Err(UnpackError::Damaged(format!(
            "it is another backup, {}, under this name; if you renamed it, rename it back",
            other.in_form(key.form())
        ))),
        _ => Ok(()),
    }
}

/// The file that an archive is unpacked to.
struct Output<'a> {
    file: File,
    /// What the next write takes its bytes from.
    buffer: Vec<u8>,
    manifest: Option<Manifest>,
    hash: Hash,
    bytes: u64,
    /// How many bytes may be written until the disk is looked at again.
    next_look: u64,
    disk: &'a Disk,
    stop: &'a Stop,
}

impl<'a> Output<'a> {
    fn create(target: &Path, disk: &'a Disk, stop: &'a Stop) -> Result<Self, UnpackError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target);
        Ok(Self {
            file: file.map_err(UnpackError::Write)?,
            buffer: vec![0; PIECE_BYTES],
            manifest: None,
            hash: Hash::new(),
            bytes: 0,
            next_look: 0,
            disk,
            stop,
        })
    }

    fn set_manifest(&mut self, manifest: Option<Manifest>) -> Result<(), UnpackError> {
        if let Some(manifest) = &manifest {
            self.disk.require(manifest.database_bytes)?;
        }
        self.manifest = manifest;
        Ok(())
    }

    /// Writes the first `count` bytes of the buffer.
    fn write(&mut self, count: usize) -> Result<(), UnpackError> {
        if self.stop.is_set() {
            return Err(UnpackError::Abandoned);
        }
        if self.manifest.is_none() && self.bytes >= self.next_look {
            self.disk.require_beside_reserve(BYTES_BETWEEN_LOOKS)?;
            self.next_look = self.bytes + BYTES_BETWEEN_LOOKS;
        }
        self.bytes += count as u64;
        if self.manifest.as_ref().is_some_and(|manifest| self.bytes > manifest.database_bytes) {
            return Err(UnpackError::Damaged("it unpacks to more than it claims".to_owned()));
        }
        self.hash.update(&self.buffer[..count]);
        self.file.write_all(&self.buffer[..count]).map_err(UnpackError::Write)
    }

    fn finish(self) -> Result<Option<Manifest>, UnpackError> {
        if let Some(manifest) = &self.manifest {
            compare(manifest, self.bytes, &self.hash.finish())?;
        }
        Ok(self.manifest)
    }
}

/// Compares what came out with what was promised.
fn compare(manifest: &Manifest, bytes: u64, sha256: &str) -> Result<(), UnpackError> {
    if manifest.database_bytes != bytes {
        return Err(UnpackError::Damaged(format!(
            "it unpacks to {bytes} bytes instead of {}",
            manifest.database_bytes
        )));
    }
    match &manifest.contents {
        Some(contents) if contents.sha256 != sha256 => Err(UnpackError::Damaged(format!(
            "it unpacks to other bytes than were packed: SHA-256 {sha256} instead of {}",
            contents.sha256
        ))),
        _ => Ok(()),
    }
}

/// Says what is wrong with an archive.
pub(super) fn damage(error: &io::Error) -> UnpackError {
    UnpackError::Damaged(match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut short".to_owned(),
        io::ErrorKind::InvalidInput => "it is not gzip, or other bytes follow it".to_owned(),
        _ => error.to_string(),
    })
}

/// How the pieces ended.
#[derive(Default)]
struct Ending {
    /// Set when the sender goes away without [`Piece::End`].
    is_early: Cell<bool>,
}

impl Ending {
    /// Presents the pieces as one stream.
    fn read(&self, pieces: mpsc::Receiver<Piece>) -> impl BufRead {
        let (current, is_complete) = (Bytes::new(), false);
        let pieces = PieceReader { pieces, current, is_complete, ending: self };
        io::BufReader::with_capacity(PIECE_BYTES, pieces)
    }

    /// An early end is the download's failure, not the archive's.
    fn judge(&self, error: &io::Error) -> UnpackError {
        if self.is_early.get() { UnpackError::Abandoned } else { damage(error) }
    }
}

struct PieceReader<'a> {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    is_complete: bool,
    ending: &'a Ending,
}

impl Read for PieceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.is_complete {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.current = bytes,
                Some(Piece::Whole) => {}
                Some(Piece::End) => self.is_complete = true,
                None => {
                    self.ending.is_early.set(true);
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        }
        let taken = self.current.split_to(buffer.len().min(self.current.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}
