//! The actor that brings the database back before anything opens it.

use std::path::PathBuf;
use std::time::Instant;

use actix::{Actor, Context, Handler, ResponseFuture};
use simplebackup_engine::progress::Progress;
use simplebackup_engine::restore::{Fallback, RestoreEngine, Restored};
use simplebackup_engine::text;

use crate::backup::panic_text;
use crate::messages::{Restore, RestoreFailure};
use crate::status::{Event, StatusBoard};

/// What the restore actor works with.
#[derive(Debug, Clone)]
pub struct RestorePlan {
    /// The engine.
    pub engine: RestoreEngine,
    /// The database's path.
    pub database: PathBuf,
    /// What to do about a damaged newest backup.
    pub fallback: Fallback,
}

/// Answers one [`Restore`]; its success carries the proof that lets the app start.
#[derive(Debug)]
pub struct RestoreActor {
    /// Nothing when backups are switched off. Set at the start, read by the handler.
    plan: Option<RestorePlan>,
    board: StatusBoard,
}

impl RestoreActor {
    /// Makes the actor; without a plan it answers at once that there is nothing to restore.
    #[must_use]
    pub fn new(plan: Option<RestorePlan>, board: StatusBoard) -> Self {
        Self { plan, board }
    }
}

impl Actor for RestoreActor {
    type Context = Context<Self>;
}

impl Handler<Restore> for RestoreActor {
    type Result = ResponseFuture<Result<Restored, RestoreFailure>>;

    fn handle(&mut self, message: Restore, _ctx: &mut Self::Context) -> Self::Result {
        let Some(plan) = self.plan.clone() else {
            return Box::pin(std::future::ready(Ok(Restored::disabled())));
        };
        let board = self.board.clone();
        Box::pin(async move {
            let started = Instant::now();
            // A task of its own, so that a panic becomes a value.
            let job = actix::spawn(async move {
                let progress = Progress::default();
                let RestorePlan { engine, database, fallback } = plan;
                engine.restore_if_missing(&database, fallback, message.deadline, &progress).await
            });
            let result = match job.await {
                Ok(result) => result.map_err(RestoreFailure::Engine),
                Err(error) => Err(RestoreFailure::Panicked(panic_text(error))),
            };
            board.record(&Event::RestoreEnded {
                result: match &result {
                    Ok(restored) => Ok(restored.outcome().clone()),
                    Err(error) => Err(text::chain(error)),
                },
                took: started.elapsed(),
            });
            result
        })
    }
}
