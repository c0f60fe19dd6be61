//! A small disk of a test's own: a tmpfs that only one shell script and its children see, so that
//! nothing of it stays, whatever happens.

use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;

use super::process::{Machine, run};

/// How to get a mount namespace: as root, else as root of a user namespace.
const WAYS: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];

/// Runs a script in the machine's folder with a tmpfs of this size (and further options) mounted at
/// `disk` and the binary as `$SB`, and returns all that is printed. The script ends at the first
/// command that fails unexpectedly; `fails` runs one that has to, `left` lists what is on the disk
/// but for locks, `remount` changes options.
///
/// `None` where this machine refuses to mount, which a line says.
#[track_caller]
pub(crate) fn on_small_disk(machine: &Machine, options: &str, script: &str) -> Option<String> {
    let Some(way) = way() else {
        // Past the harness, which keeps what a passing test prints to itself.
        let line = "SKIPPED: this machine lets nobody mount a tmpfs, so no disk can be filled";
        writeln!(std::io::stderr(), "{line}").expect("printed");
        return None;
    };
    std::fs::create_dir_all(machine.path("disk")).expect("made");
    let script = format!(
        "set -eu; exec 2>&1; mount -t tmpfs -o {options} none disk
        fails() {{ if \"$@\"; then echo \"succeeded: $*\"; exit 99; else echo \"exit code $?\"; fi; }}
        # With a source: else mount adds options of its own, which a user namespace refuses.
        remount() {{ mount -t tmpfs -o \"remount,$1\" none disk; }}
        left() {{ (cd disk; find . -mindepth 1 ! -name '.*.simplebackup' ! -name '*.lock' | sort); }}
        {script}
        echo THE END"
    );
    let simplebackup = machine.simplebackup();
    let mut command = Command::new("unshare");
    command.args(way).args(["--", "/bin/sh", "-c", &script]).env_clear();
    command.envs(simplebackup.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("SIMPLE_BACKUP_DATABASE_PATH", "disk/app.db");
    command.env("SB", env!("CARGO_BIN_EXE_simplebackup")).current_dir(machine.path(""));
    let output = run(&mut command);
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.ends_with("THE END\n"), "{said}");
    Some(said)
}

fn way() -> Option<&'static [&'static str]> {
    static WAY: OnceLock<Option<&[&str]>> = OnceLock::new();
    *WAY.get_or_init(|| {
        let works = |way: &&&[&str]| {
            let mut command = Command::new("unshare");
            // Any folder will do: what lies under the mount is hidden for a moment, from it alone.
            command.args(**way).args(["--", "mount", "-t", "tmpfs", "none", "/tmp"]);
            command.output().is_ok_and(|output| output.status.success())
        };
        WAYS.iter().find(works).copied()
    })
}
