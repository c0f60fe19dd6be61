//! Drills of the real binary: what it prints and answers, and what it leaves of a small disk.

use std::fs;

use crate::support::db;
use crate::support::disk::on_small_disk;
use crate::support::process::{Machine, POLITE, assert_in_order, get};

/// The lines, the routes and the counters of the real binary.
#[test]
fn a_service_shows_its_drills_in_log_status_and_metrics() {
    let machine = Machine::new();
    machine.create_database(100);
    assert!(machine.run(&["backup"]).status.success());
    let stored = machine.stored();
    let mut process = machine.serve_script_with(POLITE, |command| {
        command.env("SIMPLE_BACKUP_VERIFY_SCHEDULE", "* * * * * *");
    });
    let address = process.http_address();
    let line = process.wait_for_line("[SIMPLE-BACKUP] Restore drill: ");
    let said = format!("{} is sound, 3 tables, 206 rows, in ", stored[0]);
    assert!(line.contains(&said), "{line}");
    let status = get(&address, "/status").json();
    let verified = &status["last_verified"];
    assert_eq!(verified["key"].as_str(), Some(stored[0].as_str()));
    assert_eq!((verified["tables"].as_u64(), verified["rows"].as_u64()), (Some(3), Some(206)));
    assert!(verified["at"].is_string() && verified["took_ms"].is_u64(), "{verified}");
    assert!(status["last_verify_error"].is_null(), "{status}");

    let newer = machine.path("app.db.backups").join("db-backup-99999999999.db.gz");
    fs::write(newer, "not gzip").expect("written");
    let line = process.wait_for_line("ERROR: Restore drill failed: ");
    assert!(
        line.contains("backup db-backup-99999999999.db.gz is damaged; make a new one"),
        "{line}"
    );
    let status = get(&address, "/status").json();
    assert!(status["last_verify_error"]["error"].is_string(), "{status}");
    let text = get(&address, "/metrics").body;
    let metric = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in:\n{text}")).parse().expect("a number")
    };
    assert!(metric("simple_backup_verify_success_total") >= 1.0);
    assert!(metric("simple_backup_verify_failure_total") >= 1.0);
    assert!(metric("simple_backup_last_verified_timestamp_seconds") > 1.7e9);
    assert!(metric("simple_backup_failure_total") < 0.5, "a drill is no backup");
    let (code, lines) = process.stop();
    assert_eq!(code, 0, "{}", lines.join("\n"));
    assert_in_order(&lines, &["Received shutdown signal", "Starting shutdown backup..."]);
}

/// A drill needs room for the database, and leaves as much for a snapshot.
#[test]
fn a_drill_never_takes_the_room_of_a_backup() {
    let machine = Machine::new();
    db::create_incompressible(&machine.path("prepared.db"), 4);
    fs::create_dir(machine.path("store")).expect("made");
    let script = "
        export SIMPLE_BACKUP_STORE_URL=file://$PWD/store SIMPLE_BACKUP_VERIFY_SCHEDULE='* * * * * *'
        cp prepared.db disk/app.db
        $SB backup
        $SB run --simple-backup -- /bin/sh -c '
            for _ in $(seq 600); do ! grep -q \"Restore drill failed\" log || exit 0; sleep 0.1; done
            exit 9' 2> log
        cat log; left";
    let Some(said) = on_small_disk(&machine, "size=10m", script) else { return };
    let refused = "could not be unpacked and checked: no room for the unpacked database: needs 9.";
    assert!(said.contains(refused), "{said}");
    assert!(said.contains("Starting shutdown backup") && !said.contains("backup failed"), "{said}");
}
