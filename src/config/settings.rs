//! Every setting, once: its key, what it accepts, and where its value goes.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use simplebackup_actors::schedule::Schedule;
use simplebackup_engine::backup::Unchanged;
use simplebackup_engine::encryption::{Recipients, is_like_identity};
use simplebackup_engine::retention::Retention;
use simplebackup_engine::secret::Secret;
use simplebackup_engine::store::S3Settings;

use super::problem::Problem;
use super::values::{
    Place, Raw, duration, header_text, is_address, is_bucket, is_endpoint, is_header_line, list,
    place_of, recipients, text, timeout, truth, web_address, whole,
};
use super::{Config, LogFormat, SnitchKind, StoreChoice, WebhookEvents, folder_beside};

/// The configuration while it is put together.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "settings that people switch on and off")]
pub(super) struct Draft {
    enabled: bool,
    schedule: Schedule,
    retention: Retention,
    skip_unchanged: bool,
    backup_timeout: Duration,
    database: PathBuf,
    busy_timeout: Duration,
    url: String,
    endpoint: String,
    region: String,
    access_key: String,
    secret_key: String,
    use_ssl: bool,
    lease_enabled: bool,
    lease_wait: Duration,
    recipients: Option<Recipients>,
    identity_file: String,
    restore_timeout: Duration,
    fallback: bool,
    verify_schedule: Option<Schedule>,
    verify_timeout: Duration,
    jitter: Duration,
    app_timeout: Duration,
    final_timeout: Duration,
    strict: bool,
    http_address: String,
    http_token: String,
    command: Vec<String>,
    snitch_url: String,
    snitch_kind: Option<SnitchKind>,
    webhook_url: String,
    webhook_events: WebhookEvents,
    webhook_header: String,
    before_backup: Vec<String>,
    after_backup: Vec<String>,
    hook_timeout: Duration,
    log_format: LogFormat,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            enabled: false,
            schedule: "0 0 * * * *".parse().expect("a valid cron expression"),
            retention: Retention::newest(NonZeroUsize::new(3).expect("three is not zero")),
            skip_unchanged: false,
            backup_timeout: Duration::from_mins(15),
            database: PathBuf::from("/var/lib/app/database.db"),
            busy_timeout: Duration::from_secs(10),
            url: String::new(),
            endpoint: String::new(),
            region: String::new(),
            access_key: String::new(),
            secret_key: String::new(),
            use_ssl: true,
            lease_enabled: false,
            lease_wait: Duration::from_mins(1),
            recipients: None,
            identity_file: String::new(),
            restore_timeout: Duration::from_mins(1),
            fallback: false,
            verify_schedule: None,
            verify_timeout: Duration::from_mins(30),
            jitter: Duration::ZERO,
            app_timeout: Duration::from_secs(10),
            final_timeout: Duration::from_secs(30),
            strict: false,
            http_address: "127.0.0.1:8080".to_owned(),
            http_token: String::new(),
            command: Vec::new(),
            snitch_url: String::new(),
            snitch_kind: None,
            webhook_url: String::new(),
            webhook_events: WebhookEvents::Failures,
            webhook_header: String::new(),
            before_backup: Vec::new(),
            after_backup: Vec::new(),
            hook_timeout: Duration::from_secs(10),
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
    /// Says why a value is refused that must not be shown, because it may be a secret by mistake.
    pub(super) explain: Option<fn(&Raw) -> String>,
}

const fn open(
    key: &'static str,
    accepts: &'static str,
    apply: fn(&mut Draft, &Raw) -> Option<()>,
) -> Setting {
    Setting { key, accepts, is_secret: false, apply, explain: None }
}

const fn secret(
    key: &'static str,
    accepts: &'static str,
    apply: fn(&mut Draft, &Raw) -> Option<()>,
) -> Setting {
    Setting { key, accepts, is_secret: true, apply, explain: None }
}

