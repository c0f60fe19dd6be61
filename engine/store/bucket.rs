//! Questions about a bucket itself, which [`object_store`] does not ask: its versioning, its
//! lifecycle rules, its clock.
//!
//! The address is signed by the client, which knows the endpoint, the region and the keys, wherever
//! they come from (decision 21); the request is sent as it is, once. An answer with any status is
//! one: what it means is up to whoever asked.

use std::time::Duration;

use chrono::{DateTime, Utc};
use object_store::aws::AmazonS3;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    ReqwestConnector,
};
use object_store::path::Path as ObjectPath;
use object_store::signer::{Method, SignedUrlOptions, Signer};

use super::StoreError;
use super::retry_after::date_of;
use super::s3::{self, S3Settings};
use crate::deadline::Deadline;

/// How long a signed address is good for: one request, and clocks that differ a little.
const VALID: Duration = Duration::from_mins(5);

/// What can be asked of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Whether it keeps what was deleted and overwritten (`GetBucketVersioning`).
    Versioning,
    /// What it deletes and moves by itself (`GetBucketLifecycleConfiguration`).
    Lifecycle,
}

impl Question {
    fn word(self) -> &'static str {
        match self {
            Self::Versioning => "versioning",
            Self::Lifecycle => "lifecycle",
        }
    }
}

/// What a bucket answered, whatever that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The time of the answer by the store's clock, to the second.
    pub date: Option<DateTime<Utc>>,
    /// Its text.
    pub body: String,
}

/// A bucket that can be asked. Made for a few questions: nothing is kept open.
#[derive(Debug)]
pub struct Bucket {
    client: AmazonS3,
    http: HttpClient,
    address: String,
}

impl Bucket {
    /// Prepares the questions. No request is made yet.
    pub fn open(settings: &S3Settings) -> Result<Self, StoreError> {
        let address = format!("s3://{}", settings.bucket);
        let open = || {
            let client = s3::open(settings)?;
            let http = ReqwestConnector::default().connect(&s3::client_options())?;
            Ok((client, http))
        };
        let (client, http) =
            open().map_err(|error| StoreError::new(format!("opening of {address}"), &error))?;
        Ok(Self { client, http, address })
    }

    /// Asks once.
    pub async fn ask(&self, question: Question, deadline: Deadline) -> Result<Answer, StoreError> {
        let operation = format!("reading of the {} of {}", question.word(), self.address);
        match deadline.limit(self.answer(question)).await {
            Ok(answered) => answered.map_err(|error| StoreError::new(&operation, &error)),
            Err(_out_of_time) => Err(StoreError::out_of_time(&operation)),
        }
    }

    async fn answer(&self, question: Question) -> Result<Answer, object_store::Error> {
        let options = SignedUrlOptions::new().with_query([(question.word(), "")]);
        let bucket = ObjectPath::default();
        let url = self.client.signed_url_opts(Method::GET, &bucket, VALID, &options).await?;
        let as_store_error =
            |error| object_store::Error::Generic { store: "S3", source: Box::new(error) };
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.as_str().parse().map_err(|error| {
            // The address itself has a signature in it, and stays unsaid.
            as_store_error(HttpError::new(HttpErrorKind::Unknown, error))
        })?;
        let answer = self.http.execute(request).await.map_err(as_store_error)?;
        let (status, date) = (answer.status().as_u16(), date_of(answer.headers()));
        let body = answer.into_body().bytes().await.map_err(as_store_error)?;
        Ok(Answer { status, date, body: String::from_utf8_lossy(&body).into_owned() })
    }
}
