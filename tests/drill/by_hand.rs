//! Drills that a person asks for: the actor is there without a schedule, and costs nothing until then.

use simplebackup_actors::messages::{Trigger, VerifyRequestError};

use super::*;

/// A service without a schedule for drills, whose store has a backup.
async fn launch_without_schedule(site: &Site) -> Service {
    let service = Service::launch(site, ScriptedApp::obedient());
    service.wait_until(|status| status.stored.is_some()).await;
    service
}

#[test]
fn a_person_gets_a_drill_without_a_schedule() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let service = launch_without_schedule(&site).await;
        let drilled = service.verify().await.expect("sound");
        assert_eq!((drilled.key.to_string(), drilled.counted.rows), (name(START), 206));
        let status = service.status();
        assert_eq!(status.last_verified, Some(drilled));
        assert!(status.drill.is_none(), "{:?}", status.drill);
        service.stop().await;
    });
}

#[test]
fn a_second_asker_is_refused_and_the_status_shows_the_first() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let service = launch_without_schedule(&site).await;
        let gate = Gate::default();
        site.script().plan(Call::Get, .., Trouble::Hold(gate.clone()));
        let first = service.verify();
        let second = async {
            gate.arrival().await;
            let refused = service.verify().await.expect_err("one runs");
            assert!(matches!(refused, VerifyRequestError::InProgress { .. }), "{refused}");
            let shown = service.status().drill.expect("shown");
            assert_eq!(
                (shown.trigger, shown.progress.stage().name()),
                (Trigger::Manual, "download")
            );
            site.script().heal();
            gate.release();
        };
        let (first, ()) = tokio::join!(first, second);
        first.expect("sound");
        service.stop().await;
    });
}

#[test]
fn i5_a_stop_drops_a_drill_that_a_person_wants() {
    on_paused_time(async {
        let site = site_with_backup().await;
        let service = launch_without_schedule(&site).await;
        let gate = Gate::default();
        site.script().plan(Call::Get, .., Trouble::Hold(gate.clone()));
        let first = service.verify();
        let stop = async {
            gate.arrival().await;
            site.script().heal();
            service.signal().await;
        };
        let (first, ()) = tokio::join!(first, stop);
        assert!(matches!(first, Err(VerifyRequestError::Stopped)), "{first:?}");
        assert!(service.status().drill.is_none());
        let refused = service.verify().await;
        assert!(matches!(refused, Err(VerifyRequestError::Stopped)), "{refused:?}");
        assert_stopped(&service.ended().await, &FinalBackup::Made);
    });
}
