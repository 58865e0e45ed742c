"""A place that traces are sent to, as tests need it: a real HTTP server that reads OTLP and Langfuse's scores."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from servers import wait_until

PUBLIC, SECRET = "pk-lf-test", "sk-lf-test"


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
    """What arrived so far. `how` is what it does with requests: take, hang, refuse (503), deny (401), drip."""

    def __init__(self, how: str) -> None:
        self.how = how
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
            received.requests += 1
            received.headers.append({name.lower(): value for name, value in self.headers.items()})
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if received.how == "hang":
                received.released.wait()
                return
            status = {"refuse": 503, "deny": 401}.get(received.how, 200)
            if status == 200:
                received.take(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", "0" if received.how != "drip" else "1000")
            self.end_headers()
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


def _read(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(one) for one in value.array_value.values)
    return getattr(value, kind)
