//! The oracle: what the app wrote, what the store really holds, what the service said about it.
//!
//! It stands outside of everything that it judges. It hears the board's events and sees the
//! store from both sides of the faults; nothing that it knows comes from the engine's own list.
//! A violation is kept rather than thrown: a panic inside a job would look like a planned one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use simplebackup_actors::messages::Trigger;
use simplebackup_actors::status::Event;
use simplebackup_engine::archive;
use simplebackup_engine::backup::BackupReport;
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::restore::Outcome;
use simplebackup_engine::retention::Retention;
use simplebackup_engine::text;

use super::draw::WallClock;
use crate::support::gunzip;

/// The mark that suspends pruning.
pub(super) const MARK: &str = "pruning-suspended.json";

/// What the app's database holds: the rows 1 to n of its one table, or no table at all.
pub(super) type State = Option<u32>;

/// The oracle; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Witness(Arc<Mutex<Books>>);

/// What the oracle knows.
#[derive(Debug)]
pub(super) struct Books {
    clock: Arc<WallClock>,
    /// How many backups have to stay.
    keep: usize,
    /// Whether backups of a burst count as one.
    is_spaced: bool,
    /// The folder of the site, whose name differs from run to run.
    folder: String,
    /// Everything that happened, in order.
    pub(super) trace: String,
    /// The first thing that must not happen.
    pub(super) violation: Option<String>,
    /// Each state that the database was in; a position in it is a point in time.
    pub(super) ledger: Vec<State>,
    /// What is stored: the timestamp in the name, the position that it holds, its hash.
    pub(super) stored: BTreeMap<u64, Stored>,
    /// Whether the mark is stored.
    pub(super) has_mark: bool,
    /// The newest position that the service has reported as safe.
    pub(super) promised: usize,
    /// The position at which the run began that was announced last.
    began: usize,
    /// A backup without tables followed one with tables, and nobody has said that this is right.
    pub(super) is_loss_unconfirmed: bool,
    /// Uploads under way.
    uploads: usize,
    /// How this life's restore ended.
    pub(super) restored: Option<Result<Outcome, String>>,
    /// Backups that were reported as made.
    pub(super) made: u64,
    /// Restores that brought a backup back.
    pub(super) brought_back: u64,
}

/// One stored backup.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) position: usize,
    sha256: String,
    pub(super) archive: Bytes,
}

impl Witness {
    pub(super) fn new(clock: Arc<WallClock>, retention: &Retention, folder: String) -> Self {
        Self(Arc::new(Mutex::new(Books {
            clock,
            keep: retention.keep.get(),
            is_spaced: !retention.min_spacing.is_zero(),
            folder,
            trace: String::new(),
            violation: None,
            ledger: vec![None],
            stored: BTreeMap::new(),
            has_mark: false,
            promised: 0,
            began: 0,
            is_loss_unconfirmed: false,
            uploads: 0,
            restored: None,
            made: 0,
            brought_back: 0,
        })))
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, text: &str) {
        self.books().note(text);
    }

    /// An upload begins; it ends when what is returned is dropped.
    pub(super) fn upload(&self) -> impl Drop + Send + use<> {
        let mut books = self.books();
        books.uploads += 1;
        let is_alone = books.uploads == 1;
        books.demand(is_alone, || "I4: two uploads at the same time".to_owned());
        Upload(self.clone())
    }
}

struct Upload(Witness);

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.books().uploads -= 1;
    }
}

impl Books {
    pub(super) fn note(&mut self, text: &str) {
        let now = self.clock.now_ms();
        let text = text.replace(&self.folder, "SITE");
        writeln!(self.trace, "{now} {text}").expect("to memory");
    }

