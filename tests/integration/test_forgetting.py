"""What is forgotten leaves no trace: not in any value in Redis, not in any file, not in any process."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from afw_command import Afw
from agentic_flywheel import Flywheel
from agentic_flywheel.errors import InputError, UnknownSession
from agentic_flywheel.model import Receipt, Sharing
from byte_search import readings, values_of
from flywheels import Oracle, opened, until
from meanings import Words
from servers import Server, Servers
from sinks import PUBLIC, SECRET, sink

pytestmark = pytest.mark.anyio

#: Words that occur nowhere but in what is to be forgotten; search keeps stems of them.
MARK = "zyxwort"
STAYS = "How long do answers stay good?"


def traces(server: Server, folder: Path, word: str = MARK) -> list[str]:
    """Where a word still stands: keys, values (unpacked), files."""
    found = []
    needle = word.encode()
    with server.client() as redis:
        for key in redis.keys("*"):
            held = [key, *values_of(redis, key)]
            if any(needle in text.lower() for raw in held for text in readings(raw)):
                found.append(key.decode())
    files = (file for file in folder.rglob("*") if file.is_file() and needle in file.read_bytes().lower())
    return [*found, *(str(file.relative_to(folder)) for file in files)]


def lasting(server: Server, folder: Path) -> list[str]:
    """Those that do not go by themselves: what a flow said stands for seconds, for those who were about to listen."""
    with server.client() as redis:
        return [trace for trace in traces(server, folder) if ":lease:" not in trace or redis.pttl(trace) == -1]


async def lived(flywheel: Flywheel, user: str, session: str) -> None:
    """Everything that may come of a person's questions."""
    asked = f"How is the {MARK}{session} installed?"
    await flywheel.ask(asked, session=session, user=user)
    await flywheel.ask(f"And {MARK}{session} on mobile?", session=session, user=user)
    await flywheel.ask(f"What is my {MARK}{session} called?", session=session, user=user)
    await flywheel.ask(asked, user=user)
    # Similar, so that wordings join one question; others ask it too, so that it is popular and drafted for the FAQ.
    await flywheel.ask(f"How can the {MARK}{session} be installed?", user=user)
    first = next(turn for turn in (await flywheel.sessions.show(session)).turns if MARK in turn.question)
    await flywheel.similar.report(first.id, "outdated", note=f"about {MARK}{session}", session=session, user=user)
    await flywheel.ask(asked, user=user)
    await flywheel.sessions.rename(session, f"{MARK} thoughts")
    await flywheel.history.search(f"{MARK}{session}", user=user)
    await flywheel.popular.list()
    await flywheel.faq.list()
    await flywheel.settled()
    await flywheel.flush()


