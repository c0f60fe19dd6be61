//! The store as a backup will meet it, tried out with one probe object: written, read, written
//! under conditions, deleted.
//!
//! Each request is made once and bounded, so that a dead store gives its answer soon. The probe has
//! a name that no version of ours ever takes for a backup, and is removed whatever happens.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use rustix::rand::{GetRandomFlags, getrandom};

use super::{Finding, skip_all};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::store::{
    BackupStore, Condition, Fault, Inventory, Patience, Record, StoreError, StoreKind, Version,
    Written,
};
use crate::text;

/// The checks of [`examine`], in their order.
pub const CHECKS: [&str; 6] = [REACH, LIST, PUT, GET, DELETE, CONDITIONS];

const REACH: &str = "store.reach";
const LIST: &str = "store.list";
const PUT: &str = "store.put";
const GET: &str = "store.get";
const DELETE: &str = "store.delete";
const CONDITIONS: &str = "store.conditions";

/// The check of [`judge_clock`].
pub const CLOCK: &str = "store.clock";

/// How long each check may take, and with it a store that does not answer.
pub const LIMIT: Duration = Duration::from_secs(9);

/// S3 refuses requests of a machine whose clock is that far from its own.
const SKEW_MAX: TimeDelta = TimeDelta::minutes(15);

/// The store tells full seconds, and a request takes a while.
const SKEW_OF_NO_INTEREST: TimeDelta = TimeDelta::seconds(2);

/// Clocks that differ by more are not kept right by anybody.
const SKEW_WORTH_A_WORD: TimeDelta = TimeDelta::seconds(30);

/// Whether instances take turns, so that the store has to obey conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseUse {
    /// `lease.enabled`.
    Wanted,
    /// The default.
    Off,
}

/// The object that a store is tried with.
#[derive(Debug)]
pub struct Probe {
    store: BackupStore,
    name: String,
    content: Bytes,
}

/// What the checks found, and what other checks want to know.
#[derive(Debug)]
pub struct Examined {
    /// One finding for each of [`CHECKS`].
    pub findings: Vec<Finding>,
    /// What is stored, if it could be listed.
    pub inventory: Option<Inventory>,
    /// When something was stored, by both clocks.
    pub clocks: Option<Clocks>,
}

/// One moment by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// This machine's.
    pub ours: DateTime<Utc>,
    /// The store's, which may tell full seconds only.
    pub theirs: DateTime<Utc>,
}

impl Probe {
    /// Names a probe for one look at `store`; nothing is stored yet.
    ///
    /// # Errors
    ///
    /// When the system has no random numbers.
    pub fn of(store: BackupStore) -> std::io::Result<Self> {
        let mut bytes = [0; 8];
        // Up to 256 bytes come whole or not at all (getrandom(2)).
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        let name = format!("doctor-{}.probe", text::hex(&bytes));
        let content = Bytes::from(format!(
            "A probe of \"simplebackup doctor\", which removes it: {name}. It may be deleted.\n"
        ));
        Ok(Self { store, name, content })
    }

    /// Removes the probe, if it is there.
    pub async fn remove(&self) -> Result<(), StoreError> {
        self.store.remove_record(&self.name, once()).await
    }

    async fn read(&self) -> Result<Option<Record>, StoreError> {
        let (patience, deadline) = once();
        self.store.read_record(&self.name, patience, deadline).await
    }

    fn address(&self) -> String {
        self.store.record_address(&self.name)
    }
}

/// Tries the store out.
pub async fn examine(probe: &Probe, lease: LeaseUse, clock: &dyn Clock) -> Examined {
    let listed = probe.store.inventory(Deadline::after(LIMIT), Patience::Once).await;
    if let Err(error) = &listed
        && !is_reached(error.fault)
    {
        return unreachable(error);
    }
    let reached = Finding::ok(REACH, format!("{} answers", probe.store.root()));
    let mut findings = vec![reached, list(&listed, probe)];
    let Tried { findings: tried, clocks } = try_out(probe, lease, clock).await;
    findings.extend(tried);
    Examined { findings, inventory: listed.ok(), clocks }
}

/// Says that a store cannot be used at all.
#[must_use]
pub fn unreachable(error: &StoreError) -> Examined {
    let mut findings = vec![Finding::failure(REACH, words(error), error.fault.advice())];
    findings.extend(skip_all(&CHECKS[1..], "the store cannot be used"));
    Examined { findings, inventory: None, clocks: None }
}

