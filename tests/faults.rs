//! Every stage of a backup and of a restore × everything that can go wrong there.
//!
//! One table says how each pair ends; each case runs on paused time, shows that its fault really
//! fired, and is then held to every invariant that applies: see `backup`, `restore` and `machine`.

mod accident;
mod backup;
mod folder;
mod machine;
mod mark;
mod restore;

use simplebackup_engine::store::Fault;

use self::End::{Back, Damaged, Failed, Foreign, Made, Never, Older, Suspended, Warned};
use self::Stage::{
    Abort, Begin, Complete, Delete, Find, FirstPart, Get, LastPart, Lease, List, Mark, Put, Start,
};
use self::Wrong::{
    AlwaysCut, AlwaysLost, Corrupt, Cut, Down, Ghost, Hang, LostAnswer, NotDone, Refused, Reset,
    Slow, Stale, Throttled, TwiceBusy,
};
use crate::support::store::Call;

/// Where it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The list of a backup.
    List,
    /// The one PUT of a small backup.
    Put,
    /// The five requests of a large one.
    Begin,
    FirstPart,
    LastPart,
    Complete,
    /// Once its last part was refused.
    Abort,
    Delete,
    /// The list of a restore.
    Find,
    Get,
    /// The GET of the first bytes of the backup before, to compare with.
    Start,
    /// The PUT of the mark, once the database looks emptied.
    Mark,
    /// The GET of the lease before an upload.
    Lease,
}

impl Stage {
    fn call(self) -> Call {
        match self {
            List | Find => Call::List,
            Put | Mark => Call::Put,
            Begin => Call::BeginUpload,
            FirstPart => Call::FirstPart,
            LastPart => Call::LaterPart,
            Complete => Call::Complete,
            Abort => Call::Abort,
            Delete => Call::Delete,
            Get | Start | Lease => Call::Get,
        }
    }

    /// Returns whether only a backup in several parts comes here.
    fn is_large(self) -> bool {
        matches!(self, Begin | FirstPart | LastPart | Complete | Abort)
    }
}

/// What goes wrong. Once, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// An error that no retry can mend, always: keys without the permission.
    Refused,
    /// 503, twice.
    TwiceBusy,
    /// 429, twice. What `Retry-After` adds to it is shown over sockets, in `tests::s3::patience`.
    Throttled,
    /// The connection is reset before anything is done.
    Reset,
    /// No connection, always.
    Down,
    /// No answer, always.
    Hang,
    /// An answer after ten seconds.
    Slow,
    /// The connection breaks half-way.
    Cut,
    /// It breaks after a thousand bytes, always.
    AlwaysCut,
    /// A byte arrives inverted.
    Corrupt,
    /// The list lacks the newest backup.
    Stale,
    /// The list has a backup that is gone.
    Ghost,
    /// Acknowledged, but not done, always.
    NotDone,
    /// Done, but the answer is lost.
    LostAnswer,
    /// Done, but the answer is lost, always.
    AlwaysLost,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It cannot happen here: nothing to cut in a request without a body, nothing to corrupt in a
    /// signed one, nothing stale but a list. A store that acknowledges a PUT and loses it is not
    /// one that a client can defend itself against.
    Never,
    /// The backup is made.
    Made,
    /// The backup is made, and its report says that the surplus could not be deleted.
    Warned,
    /// The newest backup is restored.
    Back,
    /// The one before it is: the store says that it is the newest.
    Older,
    /// An error of the store, of this kind.
    Failed(Fault),
    /// The backup counts as damaged.
    Damaged,
    /// The backup is made, the mark stands, and nothing is deleted.
    Suspended,
    /// What stands there is not taken for a lease, nor for none: no backup is made.
    Foreign,
}

const STAGES: [Stage; 10] =
    [List, Put, Begin, FirstPart, LastPart, Complete, Abort, Delete, Find, Get];

const DENIED: End = Failed(Fault::AccessDenied);
const BROKEN: End = Failed(Fault::Unreachable);
const LATE: End = Failed(Fault::OutOfTime);
const GONE: End = Failed(Fault::NotFound);

