//! What went wrong at a store, by what a person or a retry can do about it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use object_store::client::HttpError;
use thiserror::Error;

use super::retry_after::{AskedToWait, is_for_now};
use super::strict::{NotAList, TlsOnly, element};
use crate::text;

/// What the client prints before the status of an answer.
const STATUS: &str = "status code: ";

/// As many characters of what the client said as a line of a log has room for: a body of plain
/// text, or the title of a page, may be of any length.
const WORDS_MAX: usize = 500;

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Wrong keys, or keys without the permission.
    AccessDenied,
    /// No keys were configured and none came from the machine's role.
    NoCredentials,
    /// The bucket does not exist.
    NoSuchBucket,
    /// The folder does not exist, or its disk is not mounted.
    NoSuchFolder,
    /// The folder may not be read or written.
    FolderDenied,
    /// The disk of the folder is full.
    FolderFull,
    /// The server's certificate is not trusted, or not for this host.
    Certificate,
    /// The server sends on to HTTPS what was sent over plain HTTP.
    TlsOnly,
    /// What answers is no S3 server, or not right now.
    NotS3,
    /// This machine's clock and the store's are too far apart to sign requests.
    ClockSkewed,
    /// The object does not exist.
    NotFound,
    /// The object changed while it was read.
    Changed,
    /// No connection, or it broke.
    Unreachable,
    /// The store asked for patience (429, 503) or failed inside (5xx).
    Busy,
    /// The deadline passed without an answer.
    OutOfTime,
    /// Anything else that the store refused.
    Refused,
}

impl Fault {
    /// Returns whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Busy | Self::NotS3)
    }

    /// Returns what happened, in a few words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::AccessDenied => "access denied",
            Self::NoCredentials => "no credentials found",
            Self::NoSuchBucket => "no such bucket",
            Self::NoSuchFolder => "no such folder",
            Self::FolderDenied => "permission denied",
            Self::FolderFull => "no space left",
            Self::Certificate => "certificate not trusted",
            Self::TlsOnly => "the store speaks TLS only",
            Self::NotS3 => "the answer is not that of an S3 store",
            Self::ClockSkewed => "the clocks of this machine and of the store differ",
            Self::NotFound => "no such object",
            Self::Changed => "the object changed while it was read",
            Self::Unreachable => "connection failed",
            Self::Busy => "the store is busy or failing",
            Self::OutOfTime => "S3 storage connection timeout",
            Self::Refused => "refused",
        }
    }

    /// Returns what to do next.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::AccessDenied => "check MINIO_ACCESS_KEY and MINIO_SECRET_KEY and what they allow",
            Self::NoCredentials => "set MINIO_ACCESS_KEY and MINIO_SECRET_KEY, or AWS_*",
            Self::NoSuchBucket => "create it, or check MINIO_BUCKET and MINIO_REGION",
            Self::NoSuchFolder => "create it, mount its disk, or check store.url",
            Self::FolderDenied => "let this user read and write the folder, or check store.url",
            Self::FolderFull => "free some, or check store.url",
            Self::Certificate => "point SSL_CERT_FILE at your authority, or check MINIO_ENDPOINT",
            Self::TlsOnly => "set MINIO_USE_SSL=true, or https:// in MINIO_ENDPOINT",
            Self::NotS3 => "check MINIO_ENDPOINT, and what stands between: a proxy, a login page",
            Self::ClockSkewed => "set this machine's clock",
            Self::NotFound => "see \"simplebackup list\" for what is stored",
            Self::Changed => "two services may write to one prefix; give each its own",
            Self::Unreachable => "check MINIO_ENDPOINT and the network",
            Self::Busy => "look at the store's own status",
            Self::OutOfTime => {
                "check the network, or allow more time (restore.timeout, verify.timeout, \
                 shutdown.backup_timeout)"
            }
            Self::Refused => "look at the store's own log",
        }
    }
}

/// A store operation failed.
#[derive(Debug, Error)]
#[error("{operation} failed: {}; {}", fault.words(), fault.advice())]
pub struct StoreError {
    /// What was being done, with the names and the place: `list of s3://mybucket/backups/`.
    pub operation: String,
    /// The kind of failure.
    pub fault: Fault,
    /// How long the store asked to be left alone; may be absurd.
    pub retry_after: Option<Duration>,
    /// What the client said, fit for a log; see `presentable`.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// Wraps what the client said.
    #[must_use]
    pub fn new(operation: impl fmt::Display, error: &object_store::Error) -> Self {
        let fault = classify(error);
        let words = presentable(&text::chain(error));
        let asked = text::causes(error).find_map(|cause| cause.downcast_ref::<AskedToWait>());
        let retry_after = asked.map(|asked| asked.wait);
        Self { operation: operation.to_string(), fault, retry_after, source: Some(words.into()) }
    }

    /// Says that the deadline passed without an answer.
    #[must_use]
    pub fn out_of_time(operation: impl fmt::Display) -> Self {
        let (operation, fault) = (operation.to_string(), Fault::OutOfTime);
        Self { operation, fault, retry_after: None, source: None }
    }

