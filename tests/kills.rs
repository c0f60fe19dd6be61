//! SIGKILL, at every named step of a backup, a restore and a stop ([`fail_point::ALL`]), and at
//! random moments: what is left then, and that the next start makes good use of it.

mod ledger;
mod parts;
mod random;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use simplebackup_engine::fail_point;
use simplebackup_engine::key::BackupKey;
use simplebackup_engine::sqlite::sidecar;

use crate::support::process::{Machine, eventually, is_alive};
use crate::support::{assert_no_leftovers, db, files_in, gunzip, name};

/// More than two parts of an upload, because gzip makes noise no smaller.
const DATABASE_MEBIBYTES: usize = 11;

/// Backups that are stored before the killed one.
const STORED: usize = 4;

/// The time of the oldest of them, before any that the binary makes.
const FORMER: i64 = 1_500_000_000;

/// Backups that stay, so that more than one has to go.
const KEEP: usize = 2;

fn steps(of: &str) -> impl Iterator<Item = &'static str> {
    let prefix = format!("{of}.");
    fail_point::ALL.into_iter().filter(move |step| step.starts_with(&prefix))
}

/// What a database of these tests holds.
#[derive(PartialEq)]
struct Contents {
    marks: Vec<i64>,
    blobs: Vec<Vec<u8>>,
}

/// Reads all, and checks it on the way.
#[track_caller]
fn contents(database: &Path) -> Contents {
    assert_eq!(db::pragma(database, "integrity_check"), "ok");
    let connection = db::open(database);
    let mut marks = connection.prepare("SELECT mark FROM marks ORDER BY mark").expect("prepared");
    let mut blobs = connection.prepare("SELECT body FROM blobs ORDER BY rowid").expect("prepared");
    let marks = marks.query_map([], |row| row.get(0)).expect("queried");
    let blobs = blobs.query_map([], |row| row.get(0)).expect("queried");
    let marks = marks.collect::<Result<_, _>>().expect("read");
    Contents { marks, blobs: blobs.collect::<Result<_, _>>().expect("read") }
}

fn mark(database: &Path, mark: i64) {
    db::open(database).execute("INSERT INTO marks VALUES (?1)", [mark]).expect("inserted");
}

/// Returns what a stored backup holds. That it can be read at all says that it is whole.
fn stored_contents(machine: &Machine, name: &str) -> Contents {
    let archive = fs::read(machine.path("app.db.backups").join(name)).expect("read");
    let unpacked = machine.path("unpacked.db");
    fs::write(&unpacked, gunzip(&archive)).expect("written");
    let contents = contents(&unpacked);
    for suffix in ["", "-wal", "-shm"] {
        let _may_be_missing = fs::remove_file(sidecar(&unpacked, suffix));
    }
    contents
}

/// Returns the names in the store that are a backup's.
fn backups(machine: &Machine) -> Vec<String> {
    machine.stored().into_iter().filter(|name| BackupKey::parse(name).is_some()).collect()
}

/// A machine with a database of some size, and one backup of it.
fn machine_with_backup() -> Machine {
    let machine = Machine::new();
    db::create_incompressible(&machine.database(), DATABASE_MEBIBYTES);
    db::open(&machine.database()).execute_batch("CREATE TABLE marks (mark)").expect("created");
    mark(&machine.database(), 1);
    succeed(&machine, &["backup"]);
    machine
}

fn run(machine: &Machine, words: &[&str], step: Option<&str>) -> Output {
    let mut command = machine.simplebackup();
    command.env("SIMPLE_BACKUP_BACKUP_KEEP", KEEP.to_string()).args(words);
    command.envs(step.map(|step| ("FAIL_POINT", step))).output().expect("run")
}

