"""Runs one command and measures all of it: wall time, processor time, peak memory, temporary disk.

The file has two lives. Imported, it offers `measured`. Run as a program of its own it is the
launcher between the script and the command. It is needed because Linux counts towards a process's
`ru_maxrss` the memory of the process that called exec: started right from the script, which holds
the texts of a database, every command would seem to take as much. The launcher is small; no peak
below its own (`floor`) can be seen.
"""

import json
import os
import stat
import subprocess
import sys
import threading
import time


def launch(report, command):
    """Runs the command to its end and writes what it took to the descriptor `report`."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            os.close(report)
            os.execvp(command[0], command)
        except OSError as error:
            print(f"{command[0]}: {error}", file=sys.stderr)
        os._exit(127)
    # The usage of a process includes that of the children it waited for: a pipeline's shell
    # brings the sum of its processor times and the largest of its memories.
    _, status, usage = os.wait4(child, 0)
    figures = {
        "wall": time.monotonic() - started,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * 1024,
        "code": os.waitstatus_to_exitcode(status),
    }
    os.write(report, json.dumps(figures).encode())


if __name__ == "__main__":
    launch(int(sys.argv[1]), sys.argv[2:])
    sys.exit(0)

from common import BenchError, kill_group, tail  # noqa: E402  (the launcher has no use for it)


def measured(work, name, command, env, cwd, *, timeout, sampler=None):
    """Runs `command` and returns its figures: `wall` and `cpu` in seconds, `peak` in bytes (the
    largest single process), and with a sampler `disk` in bytes.

    Raises BenchError with the command's own words when it fails, or when it takes longer than
    `timeout` seconds.
    """
    log = work.log(name)
    reader, writer = os.pipe()
    words = [sys.executable, "-I", "-S", __file__, str(writer), *[str(word) for word in command]]
    with open(log, "wb") as output, open(reader, "rb") as report:
        process = subprocess.Popen(
            words,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[writer],
            start_new_session=True,
        )
        os.close(writer)
        work.processes.append(process)
        if sampler:
            sampler.start(process.pid)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{name} took longer than {timeout} s:\n{tail(log)}") from error
        finally:
            kill_group(process)
            process.wait()
            work.processes.remove(process)
            disk = sampler.stop() if sampler else None
        figures = json.loads(report.read() or "null")
    if figures is None or figures["code"] != 0:
        code = figures["code"] if figures else "no figures"
        raise BenchError(f"{name} ended with {code}:\n{tail(log)}")
    if disk is not None:
        figures["disk"] = disk
    log.unlink()
    return figures


def floor(work, env):
    """Returns the peak in bytes that the launcher shows for a command that does nothing."""
    return measured(work, "true", ["true"], env, work.folder, timeout=10)["peak"]


class DiskSampler:
    """Looks every few milliseconds at what a folder holds besides what was there before, and at
    what the processes of the session have open that has no name any more."""

    # A snapshot of 8 MB lives for some tens of milliseconds.
    PERIOD = 0.003

    def __init__(self, folder):
        self.folder = str(folder)
        self.peak = 0

    def start(self, session):
        """Starts to look, at the folder and at the processes of `session`."""
        self.session = session
        self.before = self.named()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def stop(self):
        """Returns the most bytes of disk that were taken at once."""
        self.over.set()
        self.thread.join()
        return max(self.peak, self.taken())

    def look(self):
        while not self.over.wait(self.PERIOD):
            self.peak = max(self.peak, self.taken())

    def taken(self):
        return self.named() + self.nameless() - self.before

    def named(self):
        """Returns the bytes on disk of all files in the folder."""
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                try:
                    total += os.lstat(os.path.join(folder, name)).st_blocks * 512
                except FileNotFoundError:
                    pass  # Gone since the folder was read.
        return total

    def nameless(self):
        """Returns the bytes on disk of deleted files that the session's processes have open."""
        files = {}
        for process in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.getsid(int(process)) != self.session:
                    continue
                for descriptor in os.scandir(f"/proc/{process}/fd"):
                    found = descriptor.stat()
                    if found.st_nlink == 0 and stat.S_ISREG(found.st_mode):
                        files[(found.st_dev, found.st_ino)] = found.st_blocks * 512
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                pass  # The process or the descriptor ended meanwhile.
        return sum(files.values())
