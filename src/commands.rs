//! The commands beside `run`: one question or one deed, then an exit code. Results go to standard
//! output; what went wrong is returned and printed by the caller.

mod backup;
mod notify;
mod restore;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::Args;
use serde::Serialize;
use simplebackup_engine::check::TableRows;
use simplebackup_engine::clock::SystemClock;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{RestoreEngine, RestoreError};
use simplebackup_engine::store::{BackupStore, Patience, StoredBackup};
use simplebackup_engine::text;

pub(crate) use self::backup::back_up;
pub(crate) use self::notify::{NotifyArgs, notify};
pub(crate) use self::restore::{RestoreArgs, restore};
use crate::config::Config;
use crate::encryption::identities;
use crate::exit::FATAL;
use crate::output::{complain, show};
use crate::progress_bar::Bar;
use crate::service::{backup_engine, open_store_to_read};

/// What a command returns: an exit code, or an error to print.
type Done = Result<i32, Box<dyn std::error::Error>>;

/// How long a restore or a check by hand may take: a person watches and can interrupt it.
const BY_HAND: Duration = Duration::from_hours(6);

/// `simplebackup verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// This backup [default: the newest]
    #[arg(value_name = "NAME", value_parser = key, conflicts_with = "all")]
    name: Option<BackupKey>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// Open encrypted backups with the secret key in this file [default: the configured one]
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

/// `simplebackup prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Confirm that a database that looks emptied is right: from now on old backups go again
    #[arg(long)]
    confirm: bool,
    /// Only say what would be deleted
    #[arg(long, conflicts_with = "confirm")]
    dry_run: bool,
}

fn find(stored: &[StoredBackup], key: BackupKey) -> Result<&StoredBackup, String> {
    stored
        .iter()
        .find(|backup| backup.key == key)
        .ok_or_else(|| format!("{key} is not stored; see \"simplebackup list\""))
}

fn key(name: &str) -> Result<BackupKey, String> {
    BackupKey::parse(name).ok_or_else(|| {
        format!("\"{name}\" is no backup's name; give one such as db-backup-1732442400.db.gz")
    })
}

/// One line of `list --json`.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    created_at: String,
    size_bytes: u64,
    encrypted: bool,
    address: String,
}

pub(crate) async fn list_as_json(config: &Config) -> Done {
    let store = open_store_to_read(config)?;
    let listed: Vec<_> = list_of(&store, config)
        .await?
        .iter()
        .map(|backup| Listed {
            name: backup.key.to_string(),
            created_at: rfc3339(backup.key.created_at()),
            size_bytes: backup.archive_bytes,
            encrypted: backup.key.is_encrypted(),
            address: store.address(backup.key),
        })
        .collect();
    show(&serde_json::to_string_pretty(&listed)?)?;
    Ok(0)
}

pub(crate) async fn list(config: &Config) -> Done {
    let store = open_store_to_read(config)?;
    let stored = list_of(&store, config).await?;
    if stored.is_empty() {
        show(&format!("no backups in {}", store.location()))?;
        return Ok(0);
    }
    show(&format!("{} in {}", stored.len(), store.location()))?;
    let now = Utc::now();
    let longest = stored.iter().map(|backup| backup.key.to_string().len()).max().unwrap_or(0);
    for backup in stored {
        let created_at = backup.key.created_at();
        show(&format!(
            "{:<longest$}  {}  {:>8}  {}{}",
            backup.key.to_string(),
            rfc3339(created_at),
            text::size(backup.archive_bytes),
            age(created_at, now),
            if backup.key.is_encrypted() { "  encrypted" } else { "" }
        ))?;
    }
    Ok(0)
}

/// Returns how long ago a moment was: `41m ago`.
fn age(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    match (now - at).to_std() {
        Ok(age) => format!("{} ago", text::age(age)),
        // Two backups of one second are named a second apart.
        Err(_negative) if at - now < TimeDelta::seconds(10) => "just now".to_owned(),
        Err(_negative) => "in the future".to_owned(),
    }
}

/// Deletes surplus backups now, or says why it does not.
pub(crate) async fn prune(config: &Config, arguments: &PruneArgs) -> Done {
    let engine = backup_engine(config, open_store_to_read(config)?, Arc::new(SystemClock));
    let deadline = Deadline::after(config.restore_timeout);
    let (surplus, suspension) = engine.surplus(deadline).await?;
    if arguments.dry_run {
        for key in surplus {
            show(&format!("would delete {}", engine.store().address(key)))?;
        }
        if let Some(suspension) = suspension {
            show(&format!("but deletes nothing without --confirm: {}", suspension.reason))?;
        }
        return Ok(0);
    }
    if let Some(suspension) = suspension {
        if !arguments.confirm {
            return Err(format!(
                "nothing is deleted since {}: {}; look at the database, and if it is right, run \
                 \"simplebackup prune --confirm\"",
                rfc3339(suspension.since),
                suspension.reason
            )
            .into());
        }
        engine.store().resume_pruning(deadline).await?;
    }
    let pruned = engine.prune(deadline).await?;
    for key in &pruned.deleted {
        show(&format!("deleted {}", engine.store().address(*key)))?;
    }
    show(&format!("{} stored in {}", pruned.left.len(), engine.store().location()))?;
    // The engine has said which, in a warning.
    Ok(if pruned.warning.is_some() { FATAL } else { 0 })
}