@pytest.mark.parametrize("what", ["session", "user"])
async def test_nothing_is_left_of_what_is_forgotten(redis_server: Server, tmp_path: Path, what: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    flow = {"oracle": Oracle()}
    given = {"embedder": Words()}
    async with (
        opened(redis_server, here, flow, given=given) as flywheel,
        opened(redis_server, there, flow, given={"embedder": Words()}) as other,
    ):
        await flywheel.ask(STAYS, session="others", user="bob")
        await lived(flywheel, "ann", "s1")
        await other.history.search(MARK, user="ann")  # a machine that has it in an index of its own
        assert traces(redis_server, tmp_path)
        if what == "session":
            for session in [page.id for page in (await flywheel.sessions.list(user="ann")).sessions]:
                dry = await flywheel.forgetting.session(session, dry_run=True)
                done = await flywheel.forgetting.session(session, dry_run=False)
                assert dry.removed == done.removed
        else:
            dry = await flywheel.forgetting.user("ann", dry_run=True)
            assert traces(redis_server, tmp_path)
            done = await flywheel.forgetting.user("ann", dry_run=False)
            assert dry.removed == done.removed
            assert done.removed["shared answers"] >= 1
        for each in (flywheel, other):
            assert (await each.history.search(MARK, user="ann")).total == 0
            assert (await each.history.search("answers", user="bob")).total == 1
            await each.settled()
        await until(lambda: not traces(redis_server, tmp_path), f"traces to go: {traces(redis_server, tmp_path)}")
        assert (await other.ask(STAYS, user="carl")).outcome == "hit"
        assert [s.id for s in (await flywheel.sessions.list(user="ann")).sessions] == []
        with pytest.raises(UnknownSession):
            await other.sessions.show("s1")
        exported = tmp_path / "export.jsonl"
        await flywheel.backup.export(exported)
        assert MARK not in exported.read_text()
    assert traces(redis_server, tmp_path) == []


async def told(flywheel: Flywheel, file: Path) -> dict[str, str]:
    """Everything that is listed, counted or exported of history, as text."""
    said = {
        "popular": await flywheel.popular.list(),
        "next": await flywheel.popular.next(STAYS, flow="oracle"),
        "candidates": await flywheel.faq.list(),
        "entries": await flywheel.faq.entries(),
        "sessions": await flywheel.sessions.list(limit=100),
        "found": [await flywheel.history.search(f"{MARK}s1 {words}", user="ann") for words in ("", "installed mobile")],
        "listed": await flywheel.history.search("", user="ann"),
        "answers": await flywheel.cache.list(),
    }
    await flywheel.backup.export(file)
    said["backup"] = await asyncio.to_thread(file.read_text, "utf-8")
    for session in (await flywheel.sessions.list(limit=100)).sessions:
        said[f"export of {session.id}"] = await flywheel.sessions.export(session.id)
    return {name: repr(value).lower() for name, value in said.items()}


def naming(said: dict[str, str]) -> list[str]:
    return [name for name, text in said.items() if MARK in text]


@pytest.mark.parametrize("index", ["local", "engine"])
@pytest.mark.parametrize("what", ["session", "user", "turn"])
async def test_what_is_deleted_is_in_no_list_count_or_export_of_any_process(
    servers: Servers, tmp_path: Path, what: str, index: str
) -> None:
    server = servers.get("stack74")
    folders = [tmp_path / name for name in ("here", "there")]
    for folder in folders:
        folder.mkdir()
    flow, exports = {"oracle": Oracle()}, tmp_path / "exports"
    exports.mkdir()
    named = {"search_index": index, "faq_least_asked": 2, "faq_least_askers": 1}
    async with (
        opened(server, folders[0], flow, given={"embedder": Words()}, **named) as here,
        opened(server, folders[1], flow, given={"embedder": Words()}, **named) as there,
    ):
        await here.ask(STAYS, session="others", user="bob")
        await here.ask(STAYS, session="s1", user="ann")  # what ann asks next is a path from it
        await lived(here, "ann", "s1")
        for each in (here, there):
            before = naming(await told(each, exports / "before.jsonl"))
            assert {"popular", "candidates", "sessions", "found", "listed", "answers", "backup"} <= set(before)
        for file in exports.iterdir():
            file.unlink()
        sessions = [page.id for page in (await here.sessions.list(user="ann")).sessions]
        for session in sessions if what == "session" else ():
            await here.forgetting.session(session, dry_run=False)
        if what == "user":
            await here.forgetting.user("ann", dry_run=False)
        for session in sessions if what == "turn" else ():
            for turn in (await here.sessions.show(session)).turns:
                if MARK in turn.question:
                    await here.sessions.delete_turn(session, turn.id, dry_run=False)
                if await kept_answer(here, turn.entry_key) and MARK in turn.question:
                    await here.cache.clear(key=turn.entry_key, dry_run=False)
            await here.sessions.rename(session, None)  # a person wrote the title
        for number, each in enumerate((here, there)):
            after = await told(each, exports / f"{number}.jsonl")
            assert naming(after) == [], [line[:300] for line in after["backup"].split("\\n") if MARK in line]
            await each.settled()
        assert "others" in (await told(there, exports / "2.jsonl"))["sessions"], "nobody else's went"
        await until(lambda: not lasting(server, tmp_path), f"traces to go: {lasting(server, tmp_path)}")


async def kept_answer(flywheel: Flywheel, key: str) -> bool:
    return any(answer.key == key for answer in (await flywheel.cache.list(limit=100))[0])


async def test_nothing_is_left_of_words_that_are_forgotten(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}, given={"embedder": Words()}) as flywheel:
        await flywheel.ask(STAYS, session="s", user="ann")
        await flywheel.ask(f"Does the {MARK.upper()}  thing work?", session="s", user="ann")
        await flywheel.ask(f"Does the {MARK} thing work?", user="bob")
        await flywheel.cache.clear(everything=True, dry_run=False)  # not reclaimed yet, so still there
        await flywheel.ask(f"What does the {MARK} thing cost?", user="bob")
        await flywheel.history.search(MARK)
        await flywheel.settled()
        await flywheel.flush()
        with pytest.raises(InputError):
            await flywheel.forgetting.matching("zy ", dry_run=False)
        dry = await flywheel.forgetting.matching(f"{MARK} thing", dry_run=True)
        assert traces(redis_server, tmp_path)
        done = await flywheel.forgetting.matching(f"{MARK} thing", dry_run=False)
        assert dry.removed == done.removed
        assert done.removed["turns"] == 3
        assert MARK not in done.target
        assert (await flywheel.history.search(MARK)).total == 0
        await flywheel.settled()

        await until(lambda: not lasting(redis_server, tmp_path), f"traces to go: {lasting(redis_server, tmp_path)}")
        assert [turn.question for turn in (await flywheel.sessions.show("s")).turns] == [STAYS]


