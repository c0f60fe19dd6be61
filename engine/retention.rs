//! Which backups are no longer needed. Pure: a list in, a list out.
//!
//! Every rule says which backups **stay**; what no rule claims is surplus. So a further rule can
//! only keep more, and the newest `keep` are safe from all of them.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use chrono::{DateTime, Datelike, Utc};

use crate::key::{BackupKey, Form};

/// How many backups stay, and of which times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest. If there are more, never fewer than this stay.
    pub keep: NonZeroUsize,
    /// The newest backup of each of so many days (UTC) that have one.
    pub daily: usize,
    /// The newest backup of each of so many ISO weeks that have one.
    pub weekly: usize,
    /// The newest backup of each of so many months that have one.
    pub monthly: usize,
    /// Of backups that come in a burst only one counts as one of the newest `keep`: the first in
    /// each slot of this length, and the newest of all. Slots begin at multiples of it since
    /// 1970. Zero: every backup counts.
    pub min_spacing: Duration,
}

impl Retention {
    /// Returns the rule that the newest `keep` stay and nothing else.
    #[must_use]
    pub fn newest(keep: NonZeroUsize) -> Self {
        Self { keep, daily: 0, weekly: 0, monthly: 0, min_spacing: Duration::ZERO }
    }

    /// Returns the keys that no rule keeps, oldest first. The order of `keys` does not matter.
    ///
    /// If at least `keep` keys are given, at least `keep` are not returned. What is left has no
    /// surplus itself. A plain and an encrypted key of one second count once, stay together and go
    /// together.
    #[must_use]
    pub fn surplus(&self, keys: &[BackupKey]) -> Vec<BackupKey> {
        let given: BTreeSet<_> = keys.iter().copied().collect();
        let keys = given.iter().map(|key| key.in_form(Form::Plain)).collect();
        let mut kept = self.kept_of_the_newest(&keys);
        let day = |at: DateTime<Utc>| at.num_days_from_ce();
        let week = |at: DateTime<Utc>| at.iso_week();
        let month = |at: DateTime<Utc>| (at.year(), at.month());
        kept.extend(newest_of_each(&keys, self.daily, day));
        kept.extend(newest_of_each(&keys, self.weekly, week));
        kept.extend(newest_of_each(&keys, self.monthly, month));
        given.into_iter().filter(|key| !kept.contains(&key.in_form(Form::Plain))).collect()
    }

    /// Returns `keep` keys, or all if there are fewer: the newest of all, then the first of each
    /// slot from the newest slot on, then, if that is too few, whatever is newest.
    fn kept_of_the_newest(&self, keys: &BTreeSet<BackupKey>) -> BTreeSet<BackupKey> {
        let mut slots = BTreeSet::new();
        let firsts: Vec<_> = keys.iter().filter(|key| slots.insert(self.slot(**key))).collect();
        let by_preference = keys.last().into_iter().chain(firsts.into_iter().rev());
        let mut kept = BTreeSet::new();
        for &key in by_preference.chain(keys.iter().rev()) {
            if kept.len() == self.keep.get() {
                break;
            }
            kept.insert(key);
        }
        kept
    }

    /// Returns the number of the slot in which a backup lies; without spacing each has its own.
    fn slot(&self, key: BackupKey) -> u64 {
        key.timestamp() / self.min_spacing.as_secs().max(1)
    }
}

