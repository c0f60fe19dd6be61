//! The name of a backup: `db-backup-{unix-timestamp}.db.gz`, with `.age` behind it if it is
//! encrypted. Pure: nothing here reads a clock or a store. Whatever does not parse is foreign, and
//! foreign objects are never touched.

use std::fmt;

use chrono::{DateTime, Utc};

const START: &str = "db-backup-";
const END: &str = ".db.gz";
const END_OF_ENCRYPTED: &str = ".db.gz.age";

/// The last second of the year 9999, the last that RFC 3339 can print.
const TIMESTAMP_MAX: u64 = 253_402_300_799;

/// Who can read a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Form {
    /// Whoever may read the object.
    #[default]
    Plain,
    /// Whoever has an identity that it is encrypted for; see [`crate::encryption`].
    Encrypted,
}

/// The name of one backup. Ordered by its timestamp, so the greatest key is the newest backup.
///
/// Two of one second are one backup in both forms, as a person makes them who encrypts or decrypts
/// by hand. The encrypted one counts as the newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupKey {
    timestamp: u64,
    form: Form,
}

impl BackupKey {
    /// Returns the key that `name` spells, or `None` for anything that we would not have written
    /// (no digits, a sign, leading zeros, another ending, a folder in front).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(START)?;
        let (digits, form) = match rest.strip_suffix(END_OF_ENCRYPTED) {
            Some(digits) => (digits, Form::Encrypted),
            None => (rest.strip_suffix(END)?, Form::Plain),
        };
        let timestamp = digits.parse().ok().filter(|&t| t <= TIMESTAMP_MAX)?;
        let key = Self { timestamp, form };
        // Comparing with what we would write refuses "+5" and "007" without a rule for each.
        (key.to_string() == name).then_some(key)
    }

    /// Returns the key for a backup made at `now`: `max(now, newest + 1)`, so that two backups in
    /// one second, or a clock that went back, neither overwrite a backup nor let an older state
    /// become the newest, whatever the forms of the two. `None` if nothing is later that would parse back: what is stored under
    /// such a name nobody would find again.
    #[must_use]
    pub fn next(now: DateTime<Utc>, newest: Option<Self>, form: Form) -> Option<Self> {
        let now = u64::try_from(now.timestamp()).unwrap_or(0);
        let timestamp = newest.map_or(now, |key| now.max(key.timestamp + 1));
        (timestamp <= TIMESTAMP_MAX).then_some(Self { timestamp, form })
    }

    /// Returns the seconds since 1970 in the name.
    #[must_use]
    pub fn timestamp(self) -> u64 {
        self.timestamp
    }

    /// Returns who can read the backup.
    #[must_use]
    pub fn form(self) -> Form {
        self.form
    }

    /// Returns whether the backup is encrypted.
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        self.form == Form::Encrypted
    }

    /// Returns the name that the same backup has in this form.
    #[must_use]
    pub fn in_form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// Returns the same moment as a date.
    #[must_use]
    pub fn created_at(self) -> DateTime<Utc> {
        let seconds = i64::try_from(self.timestamp).unwrap_or(i64::MAX);
        DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Returns the name of the database file, without `.gz` and `.age`, which the archive's header carries for `gunzip -N`.
    #[must_use]
    pub fn database_name(self) -> String {
        format!("{START}{}.db", self.timestamp)
    }
}

impl fmt::Display for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.form {
            Form::Plain => END,
            Form::Encrypted => END_OF_ENCRYPTED,
        };
        write!(f, "{START}{}{end}", self.timestamp)
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
        BackupKey { timestamp, form: Form::Plain }
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
            ("db-backup-1732442400.db.gz.age", Some(1_732_442_400)),
            ("db-backup-253402300800.db.gz.age", None),
            ("db-backup-005.db.gz.age", None),
            ("db-backup-5.db.age", None),
            ("db-backup-5.db.gz.AGE", None),
            ("db-backup-5.db.gz.age.age", None),
            ("db-backup-5.db.gz.gpg", None),
        ];
        for (name, expect) in cases {
            assert_eq!(BackupKey::parse(name).map(BackupKey::timestamp), expect, "{name:?}");
        }
    }

    #[test]
    fn every_key_parses_back() {
        for timestamp in [0, 1, 9, 10, 1_732_442_400, TIMESTAMP_MAX] {
            for form in [Form::Plain, Form::Encrypted] {
                let key = key(timestamp).in_form(form);
                let name = key.to_string();
                assert_eq!(BackupKey::parse(&name), Some(key), "{name}");
                let end = if key.is_encrypted() { "gz.age" } else { "db.gz" };
                assert!(name.ends_with(end), "{name}");
            }
        }
    }

    #[test]
    fn a_later_moment_is_newer_whatever_the_forms() {
        let mut keys = [key(6), key(5).in_form(Form::Encrypted), key(5)];
        keys.sort_unstable();
        let names = keys.map(|key| key.to_string());
        assert_eq!(names, ["db-backup-5.db.gz", "db-backup-5.db.gz.age", "db-backup-6.db.gz"]);
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
            for (newest_form, form) in
                [(Form::Plain, Form::Encrypted), (Form::Encrypted, Form::Plain)]
            {
                let newest = newest.map(|timestamp| key(timestamp).in_form(newest_form));
                let made = BackupKey::next(at(now), newest, form);
                assert_eq!(made.map(BackupKey::timestamp), expect, "now {now}, newest {newest:?}");
                assert!(made.is_none_or(|made| made.form() == form));
            }
        }
    }
}
