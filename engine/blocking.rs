//! Blocking work on the blocking pool, with a deadline that really stops it.
//!
//! A thread cannot be cancelled, so the work is handed a [`Stop`] that it has to look at; SQLite
//! looks at it through its progress handler. Whoever waits gives the work a moment to clean up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::deadline::{Deadline, OutOfTime};

/// How long stopped work may take to remove its files; SQLite answers within milliseconds.
pub const CLEAN_UP: Duration = Duration::from_millis(500);

/// Asked now and then by blocking work: has nobody use for the result any more?
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Returns whether the work should end now.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Asks the work to end.
    pub fn set(&self) {
        self.0.store(true, Relaxed);
    }
}

/// Sets the stop when the waiting future is dropped, so that an abandoned job ends too.
struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Runs `work` on the blocking pool until it ends or the deadline passes.
///
/// When time runs out the work is asked to stop and given half a second to clean up; it may
/// still run after that, which is why it has to own what it needs (its lock, its folder).
///
/// # Panics
///
/// A panic inside `work` goes on in the caller.
pub async fn run<T, F>(deadline: Deadline, work: F) -> Result<T, OutOfTime>
where
    T: Send + 'static,
    F: FnOnce(Stop) -> T + Send + 'static,
{
    let stop = Stop::default();
    let guard = StopOnDrop(stop.clone());
    let mut thread = tokio::task::spawn_blocking(move || work(stop));
    let Ok(joined) = deadline.limit(&mut thread).await else {
        guard.0.set();
        let _ended_or_not = tokio::time::timeout(CLEAN_UP, &mut thread).await;
        return Err(OutOfTime);
    };
    match joined {
        Ok(result) => Ok(result),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels blocking work: nobody waits any more.
            Err(_cancelled) => Err(OutOfTime),
        },
    }
}
