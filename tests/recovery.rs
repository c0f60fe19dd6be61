//! `docs/recovery.md` against the script that runs it: no command without a case, no case without a
//! check, no command in a form that the script does not see.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the cases of each block of commands, and makes sure that each block has some.
fn cases_of_blocks(page: &str) -> Vec<Vec<&str>> {
    let mut blocks = Vec::new();
    let mut marks: Option<Vec<&str>> = None;
    let mut is_within = false;
    for (index, line) in page.lines().enumerate() {
        let at = index + 1;
        if is_within {
            is_within = line != "```";
        } else if let Some(fence) = line.trim_start().strip_prefix("```") {
            assert!(fence == "sh" && line == "```sh", "line {at}: blocks are ```sh: {line}");
            let cases = marks.take();
            blocks.push(cases.unwrap_or_else(|| panic!("line {at}: a block without a case")));
            is_within = true;
        } else if let Some(rest) = line.strip_prefix("<!-- run: ") {
            let names = rest.strip_suffix(" -->").unwrap_or_else(|| panic!("line {at}: {line}"));
            assert!(marks.replace(names.split(' ').collect()).is_none(), "line {at}: no block");
        } else {
            assert!(
                line.is_empty() || marks.is_none(),
                "line {at} is between a case and its block"
            );
            assert!(!line.starts_with("    ") && !line.starts_with("~~~"), "line {at}: {line}");
            assert!(!line.contains("<!--"), "line {at}: only cases are hidden: {line}");
        }
    }
    assert!(!is_within && marks.is_none(), "something is left open");
    blocks
}

/// Returns the names of the script's functions that begin so.
fn functions<'a>(script: &'a str, start: &str) -> BTreeSet<&'a str> {
    script
        .lines()
        .filter_map(|line| line.strip_prefix(start)?.split_once("() {")?.0.into())
        .collect()
}

#[test]
fn every_command_of_the_recovery_page_is_run_and_its_outcome_checked() {
    let (page, script) = (read("docs/recovery.md"), read("scripts/test-recovery.sh"));
    let blocks = cases_of_blocks(&page);
    assert!(blocks.len() > 15, "{} blocks", blocks.len());
    let mut cases: BTreeSet<_> = blocks.into_iter().flatten().collect();
    assert!(cases.remove("always"), "what is to be set first");
    assert_eq!(functions(&script, "prepare_"), cases);
    // A helper or two may check as well.
    let checks = functions(&script, "check_");
    assert!(checks.is_superset(&cases), "{:?}", cases.difference(&checks));
}

/// A command in the middle of a sentence is run by nobody.
#[test]
fn the_recovery_page_has_no_command_outside_its_blocks() {
    let page = read("docs/recovery.md");
    let mut is_within = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_within = !is_within;
        }
        for words in line.split('`').skip(1).step_by(2).filter(|_| !is_within) {
            let first = words.split(' ').next().unwrap_or_default();
            let is_command = ["simplebackup", "aws", "sqlite3", "gunzip", "systemctl", "mv", "rm"];
            let is_alone = !words.contains(' ');
            assert!(is_alone || !is_command.contains(&first), "not run by any test: `{words}`");
        }
    }
}

#[test]
fn ci_runs_the_recovery_page() {
    assert!(read(".ci/run").lines().any(|line| line == "scripts/test-recovery.sh"));
}
