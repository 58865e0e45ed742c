"""A server, or something before it, that speaks the protocol and says nothing that makes sense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hiredis
import pytest

from flywheels import Oracle, opened

pytestmark = pytest.mark.anyio

GREETING = b"%1\r\n+proto\r\n:3\r\n"
NONSENSE = {
    "nothing": b"_\r\n",
    "a negative number": b":-7\r\n",
    "a word": b"+OK\r\n",
    "a text": b"$5\r\nhello\r\n",
    "an empty list": b"*0\r\n",
    "a short list": b"*1\r\n:1\r\n",
    "lists in lists": b"*2\r\n_\r\n*1\r\n_\r\n",
    "a long list": b"*9\r\n" + b"$1\r\nx\r\n" * 9,
    "a map": b"%1\r\n+a\r\n+b\r\n",
    "a truth": b"#t\r\n",
    "no number": b",nan\r\n",
    "an error": b"-ERR what?\r\n",
}


def empty(command: list[bytes]) -> bytes:
    """What a server says to this command that has nothing."""
    match command[0]:
        case b"HMGET":
            return b"*%d\r\n" % (len(command) - 2) + b"_\r\n" * (len(command) - 2)
        case b"XRANGE" | b"XREVRANGE":
            return b"*0\r\n"
        case b"GET" | b"HGET":
            return b"_\r\n"
        case _:
            return b":0\r\n"


@asynccontextmanager
async def mad_server(nonsense: bytes, *, scripts_alone: bool) -> AsyncIterator[str]:
    """The address of a server that answers every command, or scripts alone, with `nonsense`."""

    def reply(command: list[bytes]) -> bytes:
        if command[0] == b"HELLO":
            return GREETING
        return empty(command) if scripts_alone and not command[0].startswith(b"EVAL") else nonsense

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while said := await reader.read(65536):
            commands.feed(said)
            while (command := commands.gets()) is not False:
                writer.write(reply(command))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("scripts_alone", [False, True])
@pytest.mark.parametrize("limits", [{}, {"max_concurrency": 1}], ids=["", "limited"])
async def test_the_question_is_answered(
    nonsense: bytes, scripts_alone: bool, limits: dict[str, Any], tmp_path: Path
) -> None:
    oracle = Oracle()
    flows = {"oracle": (oracle, limits)}
    async with (
        mad_server(nonsense, scripts_alone=scripts_alone) as url,
        opened(url, tmp_path, flows, data_dir=str(tmp_path / "data")) as flywheel,
    ):
        for session in ("s", "s", None):
            said = await flywheel.ask("What is a lease?", flow="oracle", session=session)
            assert said.text == f"oracle {oracle.calls}: What is a lease?"
