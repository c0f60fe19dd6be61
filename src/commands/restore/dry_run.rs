//! `restore --dry-run`: what a restore would do, from the list, the backup's header and a look at
//! the database that is there. With `--full` the backup is downloaded and checked as well.

use std::path::Path;

use chrono::Utc;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::disk::Room;
use simplebackup_engine::present::Present;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Existing, Plan, RestoreEngine, RestoreError};
use simplebackup_engine::store::StoredBackup;
use simplebackup_engine::text;

use super::comparison::{compared, compared_with_header};
use super::{COUNTING, present_at};
use crate::commands::{BY_HAND, Done, age, near, rfc3339};
use crate::exit::FATAL;
use crate::output::{complain, show};
use crate::progress_bar::Bar;

/// How much of the backup a dry run looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Its first 4 KiB.
    Header,
    /// All of it.
    Full,
}

/// Says what a restore would do, and returns 1 if it would be refused.
pub(super) async fn dry_run(
    engine: &RestoreEngine,
    backup: &StoredBackup,
    (target, existing): (&Path, Existing),
    depth: Depth,
) -> Done {
    let plan = engine.plan(backup, target, existing, Deadline::after(BY_HAND)).await?;
    for line in plan_lines(engine, backup, &plan) {
        show(&line)?;
    }
    let before = present_at(&plan.target).await;
    let (source, lines) = match depth {
        Depth::Header => (
            ", by the backup's header (--full gives rows by table, and checks all of it):",
            compared_with_header(&before, plan.manifest.as_ref()),
        ),
        Depth::Full => (
            "; the backup was downloaded and checked:",
            compared(&before, &downloaded(engine, backup, &plan.target).await?),
        ),
    };
    show(&format!("compared with the database there now{source}"))?;
    show(&lines.join("\n"))?;
    for refusal in &plan.refusals {
        complain(&format!("would be refused: {}", text::chain(refusal)));
    }
    Ok(if plan.refusals.is_empty() { 0 } else { FATAL })
}

fn plan_lines(engine: &RestoreEngine, backup: &StoredBackup, plan: &Plan) -> Vec<String> {
    let created_at = backup.key.created_at();
    let room = match plan.room {
        Some(Room { needed_bytes, free_bytes }) => {
            format!("needs {}, {} free", text::size(needed_bytes), text::size(free_bytes))
        }
        None if plan.manifest.is_none() => "not known: the backup does not say its size".to_owned(),
        None => "not known: the file system does not tell".to_owned(),
    };
    let aside: Vec<_> = plan.in_the_way.iter().map(|file| file.display().to_string()).collect();
    let aside = if aside.is_empty() { "nothing".to_owned() } else { aside.join(", ") };
    vec![
        format!(
            "would restore {} of {}, {}; nothing is changed now",
            backup.key,
            rfc3339(created_at),
            age(created_at, Utc::now())
        ),
        format!(
            "  from: {} ({})",
            engine.store().address(backup.key),
            text::size(backup.archive_bytes)
        ),
        format!("  to: {}", plan.target.display()),
        format!("  room: {room}"),
        format!("  moved aside, not deleted: {aside}"),
    ]
}

/// Fetches the backup into a temporary folder, as a restore would, and returns what it holds.
async fn downloaded(
    engine: &RestoreEngine,
    backup: &StoredBackup,
    target: &Path,
) -> Result<Present, RestoreError> {
    let progress = Progress::default();
    let _bar = Bar::follow(&progress);
    let file = engine.fetch(backup, &near(target), Deadline::after(BY_HAND), &progress).await?;
    Ok(file.present(Deadline::after(COUNTING)).await)
}
