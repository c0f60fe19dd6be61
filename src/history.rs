//! What happened since the process started, for the status page: recent events, the runs of the chart,
//! and what is known of each stored backup.
//!
//! It hears the events of the status board and keeps them in memory, bounded in number and in bytes.
//! Nothing is written to disk: the disk may vanish, and logs and metrics are for what is older.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use simplebackup_actors::messages::Trigger;
use simplebackup_actors::status::{Event, Phase, Status};
use simplebackup_engine::backup::BackupReport;
use simplebackup_engine::clock::Clock;
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::manifest::{Contents, Counted, Manifest};
use simplebackup_engine::restore::Outcome;
use simplebackup_engine::store::StoredBackup;
use simplebackup_engine::text;

/// Events that are kept: more than a page that is read at night can use.
const ENTRIES_MAX: usize = 100;

/// Bytes of an event's text that are kept. Errors may quote an answer of a store.
const DETAIL_BYTES_MAX: usize = 400;

/// Runs that are kept for the chart: two weeks of hourly backups, 16 KB.
const RUNS_MAX: usize = 336;

/// Stored backups of which anything is kept, the newest: `backup.keep` is at most that.
const FACTS_MAX: usize = 1000;

/// How an event is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Bad,
    Note,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When, the last time if it happened more than once in a row.
    pub(crate) at: DateTime<Utc>,
    pub(crate) tone: Tone,
    pub(crate) what: String,
    pub(crate) detail: String,
    /// How often it happened in a row.
    pub(crate) times: u64,
}

/// A backup that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) at: DateTime<Utc>,
    pub(crate) took_ms: u64,
    /// What was made; nothing if it failed.
    pub(crate) made: Option<Made>,
}

/// A backup that was made, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) key: BackupKey,
    pub(crate) archive_bytes: u64,
    pub(crate) database_bytes: u64,
}

/// What is known of a stored backup beyond its name and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    /// Whether its header needs no look, because it was looked at or its contents are known.
    pub(crate) is_described: bool,
    pub(crate) counted: Option<Counted>,
    pub(crate) database_bytes: Option<u64>,
    /// When a drill or a restore last found it sound.
    pub(crate) verified_at: Option<DateTime<Utc>>,
    /// When a drill last found it damaged.
    pub(crate) damaged_at: Option<DateTime<Utc>>,
}

/// What is kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Counts the changes, so that a page knows when to ask again.
    pub(crate) revision: u64,
    pub(crate) entries: VecDeque<Entry>,
    pub(crate) runs: VecDeque<Ran>,
    pub(crate) facts: BTreeMap<BackupKey, Facts>,
}

/// The memory of one process; see the module.
#[derive(Debug)]
pub(crate) struct History {
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
}