/// Says that a folder is not there yet, and that this is right.
#[must_use]
pub fn not_made_yet(location: &str) -> Examined {
    let mut findings = vec![Finding::ok(REACH, format!("{location} is made by the first backup"))];
    findings.extend(skip_all(&CHECKS[1..], "the folder is not there yet"));
    Examined { findings, inventory: Some(Inventory::default()), clocks: None }
}

/// Returns whether a store that fails so can be used at all.
fn is_reached(fault: Fault) -> bool {
    matches!(fault, Fault::AccessDenied | Fault::FolderDenied | Fault::Refused | Fault::NotFound)
}

fn list(listed: &Result<Inventory, StoreError>, probe: &Probe) -> Finding {
    match listed {
        Ok(inventory) => {
            let place = probe.store.location();
            let count = inventory.backups.len();
            let ending = if count == 1 { "" } else { "s" };
            Finding::ok(LIST, format!("{count} backup{ending} in {place}"))
        }
        Err(error) => Finding::failure(LIST, words(error), allow("s3:ListBucket", probe, error)),
    }
}

/// What became of a probe.
struct Tried {
    /// Of [`PUT`], [`GET`], [`DELETE`] and [`CONDITIONS`].
    findings: [Finding; 4],
    clocks: Option<Clocks>,
}

async fn try_out(probe: &Probe, lease: LeaseUse, clock: &dyn Clock) -> Tried {
    let ours = clock.now();
    let written = probe.store.put_record(&probe.name, probe.content.clone(), once()).await;
    let (put, get, conditions, clocks) = match &written {
        Ok(()) => {
            let read = probe.read().await;
            let record = read.as_ref().ok().and_then(Option::as_ref);
            let conditions = conditions(probe, lease, record).await;
            let clocks = record.map(|record| Clocks { ours, theirs: record.stored_at });
            let taken = format!("a probe of {} was taken", text::size(probe.content.len() as u64));
            (Finding::ok(PUT, taken), get(&read, probe), conditions, clocks)
        }
        Err(error) => (
            Finding::failure(PUT, words(error), allow("s3:PutObject", probe, error)),
            Finding::skipped(GET, "nothing could be written to be read"),
            Finding::skipped(CONDITIONS, "nothing could be written"),
            None,
        ),
    };
    // Also after an error: it may have been written, and the answer lost.
    let delete = delete(probe).await;
    Tried { findings: [put, get, delete, conditions], clocks }
}

fn get(read: &Result<Option<Record>, StoreError>, probe: &Probe) -> Finding {
    match read {
        Ok(Some(record)) if record.content == probe.content => {
            Finding::ok(GET, "the same bytes came back")
        }
        Ok(Some(_)) => {
            Finding::failure(GET, "other bytes came back than were written", LOOK_BETWEEN)
        }
        Ok(None) => Finding::failure(GET, "what was just written is not there", LOOK_BETWEEN),
        Err(error) => Finding::failure(GET, words(error), allow("s3:GetObject", probe, error)),
    }
}

const LOOK_BETWEEN: &str = "look at the store, and at what stands between: a proxy, a cache";

async fn delete(probe: &Probe) -> Finding {
    if let Err(error) = probe.remove().await {
        let next = format!(
            "{}; then delete {}, if it is there",
            allow("s3:DeleteObject", probe, &error),
            probe.address()
        );
        let found = format!("{}; old backups pile up", words(&error));
        return Finding::failure(DELETE, found, next);
    }
    match probe.read().await {
        Ok(None) => Finding::ok(DELETE, "the probe is gone again"),
        Ok(Some(_)) => Finding::failure(
            DELETE,
            format!("the store says that {} is deleted, and still has it", probe.address()),
            "look for an object lock or a legal hold on the bucket; then delete it by hand",
        ),
        // Deleted it is; why it cannot be read is said elsewhere.
        Err(_unreadable) => Finding::ok(DELETE, "the probe was deleted"),
    }
}

