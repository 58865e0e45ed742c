"""Connections do what the address says, wait no longer than they may, and every failure has its one meaning."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentic_flywheel.errors import (
    StoreError,
    StoreFull,
    StoreMisused,
    StoreRefused,
    StoreUnavailable,
)
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.address import Address
from agentic_flywheel.store.failures import store_error
from agentic_flywheel.store.link import Link
from agentic_flywheel.store.wire import Refusal
from servers import PASSWORD, Server, free_port

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def connected(url: str, **settings: Any) -> AsyncIterator[Link]:
    """A link to a server; slow lanes and impatience only where a test asks for them."""
    patient = {"redis.connect_timeout_seconds": 5, "redis.command_timeout_seconds": 5}
    link = Link(load_settings({**patient, **settings, "redis_url": url}, environ={}, directory=Path("/")))
    try:
        yield link
    finally:
        await link.aclose()


async def failure(url: str, *command: Any, **settings: Any) -> StoreError:
    """What a command that fails is called."""
    async with connected(url, **settings) as link:
        with pytest.raises(StoreError) as caught:
            await link.run(command)
        return caught.value


async def test_replies_are_bytes_and_maps(redis_server: Server) -> None:
    async with connected(redis_server.url) as client:
        await client.execute("HSET", "h", "field", b"\xff")
        assert await client.execute("HGETALL", "h") == {b"field": b"\xff"}


async def test_tcp(redis_tcp: str) -> None:
    async with connected(redis_tcp) as client:
        assert await client.execute("PING")


async def test_password_and_database(redis_password: Server) -> None:
    for address in (redis_password.tcp_url, redis_password.unix_url):
        async with connected(address(3)) as client:
            await client.execute("SET", "where", "three")
        async with connected(address(0)) as client:
            assert await client.execute("GET", "where") is None
        plain = redis_password.client(3)
        assert plain.getdel("where") == b"three"
        plain.close()


async def test_wrong_or_missing_credentials(redis_password: Server) -> None:
    for url in (
        f"redis://:wrong@127.0.0.1:{redis_password.port}",
        f"redis://nobody:wrong@127.0.0.1:{redis_password.port}",
        f"unix://:wrong@{redis_password.socket}",
        f"redis://127.0.0.1:{redis_password.port}",
        f"unix://{redis_password.socket}",
    ):
        error = await failure(url, "GET", "x")
        assert type(error) is StoreRefused, (url, error)
        assert "wrong" not in str(error.as_dict()).replace("WRONG", "").replace("wrong ", "")
        assert PASSWORD not in str(error.as_dict())


async def test_missing_right(redis_server: Server) -> None:
    async with connected(redis_server.url) as client:
        await client.execute("ACL", "SETUSER", "guest", "on", ">guest", "~*", "+get")
    error = await failure(f"unix://guest:guest@{redis_server.socket}", "SET", "a", "b")
    assert type(error) is StoreRefused
    async with connected(redis_server.url) as client:
        await client.execute("ACL", "DELUSER", "guest")


async def test_no_such_database(redis_server: Server) -> None:
    for url in (redis_server.unix_url(99), redis_server.tcp_url(99)):
        error = await failure(url, "GET", "x")
        assert type(error) is StoreRefused
        assert "database" in error.suggestions[0]


async def test_dead_port_and_absent_socket(tmp_path: Path) -> None:
    with anyio.fail_after(5):  # the client's own defaults keep trying for longer
        for url in (f"redis://127.0.0.1:{free_port()}", f"unix://{tmp_path}/none.sock"):
            error = await failure(url, "GET", "x")
            assert type(error) is StoreUnavailable
            assert error.details["origin"] == "argument"
            assert "reply" in error.details


async def test_hanging_server(valkey: Server) -> None:
    valkey.pause()
    try:
        with anyio.fail_after(5):
            for url in (valkey.unix_url(), valkey.tcp_url()):
                impatient = {"redis.connect_timeout_seconds": 0.05, "redis.command_timeout_seconds": 0.05}
                error = await failure(url, "GET", "x", **impatient)
                assert type(error) is StoreUnavailable
                assert "in time" in error.message
    finally:
        valkey.resume()


async def test_server_that_dies_and_returns(valkey: Server) -> None:
    async with connected(valkey.url) as client:
        await client.execute("PING")
        valkey.kill()
        with pytest.raises(StoreUnavailable):
            await client.execute("PING")
        valkey.start()
        assert await client.execute("PING")


async def test_server_with_too_many_clients(valkey: Server) -> None:
    plain = valkey.client()
    limit = plain.config_get("maxclients")["maxclients"]
    plain.config_set("maxclients", 1)
    try:
        assert type(await failure(valkey.url, "PING")) is StoreUnavailable
    finally:
        plain.config_set("maxclients", limit)
        plain.close()


async def test_value_of_another_type(redis_server: Server) -> None:
    async with connected(redis_server.url) as client:
        await client.execute("SET", "text", "x")
        error = await failure(redis_server.url, "HGETALL", "text")
        assert type(error) is StoreMisused
        assert error.details["command"] == "HGETALL"
        scripted = await failure(redis_server.url, "EVAL", "return redis.call('HGETALL', KEYS[1])", 1, "text")
        assert type(scripted) is StoreMisused
        with pytest.raises(StoreMisused) as caught:
            await client.run(("PING",), ("HGETALL", "text"))
        assert caught.value.message.endswith("WRONGTYPE Operation against a key holding the wrong kind of value")


async def test_out_of_memory(redis_server: Server) -> None:
    async with connected(redis_server.url) as client:
        await client.execute("CONFIG", "SET", "maxmemory", 1)
    script = "return redis.call('SET', KEYS[1], 'x')"
    assert type(await failure(redis_server.url, "SET", "a", "b")) is StoreFull
    assert type(await failure(redis_server.url, "EVAL", script, 1, "a")) is StoreFull


async def test_replica_takes_no_writes(redis_server: Server) -> None:
    async with connected(redis_server.url) as client:
        await client.execute("REPLICAOF", "127.0.0.1", free_port())
        try:
            assert type(await failure(redis_server.url, "SET", "a", "b")) is StoreFull
        finally:
            await client.execute("REPLICAOF", "NO", "ONE")


async def test_unknown_command_keeps_its_arguments_to_itself(redis_server: Server) -> None:
    error = await failure(redis_server.url, "NOSUCH", "my secret question")
    assert type(error) is StoreError
    assert "secret" not in str(error.as_dict())


async def test_server_that_is_no_redis() -> None:
    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        assert type(await failure(f"redis://127.0.0.1:{port}", "PING")) is StoreUnavailable
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("LOADING Redis is loading the dataset in memory", StoreUnavailable),
        ("BUSY Redis is busy running a script", StoreUnavailable),
        ("MASTERDOWN Link with MASTER is down", StoreUnavailable),
        ("CLUSTERDOWN Hash slot not served", StoreUnavailable),
        ("MOVED 3999 127.0.0.1:6381", StoreUnavailable),
        ("CROSSSLOT Keys in request don't hash to the same slot", StoreUnavailable),
        ("MISCONF Errors writing to the AOF file: No space left on device", StoreFull),
        ("DENIED Redis is running in protected mode", StoreRefused),
        ("NOAUTH Authentication required.", StoreRefused),
        ("ERR invalid password", StoreRefused),
        ("ERR syntax error", StoreError),
    ],
)
def test_meaning_of_replies_that_are_hard_to_provoke(said: str, kind: type[StoreError]) -> None:
    error = store_error(Refusal(said), Address("redis://h", "test"), "GET")
    assert type(error) is kind
    assert said.removeprefix("ERR ") in error.message


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A server with TLS on a port, and the certificate that it must be trusted by."""
    redis_server, openssl = shutil.which("redis-server"), shutil.which("openssl")
    if redis_server is None or openssl is None:
        if os.environ.get("CI") == "true":
            pytest.fail("needs redis-server and openssl")
        pytest.skip("needs redis-server and openssl")
    certificate, key, port = tmp_path / "server.crt", tmp_path / "server.key", free_port()
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-out", certificate, "-keyout", key, *subject],
        check=True,
        capture_output=True,
    )
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    server = Server("tls", [redis_server, "--tls-port", str(port), *files], dict(os.environ))
    server.start()
    yield port, certificate
    server.close()


