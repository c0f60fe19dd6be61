//! Settings that are valid, each for itself, and do not go together or leave a gap. Pure, but for a
//! look at which disk a folder lies on.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use simplebackup_actors::schedule::Schedule;
use simplebackup_engine::doctor::Finding;
use simplebackup_engine::store::S3Settings;
use simplebackup_engine::text;

use crate::config::{Config, StoreChoice};

/// The checks of this file, in their order.
#[cfg(test)]
pub(super) const CHECKS: [&str; 5] = [SCHEDULE, KEEP, STORE, HTTP, TOKEN];

const SCHEDULE: &str = "config.schedule";
const KEEP: &str = "config.keep";
const STORE: &str = "config.store";
const HTTP: &str = "config.http";
const TOKEN: &str = "config.token";

/// As many due times of a schedule are looked at: two days of the hourly one.
const DUE_TIMES: usize = 50;

const DAY: Duration = Duration::from_hours(24);

/// How far the due times of a schedule are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) fastest: Duration,
    pub(super) slowest: Duration,
}

/// Returns how far the next due times are apart; nothing if there are fewer than two.
pub(super) fn pace(schedule: &Schedule, now: DateTime<Utc>) -> Option<Pace> {
    let next = |due: &DateTime<Utc>| schedule.next_after(*due);
    let due: Vec<_> =
        std::iter::successors(schedule.next_after(now), next).take(DUE_TIMES).collect();
    let gaps = || due.windows(2).filter_map(|pair| (pair[1] - pair[0]).to_std().ok());
    Some(Pace { fastest: gaps().min()?, slowest: gaps().max()? })
}

/// Returns how old the oldest backup gets that retention keeps, in a service that never stops.
pub(super) fn kept_for(config: &Config) -> Duration {
    let retention = &config.retention;
    let pace = pace(&config.schedule, Utc::now()).map_or(Duration::ZERO, |pace| pace.slowest);
    let apart = pace.max(retention.min_spacing);
    let times = |period: Duration, count: usize| {
        period.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
    };
    let rules = [
        times(apart, retention.keep.get()),
        times(DAY, retention.daily),
        times(DAY * 7, retention.weekly),
        times(DAY * 31, retention.monthly),
    ];
    rules.into_iter().max().unwrap_or_default()
}

/// Looks at the settings.
pub(super) fn examine(config: &Config, pace: Option<Pace>) -> Vec<Finding> {
    vec![schedule(config, pace), keep(config), store(config), http(config), token(config)]
}

fn schedule(config: &Config, pace: Option<Pace>) -> Finding {
    let Some(Pace { fastest, slowest }) = pace else {
        let found = format!("\"{}\" is hardly ever due", config.schedule);
        return Finding::warning(SCHEDULE, found, "give backup.schedule an expression that recurs");
    };
    let apart = if fastest == slowest {
        format!("every {}", text::setting(slowest))
    } else {
        format!("every {} to {}", text::setting(fastest), text::setting(slowest))
    };
    let timeout = text::setting(config.backup_timeout);
    let found = format!("a backup is due {apart} and may take {timeout}");
    if config.backup_timeout > fastest {
        return Finding::warning(
            SCHEDULE,
            format!("{found}: one that is due while another runs is refused"),
            "lower backup.timeout, or make backup.schedule rarer",
        );
    }
    Finding::ok(SCHEDULE, found)
}

fn keep(config: &Config) -> Finding {
    let retention = &config.retention;
    let is_all = retention.daily + retention.weekly + retention.monthly == 0;
    if retention.keep.get() == 1 && is_all {
        return Finding::warning(
            KEEP,
            "one backup is kept: a mistake that is an hour old is in all of them",
            "raise backup.keep, or set retention.daily",
        );
    }
    let found = format!(
        "the newest {} are kept, the oldest reach back about {}",
        retention.keep,
        text::age(kept_for(config))
    );
    Finding::ok(KEEP, found)
}

fn store(config: &Config) -> Finding {
    match &config.store {
        StoreChoice::BesideDatabase(folder) => Finding::warning(
            STORE,
            format!("backups go to {}, beside the database", folder.display()),
            "set MINIO_BUCKET or store.url: this does not protect from losing the machine",
        ),
        StoreChoice::Folder(folder) if is_on_one_disk(folder, &config.database) => {
            Finding::warning(
                STORE,
                format!("{} lies on the same disk as the database", folder.display()),
                "give store.url a folder of another disk, or a bucket",
            )
        }
        StoreChoice::Folder(folder) => Finding::ok(STORE, folder.display().to_string()),
        StoreChoice::S3(settings) if is_in_the_clear(settings) => Finding::warning(
            STORE,
            format!("what is said to s3://{} travels without TLS", settings.bucket),
            "use https:// in MINIO_ENDPOINT, or MINIO_USE_SSL=true",
        ),
        StoreChoice::S3(settings) => Finding::ok(STORE, format!("s3://{}", settings.bucket)),
    }
}

fn is_on_one_disk(folder: &Path, database: &Path) -> bool {
    let disk = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let parent = database.parent().filter(|parent| !parent.as_os_str().is_empty());
    let of_database = disk(parent.unwrap_or(Path::new(".")));
    of_database.is_some() && disk(folder) == of_database
}

