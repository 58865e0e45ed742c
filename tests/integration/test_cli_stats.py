"""`afw stats` as people run it: figures of real questions, rows, charts that fit a terminal, JSON."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

import pytest

from afw_command import Afw, assert_error
from agentic_flywheel.insight.latency import bucket_of
from agentic_flywheel.store.counters import Unsent
from servers import Server
from stores import stored

pytestmark = pytest.mark.anyio

BLOCKS = set("▁▂▃▄▅▆▇█▏▎▍▌▋▊▉")


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


async def fill(server: Server, flows: int = 12) -> None:
    """A week of a team that is busier than most, with flows whose names are long."""
    draw, unsent, now = random.Random(5), Unsent(), time.time()
    for flow in range(flows):
        name = f"{'a-flow-with-a-rather-long-name-' if flow % 2 else 'f'}{flow}"
        for _ in range(300):
            moment, took = now - draw.random() * 7 * 86400, int(draw.lognormvariate(math.log(2.5e6), 1.0))
            hit = {"outcome:hit": 99, "reason:exact": 99, "hit_us": 99, f"h{bucket_of(took / 1000)}": 99}
            miss = {"outcome:miss": 9, "reason:not_stored": 9, "calls": 9, "flow_us": took, f"f{bucket_of(took)}": 9}
            failed = {"failed": 2, "failed:flow_timeout": 2, "errors": 2, "error:flow_timeout": 2}
            saved = {"saved_us": took * 99, f"s{bucket_of(took)}": 99, "session:known": 9, "session:kept": 8}
            unsent.add(name, moment, hit | miss | failed | saved)
    async with stored(server, "default") as store:
        await store.counters.send(unsent)
        await store.link.run(*(("SADD", store.keys.flows, flow) for flow, _ in unsent.minutes), slow=True)


async def test_what_was_asked_is_told(afw: Afw) -> None:
    afw.registry.write_text(afw.registry.read_text() + "    price_per_call: 0.25\n")
    afw.ok("ask", "How do I rotate the keys?", "--flow", "echo", "--intent", "Repeat", "--user", "ana")
    for user in ("ana", "bob"):
        afw.ok("ask", "How do I rotate the keys?", "--flow", "echo", "--user", user)
    assert afw.run("ask", "please fail", "--flow", "echo").code == 2
    shown = afw.ok("stats").out
    for said in (
        "3: hit 2, miss 1",
        "67 %",
        "flow_unavailable 1",
        "0.50 USD (spent 0.25)",
        "3 new (3 one-off)",
        "exact 2",
    ):
        assert said in shown, said
    told = afw.json("stats", "--since", "1 hour")
    total = told["report"]["total"]
    assert (total["questions"], total["outcomes"]["hit"], total["failed"], total["saved"]) == (3, 2, 1, 0.5)
    assert sum(told["series"]["questions"]) == 3
    assert len(told["series"]["at"]) == len(told["series"]["failed"])
    rows = {dimension: afw.json("stats", "--by", dimension)["rows"] for dimension in ("intent", "user")}
    assert [(row["name"], row["questions"]) for row in rows["intent"]] == [("repeat", 1), ("(none named)", 2)]
    assert [(row["name"], row["questions"], row["failed"]) for row in rows["user"]] == [("ana", 2, 0), ("bob", 1, 0)]
    assert [row["name"] for row in afw.json("stats", "--by", "user", "--user", "bob")["rows"]] == ["bob"]
    assert afw.json("cache", "stats")["total"]["hit_p50_ms"] == total["hits"]["p50_ms"]


async def test_nothing_yet_and_nothing_of_the_kind(afw: Afw) -> None:
    done = afw.ok("stats")
    assert "Nothing was asked in this time." in done.err
    assert not BLOCKS & set(done.out)
    assert "Nothing was counted" in afw.ok("stats", "--by", "user").err
    assert_error(afw.json("stats", "--since", "soon", code=2), "invalid_input")
    assert_error(afw.json("stats", "--flow", "ecoh", code=1), "unknown_flow")
    assert afw.run("stats", "--by", "weather").code == 2


async def test_charts_fit_eighty_columns_and_any_terminal(afw: Afw, valkey: Server) -> None:
    await fill(valkey)
    for arguments in ((), *(("--by", each) for each in ("hour", "day", "flow", "reason", "intent"))):
        shown = afw.ok("stats", *arguments, COLUMNS="80").out
        lines = shown.splitlines()
        assert [line for line in lines if len(line) > 80] == [], arguments
        assert BLOCKS & set(shown) or "flow" in arguments, arguments  # beside so many columns no bar has room
    plain = afw.ok("stats", COLUMNS="80", PYTHONIOENCODING="ascii")
    assert plain.out.isascii()
    assert "#" in plain.out
    narrow = afw.ok("stats", "--since", "90 days", COLUMNS="50").out.splitlines()
    assert [line for line in narrow if len(line) > 50 and not line.startswith(("a-flow", "f"))] == []
