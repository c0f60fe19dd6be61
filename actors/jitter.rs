//! How much later than its schedule an instance is due. Pure: names in, a duration out.
//!
//! A thousand instances that are all due at :00 meet at the store. So each comes a little later,
//! always by the same: a delay drawn anew for each backup would put up to an hour *and* the whole
//! jitter between two of them (docs/decisions/0018).

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use ring::digest::{Context, SHA256};

/// Returns the offset of an instance, at least zero and less than `jitter`, in whole milliseconds.
///
/// The same names give the same offset, on any machine and in any later version; different ones
/// fall evenly over the jitter. `host` is the host's name, `store` the address of the backups.
#[must_use]
pub fn offset_within(jitter: Duration, host: &[u8], database: &Path, store: &str) -> Duration {
    let mut context = Context::new(&SHA256);
    for name in [host, database.as_os_str().as_bytes(), store.as_bytes()] {
        context.update(name);
        // None of the three can hold one, so no two triples read the same.
        context.update(&[0]);
    }
    let digest = context.finish();
    let first = digest.as_ref().iter().take(8);
    let lot = first.fold(0, |lot, &byte| (lot << 8) | u64::from(byte));
    // As a fraction of 2^64, rather than by a remainder: every offset is equally likely.
    let jitter_millis = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
    let millis = (u128::from(lot) * u128::from(jitter_millis)) >> u64::BITS;
    Duration::from_millis(millis as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const DATABASE: &str = "/var/lib/app/database.db";
    const STORE: &str = "s3://mybucket/backups/";

    fn offset(jitter: Duration, names: (&str, &str, &str)) -> Duration {
        let (host, database, store) = names;
        offset_within(jitter, host.as_bytes(), Path::new(database), store)
    }

    /// Reckoned by hashlib of Python: a new version that moved the due times of all would fail.
    #[test]
    fn known_names_have_known_offsets() {
        let minutes = Duration::from_mins;
        let cases = [
            (minutes(60), ("app-00001", DATABASE, STORE), 834_916),
            (minutes(15), ("app-00001", DATABASE, STORE), 208_729),
            (Duration::from_millis(500), ("app-00001", DATABASE, STORE), 115),
            (minutes(60), ("app-00002", DATABASE, STORE), 3_142_651),
            (minutes(60), ("app-00001", "/data/app.db", STORE), 1_915_928),
            (minutes(60), ("app-00001", DATABASE, "s3://mybucket/others/"), 2_871_123),
            (minutes(60), ("", DATABASE, STORE), 1_262_748),
        ];
        for (jitter, names, expect) in cases {
            let found = offset(jitter, names).as_millis();
            assert_eq!(found, expect, "{names:?} within {jitter:?}");
        }
    }

    #[test]
    fn an_offset_is_less_than_the_jitter() {
        for jitter in [Duration::ZERO, Duration::from_millis(1), Duration::from_micros(999)] {
            assert_eq!(offset(jitter, ("app", DATABASE, STORE)), Duration::ZERO, "{jitter:?}");
        }
        for jitter in [Duration::from_millis(2), HOUR, Duration::from_hours(24), Duration::MAX] {
            for host in 0..1000 {
                let found = offset(jitter, (&host.to_string(), DATABASE, STORE));
                assert!(found < jitter, "{host}: {found:?} within {jitter:?}");
            }
        }
    }

    /// One name's end is not the next one's beginning.
    #[test]
    fn names_are_told_apart() {
        let found = [("ab", "c", "d"), ("a", "bc", "d"), ("a", "b", "cd"), ("abcd", "", "")]
            .map(|names| offset(HOUR, names));
        for (index, one) in found.iter().enumerate() {
            assert!(!found[..index].contains(one), "{found:?}");
        }
    }

    #[test]
    fn ten_thousand_hosts_fall_evenly_into_the_minutes_of_an_hour() {
        const HOSTS: u32 = 10_000;
        let mut minutes = [0_u32; 60];
        for host in 0..HOSTS {
            let found = offset(HOUR, (&format!("app-{host:05}"), DATABASE, STORE));
            minutes[(found.as_secs() / 60) as usize] += 1;
        }
        let even = f64::from(HOSTS) / 60.0;
        let chi_square: f64 =
            minutes.iter().map(|&count| (f64::from(count) - even).powi(2) / even).sum();
        // One even lot in a thousand exceeds it, with 59 degrees of freedom.
        assert!(chi_square < 98.3, "{chi_square}: {minutes:?}");
    }
}
