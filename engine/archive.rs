//! The archive: a gzip stream of the snapshot, readable by `gunzip` alone.
//!
//! What a restore wants to know beside the bytes (the [`Manifest`]) travels in the comment of
//! the gzip header, which every gunzip skips: it survives any copy between stores and needs no
//! request of its own. An archive that someone made with stock gzip restores just as well.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use flate2::bufread::{GzDecoder, MultiGzDecoder};
use flate2::{Compression, GzBuilder};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::blocking::Stop;
use crate::disk::{Disk, NoRoom};
use crate::key::BackupKey;
use crate::manifest::{Hash, Manifest};
use crate::progress::Progress;
use crate::snapshot::Owner;

/// Bytes read, packed and handed on at a time.
const PIECE_BYTES: usize = 128 * 1024;

/// Bytes unpacked between two looks at the disk, of an archive that does not say its size.
const BYTES_BETWEEN_LOOKS: u64 = 1024 * 1024;

/// Pieces that may wait between packing and sending, so that a slow network holds packing up
/// instead of filling memory.
pub const PIECES_IN_FLIGHT: usize = 4;

/// A piece of an archive on its way between the store and the packing thread.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Bytes(Bytes),
    /// The archive is complete. A sender that goes away without it has failed, so that a failure
    /// can't look like a short archive.
    End,
}

