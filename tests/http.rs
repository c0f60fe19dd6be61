//! The routes of the real binary, and the snitch.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::support::process::{Machine, POLITE, Process, SNITCH_PATH, TOKEN, ask, get};
use crate::support::running::{serve, serve_restored};

fn back_up(address: &str) -> crate::support::process::Answer {
    ask(address, "POST /backup", &[&format!("Authorization: Bearer {TOKEN}")], "")
}

/// Returns the value of a metric, without its label.
#[track_caller]
fn metric(address: &str, name: &str) -> f64 {
    let text = get(address, "/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in:\n{text}")).parse().expect("a number")
}

#[test]
fn health_and_readiness() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    assert_eq!(get(&address, "/health").status, 200);
    assert_eq!(get(&address, "/health/ready").status, 200);
    assert_eq!(get(&address, "/no-such-route").status, 404);
}

#[test]
fn not_ready_while_stopping_but_alive() {
    let machine = Machine::new();
    machine.create_database(10);
    let slow = "trap 'until [ -e leave ]; do sleep 0.05; done; exit 0' TERM; \
        echo app is up; while :; do sleep 0.05; done";
    let mut process = machine.serve_script_with(slow, |command| {
        command.env("SIMPLE_BACKUP_SHUTDOWN_APP_TIMEOUT", "60s");
    });
    let address = process.http_address();
    process.wait_for_line("app is up");
    process.signal(rustix::process::Signal::TERM);
    process.wait_for_line("Received shutdown signal");
    assert_eq!(get(&address, "/health").status, 200);
    assert_eq!(get(&address, "/health/ready").status, 503);
    let refused = back_up(&address);
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("shutting down"), "{}", refused.body);
    std::fs::write(machine.path("leave"), "").expect("written");
    assert_eq!(process.wait().0, 0);
}

/// `TestHealthEndpoint` of the specification.
#[test]
fn backup_status_has_exactly_the_six_fields() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    let status = || get(&address, "/health/backup-status").json();
    let before = status();
    let mut fields: Vec<_> = before.as_object().expect("an object").keys().cloned().collect();
    fields.sort();
    assert_eq!(
        fields,
        [
            "backup_count",
            "enabled",
            "last_backup",
            "last_backup_size_bytes",
            "next_backup",
            "restored_on_startup",
        ]
    );
    assert_eq!(before["enabled"], true);
    assert_eq!(before["restored_on_startup"], false);
    assert!(before["last_backup"].is_null());
    let next = before["next_backup"].as_str().expect("a time");
    assert!(next.ends_with(":00:00Z"), "{next}");

    let report = back_up(&address).json();
    let after = status();
    assert_eq!(after["backup_count"], 1);
    assert_eq!(after["last_backup"], report["ended_at"]);
    assert_eq!(after["last_backup_size_bytes"], report["archive_bytes"]);
}

#[test]
fn a_backup_on_demand_needs_the_token() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    assert_eq!(ask(&address, "POST /backup", &[], "").status, 401);
    let right_token_wrong_scheme = format!("Basic {TOKEN}");
    for wrong in ["Bearer wrong", "Bearer ", right_token_wrong_scheme.as_str(), TOKEN] {
        let header = format!("Authorization: {wrong}");
        assert_eq!(ask(&address, "POST /backup", &[&header], "").status, 401, "{wrong}");
    }
    assert_eq!(machine.stored(), [""; 0]);
    let made = back_up(&address);
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(machine.stored(), [made.json()["key"].as_str().expect("a name")]);
    assert_eq!(get(&address, "/backup").status, 405);
}

#[test]
fn without_a_configured_token_a_backup_on_demand_is_forbidden() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut process = machine.serve_script_with(POLITE, |command| {
        command.env_remove("SIMPLE_BACKUP_HTTP_TOKEN");
    });
    let address = process.http_address();
    let forbidden = ask(&address, "POST /backup", &["Authorization: Bearer "], "");
    assert_eq!(forbidden.status, 403);
    assert!(forbidden.body.contains("http.token"), "{}", forbidden.body);
}

#[test]
fn i4_a_backup_on_demand_during_another_is_a_conflict() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    let work = simplebackup_engine::work_dir::WorkFolder::beside(&machine.database());
    let held = work.lock_run().expect("free");
    let conflict = back_up(&address);
    assert_eq!(conflict.status, 409, "{}", conflict.body);
    assert!(conflict.body.contains("already in progress"), "{}", conflict.body);
    drop(held);
    assert_eq!(back_up(&address).status, 200);
    let status = get(&address, "/status").json();
    assert_eq!(status["counts"]["manual"]["refused"], 1);
    assert_eq!(status["counts"]["manual"]["succeeded"], 1);
}

#[test]
fn a_backup_on_demand_that_fails_says_why() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    machine.lose_database();
    let failed = back_up(&address);
    assert_eq!(failed.status, 500);
    assert!(failed.body.contains("database not found at"), "{}", failed.body);
    let status = get(&address, "/status").json();
    assert_eq!(status["last_error"]["trigger"], "manual");
    assert!((metric(&address, "simple_backup_failure_total") - 1.0).abs() < 1e-9);
}

