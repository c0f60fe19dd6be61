//! What people and machines do to a running service without meaning to.

use std::process::Stdio;

use rustix::process::Signal;

use crate::support::process::{Machine, POLITE, Process, ask, eventually, get};

/// `simplebackup … | head`, a log disk that is full: the log is lost, the data is not.
#[test]
fn a_log_that_nobody_takes_stops_neither_the_app_nor_the_backup() {
    for taker in ["/dev/full", "a pipe that is closed"] {
        let machine = Machine::new();
        machine.create_database(10);
        let mut command = machine.simplebackup();
        command.args(["run", "--simple-backup", "--", "/bin/sh", "-c", "sleep 0.3; exit 4"]);
        if taker == "/dev/full" {
            let full = std::fs::File::options().write(true).open(taker).expect("opened");
            command.stderr(full);
        } else {
            command.stderr(Stdio::piped());
        }
        let mut child = command.spawn().expect("started");
        drop(child.stderr.take());
        let status = child.wait().expect("waited");
        assert_eq!(status.code(), Some(4), "{taker}");
        assert_eq!(machine.stored().len(), 1, "{taker}");
    }
}

/// `RUST_LOG` is the app's, too, and its filter may know more than ours.
#[test]
fn what_another_filter_knows_is_named_and_the_rest_holds() {
    let machine = Machine::new();
    machine.create_database(10);
    for (levels, is_named, is_logged) in [
        ("app[request{id=1}]=trace", true, true),
        // What can't be read in full silences nothing; what is understood of it holds.
        ("simple_backup=error, app[request{id=1}]=trace", true, false),
        ("app=debug, app[request{id=1}]=trace", true, true),
        ("server=warn", false, false),
        ("", false, true),
    ] {
        let mut backup = machine.simplebackup();
        let made = backup.args(["-v", "backup"]).env("RUST_LOG", levels).output().expect("started");
        let said = String::from_utf8_lossy(&made.stderr);
        assert_eq!(made.status.code(), Some(0), "{said}");
        let naming = "Of RUST_LOG, \"app[request{id=1}]=trace\" is not understood";
        assert_eq!(said.contains(naming), is_named, "{levels}: {said}");
        assert_eq!(said.contains("[SIMPLE-BACKUP]"), is_logged, "{levels}: {said}");
    }
}

#[test]
fn a_second_service_on_one_database_is_refused() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut first = machine.serve_script(POLITE);
    first.wait_for_line("app is up");
    let second = machine.run(&["run", "--simple-backup", "--", "touch", "started"]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("is in use by simplebackup, process "), "{said}");
    assert!(!machine.path("started").exists());
    assert_eq!(first.stop().0, 0);
}

#[test]
fn what_is_no_database_is_warned_of_at_the_start() {
    for (make, what) in [
        (std::fs::create_dir as fn(std::path::PathBuf) -> _, "a folder"),
        (|path| std::fs::write(path, ""), "an empty file"),
    ] {
        let machine = Machine::new();
        make(machine.database()).expect("made");
        let mut process = machine.serve_script(POLITE);
        let warning = process.wait_for_line("so nothing is restored");
        assert!(warning.contains(what), "{warning}");
        process.wait_for_line("app is up");
        let (code, lines) = process.stop();
        assert_eq!(code, 0, "{}", lines.join("\n"));
        assert_eq!(machine.stored(), [""; 0]);
    }
}

#[test]
fn the_apps_own_signals_reach_it() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut process = machine.serve_script(
        "trap 'echo heard usr1' USR1; trap 'echo heard usr2' USR2; trap 'exit 0' TERM; \
         echo app is up; while :; do sleep 0.05; done",
    );
    process.wait_for_line("app is up");
    // Not before we listen ourselves.
    let address = process.http_address();
    eventually("ready", || get(&address, "/health/ready").status == 200);
    process.signal(Signal::USR1);
    process.wait_for_line("heard usr1");
    process.signal(Signal::USR2);
    process.wait_for_line("heard usr2");
    assert_eq!(process.stop().0, 0);
}

#[test]
fn an_app_that_was_stopped_hears_of_the_stop() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut process = machine.serve_script(
        "trap 'exit 0' TERM; echo app $$; kill -STOP $$; while :; do sleep 0.05; done",
    );
    let app = process.wait_for_pid("app ");
    eventually("the app has stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{app}/stat")).expect("it exists");
        stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
    });
    let (code, lines) = process.stop();
    assert_eq!(code, 0, "{}", lines.join("\n"));
}

#[test]
fn head_is_answered_like_get() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut process: Process = machine.serve_script(POLITE);
    let address = process.http_address();
    let head = ask(&address, "HEAD /health", &[], "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    eventually("ready", || ask(&address, "HEAD /health/ready", &[], "").status == 200);
}
