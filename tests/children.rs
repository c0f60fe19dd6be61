//! Apps that end in every way that a program can end: what the service says of it, the code with
//! which it ends itself, and that the final backup holds the last row that the app wrote. Once as
//! an ordinary process, once as PID 1 of a namespace of its own, as in a container.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::process::{Machine, Process, assert_in_order, is_alive};
use crate::support::{assert_no_leftovers, db, gunzip};

/// Lines that a flood has.
const FLOOD: usize = 100_000;

/// An app and what is to come of it.
struct Case {
    what: &'static str,
    /// A shell script: `write` puts the last row into the database, `$PPID` is the service.
    script: &'static str,
    code: i32,
    says: &'static str,
}

const CASES: [Case; 10] = [
    Case {
        what: "exits with 0",
        script: "write; exit 0",
        code: 0,
        says: "Application ended: exit status 0",
    },
    Case {
        what: "exits with 1, at once",
        script: "write; exit 1",
        code: 1,
        says: "Application ended: exit status 1",
    },
    Case {
        what: "exits with 143",
        script: "write; exit 143",
        code: 143,
        says: "Application ended: exit status 143",
    },
    Case {
        what: "is killed",
        script: "write; kill -9 $$",
        code: 137,
        says: "Application ended: signal 9",
    },
    Case {
        what: "leaves when it is asked, and writes until then",
        script: "trap 'write; exit 0' TERM; kill -TERM $PPID; while :; do sleep 0.05; done",
        code: 0,
        says: "Received shutdown signal",
    },
    Case {
        what: "has no handler for SIGTERM",
        script: "write; kill -TERM $PPID; exec sleep 1000",
        code: 143,
        says: "Received shutdown signal",
    },
    Case {
        what: "ignores SIGTERM",
        script: "trap '' TERM; write; kill -TERM $PPID; while :; do sleep 0.05; done",
        code: 137,
        says: DEAF,
    },
    Case {
        what: "ignores SIGTERM, and so does its child",
        script: "trap '' TERM; sleep 1000 & echo grandchild $!; write; kill -TERM $PPID; wait; \
            while :; do sleep 0.05; done",
        code: 137,
        says: DEAF,
    },
    Case {
        what: "leaves a child behind",
        script: "sleep 1000 & echo grandchild $!; write; exit 3",
        code: 3,
        says: "Application ended: exit status 3",
    },
    Case {
        what: "floods its output",
        script: "write; yes a line of the flood | head -n 100000; exit 5",
        code: 5,
        says: "Application ended: exit status 5",
    },
];

const DEAF: &str = "did not leave within shutdown.app_timeout, killing it";

/// How the service is started.
#[derive(Debug, Clone, Copy, PartialEq)]
enum As {
    Ordinary,
    Pid1(&'static [&'static str]),
}

/// What makes PID 1 of a process: as root, and as anybody.
const NAMESPACES: [&[&str]; 2] = [
    &["--pid", "--fork", "--kill-child", "--mount-proc"],
    &["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"],
];

impl As {
    /// Returns how to be PID 1 here, or says aloud that it is impossible.
    fn pid_1() -> Option<Self> {
        let is_permitted = |flags: &&&[&str]| {
            let tried = Command::new("unshare").args(**flags).arg("true").output();
            tried.is_ok_and(|output| output.status.success())
        };
        let found = NAMESPACES.iter().find(is_permitted).map(|flags| Self::Pid1(flags));
        if found.is_none() {
            // Not with a macro: the output of tests that pass is not shown.
            let text =
                "SKIPPED: PID 1 without a container; \"unshare --pid\" is not permitted here\n";
            std::io::stderr().write_all(text.as_bytes()).expect("written");
        }
        found
    }

    /// Starts the service in front of this app.
    fn serve(self, machine: &Machine, app: &[&str]) -> Process {
        let simplebackup = machine.simplebackup();
        let mut command = match self {
            Self::Ordinary => machine.simplebackup(),
            Self::Pid1(flags) => {
                let mut command = Command::new("unshare");
                command.args(flags).arg(simplebackup.get_program()).env_clear();
                command
                    .envs(simplebackup.get_envs().filter_map(|(name, value)| Some((name, value?))));
                command.current_dir(machine.path("")).stdin(std::process::Stdio::null());
                command
            }
        };
        if app.concat().contains("trap '' TERM") {
            command.env("SIMPLE_BACKUP_SHUTDOWN_APP_TIMEOUT", "500ms");
        }
        command.args(["run", "--simple-backup", "--"]).args(app);
        Process::start(&mut command)
    }

    fn serve_script(self, machine: &Machine, script: &str) -> Process {
        let script = format!("write() {{ mv last.db app.db; }}; echo parent $PPID; {script}");
        self.serve(machine, &["/bin/sh", "-c", &script])
    }
}

/// Makes a machine whose app finds its database with one row more in `last.db`, and what that
/// database holds: a shell can rename, and no clean checkout has SQLite's shell.
fn machine() -> (Machine, db::Dump) {
    let machine = Machine::new();
    machine.create_database(10);
    let last = machine.path("last.db");
    fs::copy(machine.database(), &last).expect("copied");
    db::add_notes(&db::open(&last), 1);
    let dump = db::dump(&last);
    (machine, dump)
}

/// Asserts that there is one backup, and that it holds this.
#[track_caller]
fn assert_backed_up(machine: &Machine, expected: &db::Dump) {
    let stored = machine.stored();
    assert_eq!(stored.len(), 1, "{stored:?}");
    let archive = fs::read(machine.path("app.db.backups").join(&stored[0])).expect("read");
    let unpacked = machine.path("unpacked.db");
    fs::write(&unpacked, gunzip(&archive)).expect("written");
    assert!(db::dump(&unpacked) == *expected, "the last row is missing");
    assert_no_leftovers(&machine.database());
}

