//! Stricter with servers than the client is.
//!
//! The client takes any well-formed XML with status 200 for a list, and what is no list for an
//! empty one: the page of a captive portal would start the app on a fresh database. It also tries
//! a refused certificate again, which no retry can mend.

use std::sync::Arc;

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use thiserror::Error;

use super::fault::is_certificate_problem;
use crate::text;

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

/// Makes the client's connections.
#[derive(Debug)]
pub(super) struct StrictConnector;

impl HttpConnector for StrictConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Strict(Arc::new(inner))))
    }
}

#[derive(Debug)]
struct Strict(Arc<HttpClient>);

#[async_trait::async_trait]
impl HttpService for Strict {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let answer = self.0.execute(request).await.map_err(|error| {
            if is_certificate_problem(&text::chain(&error)) {
                HttpError::new(HttpErrorKind::Unknown, error)
            } else {
                error
            }
        })?;
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
    use super::NotAList::{CutOff, OtherDocument};
    use super::*;

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
