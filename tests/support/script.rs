//! What was called, and what is to go wrong with which call. Shared by the object store wrapper
//! and the S3 server, which differ only in their calls and in the trouble they can make.

use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

/// A log of calls and a plan of troubles.
#[derive(Debug)]
pub(crate) struct Script<K, T>(Mutex<State<K, T>>);

#[derive(Debug)]
struct State<K, T> {
    log: Vec<(K, String)>,
    /// The kinds of the calls that met trouble.
    fired: Vec<K>,
    plans: Vec<Plan<K, T>>,
}

#[derive(Debug)]
struct Plan<K, T> {
    kind: K,
    first: usize,
    end: usize,
    seen: usize,
    trouble: T,
}

impl<K, T> Default for Script<K, T> {
    fn default() -> Self {
        Self(Mutex::new(State { log: Vec::new(), fired: Vec::new(), plans: Vec::new() }))
    }
}

impl<K: Copy + PartialEq, T: Clone> Script<K, T> {
    /// Plans trouble for some of the next calls of a kind: `..` all, `..2` the first two from
    /// now, `1..` all but the next. Of several plans for one call the oldest wins.
    pub(crate) fn plan(&self, kind: K, calls: impl RangeBounds<usize>, trouble: T) {
        use std::ops::Bound::{Excluded, Included, Unbounded};

        let first = match calls.start_bound() {
            Included(&first) => first,
            Excluded(&before) => before + 1,
            Unbounded => 0,
        };
        let end = match calls.end_bound() {
            Included(&last) => last + 1,
            Excluded(&end) => end,
            Unbounded => usize::MAX,
        };
        self.state().plans.push(Plan { kind, first, end, seen: 0, trouble });
    }

    /// Makes everything go well from now on. The log stays.
    pub(crate) fn heal(&self) {
        self.state().plans.clear();
    }

    /// Logs a call and returns the trouble that is planned for it.
    pub(crate) fn enter(&self, kind: K, what: impl Into<String>) -> Option<T> {
        let mut state = self.state();
        state.log.push((kind, what.into()));
        let mut found = None;
        for plan in state.plans.iter_mut().filter(|plan| plan.kind == kind) {
            let is_planned = (plan.first..plan.end).contains(&plan.seen);
            plan.seen += 1;
            if is_planned && found.is_none() {
                found = Some(plan.trouble.clone());
            }
        }
        if found.is_some() {
            state.fired.push(kind);
        }
        found
    }

    /// Returns how many calls of a kind there were.
    pub(crate) fn count(&self, kind: K) -> usize {
        self.state().log.iter().filter(|(called, _)| *called == kind).count()
    }

    /// Returns how many calls of a kind met trouble: a plan that never fires shows nothing.
    pub(crate) fn fired(&self, kind: K) -> usize {
        self.state().fired.iter().filter(|fired| **fired == kind).count()
    }

    /// Returns the kinds of all calls, in order.
    pub(crate) fn calls(&self) -> Vec<K> {
        self.state().log.iter().map(|(called, _)| *called).collect()
    }

    /// Returns what the calls of a kind were about, in order.
    pub(crate) fn subjects(&self, kind: K) -> Vec<String> {
        let state = self.state();
        let of_kind = state.log.iter().filter(|(called, _)| *called == kind);
        of_kind.map(|(_, what)| what.clone()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State<K, T>> {
        // A test that failed in another thread must not hide behind a poisoned lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops a call on its way until the test lets it go on; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    arrived: Arc<Semaphore>,
    released: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), released: Arc::new(Semaphore::new(0)) }
    }
}

impl Gate {
    /// Waits until a call has arrived.
    pub(crate) async fn arrival(&self) {
        self.arrived.acquire().await.expect("never closed").forget();
    }

    /// Lets one call go on.
    pub(crate) fn release(&self) {
        self.released.add_permits(1);
    }

    /// What the held call does.
    pub(crate) async fn pass(&self) {
        self.arrived.add_permits(1);
        self.released.acquire().await.expect("never closed").forget();
    }
}
