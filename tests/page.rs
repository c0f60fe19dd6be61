//! The status page and what it lives on: the files, the events, the history, a drill on demand.
//!
//! How it looks and behaves in a browser, `scripts/test-page.sh` shows.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::process::{
    Answer, Machine, PATIENCE, POLITE, Process, TOKEN, ask, eventually, get,
};
use crate::support::running::{serve, serve_restored, wait_until_up};
use crate::support::s3::{Request, S3Server, configure};

/// The files of the page, and where each is served.
const FILES: [(&str, &str, &str); 7] = [
    ("/", "index.html", "text/html; charset=utf-8"),
    ("/page.css", "page.css", "text/css; charset=utf-8"),
    ("/page.js", "page.js", "text/javascript; charset=utf-8"),
    ("/backups.js", "backups.js", "text/javascript; charset=utf-8"),
    ("/chart.js", "chart.js", "text/javascript; charset=utf-8"),
    ("/dom.js", "dom.js", "text/javascript; charset=utf-8"),
    ("/words.js", "words.js", "text/javascript; charset=utf-8"),
];

fn source(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/http/page");
    fs::read_to_string(folder.join(name)).expect("a file of the page")
}

fn status(address: &str) -> Value {
    get(address, "/status").json()
}

fn post(address: &str, path: &str) -> Answer {
    ask(address, &format!("POST {path}"), &[&format!("Authorization: Bearer {TOKEN}")], "")
}

/// A client of `GET /events`.
struct Listener {
    lines: BufReader<TcpStream>,
    status: u16,
}

impl Listener {
    #[track_caller]
    fn join(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        write!(stream, "GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("sent");
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        lines.read_line(&mut head).expect("answered");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Self { lines, status: status.expect("a status") }
    }

    /// Waits for an event that is as wanted.
    #[track_caller]
    fn hear(&mut self, what: &str, mut is_wanted: impl FnMut(&Value) -> bool) -> Value {
        let mut heard = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line);
            assert!(read.is_ok_and(|bytes| bytes > 0), "{what} was not heard: {heard:?}");
            let Some(data) = line.strip_prefix("data: ") else { continue };
            let event: Value = serde_json::from_str(data).expect("JSON in one line");
            if is_wanted(&event) {
                return event;
            }
            heard.push(event);
        }
    }
}

#[test]
fn the_page_may_reach_nothing_but_this_service() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    for (path, file, content_type) in FILES {
        let mut stream = TcpStream::connect(&address).expect("connected");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        assert!(body == source(file), "{path} is another file than {file}");
        let head = head.to_ascii_lowercase();
        for header in [
            &format!("content-type: {content_type}"),
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; ",
            "x-content-type-options: nosniff\r",
            "referrer-policy: no-referrer\r",
            "x-frame-options: deny\r",
        ] {
            assert!(head.contains(header), "{path} without {header:?}: {head}");
        }
        assert!(!head.contains("unsafe-"), "{path}: {head}");
    }
}

#[test]
fn the_files_name_no_other_host_and_make_no_markup_of_text() {
    for (_, name, _) in FILES {
        let text = source(name);
        // What the namespace of SVG is called, which nobody asks for.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for forbidden in [
            "http://",
            "https://",
            "src=\"//",
            "@import",
            "innerHTML",
            "outerHTML",
            "onclick=",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "style=\"",
            "<style",
            "localStorage",
            "document.cookie",
        ] {
            assert!(!text.contains(forbidden), "{name} has {forbidden:?}");
        }
        assert!(text.lines().count() <= 400, "{name} has two subjects");
    }
}

#[test]
fn a_listener_hears_of_a_tick_by_itself() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut process = machine.serve_script_with(POLITE, |command| {
        command.env("SIMPLE_BACKUP_BACKUP_SCHEDULE", "*/2 * * * * *");
    });
    let address = process.http_address();
    let mut listener = Listener::join(&address);
    assert_eq!(listener.status, 200);
    let first = listener.hear("the status as it is", |_| true);
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    let made = listener.hear("a tick", |event| event["counts"]["hourly"]["succeeded"] != 0);
    assert_eq!(made["verdict"], "safe");
    assert!(made["revision"].as_u64() > first["revision"].as_u64(), "{made}");
    // With its change, not with the next sign of life: that is fifteen ticks away.
    let count = |event: &Value| event["counts"]["hourly"]["succeeded"].as_u64().expect("a count");
    let next = listener.hear("the next tick", |event| count(event) > count(&made));
    assert!(count(&next) < count(&made) + 10, "{next}");
}

