"""The link to Redis: every asker gets its own replies, whatever is cancelled, killed or refused around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel.errors import StoreFull, StoreMisused, StoreRefused, StoreUnavailable
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.breaker import State
from agentic_flywheel.store.link import Link, Script
from servers import Server, free_port

pytestmark = pytest.mark.anyio

ECHO = Script("return {KEYS[1], ARGV[1]}")
STORE = Script("return redis.call('SET', KEYS[1], ARGV[1])")


@asynccontextmanager
async def linked(url: str, **settings: Any) -> AsyncIterator[Link]:
    """A link with the patience that a busy test machine needs."""
    arguments = {"redis_url": url, "redis.command_timeout_seconds": 20.0, "redis.connect_timeout_seconds": 20.0}
    link = Link(load_settings({**arguments, **settings}, environ={}, directory=Path("/")), (ECHO, STORE))
    try:
        yield link
    finally:
        await link.aclose()


async def recovered(link: Link) -> None:
    """Wait until a link that leaves its server alone asks it again."""
    again = asyncio.Event()
    link.on_recovered(again.set)
    if link.health.state is not State.CLOSED:
        async with asyncio.timeout(20):
            await again.wait()


async def test_replies_in_the_order_of_the_commands_in_one_round_trip(redis_server: Server) -> None:
    async with linked(redis_server.url) as link:
        await link.execute("PING")
        before = link.round_trips
        commands = [command for n in range(100) for command in (("SET", f"k{n}", n), ("GET", f"k{n}"))]
        replies = await link.run(*commands)
        assert replies[1::2] == [str(n).encode() for n in range(100)]
        assert link.round_trips == before + 1


async def test_the_first_error_raises_after_all_replies_were_read(redis_server: Server) -> None:
    async with linked(redis_server.url) as link:
        with pytest.raises(StoreMisused):
            await link.run(("SET", "text", "x"), ("LPUSH", "text", "y"), ("SET", "after", "z"))
        assert await link.run(("GET", "after")) == [b"z"]


async def test_errors_of_single_commands_as_values(redis_server: Server) -> None:
    async with linked(redis_server.url) as link:
        first, second, third = await link.run_each(("SET", "t", "x"), ("LPUSH", "t", "y"), ("GET", "t"))
        assert (first, third) == (b"OK", b"x")
        assert isinstance(link.error(second, "LPUSH"), StoreMisused)


async def test_scripts_are_sent_again_when_the_server_forgot_them(redis_server: Server) -> None:
    async with linked(redis_server.url) as link:
        for _ in range(2):
            replies = await link.run(ECHO.call(("{k}",), "a"), ("SET", "x", "1"), ECHO.call(("{k}",), "b"))
            assert replies == [[b"{k}", b"a"], b"OK", [b"{k}", b"b"]]
            with redis_server.client() as client:
                client.script_flush()


async def test_a_full_server_is_told_apart_inside_and_outside_of_scripts(redis_server: Server) -> None:
    async with linked(redis_server.url) as link:
        await link.execute("SET", "kept", "x")
        with redis_server.client() as client:
            client.config_set("maxmemory", 1)
        with pytest.raises(StoreFull):
            await link.run(("SET", "more", "x"))
        with pytest.raises(StoreFull):
            await link.run(STORE.call(("more",), "x"))
        assert await link.run(("GET", "kept")) == [b"x"]


async def test_a_read_only_replica_is_told(redis_server: Server) -> None:
    async with linked(redis_server.url) as link:
        with redis_server.client() as client:
            client.replicaof("127.0.0.1", free_port())
        try:
            with pytest.raises(StoreFull):
                await link.run(("SET", "k", "v"))
        finally:
            with redis_server.client() as client:
                client.replicaof("NO", "ONE")


async def test_a_wrong_password_is_refused_and_not_repeated(redis_password: Server) -> None:
    url = redis_password.tcp_url().replace("p%40ss", "hunter2")
    async with linked(url) as link:
        with pytest.raises(StoreRefused) as caught:
            await link.execute("PING")
        assert "hunter2" not in str(caught.value.as_dict())


async def test_nobody_there(tmp_path: Path) -> None:
    for url in (f"redis://127.0.0.1:{free_port()}", f"unix://{tmp_path}/none.sock"):
        async with linked(url) as link:
            with pytest.raises(StoreUnavailable):
                await link.execute("PING")


async def test_a_killed_connection_is_replaced_unnoticed(redis_server: Server) -> None:
    async with linked(redis_server.url) as link:
        for n in range(5):
            await link.run(("SET", "k", n))
            with redis_server.client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert await link.run(("GET", "k")) == [str(n).encode()]


async def test_killing_connections_fails_no_one_of_many(redis_server: Server) -> None:
    """One broken connection is retried by each of its askers; no retry breaks another's."""
    async with linked(redis_server.url) as link:
        await link.execute("PING")

        async def ask(number: int) -> None:
            for round_ in range(10):
                tag = f"{number}-{round_}".encode()
                assert await link.run(("ECHO", tag), ECHO.call(("k",), tag)) == [tag, [b"k", tag]]

        for _ in range(5):
            await asyncio.gather(*(ask(number) for number in range(100)), asyncio.to_thread(_kill_all, redis_server))
            # One break for each asker: a kill after the last reply is met here, not in the next round with another.
            await link.execute("PING")


