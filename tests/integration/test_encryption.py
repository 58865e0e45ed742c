"""With keys configured, nothing that people asked or were answered stands anywhere in a form that can be read."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from agentic_flywheel import Flywheel
from agentic_flywheel.errors import KeyMissing, SettingsError, UnknownSession
from flywheels import Oracle, opened, settings_for
from meanings import Words
from servers import Server, Servers, wait_until

pytestmark = pytest.mark.anyio

#: Words that occur nowhere but in what people write; searches keep stems of them.
MARK = "zyxwort"


def key_line(id_: str) -> str:
    return f"{id_}:{base64.b64encode(os.urandom(32)).decode()}"


def readings(raw: bytes) -> Iterator[bytes]:
    """Bytes as they lie there, and whatever is packed in them: our own frames, wherever they begin, and base64."""
    yield raw
    start = 0
    while (start := raw.find(b"\x28\xb5\x2f\xfd", start)) >= 0:  # zstandard
        with contextlib.suppress(zstandard.ZstdError):
            yield zstandard.ZstdDecompressor().decompressobj().decompress(raw[start:])
        start += 4


def values_of(redis: Any, key: bytes) -> Iterator[bytes]:
    match redis.type(key):
        case b"string":
            yield redis.get(key)
        case b"hash":
            for pair in redis.hgetall(key).items():
                yield from pair
        case b"list":
            yield from redis.lrange(key, 0, -1)
        case b"set":
            yield from redis.smembers(key)
        case b"zset":
            yield from redis.zrange(key, 0, -1)
        case b"stream":
            for _, fields in redis.xrange(key):
                for pair in fields.items():
                    yield from pair
        case b"none":
            return  # it expired meanwhile
        case kind:
            raise AssertionError(f"{key!r} is of the unknown type {kind!r}")


def traces(server: Server, *folders: Path) -> list[str]:
    """Where a word stands: in keys, in values (raw, packed, dumped), in files."""

    def holds(raw: bytes) -> bool:
        return any(MARK.encode() in text.lower() for text in readings(raw))

    found = []
    with server.client() as redis:
        for key in redis.keys("*"):
            held = [key, redis.dump(key) or b"", *values_of(redis, key)]
            if any(map(holds, held)):
                found.append(key.decode())
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return [*found, *(str(file) for file in files if holds(file.read_bytes()))]


def files_with(text: str, folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


async def lived(flywheel: Flywheel, session: str = "s1", user: str = "ann") -> None:
    """Everything that may come of a person's questions."""
    asked = f"How is the {MARK} {session} installed?"
    await flywheel.ask(asked, session=session, user=user)
    await flywheel.ask(f"And {MARK} on mobile?", session=session, user=user)
    await flywheel.ask(f"What is my {MARK} called?", session=session, user=user)
    await flywheel.ask(asked, user=user)
    await flywheel.ask(asked, user="bob")
    await flywheel.ask(f"How can the {MARK} {session} be installed?", user=user)
    first = (await flywheel.sessions.show(session)).turns[0]
    await flywheel.similar.report(first.id, "outdated", note=f"about {MARK}", session=session, user=user)
    await flywheel.ask(asked, user=user)
    await flywheel.sessions.rename(session, f"{MARK} thoughts")
    await flywheel.sessions.tag(session, add=[f"{MARK}-tag"])
    await flywheel.history.search(MARK, user=user)
    await flywheel.popular.list()
    await flywheel.faq.list()
    await flywheel.settled()
    await flywheel.flush()


def traces_on_disk(server: Server) -> list[str]:
    """Where a word stands once the server has written all that it holds to its disk, as a snapshot and as a log."""

    def settled() -> bool:
        info = redis.info("persistence")
        return not info["aof_rewrite_in_progress"] and not info.get("aof_rewrite_scheduled")

    with server.client() as redis:
        redis.save()
        redis.config_set("appendonly", "yes")
        try:
            wait_until(settled, "the append-only file", 60)
            assert list(server.directory.glob("*.rdb"))
            assert [file for file in server.directory.rglob("*") if ".aof" in file.name]
            return traces(server, server.directory)
        finally:
            redis.config_set("appendonly", "no")


