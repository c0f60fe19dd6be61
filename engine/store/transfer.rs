//! Moving an archive to and from the store, piece by piece: memory stays flat whatever the size.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{
    Attribute, AttributeValue, Attributes, GetOptions, GetRange, MultipartUpload, PutOptions,
    PutPayload,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::held::Held;
use super::{Backoff, BackupStore, Fault, Patience, StoreError, StoredBackup, folder};
use crate::archive::Piece;
use crate::blocking::{self, Stop};
use crate::deadline::Deadline;
use crate::fail_point;
use crate::key::BackupKey;
use crate::progress::Progress;
use crate::text;

/// The smallest part that S3 takes (but for the last), and what one PUT carries at most here.
const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;

/// S3 takes 10,000 parts; a tenth is kept back for an archive larger than its database.
const PARTS_MAX: u64 = 9_000;

/// How long a download may stand still before its connection counts as broken: a peer that went
/// without a word would hold it until the deadline. Longer than the client takes for three
/// connections that do not come up.
const STALLED: Duration = Duration::from_secs(20);

/// How long the abort of a failed upload may take: a courtesy to the store, which forgets
/// unfinished uploads by itself sooner or later.
const ABORT_TIMEOUT: Duration = Duration::from_millis(400);

/// A backup that is about to be stored.
#[derive(Debug, Clone)]
pub struct NewBackup {
    /// Its name.
    pub key: BackupKey,
    /// The size of the database, which sizes the parts, all of them alike, as some stores want it.
    pub database_bytes: u64,
    /// Names and texts of the object's metadata, for people; a folder has none.
    pub metadata: Vec<(String, String)>,
}

/// How an upload ended that the store did not refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// The backup is visible.
    Complete,
    /// The pieces ended early; nothing is visible, and their sender knows why.
    Abandoned,
}

/// Why a download ended.
enum Cut {
    /// The store or the network.
    Store(StoreError),
    /// Nobody takes the pieces any more; the taker knows why.
    Unwanted,
}

impl BackupStore {
    /// Stores the pieces as one backup, visible only when complete: one PUT if they fit one part,
    /// a multipart upload above; a file of its own in a folder. A failed upload is aborted.
    pub async fn upload(
        &self,
        backup: NewBackup,
        pieces: mpsc::Receiver<Piece>,
        deadline: Deadline,
    ) -> Result<Uploaded, StoreError> {
        let operation = format!("upload of {}", self.address(backup.key));
        let fail = |error| StoreError::new(&operation, &error);
        let late = |_| StoreError::out_of_time(&operation);
        deadline.limit(self.require_folder(&operation)).await.map_err(late)??;
        if let Some(folder) = self.folder.clone() {
            let (sender, receiver) = mpsc::channel(1);
            let work = move |stop: Stop| folder::write(&folder, backup.key, receiver, &stop);
            let passing = deadline.limit(pass_on(pieces, sender));
            let (_passed, written) = tokio::join!(passing, blocking::run(deadline, work));
            return written.map_err(late)?.map_err(|error| fail(folder::as_store_error(error)));
        }
        let path = self.path_of(backup.key);
        let attributes = attributes(backup.metadata);
        let mut parts = Parts::new(pieces, part_bytes(backup.database_bytes));
        match deadline.limit(parts.next()).await.map_err(late)? {
            Part::Early => Ok(Uploaded::Abandoned),
            Part::Last(payload) => {
                let put = self.put(&path, payload, attributes, &mut parts);
                deadline.limit(put).await.map_err(late)?.map_err(fail)
            }
            Part::Full(payload) => {
                let begun = self.objects.put_multipart_opts(&path, attributes.into());
                let mut upload = deadline.limit(begun).await.map_err(late)?.map_err(fail)?;
                let sent = deadline.limit(send_parts(&mut *upload, payload, parts)).await;
                let error = match sent {
                    Ok(Ok(Uploaded::Complete)) => return Ok(Uploaded::Complete),
                    Ok(Ok(Uploaded::Abandoned)) => None,
                    Ok(Err(error)) => Some(fail(error)),
                    Err(out_of_time) => Some(late(out_of_time)),
                };
                abort(&mut *upload, &operation).await;
                error.map_or(Ok(Uploaded::Abandoned), Err)
            }
        }
    }

    /// Stores what is whole with one PUT, as soon as it is known that it may be stored.
    async fn put(
        &self,
        path: &ObjectPath,
        payload: PutPayload,
        attributes: Attributes,
        parts: &mut Parts,
    ) -> object_store::Result<Uploaded> {
        // Of a single chunk there is nothing to send before the last.
        if self.holds_back
            && payload.as_ref().len() > 1
            && parts.may_be_stored().now_or_never().is_none()
            && self.put_ahead(path, &payload, &attributes, parts).await
        {
            return Ok(Uploaded::Complete);
        }
        if !parts.may_be_stored().await {
            return Ok(Uploaded::Abandoned);
        }
        self.objects.put_opts(path, payload, attributes.into()).await?;
        Ok(Uploaded::Complete)
    }

