//! How many services one store carries: prints the table of the README, in Markdown.
//!
//!     cargo bench --bench herd
//!
//! Simulated, not measured; what is assumed stands in `herd/simulation.rs`, and above the table.

#[path = "herd/simulation.rs"]
mod simulation;

use std::time::Duration;

use simulation::Herd;

const SERVICES: u32 = 100_000;

/// What Amazon S3 takes at least of PUT, COPY, POST and DELETE for each partition of a bucket:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html>.
const AMAZON: u32 = 3500;

/// What a small server of one's own bears. An assumption: servers and disks differ widely.
const SMALL: u32 = 500;

const JITTERS: [(&str, Duration); 5] = [
    ("0s", Duration::ZERO),
    ("1m", Duration::from_mins(1)),
    ("5m", Duration::from_mins(5)),
    ("15m", Duration::from_mins(15)),
    ("1h", Duration::from_hours(1)),
];

fn main() {
    let [services, amazon, small] = [SERVICES, AMAZON, SMALL].map(grouped);
    println!(
        "Every hour {services} services send a LIST, a PUT and a DELETE each, for databases of 1 to \
         50 MB at 15 ms for each MB: {:.0} requests in the mean second of the hour.\n",
        Herd::of(SERVICES, Duration::ZERO).mean()
    );
    println!(
        "| jitter | busiest second, {services} services | services on a store of {amazon} requests a \
         second | of {small} |"
    );
    println!("|---|---|---|---|");
    for (name, jitter) in JITTERS {
        let peak = grouped(Herd::of(SERVICES, jitter).peak());
        let [amazon, small] = [AMAZON, SMALL].map(|limit| grouped(Herd::carried(limit, jitter)));
        println!("| `\"{name}\"` | {peak} | {amazon} | {small} |");
    }
}

/// Returns a number with a comma before each group of three digits.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
