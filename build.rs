//! Tells the binary which commit it is made of: `SIMPLEBACKUP_COMMIT` where that is set, because an
//! image or a tarball has no history; else what git says of this folder; else that nobody knows.
//!
//! It runs again only when that variable changes or HEAD moves, so that an edit costs nothing more.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SIMPLEBACKUP_COMMIT");
    let given = std::env::var("SIMPLEBACKUP_COMMIT").unwrap_or_default();
    // One line: a second would be an instruction to Cargo.
    let commit = match given.lines().next().map(str::trim) {
        Some(commit) if !commit.is_empty() => commit.to_owned(),
        _ => of_git().unwrap_or_else(|| "unknown commit".to_owned()),
    };
    println!("cargo::rustc-env=SIMPLEBACKUP_COMMIT={commit}");
}

/// Returns the commit that is checked out and its day, if this folder is the top of a repository: one
/// that merely contains us, such as that of somebody's home folder, says nothing about us.
fn of_git() -> Option<String> {
    let places = ["--show-toplevel", "--git-path", "HEAD", "--git-path", "logs/HEAD"];
    let places = git("rev-parse", &places)?;
    let mut places = places.lines();
    let here = std::env::current_dir().ok()?;
    if Path::new(places.next()?).canonicalize().ok()? != here.canonicalize().ok()? {
        return None;
    }
    // The first changes with the branch, the second with every commit on it. A file that is missing
    // would make Cargo run this each time.
    for place in places.filter(|place| Path::new(place).exists()) {
        println!("cargo::rerun-if-changed={place}");
    }
    git("log", &["-1", "--abbrev=7", "--format=%h %cs"])
}

/// Returns what git prints, or nothing where there is no git or it refuses.
fn git(command: &str, words: &[&str]) -> Option<String> {
    let output = Command::new("git").arg(command).args(words).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}
