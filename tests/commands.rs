//! The commands beside `run`, as a person types them.

use std::fs;
use std::process::Output;

use crate::support::process::{Machine, Process, eventually, get};
use crate::support::{db, gzip, name, visible_files_in};

/// Asserts success and returns what was printed as the result.
#[track_caller]
fn printed(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Asserts exit code 1 and returns what was complained of.
#[track_caller]
fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A machine with a database and one backup of it, at this timestamp.
fn machine_with_backup_at(timestamp: i64) -> Machine {
    let machine = Machine::new();
    machine.create_database(10);
    printed(machine.run(&["backup"]));
    let made = machine.path("app.db.backups").join(&machine.stored()[0]);
    fs::rename(made, machine.path("app.db.backups").join(name(timestamp))).expect("renamed");
    machine
}

#[test]
fn backup_stores_one_and_list_shows_it() {
    let machine = Machine::new();
    assert!(complaint(&machine.run(&["list"])).contains("no such folder"));
    assert_eq!(visible_files_in(&machine.path("")), [""; 0], "a look makes nothing");
    machine.create_database(10);
    let made = printed(machine.run(&["backup"]));
    let stored = machine.stored();
    assert!(made.contains(&stored[0]), "{made}");
    let list = printed(machine.run(&["list"]));
    assert!(list.starts_with("1 in file://") && list.contains(&stored[0]), "{list}");
    let json: serde_json::Value =
        serde_json::from_str(&printed(machine.run(&["list", "--json"]))).expect("JSON");
    assert_eq!(json[0]["name"], stored[0].as_str());
    let size = fs::metadata(machine.path("app.db.backups").join(&stored[0])).expect("stored").len();
    assert_eq!(json[0]["size_bytes"], size);
}

/// Else a disk that is not mounted would look like a store without backups.
#[test]
fn a_named_folder_that_is_missing_is_an_error_and_is_not_made() {
    let machine = Machine::new();
    machine.create_database(10);
    for words in [&["list"][..], &["backup"], &["run", "--simple-backup", "--", "touch", "started"]]
    {
        let words = [&["--store", "file:disk/backups"], words].concat();
        let said = complaint(&machine.run(&words));
        assert!(said.contains("no such folder; create it, mount its disk"), "{words:?}: {said}");
    }
    assert!(!machine.path("disk").exists() && !machine.path("started").exists());
}

#[test]
fn backup_keeps_as_many_as_it_is_told() {
    let machine = Machine::new();
    machine.create_database(10);
    for _ in 0..4 {
        printed(machine.run(&["backup", "--keep", "2"]));
    }
    assert_eq!(machine.stored().len(), 2);
}

#[test]
fn a_failed_backup_says_why_and_what_to_do() {
    let machine = Machine::new();
    let missing = complaint(&machine.run(&["backup"]));
    assert!(missing.contains("error: database not found at"), "{missing}");
    assert!(missing.contains("check database.path"), "{missing}");
    assert!(!machine.database().exists());
}

#[test]
fn restore_brings_the_newest_back_and_never_overwrites() {
    let machine = machine_with_backup_at(100);
    let backed_up = db::dump(&machine.database());
    let refused = complaint(&machine.run(&["restore"]));
    assert!(refused.contains("exists and is not overwritten; use --force"), "{refused}");

    db::add_notes(&db::open(&machine.database()), 5);
    let later = db::dump(&machine.database());
    let said = printed(machine.run(&["restore", "--force"]));
    assert_eq!(db::dump(&machine.database()), backed_up);
    let aside = said.lines().find_map(|line| line.strip_prefix("the former database is at "));
    assert_eq!(db::dump(aside.expect("moved aside").as_ref()), later);

    machine.lose_database();
    printed(machine.run(&["restore"]));
    assert_eq!(db::dump(&machine.database()), backed_up);
}

#[test]
fn restore_takes_the_one_that_is_named_or_of_a_time() {
    let machine = machine_with_backup_at(1_000_000_000);
    let first = db::dump(&machine.database());
    db::add_notes(&db::open(&machine.database()), 5);
    printed(machine.run(&["backup"]));
    let second = db::dump(&machine.database());
    let copy = machine.path("copy.db");
    for (words, expected) in [
        (vec!["--from", "db-backup-1000000000.db.gz"], &first),
        (vec!["--at", "2001-09-09T02:00:00Z"], &first),
        (vec!["--at", "1000000000"], &first),
        (vec!["--at", "2026-01-01T00:00:00Z"], &first),
        (vec!["--at", "1h ago"], &first),
        (vec![], &second),
    ] {
        let words = [vec!["restore", "--to", "copy.db"], words].concat();
        printed(machine.run(&words));
        assert_eq!(&db::dump(&copy), expected, "{words:?}");
        fs::remove_file(&copy).expect("removed");
    }
    let too_old = complaint(&machine.run(&["restore", "--to", "copy.db", "--at", "999999999"]));
    assert!(too_old.contains("the oldest is of 2001-09-09T01:46:40Z"), "{too_old}");
    let unknown = machine.run(&["restore", "--to", "copy.db", "--from", "db-backup-7.db.gz"]);
    assert!(complaint(&unknown).contains("is not stored; see \"simplebackup list\""));
    for wrong in [["--from", "notes.txt"], ["--at", "yesterday"]] {
        let words = [&["restore", "--to", "copy.db"][..], &wrong].concat();
        let output = machine.run(&words);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("such as"), "{wrong:?}");
    }
    assert!(!copy.exists());
}