    /// Sends all but the last bytes before that is known, and returns whether the backup is stored. What failed in the
    /// meantime is of no matter.
    async fn put_ahead(
        &self,
        path: &ObjectPath,
        payload: &PutPayload,
        attributes: &Attributes,
        parts: &mut Parts,
    ) -> bool {
        let (keeper, held) = Held::back(payload.clone());
        let mut options = PutOptions::from(attributes.clone());
        options.extensions.insert(held);
        let sending = self.objects.put_opts(path, payload.clone(), options);
        tokio::pin!(sending);
        let sent = tokio::select! {
            biased;
            may_be_stored = parts.may_be_stored() => {
                if !may_be_stored {
                    return false;
                }
                keeper.release();
                sending.await
            }
            early = &mut sending => early,
        };
        if let Err(why) = &sent {
            let why = StoreError::new(format!("sending of {path} ahead of the check"), why);
            tracing::debug!(target: crate::LOG, error = %text::chain(&why), "{why}; sending it again");
        }
        sent.is_ok()
    }

    /// Sends the archive of `backup` into `pieces`, resumed where it was cut; the count of tries
    /// starts anew whenever bytes arrived. Returns the object's metadata, which came along.
    pub async fn download(
        &self,
        backup: &StoredBackup,
        pieces: mpsc::Sender<Piece>,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let operation = format!("download of {}", self.address(backup.key));
        let mut backoff = Backoff::new(Patience::UntilDeadline);
        let mut position = Position::default();
        loop {
            let before = position.offset;
            let read = self.read_from(&operation, backup.key, &mut position, &pieces, progress);
            let read = deadline.limit(read).await;
            if position.offset > before {
                backoff.reset();
            }
            let error = match read {
                Ok(Ok(())) => {
                    // Closed means that the unpacking failed, and says why itself.
                    let _closed = deadline.limit(pieces.send(Piece::End)).await;
                    return Ok(position.metadata);
                }
                Ok(Err(Cut::Unwanted)) => return Ok(position.metadata),
                Ok(Err(Cut::Store(error))) => error,
                Err(_out_of_time) => return Err(backoff.out_of_time(operation)),
            };
            backoff.wait_after(error, deadline).await?;
        }
    }

    async fn read_from(
        &self,
        operation: &str,
        key: BackupKey,
        position: &mut Position,
        pieces: &mpsc::Sender<Piece>,
        progress: &Progress,
    ) -> Result<(), Cut> {
        let fail = |error| Cut::Store(StoreError::new(operation, &error));
        let options = GetOptions {
            range: (position.offset > 0).then_some(GetRange::Offset(position.offset)),
            // The rest of another object would make a file that is neither.
            if_match: position.e_tag.clone(),
            ..GetOptions::default()
        };
        let stalled = |_elapsed| {
            let text = format!("no byte for {} s", STALLED.as_secs());
            Cut::Store(StoreError::with_text(operation, Fault::Unreachable, &text))
        };
        let path = self.path_of(key);
        let answer = timeout(STALLED, self.objects.get_opts(&path, options)).await;
        let answer = answer.map_err(stalled)?.map_err(fail)?;
        let size = answer.meta.size;
        // Not every store obeys the condition.
        if position.offset > 0 && answer.meta.e_tag != position.e_tag {
            let text = "the store went on with another object";
            return Err(Cut::Store(StoreError::with_text(operation, Fault::Changed, text)));
        }
        position.e_tag.clone_from(&answer.meta.e_tag);
        position.metadata = metadata(&answer.attributes);
        let mut stream = answer.into_stream();
        while position.offset < size
            && let Some(bytes) = timeout(STALLED, stream.next()).await.map_err(stalled)?
        {
            let bytes = bytes.map_err(fail)?;
            position.offset += bytes.len() as u64;
            progress.set_done(position.offset);
            pieces.send(Piece::Bytes(bytes)).await.map_err(|_closed| Cut::Unwanted)?;
            fail_point::reach("restore.piece_received");
        }
        if position.offset == size {
            return Ok(());
        }
        let text = format!("{} of {size} bytes arrived", position.offset);
        Err(Cut::Store(StoreError::with_text(operation, Fault::Unreachable, &text)))
    }
}

