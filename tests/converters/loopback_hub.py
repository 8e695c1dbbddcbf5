"""A hub on the loopback interface: as much of the protocol as huggingface_hub speaks with one."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_large(content: bytes) -> bool:
    """Return whether the hub stores the file outside of git."""
    return b"\0" in content or len(content) > 4096


class Hub(ThreadingHTTPServer):
    """repos: OWNER/NAME -> file -> content. log: requests, such as 'GET /path'.

    faults: the end of a path -> what is served in the content's place, or a status.
    listed: what becomes of a listing before it is sent; bytes are sent as they are.
    named: headers that answers about a file have, besides or in place of the right ones.
    acts: the end of a path -> what serves it, by itself, on a connection that is then closed.
    stalled: while it is set, transfers of large files wait for `may_go_on`; `asked` tells of one.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.log: list[str] = []
        self.faults: dict[str, Callable[[bytes], bytes] | int] = {}
        self.listed: Callable[[dict], object] = lambda listing: listing
        self.named: dict[str, str] = {}
        self.acts: dict[str, Callable[[Handler, bytes], None]] = {}
        self.tokens: list[str] = []
        self.stalled = threading.Event()
        self.asked, self.may_go_on = threading.Event(), threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def heal(self) -> None:
        self.faults.clear(), self.named.clear(), self.acts.clear()
        self.listed = lambda listing: listing

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, repo: str, files: dict[str, bytes]) -> None:
        self.repos[repo] = dict(files)

    def commit(self, repo: str) -> str:
        """Another one whenever a file changes."""
        files = sorted(self.repos[repo].items())
        return hashlib.sha1(repr([(n, sha256(c)) for n, c in files]).encode()).hexdigest()

    def stop(self) -> None:
        self.may_go_on.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is several writes
    server: Hub

    def log_message(self, *_):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.start()
        if act := next((a for end, a in self.server.acts.items() if path.endswith(end)), None):
            self.close_connection = True
            repo, _, name = path[1:].partition("/resolve/")
            content = self.server.repos.get(repo, {}).get(name.partition("/")[2], b"")
            act(self, content)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/.*)?", path):
            self.tell_about(found[1])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(found[1], found[3])
        elif found := re.fullmatch(r"/objects/(.+)/(\w+)", path):
            assert "Authorization" not in self.headers
            self.transfer(self.server.objects[found[2]], found[1])
        else:
            self.answer(404)

    def do_POST(self):
        path, body = self.start(), self.body()
        if act := next((a for end, a in self.server.acts.items() if path.endswith(end)), None):
            self.close_connection = True
            act(self, body)
        elif path == "/api/repos/create":
            about = json.loads(body)
            repo = f"{about.get('organization') or 'me'}/{about['name']}"
            known = repo in self.server.repos
            self.server.repos.setdefault(repo, {".gitattributes": b"*.bin filter=lfs\n"})
            self.tell({"url": f"{self.server.url}/{repo}"}, 409 if known else 200)
        elif path == "/api/validate-yaml":
            self.tell({"errors": [], "warnings": []})
        elif re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main", path):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if is_large(base64.b64decode(file["sample"]))
                    or file["size"] > 4096 else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            self.tell({"files": files})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{self.server.url}/{wanted['oid']}"}}}
                for wanted in json.loads(body)["objects"]
            ]
            self.tell({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self.take_commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self.answer(404)

    def do_PUT(self):
        path, body = self.start(), self.body()
        assert path == f"/{sha256(body)}"
        self.server.objects[sha256(body)] = body
        self.answer(200)

    def take_commit(self, repo: str, lines: list[dict]) -> None:
        files = self.server.repos[repo]
        for line in lines:
            about = line["value"]
            if line["key"] == "header":
                assert about.get("parentCommit") in (None, self.server.commit(repo))
            elif line["key"] == "file":
                files[about["path"]] = base64.b64decode(about["content"])
            elif line["key"] == "lfsFile":
                files[about["path"]] = self.server.objects[about["oid"]]
            elif line["key"] == "deletedFile":
                del files[about["path"]]
        commit = self.server.commit(repo)
        self.tell({"commitUrl": f"{self.server.url}/{repo}/commit/{commit}", "commitOid": commit})

    def tell_about(self, repo: str) -> None:
        if repo not in self.server.repos:
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        siblings = []
        for name, content in self.server.repos[repo].items():
            about = {"rfilename": name, "size": len(content), "blobId": git_blob(content)}
            if is_large(content):
                about["lfs"] = {
                    "sha256": sha256(content), "size": len(content), "pointerSize": 130,
                }  # fmt: skip
            siblings.append(about)
        listing = {"id": repo, "sha": self.server.commit(repo), "siblings": siblings}
        self.tell(self.server.listed(listing))

    def resolve(self, repo: str, name: str) -> None:
        content = self.server.repos.get(repo, {}).get(unquote(name))
        if content is None:
            return self.answer(404, {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": self.server.commit(repo)}
        if not is_large(content):
            headers |= {"ETag": f'"{git_blob(content)}"', **self.server.named}
            return self.transfer(content, name, headers)
        digest = sha256(content)
        self.server.objects[digest] = content
        self.answer(
            302,
            {
                **headers,
                "X-Linked-Size": str(len(content)),
                "X-Linked-ETag": f'"{digest}"',
                # Elsewhere, as the hub's store of large files is: tokens are not sent there.
                "Location": f"http://localhost:{self.server.server_port}/objects/{name}/{digest}",
                **self.server.named,
            },
        )

    def transfer(self, content: bytes, name: str, headers: dict | None = None) -> None:
        if self.server.stalled.is_set() and is_large(content) and self.command == "GET":
            self.server.asked.set()
            self.server.may_go_on.wait()
        fault = self.find_mismatch(name)
        if callable(fault) and self.command == "GET":
            content = fault(content)
        status, first = 200, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        headers = {**(headers or {}), "Content-Length": str(len(content))}
        if first:
            start = int(first[1])
            status, whole = 206, len(content)
            content = content[start:]
            headers["Content-Length"] = str(len(content))
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        self.answer(status, headers, content)

    def find_mismatch(self, name: str) -> Callable[[bytes], bytes] | int | None:
        return next((f for end, f in self.server.faults.items() if name.endswith(end)), None)

    def start(self) -> str:
        path = urlsplit(self.path).path
        self.server.log.append(f"{self.command} {path}")
        return path

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def tell(self, about: object, status: int = 200) -> None:
        content = about if isinstance(about, bytes) else json.dumps(about).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        self.answer(status, headers, content)

    def answer(self, status: int, headers: dict | None = None, content: bytes = b"") -> None:
        fault = self.find_mismatch(urlsplit(self.path).path)
        if isinstance(fault, int):
            status, headers, content = fault, {}, b""
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
