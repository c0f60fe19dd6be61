//! What strangers can do to the routes, over sockets and with bytes of their own making, and what
//! the binary keeps to itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use rustix::process::Signal;

use crate::support::process::{
    Machine, PATIENCE, POLITE, Process, SNITCH_PATH, TOKEN, ask, eventually, get,
};
use crate::support::s3::{BUCKET, PREFIX, S3Server};
use crate::support::web::WebServer;

/// A service that is up, and its address.
fn serve(machine: &Machine) -> (Process, String) {
    machine.create_database(10);
    let mut process = machine.serve_script(POLITE);
    let address = process.http_address();
    eventually("the app runs", || get(&address, "/health/ready").status == 200);
    (process, address)
}

/// Sends these bytes, goes on holding the connection, and returns all that comes before the server
/// closes it, which it has to do by itself.
#[track_caller]
fn answer_to(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.set_write_timeout(Some(PATIENCE)).expect("set");
    // Err: the server has seen enough.
    let _cut = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
            panic!("still open after {:?}: {error}", String::from_utf8_lossy(&answer))
        }
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

fn status_of(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// The token is right: the size alone is refused, and the gigabyte is never sent.
#[test]
fn a_large_body_is_refused_without_being_read() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    for request in ["POST /backup", "GET /health", "PUT /no-such-route"] {
        let head = format!(
            "{request} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Length: 1000000000\r\n\r\nthe first bytes"
        );
        let answer = answer_to(&address, head.as_bytes());
        assert_eq!(status_of(&answer), Some(413), "{request}: {answer}");
        assert!(answer.contains("takes no body"), "{answer}");
    }
    assert_eq!(machine.stored(), [""; 0]);
}

/// The server would wait for the end of such a body without a limit of time.
#[test]
fn a_body_that_never_ends_does_not_hold_its_connection() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    let chunked =
        "POST /backup HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    assert_eq!(status_of(&answer_to(&address, chunked.as_bytes())), Some(413));
    let slow = format!(
        "POST /backup HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: 10\r\n\r\nx"
    );
    assert_eq!(status_of(&answer_to(&address, slow.as_bytes())), Some(200));
    assert_eq!(machine.stored().len(), 1);
}

#[test]
fn a_small_body_is_let_pass() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    let token = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(ask(&address, "POST /backup", &[&token], "{}").status, 200);
}

#[test]
fn a_client_that_sends_a_byte_and_waits_is_disconnected() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    // At the same time: each is let wait for seconds.
    std::thread::scope(|scope| {
        for sent in ["G", "GET /health HTTP/1.1\r\nHost: x\r\n", ""] {
            let address = &address;
            scope.spawn(move || {
                let answer = answer_to(address, sent.as_bytes());
                assert!(matches!(status_of(&answer), None | Some(408)), "{sent:?}: {answer}");
            });
        }
    });
}

#[test]
fn a_head_without_measure_is_refused_and_others_are_served() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    let many = "X: y\r\n".repeat(1000);
    let large = format!("X: {}\r\n", "y".repeat(4 << 20));
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(4 << 20));
    for head in [
        format!("GET /health HTTP/1.1\r\n{many}"),
        format!("GET /health HTTP/1.1\r\n{large}"),
        long,
    ] {
        let answer = answer_to(&address, head.as_bytes());
        let is_refused = status_of(&answer).is_none_or(|status| (400..500).contains(&status));
        assert!(is_refused, "{answer}");
        assert_eq!(get(&address, "/health").status, 200);
    }
}

#[test]
fn nothing_is_served_but_the_routes() {
    let machine = Machine::new();
    let (_process, address) = serve(&machine);
    for path in [
        "/index.html",
        "/page/page.js",
        "//",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/health/../../etc/passwd",
        "/health/",
        "/app.db",
        "/app.db.backups/",
        "/config.toml",
        "/.env",
        "/debug",
        "/debug/pprof/",
        "/backup/app.db",
        "*",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = answer_to(&address, request.as_bytes());
        assert!(matches!(status_of(&answer), Some(400 | 404)), "{path}: {answer}");
        assert!(!answer.contains("root:") && !answer.contains("app.db"), "{path}: {answer}");
    }
    for method in ["DELETE", "PUT", "TRACE", "OPTIONS", "PROPFIND", "BREW"] {
        for path in ["/", "/backup", "/events", "/health", "/status", "/verify", "/metrics"] {
            let answer = ask(&address, &format!("{method} {path}"), &[], "");
            assert!(matches!(answer.status, 404 | 405), "{method} {path}: {}", answer.status);
        }
    }
    assert_eq!(machine.stored(), [""; 0]);
}

