"""Services for the browser: the real binary in front of a small app, each in a folder of its own."""

import json
import os
import pathlib
import random
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

TOKEN = "the-right-token"
APP = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
# Next year: nothing is due while a test looks.
NEVER = "0 0 0 1 1 *"
PATIENCE = 60


def eventually(what, holds):
    """Waits until something holds, and returns it."""
    until = time.monotonic() + PATIENCE
    while True:
        value = holds()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.05)


class Service:
    """A service that runs until the `with` around it ends."""

    def __init__(self, binary, schedule=NEVER, name="app.db", **settings):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="simplebackup-page-"))
        self.database = self.root / name
        self.store = self.root / "backups"
        self.store.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{self.address}/"
        self.environment = {
            "PATH": os.environ["PATH"],
            "SIMPLE_BACKUP_DATABASE_PATH": str(self.database),
            "SIMPLE_BACKUP_STORE_URL": f"file://{self.store}",
            "SIMPLE_BACKUP_HTTP_ADDRESS": self.address,
            "SIMPLE_BACKUP_HTTP_TOKEN": TOKEN,
            "SIMPLE_BACKUP_BACKUP_SCHEDULE": schedule,
            **{f"SIMPLE_BACKUP_{key}": value for key, value in settings.items()},
        }
        self.binary = str(pathlib.Path(binary).resolve())
        self.log = (self.root / "service.log").open("wb")
        self.process = None
        self.source = random.Random(7)
        with sqlite3.connect(self.database) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
        self.write(500)

    def write(self, rows):
        """Writes rows as the app would."""
        with sqlite3.connect(self.database, timeout=30) as database:
            texts = [("%x" % self.source.getrandbits(4000),) for _ in range(rows)]
            database.executemany("INSERT INTO notes (text) VALUES (?)", texts)

    def run(self, *words):
        subprocess.run([self.binary, *words], env=self.environment, cwd=self.root, check=True,
                       stdout=self.log, stderr=self.log)

    def age(self, hours):
        """Makes the one stored backup one of so many hours ago."""
        [backup] = self.store.glob("db-backup-*")
        second = int(time.time() / 3600) * 3600 - hours * 3600
        older = self.root / f"db-backup-{second}.db.gz"
        backup.rename(older)
        os.utime(older, (second, second))

    def __enter__(self):
        command = [self.binary, "run", "--simple-backup", "--", *APP]
        self.process = subprocess.Popen(command, env=self.environment, cwd=self.root,
                                        stdout=self.log, stderr=self.log)
        eventually("the service is up", lambda: self.status().get("next_tick"))
        return self

    def __exit__(self, *_error):
        self.stop()
        self.log.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)

    def status(self):
        try:
            with urllib.request.urlopen(f"{self.url}status", timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, OSError):
            return {}

    def post(self, path):
        request = urllib.request.Request(f"{self.url}{path}", method="POST",
                                         headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)
