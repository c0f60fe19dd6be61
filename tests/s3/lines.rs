//! The log of the real binary against an S3 server, line by line as the specification has it.

use std::process::Command;

use crate::support::name;
use crate::support::process::{Machine, Process};
use crate::support::s3::{BUCKET, PREFIX, S3Server};

/// Writes `N` for numbers and `SIZE` for sizes, and the path of the database as in the
/// specification.
fn general(line: &str, machine: &Machine) -> String {
    let database = machine.database().display().to_string();
    let line = line.replace(&database, "/var/lib/app/database.db");
    let letters: Vec<char> = line.chars().collect();
    let is_digit = |at: usize| letters.get(at).is_some_and(char::is_ascii_digit);
    let mut general = String::new();
    let mut at = 0;
    while at < letters.len() {
        let follows_letter = at > 0 && letters[at - 1].is_alphabetic();
        if !is_digit(at) || follows_letter {
            general.push(letters[at]);
            at += 1;
            continue;
        }
        while is_digit(at) || (letters.get(at) == Some(&'.') && is_digit(at + 1)) {
            at += 1;
        }
        general.push('N');
    }
    for unit in ["NB", "NKB", "NMB"] {
        general = general.replace(unit, "SIZE");
    }
    general
}

fn run(machine: &Machine, address: &str) -> Vec<String> {
    let mut command: Command = machine.simplebackup();
    command
        .env("MINIO_ENDPOINT", address)
        .env("MINIO_USE_SSL", "false")
        .env("MINIO_BUCKET", BUCKET)
        .env("MINIO_PREFIX", PREFIX)
        .args(["run", "--simple-backup", "--", "/bin/sh", "-c", "sleep 1000"]);
    let mut process = Process::start(&mut command);
    process.wait_for_line("[SERVER] Starting application...");
    // Not before the child is there to hear of the signal.
    let address = process.http_address();
    crate::support::process::eventually("the app runs", || {
        crate::support::process::get(&address, "/health/ready").status == 200
    });
    let (code, lines) = process.stop();
    assert_eq!(code, 143, "{}", lines.join("\n"));
    lines.iter().map(|line| general(line, machine)).collect()
}

#[tokio::test]
async fn a_restore_and_a_final_backup_print_the_lines_of_the_specification() {
    let server = S3Server::start().await;
    for timestamp in [1, 2] {
        server.put(&name(timestamp), b"old");
    }
    let address = server.address().to_owned();
    let lines = tokio::task::spawn_blocking(move || {
        let machine = Machine::new();
        machine.create_database(1000);
        let first = run(&machine, &address);
        machine.lose_database();
        (first, run(&machine, &address))
    });
    let (first, second) = lines.await.expect("run");

    let backup = [
        "[SIMPLE-BACKUP] Starting shutdown backup...",
        "[SIMPLE-BACKUP] VACUUM INTO completed: SIZE",
        "[SIMPLE-BACKUP] Compressed to SIZE (N% reduction)",
        "[SIMPLE-BACKUP] Uploaded to s3://mybucket/backups/db-backup-N.db.gz",
    ];
    let start = ["[SERVER] Listening on http://N:N"];
    let stop = ["[SERVER] Received shutdown signal", "[SERVER] Application ended: signal N"];
    let end = ["[SIMPLE-BACKUP] Backup completed in Ns", "[SERVER] Shutdown complete"];
    let app = ["[SERVER] Starting application..."];
    assert_eq!(first, [&start[..], &app, &stop, &backup, &end].concat());

    let restore = [
        "[SIMPLE-BACKUP] Local database not found at /var/lib/app/database.db",
        "[SIMPLE-BACKUP] Listing backups from MinIO: s3://mybucket/backups/",
        "[SIMPLE-BACKUP] Found N backups, selecting latest: db-backup-N.db.gz",
        "[SIMPLE-BACKUP] Downloading SIZE from MinIO...",
        "[SIMPLE-BACKUP] Decompressed to SIZE",
        "[SIMPLE-BACKUP] Running integrity check... ok",
        "[SIMPLE-BACKUP] Restore completed in Ns",
    ];
    let cleanup = ["[SIMPLE-BACKUP] Cleanup: keeping N most recent backups, deleted N old backup"];
    assert_eq!(second, [&start[..], &restore, &app, &stop, &backup, &cleanup, &end].concat(),);
}
