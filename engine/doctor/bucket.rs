//! What a bucket does by itself, held against retention: versions that stay, rules that delete or
//! move. Pure but for the asking: an answer in, a finding out.
//!
//! Many stores do not know these questions, and many keys may not ask them. That is unknown, and no
//! failure.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::store::Clocks;
use super::{Finding, skip_all};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::store::{Answer, Bucket, Question, StoreError};
use crate::text;

mod rules;

use rules::{Deed, Rule};

/// The checks of this file, in their order.
pub const CHECKS: [&str; 2] = [VERSIONING, LIFECYCLE];

const VERSIONING: &str = "store.versioning";
const LIFECYCLE: &str = "store.lifecycle";

const DAY: Duration = Duration::from_hours(24);

/// What the bucket has answered to both questions.
#[derive(Debug)]
pub struct Asked {
    versioning: Result<Answer, StoreError>,
    lifecycle: Result<Answer, StoreError>,
    answered_at: DateTime<Utc>,
}

/// Asks the bucket, each question once.
pub async fn ask(bucket: &Bucket, limit: Duration, clock: &dyn Clock) -> Asked {
    // One deadline: a store that did not answer once is not waited for again.
    let deadline = Deadline::after(limit);
    let versioning = bucket.ask(Question::Versioning, deadline).await;
    let answered_at = clock.now();
    let lifecycle = bucket.ask(Question::Lifecycle, deadline).await;
    Asked { versioning, lifecycle, answered_at }
}

impl Asked {
    /// Returns when the first question was answered, by both clocks.
    #[must_use]
    pub fn clocks(&self) -> Option<Clocks> {
        let theirs = self.versioning.as_ref().ok()?.date?;
        Some(Clocks { ours: self.answered_at, theirs })
    }
}

/// Judges the answers for objects whose names begin with `prefix`, of which retention keeps the
/// oldest for `kept_for`.
#[must_use]
pub fn judge(asked: &Asked, prefix: &str, kept_for: Duration) -> Vec<Finding> {
    let (Ok(versioning), Ok(lifecycle)) = (&asked.versioning, &asked.lifecycle) else {
        return skip_all(&CHECKS, "the store did not answer");
    };
    let rules = match lifecycle.status {
        200 => rules::parse(&lifecycle.body),
        404 if lifecycle.body.contains("NoSuchLifecycleConfiguration") => Some(Vec::new()),
        _ => None,
    };
    let ours = rules.map(|rules| {
        let names = format!("{prefix}db-backup-");
        let is_ours = |rule: &Rule| {
            names.starts_with(&rule.prefix) || rule.prefix.starts_with(names.as_str())
        };
        rules.into_iter().filter(is_ours).collect::<Vec<_>>()
    });
    let versioning = judge_versioning(versioning, ours.as_deref());
    let lifecycle = ours.map_or_else(
        || unknown(LIFECYCLE, lifecycle, "s3:GetLifecycleConfiguration"),
        |rules| judge_rules(&rules, kept_for),
    );
    vec![versioning, lifecycle]
}

fn unknown(check: &'static str, answer: &Answer, permission: &str) -> Finding {
    let why = format!("unknown: the store answered with status {}", answer.status);
    match answer.status {
        401 | 403 => Finding::unknown(check, why, format!("allow {permission} to have it checked")),
        _ => Finding::unknown(check, why, "look at the bucket's settings yourself"),
    }
}

fn judge_versioning(answer: &Answer, rules: Option<&[Rule]>) -> Finding {
    let Some(status) = rules::versioning(answer.status, &answer.body) else {
        return unknown(VERSIONING, answer, "s3:GetBucketVersioning");
    };
    if status != "Enabled" {
        let found = if status == "Suspended" { "suspended" } else { "off" };
        return Finding::ok(VERSIONING, format!("{found}: what is deleted is gone"));
    }
    let removes = |rule: &Rule| match rule.deed {
        Deed::RemoveVersions { days } => Some(days),
        _ => None,
    };
    match rules.map(|rules| rules.iter().find_map(removes)) {
        Some(Some(days)) => Finding::ok(
            VERSIONING,
            format!("on: a deleted backup can be had back for {days} days, and is billed as long"),
        ),
        rules_known => Finding::warning(
            VERSIONING,
            format!(
                "on: deleted backups stay as old versions and are billed for ever{}",
                if rules_known.is_none() { ", unless a lifecycle rule removes them" } else { "" }
            ),
            "add a lifecycle rule for the prefix with NoncurrentVersionExpiration, 7 days say",
        ),
    }
}