async def test_a_connection_killed_while_greeting_is_dialled_once_more(redis_server: Server) -> None:
    """The server accepts, and breaks off before it has greeted; the next connection serves the asker."""
    port, met, ended = free_port(), 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal met
        met += 1
        if met == 1:
            writer.transport.abort()
            return
        other_reader, other_writer = await asyncio.open_unix_connection(redis_server.socket)
        await asyncio.gather(_pass_on(reader, other_writer), _pass_on(other_reader, writer))
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", port):
        async with linked(f"redis://127.0.0.1:{port}") as link:
            assert await link.execute("ECHO", b"there") == b"there"
        async with asyncio.timeout(20):
            await ended.wait()
    assert met == 2


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):  # the link ends its connections without ado
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def _kill_all(server: Server) -> None:
    with server.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def test_a_restarted_server_is_found_again(redis_server: Server) -> None:
    async with linked(redis_server.url) as link:
        await link.execute("PING")
        redis_server.stop()
        with pytest.raises(StoreUnavailable):
            await link.run(("PING",))
        redis_server.start()
        await recovered(link)
        assert await link.run(ECHO.call(("k",), "a")) == [[b"k", b"a"]]


async def test_cancelled_askers_leave_no_reply_for_anybody_else(redis_server: Server) -> None:
    """Hundreds of tagged exchanges, each cancelled at another moment; whoever is left gets its own tag."""
    async with linked(redis_server.url) as link:
        await link.execute("PING")

        async def ask(tag: str) -> str:
            replies = await link.run(("ECHO", tag), ("ECHO", tag * 50), ECHO.call(("k",), tag))
            assert replies == [tag.encode(), (tag * 50).encode(), [b"k", tag.encode()]]
            return tag

        for round_ in range(20):
            tasks = {f"{round_}/{n}": asyncio.create_task(ask(f"{round_}/{n}")) for n in range(30)}
            for step, task in enumerate(tasks.values()):
                if step % 3 != 2:
                    for _ in range(step % 7):
                        await asyncio.sleep(0)
                    task.cancel()
            done = await asyncio.gather(*tasks.values(), return_exceptions=True)
            for tag, result in zip(tasks, done, strict=True):
                assert isinstance(result, asyncio.CancelledError) or result == tag
            assert any(result == tag for tag, result in zip(tasks, done, strict=True))


