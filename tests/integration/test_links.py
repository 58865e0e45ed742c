"""Sessions on one topic are found for those who may see them, and nothing that is private leads anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_flywheel import Directives, Flywheel, Sharing
from agentic_flywheel.errors import InputError, UnknownSession
from flywheels import Oracle, opened
from servers import Server

pytestmark = pytest.mark.anyio

PUMPS = (
    "How does the hydraulic pump build pressure in the brake circuit?",
    "Which hydraulic fluid does the brake pump need under pressure?",
    "Why does the hydraulic brake circuit lose pressure when the pump stops?",
)
ROSES = (
    "When are climbing roses pruned in a cold garden?",
    "Which soil do climbing roses like in a shady garden?",
    "How are young roses watered in a dry garden?",
)


async def talk(
    flywheel: Flywheel,
    session: str,
    questions: tuple[str, ...],
    user: str,
    *,
    private: bool = False,
    flow: str = "open",
) -> None:
    for question in questions:
        await flywheel.ask(
            question, session=session, user=user, flow=flow, directives=Directives(private=private, standalone=True)
        )


async def found(flywheel: Flywheel, session: str, user: str | None = None) -> set[str]:
    return {link.session_id for link in (await flywheel.links.of(session, user=user)).links}


async def test_sessions_of_one_user_on_one_topic_are_found_and_others_are_not(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"open": Oracle()}) as flywheel:
        await talk(flywheel, "monday", PUMPS, "ann")
        await talk(flywheel, "friday", PUMPS[::-1], "ann")
        await talk(flywheel, "garden", ROSES, "ann")
        await talk(flywheel, "bobs", PUMPS, "bob")
        assert await found(flywheel, "monday", "ann") == {"friday"}
        assert await found(flywheel, "monday", "") == {"friday"}  # the operator: still only the same user's
        (link,) = (await flywheel.links.of("monday", user="ann")).links
        assert {"hydraulic", "pump"} <= {word.rstrip("s") for word in link.words} | set(link.words)
        with pytest.raises(UnknownSession):
            await flywheel.links.of("monday", user="bob")
        with pytest.raises(InputError):
            await flywheel.links.of("monday", user="ann", limit=-1)


async def test_a_session_of_nobody_in_particular_leads_to_nobody(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"open": Oracle()}) as flywheel:
        await talk(flywheel, "nobodys", PUMPS, "")
        await talk(flywheel, "bobs", PUMPS, "bob")
        assert await found(flywheel, "nobodys", "") == set()
        assert await found(flywheel, "nobodys", "ann") == set()


async def test_what_is_private_leads_nowhere(valkey: Server, tmp_path: Path) -> None:
    flows = {
        "open": Oracle(),
        "closed": (Oracle("closed"), {"sharing": Sharing.SESSION}),
        "nobody": (Oracle("nobody"), {"sharing": Sharing.NONE}),
    }
    async with opened(valkey, tmp_path, flows) as flywheel:
        await talk(flywheel, "monday", PUMPS, "ann")
        await talk(flywheel, "secret", PUMPS, "ann", private=True)
        await talk(flywheel, "closed", PUMPS, "ann", flow="closed")
        await talk(flywheel, "nobody", PUMPS, "ann", flow="nobody")
        for caller in ("ann", ""):
            assert await found(flywheel, "monday", caller) == set()
            assert await found(flywheel, "secret", caller) == set()  # nor does it lead away from there
            assert await found(flywheel, "closed", caller) == set()
        await talk(flywheel, "tuesday", PUMPS, "ann")
        assert await found(flywheel, "monday", "ann") == {"tuesday"}


async def test_a_deleted_session_is_linked_no_more(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"open": Oracle()}) as flywheel:
        await talk(flywheel, "monday", PUMPS, "ann")
        await talk(flywheel, "friday", PUMPS, "ann")
        assert await found(flywheel, "monday", "ann") == {"friday"}
        await flywheel.sessions.delete("friday", dry_run=False)
        assert await found(flywheel, "monday", "ann") == set()