#[track_caller]
fn succeed(machine: &Machine, words: &[&str]) {
    let output = run(machine, words, None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs the binary, which has to come to this step and die there.
#[track_caller]
fn die_at(step: &str, machine: &Machine, words: &[&str]) {
    let output = run(machine, words, Some(step));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(9), "not killed at {step}:\n{said}");
}

#[test]
fn i6_i7_a_backup_killed_at_any_step_costs_no_other_backup() {
    let machine = machine_with_backup();
    let folder = machine.path("app.db.backups");
    for (step, number) in steps("backup").zip(2..) {
        // Surplus, so that there is something to delete: the newest backup, several times.
        let newest = machine.stored().pop().expect("stored");
        let stored = stored_contents(&machine, &newest);
        let archive = fs::read(folder.join(&newest)).expect("read");
        fs::remove_dir_all(&folder).expect("removed");
        fs::create_dir(&folder).expect("made");
        for timestamp in (FORMER..).take(STORED) {
            fs::write(folder.join(name(timestamp)), &archive).expect("written");
        }
        mark(&machine.database(), number);
        let now = contents(&machine.database());

        die_at(step, &machine, &["backup"]);

        assert!(contents(&machine.database()) == now, "{step}: the database has changed");
        let left = backups(&machine);
        assert!(left.len() >= KEEP, "{step}: {left:?}");
        for name in &left {
            let held = stored_contents(&machine, name);
            assert!(held == stored || held == now, "{step}: {name} holds something else");
        }
        let newer = left.iter().filter(|left| **left > name(FORMER + 1000)).count();
        let is_made = ["backup.uploaded", "backup.one_deleted", "backup.pruned"].contains(&step);
        assert_eq!(newer, usize::from(is_made), "{step}: {left:?}");

        succeed(&machine, &["backup"]);
        assert_no_leftovers(&machine.database());
        let kept = machine.stored();
        assert_eq!(kept, backups(&machine), "{step}: a file was left in the store");
        assert_eq!(kept.len(), KEEP, "{step}: {kept:?}");
        assert!(stored_contents(&machine, &kept[KEEP - 1]) == now, "{step}");
        machine.lose_database();
        succeed(&machine, &["run", "--simple-backup", "--", "true"]);
        assert!(contents(&machine.database()) == now, "{step}: restored something else");
    }
}

#[test]
fn i6_i8_a_restore_killed_at_any_step_leaves_all_of_the_database_or_nothing() {
    let machine = machine_with_backup();
    let stored = contents(&machine.database());
    let start = ["run", "--simple-backup", "--", "touch", "started"];
    for step in steps("restore") {
        machine.lose_database();
        let log = sidecar(&machine.database(), "-wal");
        fs::write(&log, "of a former database").expect("written");

        die_at(step, &machine, &start);

        assert!(!machine.path("started").exists(), "{step}: the app was started");
        if machine.database().exists() {
            assert!(!log.exists(), "{step}: the database would replay a log that is not its own");
            assert!(contents(&machine.database()) == stored, "{step}: not what was stored");
        }

        succeed(&machine, &start);
        assert!(machine.path("started").exists(), "{step}");
        assert!(contents(&machine.database()) == stored, "{step}: restored something else");
        assert_no_leftovers(&machine.database());
        let aside = files_starting_with(&machine, "app.db-wal.stale-");
        assert_eq!(aside.len(), 1, "{step}: {aside:?}");
        assert_eq!(fs::read(&aside[0]).expect("read"), b"of a former database", "{step}");
        fs::remove_file(&aside[0]).expect("removed");
        fs::remove_file(machine.path("started")).expect("removed");
    }
}

#[test]
fn i3_a_restore_by_hand_killed_at_any_step_loses_no_row_of_the_former_database() {
    let machine = machine_with_backup();
    let stored = contents(&machine.database());
    // The command lists the store itself.
    for step in steps("restore").filter(|step| *step != "restore.listed") {
        // Its last row lies in its log alone.
        let connection = db::open(&machine.database());
        connection.execute("INSERT INTO marks VALUES (99)", []).expect("inserted");
        let former = contents(&machine.database());
        let copies = ["", "-wal"].map(|suffix| {
            let path = sidecar(&machine.database(), suffix);
            (fs::read(&path).expect("read"), path)
        });
        drop(connection);
        for (bytes, path) in &copies {
            fs::write(path, bytes).expect("written");
        }

        die_at(step, &machine, &["restore", "--force"]);

        let replaced = files_starting_with(&machine, "app.db.replaced-");
        let replaced = replaced.iter().find(|path| !path.to_string_lossy().ends_with("-wal"));
        match (replaced, machine.database().exists()) {
            (None, _) => assert!(contents(&machine.database()) == former, "{step}: changed"),
            (Some(_), true) => assert!(contents(&machine.database()) == stored, "{step}"),
            (Some(_), false) => {}
        }
        if let Some(replaced) = replaced {
            // Killed between the two, the log is still where it was.
            let log = sidecar(&machine.database(), "-wal");
            if log.exists() {
                fs::rename(log, sidecar(replaced, "-wal")).expect("put together by hand");
            }
            assert!(contents(replaced) == former, "{step}: rows are lost");
        }

        succeed(&machine, &["run", "--simple-backup", "--", "true"]);
        let expected = if replaced.is_some() { &stored } else { &former };
        assert!(contents(&machine.database()) == *expected, "{step}: something else");
        assert_no_leftovers(&machine.database());
        for path in files_starting_with(&machine, "app.db.replaced-") {
            fs::remove_file(path).expect("removed");
        }
        machine.lose_database();
        keep_backup_of(&machine, &stored);
    }
}

/// Brings back the state before: the one backup that holds `wanted`, restored.
fn keep_backup_of(machine: &Machine, wanted: &Contents) {
    for name in machine.stored() {
        if stored_contents(machine, &name) != *wanted {
            fs::remove_file(machine.path("app.db.backups").join(name)).expect("removed");
        }
    }
    succeed(machine, &["restore"]);
}

fn files_starting_with(machine: &Machine, start: &str) -> Vec<PathBuf> {
    let names = files_in(&machine.path("")).into_iter().filter(|name| name.starts_with(start));
    names.map(|name| machine.path(&name)).collect()
}

#[test]
fn i4_a_stop_killed_at_any_step_takes_the_app_along_and_frees_the_locks() {
    let script = "trap 'exit 0' TERM; echo app $$; while :; do sleep 0.05; done";
    for step in steps("stop") {
        let machine = Machine::new();
        machine.create_database(10);
        let now = db::dump(&machine.database());
        let mut process = machine.serve_script_with(script, |command| {
            command.env("FAIL_POINT", step);
        });
        let app = process.wait_for_pid("app ");
        process.signal(rustix::process::Signal::TERM);
        process.wait_for_kill();

        eventually("the app is gone", || !is_alive(app));
        let is_backed_up = step == "stop.final_backup_made";
        assert_eq!(machine.stored().len(), usize::from(is_backed_up), "{step}");
        if is_backed_up {
            machine.lose_database();
        }

        let mut process = machine.serve_script(script);
        process.wait_for_line("app ");
        assert!(db::dump(&machine.database()) == now, "{step}");
        let (code, lines) = process.stop();
        assert_eq!(code, 0, "{step}\n{}", lines.join("\n"));
        assert_eq!(machine.stored().len(), 1 + usize::from(is_backed_up), "{step}");
        assert_no_leftovers(&machine.database());
    }
}

#[test]
fn every_step_is_taken_by_one_of_the_tests() {
    let taken: Vec<_> =
        ["backup", "restore", "upload", "stop"].into_iter().flat_map(steps).collect();
    assert_eq!(taken, fail_point::ALL);
}
