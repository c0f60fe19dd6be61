//! When a backup is due. Pure: the time is an argument.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

/// A cron expression with seconds, in UTC: `0 0 * * * *` is every hour at :00.
#[derive(Debug, Clone)]
pub struct Schedule {
    expression: String,
    parsed: cron::Schedule,
}

/// How many missed due times are counted at most; a service that slept for months need not
/// count them all.
const MISSED_MAX: usize = 10_000;

impl Schedule {
    /// Returns the first due time after `now`, or `None` if there is none (a year in the past).
    #[must_use]
    pub fn next_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.parsed.after(&now).next()
    }

    /// Returns how many due times lie after `due` up to and including `now`.
    #[must_use]
    pub fn missed_between(&self, due: DateTime<Utc>, now: DateTime<Utc>) -> usize {
        self.parsed.after(&due).take_while(|&missed| missed <= now).take(MISSED_MAX).count()
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(expression: &str) -> Result<Self, String> {
        let parsed = cron::Schedule::from_str(expression).map_err(|error| error.to_string())?;
        Ok(Self { expression: expression.to_owned(), parsed })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.expression)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("an RFC 3339 time")
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
    fn expressions_that_are_no_cron_are_refused() {
        for expression in ["", "hourly", "0 * * * *", "61 0 * * * *", "0 0 * * * * * *"] {
            assert!(expression.parse::<Schedule>().is_err(), "{expression:?}");
        }
    }
}
