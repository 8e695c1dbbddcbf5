"""Requests that reach the page, and those that the middleware before it answers."""

import asyncio
import dataclasses

import pytest

from rudolph_jax import InputError
from rudolph_jax.app.origins import Origins, parse_origin
from rudolph_jax.app.request_body import RequestLimits
from rudolph_jax.app.security_middleware import FILE, HEADERS, JOIN, UPLOAD, SecurityMiddleware

HOST, OWN = b"127.0.0.1:7860", b"http://127.0.0.1:7860"
LIMITS = RequestLimits(
    json_bytes=100, upload_bytes=1000, uploads=4, uploads_bytes=200_000, idle=0.05
)
FORM = b"multipart/form-data; boundary=----abc"
JSON = {b"content-type": b"application/json"}
BROWSER = {b"origin": OWN, b"sec-fetch-site": b"same-origin"}


class Page:
    """Stands for gradio: reads whole bodies, answers with what it is given."""

    def __init__(self, headers=(), wait=None):
        self.headers, self.wait = list(headers), wait
        self.scopes, self.read = [], 0

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        while scope["method"] == "POST":
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client left")
            self.read += len(message["body"])
            if not message.get("more_body"):
                break
        if self.wait:
            await self.wait()
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"page"})


def origins(host="127.0.0.1", *others):
    return Origins(host, 7860, others)


@pytest.fixture
def middleware(tmp_path):
    def middleware(page=None, limits=LIMITS, names=None, **more):
        return SecurityMiddleware(page or Page(), names or origins(), tmp_path, limits, **more)

    return middleware


async def ask(
    middleware, method, path, headers=None, chunks=(b"",), host=HOST, more=(), stall=False
):
    """Status, headers and body of the answer, and how many chunks were read."""
    sent, left = [], [*chunks]

    async def receive():
        if not left:
            await asyncio.sleep(3600 if stall else 0)
            return {"type": "http.disconnect"}
        data = left.pop(0)
        return {"type": "http.request", "body": data, "more_body": bool(left) or stall}

    async def send(message):
        sent.append(message)

    pairs = [(b"host", host), *(headers or {}).items(), *more]
    path, _, query = path.partition("?")
    scope = {
        "type": "http", "method": method, "path": path, "query_string": query.encode(),
        "scheme": "http", "headers": [pair for pair in pairs if pair[1] is not None],
    }  # fmt: skip
    await middleware(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    found = dict(sent[0]["headers"])
    assert found.keys() >= HEADERS.keys()
    assert not any(name.startswith(b"access-control") for name in found)
    return sent[0]["status"], found, sent[1]["body"], len(chunks) - len(left)


def status(*args, **more):
    return asyncio.run(ask(*args, **more))[0]


def post(middleware, path=JOIN, headers=JSON, **more):
    return status(middleware, "POST", path, headers, **more)


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/?deep_link=../../x", "/theme.css", "/gradio_api/theme.css",
     "/favicon.ico", "/assets/index-B_a.js", "/static/img/logo.svg", "/gradio_api/heartbeat/ab12",
     "/gradio_api/queue/data?session_hash=a", "/gradio_api/upload_progress?upload_id=a"],
)  # fmt: skip
def test_what_the_page_needs_is_passed_on(middleware, path):
    page = Page()
    assert status(middleware(page), "GET", path) == 200
    queried = "queue" in path or "progress" in path
    assert bool(page.scopes[0]["query_string"]) == queried


