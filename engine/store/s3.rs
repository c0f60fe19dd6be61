//! S3 and everything that speaks its protocol.

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::strict::StrictConnector;
use crate::secret::Secret;

/// How long a connection may take to come up.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one request may take with its body: a part of 5 MiB at 43 KB/s. Longer downloads
/// are resumed where they were cut.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_mins(2);

/// Retries of a single request inside the client; a whole operation is retried above it.
const REQUEST_RETRIES: usize = 2;

/// Where an S3 store is and how to get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket's name.
    pub bucket: String,
    /// The folder inside it, without slashes at its ends; may be empty.
    pub prefix: String,
    /// Another server than AWS, with or without a scheme.
    pub endpoint: Option<String>,
    /// The region; AWS needs the right one, others rarely care.
    pub region: Option<String>,
    /// The access key, unless a role gives one.
    pub access_key: Option<Secret>,
    /// The secret key, unless a role gives one.
    pub secret_key: Option<Secret>,
    /// Whether an endpoint without a scheme is spoken to over TLS.
    pub use_ssl: bool,
    /// The standard `AWS_*` variables, by lower-case name; the fields above win over them.
    pub aws: Vec<(String, Secret)>,
}

impl S3Settings {
    /// Returns the endpoint with a scheme, or `None` for AWS itself, whose regional addresses the
    /// client makes on its own.
    #[must_use]
    pub fn endpoint_url(&self) -> Option<String> {
        let endpoint = self.endpoint.as_deref()?.trim_end_matches('/');
        let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host);
        if host == "s3.amazonaws.com" || endpoint.is_empty() {
            return None;
        }
        if endpoint.contains("://") {
            return Some(endpoint.to_owned());
        }
        let scheme = if self.use_ssl { "https" } else { "http" };
        Some(format!("{scheme}://{endpoint}"))
    }

    /// Returns whether no request travels over TLS: neither to the store, nor for credentials, which a role
    /// gives where there are no keys.
    fn is_plain_throughout(&self) -> bool {
        let has = |own: &Option<Secret>, name| {
            own.is_some() || self.aws.iter().any(|(given, _)| given == name)
        };
        self.endpoint_url().is_some_and(|url| url.starts_with("http://"))
            && has(&self.access_key, "aws_access_key_id")
            && has(&self.secret_key, "aws_secret_access_key")
    }
}

/// Chooses the crypto library of every TLS connection of this process, once.
pub fn install_tls() {
    // Err means that it was chosen before, by us or by a program that embeds us.
    let _already = rustls::crypto::ring::default_provider().install_default();
}

/// Returns the options of a connection to the store: what the client changes of them tells other connections from it.
/// [`StrictConnector`] knows the rest.
pub(super) fn client_options() -> ClientOptions {
    ClientOptions::new().with_allow_http(true).with_connect_timeout(CONNECT_TIMEOUT)
}

/// Opens the store. No request is made: a wrong address shows at the first operation.
pub(super) fn open(settings: &S3Settings) -> Result<AmazonS3, object_store::Error> {
    install_tls();
    let mut builder = AmazonS3Builder::new();
    for (name, value) in &settings.aws {
        let is_overruled = match name.as_str() {
            // A session token belongs to the key that it came with.
            "aws_session_token" => settings.access_key.is_some(),
            // The client would prefer that for S3 to any other.
            "aws_endpoint" | "aws_endpoint_url" | "aws_endpoint_url_s3" => {
                settings.endpoint.is_some()
            }
            _ => false,
        };
        if is_overruled {
            continue;
        }
        // AWS_PROFILE and the like mean nothing to this client.
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value.expose());
        }
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some(key) = &settings.access_key {
        builder = builder.with_access_key_id(key.expose());
    }
    if let Some(key) = &settings.secret_key {
        builder = builder.with_secret_access_key(key.expose());
    }
    let is_plain = settings.is_plain_throughout();
    if let Some(endpoint) = settings.endpoint_url() {
        builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
    }
    builder
        .with_bucket_name(&settings.bucket)
        .with_allow_http(true)
        .with_client_options(client_options())
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(1),
                base: 2.0,
            },
            max_retries: REQUEST_RETRIES,
            retry_timeout: REQUEST_TIMEOUT,
        })
        // One DELETE per object: some S3-compatible stores have no bulk delete, and a run
        // seldom deletes more than one.
        .with_disable_bulk_delete(true)
        .with_http_connector(StrictConnector { is_plain })
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: Option<&str>, use_ssl: bool) -> S3Settings {
        S3Settings {
            bucket: "b".into(),
            prefix: String::new(),
            endpoint: endpoint.map(str::to_owned),
            region: None,
            access_key: None,
            secret_key: None,
            use_ssl,
            aws: Vec::new(),
        }
    }

    /// Credentials come over TLS from a role, however plain the store is.
    #[test]
    fn authorities_are_left_unread_only_where_nothing_speaks_tls() {
        let secret = || Some(Secret::new("x"));
        let plain = settings(Some("minio.local:9000"), false);
        assert!(!plain.is_plain_throughout(), "a web identity may give the keys");
        let half = S3Settings { access_key: secret(), ..plain };
        assert!(!half.is_plain_throughout(), "the client takes no half of a pair");
        let keyed = S3Settings { secret_key: secret(), ..half };
        assert!(keyed.is_plain_throughout());
        assert!(!S3Settings { use_ssl: true, ..keyed.clone() }.is_plain_throughout());
        assert!(!S3Settings { endpoint: None, ..keyed }.is_plain_throughout());
        let names = ["aws_access_key_id", "aws_secret_access_key"];
        let aws = names.map(|name| (name.to_owned(), Secret::new("x"))).to_vec();
        let of_aws = S3Settings { aws, ..settings(Some("http://minio.local"), true) };
        assert!(of_aws.is_plain_throughout());
    }

    #[test]
    fn an_endpoint_may_come_with_or_without_a_scheme() {
        let cases = [
            (Some("minio.local:9000"), true, Some("https://minio.local:9000")),
            (Some("minio.local:9000"), false, Some("http://minio.local:9000")),
            (Some("http://minio.local:9000/"), true, Some("http://minio.local:9000")),
            (Some("https://minio.local"), false, Some("https://minio.local")),
            (Some("s3.amazonaws.com"), true, None),
            (Some("https://s3.amazonaws.com"), true, None),
            (Some(""), true, None),
            (None, true, None),
        ];
        for (endpoint, use_ssl, expect) in cases {
            let settings = settings(endpoint, use_ssl);
            assert_eq!(settings.endpoint_url().as_deref(), expect, "{endpoint:?} {use_ssl}");
        }
    }
}
