//! Hooks: what they are told, what their failure means, and that they end.

use std::fs::{self, File};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::support::process::{
    Machine, PATIENCE, POLITE, Process, TOKEN, ask, assert_in_order, eventually, get, is_alive, run,
};

/// A hook that notes down what it was told.
const NOTING: &str = "env | grep ^HOOK_ | sort > $HOOK_NAME; pwd >> $HOOK_NAME";

fn hook(command: &mut Command, name: &str, script: &str) {
    let words = serde_json::to_string(&["/bin/sh", "-c", script]).expect("JSON");
    command.env(format!("SIMPLE_BACKUP_HOOKS_{name}"), words);
}

/// Runs one backup by hand, between these hooks.
fn back_up_between(machine: &Machine, before: &str, after: &str) -> Output {
    let mut command = machine.simplebackup();
    hook(&mut command, "BEFORE_BACKUP", before);
    hook(&mut command, "AFTER_BACKUP", after);
    run(command.arg("backup"))
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns what a noting hook was told.
#[track_caller]
fn told(machine: &Machine, name: &str) -> Vec<String> {
    let text =
        fs::read_to_string(machine.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    text.lines().map(str::to_owned).collect()
}

fn with_database() -> Machine {
    let machine = Machine::new();
    machine.create_database(10);
    machine
}

#[test]
fn hooks_run_around_a_backup_and_know_of_it() {
    let machine = with_database();
    let before = format!("{NOTING}; ls app.db.backups; echo and to stderr >&2");
    let output = back_up_between(&machine, &before, NOTING);
    assert!(output.status.success(), "{}", errors(&output));
    let database = format!("HOOK_DATABASE={}", machine.database().display());
    let folder = fs::canonicalize(machine.path("")).expect("there").display().to_string();
    assert_eq!(
        told(&machine, "before_backup"),
        [
            database.as_str(),
            "HOOK_DURATION_SECONDS=",
            "HOOK_ERROR=",
            "HOOK_KEY=",
            "HOOK_NAME=before_backup",
            "HOOK_RESULT=",
            "HOOK_SIZE_BYTES=",
            "HOOK_TRIGGER=manual",
            &folder,
        ]
    );
    let stored = machine.stored();
    let size = fs::metadata(machine.path("app.db.backups").join(&stored[0])).expect("there").len();
    let after = told(&machine, "after_backup");
    assert!(after[1].starts_with("HOOK_DURATION_SECONDS=0."), "{after:?}");
    let (key, size) = (format!("HOOK_KEY={}", stored[0]), format!("HOOK_SIZE_BYTES={size}"));
    let rest = ["HOOK_ERROR=", &key, "HOOK_NAME=after_backup", "HOOK_RESULT=success", &size];
    assert_eq!(after[2..7], rest);
    assert!(errors(&output).contains("[SIMPLE-BACKUP] hooks.before_backup: and to stderr"));
}

/// A broken pause would go unnoticed otherwise; and what it has paused goes on.
#[test]
fn without_its_hook_no_backup_is_made_and_the_other_hook_hears_of_it() {
    let machine = with_database();
    let output = back_up_between(&machine, "echo cannot pause; exit 3", NOTING);
    assert_eq!(output.status.code(), Some(1));
    let text = errors(&output);
    assert!(
        text.contains(
            "error: no backup without its hook: hooks.before_backup failed with exit \
        status 3"
        ),
        "{text}"
    );
    assert!(text.contains("hooks.before_backup: cannot pause"), "{text}");
    assert_eq!(machine.stored(), [""; 0]);
    let after = told(&machine, "after_backup");
    assert!(after.contains(&"HOOK_RESULT=failure".to_owned()), "{after:?}");
    assert!(after.iter().any(|line| line.starts_with("HOOK_ERROR=no backup without")), "{after:?}");
}

#[test]
fn a_hook_after_a_backup_that_fails_is_a_warning() {
    let machine = with_database();
    let output = back_up_between(&machine, "true", "kill -9 $$");
    assert!(output.status.success(), "{}", errors(&output));
    let warning = "WARNING: hooks.after_backup failed with signal 9";
    assert!(errors(&output).contains(warning), "{}", errors(&output));
    assert_eq!(machine.stored().len(), 1);
}

#[test]
fn a_hook_that_is_no_program_is_named() {
    let machine = with_database();
    let mut command = machine.simplebackup();
    command.env("SIMPLE_BACKUP_HOOKS_BEFORE_BACKUP", "./no-such-hook --flag");
    let output = run(command.arg("backup"));
    assert_eq!(output.status.code(), Some(1));
    let text = errors(&output);
    assert!(text.contains("could not be started: \"./no-such-hook\"; check"), "{text}");
}

/// In a service: an error over HTTP, a failure that is counted; but the final backup is made.
#[test]
fn the_final_backup_is_made_without_its_hook() {
    let machine = with_database();
    let mut process = machine.serve_script_with(POLITE, |command| {
        hook(command, "BEFORE_BACKUP", "exit 3");
        hook(command, "AFTER_BACKUP", &format!("{NOTING}; cp $HOOK_NAME $HOOK_TRIGGER"));
    });
    let address = process.http_address();
    eventually("the app runs", || get(&address, "/health/ready").status == 200);
    let token = format!("Authorization: Bearer {TOKEN}");
    let refused = ask(&address, "POST /backup", &[&token], "");
    assert_eq!(refused.status, 500, "{}", refused.body);
    assert!(refused.body.contains("hooks.before_backup failed with exit status 3"));
    assert!(get(&address, "/metrics").body.contains("\nsimple_backup_failure_total 1\n"));
    assert_eq!(machine.stored(), [""; 0]);

    let (code, lines) = process.stop();
    assert_eq!(code, 0);
    let warning = "WARNING: hooks.before_backup failed with exit status 3";
    let all_the_same = "the final backup is made all the same";
    assert!(lines.iter().any(|line| line.contains(warning) && line.contains(all_the_same)));
    assert_eq!(machine.stored().len(), 1);
    assert!(told(&machine, "manual").contains(&"HOOK_RESULT=failure".to_owned()));
    assert!(told(&machine, "shutdown").contains(&"HOOK_RESULT=success".to_owned()));
}

/// One that leaves when it is told to, and one that does not, with a child that does not either.
#[test]
fn a_hook_that_hangs_is_ended_with_all_that_it_started() {
    let deaf = "trap '' TERM; (trap '' TERM; exec sleep 1000) & echo grandchild $!; wait; wait";
    for script in ["sleep 1000 & echo grandchild $!; wait", deaf] {
        let machine = with_database();
        let mut command = machine.simplebackup();
        hook(&mut command, "BEFORE_BACKUP", script);
        command.env("SIMPLE_BACKUP_HOOKS_TIMEOUT", "300ms").arg("backup");
        let mut process = Process::start(&mut command);
        let grandchild = process.wait_for_pid("grandchild ");
        let (code, lines) = process.wait();
        assert_eq!(code, 1, "{lines:?}");
        let text = lines.join("\n");
        assert!(text.contains("did not end within 0.3s and was ended by force"), "{text}");
        eventually("the grandchild is gone", || !is_alive(grandchild));
    }
}

/// Neither one in its group, which goes with it, nor one that has left it and holds its streams.
#[test]
fn what_a_hook_leaves_behind_holds_nothing_up() {
    let machine = with_database();
    let mut command = machine.simplebackup();
    let script = "sleep 1000 & echo grandchild $!; \
        setsid /bin/sh -c 'echo runaway $$; touch left; exec sleep 1000' & \
        until [ -e left ]; do sleep 0.05; done; exit 0";
    hook(&mut command, "BEFORE_BACKUP", script);
    let mut process = Process::start(command.arg("backup"));
    let grandchild = process.wait_for_pid("grandchild ");
    let runaway = process.wait_for_pid("runaway ");
    process.wait_for_line("/db-backup-");
    eventually("the grandchild is gone", || !is_alive(grandchild));
    assert!(is_alive(runaway), "it has left the group, and is none of ours");
    let runaway = Pid::from_raw(runaway.cast_signed()).expect("not zero");
    rustix::process::kill_process(runaway, Signal::KILL).expect("it runs");
    assert_eq!(machine.stored().len(), 1);
}

#[test]
fn a_hook_that_floods_its_output_is_read_and_cut() {
    let machine = with_database();
    let script = "yes a line of the flood | head -n 100000; head -c 100000 /dev/zero | tr '\\0' x";
    let output = back_up_between(&machine, script, "true");
    assert!(output.status.success(), "{}", errors(&output));
    let text = errors(&output);
    assert_eq!(text.matches("a line of the flood").count(), 100);
    assert!(text.contains("hooks.before_backup: 99901 more lines are not shown"), "{text}");
    assert!(text.len() < 20_000, "{}", text.len());
}

#[test]
fn hooks_inherit_the_environment_without_its_secrets() {
    let machine = with_database();
    fs::write(machine.path("token"), "FILEhush").expect("written");
    let script = format!("env > inherited; {} list > listed", env!("CARGO_BIN_EXE_simplebackup"));
    let mut command = machine.simplebackup();
    hook(&mut command, "AFTER_BACKUP", &script);
    command
        .env("SIMPLE_BACKUP_STORE_SECRET_KEY", "KEYhush")
        .env("SIMPLE_BACKUP_STORE_ACCESS_KEY", "KEYhush")
        .env("AWS_SESSION_TOKEN", "SESSIONhush")
        .env("SIMPLE_BACKUP_STORE_URL", format!("file://{}", machine.path("").display()))
        .env("SIMPLE_BACKUP_WEBHOOK_HEADER", "X: HEADERhush")
        .env("SIMPLE_BACKUP_SNITCH_URL", "http://127.0.0.1:9/SNITCHhush")
        .env_remove("SIMPLE_BACKUP_HTTP_TOKEN")
        .env("SIMPLE_BACKUP_HTTP_TOKEN_FILE", machine.path("token"))
        .env("EDITOR", "ed");
    let output = run(command.arg("backup"));
    assert!(output.status.success(), "{}", errors(&output));
    let inherited = fs::read_to_string(machine.path("inherited")).expect("written");
    assert!(!inherited.contains("hush"), "{inherited}");
    for kept in ["EDITOR=ed", "SIMPLE_BACKUP_DATABASE_PATH=", "SIMPLE_BACKUP_HTTP_TOKEN_FILE="] {
        assert!(inherited.contains(kept), "{kept} in {inherited}");
    }
    let listed = fs::read_to_string(machine.path("listed")).expect("written");
    assert!(listed.starts_with("1 in "), "a simplebackup inside a hook: {listed}");
}

/// A hook of the final backup that hangs takes half of its time, and no more.
#[test]
fn hooks_live_within_the_deadline_of_the_stop() {
    let machine = with_database();
    let mut process = machine.serve_script_with(POLITE, |command| {
        hook(command, "BEFORE_BACKUP", "sleep 1000");
        hook(command, "AFTER_BACKUP", "sleep 1000");
        command
            .env("SIMPLE_BACKUP_HOOKS_TIMEOUT", "1h")
            .env("SIMPLE_BACKUP_SHUTDOWN_BACKUP_TIMEOUT", "10s");
    });
    process.wait_for_line("app is up");
    let stopped = Instant::now();
    process.signal(Signal::TERM);
    let (code, lines) = process.wait();
    assert_eq!(code, 0, "{lines:?}");
    assert!(stopped.elapsed() < PATIENCE, "{:?}", stopped.elapsed());
    assert_in_order(
        &lines,
        &[
            "WARNING: hooks.before_backup did not end within ",
            "Uploaded to ",
            "WARNING: hooks.after_backup did not end within ",
            "Shutdown complete",
        ],
    );
    assert_eq!(machine.stored().len(), 1);
}

/// Whatever the hooks of a backup beside the app do, the final one has all of its time.
#[test]
fn a_hook_of_another_backup_does_not_cost_the_final_one() {
    let machine = with_database();
    let mut process = machine.serve_script_with(POLITE, |command| {
        let only_the_first = "echo $$ > hanging; [ $HOOK_TRIGGER = shutdown ] || exec sleep 1000";
        hook(command, "AFTER_BACKUP", only_the_first);
        command
            .env("SIMPLE_BACKUP_HOOKS_TIMEOUT", "1h")
            .env("SIMPLE_BACKUP_SHUTDOWN_BACKUP_TIMEOUT", "40s");
    });
    let address = process.http_address();
    eventually("the app runs", || get(&address, "/health/ready").status == 200);
    let asked = std::thread::spawn(move || {
        ask(&address, "POST /backup", &[&format!("Authorization: Bearer {TOKEN}")], "").status
    });
    eventually("the hook hangs", || {
        fs::read_to_string(machine.path("hanging")).is_ok_and(|pid| pid.ends_with('\n'))
    });
    let hanging = fs::read_to_string(machine.path("hanging")).expect("told");
    let stopped = Instant::now();
    let (code, lines) = process.stop();
    assert_eq!(code, 0, "{lines:?}");
    assert!(stopped.elapsed() < Duration::from_secs(30), "{:?}", stopped.elapsed());
    assert_in_order(&lines, &["hooks.after_backup gave way to the final backup", "Uploaded to "]);
    assert_eq!(machine.stored().len(), 2);
    assert_eq!(asked.join().expect("no panic"), 200, "its backup was made");
    assert!(!is_alive(hanging.trim().parse().expect("a number")));
}

/// It would let go on what the other one's hook has paused.
#[test]
fn a_backup_that_is_refused_runs_no_hooks() {
    let machine = with_database();
    assert!(back_up_between(&machine, "true", "true").status.success());
    let lock = File::open(machine.path(".app.db.simplebackup/run.lock")).expect("there");
    lock.lock().expect("had");
    let output = back_up_between(&machine, NOTING, NOTING);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("already in progress"), "{}", errors(&output));
    assert!(!machine.path("before_backup").exists() && !machine.path("after_backup").exists());
}
