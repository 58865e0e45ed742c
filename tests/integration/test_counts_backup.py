"""What was asked how often, in backups: nothing is counted twice, and what was called private here stays away."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agentic_flywheel.backup_writing import PRIVATE
from agentic_flywheel.insight.tally import name_of
from flywheels import Oracle, everything, opened
from servers import Server

pytestmark = pytest.mark.anyio

KEYS, LOGS, SECRET = (
    "How do I rotate the signing keys?",
    "Where are the access logs kept?",
    "Which colour has the door?",
)


async def test_counts_are_put_back_once(valkey: Server, tmp_path: Path) -> None:
    flows = {"oracle": Oracle()}
    async with opened(valkey, tmp_path, flows) as source, opened(valkey, tmp_path, flows, tenant="other") as target:
        for user in ("ann", "bob", "cy"):
            await source.ask(KEYS, user=user, session=user)
            await source.ask(LOGS, user=user, session=user)  # a step, since it follows
            await source.ask(LOGS, user=user)
            await source.ask(SECRET, user=user)
        await source.ask("Rotation of signing keys?", user="dan")
        await source.flush()
        await source._store.popularity.join("oracle", name_of(KEYS), name_of("Rotation of signing keys?"))
        await target.popular.forget(SECRET, flow="oracle", hide=True)
        written = await source.backup.export(tmp_path / "b", sections=["counts"])
        assert written.records == {"joined": 2, "asked": 5}, "four wordings, and one step"

        tried = await target.backup.restore(tmp_path / "b", dry_run=True)
        assert tried.records == {"joined": 2, "asked": 5}
        assert await target.popular.list() == []
        done = await target.backup.restore(tmp_path / "b")
        assert (done.records, done.skipped) == ({"joined": 2, "asked": 4}, {f"asked: {PRIVATE}": 1})
        shown = [(one.question, one.asked, one.askers) for one in await target.popular.list()]
        assert shown == [(KEYS, 4, 4), (LOGS, 3, 3)]
        (step,) = await target.popular.next(KEYS)
        assert (step.question, step.count, step.share) == (LOGS, 3, 1.0)

        await target.flush()
        before = everything(valkey)
        again = await target.backup.restore(tmp_path / "b")
        assert (again.records, again.there) == ({}, {"joined": 2, "asked": 4})
        assert everything(valkey).keys() == before.keys()
        assert [(one.question, one.asked) for one in await target.popular.list()] == [(KEYS, 4), (LOGS, 3)]

        # What was asked here since counts more than the file, and stays.
        await target.ask(LOGS, user="eve")
        await target.ask(LOGS, user="fay")
        await target.backup.restore(tmp_path / "b")
        assert {one.question: one.asked for one in await target.popular.list()} == {LOGS: 5, KEYS: 4}


async def test_old_days_have_ended(valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as source:
        await source.ask(KEYS, user="ann")
        await source.backup.export(tmp_path / "b", sections=["counts"])
        await source.popular.forget(KEYS)
        moment = time.time()
        monkeypatch.setattr("agentic_flywheel.backup_writing.time.time", lambda: moment + 92 * 86400)
        done = await source.backup.restore(tmp_path / "b", dry_run=True)
        assert done.skipped == {"asked: expired since": 1}
