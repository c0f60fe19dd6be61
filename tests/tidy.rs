//! The repository about itself: what the README lists is what the code has, and no file grew
//! two subjects.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use simplebackup::config::{Config, Flags, Input, SETTINGS, load, variable};
use simplebackup_engine::fail_point;

use crate::support::process::{Machine, Process, get};

/// A longer file has two subjects.
const LINES_MAX: usize = 400;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(repository().join("README.md")).expect("a README")
}

/// Returns the cells of the README's tables, row by row, without backticks around a cell.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.ends_with(" |"));
    rows.map(|line| line[2..line.len() - 2].split(" | ").map(cell).collect()).collect()
}

#[test]
fn the_readme_lists_every_setting_with_its_default_and_its_variable() {
    let readme = readme();
    let table: Vec<_> =
        rows(&readme).into_iter().filter(|row| row.len() == 4 && row[0].contains('.')).collect();
    let listed: Vec<_> = table.iter().map(|row| row[0].as_str()).collect();
    let settings: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
    assert_eq!(listed, settings);
    let mut file = String::new();
    for row in &table {
        assert_eq!(row[2], variable(&row[0]), "{}", row[0]);
        let (section, key) = row[0].split_once('.').expect("a section");
        let header = format!("[{section}]\n");
        if !file.contains(&header) {
            file += &header;
        }
        writeln!(file, "{key} = {}", row[1]).expect("to memory");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("defaults.toml");
    fs::write(&path, &file).expect("written");
    let flags = Flags { config: Some(path), ..Flags::default() };
    let config = load(&Input { flags, variables: Vec::new() });
    assert_eq!(config.unwrap_or_else(|problems| panic!("{problems}")), Config::default());
}

#[test]
fn the_shipped_file_names_every_setting() {
    let file = fs::read_to_string(repository().join("config.toml")).expect("a file");
    let mut section = "";
    let mut keys = Vec::new();
    for line in file.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.push(format!("{section}.{key}"));
        }
    }
    let settings: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
    assert_eq!(keys, settings);
}

#[test]
fn the_readme_lists_every_metric_with_its_type() {
    let machine = Machine::new();
    let mut command = machine.simplebackup();
    command.args(["run", "--", "sleep", "1000"]);
    let mut process = Process::start(&mut command);
    let text = get(&process.http_address(), "/metrics").body;
    let mut served: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned).collect();
    served.sort();
    let readme = readme();
    let table = rows(&readme).into_iter().filter(|row| row[0].starts_with("simple_"));
    let mut listed: Vec<_> = table.map(|row| format!("{} {}", row[0], row[1])).collect();
    listed.sort();
    assert_eq!(listed, served);
}

#[test]
fn the_readme_shows_every_flag() {
    let machine = Machine::new();
    let help = machine.run(&["--help"]);
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    let readme = readme();
    let words = help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
    let flags: Vec<_> = words.map(|word| word.trim_end_matches([',', '.', ']'])).collect();
    assert!(flags.len() > 8, "{help}");
    for flag in flags.into_iter().filter(|flag| !matches!(*flag, "--help" | "--version")) {
        assert!(readme.contains(flag), "{flag} is not in the README");
    }
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let documents = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "deploy/README.md",
        "docs/recovery.md",
        "docs/faq.md",
        "fuzz/README.md",
    ];
    let decisions = fs::read_dir(repository().join("docs/decisions")).expect("decisions");
    let decisions = decisions.map(|entry| entry.expect("read").path());
    for document in documents.map(|name| repository().join(name)).into_iter().chain(decisions) {
        let text = fs::read_to_string(&document).expect("read");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or(link);
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = document.parent().expect("a folder").join(target);
            assert!(path.exists(), "{}: {link}", document.display());
        }
    }
}

#[test]
fn no_file_has_two_subjects() {
    let mut files = Vec::new();
    for folder in ["src", "actors", "engine", "tests", "examples", "fuzz/src"] {
        collect(&repository().join(folder), &mut files);
    }
    assert!(files.len() > 50, "{}", files.len());
    for file in files {
        let lines = fs::read_to_string(&file).expect("read").lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", file.display());
    }
}

/// Each step stands at one place in the code, and is one that the tests go through.
#[test]
fn every_fail_point_is_reached_from_one_place() {
    let mut files = Vec::new();
    for folder in ["src", "actors", "engine"] {
        collect(&repository().join(folder), &mut files);
    }
    let texts = files.iter().map(|file| fs::read_to_string(file).expect("read"));
    let text: String = texts.collect();
    let calls = text.split("fail_point::reach(\"").skip(1);
    let mut reached: Vec<_> = calls.filter_map(|rest| rest.split('"').next()).collect();
    reached.sort_unstable();
    let mut listed = fail_point::ALL;
    listed.sort_unstable();
    assert_eq!(reached, listed);
}

/// `i6_i8_…` attacks both.
#[test]
fn the_architecture_names_the_tests_of_every_invariant() {
    let mut found = BTreeSet::new();
    for folder in ["src", "actors", "engine", "tests"] {
        let mut files = Vec::new();
        collect(&repository().join(folder), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).expect("read");
            let file = file.strip_prefix(repository()).expect("inside").display().to_string();
            for name in text.split("fn ").filter_map(|rest| rest.split('(').next()) {
                let numbers =
                    name.split('_').map_while(|word| word.strip_prefix('i')?.parse().ok());
                found.extend(numbers.map(|number: u8| (number, file.clone())));
            }
        }
    }
    let text = fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("read");
    let mut named = BTreeSet::new();
    for row in rows(&text) {
        let Some(number) = row[0].strip_prefix('I').and_then(|number| number.parse().ok()) else {
            continue;
        };
        named.extend(row[1].split(", ").map(|file| (number, file.trim_matches('`').to_owned())));
    }
    assert_eq!(named, found);
    let numbers: BTreeSet<_> = named.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=10).collect());
}

/// A process that a variable can kill is for tests: no build without them has the feature.
#[test]
fn nothing_that_is_shipped_has_fail_points() {
    let features = |edges: &str| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["tree", "--locked", "--offline", "--workspace", "--edges", edges]);
        let output = cargo.current_dir(repository()).output().expect("run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let name = "simplebackup-engine feature \"fail-points\"";
    let shipped = features("features,no-dev");
    assert!(
        shipped.contains("simplebackup-engine feature") && !shipped.contains(name),
        "{shipped}"
    );
    assert!(features("features").contains(name), "the name of the feature has changed");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
