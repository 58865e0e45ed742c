"""`afw mcp` as a process: it ends when its client does, loses nothing, and keeps its output clean."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from afw_command import Afw
from mcp_process import RawServer, raw_server
from servers import Server, wait_until

ENDINGS = ("end of input", signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


def end(server: RawServer, how: str | signal.Signals) -> None:
    if isinstance(how, signal.Signals):
        server.process.send_signal(how)
    else:
        assert server.process.stdin is not None
        server.process.stdin.close()


@pytest.mark.parametrize("how", ENDINGS)
def test_it_ends_in_the_middle_of_a_question(afw: Afw, how: str | signal.Signals) -> None:
    with raw_server(afw) as server:
        server.greet()
        server.call(2, "flowise_query", question="please hang", flow_override="echo")
        wait_until((afw.home / "hanging").exists, "the flow to be asked")
        end(server, how)
        assert server.ended() in {0, 1}  # 1 where the thread of the flow had to be left behind


@pytest.mark.parametrize("how", ENDINGS)
def test_what_is_written_behind_is_not_lost(afw: Afw, how: str | signal.Signals) -> None:
    with raw_server(afw) as server:
        server.greet()
        server.call(2, "flowise_query", question="How do I rotate the keys?", flow_override="echo")
        while "id" not in (message := server.receive()):
            assert message["method"] == "notifications/progress"
        end(server, how)
        assert server.ended() == 0
    session = message["result"]["structuredContent"]["session_id"]
    thread = afw.json("session", "show", session)
    assert [turn["question"] for turn in thread["turns"]] == ["How do I rotate the keys?"]
    assert "Traceback" not in (afw.home / "mcp.log").read_text()


def test_it_ends_while_redis_hangs(afw: Afw, valkey: Server) -> None:
    with raw_server(afw) as server:
        server.greet()
        server.call(2, "flowise_query", question="How do I rotate the keys?", flow_override="echo", session_id="s")
        while "id" not in server.receive():
            pass
        valkey.pause()
        try:
            server.call(3, "flowise_query", question="please hang", flow_override="echo")
            wait_until((afw.home / "hanging").exists, "the flow to be asked though Redis hangs")
            end(server, "end of input")
            assert server.ended() in {0, 1}
        finally:
            valkey.resume()


def test_calls_do_not_wait_for_each_other(afw: Afw) -> None:
    with raw_server(afw) as server:
        server.greet()
        server.call(2, "flowise_query", question="please hang", flow_override="echo")
        wait_until((afw.home / "hanging").exists, "the flow to be asked")
        server.call(3, "flowise_query", question="Which port?", flow_override="echo")
        while "id" not in (message := server.receive()):
            pass
        assert (message["id"], message["result"]["isError"]) == (3, False)
        (afw.home / "release").touch()
        while "id" not in (message := server.receive()):
            pass
        assert message["id"] == 2
        end(server, "end of input")
        assert server.ended() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_though_its_client_reads_no_more(afw: Afw, how: signal.Signals) -> None:
    with raw_server(afw) as server:
        server.greet()
        for request in range(2, 30):  # more than a pipe holds, and than a socket does
            server.send("tools/list", request=request)
        server.call(30, "flowise_query", question="please hang", flow_override="echo")
        wait_until((afw.home / "hanging").exists, "all that was sent to be read")
        (afw.home / "release").touch()
        end(server, how)
        assert server.ended() == 0


def test_it_ends_when_its_client_is_gone(afw: Afw) -> None:
    with raw_server(afw) as server:
        server.greet()
        assert server.process.stdout is not None
        server.process.stdout.close()
        server.send("tools/list", request=2)
        assert server.ended() == 0
    assert "Traceback" not in (afw.home / "mcp.log").read_text()


def test_what_a_flow_prints_is_not_protocol(afw: Afw) -> None:
    source = afw.home / "afw_test_flow.py"
    source.write_text(source.read_text() + "\n\ndef loud(question):\n    print('LOUD')\n    return 'Said.'\n")
    afw.registry.write_text(afw.registry.read_text() + "  loud:\n    kind: python\n    callable: afw_test_flow:loud\n")
    with raw_server(afw) as server:
        server.greet()
        server.call(2, "flowise_query", question="Say it", flow_override="loud")
        while "id" not in (message := server.receive()):
            assert message["method"] == "notifications/progress"
        assert message["result"]["structuredContent"]["text"] == "Said."
        end(server, "end of input")
        assert server.process.stdout is not None
        assert server.process.stdout.read() == b""
        assert server.ended() == 0
    assert "LOUD" in (afw.home / "mcp.log").read_text()


def test_lines_that_are_no_messages_do_not_end_it(afw: Afw) -> None:
    with raw_server(afw) as server:
        server.greet()
        assert server.process.stdin is not None
        server.process.stdin.write(b"\xff\xfe nonsense\n[]\n{}\n")
        server.call(2, "flowise_browse", flow_name="nobody" + "y" * 300_000)
        while (message := server.receive()).get("id") != 2:
            assert "error" in message
        assert message["result"]["isError"]
        end(server, "end of input")
        assert server.ended() == 0


def test_questions_are_not_logged(afw: Afw) -> None:
    afw.environ["AFW_LOG_LEVEL"] = "INFO"
    with raw_server(afw) as server:
        server.greet()
        server.call(2, "flowise_query", question="my SECRETWORD", flow_override="nobody")
        server.call(3, "flowise_query", question="my SECRETWORD", flow_override="echo", max_age_seconds="SECRETWORD")
        waiting = {2, 3}
        while waiting:
            waiting.discard(server.receive().get("id", 0))
        end(server, "end of input")
        assert server.ended() == 0
    assert "SECRETWORD" not in (afw.home / "mcp.log").read_text()


def test_a_plain_file_may_be_its_input(afw: Afw) -> None:
    client = {"name": "file", "version": "1"}
    greeting = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": greeting})
    given, taken = afw.home / "in.jsonl", afw.home / "out.jsonl"
    given.write_text(message)  # without a newline at its end
    with given.open() as stdin, taken.open("w") as stdout, afw.start("mcp", stdin=stdin, stdout=stdout) as process:
        assert process.wait(30) == 0
    assert json.loads(taken.read_text())["result"]["serverInfo"]["name"] == "agentic-flywheel"
