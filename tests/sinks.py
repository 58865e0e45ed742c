"""A place that traces are sent to, as tests need it: a real HTTP server that reads OTLP and Langfuse's scores.

It also deletes and finds traces as Langfuse's public API says that it does: with the project's keys alone, what belongs
to a trace with the trace, `DELETE` answered before anything is gone, pages with cursors.
"""

from __future__ import annotations

import base64
import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from servers import wait_until

PUBLIC, SECRET = "pk-lf-test", "sk-lf-test"
AUTHORIZATION = "Basic " + base64.b64encode(f"{PUBLIC}:{SECRET}".encode()).decode()


class Received(NamedTuple):
    """One span as it arrived."""

    trace: str
    span: str
    parent: str
    name: str
    start: int
    end: int
    said: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    error: str
    resource: dict[str, Any]


class Sink:
    """What arrived so far. `how` is what it does with requests: take, hang, refuse (503), deny (401), busy (429), drip.

    `later` leaves what is deleted where it is until `work`; `version` is Langfuse's: 3 finds traces by a list of them.
    `page` is the most that it puts on one.
    """

    def __init__(self, how: str) -> None:
        self.how = how
        self.later = False
        self.version = 4
        self.page = 1000
        self.asked_to_delete: list[str] = []
        self.deletions = 0
        self.spans: list[Received] = []
        self.scores: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.empty = 0
        self.requests = 0
        self.released = threading.Event()
        self.url = ""

    def trace(self, trace: str, *, spans: int) -> list[Received]:
        """The spans of one trace, once there are so many; more fail the test."""
        wait_until(lambda: len(self._of(trace)) >= spans, f"{spans} spans of {trace}, not {self._of(trace)}", 120)
        found = self._of(trace)
        assert len(found) == spans, [span.name for span in found]
        return sorted(found, key=lambda span: (span.start, -span.end))

    def _of(self, trace: str) -> list[Received]:
        return [span for span in list(self.spans) if span.trace == trace]

    def work(self) -> None:
        """Delete what was asked for."""
        gone = set(self.asked_to_delete)
        self.spans = [span for span in self.spans if span.trace not in gone]
        self.scores = [score for score in self.scores if score.get("traceId") not in gone]

    @property
    def traces(self) -> set[str]:
        """The ids of the traces that are here."""
        return {span.trace for span in self.spans}

    def delete(self, path: str, body: bytes) -> tuple[int, Any]:
        """What Langfuse answers to DELETE."""
        if path.startswith("/api/public/scores/"):
            id_ = unquote(path.rpartition("/")[2])
            kept = [score for score in self.scores if score["id"] != id_]
            found, self.scores = len(kept) < len(self.scores), kept
            return (202, {"message": "Score deletion request received"}) if found else (404, {"message": "Not found"})
        if path != "/api/public/traces":
            return 404, {"message": "Not found"}
        ids = json.loads(body)["traceIds"]
        if not ids or not all(isinstance(one, str) for one in ids):
            return 400, {"message": "Invalid request data"}
        self.deletions += 1
        self.asked_to_delete += ids
        if not self.later:
            self.work()
        return 200, {"message": "Traces deleted successfully"}

    def found(self, path: str, asked: dict[str, str]) -> tuple[int, Any]:
        """What Langfuse answers to GET; a filter that it does not know is passed over, as its server does."""
        names = {"sessionId": "session.id", "userId": "user.id"}
        rows = [
            {
                "id": span.span,
                "traceId": span.trace,
                "name": span.name,
                "sessionId": span.said.get("session.id"),
                "userId": span.said.get("user.id"),
                "metadata": _metadata(span),
            }
            for span in list(self.spans)
            if all(span.said.get(ours) == asked[theirs] for theirs, ours in names.items() if theirs in asked)
        ]
        if path == "/api/public/v2/observations" and self.version >= 4:
            rows = [row for row in rows if row["name"] == asked.get("name", row["name"])]
            start, most = int(asked.get("cursor", "0")), min(int(asked["limit"]), self.page)
            more = {"cursor": str(start + most)} if len(rows) > start + most else {}
            return 200, {"data": rows[start : start + most], "meta": more}
        if path == "/api/public/traces" and self.version < 4:
            roots = [row | {"id": row["traceId"], "name": "a title"} for row in rows if row["name"] == "afw.ask"]
            number, most = int(asked["page"]), int(asked["limit"])
            return 200, {"data": roots[(number - 1) * most : number * most], "meta": {"page": number}}
        return 404, {"message": "Not found"}

    def take(self, path: str, body: bytes) -> None:
        if path.endswith("/scores"):
            self.scores.append(json.loads(body))
            return
        request = ExportTraceServiceRequest.FromString(body)
        self.empty += not request.resource_spans
        for resource in request.resource_spans:
            about = _read(resource.resource.attributes)
            for scope in resource.scope_spans:
                assert scope.scope.name == "agentic_flywheel"
                for span in scope.spans:
                    assert len(span.trace_id) == 16
                    assert len(span.span_id) == 8
                    self.spans.append(
                        Received(
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.name,
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            _read(span.attributes),
                            tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                            span.status.message if span.status.code == 2 else "",
                            about,
                        )
                    )


@contextmanager
def sink(how: str = "take") -> Iterator[Sink]:
    """A sink on a port of its own; `.url` is its address."""
    received = Sink(how)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.answer(lambda body: received.take(self.path, body))

        def do_DELETE(self) -> None:
            self.answer(lambda body: received.delete(self.path, body), keys=True)

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self.answer(lambda _: received.found(parts.path, asked), keys=True)

        def answer(self, act: Callable[[bytes], tuple[int, Any] | None], *, keys: bool = False) -> None:
            received.requests += 1
            received.headers.append({name.lower(): value for name, value in self.headers.items()})
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if received.how == "hang":
                received.released.wait()
                return
            status, said = {"refuse": 503, "deny": 401, "busy": 429}.get(received.how, 200), b""
            if keys and self.headers.get("Authorization") != AUTHORIZATION:
                status = 401
            if status == 200 and (acted := act(body)) is not None:
                status, said = acted[0], json.dumps(acted[1]).encode()
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "30")
            self.send_header("Content-Length", str(len(said)) if received.how != "drip" else "1000")
            self.end_headers()
            self.wfile.write(said)
            while received.how == "drip" and not received.released.wait(0.2):
                self.wfile.write(b"\0")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    received.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        received.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def nobody() -> str:
    """An address that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def _metadata(span: Received) -> dict[str, Any]:
    """What Langfuse files as an observation's metadata."""
    lead = "langfuse.observation.metadata."
    return {name.removeprefix(lead): value for name, value in span.said.items() if name.startswith(lead)}


def _read(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(one) for one in value.array_value.values)
    return getattr(value, kind)
