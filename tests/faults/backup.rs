//! A backup whose store fails: what holds afterwards, whatever it was.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use simplebackup_engine::backup::{BackupError, BackupReport};
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::lease::{Lease, LeaseError};
use simplebackup_engine::progress::{self, Progress};
use simplebackup_engine::restore::Outcome;
use simplebackup_engine::store::Fault;
use simplebackup_engine::text;

use super::{Case, End, Stage, Wrong, accident};
use crate::support::db::Dump;
use crate::support::process::eventually;
use crate::support::store::Call;
use crate::support::{START, Site, db, deadline, gunzip, leftovers, name};

/// What the engine of a site keeps.
const KEEP: usize = 3;

/// Objects that are not ours, some of them nearly.
const FOREIGN: [&str; 6] = [
    "notes.txt",
    "db-backup-abc.db.gz",
    "db-backup-007.db.gz",
    "db-backup-+5.db.gz",
    "db-backup-5.db",
    "old/db-backup-7.db.gz",
];

/// A site with as many backups as are kept, and what each of them holds.
pub(super) struct Ledger {
    pub(super) site: Site,
    states: BTreeMap<String, Dump>,
    hours: i64,
}

impl Ledger {
    /// Makes a site with three different backups, and foreign objects beside them.
    pub(super) async fn with_backups() -> Self {
        let mut ledger = Self { site: Site::with_database(), states: BTreeMap::new(), hours: 0 };
        for name in FOREIGN {
            ledger.site.put(name, name).await;
        }
        for _ in 0..KEEP {
            ledger.next_hour();
            ledger.site.back_up().await.expect("made");
        }
        ledger
    }

    /// Lets an hour pass and the app write, and notes what a backup made now holds.
    pub(super) fn next_hour(&mut self) {
        self.hours += 1;
        self.site.clock.set(START + self.hours * 3600);
        let app = db::open(&self.site.database());
        let sql = "CREATE TABLE IF NOT EXISTS hours (hour); INSERT INTO hours VALUES (random())";
        app.execute_batch(sql).expect("written");
        drop(app);
        self.note();
    }

    fn note(&mut self) {
        let name = name(START + self.hours * 3600);
        self.states.insert(name, db::dump(&self.site.database()));
    }

    /// Makes the database so large that its archive takes two parts.
    pub(super) fn grow(&mut self) {
        static LARGE: OnceLock<Vec<u8>> = OnceLock::new();
        let large = LARGE.get_or_init(|| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("large.db");
            db::create_incompressible(&path, 6);
            fs::read(path).expect("read")
        });
        self.site.lose_database();
        fs::write(self.site.database(), large).expect("written");
        self.note();
    }

    /// Makes the database smaller again, not by so much that it looks emptied.
    fn shrink(&mut self) {
        let sql = "CREATE TABLE IF NOT EXISTS blobs (body); DELETE FROM blobs WHERE rowid % 4";
        db::open(&self.site.database()).execute_batch(sql).expect("deleted");
    }

    /// Returns what a backup holds.
    pub(super) fn state(&self, name: &str) -> &Dump {
        self.states.get(name).unwrap_or_else(|| panic!("nobody asked for {name}"))
    }

    /// Returns the names of the backups that are stored, oldest first.
    pub(super) async fn backups(&self) -> Vec<String> {
        let stored = self.site.stored().await.into_iter();
        stored.filter(|name| BackupKey::parse(name).is_some()).collect()
    }

    /// Returns everything that is stored.
    pub(super) async fn objects(&self) -> Vec<(String, Bytes)> {
        let mut objects = Vec::new();
        for name in self.site.stored().await {
            let bytes = self.site.get(&name).await;
            objects.push((name, bytes));
        }
        objects
    }

    /// Asserts that each object with a backup's name is a whole and sound one (I6), with the rows
    /// that it was made of (I2), and that nothing foreign was touched and enough is left (I1).
    pub(super) async fn assert_store_is_sound(&self, case: &str) {
        for name in FOREIGN {
            assert_eq!(self.site.get(name).await, name, "{case}: not ours");
        }
        let backups = self.backups().await;
        assert!(backups.len() >= KEEP, "{case}: only {backups:?} are left");
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in backups {
            let path = folder.path().join(&name);
            fs::write(&path, gunzip(&self.site.get(&name).await)).expect("written");
            assert!(db::dump(&path) == *self.state(&name), "{case}: {name} holds other rows");
        }
    }

    /// Asserts that the next backup and the restore of it go well (I2, I4), and that retention
    /// makes up for what it could not do.
    pub(super) async fn assert_next_run_succeeds(&mut self, case: &str) {
        self.site.script().heal();
        self.shrink();
        self.next_hour();
        let made = self.site.back_up().await;
        let report = made.unwrap_or_else(|error| panic!("{case}: {}", text::chain(&error)));
        assert_eq!(report.delete_warning, None, "{case}");
        let backups = self.backups().await;
        assert_eq!(backups.len(), KEEP, "{case}: {backups:?}");
        assert_eq!(backups.last(), Some(&report.key.to_string()), "{case}");
        self.assert_store_is_sound(case).await;

        self.site.lose_database();
        let restored = self.site.restore().await;
        let restored = restored.unwrap_or_else(|error| panic!("{case}: {}", text::chain(&error)));
        let Outcome::FromBackup(restored) = restored.outcome() else { panic!("{case}") };
        assert_eq!(restored.key, report.key, "{case}");
        let rows = db::dump(&self.site.database());
        assert!(rows == *self.state(&report.key.to_string()), "{case}: other rows");
        assert_no_leftovers(&self.site);
    }
}

