"""Backups and restores, in turn: every contender once, then every contender again."""

import os
import shutil

from common import BenchError, say
from contenders import LIMIT, backups, restores
from databases import row_counts
from measure import DiskSampler, measured
from server import Server

# Twenty times what the slowest takes for half a gigabyte.
TIMEOUT = 600


def measure_backups(work, tools, database, rounds):
    """Returns the figures of each backup, by contender: a list of rounds.

    Each run has a fresh copy of the database and an empty place in the store, so that all rounds
    are the same work: no retention, no older state, nothing that is stored already.
    """
    server = Server(work, tools)
    ways = backups(tools, server)
    runs = {way.name: [] for way in ways}
    # The disk is watched in a round of its own, because that takes time from the tool; programs
    # and server are warm after it.
    disk = {}
    for way in ways:
        say(f"{database.name}: backup, disk: {way.name}")
        disk[way.name] = backup(work, tools, server, database, way, sample=True)["disk"]
    for number in range(rounds):
        for way in ways:
            say(f"{database.name}: backup {number + 1} of {rounds}: {way.name}")
            figures = backup(work, tools, server, database, way)
            runs[way.name].append(figures | {"disk": disk[way.name]})
    server.end()
    return runs


def backup(work, tools, server, database, way, sample=False):
    """Makes one backup and returns its figures, with `stored` in bytes."""
    if way.prefix:
        server.clear(way.prefix)
    folder, env = fresh_folder(work, tools, database)
    way.set_up(folder, env)
    # What was written before is on its way to the disk, at nobody's expense.
    os.sync()
    sampler = DiskSampler(folder) if sample else None
    command = (way.command, env | way.env, folder)
    figures = measured(work, "backup", *command, timeout=TIMEOUT, sampler=sampler)
    figures["stored"] = server.stored(way.prefix) if way.prefix else 0
    if way.prefix and figures["stored"] == 0:
        raise BenchError(f"{way.name} stored nothing")
    if way.name == LIMIT:
        figures["vacuumed"] = (folder / "tmp/snapshot.db").stat().st_size
    shutil.rmtree(folder)
    return figures


def measure_restores(work, tools, database, rounds):
    """Returns the figures of each restore, by contender. Every restored database is looked at."""
    server = Server(work, tools)
    ways = restores(tools, server)
    expected = row_counts(database.path)
    runs = {way.name: [] for way in ways}
    places = {}
    for number, way in enumerate(ways):
        folder, env = fresh_folder(work, tools, database, f"restore-{number}")
        way.set_up(folder, env)
        places[way.name] = (folder, env | way.env)
    # The first round is to warm up, as that of the disk is for backups.
    for number in range(rounds + 1):
        for way in ways:
            say(f"{database.name}: restore {number} of {rounds}: {way.name}")
            folder, env = places[way.name]
            os.sync()
            figures = measured(work, "restore", way.command, env, folder, timeout=TIMEOUT)
            if row_counts(folder / "restored.db") != expected:
                raise BenchError(f"{way.name} restored other rows than there were")
            # With what SQLite laid beside it while the rows were counted.
            for file in folder.glob("restored.db*"):
                file.unlink()
            if number > 0:
                runs[way.name].append(figures)
    server.end()
    for folder, _ in places.values():
        shutil.rmtree(folder)
    return runs


def fresh_folder(work, tools, database, name="backup"):
    """Returns a folder that holds a copy of the database as `app.db`, and an environment that puts
    temporary files into its `tmp`."""
    folder = work.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    temporary = folder / "tmp"
    temporary.mkdir(parents=True)
    shutil.copy(database.path, folder / "app.db")
    places = {"TMPDIR": str(temporary), "SQLITE_TMPDIR": str(temporary), "HOME": str(folder)}
    return folder, tools.env | places
