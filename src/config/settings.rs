//! Every setting, once: its key, what it accepts, and where its value goes.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use object_store::path::Path as ObjectPath;
use simplebackup_actors::schedule::Schedule;
use simplebackup_engine::secret::Secret;
use simplebackup_engine::store::S3Settings;
use url::Url;

use super::problem::Problem;
use super::{Config, LogFormat, StoreChoice, folder_beside};

/// A value as a source gives it: files have types, variables and flags are text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    Text(String),
    /// Text from a variable or a flag, which may stand for any type.
    Untyped(String),
    Whole(i64),
    Truth(bool),
    List(Vec<String>),
    /// A TOML type that no setting takes.
    Other(&'static str),
}

/// The configuration while it is put together.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "settings that people switch on and off")]
pub(super) struct Draft {
    enabled: bool,
    schedule: Schedule,
    keep: NonZeroUsize,
    backup_timeout: Duration,
    database: PathBuf,
    busy_timeout: Duration,
    url: String,
    endpoint: String,
    region: String,
    access_key: String,
    secret_key: String,
    use_ssl: bool,
    restore_timeout: Duration,
    fallback: bool,
    app_timeout: Duration,
    final_timeout: Duration,
    strict: bool,
    http_address: String,
    http_token: String,
    command: Vec<String>,
    snitch_url: String,
    log_format: LogFormat,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            enabled: false,
            schedule: "0 0 * * * *".parse().expect("a valid cron expression"),
            keep: NonZeroUsize::new(3).expect("three is not zero"),
            backup_timeout: Duration::from_mins(15),
            database: PathBuf::from("/var/lib/app/database.db"),
            busy_timeout: Duration::from_secs(10),
            url: String::new(),
            endpoint: String::new(),
            region: String::new(),
            access_key: String::new(),
            secret_key: String::new(),
            use_ssl: true,
            restore_timeout: Duration::from_mins(1),
            fallback: false,
            app_timeout: Duration::from_secs(10),
            final_timeout: Duration::from_secs(30),
            strict: false,
            http_address: "127.0.0.1:8080".to_owned(),
            http_token: String::new(),
            command: Vec::new(),
            snitch_url: String::new(),
            log_format: LogFormat::Text,
        }
    }
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its key in config.toml: `backup.keep`.
    pub key: &'static str,
    /// What it accepts, in words that follow "give ".
    pub accepts: &'static str,
    /// Whether its value must never be shown.
    pub is_secret: bool,
    /// Puts a value where it belongs, or refuses it.
    pub(super) apply: fn(&mut Draft, &Raw) -> Option<()>,
}

const fn open(
    key: &'static str,
    accepts: &'static str,
    apply: fn(&mut Draft, &Raw) -> Option<()>,
) -> Setting {
    Setting { key, accepts, is_secret: false, apply }
}

const fn secret(
    key: &'static str,
    accepts: &'static str,
    apply: fn(&mut Draft, &Raw) -> Option<()>,
) -> Setting {
    Setting { key, accepts, is_secret: true, apply }
}

const TRUTH: &str = "true or false";
const DURATION: &str = "a duration such as \"30s\", \"2m\" or \"1h\"";
const TIMEOUT: &str = "a duration such as \"30s\", \"2m\" or \"1h\", not zero";
const PLAIN: &str = "a text of plain characters (ASCII), without blanks around it";

