//! The app of `examples/notes.rs`, as a process.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Machine, Process};

impl Machine {
    /// Starts a service in front of the notes app and returns it with the app's address.
    pub(crate) fn serve_notes(&self) -> (Process, String) {
        let mut command = self.simplebackup();
        command.args(["run", "--simple-backup", "--"]).arg(notes());
        self.start_notes(&mut command)
    }

    /// Starts a command that ends in the notes app and returns it with the app's address.
    pub(crate) fn start_notes(&self, command: &mut Command) -> (Process, String) {
        command.args(["--listen", "127.0.0.1:0", "--database"]).arg(self.database());
        let mut process = Process::start(command);
        let line = process.wait_for_line("notes: listening on http://");
        let address = line.rsplit('/').next().expect("an address").to_owned();
        (process, address)
    }
}

/// Returns the path of `examples/notes.rs`, built.
pub(crate) fn notes() -> PathBuf {
    let notes = Path::new(env!("CARGO_BIN_EXE_simplebackup")).with_file_name("examples/notes");
    assert!(notes.exists(), "run \"cargo build --example notes\" first, or plain cargo test");
    notes
}