/// Names and types as the specification has them.
#[test]
fn metrics_have_their_names_types_and_values() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    assert_eq!(back_up(&address).status, 200);
    let text = get(&address, "/metrics").body;
    for (name, kind) in [
        ("simple_backup_duration_seconds", "histogram"),
        ("simple_backup_size_bytes", "gauge"),
        ("simple_backup_success_total", "counter"),
        ("simple_backup_failure_total", "counter"),
        ("simple_restore_duration_seconds", "histogram"),
        ("simple_restore_success_total", "counter"),
        ("simple_restore_failure_total", "counter"),
        ("simple_backup_last_success_timestamp_seconds", "gauge"),
        ("simple_backup_in_progress", "gauge"),
        ("simple_backup_refused_total", "counter"),
        ("simple_backup_restarts_total", "counter"),
        ("simple_backup_stored_bytes", "gauge"),
    ] {
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} {kind} in:\n{text}");
    }
    let is = |name: &str, value: f64| (metric(&address, name) - value).abs() < 1e-9;
    assert!(is("simple_backup_success_total", 1.0));
    assert!(is("simple_backup_duration_seconds_count", 1.0));
    assert!(is("simple_backup_in_progress", 0.0));
    assert!(is("simple_backup_stored", 1.0));
    assert!(metric(&address, "simple_backup_last_success_timestamp_seconds") > 1.7e9);
    let archive = std::fs::metadata(machine.path("app.db.backups").join(&machine.stored()[0]));
    assert!(is("simple_backup_size_bytes", archive.expect("stored").len() as f64));
}

#[test]
fn status_tells_of_a_restore_and_of_the_app() {
    let machine = Machine::new();
    let (_process, address) = serve_restored(&machine);
    let status = get(&address, "/status").json();
    assert_eq!(status["restore"]["key"], machine.stored()[0].as_str());
    assert_eq!(status["app"]["state"], "running");
    assert_eq!(status["phase"], "ready");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["commit"], env!("SIMPLEBACKUP_COMMIT"));
    assert_eq!(get(&address, "/health/backup-status").json()["restored_on_startup"], true);
    assert!((metric(&address, "simple_restore_success_total") - 1.0).abs() < 1e-9);
}

#[test]
fn the_snitch_hears_of_every_success_and_of_nothing_else() {
    let snitch = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://{}{SNITCH_PATH}", snitch.local_addr().expect("known"));
    let machine = Machine::new();
    machine.create_database(10);
    let mut command = machine.simplebackup();
    command.env("SIMPLE_BACKUP_SNITCH_URL", &url);
    command.args(["run", "--simple-backup", "--", "true"]);
    let process = Process::start(&mut command);
    let (mut connection, _) = snitch.accept().expect("called");
    let mut request = [0; 1024];
    let read = connection.read(&mut request).expect("sent");
    let expected = format!("GET {SNITCH_PATH} HTTP/1.1\r\n");
    assert!(request[..read].starts_with(expected.as_bytes()));
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("answered");
    let (code, lines) = process.wait();
    assert_eq!(code, 0);
    assert!(!lines.iter().any(|line| line.contains("WARNING: The snitch")), "{lines:?}");
}

#[test]
fn a_snitch_that_cannot_be_told_is_a_warning_without_its_token() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut command = machine.simplebackup();
    command.env("SIMPLE_BACKUP_SNITCH_URL", format!("http://127.0.0.1:9{SNITCH_PATH}"));
    command.args(["run", "--simple-backup", "--", "true"]);
    let (code, lines) = Process::start(&mut command).wait();
    let text = lines.join("\n");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("WARNING: The snitch could not be told"), "{text}");
    assert_eq!(machine.stored().len(), 1);
}

#[test]
fn a_suspended_pruning_is_told_everywhere_until_it_is_resumed() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    let resume = |token: &str| {
        ask(&address, "POST /retention/resume", &[&format!("Authorization: Bearer {token}")], "")
    };
    let is_suspended = || metric(&address, "simple_backup_pruning_suspended") > 0.0;
    assert_eq!(back_up(&address).status, 200);
    assert!(!is_suspended());
    assert!(get(&address, "/status").json()["pruning_suspended"].is_null());

    machine.empty_database();
    let report = back_up(&address).json();
    let reason = report["pruning_suspended"]["reason"].as_str().expect("told");
    assert!(reason.contains("gone that db-backup-"), "{reason}");
    assert!(is_suspended());
    let status = get(&address, "/status").json();
    assert_eq!(status["pruning_suspended"], report["pruning_suspended"]);

    assert_eq!(resume("wrong").status, 401);
    assert!(machine.stored().contains(&"pruning-suspended.json".to_owned()));
    assert_eq!(resume(TOKEN).status, 200);
    assert!(!machine.stored().contains(&"pruning-suspended.json".to_owned()));
    assert!(!is_suspended());
    assert!(get(&address, "/status").json()["pruning_suspended"].is_null());
    assert_eq!(resume(TOKEN).status, 200, "twice is once");
}
