//! The app as a child process: it inherits our streams, and is asked once before it is made to
//! leave. What it has in common with other children of ours is `process`.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use futures::future::LocalBoxFuture;
use rustix::process::{Pid, Signal};
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::restore::Restored;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::SERVER_LOG;
use crate::app::{AppEnd, AppError, Application, FORCE_TIMEOUT, RunningApp};
use crate::process::{Process, bury_orphans_forever, tell, tell_group};

/// A program and its arguments, run as a child.
#[derive(Debug)]
pub struct ChildProcess {
    command: Vec<OsString>,
    /// The child, once it runs. Written by `start`, read by `drain`.
    running: Option<Running>,
}

#[derive(Debug, Clone)]
struct Running {
    pid: Pid,
    end: watch::Receiver<Option<AppEnd>>,
}

impl ChildProcess {
    /// Prepares `command`: the program and its arguments.
    #[must_use]
    pub fn new(command: Vec<OsString>) -> Self {
        Self { command, running: None }
    }

    fn spawn(&mut self) -> Result<RunningApp, AppError> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(AppError::NotFound(String::new()));
        };
        let name = program.to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.args(arguments);
        // Listened to before the app runs: nothing that is sent from then on is lost.
        let heard = [
            (signal(SignalKind::user_defined1()), Signal::USR1),
            (signal(SignalKind::user_defined2()), Signal::USR2),
        ];
        let process = Process::start(&mut command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => AppError::NotFound(name.clone()),
            io::ErrorKind::PermissionDenied => AppError::NotExecutable(name.clone()),
            _ => AppError::Failed(format!("{name}: {error}")),
        })?;
        let pid = process.pid();
        let (sender, end) = watch::channel(None);
        actix::spawn(wait_for(process, sender));
        for (signals, passed) in heard {
            actix::spawn(pass_on(signals, passed, pid, end.clone()));
        }
        bury_orphans();
        self.running = Some(Running { pid, end: end.clone() });
        let id = pid.as_raw_pid().cast_unsigned();
        Ok(RunningApp { pid: Some(id), ended: Box::pin(wait_for_end(end)) })
    }
}

/// As PID 1, buries orphans: what `docker exec` leaves behind becomes ours, and would stay as
/// zombies. Does nothing otherwise.
///
/// Not for a program that has children of its own: it would never hear how they ended.
pub fn bury_orphans() {
    if std::process::id() == 1 {
        actix::spawn(bury_orphans_forever());
    }
}

impl Application for ChildProcess {
    fn is_in_process(&self) -> bool {
        false
    }

    fn start(
        &mut self,
        _restored: Restored,
    ) -> LocalBoxFuture<'static, Result<RunningApp, AppError>> {
        Box::pin(std::future::ready(self.spawn()))
    }

    fn drain(&mut self, deadline: Deadline) -> LocalBoxFuture<'static, AppEnd> {
        let Some(Running { pid, end }) = self.running.clone() else {
            return Box::pin(std::future::ready(AppEnd::Left));
        };
        Box::pin(async move {
            if let Some(end) = *end.borrow() {
                return end;
            }
            tell(pid, Signal::TERM);
            // A stopped app would hear of it only when it goes on.
            tell(pid, Signal::CONT);
            if let Ok(end) = deadline.limit(wait_for_end(end.clone())).await {
                return end;
            }
            tracing::warn!(
                target: SERVER_LOG,
                "WARNING: Application did not leave within shutdown.app_timeout, killing it; have it end \
                 on SIGTERM, or allow more time"
            );
            tell_group(pid, Signal::KILL);
            let killed = AppEnd::Signalled(Signal::KILL.as_raw());
            tokio::time::timeout(FORCE_TIMEOUT, wait_for_end(end)).await.unwrap_or(killed)
        })
    }

    fn abandon(&mut self) {
        if let Some(running) = self.running.take()
            && running.end.borrow().is_none()
        {
            tell_group(running.pid, Signal::KILL);
        }
    }
}

impl Drop for ChildProcess {
    /// An app that nobody watches any more must not go on writing.
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Waits for the child, then ends what is left of its group, so that no grandchild writes to the
/// database while the final backup runs.
async fn wait_for(mut process: Process, sender: watch::Sender<Option<AppEnd>>) {
    let end = match process.wait().await {
        Ok(status) => end_of(status),
        Err(error) => {
            tracing::error!(target: SERVER_LOG, "ERROR: Cannot wait for the application: {error}");
            AppEnd::Exited(1)
        }
    };
    tell_group(process.pid(), Signal::KILL);
    sender.send_replace(Some(end));
}

/// Hands a signal on to the app, whose affair it is; without a handler it would end us.
async fn pass_on(
    signals: io::Result<tokio::signal::unix::Signal>,
    passed: Signal,
    pid: Pid,
    end: watch::Receiver<Option<AppEnd>>,
) {
    // Err: it then ends us, as it does without this.
    let Ok(mut signals) = signals else { return };
    while signals.recv().await.is_some() {
        if end.borrow().is_none() {
            tell(pid, passed);
        }
    }
}

async fn wait_for_end(mut end: watch::Receiver<Option<AppEnd>>) -> AppEnd {
    match end.wait_for(Option::is_some).await {
        Ok(end) => end.unwrap_or(AppEnd::Left),
        // The waiting task is gone only when the runtime is.
        Err(_closed) => AppEnd::Left,
    }
}

fn end_of(status: ExitStatus) -> AppEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => AppEnd::Exited(code),
        (None, Some(signal)) => AppEnd::Signalled(signal),
        (None, None) => AppEnd::Exited(1),
    }
}
