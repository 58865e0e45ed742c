"""docs/rest.md: every operation stands in its table as it is served, and the walk through it can be taken."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import httpx2

from afw_command import Afw
from agentic_flywheel.interfaces.http.rest.operations import BASE
from agentic_flywheel.interfaces.http.rest.room import GROUPS
from http_process import served
from pages import read
from servers import Servers

_VALUED = {"-X", "-d", "-H", "-o", "--data-binary"}


def test_the_table_has_every_operation_with_its_scope_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+ /api/v2\S*)` \| (\w+) \| \S.* \|$", read("docs/rest.md"), re.MULTILINE)
    served_ = [(f"{one.method} {BASE}{one.path}", str(one.needs)) for group in GROUPS for one in group.all]
    own = [(f"GET {BASE}/openapi.json", "public"), (f"GET {BASE}/docs", "public")]
    assert rows == [*own, *served_]


def asked(command: str) -> tuple[str, str, dict[str, str], str | None]:
    """A line of curl as a request: method, address, headers, body."""
    words = iter(shlex.split(command)[1:])
    options: dict[str, list[str]] = {}
    address = ""
    for word in words:
        if word in _VALUED:
            options.setdefault(word, []).append(next(words))
        elif word.startswith("-"):
            assert word in {"-s", "-sN"}, word
        else:
            address = word
    headers = dict(header.split(": ", 1) for header in options.get("-H", []))
    body = next(iter(options.get("-d", [])), None)
    return next(iter(options.get("-X", [])), "GET" if body is None else "POST"), address, headers, body


def test_the_walk_can_be_taken(tmp_path: Path, servers: Servers) -> None:
    walk = re.findall(r"^curl .*$", read("docs/rest.md"), re.MULTILINE)
    assert len(walk) >= 15
    with served(Afw(tmp_path, servers.get("valkey9").url)) as server, httpx2.Client(timeout=120) as client:
        for command in walk:
            method, address, headers, body = asked(command)
            response = client.request(
                method, address.replace("http://127.0.0.1:8765", server.url), headers=headers, content=body
            )
            assert response.is_success, (command, response.text)
            assert response.text, command
