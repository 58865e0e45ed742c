"""Looks for words in everything that a server and folders hold, however they are packed."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from servers import Server, wait_until

_BASE64 = re.compile(rb"[A-Za-z0-9+/]{24,}={0,2}")


def readings(raw: bytes) -> Iterator[bytes]:
    """Bytes as they lie there, and whatever is packed in them: our own frames, wherever they begin, and base64."""
    yield raw
    start = 0
    while (start := raw.find(b"\x28\xb5\x2f\xfd", start)) >= 0:  # zstandard
        with contextlib.suppress(zstandard.ZstdError):
            yield zstandard.ZstdDecompressor().decompressobj().decompress(raw[start:])
        start += 4
    for match in _BASE64.finditer(raw):
        with contextlib.suppress(binascii.Error):
            yield base64.b64decode(match.group() + b"==")


def values_of(redis: Any, key: bytes) -> Iterator[bytes]:
    """Everything in the value of a key."""
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


def held_in(raw: bytes, words: Iterable[str]) -> list[str]:
    """Those of the words that stand in some bytes, in any case."""
    texts = [text.lower() for text in readings(raw)]
    return [word for word in words if any(word.lower().encode() in text for text in texts)]


def places(server: Server | None, words: Iterable[str], *folders: Path) -> list[str]:
    """Where any of the words stand: in keys, in values (raw, packed, dumped), in files."""
    words, found = list(words), []
    if server is not None:
        with server.client() as redis:
            for key in redis.keys("*"):
                held = b"\n".join([key, redis.dump(key) or b"", *values_of(redis, key)])
                found += [f"{key.decode()}: {word}" for word in held_in(held, words)]
    for file in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        found += [f"{file}: {word}" for word in held_in(file.read_bytes(), words)]
    return found


def places_on_disk(server: Server, words: Iterable[str]) -> list[str]:
    """Where the words stand once the server has written all that it holds to its disk, as a snapshot and as a log."""

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
            return places(server, words, server.directory)
        finally:
            redis.config_set("appendonly", "no")
            for file in server.directory.glob("*.rdb"):  # else the next test that restarts the server finds it
                file.unlink()
