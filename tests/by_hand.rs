//! A restore by a person at a terminal, who chooses and confirms, and by a machine, which is never
//! asked; what it says of the database that is there; what a dry run says, and that it is one.

use std::fs;
use std::process::Output;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::process::{Machine, run};
use crate::support::terminal::{CTRL_C, CTRL_D, Terminal};
use crate::support::{db, files_in, gzip, name};

/// The question of the list, and that before a database is moved aside.
const WHICH: &str = "Which one? [Enter: 1, the newest; q: leave] ";
const REPLACE: &str = "Restore? [yes/no] ";

/// A database of 30 notes, and backups of 10, 20 and 30 notes, made a day, three hours and an hour ago.
fn machine() -> (Machine, [String; 3]) {
    let machine = Machine::new();
    machine.create_database(10);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let names = [90_000, 10_860, 3660].map(|ago| name((now - ago).cast_signed()));
    let store = machine.path("app.db.backups");
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            db::add_notes(&db::open(&machine.database()), 10);
        }
        let before = machine.stored();
        assert!(machine.run(&["backup", "--keep", "9"]).status.success());
        let made = machine.stored().into_iter().find(|made| !before.contains(made));
        fs::rename(store.join(made.expect("made")), store.join(name)).expect("renamed");
    }
    (machine, names)
}

fn notes(machine: &Machine, file: &str) -> i64 {
    let sql = "SELECT count(*) FROM notes";
    db::open(&machine.path(file)).query_row(sql, [], |row| row.get(0)).expect("counted")
}

/// Returns all that is in the folder and its work folder, with what each file holds.
fn everything(machine: &Machine) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for folder in ["", "app.db.backups", ".app.db.simplebackup"] {
        for file in files_in(&machine.path(folder)) {
            let path = machine.path(folder).join(&file);
            // The index of a log is memory that programs share.
            let is_read = path.is_file() && !file.ends_with("-shm");
            all.push((
                format!("{folder}/{file}"),
                if is_read { fs::read(path).expect("read") } else { Vec::new() },
            ));
        }
    }
    all
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn assert_says(said: &str, texts: &[&str]) {
    let mut rest = said;
    for text in texts {
        let Some(at) = rest.find(text) else {
            panic!("{text:?} is missing or out of order in:\n{said}")
        };
        rest = &rest[at + text.len()..];
    }
}

#[test]
fn a_person_chooses_from_a_list_with_the_newest_first() {
    let (machine, names) = machine();
    machine.lose_database();
    let mut terminal = Terminal::run(&machine, &["restore"]);
    terminal.answer(WHICH, "2\n");
    let (code, screen) = terminal.end();
    assert_eq!(code, 0, "{screen}");
    let list = [
        "newest first:\n",
        " 1 ",
        " 1h ago  ",
        " UTC  ",
        "KB  3 tables, 66 rows  newest\n",
        " 2 ",
        " 3h ago  ",
        " UTC  ",
        "KB  3 tables, 46 rows\n",
        " 3 ",
        " 1d ago  ",
        " UTC  ",
        "KB  3 tables, 26 rows\n",
        &format!("restored {} to ", names[1]),
        "there was nothing before\n",
        "3 tables, 46 rows, schema version ",
    ];
    assert_says(&screen, &list);
    assert!(!screen.contains(REPLACE), "nothing is there to be replaced: {screen}");
    assert_eq!(notes(&machine, "app.db"), 20);
}

#[test]
fn enter_takes_the_newest() {
    let (machine, names) = machine();
    machine.lose_database();
    let mut terminal = Terminal::run(&machine, &["restore"]);
    terminal.answer(WHICH, "\n");
    let (code, screen) = terminal.end();
    assert!(code == 0 && screen.contains(&format!("restored {}", names[2])), "{screen}");
    assert_eq!(notes(&machine, "app.db"), 30);
}

