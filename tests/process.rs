//! The real binary in front of real programs: what it prints, whom it stops and how, and the
//! code with which it ends.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use simplebackup_engine::work_dir::WorkFolder;

use crate::support::process::{
    Machine, POLITE, STUBBORN, ask, assert_in_order, eventually, get, is_alive, run,
};
use crate::support::{db, files_in, gzip, visible_files_in};

/// The whole life, with the lines of the specification.
#[test]
fn a_database_outlives_its_machine() {
    let machine = Machine::new();
    let (process, notes) = machine.serve_notes();
    for text in ["one", "two"] {
        assert_eq!(ask(&notes, "POST /notes", &[], text).status, 201);
    }
    let (code, lines) = process.stop();
    assert_eq!(code, 0, "{}", lines.join("\n"));
    assert_in_order(
        &lines,
        &[
            "[SIMPLE-BACKUP] Local database not found at ",
            "[SIMPLE-BACKUP] No backups found in ",
            "[SIMPLE-BACKUP] Starting with fresh database, first backup will run in next hour",
            "[SERVER] Starting application...",
            "notes: listening on",
            "[SERVER] Received shutdown signal",
            "[SIMPLE-BACKUP] Starting shutdown backup...",
            "[SIMPLE-BACKUP] VACUUM INTO completed: ",
            "[SIMPLE-BACKUP] Uploaded to file://",
            "[SIMPLE-BACKUP] Backup completed in ",
            "[SERVER] Shutdown complete",
        ],
    );
    let stored = machine.stored();
    assert_eq!(stored.len(), 1, "{stored:?}");

    machine.lose_database();
    let (process, notes) = machine.serve_notes();
    let answer = get(&notes, "/notes").json();
    assert_eq!((answer["count"].as_i64(), answer["last"].as_str()), (Some(2), Some("two")));
    let (code, lines) = process.stop();
    assert_eq!(code, 0);
    let selected = format!("Found 1 backup, selecting latest: {}", stored[0]);
    assert_in_order(
        &lines,
        &[
            "[SIMPLE-BACKUP] Local database not found at ",
            "[SIMPLE-BACKUP] Listing backups from ",
            &selected,
            "[SIMPLE-BACKUP] Downloading ",
            "[SIMPLE-BACKUP] Decompressed to ",
            "[SIMPLE-BACKUP] Running integrity check... ok",
            "[SIMPLE-BACKUP] Restore completed in ",
            "[SERVER] Starting application...",
        ],
    );
}

#[test]
fn sigterm_sigint_and_sighup_all_stop_in_order() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let machine = Machine::new();
        machine.create_database(10);
        let mut process = machine.serve_script(POLITE);
        process.wait_for_line("app is up");
        process.signal(signal);
        let (code, lines) = process.wait();
        assert_eq!(code, 0, "{signal:?}");
        assert_in_order(
            &lines,
            &[
                "Received shutdown signal",
                "Starting shutdown backup...",
                "Backup completed in",
                "Shutdown complete",
            ],
        );
        assert_eq!(machine.stored().len(), 1, "{signal:?}");
    }
}

#[test]
fn the_app_dies_with_us_even_by_sigkill() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut process = machine.serve_script("echo app $$; while :; do sleep 0.05; done");
    let app = process.wait_for_pid("app ");
    process.signal(Signal::KILL);
    eventually("the app is gone", || !is_alive(app));
}

#[test]
fn a_second_signal_abandons_the_stop_and_says_what_is_missing() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut process = machine.serve_script(STUBBORN);
    let grandchild = process.wait_for_pid("grandchild ");
    process.signal(Signal::TERM);
    process.wait_for_line("Received shutdown signal");
    // Within the first second it would count as the same stop.
    std::thread::sleep(Duration::from_millis(1100));
    let again = Instant::now();
    process.signal(Signal::TERM);
    let (code, lines) = process.wait();
    assert_eq!(code, 1);
    eventually("the app and what it started are gone", || !is_alive(grandchild));
    assert!(again.elapsed() < Duration::from_secs(8));
    assert_in_order(&lines, &["second shutdown signal, abandoning", "Final backup is missing"]);
    assert_eq!(machine.stored(), [""; 0]);
}

#[test]
fn a_taken_port_is_told_before_anything_is_done() {
    let machine = Machine::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("known").to_string();
    let output = machine.run(&["run", "--simple-backup", "--http", &address, "--", "true"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&address) && errors.contains("http.address"), "{errors}");
    assert_eq!(visible_files_in(&machine.path("")), [""; 0]);
}

