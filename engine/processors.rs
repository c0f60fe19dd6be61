//! Which processors this process uses beside the app: all but one.
//!
//! Niceness alone keeps a busy app from being slowed down, but not an idle one from waiting: Linux lets
//! a thread finish its slice of 3 ms, or its system call, before it gives the processor to the app's
//! thread that wakes up. With a processor that no backup ever uses, the app wakes up there.

use std::marker::PhantomData;
use std::num::NonZero;
use std::sync::OnceLock;
use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps the calling thread, and the threads that it starts meanwhile, off one processor until it is
/// dropped. With a single processor it does nothing.
#[derive(Debug)]
#[must_use = "dropped, it gives the processor back"]
pub struct OneLeftFree {
    /// It speaks of the thread that made it.
    _of_this_thread: PhantomData<*const ()>,
}

impl OneLeftFree {
    /// Moves the calling thread off the processor.
    pub fn begin() -> Self {
        leave_one_free();
        Self { _of_this_thread: PhantomData }
    }
}

impl Drop for OneLeftFree {
    fn drop(&mut self) {
        use_all();
    }
}

/// Keeps the calling thread, and those that it starts, off one processor.
pub(crate) fn leave_one_free() {
    if let Some(most) = all().and_then(all_but_the_last) {
        allow(&most);
    }
}

/// Lets the calling thread use every processor that the process was started with.
pub(crate) fn use_all() {
    if let Some(all) = all() {
        allow(all);
    }
}

/// Returns how many the calling thread, and those that it starts, may use.
pub(crate) fn count() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Returns the processors that the process was started with, if Linux tells. Asked before any thread is
/// kept off one, because nobody else does that.
fn all() -> Option<&'static CpuSet> {
    static ALL: OnceLock<Option<CpuSet>> = OnceLock::new();
    ALL.get_or_init(|| sched_getaffinity(None).ok()).as_ref()
}

/// Returns the set without its last processor; nothing if that leaves none.
fn all_but_the_last(all: &CpuSet) -> Option<CpuSet> {
    let last = (0..CpuSet::MAX_CPU).rev().find(|processor| all.is_set(*processor))?;
    let mut most = *all;
    most.unset(last);
    (most.count() > 0).then_some(most)
}

fn allow(processors: &CpuSet) {
    if let Err(error) = sched_setaffinity(None, processors) {
        // Of no consequence but for the pace of others.
        tracing::debug!(target: crate::LOG, "The choice of processors was refused: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(processors: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        for processor in processors {
            set.set(*processor);
        }
        set
    }

    #[test]
    fn the_last_of_several_stays_free() {
        assert_eq!(all_but_the_last(&set(&[0, 1])), Some(set(&[0])));
        assert_eq!(all_but_the_last(&set(&[3, 5, 9])), Some(set(&[3, 5])));
        assert_eq!(all_but_the_last(&set(&[7])), None);
        assert_eq!(all_but_the_last(&set(&[])), None);
    }

    #[test]
    fn a_thread_gets_the_processor_back() {
        let all = sched_getaffinity(None).expect("told");
        {
            let _left = OneLeftFree::begin();
            let now = sched_getaffinity(None).expect("told");
            assert_eq!(now.count(), (all.count() - 1).max(1));
            let inherited = thread::spawn(|| sched_getaffinity(None).expect("told")).join();
            assert_eq!(inherited.expect("no panic"), now);
        }
        assert_eq!(sched_getaffinity(None).expect("told"), all);
    }
}
