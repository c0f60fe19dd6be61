"""The S3 server that everything is stored in: SeaweedFS on the loopback, a process of its own that
no figure includes."""

import json
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from common import BenchError, free_port, run, wait_for

BUCKET = "mybucket"
ACCESS_KEY = "test-access"
SECRET_KEY = "test-secret-key"
REGION = "us-east-1"


class Server:
    """A running server with one empty bucket. `host` is its address, `tls_host` that over TLS."""

    def __init__(self, work, tools, folder=None):
        self.work = work
        self.folder = folder or work.folder / "s3"
        self.folder.mkdir()
        self.host, self.tls_host = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.filer = f"127.0.0.1:{free_port()}"
        self.authority = make_certificate(self.folder, tools.env)
        env = tools.env | keys() | {"TMPDIR": str(self.folder)}
        self.process = work.start("seaweedfs", self.command(tools), env)
        work.at_end(self.end)
        wait_for("an answer of SeaweedFS", self.answers, 60, self.process)
        # The first object makes the files that all objects of the bucket go to.
        self.request("PUT", f"/buckets/{BUCKET}/warm-up/object", b"nothing")
        self.clear("warm-up")

    def command(self, tools):
        port = lambda host: host.rsplit(":", 1)[1]
        named = {"s3.port.https": port(self.tls_host), "s3.port.iceberg": 0, "s3.port.lance": 0}
        named |= {"s3.port": port(self.host), "filer.port": port(self.filer)}
        for part in ("master", "volume", "admin"):
            named[f"{part}.port"] = free_port()
        for part in ("s3", "filer", "master", "volume", "admin"):
            named[f"{part}.port.grpc"] = free_port()
        self.ports = [number for number in named.values() if number]
        data = self.folder / "data"
        data.mkdir()
        words = [tools.weed, "mini", "-dir", data, "-bucket", BUCKET, "-ip", "127.0.0.1"]
        # On the loopback alone, and without a report to its makers.
        words += ["-ip.bind", "127.0.0.1", "-master.telemetry=false"]
        words += ["-admin.ui=false", "-webdav=false"]
        # A sweep through deleted objects would run beside some measurement; the server's end frees
        # their disk soon enough.
        words += ["-master.vacuumIntervalSeconds", 86_400]
        words += ["-s3.cert.file", self.folder / "cert.pem"]
        words += ["-s3.key.file", self.folder / "key.pem"]
        return words + [word for name, number in named.items() for word in (f"-{name}", number)]

    def answers(self):
        try:
            self.request("GET", f"/buckets/{BUCKET}/")
            with urllib.request.urlopen(f"http://{self.host}/status", timeout=5):
                return True
        except urllib.error.HTTPError as error:
            # The S3 port is there; without a signature it may say anything.
            return str(self.host) in (error.url or "") and error.code < 500
        except OSError:
            return False

    def request(self, method, path, body=None):
        """Speaks to the server's own file interface, which needs no signature."""
        url = f"http://{self.filer}{urllib.parse.quote(path, safe='/?&=%')}"
        headers = {"Accept": "application/json"}
        request = urllib.request.Request(url, data=body, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def objects(self, prefix):
        """Returns the sizes of all objects below a prefix of the bucket, by their path."""
        found = {}
        folders = [f"/buckets/{BUCKET}/{prefix}"]
        while folders:
            folder = folders.pop()
            for entry in self.entries(folder):
                if entry["Mode"] & (1 << 31):  # Go's os.ModeDir.
                    folders.append(entry["FullPath"])
                else:
                    found[entry["FullPath"]] = entry["FileSize"]
        return found

    def entries(self, folder):
        """Returns what is right in a folder, in as many pages as it takes."""
        last, entries = "", []
        while True:
            query = f"limit=1000&lastFileName={urllib.parse.quote(last, safe='')}"
            try:
                page = json.loads(self.request("GET", f"{folder}/?{query}"))
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return entries
                raise
            entries += page["Entries"] or []
            if not page["ShouldDisplayLoadMore"]:
                return entries
            last = page["LastFileName"]

    def stored(self, prefix):
        """Returns the bytes of all objects below a prefix."""
        return sum(self.objects(prefix).values())

    def clear(self, prefix):
        """Deletes everything below a prefix."""
        try:
            path = f"/buckets/{BUCKET}/{prefix}?recursive=true&ignoreRecursiveError=true"
            self.request("DELETE", path)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
        if self.objects(prefix):
            raise BenchError(f"{prefix} is still in the store after it was deleted")

    def end(self):
        """Ends the server and gives its disk back. Asked politely it takes ten seconds."""
        self.work.kill(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)
        # Wherever its folder is, its sockets are there.
        for number in self.ports:
            for socket in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                socket.unlink(missing_ok=True)


def keys():
    """Returns the variables with which the server, the AWS CLI, restic and Litestream know the
    keys."""
    env = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    return env | {"AWS_DEFAULT_REGION": REGION, "AWS_REGION": REGION}


def make_certificate(folder, env):
    """Makes a certificate for 127.0.0.1 and returns a file with the authorities of this machine
    and that one: what a service in real life reads, and one more."""
    certificate = folder / "cert.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    request += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    # Not an authority: rustls refuses one as the certificate of a server.
    request += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
    run([*request, "-keyout", folder / "key.pem", "-out", certificate], env=env)
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    authority = folder / "authorities.pem"
    known = system.read_text() if system.exists() else ""
    authority.write_text(known + certificate.read_text())
    os.chmod(folder / "key.pem", 0o600)
    return authority
