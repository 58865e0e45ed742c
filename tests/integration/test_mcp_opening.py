"""The answer at the start of `afw mcp`: it is what the server proper says, and nothing else changes for the client.

Whole conversations are held with two processes, `afw mcp` and a server that answers everything itself, and their
outputs are compared line by line.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from afw_command import Afw
from agentic_flywheel import Flywheel
from agentic_flywheel.interfaces.cli.frame import EVERYWHERE
from agentic_flywheel.interfaces.mcp import opening
from agentic_flywheel.interfaces.mcp.opening import answer_to, serves_mcp
from agentic_flywheel.interfaces.mcp.openings import openings
from agentic_flywheel.interfaces.mcp.server import build_server
from agentic_flywheel.settings import load_settings
from servers import wait_until

OPENINGS = json.loads(Path(opening.__file__).with_name(opening.OPENINGS).read_text("utf-8"))
HANDSHAKES = list(OPENINGS["initialize"])
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
#: A server without the early answer.
PROPER = "from agentic_flywheel.interfaces.mcp.server import main; main()"


def request(method: str, number: Any = 1, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


def notification(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode() + b"\n"


def initialize(number: Any = 1, protocol: str = "2025-06-18", **params: Any) -> bytes:
    client = {"name": "raw", "version": "1"}
    return request(
        "initialize", number, **{"protocolVersion": protocol, "capabilities": {}, "clientInfo": client, **params}
    )


def modern(method: str, number: Any = 1, **params: Any) -> bytes:
    return request(method, number, _meta=ENVELOPE, **params)


def discover(number: Any = 1, **envelope: Any) -> bytes:
    return request("server/discover", number, _meta=ENVELOPE | envelope)


INITIALIZED = notification("notifications/initialized")
LISTS = ("tools/list", "resources/list", "resources/templates/list", "prompts/list")

#: What a client writes, piece by piece, and how many lines it gets before it closes.
CONVERSATIONS: dict[str, tuple[list[bytes], int]] = {
    **{f"handshake of {named}": ([initialize(protocol=named)], 1) for named in HANDSHAKES},
    "unknown version": ([initialize(protocol="1999-01-01") + INITIALIZED + request("ping", 2)], 2),
    "version of the other era": ([initialize(protocol="2026-07-28")], 1),
    "unknown version of the newer era": ([discover(**{"io.modelcontextprotocol/protocolVersion": "2027-01-01"})], 1),
    "envelope without capabilities": (
        [request("server/discover", _meta={"io.modelcontextprotocol/protocolVersion": "2026-07-28"})],
        1,
    ),
    "discovery without an envelope": ([request("server/discover")], 1),
    "everything in one write": (
        [initialize("a") + INITIALIZED + b"".join(request(method, n) for n, method in enumerate(LISTS))],
        5,
    ),
    "everything in one write, newer era": (
        [discover("a") + b"".join(modern(method, n) for n, method in enumerate(LISTS))],
        5,
    ),
    "byte by byte": ([bytes([byte]) for byte in initialize(protocol="2025-11-25")], 1),
    "carriage returns": ([initialize().replace(b"\n", b"\r\n") + request("ping", 2).replace(b"\n", b"\r\n")], 2),
    "number of an odd kind": ([initialize("") + request("ping", "é")], 2),
    "negative number": ([initialize(-7)], 1),
    "number beyond 64 bits": ([initialize(10**30)], 1),
    "fraction as number": ([initialize(1.5) + initialize(2)], 1),
    "null as number": ([initialize(None) + initialize(2)], 1),
    "truth as number": ([initialize(True) + initialize(2)], 1),
    "requests before": ([request("tools/list", 1) + request("ping", 2) + initialize(3)], 3),
    "notification before": ([INITIALIZED + initialize()], 1),
    "empty line before": ([b"\n" + initialize()], 1),
    "nonsense before": ([b"\xff\xfe nonsense\n[]\n{}\n" + initialize()], 1),
    "batch before": ([b"[" + initialize().strip() + b"]\n" + initialize(2)], 1),
    "answer before": ([b'{"jsonrpc":"2.0","id":1,"result":{}}\n' + initialize()], 1),
    "incomplete": ([request("initialize", 1, protocolVersion="2025-06-18", capabilities={}) + initialize(2)], 2),
    "ill-typed": ([initialize(1, capabilities={"roots": True}) + initialize(2)], 2),
    "twice": ([initialize(1) + initialize(1, protocol="2025-11-25") + request("ping", 2)], 3),
    "same number again": ([initialize(1) + INITIALIZED + request("ping", 1)], 2),
    "same number again, newer era": ([discover(1) + modern("tools/list", 1)], 2),
    "opening cancelled": (
        [initialize(1) + notification("notifications/cancelled", requestId=1) + request("ping", 1)],
        2,
    ),
    "handshake after discovery": ([discover(1) + initialize(2) + modern("tools/list", 3)], 3),
    "envelope after handshake": ([initialize(1) + INITIALIZED + modern("tools/list", 2) + request("ping", 3)], 3),
    "not initialized": ([initialize(1) + request("tools/list", 2)], 2),
    "many at once": ([initialize() + INITIALIZED + b"".join(request("ping", n) for n in range(2, 300))], 299),
    "long line": ([initialize(1, clientInfo={"name": "x" * 100_000, "version": "1"})], 1),
    "no end of line": ([initialize().strip()], 0),
    "nothing at all": ([], 0),
}


@pytest.fixture
def afw(tmp_path: Path) -> Afw:
    return Afw(tmp_path, "redis://127.0.0.1:1")


def talk(process: subprocess.Popen[bytes], said: list[bytes], answers: int) -> tuple[list[bytes], int]:
    """All lines that the process wrote, ordered, and its exit code."""
    assert process.stdin is not None
    assert process.stdout is not None
    for piece in said:
        process.stdin.write(piece)
        process.stdin.flush()
    heard = [process.stdout.readline() for _ in range(answers)]
    process.stdin.close()
    return sorted([*heard, *process.stdout]), process.wait(30)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_are_those_of_the_server_proper(afw: Afw, name: str) -> None:
    said, answers = CONVERSATIONS[name]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with (
        subprocess.Popen([sys.executable, "-c", PROPER], cwd=afw.work, env=afw.environ, **pipes) as proper,
        afw.start("mcp", **pipes) as ours,
    ):
        expected, heard = talk(proper, said, answers), talk(ours, said, answers)
        assert heard == expected
        assert len(expected[0]) >= answers
        assert b"" not in expected[0]
        assert ours.stderr is not None
        assert b"was told something else" not in ours.stderr.read()


@pytest.mark.anyio
async def test_the_answers_written_down_are_those_of_the_sdk(tmp_path: Path) -> None:
    settings = load_settings(environ={"AFW_CONFIG_DIR": str(tmp_path), "AFW_REDIS_URL": "redis://127.0.0.1:1"})
    async with Flywheel.open(settings=settings) as flywheel:
        assert await openings(build_server(flywheel)) == OPENINGS, "run `make openings`"
    assert OPENINGS["sdk"] == version("mcp")


def test_all_options_that_are_accepted_everywhere_are_known() -> None:
    assert EVERYWHERE - {"--json"} == opening.OPTIONS


@pytest.mark.parametrize(
    ("line", "served"),
    [
        ("mcp", True),
        ("--tenant a mcp", True),
        ("mcp --tenant=a --registry b --redis-url redis://h --env f", True),
        ("--tenant mcp mcp", True),
        ("--tenant mcp", False),
        ("mcp --tenant", False),
        ("mcp --tenant --json", False),
        ("mcp --help", False),
        ("mcp --json", False),
        ("--json mcp", False),
        ("mcp more", False),
        ("ask mcp", False),
        ("ask --flow mcp q", False),
        ("", False),
    ],
)
def test_only_a_plain_command_line_is_answered_early(line: str, served: bool) -> None:
    assert serves_mcp(line.split()) is served


# What clients say of themselves, near what is recognised: a name may be missing, unknown or of a wrong type.
_leaf = st.sampled_from([None, True, 0, 1.5, "", "x", "\ud83d\ude00", [], {}, [{}], {"x": {}}, {"x": 1}])


def _near(shape: Any) -> st.SearchStrategy[Any]:
    if shape is object:
        return _leaf
    if isinstance(shape, list):
        return st.lists(_near(shape[0]), max_size=2) | _leaf
    if isinstance(shape, dict):
        members = {name.strip("!").replace("*", "any"): _near(inner) for name, inner in shape.items()}
        needed = {name[1:]: _near(inner) for name, inner in shape.items() if name[0] == "!"}
        rest = {name: inner for name, inner in members.items() if name not in needed}
        whole = st.fixed_dictionaries(needed, optional={**rest, "unknown": _leaf})
        return st.one_of(whole, whole, whole, st.fixed_dictionaries({}, optional=members), _leaf)
    good: dict[type, st.SearchStrategy[Any]] = {str: st.sampled_from(["", "1", "é"]), bool: st.booleans()}
    return st.one_of(good[shape], good[shape], good[shape], _leaf)


@st.composite
def _requests(draw: st.DrawFn) -> dict[str, Any]:
    method = draw(st.sampled_from(["initialize", "server/discover"]))
    params = draw(_near(opening._PARAMS[method]))
    told = params.get("_meta", params) if isinstance(params, dict) else {}
    name = "protocolVersion" if method == "initialize" else opening._VERSION
    if isinstance(told, dict) and draw(st.integers(0, 9)):
        told[name] = draw(st.sampled_from([*HANDSHAKES, "2026-07-28", "2027-01-01"]))
    number = draw(st.one_of(st.integers(), st.text(max_size=3), _leaf))
    return {
        "jsonrpc": draw(st.sampled_from(["2.0", "2.0", "2.0", "1.0"])),
        "id": number,
        "method": method,
        "params": params,
    }


def _accepted_by_the_sdk(line: bytes) -> bool:
    """Whether the SDK's own validation lets this opening request through."""
    from mcp.shared.inbound import InboundModernRoute, classify_inbound_request
    from mcp_types import InitializeRequestParams, JSONRPCRequest, RequestParams, jsonrpc_message_adapter, methods
    from pydantic import ValidationError

    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        if not isinstance(message, JSONRPCRequest):
            return False
        if message.method == "initialize":
            methods.validate_client_request("initialize", "2025-11-25", message.params)
            InitializeRequestParams.model_validate(message.params, by_name=False)
            return True
        methods.validate_client_request("server/discover", "2026-07-28", message.params)
        RequestParams.model_validate(message.params, by_name=False)
    except ValidationError:
        return False
    return isinstance(
        classify_inbound_request({"method": message.method, "params": message.params}), InboundModernRoute
    )


