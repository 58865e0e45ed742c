"""The FAQ in backups: the newer of two stays, nothing is served under another configuration, repeating is harmless."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentic_flywheel import Flywheel
from agentic_flywheel.backup_writing import DECIDED_HERE
from agentic_flywheel.curated import FaqState
from agentic_flywheel.model import Origin
from flywheels import Oracle, everything, opened
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How do I reset the router password?"


@asynccontextmanager
async def tenants(server: Server, folder: Path, *, version: str = "1") -> AsyncIterator[tuple[Flywheel, Flywheel]]:
    """Two tenants with the same flow; that of the second has the configuration `version`."""
    async with (
        opened(server, folder, {"oracle": (Oracle(), {"options": {"version": "1"}})}) as source,
        opened(server, folder, {"oracle": (Oracle(), {"options": {"version": version}})}, tenant="other") as target,
    ):
        yield source, target


async def approved(flywheel: Flywheel, answer: str = "Hold the button.") -> str:
    draft = await flywheel.faq.add(QUESTION, answer, flow="oracle", wordings=["Router reset?"], by="ann")
    return (await flywheel.faq.approve(draft.id, owner="ann", by="ann")).id


async def test_doing_it_again_changes_nothing(valkey: Server, tmp_path: Path) -> None:
    async with tenants(valkey, tmp_path) as (source, target):
        id_ = await approved(source)
        await source.backup.export(tmp_path / "b", sections=["faq"])
        tried = await target.backup.restore(tmp_path / "b", dry_run=True)
        assert tried.records == {"faq": 1}
        assert (await target.faq.entries()) == []
        assert (await target.backup.restore(tmp_path / "b")).records == {"faq": 1}
        assert (await target.ask("router reset", flow="oracle")).faq == id_
        assert await target.faq.history(id_) == await source.faq.history(id_)
        await target.flush()
        before = everything(valkey)
        again = await target.backup.restore(tmp_path / "b")
        assert (again.records, again.there, again.skipped) == ({}, {"faq": 1}, {})
        assert everything(valkey) == before


async def test_the_newer_of_two_stays(valkey: Server, tmp_path: Path) -> None:
    async with tenants(valkey, tmp_path) as (source, target):
        id_ = await approved(source)
        await source.backup.export(tmp_path / "old", sections=["faq"])
        await target.backup.restore(tmp_path / "old")
        await source.faq.edit(id_, answer="Hold it for ten seconds.", by="bob")
        await source.faq.approve(id_, by="bob")
        await source.backup.export(tmp_path / "new", sections=["faq"])
        put = await target.backup.restore(tmp_path / "new")
        assert put.records == {"faq": 1}
        assert (await target.ask(QUESTION, flow="oracle")).text == "Hold it for ten seconds."
        assert [change.by for change in await target.faq.history(id_)] == ["ann", "ann", "bob", "bob"]
        kept = await target.backup.restore(tmp_path / "old")
        assert (kept.records, kept.skipped) == ({}, {f"faq: {DECIDED_HERE}": 1})
        assert (await target.ask(QUESTION, flow="oracle")).text == "Hold it for ten seconds."


async def test_words_that_another_entry_answers_here_stay_with_it(valkey: Server, tmp_path: Path) -> None:
    async with tenants(valkey, tmp_path) as (source, target):
        await approved(source)
        await source.backup.export(tmp_path / "b", sections=["faq"])
        await approved(target, "Answered here.")
        put = await target.backup.restore(tmp_path / "b")
        assert (put.records, put.skipped) == ({}, {f"faq: {DECIDED_HERE}": 1})
        assert (await target.ask(QUESTION, flow="oracle")).text == "Answered here."


async def test_what_was_approved_under_another_configuration_waits_for_a_person(valkey: Server, tmp_path: Path) -> None:
    async with tenants(valkey, tmp_path, version="2") as (source, target):
        id_ = await approved(source)
        await source.backup.export(tmp_path / "b", sections=["faq"])
        await target.backup.restore(tmp_path / "b")
        assert (await target.ask(QUESTION, flow="oracle")).source is Origin.FLOW
        assert (await target.faq.show(id_)).state is FaqState.STALE
