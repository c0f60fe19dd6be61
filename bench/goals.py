"""What simplebackup must reach: the table of issue 4, line by line, held to the figures."""

from dataclasses import dataclass
from statistics import median

from common import MB
from contenders import LIMIT, LITESTREAM, LITESTREAM_RESTORE, OURS, PIPELINE
from writes import BESIDE, DURING, WITHOUT

# A snapshot of a WAL database brings the index of an empty log, 32 KiB, and two lock files; a
# file's size on the disk is rounded up.
DISK_SLACK = 128 * 1024


@dataclass
class Goal:
    """One line. `ok` is None where nothing was measured."""

    text: str
    reached: str = "not measured"
    ok: bool | None = None


def middle(runs, figure):
    """Returns the median of one figure over the rounds."""
    return median(run[figure] for run in runs)


def judge(results):
    """Returns all goals, in the order of the issue."""
    backup, restore = results.get("backup", {}), results.get("restore", {})
    ratio = lambda part, figure, other: {
        size: middle(runs[OURS], figure) / middle(runs[other], figure)
        for size, runs in part.items()
    }
    peaks = {
        f"{part} of {size}": max(run["peak"] for run in runs[OURS]) / MB
        for part, sizes in (("backup", backup), ("restore", restore))
        for size, runs in sizes.items()
    }
    return [
        at_most(
            "backup, wall: ≤ 0.33 × spec.md's pipeline", 0.33, ratio(backup, "wall", PIPELINE), " ×"
        ),
        at_most("backup, wall: ≤ 0.5 × Litestream", 0.5, ratio(backup, "wall", LITESTREAM), " ×"),
        smallest_backup(backup),
        at_most(
            "backup, wall: ≤ 1.25 × (VACUUM INTO + integrity_check)",
            1.25,
            ratio(backup, "wall", LIMIT),
            " ×",
        ),
        at_most(
            "restore with its full check, wall: ≤ 0.75 × Litestream's without one",
            0.75,
            ratio(restore, "wall", LITESTREAM_RESTORE),
            " ×",
        ),
        at_most("backup, processor: ≤ Litestream's", 1, ratio(backup, "cpu", LITESTREAM), " ×"),
        at_most("peak memory of a backup and of a restore: ≤ 24 MB", 24, peaks, " MB"),
        *idle(results.get("idle")),
        at_most("stored: ≤ 1.05 × gzip -6", 1.05, ratio(backup, "stored", PIPELINE), " ×"),
        disk(backup),
        stop(results.get("stop")),
        requests(results.get("requests")),
        at_most("binary: ≤ 12 MB", 12, {"": results["binary"] / MB}, " MB"),
        at_most("first build on two cores: ≤ 240 s", 240, one(results.get("build")), " s"),
        *writes(results.get("writes", {})),
    ]


def one(figure):
    """Returns a figure that has no sizes as those that have."""
    return {} if figure is None else {"": figure}


def at_most(text, limit, figures, unit):
    """Returns a goal that every figure meets by being no larger than the limit."""
    if not figures:
        return Goal(text)
    parts = [f"{size} {rounded(figure)}{unit}".strip() for size, figure in figures.items()]
    return Goal(text, ", ".join(parts), all(figure <= limit for figure in figures.values()))


def rounded(figure):
    """Returns a figure with three digits, which is more than these measurements are worth."""
    return f"{figure:.3g}" if abs(figure) < 100 else f"{figure:.0f}"


def smallest_backup(backup):
    small = {size: middle(runs[OURS], "wall") for size, runs in backup.items() if size == "8.3 MB"}
    return at_most("backup of 8.3 MB, wall: ≤ 0.15 s", 0.15, small, " s")


def idle(figures):
    """Memory before the first backup and after one: the allocator keeps some of what it had."""
    resident = "idle, resident, S3 over TLS: ≤ 10 MB"
    wakeups = "idle, wake-ups: ≤ 1 a minute"
    if figures is None:
        return [Goal(resident), Goal(wakeups)]
    ours = figures["ours"]
    memory = {
        "before the first backup": ours["resident"] / MB,
        "after one": ours["resident_after_backup"] / MB,
    }
    minutes = figures["seconds"] / 60
    # Of a look at the clock each minute, that many fall into the time at most.
    allowed = -(-figures["seconds"] // 60)
    reached = f"{ours['wakeups'] / minutes:.1f} a minute ({ours['wakeups']} in {minutes:g} minutes)"
    return [
        at_most(resident, 10, memory, " MB"),
        Goal(wakeups, reached, ours["wakeups"] <= allowed),
    ]


def disk(backup):
    text = "temporary disk of a backup: the vacuumed database alone"
    if not backup:
        return Goal(text)
    more = {
        size: middle(runs[OURS], "disk") - middle(runs[LIMIT], "vacuumed")
        for size, runs in backup.items()
    }
    reached = ", ".join(f"{size} {bytes_more / 1024:+.0f} KiB" for size, bytes_more in more.items())
    return Goal(text, reached, all(bytes_more <= DISK_SLACK for bytes_more in more.values()))


def stop(seconds):
    text = "SIGTERM to exit, 50 MB, idle app: ≤ 1 s"
    return at_most(text, 1, one(None if seconds is None else median(seconds)), " s")


def requests(counted):
    """The first backup of a service may look at the newest one before; the others may not."""
    text = "requests per backup: 1 PUT (or one multipart), 1 LIST, at most 1 DELETE"
    if counted is None:
        return Goal(text)
    later = {size: counts[1:] for size, counts in counted.items()}
    reached = "; ".join(f"{size}: {told(counts[-1])}" for size, counts in later.items())
    return Goal(text, reached, all(is_frugal(run) for counts in later.values() for run in counts))


def told(counts):
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def is_frugal(counts):
    """Whether the requests are one list, one upload of either kind, and one delete at most."""
    rest = dict(counts)
    lists, deletes, puts = (rest.pop(name, 0) for name in ("LIST", "DELETE", "PUT"))
    parts = rest.pop("UploadPart", 0)
    ends = [rest.pop(f"{name}MultipartUpload", 0) for name in ("Create", "Complete")]
    single = puts == 1 and parts == 0 and ends == [0, 0]
    multipart = puts == 0 and parts > 0 and ends == [1, 1]
    return not rest and lists == 1 and deletes <= 1 and (single or multipart)


def writes(measured):
    """Judged with the journal's usual setting for WAL; FULL is told beside it."""
    slower = "the app's writes during a backup, p99: ≤ 1.2 × without"
    busy = "the app's writes: no busy error"
    if not measured:
        return [Goal(slower), Goal(busy)]
    ratio = lambda run, window: run[window]["p99"] / run[WITHOUT]["p99"]
    ratios = {name: ratio(run, DURING) for name, run in measured.items()}
    judged = at_most(slower, 1.2, {"NORMAL": ratios["NORMAL"]}, " ×")
    judged.reached += f"; {BESIDE} {rounded(ratio(measured['NORMAL'], BESIDE))} ×"
    if "FULL" in ratios:
        judged.reached += f" (FULL {rounded(ratios['FULL'])} ×)"
    errors = sum(window["busy"] for run in measured.values() for window in run.values())
    return [judged, Goal(busy, str(errors), errors == 0)]
