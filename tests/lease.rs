//! The lease, on the in-memory store: who has it, who waits, who is fenced, and that nothing of
//! either is lost. Two real processes on a real protocol are in `deploys`.

mod deploys;
mod service;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStoreExt;
use simplebackup_engine::backup::{BackupEngine, BackupReport};
use simplebackup_engine::lease::{Lease, LeaseError, Standing};
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Existing, Fallback, Outcome, RestoreError, Restored};
use simplebackup_engine::store::{BackupStore, Fault, Patience};
use simplebackup_engine::work_dir::WorkFolder;
use tokio::time::Instant;

use crate::support::store::{Call, Trouble};
use crate::support::{START, Site, db, deadline, name};

const WAIT: Duration = Duration::from_mins(1);
const OBJECT: &str = "lease.json";

fn lease(site: &Site) -> Lease {
    Lease::new(site.store(), site.database(), WAIT, Arc::clone(&site.clock) as _)
}

/// A store that a backup of `site` goes to, with the lease in charge.
fn engine(site: &Site) -> BackupEngine {
    site.backup_engine().with_lease(Some(lease(site)))
}

async fn back_up(site: &Site) -> BackupReport {
    site.clock.jump(3600);
    engine(site).back_up(deadline(), &Progress::default()).await.expect("made")
}

async fn start(site: &Site) -> Result<Restored, RestoreError> {
    let engine = site.restore_engine().with_lease(Some(lease(site)));
    let long = simplebackup_engine::deadline::Deadline::after(2 * WAIT);
    engine.restore_if_missing(&site.database(), Fallback::Refuse, long, &Progress::default()).await
}

async fn release(site: &Site) {
    lease(site).release(deadline()).await.expect("released");
}

/// Puts the newest backup of the line in place of the database.
async fn restore_by_hand(site: &Site) {
    let (engine, database) = (site.restore_engine(), site.database());
    let listed = engine.store().list(deadline(), Patience::FewTries).await;
    let newest = listed.expect("listed").pop().expect("stored");
    let (aside, progress) = (Existing::MoveAside, Progress::default());
    let restored = engine.restore_to(&newest, &database, aside, deadline(), &progress).await;
    restored.expect("restored");
}

fn work_folder(site: &Site) -> PathBuf {
    WorkFolder::beside(&site.database()).path().to_owned()
}

fn is_fork(report: &BackupReport) -> bool {
    report.fork.is_some()
}

