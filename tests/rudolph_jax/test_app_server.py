"""gradio's page behind the security middleware, over sockets, with stand-ins for the models."""

import concurrent.futures
import contextlib
import http.client
import json
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from rudolph_jax.app import header_timeout, server
from rudolph_jax.app.app_state import AppState
from rudolph_jax.app.image_search import Thumbnail
from rudolph_jax.app.limits import Limits
from rudolph_jax.app.origins import Origins

pytestmark = pytest.mark.browser  # what a browser asks for; gradio is in that environment
MARKUP = "<img src=x onerror=alert(1)> **b** [l](javascript:alert(1)) ${7*7} {{7*7}} .png"
WAITING = 5
PATIENCE = 60


class SearchTabIndex:
    """Stands for a folder of one image with markup in its name; searches wait at a gate."""

    folder = Path(f"/{MARKUP.replace('/', '')}")

    def __init__(self):
        self.gate, self.begun = threading.Event(), threading.Event()

    def open(self, on_progress=None):
        return 1, 0  # images, unreadable files

    def close(self):
        pass

    def search(self, text, count, limits):
        self.begun.set()
        assert self.gate.wait(PATIENCE)
        return [Thumbnail(Image.new("RGB", (8, 8)), f"0.500  {MARKUP}")]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Serves the page: its port, its search index, and the folder of its files."""
    folder = str(tmp_path_factory.mktemp("page"))
    config = SimpleNamespace(image_tokens_per_side=3, right_text_length=4)
    models = SimpleNamespace(config=config, image_size=24)
    limits = Limits(waiting=WAITING, upload_mb=1)
    search_index = SearchTabIndex()
    with pytest.MonkeyPatch.context() as patch, server.listening_socket("127.0.0.1", 0) as socket_:
        for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
            patch.setenv(name, "")  # so that the server's own settings end with this
        patch.setattr(header_timeout, "HEADER_SECONDS", 1)
        server._set_gradio_environment(folder)
        port = socket_.getsockname()[1]
        app = server.create_app(AppState(models, None, search_index, limits, 1), folder,
                                 Origins("127.0.0.1", port))  # fmt: skip
        running = server.http_server(app)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [socket_]})
        thread.start()
        yield SimpleNamespace(port=port, search_index=search_index, folder=Path(folder))
        search_index.gate.set()
        running.should_exit = True
        thread.join()


def ask(page, method, path, body=None, headers=None):
    """Status, headers, text."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", page.port, PATIENCE)) as client:
        client.request(method, path, body, headers or {})
        answer = client.getresponse()
        return answer.status, answer.headers, answer.read().decode("utf-8", "replace")


def function_of(page, button):
    """Number of what a button starts."""
    config = json.loads(ask(page, "GET", "/config")[2])
    (part,) = (c["id"] for c in config["components"] if c["props"].get("elem_id") == button)
    return next(d["id"] for d in config["dependencies"] if [part, "click"] in d["targets"])


def join(page, function, session, *data):
    body = {"data": data, "fn_index": function, "session_hash": session}
    headers = {"Content-Type": "application/json"}
    return ask(page, "POST", "/gradio_api/queue/join", json.dumps(body), headers)


def done(page, session):
    """Returns the result of a session's only task."""
    text = ask(page, "GET", f"/gradio_api/queue/data?session_hash={session}")[2]
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    (last,) = (event for event in events if event["msg"] == "process_completed")
    return last


def upload(page, data, name="a.png", parts=1, **headers):
    part = (
        f'--abc\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        "Content-Type: text/html\r\n\r\n"
    ).encode() + data + b"\r\n"  # fmt: skip
    kind = {"Content-Type": "multipart/form-data; boundary=abc"}
    return ask(page, "POST", "/gradio_api/upload", part * parts + b"--abc--\r\n", kind | headers)


def test_fifty_searches_at_once_wait_or_are_turned_away(page):
    page.search_index.gate.clear()
    search = function_of(page, "search")
    assert join(page, search, "first", "лес", 1)[0] == 200
    assert page.search_index.begun.wait(PATIENCE)
    with concurrent.futures.ThreadPoolExecutor(49) as pool:
        found = [*pool.map(lambda n: join(page, search, f"s{n}", "лес", 1), range(49))]
    codes = [status for status, *_ in found]
    assert (codes.count(200), codes.count(503)) == (WAITING, 49 - WAITING)
    assert all("queue is full" in text.lower() for status, _, text in found if status == 503)
    page.search_index.gate.set()
    waited = ["first", *(f"s{n}" for n, code in enumerate(codes) if code == 200)]
    assert all(done(page, session)["success"] for session in waited)