    fn demand(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            let violation = otherwise();
            self.note(&format!("VIOLATION {violation}"));
            self.violation = Some(violation);
        }
    }

    /// The app has brought its database into a new state.
    pub(super) fn write(&mut self, state: State) {
        self.ledger.push(state);
        self.note(&format!("app {state:?}"));
    }

    pub(super) fn state(&self) -> State {
        *self.ledger.last().expect("never empty")
    }

    /// Returns the state in the newest stored backup.
    pub(super) fn newest(&self) -> Option<(u64, State)> {
        let (&timestamp, stored) = self.stored.last_key_value()?;
        Some((timestamp, self.ledger[stored.position]))
    }

    /// An object was really stored.
    pub(super) fn put(&mut self, name: &str, bytes: &Bytes) {
        if name == MARK {
            self.has_mark = true;
            return;
        }
        let Some(key) = BackupKey::parse(name) else {
            return self.demand(false, || format!("I1: foreign {name:?} was overwritten"));
        };
        let Some((sha256, state)) = contents_of(bytes) else {
            return self.demand(false, || format!("I6: {name} is not a whole backup"));
        };
        if let Some(before) = self.stored.get(&key.timestamp()) {
            // An answer got lost, and the same run sent the same again.
            let is_same = before.sha256 == sha256;
            return self.demand(is_same, || format!("{name} was overwritten by another state"));
        }
        let newest = self.stored.last_key_value();
        let is_newer = newest.is_none_or(|(&newest, _)| key.timestamp() > newest);
        let after = newest.map_or(0, |(_, stored)| stored.position);
        let before = newest.map(|(_, stored)| self.ledger[stored.position]);
        self.demand(is_newer, || format!("{name} is named older than the newest"));
        let found = (after..self.ledger.len()).rev().find(|&at| self.ledger[at] == state);
        let Some(position) = found else {
            return self.demand(false, || format!("I2: {name} holds {state:?}, older or never so"));
        };
        match (before, state) {
            (Some(Some(_)), None) => self.is_loss_unconfirmed = true,
            // What was gone is back before anybody noticed.
            (_, Some(_)) if !self.has_mark => self.is_loss_unconfirmed = false,
            _ => {}
        }
        let archive = bytes.clone();
        self.stored.insert(key.timestamp(), Stored { position, sha256, archive });
    }

    /// An object was really deleted.
    pub(super) fn delete(&mut self, name: &str) {
        if name == MARK {
            self.has_mark = false;
            return;
        }
        let timestamp = BackupKey::parse(name).map_or(0, BackupKey::timestamp);
        if self.stored.remove(&timestamp).is_none() {
            return self.demand(false, || format!("I1: foreign {name:?} was deleted"));
        }
        let newer = self.stored.range(timestamp..).count();
        let (left, keep) = (self.stored.len(), self.keep);
        // Of a burst, one that is not the oldest may go.
        let is_sound = if self.is_spaced { newer > 0 && left >= keep } else { newer >= keep };
        self.demand(is_sound, || {
            format!("I1: {name} was deleted, {left} are left, {newer} of them newer, of {keep}")
        });
        let is_settled = !self.is_loss_unconfirmed;
        self.demand(is_settled, || format!("a loss that nobody has confirmed evicted {name}"));
    }

    /// Something was recorded on the board.
    pub(super) fn hear(&mut self, event: &Event) {
        let text = match event {
            Event::RestoreEnded { result, .. } => {
                self.restored = Some(result.clone());
                match result {
                    Ok(Outcome::FromBackup(report)) => {
                        format!("restored {} of {}", report.key, report.stored)
                    }
                    other => format!("restore {other:?}"),
                }
            }
            Event::BackupStarted(run) => {
                self.began = self.ledger.len() - 1;
                format!("{} backup began", run.trigger.word())
            }
            Event::BackupMade { trigger, report } => {
                self.hear_made(report);
                told(*trigger, report)
            }
            Event::BackupFailed { trigger, error, .. } => {
                format!("{} backup failed: {error}", trigger.word())
            }
            Event::StoreSurveyed { inventory, .. } => {
                let names = inventory.backups.iter().map(|backup| backup.key.to_string());
                format!("survey {:?}", names.collect::<Vec<_>>())
            }
            other => format!("{other:?}"),
        };
        self.note(&text);
    }

    fn hear_made(&mut self, report: &BackupReport) {
        self.made += 1;
        let newest = self.stored.last_key_value().map(|(&timestamp, _)| timestamp);
        self.demand(newest == Some(report.key.timestamp()), || {
            format!("{} is reported as made, but the newest is {newest:?}", report.key)
        });
        let Some(mut stored) = self.stored.last_entry() else { return };
        if report.is_unchanged {
            // The same state as at the end of the ledger, or the next line tells.
            let state = self.ledger[stored.get().position];
            let same = self.ledger.iter().rposition(|&at| at == state);
            stored.get_mut().position = same.expect("it is one of them");
        }
        let position = stored.get().position;
        let began = self.began;
        self.demand(position >= began, || {
            format!("I2: {} is older than the run that reports it", report.key)
        });
        self.promised = self.promised.max(position);
        let (said, really) = (report.stored, self.stored.len());
        let is_told = report.delete_warning.is_some() || said == really;
        self.demand(is_told, || format!("{said} backups are reported, {really} are stored"));
    }

    /// A new machine found its database restored to this state.
    pub(super) fn brought_back(&mut self, state: State) {
        let promised = self.promised;
        let Some(mut newest) = self.stored.last_entry() else {
            return self.demand(false, || "restored from nothing".to_owned());
        };
        let position = newest.get().position;
        newest.get_mut().position = self.ledger.len();
        let expected = self.ledger[position];
        self.demand(state == expected, || {
            format!("I2: restored {state:?}, but the newest backup holds {expected:?}")
        });
        self.demand(position >= promised, || {
            format!("lost: restored position {position}, promised was {promised}")
        });
        self.write(state);
        self.promised = self.ledger.len() - 1;
        self.brought_back += 1;
    }
}

fn told(trigger: Trigger, report: &BackupReport) -> String {
    format!(
        "{} backup made {} {}→{} bytes, {} stored, {} deleted, warning {:?}, suspended {:?}, \
         unchanged {}",
        trigger.word(),
        report.key,
        report.database_bytes,
        report.archive_bytes,
        report.stored,
        report.deleted,
        report.delete_warning,
        // Its time may be the store's, which is real.
        report.suspension.as_ref().map(|suspension| &suspension.reason),
        report.is_unchanged,
    )
}

/// Returns the hash and the state that an archive promises, if its bytes are those.
fn contents_of(archive: &[u8]) -> Option<(String, State)> {
    let contents = archive::manifest_at(archive)?.contents?;
    let database = gunzip(archive);
    let sha256 = text::hex(ring::digest::digest(&ring::digest::SHA256, &database).as_ref());
    let state = (contents.tables > 0).then_some(contents.rows as u32);
    (sha256 == contents.sha256).then_some((sha256, state))
}
