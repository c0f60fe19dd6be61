//! A backup of an emptied database whose mark meets the fault: what was good stays, always.

use simplebackup_engine::backup::BackupError;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::text;

use super::backup::{Ledger, assert_no_leftovers};
use super::{Case, End, accident};
use crate::support::db;

const MARK: &str = "pruning-suspended.json";

/// One case: a backup with its fault, and the next one, of another process, without.
pub(super) async fn check(case: Case) {
    let mut ledger = Ledger::with_backups().await;
    ledger.next_hour();
    db::drop_all_tables(&ledger.site.database());
    let good = ledger.backups().await;
    let gate = accident::plan(&ledger.site, case);

    let site = &ledger.site;
    let (engine, progress) = (site.backup_engine(), Progress::default());
    let job = engine.back_up(accident::deadline(case), &progress);
    let ended = accident::meet(site, case, &gate, job).await;

    accident::assert_fired(site, case);
    assert_no_leftovers(site);
    let stored = ledger.backups().await;
    match (case.end, &ended) {
        (End::Suspended, Ok(report)) => {
            assert!(report.suspension.is_some() && report.deleted == 0, "{case:?}: {report:?}");
            assert!(site.stored().await.contains(&MARK.to_owned()), "{case:?}");
            assert_eq!(stored.len(), good.len() + 1, "{case:?}: {stored:?}");
        }
        // Without the mark it would be the measure of the next one, and evict the good ones.
        (End::Failed(fault), Err(BackupError::Store(error))) if error.fault == fault => {
            assert_eq!(stored, good, "{case:?}");
        }
        (_, ended) => panic!("{case:?}: {ended:?}"),
    }
    assert!(good.iter().all(|name| stored.contains(name)), "{case:?}: only {stored:?} are left");

    site.script().heal();
    site.clock.jump(3600);
    let next = site.back_up().await;
    let report = next.unwrap_or_else(|error| panic!("{case:?}: {}", text::chain(&error)));
    assert!(report.suspension.is_some() && report.deleted == 0, "{case:?}: {report:?}");
    let stored = ledger.backups().await;
    assert!(good.iter().all(|name| stored.contains(name)), "{case:?}: only {stored:?} are left");
}
