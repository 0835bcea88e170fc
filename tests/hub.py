"""A server on this machine that answers like the Hugging Face hub, as far as `codi download` asks it."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPOSITORY = "ZinengTang/CoDi"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves one repository.

    Attributes
    ----------
    files : dict of str to bytes
        Content by path in the repository.
    sizes : dict of str to int
        Wrong sizes that the hub reports.
    cuts : list of int
        After how many bytes the next answers with content break off.
    ranges : bool
        Whether it can begin in the middle of a file.
    asked : list of (str, str or None)
        Path and Range header of what it was asked for.
    """

    def __init__(self, files, repository=REPOSITORY):
        self.repository = repository
        self.files, self.sizes, self.cuts, self.ranges, self.asked = files, {}, [], True, []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.answer(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def fetched(self):
        """Ranges of the requests for content, by name of the file."""
        return [(path.rsplit("/", 1)[1], span) for path, span in self.asked if path.startswith("/cdn/")]

    def answer(self, request):
        path, span = unquote(urlsplit(request.path).path), request.headers["Range"]
        assert "Authorization" not in request.headers
        self.asked.append((path, span))
        home = f"/{self.repository}/resolve/{COMMIT}/"
        if path == f"/api/models/{self.repository}":
            self._send(request, 200, json.dumps(self._info()).encode())
        elif path.startswith(home) and path.removeprefix(home) in self.files:
            # Like the hub, which sends on to its store.
            self._send(request, 302, b"", {"Location": path.replace(home, "/cdn/"), "X-Repo-Commit": COMMIT})
        elif (name := path.removeprefix("/cdn/")) in self.files:
            self._content(request, name, span)
        else:
            self._send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})

    def _info(self):
        siblings = [
            {
                "rfilename": path,
                "size": self.sizes.get(path, len(content)),
                "blobId": hashlib.sha1(content).hexdigest(),
                "lfs": {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 134},
            }
            for path, content in self.files.items()
        ]
        return {"id": self.repository, "sha": COMMIT, "tags": [], "siblings": siblings}

    def _content(self, request, name, span):
        content = self.files[name]
        start = int(span.removeprefix("bytes=").split("-")[0]) if span and self.ranges else 0
        if start >= len(content) > 0:
            self._send(request, 416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(request, 206 if start else 200, content[start:], headers, self.cuts.pop(0) if self.cuts else None)

    @staticmethod
    def _send(request, status, body, headers=None, cut=None):
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body if cut is None else body[:cut])
