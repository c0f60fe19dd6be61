//! Wall-clock time, for names, schedules and reports; and the wait for a moment of it. All other waiting
//! uses tokio's own clock, which tests can pause.

use std::fmt;
use std::io;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::LOG;

/// The longest wait between two looks at a wall clock that doesn't say when it is set.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Tells the wall-clock time. Tests bring their own; it may go forward, back or stand still.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the current time in UTC.
    fn now(&self) -> DateTime<Utc>;

    /// Waits until the clock may show `moment`, or may have been set: who waits looks at it, and waits
    /// again. Without more knowledge that is after a minute, or when the moment would be there.
    fn look_again(&self, moment: DateTime<Utc>) -> BoxFuture<'static, ()> {
        a_minute_at_most(moment - self.now())
    }
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    /// Linux wakes us at the moment, also if the machine slept meanwhile, or when the clock is set: nothing
    /// has to wake in between (`man 2 timerfd_create`, `TFD_TIMER_CANCEL_ON_SET`).
    fn look_again(&self, moment: DateTime<Utc>) -> BoxFuture<'static, ()> {
        match alarm(moment) {
            Ok(alarm) => async move {
                // What it says does not matter, nor does an error: the next look at the clock tells.
                let _at_the_moment_or_set = alarm.readable().await;
            }
            .boxed(),
            Err(error) => {
                tracing::debug!(target: LOG, "No alarm on the clock, it is looked at instead: {error}");
                a_minute_at_most(moment - self.now())
            }
        }
    }
}

fn a_minute_at_most(left: TimeDelta) -> BoxFuture<'static, ()> {
    tokio::time::sleep(left.to_std().unwrap_or_default().min(LONGEST_WAIT)).boxed()
}

/// Returns a descriptor that can be read from the moment on, and from when the clock is set.
fn alarm(moment: DateTime<Utc>) -> io::Result<AsyncFd<std::os::fd::OwnedFd>> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
    let at =
        Timespec { tv_sec: moment.timestamp(), tv_nsec: moment.timestamp_subsec_nanos().into() };
    let once = Itimerspec { it_interval: Timespec::default(), it_value: at };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    match timerfd_settime(&timer, flags, &once) {
        // Set meanwhile: it can be read already.
        Ok(_) | Err(Errno::CANCELED) => {
            // SAFETY: an `OwnedFd` has one open descriptor all its life, and always tells that one.
            #[allow(unsafe_code)]
            let registered = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
            Ok(registered?)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn the_alarm_rings_at_its_moment() {
        let (begun, wait) = (Instant::now(), Duration::from_millis(300));
        let moment = SystemClock.now() + wait;
        SystemClock.look_again(moment).await;
        assert!(SystemClock.now() >= moment && begun.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test]
    async fn a_moment_that_has_passed_is_not_waited_for() {
        let past = SystemClock.now() - Duration::from_hours(1);
        SystemClock.look_again(past).await;
    }

    /// Nothing may wake a service that waits for the next hour.
    #[tokio::test(start_paused = true)]
    async fn the_alarm_does_not_ring_before() {
        let moment = SystemClock.now() + Duration::from_hours(1);
        let early = tokio::time::timeout(Duration::from_mins(30), SystemClock.look_again(moment));
        early.await.expect_err("nothing happens in half an hour of tokio's");
    }
}