/// Returns the newest key of each of the `count` latest periods that have one.
fn newest_of_each<Period: PartialEq>(
    keys: &BTreeSet<BackupKey>,
    count: usize,
    period_of: impl Fn(DateTime<Utc>) -> Period,
) -> Vec<BackupKey> {
    let mut newest: Vec<BackupKey> = Vec::new();
    for &key in keys.iter().rev() {
        let is_same =
            |last: &BackupKey| period_of(last.created_at()) == period_of(key.created_at());
        if newest.last().is_some_and(is_same) {
            continue;
        }
        if newest.len() == count {
            break;
        }
        newest.push(key);
    }
    newest
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    /// 2024-11-24 10:00 UTC, a Sunday.
    const SUNDAY: u64 = 1_732_442_400;

    fn key(timestamp: u64) -> BackupKey {
        BackupKey::parse(&format!("db-backup-{timestamp}.db.gz")).expect("a valid name")
    }

    fn newest(keep: usize) -> Retention {
        Retention::newest(NonZeroUsize::new(keep).expect("at least one"))
    }

    fn check(stored: &[u64], retention: Retention, expect: &[u64]) {
        let keys: Vec<_> = stored.iter().copied().map(key).collect();
        let surplus = retention.surplus(&keys);
        let found: Vec<_> = surplus.into_iter().map(BackupKey::timestamp).collect();
        assert_eq!(found, expect, "stored {stored:?}, {retention:?}");
    }

    #[test]
    fn i1_the_newest_keep_stay_whatever_the_order() {
        check(&[], newest(3), &[]);
        check(&[1], newest(3), &[]);
        check(&[1, 2, 3], newest(3), &[]);
        check(&[1, 2, 3, 4], newest(3), &[1]);
        check(&[4, 1, 3, 2], newest(3), &[1]);
        check(&[10, 9, 100, 1], newest(1), &[1, 9, 10]);
    }

    #[test]
    fn i1_a_key_listed_twice_counts_once() {
        check(&[1, 2, 3, 3], newest(3), &[]);
        check(&[1, 1, 2, 3, 4], newest(3), &[1]);
    }

    /// The order of the names is that of the time, whether encryption was switched on or off between.
    #[test]
    fn i1_both_forms_of_names_are_one_line_of_backups() {
        let names = |names: &[&str]| -> Vec<_> {
            names.iter().map(|name| BackupKey::parse(name).expect("a valid name")).collect()
        };
        let cases: [(&[&str], usize, &[&str]); 4] = [
            (
                &["db-backup-1.db.gz", "db-backup-2.db.gz.age", "db-backup-3.db.gz"],
                2,
                &["db-backup-1.db.gz"],
            ),
            (
                &["db-backup-3.db.gz.age", "db-backup-2.db.gz", "db-backup-1.db.gz.age"],
                1,
                &["db-backup-1.db.gz.age", "db-backup-2.db.gz"],
            ),
            // One backup in two forms, which a person made.
            (&["db-backup-2.db.gz", "db-backup-2.db.gz.age", "db-backup-1.db.gz"], 2, &[]),
            (
                &["db-backup-1.db.gz.age", "db-backup-1.db.gz", "db-backup-2.db.gz"],
                1,
                &["db-backup-1.db.gz", "db-backup-1.db.gz.age"],
            ),
        ];
        for (stored, keep, expect) in cases {
            assert_eq!(newest(keep).surplus(&names(stored)), names(expect), "{stored:?}");
        }
    }

    #[test]
    fn the_newest_of_each_day_week_and_month_stays() {
        // Two a day, at 10:00 and 22:00, for 40 days back from that Sunday.
        let stored: Vec<_> = (0..80).map(|half_days| SUNDAY - half_days * DAY / 2).collect();
        let kept = |retention: Retention| {
            let keys: Vec<_> = stored.iter().copied().map(key).collect();
            let surplus = retention.surplus(&keys);
            let kept = keys.iter().rev().filter(|key| !surplus.contains(key));
            kept.map(|key| key.created_at().format("%m-%d %H").to_string()).collect::<Vec<_>>()
        };
        let daily = Retention { daily: 3, ..newest(1) };
        assert_eq!(kept(daily), ["11-22 22", "11-23 22", "11-24 10"]);
        let weekly = Retention { weekly: 3, ..newest(1) };
        assert_eq!(kept(weekly), ["11-10 22", "11-17 22", "11-24 10"]);
        let monthly = Retention { monthly: 5, ..newest(1) };
        assert_eq!(kept(monthly), ["10-31 22", "11-24 10"]);
        let all = Retention { daily: 2, weekly: 2, monthly: 2, ..newest(3) };
        assert_eq!(kept(all), ["10-31 22", "11-17 22", "11-23 10", "11-23 22", "11-24 10"]);
    }

    #[test]
    fn backups_of_a_crash_loop_do_not_evict_the_hourly_ones() {
        let retention = Retention { min_spacing: Duration::from_secs(HOUR), ..newest(3) };
        let mut stored = vec![SUNDAY, SUNDAY + HOUR, SUNDAY + 2 * HOUR];
        for restarts in 1..=50 {
            let newest = SUNDAY + 2 * HOUR + restarts * 60;
            stored.push(newest);
            let keys: Vec<_> = stored.iter().copied().map(key).collect();
            let surplus = retention.surplus(&keys);
            stored.retain(|timestamp| !surplus.contains(&key(*timestamp)));
            assert_eq!(stored, [SUNDAY + HOUR, SUNDAY + 2 * HOUR, newest]);
        }
        // Fewer than `keep` slots: the newest fill up.
        check(&[SUNDAY, SUNDAY + 1, SUNDAY + 2, SUNDAY + 3], retention, &[SUNDAY + 1]);
    }

    fn retentions() -> impl Strategy<Value = Retention> {
        let spacing = prop_oneof![Just(0), 1..3 * DAY];
        (1..6_usize, 0..5_usize, 0..5_usize, 0..5_usize, spacing).prop_map(
            |(keep, daily, weekly, monthly, spacing)| Retention {
                daily,
                weekly,
                monthly,
                min_spacing: Duration::from_secs(spacing),
                ..newest(keep)
            },
        )
    }

    fn stores() -> impl Strategy<Value = Vec<BackupKey>> {
        // Bursts, hours, days and years apart.
        let step = prop_oneof![0..90_u64, 0..2 * HOUR, 0..3 * DAY, 0..400 * DAY];
        let form = prop_oneof![Just(Form::Plain), Just(Form::Encrypted)];
        vec((step, form), 0..60).prop_map(|steps| {
            let keys = steps.iter().scan(SUNDAY, |time, (step, form)| {
                *time += step;
                Some(key(*time).in_form(*form))
            });
            keys.collect()
        })
    }

    /// How many moments these keys are of.
    fn moments<'a>(keys: impl IntoIterator<Item = &'a BackupKey>) -> usize {
        keys.into_iter().map(|key| key.timestamp()).collect::<BTreeSet<_>>().len()
    }

    proptest! {
        // No file of failures: the seed of one is printed with it.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn i1_never_fewer_than_keep_and_never_the_newest(
            retention in retentions(), stored in stores()
        ) {
            let stored: BTreeSet<_> = stored.into_iter().collect();
            let keys: Vec<_> = stored.iter().copied().collect();
            let surplus = retention.surplus(&keys);
            prop_assert!(surplus.iter().all(|key| stored.contains(key)), "a foreign name");
            prop_assert!(keys.last().is_none_or(|newest| !surplus.contains(newest)));
            let left = moments(stored.iter().filter(|key| !surplus.contains(key)));
            prop_assert!(left >= retention.keep.get().min(moments(&stored)));
            let tiers = retention.daily + retention.weekly + retention.monthly;
            prop_assert!(left <= retention.keep.get() + tiers, "more than any rule claims");
        }

        #[test]
        fn pruning_twice_is_pruning_once(retention in retentions(), stored in stores()) {
            let surplus = retention.surplus(&stored);
            let left: Vec<_> = stored.into_iter().filter(|key| !surplus.contains(key)).collect();
            prop_assert_eq!(retention.surplus(&left), []);
        }

        #[test]
        fn a_further_rule_only_keeps_more(retention in retentions(), stored in stores()) {
            let plain = Retention { daily: 0, weekly: 0, monthly: 0, ..retention };
            let surplus = plain.surplus(&stored);
            prop_assert!(retention.surplus(&stored).iter().all(|key| surplus.contains(key)));
        }
    }
}
