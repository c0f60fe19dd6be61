//! Full, limited and read-only disks: each write fails with a clear error, nothing is left behind,
//! what was stored stays, and once there is room the next run succeeds.

use std::process::Command;

use crate::support::process::Machine;
use crate::support::{assert_no_leftovers, db, files_in, visible_files_in};

#[track_caller]
fn assert_says(said: &str, texts: &[&str]) {
    for text in texts {
        assert!(said.contains(text), "{text:?} is missing in:\n{said}");
    }
}

/// Runs a command under a limit of file size in KiB.
fn under_limit(machine: &Machine, kibibytes: u32, words: &str) -> (Option<i32>, String) {
    // Blocks of 512 bytes, as POSIX has them and as the usual shells do in this mode.
    let script = format!("ulimit -f {}; exec \"$SB\" {words}", kibibytes * 2);
    let simplebackup = machine.simplebackup();
    let mut command = Command::new("/bin/sh");
    command.env_clear().env("POSIXLY_CORRECT", "1").args(["-c", &script]);
    command.envs(simplebackup.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("SB", env!("CARGO_BIN_EXE_simplebackup")).current_dir(machine.path(""));
    let output = command.output().expect("run");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

/// What no look at the disk foresees: the write itself fails.
#[test]
fn a_snapshot_that_meets_a_limit_says_so_and_leaves_nothing() {
    let machine = Machine::new();
    db::create_incompressible(&machine.database(), 4);
    let (code, said) = under_limit(&machine, 2048, "backup");
    assert_eq!(code, Some(1), "{said}");
    assert_says(&said, &["snapshot of ", "copy cannot be written: ", "(ulimit -f)"]);
    assert_no_leftovers(&machine.database());
    assert_eq!(machine.stored(), [""; 0]);
    assert!(machine.run(&["backup"]).status.success());
}

/// The snapshot of 8 KiB fits; the index of 32 KiB, which SQLite makes to read a WAL database, does
/// not. Nothing is wrong with the app's database.
#[test]
fn a_check_that_meets_a_limit_does_not_call_the_database_damaged() {
    let machine = Machine::new();
    let app = db::open_new(&machine.database(), "wal");
    app.execute_batch("CREATE TABLE notes (id INTEGER PRIMARY KEY)").expect("created");
    let (code, said) = under_limit(&machine, 24, "backup");
    assert_eq!(code, Some(1), "{said}");
    assert_says(&said, &["snapshot refused, nothing uploaded: ", "copy cannot be written: "]);
    assert!(!said.contains("needs repair"), "{said}");
    assert_no_leftovers(&machine.database());
    assert_eq!(machine.stored(), [""; 0]);
    assert!(machine.run(&["backup"]).status.success());
}

#[test]
fn i6_an_unpacked_file_that_meets_a_limit_leaves_nothing_at_the_path() {
    let machine = Machine::new();
    db::create_incompressible(&machine.database(), 4);
    assert!(machine.run(&["backup"]).status.success());
    machine.lose_database();
    for words in ["restore", "run --simple-backup -- echo app is up"] {
        let (code, said) = under_limit(&machine, 2048, words);
        assert_eq!(code, Some(1), "{said}");
        assert_says(&said, &["unpacked file could not be written; free space or check"]);
        assert_eq!(visible_files_in(&machine.path("")), ["app.db.backups"], "{words}");
        assert_no_leftovers(&machine.database());
    }
    assert!(machine.run(&["restore"]).status.success());
    assert_eq!(db::pragma(&machine.database(), "integrity_check"), "ok");
}

#[test]
fn a_backup_without_a_database_makes_nothing() {
    let machine = Machine::new();
    let output = machine.run(&["backup"]);
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_says(&said, &["database not found at ", "nothing is created or deleted"]);
    assert_eq!(files_in(&machine.path("")), [""; 0]);
}
