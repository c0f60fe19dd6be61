//! The configuration: defaults < config.toml < environment < flags.
//!
//! Every setting stands once, in `settings`; [`load`] reads all sources, reports *all* problems
//! at once, each with its place, and only then returns a [`Config`] that is valid as a whole.
//! Nothing here opens a file other than the configuration and the secrets it names.

mod problem;
mod settings;
mod sources;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use simplebackup_actors::schedule::Schedule;
use simplebackup_engine::backup::Unchanged;
use simplebackup_engine::encryption::Recipients;
use simplebackup_engine::retention::Retention;
use simplebackup_engine::secret::Secret;
use simplebackup_engine::sqlite::sidecar;
use simplebackup_engine::store::S3Settings;
use simplebackup_engine::work_dir::canonical;

pub use problem::{Problem, Problems};
pub use settings::{SETTINGS, Setting, variable};
pub(crate) use sources::secret_variables;
pub use sources::{Flags, Input, load, load_with};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// The lines of the specification.
    Text,
    /// One JSON object a line, with exact fields.
    Json,
}

/// What the server behind `snitch.url` understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnitchKind {
    /// A GET after each success, and nothing else.
    Plain,
    /// The ping API of healthchecks.io: start, success, failure.
    Healthchecks,
    /// Dead Man's Snitch: success, failure.
    Snitch,
}

/// What the webhook hears of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookEvents {
    /// What a person has to look at, and that it is over.
    Failures,
    /// That, and each backup, restore and drill that went well.
    All,
}

/// Where backups go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreChoice {
    /// S3 or anything that speaks its protocol.
    S3(S3Settings),
    /// A folder that the user named.
    Folder(PathBuf),
    /// The folder beside the database: no store was configured.
    BesideDatabase(PathBuf),
}

/// The whole configuration, valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `backup.enabled`: whether any backup operation happens at all.
    pub enabled: bool,
    /// `backup.schedule`: when backups are due.
    pub schedule: Schedule,
    /// `backup.keep` and `retention.*`: which backups stay.
    pub retention: Retention,
    /// `backup.skip_unchanged`: whether the same content is uploaded again.
    pub unchanged: Unchanged,
    /// `backup.timeout`: how long an hourly or a manual backup may take.
    pub backup_timeout: Duration,
    /// `database.path`: the database.
    pub database: PathBuf,
    /// `database.busy_timeout`: how long to wait for the app's locks.
    pub busy_timeout: Duration,
    /// `store.*`: where backups go.
    pub store: StoreChoice,
    /// `lease.wait`: how long to wait for another instance; nothing unless `lease.enabled`.
    pub lease_wait: Option<Duration>,
    /// `encryption.recipients`: for whom backups are encrypted; nothing when they are not.
    pub recipients: Option<Recipients>,
    /// `encryption.identity_file`: what opens encrypted backups; nothing when there is none here.
    pub identity_file: Option<PathBuf>,
    /// `restore.timeout`: how long the restore at the start may take.
    pub restore_timeout: Duration,
    /// `restore.fallback`: whether an older backup is taken when the newest is damaged.
    pub fallback: bool,
    /// `verify.schedule`: when the newest backup is verified; nothing for never.
    pub verify_schedule: Option<Schedule>,
    /// `verify.timeout`: how long that may take.
    pub verify_timeout: Duration,
    /// `schedule.jitter`: less than so much later than both schedules say is this instance due.
    pub jitter: Duration,
    /// `shutdown.app_timeout`: how long the app may take to leave.
    pub app_timeout: Duration,
    /// `shutdown.backup_timeout`: how long the final backup may take.
    pub final_timeout: Duration,
    /// `shutdown.strict`: whether a stop without a final backup exits with 75.
    pub strict: bool,
    /// `http.address`: where to listen; nothing when it is `off`.
    pub http_address: Option<String>,
    /// `http.token`: what `POST /backup` has to bring.
    pub http_token: Option<Secret>,
    /// `app.command`: the app; empty when another program owns the database.
    pub command: Vec<String>,
    /// `snitch.url`: who is told of every backup.
    pub snitch_url: Option<Secret>,
    /// `snitch.kind`: what it understands; nothing for what its host says.
    pub snitch_kind: Option<SnitchKind>,
    /// `webhook.url`: where events are posted.
    pub webhook_url: Option<Secret>,
    /// `webhook.events`: which.
    pub webhook_events: WebhookEvents,
    /// `webhook.header`: what goes with them, `Name: value`.
    pub webhook_header: Option<Secret>,
    /// `hooks.before_backup`: what runs before each backup; empty for nothing.
    pub before_backup: Vec<String>,
    /// `hooks.after_backup`: what runs after each.
    pub after_backup: Vec<String>,
    /// `hooks.timeout`: how long one may take.
    pub hook_timeout: Duration,
    /// `log.format`: how log lines look.
    pub log_format: LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        settings::Draft::default().finish(&[]).expect("the defaults are valid, a test holds it")
    }
}

/// Returns the folder in which backups lie when no store is configured. It bears the database's
/// name: two databases of one folder must not evict each other's backups.
fn folder_beside(database: &Path) -> PathBuf {
    sidecar(&canonical(database), ".backups")
}
