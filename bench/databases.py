"""The databases: what an app keeps, made of real text and a fixed seed.

The text is what Debian says about its packages (`apt-cache dumpavail`). Larger databases go through
it several times, each time in another order. Two places with the same text are then megabytes
apart, and deflate looks back 32 KB: repeating does not make the text easier to compress.
"""

import hashlib
import os
import random
import shutil
import sqlite3
from datetime import datetime, timedelta, timezone

from common import MB, BenchError, run, say
from tools import PROJ

SEED = 7
# Less is no list of Debian's packages, but of a mirror's leftovers.
STANZAS_MIN = 10_000
BATCH = 100
SINCE = datetime(2020, 1, 1, tzinfo=timezone.utc)

SCHEMA = """
CREATE TABLE packages (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, section TEXT, maintainer TEXT, homepage TEXT,
    description TEXT NOT NULL);
CREATE TABLE releases (
    id INTEGER PRIMARY KEY, package_id INTEGER NOT NULL REFERENCES packages (id),
    version TEXT NOT NULL, depends TEXT, tags TEXT, path TEXT, sha256 TEXT, installed_kb INTEGER,
    download_bytes INTEGER, released_at TEXT NOT NULL, score REAL);
CREATE TABLE notes (
    id INTEGER PRIMARY KEY, package_id INTEGER NOT NULL REFERENCES packages (id),
    author TEXT NOT NULL, written_at INTEGER NOT NULL, stars INTEGER, text TEXT NOT NULL);
CREATE INDEX packages_by_name ON packages (name);
CREATE INDEX releases_by_package ON releases (package_id, released_at);
CREATE INDEX notes_by_time ON notes (written_at);
"""
TABLES = {"packages": 6, "releases": 11, "notes": 6}


class Texts:
    """The stanzas of all packages, as dictionaries, in the order of their names."""

    def __init__(self):
        dump = dumpavail()
        if dump.count("\nPackage: ") < STANZAS_MIN and os.geteuid() == 0:
            run(["apt-get", "update"], timeout=300)
            dump = dumpavail()
        self.stanzas = [fields(stanza) for stanza in dump.split("\n\n")]
        self.stanzas = [stanza for stanza in self.stanzas if "Package" in stanza]
        if len(self.stanzas) < STANZAS_MIN:
            raise BenchError("apt knows too few packages for real text: run apt-get update")
        # The order of the dump follows the files that apt fetched, not the names.
        self.stanzas.sort(key=lambda stanza: (stanza["Package"], stanza.get("Version", "")))
        self.digest = hashlib.sha256(dump.encode()).hexdigest()[:16]
        self.bytes = len(dump)

    def told(self):
        """Returns what tells one state of Debian's list from another."""
        return {"stanzas": len(self.stanzas), "bytes": self.bytes, "digest": self.digest}


def dumpavail():
    return run(["apt-cache", "dumpavail"], timeout=120)


def fields(stanza):
    """Returns the fields of a stanza; a line that begins with a space continues the one before."""
    found, name = {}, None
    for line in stanza.splitlines():
        if line.startswith((" ", "\t")):
            if name:
                found[name] += "\n" + line[1:]
        elif ": " in line:
            name, value = line.split(": ", 1)
            found[name] = value
    return found


class Rows:
    """Endless rows of the three tables, the same for the same seed and texts."""

    def __init__(self, texts):
        self.source = random.Random(SEED)
        # What does not change from one pass to the next is put together once: the fewer steps a
        # row takes, the sooner gigabytes are there.
        self.packages = [package(number, stanza) for number, stanza in enumerate(texts.stanzas)]
        self.releases = [release(stanza) for stanza in texts.stanzas]
        self.authors = [stanza.get("Maintainer", "nobody") for stanza in texts.stanzas]
        self.remarks = [self.remark(texts.stanzas, at) for at in range(len(texts.stanzas))]
        self.order, self.remark_order = self.shuffled(), self.shuffled()
        self.seen = set()
        self.written_at = int(SINCE.timestamp())

    def remark(self, stanzas, at):
        """Returns a text on one subject: what some neighbours by name are."""
        about = stanzas[at : at + self.source.randrange(2, 9)]
        return ". ".join(stanza.get("Description", stanza["Package"]) for stanza in about)

    def shuffled(self):
        """Yields the numbers of all packages, over and over, each time in another order."""
        order = list(range(len(self.packages)))
        while True:
            self.source.shuffle(order)
            yield from order

    def batch(self):
        """Returns some hundred rows for each table, by its name."""
        numbers = [next(self.order) for _ in range(BATCH)]
        # Not twice, where one pass ends and the next begins.
        fresh = [number for number in dict.fromkeys(numbers) if number not in self.seen]
        self.seen.update(fresh)
        return {
            "packages": [self.packages[number] for number in fresh],
            "releases": [self.release(number) for number in numbers],
            "notes": [self.note(number) for number in numbers],
        }

    def release(self, number):
        chance = self.source.random()
        released = SINCE + timedelta(seconds=int(chance * 200_000_000))
        return (None, number, *self.releases[number], released.isoformat(), chance * 5)

    def note(self, number):
        other = next(self.remark_order)
        self.written_at += 1 + other % 60
        words = (self.authors[other], self.written_at, other % 5 + 1, self.remarks[other])
        return (None, number, *words)


def package(number, stanza):
    # Debian's list has the long descriptions in a file of its own, which a minimal system does
    # not fetch; some have one here.
    text = stanza.get("Description") or stanza.get("Description-en", "")
    names = ("Section", "Maintainer", "Homepage")
    return (number, stanza["Package"], *(stanza.get(name) for name in names), text)


def release(stanza):
    """Returns what a release takes from its package."""
    texts = (stanza.get(name) for name in ("Depends", "Tag", "Filename", "SHA256"))
    sizes = (int(stanza.get(name, 0)) for name in ("Installed-Size", "Size"))
    return (stanza.get("Version", ""), *texts, *sizes)


def generate(path, megabytes, texts):
    """Makes a database of at least so many megabytes (10^6), in WAL mode, with its log empty."""
    say(f"generate a database of {megabytes} MB")
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -200000")
    database.executescript(SCHEMA)
    rows = Rows(texts)
    pages = int(megabytes * MB) // 4096
    while database.execute("PRAGMA page_count").fetchone()[0] < pages:
        database.execute("BEGIN")
        for table, batch in rows.batch().items():
            values = ", ".join("?" * TABLES[table])
            database.executemany(f"INSERT INTO {table} VALUES ({values})", batch)
        database.execute("COMMIT")
    if database.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise BenchError("SQLite does not take WAL here")
    database.close()


def copy_proj(path):
    """Copies PROJ's database of coordinate systems, 8.3 MB, in the journal mode that it has."""
    if not PROJ.exists():
        raise BenchError(f"{PROJ} is missing: it is in Debian's proj-data")
    shutil.copy(PROJ, path)


def row_counts(path):
    """Returns the number of rows of each table. What only another build of SQLite can read, such
    as a virtual table, is left out."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
    # Litestream keeps two tables of its own in the database.
    names = [name for (name,) in database.execute(sql) if not name.startswith("_litestream_")]
    count = lambda name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]
    counts = {name: count(name) for name in names}
    database.close()
    return counts
