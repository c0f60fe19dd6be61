//! Pings and the webhook: who hears of what, in which words, and that nobody waits for them.

use std::fs;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::process::{
    Answer, Machine, PATIENCE, POLITE, Process, SNITCH_PATH, TOKEN, ask, assert_in_order,
    eventually, get, run,
};
use crate::support::running::wait_until_up;
use crate::support::web::{Received, Reply, WebServer};

/// The path of the webhook's address, and its header.
const WEBHOOK_PATH: &str = "/WEBHOOKhush?key=KEYhush";
const WEBHOOK_HEADER: &str = "Authorization: Bearer HEADERhush";

fn tell_snitch(command: &mut Command, server: &WebServer, kind: &str) {
    command
        .env("SIMPLE_BACKUP_SNITCH_URL", server.url(SNITCH_PATH))
        .env("SIMPLE_BACKUP_SNITCH_KIND", kind);
}

fn tell_webhook(command: &mut Command, server: &WebServer, events: &str) {
    command
        .env("SIMPLE_BACKUP_WEBHOOK_URL", server.url(WEBHOOK_PATH))
        .env("SIMPLE_BACKUP_WEBHOOK_HEADER", WEBHOOK_HEADER)
        .env("SIMPLE_BACKUP_WEBHOOK_EVENTS", events);
}

/// Runs a service in front of an app that ends at once: one backup, the final one.
#[track_caller]
fn run_once(change: impl FnOnce(&mut Command)) -> (i32, Vec<String>) {
    let machine = Machine::new();
    machine.create_database(10);
    let mut command = machine.simplebackup();
    change(&mut command);
    command.args(["run", "--simple-backup", "--", "true"]);
    let ended = Process::start(&mut command).wait();
    assert_eq!(machine.stored().len(), 1, "{}", ended.1.join("\n"));
    ended
}

fn back_up(address: &str) -> Answer {
    ask(address, "POST /backup", &[&format!("Authorization: Bearer {TOKEN}")], "")
}

/// Starts a service and waits until it is up.
fn serve(machine: &Machine, change: impl FnOnce(&mut Command)) -> (Process, String) {
    let mut process = machine.serve_script_with(POLITE, change);
    let address = process.http_address();
    wait_until_up(&address);
    (process, address)
}

fn events(received: &[Received]) -> Vec<String> {
    let event = |received: &Received| received.json()["event"].as_str().expect("named").to_owned();
    received.iter().map(event).collect()
}

fn printed(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn healthchecks_hears_of_the_start_and_of_the_success_in_this_order() {
    let server = WebServer::start(&[]);
    let (code, lines) = run_once(|command| tell_snitch(command, &server, "healthchecks"));
    assert_eq!(code, 0);
    let pings = server.received();
    let start = format!("POST {SNITCH_PATH}/start");
    assert_eq!(server.lines(), [start, format!("POST {SNITCH_PATH}")]);
    assert!(pings[1].body.contains("shutdown backup of "), "{}", pings[1].body);
    assert!(pings[1].body.contains(" made: db-backup-"), "{}", pings[1].body);
    assert!(!lines.iter().any(|line| line.contains("WARNING: The snitch")), "{lines:?}");
}

/// By the command, too: whoever runs it from cron wants to hear of it.
#[test]
fn a_backup_by_hand_that_fails_is_told_with_its_error() {
    let server = WebServer::start(&[]);
    for (kind, expected) in [
        ("healthchecks", &["POST /SNITCHhush/start", "POST /SNITCHhush/fail"][..]),
        ("snitch", &["POST /SNITCHhush"][..]),
        ("plain", &[][..]),
    ] {
        let machine = Machine::new();
        let before = server.lines().len();
        let mut command = machine.simplebackup();
        tell_snitch(&mut command, &server, kind);
        let output = run(command.arg("backup"));
        assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
        let pings = server.received().split_off(before);
        let lines: Vec<_> = pings.iter().map(|ping| ping.line.as_str()).collect();
        assert_eq!(lines, expected, "{kind}");
        if let Some(last) = pings.last() {
            let is_form = last.body.starts_with("s=1&m=") && last.body.contains("not+found");
            assert!(last.body.contains("not found") || is_form, "{kind}: {}", last.body);
        }
    }
}

#[test]
fn dead_mans_snitch_hears_of_a_success_with_a_message() {
    let server = WebServer::start(&[]);
    assert_eq!(run_once(|command| tell_snitch(command, &server, "snitch")).0, 0);
    let lines = server.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(&format!("GET {SNITCH_PATH}?m=")), "{lines:?}");
    assert!(lines[0].contains("db-backup-"), "{lines:?}");
}

