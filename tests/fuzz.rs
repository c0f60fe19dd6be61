//! The properties of `fuzz/src/lib.rs`, held by the files in `fuzz/corpus` and by mutations of
//! them: the same inputs in every run, and others with `SIMPLE_BACKUP_TEST_SEED=n`;
//! `SIMPLE_BACKUP_TEST_FUZZ=n` makes n of them for each kind.

mod mutator;
#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "for the fuzz targets they are a library")]
mod properties;

use std::env;
use std::fmt::Display;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use mutator::Mutator;

/// Inputs of each kind, unless the environment wants more.
const INPUTS: usize = 2000;

/// The seed of every run that is not given one: a failure is one of the change at hand.
const SEED: u64 = 20_261_122;

/// The names of the fuzz targets and of their folders of seeds.
const TARGETS: [&str; 6] = ["archive", "config", "lease", "manifest", "names", "retry_after"];

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn from_environment<T: FromStr + Display>(name: &str, default: T) -> T {
    let Ok(text) = env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, but has to be like {default}"))
}

/// Returns the seeds of a target, in a fixed order.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = fuzz_folder().join("corpus").join(target);
    let entries =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("read").path()).collect();
    paths.sort();
    assert!(paths.len() > 3, "{} has {} seeds", folder.display(), paths.len());
    paths.iter().map(|path| fs::read(path).expect("read")).collect()
}

/// Calls `property` with the seeds of a target as they stand, then with mutations of them.
fn hold(target: &str, property: impl Fn(&[u8])) {
    let inputs = from_environment("SIMPLE_BACKUP_TEST_FUZZ", INPUTS);
    let seed = from_environment("SIMPLE_BACKUP_TEST_SEED", SEED);
    println!("again with: SIMPLE_BACKUP_TEST_SEED={seed} SIMPLE_BACKUP_TEST_FUZZ={inputs}");
    let seeds = seeds(target);
    let mut mutator = Mutator::new(seed);
    for number in 0..inputs + seeds.len() {
        let input = match seeds.get(number) {
            Some(seed) => seed.clone(),
            None => mutator.mutate(&seeds),
        };
        let held = catch_unwind(AssertUnwindSafe(|| property(&input)));
        assert!(held.is_ok(), "{target}, input {number}: b\"{}\"", input.escape_ascii());
    }
}

#[test]
fn only_names_that_we_would_write_are_ours() {
    hold("names", properties::names);
}

#[test]
fn a_configuration_is_valid_or_every_problem_has_its_place() {
    hold("config", properties::config);
}

#[test]
fn a_manifest_survives_its_way_and_tells_plain_facts() {
    hold("manifest", properties::manifest);
}

#[test]
fn a_lease_says_the_same_when_it_is_written_again() {
    hold("lease", properties::lease);
}

#[test]
fn a_store_asks_for_a_whole_wait_or_for_none() {
    hold("retry_after", properties::retry_after_header);
}

/// Of the seeds, whatever is accepted after a mutation is what was packed: no flipped bit, no cut
/// and no splice makes another database of it.
#[test]
fn i2_a_damaged_archive_is_refused_or_is_what_was_packed() {
    let packed: Vec<_> =
        seeds("archive").iter().filter_map(|seed| properties::archive(seed)).collect();
    assert!(packed.iter().filter(|bytes| bytes.starts_with(b"SQLite format 3\0")).count() > 1);
    let accepted = std::cell::Cell::new(0);
    hold("archive", |input| {
        let Some(bytes) = properties::archive(input) else { return };
        accepted.set(accepted.get() + 1);
        assert!(is_made_of(&bytes, &packed), "{} other bytes", bytes.len());
    });
    println!("{} accepted", accepted.get());
}

/// Gzip is one member after another: archives in a row that claim nothing are one archive, and so
/// is what a cut between two members leaves of one. Ours claim their size.
fn is_made_of(bytes: &[u8], packed: &[Vec<u8>]) -> bool {
    bytes.is_empty()
        || packed.iter().filter(|known| !known.is_empty()).any(|known| {
            bytes.strip_prefix(known.as_slice()).is_some_and(|rest| is_made_of(rest, packed))
        })
}

#[test]
fn every_fuzz_target_has_seeds_and_is_held_here() {
    let names = |folder: &str| {
        let entries = fs::read_dir(fuzz_folder().join(folder)).expect("a folder");
        let paths = entries.map(|entry| entry.expect("read").path());
        let stems = paths.map(|path| path.file_stem().expect("a name").to_owned());
        let mut names: Vec<_> = stems.map(|stem| stem.into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    assert_eq!(names("fuzz_targets"), TARGETS);
    assert_eq!(names("corpus"), TARGETS);
    let manifest = fs::read_to_string(fuzz_folder().join("Cargo.toml")).expect("read");
    for target in TARGETS {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
    }
}
