//! `simplebackup backup`: one backup, now. With its hooks and its notices, as the service makes it:
//! whoever starts it from cron wants both.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;
use simplebackup_actors::hook::{HookedError, Hurry};
use simplebackup_actors::messages::Trigger;
use simplebackup_engine::backup::{BackupEngine, BackupError, BackupReport};
use simplebackup_engine::clock::SystemClock;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::{snapshot, text};

use super::Done;
use crate::config::Config;
use crate::encryption::identities;
use crate::metrics::Metrics;
use crate::notify::{Kind, LAST_NOTICES, Notice, Notifier, taken_by};
use crate::output::show;
use crate::progress_bar::Bar;
use crate::service::{backup_engine, hooks, open_store};

pub(crate) async fn back_up(config: &Config) -> Done {
    // Nobody reads this counter: what is not delivered is in the log.
    let metrics = Metrics::new()?;
    let (notifier, notifying) = Notifier::start(config, metrics.notification_failures());
    let by_hand = |notice| Notice { trigger: Some(Trigger::Manual), ..notice };
    notifier.tell(&by_hand(Notice::of(Kind::BackupStarted, Utc::now())));
    let started = Instant::now();
    let made = make(config).await;
    match &made {
        Ok((_, report)) => {
            notifier.tell(&by_hand(Notice::of_backup(report)));
            tell_what_asks_for_a_person(&notifier, report);
        }
        // Another process makes one right now, and tells of it.
        Err(error) if is_refusal(&**error) => {}
        Err(error) => notifier.tell(&by_hand(Notice {
            took: Some(started.elapsed()),
            ..Notice::of_failure(Kind::BackupFailed, Utc::now(), text::chain(&**error))
        })),
    }
    notifying.finish(LAST_NOTICES).await;
    let (engine, report) = made?;
    say(&engine, &report)?;
    Ok(0)
}

async fn make(config: &Config) -> Result<(BackupEngine, BackupReport), Box<dyn std::error::Error>> {
    // First: without a database not even the default folder of backups is made.
    snapshot::inspect(&config.database)?;
    let identities = identities(config, None)?;
    let engine = backup_engine(config, open_store(config)?, Arc::new(SystemClock))
        .with_identities(identities);
    let progress = Progress::default();
    let bar = Bar::follow(&progress);
    let deadline = Deadline::after(config.backup_timeout);
    let made = Box::pin(engine.back_up(deadline, &progress));
    let database: &Path = &config.database;
    // Nobody is in one here.
    let (_nobody, hurry) = Hurry::new();
    let report = hooks(config).around((Trigger::Manual, &hurry), database, deadline, made).await;
    drop(bar);
    let report = report?;
    Ok((engine, report))
}

/// The service says these once, when they begin; a command remembers nothing, and says them each time.
fn tell_what_asks_for_a_person(notifier: &Notifier, report: &BackupReport) {
    if let Some(suspension) = &report.suspension {
        let reason = suspension.reason.clone();
        notifier.tell(&Notice::of_failure(Kind::PruningSuspended, Utc::now(), reason));
    }
    if let Some(fork) = &report.fork {
        notifier.tell(&Notice::of_failure(Kind::Fenced, Utc::now(), taken_by(fork)));
    }
}

fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<HookedError>();
    matches!(error, Some(HookedError::Backup(BackupError::InProgress { .. })))
}

fn say(engine: &BackupEngine, report: &BackupReport) -> std::io::Result<()> {
    if report.is_unchanged {
        return show(&format!("unchanged since {}; nothing uploaded", report.key));
    }
    show(&format!(
        "{} ({}, database {}) in {}",
        engine.place_of(report.fork.as_ref()).address(report.key),
        text::size(report.archive_bytes),
        text::size(report.database_bytes),
        text::seconds(report.took)
    ))
}
