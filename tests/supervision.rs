//! What goes on when actors die, jobs panic, and apps do as they like.

use std::sync::Arc;
use std::time::Duration;

use simplebackup_actors::app::AppEnd;
use simplebackup_actors::messages::{BackupRequestError, StopCause, Trigger};
use simplebackup_actors::status::{AppState, Counts};
use simplebackup_actors::supervisor::{Ended, FinalBackup};
use simplebackup_engine::backup::BackupEngine;
use simplebackup_engine::clock::Clock;
use simplebackup_engine::retention::Retention;
use simplebackup_engine::work_dir::WorkFolder;
use tokio::time::{Instant, sleep};

use crate::support::process::eventually;
use crate::support::script::Gate;
use crate::support::service::{
    APP_TIMEOUT, AppCall, PanickingClock, ScriptedApp, Service, assert_final_backup_made,
    on_paused_time, site,
};
use crate::support::store::{Call, Trouble};
use crate::support::{START, Site, name};

/// A clock that makes the handlers of a backup actor panic this often.
fn panicking(site: &Site, panics: usize) -> Arc<dyn Clock> {
    PanickingClock::over(Arc::clone(&site.clock) as _, panics)
}

/// Launches a service whose backup actors die this often when they are asked for a backup.
fn launch_dying(site: &Site, deaths: usize) -> Service {
    let clock = panicking(site, deaths);
    Service::launch_with(site, ScriptedApp::obedient(), |protection| {
        protection.backup.clock = clock;
    })
}

#[test]
fn a_dead_backup_actor_is_replaced_with_its_scheduler() {
    on_paused_time(async {
        let site = site();
        let service = launch_dying(&site, 1);
        let refused = service.back_up().await.expect_err("it dies of it");
        assert!(matches!(refused, BackupRequestError::ActorGone), "{refused:?}");
        service.wait_until(|status| status.restarts == 1).await;
        service.back_up().await.expect("the new one works");
        assert!(service.status().next_tick.is_some(), "the new scheduler's, not the old one's");
        sleep(Duration::from_mins(90)).await;
        let status = service.status();
        assert_eq!(status.counts[Trigger::Tick.index()].succeeded, 1, "one scheduler ticks");
        assert_eq!(status.restarts, 1);
        service.stop().await;
    });
}

#[test]
fn i9_a_tick_of_which_the_actor_dies_is_a_failure() {
    on_paused_time(async {
        let site = site();
        let service = launch_dying(&site, 1);
        let status = service
            .wait_until(|status| status.counts[Trigger::Tick.index()] != Counts::default())
            .await;
        assert_eq!(status.counts[Trigger::Tick.index()].failed, 1);
        assert!(status.last_error.expect("known").error.contains("actor ended"));
        service.stop().await;
    });
}

#[test]
fn actors_that_die_too_often_end_the_service_with_a_final_backup() {
    on_paused_time(async {
        let site = site();
        let service = launch_dying(&site, 4);
        for restarts in 1..=3 {
            service.back_up().await.expect_err("it dies of it");
            service.wait_until(|status| status.restarts == restarts).await;
        }
        service.back_up().await.expect_err("it dies of it");
        let ended = service.ended().await;
        let Ended::Stopped { cause: StopCause::ActorsDied, final_backup, .. } = ended else {
            panic!("{ended:?}");
        };
        assert_eq!(final_backup, FinalBackup::Made);
        assert_eq!(site.stored().await, [name(START)]);
    });
}

#[test]
fn deaths_far_apart_are_no_reason_to_give_up() {
    on_paused_time(async {
        let site = site();
        let service = launch_dying(&site, 6);
        for restarts in 1..=6 {
            service.back_up().await.expect_err("it dies of it");
            service.wait_until(|status| status.restarts == restarts).await;
            sleep(Duration::from_mins(5)).await;
        }
        service.back_up().await.expect("still there");
        service.stop().await;
    });
}

#[test]
fn a_job_that_panics_is_a_failure_and_its_actor_lives() {
    on_paused_time(async {
        let site = site();
        // The engine reads its clock once a backup, inside the job.
        let engine = BackupEngine::new(
            site.database(),
            site.store(),
            Retention::newest(std::num::NonZeroUsize::MIN),
            panicking(&site, 1),
        );
        let service = Service::launch_with(&site, ScriptedApp::obedient(), |protection| {
            protection.backup.engine = engine;
        });
        let failed = service.back_up().await.expect_err("it panics");
        let BackupRequestError::Panicked(text) = &failed else { panic!("{failed:?}") };
        assert!(text.contains("planned"), "{text}");
        let status = service.status();
        assert_eq!((status.counts[Trigger::Manual.index()].failed, status.restarts), (1, 0));
        // The check, on a thread of its own, holds the lock until it sees that nobody waits for it.
        let lock = || WorkFolder::beside(&site.database()).lock_run();
        eventually("the lock is free", || lock().is_ok());
        service.back_up().await.expect("it lives");
        site.assert_no_leftovers();
        service.stop().await;
    });
}