UNNEEDED = [
    "/openapi.json", "/docs", "/redoc", "/docs/oauth2-redirect", "/monitoring", "/monitoring/",
    "/monitoring/summary", "/monitoring/abc", "/login", "/logout", "/manifest.json", "/pwa_icon",
    "/gradio_api/openapi.json", "/gradio_api/info", "/gradio_api/info/", "/gradio_api/dev/reload",
    "/gradio_api/user", "/gradio_api/token", "/gradio_api/app_id", "/gradio_api/login_check",
    "/gradio_api/proxy=http://127.0.0.1/x", "/gradio_api/file=http://127.0.0.1:1/x",
    "/gradio_api/file=https://evil.example/x", "/gradio_api/file/etc/passwd",
    "/gradio_api/component_server", "/gradio_api/call/draw", "/gradio_api/call/v2/draw",
    "/gradio_api/api/predict", "/gradio_api/reset", "/gradio_api/queue/status", "/gradio_api/runs",
    "/gradio_api/run-history/connect", "/gradio_api/startup-events", "/gradio_api/deep_link",
    "/gradio_api/vibe-edit", "/gradio_api/vibe-code/", "/gradio_api/process_recording",
    "/gradio_api/custom_component/1/client/component/x.js", "/gradio_api/stream/a/b/1/x.ts",
    "/gradio_api/profiling/traces", "/gradio_api/mcp/sse", "/dev/reload", "//", "/./config",
    "/config/", "/assets/../config", "/assets/..%2fconfig", "/assets/.env", "/assets//x",
    "/assets/a\\..\\b", "/assets/a\0b", "/static/a\nb", "/svelte/../../x", "/config;x", "*", "",
    "/gradio_api/heartbeat/", "/gradio_api/heartbeat/a/b", "/gradio_api/run/",
    "/gradio_api/run/a/b", "http://evil.example/config", "/CONFIG", "/gradio_api/queue/join/",
    "/.well-known/x",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_else_is_served(middleware, method):
    page = Page()
    protected = middleware(page)
    for path in UNNEEDED:
        assert status(protected, method, path, JSON) in (403, 404), path
    for path in ("/", "/config", JOIN, UPLOAD):
        reads, writes = path in ("/", "/config"), path in (JOIN, UPLOAD)
        if not (reads and method in ("GET", "HEAD") or writes and method == "POST"):
            assert status(protected, method, path, JSON) == 404, path
    assert page.scopes == []


def test_web_sockets_are_refused(middleware):
    sent = []

    async def send(message):
        sent.append(message)

    page = Page()
    asyncio.run(middleware(page)({"type": "websocket", "path": "/", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}] and page.scopes == []


@pytest.mark.parametrize(
    ("bind", "served", "refused"),
    [
        ("127.0.0.1", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST:7860", "[::1]:7860"],
         ["127.0.0.1", "127.0.0.1:7861", "evil.example:7860", "127.0.0.1.evil.example:7860",
          "127.0.0.1:7860.evil.example", "evil@127.0.0.1:7860", "127.0.0.1:7860:7860", "",
          "localhost.:7860", " 127.0.0.1:7860", "127.0.0.1:07860", "[::1]", "10.0.0.1:7860",
          "127.1:7860", "2130706433:7860", "127.0.0.1:7860,evil.example", "\xff", "0.0.0.0:7860"]),
        ("10.1.2.3", ["10.1.2.3:7860"], ["127.0.0.1:7860", "10.1.2.4:7860", "evil.example:7860"]),
        ("0.0.0.0", ["10.1.2.3:7860", "192.168.0.7:7860", "localhost:7860", "[2001:db8::1]:7860"],
         ["10.1.2.3", "10.1.2.3:80", "evil.example:7860", "999.1.1.1:7860", "1:7860", "[::g]:7860",
          "10.1.2.3:7860x", "[10.0.0.1:7860", "10.0.0.1.:7860"]),
    ],
)  # fmt: skip
def test_hosts_are_matched_whole(middleware, bind, served, refused):
    protected = middleware(
        names=origins(bind, "https://Studio.example", "http://other.example:8080")
    )
    for host in [*served, "studio.example", "other.example:8080"]:
        assert status(protected, "GET", "/", host=host.encode("latin-1")) == 200, host
    for host in [*refused, "studio.example:7860", "studio.example:80", "other.example"]:
        assert status(protected, "GET", "/", host=host.encode("latin-1")) == 403, host
    assert status(protected, "GET", "/", host=None) == 403


def test_origins_are_parsed():
    assert parse_origin("https://Studio.example/") == "https://studio.example"
    assert parse_origin("http://a.example:80") == "http://a.example"
    assert parse_origin("https://[2001:db8::1]:8443") == "https://[2001:db8::1]:8443"
    for text in ("studio.example", "ftp://a", "https://a/b", "https://u@a", "https://", "*", "null",
                 "http://a:99999", "https://a?b", "http://[::1", "http://пример"):  # fmt: skip
        with pytest.raises(InputError, match="is not an origin"):
            parse_origin(text)


FOREIGN = [
    {b"origin": b"http://evil.example"}, {b"origin": b"null"}, {b"origin": b""},
    {b"origin": b"http://127.0.0.1:7861"}, {b"origin": b"https://127.0.0.1:7860"},
    {b"origin": b"http://localhost:7860"}, {b"origin": b"http://127.0.0.1"},
    {b"origin": b"http://127.0.0.1:7860.evil.example"}, {b"origin": OWN + b"/"},
    {b"origin": OWN + b" http://evil.example"}, {b"origin": b"file://"},
    {b"sec-fetch-site": b"cross-site"}, {b"sec-fetch-site": b"same-site"},
    {b"sec-fetch-site": b""}, {b"sec-fetch-site": b"Same-Origin"},
    {b"origin": OWN, b"sec-fetch-site": b"cross-site"},
    {b"origin": b"http://evil.example", b"sec-fetch-site": b"same-origin"},
    {b"sec-fetch-site": b"cross-site", b"sec-fetch-mode": b"navigate",
     b"sec-fetch-dest": b"document"},
]  # fmt: skip


def test_other_sites_change_nothing(middleware):
    page = Page()
    protected = middleware(page)
    for path, kind in ((JOIN, b"application/json"), (UPLOAD, FORM), ("/gradio_api/cancel", b"x"),
                       ("/gradio_api/run/predict", b"text/plain")):  # fmt: skip
        for headers in FOREIGN:
            assert post(protected, path, {b"content-type": kind, **headers}) == 403, headers
    for headers in FOREIGN[:-1]:
        for path in ("/config", "/gradio_api/heartbeat/ab", "/gradio_api/queue/data?a=b"):
            assert status(protected, "GET", path, headers) == 403, headers
    preflight = {b"origin": b"http://evil.example", b"access-control-request-method": b"POST"}
    assert status(protected, "OPTIONS", JOIN, preflight) == 403
    for name in (b"origin", b"host", b"content-type", b"sec-fetch-site"):
        doubled = {**JSON, **BROWSER}
        more = [(name, {**doubled, b"host": HOST}[name])]
        assert post(protected, JOIN, doubled, more=more) == 400, name
    assert page.scopes == []
    assert status(protected, "GET", "/", FOREIGN[-1]) == 200  # a link that is followed
    frame = {**FOREIGN[-1], b"sec-fetch-dest": b"iframe"}
    assert status(protected, "GET", "/", frame) == 403


def test_the_page_itself_and_programs_may(middleware):
    for headers in ({}, BROWSER, {b"origin": OWN}, {b"sec-fetch-site": b"none"}):
        assert post(middleware(), JOIN, {**JSON, **headers}, chunks=[b"{}"]) == 200
    proxied = {b"origin": b"https://studio.example", b"sec-fetch-site": b"same-origin"}
    page = Page()
    names = origins("127.0.0.1", "https://studio.example")
    forged = [(b"x-forwarded-host", b"evil.example"), (b"forwarded", b"host=evil.example")]
    protected = middleware(page, names=names)
    assert post(protected, JOIN, {**JSON, **proxied}, host=b"studio.example", more=forged) == 200
    assert page.scopes[0]["scheme"] == "https"
    assert b"evil" not in b"".join(value for _, value in page.scopes[0]["headers"])


def test_a_large_body_is_refused_before_it_is_read(middleware):
    page = Page()
    for path, kind, most in ((JOIN, JSON, 100), (UPLOAD, {b"content-type": FORM}, 1000 + 65536)):
        for size in (most + 1, 200_000_000, 10**18 - 1):
            headers = {**kind, b"content-length": str(size).encode()}
            found = asyncio.run(ask(middleware(page), "POST", path, headers, [b"x"] * 9))
            assert (found[0], found[1][b"connection"], found[3]) == (413, b"close", 0)
            assert str(most).encode() in found[2]
    assert page.scopes == []
    for length in (b"-1", b"1e3", b"0x9", b"", b"9" * 19, b"1, 1", b"+1"):
        assert post(middleware(), JOIN, {**JSON, b"content-length": length}) == 400, length
    assert post(middleware(), chunks=[b"x" * 100]) == 200


@pytest.mark.parametrize("begin", [{b"transfer-encoding": b"chunked"}, {b"content-length": b"9"}])
def test_a_body_is_cut_while_it_is_read(middleware, begin):
    page = Page()
    found = asyncio.run(ask(middleware(page), "POST", JOIN, {**JSON, **begin}, [b"x" * 40] * 50))
    assert found[0] == 413 and found[3] == 3 and page.read == 80
    form = {b"content-type": FORM, **begin}
    found = asyncio.run(ask(middleware(page), "POST", UPLOAD, form, [b"x" * 40_000] * 50))
    assert found[0] == 413 and found[3] == 2


def test_bodies_of_other_kinds_and_forms(middleware):
    for kind in (None, b"text/plain", b"application/x-www-form-urlencoded", FORM, b"",
                 b"text/plain; application/json"):  # fmt: skip
        assert post(middleware(), JOIN, {b"content-type": kind}) == 415, kind
    assert post(middleware(), JOIN, {b"content-type": b"application/json; charset=utf-8"}) == 200
    for kind in (b"application/json", b"multipart/form-data", b"multipart/mixed; boundary=a",
                 b"multipart/form-data; boundary=", b"multipart/form-data; boundary=a b",
                 b"multipart/form-data; boundary=a; boundary=b",
                 b"multipart/form-data; boundary=" + b"a" * 71):  # fmt: skip
        assert post(middleware(), UPLOAD, {b"content-type": kind}) == 415, kind
    part = b'------abc\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nx\r\n'
    for parts, expected in ((1, 200), (2, 413), (9, 413)):
        body = part * parts + b"------abc--\r\n"
        for size in (1, 7, len(body)):  # however it is cut
            chunks = [body[i : i + size] for i in range(0, len(body), size)]
            protected = middleware()
            assert post(protected, UPLOAD, {b"content-type": FORM}, chunks=chunks) == expected


def test_uploads_are_bounded_together(middleware):
    now = [0.0]
    protected = middleware(clock=lambda: now[0])
    form = {b"content-type": FORM, b"content-length": b"1"}
    assert [post(protected, UPLOAD, form) for _ in range(6)] == [200] * 4 + [429] * 2
    assert post(protected, JOIN) == 200
    now[0] = LIMITS.remembered + 1
    large = {**form, b"content-length": b"66000"}
    assert [post(protected, UPLOAD, large) for _ in range(4)] == [200] * 3 + [429]
    now[0] = 3 * LIMITS.remembered
    chunked = {b"content-type": FORM, b"transfer-encoding": b"chunked"}
    chunks = [b"x" * 33_000] * 2
    found = [post(protected, UPLOAD, chunked, chunks=chunks) for _ in range(4)]
    assert found == [200] * 3 + [429]


def test_a_slow_body_is_given_up(middleware):
    page = Page()
    protected = middleware(page)
    found = asyncio.run(ask(protected, "POST", JOIN, JSON, [b"x", b"y"], stall=True))
    assert found[0] == 408 and page.read == 2 and protected.requests == 0
    dripping = middleware(page, dataclasses.replace(LIMITS, idle=9, seconds=0))
    assert post(dripping, chunks=[b"x"] * 9) == 408


def test_more_than_may_be_at_work_are_turned_away(middleware):
    async def all_at_once():
        gate = asyncio.Event()
        page = Page(wait=gate.wait)
        protected = middleware(page, dataclasses.replace(LIMITS, requests=3, streams=2))
        asked = [asyncio.create_task(ask(protected, "GET", "/config")) for _ in range(5)]
        asked += [
            asyncio.create_task(ask(protected, "GET", "/gradio_api/queue/data?session_hash=a"))
            for _ in range(3)
        ]
        while len(page.scopes) < 5:
            await asyncio.sleep(0)
        gate.set()
        found = await asyncio.gather(*asked)
        assert (protected.requests, protected.streams) == (0, 0)
        return [(status, headers.get(b"retry-after")) for status, headers, *_ in found]

    found = asyncio.run(all_at_once())
    assert sorted(found[:5], key=str) == [(200, None)] * 3 + [(503, b"5")] * 2
    assert sorted(found[5:], key=str) == [(200, None)] * 2 + [(503, b"5")]


def test_files_are_images_or_downloads(middleware, tmp_path):
    (tmp_path / "link").symlink_to("/etc")
    inside = f"{FILE}{tmp_path}/ab/x.png"
    for name in ("/etc/passwd", f"{tmp_path}/../x", f"{tmp_path}/link/passwd", "x", f"{tmp_path}",
                 "http://127.0.0.1/x", f"{tmp_path}x/y", "//evil.example/x", "../x"):  # fmt: skip
        assert status(middleware(), "GET", f"{FILE}{name}") in (403, 404), name
    for kind in (b"image/png", b"image/webp", b"image/jpeg; q=1"):
        found = asyncio.run(ask(middleware(Page([(b"Content-Type", kind)])), "GET", inside))[1]
        assert found[b"content-type"] == kind and b"content-disposition" not in found
    for kind in (b"text/html", b"image/svg+xml", b"application/xhtml+xml", b"text/javascript",
                 b"", b"IMAGE/PNG"):  # fmt: skip
        page = Page([(b"Content-Type", kind), (b"content-disposition", b"inline; filename=x")])
        found = asyncio.run(ask(middleware(page), "GET", inside))[1]
        assert found[b"content-type"] == b"application/octet-stream", kind
        assert found[b"content-disposition"] == b"attachment", kind
        assert b"sandbox" in found[b"content-security-policy"]


def test_headers_are_the_middlewares_own(middleware):
    loose = [(b"Access-Control-Allow-Origin", b"*"), (b"X-Frame-Options", b"ALLOWALL"),
             (b"access-control-allow-credentials", b"true"), (b"etag", b"1")]  # fmt: skip
    sent = asyncio.run(ask(middleware(Page(loose)), "GET", "/config", {b"origin": OWN}))
    assert {name: sent[1][name] for name in HEADERS} == HEADERS and sent[1][b"etag"] == b"1"
    policy = HEADERS[b"content-security-policy"].decode()
    assert "default-src 'none'" in policy and "http" not in policy and "*" not in policy
