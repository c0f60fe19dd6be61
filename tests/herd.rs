//! Ten thousand services on one store, with and without jitter: the table of the README in small.

#[path = "../actors/benches/herd/simulation.rs"]
mod simulation;

use std::time::Duration;

use self::simulation::Herd;

const SERVICES: u32 = 10_000;

#[test]
fn jitter_spreads_the_requests_of_a_herd() {
    let together = Herd::of(SERVICES, Duration::ZERO);
    // No database of the simulation is so large that its backup takes longer than a second.
    assert_eq!(together.peak(), 3 * SERVICES);
    for minutes in [1, 5, 15, 60] {
        let herd = Herd::of(SERVICES, Duration::from_mins(minutes));
        let even = f64::from(3 * SERVICES) / (minutes * 60) as f64;
        let peak = f64::from(herd.peak());
        // By lot some seconds get more than others, above all where a second has few.
        assert!(peak < 2.0 * even + 20.0, "{minutes} minutes: {peak}, {even} if it were even");
        assert!((herd.mean() - together.mean()).abs() < f64::EPSILON, "none is lost");
    }
}

#[test]
fn the_readme_says_what_the_simulation_says() {
    let peak = Herd::of(100_000, Duration::from_mins(15)).peak();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let row = format!("\n| `\"15m\"` | {peak} |");
    assert!(readme.expect("a README").contains(&row), "{row}");
}

#[test]
fn a_store_carries_more_services_the_further_they_are_spread() {
    let carried = |minutes| u64::from(Herd::carried(100, Duration::from_mins(minutes)));
    assert_eq!(carried(0), 33);
    let spread = [1, 5, 15, 60].map(|minutes| (minutes, carried(minutes)));
    let mut before = 33;
    for (minutes, services) in spread {
        assert!(services > before, "{spread:?}");
        assert!(services < 100 * 60 * minutes / 3, "more than there is room for: {spread:?}");
        before = services;
    }
}
