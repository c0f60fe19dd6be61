//! A real S3 server inside the test process: s3s speaks the protocol and checks signatures,
//! s3s-fs keeps the objects as files. Before it stands a layer that logs each request and does
//! to it what a test has planned.

mod tls;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{DATE, ETAG, HeaderValue, IF_MATCH, RANGE, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use simplebackup_engine::secret::Secret;
use simplebackup_engine::store::{BackupStore, S3Settings};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::files_in;
use super::script::{Gate, Script};

pub(crate) const BUCKET: &str = "mybucket";
pub(crate) const PREFIX: &str = "backups";
pub(crate) const ACCESS_KEY: &str = "AKIDhush";
pub(crate) const SECRET_KEY: &str = "SECRETKEY-hush";

/// What a client can ask of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    List,
    Get,
    Put,
    /// The start of a multipart upload.
    BeginUpload,
    PutPart,
    Complete,
    Abort,
    Delete,
    /// What the bucket does with old versions, and with old objects.
    Versioning,
    Lifecycle,
    /// What simplebackup has no use for: HEAD, the deletion of many at once, and so on.
    Other,
}

/// What can go wrong with a request.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// It is refused with this status and code, and not done.
    Refuse(u16, &'static str),
    /// It is refused with this status and code at once, whatever is still to come of its body.
    RefuseUnread(u16, &'static str),
    /// It is refused with this status and this `Retry-After`, and not done.
    AskToWait(u16, &'static str),
    /// It is answered with this document, and not looked at.
    Reply(&'static str),
    /// It is answered as always, with this `Date`.
    Date(&'static str),
    /// No answer ever.
    Hang,
    /// It waits for the test.
    Hold(Gate),
    /// The connection breaks after this many bytes of its body arrived; it is not done.
    CutRequest(usize),
    /// The connection breaks after this many bytes of the answer's body were sent.
    CutAnswer(usize),
}

/// What the server thinks of `If-Match` in a GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfMatch {
    Obeyed,
    Ignored,
}

/// The server. It ends when it is dropped.
pub(crate) struct S3Server {
    root: tempfile::TempDir,
    address: String,
    front: Arc<Front>,
    /// The authority behind the certificate, as PEM; none without TLS.
    authority: Option<String>,
    _connections: JoinSet<()>,
}

/// What all connections share.
struct Front {
    s3: S3Service,
    script: Script<Request, Trouble>,
    if_match: IfMatch,
    connections: AtomicUsize,
}

impl S3Server {
    /// Starts a server with an empty bucket on a free port of the loopback interface.
    pub(crate) async fn start() -> Self {
        Self::start_with(IfMatch::Obeyed, None).await
    }

    /// The same with its own idea of `If-Match`.
    pub(crate) async fn start_with_if_match(if_match: IfMatch) -> Self {
        Self::start_with(if_match, None).await
    }

    /// The same over TLS, with a certificate for `host` from an authority that nobody knows.
    pub(crate) async fn start_with_tls(host: &str) -> Self {
        let (acceptor, authority) = tls::certify(host);
        let mut server = Self::start_with(IfMatch::Obeyed, Some(acceptor)).await;
        server.authority = Some(authority);
        server
    }

    async fn start_with(if_match: IfMatch, tls: Option<TlsAcceptor>) -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(root.path().join(BUCKET)).expect("made");
        let mut s3 = S3ServiceBuilder::new(FileSystem::new(root.path()).expect("a folder"));
        s3.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let front = Arc::new(Front {
            s3: s3.build(),
            script: Script::default(),
            if_match,
            connections: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, Arc::clone(&front), tls));
        Self { root, address, front, authority: None, _connections: connections }
    }

    /// The plan and the log: of a request its path, its range and its condition.
    pub(crate) fn script(&self) -> &Script<Request, Trouble> {
        &self.front.script
    }

    /// Returns how many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.front.connections.load(Relaxed)
    }

    /// Returns the address, such as `127.0.0.1:4711`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Returns the certificate of the authority as PEM.
    pub(crate) fn authority(&self) -> &str {
        self.authority.as_deref().expect("started with TLS")
    }

    /// Returns the settings of a client that is let in.
    pub(crate) fn settings(&self) -> S3Settings {
        settings(self.address.clone(), self.authority.is_some())
    }

    /// Opens the store as a service would.
    pub(crate) fn store(&self) -> BackupStore {
        BackupStore::s3(&self.settings()).expect("sound settings")
    }

    /// Stores an object under the prefix, around the script, all at once.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.folder()).expect("made");
        let arriving = self.root.path().join("arriving");
        fs::write(&arriving, bytes).expect("written");
        fs::rename(arriving, self.folder().join(name)).expect("renamed");
    }

    /// Returns the bytes of an object under the prefix, around the script.
    pub(crate) fn get(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder().join(name)).expect("stored")
    }

    /// Returns the names of the objects under the prefix, sorted.
    pub(crate) fn stored(&self) -> Vec<String> {
        files_in(&self.folder())
    }

    /// Returns how many files there are of uploads that were neither completed nor aborted.
    pub(crate) fn unfinished_uploads(&self) -> usize {
        let names = files_in(self.root.path());
        names.iter().filter(|name| name.starts_with(".upload")).count()
    }

    /// Returns where the objects under the prefix lie.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join(BUCKET).join(PREFIX)
    }
}

