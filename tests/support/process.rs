//! The real binary as a process of its own, with its output, its routes and its signals.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take for what these tests ask of it: only a defect takes that long,
/// however busy the machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Part of every secret that a test gives the binary, and of nothing else: whatever a process of
/// these tests prints, on either stream, is searched for it.
const SECRET_MARK: &str = "hush";

/// The token of `POST /backup`, unless a test takes it away.
pub(crate) const TOKEN: &str = "TOKENhush";

/// The path of the snitch's address, which leads nowhere unless a test puts a server there.
pub(crate) const SNITCH_PATH: &str = "/SNITCHhush";

/// An app that leaves on SIGTERM with exit code 0.
pub(crate) const POLITE: &str = "trap 'exit 0' TERM; echo app is up; while :; do sleep 0.05; done";

/// An app that does not leave, and whose grandchild does not either.
pub(crate) const STUBBORN: &str = "trap '' TERM; (trap '' TERM; exec sleep 1000) & echo grandchild $!; \
    while :; do sleep 0.05; done";

/// A folder with a database to be, and the binary that is let loose on it.
#[derive(Debug)]
pub(crate) struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("app.db")
    }

    /// Returns the names in the folder of backups, sorted.
    pub(crate) fn stored(&self) -> Vec<String> {
        super::files_in(&self.path("app.db.backups"))
    }

    /// Returns the binary with a clean environment, working in the folder, with HTTP at any port.
    pub(crate) fn simplebackup(&self) -> Command {
        self.program(Path::new(env!("CARGO_BIN_EXE_simplebackup")))
    }

    /// Returns a program of ours in the same surroundings.
    pub(crate) fn program(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("SIMPLE_BACKUP_DATABASE_PATH", self.database())
            .env("SIMPLE_BACKUP_HTTP_ADDRESS", "127.0.0.1:0")
            // Next year: no test may meet a tick that it does not expect.
            .env("SIMPLE_BACKUP_BACKUP_SCHEDULE", "0 0 0 1 1 *")
            .env("SIMPLE_BACKUP_HTTP_TOKEN", TOKEN)
            .env("AWS_ACCESS_KEY_ID", super::s3::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", super::s3::SECRET_KEY)
            .current_dir(self.root.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary with these words to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        run(self.simplebackup().args(words))
    }

    /// Starts a service in front of a shell script.
    pub(crate) fn serve_script(&self, script: &str) -> Process {
        self.serve_script_with(script, |_command| {})
    }

    /// Starts a service in front of a shell script, in a changed environment.
    pub(crate) fn serve_script_with(
        &self,
        script: &str,
        change: impl FnOnce(&mut Command),
    ) -> Process {
        let mut command = self.simplebackup();
        change(&mut command);
        command.args(["run", "--simple-backup", "--", "/bin/sh", "-c", script]);
        Process::start(&mut command)
    }

    /// Makes the sample database.
    pub(crate) fn create_database(&self, rows: u32) {
        super::db::create(&self.database(), "wal", rows);
    }

    /// Takes every table from the database, as a mistake would.
    pub(crate) fn empty_database(&self) {
        super::db::drop_all_tables(&self.database());
    }

    /// Removes the database and what belongs to it.
    pub(crate) fn lose_database(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let _may_be_missing = fs::remove_file(self.path(&format!("app.db{suffix}")));
        }
    }
}

/// Runs a command to its end, and makes sure that it kept its secrets.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().expect("run");
    for printed in [&output.stdout, &output.stderr] {
        let printed = String::from_utf8_lossy(printed);
        assert!(!printed.contains(SECRET_MARK), "a secret was printed:\n{printed}");
    }
    output
}

/// A process that runs. Dropped, it is killed, and all that it printed has to be free of secrets.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    /// The first line with a secret. Written by the readers, read at the end.
    betrayal: Arc<OnceLock<String>>,
}

