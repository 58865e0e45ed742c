"""With redaction on, none of it is kept, logged or traced by any interface, in processes as people run them."""

from __future__ import annotations

from pathlib import Path

import pytest

from afw_command import Afw
from byte_search import held_in, places, places_on_disk
from flowise_replay import FLOWS, ReplayFlowise
from http_process import served
from mcp_process import called, connected
from servers import Server, wait_until
from sinks import Sink, sink

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("redaction_processes")]

SECRETS = (
    "ann.baker77@mail.example.org",
    "+33 6 39 98 12 34",
    "4242 4242 4242 4242",
    "GB29 NWBK 6016 1331 9268 19",
    "203.0.113.177",
    "q7Tz2LmX9vRb4KcW8nYd3PfH",
    "Blue!Kettle77",
)
TOLD = "I am {}, phone {}, card {}, IBAN {}, at {}; my key {} and my password is {}".format(*SECRETS)
HOLES = "I am [e-mail], phone [phone], card [card], IBAN [IBAN], at [IP]; my key [secret] and my password is [secret]"


def redacting(home: Path, redis_url: str, traces: Sink) -> Afw:
    """`afw` that redacts everything, logs everything, and traces all text."""
    afw = Afw(home, redis_url)
    afw.environ |= {
        "AFW_PRIVACY_REDACT": "all",
        "AFW_LOG_LEVEL": "DEBUG",
        "AFW_TRACE_EXPORTER": "otlp",
        "AFW_TRACE_ENDPOINT": f"{traces.url}/v1/traces",
        "AFW_TRACE_TEXT": "on",
    }
    return afw


def nowhere(afw: Afw, server: Server | None) -> None:
    """None of it is in Redis or in any file, but where the flow itself noted what it was asked."""
    (afw.home / "asked.txt").unlink(missing_ok=True)
    assert places(server, SECRETS, afw.home) == []


async def test_no_interface_keeps_any_of_it(valkey: Server, tmp_path: Path) -> None:
    with sink() as traces, ReplayFlowise() as flowise:
        flowise.answer = lambda asked: f"You said: {asked.question}"
        afw = redacting(tmp_path, valkey.url, traces)
        afw.environ["AFW_SERVE_FLOWISE_URL"] = flowise.url
        for arguments in (["--session", "cli", "--user", "bob"], [], ["--stream"]):
            done = afw.ok("ask", TOLD, "--flow", "echo", *arguments)
            assert TOLD in done.out
            assert held_in(done.err.encode(), SECRETS) == []
        afw.ok("report", "last", "--session", "cli", "--wrong", "--note", TOLD)
        shown = afw.json("session", "show", "cli")
        assert shown["turns"][0]["question"] == HOLES
        async with connected(afw) as client:
            said = await called(client, "flowise_query", question=TOLD, flow="echo", session_id="mcp")
            assert TOLD in str(said)
        with served(afw) as service, service.client() as http:
            body = {"question": TOLD, "flow": "echo", "session_id": "rest"}
            for _ in range(2):
                answer = http.post("/api/v2/ask", json=body, headers={"Idempotency-Key": "0123456789abcdef0123"})
                assert answer.status_code == 200, answer.text
            assert answer.headers["Idempotent-Replayed"] == "true"
            assert answer.json()["question"] == HOLES
            assert http.post("/api/v2/ask/stream", json=body | {"session_id": "streamed"}).status_code == 200
            assert http.post("/api/v2/explain", json={"question": TOLD, "flow": "echo"}).status_code == 200
            told = http.post("/api/v2/privacy/test", json={"text": TOLD, "flow": "echo"}).json()
            assert told["stored"] == HOLES
            for stream in (False, True):
                said_before = [{"role": "user", "content": TOLD}, {"role": "assistant", "content": TOLD}]
                asked = {"messages": [*said_before, {"role": "user", "content": TOLD}], "stream": stream}
                assert http.post("/v1/chat/completions", json={"model": "echo", **asked}).status_code == 200
                given = {"question": TOLD, "streaming": stream, "overrideConfig": {"sessionId": f"flowise-{stream}"}}
                predicted = http.post(f"/api/v1/prediction/{FLOWS['llm']}", json=given)
                assert predicted.status_code == 200, predicted.text
            assert any(TOLD in call.question for call in flowise.calls)
        asked_of_flow = afw.asked()
        assert sum(TOLD in question for question in asked_of_flow) >= 6
        afw.ok("export", str(tmp_path / "backup.afw"))
        afw.ok("search", "phone", "--session", "cli", "--json")
        nowhere(afw, valkey)
        assert places_on_disk(valkey, SECRETS) == []
        wait_until(lambda: len({span.trace for span in traces.spans}) >= 8, "traces of the questions", 60)
        assert held_in(repr(traces.spans).encode(), SECRETS) == []
        assert HOLES in repr(traces.spans)


async def test_nor_does_any_while_redis_is_away(tmp_path: Path) -> None:
    with sink() as traces:
        afw = redacting(tmp_path, f"unix://{tmp_path}/nobody.sock", traces)
        done = afw.ok("ask", TOLD, "--flow", "echo", "--session", "cli")
        assert TOLD in done.out
        assert held_in(done.err.encode(), SECRETS) == []
        async with connected(afw) as client:
            await called(client, "flowise_query", question=TOLD, flow="echo", session_id="mcp")
        with served(afw) as service, service.client() as http:
            body = {"question": TOLD, "flow": "echo", "session_id": "rest"}
            assert http.post("/api/v2/ask", json=body).status_code == 200
        assert places(None, ["[e-mail]"], afw.data)  # the turns wait there
        nowhere(afw, None)