/// Which keys, and how often the question is put.
#[test]
fn whoever_leaves_the_list_or_cannot_be_understood_changes_nothing() {
    let (machine, _names) = machine();
    let before = everything(&machine);
    for (keys, code, asked) in [
        (&["q\n"][..], 1, 1),
        (&[CTRL_D], 1, 1),
        (&["half a line", CTRL_D, CTRL_D], 1, 1),
        (&[CTRL_C], 130, 1),
        (&["0\n", "4\n", "the second\n"], 1, 3),
        (&["4\n", "q\n"], 1, 2),
    ] {
        let mut terminal = Terminal::run(&machine, &["restore", "--force"]);
        terminal.wait_for("[Enter: 1");
        for (index, keys) in keys.iter().enumerate() {
            if index > 0 && index < asked {
                terminal.wait_for("Give a number from 1 to 3, or q.");
            }
            terminal.enter(keys);
        }
        let (ended, screen) = terminal.end();
        assert_eq!(ended, code, "{keys:?}: {screen}");
        assert_eq!(screen.matches(WHICH).count(), asked, "{keys:?}: {screen}");
        assert_eq!(screen.contains("nothing was restored"), code == 1, "{keys:?}: {screen}");
        assert_eq!(everything(&machine), before, "{keys:?}: {screen}");
    }
}

#[test]
fn a_database_is_replaced_only_after_a_yes_in_full() {
    let (machine, _names) = machine();
    db::add_notes(&db::open(&machine.database()), 5);
    let before = everything(&machine);
    for (keys, code) in [("no\n", 1), ("\n", 1), (CTRL_D, 1), (CTRL_C, 130), ("y\nyeah\nja\n", 1)] {
        let mut terminal = Terminal::run(&machine, &["restore"]);
        terminal.answer(WHICH, "3\n");
        terminal.wait_for("app.db now: ");
        terminal.wait_for("KB, 3 tables, 76 rows.\nCompared with db-backup-");
        terminal.wait_for("  rows: 76 -> 26\nWhat is there is moved aside, not deleted.\n");
        terminal.answer(REPLACE, keys);
        let (ended, screen) = terminal.end();
        assert_eq!(ended, code, "{keys:?}: {screen}");
        assert_eq!(everything(&machine), before, "{keys:?}: {screen}");
    }
    let mut terminal = Terminal::run(&machine, &["restore"]);
    terminal.answer(WHICH, "3\n");
    terminal.answer(REPLACE, "y\n");
    terminal.answer("Type the three letters of yes, or no.", "yes\n");
    let (code, screen) = terminal.end();
    assert_eq!(code, 0, "{screen}");
    assert_says(&screen, &["the former database is at ", "  notes: 35 -> 10 rows (-25)\n"]);
    let aside = files_in(&machine.path("")).into_iter().find(|file| file.contains(".replaced-"));
    assert_eq!(notes(&machine, &aside.expect("moved aside")), 35);
    assert_eq!(notes(&machine, "app.db"), 10);
}

#[test]
fn a_database_in_use_is_told_before_a_person_confirms() {
    let (machine, _names) = machine();
    let app = db::open(&machine.database());
    app.query_row("SELECT count(*) FROM notes", [], |_row| Ok(())).expect("read");
    let mut terminal = Terminal::run(&machine, &["restore"]);
    terminal.answer(WHICH, "\n");
    let (code, screen) = terminal.end();
    let holder = format!("is in use by process {}; stop it first", std::process::id());
    assert!(code == 1 && screen.contains(&holder), "{screen}");
    assert!(!screen.contains(REPLACE), "{screen}");
}

/// One that names a backup has chosen; one whose input is no terminal cannot.
#[test]
fn nobody_is_asked_who_named_a_backup_or_has_no_terminal() {
    let (machine, names) = machine();
    let (code, screen) = Terminal::run(&machine, &["restore", "--from", &names[0]]).end();
    assert!(code == 1 && screen.contains("is not overwritten; use --force"), "{screen}");
    for words in [&["--from", &names[1]][..], &["--at", "2h ago"]] {
        let words = [&["restore", "--force"], words].concat();
        let (code, screen) = Terminal::run(&machine, &words).end();
        assert!(code == 0 && !screen.contains("Which one?"), "{screen}");
        assert_eq!(notes(&machine, "app.db"), 20, "{words:?}");
    }
    let (code, said, complaint) = said(&machine.run(&["restore", "--force"]));
    assert!(code == Some(0) && said.contains(&names[2]), "{said}{complaint}");
    assert!(!complaint.contains("Which one?") && !complaint.contains("Restore?"), "{complaint}");
}

