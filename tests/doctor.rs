//! The doctor: each check on something sound, and on what it is there to find.

mod command;
mod database;

use std::time::Duration;

use simplebackup_engine::clock::SystemClock;
use simplebackup_engine::doctor::store::{self, Examined, LeaseUse, Probe};
use simplebackup_engine::doctor::{Finding, Verdict, bucket};
use simplebackup_engine::secret::Secret;
use simplebackup_engine::store::{BackupStore, Bucket, Fault, S3Settings};

use crate::support::s3::{BUCKET, Request, S3Server, Trouble as Answer};
use crate::support::store::{Call, Trouble};
use crate::support::{Site, files_in};

/// Returns the finding of a check.
#[track_caller]
fn of<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    let finding = findings.iter().find(|finding| finding.check == check);
    finding.unwrap_or_else(|| panic!("no {check} in {findings:#?}"))
}

/// Asserts what a check came to, and words of what it found or what to do.
#[track_caller]
fn assert_finding(findings: &[Finding], check: &str, verdict: Verdict, words: &str) {
    let finding = of(findings, check);
    let said = format!("{}; {}", finding.found, finding.next.as_deref().unwrap_or_default());
    assert_eq!(finding.verdict, verdict, "{check}: {said}");
    assert!(said.contains(words), "{check}: {said}");
    let is_mended = matches!(verdict, Verdict::Warning | Verdict::Failure);
    assert!(!is_mended || finding.next.is_some(), "{check} does not say what to do");
}

async fn examine(store: BackupStore, lease: LeaseUse) -> Examined {
    let probe = Probe::of(store).expect("random numbers");
    store::examine(&probe, lease, &SystemClock).await
}

fn verdicts(findings: &[Finding]) -> Vec<Verdict> {
    findings.iter().map(|finding| finding.verdict).collect()
}

#[tokio::test]
async fn a_sound_store_passes_and_keeps_nothing() {
    let site = Site::with_database();
    site.back_up().await.expect("made");
    let before = site.stored().await;

    let examined = examine(site.store(), LeaseUse::Wanted).await;

    assert_eq!(verdicts(&examined.findings), [Verdict::Ok; 6], "{:#?}", examined.findings);
    let checks: Vec<_> = examined.findings.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, store::CHECKS);
    assert_eq!(store::judge_clock(examined.clocks).verdict, Verdict::Ok);
    assert_eq!(examined.inventory.expect("listed").backups.len(), 1);
    assert_eq!(site.stored().await, before);
}

/// One permission that lacks fails one check, and keeps none of the others from being made.
#[tokio::test]
async fn each_permission_that_lacks_is_told_by_its_name() {
    use Verdict::{Failure, Ok, Skipped};

    let cases = [
        (Call::List, "store.list", "s3:ListBucket", [Ok, Failure, Ok, Ok, Ok, Ok]),
        (Call::Put, "store.put", "s3:PutObject", [Ok, Ok, Failure, Skipped, Ok, Skipped]),
        (Call::Get, "store.get", "s3:GetObject", [Ok, Ok, Ok, Failure, Ok, Skipped]),
        (Call::Delete, "store.delete", "s3:DeleteObject", [Ok, Ok, Ok, Ok, Failure, Ok]),
    ];
    for (call, check, permission, expected) in cases {
        let site = Site::new();
        site.script().plan(call, .., Trouble::Fail(Fault::AccessDenied));
        let Examined { findings, .. } = examine(site.store(), LeaseUse::Off).await;
        assert_finding(&findings, check, Failure, permission);
        assert_eq!(verdicts(&findings), expected, "{call:?}: {findings:#?}");
        let left = site.stored().await;
        assert_eq!(left.len(), usize::from(call == Call::Delete), "{left:?}");
    }
}

#[tokio::test]
async fn a_probe_that_stays_is_named() {
    let site = Site::new();
    site.script().plan(Call::Delete, .., Trouble::NotDone);
    let Examined { findings, .. } = examine(site.store(), LeaseUse::Off).await;
    let left = site.stored().await;
    let address = format!("s3://mybucket/backups/{}", left[0]);
    assert_finding(&findings, "store.delete", Verdict::Failure, &address);
    assert_finding(&findings, "store.delete", Verdict::Failure, "object lock");
}

