//! What a hook prints, as lines of our log: so many, so long, and without what would move a cursor.
//! All of it is read, or the hook would stand still over a full pipe.

use simplebackup_engine::LOG;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Lines that are shown of each stream.
const LINES_MAX: usize = 100;

/// Bytes that are shown of each line.
const LINE_BYTES_MAX: usize = 500;

/// Reads a stream to its end and shows it.
pub(super) async fn pass_on(name: &'static str, stream: Option<impl AsyncRead + Unpin>) {
    let Some(mut stream) = stream else { return };
    let mut lines = Lines::default();
    let mut piece = vec![0; 4096];
    loop {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(read) => lines.take(&piece[..read], &mut |line| show(name, line)),
        }
    }
    lines.end(&mut |line| show(name, line));
}

fn show(name: &str, line: &str) {
    tracing::info!(target: LOG, hook = name, "hooks.{name}: {line}");
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
struct Lines {
    /// The line that is not over, as far as it is shown.
    line: Vec<u8>,
    /// Whether it has more than that.
    is_cut: bool,
    shown: usize,
    unshown: usize,
}

impl Lines {
    fn take(&mut self, piece: &[u8], show: &mut impl FnMut(&str)) {
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            let (text, is_whole) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            let room = LINE_BYTES_MAX - self.line.len();
            self.is_cut |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if is_whole {
                self.line_is_over(show);
            }
        }
    }

    fn line_is_over(&mut self, show: &mut impl FnMut(&str)) {
        if self.shown < LINES_MAX {
            self.shown += 1;
            let text = String::from_utf8_lossy(&self.line);
            let text = text.trim_end().replace(char::is_control, " ");
            show(&if self.is_cut { text + "…" } else { text });
        } else {
            self.unshown += 1;
        }
        self.line.clear();
        self.is_cut = false;
    }

    fn end(&mut self, show: &mut impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.line_is_over(show);
        }
        if self.unshown > 0 {
            show(&format!("{} more lines are not shown", self.unshown));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut shown) = (Lines::default(), Vec::new());
        let mut show = |line: &str| shown.push(line.to_owned());
        for piece in pieces {
            lines.take(piece, &mut show);
        }
        lines.end(&mut show);
        shown
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        assert_eq!(shown(&[b"one\ntw", b"o\r\n", b"\nlast"]), ["one", "two", "", "last"]);
        assert_eq!(shown(&[]), [""; 0]);
        assert_eq!(shown(&[b"\x1b[2Jred\xff\n"]), [" [2Jred\u{fffd}"]);
    }

    #[test]
    fn a_flood_is_counted_and_a_long_line_is_cut() {
        let many = "x\n".repeat(LINES_MAX + 7);
        let told = shown(&[many.as_bytes()]);
        assert_eq!(told.len(), LINES_MAX + 1);
        assert_eq!(told[LINES_MAX], "7 more lines are not shown");
        let long = "y".repeat(300);
        let told = shown(&[long.as_bytes(), long.as_bytes(), b"\nz\n"]);
        assert_eq!(told, [format!("{}…", "y".repeat(LINE_BYTES_MAX)), "z".to_owned()]);
    }
}