/// Every setting, in the order of config.toml.
pub const SETTINGS: &[Setting] = &[
    open("backup.enabled", TRUTH, |d, raw| put(&mut d.enabled, truth(raw))),
    open(
        "backup.schedule",
        "a cron expression with seconds, in UTC, such as \"0 0 * * * *\"",
        |d, raw| put(&mut d.schedule, text(raw).and_then(|t| t.parse().ok())),
    ),
    open("backup.keep", "a whole number from 1 to 1000", |d, raw| {
        put(&mut d.keep, whole(raw, 1, 1000).and_then(NonZeroUsize::new))
    }),
    open("backup.timeout", TIMEOUT, |d, raw| put(&mut d.backup_timeout, timeout(raw))),
    open("database.path", "the path of a file", |d, raw| {
        put(&mut d.database, text(raw).filter(|t| !t.is_empty()).map(PathBuf::from))
    }),
    open("database.busy_timeout", DURATION, |d, raw| put(&mut d.busy_timeout, duration(raw))),
    open("store.url", "\"s3://bucket/prefix\", \"file:///folder\" or \"\"", |d, raw| {
        put(&mut d.url, text(raw).filter(|t| t.is_empty() || place_of(t).is_some()))
    }),
    open("store.endpoint", "a host, with or without http:// or https://", |d, raw| {
        put(&mut d.endpoint, text(raw).filter(|t| is_endpoint(t)))
    }),
    open("store.region", PLAIN, |d, raw| put(&mut d.region, header_text(raw))),
    secret("store.access_key", PLAIN, |d, raw| put(&mut d.access_key, header_text(raw))),
    secret("store.secret_key", PLAIN, |d, raw| put(&mut d.secret_key, header_text(raw))),
    open("store.use_ssl", TRUTH, |d, raw| put(&mut d.use_ssl, truth(raw))),
    open("restore.timeout", TIMEOUT, |d, raw| put(&mut d.restore_timeout, timeout(raw))),
    open("restore.fallback", TRUTH, |d, raw| put(&mut d.fallback, truth(raw))),
    open("shutdown.app_timeout", DURATION, |d, raw| put(&mut d.app_timeout, duration(raw))),
    open("shutdown.backup_timeout", TIMEOUT, |d, raw| put(&mut d.final_timeout, timeout(raw))),
    open("shutdown.strict", TRUTH, |d, raw| put(&mut d.strict, truth(raw))),
    open(
        "http.address",
        "an address with a port such as \"127.0.0.1:8080\", or \"off\"",
        |d, raw| put(&mut d.http_address, text(raw).filter(|t| is_address(t))),
    ),
    secret("http.token", PLAIN, |d, raw| put(&mut d.http_token, header_text(raw))),
    open(
        "app.command",
        "a list of texts such as [\"./server\", \"--port\", \"3000\"]",
        |d, raw| put(&mut d.command, list(raw)),
    ),
    secret("snitch.url", "an http:// or https:// address, or \"\"", |d, raw| {
        put(&mut d.snitch_url, text(raw).filter(|t| t.is_empty() || is_web_address(t)))
    }),
    open("log.format", "\"text\" or \"json\"", |d, raw| {
        put(
            &mut d.log_format,
            text(raw).and_then(|t| match t.as_str() {
                "text" => Some(LogFormat::Text),
                "json" => Some(LogFormat::Json),
                _ => None,
            }),
        )
    }),
];

/// Returns the environment variable of a setting: `SIMPLE_BACKUP_BACKUP_KEEP`.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("SIMPLE_BACKUP_{}", key.replace('.', "_").to_uppercase())
}

fn put<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

fn text(raw: &Raw) -> Option<String> {
    match raw {
        Raw::Text(text) | Raw::Untyped(text) => Some(text.clone()),
        _ => None,
    }
}

