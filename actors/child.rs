//! The app as a child process: it inherits our streams, leads a process group of its own, dies
//! with us, and is asked once before it is made to leave. As PID 1 we bury orphans too.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use futures::future::LocalBoxFuture;
use rustix::process::{Pid, Signal, WaitOptions};
use simplebackup_engine::deadline::Deadline;
use simplebackup_engine::restore::Restored;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::SERVER_LOG;
use crate::app::{AppEnd, AppError, Application, FORCE_TIMEOUT, RunningApp};

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
        command.args(arguments).process_group(0);
        die_with_parent(&mut command);
        // Listened to before the app runs: nothing that is sent from then on is lost.
        let heard = [
            (signal(SignalKind::user_defined1()), Signal::USR1),
            (signal(SignalKind::user_defined2()), Signal::USR2),
        ];
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => AppError::NotFound(name.clone()),
            io::ErrorKind::PermissionDenied => AppError::NotExecutable(name.clone()),
            _ => AppError::Failed(format!("{name}: {error}")),
        })?;
        let id = child.id();
        let pid = id.and_then(|id| Pid::from_raw(id.cast_signed())).ok_or_else(|| {
            AppError::Failed(format!("{name} ended before its process id was read"))
        })?;
        let (sender, end) = watch::channel(None);
        actix::spawn(wait_for(child, pid, sender));
        for (signals, passed) in heard {
            actix::spawn(pass_on(signals, passed, pid, end.clone()));
        }
        if std::process::id() == 1 {
            actix::spawn(bury_all_but(Some(pid)));
        }
        self.running = Some(Running { pid, end: end.clone() });
        Ok(RunningApp { pid: id, ended: Box::pin(wait_for_end(end)) })
    }
}

/// As PID 1 without an app, buries orphans: what `docker exec` leaves behind becomes ours, and
/// would stay as zombies. Does nothing otherwise.
///
/// Not for a program that has children of its own: it would never hear how they ended.
pub fn bury_orphans() {
    if std::process::id() == 1 {
        actix::spawn(bury_all_but(None));
    }
}

impl Application for ChildProcess {
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
                "WARNING: Application did not leave within shutdown.app_timeout, killing it"
            );
            kill_group(pid);
            let killed = AppEnd::Signalled(Signal::KILL.as_raw());
            tokio::time::timeout(FORCE_TIMEOUT, wait_for_end(end)).await.unwrap_or(killed)
        })
    }

    fn abandon(&mut self) {
        if let Some(running) = self.running.take()
            && running.end.borrow().is_none()
        {
            kill_group(running.pid);
        }
    }
}

impl Drop for ChildProcess {
    /// An app that nobody watches any more must not go on writing.
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Has the kernel kill the child when we die, even by SIGKILL: an app that goes on without us
/// would write what no backup holds.
///
/// The kernel means the *thread* that spawns; ours is the main thread, which lives as long as
/// the process.
#[expect(unsafe_code, reason = "pre_exec is the only place for prctl; see below")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id().cast_signed();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // We may have died between the fork and the line above.
        let is_orphan = rustix::process::getppid().map(Pid::as_raw_pid) != Some(parent);
        if is_orphan && parent != 1 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; `prepare` makes two
    // system calls (prctl, getppid), allocates nothing and takes no lock.
    unsafe { command.pre_exec(prepare) };
}

/// Waits for the child, then ends what is left of its group, so that no grandchild writes to the
/// database while the final backup runs.
async fn wait_for(mut child: Child, pid: Pid, sender: watch::Sender<Option<AppEnd>>) {
    let end = match child.wait().await {
        Ok(status) => end_of(status),
        Err(error) => {
            tracing::error!(target: SERVER_LOG, "ERROR: Cannot wait for the application: {error}");
            AppEnd::Exited(1)
        }
    };
    kill_group(pid);
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

fn tell(pid: Pid, signal: Signal) {
    // ESRCH: it has just ended, and the waiting task is about to say so.
    let _ended = rustix::process::kill_process(pid, signal);
}

fn kill_group(pid: Pid) {
    // ESRCH: nobody is left in the group.
    let _ended = rustix::process::kill_process_group(pid, Signal::KILL);
}

/// As PID 1, waits for every process that has ended, whoever was its parent. The app is left to
/// the task that waits for it.
async fn bury_all_but(app: Option<Pid>) {
    let mut children = match signal(SignalKind::child()) {
        Ok(children) => children,
        Err(error) => {
            tracing::warn!(target: SERVER_LOG, "WARNING: Orphans will stay as zombies: {error}");
            return;
        }
    };
    loop {
        // One signal may stand for several ends, so each looks at all processes. The first look
        // comes before any signal: for those who ended before we listened.
        for orphan in zombies().filter(|&pid| Some(pid) != app) {
            let _reaped = rustix::process::waitpid(Some(orphan), WaitOptions::NOHANG);
        }
        if children.recv().await.is_none() {
            return;
        }
    }
}

/// Returns the children of PID 1 that have ended and were not waited for. From `/proc`, because
/// waiting for "any child" would also take the app's status from the task that waits for it.
fn zombies() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // "pid (name) state ppid …", where the name may hold anything, brackets too.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let is_ours = fields.next() == Some("Z") && fields.next() == Some("1");
        if is_ours { Pid::from_raw(pid) } else { None }
    })
}