/// More than the service takes at once, and more than it has file descriptors for.
#[test]
fn many_idle_connections_keep_neither_health_nor_the_final_backup_from_their_work() {
    let machine = Machine::new();
    machine.create_database(10);
    let mut command = Command::new("/bin/sh");
    let simplebackup = machine.simplebackup();
    command.env_clear().current_dir(machine.path(""));
    command.envs(simplebackup.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let script = "ulimit -n 350; exec \"$0\" run --simple-backup -- /bin/sh -c \"$1\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_simplebackup"), POLITE]);
    let mut process = Process::start(&mut command);
    let address = process.http_address();
    eventually("the app runs", || get(&address, "/health/ready").status == 200);

    let open = || (0..400).map(|_| TcpStream::connect(&address).expect("connected"));
    let idle: Vec<_> = open().collect();
    assert_eq!(get(&address, "/health").status, 200);
    drop(idle);

    let _idle: Vec<_> = open().collect();
    let files = format!("/proc/{}/fd", process.pid());
    let opened = || std::fs::read_dir(&files).map_or(0, Iterator::count);
    eventually("they are taken", || opened() > 200);
    process.signal(Signal::TERM);
    let (code, lines) = process.wait();
    assert_eq!(code, 0, "{}", lines.join("\n"));
    assert_eq!(machine.stored().len(), 1, "{}", lines.join("\n"));
}

/// Every process test looks for its secrets; these say all that there is to say, at the lowest
/// level, when all goes well and when nothing does.
#[tokio::test]
async fn secrets_are_in_no_line_at_any_level() {
    let server = S3Server::start().await;
    let address = server.address().to_owned();
    let told = tokio::task::spawn_blocking(move || {
        let snitch_url = WebServer::start(&[]).url(SNITCH_PATH);
        let mut made = Vec::new();
        for (endpoint, url) in
            [(address.as_str(), snitch_url.as_str()), ("127.0.0.1:9", "http://127.0.0.1:9/hush")]
        {
            let machine = Machine::new();
            machine.create_database(10);
            let mut process = machine.serve_script_with(POLITE, |command| {
                command
                    .env("MINIO_ENDPOINT", endpoint)
                    .env("MINIO_USE_SSL", "false")
                    .env("MINIO_BUCKET", BUCKET)
                    .env("MINIO_PREFIX", PREFIX)
                    .env("AWS_SESSION_TOKEN", "SESSIONhush")
                    .env("SIMPLE_BACKUP_SNITCH_URL", url)
                    .env("SIMPLE_BACKUP_SNITCH_KIND", "healthchecks")
                    .env("SIMPLE_BACKUP_WEBHOOK_URL", url.replace("SNITCH", "WEBHOOK"))
                    .env("SIMPLE_BACKUP_WEBHOOK_HEADER", "Authorization: Bearer HEADERhush")
                    .env("SIMPLE_BACKUP_WEBHOOK_EVENTS", "all")
                    .env("SIMPLE_BACKUP_HOOKS_AFTER_BACKUP", "env")
                    .env("SIMPLE_BACKUP_BACKUP_TIMEOUT", "2s")
                    .env("SIMPLE_BACKUP_SHUTDOWN_BACKUP_TIMEOUT", "2s")
                    .env("SIMPLE_BACKUP_LOG_FORMAT", "json")
                    .env("RUST_LOG", "trace");
            });
            // As JSON: the line of the address is an event among many.
            let line = process.wait_for_line("Listening on http://");
            let address = line.split("http://").nth(1).and_then(|rest| rest.split('"').next());
            let address = address.expect("an address").to_owned();
            eventually("the app runs", || get(&address, "/health/ready").status == 200);
            for token in [TOKEN, "WRONGhush"] {
                let header = format!("Authorization: Bearer {token}");
                made.push(ask(&address, "POST /backup", &[&header], "").status);
            }
            process.stop();
        }
        made
    });
    assert_eq!(told.await.expect("no secret"), [200, 401, 500, 401]);
}
