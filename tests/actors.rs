//! The actors by their messages: the gate before the app, ticks by the clock, one backup at a
//! time, the final one behind it. The real engine works on a real file; only time is ours.

use std::time::Duration;

use simplebackup_actors::app::{AppEnd, AppError};
use simplebackup_actors::messages::{BackupRequestError, RestoreFailure, Trigger};
use simplebackup_actors::status::{AppState, Phase};
use simplebackup_actors::supervisor::{Ended, FinalBackup};
use simplebackup_engine::restore::{Outcome, RestoreError};
use simplebackup_engine::store::Fault;
use simplebackup_engine::text;
use simplebackup_engine::work_dir::WorkFolder;
use tokio::time::{Instant, advance, sleep};

use crate::support::script::Gate;
use crate::support::service::{
    AppCall, FINAL_TIMEOUT, RESTORE_TIMEOUT, ScriptedApp, Service, assert_stopped, on_paused_time,
    site,
};
use crate::support::store::{Call, Trouble};
use crate::support::{START, Site, db, name, visible_files_in};

const HOUR: i64 = 3600;

/// How much later than its deadline a stop may end (invariant I5).
const GRACE: Duration = Duration::from_secs(1);

/// A site whose clock runs, with a backup but without a database: a new machine.
async fn new_machine() -> Site {
    let site = Site::with_database();
    site.back_up().await.expect("made");
    site.lose_database();
    site.clock.start();
    site
}

#[test]
fn i8_the_app_starts_only_once_the_database_is_back() {
    on_paused_time(async {
        let site = new_machine().await;
        let gate = Gate::default();
        site.script().plan(Call::Get, .., Trouble::Hold(gate.clone()));
        let database = site.database();
        let app = ScriptedApp::obedient().on_start(move || {
            assert!(database.exists(), "started on a missing database");
            Ok(())
        });
        let service = Service::launch(&site, app.clone());

        gate.arrival().await;
        // By hand: time does not pass by itself while a thread waits for the download.
        advance(RESTORE_TIMEOUT / 2).await;
        assert_eq!((app.calls(), service.status().phase), (vec![], Phase::Starting));
        gate.release();
        service.is_up().await;

        assert_eq!(app.calls(), [AppCall::Start]);
        let status = service.status();
        assert_eq!((status.phase, status.app), (Phase::Running, AppState::Running(None)));
        assert_eq!(status.restored.expect("restored").key.to_string(), name(START));
        service.stop().await;
    });
}

/// `TestRestoreDatabase_MinIOUnreachable` of the specification, up to the app.
#[test]
fn i8_the_app_never_starts_when_the_store_cannot_be_reached() {
    on_paused_time(async {
        let site = new_machine().await;
        site.script().plan(Call::List, .., Trouble::Fail(Fault::Unreachable));
        let app = ScriptedApp::obedient();
        let started = Instant::now();
        let service = Service::launch(&site, app.clone());
        let ended = service.ended().await;

        let Ended::RestoreFailed(RestoreFailure::Engine(RestoreError::Store(error))) = &ended
        else {
            panic!("{ended:?}");
        };
        assert_eq!(error.fault, Fault::Unreachable);
        let chain = text::chain(error);
        assert!(chain.contains("connection reset"), "the cause is named: {chain}");
        assert!(site.script().count(Call::List) > 3, "tried again");
        assert!(started.elapsed() <= RESTORE_TIMEOUT + GRACE, "{:?}", started.elapsed());
        assert_eq!(app.calls(), []);
        assert_eq!(visible_files_in(site.root()), [""; 0]);
    });
}

#[test]
fn a_stop_during_the_restore_ends_at_once() {
    on_paused_time(async {
        let site = new_machine().await;
        let gate = Gate::default();
        site.script().plan(Call::Get, .., Trouble::Hold(gate.clone()));
        let app = ScriptedApp::obedient();
        let service = Service::launch(&site, app.clone());
        gate.arrival().await;
        let signalled = Instant::now();
        let ended = service.stop().await;
        assert!(matches!(ended, Ended::BeforeStart), "{ended:?}");
        assert!(signalled.elapsed() < GRACE);
        assert_eq!(app.calls(), []);
    });
}

#[test]
fn without_a_backup_the_app_starts_fresh_and_its_database_is_backed_up() {
    on_paused_time(async {
        let site = Site::new();
        site.clock.start();
        let database = site.database();
        let app = ScriptedApp::obedient().on_start(move || {
            db::create(&database, "wal", 10);
            Ok(())
        });
        let service = Service::launch(&site, app);
        service.is_up().await;
        assert_eq!(service.status().stored, Some((0, 0)));
        assert_stopped(&service.stop().await, &FinalBackup::Made);
        assert_eq!(site.stored().await, [name(START)]);
    });
}

