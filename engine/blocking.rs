//! Blocking work on the blocking pool, with a deadline that really stops it.
//!
//! A thread cannot be cancelled, so the work is handed a [`Stop`] that it has to look at; SQLite
//! looks at it through its progress handler, and is interrupted. Whoever waits gives the work a moment to
//! clean up.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::deadline::{Deadline, OutOfTime};
use crate::processors;

/// How long stopped work may take to remove its files; SQLite answers within milliseconds.
pub const CLEAN_UP: Duration = Duration::from_millis(500);

/// Asked now and then by blocking work: has nobody use for the result any more?
#[derive(Clone, Default)]
pub struct Stop(Arc<Asked>);

#[derive(Default)]
struct Asked {
    is_set: AtomicBool,
    /// Called, under the lock, once it is set.
    interrupts: Mutex<Vec<Interrupt>>,
}

type Interrupt = Box<dyn Fn() + Send>;

impl Stop {
    /// Returns whether the work should end now.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.is_set.load(Relaxed)
    }

    /// Asks the work to end.
    pub fn set(&self) {
        self.0.is_set.store(true, Relaxed);
        for interrupt in self.0.interrupts.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            interrupt();
        }
    }

    /// Interrupts what can't look for itself, when the work is asked to end; at once, if it was before.
    pub fn interrupts(&self, interrupt: impl Fn() + Send + 'static) {
        let mut interrupts = self.0.interrupts.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_set() {
            interrupt();
        }
        interrupts.push(Box::new(interrupt));
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.is_set()).finish()
    }
}

/// Sets the stop when the waiting future is dropped, so that an abandoned job ends too.
struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// How much of a processor the work gets that the app wants too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// As much as the app.
    #[default]
    Normal,
    /// A tenth of what the app gets, and the disk after it; all that the app leaves, on all processors
    /// but one.
    Low,
}

/// The niceness that [`Priority::Low`] adds: a tenth of the weight of an app that has none, in Linux'
/// table (`sched_prio_to_weight`), and I/O class 6 of 7 where the disk's scheduler has classes. With
/// 19, a seventieth, a busy app could make an hourly backup miss its timeout.
const LOW_NICENESS: i32 = 10;

/// The niceness that [`give_way`] adds: a third of the weight.
const GIVE_WAY_NICENESS: i32 = 5;

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
    run_at(Priority::Normal, deadline, work).await
}

/// Does the same at a priority.
pub async fn run_at<T, F>(priority: Priority, deadline: Deadline, work: F) -> Result<T, OutOfTime>
where
    T: Send + 'static,
    F: FnOnce(Stop) -> T + Send + 'static,
{
    let stop = Stop::default();
    let guard = StopOnDrop(stop.clone());
    let mut thread = tokio::task::spawn_blocking(move || on_own_thread(priority, || work(stop)));
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

/// Runs `work` on a thread of its own, and its panics in this one.
///
/// Who has lowered its priority may not raise it again, and the threads of the pool are shared. The
/// processors are chosen anew each time: those of the pool's thread are what its starter had.
fn on_own_thread<T: Send>(priority: Priority, work: impl FnOnce() -> T + Send) -> T {
    let prepared = || {
        match priority {
            Priority::Normal => processors::use_all(),
            Priority::Low => {
                add_niceness(LOW_NICENESS);
                processors::leave_one_free();
            }
        }
        work()
    };
    let joined = std::thread::scope(|scope| scope.spawn(prepared).join());
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Lets other threads of this process go first, for good.
pub(crate) fn give_way() {
    add_niceness(GIVE_WAY_NICENESS);
}

/// Adds to the niceness of this thread, and of those that it starts; Linux counts it by thread.
fn add_niceness(more: i32) {
    if let Err(error) = rustix::process::nice(more) {
        // Of no consequence but for the pace of others.
        tracing::debug!(target: crate::LOG, "Niceness {more} was refused: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn niceness_at(priority: Priority) -> i32 {
        let looked = run_at(priority, Deadline::after(Duration::from_mins(1)), |_stop| {
            let started = std::thread::spawn(|| rustix::process::getpriority_process(None));
            let own = rustix::process::getpriority_process(None).expect("told");
            assert_eq!(started.join().expect("no panic").expect("told"), own, "it is inherited");
            own
        });
        looked.await.expect("in time")
    }

    #[tokio::test]
    async fn low_priority_ends_with_the_work() {
        let normal = niceness_at(Priority::Normal).await;
        assert_eq!(niceness_at(Priority::Low).await, (normal + LOW_NICENESS).min(19));
        assert_eq!(niceness_at(Priority::Normal).await, normal);
    }

    #[tokio::test]
    #[should_panic(expected = "what went wrong")]
    async fn a_panic_goes_on_in_the_caller() {
        let deadline = Deadline::after(Duration::from_mins(1));
        let work = |_stop| panic!("what went wrong");
        let _never: Result<(), OutOfTime> = run(deadline, work).await;
    }
}