/// Waits until no job left a file: work that was stopped may take a moment to clean up.
#[track_caller]
pub(super) fn assert_no_leftovers(site: &Site) {
    let database = site.database();
    eventually("no temporary file is left", || leftovers(&database).is_empty());
}

/// One case: a backup with its fault, the invariants, the next run.
pub(super) async fn check(case: Case) {
    let mut ledger = Ledger::with_backups().await;
    ledger.next_hour();
    if case.stage.is_large() {
        ledger.grow();
    }
    let label = format!("{case:?}");
    let (before, live) = (ledger.backups().await, db::dump(&ledger.site.database()));
    let mut engine = ledger.site.backup_engine();
    if case.stage == Stage::Lease {
        let (site, wait) = (&ledger.site, Duration::ZERO);
        let lease = Lease::new(site.store(), site.database(), wait, Arc::clone(&site.clock) as _);
        lease.acquire(true, deadline()).await.expect("free");
        engine = engine.with_lease(Some(lease));
    }
    let gate = accident::plan(&ledger.site, case);

    let (site, progress) = (&ledger.site, Progress::default());
    let job = engine.back_up(accident::deadline(case), &progress);
    let ended = accident::meet(site, case, &gate, job).await;

    accident::assert_fired(site, case);
    assert_end(case, &ended);
    assert!(db::dump(&site.database()) == live, "{label}: the live database changed");
    assert_no_leftovers(site);
    ledger.assert_store_is_sound(&label).await;
    if ended.is_err() || (case.stage, case.end) == (Stage::Start, End::Warned) {
        let left = ledger.backups().await;
        assert!(before.iter().all(|name| left.contains(name)), "{label}: pruned all the same");
        let is_unplaced = case.stage == Stage::Lease && ended.is_err();
        assert!(!is_unplaced || left == before, "{label}: stored without the lease");
        let was_begun = matches!(case.stage, Stage::FirstPart | Stage::LastPart | Stage::Complete);
        let aborts = ledger.site.script().count(Call::Abort);
        assert!(!was_begun || aborts > 0, "{label}: parts are left in the store");
    }
    ledger.assert_next_run_succeeds(&label).await;
}

#[track_caller]
fn assert_end(case: Case, ended: &Result<BackupReport, BackupError>) {
    match (case.end, ended) {
        (End::Made, Ok(report)) => assert_eq!(report.delete_warning, None, "{case:?}"),
        (End::Warned, Ok(report)) => assert!(report.delete_warning.is_some(), "{case:?}"),
        (End::Foreign, Err(BackupError::Lease(LeaseError::Foreign { .. }))) => {}
        (
            End::Failed(fault),
            Err(BackupError::Store(error) | BackupError::Lease(LeaseError::Store(error))),
        ) if error.fault == fault => {}
        // Time flew while the snapshot was made or checked beside the store that hung.
        (
            End::Failed(Fault::OutOfTime),
            Err(BackupError::OutOfTime {
                stage: progress::Stage::Snapshot | progress::Stage::Check,
            }),
        ) if case.wrong == Wrong::Hang => {}
        (_, ended) => panic!("{case:?}: {ended:?}"),
    }
}
