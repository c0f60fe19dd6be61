//! A Rust program that carries the service inside: when its work starts, how it ends.

use std::future::pending;
use std::time::Duration;

use rustix::process::Signal;
use simplebackup::{AppEnd, Application, Deadline, Embedded, Restored};

use crate::support::notes::notes;
use crate::support::process::{Machine, Process, ask, get};

/// Starts `work`, asks it to end within a second, and returns how it did.
async fn end_of<W>(work: impl FnOnce(simplebackup::StopRequest) -> W + 'static) -> (AppEnd, AppEnd)
where
    W: Future<Output = Result<(), Box<dyn std::error::Error>>> + 'static,
{
    let mut app = Embedded::new(|_restored, stop| work(stop));
    let running = app.start(Restored::disabled()).await.expect("started");
    let drained = app.drain(Deadline::after(Duration::from_secs(1))).await;
    (drained, running.ended.await)
}

#[test]
fn work_is_asked_to_end_and_says_how_it_did() {
    let system = actix::System::new();
    system.block_on(async {
        let polite = end_of(async |stop| {
            stop.requested().await;
            Ok(())
        });
        assert_eq!(polite.await, (AppEnd::Left, AppEnd::Left));
        let failing = end_of(async |stop| {
            stop.requested().await;
            Err("the last page could not be written".into())
        });
        assert_eq!(failing.await, (AppEnd::Exited(1), AppEnd::Exited(1)));
        let panicking = end_of(async |stop| {
            stop.requested().await;
            panic!("planned");
        });
        assert_eq!(panicking.await, (AppEnd::Exited(101), AppEnd::Exited(101)));
    });
}

/// What it holds is dropped with it: nothing of it runs when the last backup is made.
#[test]
fn work_that_does_not_end_is_dropped() {
    let system = actix::System::new();
    system.block_on(async {
        let (held, let_go) = tokio::sync::oneshot::channel::<()>();
        let stubborn = end_of(async move |_stop| {
            let _held = held;
            pending::<()>().await;
            Ok(())
        });
        assert_eq!(stubborn.await, (AppEnd::Exited(1), AppEnd::Exited(1)));
        let_go.await.expect_err("dropped");
    });
}

#[test]
fn the_example_keeps_its_notes_when_its_database_is_lost() {
    let machine = Machine::new();
    let (first, address) = start_example(&machine);
    assert_eq!(ask(&address, "POST /notes", &[], "buy milk").status, 201);
    first.signal(Signal::TERM);
    assert_eq!(first.wait().0, 0);
    machine.lose_database();

    let (second, address) = start_example(&machine);
    assert_eq!(get(&address, "/notes").body, r#"{"count":1,"last":"buy milk"}"#);
    second.signal(Signal::INT);
    assert_eq!(second.wait().0, 0);
}

/// Starts `examples/notes.rs` with the service inside, and returns where it listens.
fn start_example(machine: &Machine) -> (Process, String) {
    machine.start_notes(machine.program(&notes()).arg("--embed"))
}