const TRUTH: &str = "true or false";
const DURATION: &str = "a duration such as \"30s\", \"2m\" or \"1h\", up to \"24h\"";
const TIMEOUT: &str = "a duration such as \"30s\", \"2m\" or \"1h\", up to \"24h\", not zero";
const COUNT: &str = "a whole number from 0 to 1000";
const COMMAND: &str = "a list of texts such as [\"./server\", \"--port\", \"3000\"]";
const WEB_ADDRESS: &str = "an http:// or https:// address, or \"\"";
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
        put(&mut d.retention.keep, whole(raw, 1, 1000).and_then(NonZeroUsize::new))
    }),
    open("backup.skip_unchanged", TRUTH, |d, raw| put(&mut d.skip_unchanged, truth(raw))),
    open("backup.timeout", TIMEOUT, |d, raw| put(&mut d.backup_timeout, timeout(raw))),
    open("retention.daily", COUNT, |d, raw| put(&mut d.retention.daily, whole(raw, 0, 1000))),
    open("retention.weekly", COUNT, |d, raw| put(&mut d.retention.weekly, whole(raw, 0, 1000))),
    open("retention.monthly", COUNT, |d, raw| put(&mut d.retention.monthly, whole(raw, 0, 1000))),
    open("retention.min_spacing", DURATION, |d, raw| {
        put(&mut d.retention.min_spacing, duration(raw))
    }),
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
    open("lease.enabled", TRUTH, |d, raw| put(&mut d.lease_enabled, truth(raw))),
    open("lease.wait", DURATION, |d, raw| put(&mut d.lease_wait, duration(raw))),
    Setting {
        explain: Some(|raw| recipients(raw).err().unwrap_or_default()),
        ..open(
            "encryption.recipients",
            "a list of public keys of age-keygen such as [\"age1…\"], or []",
            |d, raw| put(&mut d.recipients, recipients(raw).ok()),
        )
    },
    open("encryption.identity_file", "the path of a file, or \"\"", |d, raw| {
        put(&mut d.identity_file, text(raw).filter(|text| !is_like_identity(text)))
    }),
    open("restore.timeout", TIMEOUT, |d, raw| put(&mut d.restore_timeout, timeout(raw))),
    open("restore.fallback", TRUTH, |d, raw| put(&mut d.fallback, truth(raw))),
    open(
        "verify.schedule",
        "a cron expression with seconds, in UTC, such as \"0 30 4 * * *\", or \"\"",
        |d, raw| {
            let schedule = text(raw).and_then(|t| match t.as_str() {
                "" => Some(None),
                expression => expression.parse().ok().map(Some),
            });
            put(&mut d.verify_schedule, schedule)
        },
    ),
    open("verify.timeout", TIMEOUT, |d, raw| put(&mut d.verify_timeout, timeout(raw))),
    open("schedule.jitter", DURATION, |d, raw| put(&mut d.jitter, duration(raw))),
    open("shutdown.app_timeout", DURATION, |d, raw| put(&mut d.app_timeout, duration(raw))),
    open("shutdown.backup_timeout", TIMEOUT, |d, raw| put(&mut d.final_timeout, timeout(raw))),
    open("shutdown.strict", TRUTH, |d, raw| put(&mut d.strict, truth(raw))),
    open(
        "http.address",
        "an address with a port such as \"127.0.0.1:8080\", or \"off\"",
        |d, raw| put(&mut d.http_address, text(raw).filter(|t| is_address(t))),
    ),
    secret("http.token", PLAIN, |d, raw| put(&mut d.http_token, header_text(raw))),
    open("app.command", COMMAND, |d, raw| put(&mut d.command, list(raw))),
    open("hooks.before_backup", COMMAND, |d, raw| put(&mut d.before_backup, list(raw))),
    open("hooks.after_backup", COMMAND, |d, raw| put(&mut d.after_backup, list(raw))),
    open("hooks.timeout", TIMEOUT, |d, raw| put(&mut d.hook_timeout, timeout(raw))),
    secret("snitch.url", WEB_ADDRESS, |d, raw| put(&mut d.snitch_url, web_address(raw))),
    open("snitch.kind", "\"auto\", \"plain\", \"healthchecks\" or \"snitch\"", |d, raw| {
        let kind = text(raw).and_then(|t| match t.as_str() {
            "auto" => Some(None),
            "plain" => Some(Some(SnitchKind::Plain)),
            "healthchecks" => Some(Some(SnitchKind::Healthchecks)),
            "snitch" => Some(Some(SnitchKind::Snitch)),
            _ => None,
        });
        put(&mut d.snitch_kind, kind)
    }),
    secret("webhook.url", WEB_ADDRESS, |d, raw| put(&mut d.webhook_url, web_address(raw))),
    open("webhook.events", "\"failures\" or \"all\"", |d, raw| {
        let events = text(raw).and_then(|t| match t.as_str() {
            "failures" => Some(WebhookEvents::Failures),
            "all" => Some(WebhookEvents::All),
            _ => None,
        });
        put(&mut d.webhook_events, events)
    }),
    secret("webhook.header", "a line such as \"Authorization: Bearer abc\", or \"\"", |d, raw| {
        put(&mut d.webhook_header, header_text(raw).filter(|t| t.is_empty() || is_header_line(t)))
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

    /// A drill on a machine that can't open its backups would fail each time.
    fn refuse_closed_drills(&self) -> Result<(), Problem> {
        let is_closed = self.recipients.is_some() && self.identity_file.is_empty();
        if self.verify_schedule.is_none() || !is_closed {
            return Ok(());
        }
        Err(Problem {
            place: "verify.schedule".to_owned(),
            text: "a restore drill can't open encrypted backups without an identity; set \
                   encryption.identity_file, or leave verify.schedule empty"
                .to_owned(),
        })
    }

    /// Makes the configuration, or says what does not fit together. `aws` are the standard
    /// variables, by lower-case name.
    pub(super) fn finish(self, aws: &[(String, Secret)]) -> Result<Config, Problem> {
        self.refuse_closed_drills()?;
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
            retention: self.retention,
            unchanged: if self.skip_unchanged { Unchanged::Skip } else { Unchanged::Upload },
            backup_timeout: self.backup_timeout,
            database: self.database,
            busy_timeout: self.busy_timeout,
            store,
            lease_wait: self.lease_enabled.then_some(self.lease_wait),
            recipients: self.recipients,
            identity_file: some(self.identity_file).map(PathBuf::from),
            restore_timeout: self.restore_timeout,
            fallback: self.fallback,
            verify_schedule: self.verify_schedule,
            verify_timeout: self.verify_timeout,
            jitter: self.jitter,
            app_timeout: self.app_timeout,
            final_timeout: self.final_timeout,
            strict: self.strict,
            http_address: (self.http_address != "off").then_some(self.http_address),
            http_token: some(self.http_token).map(Secret::new),
            command: self.command,
            snitch_url: some(self.snitch_url).map(Secret::new),
            snitch_kind: self.snitch_kind,
            webhook_url: some(self.webhook_url).map(Secret::new),
            webhook_events: self.webhook_events,
            webhook_header: some(self.webhook_header).map(Secret::new),
            before_backup: self.before_backup,
            after_backup: self.after_backup,
            hook_timeout: self.hook_timeout,
            log_format: self.log_format,
        })
    }
}

fn some(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}