async def test_tls(tls_server: tuple[int, Path]) -> None:
    port, certificate = tls_server
    for options in (f"ssl_ca_certs={certificate}", "ssl_cert_reqs=none"):
        async with connected(f"rediss://127.0.0.1:{port}/2?{options}") as client:
            assert await client.execute("SET", "a", "b")
    unknown = await failure(f"rediss://127.0.0.1:{port}", "PING")
    assert type(unknown) is StoreUnavailable
    assert "certificate" in unknown.message
    assert type(await failure(f"redis://127.0.0.1:{port}", "PING")) is StoreUnavailable


def _named(path: Path) -> list[str]:
    return ["-out", f"{path}.crt", "-keyout", f"{path}.key", "-subj", f"/CN={path.name}"]


async def test_tls_with_certificates_of_clients(tmp_path: Path) -> None:
    """A server that talks to nobody without a certificate that its own authority signed."""
    redis_server, openssl = shutil.which("redis-server"), shutil.which("openssl")
    if redis_server is None or openssl is None:
        if os.environ.get("CI") == "true":
            pytest.fail("needs redis-server and openssl")
        pytest.skip("needs redis-server and openssl")
    port = free_port()

    def make(name: str, *options: str) -> None:
        subprocess.run(
            [
                openssl,
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                *_named(tmp_path / name),
                *options,
            ],
            check=True,
            capture_output=True,
        )

    signed = ["-CA", str(tmp_path / "authority.crt"), "-CAkey", str(tmp_path / "authority.key")]
    make("authority")
    make("server", *signed, "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")
    make("client", *signed, "-addext", "basicConstraints=critical,CA:FALSE")
    make("stranger")
    files = ["--tls-cert-file", "server.crt", "--tls-key-file", "server.key", "--tls-ca-cert-file", "authority.crt"]
    named = [str(tmp_path / word) if "." in word else word for word in files]
    server = Server(
        "tls", [redis_server, "--tls-port", str(port), "--tls-auth-clients", "yes", *named], dict(os.environ)
    )
    server.start()

    def url(client: str) -> str:
        trusted = f"rediss://127.0.0.1:{port}?ssl_ca_certs={tmp_path}/authority.crt"
        return (
            f"{trusted}&ssl_certfile={tmp_path}/{client}.crt&ssl_keyfile={tmp_path}/{client}.key" if client else trusted
        )

    try:
        async with connected(url("client")) as client:
            assert await client.execute("SET", "a", "b")
        for other in ("", "stranger"):
            assert type(await failure(url(other), "PING")) is StoreUnavailable
    finally:
        server.close()