#[test]
fn seats_are_few_and_a_listener_that_goes_leaves_its_own() {
    let machine = Machine::new();
    machine.create_database(10);
    let slow = "trap 'until [ -e leave ]; do sleep 0.05; done; exit 0' TERM; \
        while :; do sleep 0.05; done";
    let mut process = machine.serve_script_with(slow, |command| {
        command.env("SIMPLE_BACKUP_SHUTDOWN_APP_TIMEOUT", "60s");
    });
    let address = process.http_address();
    wait_until_up(&address);
    let mut listeners: Vec<_> = (0..16).map(|_| Listener::join(&address)).collect();
    assert!(listeners.iter().all(|listener| listener.status == 200));
    assert_eq!(Listener::join(&address).status, 503);
    assert_eq!(get(&address, "/status").status, 200, "others are served");
    drop(listeners.pop());
    // At once, not with the next heartbeat: who loads a page anew leaves one behind each time.
    let began = std::time::Instant::now();
    eventually("a seat is free", || Listener::join(&address).status == 200);
    assert!(began.elapsed().as_secs() < 25, "{:?}", began.elapsed());

    // None of them keeps the service from leaving, and all hear of it.
    process.signal(Signal::TERM);
    for listener in &mut listeners {
        listener.hear("the stop", |event| event["phase"] == "stopping");
    }
    fs::write(machine.path("leave"), "").expect("written");
    assert_eq!(process.wait().0, 0);
    let mut rest = Vec::new();
    // Err: the connection was cut, which is an end too.
    let _cut = listeners[0].lines.read_to_end(&mut rest);
}

#[test]
fn a_drill_on_demand_needs_the_token_and_no_schedule() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    assert_eq!(ask(&address, "POST /verify", &[], "").status, 401);
    assert_eq!(ask(&address, "POST /verify", &["Authorization: Bearer wrong"], "").status, 401);
    assert_eq!(get(&address, "/verify").status, 405);
    let failed = post(&address, "/verify");
    assert_eq!(failed.status, 500);
    assert!(failed.body.contains("no backup is stored"), "{}", failed.body);
    assert_eq!(status(&address)["verdict"], "failing");

    let made = post(&address, "/backup").json();
    assert_eq!(status(&address)["verdict"], "safe", "the backup made up for it");
    let drilled = post(&address, "/verify");
    assert_eq!(drilled.status, 200, "{}", drilled.body);
    assert_eq!(drilled.json()["key"], made["key"]);
    assert_eq!(drilled.json()["rows"], made["rows"]);
    let status = status(&address);
    assert_eq!(status["last_verified"], drilled.json());
    assert!(status["drill"].is_null(), "{status}");
}

#[test]
fn without_a_token_or_backups_a_drill_is_refused() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut tokenless = machine.serve_script_with(POLITE, |command| {
        command.env_remove("SIMPLE_BACKUP_HTTP_TOKEN");
    });
    let address = tokenless.http_address();
    assert_eq!(post(&address, "/verify").status, 403);
    assert_eq!(status(&address)["token_configured"], false);

    let mut command = machine.simplebackup();
    let mut off = Process::start(command.args(["run", "--", "sleep", "1000"]));
    let address = off.http_address();
    let refused = post(&address, "/verify");
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("switched off"), "{}", refused.body);
    assert_eq!(status(&address)["verdict"], "off");
}

#[test]
fn a_second_drill_on_demand_is_a_conflict() {
    let hanging = TcpListener::bind("127.0.0.1:0").expect("bound");
    let machine = Machine::new();
    machine.create_database(10);
    let mut process = machine.serve_script_with(POLITE, |command| {
        command
            .env("MINIO_ENDPOINT", format!("http://{}", hanging.local_addr().expect("known")))
            .env("MINIO_BUCKET", "mybucket")
            .env("SIMPLE_BACKUP_SHUTDOWN_BACKUP_TIMEOUT", "1s");
    });
    let address = process.http_address();
    wait_until_up(&address);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| post(&address, "/verify"));
        eventually("the first runs", || !status(&address)["drill"].is_null());
        let second = post(&address, "/verify");
        assert_eq!(second.status, 409, "{}", second.body);
        assert!(second.body.contains("already in progress since"), "{}", second.body);
        // A stop drops the first, which says so.
        process.signal(Signal::TERM);
        let first = first.join().expect("answered");
        assert_eq!(first.status, 503, "{}", first.body);
    });
}