/// The answer to the put is lost: it may have been written, and is removed.
#[tokio::test]
async fn a_probe_whose_fate_is_not_known_is_removed() {
    let site = Site::new();
    site.script().plan(Call::Put, .., Trouble::LoseAnswer);
    let Examined { findings, .. } = examine(site.store(), LeaseUse::Off).await;
    assert_finding(&findings, "store.put", Verdict::Failure, "connection failed");
    assert_eq!(site.stored().await, [""; 0]);
}

#[tokio::test]
async fn other_bytes_than_were_written_are_noticed() {
    let site = Site::new();
    site.script().plan(Call::Get, ..1, Trouble::Corrupt(5));
    let Examined { findings, .. } = examine(site.store(), LeaseUse::Off).await;
    assert_finding(&findings, "store.get", Verdict::Failure, "other bytes came back");
}

/// A store may ignore conditions or refuse them; that is a failure only where a lease needs them.
#[tokio::test]
async fn conditions_that_are_not_obeyed_matter_to_a_lease() {
    let cases = [
        (Trouble::IgnoreCondition, "in spite of If-None-Match"),
        (Trouble::Answer(501), "conditional write of"),
    ];
    for (trouble, words) in cases {
        for (lease, verdict) in
            [(LeaseUse::Off, Verdict::Warning), (LeaseUse::Wanted, Verdict::Failure)]
        {
            let site = Site::new();
            site.script().plan(Call::Put, 1.., trouble.clone());
            let Examined { findings, .. } = examine(site.store(), lease).await;
            assert_finding(&findings, "store.conditions", verdict, words);
            assert_finding(&findings, "store.conditions", verdict, "lease");
            assert_eq!(site.stored().await, [""; 0]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_told_soon_and_the_rest_is_skipped() {
    let site = Site::new();
    site.script().plan(Call::List, .., Trouble::Hang);
    let begun = tokio::time::Instant::now();
    let Examined { findings, .. } = examine(site.store(), LeaseUse::Off).await;
    assert!(begun.elapsed() <= Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_finding(&findings, "store.reach", Verdict::Failure, "timeout");
    assert_eq!(verdicts(&findings[1..]), [Verdict::Skipped; 5]);
    assert_eq!(site.script().count(Call::Put), 0);
}

/// Once each: a person waits, and six seconds of retries would tell nothing more.
#[tokio::test]
async fn a_store_that_fails_is_not_asked_again() {
    let faults = [
        (Fault::Unreachable, "check MINIO_ENDPOINT"),
        (Fault::NoSuchBucket, "check MINIO_BUCKET"),
        (Fault::NoCredentials, "set MINIO_ACCESS_KEY"),
        (Fault::Certificate, "SSL_CERT_FILE"),
        (Fault::Busy, "the store's own status"),
    ];
    for (fault, words) in faults {
        let site = Site::new();
        site.script().plan(Call::List, .., Trouble::Fail(fault));
        let Examined { findings, .. } = examine(site.store(), LeaseUse::Off).await;
        assert_finding(&findings, "store.reach", Verdict::Failure, words);
        assert_eq!(verdicts(&findings[1..]), [Verdict::Skipped; 5], "{fault:?}");
        assert_eq!(site.script().calls(), [Call::List], "{fault:?}");
    }
}

#[tokio::test]
async fn a_folder_is_a_store_without_conditions() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let store = || BackupStore::folder(root.path()).expect("a folder");
    let Examined { findings, clocks, .. } = examine(store(), LeaseUse::Off).await;
    assert_finding(&findings, "store.conditions", Verdict::Skipped, "a folder has none");
    assert_eq!(verdicts(&findings[..5]), [Verdict::Ok; 5], "{findings:#?}");
    assert_eq!(store::judge_clock(clocks).verdict, Verdict::Ok);
    let Examined { findings, .. } = examine(store(), LeaseUse::Wanted).await;
    assert_finding(&findings, "store.conditions", Verdict::Failure, "lease.enabled = false");
    assert_eq!(files_in(root.path()), [""; 0]);
}

async fn ask(settings: &S3Settings) -> bucket::Asked {
    let bucket = Bucket::open(settings).expect("sound settings");
    bucket::ask(&bucket, store::LIMIT, &SystemClock).await
}

const DAY: Duration = Duration::from_hours(24);

#[tokio::test]
async fn a_bucket_is_asked_and_its_rules_are_held_against_retention() {
    let server = S3Server::start().await;
    let enabled = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    let rule = "<LifecycleConfiguration><Rule><ID>tidy</ID><Status>Enabled</Status>\
        <Filter><Prefix>backups/</Prefix></Filter><Expiration><Days>2</Days></Expiration></Rule>\
        </LifecycleConfiguration>";
    server.script().plan(Request::Versioning, .., Answer::Reply(enabled));
    server.script().plan(Request::Lifecycle, .., Answer::Reply(rule));
    let asked = ask(&server.settings()).await;
    assert_eq!(server.script().calls(), [Request::Versioning, Request::Lifecycle]);

    let findings = bucket::judge(&asked, "backups/", DAY * 7);
    assert_finding(&findings, "store.versioning", Verdict::Warning, "billed for ever");
    assert_finding(&findings, "store.lifecycle", Verdict::Failure, "after 2 days, retention");
    let findings = bucket::judge(&asked, "backups/", DAY);
    assert_finding(&findings, "store.lifecycle", Verdict::Warning, "also the last one");
}

/// The server of these tests does not know the questions. It says so only to who has signed well.
#[tokio::test]
async fn what_a_store_does_not_tell_is_unknown_and_no_failure() {
    let server = S3Server::start().await;
    let findings = bucket::judge(&ask(&server.settings()).await, "backups/", DAY);
    for check in bucket::CHECKS {
        assert_finding(&findings, check, Verdict::Skipped, "unknown: the store answered with");
        assert_finding(&findings, check, Verdict::Skipped, "status 501");
    }
    let wrong = S3Settings { secret_key: Some(Secret::new("another-hush")), ..server.settings() };
    let findings = bucket::judge(&ask(&wrong).await, "backups/", DAY);
    assert_finding(&findings, "store.versioning", Verdict::Skipped, "s3:GetBucketVersioning");
    assert_finding(
        &findings,
        "store.lifecycle",
        Verdict::Skipped,
        "allow s3:GetLifecycleConfiguration to have it checked",
    );
}

#[tokio::test]
async fn the_clock_of_the_store_is_read_from_its_answers() {
    let server = S3Server::start().await;
    let sound = ask(&server.settings()).await;
    assert_eq!(store::judge_clock(sound.clocks()).verdict, Verdict::Ok);
    let past = Answer::Date("Sun, 06 Nov 1994 08:49:37 GMT");
    server.script().plan(Request::Versioning, .., past);
    let finding = store::judge_clock(ask(&server.settings()).await.clocks());
    assert_finding(&[finding], "store.clock", Verdict::Failure, "S3 refuses requests");
    assert_eq!(store::judge_clock(None).verdict, Verdict::Skipped);
}

#[tokio::test]
async fn a_real_server_passes_with_its_conditions() {
    let server = S3Server::start().await;
    let Examined { findings, .. } = examine(server.store(), LeaseUse::Wanted).await;
    assert_eq!(verdicts(&findings), [Verdict::Ok; 6], "{findings:#?}");
    assert_eq!(server.stored(), [""; 0]);
    let mut probes = server.script().subjects(Request::Put);
    probes.dedup_by_key(|subject| subject.split(' ').next().map(str::to_owned));
    let folder = format!("/{BUCKET}/backups/doctor-");
    assert!(probes.len() == 1 && probes[0].starts_with(&folder), "{probes:?}");
}
