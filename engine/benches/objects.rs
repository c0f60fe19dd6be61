//! What each run reckons about the objects in the store, at ten thousand of them: far more than
//! any service keeps.
//!
//!     cargo bench --bench objects

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::retention::Retention;

const OBJECTS: u64 = 10_000;
/// 2024-11-24 10:00 UTC.
const START: u64 = 1_732_442_400;
const HOUR: u64 = 3600;

/// Returns the names of hourly backups, oldest first.
fn names() -> Vec<String> {
    (0..OBJECTS).map(|hour| format!("db-backup-{}.db.gz", START + hour * HOUR)).collect()
}

/// Returns their keys, in an order that has nothing to do with their age.
fn mixed_keys() -> Vec<BackupKey> {
    let names = names();
    // 7919 is prime to 10,000: each index comes once.
    let mixed = (0..names.len()).map(|index| &names[index * 7919 % names.len()]);
    mixed.map(|name| BackupKey::parse(name).expect("a name of ours")).collect()
}

fn key(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key");
    group.throughput(Throughput::Elements(OBJECTS));
    let parse = |names: &[String]| -> usize {
        names.iter().filter_map(|name| BackupKey::parse(black_box(name))).count()
    };
    let ours = names();
    group.bench_function("parse", |bencher| bencher.iter(|| parse(&ours)));
    // What another program stores beside ours, in the same folder.
    let foreign: Vec<_> = ours.iter().map(|name| name.replace(".db.gz", ".db.gz.tmp")).collect();
    group.bench_function("parse_foreign", |bencher| bencher.iter(|| parse(&foreign)));
    let keys = mixed_keys();
    group.bench_function("order", |bencher| {
        bencher.iter_batched_ref(
            || keys.clone(),
            |keys| keys.sort_unstable(),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("name", |bencher| {
        bencher.iter(|| keys.iter().map(|key| black_box(key).to_string().len()).sum::<usize>());
    });
    group.finish();
}

fn retention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("retention");
    group.throughput(Throughput::Elements(OBJECTS));
    let newest = Retention::newest(NonZeroUsize::new(3).expect("not zero"));
    let spaced = Retention { min_spacing: Duration::from_hours(1), ..newest };
    let every_rule = Retention { daily: 1000, weekly: 1000, monthly: 1000, ..spaced };
    let keys = mixed_keys();
    for (name, retention) in [("newest", newest), ("spaced", spaced), ("every_rule", every_rule)] {
        group.bench_function(name, |bencher| bencher.iter(|| retention.surplus(black_box(&keys))));
    }
    group.finish();
}

criterion_group!(benches, key, retention);
criterion_main!(benches);
