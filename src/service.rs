//! The service as a whole: puts configuration, store, actors, HTTP and signals together, and
//! turns the way it ended into an exit code.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::Utc;
use simplebackup_actors::app::Application;
use simplebackup_actors::backup::BackupPlan;
use simplebackup_actors::hook::Hooks;
use simplebackup_actors::jitter::offset_within;
use simplebackup_actors::messages::{Shutdown, StopCause};
use simplebackup_actors::restore::RestorePlan;
use simplebackup_actors::status::{Observer, StatusBoard};
use simplebackup_actors::supervisor::{Ended, Plan, Protection, Supervisor};
use simplebackup_actors::verify::VerifyPlan;
use simplebackup_actors::{CRON_LOG, SERVER_LOG};
use simplebackup_engine::backup::BackupEngine;
use simplebackup_engine::clock::{Clock, SystemClock};
use simplebackup_engine::encryption::{Identities, IdentityError};
use simplebackup_engine::lease::Lease;
use simplebackup_engine::restore::{Fallback, RestoreEngine};
use simplebackup_engine::store::{BackupStore, StoreError, StoreKind};
use simplebackup_engine::work_dir::{LockError, ServiceLock, WorkFolder, canonical};
use simplebackup_engine::{sqlite, text};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Config, StoreChoice, secret_variables};
use crate::doctor;
use crate::encryption::{announce, identities};
use crate::exit::{exit_code, log_store_failure};
use crate::history::History;
use crate::http::{self, Listening, Lookup, Opened, Seats, Shared, Surroundings};
use crate::metrics::Metrics;
use crate::notify::{Kind, LAST_NOTICES, Notice, Notifier, Notifying, patience_after};
use crate::signals::Signals;

/// The service in front of one app and its database.
pub struct Service {
    config: Config,
    app: Box<dyn Application>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why the service did not start. The app was not started either.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The linked SQLite is not safe.
    #[error("{0}")]
    Sqlite(String),
    /// The store could not be opened.
    #[error("{source}")]
    Store {
        /// What kind of place it is.
        kind: StoreKind,
        /// Its address, such as `s3://mybucket`.
        root: String,
        /// What went wrong.
        source: StoreError,
    },
    /// The HTTP address could not be had.
    #[error("cannot listen on {address}; choose another http.address (--http), or \"off\"")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database's folder could not be made or used.
    #[error("folder of the database {} cannot be made or used; create it, or make it writable for this user", path.display())]
    Folder {
        /// The database.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another service works on the same database, or a restore by hand.
    #[error(
        "database {} is in use by simplebackup, {holder}; stop it first, or wait for it",
        path.display()
    )]
    InUse {
        /// The database.
        path: PathBuf,
        /// Such as `process 4711`.
        holder: String,
    },
    /// The identities that are configured are of no use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The metrics could not be registered.
    #[error("metrics could not be set up; this is a defect, please report it")]
    Metrics(#[from] prometheus::Error),
}

impl Service {
    /// Prepares the service; nothing happens before [`Service::run`].
    #[must_use]
    pub fn new(config: Config, app: impl Application + 'static) -> Self {
        Self { config, app: Box::new(app), clock: Arc::new(SystemClock) }
    }