impl Process {
    /// Starts a command and reads what it prints, on either stream.
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let (sender, lines) = mpsc::channel();
        let output: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("piped")),
            Box::new(child.stderr.take().expect("piped")),
        ];
        let betrayal = Arc::new(OnceLock::new());
        for stream in output {
            let (sender, betrayal) = (sender.clone(), Arc::clone(&betrayal));
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map(|line| line.expect("UTF-8")) {
                    if line.contains(SECRET_MARK) {
                        betrayal.get_or_init(|| line.clone());
                    }
                    // Err: the test has seen enough.
                    let _unread = sender.send(line);
                }
            });
        }
        Self { child, lines, seen: Vec::new(), betrayal }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL, unless the process is known to have ended.
    pub(crate) fn kill(&mut self) {
        // Err: it has ended.
        let _ended = self.child.kill();
    }

    /// Waits for a line that contains `text` and returns it.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with {text:?} in:\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Waits for a line that contains `text`, or for the end of the output, and returns whether
    /// there was one.
    #[track_caller]
    pub(crate) fn says(&mut self, text: &str) -> bool {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("silent:\n{}", self.seen.join("\n")),
            }
            if self.seen.last().is_some_and(|line| line.contains(text)) {
                return true;
            }
        }
    }

    /// Waits for a line that ends with a process id, after these words.
    #[track_caller]
    pub(crate) fn wait_for_pid(&mut self, words: &str) -> u32 {
        let line = self.wait_for_line(words);
        line.rsplit(' ').next().and_then(|pid| pid.parse().ok()).expect("a process id")
    }

    /// Waits for the address of the routes.
    #[track_caller]
    pub(crate) fn http_address(&mut self) -> String {
        let line = self.wait_for_line("[SERVER] Listening on http://");
        line.rsplit('/').next().expect("an address").to_owned()
    }

    /// Waits for the end and returns the exit code and all lines.
    #[track_caller]
    pub(crate) fn wait(self) -> (i32, Vec<String>) {
        let (code, lines, _ended) = self.wait_timed();
        (code, lines)
    }

    /// Does the same, and says when the end was.
    #[track_caller]
    pub(crate) fn wait_timed(self) -> (i32, Vec<String>, Instant) {
        let (status, lines, ended) = self.wait_for_status();
        let code = status.code().or(status.signal().map(|signal| 128 + signal));
        (code.expect("a code or a signal"), lines, ended)
    }

    /// Waits for the end, which has to be by SIGKILL, and returns all lines.
    #[track_caller]
    pub(crate) fn wait_for_kill(self) -> Vec<String> {
        let (status, lines, _ended) = self.wait_for_status();
        assert_eq!(status.signal(), Some(9), "{status}, with:\n{}", lines.join("\n"));
        lines
    }

    /// Waits for the end and returns it with all lines and its time.
    #[track_caller]
    pub(crate) fn wait_for_status(mut self) -> (ExitStatus, Vec<String>, Instant) {
        let status = self.wait_for_end();
        let ended = Instant::now();
        self.read_to_end();
        (status, std::mem::take(&mut self.seen), ended)
    }

    /// Returns whether the process ends within this time.
    pub(crate) fn ends_within(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            if self.child.try_wait().expect("waited").is_some() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends SIGTERM and waits for the end.
    #[track_caller]
    pub(crate) fn stop(self) -> (i32, Vec<String>) {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// The readers end with the streams, which a left-over grandchild could hold open.
    fn read_to_end(&mut self) {
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(2)) {
            self.seen.push(line);
        }
    }

    #[track_caller]
    fn wait_for_end(&mut self) -> ExitStatus {
        if self.ends_within(PATIENCE) {
            return self.child.wait().expect("waited");
        }
        panic!("still running; its output:\n{}", self.seen.join("\n"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Err: it has ended.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
        self.read_to_end();
        // A panic during another would end the test binary without a word.
        if let Some(line) = self.betrayal.get().filter(|_| !std::thread::panicking()) {
            panic!("a secret was printed: {line}");
        }
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// Asks a server on this machine: `GET /health`, with these further header lines.
#[track_caller]
pub(crate) fn ask(address: &str, request: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let content_length = format!("Content-Length: {}", body.len());
    let headers = [headers, &[content_length.as_str()]].concat().join("\r\n");
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n\r\n{body}"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer { status: status.expect("a status"), body: body.to_owned() }
}

/// Asks with GET.
#[track_caller]
pub(crate) fn get(address: &str, path: &str) -> Answer {
    ask(address, &format!("GET {path}"), &[], "")
}

/// Returns whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z")))
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asserts that these texts appear in this order, each in a line of its own.
#[track_caller]
pub(crate) fn assert_in_order(lines: &[String], expected: &[&str]) {
    let mut rest = lines.iter();
    for text in expected {
        assert!(
            rest.any(|line| line.contains(text)),
            "{text:?} is missing or out of order in:\n{}",
            lines.join("\n")
        );
    }
}