/// Points a process at a server, with the right keys.
pub(crate) fn configure(command: &mut Command, server: &S3Server) {
    command
        .env("MINIO_ENDPOINT", server.address())
        .env("MINIO_USE_SSL", "false")
        .env("MINIO_BUCKET", BUCKET)
        .env("MINIO_PREFIX", PREFIX)
        .env("MINIO_ACCESS_KEY", ACCESS_KEY)
        .env("MINIO_SECRET_KEY", SECRET_KEY);
}

/// Returns the settings of a client with the right keys.
pub(crate) fn settings(endpoint: String, use_ssl: bool) -> S3Settings {
    S3Settings {
        bucket: BUCKET.into(),
        prefix: PREFIX.into(),
        endpoint: Some(endpoint),
        region: None,
        access_key: Some(Secret::new(ACCESS_KEY)),
        secret_key: Some(Secret::new(SECRET_KEY)),
        use_ssl,
        aws: Vec::new(),
    }
}

/// Accepts connections for ever; they end with it.
async fn accept(listener: TcpListener, front: Arc<Front>, tls: Option<TlsAcceptor>) {
    let mut serving = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.expect("listening");
        front.connections.fetch_add(1, Relaxed);
        serving.spawn(welcome(socket, Arc::clone(&front), tls.clone()));
    }
}

async fn welcome(socket: TcpStream, front: Arc<Front>, tls: Option<TlsAcceptor>) {
    let Some(tls) = tls else {
        return serve(socket, front).await;
    };
    // A client that refuses the certificate goes without a request.
    if let Ok(socket) = tls.accept(socket).await {
        serve(socket, front).await;
    }
}

async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin, front: Arc<Front>) {
    let answer = service_fn(move |request| {
        let front = Arc::clone(&front);
        async move { front.answer(request).await }
    });
    // A small buffer, so that what is sent before a cut does arrive.
    let connection =
        http1::Builder::new().max_buf_size(8 * 1024).serve_connection(TokioIo::new(socket), answer);
    // An error is a connection that was cut, by the script or by the client.
    let _cut = connection.await;
}

