//! What deserves a look although the service runs: each with what to do next. Pure.

use serde::Serialize;
use simplebackup_actors::status::Status;
use simplebackup_actors::verdict::Verdict;
use simplebackup_engine::text;

use super::Surroundings;

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Warning {
    kind: &'static str,
    what: String,
    next: String,
}

fn warning(kind: &'static str, what: String, next: &str) -> Warning {
    Warning { kind, what, next: next.to_owned() }
}

/// Returns what deserves a look, the most urgent first.
pub(super) fn warnings(
    status: &Status,
    verdict: Verdict,
    surroundings: &Surroundings,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if let Some(error) = &status.restore_error {
        let next = "The app was not started, and nothing was overwritten. Mend the cause and start \
                    the service again; it tries the restore anew.";
        warnings.push(warning("restore_failed", format!("The restore failed: {error}"), next));
    }
    if verdict == Verdict::Failing {
        warnings.extend(failures(status));
    }
    if verdict == Verdict::Late {
        let what = "Backups were due that were not made".to_owned();
        let next = "Back up now, and read the service's log for why none was made; look at the \
                    clock of the machine too.";
        warnings.push(warning("late", what, next));
    }
    if let Some(suspension) = &status.suspension {
        let (since, reason) = (text::moment(suspension.since), &suspension.reason);
        let what =
            format!("The database looks emptied, nothing is deleted since {since}: {reason}");
        let next = "Look at the database. If it is right, run \"simplebackup prune --confirm\" or \
                    POST /retention/resume; if not, restore one of the older backups below.";
        warnings.push(warning("pruning_suspended", what, next));
    }
    if let Some(fork) = &status.fork {
        let (holder, since) = (&fork.holder, text::moment(fork.since));
        let what = format!(
            "Instance {holder} has the lease since {since}: backups of this one go beside the line, \
             to forks/{}/",
            fork.instance
        );
        let next = "Two instances write. Stop one of them; see \"Rolling deploys\" in the README.";
        warnings.push(warning("fenced", what, next));
    }
    warnings.extend(lesser(status, surroundings));
    warnings
}

/// Returns what has failed since the last success.
fn failures(status: &Status) -> Vec<Warning> {
    let made_at = status.last_backup.as_ref().map(|last| last.at);
    let is_news = |at| made_at.is_none_or(|made_at| at > made_at);
    let mut failures = Vec::new();
    if let Some(error) = status.last_error.as_ref().filter(|error| is_news(error.at)) {
        let what = format!("The last {} backup failed: {}", error.trigger.word(), error.error);
        let next = "Older backups stay. The next one tries again by itself; once the cause is \
                    mended, back up now.";
        failures.push(warning("backup_failed", what, next));
    }
    if let Some((_, error)) = status.last_verify_error.as_ref().filter(|(at, _)| is_news(*at)) {
        let what = format!("The last restore drill failed: {error}");
        let next = "Back up now, then verify now. \"simplebackup verify --all\" says which of the \
                    stored backups are sound.";
        failures.push(warning("drill_failed", what, next));
    }
    failures
}

fn lesser(status: &Status, surroundings: &Surroundings) -> Vec<Warning> {
    let mut lesser = Vec::new();
    if let Some(error) = &status.survey_error {
        let what = format!("The store could not be read at the start: {error}");
        let next = "The next backup is likely to fail too. Look at the address of the store, its \
                    keys and the network.";
        lesser.push(warning("store_unread", what, next));
    }
    let report = status.last_report.as_ref().map(|(_, report)| report);
    if let Some(error) = report.and_then(|report| report.delete_warning.as_ref()) {
        let what = format!("Old backups were not deleted: {error}");
        let next = "The new backup is made. If they pile up, see whether the key may delete \
                    (s3:DeleteObject).";
        lesser.push(warning("cleanup_failed", what, next));
    }
    if status.enabled && surroundings.is_beside_database {
        let what = "Backups lie on the database's own disk".to_owned();
        let next = "That protects from deletion, not from losing the machine: name a bucket in \
                    store.url (MINIO_BUCKET).";
        lesser.push(warning("same_disk", what, next));
    }
    lesser
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use simplebackup_actors::messages::Trigger;
    use simplebackup_actors::status::LastError;
    use simplebackup_engine::instance::Instance;
    use simplebackup_engine::lease::Fork;
    use simplebackup_engine::store::Suspension;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).expect("in range")
    }

    fn instance(digit: &str) -> Instance {
        Instance::parse(&digit.repeat(16)).expect("valid")
    }

    #[test]
    fn each_trouble_is_named_with_what_to_do() {
        let error = || "refused".to_owned();
        let last_error = LastError { trigger: Trigger::Manual, at: at(5), error: error() };
        let fork = Fork { instance: instance("1"), holder: instance("2"), since: at(0) };
        let status = Status {
            enabled: true,
            restore_error: Some(error()),
            last_error: Some(last_error),
            last_verify_error: Some((at(5), error())),
            suspension: Some(Suspension { since: at(0), reason: "all gone".to_owned() }),
            fork: Some(fork),
            survey_error: Some(error()),
            ..Status::default()
        };
        let beside = Surroundings { is_beside_database: true, ..Surroundings::default() };
        let elsewhere = Surroundings::default();
        let kinds = |verdict, surroundings: &Surroundings| {
            let all = warnings(&status, verdict, surroundings);
            assert!(
                all.iter().all(|one| one.next.ends_with('.') && !one.what.is_empty()),
                "{all:?}"
            );
            all.into_iter().map(|one| one.kind).collect::<Vec<_>>()
        };
        let lasting = ["pruning_suspended", "fenced", "store_unread"];
        assert_eq!(
            kinds(Verdict::Failing, &elsewhere),
            [&["restore_failed", "backup_failed", "drill_failed"][..], &lasting].concat()
        );
        assert_eq!(
            kinds(Verdict::Late, &beside),
            [&["restore_failed", "late"][..], &lasting, &["same_disk"]].concat()
        );
        let sound = Status { enabled: true, ..Status::default() };
        assert_eq!(warnings(&sound, Verdict::Safe, &elsewhere), []);
    }
}
