//! A stop: how long it may take, how long the platform has to wait for it, and who hears of it.

use std::fs;
use std::time::Duration;

use simplebackup_engine::doctor::Finding;
use simplebackup_engine::store::Inventory;
use simplebackup_engine::text;

use super::command::SHELLS;
use super::neighbour::Neighbour;
use crate::config::Config;

/// The name of the check of the deadlines.
pub(super) const DEADLINE: &str = "stop.deadline";
/// The name of the check of the process with number 1.
pub(super) const FIRST_PROCESS: &str = "stop.pid1";

/// Bytes of a database that a whole backup gets through in a second. 88 MB were measured on two
/// cores with the store beside them (the README has the table); app and line want their part.
const BYTES_A_SECOND: u64 = 50_000_000;

/// A difference between name and time of storing that is longer comes from a copy between stores.
const UPLOAD_MAX: Duration = Duration::from_hours(1);

/// What the platform should wait beyond our deadlines: the last ping, the exit itself.
const GRACE: Duration = Duration::from_secs(5);

/// How long the last backup took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Took {
    time: Duration,
    by: Source,
}

/// Who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The service that made it.
    Service,
    /// The store: from the time in its name to its arrival. The snapshot came before.
    Store,
}

/// Returns how long the last backup took: by the service that made it, else by what the store says.
pub(super) fn last_backup(
    neighbour: Option<&Neighbour>,
    inventory: Option<&Inventory>,
) -> Option<Took> {
    if let Some(time) = neighbour.and_then(|neighbour| neighbour.last_backup) {
        return Some(Took { time, by: Source::Service });
    }
    let newest = inventory?.backups.last()?;
    let time = (newest.stored_at - newest.key.created_at()).to_std().ok()?;
    (time <= UPLOAD_MAX).then_some(Took { time, by: Source::Store })
}

/// Returns the size of the database; nothing if it is not there.
pub(super) fn database_bytes(config: &Config) -> u64 {
    fs::metadata(&config.database).map_or(0, |metadata| metadata.len())
}

/// Holds the deadline of the final backup against what a backup takes.
pub(super) fn deadline(config: &Config, took: Option<Took>, database_bytes: u64) -> Finding {
    let limit = config.final_timeout;
    let least = least_time(database_bytes);
    let (time, is_measured, told) = match took {
        Some(Took { time, by: Source::Service }) => {
            (time, true, format!("the last backup took {}, says the service", exactly(time)))
        }
        Some(Took { time, by: Source::Store }) if time >= least => {
            let took = exactly(time);
            (time, true, format!("the last backup took {took}, by its times in the store"))
        }
        _ => {
            let size = text::size(database_bytes);
            (least, false, format!("a database of {size} takes {}", about(least)))
        }
    };
    let grace = text::setting(config.app_timeout + limit + GRACE);
    let found = format!(
        "{told}; the final one has {}, and the platform must wait {grace} in all",
        text::setting(limit)
    );
    let next = format!(
        "set shutdown.backup_timeout to {} or more, and the platform's grace period \
         (stop_grace_period, kill_timeout, terminationGracePeriodSeconds, TimeoutStopSec) with it",
        text::setting(Duration::from_secs((time * 3).as_secs() + 1))
    );
    if database_bytes == 0 && took.is_none() {
        let found =
            format!("the platform must wait {grace} in all for the app and the final backup");
        return Finding::ok(DEADLINE, found);
    }
    if time > limit && is_measured {
        return Finding::failure(DEADLINE, found, next);
    }
    if time * 2 > limit {
        return Finding::warning(DEADLINE, found, next);
    }
    Finding::ok(DEADLINE, found)
}

/// Says at a start that the final backup cannot be made in its time, as far as the size tells.
pub(super) fn implausible_deadline(config: &Config) -> Option<String> {
    let bytes = database_bytes(config);
    let least = least_time(bytes);
    (least > config.final_timeout).then(|| {
        format!(
            "The final backup is likely to run out of time: a database of {} takes about {}, \
             shutdown.backup_timeout is {}; raise it, and the platform's grace period with it",
            text::size(bytes),
            text::span(least),
            text::setting(config.final_timeout)
        )
    })
}

const UNDER_A_SECOND: &str = "less than 1s";

/// The times in the store are full seconds.
fn exactly(time: Duration) -> String {
    if time.as_secs() == 0 { UNDER_A_SECOND.to_owned() } else { text::span(time) }
}

