//! Wall-clock time, for names, schedules and reports. Waiting uses tokio's own clock instead,
//! which tests can pause.

use std::fmt;

use chrono::{DateTime, Utc};

/// Tells the wall-clock time. Tests bring their own; it may go forward, back or stand still.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the current time in UTC.
    fn now(&self) -> DateTime<Utc>;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}
