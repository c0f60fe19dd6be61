//! What `GET /history` says: what is stored, what was tried, what happened, and how to get it back.

use serde::Serialize;
use simplebackup_actors::status::Status;
use simplebackup_engine::store::StoredBackup;

use super::time;
use crate::history::{Entry, Facts, Kept, Ran, Tone};
use crate::http::Shared;
use crate::http::recipes::{Form, Recipe, recipes};

/// Backups that are listed, the newest: `backup.keep` is at most that.
const LISTED_MAX: usize = 1000;

/// `GET /history`.
#[derive(Debug, Serialize)]
pub(in crate::http) struct HistoryView {
    now: String,
    revision: u64,
    /// Where backups go now, with a slash at its end; nothing while that is not open.
    location: Option<String>,
    /// The newest first.
    backups: Vec<BackupView>,
    /// How many older ones are stored that are not listed.
    unlisted: usize,
    /// The oldest first.
    runs: Vec<RunView>,
    /// The newest first.
    events: Vec<EventView>,
    recipes: Vec<Recipe>,
    /// For backups whose name ends in `.age`.
    encrypted_recipes: Vec<Recipe>,
}

impl HistoryView {
    pub(in crate::http) fn of(shared: &Shared, status: &Status) -> Self {
        let place = shared.store(status);
        let recipes = |form| {
            let of = |store| recipes(&shared.database, store, &shared.surroundings, form);
            place.as_ref().map(of).unwrap_or_default()
        };
        let kept = shared.history.kept();
        let newest = status.backups.iter().rev().take(LISTED_MAX);
        Self {
            now: time(shared.clock.now()),
            revision: kept.revision,
            location: place.as_ref().map(|store| store.location().to_owned()),
            backups: newest.map(|backup| BackupView::of(backup, &kept)).collect(),
            unlisted: status.backups.len().saturating_sub(LISTED_MAX),
            runs: kept.runs.iter().map(RunView::of).collect(),
            events: kept.entries.iter().rev().map(EventView::of).collect(),
            recipes: recipes(Form::Plain),
            encrypted_recipes: recipes(Form::Encrypted),
        }
    }
}

#[derive(Debug, Serialize)]
struct BackupView {
    name: String,
    made_at: String,
    archive_bytes: u64,
    database_bytes: Option<u64>,
    tables: Option<u64>,
    rows: Option<u64>,
    verified_at: Option<String>,
    damaged_at: Option<String>,
}

impl BackupView {
    fn of(backup: &StoredBackup, kept: &Kept) -> Self {
        let facts = kept.facts.get(&backup.key).copied();
        let Facts { counted, database_bytes, verified_at, damaged_at, .. } =
            facts.unwrap_or_default();
        Self {
            name: backup.key.to_string(),
            made_at: time(backup.made_at()),
            archive_bytes: backup.archive_bytes,
            database_bytes,
            tables: counted.map(|counted| counted.tables),
            rows: counted.map(|counted| counted.rows),
            verified_at: verified_at.map(time),
            damaged_at: damaged_at.map(time),
        }
    }
}

#[derive(Debug, Serialize)]
struct RunView {
    at: String,
    took_ms: u64,
    /// The backup that was made; nothing if it failed.
    name: Option<String>,
    archive_bytes: Option<u64>,
    database_bytes: Option<u64>,
}

impl RunView {
    fn of(ran: &Ran) -> Self {
        Self {
            at: time(ran.at),
            took_ms: ran.took_ms,
            name: ran.made.map(|made| made.key.to_string()),
            archive_bytes: ran.made.map(|made| made.archive_bytes),
            database_bytes: ran.made.map(|made| made.database_bytes),
        }
    }
}

#[derive(Debug, Serialize)]
struct EventView {
    at: String,
    tone: &'static str,
    what: String,
    detail: String,
    times: u64,
}

impl EventView {
    fn of(entry: &Entry) -> Self {
        let tone = match entry.tone {
            Tone::Good => "good",
            Tone::Bad => "bad",
            Tone::Note => "note",
        };
        let Entry { at, what, detail, times, .. } = entry.clone();
        Self { at: time(at), tone, what, detail, times }
    }
}
