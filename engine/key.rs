//! The name of a backup: `db-backup-{unix-timestamp}.db.gz`. Pure: nothing here reads a clock
//! or a store. Whatever does not parse is foreign, and foreign objects are never touched.

use std::fmt;

use chrono::{DateTime, Utc};

const START: &str = "db-backup-";
const END: &str = ".db.gz";

/// The last second of the year 9999, the last that RFC 3339 can print.
const TIMESTAMP_MAX: u64 = 253_402_300_799;

/// The name of one backup. Ordered by its timestamp, so the greatest key is the newest backup.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupKey {
    timestamp: u64,
}

impl BackupKey {
    /// Returns the key that `name` spells, or `None` for anything that we would not have written
    /// (no digits, a sign, leading zeros, another ending, a folder in front).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix(START)?.strip_suffix(END)?;
        let timestamp = digits.parse().ok().filter(|&t| t <= TIMESTAMP_MAX)?;
        let key = Self { timestamp };
        // Comparing with what we would write refuses "+5" and "007" without a rule for each.
        (key.to_string() == name).then_some(key)
    }

    /// Returns the key for a backup made at `now`: `max(now, newest + 1)`, so that two backups in
    /// one second, or a clock that went back, neither overwrite a backup nor let an older state
    /// become the newest. `None` if nothing is later that would parse back: what is stored under
    /// such a name nobody would find again.
    #[must_use]
    pub fn next(now: DateTime<Utc>, newest: Option<Self>) -> Option<Self> {
        let now = u64::try_from(now.timestamp()).unwrap_or(0);
        let timestamp = newest.map_or(now, |key| now.max(key.timestamp + 1));
        (timestamp <= TIMESTAMP_MAX).then_some(Self { timestamp })
    }

    /// Returns the seconds since 1970 in the name.
    #[must_use]
    pub fn timestamp(self) -> u64 {
        self.timestamp
    }

    /// Returns the same moment as a date.
    #[must_use]
    pub fn created_at(self) -> DateTime<Utc> {
        let seconds = i64::try_from(self.timestamp).unwrap_or(i64::MAX);
        DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Returns the name without `.gz`, which the archive's header carries for `gunzip -N`.
    #[must_use]
    pub fn database_name(self) -> String {
        format!("{START}{}.db", self.timestamp)
    }
}

impl fmt::Display for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{START}{}{END}", self.timestamp)
    }
}

impl fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(timestamp: u64) -> BackupKey {
        BackupKey { timestamp }
    }

    #[test]
    fn only_our_own_names_parse() {
        let cases = [
            ("db-backup-1732442400.db.gz", Some(1_732_442_400)),
            ("db-backup-0.db.gz", Some(0)),
            ("db-backup-253402300799.db.gz", Some(TIMESTAMP_MAX)),
            ("db-backup-253402300800.db.gz", None),
            ("db-backup-99999999999999999999999.db.gz", None),
            ("notes.txt", None),
            ("db-backup-abc.db.gz", None),
            ("db-backup-.db.gz", None),
            ("db-backup-+5.db.gz", None),
            ("db-backup--5.db.gz", None),
            ("db-backup-005.db.gz", None),
            ("db-backup-5.db.gz.tmp", None),
            ("db-backup-5.db", None),
            ("sub/db-backup-5.db.gz", None),
            ("DB-backup-5.db.gz", None),
            (" db-backup-5.db.gz", None),
            ("db-backup-\u{0665}.db.gz", None),
        ];
        for (name, expect) in cases {
            assert_eq!(BackupKey::parse(name).map(BackupKey::timestamp), expect, "{name:?}");
        }
    }

    #[test]
    fn every_key_parses_back() {
        for timestamp in [0, 1, 9, 10, 1_732_442_400, TIMESTAMP_MAX] {
            let name = key(timestamp).to_string();
            assert_eq!(BackupKey::parse(&name), Some(key(timestamp)), "{name}");
        }
    }

    #[test]
    fn next_key_is_never_older_than_the_newest() {
        let at = |t: i64| DateTime::from_timestamp(t, 0).expect("in range");
        let cases = [
            (100, None, Some(100)),
            (100, Some(50), Some(100)),
            (100, Some(99), Some(100)),
            (100, Some(100), Some(101)),
            (100, Some(500), Some(501)),
            (-5, None, Some(0)),
            (100, Some(TIMESTAMP_MAX - 1), Some(TIMESTAMP_MAX)),
            (100, Some(TIMESTAMP_MAX), None),
        ];
        for (now, newest, expect) in cases {
            let made = BackupKey::next(at(now), newest.map(key));
            assert_eq!(made.map(BackupKey::timestamp), expect, "now {now}, newest {newest:?}");
        }
    }
}
