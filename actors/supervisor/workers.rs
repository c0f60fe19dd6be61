//! The actors that work while the app runs, and are replaced together when one of them dies: they
//! hold each other's addresses.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler};
use simplebackup_engine::LOG;
use tokio::time::Instant;

use super::{Addresses, Supervisor};
use crate::SERVER_LOG;
use crate::backup::BackupActor;
use crate::death_watch::DeathWatch;
use crate::messages::{ActorGone, StartTicking, StopCause, StopTicking, StopVerifying};
use crate::scheduler::{Job, SchedulerActor};
use crate::status::{Event, Phase};
use crate::verify::VerifyActor;

/// Replacements of actors within [`RESTART_WINDOW`] that are tolerated.
const RESTARTS_MAX: usize = 3;

/// The time in which [`RESTARTS_MAX`] counts.
const RESTART_WINDOW: Duration = Duration::from_mins(10);

/// How long the scheduler and the verify actor, which only drop what they have, may take to answer.
const QUIET_TIMEOUT: Duration = Duration::from_millis(50);

/// The addresses that change together when actors are replaced.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    pub(super) backup: Addr<BackupActor>,
    scheduler: Addr<SchedulerActor>,
    verify: Addr<VerifyActor>,
    generation: u32,
}

impl Workers {
    /// Ends the ticks, and the drill that runs. A backup that runs goes on.
    pub(super) async fn quiet(self) {
        let ticks = self.scheduler.send(StopTicking).timeout(QUIET_TIMEOUT);
        let drill = self.verify.send(StopVerifying).timeout(QUIET_TIMEOUT);
        // Err: it is dead, and does nothing any more.
        let _dead_or_stopped = tokio::join!(ticks, drill);
    }
}

impl Supervisor {
    /// Makes the workers and lets the ticks begin.
    pub(super) fn start_workers(&mut self, generation: u32, ctx: &mut Context<Self>) {
        let Some(protection) = &self.protection else { return };
        let supervisor = ctx.address().recipient();
        let watch = |name| DeathWatch::new(supervisor.clone(), name, Some(generation));
        let (plan, board) = (protection.backup.clone(), self.board.clone());
        let backup = BackupActor::new(plan, board, watch("BackupActor")).start();
        let restore = protection.restore.clone();
        let verify = VerifyActor::new(
            (restore.engine, restore.database),
            protection.verify.timeout,
            Arc::clone(&self.clock),
            (self.board.clone(), watch("VerifyActor")),
        )
        .start();
        let mut jobs = vec![(protection.schedule.clone(), Job::Backup(backup.clone()))];
        let drills = protection.verify.schedule.clone();
        jobs.extend(drills.map(|schedule| (schedule, Job::Drill(verify.clone()))));
        let (clock, board) = (Arc::clone(&self.clock), self.board.clone());
        let watch = watch("SchedulerActor");
        let scheduler = SchedulerActor::new(jobs, clock, board, watch).start();
        let begin = scheduler.send(StartTicking);
        let current = Addresses { backup: backup.clone(), verify: verify.clone() };
        self.addresses.send_replace(Some(current));
        self.workers = Some(Workers { backup, scheduler, verify, generation });
        actix::spawn(async move {
            if let Err(error) = begin.await {
                tracing::error!(target: LOG, "ERROR: The scheduler did not start: {error}");
            }
        });
    }
}

impl Handler<ActorGone> for Supervisor {
    type Result = ();

    /// Replaces all workers.
    fn handle(&mut self, message: ActorGone, ctx: &mut Self::Context) {
        if self.phase != Phase::Running {
            return;
        }
        let Some(dead) = message.generation else {
            tracing::error!(
                target: SERVER_LOG,
                "ERROR: {} died and cannot be replaced, stopping; this is a defect, please report \
                 it with the lines above",
                message.name
            );
            return self.stop(StopCause::ActorsDied, ctx);
        };
        let Some(workers) = self.workers.as_ref().filter(|workers| workers.generation == dead)
        else {
            return;
        };
        let generation = workers.generation + 1;
        let now = Instant::now();
        self.restarts.retain(|&restart| now.duration_since(restart) < RESTART_WINDOW);
        if self.restarts.len() >= RESTARTS_MAX {
            tracing::error!(
                target: SERVER_LOG,
                "ERROR: {} died again after {RESTARTS_MAX} restarts within {} minutes, stopping; please \
                 report it with the lines above",
                message.name,
                RESTART_WINDOW.as_secs() / 60
            );
            return self.stop(StopCause::ActorsDied, ctx);
        }
        self.restarts.push_back(now);
        tracing::error!(
            target: SERVER_LOG,
            "ERROR: {} died, restarting it ({} of {RESTARTS_MAX}); this is a defect, please \
             report it with the lines above",
            message.name,
            self.restarts.len()
        );
        actix::spawn(workers.clone().quiet());
        self.board.record(&Event::ActorsRestarted);
        self.start_workers(generation, ctx);
    }
}
