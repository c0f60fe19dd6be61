//! An hour at a store that many services share, second by second: the real schedule, the real
//! offsets, and backups of which only the moments of their requests are made up.
//!
//! Nothing is measured here, so the same numbers come out on every machine.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use simplebackup_actors::jitter::offset_within;
use simplebackup_actors::schedule::Schedule;

const SECONDS: usize = 3600;

/// What a backup sends: one LIST, one PUT, one DELETE.
const REQUESTS: u32 = 3;

/// How long a backup takes for each megabyte of the database, of the order of what the README says
/// of one of 500 MB. Each third of that time ends with a request: snapshot and check with the LIST,
/// packing with the PUT, the upload with the DELETE.
const PER_MEGABYTE: Duration = Duration::from_millis(15);

/// Databases have 1 MB to so many, all sizes equally often.
const MEGABYTES_MAX: u32 = 50;

/// Services on one store, and what they ask of it in each second of an hour. Every hour is like
/// the one before, so what a backup sends after the hour's end counts at its beginning.
#[derive(Debug)]
pub(crate) struct Herd {
    schedule: Schedule,
    jitter: Duration,
    services: u32,
    requests: Vec<u32>,
}

impl Herd {
    /// Makes a herd of no services yet.
    pub(crate) fn new(jitter: Duration) -> Self {
        let schedule = "0 0 * * * *".parse().expect("a sound schedule");
        Self { schedule, jitter, services: 0, requests: vec![0; SECONDS] }
    }

    /// Makes a herd of so many services.
    pub(crate) fn of(services: u32, jitter: Duration) -> Self {
        let mut herd = Self::new(jitter);
        for _ in 0..services {
            herd.add_one();
        }
        herd
    }

    /// Returns how many services the store carries if it takes `limit` requests in each second:
    /// one more would bring some second beyond it.
    pub(crate) fn carried(limit: u32, jitter: Duration) -> u32 {
        let mut herd = Self::new(jitter);
        while herd.add_one() <= limit {}
        herd.services - 1
    }

    /// Returns the requests of the busiest second.
    pub(crate) fn peak(&self) -> u32 {
        self.requests.iter().copied().max().unwrap_or(0)
    }

    /// Returns the requests of a second as they would be if all seconds had the same.
    pub(crate) fn mean(&self) -> f64 {
        f64::from(self.requests.iter().sum::<u32>()) / SECONDS as f64
    }

    /// Adds one service and returns the requests of the busiest second that it has a part in.
    fn add_one(&mut self) -> u32 {
        self.services += 1;
        let mut busiest = 0;
        for at in self.moments_of(self.services) {
            let second = at.timestamp().unsigned_abs() as usize % SECONDS;
            self.requests[second] += 1;
            busiest = busiest.max(self.requests[second]);
        }
        busiest
    }

    /// Returns when a service sends its requests.
    fn moments_of(&self, service: u32) -> [DateTime<Utc>; REQUESTS as usize] {
        let host = format!("app-{service:05}");
        // Each has its own prefix, as the README asks for.
        let store = format!("s3://backups/{host}/");
        let database = Path::new("/var/lib/app/database.db");
        let offset = offset_within(self.jitter, host.as_bytes(), database, &store);
        let due = self.schedule.clone().delayed_by(offset).next_after(DateTime::UNIX_EPOCH);
        let due = due.expect("hours do not end");
        let took = PER_MEGABYTE * (1 + service % MEGABYTES_MAX);
        [1, 2, 3].map(|third| due + took * third / REQUESTS)
    }
}
