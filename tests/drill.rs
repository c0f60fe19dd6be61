//! Restore drills: what they find, what they say, and what they must not touch.

mod by_hand;
mod header;
mod service;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use simplebackup::config::Config;
use simplebackup_actors::messages::Trigger;
use simplebackup_actors::status::{Counts, Status};
use simplebackup_actors::supervisor::{FinalBackup, Protection};
use simplebackup_actors::verify::VerifyPlan;
use simplebackup_engine::clock::Clock;
use simplebackup_engine::manifest::Counted;
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{DrillError, Drilled, RestoreEngine};
use simplebackup_engine::store::Fault;
use tokio::time::{Instant, advance, sleep};

use crate::support::process::PATIENCE;
use crate::support::script::Gate;
use crate::support::service::{
    PanickingClock, ScriptedApp, Service, assert_stopped, on_paused_time, site,
};
use crate::support::store::{Call, Trouble};
use crate::support::{START, Site, deadline, gzip, leftovers, name, visible_files_in};

/// Half an hour after each backup of the schedule.
const HALF_PAST: &str = "0 30 * * * *";
/// Over before the next one: a run that meets the trouble of a drill would hold up the final backup.
const DRILL_TIMEOUT: Duration = Duration::from_mins(29);

fn half_past(protection: &mut Protection) {
    let schedule = Some(HALF_PAST.parse().expect("a sound schedule"));
    protection.verify = VerifyPlan { schedule, timeout: DRILL_TIMEOUT };
}

/// A service with drills whose store has a backup, and which has looked at its store.
async fn launch(site: &Site) -> Service {
    launch_with(site, |_protection| {}).await
}

async fn launch_with(site: &Site, change: impl FnOnce(&mut Protection)) -> Service {
    let service = Service::launch_with(site, ScriptedApp::obedient(), |protection| {
        half_past(protection);
        change(protection);
    });
    service.is_up().await;
    service.wait_until(|status| status.stored.is_some()).await;
    service
}

async fn site_with_backup() -> Site {
    let site = site();
    site.back_up().await.expect("made");
    site
}

async fn drill(site: &Site) -> Result<Drilled, DrillError> {
    site.restore_engine().drill(&site.database(), deadline(), &Progress::default()).await
}

/// Holds the download of a drill, and lets the time of the first one come.
async fn hold_a_drill(site: &Site) -> (Service, Gate) {
    let gate = Gate::default();
    let service = launch(site).await;
    site.script().plan(Call::Get, ..1, Trouble::Hold(gate.clone()));
    gate.arrival().await;
    (service, gate)
}

/// Waits, in real time, until the thread of a drill that was dropped has cleaned up.
async fn assert_drill_is_gone(site: &Site) {
    let is_gone = || leftovers(&site.database()).is_empty();
    in_real_time(is_gone, "a drill that nobody wants goes on").await;
}

/// Waits without letting the clock of the service go on.
async fn in_real_time(is_so: impl Fn() -> bool, otherwise: &str) {
    let until = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < until, "{otherwise}");
        tokio::task::yield_now().await;
    }
}

fn ticked(status: &Status) -> u64 {
    status.counts[Trigger::Tick.index()].succeeded
}

#[test]
fn a_sound_backup_is_said_to_be_and_nothing_else_is_touched() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let files = ["app.db", "app.db-wal", "app.db-shm"].map(|name| site.root().join(name));
        let look = || files.clone().map(|path| (fs::read(&path).ok(), path));
        let before = look();
        let service = launch(&site).await;
        let status = service.wait_until(|status| status.last_verified.is_some()).await;

        let drilled = status.last_verified.expect("it waited for it");
        assert_eq!(drilled.key.to_string(), name(START));
        assert_eq!(drilled.ended_at.timestamp(), START + 1800);
        assert_eq!(drilled.counted, Counted { tables: 3, rows: 206 });
        assert_eq!(drilled.metadata_warning, None);
        assert_eq!(status.last_verify_error, None);
        assert_eq!(status.counts, [Counts::default(); 3], "a drill is no backup");
        assert!(look() == before, "the database changed");
        site.assert_no_leftovers();
        assert_eq!(site.stored().await, [name(START)]);
        service.stop().await;
    });
}

#[test]
fn without_a_schedule_no_request_is_made() {
    assert_eq!(Config::default().verify_schedule, None);
    on_paused_time(async {
        let site = site_with_backup().await;
        let service = Service::launch(&site, ScriptedApp::obedient());
        service.wait_until(|status| ticked(status) == 3).await;
        let (lists, gets) = (site.script().count(Call::List), site.script().count(Call::Get));
        // By hand, at the start, and before each upload; the start of the backup before the first.
        assert_eq!((lists, gets), (1 + 1 + 3, 1));
        assert_eq!(service.status().last_verified, None);
        service.stop().await;
    });
}

