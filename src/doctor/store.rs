//! The configured store: opened to be looked at, which makes nothing, and everything about it in
//! one list.

use simplebackup_engine::blocking;
use simplebackup_engine::clock::SystemClock;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::doctor::store::{self, Examined, LIMIT, LeaseUse, Probe};
use simplebackup_engine::doctor::{Finding, bucket, skip_all};
use simplebackup_engine::store::{BackupStore, Bucket, Inventory, StoreError};

use super::settings;
use crate::config::{Config, StoreChoice};
use crate::service::{ServiceError, open_store_to_read};

/// What came of opening the store.
pub(super) enum Opened {
    /// A bucket: it can be asked about itself.
    Bucket(Bucket),
    /// A folder that is there.
    Folder,
    /// The folder beside the database, which the first backup makes.
    NotMadeYet(String),
    /// It could not be opened.
    Failed(StoreError),
}

/// What was found at the store.
pub(super) struct StoreFindings {
    /// One finding for each of the checks, in their order.
    pub(super) findings: Vec<Finding>,
    /// What is stored, if it could be listed.
    pub(super) inventory: Option<Inventory>,
}

/// Opens the store, and names the probe for it.
pub(super) async fn open(config: &Config) -> Result<(Opened, Option<Probe>), std::io::Error> {
    if let StoreChoice::BesideDatabase(folder) = &config.store
        && !folder.exists()
    {
        return Ok((Opened::NotMadeYet(format!("file://{}", folder.display())), None));
    }
    let (store, opened) = match open_both(config).await {
        Ok(both) => both,
        Err(error) => return Ok((Opened::Failed(error), None)),
    };
    Ok((opened, Some(Probe::of(store)?)))
}

async fn open_both(config: &Config) -> Result<(BackupStore, Opened), StoreError> {
    let operation = "opening of the store";
    let owned = config.clone();
    // Not on this thread: a dead network file system answers never.
    let opened = blocking::run(Deadline::after(LIMIT), move |_stop| open_store_to_read(&owned));
    let opened = opened.await.map_err(|_out_of_time| StoreError::out_of_time(operation))?;
    let store = match opened {
        Ok(store) => store,
        Err(ServiceError::Store { source, .. }) => return Err(source),
        Err(other) => {
            let fault = simplebackup_engine::store::Fault::Refused;
            return Err(StoreError::with_text(operation, fault, &other.to_string()));
        }
    };
    let opened = match &config.store {
        StoreChoice::S3(settings) => Opened::Bucket(Bucket::open(settings)?),
        StoreChoice::Folder(_) | StoreChoice::BesideDatabase(_) => Opened::Folder,
    };
    Ok((store, opened))
}

/// Looks at the store. The bucket's own questions are asked beside the rest, so that a store that
/// is dead says so once.
pub(super) async fn examine(
    config: &Config,
    opened: &Opened,
    probe: Option<&Probe>,
) -> StoreFindings {
    let lease = if config.lease_wait.is_some() { LeaseUse::Wanted } else { LeaseUse::Off };
    let tried = async {
        match (opened, probe) {
            (Opened::Failed(error), _) => store::unreachable(error),
            (Opened::NotMadeYet(location), _) => store::not_made_yet(location),
            (_, Some(probe)) => store::examine(probe, lease, &SystemClock).await,
            // Cannot be: what was opened has a probe.
            (Opened::Bucket(_) | Opened::Folder, None) => store::not_made_yet("the store"),
        }
    };
    let asked = async {
        match opened {
            Opened::Bucket(bucket) => Some(bucket::ask(bucket, LIMIT, &SystemClock).await),
            _ => None,
        }
    };
    let (Examined { mut findings, inventory, clocks }, asked) = futures::join!(tried, asked);
    let told = asked.as_ref().and_then(bucket::Asked::clocks);
    findings.push(store::judge_clock(told.or(clocks)));
    findings.extend(match (&asked, &config.store) {
        (Some(asked), StoreChoice::S3(settings)) => {
            let prefix = if settings.prefix.is_empty() {
                String::new()
            } else {
                format!("{}/", settings.prefix)
            };
            bucket::judge(asked, &prefix, settings::kept_for(config))
        }
        (None, StoreChoice::S3(_)) => skip_all(&bucket::CHECKS, "the store cannot be used"),
        _ => skip_all(&bucket::CHECKS, "a folder has no such thing"),
    });
    StoreFindings { findings, inventory }
}