@pytest.mark.parametrize("slow", [False, True])
async def test_a_reply_that_comes_too_late_reaches_nobody(
    redis_server: Server, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentic_flywheel.store.link.SLOW_SECONDS", 0.05)
    monkeypatch.setattr("agentic_flywheel.store.node.ELDEST_SECONDS", 0.05)
    settings = {"redis.command_timeout_seconds": 0.05}
    async with linked(redis_server.url, **settings) as link:
        for n in range(3):
            with pytest.raises(StoreUnavailable, match="in time"):
                # The reply comes after 0.2 s, when nobody waits for it any more.
                await link.run(("BLPOP", "nothing", "0.2"), slow=slow)
            replies = await asyncio.gather(*(_echo(link, f"{n}/{i}", slow=slow) for i in range(5)))
            assert replies == [True] * 5


async def _echo(link: Link, tag: str, *, slow: bool) -> bool:
    """Ask until there is an answer; it must be ours."""
    for _ in range(100):
        await recovered(link)
        try:
            return await link.run(("ECHO", tag), slow=slow) == [tag.encode()]
        except StoreUnavailable:
            continue
    return False


async def test_a_server_that_hangs_is_not_waited_for_longer_than_allowed(redis_server: Server) -> None:
    async with linked(redis_server.url, **{"redis.command_timeout_seconds": 0.05}) as link:
        await _echo(link, "warm", slow=False)
        redis_server.pause()
        try:
            results = await asyncio.gather(*(link.run(("PING",)) for _ in range(50)), return_exceptions=True)
            assert {type(result) for result in results} == {StoreUnavailable}
        finally:
            redis_server.resume()
        assert await _echo(link, "back", slow=False)


async def test_a_thousand_askers_at_once_all_get_their_own(redis_server: Server) -> None:
    async with linked(redis_server.url) as link:
        replies = await asyncio.gather(*(link.run(("ECHO", f"{n}")) for n in range(1000)))
        assert replies == [[str(n).encode()] for n in range(1000)]


async def test_values_of_every_size_and_content(redis_server: Server) -> None:
    async with linked(redis_server.url) as link:
        for value in (b"", b"\x00\r\n$5\r\n", bytes(range(256)) * 5000, "é漢🎉".encode()):
            assert await link.run(("SET", "k", value), ("GET", "k")) == [b"OK", value]
        assert await link.run(("SET", "n", 1.5), ("INCRBYFLOAT", "n", 2)) == [b"OK", b"3.5"]


async def test_closing_twice_and_asking_afterwards(valkey: Server) -> None:
    async with linked(valkey.url) as link:
        await link.execute("PING")
        await link.aclose()
        await link.aclose()
        with pytest.raises(StoreUnavailable, match="closed"):
            await link.execute("PING")


async def test_closing_ends_what_is_on_its_way(valkey: Server) -> None:
    async with linked(valkey.url) as link:
        await link.execute("PING")
        waiting = asyncio.create_task(link.run(("BLPOP", "nothing", "10")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await link.aclose()
        with pytest.raises(StoreUnavailable):
            await waiting


async def test_in_a_stall_the_eldest_waits_on_and_all_others_leave(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentic_flywheel.store.node.ELDEST_SECONDS", 60.0)
    async with linked(redis_server.url, **{"redis.command_timeout_seconds": 0.05}) as link:
        await link.run(("SET", "k0", "mine"))
        redis_server.pause()
        try:
            asks = [asyncio.create_task(link.run(("GET", f"k{n}"))) for n in range(20)]
            done, waiting = await asyncio.wait(asks[1:], timeout=20)
            assert not waiting
            assert all(type(task.exception()) is StoreUnavailable for task in done)
            assert not asks[0].done()
            with pytest.raises(StoreUnavailable):  # and who comes now does not wait at all
                await link.run(("GET", "k0"))
        finally:
            redis_server.resume()
        assert await asks[0] == [b"mine"]
        await recovered(link)
        assert await link.run(("GET", "k0"), slow=True) == [b"mine"]
