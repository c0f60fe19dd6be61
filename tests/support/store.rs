//! An object store that counts its calls and does to them what a test has planned. It wraps any
//! [`ObjectStore`]; the engine under test cannot tell it from the real one.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, UploadPart,
};
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::store::Fault;

use super::script::{Gate, Script};

/// What can be asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    List,
    Get,
    Put,
    /// The start of a multipart upload.
    BeginUpload,
    /// The first part of one.
    FirstPart,
    /// A part after the first.
    LaterPart,
    Complete,
    Abort,
    Delete,
}

/// What can go wrong with a call.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// An error that means this fault; nothing is done.
    Fail(Fault),
    /// It is refused with this HTTP status; nothing is done.
    Answer(u16),
    /// A deletion or an abort: acknowledged, but not done.
    NotDone,
    /// A list: the newest backup is missing, as in a list that is not up to date.
    Forget,
    /// A list: it has a backup of this time that is gone, for the same reason.
    Remember(i64),
    /// It is done, but the answer is lost on the way back.
    LoseAnswer,
    /// No answer ever.
    Hang,
    /// It takes this long by tokio's clock.
    Delay(Duration),
    /// It waits for the test.
    Hold(Gate),
    /// The connection breaks after this many bytes: of a put, which is then not done, or of the
    /// answer to a get.
    Cut(usize),
    /// A put: it is done, whatever its condition says.
    IgnoreCondition,
    /// A get: nothing more comes after this many bytes, and the connection stays.
    Stall(usize),
    /// A get: the byte at this place of the answer arrives inverted.
    Corrupt(usize),
}

/// The wrapper.
pub(crate) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    script: Arc<Script<Call, Trouble>>,
}

impl FaultyStore {
    pub(crate) fn over(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, script: Arc::default() }
    }

    /// The plan and the log.
    pub(crate) fn script(&self) -> &Script<Call, Trouble> {
        &self.script
    }

    /// The store without trouble, for what a test itself puts and reads.
    pub(crate) fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

/// Does `work` as the script has it.
async fn act<T>(
    script: &Script<Call, Trouble>,
    (call, what): (Call, &str),
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    suffer(script.enter(call, what), what, work).await
}

/// Does `work` with this trouble.
async fn suffer<T>(
    trouble: Option<Trouble>,
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match trouble {
        None => work.await,
        Some(Trouble::Fail(fault)) => Err(error_of(fault, what)),
        Some(Trouble::Answer(status)) => {
            let text = format!("Server returned non-2xx status code: {status} by the script");
            Err(Error::Generic { store: "faulty", source: text.into() })
        }
        // As S3 does it: what arrived of a put is thrown away.
        Some(Trouble::Cut(_)) => Err(error_of(Fault::Unreachable, what)),
        Some(Trouble::LoseAnswer) => {
            work.await?;
            Err(error_of(Fault::Unreachable, what))
        }
        Some(Trouble::Hang) => std::future::pending().await,
        Some(Trouble::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            work.await
        }
        Some(Trouble::Hold(gate)) => {
            gate.pass().await;
            work.await
        }
        Some(other) => panic!("{other:?} cannot be done to this call of {what}"),
    }
}