/// Returns whether requests leave this machine without TLS.
fn is_in_the_clear(settings: &S3Settings) -> bool {
    let Some(endpoint) = &settings.endpoint else { return false };
    let (is_plain, host) = match endpoint.split_once("://") {
        Some((scheme, host)) => (scheme == "http", host),
        None => (!settings.use_ssl, endpoint.as_str()),
    };
    is_plain && !is_loopback(host.trim_end_matches('/'))
}

/// Returns whether an address, with or without a port, is of this machine alone.
fn is_loopback(address: &str) -> bool {
    let host = match address.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => address,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn http(config: &Config) -> Finding {
    let Some(address) = &config.http_address else {
        return Finding::skipped(HTTP, "http.address is \"off\": nobody can ask how backups are");
    };
    if is_loopback(address) {
        return Finding::ok(HTTP, format!("{address} is for this machine alone"));
    }
    if config.http_token.is_none() {
        return Finding::warning(
            HTTP,
            format!("{address} is open to other machines: they read status and metrics"),
            "listen on 127.0.0.1, or let only your network reach the port",
        );
    }
    Finding::ok(HTTP, format!("{address} is open to other machines; a POST wants the token"))
}

fn token(config: &Config) -> Finding {
    if config.http_address.is_none() {
        return Finding::skipped(TOKEN, "http.address is \"off\"");
    }
    match config.http_token {
        Some(_) => Finding::ok(TOKEN, "a POST wants the token"),
        None => Finding::warning(
            TOKEN,
            "there is none, so POST /backup is refused",
            "set SIMPLE_BACKUP_HTTP_TOKEN to back up on demand, before a deploy say",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use simplebackup_engine::doctor::Verdict;
    use simplebackup_engine::secret::Secret;

    use super::*;

    fn verdicts(config: &Config) -> Vec<Verdict> {
        let now = DateTime::from_timestamp(1_732_442_400, 0).expect("in range");
        let findings = examine(config, pace(&config.schedule, now));
        assert_eq!(findings.iter().map(|finding| finding.check).collect::<Vec<_>>(), CHECKS);
        findings.into_iter().map(|finding| finding.verdict).collect()
    }

    fn sound() -> Config {
        let settings = S3Settings {
            bucket: "mybucket".into(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            access_key: None,
            secret_key: None,
            use_ssl: true,
            aws: Vec::new(),
        };
        let store = StoreChoice::S3(settings);
        Config { store, http_token: Some(Secret::new("TOKENhush")), ..Config::default() }
    }

    #[test]
    fn sound_settings_are_fine_and_each_gap_is_told() {
        use Verdict::{Ok, Skipped, Warning};

        assert_eq!(verdicts(&sound()), [Ok; 5]);
        let minutely = "0 */10 * * * *".parse().expect("valid");
        let often = Config { schedule: minutely, ..sound() };
        assert_eq!(verdicts(&often), [Warning, Ok, Ok, Ok, Ok]);
        let past = Config { schedule: "0 0 0 1 1 * 2020".parse().expect("valid"), ..sound() };
        assert_eq!(verdicts(&past), [Warning, Ok, Ok, Ok, Ok]);
        let mut one = sound();
        one.retention.keep = NonZeroUsize::MIN;
        assert_eq!(verdicts(&one), [Ok, Warning, Ok, Ok, Ok]);
        one.retention.daily = 7;
        assert_eq!(verdicts(&one), [Ok; 5]);
        let beside = Config { store: Config::default().store, ..sound() };
        assert_eq!(verdicts(&beside), [Ok, Ok, Warning, Ok, Ok]);
        let open = Config { http_address: Some("0.0.0.0:8080".into()), ..sound() };
        assert_eq!(verdicts(&open), [Ok; 5]);
        let bare = Config { http_token: None, ..open };
        assert_eq!(verdicts(&bare), [Ok, Ok, Ok, Warning, Warning]);
        let off = Config { http_address: None, ..bare };
        assert_eq!(verdicts(&off), [Ok, Ok, Ok, Skipped, Skipped]);
    }

    #[test]
    fn a_folder_on_the_disk_of_the_database_is_told() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().to_owned();
        let database = root.path().join("app.db");
        let config = Config { store: StoreChoice::Folder(folder), database, ..sound() };
        assert_eq!(verdicts(&config)[2], Verdict::Warning);
        let elsewhere = Config { store: StoreChoice::Folder("/proc".into()), ..config };
        assert_eq!(verdicts(&elsewhere)[2], Verdict::Ok);
    }

    #[test]
    fn only_requests_that_leave_the_machine_need_tls() {
        let cases = [
            ("minio.local:9000", true, false),
            ("minio.local:9000", false, true),
            ("http://minio.local:9000/", true, true),
            ("https://minio.local", false, false),
            ("127.0.0.1:9000", false, false),
            ("http://localhost:9000", false, false),
            ("http://[::1]:9000", false, false),
        ];
        let StoreChoice::S3(settings) = sound().store else { panic!("a bucket") };
        for (endpoint, use_ssl, expect) in cases {
            let endpoint = Some(endpoint.to_owned());
            let settings = S3Settings { endpoint, use_ssl, ..settings.clone() };
            assert_eq!(is_in_the_clear(&settings), expect, "{:?} {use_ssl}", settings.endpoint);
        }
    }

    #[test]
    fn retention_reaches_back_as_far_as_its_longest_rule() {
        let mut config = sound();
        assert_eq!(kept_for(&config), Duration::from_hours(3));
        config.retention.daily = 7;
        assert_eq!(kept_for(&config), DAY * 7);
        config.retention.monthly = 12;
        assert_eq!(kept_for(&config), DAY * 372);
    }
}
