//! The lease in a running service: what its actors give back, say and confirm.

use std::time::Duration;

use simplebackup_actors::app::AppError;
use simplebackup_actors::messages::ResumePruning;
use simplebackup_actors::supervisor::Ended;
use simplebackup_engine::store::{Patience, Suspension};
use tokio::time::Instant;

use super::{WAIT, back_up, lease, start};
use crate::support::service::{ScriptedApp, Service, on_paused_time, site};
use crate::support::{Site, deadline};

const MARK: &str = "pruning-suspended.json";

/// Launches a service on `site` that takes its turn.
fn launch(site: &Site, app: ScriptedApp) -> Service {
    Service::launch_with(site, app, |protection| {
        let lease = Some(lease(site));
        protection.restore.engine = site.restore_engine().with_lease(lease.clone());
        protection.restore_timeout += WAIT;
        protection.backup.engine = site.backup_engine().with_lease(lease);
    })
}

/// Makes a disk from which the line has moved on, to a newer backup.
async fn fenced_site() -> Site {
    let old = site();
    start(&old).await.expect("started");
    back_up(&old).await;
    start(&old.another_machine()).await.expect("took over");
    old
}

#[test]
fn an_app_that_does_not_start_keeps_nobody_waiting() {
    on_paused_time(async {
        let site = site();
        let broken = ScriptedApp::obedient().on_start(|| Err(AppError::NotFound("app".into())));
        let ended = launch(&site, broken).ended().await;
        assert!(matches!(ended, Ended::AppFailed(_)), "{ended:?}");
        let begun = Instant::now();
        let next = lease(&site.another_machine()).acquire(false, deadline()).await;
        next.expect("taken");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    });
}

/// Not only after its first backup: that may be an hour away.
#[test]
fn a_start_on_a_fenced_disk_shows_it_in_the_status() {
    on_paused_time(async {
        let old = fenced_site().await;
        let service = launch(&old, ScriptedApp::obedient());
        let status = service.wait_until(|status| status.stored.is_some()).await;
        assert!(status.fork.is_some(), "{status:?}");
        assert_eq!(
            (status.stored, status.last_backup),
            (Some((0, 0)), None),
            "not those of others"
        );
        service.stop().await;
    });
}

/// Who confirms the loss of a fenced instance has not looked at the database of the line.
#[test]
fn i1_a_person_at_a_fenced_instance_confirms_its_own_loss_only() {
    on_paused_time(async {
        let old = fenced_site().await;
        let service = launch(&old, ScriptedApp::obedient());
        let fork = service.back_up().await.expect("made").fork.expect("fenced");
        let beside = old.store().fork(&fork.instance);
        let suspension = Suspension { since: fork.since, reason: "all gone".to_owned() };
        beside.suspend_pruning(&suspension, deadline()).await.expect("set");
        old.store().suspend_pruning(&suspension, deadline()).await.expect("set");

        let resume = ResumePruning { deadline: deadline() };
        service.is_up().await.send(resume).await.expect("it lives").expect("removed");

        assert!(old.stored().await.contains(&MARK.to_owned()), "the mark of the line stays");
        let left = beside.inventory(deadline(), Patience::FewTries).await.expect("listed");
        assert_eq!(left.suspension, None);
        service.stop().await;
    });
}
