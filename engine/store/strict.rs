//! Stricter with servers than the client is.
//!
//! The client takes any well-formed XML with status 200 for a list, and what is no list for an
//! empty one: the page of a captive portal would start the app on a fresh database. It also tries
//! a refused certificate again, which no retry can mend, and a busy store after a tenth of a
//! second, whatever the store asks for.

use std::time::Duration;

use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpResponseBody, HttpService,
};
use thiserror::Error;

use super::fault::is_certificate_problem;
use super::held::Held;
use super::retry::Patience;
use super::retry_after::{AskedToWait, is_for_now, retry_after};
use super::s3::{CONNECT_TIMEOUT, REQUEST_TIMEOUT, client_options};
use crate::text;

/// The client's own value, before it looks for credentials elsewhere.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// Why an answer is no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum NotAList {
    /// Another document: an error, a login page, the page of a web server.
    #[error("the answer is no list of objects")]
    OtherDocument,
    /// It says that it goes on, and not where.
    #[error("the list of objects is cut off")]
    CutOff,
}

/// The answer to a plain request led to a place behind TLS that isn't trusted, as nothing is where no
/// authorities were read; see [`super::s3`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the answer to a request over plain HTTP leads to HTTPS")]
pub(super) struct TlsOnly;

/// Makes the client's connections. How it would make them of its options the client keeps to itself, so they are made
/// here in the same way.
#[derive(Debug)]
pub(super) struct StrictConnector {
    /// Whether nothing is spoken to over TLS.
    pub(super) is_plain: bool,
}

impl HttpConnector for StrictConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allow_http = options.get_config_value(&ClientConfigKey::AllowHttp);
        let is_http_refused = allow_http.as_deref() == Some("false");
        let client = reqwest::Client::builder()
            .user_agent(concat!("simplebackup/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .connect_timeout(connect_timeout(options))
            .timeout(REQUEST_TIMEOUT)
            // As the client wants it for a service that gives credentials for a token.
            .https_only(is_http_refused)
            // Between two hourly runs no connection is worth keeping.
            .pool_idle_timeout(Duration::from_secs(10))
            // The length of an answer is that of the object, whatever a program that embeds us turns on.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate();
        // A hundred authorities and more, which nobody asks about where there is no TLS.
        let client = if self.is_plain { client.tls_certs_only([]) } else { client };
        let failure = |error| object_store::Error::Generic { store: "S3", source: Box::new(error) };
        Ok(HttpClient::new(Strict(client.build().map_err(failure)?)))
    }
}

/// Returns how long a connection may take to come up: the client asks for less where it looks for
/// the metadata service of the machine it may run on.
fn connect_timeout(options: &ClientOptions) -> Duration {
    let text = |options: &ClientOptions| options.get_config_value(&ClientConfigKey::ConnectTimeout);
    let is_of_store = text(options) == text(&client_options());
    if is_of_store { CONNECT_TIMEOUT } else { METADATA_TIMEOUT }
}

#[derive(Debug)]
struct Strict(reqwest::Client);

impl Strict {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        match request.extensions().get::<Held>().cloned() {
            Some(held) => held.send(&self.0, request).await,
            None => self.0.call(request).await,
        }
    }
}

#[async_trait::async_trait]
impl HttpService for Strict {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let is_read = request.method().as_str() == "GET";
        let is_plain = request.uri().scheme_str() == Some("http");
        let answer = self.send(request).await.map_err(|error| {
            match is_certificate_problem(&text::chain(&error)) {
                true if is_plain => HttpError::new(HttpErrorKind::Unknown, TlsOnly),
                true => HttpError::new(HttpErrorKind::Unknown, error),
                false => error,
            }
        })?;
        let answer = be_patient(answer, is_read).await?;
        if !query.split('&').any(|pair| pair == "list-type=2") || !answer.status().is_success() {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let body = body.bytes().await?;
        check_list(&String::from_utf8_lossy(&body), &query)
            .map_err(|error| HttpError::new(HttpErrorKind::Decode, error))?;
        Ok(HttpResponse::from_parts(head, HttpResponseBody::from(body)))
    }
}

