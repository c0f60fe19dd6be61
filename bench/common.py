"""What every part shares: failures that end the script, and processes and folders that are gone at
its end. Knows nothing of backups."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

# Decimal, as in the goals: 24 MB are 24,000,000 bytes.
MB = 1_000_000
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
REPOSITORY = Path(__file__).resolve().parent.parent


class BenchError(Exception):
    """Ends the script: what happened, with what the failed tool itself said."""


def exit_code(main):
    """Runs a script and returns its exit code: 2 for whatever goes wrong."""
    try:
        return main()
    except BenchError as error:
        print(f"FAILED: {error}", file=sys.stderr)
    except Exception:
        # A defect of ours: where it happened is what is to be known.
        traceback.print_exc()
    return 2


class Work:
    """A temporary folder and the processes that are started in it; both end with the script."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="simplebackup-bench-"))
        self.processes = []
        self.deeds = []
        self.count = 0
        atexit.register(self.end)
        # As an exception, so that `finally` and `atexit` come to their turn.
        for number in SIGNALS:
            signal.signal(number, interrupt)

    def at_end(self, deed):
        """Calls `deed` when the script ends, however it does."""
        self.deeds.append(deed)

    def log(self, name):
        """Returns a file of its own for what a process says."""
        self.count += 1
        return self.folder / f"{self.count:04d}-{name}.log"

    def start(self, name, command, env, cwd=None):
        """Starts a process in a group of its own, so that its children end with it."""
        log = self.log(name)
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                env=env,
                cwd=cwd or self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process.log = log
        process.title = name
        self.processes.append(process)
        return process

    def kill(self, process):
        """Ends a process and its children without mercy, and waits for it."""
        kill_group(process)
        process.wait()
        if process in self.processes:
            self.processes.remove(process)

    def end(self):
        """Ends everything that was started, and removes the folder."""
        while self.deeds:
            self.deeds.pop()()
        for process in list(self.processes):
            self.kill(process)
        shutil.rmtree(self.folder, ignore_errors=True)


def interrupt(number, _frame):
    """Turns a signal into an ordinary end of the script. A second one must not break off that."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise BenchError(f"stopped by {signal.Signals(number).name}")


def kill_group(process):
    """Kills a process that is the head of a group, and the group."""
    # A reaped leader's id may belong to somebody else by now.
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def say(text):
    """Tells the story, on standard error: standard output is for the tables."""
    print(f"== {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def tail(log, lines=30):
    """Returns the last lines of a file, for an error."""
    text = Path(log).read_text(errors="replace").splitlines()
    return "\n".join(text[-lines:])


def run(command, *, env=None, cwd=None, timeout=60):
    """Runs a command that is not measured and returns what it printed.

    Raises BenchError with its standard error when it fails or takes longer than `timeout` seconds.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, env=env, cwd=cwd, timeout=timeout, capture_output=True, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise BenchError(f"{words[0]} is not there: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{' '.join(words)} took longer than {timeout} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise BenchError(f"{' '.join(words)} ended with {done.returncode}:\n{said}")
    return done.stdout.decode(errors="replace")


def free_port():
    """Returns a port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, claim, seconds, process=None):
    """Waits until `claim()` holds. Raises BenchError when it does not in time or `process` ends."""
    end = time.monotonic() + seconds
    while not claim():
        if process and process.poll() is not None:
            said = tail(process.log)
            raise BenchError(f"{process.title} ended with {process.returncode}:\n{said}")
        if time.monotonic() > end:
            said = f":\n{tail(process.log)}" if process else ""
            raise BenchError(f"{what} did not happen within {seconds} s{said}")
        time.sleep(0.02)


def clean_environment():
    """Returns the environment without what would change a tool behind our back: stores, keys,
    proxies and authorities (Litestream refuses AWS_CA_BUNDLE with a plain endpoint)."""
    prefixes = ("AWS_", "MINIO_", "SIMPLE_BACKUP_", "RESTIC_", "LITESTREAM_", "SQLITE_", "SSL_CERT")
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(prefixes) and not name.lower().endswith("_proxy")
    }
    # The AWS CLI must not read a person's profile, nor look for a cloud's metadata.
    env |= {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    return env | {"AWS_EC2_METADATA_DISABLED": "true"}
