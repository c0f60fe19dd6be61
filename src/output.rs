//! Standard output and standard error, whose reader may be gone and whose disk may be full: a log
//! that nobody takes must never stop the service that protects the data.

use std::io::{self, Write};

/// Prints a line of the result. A reader that went away (`list | head -1`) has seen enough.
///
/// # Errors
///
/// Whatever else keeps the result from being written, such as a full disk.
pub(crate) fn show(line: &str) -> io::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Prints a line to standard error, if anybody takes it.
pub(crate) fn complain(line: &str) {
    // There is no other place to say that this place is gone; the exit code says the rest.
    let _nobody_listens = writeln!(io::stderr(), "{line}");
}

/// Standard error for the log: a line that can't be written is dropped, nothing else happens.
#[derive(Debug)]
pub(crate) struct LogOutput;

impl Write for LogOutput {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _dropped = io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _dropped = io::stderr().flush();
        Ok(())
    }
}
