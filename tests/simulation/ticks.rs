//! How many ticks have to be accounted for (invariant I9), reckoned without the cron library.

use simplebackup_actors::messages::Trigger;
use simplebackup_actors::status::Status;

/// A schedule: its cron expression, its period and its first due time in milliseconds.
pub(super) type Period = (&'static str, i64, i64);

const HOUR: i64 = 3_600_000;

/// The schedules of the simulated services.
pub(super) const HOURLY: Period = ("0 0 * * * *", HOUR, 0);
pub(super) const FOUR_A_DAY: Period = ("0 0 */6 * * *", 6 * HOUR, 0);
pub(super) const TWICE_A_DAY: Period = ("0 15 5,17 * * *", 12 * HOUR, 5 * HOUR + HOUR / 4);
pub(super) const DAILY: Period = ("0 30 3 * * *", 24 * HOUR, 3 * HOUR + HOUR / 2);

/// The scheduler looks at a clock that can't wake it once a minute; this is a little more.
const UNSEEN: i64 = 61_000;

/// The due times that the wall clock has gone past in one life.
#[derive(Debug)]
pub(super) struct Ticks {
    period: Period,
    looked_at: i64,
    due: u64,
    /// How many of them the scheduler may rightly know nothing of.
    unseen: u64,
}

impl Ticks {
    pub(super) fn since(now: i64, period: Period) -> Self {
        Self { period, looked_at: now, due: 0, unseen: 0 }
    }

    /// The clock has come to `now` by itself, or was set forward.
    pub(super) fn look(&mut self, now: i64) {
        self.due += self.between(self.looked_at, now);
        self.looked_at = now;
    }

    /// The clock was set back to `now`. Until that is noticed, due times may pass unseen; they
    /// passed once before.
    pub(super) fn went_back(&mut self, now: i64) {
        self.looked_at = now;
        self.unseen += self.between(now, now + UNSEEN);
    }

    /// The scheduler dies at some time between now and then.
    pub(super) fn may_miss(&mut self, now: i64, until: i64) {
        self.unseen += self.between(now, until);
    }

    /// Panics unless each tick ended as a report, a refusal, an error or a miss, or still runs.
    pub(super) fn check(&self, status: &Status) {
        let counts = status.counts[Trigger::Tick.index()];
        let is_running = status.current.as_ref().is_some_and(|run| run.trigger == Trigger::Tick);
        let told = counts.succeeded
            + counts.failed
            + counts.refused
            + status.ticks_missed as u64
            + u64::from(is_running);
        let Self { due, unseen, .. } = self;
        assert!(
            told <= *due && told + unseen >= *due,
            "I9: {told} ticks are accounted for of {due} that were due ({unseen} at most unseen): \
             {counts:?}, {} missed, running {is_running}",
            status.ticks_missed
        );
    }

    /// Returns how many due times lie after `from` up to and including `to`.
    pub(super) fn between(&self, from: i64, to: i64) -> u64 {
        let (_, period, first) = self.period;
        let count = (to - first).div_euclid(period) - (from - first).div_euclid(period);
        u64::try_from(count).unwrap_or(0)
    }
}
