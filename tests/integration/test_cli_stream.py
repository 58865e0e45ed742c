"""`afw ask --stream` and the progress of MCP: the answer is there before it is whole."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import anyio
import pytest

from afw_command import Afw, assert_error
from mcp_process import called, connected
from servers import Server

SLOWLY = """

def slowly(question):
    yield "Seven "
    while not (HERE / "release").exists():
        time.sleep(0.005)
    if "break" in question:
        raise ValueError("the flow fell over")
    yield "days."
"""
QUESTION = "How long do answers stay good?"


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    afw = Afw(tmp_path, valkey.url)
    source = afw.home / "afw_test_flow.py"
    source.write_text(source.read_text() + SLOWLY)
    flow = "  slowly:\n    kind: python\n    callable: afw_test_flow:slowly\n"
    afw.registry.write_text(afw.registry.read_text() + flow)
    return afw


def release(afw: Afw) -> None:
    (afw.home / "release").touch()


def test_text_is_printed_as_it_comes(afw: Afw) -> None:
    asking = afw.start("ask", QUESTION, "--flow", "slowly", "--stream", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert asking.stdout is not None
    assert asking.stdout.read(6) == b"Seven "
    assert asking.poll() is None, "still being answered"
    release(afw)
    rest, notes = asking.communicate(timeout=60)
    assert (rest, asking.returncode) == (b"days.\n", 0)
    assert notes.startswith(b"miss")
    again = afw.ok("ask", QUESTION, "--flow", "slowly", "--stream", "--explain")
    assert again.out == "Seven days.\n"
    assert again.err.startswith("hit")
    assert "decision" in again.err


def test_json_gives_one_event_a_line_and_the_answer_last(afw: Afw) -> None:
    release(afw)
    done = afw.ok("ask", QUESTION, "--flow", "slowly", "--stream", "--json")
    *events, last = (json.loads(line) for line in done.out.splitlines())
    assert events == [{"event": "text", "text": "Seven "}, {"event": "text", "text": "days."}]
    assert last["event"] == "answer"
    assert (last["answer"]["text"], last["answer"]["outcome"]) == ("Seven days.", "miss")
    documents = afw.ok("ask", QUESTION, "--flow", "documents", "--stream", "--json")
    *events, last = (json.loads(line) for line in documents.out.splitlines())
    assert "".join(event["text"] for event in events if event["event"] == "text") == last["answer"]["text"]
    assert [event["sources"] for event in events if event["event"] == "sources"] == [last["answer"]["sources"]]


def test_a_stream_that_breaks(afw: Afw) -> None:
    release(afw)
    done = afw.run("ask", "please break", "--flow", "slowly", "--stream")
    assert (done.code, done.out) == (2, "Seven \n")
    assert done.err.startswith("error: ")
    done = afw.run("ask", "please break", "--flow", "slowly", "--stream", "--json")
    part, error = (json.loads(line) for line in done.out.splitlines())
    assert (done.code, part) == (2, {"event": "text", "text": "Seven "})
    assert error.pop("event") == "error"
    assert_error(error, "flow_unavailable")


def test_a_reader_that_goes_away_does_not_cost_the_answer(afw: Afw) -> None:
    with afw.start("ask", QUESTION, "--flow", "slowly", "--stream", stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        assert asking.stdout.read(6) == b"Seven "
        asking.stdout.close()
        release(afw)
        assert asking.wait(60) == 141
    assert afw.json("ask", QUESTION, "--flow", "slowly")["outcome"] == "hit"


@pytest.mark.anyio
async def test_an_mcp_client_that_asks_for_progress_hears_the_text(afw: Afw) -> None:
    reports: list[str | None] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append(message)
        if message == "Seven ":
            release(afw)

    async with connected(afw) as client:
        with anyio.fail_after(60):
            arguments = {"question": QUESTION, "flow_override": "slowly"}
            result = await client.call_tool("flowise_query", arguments, progress_callback=report)
        assert not result.is_error
        assert "Seven " in reports
        assert (await called(client, "flowise_query", question=QUESTION, flow_override="slowly"))["outcome"] == "hit"


def test_ctrl_c_in_the_middle_ends_the_line(afw: Afw) -> None:
    with afw.start("ask", QUESTION, "--flow", "slowly", "--stream", stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        assert asking.stdout.read(6) == b"Seven "
        asking.send_signal(signal.SIGINT)
        assert asking.stdout.read(1) == b"\n"
        release(afw)
        assert asking.wait(60) == 130
