//! One hook: a process with the facts in its environment, ended with all that it started, by force
//! if it does not end in time.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use simplebackup_engine::LOG;
use simplebackup_engine::backup::BackupReport;
use simplebackup_engine::text;
use thiserror::Error;
use tokio::process::Command;
use tokio::time::timeout;

use super::{HookedError, output};
use crate::messages::Trigger;
use crate::process::{Process, tell_group};

/// How long a hook may take to leave after SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_millis(500);

/// How long after SIGKILL it is waited for: only a hanging disk takes longer.
const FORCE_TIMEOUT: Duration = Duration::from_millis(100);

/// How long what it has printed is waited for once it has ended.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(100);

/// How long after its time a hook is gone.
pub(super) const ENDS_WITHIN: Duration = Duration::from_millis(750);
const _: () = assert!(
    GRACE.as_millis() + FORCE_TIMEOUT.as_millis() + OUTPUT_TIMEOUT.as_millis()
        < ENDS_WITHIN.as_millis(),
    "a hook takes longer than it is said to"
);

/// Why a hook did not do what it is there for.
#[derive(Debug, Error)]
pub enum HookError {
    /// It could not be started.
    #[error(
        "hooks.{name} could not be started: \"{program}\"; check the command and its permissions"
    )]
    NotStarted {
        /// `before_backup` or `after_backup`.
        name: &'static str,
        /// The first word of the command.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ended in another way than with exit status 0.
    #[error("hooks.{name} failed with {end}; its lines are in the log")]
    Failed {
        /// Which.
        name: &'static str,
        /// `exit status 3` or `signal 9`.
        end: String,
    },
    /// It did not end by itself.
    #[error(
        "hooks.{name} did not end within {} and was ended by force; make it quicker, or raise \
         hooks.timeout",
        text::span(*limit)
    )]
    TimedOut {
        /// Which.
        name: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The service stops, and its final backup waits.
    #[error("hooks.{name} gave way to the final backup, whose own hooks follow")]
    GaveWay {
        /// Which.
        name: &'static str,
    },
}

/// What a hook is told, in `HOOK_…` variables. All are set always, some to nothing: a shell with
/// `set -u` ends over one that is not. Not `SIMPLE_BACKUP_…`: a simplebackup that a hook starts
/// would refuse them as unknown.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    trigger: &'static str,
    database: String,
    result: &'static str,
    key: String,
    size_bytes: String,
    duration_seconds: String,
    error: String,
}

impl Facts {
    /// What is known before a backup.
    pub(super) fn before(trigger: Trigger, database: &Path) -> Self {
        let database = database.display().to_string();
        Self { trigger: trigger.word(), database, ..Self::default() }
    }

    /// What is known after it; no result after a panic.
    pub(super) fn after(
        self,
        took: Duration,
        result: Option<&Result<BackupReport, HookedError>>,
    ) -> Self {
        match result {
            Some(Ok(report)) => Self {
                result: "success",
                key: report.key.to_string(),
                size_bytes: report.archive_bytes.to_string(),
                duration_seconds: in_seconds(report.took),
                ..self
            },
            failed => Self {
                result: "failure",
                duration_seconds: in_seconds(took),
                error: match failed {
                    Some(Err(error)) => text::chain(error),
                    _ => "backup panicked".to_owned(),
                },
                ..self
            },
        }
    }

    pub(super) fn variables(&self, name: &'static str) -> [(&'static str, &str); 8] {
        [
            ("HOOK_NAME", name),
            ("HOOK_TRIGGER", self.trigger),
            ("HOOK_DATABASE", &self.database),
            ("HOOK_RESULT", self.result),
            ("HOOK_KEY", &self.key),
            ("HOOK_SIZE_BYTES", &self.size_bytes),
            ("HOOK_DURATION_SECONDS", &self.duration_seconds),
            ("HOOK_ERROR", &self.error),
        ]
    }
}

fn in_seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

/// Runs a command to its end, or ends it after `limit`.
pub(super) async fn run(
    name: &'static str,
    (program, arguments): (&str, &[String]),
    (variables, withheld): (&[(&'static str, &str)], &[String]),
    limit: Duration,
) -> Result<(), HookError> {
    if limit.is_zero() {
        return Err(HookError::TimedOut { name, limit });
    }
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for secret in withheld {
        command.env_remove(secret);
    }
    command.envs(variables.iter().copied());
    let not_started = |source| HookError::NotStarted { name, program: program.to_owned(), source };
    let mut hook = Running(Process::start(&mut command).map_err(not_started)?);
    tracing::debug!(target: LOG, name, "hook started");
    let (stdout, stderr) = hook.0.take_output();
    let said = actix::spawn(async move {
        tokio::join!(output::pass_on(name, stdout), output::pass_on(name, stderr));
    });
    let ended = hook.end_within(limit).await;
    drop(hook);
    // Err: whoever has left its group holds its streams open, and may go on doing so.
    let abort = said.abort_handle();
    if timeout(OUTPUT_TIMEOUT, said).await.is_err() {
        abort.abort();
    }
    match ended {
        Some(Ok(status)) if status.success() => Ok(()),
        Some(Ok(status)) => Err(HookError::Failed { name, end: end_of(status) }),
        Some(Err(error)) => Err(HookError::Failed { name, end: error.to_string() }),
        None => Err(HookError::TimedOut { name, limit }),
    }
}

/// A hook that runs. Dropped, what is left of its group is killed.
struct Running(Process);

impl Running {
    /// Waits for the end; returns nothing if it had to be brought about.
    async fn end_within(&mut self, limit: Duration) -> Option<io::Result<ExitStatus>> {
        if let Ok(ended) = timeout(limit, self.0.wait()).await {
            return Some(ended);
        }
        tell_group(self.0.pid(), Signal::TERM);
        // What is stopped would hear of it only when it goes on.
        tell_group(self.0.pid(), Signal::CONT);
        if timeout(GRACE, self.0.wait()).await.is_err() {
            tell_group(self.0.pid(), Signal::KILL);
            // Err: it hangs in the kernel; nobody can do more.
            let _ended = timeout(FORCE_TIMEOUT, self.0.wait()).await;
        }
        None
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        tell_group(self.0.pid(), Signal::KILL);
    }
}

fn end_of(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
