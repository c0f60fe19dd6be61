//! When a backup is due. Pure: the time is an argument.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// A cron expression with seconds, in UTC: `0 0 * * * *` is every hour at :00. Every due time may
/// be later than the expression says, always by the same offset.
#[derive(Debug, Clone)]
pub struct Schedule {
    expression: String,
    parsed: cron::Schedule,
    offset: TimeDelta,
}

/// How many missed due times are counted at most; a service that slept for months need not
/// count them all.
const MISSED_MAX: usize = 10_000;

impl Schedule {
    /// Returns the schedule whose due times are later by `offset` than its expression says. How
    /// far they are apart stays as it is, also if the offset is longer than that.
    #[must_use]
    pub fn delayed_by(self, offset: Duration) -> Self {
        // What chrono can't reckon with is later than everything: nothing is due then.
        Self { offset: TimeDelta::from_std(offset).unwrap_or(TimeDelta::MAX), ..self }
    }

    /// Returns the first due time after `now`, or `None` if there is none (a year in the past).
    #[must_use]
    pub fn next_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.all_after(now).next()
    }

    /// Returns how many due times lie after `due` up to and including `now`.
    #[must_use]
    pub fn missed_between(&self, due: DateTime<Utc>, now: DateTime<Utc>) -> usize {
        self.all_after(due).take_while(|&missed| missed <= now).take(MISSED_MAX).count()
    }

    /// Returns the due times after `time`, in order.
    fn all_after(&self, time: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        let undelayed = time.checked_sub_signed(self.offset);
        let due = undelayed.into_iter().flat_map(|time| self.parsed.after(&time));
        due.map_while(|due| due.checked_add_signed(self.offset))
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(expression: &str) -> Result<Self, String> {
        let parsed = cron::Schedule::from_str(expression).map_err(|error| error.to_string())?;
        Ok(Self { expression: expression.to_owned(), parsed, offset: TimeDelta::zero() })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.expression)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        (&self.expression, self.offset) == (&other.expression, other.offset)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("an RFC 3339 time")
    }

    fn delayed(expression: &str, offset: Duration) -> Schedule {
        expression.parse::<Schedule>().expect("valid").delayed_by(offset)
    }

    #[test]
    fn hourly_is_due_at_every_full_hour_and_never_twice() {
        let hourly: Schedule = "0 0 * * * *".parse().expect("valid");
        let cases = [
            ("2024-11-24T11:00:01Z", "2024-11-24T12:00:00Z"),
            ("2024-11-24T11:59:59.999Z", "2024-11-24T12:00:00Z"),
            ("2024-11-24T12:00:00Z", "2024-11-24T13:00:00Z"),
            ("2024-12-31T23:30:00Z", "2025-01-01T00:00:00Z"),
        ];
        for (now, expect) in cases {
            assert_eq!(hourly.next_after(at(now)), Some(at(expect)), "{now}");
        }
    }

    #[test]
    fn missed_due_times_are_counted() {
        let hourly: Schedule = "0 0 * * * *".parse().expect("valid");
        let due = at("2024-11-24T12:00:00Z");
        let cases =
            [("2024-11-24T12:00:30Z", 0), ("2024-11-24T13:00:00Z", 1), ("2024-11-24T17:30:00Z", 5)];
        for (now, expect) in cases {
            assert_eq!(hourly.missed_between(due, at(now)), expect, "{now}");
        }
    }

    #[test]
    fn an_offset_moves_every_due_time_by_itself_and_nothing_else() {
        let minutes = Duration::from_mins;
        let cases = [
            ("0 0 * * * *", minutes(7), "2024-11-24T12:00:00Z", "2024-11-24T12:07:00Z"),
            ("0 0 * * * *", minutes(7), "2024-11-24T12:06:59.999Z", "2024-11-24T12:07:00Z"),
            ("0 0 * * * *", minutes(7), "2024-11-24T12:07:00Z", "2024-11-24T13:07:00Z"),
            (
                "0 0 * * * *",
                Duration::from_millis(1),
                "2024-11-24T12:00:00Z",
                "2024-11-24T12:00:00.001Z",
            ),
            // Into the next day, month and year, and over a leap day.
            ("0 0 23 * * *", minutes(90), "2024-12-31T23:30:00Z", "2025-01-01T00:30:00Z"),
            ("0 30 23 31 * *", minutes(60), "2025-02-01T00:30:00Z", "2025-04-01T00:30:00Z"),
            ("0 0 22 28,29 2 *", minutes(180), "2024-02-29T01:00:00Z", "2024-03-01T01:00:00Z"),
            // In UTC the night in which clocks in Europe are put forward is like any other.
            ("0 30 0 * * *", minutes(45), "2024-03-31T01:00:00Z", "2024-03-31T01:15:00Z"),
            ("0 30 0 * * *", minutes(45), "2024-03-31T01:15:00Z", "2024-04-01T01:15:00Z"),
            // Longer than the schedule's own interval: those of before are due now.
            (
                "0 * * * * *",
                Duration::from_secs(150),
                "2024-11-24T12:00:00Z",
                "2024-11-24T12:00:30Z",
            ),
            ("0 0 * * * *", minutes(24 * 60), "2024-11-24T12:00:00Z", "2024-11-24T13:00:00Z"),
        ];
        for (expression, offset, now, expect) in cases {
            let next = delayed(expression, offset).next_after(at(now));
            assert_eq!(next, Some(at(expect)), "{expression} + {offset:?} after {now}");
        }
        let last = delayed("0 0 0 31 12 * 2024", minutes(60));
        assert_eq!(last.next_after(at("2024-12-31T00:30:00Z")), Some(at("2024-12-31T01:00:00Z")));
        assert_eq!(last.next_after(at("2024-12-31T01:00:00Z")), None);
        assert_eq!(
            delayed("0 0 * * * *", Duration::MAX).next_after(at("2024-12-31T00:30:00Z")),
            None
        );
    }

    #[test]
    fn missed_due_times_are_counted_from_the_delayed_ones() {
        let hourly = delayed("0 0 * * * *", Duration::from_mins(20));
        let due = at("2024-11-24T12:20:00Z");
        let cases =
            [("2024-11-24T13:19:59Z", 0), ("2024-11-24T13:20:00Z", 1), ("2024-11-24T17:30:00Z", 5)];
        for (now, expect) in cases {
            assert_eq!(hourly.missed_between(due, at(now)), expect, "{now}");
        }
    }

    #[test]
    fn schedules_with_different_offsets_differ() {
        let hourly = |secs| delayed("0 0 * * * *", Duration::from_secs(secs));
        assert_eq!(hourly(1), hourly(1));
        assert_ne!(hourly(1), hourly(0));
    }

    fn expressions() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(vec![
            "0 0 * * * *",
            "*/7 * * * * *",
            "0 */25 * * * *",
            "30 15 5,17 * * *",
            "0 0 3 * * Mon",
            "0 0 0 29,30,31 * *",
        ])
    }

    /// Up to two days, which is longer than a configuration takes.
    fn offsets() -> impl Strategy<Value = Duration> {
        (0..48 * HOUR).prop_map(|millis| Duration::from_millis(millis.cast_unsigned()))
    }

    /// From 2020 to 2050, to the millisecond.
    fn times() -> impl Strategy<Value = DateTime<Utc>> {
        (1_577_836_800_000..2_524_608_000_000_i64)
            .prop_map(|millis| DateTime::from_timestamp_millis(millis).expect("in range"))
    }

    /// Returns the first `count` due times after `now`, each looked for after the one before.
    fn walk(schedule: &Schedule, now: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        let due = std::iter::successors(schedule.next_after(now), |due| schedule.next_after(*due));
        due.take(count).collect()
    }

    proptest! {
        // No file of failures: the seed of one is printed with it.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn the_spacing_is_the_schedules_own(
            expression in expressions(), offset in offsets(), now in times()
        ) {
            let plain = walk(&delayed(expression, Duration::ZERO), now, 6);
            let moved: Vec<_> = plain.iter().map(|due| *due + offset).collect();
            prop_assert_eq!(walk(&delayed(expression, offset), now + offset, 6), moved);
        }

        #[test]
        fn due_times_come_after_now_once_and_whenever_one_looks(
            expression in expressions(), offset in offsets(), now in times(), share in 0.0..1.0
        ) {
            let schedule = delayed(expression, offset);
            let due = walk(&schedule, now, 6);
            prop_assert_eq!(due.len(), 6);
            prop_assert!(due[0] > now && due.is_sorted_by(|one, next| one < next), "{:?}", due);
            let between = now + (due[0] - now).to_std().expect("later").mul_f64(share);
            prop_assert_eq!(schedule.next_after(between), Some(due[0]), "at {}", between);
            prop_assert_eq!(schedule.missed_between(due[0], due[5]), 5);
            prop_assert_eq!(schedule.missed_between(now, due[5]), 6);
        }

        /// Reckoned without the cron library.
        #[test]
        fn an_hourly_backup_is_an_hour_away_at_most(offset in offsets(), now in times()) {
            let due = walk(&delayed("0 0 * * * *", offset), now, 2);
            let [first, second] = [due[0], due[1]].map(|due| due.timestamp_millis());
            let now = now.timestamp_millis();
            prop_assert!((now + 1..=now + HOUR).contains(&first), "{first}");
            prop_assert_eq!(first.rem_euclid(HOUR), (offset.as_millis() as i64).rem_euclid(HOUR));
            prop_assert_eq!(second - first, HOUR);
        }
    }

    #[test]
    fn expressions_that_are_no_cron_are_refused() {
        for expression in ["", "hourly", "0 * * * *", "61 0 * * * *", "0 0 * * * * * *"] {
            assert!(expression.parse::<Schedule>().is_err(), "{expression:?}");
        }
    }
}
