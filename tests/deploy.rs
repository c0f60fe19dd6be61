//! What people deploy and install with: `init` and its files, the dashboard and the alerts, the
//! completions, the manual pages, and `--version`.
//!
//! What the files mean to their platforms is for `scripts/test-deploy.sh`, which has their tools.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use simplebackup::config::{SETTINGS, variable};

use crate::support::process::{Machine, Process, get};
use crate::support::visible_files_in;

/// What `init` is asked for, and the file of the repository that it has to write.
const PLATFORMS: [(&str, &str); 6] = [
    ("compose", "docker-compose.yml"),
    ("nomad", "deploy/simplebackup.nomad.hcl"),
    ("systemd", "deploy/simplebackup.service"),
    ("kubernetes", "deploy/kubernetes/statefulset.yaml"),
    ("kubernetes-sidecar", "deploy/kubernetes/sidecar.yaml"),
    ("fly", "deploy/fly.toml"),
];

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text_of(path: &str) -> String {
    fs::read_to_string(repository(path)).expect("a file of the repository")
}

#[track_caller]
fn printed(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Returns the names of our metrics in a text, without what a histogram adds to its own.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let names = words.filter(|word| {
        ["simple_backup_", "simple_restore_"].iter().any(|start| word.starts_with(start))
    });
    names
        .map(|name| {
            let whole = |end| name.strip_suffix(end).filter(|name| name.ends_with("_seconds"));
            ["_bucket", "_sum", "_count"].into_iter().find_map(whole).unwrap_or(name)
        })
        .collect()
}

#[test]
fn dashboard_and_alerts_name_metrics_that_are_served() {
    let machine = Machine::new();
    let mut command = machine.simplebackup();
    command.args(["run", "--", "sleep", "1000"]);
    let mut process = Process::start(&mut command);
    let text = get(&process.http_address(), "/metrics").body;
    let served = metrics_in(&text);
    for file in ["grafana/simplebackup.json", "prometheus/alerts.yml", "prometheus/alerts_test.yml"]
    {
        let text = text_of(&format!("deploy/{file}"));
        let named = metrics_in(&text);
        assert!(named.len() > 8, "{file} names {named:?}");
        let unknown: Vec<_> = named.difference(&served).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, which nobody serves");
    }
}

/// A dashboard with the identity of somebody's data source shows nothing anywhere else.
#[test]
fn the_dashboard_asks_for_its_data_source_and_its_instance() {
    let dashboard: Value =
        serde_json::from_str(&text_of("deploy/grafana/simplebackup.json")).expect("JSON");
    assert_eq!(dashboard["uid"], Value::Null);
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<_> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "instance"]);
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    let mut asked = 0;
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64()), "two panels with the id {}", panel["id"]);
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().expect("a query");
            assert!(query.contains("instance=~\"$instance\""), "{query}");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{query}");
            asked += 1;
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        }
    }
    assert!(asked > 20, "{asked} queries");
}

#[test]
fn init_writes_the_files_of_the_repository_and_says_what_to_do_next() {
    for (platform, file) in PLATFORMS {
        let machine = Machine::new();
        let said = printed(machine.run(&["init", platform, "--output", "new/folder"]));
        let name = repository(file).file_name().expect("a name").to_owned();
        for (written, original) in
            [(name.to_str().expect("UTF-8"), file), ("config.toml", "config.toml")]
        {
            let path = machine.path("new/folder").join(written);
            let text = fs::read_to_string(path).expect("written");
            assert!(text == text_of(original), "{written} is not {original}");
            assert!(said.contains(&format!("wrote new/folder/{written}\n")), "{said}");
        }
        let step = text_of(file).lines().nth(3).expect("a step").replacen('#', "", 1);
        assert!(said.contains(step.trim()), "{platform}: {said}");
    }
}

#[test]
fn init_alone_writes_a_configuration_that_is_valid() {
    let machine = Machine::new();
    let said = printed(machine.run(&["init"]));
    assert!(said.contains("simplebackup backup && simplebackup list"), "{said}");
    assert_eq!(visible_files_in(&machine.path("")), ["config.toml"]);
    // The one in the current folder is read; it names no folder that is there.
    machine.create_database(1);
    printed(machine.run(&["backup"]));
}

