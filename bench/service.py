"""The service beside an app: its memory and its wake-ups when idle, its stop, its requests."""

import json
import os
import select
import shutil
import signal
import time
import urllib.error
import urllib.request

from common import BenchError, free_port, say, tail, wait_for
from contenders import litestream_files, our_env
from proxy import CountingProxy
from rounds import fresh_folder
from server import Server, keys

# Caches of the allocator and connections that nobody uses any more are given back by then.
SETTLE = 10
# Long enough to see what comes once a minute.
IDLE = 150
TOKEN = "test-token"
# Long enough for half a gigabyte on a slow disk.
POST_TIMEOUT = 600


class Service:
    """A running `simplebackup run`, ready, with an app that sleeps unless another is given. No
    backup is due before the next new year."""

    def __init__(self, work, tools, folder, env, app=("sleep", "100000")):
        self.work = work
        self.address = f"127.0.0.1:{free_port()}"
        env = env | {
            "SIMPLE_BACKUP_HTTP_ADDRESS": self.address,
            "SIMPLE_BACKUP_HTTP_TOKEN": TOKEN,
            "SIMPLE_BACKUP_BACKUP_SCHEDULE": "0 0 0 1 1 *",
        }
        command = [tools.ours, "run", "--simple-backup", "--", *app]
        self.process = work.start("simplebackup", command, env, folder)
        wait_for("readiness", self.is_ready, 60, self.process)

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.address}/health/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def back_up(self):
        """Asks for a backup and waits for it. Raises BenchError with the answer if it failed."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"http://{self.address}/backup"
        request = urllib.request.Request(url, method="POST", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=POST_TIMEOUT) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            log = tail(self.process.log)
            raise BenchError(f"POST /backup: {error.code} {said}\n{log}") from error

    def stop(self, seconds):
        """Sends SIGTERM and returns the seconds to the exit, and the exit code."""
        pidfd = os.pidfd_open(self.process.pid)
        try:
            started = time.monotonic()
            self.process.send_signal(signal.SIGTERM)
            if not select.select([pidfd], [], [], seconds)[0]:
                raise BenchError(f"no exit {seconds} s after SIGTERM:\n{tail(self.process.log)}")
            took = time.monotonic() - started
        finally:
            os.close(pidfd)
        return took, self.process.wait()

    def kill(self):
        self.work.kill(self.process)


def measure_idle(work, tools, database):
    """Returns the resident bytes of the idle service and of idle Litestream, and how often a thread
    of either woke up in `seconds` seconds.

    The service speaks TLS, with the authorities of this machine; Litestream, which would take more
    with it, does not.
    """
    server = Server(work, tools)
    folder, env = fresh_folder(work, tools, database, "idle-ours")
    service = Service(work, tools, folder, env | our_env(server, tls=True))
    folder, env = fresh_folder(work, tools, database, "idle-litestream")
    (folder / "litestream.yml").write_text(litestream_files(server, "litestream")["litestream.yml"])
    command = [tools.litestream, "replicate", "-config", "litestream.yml"]
    litestream = work.start("litestream", command, env | keys(), folder)
    # It is idle once everything is replicated.
    wait_for("replication", lambda: server.stored("litestream") > 0, 60, litestream)
    processes = {"ours": service.process, "litestream": litestream}
    say(f"idle, for {SETTLE + IDLE} s")
    time.sleep(SETTLE)
    before = {name: voluntary_switches(process.pid) for name, process in processes.items()}
    time.sleep(IDLE)
    figures = {"seconds": IDLE}
    for name, process in processes.items():
        if process.poll() is not None:
            raise BenchError(f"{process.title} ended while idle:\n{tail(process.log)}")
        after = voluntary_switches(process.pid)
        woke = sum(count - before[name].get(thread, 0) for thread, count in after.items())
        figures[name] = {"resident": resident_bytes(process.pid), "wakeups": woke}
    # Also to see that the store behind TLS was really configured.
    service.back_up()
    time.sleep(SETTLE)
    figures["ours"]["resident_after_backup"] = resident_bytes(service.process.pid)
    service.kill()
    work.kill(litestream)
    server.end()
    return figures


def resident_bytes(process):
    """Returns what the kernel counts page by page; VmRSS may lag behind by megabytes."""
    with open(f"/proc/{process}/smaps_rollup") as rollup:
        line = next(line for line in rollup if line.startswith("Rss:"))
    return int(line.split()[1]) * 1024


def voluntary_switches(process):
    """Returns how often each thread went to sleep: as often as it woke up."""
    counts = {}
    for thread in os.listdir(f"/proc/{process}/task"):
        with open(f"/proc/{process}/task/{thread}/status") as status:
            line = next(line for line in status if line.startswith("voluntary_ctxt_switches"))
        counts[thread] = int(line.split()[1])
    return counts


def measure_stop(work, tools, database, rounds):
    """Returns the seconds from SIGTERM to the exit, by round: the final backup included, which is
    looked for in the store."""
    server = Server(work, tools)
    seconds = []
    for number in range(rounds):
        say(f"stop {number + 1} of {rounds}")
        server.clear("ours")
        folder, env = fresh_folder(work, tools, database, "stop")
        service = Service(work, tools, folder, env | our_env(server))
        os.sync()
        took, code = service.stop(60)
        # 143: that SIGTERM ended `sleep`, whose code becomes ours.
        if code not in (0, 143) or len(server.objects("ours")) != 1:
            log = tail(service.process.log)
            raise BenchError(f"exit code {code} and no final backup in the store:\n{log}")
        seconds.append(took)
        shutil.rmtree(folder)
    server.end()
    return seconds


def measure_requests(work, tools, database, backups=5):
    """Returns what each of so many backups of one service asked of the store: counts by operation.

    Three are kept, so the fourth and the fifth delete one.
    """
    server = Server(work, tools)
    proxy = CountingProxy(server.host)
    folder, env = fresh_folder(work, tools, database, "requests")
    env |= our_env(server) | {"MINIO_ENDPOINT": proxy.host}
    service = Service(work, tools, folder, env)
    proxy.take()
    counts = []
    for number in range(backups):
        say(f"{database.name}: requests of backup {number + 1}")
        service.back_up()
        # A request that comes after the answer counts, too.
        time.sleep(0.5)
        counts.append(proxy.take())
    if len(server.objects("ours")) != 3:
        raise BenchError(f"not three backups are kept: {server.objects('ours')}")
    service.kill()
    proxy.end()
    server.end()
    return counts