/// Checks backups as a restore would, and says what is in them.
pub(crate) async fn verify(config: &Config, arguments: &VerifyArgs) -> Done {
    let identities = identities(config, arguments.identity.as_deref())?;
    let store = open_store_to_read(config)?;
    let stored = list_of(&store, config).await?;
    let chosen: Vec<_> = match arguments.name {
        Some(key) => vec![find(&stored, key)?.clone()],
        None if arguments.all => stored,
        None => stored.last().cloned().into_iter().collect(),
    };
    if chosen.is_empty() {
        return Err(format!("no backup in {}; nothing to verify", store.location()).into());
    }
    let engine = RestoreEngine::new(store, Arc::new(SystemClock)).with_identities(identities);
    let mut not_sound = 0;
    for backup in &chosen {
        match verify_one(config, &engine, backup).await {
            Ok(lines) => show(&lines.join("\n"))?,
            Err(error @ RestoreError::Damaged { .. }) => {
                show(&format!("{}  DAMAGED: {}", backup.key, text::chain(&error)))?;
                not_sound += 1;
            }
            // The others may be for other identities, or not encrypted.
            Err(error @ (RestoreError::NoIdentity { .. } | RestoreError::WrongIdentity { .. })) => {
                show(&format!("{}  NOT OPENED: {}", backup.key, text::chain(&error)))?;
                not_sound += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(if not_sound == 0 { 0 } else { FATAL })
}

/// Checks one backup and returns the lines about it.
async fn verify_one(
    config: &Config,
    engine: &RestoreEngine,
    backup: &StoredBackup,
) -> Result<Vec<String>, RestoreError> {
    let progress = Progress::default();
    let bar = Bar::follow(&progress);
    let deadline = Deadline::after(BY_HAND);
    let file = engine.fetch(backup, &near(&config.database), deadline, &progress).await?;
    let bytes = file.bytes();
    let unverified = file.verdict().unverified_tables.clone();
    let rows = file.count_rows(deadline).await?;
    drop(bar);
    let mut lines =
        vec![format!("{}  ok  {}  {} tables", backup.key, text::size(bytes), rows.len())];
    lines.extend(rows.into_iter().map(|TableRows { table, rows }| {
        let rows = rows.map_or_else(|| "not countable here".to_owned(), |rows| rows.to_string());
        let note = if unverified.contains(&table) { "  (structure not verified)" } else { "" };
        format!("  {table}: {rows}{note}")
    }));
    Ok(lines)
}

/// Returns beside what a backup is looked at. Where the database's folder is missing, as on another
/// machine, a temporary one serves.
fn near(database: &Path) -> PathBuf {
    if database.parent().is_some_and(Path::is_dir) {
        return database.to_owned();
    }
    std::env::temp_dir().join(format!("simplebackup-verify-{}.db", std::process::id()))
}

pub(crate) async fn healthcheck(config: &Config, ready: bool) -> Done {
    let Some(address) = &config.http_address else {
        return Err("http.address is \"off\": there is nothing to ask".into());
    };
    let address = asked_at(address);
    let path = if ready { "/health/ready" } else { "/health" };
    let url = format!("http://{address}{path}");
    simplebackup_engine::store::install_tls();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(3)).no_proxy().build()?;
    let answer = client.get(&url).send().await?;
    let status = answer.status();
    show(&format!("{url}: {status}"))?;
    Ok(if status.is_success() { 0 } else { FATAL })
}

/// Returns where a service is asked: one that listens everywhere, here.
pub(crate) fn asked_at(address: &str) -> String {
    address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
}

/// Lists the backups, and says on standard error if the newest may be of an emptied database.
async fn list_of(
    store: &BackupStore,
    config: &Config,
) -> Result<Vec<StoredBackup>, Box<dyn std::error::Error>> {
    let deadline = Deadline::after(config.restore_timeout);
    let inventory = store.inventory(deadline, Patience::FewTries).await?;
    if let Some(suspension) = inventory.suspension {
        complain(&format!(
            "warning: the newest backups may be of an emptied database, nothing is deleted since \
             {}: {}",
            rfc3339(suspension.since),
            suspension.reason
        ));
    }
    Ok(inventory.backups)
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