/// `TestStartup_RestoreFailed` of the specification: the two lines, and why.
#[test]
fn an_unreachable_store_at_a_restore_is_fatal_and_the_app_never_starts() {
    let machine = Machine::new();
    let mut command = machine.simplebackup();
    command
        .env("MINIO_ENDPOINT", "http://127.0.0.1:9")
        .env("MINIO_BUCKET", "mybucket")
        .env("SIMPLE_BACKUP_RESTORE_TIMEOUT", "1s")
        .args(["run", "--simple-backup", "--", "touch", "started"]);
    let output = run(&mut command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let lines: Vec<_> = errors.lines().map(str::to_owned).collect();
    assert_in_order(
        &lines,
        &[
            "[SIMPLE-BACKUP] FATAL: Cannot connect to S3 storage at s3://mybucket",
            "[SIMPLE-BACKUP] FATAL: Verify MINIO_ENDPOINT, MINIO_ACCESS_KEY, and network connectivity",
        ],
    );
    assert!(!machine.path("started").exists());
    assert_eq!(visible_files_in(&machine.path("")), [""; 0]);
}

#[test]
fn a_damaged_newest_backup_is_fatal_unless_a_fallback_is_wanted() {
    let machine = Machine::new();
    machine.create_database(10);
    assert!(machine.run(&["backup"]).status.success());
    let sound = db::dump(&machine.database());
    machine.lose_database();
    let damaged = machine.path("app.db.backups/db-backup-9999999999.db.gz");
    fs::write(damaged, gzip(b"not a database at all")).expect("written");

    let output = machine.run(&["run", "--simple-backup", "--", "touch", "started"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let lines: Vec<_> = errors.lines().map(str::to_owned).collect();
    assert_in_order(
        &lines,
        &[
            "[SIMPLE-BACKUP] FATAL: Integrity check failed on db-backup-9999999999.db.gz",
            "[SIMPLE-BACKUP] FATAL: Backup file is corrupted. Manual intervention required.",
        ],
    );
    assert!(!machine.path("started").exists() && !machine.database().exists());

    let mut command = machine.simplebackup();
    command.env("SIMPLE_BACKUP_RESTORE_FALLBACK", "true");
    command.args(["run", "--simple-backup", "--", "touch", "started"]);
    assert!(run(&mut command).status.success());
    assert!(machine.path("started").exists());
    assert_eq!(db::dump(&machine.database()), sound);
}

#[test]
fn a_failed_final_backup_is_said_and_with_strict_exits_with_75() {
    for (strict, expected) in [("false", 0), ("true", 75)] {
        let machine = Machine::new();
        // No database ever: there is nothing to back up.
        let mut process = machine.serve_script_with(POLITE, |command| {
            command.env("SIMPLE_BACKUP_SHUTDOWN_STRICT", strict);
        });
        process.wait_for_line("app is up");
        let (code, lines) = process.stop();
        assert_eq!(code, expected, "strict = {strict}");
        assert_in_order(
            &lines,
            &[
                "[SIMPLE-BACKUP] ERROR: Shutdown backup failed: database not found at",
                "[SIMPLE-BACKUP] WARNING: Continuing shutdown without backup",
                "Final backup is missing, no good backup is known",
                "[SERVER] Shutdown complete",
            ],
        );
    }
}

/// `TestPerformBackup_ConcurrentBlocked` of the specification, between processes.
#[test]
fn i4_a_backup_in_another_process_is_refused() {
    let machine = Machine::new();
    machine.create_database(10);
    let held = WorkFolder::beside(&machine.database()).lock_run().expect("free");
    let output = machine.run(&["backup"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("backup already in progress in process"), "{errors}");
    drop(held);
    assert!(machine.run(&["backup"]).status.success());
}

#[test]
fn switched_off_the_app_and_the_routes_run_and_nothing_else() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut command = machine.simplebackup();
    command.args(["run", "--", "/bin/sh", "-c", POLITE]);
    let mut process = crate::support::process::Process::start(&mut command);
    let address = process.http_address();
    process.wait_for_line("app is up");
    assert_eq!(get(&address, "/health").status, 200);
    assert_eq!(get(&address, "/health/backup-status").json()["enabled"], false);
    let (code, lines) = process.stop();
    assert_eq!(code, 0);
    assert!(!lines.iter().any(|line| line.contains("[SIMPLE-BACKUP]")), "{}", lines.join("\n"));
    let files = files_in(&machine.path(""));
    assert!(!files.iter().any(|name| name.contains("backup")), "{files:?}");
}

#[test]
fn i7_what_a_killed_service_left_is_swept_at_the_next_start() {
    let machine = Machine::new();
    machine.create_database(10);
    let left = machine.path(".app.db.simplebackup/backup-1-0");
    fs::create_dir_all(&left).expect("made");
    fs::write(left.join("snapshot.db"), "left").expect("written");
    let mut process = machine.serve_script("echo app is up; exec sleep 1000");
    process.wait_for_line("app is up");
    assert!(!left.exists(), "before any backup");
}

#[test]
fn json_lines_carry_the_same_events_as_fields() {
    let machine = Machine::new();
    machine.create_database(10);
    let output = machine.run(&["run", "--simple-backup", "--log-format", "json", "--", "true"]);
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    let events: Vec<serde_json::Value> =
        errors.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let completed = events
        .iter()
        .find(|event| {
            event["message"].as_str().is_some_and(|text| text.starts_with("Backup completed in"))
        })
        .expect("a line about the backup");
    assert_eq!(completed["target"], "simple_backup");
    assert_eq!(completed["trigger"], "shutdown");
    assert!(completed["archive_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{completed}");
}
