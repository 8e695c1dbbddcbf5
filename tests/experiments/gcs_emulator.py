"""A Google Cloud Storage in memory, on loopback: as much of the JSON API as the clients here use.

gcsfs (through epath), TensorStore, google-cloud-storage and array_record's C++ client talk to it.
Objects appear whole when an upload ends, as in GCS. Buckets: "bucket"; "read-only", whose writes
are forbidden; "forbidden", all of which is. Any other is missing.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUCKETS = ("bucket", "read-only", "forbidden")
# What sends each client here: gcsfs and google-cloud-storage, TensorStore, array_record. The last
# keeps gcsfs from asking Google's own service for a bucket's kind.
VARIABLES = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL", "CLOUD_STORAGE_EMULATOR_ENDPOINT")
WITHOUT_GRPC = ("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)")
OBJECTS = re.compile(r"/storage/v1/b/([^/]+)/o/?")
BUCKET = re.compile(r"/storage/v1/b/([^/]+)")
UPLOAD = re.compile(r"/upload/(?:resumable/)?storage/v1/b/([^/]+)/o")
REWRITE = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/(?:rewriteTo|copyTo)/b/([^/]+)/o/([^/]+)")


class Refused(Exception):
    """An error reply: its status and message."""


class Store(ThreadingHTTPServer):
    """Holds objects, (bucket, name) -> (content, generation), and what was asked of it.

    written: names that were uploaded, newest last. before_write: called with each name before the
    object is there.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[tuple[str, str], tuple[bytes, int]] = {}
        self.uploads: dict[str, tuple[str, str, dict[str, str], bytearray]] = {}
        self.generations = itertools.count(1_700_000_000_000_000)
        self.writing = threading.Lock()
        self.refused: set[str] = set()  # objects that may not be written
        self.written: list[str] = []
        self.before_write: Callable[[str], None] = lambda name: None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that hang up, as killed ones do."""

    @property
    def environment(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.server_port}"
        return {**dict.fromkeys(VARIABLES, url), WITHOUT_GRPC[0]: WITHOUT_GRPC[1]}

    def names(self, prefix: str = "", bucket: str = "bucket") -> list[str]:
        found = sorted(name for of, name in list(self.objects) if of == bucket)
        return [name for name in found if name.startswith(prefix)]

    def put(self, name: str, content: bytes, bucket: str = "bucket") -> None:
        self.objects[bucket, name] = content, next(self.generations)

    def content(self, name: str, bucket: str = "bucket") -> bytes:
        return self.objects[bucket, name][0]


@contextlib.contextmanager
def serving() -> Iterator[Store]:
    with Store() as store:
        threading.Thread(target=store.serve_forever, daemon=True).start()
        try:
            yield store
        finally:
            store.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Store

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        # Objects' names hold %2F, so parts are decoded one by one.
        self.asked = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        body = self._body()
        try:
            self._route(url.path, body)
        except Refused as error:
            status, message = error.args
            about = {"code": status, "message": message, "errors": [{"message": message}]}
            self._send(status, json.dumps({"error": about}).encode())

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _route(self, path: str, body: bytes) -> None:
        for pattern, method in (
            (REWRITE, self._rewrite), (UPLOAD, self._upload), (OBJECT, self._object),
            (OBJECTS, self._list), (BUCKET, self._bucket),
        ):  # fmt: skip
            if match := pattern.fullmatch(path):
                parts = [urllib.parse.unquote(part) for part in match.groups()]
                self._check(parts[0])
                method(*parts, body=body)
                return
        raise Refused(501, f"{self.command} {self.path} is not emulated")

    def _check(self, bucket: str) -> None:
        if bucket not in BUCKETS:
            raise Refused(404, "The specified bucket does not exist.")
        if bucket == "forbidden" or (bucket == "read-only" and self.command != "GET"):
            raise Refused(403, "Caller does not have storage.objects access.")

    def _bucket(self, bucket: str, body: bytes) -> None:
        self._json({"kind": "storage#bucket", "id": bucket, "name": bucket})

    def _list(self, bucket: str, body: bytes) -> None:
        prefix, delimiter = self.asked.get("prefix", ""), self.asked.get("delimiter", "")
        start, end = self.asked.get("startOffset", ""), self.asked.get("endOffset")
        most, after = int(self.asked.get("maxResults", 1000)), self.asked.get("pageToken", "")
        entries: dict[str, bool] = {}  # name -> whether it is a prefix
        for name in self.server.names(prefix, bucket):
            if name < start or (end is not None and name >= end):
                continue
            rest = name[len(prefix) :]
            folder = delimiter and delimiter in rest
            shown = prefix + rest.partition(delimiter)[0] + delimiter if folder else name
            entries[shown] = bool(folder)
        left = [name for name in sorted(entries) if name > after]
        page = left[:most]
        reply: dict[str, Any] = {"kind": "storage#objects"}
        reply["items"] = [self._about(bucket, name) for name in page if not entries[name]]
        reply["prefixes"] = [name for name in page if entries[name]]
        if len(left) > most:
            reply["nextPageToken"] = page[-1]
        self._json(reply)

    def _object(self, bucket: str, name: str, body: bytes) -> None:
        if self.command == "DELETE":
            with self.server.writing:
                self._found(bucket, name)
                self._precondition(bucket, name)
                del self.server.objects[bucket, name]
            self._send(204, b"")
            return
        content, generation = self._found(bucket, name)
        self._precondition(bucket, name)
        if self.asked.get("alt") != "media" and not self.path.startswith("/download"):
            self._json(self._about(bucket, name))
            return
        headers = {"X-Goog-Generation": str(generation), **_checksums(content)}
        if match := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first, last, size = *match.groups(), len(content)
            begin = int(first) if first else max(size - int(last), 0)
            stop = min(int(last) + 1, size) if first and last else size
            if begin >= size:
                raise Refused(416, "The requested range is not satisfiable.")
            headers["Content-Range"] = f"bytes {begin}-{stop - 1}/{size}"
            self._send(206, content[begin:stop], "application/octet-stream", headers)
        else:
            self._send(200, content, "application/octet-stream", headers)

    def _upload(self, bucket: str, body: bytes) -> None:
        if "upload_id" in self.asked:
            self._resume(body)
            return
        kind = self.asked.get("uploadType")
        if kind == "media":
            self._store(bucket, self.asked["name"], body, self.asked)
            return
        if kind == "multipart":
            name, content = self._parts(body)
            self._store(bucket, name, content, self.asked)
            return
        name = self.asked.get("name") or json.loads(body)["name"]
        number = str(next(self.server.generations))
        self.server.uploads[number] = bucket, name, self.asked, bytearray()
        place = f"http://{self.headers['Host']}/upload/storage/v1/b/{bucket}/o?upload_id={number}"
        self._send(200, b"", headers={"Location": place})

    def _parts(self, body: bytes) -> tuple[str, bytes]:
        """The name and content of a multipart upload; the content may hold any bytes."""
        boundary = self.headers["Content-Type"].partition("boundary=")[2].strip('"')
        mark = b"--" + boundary.encode()
        _, about, rest = body.split(mark, 2)
        head, content = (re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in (about, rest))
        # gcsfs ends lines with LF alone: a CR before it is the content's last byte.
        line_end = b"\r\n" if about.startswith(b"\r\n") else b"\n"
        return json.loads(head)["name"], content[: content.rindex(line_end + mark)]

    def _resume(self, body: bytes) -> None:
        bucket, name, asked, content = self.server.uploads[self.asked["upload_id"]]
        if self.command == "DELETE":
            del self.server.uploads[self.asked["upload_id"]]
            self._send(499, b"")
            return
        place, _, size = self.headers.get("Content-Range", "*/*").rpartition("/")
        content += body
        if size != "*" and len(content) >= int(size) or place == "*" and size == "*":
            del self.server.uploads[self.asked["upload_id"]]
            self._store(bucket, name, bytes(content), asked)
        else:
            self._send(308, b"", headers={"Range": f"bytes=0-{len(content) - 1}"})

    def _rewrite(self, bucket: str, name: str, to: str, target: str, body: bytes) -> None:
        content, _ = self._found(bucket, name)
        self._check(to)
        self.server.put(target, content, to)
        about = self._about(to, target)
        size = str(len(content))
        self._json({"kind": "storage#rewriteResponse", "done": True, "objectSize": size,
                    "totalBytesRewritten": size, "resource": about})  # fmt: skip

    def _store(self, bucket: str, name: str, content: bytes, asked: dict[str, str]) -> None:
        self.server.before_write(name)
        self.server.written.append(name)
        if name in self.server.refused:
            raise Refused(403, "Caller does not have storage.objects.create access.")
        with self.server.writing:
            self._precondition(bucket, name, asked)
            self.server.put(name, content, bucket)
            about = self._about(bucket, name)
        self._json(about)

    def _found(self, bucket: str, name: str) -> tuple[bytes, int]:
        try:
            return self.server.objects[bucket, name]
        except KeyError:
            raise Refused(404, f"No such object: {bucket}/{name}") from None

    def _precondition(self, bucket: str, name: str, asked: dict[str, str] | None = None) -> None:
        asked = self.asked if asked is None else asked
        found = self.server.objects.get((bucket, name), (b"", 0))[1]
        if asked.get("ifGenerationMatch", str(found)) != str(found):
            raise Refused(412, "At least one of the pre-conditions did not hold.")
        if asked.get("ifGenerationNotMatch") == str(found):
            raise Refused(304 if self.command == "GET" else 412, "The generation is the same.")

    def _about(self, bucket: str, name: str) -> dict[str, Any]:
        content, generation = self.server.objects.get((bucket, name), (b"", 0))
        return {
            "kind": "storage#object", "id": f"{bucket}/{name}/{generation}", "name": name,
            "bucket": bucket, "size": str(len(content)), "generation": str(generation),
            "metageneration": "1", "contentType": "application/octet-stream",
            "updated": "2026-01-01T00:00:00.000Z", "timeCreated": "2026-01-01T00:00:00.000Z",
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
        }  # fmt: skip

    def _json(self, reply: dict[str, Any]) -> None:
        self._send(200, json.dumps(reply).encode(), "application/json; charset=UTF-8")

    def _send(
        self, status: int, body: bytes, kind: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def _checksums(content: bytes) -> dict[str, str]:
    digest = base64.b64encode(hashlib.md5(content).digest()).decode()
    return {"X-Goog-Hash": f"md5={digest}", "X-Goog-Stored-Content-Length": str(len(content))}