/// A row for each thing that goes wrong, a column for each of the `STAGES`.
#[rustfmt::skip]
const MATRIX: [(Wrong, [End; STAGES.len()]); 15] = [
    //            List    Put     Begin   First   Last    Complete Abort  Delete  Find    Get
    (Refused,    [DENIED, DENIED, DENIED, DENIED, DENIED, DENIED, DENIED, Warned, DENIED, DENIED]),
    (TwiceBusy,  [Made,   Made,   Made,   Made,   Made,   Made,   DENIED, Warned, Back,   Back]),
    (Throttled,  [Made,   Made,   Made,   Made,   Made,   Made,   DENIED, Warned, Back,   Back]),
    (Reset,      [Made,   Made,   Made,   Made,   Made,   Made,   DENIED, Warned, Back,   Back]),
    (Down,       [BROKEN, BROKEN, BROKEN, BROKEN, BROKEN, BROKEN, DENIED, Warned, BROKEN, BROKEN]),
    (Hang,       [LATE,   LATE,   LATE,   LATE,   LATE,   LATE,   DENIED, Warned, LATE,   BROKEN]),
    (Slow,       [Made,   Made,   Made,   Made,   Made,   Made,   DENIED, Made,   Back,   Back]),
    (Cut,        [Never,  Made,   Never,  Made,   Made,   Never,  Never,  Never,  Never,  Back]),
    (AlwaysCut,  [Never,  BROKEN, Never,  BROKEN, BROKEN, Never,  Never,  Never,  Never,  Back]),
    (Corrupt,    [Never,  Never,  Never,  Never,  Never,  Never,  Never,  Never,  Never,  Damaged]),
    (Stale,      [Made,   Never,  Never,  Never,  Never,  Never,  Never,  Never,  Older,  Never]),
    (Ghost,      [Made,   Never,  Never,  Never,  Never,  Never,  Never,  Never,  GONE,   Never]),
    (NotDone,    [Never,  Never,  Never,  Never,  Never,  Never,  DENIED, Made,   Never,  Never]),
    (LostAnswer, [Made,   Made,   Made,   Made,   Made,   Made,   DENIED, Warned, Back,   Back]),
    (AlwaysLost, [BROKEN, BROKEN, BROKEN, BROKEN, BROKEN, BROKEN, DENIED, Warned, BROKEN, BROKEN]),
];

/// The small requests around a backup: the start of the backup before, the mark that says that
/// nothing is deleted any more, the lease.
const SMALL_STAGES: [Stage; 3] = [Start, Mark, Lease];

/// Of these the other things cannot go wrong.
#[rustfmt::skip]
const SMALL_MATRIX: [(Wrong, [End; SMALL_STAGES.len()]); 12] = [
    //            Start   Mark       Lease
    (Refused,    [Warned, DENIED,    DENIED]),
    (TwiceBusy,  [Made,   Suspended, Made]),
    (Throttled,  [Made,   Suspended, Made]),
    (Reset,      [Made,   Suspended, Made]),
    (Down,       [Warned, BROKEN,    BROKEN]),
    (Hang,       [LATE,   LATE,      LATE]),
    (Slow,       [Made,   Suspended, Made]),
    (Cut,        [Made,   Suspended, Made]),
    (AlwaysCut,  [Warned, BROKEN,    BROKEN]),
    // A start that is no header says as much as one of stock gzip.
    (Corrupt,    [Made,   Never,     Foreign]),
    (LostAnswer, [Made,   Suspended, Made]),
    (AlwaysLost, [Warned, BROKEN,    BROKEN]),
];

/// A cell of the table.
#[derive(Debug, Clone, Copy)]
struct Case {
    stage: Stage,
    wrong: Wrong,
    end: End,
}

/// Returns the cases of these stages.
fn cases_at(stages: &[Stage]) -> Vec<Case> {
    let cells = MATRIX.into_iter().flat_map(|(wrong, ends)| {
        STAGES.into_iter().zip(ends).map(move |(stage, end)| Case { stage, wrong, end })
    });
    let small = SMALL_MATRIX.into_iter().flat_map(|(wrong, ends)| {
        SMALL_STAGES.into_iter().zip(ends).map(move |(stage, end)| Case { stage, wrong, end })
    });
    cells.chain(small).filter(|case| case.end != Never && stages.contains(&case.stage)).collect()
}

/// Runs the cases of these stages, each in a runtime of its own whose time is paused.
fn run(stages: &[Stage], check: impl AsyncFn(Case)) -> usize {
    let cases = cases_at(stages);
    for case in &cases {
        println!("{case:?}");
        accident::on_paused_time(check(*case));
    }
    println!("fault matrix: {} cases at {stages:?}", cases.len());
    cases.len()
}

#[test]
fn i1_i2_i3_i4_i6_i7_a_small_backup_whatever_goes_wrong() {
    assert_eq!(run(&[List, Put, Delete], backup::check), 32);
}

#[test]
fn i1_i2_i3_i4_i6_i7_a_large_backup_whatever_goes_wrong_on_its_way() {
    assert_eq!(run(&[Begin, FirstPart, LastPart], backup::check), 31);
}

#[test]
fn i1_i2_i3_i4_i6_i7_a_large_backup_whatever_goes_wrong_at_its_end() {
    assert_eq!(run(&[Complete, Abort], backup::check), 19);
}

#[test]
fn i1_i2_i3_i4_i6_i7_a_backup_that_cannot_be_compared_or_placed() {
    assert_eq!(run(&[Start, Lease], backup::check), 24);
}

#[test]
fn i1_i7_a_backup_of_an_emptied_database_whatever_goes_wrong_with_its_mark() {
    assert_eq!(run(&[Mark], mark::check), 11);
}

#[test]
fn i2_i3_i4_i6_i7_a_restore_whatever_goes_wrong() {
    assert_eq!(run(&[Find, Get], restore::check), 23);
}

#[test]
fn i1_i2_i3_i4_i6_i7_whatever_is_wrong_with_the_machine() {
    for case in machine::CASES {
        println!("{case:?}");
        accident::on_paused_time(machine::check(case));
    }
    let total = cases_at(&STAGES).len() + cases_at(&SMALL_STAGES).len() + machine::CASES.len();
    println!("fault matrix: {} cases of the machine, {total} in all", machine::CASES.len());
    assert!(total >= 152, "{total}");
}