/// Why an archive could not be packed.
#[derive(Debug, Error)]
pub enum PackError {
    /// The snapshot could not be read.
    #[error("snapshot could not be read")]
    Read(#[source] io::Error),
    /// Nobody takes the chunks any more: the upload failed, and says why itself.
    #[error("upload ended early")]
    Abandoned,
}

/// Why an archive could not be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// Not gzip, cut short, or with bytes that do not belong: the archive is bad.
    #[error("archive is damaged: {0}")]
    Damaged(String),
    /// What it unpacks to does not fit.
    #[error("no room for the unpacked database")]
    NoRoom(#[from] NoRoom),
    /// The output could not be written.
    #[error("unpacked file could not be written; free space or check the folder's permissions")]
    Write(#[source] io::Error),
    /// The download ended early, and says why itself, or time ran out.
    #[error("download ended early")]
    Abandoned,
}

/// Packs the snapshot file into pieces and returns how many bytes they hold together.
pub fn pack(
    snapshot: &Path,
    key: BackupKey,
    manifest: &Manifest,
    pieces: &mpsc::Sender<Piece>,
    stop: &Stop,
    progress: &Progress,
) -> Result<u64, PackError> {
    let mut file = File::open(snapshot).map_err(PackError::Read)?;
    let sender = PieceSender { pieces, waiting: BytesMut::new(), sent_bytes: 0 };
    let comment = serde_json::to_vec(manifest).map_err(|e| PackError::Read(e.into()))?;
    let mut gzip = GzBuilder::new()
        .filename(key.database_name())
        .comment(comment)
        .mtime(u32::try_from(key.timestamp()).unwrap_or(0))
        // Level 6: what `gzip` itself uses.
        .write(sender, Compression::default());
    let mut buffer = vec![0; PIECE_BYTES];
    let mut done_bytes = 0;
    loop {
        let read = file.read(&mut buffer).map_err(PackError::Read)?;
        if read == 0 {
            break;
        }
        if stop.is_set() {
            return Err(PackError::Abandoned);
        }
        gzip.write_all(&buffer[..read]).map_err(|_closed| PackError::Abandoned)?;
        done_bytes += read as u64;
        progress.set_done(done_bytes);
    }
    // What the check saw was longer: a restore would refuse the rest of it.
    if done_bytes != manifest.database_bytes {
        let text = format!("{done_bytes} of {} bytes are there", manifest.database_bytes);
        return Err(PackError::Read(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
    }
    let mut sender = gzip.finish().map_err(|_closed| PackError::Abandoned)?;
    sender.flush().map_err(|_closed| PackError::Abandoned)?;
    pieces.blocking_send(Piece::End).map_err(|_closed| PackError::Abandoned)?;
    Ok(sender.sent_bytes)
}

/// Gathers what gzip writes in small bits into pieces of a useful size.
struct PieceSender<'a> {
    pieces: &'a mpsc::Sender<Piece>,
    waiting: BytesMut,
    sent_bytes: u64,
}

impl Write for PieceSender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let bytes = self.waiting.split().freeze();
        self.sent_bytes += bytes.len() as u64;
        self.pieces
            .blocking_send(Piece::Bytes(bytes))
            .map_err(|_closed| io::ErrorKind::BrokenPipe.into())
    }
}

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
    let source = PieceReader { pieces, current: Bytes::new(), is_complete: false };
    let mut gzip = MultiGzDecoder::new(io::BufReader::with_capacity(PIECE_BYTES, source));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(target)
        .map_err(UnpackError::Write)?;
    let mut buffer = vec![0; PIECE_BYTES];
    let (mut bytes, mut next_look) = (0, 0);
    let mut hash = Hash::new();
    let mut manifest = None;
    loop {
        let read = gzip.read(&mut buffer).map_err(|error| damage(&error));
        if stop.is_set() {
            return Err(UnpackError::Abandoned);
        }
        // An early end is the download's failure, not the archive's.
        let read = read.map_err(|error| {
            let source = gzip.get_ref().get_ref();
            if source.has_ended_early() { UnpackError::Abandoned } else { error }
        })?;
        if bytes == 0 {
            manifest = gzip.header().and_then(|header| manifest_in(header.comment()?));
            if let Some(manifest) = &manifest {
                disk.require(manifest.database_bytes)?;
            }
        }
        if read == 0 {
            break;
        }
        if manifest.is_none() && bytes >= next_look {
            disk.require_beside_reserve(BYTES_BETWEEN_LOOKS)?;
            next_look = bytes + BYTES_BETWEEN_LOOKS;
        }
        bytes += read as u64;
        if manifest.as_ref().is_some_and(|m: &Manifest| bytes > m.database_bytes) {
            return Err(UnpackError::Damaged("it unpacks to more than it claims".to_owned()));
        }
        hash.update(&buffer[..read]);
        file.write_all(&buffer[..read]).map_err(UnpackError::Write)?;
    }
    if let Some(manifest) = &manifest {
        compare(manifest, bytes, &hash.finish())?;
    }
    Ok(manifest)
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

/// Returns the manifest in the first bytes of an archive, if it has one.
#[must_use]
pub fn manifest_at(start: &[u8]) -> Option<Manifest> {
    manifest_in(GzDecoder::new(start).header()?.comment()?)
}

/// Reads a manifest; a comment that someone else's gzip wrote is not ours to judge.
fn manifest_in(comment: &[u8]) -> Option<Manifest> {
    serde_json::from_slice(comment).ok()
}

fn damage(error: &io::Error) -> UnpackError {
    UnpackError::Damaged(match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut short".to_owned(),
        io::ErrorKind::InvalidInput => "it is not gzip, or other bytes follow it".to_owned(),
        _ => error.to_string(),
    })
}

/// Presents the pieces as one stream.
struct PieceReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    is_complete: bool,
}

impl PieceReader {
    /// Returns whether the sender went away without [`Piece::End`].
    fn has_ended_early(&self) -> bool {
        !self.is_complete && self.pieces.is_closed() && self.pieces.is_empty()
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.is_complete {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.current = bytes,
                Some(Piece::End) => self.is_complete = true,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let taken = self.current.split_to(buffer.len().min(self.current.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

/// Gives a restored file the permissions of its source, where we may: anyone sets the mode, only
/// root the owner.
pub fn apply_owner(path: &Path, owner: Owner) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    if rustix::process::geteuid().is_root()
        && let Err(error) = std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))
    {
        // Root in a container or over NFS may lack the right; the database matters more.
        tracing::warn!(
            target: crate::LOG,
            "WARNING: The owner of the backed up database (user {}, group {}) cannot be given to \
             the restored one: {error}; check that the app can write to it", owner.uid, owner.gid
        );
    }
    // After the owner: a change of owner clears the set-id bits.
    fs::set_permissions(path, fs::Permissions::from_mode(owner.mode & 0o777))
}