    /// Restores, starts the app, backs up, until `signals` asks for a stop or the app ends.
    /// Returns the exit code; the table is in the README.
    ///
    /// Has to run in an actix system, on the process's main thread if the app is a child process or
    /// there are hooks.
    ///
    /// # Errors
    ///
    /// When nothing was started at all.
    pub async fn run(self, signals: &Signals) -> Result<i32, ServiceError> {
        // First: from here on no signal is lost.
        let mut requests = signals.follow();
        let Self { config, app, clock } = self;
        sqlite::require_sound_version().map_err(ServiceError::Sqlite)?;
        let metrics = Arc::new(Metrics::new()?);
        let (notifier, notifying) = Notifier::start(&config, metrics.notification_failures());
        let notifier = Arc::new(notifier);
        let history = Arc::new(History::new(Arc::clone(&clock)));
        let observers = observers(&metrics, &history, &notifier);
        let board = StatusBoard::new(config.enabled, observers);
        let (addresses, workers) = watch::channel(None);
        let opened = Arc::new(OnceLock::new());
        let shared = Shared {
            database: absolute(&config.database).display().to_string(),
            board: board.clone(),
            metrics,
            history,
            started_at: clock.now(),
            clock: Arc::clone(&clock),
            opened: Arc::clone(&opened),
            surroundings: surroundings(&config),
            token: config.http_token.clone(),
            backup_timeout: config.backup_timeout,
            workers,
            seats: Seats::default(),
            lookup: Lookup::default(),
        };
        // Before the restore: alive, not ready. A taken port is told before anything is done.
        let server = listen(&config, shared)?;
        let (protection, _lock) = match protect(&config, &clock, &*app) {
            Ok(protected) => protected.unzip(),
            Err(error) => {
                notifier.tell(&Notice::of_failed_start(text::chain(&error)));
                finish(server, notifying, Some(LAST_NOTICES)).await;
                return Err(error);
            }
        };
        let store = protection.as_ref().map(|protection| protection.backup.engine.store().clone());
        if let Some(Protection { backup, schedule, .. }) = &protection {
            let (store, schedule) = (backup.engine.store().clone(), schedule.clone());
            // Err: it is set here alone.
            let _already = opened.set(Opened { store, schedule });
        }
        let plan =
            Plan { protection, app, app_timeout: config.app_timeout, clock, board, addresses };
        let launched = Supervisor::launch(plan);
        let supervisor = launched.supervisor;
        let following = actix::spawn(async move {
            loop {
                requests.next().await;
                if supervisor.send(Shutdown { cause: StopCause::Signal }).await.is_err() {
                    return;
                }
            }
        });
        let (code, patience) = match launched.ended.await {
            Ok(ended) => {
                if let Ended::AppFailed(error) = &ended {
                    let error = text::chain(error);
                    notifier.tell(&Notice::of_failure(Kind::AppFailed, Utc::now(), error));
                }
                (exit_code(&ended, config.strict, store.as_ref()), patience_after(&ended))
            }
            Err(_supervisor_died) => {
                tracing::error!(target: SERVER_LOG, "FATAL: The supervisor died; this is a defect");
                (crate::exit::ACTORS_DIED, Some(LAST_NOTICES))
            }
        };
        following.abort();
        finish(server, notifying, patience).await;
        Ok(code)
    }
}

/// Opens the configured store to write to it: the default folder is made if it is missing.
pub(crate) fn open_store(config: &Config) -> Result<BackupStore, ServiceError> {
    open_store_with(config, BackupStore::default_folder)
}

/// Opens the configured store to read from it, and makes nothing.
pub(crate) fn open_store_to_read(config: &Config) -> Result<BackupStore, ServiceError> {
    open_store_with(config, BackupStore::folder)
}

fn open_store_with(
    config: &Config,
    open_default: impl FnOnce(&Path) -> Result<BackupStore, StoreError>,
) -> Result<BackupStore, ServiceError> {
    let (kind, root, opened) = match &config.store {
        StoreChoice::S3(settings) => {
            (StoreKind::S3, format!("s3://{}", settings.bucket), BackupStore::s3(settings))
        }
        StoreChoice::Folder(folder) => {
            let folder = absolute(folder);
            let root = format!("file://{}", folder.display());
            (StoreKind::Folder, root, BackupStore::folder(&folder))
        }
        StoreChoice::BesideDatabase(folder) => {
            let root = format!("file://{}", folder.display());
            (StoreKind::Folder, root, open_default(folder))
        }
    };
    opened.map_err(|source| ServiceError::Store { kind, root, source })
}