@given(_requests())
@example(json.loads(initialize()))
@example(json.loads(discover()))
def test_whatever_is_answered_early_the_sdk_accepts(message: dict[str, Any]) -> None:
    for line in (json.dumps(message).encode(), json.dumps(message, ensure_ascii=False).encode(errors="replace")):
        answer = answer_to(line, OPENINGS)
        if answer is not None:
            assert _accepted_by_the_sdk(line)
            assert json.loads(answer)["id"] == message["id"]


REAL_CLIENTS = [
    {"roots": {"listChanged": True}, "sampling": {}, "elicitation": {}},
    {"roots": {}, "elicitation": {"form": {}, "url": {}}},
    {"elicitation": {"form": {"applyDefaults": True}}, "experimental": {"x": {"y": [1]}}},
    {
        "sampling": {"context": {}, "tools": {}},
        "tasks": {
            "list": {},
            "cancel": {},
            "requests": {"sampling": {"createMessage": {}}, "elicitation": {"create": {}}},
        },
    },
    {"extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}}},
]


@pytest.mark.parametrize("capabilities", REAL_CLIENTS)
def test_what_clients_commonly_say_is_recognised(capabilities: dict[str, Any]) -> None:
    icons = [{"src": "https://example.org/i.png", "mimeType": "image/png", "sizes": ["48x48"]}]
    client = {"name": "c", "version": "1", "title": "C", "websiteUrl": "https://example.org", "icons": icons}
    said = (
        initialize(capabilities=capabilities, clientInfo=client),
        discover(
            **{
                "io.modelcontextprotocol/clientCapabilities": capabilities,
                "io.modelcontextprotocol/clientInfo": client,
            }
        ),
    )
    for line in said:
        assert _accepted_by_the_sdk(line)
        assert answer_to(line, OPENINGS) is not None


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","id":1,"id":2,"method":"initialize","params":{}}',
        initialize(1, clientInfo={"name": "\ud800", "version": "1"}),
        initialize(1, capabilities={"experimental": {"x": {"y": float("nan")}}}),
        initialize(1, capabilities={"experimental": {"x": {"y": 1e999}}}),
        b"[" * 100_000,
        b"1" * 10_000,
        b"\xff",
        b"",
    ],
)
def test_where_parsers_may_differ_nothing_is_said(line: bytes) -> None:
    assert answer_to(line, OPENINGS) is None