async def test_words_of_one_user_alone_are_forgotten(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        for user in ("ann", "bob"):
            await flywheel.ask(f"Does my {MARK} work?", session=user, user=user)
        await flywheel.forgetting.matching(MARK, user="ann", dry_run=False)
        assert [len((await flywheel.sessions.show(user)).turns) for user in ("ann", "bob")] == [0, 1]


async def test_what_was_asked_anew_in_somebodys_name_is_forgotten_with_them(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}, ttl_refresh_after=0.5) as flywheel:
        first = await flywheel.ask(f"How is the {MARK} installed?", user="ann")
        entry = (await flywheel.cache.show(first.key or "")).entry
        old = msgspec.structs.replace(entry, created_at=entry.created_at - 0.9 * entry.ttl_seconds)
        await flywheel._store.entries.put(first.key or "", old)
        hit = await flywheel.ask(f"How is the {MARK} INSTALLED?", user="bob", session="s")
        assert hit.outcome == "hit"
        await flywheel.settled()
        assert (await flywheel.cache.show(first.key or "")).entry.user == "bob"  # refreshed
        shown = await flywheel.forgetting.user("bob", dry_run=True)
        receipt = await flywheel.forgetting.user("bob", dry_run=False)
        assert receipt.removed == shown.removed
        assert receipt.removed["shared answers"] == 1
        assert not [place for place in traces(valkey, tmp_path, "bob") if "audit" not in place]


async def test_answers_that_no_turn_tells_of_are_forgotten_with_whom_they_were_for(
    valkey: Server, tmp_path: Path
) -> None:
    flows = {"oracle": (Oracle(), {"sharing": Sharing.USER}), "open": (Oracle(), {"id": "open"})}
    async with opened(valkey, tmp_path, flows) as flywheel:
        for flow in flows:
            await flywheel.ask(f"How is the {MARK} installed?", user="ann", session="s", flow=flow)
            await flywheel.ask(STAYS, user="bob", session="t", flow=flow)
        for turn in (await flywheel.sessions.show("s")).turns:
            await flywheel.sessions.delete_turn("s", turn.id, dry_run=False)
        shown = await flywheel.forgetting.user("ann", dry_run=True)
        receipt = await flywheel.forgetting.user("ann", dry_run=False)
        assert receipt.removed == shown.removed
        assert receipt.removed["shared answers"] == 2
        await until(lambda: not lasting(valkey, tmp_path), "the last trace to go")
        assert len((await flywheel.cache.list())[0]) == 2  # bob's


@pytest.mark.parametrize("what", ["user", "matching"])
async def test_turns_that_were_set_aside_are_forgotten_too(valkey: Server, tmp_path: Path, what: str) -> None:
    """What Redis refused for good stays on disk until somebody looks at it."""

    def forget(flywheel: Flywheel, *, dry_run: bool) -> Awaitable[Receipt]:
        if what == "user":
            return flywheel.forgetting.user("ann", dry_run=dry_run)
        return flywheel.forgetting.matching(MARK, dry_run=dry_run)

    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        with valkey.client() as redis:
            for user in ("ann", "bob"):
                redis.set(f"afw:v1:default:session:{{{user}}}:turns", "somebody else's", ex=600)
        for user, question in (("ann", f"How is the {MARK} installed?"), ("bob", STAYS)):
            await flywheel.ask(question, session=user, user=user)
        await until(lambda: not flywheel.outbox.waits(), "both to be set aside")
        with valkey.client() as redis:
            redis.delete(*(f"afw:v1:default:session:{{{user}}}:turns" for user in ("ann", "bob")))
        assert traces_on_disk(tmp_path)
        shown = await forget(flywheel, dry_run=True)
        assert len(await flywheel.outbox.rejected()) == 2
        receipt = await forget(flywheel, dry_run=False)
        assert receipt.removed == shown.removed
        assert receipt.removed["turns set aside"] == 1
        assert [one.kept.session for one in await flywheel.outbox.rejected()] == ["bob"]
        await until(lambda: not lasting(valkey, tmp_path), "the last trace to go")


