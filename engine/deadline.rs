//! The instant by which a piece of work has to be over. Never optional: no wait is unbounded.

use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

/// A point on tokio's monotonic clock; `Copy`, so that every stage of a job shares the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

/// The deadline passed before the work was done.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
#[error("ran out of time")]
pub struct OutOfTime;

impl Deadline {
    /// Returns the deadline that lies `timeout` from now.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        // A timeout of centuries would overflow the clock; a year is "never" for a job.
        const LONGEST: Duration = Duration::from_hours(365 * 24);
        Self(Instant::now() + timeout.min(LONGEST))
    }

    /// Returns the time that is left, zero once the deadline has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Returns whether the deadline has passed.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// Waits for `work`, but not past the deadline; the work is dropped when time runs out.
    pub async fn limit<T>(self, work: impl Future<Output = T>) -> Result<T, OutOfTime> {
        tokio::time::timeout_at(self.0, work).await.map_err(|_elapsed| OutOfTime)
    }
}
