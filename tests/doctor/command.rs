//! `simplebackup doctor` as a person or a script runs it, and the half of it that each start does.

use std::fs;
use std::process::{Command, Output};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::process::{Machine, POLITE, Process, TOKEN, ask, eventually, get, run};
use crate::support::s3::{self, Request, S3Server, Trouble};
use crate::support::script::Gate;
use crate::support::{db, visible_files_in};

/// A machine whose database and settings are as they should be, but for the store.
fn machine() -> Machine {
    let machine = Machine::new();
    db::create(&machine.database(), "wal", 10);
    machine
}

/// Returns the doctor, at a store over the protocol.
fn doctor_at(machine: &Machine, server: &S3Server, words: &[&str]) -> Command {
    let mut command = machine.simplebackup();
    s3::configure(&mut command, server);
    command.arg("doctor").args(words);
    command
}

/// Runs a command while the server of this test answers it.
async fn run_beside(mut command: Command) -> Output {
    let ran = tokio::task::spawn_blocking(move || run(&mut command));
    ran.await.expect("no panic")
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&output.stderr)))
}

/// Returns what a check came to, and its words.
#[track_caller]
fn check(report: &Value, name: &str) -> (String, String) {
    let checks = report["checks"].as_array().expect("a list");
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("no {name} in {report:#}"));
    let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
    (text("verdict"), format!("{}; {}", text("found"), text("next")))
}

#[track_caller]
fn assert_check(report: &Value, name: &str, verdict: &str, words: &str) {
    let (came_to, said) = check(report, name);
    assert_eq!(came_to, verdict, "{name}: {said}");
    assert!(said.contains(words), "{name}: {said}");
}

fn names(report: &Value) -> Vec<&str> {
    let checks = report["checks"].as_array().expect("a list");
    checks.iter().map(|check| check["name"].as_str().expect("a name")).collect()
}

/// Also what the README lists, in its order.
#[tokio::test]
async fn a_sound_service_to_be_passes_every_check() {
    let (machine, server) = (machine(), S3Server::start().await);
    let mut backup = machine.simplebackup();
    s3::configure(&mut backup, &server);
    backup.arg("backup");
    assert!(run_beside(backup).await.status.success());
    let (stored, files) = (server.stored(), visible_files_in(&machine.path("")));

    let output = run_beside(doctor_at(&machine, &server, &["--json", "--", "/bin/true"])).await;

    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    // The folder for temporary files may lie in memory, which is worth a warning.
    let folder = |check: &&Value| check["name"] == "disk.filesystem";
    let is_well = |check: &Value| matches!(check["verdict"].as_str(), Some("ok" | "skipped"));
    let checks = report["checks"].as_array().expect("a list");
    assert_eq!(checks.iter().filter(folder).count(), 1, "{report:#}");
    assert!(checks.iter().filter(|check| !folder(check)).all(is_well), "{report:#}");
    assert_eq!(report["store"], "s3://mybucket/backups");
    assert_eq!(report["database"], machine.database().display().to_string());
    assert_check(&report, "backups.newest", "ok", &stored[0]);
    assert_check(&report, "stop.command", "ok", "/bin/true");
    assert_check(&report, "store.versioning", "skipped", "unknown");
    assert_eq!(server.stored(), stored, "the probe is gone");
    assert_eq!(visible_files_in(&machine.path("")), files, "nothing is made");

    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let readme = readme.expect("a README");
    let section = readme.split("\n## Doctor\n").nth(1).expect("a section");
    let section = section.split("\n## ").next().expect("its text");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.collect::<Vec<_>>(), names(&report));
}

#[tokio::test]
async fn people_get_a_line_for_each_check_and_what_to_do() {
    let (machine, server) = (machine(), S3Server::start().await);
    server.script().plan(Request::Delete, .., Trouble::Refuse(403, "AccessDenied"));
    let output = run_beside(doctor_at(&machine, &server, &[])).await;
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{said}");
    let lines: Vec<_> = said.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("failure  store.delete "));
    let at = at.unwrap_or_else(|| panic!("{said}"));
    assert!(lines[at].contains("access denied: "), "{said}");
    assert!(lines[at + 1].trim_start().starts_with("next: allow s3:DeleteObject"), "{said}");
    let column = lines[at].find("deletion of ").expect("what was done");
    assert_eq!(lines[at + 1].find("next: "), Some(column), "{said}");
    assert!(lines.last().expect("a sum").contains("1 failure"), "{said}");
    assert_eq!(server.stored().len(), 1, "the probe, which the lines name");
    assert!(said.contains(&server.stored()[0]), "{said}");
}