fn check(case: &Case, mode: As) {
    println!("an app that {}, {mode:?}", case.what);
    let (machine, last) = machine();
    let started = Instant::now();
    let mut process = mode.serve_script(&machine, case.script);
    // In a namespace, its number means another process.
    if case.script.contains("grandchild") && mode == As::Ordinary {
        let grandchild = process.wait_for_pid("grandchild ");
        process.wait_for_line("Backup completed in");
        assert!(!is_alive(grandchild), "it could still write");
    }
    let (code, lines) = process.wait();
    let last_lines = lines.iter().rev().take(30).rev().cloned().collect::<Vec<_>>().join("\n");
    assert_eq!(code, case.code, "{last_lines}");
    let expected = ["Starting shutdown backup...", "Backup completed in", "Shutdown complete"];
    assert_in_order(&lines, &[&[case.says], &expected[..]].concat());
    assert_eq!(lines.iter().any(|line| line == "parent 1"), mode != As::Ordinary, "{last_lines}");
    let flood = lines.iter().filter(|line| line.contains("a line of the flood")).count();
    assert_eq!(flood, if case.script.contains("flood") { FLOOD } else { 0 });
    if case.says == DEAF {
        // The default of shutdown.app_timeout would show itself.
        assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    }
    assert_backed_up(&machine, &last);
}

/// A command that can't be run is named, with the codes of a shell, and nothing is backed up.
fn check_unusable(mode: As) {
    for (name, code, says) in [
        ("./no-such-server", 127, "FATAL: command \"./no-such-server\" not found"),
        ("./server", 126, "FATAL: command \"./server\" cannot be executed"),
    ] {
        let (machine, _last) = machine();
        let server = machine.path("server");
        fs::write(&server, "#!/bin/sh\n").expect("written");
        fs::set_permissions(&server, fs::Permissions::from_mode(0o644)).expect("set");
        let (ended, lines) = mode.serve(&machine, &[name]).wait();
        assert_eq!(ended, code, "{mode:?}\n{}", lines.join("\n"));
        assert_in_order(&lines, &[says]);
        assert_eq!(machine.stored(), [""; 0]);
    }
}

#[test]
fn whatever_the_app_does_its_code_is_ours_and_its_last_row_is_backed_up() {
    for case in &CASES {
        check(case, As::Ordinary);
    }
}

#[test]
fn as_pid_1_too_its_code_is_ours_and_its_last_row_is_backed_up() {
    let Some(pid_1) = As::pid_1() else { return };
    for case in &CASES {
        check(case, pid_1);
    }
}

#[test]
fn a_missing_or_unusable_command_is_named() {
    check_unusable(As::Ordinary);
    if let Some(pid_1) = As::pid_1() {
        check_unusable(pid_1);
    }
}

#[test]
fn as_pid_1_every_orphan_is_buried() {
    let Some(pid_1) = As::pid_1() else { return };
    let (machine, last) = machine();
    // A zombie keeps its folder in /proc until its parent, by now PID 1, has waited for it.
    let script = "for n in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.1 & echo $! >>orphans); done; \
        (setsid sleep 0.1 & echo $! >>orphans); \
        for pid in $(cat orphans); do while [ -e /proc/$pid ]; do sleep 0.05; done; done; \
        grep -l '^State:.Z' /proc/[0-9]*/status; echo buried $(wc -l <orphans); \
        write; exit 7";
    let mut process = pid_1.serve_script(&machine, script);
    process.wait_for_line("buried 11");
    let (code, lines) = process.wait();
    assert_eq!(code, 7, "{}", lines.join("\n"));
    assert!(!lines.iter().any(|line| line.starts_with("/proc/")), "{}", lines.join("\n"));
    assert_backed_up(&machine, &last);
}

/// Its code would be lost, and a burial in full swing is when it is likely.
#[test]
fn as_pid_1_the_app_is_not_buried_as_an_orphan() {
    let Some(pid_1) = As::pid_1() else { return };
    for _ in 0..10 {
        let (machine, last) = machine();
        let script = "(while :; do (true &); done) & sleep 0.1; write; exit 7";
        let (code, lines) = pid_1.serve_script(&machine, script).wait();
        assert_eq!(code, 7, "{}", lines.join("\n"));
        assert_backed_up(&machine, &last);
    }
}

/// Its exit status would be lost, and a failed hook taken for a good one or the other way round.
#[test]
fn as_pid_1_a_hook_is_not_buried_as_an_orphan() {
    let Some(pid_1) = As::pid_1() else { return };
    for _ in 0..5 {
        let (machine, last) = machine();
        let hooks = "[hooks]\nbefore_backup = [\"/bin/sh\", \"-c\", \"exit 3\"]\n\
            after_backup = [\"/bin/sh\", \"-c\", \"sleep 0.05; exit 4\"]\n";
        fs::write(machine.path("config.toml"), hooks).expect("written");
        let script = "(while :; do (true &); done) & sleep 0.1; write; exit 7";
        let (code, lines) = pid_1.serve_script(&machine, script).wait();
        assert_eq!(code, 7, "{}", lines.join("\n"));
        let failed =
            ["before_backup failed with exit status 3", "after_backup failed with exit status 4"];
        assert_in_order(&lines, &failed);
        assert_backed_up(&machine, &last);
    }
}