impl History {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, kept: Mutex::default() }
    }

    /// Remembers an event, as an observer of the status board.
    pub(crate) fn record(&self, event: &Event, status: &Status) {
        let now = self.clock.now();
        let mut kept = self.kept();
        let is_news = kept.learn(event, now) | kept.follow(&status.backups);
        let said = said(event);
        if is_news || said.is_some() {
            kept.revision += 1;
        }
        if let Some((tone, what, detail)) = said {
            kept.note(now, tone, what, detail);
        }
    }

    /// Returns those of the newest `count` backups whose headers nobody has read yet.
    pub(crate) fn undescribed(&self, count: usize) -> Vec<BackupKey> {
        let kept = self.kept();
        let newest = kept.facts.iter().rev().take(count);
        newest.filter(|(_, facts)| !facts.is_described).map(|(key, _)| *key).collect()
    }

    /// Returns what is kept. Hold it for a moment only: the actors wait for it.
    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic in `record` leaves a line missing at worst.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Adds an event, or counts it if it is the last one once more: a store that refuses every backup
    /// must not push out all that was before.
    fn note(&mut self, at: DateTime<Utc>, tone: Tone, what: String, mut detail: String) {
        if detail.len() > DETAIL_BYTES_MAX {
            detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX - '…'.len_utf8()));
            detail.push('…');
        }
        if let Some(last) = self.entries.back_mut()
            && (last.tone, &last.what, &last.detail) == (tone, &what, &detail)
        {
            last.at = at;
            last.times += 1;
            return;
        }
        push_within(&mut self.entries, Entry { at, tone, what, detail, times: 1 }, ENTRIES_MAX);
    }

    /// Learns what an event tells of backups; returns whether it does.
    fn learn(&mut self, event: &Event, now: DateTime<Utc>) -> bool {
        match event {
            Event::BackupMade { report, .. } => {
                let facts = self.facts.entry(report.key).or_default();
                facts.is_described = true;
                let (tables, rows) = (report.contents.tables, report.contents.rows);
                facts.counted = Some(Counted { tables, rows });
                facts.database_bytes = Some(report.database_bytes);
                let &BackupReport { key, archive_bytes, database_bytes, .. } = report;
                let made = Some(Made { key, archive_bytes, database_bytes });
                // One that was not stored again has taken no place on the way.
                if !report.is_unchanged {
                    let took_ms = report.took.as_millis() as u64;
                    let ran = Ran { at: report.ended_at, took_ms, made };
                    push_within(&mut self.runs, ran, RUNS_MAX);
                }
            }
            Event::BackupFailed { at, took, .. } => {
                let ran = Ran { at: *at, took_ms: took.as_millis() as u64, made: None };
                push_within(&mut self.runs, ran, RUNS_MAX);
            }
            Event::Verified(drilled) => {
                let facts = self.facts.entry(drilled.key).or_default();
                facts.counted = Some(drilled.counted);
                facts.database_bytes = Some(drilled.database_bytes);
                (facts.is_described, facts.damaged_at) = (true, None);
                facts.verified_at = Some(drilled.ended_at);
            }
            Event::VerifyFailed { damaged: Some(key), at, .. } => {
                let facts = self.facts.entry(*key).or_default();
                (facts.verified_at, facts.damaged_at) = (None, Some(*at));
            }
            Event::RestoreEnded { result: Ok(Outcome::FromBackup(report)), .. } => {
                let facts = self.facts.entry(report.key).or_default();
                facts.verified_at = Some(now);
                facts.database_bytes = Some(report.database_bytes);
            }
            Event::BackupsDescribed(described) => {
                for (key, manifest) in described {
                    self.describe(*key, manifest.as_ref());
                }
            }
            _ => return false,
        }
        true
    }

    fn describe(&mut self, key: BackupKey, manifest: Option<&Manifest>) {
        let facts = self.facts.entry(key).or_default();
        facts.is_described = true;
        let Some(manifest) = manifest else { return };
        let contents = manifest.contents.as_ref();
        facts.counted = facts.counted.or(contents.map(Contents::counted));
        facts.database_bytes = facts.database_bytes.or(Some(manifest.database_bytes));
    }

    /// Forgets what is stored no more; returns whether the list has changed.
    fn follow(&mut self, stored: &[StoredBackup]) -> bool {
        let newest = &stored[stored.len().saturating_sub(FACTS_MAX)..];
        let before = self.facts.len();
        let is_listed = |key: &BackupKey| newest.binary_search_by_key(key, |b| b.key).is_ok();
        self.facts.retain(|key, _| is_listed(key));
        let is_gone = self.facts.len() < before;
        let known = self.facts.len();
        for backup in newest {
            self.facts.entry(backup.key).or_default();
        }
        is_gone || self.facts.len() > known
    }
}

/// Adds to a ring, of which the oldest goes when it is full.
fn push_within<T>(ring: &mut VecDeque<T>, item: T, max: usize) {
    if ring.len() == max {
        ring.pop_front();
    }
    ring.push_back(item);
}

/// Returns an event in words, if a person wants to read of it.
fn said(event: &Event) -> Option<(Tone, String, String)> {
    let said = |tone, what: &str, detail: String| Some((tone, what.to_owned(), detail));
    let by = |trigger: Trigger, what: &str| match trigger {
        Trigger::Tick => format!("Hourly {what}"),
        Trigger::Manual => format!("Manual {what}"),
        Trigger::Final => format!("Shutdown {what}"),
    };
    let none = String::new;
    match event {
        Event::BackupMade { trigger, report } if report.is_unchanged => {
            let detail = format!("{} holds the same, nothing uploaded", report.key);
            said(Tone::Good, &by(*trigger, "backup: unchanged"), detail)
        }
        Event::BackupMade { trigger, report } => {
            let detail = format!(
                "{}, {} of {}, {}, in {}",
                report.key,
                text::size(report.archive_bytes),
                text::size(report.database_bytes),
                report.contents.counted().in_words(),
                text::seconds(report.took)
            );
            said(Tone::Good, &by(*trigger, "backup made"), detail)
        }
        Event::BackupFailed { trigger, error, .. } => {
            said(Tone::Bad, &by(*trigger, "backup failed"), error.clone())
        }
        Event::BackupRefused { trigger } => {
            let detail = "another was in progress, or the service was stopping".to_owned();
            said(Tone::Note, &by(*trigger, "backup refused"), detail)
        }
        Event::Verified(drilled) => {
            let (key, counted) = (drilled.key, drilled.counted.in_words());
            let detail = format!("{key} is sound, {counted}, in {}", text::seconds(drilled.took));
            said(Tone::Good, "Restore drill passed", detail)
        }
        Event::VerifyFailed { error, .. } => said(Tone::Bad, "Restore drill failed", error.clone()),
        Event::RestoreEnded { result, took } => said_of_restore(result.as_ref(), *took),
        Event::SurveyFailed(error) => said(Tone::Bad, "The store cannot be read", error.clone()),
        Event::PruningResumed => said(Tone::Note, "Pruning resumed by a person", none()),
        Event::TicksMissed(count) => {
            let detail = format!("{count}, while the machine slept or its clock was set");
            said(Tone::Note, "Due times went by unseen", detail)
        }
        Event::AppStarted(pid) => {
            let detail = pid.map_or_else(none, |pid| format!("process {pid}"));
            said(Tone::Note, "App started", detail)
        }
        Event::AppEnded(end) => {
            said(Tone::Note, "App ended", format!("exit code {}", end.exit_code()))
        }
        Event::ActorsRestarted => {
            let detail = "a defect; the log has the lines to report".to_owned();
            said(Tone::Bad, "Workers died and were replaced", detail)
        }
        Event::Phase(Phase::Stopping) => said(Tone::Note, "Stopping", none()),
        _ => None,
    }
}