#[test]
fn a_time_may_be_how_long_ago_and_the_choice_is_told() {
    let (machine, names) = machine();
    for (at, index, distance) in [("2h ago", 1, "1h0"), ("3d ago", 9, ""), (" 90m  ago", 1, "1h3")]
    {
        let output = machine.run(&["restore", "--to", "copy.db", "--at", at]);
        let (code, said, complaint) = said(&output);
        let Some(name) = names.get(index) else {
            assert_eq!(code, Some(1), "{said}");
            let oldest = format!("restore it with \"--from {}\", or give a later time", names[0]);
            assert_says(&complaint, &["no backup is as old as 20", "the oldest is of 20", &oldest]);
            continue;
        };
        assert_eq!(code, Some(0), "{complaint}");
        let start = format!("chose {name} of 20");
        assert!(said.starts_with(&start), "{said}");
        assert_says(&said, &["Z, ", distance, "s before 20", "\nrestored "]);
        fs::remove_file(machine.path("copy.db")).expect("removed");
    }
    for at in ["-2h ago", "2 hours ago", "99999999999999999999d ago"] {
        let (code, _said, complaint) = said(&machine.run(&["restore", "--at", at]));
        assert!(code == Some(2) && complaint.contains("such as \"2h ago\""), "{at}: {complaint}");
    }
}

#[test]
fn a_restore_says_what_changed_table_by_table() {
    let (machine, names) = machine();
    let sql = "DROP TRIGGER untag; DROP TABLE tags; CREATE TABLE later (x); DELETE FROM notes WHERE id > 3";
    db::open(&machine.database()).execute_batch(sql).expect("changed");
    let output = machine.run(&["restore", "--force", "--from", &names[2]]);
    let (code, said, complaint) = said(&output);
    assert_eq!(code, Some(0), "{complaint}");
    let lines = [
        "compared with what was there:\n  size: ",
        "\n  tables: 3 -> 3\n  rows: 9 -> 66\n  schema version: ",
        ", user_version: 0 -> 0\n",
        "  later: 0 rows -> gone\n  tags: new -> 30 rows\n  notes: 3 -> 30 rows (+27)\n",
        "  1 table has as many rows as before\n",
    ];
    assert_says(&said, &lines);
}

/// What is there may be anything: a restore by force is the way out.
#[test]
fn what_cannot_be_read_hinders_no_restore() {
    let (machine, _names) = machine();
    let garbage = db::noise(7, 20_000);
    for (bytes, reason) in
        [(&garbage[..], "file is not a SQLite database"), (&[], "it is an empty file")]
    {
        machine.lose_database();
        fs::write(machine.database(), bytes).expect("written");
        let (code, said, complaint) = said(&machine.run(&["restore", "--force"]));
        assert_eq!(code, Some(0), "{complaint}");
        assert_says(&said, &["  before: ", "which cannot be read: ", reason, "  restored: "]);
        assert_eq!(notes(&machine, "app.db"), 30);
    }
    machine.lose_database();
    fs::copy(machine.path("app.db.backups").join(&machine.stored()[0]), machine.database())
        .expect("copied");
    let (code, _said, complaint) = said(&machine.run(&["restore", "--force"]));
    assert_eq!(code, Some(0), "{complaint}");
}

