//! What the scheduler reckons, and how long a tick takes through the actors.
//!
//!     cargo bench --bench scheduler

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;
use chrono::{DateTime, Utc};
use criterion::{Criterion, criterion_group, criterion_main};
use object_store::memory::InMemory;
use simplebackup_actors::app::NoApp;
use simplebackup_actors::backup::{BackupActor, BackupPlan};
use simplebackup_actors::hook::Hooks;
use simplebackup_actors::messages::{BackupRequestError, Shutdown, StopCause, Tick};
use simplebackup_actors::restore::RestorePlan;
use simplebackup_actors::schedule::Schedule;
use simplebackup_actors::status::StatusBoard;
use simplebackup_actors::supervisor::{Plan, Protection, Supervisor};
use simplebackup_actors::verify::VerifyPlan;
use simplebackup_engine::backup::BackupEngine;
use simplebackup_engine::clock::{Clock, SystemClock};
use simplebackup_engine::restore::{Fallback, RestoreEngine};
use simplebackup_engine::retention::Retention;
use simplebackup_engine::store::{BackupStore, StoreKind};
use tokio::sync::watch;

const OFFSET: Duration = Duration::from_millis(450_250);

fn schedule(expression: &str) -> Schedule {
    expression.parse().expect("a sound schedule")
}

/// 2024-11-24 10:00 UTC.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_732_442_400, 0).expect("in range")
}

fn next_after(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("next_after");
    let schedules = [
        ("hourly", schedule("0 0 * * * *")),
        ("hourly_delayed", schedule("0 0 * * * *").delayed_by(OFFSET)),
        ("each_second", schedule("* * * * * *")),
        ("leap_day", schedule("0 0 0 29 2 *")),
    ];
    for (name, schedule) in schedules {
        group.bench_function(name, |bencher| {
            bencher.iter(|| schedule.next_after(black_box(now())));
        });
    }
    group.finish();
}

/// A machine that wakes after thirty days.
fn missed_between(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("missed_in_a_month");
    let month = Duration::from_hours(30 * 24);
    // Each second has more than are counted.
    let cases = [("hourly", "0 0 * * * *", 30 * 24), ("each_second", "* * * * * *", 10_000)];
    for (name, expression, missed) in cases {
        let schedule = schedule(expression).delayed_by(OFFSET);
        let due = schedule.next_after(now()).expect("one is due");
        assert_eq!(schedule.missed_between(due, due + month), missed);
        group.bench_function(name, |bencher| {
            bencher.iter(|| schedule.missed_between(black_box(due), due + month));
        });
    }
    group.finish();
}

/// A tick that is refused at once, so that what is measured is the way to the actor, its admission,
/// the status board and the way back, and no backup.
fn tick(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let system = actix::System::new();
    let actor = system.block_on(actor_that_refuses(folder.path().join("app.db")));
    criterion.bench_function("tick_refused", |bencher| {
        bencher.iter_custom(|count| {
            let actor = &actor;
            system.block_on(async move {
                let began = Instant::now();
                for _ in 0..count {
                    let refused = actor.send(Tick { due_at: now() }).await.expect("it lives");
                    assert!(matches!(refused, Err(BackupRequestError::ShuttingDown)));
                }
                began.elapsed()
            })
        });
    });
}

/// Starts a service whose database is missing, stops it, and returns its backup actor, which
/// refuses whatever comes after the final backup.
async fn actor_that_refuses(database: PathBuf) -> Addr<BackupActor> {
    let store =
        BackupStore::over(Arc::new(InMemory::new()), StoreKind::S3, "s3://mybucket", "backups");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let retention = Retention::newest(NonZeroUsize::MIN);
    let engine = BackupEngine::new(database.clone(), store.clone(), retention, Arc::clone(&clock));
    let protection = Protection {
        restore: RestorePlan {
            engine: RestoreEngine::new(store, Arc::clone(&clock)),
            database,
            fallback: Fallback::Refuse,
        },
        restore_timeout: Duration::from_mins(1),
        backup: BackupPlan {
            engine,
            run_timeout: Duration::from_mins(1),
            clock: Arc::clone(&clock),
            hooks: Hooks::default(),
            is_app_in_process: false,
        },
        // No tick of its own.
        schedule: schedule("0 0 0 1 1 *"),
        verify: VerifyPlan { schedule: None, timeout: Duration::from_mins(1) },
        final_timeout: Duration::from_secs(1),
    };
    let (sender, mut addresses) = watch::channel(None);
    let launched = Supervisor::launch(Plan {
        protection: Some(protection),
        app: Box::new(NoApp),
        app_timeout: Duration::from_secs(1),
        clock,
        board: StatusBoard::new(true, Vec::new()),
        addresses: sender,
    });
    let current = addresses.wait_for(Option::is_some).await.expect("the supervisor lives").clone();
    launched.supervisor.send(Shutdown { cause: StopCause::Signal }).await.expect("it lives");
    launched.ended.await.expect("the supervisor says how it ended");
    current.expect("some").backup
}

criterion_group!(benches, next_after, missed_between, tick);
criterion_main!(benches);
