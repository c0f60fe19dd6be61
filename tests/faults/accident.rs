//! How a case of the table is planned, and how time passes while it happens.

use std::time::Duration;

use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::store::Fault;
use tokio::time::advance;

use super::{Case, End, Stage, Wrong};
use crate::support::script::Gate;
use crate::support::store::{Call, Trouble};
use crate::support::{START, Site};

/// The deadline of a job that is to end by it.
const TIMEOUT: Duration = Duration::from_mins(1);

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_secs(10);

/// Runs a test in a runtime whose time stands still unless everything waits for it.
pub(super) fn on_paused_time(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().expect("a runtime").block_on(test);
}

/// Plans the case. The gate is of those that hold a call.
pub(super) fn plan(site: &Site, case: Case) -> Gate {
    use Wrong::{
        AlwaysCut, AlwaysLost, Corrupt, Cut, Down, Ghost, Hang, LostAnswer, NotDone, Refused,
        Reset, Slow, Stale, Throttled, TwiceBusy,
    };

    let (script, call, gate) = (site.script(), case.stage.call(), Gate::default());
    if case.stage == Stage::Abort {
        script.plan(Call::LaterPart, .., Trouble::Fail(Fault::AccessDenied));
    }
    match case.wrong {
        Refused => script.plan(call, .., Trouble::Fail(Fault::AccessDenied)),
        TwiceBusy => script.plan(call, ..2, Trouble::Answer(503)),
        Throttled => script.plan(call, ..2, Trouble::Answer(429)),
        Reset => script.plan(call, ..1, Trouble::Fail(Fault::Unreachable)),
        Down => script.plan(call, .., Trouble::Fail(Fault::Unreachable)),
        Hang => script.plan(call, .., Trouble::Hold(gate.clone())),
        Slow => script.plan(call, ..1, Trouble::Hold(gate.clone())),
        Cut => script.plan(call, ..1, Trouble::Cut(1000)),
        AlwaysCut => script.plan(call, .., Trouble::Cut(1000)),
        // These are read from their first byte on, and some have no thousandth.
        Corrupt if case.stage != Stage::Get => script.plan(call, ..1, Trouble::Corrupt(0)),
        Corrupt => script.plan(call, ..1, Trouble::Corrupt(1000)),
        Stale => script.plan(call, ..1, Trouble::Forget),
        // Of a backup the oldest, which is surplus; of a restore the newest, which it would take.
        Ghost if case.stage == Stage::List => script.plan(call, ..1, Trouble::Remember(1)),
        Ghost => script.plan(call, ..1, Trouble::Remember(START + 1_000_000)),
        NotDone => script.plan(call, .., Trouble::NotDone),
        LostAnswer => script.plan(call, ..1, Trouble::LoseAnswer),
        AlwaysLost => script.plan(call, .., Trouble::LoseAnswer),
    }
    gate
}

/// Returns the deadline of the job. Without end where time is made to fly, unless the end is what
/// the case is about.
pub(super) fn deadline(case: Case) -> Deadline {
    let is_ended = matches!(case.end, End::Failed(_)) || case.wrong == Wrong::Hang;
    Deadline::after(if is_ended { TIMEOUT } else { Duration::MAX })
}

/// Does the job while its accident happens.
pub(super) async fn meet<T>(
    site: &Site,
    case: Case,
    gate: &Gate,
    job: impl Future<Output = T>,
) -> T {
    let accident = async {
        match case.wrong {
            Wrong::Hang => {
                gate.arrival().await;
                advance(TIMEOUT + Duration::from_secs(1)).await;
            }
            Wrong::Slow => {
                gate.arrival().await;
                advance(SLOW).await;
                gate.release();
            }
            // Time does not pass by itself while the thread that unpacks waits for the store.
            _ if case.stage == Stage::Get => loop {
                if site.script().fired(Call::Get) == 0 {
                    tokio::task::yield_now().await;
                } else {
                    advance(Duration::from_millis(100)).await;
                }
            },
            _ => {}
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        ended = job => ended,
        never = accident => never,
    }
}

/// Asserts that the fault of a case really happened, and as often as it has to.
#[track_caller]
pub(super) fn assert_fired(site: &Site, case: Case) {
    let fired = site.script().fired(case.stage.call());
    let is_repeated = !matches!(case.stage, Stage::Delete | Stage::Abort);
    let least = match case.wrong {
        Wrong::TwiceBusy
        | Wrong::Throttled
        | Wrong::Down
        | Wrong::AlwaysLost
        | Wrong::AlwaysCut
            if is_repeated =>
        {
            2
        }
        _ => 1,
    };
    assert!(fired >= least, "{case:?} happened only {fired} times");
}