def test_answers_of_another_sdk_are_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mcp"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "mcp-2.999.0.dist-info").mkdir()
    assert opening._openings() == OPENINGS
    monkeypatch.syspath_prepend(tmp_path)
    assert opening._openings() is None
    (tmp_path / f"mcp-{OPENINGS['sdk']}.dist-info").mkdir()
    assert opening._openings() == OPENINGS


#: Stands for an environment without the extra: the path finder does not find it, nor does an import.
WITHOUT_EXTRA = """
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = lambda name, *rest: None if name == "mcp" else find(name, *rest)
from agentic_flywheel.interfaces.cli.main import main
main(["mcp"])
"""


def test_a_missing_extra_is_told_at_once(afw: Afw) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_EXTRA],
        cwd=afw.work,
        env=afw.environ,
        stdin=subprocess.PIPE,  # which stays open: nothing is waited for
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert b"agentic-flywheel[mcp]" in process.stderr.read()
        assert process.stdout.read() == b""
        assert process.wait(30) == 2


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("said", [b"", initialize()], ids=["before", "after"])
def test_a_signal_at_the_start_ends_it(afw: Afw, how: signal.Signals, said: bytes) -> None:
    """With the answer heard, the SDK is being imported; without, the rest of a line is being waited for."""
    with afw.start("mcp", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if said:
            process.stdin.write(said)
            process.stdin.flush()
            assert process.stdout.readline()
        else:
            process.stdin.write(b"{")
            process.stdin.flush()
            wait_until(lambda: unread(process.stdin) == 0, "the beginning of a line to be read")
        process.send_signal(how)
        assert process.wait(30) in {-how, 0, 130}
        if not said:
            assert process.stderr is not None
            assert process.stderr.read() == b""


def unread(pipe: IO[bytes]) -> int:
    """Bytes in the pipe that its reader has not taken."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.fixture
def pipes() -> Iterator[Callable[[], tuple[int, int]]]:
    opened: list[int] = []

    def new() -> tuple[int, int]:
        ends = os.pipe()
        opened.extend(ends)
        return ends

    yield new
    for end in opened:
        os.close(end)


def test_an_input_that_does_not_block_is_waited_for(pipes: Callable[[], tuple[int, int]]) -> None:
    (incoming, client_out), (client_in, outgoing) = pipes(), pipes()
    os.set_blocking(incoming, False)
    os.set_blocking(outgoing, False)
    os.write(client_out, initialize() + b'{"half')
    heard = opening.answer_opening(incoming, outgoing)
    assert heard.received == initialize() + b'{"half'
    assert heard.answer is not None
    assert os.read(client_in, 1 << 16) == heard.answer + b"\n"


def test_what_is_not_answered_is_all_handed_on(pipes: Callable[[], tuple[int, int]]) -> None:
    (incoming, client_out), (client_in, outgoing) = pipes(), pipes()
    os.write(client_out, INITIALIZED + initialize())
    heard = opening.answer_opening(incoming, outgoing)
    assert (heard.received, heard.answer) == (INITIALIZED + initialize(), None)
    assert select.select([client_in], [], [], 0)[0] == []
