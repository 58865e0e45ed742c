"""Nothing that anybody types, or is called, harms a server with a query engine or means anything to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_history_contract import asked, doc, named

from agentic_flywheel.search.history.engine_docs import token
from agentic_flywheel.search.history.query import parse_query
from histories import Home, Kept, kept
from meanings import Words
from servers import Server, Servers, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def stack(servers: Servers) -> Server:
    return servers.get("stack74")


@pytest.fixture
async def made(stack: Server, tmp_path: Path) -> AsyncIterator[Kept]:
    async with kept(Home(stack, tmp_path, "engine")) as made:
        yield made


def test_stop_words_in_a_choice_end_this_release_of_the_engine(servers: Servers) -> None:
    """Why no query of ours is made of words: if this fails, the engine was mended."""
    running = servers.get("stack74")
    server = Server("stack74-apart", running._command, running._environ)
    server.start()
    try:
        with server.client() as client, contextlib.suppress(redis.ConnectionError):
            client.execute_command("FT.CREATE", "i", "ON", "HASH", "PREFIX", 1, "t:", "SCHEMA", "text", "TEXT")
            client.hset("t:1", "text", "hello world")
            client.execute_command("FT.SEARCH", "i", "(is|it|hello)", "NOCONTENT", "DIALECT", 2)
        wait_until(lambda: not server.running, "the server to end")
    finally:
        server.close()


async def test_nothing_that_people_type_harms_the_server(stack: Server, tmp_path: Path) -> None:
    odd = [
        "(is|it|hello)",
        "is it the hello",
        '"is it" -the -"of the"',
        "2026 -2025",
        "-1 +1 1e5 inf -inf nan 0x10",
        "or and not as prefix ismissing",
        "@s:{x} @q:hello $v %%fuzzy%% w*",
        "hello=>[KNN 5 @v $v]",
        "~hello -(is|it)",
        "*",
        "a" * 500,
        "\\\\ \\( '",
        "\ud7ff\uffff ı İ ß ﬁ Ꭰ ꭰ ᾼ 𝔘",
        "َ ً ١٢٣ मराठी ไทย 日本語 ёлка",
    ]
    async with Home(stack, tmp_path, "engine").wheel(Words()) as flywheel:
        for text in (*odd, "hello there"):
            await flywheel.ask(text, flow="docs", session="s")
        with stack.client() as client:
            before = client.info("server")["run_id"]
        for text in odd:
            for mode in ("words", "meaning", "both"):
                page = await flywheel.history.search(text, mode=mode)
                assert page.total >= len(page.found)
        await flywheel.history.search("hello", flow="a|b", user="x}", session="{s", tag="-", outcome="hit")
        assert (await flywheel.history.search("hello there")).found[0].question == "hello there"
        with stack.client() as client:
            assert client.info("server")["run_id"] == before


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text(
    st.sampled_from(list("ab1290 -\"'()|@{}[]:$%*~=>\\.,é記—#+_")), max_size=40
)


async def test_whatever_is_stored_is_found_by_its_own_words(made: Kept) -> None:
    """Texts of all kinds, cut by the engine exactly where we cut them; every one is looked for by each of its terms."""
    texts: list[str] = []

    @settings(max_examples=150, database=None, suppress_health_check=list(HealthCheck))
    @given(TEXTS)
    def collect(text: str) -> None:
        texts.append(text)

    await asyncio.to_thread(collect)
    texts = list(dict.fromkeys(texts))
    await made.put([doc(n, text, texts[n - 1]) for n, text in enumerate(texts)])
    with made.home.server.client() as client:
        before = client.info("server")["run_id"]
    for number, text in enumerate(texts):
        query = asked(text)
        for one in [query, asked(f"{text} -{text}"), asked(f'"{text}"'), asked(f"flow:f {text} session:s")]:
            await made.index.words(one, count=1000)
            await made.index.listed(one, offset=0, count=10)
        if parse_query(text, now=0.0).terms and query.terms and not query.excluded and not query.phrases:
            expected = {
                f"t{n}"
                for n, other in enumerate(texts)
                if set(query.terms) & set(doc(n, other, texts[n - 1]).question_words.split())
                or set(query.terms) & set(doc(n, other, texts[n - 1]).answer_words.split())
            }
            hits = await made.index.words(_unfiltered(query), count=1000)
            assert set(await named(made.index, hits)) == expected, (number, text)
    with made.home.server.client() as client:
        assert client.info("server")["run_id"] == before


def _unfiltered(query: Any) -> Any:
    nothing = {"flow": "", "user": "", "session": "", "outcome": "", "tag": "", "since": None, "until": None}
    return msgspec.structs.replace(query, **nothing)


@given(st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
def test_no_two_stems_have_the_same_token_and_each_is_plain(one: str, other: str) -> None:
    for stem in (one, other):
        made = token(stem)
        assert made.isascii()
        assert made.isalnum()
        assert made[0] in "wu"
        assert made == made.lower()
    assert (token(one) == token(other)) == (one == other)
