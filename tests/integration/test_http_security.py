"""What strangers send: names, paths, bodies and heads that are not meant well, over real sockets, byte by byte."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from afw_command import Afw
from flowise_replay import FLOWS, ReplayFlowise
from http_process import HttpServer, assert_problem, served
from servers import Server, Servers

pytestmark = pytest.mark.xdist_group("http_security")

EVIL = "https://evil.example"


@pytest.fixture(scope="module")
def flowise() -> Iterator[ReplayFlowise]:
    with ReplayFlowise() as replay:
        yield replay


@pytest.fixture(scope="module")
def running(flowise: ReplayFlowise, tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[HttpServer]:
    home = Afw(tmp_path_factory.mktemp("security"), servers.get("valkey9").url)
    home.environ |= {"AFW_SERVE_FLOWISE_URL": flowise.url, "AFW_SERVE_CLIENT_SECONDS": "2"}
    with served(home) as server:
        yield server


@pytest.fixture
def server(running: HttpServer, flowise: ReplayFlowise, valkey: Server) -> Iterator[HttpServer]:
    """With an empty Redis, and nothing asked of Flowise yet. Whatever is sent, nothing happens that nobody expected."""
    flowise.requests.clear()
    said = len(running.log)
    yield running
    assert "unexpected" not in running.log[said:], running.log[said:]
    assert "Traceback" not in running.log[said:]


def exchanged(server: HttpServer, sent: bytes) -> list[tuple[int, bytes]]:
    """What comes back to these bytes until the service ends the connection: status and the rest of each response."""
    parts = urlsplit(server.url)
    received = b""
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(sent)
        try:
            while data := connection.recv(65536):
                received += data
        except ConnectionResetError:
            pass  # it was not read to its end: an answer all the same
    return [(int(piece[:3]), piece) for piece in received.split(b"HTTP/1.1 ")[1:]]


def request(server: HttpServer, head: str, body: bytes = b"", **headers: str) -> bytes:
    """A request with `Host`, and a length where it has a body; `Connection: close` unless told otherwise."""
    named = {"Host": urlsplit(server.url).netloc, "Connection": "close", **headers}
    if body and "Transfer-Encoding" not in named:
        named.setdefault("Content-Length", str(len(body)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"{head} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


def ask(question: str, **more: object) -> bytes:
    return json.dumps({"question": question, **more}).encode()


def every_path(server: HttpServer) -> list[str]:
    return [path for paths in server.said["rooms"].values() for path in paths]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.", "localhost:80@evil.example", "0", ""]
)
def test_a_name_that_is_made_to_lead_here_reaches_nothing(server: HttpServer, host: str) -> None:
    for path in every_path(server):
        for method in ("GET", "POST", "OPTIONS"):
            ((status, text),) = exchanged(server, request(server, f"{method} {path}", Host=host))
            assert status in {400, 421}, (method, path, text)
    assert server.said["rooms"]


FROM_ELSEWHERE = [
    {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"},
    {"Origin": EVIL},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
]
#: What a page can send without being asked whether it may.
FORMS = {
    "application/x-www-form-urlencoded": b"question=How%3F",
    "text/plain": b'{"question": "How?"}',
    "multipart/form-data; boundary=x": b'--x\r\nContent-Disposition: form-data; name="question"\r\n\r\nHow?\r\n--x--',
}


def test_pages_of_others_change_nothing_on_any_route(server: HttpServer, flowise: ReplayFlowise) -> None:
    with server.client(cookies={"afw_key": "afw_" + "0" * 55}) as client:
        for path in every_path(server):
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                for number, (media_type, body) in enumerate(FORMS.items()):
                    headers = {"Content-Type": media_type, **FROM_ELSEWHERE[number]}
                    assert_problem(client.request(method, path, content=body, headers=headers), 403, "origin_refused")
            for headers in FROM_ELSEWHERE[3:]:
                refused = client.post(path, headers=headers)
                assert_problem(refused, 403, "origin_refused")
                assert "access-control-allow-origin" not in refused.headers
    assert flowise.requests == []


PATHS = [
    "/api/v1/../../etc/passwd",
    "/api/v1/%2e%2e/%2e%2e/admin",
    "/api/v1/..%2fadmin",
    "/api/v1/..%5cadmin",
    "/api/v1/%252e%252e/admin",
    "/api/v1/%25252e%25252e/admin",
    "/api/v1/.%00./admin",
    "/api/v1/ping%00.json",
    "/api/v1/ping%0d%0aX-Evil:%201",
    "/api/v1/%c0%ae%c0%ae/admin",
    "/api/v1//admin",
    "//api/v1/ping",
    "/api/v1/./ping",
    "/api/v1/prediction/..",
    "/api/v1/prediction/%2e%2e",
    "/api/v1/prediction/%2e",
    "/api/v1/prediction/..%2f..%2fadmin",
    "/api/v1/prediction/%2e%2e%2fapikey",
    "/api/v1/prediction/x%00",
    "/api/v1/prediction/%252e%252e",
    "/api/v1\\..\\admin",
    "/API/V1/ping",
    "/../api/v1/ping",
    "http://evil.example/admin",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out_of_the_interface_behind(server: HttpServer, flowise: ReplayFlowise, path: str) -> None:
    for method, body in (("GET", b""), ("POST", ask("How?")), ("DELETE", b"")):
        headers = {"Content-Type": "application/json"} if body else {}
        answers = exchanged(server, request(server, f"{method} {path}", body, **headers))
        assert [status for status, _ in answers] in ([400], [404], [405], []), (method, answers)
    assert flowise.requests == []


def test_a_path_of_any_length_and_alphabet_is_answered(server: HttpServer, flowise: ReplayFlowise) -> None:
    for path in (
        "/problems/" + "x" * 60_000,
        "/problems/%f0%9f%92%a9",
        "/problems/%ff",
        "/problems/%",
        "/" + "a/" * 5000,
    ):
        ((status, _),) = exchanged(server, request(server, f"GET {path}"))
        assert status in {400, 404}
    assert exchanged(server, request(server, "GET /" + "x" * 200_000))[0][0] in {400, 404, 414, 431}


def test_a_head_without_an_end_is_not_kept(server: HttpServer) -> None:
    """Many headers, one long header, and a long address, all of them before anybody has said who they are."""
    netloc = urlsplit(server.url).netloc
    many = "".join(f"X-{number}: y\r\n" for number in range(16_000))
    for head in (
        f"GET /healthz HTTP/1.1\r\nHost: {netloc}\r\n{many}",
        f"GET /healthz HTTP/1.1\r\nHost: {netloc}\r\nX-A: {'y' * 140_000}",
        f"GET /{'y' * 140_000}",
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {netloc}\r\nContent-Length: 2\r\n\r\n{{}}GET /{'y' * 420_000}",
    ):
        statuses = [status for status, _ in exchanged(server, head.encode())]
        assert statuses[-1:] == [431], statuses
    # As large as clients send them, and behind a large body on the same connection.
    body = _chat("echo", "x" * 15_000)
    sent = request(server, "POST /v1/chat/completions", body, Connection="keep-alive", **{"X-Large": "y" * 30_000})
    answers = exchanged(server, sent + request(server, "GET /healthz", **{"X-Large": "y" * 60_000}))
    assert [status for status, _ in answers][-1] == 200


DEEP = b"[" * 200_000
BODIES = {
    "deep": DEEP,
    "deep question": b'{"question": ' + DEEP,
    "deep override": b'{"question": "How?", "overrideConfig": {"a": '
    + b'{"a":' * 100_000
    + b"1"
    + b"}" * 100_001
    + b"}",
    "half as deep": b'{"question": "How?", "overrideConfig": {"a": ' + b"[" * 480 + b"]" * 480 + b"}}",
    "nearly as deep": b'{"question": "How?", "overrideConfig": {"a": ' + b"[" * 950 + b"]" * 950 + b"}}",
    "huge number": b'{"question": "How?", "overrideConfig": {"temperature": ' + b"9" * 50_000 + b"}}",
    "infinite number": b'{"question": "How?", "overrideConfig": {"temperature": 1e999}}',
    "not a number": b'{"question": "How?", "overrideConfig": {"temperature": NaN}}',
    "no UTF-8": b'{"question": "\xff\xfe"}',
    "half a surrogate": b'{"question": "How \\ud800?"}',
    "nul": b'{"question": "How\\u0000?"}',
    "keys twice": b'{"question": "How?", "question": {"a": 1}}',
    "cut off": b'{"question": "How',
    "UTF-16": '{"question": "How?"}'.encode("utf-16"),
    "gzip": gzip.compress(b'{"question": "' + b"x" * 10_000_000 + b'"}'),
    "nothing": b"",
}


@pytest.mark.parametrize("name", BODIES)
def test_malformed_bodies_are_refused_or_left_to_flowise(server: HttpServer, name: str) -> None:
    body = BODIES[name]
    openai = body.replace(b'"question": ', b'"model": "echo", "messages": ', 1)
    chat = b'{"model": "echo", "messages": [{"role": "user", "content": "How?"}], "temperature": ' + body + b"}"
    zipped = {"Content-Encoding": "gzip"} if name == "gzip" else {}
    for path, sent in (
        (f"/api/v1/prediction/{FLOWS['llm']}", body),
        ("/v1/chat/completions", openai),
        ("/v1/chat/completions", chat),
        ("/mcp", body),
        ("/mcp", b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": ' + body + b"}"),
    ):
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **zipped}
        ((status, text),) = exchanged(server, request(server, f"POST {path}", sent, **headers))
        assert status < 500 or b'"statusCode"' in text or b"cannot be asked" in text, (path, text[:600])
        assert b"Traceback" not in text
    ((status, _),) = exchanged(server, request(server, "GET /healthz"))
    assert status == 200


TOO_MUCH = 60_000_000


def test_more_than_may_come_is_refused_before_it_has_come(server: HttpServer) -> None:
    for path in ("/v1/chat/completions", "/mcp", f"/api/v1/prediction/{FLOWS['llm']}"):
        said = request(server, f"POST {path}", **{"Content-Length": str(TOO_MUCH), "Content-Type": "application/json"})
        ((status, _),) = exchanged(server, said + b"{")
        assert status == 413, path
        for length in ("-1", "1e3", "0x10", "9" * 400, "5, 5"):
            headers = {"Content-Length": length, "Content-Type": "application/json"}
            answers = exchanged(server, request(server, f"POST {path}", b"{}", **headers))
            assert all(status in {400, 413} for status, _ in answers), (path, length, answers)


SMUGGLED = b"GET /whoami HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
CONFUSING = {
    "length and chunks": ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "chunks and length": ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", b"0\r\n\r\n" + SMUGGLED),
    "two lengths": ("Content-Length: 0\r\nContent-Length: 66\r\n", SMUGGLED),
    "two encodings": ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n" + SMUGGLED),
    "unknown encoding": ("Transfer-Encoding: xchunked\r\n", SMUGGLED),
    "space before the colon": ("Content-Length : 66\r\n", SMUGGLED),
    "folded": ("X-A: b\r\n Content-Length: 66\r\n", SMUGGLED),
    "no length at all": ("X-A: b\r\n", b"{}" + SMUGGLED),
    "chunks with an odd size": ("Transfer-Encoding: chunked\r\n", b"-1\r\n\r\n" + SMUGGLED),
}


@pytest.mark.parametrize("name", CONFUSING)
def test_nothing_is_smuggled_behind_a_request(server: HttpServer, flowise: ReplayFlowise, name: str) -> None:
    headers, body = CONFUSING[name]
    for path in ("/v1/chat/completions", "/api/v1/ping"):
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{headers}\r\n"
        answers = exchanged(server, head.encode() + body)
        bad = [status for status, text in answers if status == 200 and b'"proof"' in text]
        if name in {"no length at all", "folded", "two encodings"}:  # for a server that reads as written, two requests
            continue
        assert bad == [], answers
    assert all(one.path.startswith("/api/v1/") for one in flowise.requests)


def test_nothing_of_a_request_gets_into_heads(server: HttpServer) -> None:
    evil = "x\r\nSet-Cookie: evil=1\r\n\r\n<script>"
    flow = FLOWS["llm"]
    bodies = [
        (f"/api/v1/prediction/{flow}", ask(evil)),
        (f"/api/v1/prediction/{flow}", ask("How?", chatId=evil)),
        (f"/api/v1/prediction/{flow}", ask("How?", overrideConfig={"sessionId": evil})),
        (f"/api/v1/prediction/{flow}", ask("How?", streaming=True, chatId=evil)),
        ("/v1/chat/completions", _chat("echo", evil)),
        ("/v1/chat/completions", _chat(evil, "How?")),
        ("/v1/chat/completions", _chat("echo", "How?", metadata={"session_id": evil})),
        ("/v1/chat/completions", _chat("echo", "How?", user=evil)),
        ("/v1/chat/completions", _chat("echo", "How?", temperature=1, top_p=1)),
    ]
    for path, body in bodies:
        ((status, text),) = exchanged(
            server, request(server, f"POST {path}", body, **{"Content-Type": "application/json"})
        )
        head, _, rest = text.partition(b"\r\n\r\n")
        assert b"set-cookie" not in head.lower(), (path, head)
        assert status in {200, 400, 404}, (path, text)
        media_type = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-type:"))
        assert b"html" not in media_type
        assert b"x-content-type-options: nosniff" in head.lower()
        assert b"content-security-policy: default-src 'none'" in head.lower()
        assert rest
    for name in ("X-Request-ID", "traceparent", "X-AFW-Session", "Cache-Control", "Origin"):
        answers = exchanged(server, request(server, "GET /whoami", **{name: "x\x00y<script>"}))
        assert all(b"<script>" not in text.partition(b"\r\n\r\n")[0] for _, text in answers), name


def _chat(model: str, content: str, **more: object) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": content}], **more}).encode()


def test_no_address_gets_out_of_the_header_that_it_stands_in(server: HttpServer) -> None:
    session, media = 'x>; rel="evil"', {"Content-Type": "application/json"}
    for question in ("One?", "Two?"):
        body = ask(question, flow="echo", session_id=session)
        ((status, text),) = exchanged(server, request(server, "POST /api/v2/ask", body, **media))
        assert status == 200, text
    path = '/api/v2/sessions/x>;%20rel="evil"/turns?limit=1'
    ((status, text),) = exchanged(server, request(server, f"GET {path}"))
    assert status == 200, text
    link = next(line for line in text.split(b"\r\n") if line.lower().startswith(b"link:")).decode()
    assert link.count(">") == 1, link
    assert link.endswith('>; rel="next"')
    address = link.partition("<")[2].partition(">")[0]
    ((status, text),) = exchanged(server, request(server, f"GET {address}"))
    assert (status, b"One?" in text) == (200, True), text


MARKUP = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> [x](javascript:alert(1)) ![y](https://evil.example/p.png)"
)


def test_markup_is_kept_word_for_word_and_never_as_a_page(server: HttpServer) -> None:
    for path, body in (
        (f"/api/v1/prediction/{FLOWS['llm']}", ask(MARKUP)),
        ("/v1/chat/completions", _chat("echo", MARKUP)),
    ):
        for _ in range(2):  # from the flow, and from memory
            sent = request(server, f"POST {path}", body, **{"Content-Type": "application/json"})
            ((status, text),) = exchanged(server, sent)
            head, _, answer = text.partition(b"\r\n\r\n")
            assert status == 200
            assert b"content-type: application/json" in head.lower()
            assert b"nosniff" in head
            assert MARKUP in json.dumps(json.loads(answer), ensure_ascii=False)


def test_clients_that_do_not_go_on_are_ended(server: HttpServer) -> None:
    netloc = urlsplit(server.url).netloc
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {netloc}\r\nContent-Type: application/json\r\n"
    begun = [
        b"",
        b"GE",
        head.encode(),
        (head + "Content-Length: 10\r\n\r\n{").encode(),
        (head + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\r\n").encode(),
        f"GET /healthz HTTP/1.1\r\nHost: {netloc}\r\n\r\nGET /healthz HTTP/1.1\r\nHo".encode(),
    ]
    with ThreadPoolExecutor(len(begun)) as pool:  # each returns only once the service has ended its connection
        for sent, answers in zip(begun, pool.map(lambda sent: exchanged(server, sent), begun), strict=True):
            assert [status for status, _ in answers] in ([], [200], [400]), (sent, answers)


def test_who_is_slow_and_goes_on_is_waited_for(server: HttpServer) -> None:
    parts = urlsplit(server.url)
    body = _chat("echo", "slowly")
    sent = request(server, "POST /v1/chat/completions", body, **{"Content-Type": "application/json"})
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        head, body = sent[: -len(body)], sent[-len(body) :]
        connection.sendall(head)
        for place in range(0, len(body), 16):
            connection.sendall(body[place : place + 16])
        received = b""
        while data := connection.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 200")


def test_no_secret_is_logged(server: HttpServer) -> None:
    secret = "afw_0123456789ab" + "s3cr3t" * 10
    chat, media = _chat("echo", "SECRETQUESTION"), {"Content-Type": "application/json"}
    for headers in (
        {"X-API-Key": secret},
        {"Authorization": f"Bearer {secret}"},
        {"Authorization": "Basic c2VjcmV0OnMzY3IzdA=="},
        {"Cookie": f"afw_key={secret}"},
        {"X-Request-ID": secret},
    ):
        exchanged(server, request(server, f"POST /v1/chat/completions?key={secret}", chat, **media, **headers))
        exchanged(server, request(server, f"GET /api/v1/{secret}?apikey={secret}", **headers))
        exchanged(server, request(server, f"GET /{secret}", **headers))
        exchanged(server, request(server, f"POST /{secret}", secret.encode() * 3, **headers))
        exchanged(server, f"GET /{secret} HTTP/9\r\n{secret}\r\n\r\n".encode())
    for word in ("s3cr3t", "SECRETQUESTION", "c2VjcmV0"):
        assert word not in server.log