#[test]
fn failures_of_this_machine_make_the_exit_code_1_and_wrong_settings_2() {
    let machine = Machine::new();
    fs::write(machine.database(), "x".repeat(4096)).expect("written");
    let output = machine.run(&["doctor", "--json"]);
    let report = json(&output);
    assert_eq!((output.status.code(), &report["status"]), (Some(1), &Value::from("failure")));
    assert_check(&report, "database.file", "failure", "encrypted");
    assert_check(&report, "store.reach", "ok", "made by the first backup");
    assert_check(&report, "store.put", "skipped", "not there yet");
    assert_check(&report, "config.store", "warning", "beside the database");
    assert!(!machine.path("app.db.backups").exists(), "a look makes nothing");

    let output = machine.run(&["doctor", "--keep", "0"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}

#[test]
fn a_store_that_cannot_be_opened_is_one_failure() {
    let machine = machine();
    let output = machine.run(&["doctor", "--json", "--store", "file:disk/backups"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    assert_check(&report, "store.reach", "failure", "mount its disk");
    for name in ["store.list", "store.delete", "store.clock", "backups.newest"] {
        assert_eq!(check(&report, name).0, "skipped", "{name}");
    }
    assert_check(&report, "database.file", "ok", "app.db");
}

/// Whatever is asked: each check has its bound, and one that failed spares the others.
#[tokio::test]
async fn a_dead_store_gives_an_answer_and_keeps_no_check_of_this_machine() {
    let (machine, server) = (machine(), S3Server::start().await);
    for request in [Request::List, Request::Versioning, Request::Lifecycle, Request::Put] {
        server.script().plan(request, .., Trouble::Hang);
    }
    let output = run_beside(doctor_at(&machine, &server, &["--json"])).await;
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    assert_check(&report, "store.reach", "failure", "timeout");
    assert_check(&report, "store.versioning", "skipped", "did not answer");
    assert_check(&report, "database.schema", "ok", "");
    assert_eq!(server.script().count(Request::Put), 0);
}

#[test]
fn a_running_service_is_no_failure_and_tells_how_long_its_backups_take() {
    let machine = machine();
    let mut process = machine.serve_script(POLITE);
    let address = process.http_address();
    eventually("ready", || get(&address, "/health/ready").status == 200);
    let made = ask(&address, "POST /backup", &[&format!("Authorization: Bearer {TOKEN}")], "");
    assert_eq!(made.status, 200, "{}", made.body);

    let output = machine.run(&["doctor", "--json", "--http", &address]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_check(&report, "http.port", "ok", "the service runs");
    assert_check(&report, "work.folder", "ok", &format!("process {}", process.pid()));
    assert_check(&report, "stop.deadline", "ok", "says the service");
    assert_eq!(process.stop().0, 0);

    let other = Machine::new();
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = stranger.local_addr().expect("bound").to_string();
    let report = json(&other.run(&["doctor", "--json", "--http", &taken]));
    assert_check(&report, "http.port", "failure", "in use by another program");
}

/// Whoever has seen enough leaves nothing in the store.
#[tokio::test]
async fn a_doctor_that_is_sent_away_takes_the_probe_along() {
    let (machine, server, gate) = (machine(), S3Server::start().await, Gate::default());
    server.script().plan(Request::Get, ..1, Trouble::Hold(gate.clone()));
    let mut command = doctor_at(&machine, &server, &[]);
    let process = tokio::task::spawn_blocking(move || Process::start(&mut command));
    let process = process.await.expect("no panic");
    gate.arrival().await;
    assert_eq!(server.stored().len(), 1, "the probe");
    process.signal(Signal::TERM);
    let ended = tokio::task::spawn_blocking(move || process.wait()).await.expect("no panic");
    assert_eq!(ended.0, 1, "{:?}", ended.1);
    assert_eq!(server.stored(), [""; 0]);
}

/// Lines of a start that warn, but for those that every service without a bucket has.
fn warnings_at_start(machine: &Machine, change: impl FnOnce(&mut Command)) -> Vec<String> {
    let mut command = machine.simplebackup();
    change(&mut command);
    command.args(["run", "--simple-backup", "--", "/bin/sh", "-c", "echo app is up"]);
    let (_code, lines) = Process::start(&mut command).wait();
    let until = lines.iter().position(|line| line == "app is up").expect("it started");
    let warnings = lines[..until].iter().filter(|line| line.contains("WARNING"));
    warnings.filter(|line| !line.contains("No bucket configured")).cloned().collect()
}

#[test]
fn a_start_warns_of_what_this_machine_alone_tells_and_starts() {
    let sound = machine();
    assert_eq!(warnings_at_start(&sound, |_| {}), [""; 0]);
    assert_eq!(warnings_at_start(&Machine::new(), |_| {}), [""; 0], "a first start");

    let short = warnings_at_start(&sound, |command| {
        command.env("SIMPLE_BACKUP_SHUTDOWN_BACKUP_TIMEOUT", "1ms");
        let connection = db::open(&sound.database());
        db::add_notes(&connection, 20_000);
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("done");
    });
    assert_eq!(short.len(), 1, "{short:#?}");
    assert!(short[0].contains("The final backup is likely to run out of time"), "{short:#?}");

    let odd = Machine::new();
    drop(db::create_with_own_collation_and_function(&odd.database()));
    let told = warnings_at_start(&odd, |_| {});
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("; index by_length: no such function: app_length; "), "{told:#?}");

    let garbage = Machine::new();
    fs::write(garbage.database(), "x".repeat(4096)).expect("written");
    let told = warnings_at_start(&garbage, |_| {});
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("file is not a SQLite database"), "{told:#?}");
}