#[test]
fn switched_off_nothing_is_restored_or_stored() {
    on_paused_time(async {
        let site = new_machine().await;
        let calls_before = site.script().calls().len();
        let app = ScriptedApp::obedient();
        let service = Service::launch_disabled(&site, app.clone());
        sleep(Duration::from_hours(3)).await;
        assert_stopped(&service.stop().await, &FinalBackup::NotWanted);
        assert_eq!(app.calls(), [AppCall::Start, AppCall::Drain]);
        assert_eq!(site.script().calls().len(), calls_before);
        assert_eq!(visible_files_in(site.root()), [""; 0]);
    });
}

#[test]
fn an_app_that_does_not_start_ends_the_service() {
    on_paused_time(async {
        let site = site();
        let app =
            ScriptedApp::obedient().on_start(|| Err(AppError::NotFound("./server".to_owned())));
        let ended = Service::launch(&site, app).ended().await;
        assert!(matches!(ended, Ended::AppFailed(AppError::NotFound(_))), "{ended:?}");
    });
}

#[test]
fn every_full_hour_has_its_backup_and_three_stay() {
    on_paused_time(async {
        let site = site();
        let service = Service::launch(&site, ScriptedApp::obedient());
        service.is_up().await;
        sleep(Duration::from_mins(4 * 60 + 30)).await;

        assert_eq!(site.stored().await, [2, 3, 4].map(|hour| name(START + hour * HOUR)));
        let status = service.status();
        assert_eq!(status.counts[Trigger::Tick.index()].succeeded, 4);
        assert_eq!(status.next_tick.expect("one is due").timestamp(), START + 5 * HOUR);
        assert_eq!(status.stored.expect("known").0, 3);
        service.stop().await;
    });
}

#[test]
fn i9_a_tick_without_a_database_is_a_failure_and_the_next_one_tries_again() {
    on_paused_time(async {
        let site = site();
        let service = Service::launch(&site, ScriptedApp::obedient());
        service.is_up().await;
        site.lose_database();
        sleep(Duration::from_mins(90)).await;
        let status = service.status();
        assert_eq!(status.counts[Trigger::Tick.index()].failed, 1);
        assert!(status.last_error.expect("known").error.contains("database not found at"));
        assert!(!site.database().exists(), "no file is created");
        assert_eq!(site.stored().await, [""; 0]);

        db::create(&site.database(), "wal", 10);
        sleep(Duration::from_hours(1)).await;
        assert_eq!(service.status().counts[Trigger::Tick.index()].succeeded, 1);
        service.stop().await;
    });
}

#[test]
fn i4_a_request_during_a_backup_is_refused_at_once() {
    on_paused_time(async {
        let site = site();
        let gate = Gate::default();
        site.script().plan(Call::Put, .., Trouble::Hold(gate.clone()));
        let service = Service::launch(&site, ScriptedApp::obedient());
        gate.arrival().await;

        let asked = Instant::now();
        let refused = service.back_up().await.expect_err("one runs");
        assert_eq!(asked.elapsed(), Duration::ZERO);
        let BackupRequestError::InProgress { trigger: Trigger::Tick, since } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(since.timestamp(), START + HOUR);
        assert_eq!(service.status().counts[Trigger::Manual.index()].refused, 1);

        gate.release();
        service.wait_until(|status| status.current.is_none()).await;
        site.script().heal();
        service.back_up().await.expect("admitted again");
        service.stop().await;
    });
}

#[test]
fn i9_a_tick_during_a_long_backup_is_refused_and_counted() {
    on_paused_time(async {
        let site = site();
        site.script().plan(Call::Put, .., Trouble::Delay(Duration::from_mins(90)));
        let service = Service::launch_with(&site, ScriptedApp::obedient(), |protection| {
            protection.backup.run_timeout = Duration::from_hours(2);
        });
        let status =
            service.wait_until(|status| status.counts[Trigger::Tick.index()].succeeded == 1).await;
        assert_eq!(status.counts[Trigger::Tick.index()].refused, 1);
        site.script().heal();
        service.stop().await;
    });
}

#[test]
fn the_final_backup_holds_what_the_app_wrote_last() {
    on_paused_time(async {
        let site = site();
        let database = site.database();
        let app = ScriptedApp::obedient().on_drain(async move {
            sleep(Duration::from_secs(3)).await;
            let app = db::open(&database);
            app.execute("INSERT INTO notes (text) VALUES ('last words')", []).expect("written");
            AppEnd::Exited(0)
        });
        let service = Service::launch(&site, app);
        service.is_up().await;
        let ended = service.stop().await;

        assert_stopped(&ended, &FinalBackup::Made);
        let written = db::dump(&site.database());
        site.lose_database();
        let restored = site.restore().await.expect("restored");
        assert!(matches!(restored.outcome(), Outcome::FromBackup(_)));
        assert_eq!(db::dump(&site.database()), written);
    });
}