fn lease_error(result: Result<Restored, RestoreError>) -> LeaseError {
    match result {
        Err(RestoreError::Lease(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// Starts an instance with a database on a new machine.
async fn first_instance() -> Site {
    let site = Site::with_database();
    start(&site).await.expect("started");
    site
}

#[tokio::test(start_paused = true)]
async fn a_new_instance_waits_for_the_final_backup_and_restores_it() {
    let old = first_instance().await;
    back_up(&old).await;
    let new = old.another_machine();
    let leaving = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        db::add_row(&old.database(), "the last word");
        let last = back_up(&old).await;
        release(&old).await;
        last
    };

    let begun = Instant::now();
    let (last, started) = tokio::join!(leaving, start(&new));

    assert!((20..30).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let Outcome::FromBackup(report) = started.expect("started").outcome().clone() else {
        panic!("nothing restored")
    };
    assert_eq!(report.key, last.key);
    assert_eq!(db::dump(&new.database()), db::dump(&old.database()));
    assert!(!is_fork(&back_up(&new).await));
}

#[tokio::test(start_paused = true)]
async fn past_the_wait_it_takes_over_and_the_old_one_is_fenced() {
    let old = first_instance().await;
    let before = back_up(&old).await;
    let new = old.another_machine();

    let begun = Instant::now();
    start(&new).await.expect("started");

    assert!((WAIT..WAIT + Duration::from_secs(5)).contains(&begun.elapsed()));
    db::add_row(&old.database(), "written by the old one");
    let fenced: Vec<_> = [back_up(&old).await, back_up(&old).await].into();
    let line = back_up(&new).await;

    let fork = fenced[0].fork.clone().expect("fenced");
    let beside = |report: &BackupReport| format!("forks/{}/{}", fork.instance, report.key);
    let mut expected: Vec<_> = fenced.iter().map(beside).collect();
    expected.extend([before.key, line.key].map(|key| key.to_string()));
    expected.push(OBJECT.to_owned());
    expected.sort();
    assert_eq!(old.stored().await, expected, "nothing is lost, nothing superseded");

    // A third machine restores the line, and the fork can be had by its own address.
    release(&new).await;
    let third = old.another_machine();
    start(&third).await.expect("started");
    assert_eq!(db::dump(&third.database()), db::dump(&new.database()));
    let forks = old.store().fork(&fork.instance);
    let listed = forks.list(deadline(), Patience::FewTries).await;
    assert_eq!(listed.expect("listed").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_start_on_the_same_disk_takes_its_own_lease_back_at_once() {
    let site = first_instance().await;
    let begun = Instant::now();
    // As after a kill: nothing was released.
    start(&site).await.expect("started");
    release(&site).await;
    start(&site).await.expect("started");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(!is_fork(&back_up(&site).await));
}

/// Killed before it knew that it was fenced, and back on its old disk.
#[tokio::test(start_paused = true)]
async fn a_disk_from_which_the_line_has_moved_on_stays_fenced() {
    let old = first_instance().await;
    back_up(&old).await;
    let new = old.another_machine();
    start(&new).await.expect("started");
    back_up(&new).await;
    // Even released: what the old disk has is not what the line has.
    release(&new).await;

    let begun = Instant::now();
    let started = start(&old).await.expect("its app may run");
    assert_eq!(started.outcome(), &Outcome::AlreadyThere);
    assert!(begun.elapsed() < Duration::from_secs(1), "there is nothing to wait for");
    assert!(is_fork(&back_up(&old).await));
    start(&new).await.expect("its lease was left alone");
    assert!(!is_fork(&back_up(&new).await));
    release(&new).await;

    // The two ways back into the line: without a database, and with one restored by hand.
    let restored_by_hand = old.another_machine();
    old.lose_database();
    start(&old).await.expect("started");
    assert!(!is_fork(&back_up(&old).await));
    release(&old).await;
    start(&restored_by_hand).await.expect("started");
    release(&restored_by_hand).await;
    start(&old).await.expect("fenced");
    restore_by_hand(&old).await;
    start(&old).await.expect("started");
    assert!(!is_fork(&back_up(&old).await));
}

#[tokio::test(start_paused = true)]
async fn of_two_that_start_at_once_one_waits() {
    let one = Site::new();
    let two = one.another_machine();
    let both = async { tokio::join!(start(&one), start(&two)) };
    let begun = Instant::now();
    let (first, second) = both.await;
    first.expect("started");
    second.expect("started");
    assert!(begun.elapsed() >= WAIT, "one of them took over after its wait");
    db::create(&one.database(), "wal", 10);
    db::create(&two.database(), "wal", 10);
    let forks = [is_fork(&back_up(&one).await), is_fork(&back_up(&two).await)];
    assert_eq!(forks.iter().filter(|fork| **fork).count(), 1, "{forks:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_without_working_conditions_is_refused_before_anything_is_changed() {
    let holder = first_instance().await;
    let before = holder.get(OBJECT).await;
    for (trouble, text) in [
        (Trouble::IgnoreCondition, "ignores the condition"),
        (Trouble::Fail(Fault::Refused), "refuses conditional writes"),
    ] {
        let new = holder.another_machine();
        new.script().plan(Call::Put, .., trouble);
        let error = lease_error(start(&new).await).to_string();
        assert!(error.contains(text) && error.contains("lease.enabled"), "{error}");
        assert_eq!(holder.get(OBJECT).await, before);
        new.script().heal();
    }
    // On an empty prefix too.
    let empty = Site::with_database();
    empty.script().plan(Call::Put, .., Trouble::IgnoreCondition);
    lease_error(start(&empty).await);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = BackupStore::folder(folder.path()).expect("opened");
    let lease = Lease::new(store, empty.database(), WAIT, Arc::clone(&empty.clock) as _);
    let error = lease.acquire(true, deadline()).await.expect_err("refused").to_string();
    assert!(error.contains("is a folder"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_is_recognised() {
    let site = Site::with_database();
    site.script().plan(Call::Put, ..1, Trouble::LoseAnswer);
    start(&site).await.expect("started");
    assert!(!is_fork(&back_up(&site).await));
    let begun = Instant::now();
    site.script().plan(Call::Put, 2..3, Trouble::LoseAnswer);
    start(&site).await.expect("started");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_stops_only_a_start_without_a_database() {
    let site = first_instance().await;
    site.script().plan(Call::Get, .., Trouble::Fail(Fault::Unreachable));
    let started = start(&site).await.expect("its app may run");
    assert_eq!(started.outcome(), &Outcome::AlreadyThere);
    let new = site.another_machine();
    let error = lease_error(start(&new).await);
    assert!(error.is_of_the_store(), "{error:?}");
    assert!(!new.database().exists());
    // No backup goes where it may not belong.
    let failed = engine(&site).back_up(deadline(), &Progress::default()).await;
    let failed = failed.expect_err("unknown").to_string();
    assert!(failed.starts_with("reading of s3://mybucket/backups/lease.json failed"), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_lease_is_not_taken_for_none() {
    let site = Site::with_database();
    site.put(OBJECT, "<html>please log in</html>").await;
    let error = lease_error(start(&site).await).to_string();
    assert!(error.contains("is no lease of this program"), "{error}");
}

/// A start that fails after the lease was taken.
#[tokio::test(start_paused = true)]
async fn a_failed_start_keeps_nobody_waiting() {
    let site = Site::new();
    site.put(&name(START), "no archive").await;
    start(&site).await.expect_err("damaged");
    let begun = Instant::now();
    lease(&site.another_machine()).acquire(false, deadline()).await.expect("taken");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_lease_costs_one_get_a_backup_and_one_put_at_start_and_stop() {
    let site = first_instance().await;
    let engine = engine(&site);
    engine.back_up(deadline(), &Progress::default()).await.expect("made");
    let calls = || site.script().calls();
    // Two of the three at the start have to be refused: they prove that the store obeys.
    assert_eq!(calls()[..4], [Call::Get, Call::Put, Call::Put, Call::Put]);
    assert_eq!(calls()[4..], [Call::Get, Call::List, Call::Put]);
    release(&site).await;
    assert_eq!(calls()[7..], [Call::Get, Call::Put]);
    let standing = lease(&site).standing(deadline()).await.expect("read");
    assert_eq!(standing, Standing::Line, "a backup by hand after the stop");
}

/// The old one still runs, and nothing was stored in between.
#[tokio::test(start_paused = true)]
async fn a_takeover_that_came_to_nothing_leaves_the_lease_to_whom_it_was_taken_from() {
    let old = first_instance().await;
    let good = back_up(&old).await;
    let archive = old.get(&good.key.to_string()).await;
    old.put(&good.key.to_string(), "no archive").await;
    let new = old.another_machine();
    start(&new).await.expect_err("damaged");
    old.put(&good.key.to_string(), archive).await;
    assert!(!is_fork(&back_up(&old).await), "the line is still its own");
    start(&old).await.expect("its own lease");
}

/// As a clone of a virtual machine starts: with the same name.
#[tokio::test(start_paused = true)]
async fn of_a_disk_and_its_copy_only_one_adds_to_the_line() {
    let site = Site::with_database();
    let copied = site.another_machine();
    let first = lease(&site);
    first.acquire(true, deadline()).await.expect("taken");
    std::fs::create_dir_all(work_folder(&copied)).expect("made");
    for name in ["instance", "lease-held"] {
        let bytes = std::fs::read(work_folder(&site).join(name)).expect("read");
        std::fs::write(work_folder(&copied).join(name), bytes).expect("written");
    }
    site.clock.jump(60);
    let second = lease(&copied);
    second.acquire(true, deadline()).await.expect("taken");
    assert_eq!(second.standing(deadline()).await.expect("read"), Standing::Line);
    let standing = first.standing(deadline()).await.expect("read");
    assert!(matches!(standing, Standing::Fork(_)), "{standing:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_could_not_take_the_lease_takes_it_with_its_next_backup() {
    let site = Site::with_database();
    for fault in [Fault::Unreachable, Fault::AccessDenied] {
        let lease = lease(&site);
        site.script().plan(Call::Get, .., Trouble::Fail(fault));
        lease.acquire(true, deadline()).await.expect_err("down, or wrong keys");
        site.script().heal();
        assert_eq!(lease.standing(deadline()).await.expect("read"), Standing::Line);
        // So that a new one waits for the final backup.
        let begun = Instant::now();
        let new = site.another_machine();
        let leaving = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            lease.release(deadline()).await.expect("released");
        };
        let ((), started) = tokio::join!(leaving, start(&new));
        started.expect("started");
        assert!(begun.elapsed() >= Duration::from_secs(20), "{:?}", begun.elapsed());
        // Start over with nobody in possession.
        release(&new).await;
        site.objects().delete(&site.path_of(OBJECT)).await.expect("deleted");
    }
}

/// An app whose database is there runs, whatever is wrong with the store.
#[tokio::test(start_paused = true)]
async fn neither_wrong_keys_nor_a_silent_store_keep_an_app_from_its_database() {
    for trouble in [Trouble::Fail(Fault::AccessDenied), Trouble::Hang] {
        let site = first_instance().await;
        site.script().plan(Call::Get, .., trouble);
        let begun = Instant::now();
        let started = start(&site).await.expect("its app may run");
        assert_eq!(started.outcome(), &Outcome::AlreadyThere);
        assert!(begun.elapsed() <= Duration::from_secs(11), "{:?}", begun.elapsed());
    }
}

/// The answer to the write is an error: the lease is our own of before, and stays ours.
#[tokio::test(start_paused = true)]
async fn a_lease_that_could_not_be_renewed_at_the_start_is_still_ours() {
    let site = first_instance().await;
    site.clock.jump(60);
    let lease = lease(&site);
    site.script().plan(Call::Put, .., Trouble::Fail(Fault::AccessDenied));
    lease.acquire(true, deadline()).await.expect_err("not allowed to write now");
    site.script().heal();
    assert_eq!(lease.standing(deadline()).await.expect("read"), Standing::Line);
}