fn truth(raw: &Raw) -> Option<bool> {
    match raw {
        Raw::Truth(truth) => Some(*truth),
        Raw::Untyped(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn whole(raw: &Raw, least: usize, most: usize) -> Option<usize> {
    let number = match raw {
        Raw::Whole(number) => usize::try_from(*number).ok()?,
        Raw::Untyped(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (least..=most).contains(&number).then_some(number)
}

/// Reads `500ms`, `30s`, `2m`, `1h`; from zero to a day.
fn duration(raw: &Raw) -> Option<Duration> {
    let text = text(raw)?;
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let millis = match &text[digits.len()..] {
        "ms" => number,
        "s" => number.checked_mul(1000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        _ => return None,
    };
    let duration = Duration::from_millis(millis);
    (duration <= Duration::from_hours(24)).then_some(duration)
}

/// Reads a duration in which something has to get done.
fn timeout(raw: &Raw) -> Option<Duration> {
    duration(raw).filter(|duration| !duration.is_zero())
}

/// Reads a list; from a variable a JSON list, or words between blanks.
fn list(raw: &Raw) -> Option<Vec<String>> {
    match raw {
        Raw::List(list) => Some(list.clone()),
        Raw::Untyped(text) if text.trim_start().starts_with('[') => serde_json::from_str(text).ok(),
        Raw::Untyped(text) => Some(text.split_whitespace().map(str::to_owned).collect()),
        _ => None,
    }
}

fn is_address(text: &str) -> bool {
    text == "off"
        || text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok() && !host.contains('/')
        })
}

pub(super) fn is_endpoint(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    // The parser of URLs trims and drops what the client would stumble over.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]/".contains(&byte);
    if !text.bytes().all(is_plain) || text.contains("///") {
        return false;
    }
    let has_scheme = text.starts_with("http://") || text.starts_with("https://");
    let address = if has_scheme { text.to_owned() } else { format!("http://{text}") };
    // The client panics over what is no address, so that it has to be refused here.
    Url::parse(&address).is_ok_and(|url| {
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let is_open = url.username().is_empty() && url.password().is_none();
        is_bare && is_open && url.host_str().is_some_and(|host| !host.is_empty())
    })
}

/// What fits into the head of a request: visible ASCII, with blanks inside at most.
pub(super) fn is_header_text(text: &str) -> bool {
    text.trim() == text && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn header_text(raw: &Raw) -> Option<String> {
    text(raw).filter(|text| is_header_text(text))
}

/// What an object's name may begin with: no empty parts, no `.` or `..`, no control characters.
pub(super) fn is_prefix(prefix: &str) -> bool {
    ObjectPath::parse(prefix.trim_matches('/')).is_ok()
}

/// Letters, digits, `.`, `-` and `_`, as every S3 server has them.
fn is_bucket(name: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(is_usual)
}

fn is_web_address(text: &str) -> bool {
    Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some())
}

/// Where a store's URL points.
enum Place {
    Bucket { bucket: String, prefix: String },
    Folder(PathBuf),
}

/// Reads a store's URL: `s3://bucket/prefix` or `file:` and a path.
fn place_of(text: &str) -> Option<Place> {
    if let Some(rest) = text.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/').to_owned();
        let is_named = is_bucket(bucket) && is_prefix(&prefix);
        return is_named.then(|| Place::Bucket { bucket: bucket.to_owned(), prefix });
    }
    // Not parsed as a URL: "file:backups" and "file:///srv/ñ %20" are paths as they stand.
    let path = text.strip_prefix("file:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    (!path.is_empty()).then(|| Place::Folder(PathBuf::from(path)))
}

impl Draft {
    /// Overrides the store by a bucket and a prefix, as `MINIO_BUCKET` and `MINIO_PREFIX` do.
    pub(super) fn set_bucket(&mut self, bucket: Option<&str>, prefix: Option<&str>) -> Option<()> {
        let before = match place_of(&self.url) {
            Some(Place::Bucket { bucket, prefix }) => Some((bucket, prefix)),
            _ => None,
        };
        let (bucket, prefix) = match (bucket, prefix, before) {
            (Some(bucket), prefix, _) => (bucket.to_owned(), prefix.unwrap_or_default().to_owned()),
            (None, Some(prefix), Some((bucket, _))) => (bucket, prefix.to_owned()),
            (None, _, _) => return None,
        };
        let url = format!("s3://{bucket}/{prefix}");
        // Before it is a URL: a slash in the name would make a prefix of its end.
        place_of(&url).filter(|_| is_bucket(&bucket))?;
        self.url = url;
        Some(())
    }

    /// Makes the configuration, or says what does not fit together. `aws` are the standard
    /// variables, by lower-case name.
    pub(super) fn finish(self, aws: &[(String, Secret)]) -> Result<Config, Problem> {
        let store = match place_of(&self.url) {
            Some(Place::Bucket { bucket, prefix }) => {
                if self.access_key.is_empty() != self.secret_key.is_empty() {
                    return Err(Problem {
                        place: "store.access_key".to_owned(),
                        text: "an access key and a secret key go together; set both of \
                               MINIO_ACCESS_KEY and MINIO_SECRET_KEY, or neither"
                            .to_owned(),
                    });
                }
                StoreChoice::S3(S3Settings {
                    bucket,
                    prefix,
                    endpoint: some(self.endpoint),
                    region: some(self.region),
                    access_key: some(self.access_key).map(Secret::new),
                    secret_key: some(self.secret_key).map(Secret::new),
                    use_ssl: self.use_ssl,
                    aws: aws.to_vec(),
                })
            }
            Some(Place::Folder(folder)) => StoreChoice::Folder(folder),
            None if !(self.endpoint.is_empty() && self.access_key.is_empty()) => {
                return Err(Problem {
                    place: "store.url".to_owned(),
                    text: "there is an endpoint or an access key, but no bucket; set MINIO_BUCKET \
                           or give store.url = \"s3://bucket/prefix\""
                        .to_owned(),
                });
            }
            None => StoreChoice::BesideDatabase(folder_beside(&self.database)),
        };
        Ok(Config {
            enabled: self.enabled,
            schedule: self.schedule,
            keep: self.keep,
            backup_timeout: self.backup_timeout,
            database: self.database,
            busy_timeout: self.busy_timeout,
            store,
            restore_timeout: self.restore_timeout,
            fallback: self.fallback,
            app_timeout: self.app_timeout,
            final_timeout: self.final_timeout,
            strict: self.strict,
            http_address: (self.http_address != "off").then_some(self.http_address),
            http_token: some(self.http_token).map(Secret::new),
            command: self.command,
            snitch_url: some(self.snitch_url).map(Secret::new),
            log_format: self.log_format,
        })
    }
}

fn some(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}