#[test]
fn a_server_that_fails_twice_is_told_the_third_time() {
    for trouble in [Reply::Status(500, "oh"), Reply::Status(429, "later"), Reply::Die] {
        let server = WebServer::start(&[trouble, trouble]);
        let (code, lines) = run_once(|command| tell_snitch(command, &server, "auto"));
        assert_eq!(code, 0);
        assert_eq!(server.lines(), vec![format!("GET {SNITCH_PATH}"); 3], "{trouble:?}");
        assert!(!lines.iter().any(|line| line.contains("WARNING: The snitch")), "{lines:?}");
    }
}

#[test]
fn a_server_that_goes_on_failing_is_left_with_one_warning() {
    let server = WebServer::start(&[Reply::Die; 10]);
    let (code, lines) = run_once(|command| tell_snitch(command, &server, "plain"));
    assert_eq!(code, 0);
    assert_eq!(server.lines().len(), 4);
    let warnings: Vec<_> = lines.iter().filter(|line| line.contains("WARNING: The")).collect();
    assert_eq!(warnings.len(), 1, "{lines:?}");
    assert!(warnings[0].contains("could not be told of backup_made: no answer from 127.0.0.1:"));
}

#[test]
fn a_server_that_refuses_is_not_asked_again_and_it_is_counted() {
    let server = WebServer::start(&[Reply::Status(404, "no such check")]);
    let machine = Machine::new();
    machine.create_database(10);
    let (mut process, address) = serve(&machine, |command| {
        tell_snitch(command, &server, "plain");
    });
    assert_eq!(back_up(&address).status, 200);
    let warning = process.wait_for_line("WARNING: The snitch could not be told");
    assert!(warning.contains("answered 404 Not Found, \"no such check\""), "{warning}");
    assert_eq!(server.lines().len(), 1);
    let metrics = get(&address, "/metrics").body;
    assert!(metrics.contains("\nsimple_backup_notification_failure_total 1\n"), "{metrics}");
}

/// Neither a backup nor another channel waits for it, and the stop only for a bounded time.
#[test]
fn a_server_that_hangs_holds_up_nothing_for_long() {
    let (hanging, server) = (WebServer::start(&[Reply::Hang; 100]), WebServer::start(&[]));
    let machine = Machine::new();
    machine.create_database(10);
    let (process, address) = serve(&machine, |command| {
        tell_snitch(command, &hanging, "healthchecks");
        tell_webhook(command, &server, "all");
    });
    let asked = Instant::now();
    for _ in 0..20 {
        assert_eq!(back_up(&address).status, 200);
    }
    // The tries of one notice alone take longer than all of them.
    assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
    server.wait_for(20);
    let stopped = Instant::now();
    let (code, lines) = process.stop();
    assert_eq!(code, 0);
    assert!(stopped.elapsed() < PATIENCE, "{:?}", stopped.elapsed());
    assert_in_order(&lines, &["Shutdown complete", "WARNING: The snitch was not told of the last"]);
    assert!(lines.iter().any(|line| line.contains("16 notices wait for it already")), "{lines:?}");
    assert_eq!(server.received().len(), 21);
}