#[test]
fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let (machine, names) = machine();
    db::add_notes(&db::open(&machine.database()), 5);
    let before = everything(&machine);
    let words = ["restore", "--force", "--dry-run", "--from", &names[1]];
    let (code, said_of_header, complaint) = said(&machine.run(&words));
    assert_eq!(code, Some(0), "{complaint}");
    let address = format!("app.db.backups/{} (", names[1]);
    let aside = format!("moved aside, not deleted: {}", machine.database().display());
    let lines = [
        &format!("would restore {} of 20", names[1]),
        "Z, 3h ago; nothing is changed now\n  from: file://",
        &address,
        "\n  to: ",
        "app.db\n  room: needs ",
        " free\n  ",
        &aside,
        "compared with the database there now, by the backup's header (--full gives",
        "  tables: 3 -> 3\n  rows: 76 -> 46\n",
    ];
    assert_says(&said_of_header, &lines);
    assert!(!complaint.contains("Downloading"), "{complaint}");
    assert_eq!(everything(&machine), before);

    let (code, full, complaint) = said(&machine.run(&[&words[..], &["--full"]].concat()));
    assert_eq!(code, Some(0), "{complaint}");
    assert_says(
        &full,
        &[
            "there now; the backup was downloaded and checked:\n  size: ",
            "  notes: 35 -> 20 rows (-15)\n",
        ],
    );
    assert_eq!(everything(&machine), before);
}

#[test]
fn a_dry_run_says_what_would_be_refused() {
    let (machine, names) = machine();
    let dry_run = |words: &[&str]| said(&machine.run(&[&["restore", "--dry-run"], words].concat()));
    let (code, said_first, complaint) = dry_run(&[]);
    assert_eq!(code, Some(1), "{said_first}");
    assert_says(&said_first, &[&format!("would restore {}", names[2]), "rows: 66 -> 66"]);
    assert_says(&complaint, &["would be refused: ", "exists and is not overwritten; use --force"]);

    let mut service = machine.serve_script("echo app is up; exec sleep 1000");
    service.wait_for_line("app is up");
    let (code, _said, complaint) = dry_run(&["--force"]);
    assert_says(&complaint, &["would be refused: ", " is in use by simplebackup, process "]);
    assert_eq!(code, Some(1));
    let (code, said_beside, complaint) = dry_run(&["--to", "new/folder/copy.db"]);
    assert_eq!(code, Some(0), "{complaint}");
    assert_says(
        &said_beside,
        &["room: needs ", "not deleted: nothing", "there was nothing before"],
    );
    assert!(!machine.path("new").exists(), "not even the folder is made");
    service.stop();

    let (code, _said, complaint) = dry_run(&["--force", "--to", "app.db.backups"]);
    assert!(code == Some(1) && complaint.contains("is a folder, not a database"), "{complaint}");
}

#[test]
fn a_dry_run_in_full_finds_damage_and_one_of_the_header_says_what_it_does_not_know() {
    let (machine, names) = machine();
    let newest = machine.path("app.db.backups").join(&names[2]);
    fs::write(&newest, gzip(&db::noise(3, 5000))).expect("written");
    let words = ["restore", "--force", "--dry-run"];
    let (code, said_of_header, complaint) = said(&machine.run(&words));
    assert_eq!(code, Some(0), "{complaint}");
    let unknown =
        ["room: not known: the backup does not say its size", "says nothing about itself"];
    assert_says(&said_of_header, &unknown);
    let (code, _said, complaint) = said(&machine.run(&[&words[..], &["--full"]].concat()));
    assert!(code == Some(1) && complaint.contains("is damaged; restore an older"), "{complaint}");
}

/// The choice too, at a terminal; the confirmation not: nothing is done.
#[test]
fn a_dry_run_at_a_terminal_asks_which_and_no_more() {
    let (machine, names) = machine();
    let before = everything(&machine);
    let mut terminal = Terminal::run(&machine, &["restore", "--dry-run"]);
    terminal.answer(WHICH, "2\n");
    let (code, screen) = terminal.end();
    assert!(code == 0 && screen.contains(&format!("would restore {}", names[1])), "{screen}");
    assert!(!screen.contains(REPLACE), "{screen}");
    assert_eq!(everything(&machine), before);
}

#[test]
fn full_wants_a_dry_run() {
    let machine = Machine::new();
    let output = run(machine.simplebackup().args(["restore", "--full"]));
    assert_eq!(output.status.code(), Some(2));
}
