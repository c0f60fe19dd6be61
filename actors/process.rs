//! What all child processes of ours have in common, the app and the hooks: a process group of its
//! own, its death with ours, and a task that alone hears how it ended. As PID 1 we bury orphans too.

use std::io;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitOptions};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::SERVER_LOG;

/// The children for which a task waits: as PID 1 we must not bury them, or it would never hear how
/// they ended. Held while one is started, so that none is buried before it is listed.
static WAITED_FOR: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn waited_for() -> MutexGuard<'static, Vec<Pid>> {
    // Nothing that is done under the lock leaves the list half changed.
    WAITED_FOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child process that leads a process group of its own.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
}

impl Process {
    /// Starts `command`, on the main thread.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        command.process_group(0);
        die_with_parent(command);
        let mut waited_for = waited_for();
        let child = command.spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.ok_or_else(|| io::Error::other("ended before its process id was read"))?;
        waited_for.push(pid);
        Ok(Self { child, pid })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for the end; may be dropped and called again.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Takes what it prints, as far as it was piped.
    pub(crate) fn take_output(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        waited_for().retain(|&pid| pid != self.pid);
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

/// Sends a signal to one process.
pub(crate) fn tell(pid: Pid, signal: Signal) {
    // ESRCH: it has just ended, and the waiting task is about to say so.
    let _ended = rustix::process::kill_process(pid, signal);
}

/// Sends a signal to all of a group.
pub(crate) fn tell_group(pid: Pid, signal: Signal) {
    // ESRCH: nobody is left in the group.
    let _ended = rustix::process::kill_process_group(pid, signal);
}

/// As PID 1, waits for every process that has ended, whoever was its parent. Those for which a
/// task waits are left to it.
pub(crate) async fn bury_orphans_forever() {
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
        bury_orphans_now();
        if children.recv().await.is_none() {
            return;
        }
    }
}

fn bury_orphans_now() {
    let waited_for = waited_for();
    for orphan in zombies().filter(|pid| !waited_for.contains(pid)) {
        let _reaped = rustix::process::waitpid(Some(orphan), WaitOptions::NOHANG);
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
