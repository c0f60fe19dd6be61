//! Simulated months: service, store, machine and clock under one seed, and the invariants after
//! each event. The actors, the engine, SQLite and gzip are the real ones; time is not.
//!
//! `SIMPLE_BACKUP_TEST_SEED=n` lives through the month of one seed, `SIMPLE_BACKUP_TEST_SEEDS=n`
//! through so many. A month depends on nothing but its seed, so a failure is one number.

mod database;
mod draw;
mod events;
mod life;
mod month;
mod tap;
mod ticks;
mod witness;

use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use self::month::Summary;

/// How many months CI lives through.
const SEEDS: u64 = 1000;

/// What a planned panic says first.
const PLANNED: &str = "planned";

#[test]
fn a_thousand_months_break_no_invariant() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let (first, end) = match number("SIMPLE_BACKUP_TEST_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, number("SIMPLE_BACKUP_TEST_SEEDS").unwrap_or(SEEDS)),
    };
    let begun = Instant::now();
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let summaries = std::thread::scope(|scope| {
        let work = || {
            let mut total = Summary::default();
            loop {
                let seed = next.fetch_add(1, Relaxed);
                if seed >= end {
                    return total;
                }
                add(&mut total, &live(seed));
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.collect::<Vec<_>>()
    });
    let mut total = Summary::default();
    for summary in summaries {
        // The thread has said what went wrong, and in which seed.
        add(&mut total, &summary.expect("each seed holds"));
    }
    let hours = |time: Duration| time.as_secs() / 3600;
    println!(
        "{} months: {} hours awake, {} away, {} lives, {} backups, {} restores, in {:.1?}",
        end - first,
        hours(total.awake),
        hours(total.away),
        total.lives,
        total.made,
        total.brought_back,
        begun.elapsed(),
    );
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 1_000_003] {
        let [first, second] = [live(seed), live(seed)].map(|summary| summary.trace);
        assert!(first.len() > 1000, "{first}");
        assert!(
            first == second,
            "seed {seed} differs from itself: {}",
            difference(&first, &second)
        );
    }
}

/// Lives through one month; a failure says in which.
fn live(seed: u64) -> Summary {
    silence_planned_panics();
    let _quiet = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
    match panic::catch_unwind(AssertUnwindSafe(|| month::live(seed))) {
        Ok(summary) => summary,
        Err(panic) => {
            eprintln!("seed {seed} failed; SIMPLE_BACKUP_TEST_SEED={seed} runs it alone");
            panic::resume_unwind(panic)
        }
    }
}

/// Keeps the log of thousands of planned failures off the threads of a runtime.
fn be_quiet_on(runtime: &mut tokio::runtime::Builder) {
    runtime.on_thread_start(|| {
        let quiet = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
        // For as long as the thread lives.
        std::mem::forget(quiet);
    });
}

/// Planned panics are part of the play; all others are told as ever.
fn silence_planned_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_planned = info.payload_as_str().is_some_and(|text| text.starts_with(PLANNED));
            if !is_planned {
                tell(info);
            }
        }));
    });
}

fn add(total: &mut Summary, summary: &Summary) {
    total.awake += summary.awake;
    total.away += summary.away;
    total.lives += summary.lives;
    total.made += summary.made;
    total.brought_back += summary.brought_back;
}

/// Returns the first line in which two traces differ.
fn difference(one: &str, other: &str) -> String {
    let lines = one.lines().zip(other.lines());
    let found = lines.into_iter().find(|(one, other)| one != other);
    found.map_or("one is longer".to_owned(), |(one, other)| format!("\n{one}\n{other}"))
}
