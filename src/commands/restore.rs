//! `simplebackup restore`: brings a backup back, by hand and by machine.
//!
//! At a terminal, and without a backup named, a person chooses and confirms. Anywhere else nothing
//! is ever asked: the newest is taken, and what is there is replaced with `--force` alone
//! ([decision 22](../../docs/decisions/0022-a-restore-asks-at-a-terminal-alone.md)).

mod ask;
mod choice;
mod comparison;
mod dry_run;
mod moment;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use clap::Args;
use simplebackup_engine::clock::SystemClock;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::present::Present;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Existing, RestoreEngine, RestoreReport};
use simplebackup_engine::store::StoredBackup;
use simplebackup_engine::text;

use self::ask::{Answer, ask};
use self::dry_run::Depth;
use self::moment::Moment;
use super::{BY_HAND, Done, key, list_of};
use crate::config::Config;
use crate::encryption::identities;
use crate::exit::FATAL;
use crate::output::{complain, show};
use crate::progress_bar::Bar;
use crate::service::open_store_to_read;

/// How long the rows of a database may be counted for a comparison.
const COUNTING: Duration = Duration::from_secs(30);

/// The arguments of `simplebackup restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// This backup [default: at a terminal you choose, else the newest]
    #[arg(long, value_name = "NAME", value_parser = key, conflicts_with = "at")]
    from: Option<BackupKey>,
    /// The newest backup that is not younger than this: "2h ago" (s, m, h, d, w), RFC 3339, or
    /// seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = Moment::parse, allow_hyphen_values = true)]
    at: Option<Moment>,
    /// To this file [default: the configured database]
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
    /// Where a database is already, move it aside first, without asking for a yes
    #[arg(long)]
    force: bool,
    /// Only say what would be done, and compare the backup's header with what is there
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: download and check the backup, and compare table by table
    #[arg(long, requires = "dry_run")]
    full: bool,
    /// Open encrypted backups with the secret key in this file [default: the configured one]
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

pub(crate) async fn restore(config: &Config, arguments: &RestoreArgs) -> Done {
    let identities = identities(config, arguments.identity.as_deref())?;
    let store = open_store_to_read(config)?;
    let stored = list_of(&store, config).await?;
    if stored.is_empty() {
        return Err(format!("no backup in {}; nothing to restore", store.location()).into());
    }
    let engine = RestoreEngine::new(store, Arc::new(SystemClock)).with_identities(identities);
    let is_named = arguments.from.is_some() || arguments.at.is_some();
    let is_asked = !is_named && ask::has_person();
    let backup = if is_asked {
        let Some(backup) = choice::asked(&engine, &stored).await else { return Ok(left()) };
        backup
    } else {
        let (backup, words) = choice::named(&stored, arguments, Utc::now())?;
        if let Some(words) = words {
            show(&words)?;
        }
        backup
    };
    let target = arguments.to.as_ref().unwrap_or(&config.database);
    if arguments.dry_run {
        let existing =
            if arguments.force || is_asked { Existing::MoveAside } else { Existing::Refuse };
        let depth = if arguments.full { Depth::Full } else { Depth::Header };
        return dry_run::dry_run(&engine, backup, (target, existing), depth).await;
    }
    let consent = match (arguments.force, is_asked) {
        (true, _) => forced(&engine, target).await?,
        (false, true) => confirmed(&engine, backup, target).await?,
        (false, false) => Some((Existing::Refuse, Present::Missing)),
    };
    let Some((existing, before)) = consent else { return Ok(left()) };
    let report = place(&engine, backup, target, existing).await?;
    tell(&report, target, &before).await
}

/// What may be done about a database that is there, and what that is.
type Consent = Option<(Existing, Present)>;

/// Looks at what is there, unless it is in use: the restore refuses that in a moment.
async fn forced(
    engine: &RestoreEngine,
    target: &Path,
) -> Result<Consent, Box<dyn std::error::Error>> {
    let is_used = engine.user_of(target, Deadline::after(BY_HAND)).await?.is_some();
    let before = if is_used { Present::Missing } else { present_at(target).await };
    Ok(Some((Existing::MoveAside, before)))
}

/// Says what is there, and has a person confirm that it may go aside; nothing, if not.
async fn confirmed(
    engine: &RestoreEngine,
    backup: &StoredBackup,
    target: &Path,
) -> Result<Consent, Box<dyn std::error::Error>> {
    let plan = engine.plan(backup, target, Existing::MoveAside, Deadline::after(BY_HAND)).await?;
    if let Some(refusal) = plan.refusals.into_iter().next() {
        return Err(refusal.into());
    }
    if !plan.in_the_way.contains(&plan.target) {
        return Ok(Some((Existing::Refuse, Present::Missing)));
    }
    let before = present_at(&plan.target).await;
    complain(&format!(
        "\nAt {} now: {}.\nCompared with {}, as its header says:",
        plan.target.display(),
        comparison::in_words(&before),
        backup.key
    ));
    let lines = comparison::compared_with_header(&before, plan.manifest.as_ref());
    complain(&lines.join("\n"));
    complain("What is there is moved aside, not deleted.");
    let hint = "Type the three letters of yes, or no.";
    let answer = ask("\nRestore? [yes/no] ", hint, |answer| match answer {
        "yes" | "Yes" | "YES" => Answer::Is((Existing::MoveAside, before.clone())),
        "" | "n" | "N" | "no" | "No" | "NO" | "q" | "Q" => Answer::Leave,
        _ => Answer::Unclear,
    });
    Ok(answer.await)
}

/// Says that nothing was done. Not a success: what comes after `&&` wants a restored database.
fn left() -> i32 {
    complain("nothing was restored, nothing is changed");
    FATAL
}

async fn place(
    engine: &RestoreEngine,
    backup: &StoredBackup,
    target: &Path,
    existing: Existing,
) -> Result<RestoreReport, Box<dyn std::error::Error>> {
    let progress = Progress::default();
    let _bar = Bar::follow(&progress);
    let deadline = Deadline::after(BY_HAND);
    Ok(engine.restore_to(backup, target, existing, deadline, &progress).await?)
}

/// Says what was done, and what changed by it.
async fn tell(report: &RestoreReport, target: &Path, before: &Present) -> Done {
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
    show("compared with what was there:")?;
    show(&comparison::compared(before, &present_at(target).await).join("\n"))?;
    Ok(0)
}

async fn present_at(target: &Path) -> Present {
    Present::at(target, Deadline::after(COUNTING)).await
}
