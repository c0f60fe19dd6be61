//! Questions to a person at a terminal. Whoever is no terminal is never asked; an end of the input
//! is a no, and so are answers that nobody understands.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::output::complain;

/// How often a question is put.
const TRIES: usize = 3;

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer<T> {
    /// This one.
    Is(T),
    /// Nothing is to be done.
    Leave,
    /// Not to be understood: it is asked again.
    Unclear,
}

/// Returns whether there is somebody to ask: one who can read the question and answer it.
pub(super) fn has_person() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks until the answer is understood, three times at most; nothing if it is to be left.
pub(super) async fn ask<T>(
    question: &str,
    hint: &str,
    understand: impl Fn(&str) -> Answer<T>,
) -> Option<T> {
    for _ in 0..TRIES {
        let Some(line) = line_after(question).await else {
            complain("");
            return None;
        };
        match understand(line.trim()) {
            Answer::Is(answer) => return Some(answer),
            Answer::Leave => return None,
            Answer::Unclear => complain(hint),
        }
    }
    None
}

/// Returns the next line of the terminal, which is never longer than the kernel's buffer of 4 KiB;
/// nothing at its end.
async fn line_after(question: &str) -> Option<String> {
    let mut terminal = io::stderr();
    // A terminal that is gone shows itself at the read.
    let _unseen = write!(terminal, "{question}").and_then(|()| terminal.flush());
    let read = tokio::task::spawn_blocking(|| {
        let mut line = Vec::new();
        io::stdin().lock().read_until(b'\n', &mut line).map(|_bytes| line)
    });
    let line = read.await.ok()?.ok()?;
    // Without its end the line was cut off by the end of the input.
    line.ends_with(b"\n").then(|| String::from_utf8_lossy(&line).into_owned())
}