impl Front {
    async fn answer(&self, request: hyper::Request<Incoming>) -> io::Result<Response<Body>> {
        let (kind, subject) = describe(&request);
        match self.script.enter(kind, subject) {
            None => self.pass(request).await,
            Some(Trouble::Refuse(status, code)) => {
                // Unread, it would reset the connection before the answer is there.
                let _body = request.into_body().collect().await.map_err(io::Error::other)?;
                Ok(refusal(status, code))
            }
            Some(Trouble::RefuseUnread(status, code)) => Ok(refusal(status, code)),
            Some(Trouble::AskToWait(status, wait)) => {
                let _body = request.into_body().collect().await.map_err(io::Error::other)?;
                let mut answer = refusal(status, "SlowDown");
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(wait));
                Ok(answer)
            }
            Some(Trouble::Reply(document)) => {
                let mut answer = Response::new(Body::from(document.to_owned()));
                // What the client asks of an answer to a PUT.
                answer.headers_mut().insert(ETAG, HeaderValue::from_static("\"of-nothing\""));
                Ok(answer)
            }
            Some(Trouble::Date(date)) => {
                let mut answer = self.pass(request).await?;
                answer.headers_mut().insert(DATE, HeaderValue::from_static(date));
                Ok(answer)
            }
            Some(Trouble::Hang) => std::future::pending().await,
            Some(Trouble::Hold(gate)) => {
                gate.pass().await;
                self.pass(request).await
            }
            Some(Trouble::CutRequest(bytes)) => {
                let mut body = request.into_body();
                let mut arrived = 0;
                while arrived < bytes {
                    let frame = body.frame().await.expect("a body longer than the cut");
                    let frame = frame.map_err(io::Error::other)?;
                    arrived += frame.data_ref().map_or(0, Bytes::len);
                }
                Err(by_the_script())
            }
            Some(Trouble::CutAnswer(bytes)) => Ok(cut(self.pass(request).await?, bytes)),
        }
    }

    /// Lets S3 answer.
    async fn pass(&self, request: hyper::Request<Incoming>) -> io::Result<Response<Body>> {
        let is_get = request.method() == Method::GET;
        let condition = request.headers().get(IF_MATCH).filter(|_| is_get).cloned();
        let answer = self.s3.call(request.map(Body::from)).await;
        let answer = answer.map_err(|error| io::Error::other(s3s::StdError::from(error)))?;
        // s3s-fs does not know this condition of a GET.
        match condition {
            Some(e_tag) if self.if_match == IfMatch::Obeyed => {
                if answer.headers().get(ETAG) == Some(&e_tag) {
                    Ok(answer)
                } else {
                    Ok(refusal(412, "PreconditionFailed"))
                }
            }
            _ => Ok(answer),
        }
    }
}

/// Returns what a request asks for, and of what.
fn describe(request: &hyper::Request<Incoming>) -> (Request, String) {
    let uri = request.uri();
    let query = uri.query().unwrap_or_default();
    let is_object = uri.path().trim_matches('/').contains('/');
    let is_upload = query.contains("uploadId=");
    let kind = match (request.method(), is_object) {
        (&Method::GET, false) if query.contains("list-type=2") => Request::List,
        (&Method::GET, false) if query.starts_with("versioning=") => Request::Versioning,
        (&Method::GET, false) if query.starts_with("lifecycle=") => Request::Lifecycle,
        (&Method::GET, true) if query.is_empty() => Request::Get,
        (&Method::PUT, true) if is_upload => Request::PutPart,
        (&Method::PUT, true) => Request::Put,
        (&Method::POST, true) if is_upload => Request::Complete,
        (&Method::POST, true) => Request::BeginUpload,
        (&Method::DELETE, true) if is_upload => Request::Abort,
        (&Method::DELETE, true) => Request::Delete,
        _ => Request::Other,
    };
    let mut subject = uri.path().to_owned();
    if let Some(range) = request.headers().get(RANGE) {
        subject = format!("{subject} {}", range.to_str().expect("text"));
    }
    if request.headers().contains_key(IF_MATCH) {
        subject.push_str(" if-match");
    }
    (kind, subject)
}

/// Ends the connection.
fn by_the_script() -> io::Error {
    io::Error::other("cut by the script")
}

fn refusal(status: u16, code: &str) -> Response<Body> {
    let text = format!("<Error><Code>{code}</Code><Message>by the script</Message></Error>");
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer
}

/// Breaks the connection after `bytes` of the body, which the client can tell from its end:
/// less than the length in the header, or chunks without the last one.
fn cut(answer: Response<Body>, bytes: usize) -> Response<Body> {
    answer.map(|body| {
        let mut left = bytes;
        let kept = BodyStream::new(body).map(move |frame| {
            let data = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
            let kept = data.slice(..data.len().min(left));
            left -= kept.len();
            Ok(kept)
        });
        let kept = kept
            .take_while(|kept| std::future::ready(!matches!(kept, Ok(bytes) if bytes.is_empty())));
        let broken = futures::stream::once(async {
            // Lets the connection send what it has.
            tokio::task::yield_now().await;
            Err(by_the_script())
        });
        Body::http_body_unsync(StreamBody::new(
            kept.chain(broken).map(|data| data.map(Frame::data)),
        ))
    })
}