/// Tells the worst of the rules. One that deletes does so also when no backups are made any more:
/// then the last one goes too.
fn judge_rules(rules: &[Rule], kept_for: Duration) -> Finding {
    let kept = text::age(kept_for);
    let mut worst = Finding::ok(LIFECYCLE, "no rule of the bucket touches the backups");
    for rule in rules {
        let finding = match &rule.deed {
            Deed::RemoveVersions { .. } => continue,
            Deed::Delete { days } if days.is_none_or(|days| DAY * days <= kept_for) => {
                Finding::failure(
                    LIFECYCLE,
                    format!(
                        "rule \"{}\" deletes backups {}, retention keeps them for {kept}",
                        rule.id,
                        after(*days)
                    ),
                    DISABLE,
                )
            }
            Deed::Delete { days } => Finding::warning(
                LIFECYCLE,
                format!(
                    "rule \"{}\" deletes backups {}: if no more are made, also the last one",
                    rule.id,
                    after(*days)
                ),
                DISABLE,
            ),
            Deed::Move { days, class } => Finding::warning(
                LIFECYCLE,
                format!(
                    "rule \"{}\" moves backups to {class} {}: a restore from there may take hours",
                    rule.id,
                    after(*days)
                ),
                "take the prefix out of the rule",
            ),
        };
        if finding.verdict > worst.verdict {
            worst = finding;
        }
    }
    worst
}

const DISABLE: &str = "take the prefix out of the rule: backup.keep and retention.* delete what is \
                       too old";

fn after(days: Option<u32>) -> String {
    match days {
        Some(1) => "after 1 day".to_owned(),
        Some(days) => format!("after {days} days"),
        None => "on a day of its own".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, date: None, body: body.to_owned() }
    }

    fn judged(versioning: (u16, &str), lifecycle: (u16, &str), kept_for: Duration) -> Vec<Finding> {
        let asked = Asked {
            versioning: Ok(answer(versioning.0, versioning.1)),
            lifecycle: Ok(answer(lifecycle.0, lifecycle.1)),
            answered_at: DateTime::default(),
        };
        judge(&asked, "backups/", kept_for)
    }

    fn rule(inner: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><LifecycleConfiguration xmlns=\"x\"><Rule><ID>tidy</ID>\
             <Status>Enabled</Status>{inner}</Rule></LifecycleConfiguration>"
        )
    }

    const NONE: (u16, &str) = (404, "<Error><Code>NoSuchLifecycleConfiguration</Code></Error>");
    const OFF: (u16, &str) = (200, "<VersioningConfiguration xmlns=\"x\"/>");
    const ON: (u16, &str) =
        (200, "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>");

    #[test]
    fn versions_that_nothing_removes_are_warned_of() {
        let old = rule(
            "<Filter><Prefix></Prefix></Filter><NoncurrentVersionExpiration><NoncurrentDays>7\
             </NoncurrentDays></NoncurrentVersionExpiration>",
        );
        let cases = [
            (OFF, NONE, Verdict::Ok, "off"),
            (ON, NONE, Verdict::Warning, "billed for ever"),
            (ON, (403, ""), Verdict::Warning, "unless a lifecycle rule removes them"),
            (ON, (200, old.as_str()), Verdict::Ok, "for 7 days"),
            (
                (403, "<Error/>"),
                NONE,
                Verdict::Skipped,
                "unknown: the store answered with status 403",
            ),
            ((501, "<Error/>"), NONE, Verdict::Skipped, "status 501"),
            ((200, "<html>"), NONE, Verdict::Skipped, "unknown"),
        ];
        for (versioning, lifecycle, verdict, words) in cases {
            let finding = judged(versioning, lifecycle, DAY).remove(0);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.found.contains(words), "{finding:?}");
        }
    }

    #[test]
    fn a_rule_that_deletes_sooner_than_retention_is_a_failure() {
        let delete = |prefix: &str, days: u32| {
            rule(&format!(
                "<Filter><Prefix>{prefix}</Prefix></Filter><Expiration><Days>{days}</Days>\
                 </Expiration>"
            ))
        };
        let moved = "<Prefix/><Transition><Days>30</Days><StorageClass>GLACIER</StorageClass>\
                     </Transition>";
        let dated = "<Prefix>b</Prefix><Expiration><Date>2030-01-01T00:00:00Z</Date></Expiration>";
        let marker = "<Prefix/><Expiration><ExpiredObjectDeleteMarker>true\
                      </ExpiredObjectDeleteMarker></Expiration>";
        let tagged = "<Filter><Tag><Key>tmp</Key><Value>1</Value></Tag></Filter><Expiration><Days>1\
                      </Days></Expiration>";
        let disabled = delete("", 1).replace("Enabled", "Disabled");
        let cases = [
            (
                delete("backups/", 30),
                Verdict::Failure,
                "after 30 days, retention keeps them for 31d",
            ),
            (delete("", 1), Verdict::Failure, "\"tidy\" deletes backups after 1 day"),
            (delete("backups/db-backup-17", 1), Verdict::Failure, "after 1 day"),
            (delete("backups/", 40), Verdict::Warning, "also the last one"),
            (delete("logs/", 1), Verdict::Ok, "no rule"),
            (disabled, Verdict::Ok, "no rule"),
            (rule(dated), Verdict::Failure, "on a day of its own"),
            (rule(moved), Verdict::Warning, "moves backups to GLACIER after 30 days"),
            (rule(marker), Verdict::Ok, "no rule"),
            (rule(tagged), Verdict::Ok, "no rule"),
            ("<html>login</html>".to_owned(), Verdict::Skipped, "unknown"),
        ];
        for (body, verdict, words) in cases {
            let finding = judged(OFF, (200, &body), DAY * 31).remove(1);
            assert_eq!(finding.verdict, verdict, "{body}: {finding:?}");
            assert!(finding.found.contains(words), "{body}: {finding:?}");
        }
    }
}