@pytest.mark.parametrize(("name", "index"), [("valkey9", "local"), ("stack74", "engine")])
async def test_a_life_leaves_nothing_that_can_be_read(servers: Servers, tmp_path: Path, name: str, index: str) -> None:
    server = servers.get(name)
    given = {"embedder": Words()}
    arguments = {"encryption_keys": key_line("k1"), "search_index": index}
    async with opened(server, tmp_path, {"oracle": Oracle()}, given=given, **arguments) as flywheel:
        await lived(flywheel)
        found = await flywheel.history.search(MARK, user="ann")
        assert found.index == index
        assert found.total >= 4
        assert all(MARK in one.question for one in found.found)
        assert f"{MARK}-tag" in found.found[0].tags
        assert (await flywheel.history.search("", user="ann", tag=f"{MARK}-tag")).total >= 3
        assert (await flywheel.history.search(f'"my {MARK}"', user="ann")).total == 1
        page = await flywheel.sessions.show("s1")
        assert page.session.title == f"{MARK} thoughts"
        assert page.session.tags == (f"{MARK}-tag",)
        assert MARK in page.turns[0].answer
        assert any(MARK in one.question for one in await flywheel.popular.list())
        assert traces(server, tmp_path) == []
        assert traces_on_disk(server) == []
        await flywheel.sessions.delete_turn("s1", page.turns[2].id, dry_run=False)
        assert (await flywheel.history.search(f'"my {MARK}"', user="ann")).total == 0


async def test_what_was_plain_stays_readable_and_a_process_without_the_key_says_what_is_missing(
    valkey: Server, tmp_path: Path
) -> None:
    key, asked = key_line("k1"), f"How is the {MARK} installed?"
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as plain:
        await plain.ask(asked, session="s1", user="ann")
        await plain.ask(f"And {MARK} on mobile?", session="s1", user="ann")
        assert (await plain.history.search(MARK, user="ann")).total == 2
        assert traces(valkey, tmp_path)
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, encryption_keys=key) as flywheel:
        assert (await flywheel.ask(asked, user="bob")).outcome == "hit"
        assert len((await flywheel.sessions.show("s1")).turns) == 2
        assert (await flywheel.history.search(MARK, user="ann", session="s1")).total == 2
        await flywheel.ask(f"Is {MARK} free?", session="s2", user="ann")
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as plain:
        answer = await plain.ask("Who has no key?", session="s3", user="ann")
        assert answer.text == "oracle 1: Who has no key?"
        assert any("encrypted with the key k1" in warning for warning in answer.warnings)
        with pytest.raises(KeyMissing, match="no key is configured here"):
            await plain.sessions.show("s1")
        with pytest.raises(KeyMissing):
            await plain.history.search(MARK, user="ann")
    for given, said in (
        (key_line("k1"), "the key k1 of .* is another one"),
        (key_line("k9"), "encrypted with the key k1, and .* has only k9"),
    ):
        async with opened(valkey, tmp_path, {"oracle": Oracle()}, encryption_keys=given) as other:
            with pytest.raises(KeyMissing, match=said):
                await other.sessions.show("s1")
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, encryption_keys=key) as flywheel:
        with pytest.raises(UnknownSession):
            await flywheel.sessions.show("s3")  # nothing was written without the key
    assert files_with("Who has no key", tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"encryption_keys": "k1"}, "line 1: it does not begin with an id of a key and a colon"),
        ({"encryption_keys": "k1:!"}, "line 1: the key k1 is no base64"),
        ({"encryption_keys": "k1:AAAA"}, "line 1: the key k1 has 3 bytes, not 32"),
        ({"encryption_keys": ",".join([f"k1:{'A' * 43}="] * 2)}, "line 2: the id k1 is given to two keys"),
        ({"encryption_keys": f"k1:{'A' * 43}=", "encryption_current": "k2"}, "has no key of this id: k1"),
        ({"encryption_key_file": "/nowhere/keys"}, "/nowhere/keys cannot be read .*: No such file"),
        ({"encryption_key_command": "sh -c 'echo no vault >&2; exit 3'"}, "exit code 3: no vault"),
        ({"encryption_key_command": "true"}, "holds no key"),
        ({"encryption_key_command": "true", "encryption_keys": "k1:A"}, "one source, and 2 are set"),
    ],
)
def test_a_source_of_keys_that_is_wrong_is_said_at_once(
    valkey: Server, tmp_path: Path, arguments: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        Flywheel.open(settings=settings_for(valkey, tmp_path, **arguments))
    assert "AAAA" not in str(refused.value)


async def test_a_file_and_a_command_give_keys_as_well(valkey: Server, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{key_line('k2')}\n\n{key_line('k1')}\n")
    for arguments in ({"encryption_key_file": str(file)}, {"encryption_key_command": f"cat {file}"}):
        async with opened(valkey, tmp_path, {"oracle": Oracle()}, **arguments) as flywheel:
            await flywheel.ask("How long do answers stay good?", session="s1")
            assert len((await flywheel.sessions.show("s1")).turns) == (1 if "encryption_key_file" in arguments else 2)
    with valkey.client() as redis:
        assert redis.hget("afw:v1:default:sealing", "index") == b"k2"