/// Returns an error as the client makes it for this fault.
fn error_of(fault: Fault, what: &str) -> Error {
    let generic = |text: &str| Error::Generic { store: "faulty", source: text.into() };
    let of_system =
        |kind| Error::Generic { store: "faulty", source: Box::new(std::io::Error::from(kind)) };
    let (path, source) = (what.to_owned(), Box::from(format!("planned {fault:?}")));
    match fault {
        Fault::AccessDenied => Error::PermissionDenied { path, source },
        Fault::NotFound => Error::NotFound { path, source },
        Fault::Changed => Error::Precondition { path, source },
        Fault::NoCredentials => generic("error sending request for url (http://169.254.169.254/)"),
        Fault::NoSuchBucket => generic("status code: 404 Not Found: <Code>NoSuchBucket</Code>"),
        Fault::Certificate => generic("invalid peer certificate: UnknownIssuer"),
        Fault::Busy => generic("status code: 503 Service Unavailable"),
        Fault::Refused => generic("status code: 400 Bad Request"),
        Fault::Unreachable => of_system(ErrorKind::ConnectionReset),
        Fault::NoSuchFolder => of_system(ErrorKind::NotFound),
        Fault::FolderDenied => of_system(ErrorKind::PermissionDenied),
        Fault::FolderFull => of_system(ErrorKind::StorageFull),
        Fault::TlsOnly | Fault::NotS3 | Fault::ClockSkewed => {
            panic!("only a server makes {fault:?}")
        }
        Fault::OutOfTime => panic!("only a deadline makes {fault:?}; plan a Hang"),
    }
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        // This one changes the call on its way, the others are done to it.
        match self.script.enter(Call::Put, location.as_ref()) {
            None => self.inner.put_opts(location, payload, opts).await,
            Some(Trouble::IgnoreCondition) => self.inner.put(location, payload).await,
            Some(trouble) => {
                let again = Script::default();
                again.plan(Call::Put, .., trouble);
                let put = self.inner.put_opts(location, payload, opts);
                act(&again, (Call::Put, location.as_ref()), put).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let begin = self.inner.put_multipart_opts(location, opts);
        let inner = act(&self.script, (Call::BeginUpload, location.as_ref()), begin).await?;
        let script = Arc::clone(&self.script);
        Ok(Box::new(FaultyUpload { inner, script, name: location.to_string(), parts: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let what = match &options.range {
            Some(range) => format!("{location} {range}"),
            None => location.to_string(),
        };
        // These change the answer on its way, the others are done to the call.
        match self.script.enter(Call::Get, what.as_str()) {
            Some(Trouble::Cut(bytes)) => {
                let answer = self.inner.get_opts(location, options).await?;
                Ok(rewritten(answer, move |stream| cut(stream, bytes)))
            }
            Some(Trouble::Stall(bytes)) => {
                let answer = self.inner.get_opts(location, options).await?;
                Ok(rewritten(answer, move |stream| stall(stream, bytes)))
            }
            Some(Trouble::Corrupt(place)) => {
                let answer = self.inner.get_opts(location, options).await?;
                Ok(rewritten(answer, move |stream| corrupt(stream, place)))
            }
            trouble => suffer(trouble, &what, self.inner.get_opts(location, options)).await,
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, script) = (Arc::clone(&self.inner), Arc::clone(&self.script));
        let deleted = locations.then(move |location| {
            let (inner, script) = (Arc::clone(&inner), Arc::clone(&script));
            async move {
                let location = location?;
                match script.enter(Call::Delete, location.as_ref()) {
                    Some(Trouble::NotDone) => {}
                    trouble => suffer(trouble, location.as_ref(), inner.delete(&location)).await?,
                }
                Ok(location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let what = prefix.map_or("", |prefix| prefix.as_ref());
        let list = self.inner.list_with_delimiter(prefix);
        match self.script.enter(Call::List, what) {
            Some(Trouble::Forget) => {
                let mut listed = list.await?;
                listed.objects.sort_by(|a, b| a.location.cmp(&b.location));
                let ours = |object: &ObjectMeta| is_backup(&object.location);
                let newest = listed.objects.iter().rposition(ours).expect("a backup to forget");
                listed.objects.remove(newest);
                Ok(listed)
            }
            Some(Trouble::Remember(timestamp)) => {
                let mut listed = list.await?;
                let ours = |object: &&ObjectMeta| is_backup(&object.location);
                let mut gone = listed.objects.iter().find(ours).expect("a backup").clone();
                gone.location = Path::from(format!("{what}/{}", super::name(timestamp)));
                listed.objects.push(gone);
                Ok(listed)
            }
            trouble => suffer(trouble, what, list).await,
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Returns whether an object has the name of a backup.
fn is_backup(location: &Path) -> bool {
    location.filename().is_some_and(|name| BackupKey::parse(name).is_some())
}

type Answer = BoxStream<'static, Result<Bytes>>;

fn rewritten(answer: GetResult, rewrite: impl FnOnce(Answer) -> Answer) -> GetResult {
    let (meta, range) = (answer.meta.clone(), answer.range.clone());
    let (attributes, extensions) = (answer.attributes.clone(), answer.extensions.clone());
    let payload = GetResultPayload::Stream(rewrite(answer.into_stream()));
    GetResult { payload, meta, range, attributes, extensions }
}

fn cut(stream: Answer, bytes: usize) -> Answer {
    let broken = futures::stream::once(async { Err(error_of(Fault::Unreachable, "cut")) });
    first(stream, bytes).chain(broken).boxed()
}

fn stall(stream: Answer, bytes: usize) -> Answer {
    first(stream, bytes).chain(futures::stream::pending()).boxed()
}

/// Returns the first bytes of an answer.
fn first(stream: Answer, bytes: usize) -> Answer {
    let mut left = bytes;
    let whole = stream.map(move |piece| {
        let piece = piece?;
        let kept = piece.slice(..piece.len().min(left));
        left -= kept.len();
        Ok(kept)
    });
    whole
        .take_while(|piece| std::future::ready(!matches!(piece, Ok(bytes) if bytes.is_empty())))
        .boxed()
}

fn corrupt(stream: Answer, place: usize) -> Answer {
    let mut offset = 0;
    let rewritten = stream.map(move |piece| {
        let mut piece = piece?.to_vec();
        if let Some(byte) = place.checked_sub(offset).and_then(|at| piece.get_mut(at)) {
            *byte = !*byte;
        }
        offset += piece.len();
        Ok(Bytes::from(piece))
    });
    rewritten.boxed()
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    script: Arc<Script<Call, Trouble>>,
    name: String,
    parts: usize,
}

#[async_trait::async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (script, name) = (Arc::clone(&self.script), self.name.clone());
        let part = self.inner.put_part(data);
        let call = if self.parts == 0 { Call::FirstPart } else { Call::LaterPart };
        self.parts += 1;
        Box::pin(async move { act(&script, (call, &name), part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        act(&self.script, (Call::Complete, &self.name), self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        match self.script.enter(Call::Abort, self.name.as_str()) {
            Some(Trouble::NotDone) => Ok(()),
            trouble => suffer(trouble, &self.name, self.inner.abort()).await,
        }
    }
}