/// Does what the store asks for with `Retry-After`. A read becomes an error that the client does
/// not try again: above it somebody waits who knows the deadline. Writes, single parts among them,
/// are tried again by the client alone, so the answer reaches it only when the wait is over.
async fn be_patient(answer: HttpResponse, is_read: bool) -> Result<HttpResponse, HttpError> {
    let status = answer.status();
    let Some(wait) = retry_after(answer.headers()).filter(|_| is_for_now(status.as_u16())) else {
        return Ok(answer);
    };
    if is_read {
        let body = answer.into_body().bytes().await?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let asked = AskedToWait { status: status.to_string(), body, wait };
        return Err(HttpError::new(HttpErrorKind::Unknown, asked));
    }
    let wait = wait.min(Patience::FewTries.longest_wait());
    tracing::warn!(
        target: crate::LOG,
        "WARNING: The store is busy ({status}) and asks for patience; going on in {} ms",
        wait.as_millis()
    );
    tokio::time::sleep(wait).await;
    Ok(answer)
}

/// Refuses what is no `ListBucketResult`, and one that does not say where it goes on, or says
/// that it goes on where it began.
fn check_list(body: &str, query: &str) -> Result<(), NotAList> {
    if root_element(body) != Some("ListBucketResult") {
        return Err(NotAList::OtherDocument);
    }
    if element(body, "IsTruncated") != Some("true") {
        return Ok(());
    }
    let next = element(body, "NextContinuationToken").filter(|token| !token.is_empty());
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let asked = pairs.find(|(name, _)| name == "continuation-token").map(|(_, token)| token);
    if next.is_none() || next == asked.as_deref() { Err(NotAList::CutOff) } else { Ok(()) }
}

/// Returns the name of the outermost element, without its namespace.
fn root_element(document: &str) -> Option<&str> {
    let mut rest = document;
    loop {
        rest = &rest[rest.find('<')? + 1..];
        let end = match rest.as_bytes().first()? {
            b'?' => "?>",
            b'!' if rest.starts_with("!--") => "-->",
            b'!' => ">",
            _ => break,
        };
        rest = &rest[rest.find(end)? + end.len()..];
    }
    let name = rest.split(|c: char| c.is_whitespace() || c == '>' || c == '/').next()?;
    Some(name.rsplit(':').next().unwrap_or(name))
}

/// Returns the text of the first element of this name.
pub(super) fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpRequestBody;

    use super::NotAList::{CutOff, OtherDocument};
    use super::*;

    /// A token that stands for credentials travels over TLS, wherever the environment sends it.
    #[tokio::test]
    async fn plain_http_is_refused_where_the_client_wants_it_so() {
        crate::store::install_tls();
        for (allow_http, words) in [(false, "URL scheme is not allowed"), (true, "refused")] {
            let options = client_options().with_allow_http(allow_http);
            let client = StrictConnector { is_plain: true }.connect(&options).expect("made");
            let mut request = HttpRequest::new(HttpRequestBody::empty());
            *request.uri_mut() = "http://127.0.0.1:1/".parse().expect("a valid address");
            let error = client.execute(request).await.expect_err("nobody listens there");
            assert!(text::chain(&error).contains(words), "{}", text::chain(&error));
        }
    }

    #[test]
    fn what_is_no_list_is_never_an_empty_one() {
        let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- a -->";
        let list =
            |inner: &str| format!("{head}<ListBucketResult xmlns=\"x\">{inner}</ListBucketResult>");
        let cases = [
            (list(""), "", Ok(())),
            (list("<IsTruncated>false</IsTruncated>"), "", Ok(())),
            ("<s3:ListBucketResult/>".to_owned(), "", Ok(())),
            (
                list(
                    "<IsTruncated>true</IsTruncated><NextContinuationToken>b</NextContinuationToken>",
                ),
                "list-type=2&continuation-token=a",
                Ok(()),
            ),
            (
                list(
                    "<IsTruncated>true</IsTruncated><NextContinuationToken>a</NextContinuationToken>",
                ),
                "list-type=2&continuation-token=a",
                Err(CutOff),
            ),
            (list("<IsTruncated>true</IsTruncated>"), "", Err(CutOff)),
            (String::new(), "", Err(OtherDocument)),
            ("<".to_owned(), "", Err(OtherDocument)),
            ("<!doctype html>\n<html><body>login</body></html>".to_owned(), "", Err(OtherDocument)),
            (format!("{head}<Error><Code>InternalError</Code></Error>"), "", Err(OtherDocument)),
            (format!("{head}<ListAllMyBucketsResult/>"), "", Err(OtherDocument)),
        ];
        for (body, query, expected) in cases {
            assert_eq!(check_list(&body, query), expected, "{body}");
        }
    }
}