/// Finds out whether the store obeys conditions: two writes that it has to refuse, and one that it
/// has to take. All carry what stands there already.
async fn conditions(probe: &Probe, lease: LeaseUse, record: Option<&Record>) -> Finding {
    if probe.store.kind() == StoreKind::Folder {
        return match lease {
            LeaseUse::Off => {
                Finding::skipped(CONDITIONS, "a folder has none; only a lease needs them")
            }
            LeaseUse::Wanted => unmet(lease, "a folder has no conditional writes"),
        };
    }
    let Some(record) = record else {
        return Finding::skipped(CONDITIONS, "the probe could not be read");
    };
    let tries = [
        (Condition::Absent, Written::Refused, "overwrites an object in spite of If-None-Match"),
        (
            Condition::Unchanged(Version::of_nothing()),
            Written::Refused,
            "overwrites another version in spite of If-Match",
        ),
        (
            Condition::Unchanged(record.version.clone()),
            Written::Done,
            "refuses to overwrite the version that If-Match names",
        ),
    ];
    for (condition, expected, otherwise) in tries {
        let content = probe.content.clone();
        match probe.store.write_record(&probe.name, content, condition, once()).await {
            Ok(written) if written == expected => {}
            Ok(_) => return unmet(lease, &format!("the store {otherwise}")),
            Err(error) => return unmet(lease, &words(&error)),
        }
    }
    Finding::ok(CONDITIONS, "If-None-Match and If-Match are obeyed")
}

fn unmet(lease: LeaseUse, found: &str) -> Finding {
    match lease {
        LeaseUse::Wanted => Finding::failure(
            CONDITIONS,
            format!("{found}, and the lease needs them"),
            "use a store with conditional writes, or set lease.enabled = false and stop the old \
             instance before the new one starts",
        ),
        LeaseUse::Off => Finding::warning(
            CONDITIONS,
            format!("{found}; nothing but a lease needs them"),
            "leave lease.enabled off with this store",
        ),
    }
}

/// Compares the clocks, if the store has told its own.
#[must_use]
pub fn judge_clock(clocks: Option<Clocks>) -> Finding {
    let Some(Clocks { ours, theirs }) = clocks else {
        return Finding::skipped(CLOCK, "the store did not tell its time");
    };
    let ahead = ours - theirs;
    let apart = ahead.abs();
    if apart <= SKEW_OF_NO_INTEREST {
        return Finding::ok(CLOCK, "as the store's, within 2s");
    }
    let side = if ahead > TimeDelta::zero() { "ahead of" } else { "behind" };
    let found = format!("{} {side} the store's", text::span(apart.to_std().unwrap_or_default()));
    let next = "have the clock of this machine set by NTP (timedatectl set-ntp true)";
    if apart >= SKEW_MAX {
        let found = format!("{found}: S3 refuses requests beyond 15 minutes");
        return Finding::failure(CLOCK, found, next);
    }
    if apart >= SKEW_WORTH_A_WORD {
        return Finding::warning(CLOCK, format!("{found}: backups bear a wrong time"), next);
    }
    Finding::ok(CLOCK, found)
}

/// Returns what to do about an operation that failed: what to allow if it was refused.
fn allow(permission: &str, probe: &Probe, error: &StoreError) -> String {
    let advice = error.fault.advice();
    match (probe.store.kind(), error.fault) {
        (StoreKind::S3, Fault::AccessDenied) => {
            format!("allow {permission} on {}; {advice}", probe.store.location())
        }
        _ => advice.to_owned(),
    }
}

/// Returns an error without its advice, which stands apart.
fn words(error: &StoreError) -> String {
    let StoreError { operation, fault, source, .. } = error;
    let said = source.as_ref().map_or_else(String::new, |source| format!(": {source}"));
    format!("{operation} failed: {}{said}", fault.words())
}

fn once() -> (Patience, Deadline) {
    (Patience::Once, Deadline::after(LIMIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;
    use crate::key::BackupKey;

    #[test]
    fn clocks_are_compared_both_ways() {
        let now = DateTime::from_timestamp(1_732_442_400, 0).expect("in range");
        let cases = [
            (0, Verdict::Ok, "as the store's"),
            (-2, Verdict::Ok, "as the store's"),
            (7, Verdict::Ok, "7.0s ahead of the store's"),
            (40, Verdict::Warning, "40.0s ahead of the store's"),
            (-40, Verdict::Warning, "40.0s behind the store's"),
            (-900, Verdict::Failure, "15m00s behind the store's"),
        ];
        for (seconds, verdict, words) in cases {
            let ours = now + TimeDelta::seconds(seconds);
            let finding = judge_clock(Some(Clocks { ours, theirs: now }));
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.found.starts_with(words), "{finding:?}");
        }
    }

    #[test]
    fn a_probe_is_never_taken_for_a_backup() {
        let store = BackupStore::folder(&std::env::temp_dir()).expect("a folder");
        let (one, other) = (Probe::of(store.clone()), Probe::of(store));
        let (one, other) = (one.expect("random").name, other.expect("random").name);
        assert_ne!(one, other, "two that look do not meet");
        assert_eq!(BackupKey::parse(&one), None);
    }
}
