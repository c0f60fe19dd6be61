//! Full, limited and read-only disks: each write fails with a clear error, nothing is left behind,
//! what was stored stays, and once there is room the next run succeeds.

use std::fs;
use std::process::Command;

use simplebackup_engine::backup::BackupError;
use simplebackup_engine::snapshot::SnapshotError;

use crate::support::disk::on_small_disk;
use crate::support::process::{Machine, run};
use crate::support::{Site, assert_no_leftovers, db, files_in, gzip, name, visible_files_in};

/// A machine with a database of about 4 MiB as `prepared.db`, and an empty folder `store`.
fn machine() -> Machine {
    let machine = Machine::new();
    db::create_incompressible(&machine.path("prepared.db"), 4);
    fs::create_dir(machine.path("store")).expect("made");
    machine
}

/// Returns what the script said between two of its own lines.
#[track_caller]
fn between<'a>(said: &'a str, from: &str, to: &str) -> &'a str {
    let part = said.split_once(from).and_then(|(_, rest)| rest.split_once(to));
    part.unwrap_or_else(|| panic!("{from:?} and {to:?} in:\n{said}")).0
}

#[track_caller]
fn assert_says(said: &str, texts: &[&str]) {
    for text in texts {
        assert!(said.contains(text), "{text:?} is missing in:\n{said}");
    }
}

#[test]
fn a_snapshot_without_room_is_refused_with_both_numbers() {
    let machine = machine();
    let script = "
        export SIMPLE_BACKUP_STORE_URL=file://$PWD/store
        cp prepared.db disk/app.db
        $SB backup
        head -c 6000000 /dev/zero > disk/ballast
        echo FULL; fails $SB backup
        echo LEFT; left; ls store
        echo SERVICE; $SB run --simple-backup -- echo app is up
        rm disk/ballast
        echo FREE; $SB backup; ls store";
    let Some(said) = on_small_disk(&machine, "size=12m", script) else { return };
    let refused = between(&said, "FULL\n", "LEFT\n");
    let place = format!(" free in {}; free space or", machine.path("disk").display());
    assert_says(refused, &["no room for a snapshot of ", ": needs 4.", "MB, ", &place]);
    assert_says(refused, &["older backups are kept", "exit code 1"]);
    let left = between(&said, "LEFT\n", "SERVICE\n");
    assert_eq!(left.matches("db-backup-").count(), 1, "the old backup stays: {left}");
    assert!(!left.contains("/backup-"), "{left}");
    let service = between(&said, "SERVICE\n", "FREE\n");
    assert_says(service, &["WARNING: The next backup is likely to fail: it needs 4.", &place]);
    assert_says(service, &["app is up", "ERROR: Shutdown backup failed: no room for a snapshot"]);
    let after = said.split_once("FREE\n").expect("the end").1;
    assert_eq!(after.matches("\ndb-backup-").count(), 2, "{said}");
}

#[test]
fn a_restore_without_room_is_refused_with_both_numbers() {
    let machine = machine();
    let script = "
        export SIMPLE_BACKUP_STORE_URL=file://$PWD/store
        $SB backup --database prepared.db
        echo stale > disk/app.db-wal
        echo FULL; fails $SB run --simple-backup -- echo app is up
        echo BY HAND; fails $SB restore
        echo LEFT; left
        remount size=12m
        echo FREE; $SB run --simple-backup -- echo app is up; left";
    let Some(said) = on_small_disk(&machine, "size=3m", script) else { return };
    let place = format!(" free in {}; free space or", machine.path("disk").display());
    for part in [between(&said, "FULL\n", "BY HAND\n"), between(&said, "BY HAND\n", "LEFT\n")] {
        assert_says(part, &["no room for the unpacked database: needs 4.", "MB, 3.1MB", &place]);
        assert_says(part, &["exit code 1"]);
        assert!(!part.contains("app is up"), "{part}");
    }
    assert_eq!(between(&said, "LEFT\n", "FREE\n"), "./app.db-wal\n", "nothing moved, nothing left");
    let after = said.split_once("FREE\n").expect("the end").1;
    assert_says(after, &["Restore completed in", "app is up", "\n./app.db\n", "app.db-wal.stale-"]);
}

/// 64 MiB of zeros in 64 KiB, made with stock gzip, so that it does not say its size.
#[test]
fn an_archive_of_unknown_size_leaves_room_for_others() {
    let machine = machine();
    let bomb = gzip(&vec![0; 64 << 20]);
    fs::write(machine.path("store").join(name(7)), bomb).expect("written");
    let script = "
        export SIMPLE_BACKUP_STORE_URL=file://$PWD/store
        fails $SB run --simple-backup -- echo app is up
        echo LEFT; left";
    let Some(said) = on_small_disk(&machine, "size=20m", script) else { return };
    // A twentieth of the disk and the next MiB: it was not full when that was noticed.
    assert_says(&said, &["no room for the unpacked database: needs 2.1MB, ", "exit code 1"]);
    assert!(!said.contains("app is up"), "{said}");
    assert_eq!(between(&said, "LEFT\n", "THE END"), "", "nothing is left");
}

