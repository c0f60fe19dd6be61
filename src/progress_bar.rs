//! Progress bars of the commands, on a terminal only.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use simplebackup_engine::progress::Progress;
use tokio::task::JoinHandle;

/// Redrawn this often.
const PERIOD: Duration = Duration::from_millis(100);

/// A bar that follows a job's progress until it is dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    task: JoinHandle<()>,
    bar: ProgressBar,
}

/// Returns whether progress is shown as a bar: plain log lines take its place elsewhere.
pub(crate) fn is_wanted() -> bool {
    std::io::stderr().is_terminal()
}

impl Bar {
    /// Shows a bar, if a terminal is there to show it.
    pub(crate) fn follow(progress: &Progress) -> Option<Self> {
        if !is_wanted() {
            return None;
        }
        let style = ProgressStyle::with_template(
            "{spinner} {msg:9} {bar:30} {bytes:>10} of {total_bytes:10} {elapsed}",
        );
        let bar = ProgressBar::new(0);
        bar.set_style(style.unwrap_or_else(|_invalid| ProgressStyle::default_bar()));
        let (progress, drawn) = (progress.clone(), bar.clone());
        let task = actix::spawn(async move {
            loop {
                let (done, total) = progress.bytes();
                drawn.set_message(progress.stage().name());
                drawn.set_length(total);
                drawn.set_position(done);
                drawn.tick();
                tokio::time::sleep(PERIOD).await;
            }
        });
        Some(Self { task, bar })
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}