#[test]
fn the_webhook_hears_of_a_failure_and_of_its_end_and_of_nothing_else() {
    let server = WebServer::start(&[]);
    let machine = Machine::new();
    machine.create_database(10);
    let (process, address) = serve(&machine, |command| {
        tell_webhook(command, &server, "failures");
    });
    assert_eq!(back_up(&address).status, 200);
    fs::rename(machine.database(), machine.path("away")).expect("moved");
    assert_eq!(back_up(&address).status, 500);
    fs::rename(machine.path("away"), machine.database()).expect("moved");
    assert_eq!(back_up(&address).status, 200);
    assert_eq!(back_up(&address).status, 200);
    assert_eq!(process.stop().0, 0);
    let posted = server.received();
    assert_eq!(events(&posted), ["backup_failed", "backup_made"]);
    assert_eq!(posted[0].line, format!("POST {WEBHOOK_PATH}"));
    for line in ["content-type: application/json", &WEBHOOK_HEADER.to_lowercase()] {
        assert!(posted[0].head.lines().any(|head| head == line), "{}", posted[0].head);
    }
    check_fields(&posted[0].json(), &posted[1].json(), &machine);
}

/// The contract: every field is there, with its type, and says what it says.
#[track_caller]
fn check_fields(failed: &Value, made: &Value, machine: &Machine) {
    let database = machine.database().display().to_string();
    for (posted, recovered) in [(failed, false), (made, true)] {
        let mut fields: Vec<_> = posted.as_object().expect("an object").keys().cloned().collect();
        fields.sort();
        assert_eq!(
            fields,
            [
                "at",
                "database",
                "duration_seconds",
                "error",
                "event",
                "host",
                "key",
                "recovered",
                "size_bytes",
                "text",
                "trigger",
            ]
        );
        assert_eq!(posted["database"], json!(database));
        assert_eq!(posted["trigger"], json!("manual"));
        assert_eq!(posted["recovered"], json!(recovered));
        assert!(posted["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{posted}");
        assert!(posted["duration_seconds"].is_f64(), "{posted}");
        let (host, text) = (posted["host"].as_str(), posted["text"].as_str().expect("a text"));
        assert!(text.starts_with(&format!("{}: manual backup of ", host.expect("a host"))));
    }
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("not found")), "{failed}");
    assert!(failed["key"].is_null() && failed["size_bytes"].is_null(), "{failed}");
    assert!(made["error"].is_null() && made["size_bytes"].is_u64(), "{made}");
    let key = made["key"].as_str().expect("a name");
    assert!(machine.stored().contains(&key.to_owned()), "{made}");
    assert!(made["text"].as_str().is_some_and(|text| text.contains(" made again: ")), "{made}");
}

#[test]
fn the_webhook_hears_of_everything_if_it_wants_to() {
    let server = WebServer::start(&[]);
    let machine = Machine::new();
    machine.create_database(2000);
    assert!(machine.run(&["backup"]).status.success());
    machine.lose_database();
    let script = "until [ -e leave ]; do sleep 0.05; done; exit 3";
    let mut process = machine.serve_script_with(script, |command| {
        tell_webhook(command, &server, "all");
    });
    let address = process.http_address();
    eventually("the service is up", || back_up(&address).status == 200);
    machine.empty_database();
    assert_eq!(back_up(&address).status, 200);
    fs::write(machine.path("leave"), "").expect("written");
    assert_eq!(process.wait().0, 3);
    let posted = server.received();
    assert_eq!(
        events(&posted),
        [
            "restore_done",
            "backup_made",
            "backup_made",
            "pruning_suspended",
            "app_failed",
            "backup_made"
        ]
    );
    assert_eq!(posted[4].json()["error"], "it ended with exit status 3");
    assert_eq!(posted[5].json()["trigger"], "shutdown");
}

#[test]
fn a_start_that_comes_to_nothing_is_told_before_the_exit() {
    let server = WebServer::start(&[]);
    let machine = Machine::new();
    let mut command = machine.simplebackup();
    tell_webhook(&mut command, &server, "failures");
    command
        .env("MINIO_ENDPOINT", "http://127.0.0.1:9")
        .env("MINIO_BUCKET", "mybucket")
        .env("SIMPLE_BACKUP_RESTORE_TIMEOUT", "1s")
        .args(["run", "--simple-backup", "--", "true"]);
    assert_eq!(Process::start(&mut command).wait().0, 1);
    machine.create_database(10);
    let mut command = machine.simplebackup();
    tell_webhook(&mut command, &server, "failures");
    command.args(["run", "--simple-backup", "--", "./no-such-server"]);
    assert_eq!(Process::start(&mut command).wait().0, 127);
    let mut command = machine.simplebackup();
    tell_webhook(&mut command, &server, "failures");
    command.env("SIMPLE_BACKUP_ENCRYPTION_IDENTITY_FILE", "/no/such/file").args([
        "run",
        "--simple-backup",
        "--",
        "true",
    ]);
    assert_eq!(Process::start(&mut command).wait().0, 2);
    assert_eq!(events(&server.received()), ["restore_failed", "app_failed", "restore_failed"]);
}

