//! The commands beside `run`: one question or one deed, then an exit code. Results go to standard
//! output; what went wrong is returned and printed by the caller.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use serde::Serialize;
use simplebackup_engine::check::TableRows;
use simplebackup_engine::clock::SystemClock;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Existing, RestoreEngine, RestoreError};
use simplebackup_engine::snapshot;
use simplebackup_engine::store::{BackupStore, Patience, StoredBackup};
use simplebackup_engine::text;

use crate::config::Config;
use crate::exit::FATAL;
use crate::output::{complain, show};
use crate::progress_bar::Bar;
use crate::service::{backup_engine, open_store, open_store_to_read};

/// What a command returns: an exit code, or an error to print.
type Done = Result<i32, Box<dyn std::error::Error>>;

/// How long a restore or a check by hand may take: a person watches and can interrupt it.
const BY_HAND: Duration = Duration::from_hours(6);

/// `simplebackup restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// This backup [default: the newest]
    #[arg(long, value_name = "NAME", value_parser = key, conflicts_with = "at")]
    from: Option<BackupKey>,
    /// The newest backup that is not younger than this: RFC 3339, or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<DateTime<Utc>>,
    /// To this file [default: the configured database]
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
    /// Where a database is already, move it aside first
    #[arg(long)]
    force: bool,
}

/// `simplebackup verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// This backup [default: the newest]
    #[arg(value_name = "NAME", value_parser = key, conflicts_with = "all")]
    name: Option<BackupKey>,
    /// All of them
    #[arg(long)]
    all: bool,
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

pub(crate) async fn back_up(config: &Config) -> Done {
    // First: without a database not even the default folder of backups is made.
    snapshot::inspect(&config.database)?;
    let engine = backup_engine(config, open_store(config)?, Arc::new(SystemClock));
    let progress = Progress::default();
    let bar = Bar::follow(&progress);
    let report = engine.back_up(Deadline::after(config.backup_timeout), &progress).await;
    drop(bar);
    let report = report?;
    if report.is_unchanged {
        show(&format!("unchanged since {}; nothing uploaded", report.key))?;
        return Ok(0);
    }
    show(&format!(
        "{} ({}, database {}) in {}",
        engine.place_of(report.fork.as_ref()).address(report.key),
        text::size(report.archive_bytes),
        text::size(report.database_bytes),
        text::seconds(report.took)
    ))?;
    Ok(0)
}

pub(crate) async fn restore(config: &Config, arguments: &RestoreArgs) -> Done {
    let store = open_store_to_read(config)?;
    let stored = list_of(&store, config).await?;
    let Some(backup) = choose(&stored, arguments)? else {
        return Err(format!("no backup in {}; nothing to restore", store.location()).into());
    };
    let target = arguments.to.as_ref().unwrap_or(&config.database);
    let existing = if arguments.force { Existing::MoveAside } else { Existing::Refuse };
    let engine = RestoreEngine::new(store, Arc::new(SystemClock));
    let progress = Progress::default();
    let bar = Bar::follow(&progress);
    let deadline = Deadline::after(BY_HAND);
    let report = engine.restore_to(backup, target, existing, deadline, &progress).await;
    drop(bar);
    let report = report?;
    show(&format!(
        "restored {} to {} ({}, checked) in {}",
        report.key,
        target.display(),
        text::size(report.database_bytes),
        text::seconds(report.took)
    ))?;
    if let Some(replaced) = &report.replaced {
        show(&format!("the former database is at {}", replaced.display()))?;
    }
    Ok(0)
}

fn choose<'a>(
    stored: &'a [StoredBackup],
    arguments: &RestoreArgs,
) -> Result<Option<&'a StoredBackup>, String> {
    if let Some(key) = arguments.from {
        return find(stored, key).map(Some);
    }
    let Some(moment) = arguments.at else { return Ok(stored.last()) };
    let not_younger = stored.iter().rev().find(|backup| backup.key.created_at() <= moment);
    not_younger.map(Some).ok_or_else(|| {
        let oldest = stored.first().map_or_else(String::new, |backup| {
            format!("; the oldest is of {}", rfc3339(backup.key.created_at()))
        });
        format!("no backup is as old as {}{oldest}", rfc3339(moment))
    })
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

fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    let seconds = text.parse::<i64>().ok().and_then(|secs| DateTime::from_timestamp(secs, 0));
    seconds.or_else(|| text.parse().ok()).ok_or_else(|| {
        format!("\"{text}\" is not a time; give one such as 2024-11-24T12:00:00Z or 1732449600")
    })
}

/// One line of `list --json`.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    created_at: String,
    size_bytes: u64,
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
    for backup in stored {
        let created_at = backup.key.created_at();
        let age = match (now - created_at).to_std() {
            Ok(age) => format!("{} ago", text::age(age)),
            Err(_negative) => "in the future".to_owned(),
        };
        show(&format!(
            "{}  {}  {:>8}  {age}",
            backup.key,
            rfc3339(created_at),
            text::size(backup.archive_bytes)
        ))?;
    }
    Ok(0)
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
    let engine = RestoreEngine::new(store, Arc::new(SystemClock));
    let mut damaged = 0;
    for backup in &chosen {
        match verify_one(config, &engine, backup).await {
            Ok(lines) => show(&lines.join("\n"))?,
            Err(error @ RestoreError::Damaged { .. }) => {
                show(&format!("{}  DAMAGED: {}", backup.key, text::chain(&error)))?;
                damaged += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(if damaged == 0 { 0 } else { FATAL })
}

/// Checks one backup and returns the lines about it.
async fn verify_one(
    config: &Config,
    engine: &RestoreEngine,
    backup: &StoredBackup,
) -> Result<Vec<String>, RestoreError> {
    // Where the database's folder is missing, as on another machine, a temporary one serves.
    let has_folder = config.database.parent().is_some_and(std::path::Path::is_dir);
    let beside = if has_folder {
        config.database.clone()
    } else {
        std::env::temp_dir().join(format!("simplebackup-verify-{}.db", std::process::id()))
    };
    let progress = Progress::default();
    let bar = Bar::follow(&progress);
    let deadline = Deadline::after(BY_HAND);
    let file = engine.fetch(backup, &beside, deadline, &progress).await?;
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

pub(crate) async fn healthcheck(config: &Config, ready: bool) -> Done {
    let Some(address) = &config.http_address else {
        return Err("http.address is \"off\": there is nothing to ask".into());
    };
    // Listening everywhere is asked here.
    let address = address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
    let path = if ready { "/health/ready" } else { "/health" };
    let url = format!("http://{address}{path}");
    simplebackup_engine::store::install_tls();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(3)).no_proxy().build()?;
    let answer = client.get(&url).send().await?;
    let status = answer.status();
    show(&format!("{url}: {status}"))?;
    Ok(if status.is_success() { 0 } else { FATAL })
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
