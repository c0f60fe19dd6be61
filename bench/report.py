"""Puts the figures into Markdown tables."""

from statistics import median

from common import MB
from contenders import OURS
from goals import middle


def document(results, goals):
    """Returns everything that was measured, as Markdown."""
    parts = [head(results)]
    for part, title in (("backup", "Backup"), ("restore", "Restore")):
        for size, runs in results.get(part, {}).items():
            parts.append(contenders(f"{title}, {size}", runs, part == "backup"))
    parts += [section(results[name]) for name, section in SECTIONS.items() if name in results]
    parts.append(goal_table(goals))
    return "\n\n".join(parts)


def table(names, rows):
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def head(results):
    machine, versions = results["machine"], results["versions"]
    lines = [
        f"{results['date']}, {machine['cores']} cores of {machine['processor']},"
        f" {machine['memory_gib']} GiB, Linux {machine['kernel']}; rounds: {results['rounds']},"
        f" medians of them. MB are 10^6 bytes. Peaks below {results['floor'] / MB:.1f} MB can't be"
        " seen.",
        "; ".join(f"{name}: {version}" for name, version in versions.items()) + ".",
    ]
    if results.get("texts"):
        texts = results["texts"]
        lines.append(
            f"Generated from {texts['stanzas']} packages, {texts['bytes'] / MB:.1f} MB of text"
            f" (SHA-256 {texts['digest']}…)."
        )
    sizes = (f"{size} ({octets} bytes)" for size, octets in results["databases"].items())
    return "\n".join([*lines, "Databases: " + ", ".join(sizes) + "."])


def contenders(title, runs, with_store):
    """One row for each way, and how many times ours it takes."""
    names = [title, "wall", "from–to", "× ours", "processor", "× ours", "peak memory"]
    names += ["stored", "disk"] if with_store else []
    ours = runs[OURS]
    rows = []
    for name, rounds in runs.items():
        walls = [run["wall"] for run in rounds]
        row = [name, f"{median(walls):.3f} s", f"{min(walls):.3f}–{max(walls):.3f}"]
        row += [f"{median(walls) / middle(ours, 'wall'):.2f}"]
        row += [f"{middle(rounds, 'cpu'):.2f} s"]
        row += [f"{middle(rounds, 'cpu') / middle(ours, 'cpu'):.2f}"]
        row += [f"{max(run['peak'] for run in rounds) / MB:.1f} MB"]
        if with_store:
            row += [f"{middle(rounds, figure) / MB:.2f} MB" for figure in ("stored", "disk")]
        rows.append(row)
    return table(names, rows)


def idle(figures):
    minutes = figures["seconds"] / 60
    ours, litestream = figures["ours"], figures["litestream"]
    per_minute = lambda part: f"{part['wakeups'] / minutes:.1f}"
    rows = [
        ["simplebackup, TLS, before its first backup", megabytes(ours["resident"])]
        + [per_minute(ours)],
        ["simplebackup, TLS, after a backup", megabytes(ours["resident_after_backup"]), ""],
        ["Litestream replicate, no TLS", megabytes(litestream["resident"]), per_minute(litestream)],
    ]
    return table(["Idle", "resident", "wake-ups a minute"], rows)


def megabytes(figure):
    return f"{figure / MB:.1f} MB"


def stop(seconds):
    times = ", ".join(f"{took:.2f}" for took in seconds)
    return f"SIGTERM to exit, 50 MB, final backup included: {median(seconds):.2f} s ({times})."


def requests(counted):
    names = ["Requests of a service's backups", "1st", "2nd", "3rd", "4th", "5th"]
    told = lambda counts: ", ".join(f"{number} {name}" for name, number in counts.items())
    rows = [[size, *(told(counts) for counts in runs)] for size, runs in counted.items()]
    return table(names, rows)


def writes(measured):
    names = ["The app's writes", "p50", "p99", "max", "p99 of the windows", "commits", "busy"]
    rows = []
    for synchronous, run in measured.items():
        for name, figures in run.items():
            label = f"synchronous={synchronous}, {name}"
            times = [f"{figures[key] * 1000:.2f} ms" for key in ("p50", "p99", "max")]
            windows = [f"{act(figures['windows']) * 1000:.2f}" for act in (min, max)]
            windows = f"{len(figures['windows'])}: {' to '.join(windows)} ms"
            rows.append([label, *times, windows, figures["commits"], figures["busy"]])
    return table(names, rows)


def goal_table(goals):
    told = {True: "yes", False: "**no**", None: "–"}
    rows = [[goal.text, goal.reached, told[goal.ok]] for goal in goals]
    return table(["Goal", "reached", "ok"], rows)


SECTIONS = {"idle": idle, "stop": stop, "requests": requests, "writes": writes}