#[test]
fn a_damaged_newest_backup_is_loud_and_the_backups_go_on() {
    on_paused_time(async {
        let site = site_with_backup().await;
        site.put(&name(START + 1), gzip(b"no database at all, however long it may be")).await;
        let service = launch(&site).await;
        let status = service.wait_until(|status| status.last_verify_error.is_some()).await;
        let (at, error) = status.last_verify_error.expect("it waited for it");
        assert_eq!(at.timestamp(), START + 1800);
        assert!(
            error.starts_with(&format!("backup {} is damaged; make", name(START + 1))),
            "{error}"
        );
        assert!(error.contains("simplebackup verify --all"), "{error}");
        assert_eq!((status.last_verified, status.last_error), (None, None));

        let status = service.wait_until(|status| status.last_verified.is_some()).await;
        assert_eq!(ticked(&status), 1);
        let drilled = status.last_verified.expect("it waited for it");
        assert_eq!(drilled.key.to_string(), name(START + 3600), "the next one is sound");
        assert_stopped(&service.stop().await, &FinalBackup::Made);
        site.assert_no_leftovers();
    });
}

#[test]
fn nothing_stored_is_no_success() {
    on_paused_time(async {
        let site = site();
        let service = launch(&site).await;
        let status = service.wait_until(|status| status.last_verify_error.is_some()).await;
        let (_, error) = status.last_verify_error.expect("it waited for it");
        assert!(error.starts_with("no backup is stored in s3://mybucket/backups/;"), "{error}");
        assert_eq!(status.last_verified, None);
        assert_eq!(site.script().count(Call::Get), 0);
        service.stop().await;
    });
}

#[test]
fn a_store_that_cannot_be_reached_fails_the_drill_and_no_backup() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let service = launch(&site).await;
        site.script().plan(Call::List, .., Trouble::Fail(Fault::AccessDenied));
        let status = service.wait_until(|status| status.last_verify_error.is_some()).await;
        let (_, error) = status.last_verify_error.expect("it waited for it");
        assert!(error.contains("access denied; check MINIO_ACCESS_KEY"), "{error}");
        site.script().heal();
        let status = service.wait_until(|status| status.last_verified.is_some()).await;
        assert_eq!(status.counts[Trigger::Tick.index()].failed, 0);
        service.stop().await;
    });
}

#[test]
fn a_drill_that_hangs_ends_with_its_deadline() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let (service, _gate) = hold_a_drill(&site).await;
        // By hand: time does not pass by itself while a thread waits for the download.
        while site.clock.now().timestamp()
            < START + 1800 + DRILL_TIMEOUT.as_secs().cast_signed() + 10
        {
            site.script().plan(Call::Get, .., Trouble::Hang);
            advance(Duration::from_secs(10)).await;
            tokio::task::yield_now().await;
        }
        // And no further: a busy machine lets that thread wait while hours of the clock fly by.
        let is_over = || service.status().last_verify_error.is_some();
        in_real_time(is_over, "the drill goes on after its deadline").await;
        let (at, error) = service.status().last_verify_error.expect("it waited for it");
        let took = at.timestamp() - START - 1800;
        assert!((1740..=1750).contains(&took), "{took}");
        assert!(error.contains("download of s3://mybucket/backups/"), "{error}");
        site.script().heal();
        assert_stopped(&service.stop().await, &FinalBackup::Made);
        assert_drill_is_gone(&site).await;
    });
}

#[test]
fn a_backup_is_made_while_a_drill_runs() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let (service, gate) = hold_a_drill(&site).await;
        let report = service.back_up().await.expect("made meanwhile");
        assert_eq!(report.key.to_string(), name(START + 1800));
        assert_eq!(service.status().last_verified, None);
        gate.release();
        let status = service.wait_until(|status| status.last_verified.is_some()).await;
        assert_eq!(status.last_verified.expect("sound").key.to_string(), name(START));
        service.stop().await;
    });
}

#[test]
fn a_drill_is_made_while_a_backup_runs() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let service = launch_with(&site, |protection| protection.backup.run_timeout *= 10).await;
        let gate = Gate::default();
        site.script().plan(Call::Put, .., Trouble::Hold(gate.clone()));
        // The drill of 10:30 comes before the backup of 11:00, that of 11:30 in the midst of it.
        let first = service.wait_until(|status| status.last_verified.is_some()).await;
        gate.arrival().await;
        let second = service.wait_until(|status| status.last_verified != first.last_verified).await;
        assert!(second.current.is_some(), "the backup goes on");
        assert_eq!(second.last_verified.expect("sound").key.to_string(), name(START));
        gate.release();
        service.wait_until(|status| ticked(status) == 1).await;
        site.script().heal();
        service.stop().await;
    });
}

