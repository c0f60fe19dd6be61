//! A person at a terminal: the real binary on a pseudo-terminal, its screen, and what is typed.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::process::{Machine, PATIENCE};

/// What ends the input.
pub(crate) const CTRL_D: &str = "\u{4}";

/// What sends SIGINT.
pub(crate) const CTRL_C: &str = "\u{3}";

/// A process at a terminal. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    pieces: Receiver<Vec<u8>>,
    screen: String,
    /// Up to where the screen was read.
    seen: usize,
}

impl Terminal {
    /// Runs the binary with these words, with the terminal as its input, output and error.
    pub(crate) fn run(machine: &Machine, words: &[&str]) -> Self {
        let binary = machine.simplebackup();
        // Its controlling terminal, so that Ctrl-C is a signal; which a shell in front of the tests
        // (`cargo test &`) may have set to be ignored, and that is inherited.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", "setsid", "--ctty"]);
        command.arg(binary.get_program()).args(words).env_clear();
        let set = binary.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.envs(set).current_dir(machine.path(""));
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let other_side = || {
            let flags = OFlags::NOCTTY.bits().cast_signed();
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).custom_flags(flags);
            Stdio::from(options.open(OsStr::from_bytes(name.to_bytes())).expect("opened"))
        };
        command.stdin(other_side()).stdout(other_side()).stderr(other_side());
        let child = command.spawn().expect("started");
        drop(command);
        let keyboard = File::from(master);
        let mut screen = keyboard.try_clone().expect("cloned");
        let (sender, pieces) = mpsc::channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // EIO says that nobody has the other side open any more.
            while let Ok(count @ 1..) = screen.read(&mut piece) {
                // Err: the test has seen enough.
                let _unread = sender.send(piece[..count].to_vec());
            }
        });
        Self { child, keyboard, pieces, screen: String::new(), seen: 0 }
    }

    /// Types.
    pub(crate) fn enter(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("typed");
    }

    /// Waits until the screen shows this after what was waited for before, and types.
    #[track_caller]
    pub(crate) fn answer(&mut self, question: &str, keys: &str) {
        self.wait_for(question);
        self.enter(keys);
    }

    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            let Ok(piece) = self.pieces.recv_timeout(left) else {
                panic!("no {text:?} after {} bytes of:\n{}", self.seen, self.screen);
            };
            self.show(&piece);
        }
    }

    /// Waits for the end and returns the exit code, 128 + n after signal n, and the whole screen.
    #[track_caller]
    pub(crate) fn end(mut self) -> (i32, String) {
        let until = Instant::now() + PATIENCE;
        while let Ok(piece) =
            self.pieces.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.show(&piece);
        }
        assert!(Instant::now() < until, "still running:\n{}", self.screen);
        let status = self.child.wait().expect("waited");
        let code = status.code().or(status.signal().map(|signal| 128 + signal));
        (code.expect("a code or a signal"), std::mem::take(&mut self.screen))
    }

    fn show(&mut self, piece: &[u8]) {
        // A letter of several bytes may be cut between two pieces; no test looks for one.
        self.screen += &String::from_utf8_lossy(piece).replace('\r', "");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Err: it has ended.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}