#[test]
fn the_end_of_the_app_ends_the_service_after_a_final_backup() {
    on_paused_time(async {
        for end in [AppEnd::Exited(0), AppEnd::Exited(3), AppEnd::Signalled(11)] {
            let site = site();
            let app = ScriptedApp::obedient();
            let service = Service::launch(&site, app.clone());
            service.is_up().await;
            app.end(end);
            let ended = service.ended().await;
            let Ended::Stopped { cause, app: said, final_backup, .. } = ended else {
                panic!("{ended:?}");
            };
            assert_eq!((cause, said), (StopCause::AppEnded, end));
            assert_eq!(final_backup, FinalBackup::Made);
            assert_eq!(site.stored().await, [name(START)]);
        }
    });
}

#[test]
fn i5_an_app_that_never_answers_does_not_hold_the_final_backup_up() {
    on_paused_time(async {
        let site = site();
        let app = ScriptedApp::obedient().on_drain(std::future::pending());
        let service = Service::launch(&site, app.clone());
        service.is_up().await;
        let signalled = Instant::now();
        let ended = service.stop().await;
        assert_final_backup_made(&ended);
        let took = signalled.elapsed();
        assert!(took >= APP_TIMEOUT && took < APP_TIMEOUT + Duration::from_secs(2), "{took:?}");
        assert_eq!(app.calls(), [AppCall::Start, AppCall::Drain]);
    });
}

#[test]
fn a_second_signal_abandons_the_stop_at_once() {
    on_paused_time(async {
        let site = site();
        site.script().plan(Call::Put, .., Trouble::Hang);
        let service = Service::launch(&site, ScriptedApp::obedient());
        service.is_up().await;
        service.signal().await;
        sleep(Duration::from_secs(1)).await;
        let again = Instant::now();
        let ended = service.stop().await;
        assert!(matches!(ended, Ended::Abandoned), "{ended:?}");
        assert_eq!(again.elapsed(), Duration::ZERO);
        assert_eq!(site.stored().await, [""; 0]);
    });
}

/// The first signal comes while the final backup of an app that ended runs: nobody asked twice.
#[test]
fn a_first_signal_during_the_stop_of_an_app_that_ended_changes_nothing() {
    on_paused_time(async {
        let site = site();
        let gate = Gate::default();
        site.script().plan(Call::Put, .., Trouble::Hold(gate.clone()));
        let app = ScriptedApp::obedient();
        let service = Service::launch(&site, app.clone());
        service.is_up().await;
        app.end(AppEnd::Exited(1));
        gate.arrival().await;
        service.signal().await;
        gate.release();
        let ended = service.ended().await;
        assert_final_backup_made(&ended);
    });
}

/// `timeout` and terminals send one to the process and another to its group.
#[test]
fn signals_within_a_second_mean_one_stop() {
    on_paused_time(async {
        let site = site();
        let app = ScriptedApp::obedient().on_drain(async {
            sleep(Duration::from_secs(2)).await;
            AppEnd::Exited(0)
        });
        let service = Service::launch(&site, app);
        service.is_up().await;
        service.signal().await;
        service.signal().await;
        sleep(Duration::from_millis(900)).await;
        let ended = service.stop().await;
        assert_final_backup_made(&ended);
    });
}

#[test]
fn no_tick_comes_once_the_stop_has_begun() {
    on_paused_time(async {
        let site = site();
        let app = ScriptedApp::obedient().on_drain(async {
            sleep(Duration::from_secs(9)).await;
            AppEnd::Exited(0)
        });
        let service = Service::launch(&site, app);
        service.is_up().await;
        // Five seconds before the hour, with an app that takes nine to leave.
        sleep(Duration::from_hours(1) - Duration::from_secs(5)).await;
        service.signal().await;
        let status =
            service.wait_until(|status| status.app == AppState::Ended(AppEnd::Exited(0))).await;
        assert_eq!(status.counts[Trigger::Tick.index()].succeeded, 0);
        assert_eq!(status.next_tick, None);
        service.ended().await;
        assert_eq!(site.stored().await.len(), 1, "the final one alone");
    });
}