#[test]
fn a_drill_that_comes_while_one_runs_is_refused() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let service = launch_with(&site, |protection| {
            let schedule = "*/2 * * * * *".parse().expect("a sound schedule");
            protection.verify.schedule = Some(schedule);
        })
        .await;
        let gate = Gate::default();
        site.script().plan(Call::Get, .., Trouble::Hold(gate.clone()));
        gate.arrival().await;
        let calls = site.script().calls().len();
        // Not longer: the client would take the silence for a broken connection.
        for _ in 0..5 {
            advance(Duration::from_secs(2)).await;
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(site.script().calls().len(), calls, "another one asked the store");
        site.script().heal();
        gate.release();
        let status = service.wait_until(|status| status.last_verified.is_some()).await;
        assert_eq!(status.last_verified.expect("sound").ended_at.timestamp(), START + 12);
        service.stop().await;
    });
}

#[test]
fn i5_i7_a_stop_ends_a_drill_at_once_and_it_leaves_nothing() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let (service, _gate) = hold_a_drill(&site).await;
        let signalled = Instant::now();
        service.signal().await;
        let status = service.status();
        assert_stopped(&service.ended().await, &FinalBackup::Made);
        assert!(signalled.elapsed() < Duration::from_secs(1), "{:?}", signalled.elapsed());
        assert_eq!((status.last_verified, status.last_verify_error), (None, None));
        assert_drill_is_gone(&site).await;
        assert_eq!(visible_files_in(site.root()).first().map(String::as_str), Some("app.db"));
    });
}

#[test]
fn a_backup_that_was_deleted_meanwhile_gives_way_to_the_newer_one() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let service = launch(&site).await;
        site.script().plan(Call::List, ..1, Trouble::Remember(START + 1));
        let status = service.wait_until(|status| status.last_verified.is_some()).await;
        assert_eq!(status.last_verified.expect("sound").key.to_string(), name(START));
        assert_eq!(status.last_verify_error, None);

        // One that is listed always and never there is a fault of the store.
        site.script().plan(Call::List, .., Trouble::Remember(START + 999_999));
        let error = drill(&site).await.expect_err("not there");
        assert!(error.to_string().contains("no such object"), "{error}");
        site.script().heal();
        service.stop().await;
    });
}

#[test]
fn a_drill_that_panics_is_a_failure_and_the_next_one_is_made() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let clock: Arc<dyn Clock> = Arc::clone(&site.clock) as _;
        let engine = RestoreEngine::new(site.store(), PanickingClock::over(clock, 1));
        let service = launch_with(&site, |protection| protection.restore.engine = engine).await;
        let status = service.wait_until(|status| status.last_verify_error.is_some()).await;
        let (_, error) = status.last_verify_error.expect("it waited for it");
        assert!(error.contains("planned: the clock is broken; this is a defect"), "{error}");
        let status = service.wait_until(|status| status.last_verified.is_some()).await;
        assert_eq!(status.restarts, 0);
        service.stop().await;
    });
}

#[test]
fn replaced_actors_end_their_drill_and_make_others() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let clock = PanickingClock::over(Arc::clone(&site.clock) as _, 1);
        let service = launch_with(&site, |protection| protection.backup.clock = clock).await;
        let gate = Gate::default();
        site.script().plan(Call::Get, ..1, Trouble::Hold(gate.clone()));
        gate.arrival().await;
        service.back_up().await.expect_err("its actor dies of it");
        service.wait_until(|status| status.restarts == 1).await;
        assert_drill_is_gone(&site).await;
        sleep(Duration::from_mins(90)).await;
        let status = service.status();
        assert_eq!(status.last_verified.expect("a later one").ended_at.timestamp(), START + 5400);
        assert_eq!(status.last_verify_error, None);
        service.stop().await;
    });
}

#[test]
fn drills_that_the_machine_slept_over_are_made_up_for_by_one() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let service = launch(&site).await;
        sleep(Duration::from_mins(10)).await;
        site.clock.jump(5 * 3600);
        sleep(Duration::from_mins(2)).await;
        let status = service.status();
        // Of 10:30 to 14:30, and of 11:00 to 15:00, one each is made up for.
        assert!(status.last_verified.is_some() && ticked(&status) == 1, "{status:?}");
        assert_eq!(status.ticks_missed, 8);
        service.stop().await;
    });
}