    /// Says that the store broke the rules, in our own words.
    #[must_use]
    pub fn with_text(operation: impl fmt::Display, fault: Fault, text: &str) -> Self {
        let (operation, source) = (operation.to_string(), Some(text.into()));
        Self { operation, fault, retry_after: None, source }
    }
}

/// Returns what kind of failure `error` is.
///
/// The client keeps the HTTP status to itself but prints it, so that the text is all there is;
/// `store_errors_are_told_apart` in the tests holds it to what the version in use says.
#[must_use]
pub fn classify(error: &object_store::Error) -> Fault {
    use object_store::Error as E;

    let words = text::chain(error);
    if text::causes(error).any(<dyn Error>::is::<TlsOnly>) {
        return Fault::TlsOnly;
    }
    if is_certificate_problem(&words) {
        return Fault::Certificate;
    }
    if text::causes(error).any(<dyn Error>::is::<NotAList>) {
        return Fault::NotS3;
    }
    if words.contains("RequestTimeTooSkewed") {
        return Fault::ClockSkewed;
    }
    if words.contains("NoSuchBucket") {
        return Fault::NoSuchBucket;
    }
    // The address of the machine's role: asked only when no keys were configured.
    if words.contains("169.254.169.254") || words.contains("169.254.170.2") {
        return Fault::NoCredentials;
    }
    match error {
        E::NotFound { .. } => return Fault::NotFound,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => return Fault::AccessDenied,
        E::Precondition { .. } | E::NotModified { .. } => return Fault::Changed,
        _ => {}
    }
    if let Some(status) = http_status(&words) {
        return match status {
            401 | 403 => Fault::AccessDenied,
            404 => Fault::NoSuchBucket,
            412 => Fault::Changed,
            busy if is_for_now(busy) => Fault::Busy,
            _ => Fault::Refused,
        };
    }
    if text::causes(error).any(<dyn Error>::is::<HttpError>) {
        return Fault::Unreachable;
    }
    folder_fault(error).unwrap_or(Fault::Refused)
}

/// Returns what the client said in one line, and of a document only its code and message, or the
/// title of a page: the client prints the whole, and AWS for one repeats the access key in it.
fn presentable(words: &str) -> String {
    // In the body of an answer only: elsewhere `<` may mean anything.
    let status = words.find(STATUS).unwrap_or(words.len());
    let body = words[status..].find('<').map(|at| status + at);
    let said = match body.or_else(|| words.find("<?xml")).or_else(|| words.find("<Error")) {
        None => words.to_owned(),
        Some(start) => {
            let names = ["Code", "Message", "title"];
            let parts = names.map(|name| element(words, name)).into_iter().flatten();
            format!("{}{}", &words[..start], parts.collect::<Vec<_>>().join(": "))
        }
    };
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Returns the status that the client printed: `status code: 503 Service Unavailable`.
fn http_status(words: &str) -> Option<u16> {
    let (_, after) = words.split_once(STATUS)?;
    after.get(..3)?.parse().ok()
}

/// Returns whether the words are rustls' about a certificate.
#[must_use]
pub(super) fn is_certificate_problem(words: &str) -> bool {
    words.contains("invalid peer certificate")
        || words.contains("UnknownIssuer")
        || words.contains("certificate not valid")
}

/// Looks for an error of the file system, below the folder store.
fn folder_fault(error: &object_store::Error) -> Option<Fault> {
    use std::io::ErrorKind as K;

    let io = text::causes(error).find_map(|cause| cause.downcast_ref::<std::io::Error>())?;
    Some(match io.kind() {
        K::PermissionDenied | K::ReadOnlyFilesystem => Fault::FolderDenied,
        K::NotFound | K::NotADirectory => Fault::NoSuchFolder,
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => Fault::FolderFull,
        _ => Fault::Unreachable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_body_only_code_and_message_are_shown() {
        let words = "status code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>InvalidAccessKeyId\
            </Code><Message>The key does not exist</Message><AWSAccessKeyId>AKIAHUSH</AWSAccessKeyId>";
        let expected = "status code: 403 Forbidden: InvalidAccessKeyId: The key does not exist";
        assert_eq!(presentable(words), expected);
        assert_eq!(presentable("two\nlines"), "two lines");
        assert_eq!(presentable("<Error>nothing known"), "");
    }

    #[test]
    fn of_a_page_only_its_title_is_shown() {
        let page = |head| format!("status code: 502 Bad Gateway: {head}<body>a long page</body>");
        let titled = page("<html><head><title>\n502 at\nproxy</title></head>");
        assert_eq!(presentable(&titled), "status code: 502 Bad Gateway: 502 at proxy");
        assert_eq!(presentable(&page("<!DOCTYPE html>")), "status code: 502 Bad Gateway:");
        let plain = presentable(&format!("status code: 500: {}", "\u{e9}".repeat(9000)));
        assert_eq!(plain.chars().count(), WORDS_MAX + 3, "{plain}");
        assert_eq!(presentable("a < b"), "a < b", "no body");
    }
}