fn said_of_restore(
    result: Result<&Outcome, &String>,
    took: std::time::Duration,
) -> Option<(Tone, String, String)> {
    let (tone, what, detail) = match result {
        Ok(Outcome::FromBackup(report)) => {
            let size = text::size(report.database_bytes);
            let detail = format!("{} ({size}, checked) in {}", report.key, text::seconds(took));
            (Tone::Good, "Database restored", detail)
        }
        Ok(Outcome::NothingStored) => {
            let detail = "no backup is stored, and there was no database".to_owned();
            (Tone::Note, "Started with a fresh database", detail)
        }
        Ok(Outcome::AlreadyThere | Outcome::Disabled) => return None,
        Err(error) => (Tone::Bad, "Restore failed", error.clone()),
    };
    Some((tone, what.to_owned(), detail))
}

#[cfg(test)]
mod tests {
    use simplebackup_engine::clock::SystemClock;

    use super::*;

    fn history() -> History {
        History::new(Arc::new(SystemClock))
    }

    fn failed(error: &str) -> Event {
        let (at, took) = (Utc::now(), std::time::Duration::from_secs(1));
        Event::BackupFailed { trigger: Trigger::Tick, at, took, error: error.to_owned() }
    }

    fn stored(timestamp: usize) -> StoredBackup {
        let key = BackupKey::parse(&format!("db-backup-{timestamp}.db.gz")).expect("valid");
        StoredBackup { key, archive_bytes: 1, stored_at: Utc::now() }
    }

    #[test]
    fn what_is_kept_has_a_bound_in_number_and_in_bytes() {
        let history = history();
        let long = "ü".repeat(5000);
        for attempt in 0..1000 {
            history.record(&failed(&format!("{attempt} {long}")), &Status::default());
        }
        let kept = history.kept();
        assert_eq!((kept.entries.len(), kept.runs.len()), (ENTRIES_MAX, RUNS_MAX));
        assert!(kept.entries.back().expect("some").detail.starts_with("999 ü"));
        let bytes: usize =
            kept.entries.iter().map(|entry| entry.what.len() + entry.detail.len()).sum();
        assert!(bytes < 50_000, "{bytes}");
        assert!(kept.entries.iter().all(|entry| entry.detail.len() <= DETAIL_BYTES_MAX));
    }

    #[test]
    fn the_same_once_more_is_counted() {
        let history = history();
        for error in ["refused", "refused", "refused", "no room", "refused"] {
            history.record(&failed(error), &Status::default());
        }
        let kept = history.kept();
        let said: Vec<_> = kept.entries.iter().map(|e| (e.detail.as_str(), e.times)).collect();
        assert_eq!(said, [("refused", 3), ("no room", 1), ("refused", 1)]);
        assert_eq!(kept.revision, 5);
    }

    #[test]
    fn facts_go_with_their_backups() {
        let history = history();
        let status = |timestamps: std::ops::Range<usize>| Status {
            backups: timestamps.map(stored).collect(),
            ..Status::default()
        };
        let described = |timestamp| Event::BackupsDescribed(vec![(stored(timestamp).key, None)]);
        history.record(&described(7), &status(5..9));
        let look = || {
            let kept = history.kept();
            let described = kept.facts.iter().filter(|(_, facts)| facts.is_described);
            let described: Vec<_> = described.map(|(key, _)| key.timestamp()).collect();
            (kept.revision, kept.facts.len(), described)
        };
        assert_eq!(look(), (1, 4, vec![7]));
        history.record(&Event::NextTick(None), &status(5..9));
        assert_eq!(look(), (1, 4, vec![7]), "nothing is new");
        history.record(&Event::NextTick(None), &status(8..12));
        assert_eq!(look(), (2, 4, Vec::new()));
        // More than anybody keeps: pruning is suspended for months.
        history.record(&Event::NextTick(None), &status(0..3000));
        assert_eq!(history.kept().facts.len(), FACTS_MAX);
        assert!(history.kept().facts.contains_key(&stored(2999).key));
    }
}