#[test]
fn init_never_overwrites_and_writes_all_or_nothing() {
    let machine = Machine::new();
    fs::write(machine.path("docker-compose.yml"), "mine").expect("written");
    let refused = machine.run(&["init", "compose"]);
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(why.contains("\"./docker-compose.yml\" exists, and nothing is overwritten"), "{why}");
    assert!(!machine.path("config.toml").exists(), "half of it was written");
    let mine = fs::read_to_string(machine.path("docker-compose.yml")).expect("still there");
    assert_eq!(mine, "mine");

    std::os::unix::fs::symlink("nowhere", machine.path("fly.toml")).expect("a link");
    assert_eq!(machine.run(&["init", "fly"]).status.code(), Some(1), "a link that leads nowhere");
    assert!(!machine.path("nowhere").exists());
}

#[test]
fn init_prints_one_file_and_writes_none() {
    let machine = Machine::new();
    for (words, file) in [
        (vec!["init", "--output", "-"], "config.toml"),
        (vec!["init", "fly", "--output", "-"], "deploy/fly.toml"),
    ] {
        assert_eq!(printed(machine.run(&words)), text_of(file), "{words:?}");
    }
    assert_eq!(visible_files_in(&machine.path("")), [""; 0]);
}

/// What is meant to mend a configuration must not need a sound one.
#[test]
fn a_wrong_configuration_keeps_nobody_from_help() {
    let machine = Machine::new();
    fs::write(machine.path("config.toml"), "[backup]\nkeep = \"none\"\n").expect("written");
    assert_eq!(machine.run(&["list"]).status.code(), Some(2));
    for words in [&["init", "--output", "-"][..], &["completions", "bash"], &["man"]] {
        printed(machine.run(words));
    }
}

#[test]
fn the_version_says_commit_and_sqlite() {
    let machine = Machine::new();
    let said = printed(machine.run(&["--version"]));
    let (start, rest) = said.trim_end().split_once(" (").expect("a bracket");
    assert_eq!(start, concat!("simplebackup ", env!("CARGO_PKG_VERSION")));
    let (commit, sqlite) = rest.strip_suffix(')').expect("its end").split_once(", ").expect("two");
    assert_eq!(sqlite, format!("SQLite {}", rusqlite::version()));
    let git = Command::new("git")
        .args(["log", "-1", "--abbrev=7", "--format=%h %cs"])
        .current_dir(repository(""))
        .output();
    let of_git = git.ok().filter(|git| repository(".git").exists() && git.status.success());
    // In a tarball, or where the packager named one, it is what the build was told.
    let expected = match of_git {
        Some(git) if std::env::var_os("SIMPLEBACKUP_COMMIT").is_none() => {
            String::from_utf8(git.stdout).expect("UTF-8").trim().to_owned()
        }
        _ => env!("SIMPLEBACKUP_COMMIT").to_owned(),
    };
    assert_eq!(commit, expected);
}

#[test]
fn every_shell_gets_completions_of_every_command() {
    let machine = Machine::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(machine.run(&["completions", shell]));
        for word in ["restore", "healthcheck", "init", "simple-backup", "log-format"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
        // zsh and fish are rarely installed where tests run; bash is.
        if shell == "bash" {
            let path = machine.path("completions");
            fs::write(&path, script).expect("written");
            let read = Command::new("bash").arg("-n").arg(&path).output().expect("bash");
            assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        }
    }
}

#[test]
fn the_manual_has_every_setting_and_a_page_for_every_command() {
    let machine = Machine::new();
    let page = printed(machine.run(&["man"]));
    assert!(page.contains(".TH simplebackup 1"), "{page}");
    for setting in SETTINGS {
        assert!(page.contains(setting.key), "{} is missing", setting.key);
        assert!(page.contains(&variable(setting.key)), "{} is missing", setting.key);
    }
    printed(machine.run(&["man", "--output", "pages"]));
    let pages = visible_files_in(&machine.path("pages"));
    for command in ["", "-run", "-backup", "-restore", "-init", "-man"] {
        assert!(pages.contains(&format!("simplebackup{command}.1")), "{pages:?}");
    }
    let main = fs::read_to_string(machine.path("pages/simplebackup.1")).expect("a page");
    assert!(main.contains(".SH SETTINGS"), "the page lacks the settings");
}