fn about(time: Duration) -> String {
    if time.as_secs() == 0 {
        UNDER_A_SECOND.to_owned()
    } else {
        format!("about {}", text::span(time))
    }
}

fn least_time(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / BYTES_A_SECOND)
}

/// Looks at the first process: in a container it alone hears of a stop.
pub(super) fn first_process() -> Finding {
    match fs::read_to_string("/proc/1/comm") {
        Ok(name) => judge_first(name.trim()),
        Err(error) => Finding::skipped(FIRST_PROCESS, format!("it cannot be seen: {error}")),
    }
}

fn judge_first(name: &str) -> Finding {
    match name {
        "simplebackup" => Finding::ok(
            FIRST_PROCESS,
            "simplebackup: hears the platform's signals, and buries orphans",
        ),
        shell if SHELLS.contains(&shell) => Finding::warning(
            FIRST_PROCESS,
            format!("{shell}: a shell does not hand on the SIGTERM of a container's stop"),
            "write the container's command as a list (\"exec form\"), or begin it with exec",
        ),
        other => Finding::ok(FIRST_PROCESS, other),
    }
}

#[cfg(test)]
mod tests {
    use simplebackup_engine::doctor::Verdict;
    use simplebackup_engine::key::BackupKey;
    use simplebackup_engine::store::StoredBackup;

    use super::*;

    #[test]
    fn a_backup_that_takes_too_long_for_the_final_one_is_told() {
        let config = Config::default();
        let took = |secs| Some(Took { time: Duration::from_secs(secs), by: Source::Service });
        let stored = |secs| Some(Took { time: Duration::from_secs(secs), by: Source::Store });
        let cases = [
            (None, 0, Verdict::Ok, "the platform must wait 45s in all"),
            (None, 100_000_000, Verdict::Ok, "a database of 100.0MB takes about 2.0s; "),
            (None, 800_000_000, Verdict::Warning, "takes about 16.0s"),
            (None, 2_000_000_000, Verdict::Warning, "takes about 40.0s"),
            (took(1), 1000, Verdict::Ok, "the last backup took 1.0s, says the service; "),
            (took(16), 1000, Verdict::Warning, "took 16.0s"),
            (took(31), 1000, Verdict::Failure, "the final one has 30s"),
            (took(1), 800_000_000, Verdict::Ok, "took 1.0s"),
            (stored(1), 800_000_000, Verdict::Warning, "takes about 16.0s"),
            (stored(31), 1000, Verdict::Failure, "took 31.0s, by its times in the store"),
            (stored(0), 1000, Verdict::Ok, "took less than 1s, by"),
        ];
        for (took, bytes, verdict, words) in cases {
            let finding = deadline(&config, took, bytes);
            assert_eq!(finding.verdict, verdict, "{took:?} {bytes}: {finding:?}");
            assert!(finding.found.contains(words), "{took:?} {bytes}: {finding:?}");
        }
    }

    #[test]
    fn the_service_knows_best_and_a_copy_between_stores_tells_nothing() {
        let key = BackupKey::parse("db-backup-1732442400.db.gz").expect("a valid name");
        let stored = |secs| {
            let stored_at = key.created_at() + chrono::TimeDelta::seconds(secs);
            let backups = vec![StoredBackup { key, archive_bytes: 1, stored_at }];
            Inventory { backups, suspension: None }
        };
        let secs = |took: Option<Took>| took.map(|took| took.time.as_secs());
        assert_eq!(secs(last_backup(None, Some(&stored(7)))), Some(7));
        assert_eq!(secs(last_backup(None, Some(&stored(-7)))), None);
        assert_eq!(secs(last_backup(None, Some(&stored(86_400)))), None);
        assert_eq!(secs(last_backup(None, None)), None);
        let last_backup_took = Some(Duration::from_secs(3));
        let neighbour = Neighbour { database: String::new(), last_backup: last_backup_took };
        assert_eq!(secs(last_backup(Some(&neighbour), Some(&stored(7)))), Some(3));
    }

    #[test]
    fn a_shell_as_the_first_process_is_warned_of() {
        let cases =
            [("simplebackup", Verdict::Ok), ("sh", Verdict::Warning), ("tini", Verdict::Ok)];
        for (name, verdict) in cases {
            assert_eq!(judge_first(name).verdict, verdict, "{name}");
        }
    }
}