#[test]
fn restore_by_hand_refuses_while_a_service_runs_or_a_program_writes() {
    let machine = machine_with_backup_at(100);
    let mut process = machine.serve_script("echo app is up; exec sleep 1000");
    process.wait_for_line("app is up");
    let refused = complaint(&machine.run(&["restore", "--force"]));
    assert!(refused.contains("is in use by simplebackup, process "), "{refused}");
    process.stop();

    let app = db::open(&machine.database());
    app.execute_batch("BEGIN IMMEDIATE").expect("begun");
    let refused = complaint(&machine.run(&["restore", "--force"]));
    assert!(refused.contains("is in use by another program"), "{refused}");
}

#[test]
fn verify_counts_rows_and_finds_damage() {
    let machine = machine_with_backup_at(100);
    let said = printed(machine.run(&["verify"]));
    assert!(said.contains("db-backup-100.db.gz  ok"), "{said}");
    assert!(said.contains("  notes: 10\n") && said.contains("  tags: 10\n"), "{said}");

    fs::write(machine.path("app.db.backups").join(name(50)), gzip(b"no database"))
        .expect("written");
    assert!(machine.run(&["verify"]).status.success(), "the newest is sound");
    let output = machine.run(&["verify", "--all"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("db-backup-50.db.gz  DAMAGED: ") && said.contains("db-backup-100.db.gz  ok")
    );
    let one = machine.run(&["verify", "db-backup-50.db.gz"]);
    assert_eq!(one.status.code(), Some(1));
    let left = visible_files_in(&machine.path(""));
    // Reading a WAL database leaves SQLite's own empty files beside it.
    let left: Vec<_> = left.iter().filter(|name| !name.starts_with("app.db-")).collect();
    assert_eq!(left, ["app.db", "app.db.backups"]);
}

#[test]
fn healthcheck_asks_the_running_service() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut process = machine.serve_script("echo app is up; exec sleep 1000");
    let address = process.http_address();
    eventually("ready", || get(&address, "/health/ready").status == 200);
    for words in
        [&["healthcheck", "--http", &address][..], &["healthcheck", "--ready", "--http", &address]]
    {
        assert!(printed(machine.run(words)).contains("200 OK"), "{words:?}");
    }
    process.stop();
    complaint(&machine.run(&["healthcheck", "--http", &address]));
}

#[test]
fn the_demo_tells_the_truth() {
    let machine = Machine::new();
    let mut command = machine.simplebackup();
    command.arg("demo").env("TMPDIR", machine.path(""));
    let (code, lines) = Process::start(&mut command).wait();
    assert_eq!(code, 0, "{lines:#?}");
    let told = lines.iter().find(|line| line.contains("every row is there")).expect("the end");
    let folder = lines.iter().find_map(|line| line.trim().strip_prefix("database: "));
    let database = std::path::PathBuf::from(folder.expect("where it is").trim());
    let rows = db::open(&database)
        .query_row("SELECT count(*) FROM notes", [], |row| row.get::<_, i64>(0))
        .expect("counted");
    assert!(rows > 0 && told.contains(" rows came back"), "{told}");
}

#[test]
fn restore_replaces_a_database_file_and_nothing_else() {
    let machine = machine_with_backup_at(100);
    let folder = machine.path("folder");
    fs::create_dir(&folder).expect("made");
    fs::write(folder.join("precious"), "data").expect("written");
    let refused = complaint(&machine.run(&["restore", "--force", "--to", "folder"]));
    assert!(refused.contains("is a folder, not a database file"), "{refused}");
    assert!(folder.join("precious").exists());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let machine = machine_with_backup_at(100);
    let mut command = machine.simplebackup();
    let mut child =
        command.arg("list").stdout(std::process::Stdio::piped()).spawn().expect("started");
    drop(child.stdout.take());
    assert!(child.wait().expect("waited").success());
}

#[test]
fn prune_deletes_the_surplus_and_asks_a_person_about_an_emptied_database() {
    let machine = Machine::new();
    machine.create_database(10);
    for _ in 0..2 {
        printed(machine.run(&["backup"]));
    }
    let first = machine.stored()[0].clone();
    let said = printed(machine.run(&["prune", "--keep", "1", "--dry-run"]));
    assert!(said.contains("would delete ") && said.contains(&first), "{said}");
    machine.empty_database();
    printed(machine.run(&["backup", "--keep", "1"]));
    assert_eq!(machine.stored().len(), 4, "three backups and the mark");

    let list = machine.run(&["list"]);
    let warning = String::from_utf8_lossy(&list.stderr);
    assert!(list.status.success() && warning.contains("of an emptied database"), "{warning}");

    let refused = machine.run(&["prune", "--keep", "1"]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("prune --confirm") && error.contains("tables are gone"), "{error}");
    assert_eq!((refused.status.code(), machine.stored().len()), (Some(1), 4));

    let said = printed(machine.run(&["prune", "--keep", "1", "--confirm"]));
    assert!(said.contains("deleted ") && said.contains("1 stored in "), "{said}");
    assert_eq!(machine.stored().len(), 1);
    printed(machine.run(&["prune", "--keep", "1"]));
}
