//! A restore whose store fails: what holds afterwards, whatever it was.

use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Fallback, Outcome, RestoreError, Restored};
use simplebackup_engine::store::Fault;

use super::backup::{Ledger, assert_no_leftovers};
use super::{Case, End, accident};
use crate::support::store::{Call, Trouble};
use crate::support::{Site, db, deadline, visible_files_in};

/// One case: a restore with its fault, the invariants, the next run.
pub(super) async fn check(case: Case) {
    let mut ledger = Ledger::with_backups().await;
    let label = format!("{case:?}");
    ledger.site.lose_database();
    let (backups, objects) = (ledger.backups().await, ledger.objects().await);
    let gate = accident::plan(&ledger.site, case);

    let site = &ledger.site;
    let (engine, progress, target) = (site.restore_engine(), Progress::default(), site.database());
    let until = accident::deadline(case);
    let job = engine.restore_if_missing(&target, Fallback::Refuse, until, &progress);
    let ended = accident::meet(site, case, &gate, job).await;

    accident::assert_fired(site, case);
    let restored = assert_end(case, &ended);
    assert_no_leftovers(site);
    assert!(ledger.objects().await == objects, "{label}: a restore changed what is stored");
    let age = if let Some(age) = restored {
        age
    } else {
        assert_eq!(visible_files_in(site.root()), [""; 0], "{label}: nothing to start on");
        site.script().heal();
        site.restore().await.unwrap_or_else(|error| panic!("{label}, then: {error}"));
        0
    };
    let state = ledger.state(&backups[backups.len() - 1 - age]);
    assert!(db::dump(&site.database()) == *state, "{label}: other rows");
    assert_existing_is_untouched(site, &label).await;
    ledger.assert_next_run_succeeds(&label).await;
}

/// Asserts how a restore ended. Returns the age of what was restored: 0 for the newest.
#[track_caller]
fn assert_end(case: Case, ended: &Result<Restored, RestoreError>) -> Option<usize> {
    let outcome = ended.as_ref().map(Restored::outcome);
    match (case.end, outcome) {
        (End::Back, Ok(Outcome::FromBackup(_))) => Some(0),
        (End::Older, Ok(Outcome::FromBackup(_))) => Some(1),
        (End::Damaged, Err(RestoreError::Damaged { .. })) => None,
        (End::Failed(fault), Err(RestoreError::Store(error))) if error.fault == fault => None,
        // Above all not `NothingStored`: the app would start on a fresh database.
        (_, outcome) => panic!("{case:?}: {outcome:?}"),
    }
}

/// Asserts that a database that is there is left alone, without a call to the store (I3).
async fn assert_existing_is_untouched(site: &Site, label: &str) {
    let (before, calls) = (db::dump(&site.database()), site.script().calls().len());
    site.script().plan(Call::List, .., Trouble::Fail(Fault::Unreachable));
    let engine = site.restore_engine();
    let progress = Progress::default();
    let again =
        engine.restore_if_missing(&site.database(), Fallback::Refuse, deadline(), &progress).await;
    assert_eq!(again.expect("there").outcome(), &Outcome::AlreadyThere, "{label}");
    assert!(db::dump(&site.database()) == before, "{label}: it changed");
    assert_eq!(site.script().calls().len(), calls, "{label}: the store was asked");
}
