"""The audit log is a chain that shows what was done to it, and receipts can be verified later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from afw_command import Afw
from agentic_flywheel import Flywheel
from agentic_flywheel.errors import InputError, SettingsError
from agentic_flywheel.model import Receipt
from flywheels import Oracle, opened
from servers import Server

pytestmark = pytest.mark.anyio

LOG = "afw:v1:default:audit"


async def written(flywheel: Flywheel, count: int = 5) -> None:
    for number in range(1, count + 1):
        await flywheel.audit.record("ttl.set", f"flow-{number}", by="cli:ada", why="a test", seconds=number)


def kept(server: Server) -> list[tuple[bytes, dict[bytes, bytes]]]:
    with server.client() as redis:
        return list(redis.xrange(LOG))


def rewrite(server: Server, rows: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
    """What somebody who reaches Redis may do to it."""
    with server.client() as redis:
        redis.delete(LOG)
        for id_, fields in rows:
            redis.xadd(LOG, fields, id=id_)


def _changed(rows: list[Any]) -> list[Any]:
    body = rows[2][1][b"e"]
    return [*rows[:2], (rows[2][0], {**rows[2][1], b"e": body.replace(b"flow-3", b"flow-9")}), *rows[3:]]


def _swapped(rows: list[Any]) -> list[Any]:
    third, fourth = rows[2], rows[3]
    return [*rows[:2], (third[0], fourth[1]), (fourth[0], third[1]), rows[4]]


def _renumbered(rows: list[Any]) -> list[Any]:
    return [*rows[:2], *((id_, {**fields, b"n": b"%d" % at}) for at, (id_, fields) in enumerate(rows[3:], 3))]


@pytest.mark.parametrize(
    ("harm", "broken_at", "fault"),
    [
        (_changed, 3, "was changed"),
        (lambda rows: [*rows[:2], *rows[3:]], 3, "is missing"),
        (lambda rows: rows[2:], 1, "is missing, and all up to 2"),
        (_swapped, 3, "is missing"),
        (_renumbered, 3, "was changed"),
        (lambda rows: [*rows[:3], (rows[3][0], {b"e": rows[3][1][b"e"]}), rows[4]], 4, "was changed"),
    ],
    ids=["changed", "taken out", "cut off in front", "swapped", "taken out and renumbered", "not ours"],
)
async def test_what_was_done_to_the_log_is_seen(
    valkey: Server, tmp_path: Path, harm: Callable[[list[Any]], list[Any]], broken_at: int, fault: str
) -> None:
    async with opened(valkey, tmp_path) as flywheel:
        await written(flywheel)
        whole = await flywheel.audit.verify()
        assert (whole.intact, whole.entries) == (True, 5)
        rewrite(valkey, harm(kept(valkey)))
        found = await flywheel.audit.verify()
        assert (found.intact, found.broken_at) == (False, broken_at)
        assert fault in found.fault


async def test_a_head_that_was_noted_shows_what_the_chain_cannot(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path) as flywheel:
        assert (await flywheel.audit.verify()).head == ""
        await written(flywheel, 3)
        head = (await flywheel.audit.verify()).head
        await written(flywheel, 2)
        assert (await flywheel.audit.verify(against=head)).intact
        rows = kept(valkey)
        rewrite(valkey, rows[:2])
        assert (await flywheel.audit.verify()).intact  # the end was cut off: by itself the chain is whole
        assert (await flywheel.audit.verify(against=head)).broken_at == 3
        rewrite(valkey, [])
        await written(flywheel, 4)
        assert "written anew" in (await flywheel.audit.verify(against=head)).fault
        with pytest.raises(InputError):
            await flywheel.audit.verify(against="3")


async def test_who_writes_at_the_same_time_writes_one_chain(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path) as one, opened(redis_server, tmp_path) as other:
        made = await asyncio.gather(*(each.audit.record("a", "b", by="c") for each in (one, other) * 20))
        verdict = await one.audit.verify()
        assert (verdict.intact, verdict.entries) == (True, 40)
        assert sorted(entry.number for entry in made) == list(range(1, 41))
        assert verdict.head == max(made, key=lambda entry: entry.number).head


async def test_an_encrypted_log_is_a_chain_too(valkey: Server, tmp_path: Path) -> None:
    keys = {"encryption_keys": "k1:" + "A" * 43 + "="}
    async with opened(valkey, tmp_path, **keys) as flywheel:
        await written(flywheel)
        assert (await flywheel.audit.verify()).intact
        assert b"flow-3" not in kept(valkey)[2][1][b"e"]


async def forgotten(flywheel: Flywheel) -> Receipt:
    await flywheel.ask("Where is it?", session="s", user="ann")
    return await flywheel.audit.carry_out(
        "session.forget",
        "s",
        lambda only_look: flywheel.forgetting.session("s", dry_run=only_look),
        by="cli:ada",
        why="as asked",
    )


async def test_a_receipt_is_verified_later(valkey: Server, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    async with opened(valkey, here, {"oracle": Oracle()}) as flywheel, opened(valkey, there) as elsewhere:
        receipt = await forgotten(flywheel)
        assert (receipt.by, receipt.why, receipt.removed["turns"]) == ("cli:ada", "as asked", 1)
        assert (here / "data" / "signing.key").stat().st_mode & 0o777 == 0o600
        assert (await flywheel.audit.verify_receipt(receipt)).valid
        assert not (await elsewhere.audit.verify_receipt(receipt)).valid  # an installation of its own
        assert (await elsewhere.audit.verify_receipt(receipt, signed_by=receipt.signer)).valid
        for name, value in {"target": "t", "removed": {}, "why": "", "at": 0.0, "notes": ()}.items():
            forged = msgspec.structs.replace(receipt, **{name: value})
            (fault,) = (await flywheel.audit.verify_receipt(forged)).faults
            assert "changed after it was signed" in fault
        for signature in ("", "AAAA"):
            forged = msgspec.structs.replace(receipt, signature=signature)
            assert not (await flywheel.audit.verify_receipt(forged)).valid
        rewrite(valkey, [])
        (fault,) = (await flywheel.audit.verify_receipt(receipt)).faults
        assert "does not bear it out" in fault


async def test_a_key_that_cannot_be_used_leaves_the_receipt_unsigned(valkey: Server, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("QUJD\n")
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, signing_key_file=str(tmp_path / "short")) as flywheel:
        receipt = await forgotten(flywheel)
        assert receipt.signature == ""
        assert "not signed" in receipt.notes[-1]
        with pytest.raises(SettingsError):
            await flywheel.audit.verify_receipt(msgspec.structs.replace(receipt, signature="AAAA"))


def test_forgetting_with_the_command_line(valkey: Server, tmp_path: Path) -> None:
    afw = Afw(tmp_path, valkey.url)
    afw.ok("ask", "Where is the zyxwort?", "--session", "s")
    assert afw.run("forget", "--session", "s").code == 1
    assert afw.json("audit", "list")["entries"] == []  # nothing was done
    receipt = afw.json("forget", "--session", "s", "--yes", "--why", "she asked")
    (tmp_path / "receipt.json").write_text(json.dumps(receipt))
    assert afw.json("audit", "receipt", str(tmp_path / "receipt.json"))["valid"]
    assert "as it was given" in afw.run("audit", "receipt", str(tmp_path / "receipt.json")).err.lower()
    (tmp_path / "forged.json").write_text(json.dumps(receipt | {"target": "t"}))
    assert afw.json("audit", "receipt", str(tmp_path / "forged.json"), code=1)["faults"]
    head = afw.ok("audit", "verify").out.strip()
    assert head == receipt["audit"]
    assert afw.json("audit", "verify", "--against", head)["intact"]
    rewrite(valkey, [])
    assert afw.json("audit", "verify", "--against", head, code=1)["broken_at"] == 1
