//! The archive: a gzip stream of the snapshot, readable by `gunzip` alone, or by `age -d | gunzip`
//! if it is encrypted.
//!
//! What a restore wants to know beside the bytes (the [`Manifest`]) travels in the comment of
//! the gzip header, which every gunzip skips: it survives any copy between stores and needs no
//! request of its own. An archive that someone made with stock gzip restores just as well.

mod ahead;
mod decrypt;
mod member;
mod outlet;
mod pack;
mod unpack;

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use thiserror::Error;

pub use self::ahead::{Ahead, PackingAhead, Work};
pub use self::decrypt::ENCRYPTED_START_BYTES;
pub use self::outlet::Outlet;
pub use self::pack::pack;
pub use self::unpack::{unpack, unpack_encrypted};
use crate::disk::NoRoom;
use crate::encryption::Identities;
use crate::key::BackupKey;
use crate::manifest::Manifest;
use crate::snapshot::Owner;

/// Pieces that may wait between packing and sending, of 64 KiB at most: while one part of an upload travels
/// the next is packed, and a slow network holds packing up instead of filling memory.
pub const PIECES_TO_SEND: usize = 46;

/// How many of those are kept back while the check runs: it needs memory, too, and leaves no processor
/// for more.
pub const PIECES_KEPT_BACK: usize = 26;

/// Pieces that may wait between receiving and unpacking, which is the faster of the two.
pub const PIECES_RECEIVED: usize = 4;

/// Bytes at the start of an archive that hold its header, a name and a manifest: a few hundred.
pub const HEADER_BYTES_MAX: u64 = 4096;

/// A piece of an archive on its way between the store and the packing thread.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Bytes(Bytes),
    /// There are no more bytes. They may travel; whether they are to become a backup is not known yet.
    Whole,
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
    /// It could not be encrypted; nothing of it is stored.
    #[error("archive could not be encrypted, nothing is stored")]
    Encrypt(#[source] Box<dyn Error + Send + Sync>),
    /// A plain archive under the name of an encrypted one, or the other way round: a defect.
    #[error(
        "archive was about to be stored as {0}, which says something else of its encryption; this is \
         a defect, please report it"
    )]
    OtherForm(BackupKey),
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
    /// None of the identities opens it.
    #[error("it is encrypted for others, or the header of its encryption is damaged")]
    NotForUs,
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

/// Returns the manifest in the first bytes of an archive, if it has one.
#[must_use]
pub fn manifest_at(start: &[u8]) -> Option<Manifest> {
    manifest_in(GzDecoder::new(start).header()?.comment()?)
}

/// Returns the manifest in the first [`ENCRYPTED_START_BYTES`] of an encrypted archive, if it has one.
///
/// # Errors
///
/// [`UnpackError::NotForUs`] and [`UnpackError::Damaged`].
pub fn encrypted_manifest_at(
    start: &[u8],
    identities: &Identities,
) -> Result<Option<Manifest>, UnpackError> {
    let decrypted = decrypt::decrypt(start, identities, |error| unpack::damage(&error))?;
    // In small steps: only the first chunk is sure to be whole.
    let gzip = GzDecoder::new(io::BufReader::with_capacity(1024, decrypted));
    Ok(gzip.header().and_then(|header| manifest_in(header.comment()?)))
}

/// Reads a manifest; a comment that someone else's gzip wrote is not ours to judge.
fn manifest_in(comment: &[u8]) -> Option<Manifest> {
    serde_json::from_slice(comment).ok()
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