#[test]
fn the_final_backup_waits_behind_a_running_one() {
    on_paused_time(async {
        let site = site();
        let gate = Gate::default();
        site.script().plan(Call::Put, ..1, Trouble::Hold(gate.clone()));
        let service = Service::launch(&site, ScriptedApp::obedient());
        gate.arrival().await;
        service.signal().await;
        sleep(Duration::from_secs(10)).await;
        let refused = service.back_up().await.expect_err("stopping");
        assert!(matches!(refused, BackupRequestError::ShuttingDown), "{refused:?}");
        gate.release();

        assert_stopped(&service.ended().await, &FinalBackup::Made);
        assert_eq!(site.stored().await, [name(START + HOUR), name(START + HOUR + 10)]);
    });
}

#[test]
fn i5_a_final_backup_behind_a_hanging_one_ends_with_its_deadline() {
    on_paused_time(async {
        let site = site();
        site.script().plan(Call::Put, .., Trouble::Hang);
        let service = Service::launch(&site, ScriptedApp::obedient());
        service.wait_until(|status| status.current.is_some()).await;
        sleep(Duration::from_secs(1)).await;
        let signalled = Instant::now();
        assert_stopped(&service.stop().await, &FinalBackup::Missing);
        let took = signalled.elapsed();
        assert!((FINAL_TIMEOUT..FINAL_TIMEOUT + GRACE).contains(&took), "{took:?}");
        assert_eq!(site.stored().await, [""; 0]);
    });
}

#[test]
fn i5_a_final_backup_that_hangs_ends_with_its_deadline_and_leaves_nothing() {
    on_paused_time(async {
        let site = site();
        site.script().plan(Call::Put, .., Trouble::Hang);
        let service = Service::launch(&site, ScriptedApp::obedient());
        service.is_up().await;
        let signalled = Instant::now();
        assert_stopped(&service.stop().await, &FinalBackup::Missing);
        let took = signalled.elapsed();
        assert!((FINAL_TIMEOUT..FINAL_TIMEOUT + GRACE).contains(&took), "{took:?}");
        assert_eq!(site.stored().await, [""; 0]);
        site.assert_no_leftovers();
    });
}

#[test]
fn the_final_backup_waits_for_a_backup_of_another_process() {
    on_paused_time(async {
        let site = site();
        let service = Service::launch(&site, ScriptedApp::obedient());
        service.is_up().await;
        let other = WorkFolder::beside(&site.database()).lock_run().expect("free");
        let refused = service.back_up().await.expect_err("held elsewhere");
        assert!(matches!(refused, BackupRequestError::InProgressElsewhere { .. }), "{refused:?}");
        service.signal().await;
        sleep(Duration::from_secs(2)).await;
        drop(other);
        assert_stopped(&service.ended().await, &FinalBackup::Made);
        assert_eq!(site.stored().await.len(), 1);
    });
}

#[test]
fn ticks_that_the_machine_slept_over_are_counted_and_made_up_for_by_one() {
    on_paused_time(async {
        let site = site();
        let service = Service::launch(&site, ScriptedApp::obedient());
        service.is_up().await;
        sleep(Duration::from_mins(30)).await;
        site.clock.jump(5 * HOUR);
        sleep(Duration::from_mins(2)).await;
        let status = service.status();
        assert_eq!(status.ticks_missed, 4, "11:00 is made up for; 12:00 to 15:00 are not");
        assert_eq!(status.counts[Trigger::Tick.index()].succeeded, 1);
        assert_eq!(status.next_tick.expect("one is due").timestamp(), START + 6 * HOUR);
        service.stop().await;
    });
}

#[test]
fn a_clock_that_goes_back_neither_stops_the_ticks_nor_brings_them_in_a_burst() {
    on_paused_time(async {
        let site = site();
        let service = Service::launch(&site, ScriptedApp::obedient());
        service.is_up().await;
        sleep(Duration::from_mins(90)).await;
        site.clock.jump(-24 * HOUR);
        sleep(Duration::from_hours(2)).await;
        let status = service.status();
        assert_eq!(status.counts[Trigger::Tick.index()].succeeded, 3);
        assert_eq!(status.ticks_missed, 0);
        // Named by the newest, not by the wrong clock: the newest backup is the last one made.
        assert_eq!(site.stored().await, [0, 1, 2].map(|n| name(START + HOUR + n)));
        service.stop().await;
    });
}

#[test]
fn the_status_knows_the_stored_backups_before_the_first_tick() {
    on_paused_time(async {
        let site = Site::with_database();
        site.back_up().await.expect("made");
        site.clock.start();
        let service = Service::launch(&site, ScriptedApp::obedient());
        let status = service.wait_until(|status| status.stored.is_some()).await;
        assert_eq!(status.stored.expect("known").0, 1);
        assert_eq!(status.last_backup.expect("known").key.to_string(), name(START));
        assert!(status.last_report.is_none(), "this process has made none");
        service.stop().await;
    });
}
