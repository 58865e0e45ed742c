"""Searching what was asked and answered, on real servers, through the facade; two flywheels are two processes.

Whatever holds for one index holds for the other: `home` is each in turn.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel.errors import InputError, StoreUnavailable, UnknownTurn
from agentic_flywheel.findings import HistoryPage, SearchMode
from agentic_flywheel.model import Directives, Sharing
from flywheels import Oracle
from histories import Home
from meanings import Words
from servers import Server

pytestmark = pytest.mark.anyio

NEVER = "xylophonequartz"


def ids(page: HistoryPage) -> set[str]:
    return {found.turn_id for found in page.found}


def questions(page: HistoryPage) -> list[str]:
    return [found.question for found in page.found]


async def test_a_turn_is_found_at_once_by_words_in_question_and_answer(home: Home) -> None:
    async with home.wheel() as flywheel:
        answer = await flywheel.ask("How is persistence switched on?", flow="docs")
        page = await flywheel.history.search("persisting")
        assert ids(page) == {answer.turn_id}
        (found,) = page.found
        assert [found.question[start:end] for start, end in found.question_marks] == ["persistence"]
        assert [found.excerpt[start:end] for start, end in found.excerpt_marks] == ["persistence"]
        assert (page.total, page.mode, page.cursor) == (1, SearchMode.WORDS, "")
        assert "Only words were compared" in page.warnings[0]


async def test_by_meaning_a_question_without_a_common_stem_is_found(home: Home) -> None:
    async with home.wheel(Words()) as flywheel:
        near = await flywheel.ask("rotating the backup keys monthly", flow="docs")
        await flywheel.ask("colours of the new logo", flow="docs")
        page = await flywheel.history.search("rotating the keys", mode="meaning")
        assert page.mode is SearchMode.MEANING
        assert page.found[0].turn_id == near.turn_id
        assert (await flywheel.history.state()).vectors == 2


async def test_filters_hold_in_the_text_and_as_options(home: Home) -> None:
    async with home.wheel() as flywheel:
        first = (await flywheel.ask("Which redis is used?", flow="docs", session="a", user="ann")).turn_id
        other = (await flywheel.ask("Which redis is sold?", flow="shop", session="b", user="bob")).turn_id
        await flywheel.sessions.tag("a", add=["ops"])
        search = flywheel.history.search
        cases: list[tuple[str, dict[str, str], set[str]]] = [
            ("redis", {}, {first, other}),
            ("redis flow:docs", {}, {first}),
            ("redis", {"flow": "shop"}, {other}),
            ("redis user:ann", {}, {first}),
            ("redis session:b", {}, {other}),
            ("redis", {"tag": "ops"}, {first}),
            ("redis outcome:miss", {}, {first, other}),
            ("redis outcome:hit", {}, set()),
            ("redis since:1h", {}, {first, other}),
            ("redis until:yesterday", {}, set()),
            ("redis -sold", {}, {first}),
            ('"redis is sold"', {}, {other}),
            ('"sold redis"', {}, set()),
            ("flow:shop", {}, {other}),
            ("redis tag:nobody", {}, set()),
        ]
        for query, options, expected in cases:
            page = await search(query, **options)
            assert ids(page) == expected, (query, options)
            assert page.total == len(expected)
        await flywheel.sessions.tag("a", remove=["ops"])
        assert not (await search("redis tag:ops")).found


async def test_what_is_found_is_counted_by_its_facets(home: Home) -> None:
    async with home.wheel() as flywheel:
        for number in range(3):
            await flywheel.ask(f"redis question {number}", flow="docs", user="ann")
        await flywheel.ask("redis question in the shop", flow="shop")
        page = await flywheel.history.search("redis", limit=1)
        assert page.facets["flow"] == {"docs": 3, "shop": 1}
        assert page.facets["user"] == {"ann": 3}
        assert page.facets["outcome"] == {"miss": 4}
        assert sum(page.facets["day"].values()) == 4


async def test_pages_do_not_shift_when_turns_come_in(home: Home) -> None:
    async with home.wheel() as flywheel:
        before = [(await flywheel.ask(f"redis number {number}", flow="docs")).turn_id for number in range(9)]
        seen: list[str] = []
        cursor = ""
        while True:
            page = await flywheel.history.search("redis", limit=4, cursor=cursor)
            seen += [found.turn_id for found in page.found]
            cursor = page.cursor
            if not cursor:
                break
            await flywheel.ask(f"redis redis redis {len(seen)}", flow="docs")
        assert sorted(seen) == sorted(before)
        page = await flywheel.history.search("redis", limit=4)
        with pytest.raises(InputError, match="not a cursor of this search"):
            await flywheel.history.search("another", limit=4, cursor=page.cursor)
    async with home.wheel() as another:
        rest = await another.history.search("redis", limit=50, cursor=page.cursor)
        assert len(rest.found) == 11 - 4
        assert not ids(rest) & ids(page)


async def test_sorted_by_time_the_newest_comes_first(home: Home) -> None:
    async with home.wheel() as flywheel:
        asked = [(await flywheel.ask(f"redis {number}", flow="docs", session="s")).turn_id for number in range(5)]
        page = await flywheel.history.search("redis", sort="time")
        assert [found.turn_id for found in page.found] == asked[::-1]
        listed = await flywheel.history.search("session:s")
        assert [found.turn_id for found in listed.found] == asked[::-1]


async def test_private_turns_and_those_of_users_are_found_only_by_their_own(home: Home) -> None:
    own = (Oracle("own"), {"sharing": Sharing.USER})
    async with home.wheel(own=own) as flywheel:
        private = Directives(private=True)
        shared = await flywheel.ask("redis for all", flow="docs", user="ann", session="a")
        hers = await flywheel.ask("Where is my redis?", flow="docs", user="ann", session="a2")
        user = await flywheel.ask("redis of one user", flow="own", user="ann", session="a3")
        secret = await flywheel.ask("redis secret", flow="docs", user="ann", session="a4", directives=private)
        search = flywheel.history.search
        assert ids(await search("redis")) == {shared.turn_id, hers.turn_id, user.turn_id}
        assert ids(await search("redis", user="ann")) == {shared.turn_id, hers.turn_id, user.turn_id}
        assert ids(await search("redis", user="bob")) == {shared.turn_id}
        page = await search("redis", user="bob")
        assert (page.total, page.facets["flow"]) == (1, {"docs": 1})
        assert ids(await search("redis session:a4", user="ann")) == {secret.turn_id}
        assert ids(await search("redis session:a4", user="bob")) == set()


async def test_tenants_never_meet(home: Home) -> None:
    async with home.wheel() as flywheel:
        await flywheel.ask("redis of the first", flow="docs")
        assert len((await flywheel.history.search("redis")).found) == 1
    async with home.wheel(tenant="second") as flywheel:
        assert not (await flywheel.history.search("redis")).found


async def test_what_another_process_asks_and_deletes_is_known_with_the_next_search(home: Home) -> None:
    async with home.wheel() as one, home.wheel() as other:
        first = await one.ask("redis here", flow="docs", session="s")
        assert ids(await other.history.search("redis")) == {first.turn_id}
        second = await other.ask("redis there", flow="docs", session="t")
        assert ids(await one.history.search("redis")) == {first.turn_id, second.turn_id}
        await other.sessions.delete("s", dry_run=False)
        assert ids(await one.history.search("redis")) == {second.turn_id}
        assert ids(await other.history.search("redis")) == {second.turn_id}


async def test_nothing_is_left_of_a_deleted_session_or_turn(home: Home) -> None:
    async with home.wheel(Words()) as flywheel:
        await flywheel.ask(f"what is a {NEVER}one", flow="docs", session="s", directives=Directives(private=True))
        kept = await flywheel.ask("what is a cello made of", flow="docs", session="t")
        turn = await flywheel.ask(
            f"what is a {NEVER}two", flow="docs", session="t", directives=Directives(private=True)
        )
        assert len((await flywheel.history.search(f"{NEVER}one session:s")).found) == 1
        assert NEVER.encode() in home.held()
        await flywheel.sessions.delete("s", dry_run=False)
        receipt = await flywheel.sessions.delete_turn("t", turn.turn_id, dry_run=False)
        assert receipt.removed == {"turns": 1, "entries": 1}
        page = await flywheel.history.search("what is a")
        assert ids(page) == {kept.turn_id}
        await flywheel.settled()
        assert NEVER.encode() not in home.held()
        with home.server.client() as client:  # what a call said so far is gone with its lease, in seconds
            lasting = [key for key in client.scan_iter(count=1000) if client.pttl(key) < 0]
            assert lasting
            assert not [key for key in lasting if NEVER.encode() in client.dump(key)]
        thread = await flywheel.sessions.show("t")
        assert [turn.id for turn in thread.turns] == [kept.turn_id]
        assert thread.session.turns == 1


async def test_a_deleted_turn_does_not_come_in_again(home: Home) -> None:
    async with home.wheel() as flywheel:
        await flywheel.ask("redis once", flow="docs", session="s", turn_id="t1")
        await flywheel.sessions.delete_turn("s", "t1", dry_run=False)
        await flywheel.ask("redis once more", flow="docs", session="s", turn_id="t1")
        assert not (await flywheel.history.search("redis")).found
        with pytest.raises(UnknownTurn):
            await flywheel.sessions.delete_turn("s", "t1", dry_run=False)


async def test_a_lost_place_in_the_feed_costs_nothing(home: Home) -> None:
    async with home.wheel() as flywheel:
        first = await flywheel.ask("redis one", flow="docs", session="s")
        gone = await flywheel.ask("redis two", flow="docs", session="gone")
        assert ids(await flywheel.history.search("redis")) == {first.turn_id, gone.turn_id}
        await flywheel.sessions.delete("gone", dry_run=False)
        third = await flywheel.ask("redis three", flow="docs", session="s")
        await flywheel.flush()
        with home.server.client() as client:  # events that nobody read are trimmed
            for key in client.scan_iter("afw:v1:*:feed:*"):
                client.xtrim(key, maxlen=0)
        assert ids(await flywheel.history.search("redis")) == {first.turn_id, third.turn_id}


async def test_a_lost_event_is_made_good_by_the_next_one_of_its_session(home: Home) -> None:
    async with home.wheel() as flywheel:
        await flywheel.history.search("redis")
        first = await flywheel.ask("redis one", flow="docs", session="s")
        with home.server.client() as client:
            for key in client.scan_iter("afw:v1:*:feed:*"):
                client.delete(key)
        second = await flywheel.ask("redis two", flow="docs", session="s")
        assert ids(await flywheel.history.search("redis")) == {first.turn_id, second.turn_id}


async def test_without_redis_a_copy_on_this_machine_is_searched_and_said(home: Home) -> None:
    async with home.wheel() as flywheel:
        answer = await flywheel.ask("redis before", flow="docs")
        await flywheel.history.search("redis")
        home.server.stop()
        if home.kind == "local":
            page = await flywheel.history.search("redis")
            assert ids(page) == {answer.turn_id}
            (warning,) = (warning for warning in page.warnings if "Redis does not answer" in warning)
            assert "unix:" not in warning, "who searches is not told where it is"
        else:
            with pytest.raises(StoreUnavailable):
                await flywheel.history.search("redis")
    home.server.start()


async def test_every_server_feeds_the_local_index(redis_server: Server, tmp_path: Path) -> None:
    async with Home(redis_server, tmp_path, "local").wheel() as flywheel:
        answer = await flywheel.ask("How is persistence switched on?", flow="docs")
        assert ids(await flywheel.history.search("persisting")) == {answer.turn_id}


async def test_many_searches_at_once_see_what_was_asked_before_each(home: Home) -> None:
    async with home.wheel() as flywheel:

        async def ask_and_search(number: int) -> bool:
            answer = await flywheel.ask(f"redis w{number}w", flow="docs", session=f"s{number}")
            return answer.turn_id in ids(await flywheel.history.search(f"w{number}w"))

        assert all(await asyncio.gather(*(ask_and_search(number) for number in range(20))))


@pytest.mark.parametrize(
    "text", ["(is|it|hello)", '"', "NEAR(", "a AND", "\x00redis", "👍" * 9, "x" * 16_500, "redis' OR 1=1 --", "%*:^"]
)
async def test_nothing_that_is_typed_breaks_a_search(home: Home, text: str) -> None:
    async with home.wheel(Words()) as flywheel:
        await flywheel.ask("redis hello", flow="docs")
        for mode in SearchMode:
            page = await flywheel.history.search(text, mode=mode)
            assert page.total >= len(page.found)
        assert len((await flywheel.history.search("redis hello")).found) == 1


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"mode": "both!"}, {"sort": "x"}, {"since": "tomato"}, {"outcome": "mis"}]
)
async def test_wrong_options_are_refused(home: Home, wrong: dict[str, Any]) -> None:
    async with home.wheel() as flywheel:
        with pytest.raises(InputError):
            await flywheel.history.search("redis", **wrong)


async def test_another_embedder_makes_vectors_anew_and_words_work_meanwhile(home: Home) -> None:
    for name in ("first", "second", "first"):
        async with home.wheel(Words(name)) as flywheel:
            await flywheel.ask(f"redis keys {name}", flow="docs")
            assert (await flywheel.history.search("redis")).found
            await flywheel.settled()
            state = await flywheel.history.state()
            assert state.vectors == state.turns
            assert (state.embedder, state.kind) == (name, home.kind)
        async with home.wheel(Words(name)) as flywheel:
            assert (await flywheel.history.state()).vectors == state.turns, "also before anything was embedded"


async def test_a_rebuild_tells_how_far_it_is_and_finds_the_same(home: Home) -> None:
    steps: list[tuple[str, int, int]] = []
    async with home.wheel(Words()) as flywheel:
        for number in range(30):
            await flywheel.ask(f"redis {number}", flow="docs", session=f"s{number % 7}")
        before = await flywheel.history.search("redis", limit=50)
        state = await flywheel.history.rebuild(lambda *step: steps.append(step))
        after = await flywheel.history.search("redis", limit=50)
        assert ids(before) == ids(after)
        assert (state.sessions, state.turns, state.vectors) == (7, 30, 30)
        assert ("sessions", 7, 7) in steps
        assert ("vectors", 30, 30) in steps


async def test_what_is_dropped_is_made_anew_when_it_is_next_needed(home: Home) -> None:
    async with home.wheel() as flywheel:
        answer = await flywheel.ask("redis here", flow="docs")
        await flywheel.history.search("redis")
        receipt = await flywheel.history.drop(dry_run=True)
        assert (receipt.removed, receipt.dry_run) == ({"indexed turns": 1}, True)
        assert home.held()
        await flywheel.history.drop(dry_run=False)
        assert not home.held()
        assert ids(await flywheel.history.search("redis")) == {answer.turn_id}