/// Prints the lines for an error that kept the service from starting.
pub(crate) fn log_start_failure(error: &ServiceError) {
    match error {
        ServiceError::Store { kind, root, source } => log_store_failure(source, *kind, root),
        other => tracing::error!(
            target: SERVER_LOG,
            "FATAL: {}", text::chain(other)
        ),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn listen(config: &Config, shared: Shared) -> Result<Option<JoinHandle<()>>, ServiceError> {
    let Some(address) = &config.http_address else { return Ok(None) };
    let Listening { server, addresses } = http::serve(address, shared)
        .map_err(|source| ServiceError::Listen { address: address.clone(), source })?;
    for address in addresses {
        tracing::info!(target: SERVER_LOG, "Listening on http://{address}");
    }
    Ok(Some(server))
}

/// Makes the folder of the database, takes its lock, warns of what is unsafe.
fn lock_database(config: &Config) -> Result<ServiceLock, ServiceError> {
    let database = canonical(&config.database);
    let folder = |source| ServiceError::Folder { path: config.database.clone(), source };
    fs::create_dir_all(database.parent().unwrap_or(&database)).map_err(folder)?;
    // Anew: only now the folder surely exists.
    let database = canonical(&config.database);
    let lock = WorkFolder::beside(&database).lock_service().map_err(|error| match error {
        LockError::Held { holder } => ServiceError::InUse { path: config.database.clone(), holder },
        LockError::Io { source, .. } => folder(source),
    })?;
    doctor::start::warn(config, &database);
    Ok(lock)
}

/// Puts together what protects the database, if anything is to.
fn protect(
    config: &Config,
    clock: &Arc<dyn Clock>,
    app: &dyn Application,
) -> Result<Option<(Protection, ServiceLock)>, ServiceError> {
    if !config.enabled {
        return Ok(None);
    }
    // A configuration that can't be used makes nothing, not even a folder.
    let identities = identities(config, None)?;
    // The folder of the database before the store: the default one is made inside it.
    let lock = lock_database(config)?;
    announce(config, identities.as_ref());
    Ok(Some((protection(config, open_store(config)?, identities, (clock, app)), lock)))
}

fn protection(
    config: &Config,
    store: BackupStore,
    identities: Option<Identities>,
    (clock, app): (&Arc<dyn Clock>, &dyn Application),
) -> Protection {
    let offset = offset_of_this_instance(config, store.location());
    let engine =
        backup_engine(config, store.clone(), Arc::clone(clock)).with_identities(identities.clone());
    Protection {
        restore: RestorePlan {
            engine: RestoreEngine::new(store, Arc::clone(clock))
                .with_identities(identities)
                .with_lease(engine.lease().cloned()),
            database: config.database.clone(),
            fallback: if config.fallback { Fallback::NextOlder } else { Fallback::Refuse },
        },
        restore_timeout: config.restore_timeout + config.lease_wait.unwrap_or_default(),
        backup: BackupPlan {
            engine,
            run_timeout: config.backup_timeout,
            clock: Arc::clone(clock),
            hooks: hooks(config),
            is_app_in_process: app.is_in_process(),
        },
        schedule: config.schedule.clone().delayed_by(offset),
        verify: VerifyPlan {
            schedule: config.verify_schedule.clone().map(|schedule| schedule.delayed_by(offset)),
            timeout: config.verify_timeout,
        },
        final_timeout: config.final_timeout,
    }
}

/// Returns the hooks that the configuration names.
pub(crate) fn hooks(config: &Config) -> Hooks {
    Hooks {
        before_backup: config.before_backup.clone(),
        after_backup: config.after_backup.clone(),
        timeout: config.hook_timeout,
        withheld: secret_variables(),
    }
}

/// Returns how much later than its schedules this instance is due, and says so once.
fn offset_of_this_instance(config: &Config, store: &str) -> Duration {
    if config.jitter.is_zero() {
        return Duration::ZERO;
    }
    // Not the canonical path: where links lead may change when the database is restored.
    let database = absolute(&config.database);
    let host = rustix::system::uname();
    let offset = offset_within(config.jitter, host.nodename().to_bytes(), &database, store);
    tracing::info!(
        target: CRON_LOG,
        offset_ms = offset.as_millis() as u64,
        "This instance is due {} later than its schedule says (schedule.jitter)",
        text::span(offset)
    );
    offset
}

/// Makes the engine that the configuration describes.
pub(crate) fn backup_engine(
    config: &Config,
    store: BackupStore,
    clock: Arc<dyn Clock>,
) -> BackupEngine {
    let lease = config
        .lease_wait
        .map(|wait| Lease::new(store.clone(), config.database.clone(), wait, Arc::clone(&clock)));
    BackupEngine::new(config.database.clone(), store, config.retention, clock)
        .with_busy_timeout(config.busy_timeout)
        .with_unchanged(config.unchanged)
        .with_recipients(config.recipients.clone())
        .with_lease(lease)
}

/// Says of the store what its address does not.
fn surroundings(config: &Config) -> Surroundings {
    let endpoint = match &config.store {
        // One with a password in it is no more for a page than for a log.
        StoreChoice::S3(settings) => settings.endpoint_url().filter(|url| !url.contains('@')),
        StoreChoice::Folder(_) | StoreChoice::BesideDatabase(_) => None,
    };
    let is_beside_database = matches!(config.store, StoreChoice::BesideDatabase(_));
    let identity_file = config.identity_file.as_ref().map(|path| path.display().to_string());
    Surroundings { endpoint, is_beside_database, identity_file }
}

fn observers(
    metrics: &Arc<Metrics>,
    history: &Arc<History>,
    notifier: &Arc<Notifier>,
) -> Vec<Observer> {
    let (metrics, history, notifier) =
        (Arc::clone(metrics), Arc::clone(history), Arc::clone(notifier));
    vec![
        Arc::new(move |event, status| metrics.record(event, status)),
        Arc::new(move |event, status| history.record(event, status)),
        Arc::new(move |event, status| notifier.hear(event, status)),
    ]
}

/// Lets the last notices go out, for so long at most, then stops HTTP: until here it told how the
/// stop went.
async fn finish(server: Option<JoinHandle<()>>, notifying: Notifying, patience: Option<Duration>) {
    if let Some(limit) = patience {
        notifying.finish(limit).await;
    }
    if let Some(server) = server {
        server.abort();
        // Err: it was aborted. Here nothing listens any more.
        let _aborted = server.await;
    }
}
