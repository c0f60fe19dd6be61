//! What is stored, held against the schedule. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Finding, skip_all};
use crate::backup::FUTURE;
use crate::store::{Inventory, StoredBackup};
use crate::text;

/// The checks of this file, in their order.
pub const CHECKS: [&str; 2] = [NEWEST, PRUNING];

const NEWEST: &str = "backups.newest";
const PRUNING: &str = "backups.pruning";

/// When backups are to be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// How far due times are apart.
    pub period: Duration,
    /// How long a backup may take.
    pub timeout: Duration,
    /// Whether a service runs that makes them.
    pub service: Service,
}

/// Whether a service works on the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// It does.
    Runs,
    /// None is known of.
    Unknown,
}

/// Judges what is stored; nothing if it could not be listed.
#[must_use]
pub fn judge(
    inventory: Option<&Inventory>,
    expected: Expected,
    now: DateTime<Utc>,
) -> Vec<Finding> {
    let Some(inventory) = inventory else {
        return skip_all(&CHECKS, "the backups could not be listed");
    };
    let pruning = match &inventory.suspension {
        None => Finding::ok(PRUNING, "old backups are deleted as retention has it"),
        Some(suspension) => Finding::warning(
            PRUNING,
            format!(
                "nothing is deleted since {}: {}",
                text::moment(suspension.since),
                suspension.reason
            ),
            "look at the database; if it is right, run \"simplebackup prune --confirm\"",
        ),
    };
    vec![newest(inventory.backups.last(), expected, now), pruning]
}

fn newest(newest: Option<&StoredBackup>, expected: Expected, now: DateTime<Utc>) -> Finding {
    let Some(newest) = newest else {
        return Finding::warning(
            NEWEST,
            "there is no backup yet",
            "once there is a database, make one: \"simplebackup backup\"",
        );
    };
    let age = now - newest.key.created_at();
    if age < -FUTURE {
        return Finding::warning(
            NEWEST,
            format!("{} bears a time in the future", newest.key),
            "look at the clocks of the machines that store here; newer ones are named after it",
        );
    }
    let age = age.to_std().unwrap_or_default();
    let size = text::size(newest.archive_bytes);
    let found = format!("{}, {size}, {} ago", newest.key, text::age(age));
    if age <= expected.period * 2 + expected.timeout {
        return Finding::ok(NEWEST, found);
    }
    let due = text::age(expected.period);
    let found = format!("{found}, one is due every {due}");
    match expected.service {
        Service::Runs => Finding::failure(
            NEWEST,
            found,
            "see the log of the service and its GET /status for why they stopped",
        ),
        Service::Unknown => Finding::warning(
            NEWEST,
            found,
            "start the service, or make one: \"simplebackup backup\"",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use crate::key::BackupKey;
    use crate::store::Suspension;

    fn inventory(timestamp: u64) -> Inventory {
        let key = BackupKey::parse(&format!("db-backup-{timestamp}.db.gz")).expect("a valid name");
        let stored_at = key.created_at();
        Inventory {
            backups: vec![StoredBackup { key, archive_bytes: 1000, stored_at }],
            suspension: None,
        }
    }

    #[test]
    fn the_newest_may_be_two_periods_old() {
        let hour = Duration::from_hours(1);
        let now = DateTime::from_timestamp(1_732_442_400, 0).expect("in range");
        let judged = |inventory: &Inventory, service| {
            let timeout = Duration::from_mins(15);
            judge(Some(inventory), Expected { period: hour, timeout, service }, now).remove(0)
        };
        let cases = [
            (7200, Service::Runs, Verdict::Ok),
            (8100, Service::Runs, Verdict::Ok),
            (8101, Service::Runs, Verdict::Failure),
            (8101, Service::Unknown, Verdict::Warning),
        ];
        for (age, service, verdict) in cases {
            let finding = judged(&inventory(1_732_442_400 - age), service);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
        }
        let ahead = judged(&inventory(1_732_442_400 + 601), Service::Runs);
        assert!(ahead.found.contains("in the future"), "{ahead:?}");
        let none = judged(&Inventory::default(), Service::Runs);
        assert_eq!(none.verdict, Verdict::Warning, "{none:?}");
    }

    #[test]
    fn a_suspended_pruning_is_told() {
        let reason = "all the 2 tables are gone".to_owned();
        let mut inventory = inventory(5);
        let hour = Duration::from_hours(1);
        let expected = Expected { period: hour, timeout: hour, service: Service::Unknown };
        let judged =
            |inventory: &Inventory| judge(Some(inventory), expected, DateTime::default()).remove(1);
        assert_eq!(judged(&inventory).verdict, Verdict::Ok);
        inventory.suspension = Some(Suspension { since: DateTime::default(), reason });
        let finding = judged(&inventory);
        assert_eq!(finding.verdict, Verdict::Warning);
        assert!(finding.found.contains("all the 2 tables are gone"), "{finding:?}");
        assert_eq!(judge(None, expected, DateTime::default()).len(), 2);
    }
}