/// Hands pieces to a thread that may hang on a dead disk, so that it never holds up their sender,
/// and the lock that the sender has.
async fn pass_on(mut pieces: mpsc::Receiver<Piece>, thread: mpsc::Sender<Piece>) {
    while let Some(piece) = pieces.recv().await {
        let is_last = matches!(piece, Piece::End);
        if thread.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

/// Makes the metadata of an object.
fn attributes(metadata: Vec<(String, String)>) -> Attributes {
    let attribute = |(name, text): (String, String)| {
        (Attribute::Metadata(name.into()), AttributeValue::from(text))
    };
    metadata.into_iter().map(attribute).collect()
}

/// Reads the metadata of an object.
fn metadata(attributes: &Attributes) -> Vec<(String, String)> {
    let entries = attributes.iter().filter_map(|(attribute, text)| match attribute {
        Attribute::Metadata(name) => Some((name.to_string(), text.to_string())),
        _ => None,
    });
    entries.collect()
}

/// How far a download is, and of which version of the object.
#[derive(Debug, Default)]
struct Position {
    offset: u64,
    e_tag: Option<String>,
    metadata: Vec<(String, String)>,
}

/// What the pieces gave for the next part; with the last one there are no more bytes.
enum Part {
    Full(PutPayload),
    Last(PutPayload),
    Early,
}

/// Cuts the stream of pieces into parts of exactly one size (some stores want it so); what is
/// left of a piece goes into the next part.
struct Parts {
    pieces: mpsc::Receiver<Piece>,
    part_bytes: usize,
    rest: Bytes,
    last_word: Option<bool>,
}

impl Parts {
    fn new(pieces: mpsc::Receiver<Piece>, part_bytes: u64) -> Self {
        Self { pieces, part_bytes: part_bytes as usize, rest: Bytes::new(), last_word: None }
    }

    /// Waits for the last word: whether what was given may become a backup.
    async fn may_be_stored(&mut self) -> bool {
        loop {
            if let Some(may_be_stored) = self.last_word {
                return may_be_stored;
            }
            match self.pieces.recv().await {
                Some(Piece::Whole) => {}
                Some(Piece::End) => self.last_word = Some(true),
                // More bytes after all is a defect of the sender, and what there is so far no backup.
                Some(Piece::Bytes(_)) | None => self.last_word = Some(false),
            }
        }
    }

    async fn next(&mut self) -> Part {
        let mut gathered = Vec::new();
        let mut missing = self.part_bytes;
        loop {
            let taken = self.rest.split_to(self.rest.len().min(missing));
            missing -= taken.len();
            if !taken.is_empty() {
                gathered.push(taken);
            }
            if missing == 0 {
                return Part::Full(gathered.into_iter().collect());
            }
            match self.pieces.recv().await {
                Some(Piece::Bytes(bytes)) => self.rest = bytes,
                Some(last @ (Piece::Whole | Piece::End)) => {
                    self.last_word = matches!(last, Piece::End).then_some(true);
                    return Part::Last(gathered.into_iter().collect());
                }
                None => return Part::Early,
            }
        }
    }
}

/// Sends the parts, one after the other, and completes the upload. While one travels the next is
/// packed as far as the pieces that may wait allow: a whole part more would be a fifth of all the
/// memory that a backup takes.
async fn send_parts(
    upload: &mut dyn MultipartUpload,
    first: PutPayload,
    mut parts: Parts,
) -> object_store::Result<Uploaded> {
    let mut next = Part::Full(first);
    loop {
        let (payload, is_last) = match next {
            Part::Full(payload) => (payload, false),
            Part::Last(payload) => (payload, true),
            Part::Early => return Ok(Uploaded::Abandoned),
        };
        // Pieces that ended exactly with a part leave nothing for a last one.
        if payload.content_length() > 0 {
            upload.put_part(payload).await?;
            fail_point::reach("upload.part_sent");
        }
        if is_last {
            break;
        }
        next = parts.next().await;
    }
    if !parts.may_be_stored().await {
        return Ok(Uploaded::Abandoned);
    }
    fail_point::reach("upload.all_parts_sent");
    upload.complete().await?;
    Ok(Uploaded::Complete)
}

fn part_bytes(database_bytes: u64) -> u64 {
    PART_BYTES_MIN.max(database_bytes.div_ceil(PARTS_MAX))
}

async fn abort(upload: &mut dyn MultipartUpload, operation: &str) {
    let aborted = timeout(ABORT_TIMEOUT, upload.abort()).await;
    if !matches!(aborted, Ok(Ok(()))) {
        tracing::warn!(
            target: crate::LOG,
            "WARNING: Cannot abort the failed {operation}; its parts stay invisible, a lifecycle \
             rule for incomplete uploads removes them"
        );
    }
}
