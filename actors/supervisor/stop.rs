//! The stop: no more ticks → drain the app → final backup, each within its own deadline.

use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context};
use chrono::{DateTime, Utc};
use simplebackup_engine::backup::BackupReport;
use simplebackup_engine::blocking::CLEAN_UP;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::{LOG, fail_point, text};

use super::{Ended, FinalBackup, Supervisor};
use crate::SERVER_LOG;
use crate::app::{AppActor, AppEnd, FORCE_TIMEOUT};
use crate::backup::BackupActor;
use crate::death_watch::DeathWatch;
use crate::lease;
use crate::messages::{Abandon, Backup, BackupRequestError, Drain, StopCause, Trigger};
use crate::status::{Event, Phase};

// What an actor may take to answer beyond the deadline in its message. Together with
// `FORCE_TIMEOUT` and that of `Workers::quiet` they stay within the second of invariant I5.

/// For the app's actor, which passes on what it was told.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(50);
/// For the backup's actor, whose stopped work is given half a second to clean up.
const FINAL_TIMEOUT: Duration = Duration::from_millis(600);

/// For the release of a lease before the app was started, when no deadline runs. What looks at the
/// work folder on a hanging disk is given half a second more to clean up.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(350);
const _: () = assert!(
    RELEASE_TIMEOUT.as_millis() + CLEAN_UP.as_millis() <= 900,
    "the second of invariant I5 is over, and the routes have to close after it"
);

impl Supervisor {
    /// Stops in order: ticks, app, final backup.
    pub(super) fn stop(&mut self, cause: StopCause, ctx: &mut Context<Self>) {
        // First: whoever reads the line below finds the routes saying the same.
        self.enter(Phase::Stopping);
        self.board.record(&Event::NextTick(None));
        if cause == StopCause::Signal {
            tracing::info!(target: SERVER_LOG, "Received shutdown signal");
        }
        let workers = self.workers.clone();
        let app = self.app_actor.clone();
        let app_timeout = self.app_timeout;
        let quiesced = async move {
            if let Some(workers) = workers {
                workers.quiet().await;
            }
            fail_point::reach("stop.ticks_stopped");
            drain(app, app_timeout).await
        };
        ctx.spawn(wrap_future(quiesced).map(move |end, this: &mut Self, ctx| {
            this.drained(cause, end, ctx);
        }));
    }

    /// Ends a service whose app never ran: there is nothing to keep, only a lease to give back.
    pub(super) fn give_back_and_end(&mut self, ended: Ended, ctx: &mut Context<Self>) {
        let engine = self.protection.as_ref().map(|protection| protection.backup.engine.clone());
        let released = async move {
            if let Some(engine) = engine {
                lease::give_back(&engine, Deadline::after(RELEASE_TIMEOUT)).await;
            }
        };
        ctx.spawn(wrap_future(released).map(|(), this: &mut Self, _ctx| this.end(ended)));
    }

    /// The app is gone: nothing writes any more, so this is the state to keep.
    fn drained(&mut self, cause: StopCause, app: AppEnd, ctx: &mut Context<Self>) {
        fail_point::reach("stop.app_drained");
        let Some(protection) = self.protection.clone() else {
            let final_backup = FinalBackup::NotWanted;
            let final_deadline = Deadline::after(Duration::ZERO);
            return self.end(Ended::Stopped { cause, app, final_backup, final_deadline });
        };
        let deadline = Deadline::after(protection.final_timeout);
        let current = self.workers.as_ref().map(|workers| workers.backup.clone());
        let (board, supervisor) = (self.board.clone(), ctx.address().recipient());
        let backed_up = async move {
            if let Some(actor) = current {
                match ask_for_final(&actor, deadline).await {
                    Err(BackupRequestError::ActorGone) => {}
                    answer => return answer,
                }
            }
            // The stop came before there were workers, or found them dead.
            let watch = DeathWatch::new(supervisor, "BackupActor", None);
            let spare = BackupActor::new(protection.backup, board, watch).start();
            ask_for_final(&spare, deadline).await
        };
        ctx.spawn(wrap_future(backed_up).map(move |answer, this: &mut Self, _ctx| {
            fail_point::reach("stop.final_backup_made");
            let final_backup = this.final_backup(&answer);
            let final_deadline = deadline;
            this.end(Ended::Stopped { cause, app, final_backup, final_deadline });
        }));
    }

    /// Ends at once; the app goes too, with all that it started.
    pub(super) fn abandon(&mut self, ctx: &mut Context<Self>) {
        let app = self.app_actor.clone();
        let gone = async move {
            if let Some(app) = app {
                // Err: its actor is dead, and took the app along.
                let _gone = app.send(Abandon).timeout(DRAIN_TIMEOUT).await;
            }
        };
        ctx.spawn(wrap_future(gone).map(|(), this: &mut Self, _ctx| this.end(Ended::Abandoned)));
    }

    fn final_backup(&self, answer: &Result<BackupReport, BackupRequestError>) -> FinalBackup {
        let Err(error) = answer else { return FinalBackup::Made };
        // The actor has logged a failure of its own; what never reached it is said here.
        if matches!(error, BackupRequestError::ActorGone) {
            tracing::error!(target: LOG, "ERROR: Shutdown backup failed: {error}");
        }
        tracing::warn!(
            target: LOG,
            "WARNING: Continuing shutdown without backup"
        );
        self.say_what_is_missing();
        FinalBackup::Missing
    }

    /// Tells how old the newest backup is, when there will be none newer.
    pub(super) fn say_what_is_missing(&self) {
        if self.protection.is_none() {
            return;
        }
        let text = match self.board.read().last_backup {
            Some(last) => format!("last good backup is {} old", age_of(last.at, self.clock.now())),
            None => "no good backup is known".to_owned(),
        };
        tracing::warn!(target: LOG, "WARNING: Final backup is missing, {text}");
    }
}

async fn drain(app: Option<Addr<AppActor>>, timeout: Duration) -> AppEnd {
    let Some(app) = app else { return AppEnd::Left };
    let asked = app.send(Drain { deadline: Deadline::after(timeout) });
    match asked.timeout(timeout + FORCE_TIMEOUT + DRAIN_TIMEOUT).await {
        Ok(end) => end,
        Err(error) => {
            tracing::error!(target: SERVER_LOG, "ERROR: The application actor is gone: {error}");
            AppEnd::Left
        }
    }
}

async fn ask_for_final(
    actor: &Addr<BackupActor>,
    deadline: Deadline,
) -> Result<BackupReport, BackupRequestError> {
    let asked = actor.send(Backup { trigger: Trigger::Final, deadline });
    // The engine ends at the deadline, with its cleaning up shortly after; an actor that does
    // not answer by then hangs.
    match asked.timeout(deadline.remaining() + FINAL_TIMEOUT).await {
        Ok(answer) => answer,
        Err(_closed_or_hung) => Err(BackupRequestError::ActorGone),
    }
}

fn age_of(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    text::age((now - then).to_std().unwrap_or_default())
}