#[test]
fn the_test_says_what_each_channel_answered_and_no_secret() {
    let snitch = WebServer::start(&[Reply::Status(200, "thanks for /SNITCHhush/log")]);
    let webhook = WebServer::start(&[Reply::Status(200, "by WEBHOOKhush, KEYhush, HEADERhush")]);
    let machine = Machine::new();
    let mut command = machine.simplebackup();
    tell_snitch(&mut command, &snitch, "healthchecks");
    tell_webhook(&mut command, &webhook, "failures");
    let output = run(command.args(["notify", "--test"]));
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let address = |server: &WebServer| server.url("/[redacted]");
    let expected = [
        format!("snitch: POST {}: 200 OK, \"thanks for /[redacted]/log\"\n", address(&snitch)),
        format!(
            "webhook: POST {}: 200 OK, \"by {}\"\n",
            address(&webhook),
            ["[redacted]"; 3].join(", ")
        ),
    ];
    assert_eq!(text, expected.concat());
    assert_eq!(snitch.lines(), [format!("POST {SNITCH_PATH}/log")]);
    assert_eq!(events(&webhook.received()), ["test"]);
}

#[test]
fn a_test_that_fails_exits_with_1_and_so_does_one_without_channels() {
    let machine = Machine::new();
    let output = machine.run(&["notify", "--test"]);
    assert_eq!(output.status.code(), Some(1));
    let text = printed(&output);
    assert!(text.contains("set snitch.url") && text.contains("webhook.url"), "{text}");

    // What the public server says of a check that it does not know.
    let snitch = WebServer::start(&[Reply::Status(200, "OK (not found)")]);
    let webhook = WebServer::start(&[]);
    let mut command = machine.simplebackup();
    tell_snitch(&mut command, &snitch, "healthchecks");
    tell_webhook(&mut command, &webhook, "failures");
    let output = run(command.args(["notify", "--test"]));
    assert_eq!(output.status.code(), Some(1));
    let text = printed(&output);
    assert!(text.contains("FAILED: ") && text.contains("OK (not found)"), "{text}");
    assert!(text.contains("webhook: POST ") && text.contains(": 200 OK"), "{text}");
    assert_eq!(machine.run(&["notify"]).status.code(), Some(2));
}

/// The address and the header are for this host alone.
#[test]
fn a_redirection_to_another_host_is_a_refusal() {
    let elsewhere = WebServer::start(&[]);
    let there = elsewhere.url("/there").replace("127.0.0.1", "localhost");
    let server = WebServer::start(&[Reply::Redirect(there.leak())]);
    let machine = Machine::new();
    machine.create_database(10);
    let mut command = machine.simplebackup();
    tell_webhook(&mut command, &server, "all");
    let output = run(command.arg("backup"));
    assert!(printed(&output).contains("307"), "{}", printed(&output));
    assert_eq!(elsewhere.received().len(), 0);
}

/// A command remembers nothing, so it tells each time.
#[test]
fn a_backup_by_hand_of_an_emptied_database_is_told() {
    let server = WebServer::start(&[]);
    let machine = Machine::new();
    machine.create_database(1000);
    assert!(machine.run(&["backup"]).status.success());
    machine.empty_database();
    let mut command = machine.simplebackup();
    tell_webhook(&mut command, &server, "failures");
    assert!(run(command.arg("backup")).status.success());
    assert_eq!(events(&server.received()), ["pruning_suspended"]);
}
