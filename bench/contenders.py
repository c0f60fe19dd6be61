"""The ways to a backup and back that are compared, each as the commands that a user would type."""

import shlex
from dataclasses import dataclass, field

from common import run
from server import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, keys

OURS = "simplebackup"
PIPELINE = "VACUUM INTO + gzip -6 + aws s3 cp"
PIGZ = "VACUUM INTO + pigz -6 + aws s3 cp"
LITESTREAM = "Litestream replicate -once"
LITESTREAM_AGAIN = "Litestream, the second time"
RESTIC = "VACUUM INTO + restic backup"
LIMIT = "the limit: VACUUM INTO + integrity_check"
LITESTREAM_RESTORE = "Litestream restore (no check)"
PIPELINE_RESTORE = "aws s3 cp + gunzip + integrity_check"


@dataclass
class Contender:
    """One way. `command` is what is measured, from words or through a shell.

    It runs in a folder that holds `app.db`, for a backup, and may leave files there. `setup` is
    done before and not measured. `prefix` is where it stores, in the bucket.
    """

    name: str
    command: list
    prefix: str = ""
    env: dict = field(default_factory=dict)
    setup: list = field(default_factory=list)
    files: dict = field(default_factory=dict)

    def set_up(self, folder, env):
        """Writes the files and runs the commands that come before."""
        for name, text in self.files.items():
            (folder / name).write_text(text)
        for command in self.setup:
            run(command, env=env | self.env, cwd=folder, timeout=300)


def backups(tools, server):
    """Returns all ways to make a backup of `app.db`."""
    litestream = [tools.litestream, "replicate", "-config", "litestream.yml"]
    litestream += ["-once", "-force-snapshot"]
    again = litestream_files(server, "litestream-again")
    repository = f"s3:http://{server.host}/{BUCKET}/restic"
    secrets = keys() | {"RESTIC_PASSWORD": "test", "RESTIC_REPOSITORY": repository}
    ways = [
        Contender(OURS, [tools.ours, "backup"], "ours", our_env(server)),
        Contender(PIPELINE, pipeline(tools, server, tools.gzip, "spec"), "spec", keys()),
        Contender(
            LITESTREAM,
            litestream,
            "litestream",
            keys(),
            files=litestream_files(server, "litestream"),
        ),
        Contender(PIGZ, pipeline(tools, server, tools.pigz, "pigz"), "pigz", keys()),
        # What was replicated before lies there already, and nothing has changed since.
        Contender(
            LITESTREAM_AGAIN, litestream, "litestream-again", keys(), [litestream], files=again
        ),
        Contender(
            RESTIC,
            shell(
                f"{quoted(tools.sqlite3)} app.db \"VACUUM INTO 'tmp/backup.db'\"",
                f"{quoted(tools.restic)} --cache-dir tmp/cache backup tmp/backup.db",
                "rm tmp/backup.db",
            ),
            "restic",
            secrets,
            # A repository of its own for each run: what is in one already costs nothing again.
            [[tools.restic, "--cache-dir", "tmp/cache", "init"]],
        ),
    ]
    if tools.limit:
        ways.append(Contender(LIMIT, tools.limit.command("app.db", "tmp/snapshot.db")))
    return ways


def restores(tools, server):
    """Returns all ways back to `restored.db`; each set-up makes the backup."""
    by_name = {way.name: way for way in backups(tools, server)}
    ours, spec, litestream = (by_name[name] for name in (OURS, PIPELINE, LITESTREAM))
    words = ["restore", "-config", "litestream.yml", "-o", "restored.db", "app.db"]
    check = f"{quoted(tools.sqlite3)} restored.db 'PRAGMA integrity_check'"
    back = shell(
        f"{aws(tools, server)} s3://{BUCKET}/spec/db-backup-1732442400.db.gz restored.db.gz",
        "gunzip restored.db.gz",
        f'test "$({check})" = ok',
    )
    return [
        way_back(ours, OURS, [tools.ours, "restore", "--to", "restored.db"]),
        way_back(spec, PIPELINE_RESTORE, back),
        way_back(litestream, LITESTREAM_RESTORE, [tools.litestream, *words]),
    ]


def way_back(backup, name, command):
    return Contender(name, command, backup.prefix, backup.env, [backup.command], backup.files)


def our_env(server, tls=False, prefix="ours"):
    """Returns the variables that point simplebackup at the server."""
    env = {
        "MINIO_ENDPOINT": server.tls_host if tls else server.host,
        "MINIO_USE_SSL": "true" if tls else "false",
        "MINIO_REGION": REGION,
        "MINIO_ACCESS_KEY": ACCESS_KEY,
        "MINIO_SECRET_KEY": SECRET_KEY,
        "MINIO_BUCKET": BUCKET,
        "MINIO_PREFIX": prefix,
        "SIMPLE_BACKUP_DATABASE_PATH": "app.db",
        # Of no meaning on a machine that is fast enough; a slow one may finish, too.
        "SIMPLE_BACKUP_RESTORE_TIMEOUT": "15m",
    }
    return env | ({"SSL_CERT_FILE": str(server.authority)} if tls else {})


def pipeline(tools, server, gzip, prefix):
    """Returns the way of spec.md, step by step, with one of two compressors."""
    return shell(
        f"{quoted(tools.sqlite3)} app.db \"VACUUM INTO 'tmp/backup.db'\"",
        f"{quoted(gzip)} -6 tmp/backup.db",
        f"{aws(tools, server)} tmp/backup.db.gz"
        f" s3://{BUCKET}/{prefix}/db-backup-1732442400.db.gz",
        "rm tmp/backup.db.gz",
    )


def aws(tools, server):
    return f"{quoted(tools.aws)} --endpoint-url http://{server.host} s3 cp --no-progress"


def shell(*steps):
    """Returns a command that does the steps one after the other, and fails with the first."""
    return ["sh", "-euc", "\n".join(steps)]


def quoted(path):
    return shlex.quote(str(path))


def litestream_files(server, prefix):
    """Returns Litestream's configuration, by the name of its file."""
    text = f"""dbs:
  - path: app.db
    replica:
      type: s3
      bucket: {BUCKET}
      path: {prefix}
      endpoint: http://{server.host}
      region: {REGION}
      force-path-style: true
"""
    return {"litestream.yml": text}