#[test]
fn i6_a_full_store_folder_keeps_its_backups_and_shows_no_part_of_another() {
    let machine = machine();
    let script = "
        export SIMPLE_BACKUP_STORE_URL=file://$PWD/disk
        export SIMPLE_BACKUP_DATABASE_PATH=prepared.db
        $SB backup
        echo FULL; fails $SB backup
        echo LEFT; left
        remount size=12m
        echo FREE; $SB backup; left";
    let Some(said) = on_small_disk(&machine, "size=6m", script) else { return };
    let refused = between(&said, "FULL\n", "LEFT\n");
    assert_says(refused, &["failed: no space left; free some, or check store.url", "exit code 1"]);
    let left: Vec<_> = between(&said, "LEFT\n", "FREE\n").lines().collect();
    assert!(left.len() == 1 && left[0].ends_with(".db.gz"), "{left:?}");
    let after = said.split_once("FREE\n").expect("the end").1;
    assert_eq!(after.matches("\n./db-backup-").count(), 2, "{said}");
    assert_no_leftovers(&machine.path("prepared.db"));
}

#[test]
fn a_work_folder_that_cannot_be_made_is_named() {
    let machine = machine();
    let script = "
        export SIMPLE_BACKUP_STORE_URL=file://$PWD/store
        cp prepared.db disk/app.db
        i=0; while touch disk/filler$i; do i=$((i + 1)); done 2> /dev/null || true
        echo NO INODES; fails $SB backup
        rm disk/filler*
        remount ro
        echo READ-ONLY; fails $SB backup
        echo SERVICE; fails $SB run --simple-backup -- echo app is up
        echo LEFT; left
        remount rw
        echo FREE; $SB backup";
    let options = "size=12m,nr_inodes=16";
    let Some(said) = on_small_disk(&machine, options, script) else { return };
    let full = between(&said, "NO INODES\n", "READ-ONLY\n");
    let work = "/disk/.app.db.simplebackup\" cannot be used; make it writable for this user";
    assert_says(full, &[work, "No space left on device", "exit code 1"]);
    let read_only = between(&said, "READ-ONLY\n", "SERVICE\n");
    assert_says(read_only, &[work, "Read-only file system", "exit code 1"]);
    let service = between(&said, "SERVICE\n", "LEFT\n");
    assert_says(
        service,
        &["FATAL: folder of the database disk/app.db cannot be made or used", "exit code 1"],
    );
    assert!(!service.contains("app is up"), "{service}");
    let left = between(&said, "LEFT\n", "FREE\n");
    assert!(left.lines().all(|name| name.starts_with("./app.db")), "{left}");
}

#[test]
fn a_read_only_store_folder_says_what_it_is() {
    let machine = machine();
    let script = "
        export SIMPLE_BACKUP_STORE_URL=file://$PWD/disk
        export SIMPLE_BACKUP_DATABASE_PATH=prepared.db
        $SB backup
        remount ro
        echo READ-ONLY; fails $SB backup
        echo LEFT; left
        remount rw
        $SB backup";
    let Some(said) = on_small_disk(&machine, "size=12m", script) else { return };
    let refused = between(&said, "READ-ONLY\n", "LEFT\n");
    assert_says(refused, &["failed: permission denied; let this user read and write the folder"]);
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
    let output = run(&mut command);
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

/// The snapshot of 8 KiB fits; the index of 32 KiB, which SQLite makes to read a WAL database, would
/// not.
#[test]
fn the_check_of_a_snapshot_needs_no_room() {
    let machine = Machine::new();
    let app = db::open_new(&machine.database(), "wal");
    app.execute_batch("CREATE TABLE notes (id INTEGER PRIMARY KEY)").expect("created");
    let (code, said) = under_limit(&machine, 24, "backup");
    assert_eq!(code, Some(0), "{said}");
    assert_no_leftovers(&machine.database());
    assert_eq!(machine.stored().len(), 1);
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

#[tokio::test]
async fn a_folder_that_vanished_is_not_made_again() {
    let site = Site::with_database();
    site.back_up().await.expect("made");
    let stored = site.stored().await;
    fs::remove_dir_all(site.root()).expect("vanished");
    let refused = site.back_up().await.expect_err("nothing is there");
    let is_missing = matches!(refused, BackupError::Snapshot(SnapshotError::Missing { .. }));
    assert!(is_missing, "{refused:?}");
    assert!(!site.root().exists(), "nothing is created");
    assert_eq!(site.stored().await, stored, "nothing is deleted");
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
