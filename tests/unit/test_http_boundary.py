"""Hosts, origins and proxies: what a browser can be made to send, and what it comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel.errors import FlywheelError, HostRefused, OriginRefused
from agentic_flywheel.interfaces.http.boundary import Boundary
from agentic_flywheel.settings import load_settings


def boundary(*, guarded: bool = False, **given: Any) -> Boundary:
    named = {f"serve.{name}": value for name, value in given.items()}
    return Boundary(load_settings(named, environ={}, directory=Path("/")), guarded=guarded)


def refused(check: Any, *arguments: Any) -> bool:
    try:
        check(*arguments)
    except FlywheelError:
        return True
    return False


@pytest.mark.parametrize("host", ["localhost", "localhost:8765", "127.0.0.1:1", "[::1]:8765", "[::1]", "LocalHost"])
def test_names_of_loopback_are_known(host: str) -> None:
    boundary().check_host({b"host": host.encode()})


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:80",
        "localhost:80:80",
        "[::1",
        "::1",
    ],
)
def test_any_other_name_is_not(host: str) -> None:
    with pytest.raises(HostRefused):
        boundary().check_host({b"host": host.encode()})
    with pytest.raises(HostRefused):
        boundary().check_host({})


def test_the_list_of_names_holds_everywhere() -> None:
    listed = boundary(hosts="Flywheel.example, [2001:db8::1]", host="0.0.0.0", guarded=True)
    for host in (b"flywheel.example", b"flywheel.EXAMPLE:443", b"[2001:db8::1]:80", b"localhost"):
        listed.check_host({b"host": host})
    assert refused(listed.check_host, {b"host": b"other.example"})
    assert not refused(boundary(host="0.0.0.0", guarded=True).check_host, {b"host": b"other.example"})
    assert refused(boundary(guarded=False).check_host, {b"host": b"other.example"})
    assert not refused(boundary(host="::1").check_host, {b"host": b"[::1]:1"})


HOST = {b"host": b"127.0.0.1:8765"}


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),  # a program
        ({b"sec-fetch-site": b"same-origin"}, True),
        ({b"sec-fetch-site": b"none"}, True),  # typed into the address bar
        ({b"sec-fetch-site": b"same-origin", b"origin": b"http://127.0.0.1:8765"}, True),
        ({b"origin": b"http://127.0.0.1:8765"}, True),  # an older browser
        ({b"origin": b"https://127.0.0.1:8765"}, True),  # TLS ends in front of it
        ({b"sec-fetch-site": b"cross-site", b"origin": b"https://evil.example"}, False),
        ({b"sec-fetch-site": b"same-site", b"origin": b"http://127.0.0.1:3000"}, False),  # another port
        ({b"sec-fetch-site": b"cross-site"}, False),
        ({b"sec-fetch-site": b"cross-site", b"origin": b"http://127.0.0.1:8765"}, False),  # the browser knows better
        ({b"origin": b"http://127.0.0.1:3000"}, False),
        ({b"origin": b"null"}, False),  # a sandboxed frame, a file
        ({b"origin": b""}, False),
        ({b"origin": b"http://127.0.0.1:8765.evil.example"}, False),
        ({b"origin": b"http://evil.example\\@127.0.0.1:8765"}, False),
        ({b"sec-fetch-site": b"cross-site", b"origin": b"https://docs.example.com"}, True),  # on the list
        ({b"origin": b"https://DOCS.example.com"}, True),
        ({b"origin": b"https://docs.example.com.evil.example"}, False),
        ({b"origin": b"http://docs.example.com"}, False),  # not encrypted: somebody else, perhaps
    ],
)
def test_pages_of_other_origins_change_nothing(headers: dict[bytes, bytes], allowed: bool) -> None:
    checked = boundary(origins="https://docs.example.com/")
    for method in (b"POST", b"PUT", b"DELETE", b"PATCH", b"MOVE"):
        assert refused(checked.check_origin, method, {**HOST, **headers}) is not allowed
    for method in (b"GET", b"HEAD", b"OPTIONS"):
        assert not refused(checked.check_origin, method, {**HOST, **headers})


def test_only_listed_origins_may_read() -> None:
    listed = boundary(origins="https://docs.example.com, https://app.example.com")
    asked = {b"origin": b"https://docs.example.com", b"access-control-request-headers": b"x-api-key"}
    allowed = dict(listed.preflight(asked))
    assert allowed[b"access-control-allow-origin"] == b"https://docs.example.com"
    assert allowed[b"access-control-allow-headers"] == b"x-api-key"
    assert allowed[b"vary"] == b"Origin"
    assert b"access-control-allow-credentials" not in allowed  # cookies are the console's own
    assert listed.cors({b"origin": b"https://evil.example"}) == []
    assert boundary().cors({b"origin": b"http://127.0.0.1:8765"}) == []
    with pytest.raises(OriginRefused):
        listed.preflight({b"origin": b"https://evil.example"})
    anybody = boundary(origins="*", guarded=True)
    assert dict(anybody.cors({b"origin": b"https://evil.example"}))[b"access-control-allow-origin"]


@pytest.mark.parametrize("name", [b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"])
def test_what_a_proxy_passed_on_is_seen(name: bytes) -> None:
    assert boundary().came_from_elsewhere({**HOST, name: b""})
    assert not boundary().came_from_elsewhere({**HOST, b"x-forwarded": b"1"})