#[test]
fn the_history_has_backups_runs_events_and_commands() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    let made = post(&address, "/backup").json();
    assert_eq!(post(&address, "/verify").status, 200);
    machine.lose_database();
    assert_eq!(post(&address, "/backup").status, 500);

    let history = get(&address, "/history").json();
    assert_eq!(history["revision"], status(&address)["revision"]);
    let backup = &history["backups"][0];
    for field in ["rows", "tables", "database_bytes", "archive_bytes"] {
        assert_eq!(backup[field], made[field], "{field}");
    }
    assert_eq!(backup["name"], made["key"]);
    assert!(backup["verified_at"].is_string() && backup["damaged_at"].is_null(), "{backup}");
    let runs = history["runs"].as_array().expect("runs");
    let names: Vec<_> = runs.iter().map(|run| run["name"].clone()).collect();
    assert_eq!(names, [made["key"].clone(), Value::Null], "the second failed");
    let events = history["events"].as_array().expect("events");
    let said: Vec<_> = events.iter().map(|event| event["what"].as_str().expect("words")).collect();
    assert_eq!(
        said,
        ["Manual backup failed", "Restore drill passed", "Manual backup made", "App started"]
    );
    let location = history["location"].as_str().expect("an address");
    let commands: Vec<_> = history["recipes"].as_array().expect("recipes").iter().collect();
    assert!(commands.iter().all(|recipe| recipe["commands"].to_string().contains("{name}")));
    assert!(location.starts_with("file:///") && location.ends_with("/app.db.backups/"));
}

/// The restore has listed the store, so nothing else does.
#[test]
fn a_restore_at_the_start_fills_the_list() {
    let machine = Machine::new();
    let (_process, address) = serve_restored(&machine);
    let history = get(&address, "/history").json();
    assert_eq!(history["backups"][0]["name"], machine.stored()[0].as_str());
    assert!(history["backups"][0]["verified_at"].is_string(), "{history}");
    assert_eq!(history["events"][1]["what"], "Database restored");
    assert_eq!(status(&address)["verdict"], "safe");
}

/// Three backups of the process before: three small GETs, however often the page is looked at.
#[tokio::test]
async fn looking_at_the_page_asks_the_store_once_for_each_backup() {
    let server = Arc::new(S3Server::start().await);
    let watched = Arc::clone(&server);
    let looked = tokio::task::spawn_blocking(move || look_at_the_page(&watched));
    looked.await.expect("no panic");
}

fn look_at_the_page(server: &S3Server) {
    let machine = Machine::new();
    machine.create_database(10);
    for _ in 0..3 {
        let mut command = machine.simplebackup();
        configure(&mut command, server);
        assert!(command.arg("backup").output().expect("run").status.success());
    }
    let before = server.script().count(Request::Get);
    let mut process = machine.serve_script_with(POLITE, |command| configure(command, server));
    let address = process.http_address();
    wait_until_up(&address);
    let rows = || {
        let backups = get(&address, "/history").json()["backups"].clone();
        let rows = backups.as_array().expect("a list").iter().map(|backup| backup["rows"].as_u64());
        rows.collect::<Vec<_>>()
    };
    assert_eq!(server.script().count(Request::Get), before, "nobody looks");
    eventually("the rows are known", || rows().len() == 3 && rows().iter().all(Option::is_some));
    for _ in 0..20 {
        rows();
    }
    assert_eq!(server.script().count(Request::Get), before + 3);
    assert_eq!(server.script().count(Request::List), 3 + 1, "one for each run, one at the start");
}

#[test]
fn a_failing_store_is_told_with_what_to_do() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    assert_eq!(post(&address, "/backup").status, 200);
    fs::remove_dir_all(machine.path("app.db.backups")).expect("removed");
    assert_eq!(post(&address, "/backup").status, 500);
    let status = status(&address);
    assert_eq!(status["verdict"], "failing");
    let warning = &status["warnings"][0];
    assert_eq!(warning["kind"], "backup_failed");
    assert!(warning["next"].as_str().expect("words").contains("Older backups stay"), "{warning}");
}
