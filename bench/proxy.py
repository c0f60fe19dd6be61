"""Counts the requests that a client makes of S3: a small HTTP proxy before the server."""

import http.client
import http.server
import threading
import urllib.parse
from collections import Counter

# Longer bodies are passed on in pieces.
PIECE = 1 << 20


class CountingProxy:
    """Listens on a free port of the loopback and passes every request on to `server_host`."""

    def __init__(self, server_host):
        counts = Counter()
        lock = threading.Lock()

        class Handler(Passer):
            upstream = server_host

            def count(self, operation):
                with lock:
                    counts[operation] += 1

        self.counts, self.lock = counts, lock
        self.listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.listener.daemon_threads = True
        self.host = "127.0.0.1:%d" % self.listener.server_address[1]
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()

    def take(self):
        """Returns the counts by operation since the last time."""
        with self.lock:
            taken = dict(self.counts)
            self.counts.clear()
        return taken

    def end(self):
        self.listener.shutdown()
        self.listener.server_close()


class Passer(http.server.BaseHTTPRequestHandler):
    """One connection of the client."""

    protocol_version = "HTTP/1.1"

    def count(self, operation):
        raise NotImplementedError

    def log_message(self, *_words):
        pass

    def pass_on(self):
        self.count(operation(self.command, self.path, self.headers))
        upstream = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            # The Host header is part of the signature, so it stays as the client wrote it.
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    upstream.putheader(name, value)
            upstream.endheaders()
            self.pass_body(upstream)
            self.pass_answer(upstream.getresponse())
        finally:
            upstream.close()

    def pass_body(self, upstream):
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(left, PIECE))
            if not piece:
                raise ConnectionError("the client left in the middle of a body")
            upstream.send(piece)
            left -= len(piece)

    def pass_answer(self, answer):
        self.send_response_only(answer.status, answer.reason)
        length = None
        for name, value in answer.getheaders():
            if name.lower() == "content-length":
                length = int(value)
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        bodyless = self.command == "HEAD" or answer.status in (204, 304)
        if length is None and not bodyless:
            # Chunked by the server: read whole, it is a list or an error.
            body = answer.read()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.end_headers()
        while not bodyless and (piece := answer.read(PIECE)):
            self.wfile.write(piece)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815


def operation(method, path, headers):
    """Returns S3's name of what a request asks for."""
    parts = urllib.parse.urlsplit(path)
    query = urllib.parse.parse_qs(parts.query, keep_blank_values=True)
    named = {
        ("GET", "list-type"): "LIST",
        ("POST", "delete"): "DELETE",
        ("POST", "uploads"): "CreateMultipartUpload",
        ("PUT", "partNumber"): "UploadPart",
        ("POST", "uploadId"): "CompleteMultipartUpload",
        ("DELETE", "uploadId"): "AbortMultipartUpload",
    }
    for (verb, key), name in named.items():
        if method == verb and key in query:
            return name
    if method == "PUT" and "x-amz-copy-source" in headers:
        return "COPY"
    # A GET of the bucket itself is a list, of the first version of the interface.
    if method == "GET" and parts.path.count("/") < 2:
        return "LIST"
    return method