def test_markup_in_names_is_text(page):
    """In what the page's parts are given; tests/rudolph_jax/test_app_browser.py sees it shown."""
    page.search_index.gate.set()
    assert join(page, function_of(page, "search"), "markup", "лес", 1)[0] == 200
    line, gallery = done(page, "markup")["output"]["data"]
    assert "<img" not in line and "&lt;img src=x" in line  # an HTML part
    assert gallery[0]["caption"] == f"0.500  {MARKUP}"  # a caption is shown as text
    assert "<" not in gallery[0]["image"]["path"]


def test_files_that_were_not_uploaded_are_not_read(page, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    caption = function_of(page, "caption")
    for number, path in enumerate((tmp_path / "secret.png", "/etc/hostname", "http://10.0.0.1/x")):
        image = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        join(page, caption, f"c{number}", image, "", 1, 0)
        assert done(page, f"c{number}")["success"] is False
        assert ask(page, "GET", f"/gradio_api/file={path}")[0] in (403, 404)


def test_an_upload_comes_back_as_a_download(page):
    status, headers, text = upload(page, b"<script>alert(1)</script>", "a.html")
    assert status == 200 and headers["X-Content-Type-Options"] == "nosniff"
    (path,) = json.loads(text)
    assert page.folder.resolve() in Path(path).resolve().parents
    status, headers, text = ask(page, "GET", f"/gradio_api/file={path}")
    assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
    assert headers["Content-Disposition"].startswith("attachment") and "script" in text
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; sandbox")


def test_uploads_of_others_and_of_more_are_refused(page):
    before = [*page.folder.rglob("*")]
    for site in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"},
                 {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}):  # fmt: skip
        assert upload(page, b"x", **site)[0] == 403
    assert upload(page, b"x", parts=2)[0] == 413
    with contextlib.suppress(ConnectionError):  # it may be cut before all is sent
        assert upload(page, bytes(2 << 20))[0] == 413
    assert [*page.folder.rglob("*")] == before


def test_no_site_is_named_in_an_answer(page):
    for headers in ({}, {"Origin": f"http://127.0.0.1:{page.port}"}):
        status, found, _ = ask(page, "GET", "/config", headers=headers)
        assert status == 200 and not any(n.lower().startswith("access-control") for n in found)
    status, found, _ = ask(page, "GET", "/config", headers={"Origin": "http://localhost:1"})
    assert status == 403 and "Access-Control-Allow-Origin" not in found
    for path in ("/openapi.json", "/gradio_api/openapi.json", "/docs", "/monitoring",
                 "/gradio_api/dev/reload", "/gradio_api/info"):  # fmt: skip
        assert ask(page, "GET", path)[0] == 404, path


def answer_to(page, data):
    """Sends bytes, and returns what the server sends until it closes."""
    with socket.create_connection(("127.0.0.1", page.port), PATIENCE) as client:
        client.sendall(data)
        found = b""
        while more := client.recv(65536):
            found += more
        return found


def test_200_megabytes_are_refused_by_their_announcement(page):
    """Nothing of the body is sent here: the answer comes before it."""
    for kind, path in (("application/json", "queue/join"),
                       ("multipart/form-data; boundary=abc", "upload")):  # fmt: skip
        found = answer_to(
            page,
            f"POST /gradio_api/{path} HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: 200000000\r\n\r\n".encode(),
        )
        assert found.startswith(b"HTTP/1.1 413") and b"too large" in found


def test_headers_are_bounded_in_time_and_size(page):
    assert answer_to(page, b"") == b""
    assert answer_to(page, b"GET / HTTP/1.1\r\nHost: 127.0") == b""
    assert answer_to(page, b"GET /config HTTP/1.1\r\n" + b"X: y\r\n" * 20_000).startswith(
        b"HTTP/1.1 400"
    )
    again = f"GET /theme.css HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n\r\nGET / HT".encode()
    assert answer_to(page, again).count(b"HTTP/1.1 200") == 1
    assert answer_to(page, b"GET /config HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 403")