async def test_a_single_turn_that_is_deleted_leaves_no_trace_of_its_own(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask(STAYS, session="s", user="ann")
        await flywheel.ask(f"What is my {MARK} called?", session="s", user="ann")
        turn = (await flywheel.sessions.show("s")).turns[-1]
        await flywheel.history.search(MARK, user="ann")
        assert traces(redis_server, tmp_path)
        await flywheel.sessions.delete_turn("s", turn.id, dry_run=False)
        await flywheel.cache.clear(key=turn.entry_key, dry_run=False) if await there(flywheel, turn.entry_key) else None
        assert (await flywheel.history.search(MARK, user="ann")).total == 0
        await until(lambda: not lasting(redis_server, tmp_path), "the last trace to go")


async def there(flywheel: Flywheel, key: str) -> bool:
    return any(answer.key == key for answer in (await flywheel.cache.list())[0])


async def test_it_works_while_others_write(redis_server: Server, tmp_path: Path) -> None:
    """While two machines ask and search, every kind of what came of one person goes, and of another one nothing."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    with sink() as received:
        where: dict[str, Any] = {"trace_exporter": "langfuse", "trace_text": "on"}
        where |= {"environ_LANGFUSE_BASE_URL": received.url, "environ_LANGFUSE_PUBLIC_KEY": PUBLIC}
        where |= {"environ_LANGFUSE_SECRET_KEY": SECRET}
        async with (
            opened(redis_server, tmp_path / "here", {"oracle": Oracle()}, given={"embedder": Words()}, **where) as here,
            opened(redis_server, tmp_path / "there", {"oracle": Oracle()}, given={"embedder": Words()}) as there,
        ):
            for number in range(3):
                await lived(here, "ann", f"a{number}")
                said = await here.ask(f"Where is the {MARK} number {number} sold?", user="ann")
                await here.faq.add(turn=said.turn_id, by="bob")  # a draft, made of her words
            lost = await kept_while_away(redis_server, tmp_path / "here")
            await there.history.search(MARK, user="ann")
            assert {kind_of(key) for key in traces(redis_server, tmp_path)} >= KINDS
            await until(lambda: any(MARK in str(span.said) for span in received.spans), "her traces to arrive")
            asked = []

            async def ask(flywheel: Flywheel) -> None:
                for number in range(60):
                    session = f"b{number % 7}"
                    asked.append(await flywheel.ask(f"What else is there, {number}?", session=session, user="bob"))
                    await flywheel.ask("How are others served?", user=f"c{number % 5}")
                    if number % 20 == 0:
                        await flywheel.history.search("else there", user="bob")

            def forget(only_look: bool) -> Any:
                return here.forgetting.user("ann", dry_run=only_look)

            receipt, *_ = await asyncio.gather(
                here.audit.carry_out("user.forget", "ann", forget, by="test"), ask(here), ask(there)
            )
            assert (await there.audit.verify_receipt(receipt, signed_by=receipt.signer)).valid
            assert {name for name, count in receipt.removed.items() if count} >= {
                *("turns", "sessions", "shared answers", "FAQ drafts", "reports", "counted days", "traces"),
            }
            for flywheel in (here, there):
                assert (await flywheel.history.search(MARK, user="ann")).total == 0
                await flywheel.settled()
                await flywheel.flush()
            await until(lambda: not traces(redis_server, tmp_path), f"traces to go: {traces(redis_server, tmp_path)}")
            assert [
                span for span in received.spans if MARK in str(span.said) or span.said.get("user.id") == "ann"
            ] == []
            assert (await here.outbox.status()).waiting == 0
            assert lost not in await turns_of(there, "ann")

            # Of bob every turn, answer and trace is there.
            assert len(asked) == 120
            assert {one.turn_id for one in asked} == await turns_of(there, "bob")
            await here.flush()
            assert len({one.key for one in asked if there_is(redis_server, one.key)}) == len({one.key for one in asked})
            ours = {one.trace_id for one in asked[:] if one.trace_id in received.traces}
            assert ours
            assert not ours & set(received.asked_to_delete)


#: What comes of a life, as `kind_of` calls it.
KINDS = {"entry", "turns", "session", "counts", "paths", "reports", "judged", "faq", "index"}


def kind_of(place: str) -> str:
    """What a key or a file that a word stands in is."""
    for kind, part in (
        ("entry", ":q:"),
        ("turns", ":turns"),
        ("judged", ":judged"),
        ("counts", ":popular:"),
        ("paths", ":paths:"),
        ("reports", ":reports"),
        ("faq", ":faq"),
        ("index", ".sqlite"),
        ("outbox", "outbox"),
        ("session", ":session:"),
    ):
        if part in place:
            return kind
    return place


async def turns_of(flywheel: Flywheel, user: str) -> set[str]:
    found: set[str] = set()
    for page in (await flywheel.sessions.list(user=user, limit=1000)).sessions:
        found |= {turn.id for turn in (await flywheel.sessions.show(page.id)).turns}
    return found


def there_is(server: Server, key: str) -> bool:
    with server.client() as redis:
        return bool(redis.exists(key))


async def kept_while_away(server: Server, folder: Path) -> str:
    """Another process of this machine asks while Redis is away: the turn's id; it waits on disk."""
    quick = {"redis_command_timeout_seconds": 0.2, "redis_connect_timeout_seconds": 0.2}
    async with opened(server, folder, {"oracle": Oracle()}, **quick) as away:
        server.pause()
        try:
            answer = await away.ask(f"Does the {MARK} wait?", session="a0", user="ann")
            assert (await away.outbox.status()).waiting == 1
            assert any("outbox" in place for place in traces_on_disk(folder))
            await away.aclose()
        finally:
            server.resume()
    return answer.turn_id


def traces_on_disk(folder: Path) -> list[str]:
    needle = MARK.encode()
    files = [file for file in folder.rglob("*") if file.is_file() and needle in file.read_bytes().lower()]
    return [str(file.relative_to(folder)) for file in files]


def test_the_command_asks_first(tmp_path: Path, valkey: Server) -> None:
    afw = Afw(tmp_path, valkey.url)
    afw.ok("ask", "--flow", "echo", "--user", "ann", "--session", "s", f"Where is the {MARK}?")
    shown = afw.run("forget", "--user", "ann")
    assert shown.code == 1
    assert "would remove" in shown.out
    assert "--yes" in shown.err
    receipt = afw.json("forget", "--user", "ann", "--yes")
    assert receipt["removed"]["turns"] == 1
    assert traces(valkey, tmp_path / "data") == []
    assert afw.json("forget", "--user", "nobody", "--yes")["removed"].get("turns", 0) == 0
    assert afw.run("forget").code == 2
    assert json.loads(afw.run("forget", "--session", "none", "--yes", "--json").out)["error_type"] == "unknown_session"


def typed(afw: Afw, word: str, *arguments: str) -> tuple[int, str]:
    """Run a command at a terminal and type a word when it asks; its exit code, and what it wrote."""
    ours, theirs = pty.openpty()
    started = subprocess.Popen(
        afw.command(*arguments), cwd=afw.work, env=afw.environ, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written, asked = b"", False
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the last writer has gone
            break
        if not piece:
            break
        written += piece
        if not asked and b"to have it removed" in written:
            asked = True
            os.write(ours, word.encode() + b"\n")
    os.close(ours)
    assert asked, written
    return started.wait(60), written.decode("utf-8", "replace")


def test_at_a_terminal_the_name_is_typed(tmp_path: Path, valkey: Server) -> None:
    afw = Afw(tmp_path, valkey.url)
    afw.ok("ask", "--flow", "echo", "--user", "ann", "--session", "s", f"Where is the {MARK}?")
    for wrong in ("", "an", "Ann", "ann ", "yes", "y"):
        code, shown = typed(afw, wrong, "forget", "--user", "ann")
        assert code == 1, wrong
        assert "would remove" in shown
        assert "Nothing has been removed" in shown
        assert len(afw.json("session", "show", "s")["turns"]) == 1
    code, shown = typed(afw, "s", "forget", "--session", "s", "--why", "asked for")
    assert code == 0, shown
    assert shown.index("would remove") < shown.index("  removed 1 shared answer, 1 session, 1 turn")
    assert "signed by" in shown
    assert traces(valkey, tmp_path / "data") == []
    (entry,) = afw.json("audit", "list")["entries"]
    assert (entry["action"], entry["target"], entry["why"]) == ("session.forget", "s", "asked for")


def test_a_packed_value_is_seen_through() -> None:
    from agentic_flywheel.store.codec import encode

    packed = encode({"text": f"{MARK} " * 500})
    assert packed[1] == 1  # zstandard
    assert any(f"{MARK} {MARK}".encode() in text for text in readings(packed))
    assert f"{MARK} {MARK}".encode() not in packed
