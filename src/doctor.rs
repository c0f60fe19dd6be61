//! `simplebackup doctor`: looks at everything that a backup and a stop need, and says of each what
//! was found and what to do next.
//!
//! Every check is told once, always in the same order, whatever happened to the others. The
//! checks of databases, disks and stores are the engine's; here is what concerns the process, its
//! platform, its routes and its settings. `run` does the cheap half at its start: [`start`].

mod command;
mod neighbour;
mod settings;
mod show;
pub(crate) mod start;
mod stop;
mod store;
mod surroundings;

use std::time::Duration;

use chrono::Utc;
use simplebackup_engine::blocking;
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::doctor::backups::{self, Expected, Service};
use simplebackup_engine::doctor::store::Probe;
use simplebackup_engine::doctor::{Finding, Verdict, database, place, skip_all};
use simplebackup_engine::work_dir::canonical;

use crate::config::Config;
use crate::exit::FATAL;
use crate::signals::Signals;
use store::StoreFindings;

/// What a command returns: an exit code, or an error to print.
type Done = Result<i32, Box<dyn std::error::Error>>;

/// How long the disk of the database may take to answer; as long as a store.
const LIMIT: Duration = simplebackup_engine::doctor::store::LIMIT;

/// How long a lock of the app is waited for: a person waits too.
const BUSY_TIMEOUT_MAX: Duration = Duration::from_secs(3);

/// `simplebackup doctor`, for people.
pub(crate) async fn print(config: &Config) -> Done {
    let Some(findings) = examine(config).await? else { return Ok(FATAL) };
    show::as_text(&findings)?;
    Ok(exit_code(&findings))
}

/// `simplebackup doctor --json`.
pub(crate) async fn print_as_json(config: &Config) -> Done {
    let Some(findings) = examine(config).await? else { return Ok(FATAL) };
    show::as_json(config, &findings)?;
    Ok(exit_code(&findings))
}

fn exit_code(findings: &[Finding]) -> i32 {
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Failure);
    if failed { FATAL } else { 0 }
}

/// Looks at everything; nothing is returned if a signal came first. The probe is removed then too.
async fn examine(config: &Config) -> Result<Option<Vec<Finding>>, Box<dyn std::error::Error>> {
    let signals = Signals::of_process()?;
    let mut requests = signals.follow();
    let (opened, probe) = store::open(config).await?;
    let looking = look(config, &opened, probe.as_ref());
    tokio::select! {
        findings = looking => Ok(Some(findings)),
        () = requests.next() => {
            if let Some(probe) = &probe {
                probe.remove().await?;
            }
            Ok(None)
        }
    }
}

async fn look(config: &Config, opened: &store::Opened, probe: Option<&Probe>) -> Vec<Finding> {
    let (local, store, (port, neighbour)) = futures::join!(
        local(config),
        store::examine(config, opened, probe),
        neighbour::examine(config),
    );
    let Local { findings: mut all, service } = local;
    let StoreFindings { findings, inventory } = store;
    all.extend(findings);
    let pace = settings::pace(&config.schedule, Utc::now());
    let expected = Expected {
        period: pace.map_or(Duration::MAX, |pace| pace.slowest),
        timeout: config.backup_timeout,
        service,
    };
    all.extend(backups::judge(inventory.as_ref(), expected, Utc::now()));
    let took = stop::last_backup(neighbour.as_ref(), inventory.as_ref());
    all.push(stop::deadline(config, took, stop::database_bytes(config)));
    all.push(command::examine(&config.command));
    all.push(stop::first_process());
    all.push(port);
    all.extend(settings::examine(config, pace));
    all.extend(surroundings::examine(config));
    all
}

/// What was found on this machine's disk.
struct Local {
    findings: Vec<Finding>,
    service: Service,
}

async fn local(config: &Config) -> Local {
    let path = config.database.clone();
    let busy_timeout = config.busy_timeout.min(BUSY_TIMEOUT_MAX);
    let looked = blocking::run(Deadline::after(LIMIT), move |stop| {
        let path = canonical(&path);
        let inside = database::examine(&path, busy_timeout, &stop);
        let place = place::examine(&path, inside.is_wal);
        let service = if place.service.is_some() { Service::Runs } else { Service::Unknown };
        let findings = inside.findings.into_iter().chain(place.findings).collect();
        Local { findings, service }
    });
    looked.await.unwrap_or_else(|_out_of_time| {
        let checks = [&database::CHECKS[..], &place::CHECKS[..]].concat();
        let mut findings = skip_all(&checks, "the disk did not answer");
        findings[1] = Finding::failure(
            checks[1],
            format!("the disk of {} did not answer in time", config.database.display()),
            "look at the disk, and at the server behind it if it is a network disk",
        );
        Local { findings, service: Service::Unknown }
    })
}
