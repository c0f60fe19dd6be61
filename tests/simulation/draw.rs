//! What chance decides, drawn from a seed, and the clock of the simulated world.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use simplebackup_engine::clock::Clock;
use tokio::time::Instant;

use crate::support::START;

/// A stream of numbers, the same for the same seed (xorshift64*).
#[derive(Debug)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        // Neighbouring seeds are to have nothing in common, and the state must not be zero.
        let mut draw = Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            draw.next();
        }
        draw
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// Draws a number from `low` up to but not including `high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.between(0, count) == 0
    }

    pub(super) fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.between(0, choices.len() as u64) as usize].clone()
    }

    /// Draws a span to the millisecond, so that hardly anything falls on a full second.
    pub(super) fn span(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_millis(self.between(low.as_millis() as u64, high.as_millis() as u64))
    }
}

/// The wall clock: it runs with tokio's paused clock while a process lives, and is moved by hand
/// between two lives, during a suspend, and by an administrator.
#[derive(Debug)]
pub(super) struct WallClock {
    base_ms: AtomicI64,
    running_since: Mutex<Option<Instant>>,
}

impl WallClock {
    pub(super) fn new() -> Self {
        Self { base_ms: AtomicI64::new(START * 1000), running_since: Mutex::new(None) }
    }

    /// Lets the clock run with tokio's; to be called inside a runtime.
    pub(super) fn run(&self) {
        *self.since() = Some(Instant::now());
    }

    /// Stops the clock where it is; to be called inside the same runtime.
    pub(super) fn halt(&self) {
        let now = self.now_ms();
        *self.since() = None;
        self.base_ms.store(now, Relaxed);
    }

    pub(super) fn jump(&self, milliseconds: i64) {
        self.base_ms.fetch_add(milliseconds, Relaxed);
    }

    pub(super) fn now_ms(&self) -> i64 {
        let run = self.since().map_or(Duration::ZERO, |since| since.elapsed());
        self.base_ms.load(Relaxed) + i64::try_from(run.as_millis()).expect("some months")
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.running_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for WallClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.now_ms()).expect("in range")
    }
}

/// A clock whose next reader panics once it is armed: a defect at a place of one's choice.
#[derive(Debug)]
pub(super) struct Fuse {
    clock: Arc<WallClock>,
    is_armed: AtomicBool,
}

impl Fuse {
    pub(super) fn over(clock: &Arc<WallClock>) -> Arc<Self> {
        Arc::new(Self { clock: Arc::clone(clock), is_armed: AtomicBool::new(false) })
    }

    pub(super) fn arm(&self) {
        self.is_armed.store(true, Relaxed);
    }

    /// Returns whether nobody had read the clock since it was armed.
    pub(super) fn disarm(&self) -> bool {
        self.is_armed.swap(false, Relaxed)
    }
}

impl Clock for Fuse {
    fn now(&self) -> DateTime<Utc> {
        assert!(!self.disarm(), "planned: the clock is broken");
        self.clock.now()
    }
}
