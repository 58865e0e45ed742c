"""`afw keys`: keys are made, shown without being shown, and changed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from afw_command import Afw, assert_error
from servers import Server


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


def test_a_tenant_goes_from_plain_to_a_key_and_to_another_one(afw: Afw, tmp_path: Path, valkey: Server) -> None:
    file = tmp_path / "afw.keys"
    afw.ok("ask", "echo the zyxwort", "--flow", "echo", "--session", "talk")
    assert "not encrypted" in afw.ok("keys", "show").out
    assert_error(afw.json("keys", "rotate", code=2), "key_missing")
    assert "AFW_ENCRYPTION_KEY_FILE" in afw.ok("keys", "create", "k1", "--file", str(file)).err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = file.read_text().partition(":")[2].strip()
    given = {"AFW_ENCRYPTION_KEY_FILE": str(file)}
    rotated = afw.json("keys", "rotate", **given)
    assert rotated["complete"]
    assert rotated["sealed"] > 0
    with valkey.client() as redis:
        assert b"zyxwort" not in b"".join(
            fields[b"t"] for _, fields in redis.xrange("afw:v1:default:session:{talk}:turns")
        )
    shown = afw.ok("keys", "show", **given)
    assert secret not in shown.out + shown.err + afw.ok("config", "show", **given).out
    assert "encrypts, values, index" in shown.out
    missing = afw.run("keys", "show")
    assert missing.code == 1
    assert "no key is configured here" in missing.err
    assert_error(afw.json("session", "show", "talk", code=2), "key_missing")
    assert "encryption.current = k2" in afw.ok("keys", "create", "k2", "--file", str(file)).err
    assert "has a key k2 already" in afw.run("keys", "create", "k2", "--file", str(file)).err
    assert "encrypted with k2" in afw.ok("keys", "rotate", **given, AFW_ENCRYPTION_CURRENT="k2").out
    only = {"AFW_ENCRYPTION_KEYS": file.read_text().splitlines()[1]}
    assert "zyxwort" in afw.ok("session", "show", "talk", **only).out
    assert {view["id"]: view["used"] for view in afw.json("keys", "show", **only)["keys"]} == {"k2": True}
    checks = {check["name"]: check for check in afw.json("doctor", **only)["checks"]}
    assert checks["encryption"]["state"] == "ok"


def test_a_key_is_printed_once_and_never_twice_the_same(afw: Afw) -> None:
    one, other = afw.ok("keys", "create", "k1").out, afw.ok("keys", "create", "k1").out
    assert one.startswith("k1:")
    assert one != other
    assert "cannot be the id of a key" in afw.run("keys", "create", "a key").err
