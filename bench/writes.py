"""What an app feels of a backup: a writer that commits small rows at a steady pace, and backups.

Imported, the file offers `measure_writes`; run as a program of its own it is the app, started by
`simplebackup run` as apps are.
"""

import array
import gc
import os
import signal
import sqlite3
import sys
import time

# Seconds from one commit to the next. Five hundred a second are more than apps of this kind make.
# With FULL each waits for the disk, and a writer that the disk can't keep up with would measure
# its own backlog.
PERIOD = {"NORMAL": 0.002, "FULL": 0.02}


def write_steadily(database, synchronous, report):
    """Commits a row every period until SIGUSR1, then writes down each one: when it was due, how
    long after that it was committed, and whether it met a lock.

    From when it was due: a writer that stands still would else wait once and not be late again.
    """
    connection = sqlite3.connect(database, timeout=0, isolation_level=None)
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, at REAL, text)")
    over = []
    signal.signal(signal.SIGUSR1, lambda *_: over.append(True))
    # Its own pauses are not SQLite's.
    gc.disable()
    period, figures = PERIOD[synchronous], array.array("d")
    text = "a small row, as an app would write it, with a name and a few words in it"
    due = time.monotonic()
    while not over:
        due += period
        while (early := due - time.monotonic()) > 0:
            time.sleep(early)
        busy = 0.0
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO events (at, text) VALUES (?, ?)", (due, text))
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname.split("_")[1] not in ("BUSY", "LOCKED"):
                raise
            busy = 1.0
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        figures.extend((due, time.monotonic() - due, busy))
    with open(f"{report}.new", "wb") as file:
        figures.tofile(file)
    os.rename(f"{report}.new", report)


if __name__ == "__main__":
    write_steadily(*sys.argv[1:])
    sys.exit(0)

# Not needed by the writer, whose start they would slow down.
import shutil  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
from pathlib import Path  # noqa: E402

from common import BenchError, say, wait_for  # noqa: E402
from contenders import our_env  # noqa: E402
from rounds import fresh_folder  # noqa: E402
from server import Server  # noqa: E402
from service import Service  # noqa: E402

# The first commits grow the log to its size.
WARM_UP = 3
# After a backup the log is brought into the database, which is neither with nor without one.
PAUSE = 2
# A quicker backup is followed by another: at a percentile of few commits chance decides.
WINDOW_MIN = 6
# Windows in a round: two of the same kind differ by more than the goal allows, so that the median of five
# would be chance, too. The loop, which is not judged, gets one.
TURNS = 3
# Forty backups of half a gigabyte, packed: the server frees what was deleted when it ends.
ROOM = 8_000_000_000


# What the windows are called.
WITHOUT, DURING = "without a backup", "during a backup"
# The least that anything costs which uses the other processors, be it ever so considerate: two
# processors of a machine may be two threads of one core, and share its caches and its frequency.
BESIDE = "beside a loop that only computes"


def measure_writes(work, tools, database, synchronous, rounds):
    """Returns the latencies of a writer by turns without and during a backup: `p50` and `p99` in
    seconds, medians over the windows, and how many commits met a lock.

    In real life the server runs on another machine. Here it takes the processor time that it needs from
    the backup, whose processors it shares, and keeps its files in memory if there is room: the writer
    must wait neither for it nor for its disk.
    """
    server = Server(work, tools, in_memory(work))
    yield_to_others(server.process.pid)
    keep_off_the_last_processor(server.process.pid)
    folder, env = fresh_folder(work, tools, database, "writes")
    report = folder / "report"
    writer = [sys.executable, __file__, "app.db", synchronous, str(report)]
    os.sync()
    service = Service(work, tools, folder, env | our_env(server), writer)
    time.sleep(WARM_UP)
    windows = {WITHOUT: [], DURING: [], BESIDE: []}
    seconds = WINDOW_MIN
    for number in range(rounds * TURNS):
        say(f"writes, synchronous={synchronous}: {number + 1} of {rounds * TURNS}")
        windows[WITHOUT].append(span(lambda length=seconds: time.sleep(length)))
        windows[DURING].append(span(service.back_up))
        # As long without as with one the next time.
        start, end = windows[DURING][-1]
        seconds = end - start
        time.sleep(PAUSE)
        if number % TURNS == 0:
            windows[BESIDE].append(span(compute_elsewhere))
    service.process.send_signal(signal.SIGUSR1)
    wait_for("the writer's report", report.exists, 30, service.process)
    figures = {name: summary(commits(report), spans) for name, spans in windows.items()}
    service.kill()
    server.end()
    return figures


def span(act):
    """Does something over and over for a window's length; returns its beginning and its end."""
    started = time.monotonic()
    while time.monotonic() < started + WINDOW_MIN:
        act()
    return started, time.monotonic()


def compute_elsewhere():
    """Keeps busy, for a window, the processors that a backup beside an app uses."""
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        keep_off_the_last_processor(loop.pid)
        time.sleep(WINDOW_MIN)
    finally:
        loop.kill()
        loop.wait()


def commits(report):
    """Returns all commits of the writer: when due, seconds late, whether it met a lock."""
    figures = array.array("d")
    figures.frombytes(Path(report).read_bytes())
    return list(zip(figures[0::3], figures[1::3], figures[2::3], strict=True))


def summary(all_commits, spans):
    """Returns the medians over the windows, of what was due in each of them."""
    found = {"p50": [], "p99": [], "max": [], "commits": 0, "busy": 0}
    for start, end in spans:
        window = [commit for commit in all_commits if start <= commit[0] < end]
        late = sorted(seconds for _, seconds, _ in window)
        if len(late) < 100:
            raise BenchError(f"{len(late)} commits are too few for a percentile")
        found["p50"].append(late[len(late) // 2])
        found["p99"].append(late[int(len(late) * 0.99)])
        found["max"].append(late[-1])
        found["commits"] += len(late)
        found["busy"] += int(sum(busy for _, _, busy in window))
    middle = {name: statistics.median(found[name]) for name in ("p50", "p99", "max")}
    return found | middle | {"windows": found["p99"]}


def in_memory(work):
    """Returns a folder in memory that has room for the backups, or None."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < ROOM:
        say("the server shares the disk with the writer: /dev/shm has no room")
        return None
    return memory / work.folder.name


def keep_off_the_last_processor(process):
    """Keeps all threads of a process where a backup beside an app stays, too."""
    processors = sorted(os.sched_getaffinity(0))[:-1]
    for thread in os.listdir(f"/proc/{process}/task"):
        if processors:
            os.sched_setaffinity(int(thread), processors)


def yield_to_others(process):
    """Gives all threads of a process, and its scheduling group, the lowest priority."""
    os.setpriority(os.PRIO_PGRP, os.getpgid(process), 19)
    group = Path(f"/proc/{process}/autogroup")
    if group.exists():
        group.write_text("19")
