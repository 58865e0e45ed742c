"""With keys configured, nothing that people asked or were answered stands anywhere in a form that can be read."""

from __future__ import annotations

import asyncio
import base64
import os
from datetime import timedelta
from pathlib import Path

import pytest

from agentic_flywheel import Flywheel
from agentic_flywheel.errors import KeyMissing, SettingsError, UnknownSession
from agentic_flywheel.flows.protocol import FlowQuestion
from agentic_flywheel.likeness import Proposal
from agentic_flywheel.store.keyring import parsed
from agentic_flywheel.store.sealing import Vault
from byte_search import readings, values_of
from flywheels import Oracle, opened, settings_for, until
from meanings import Words
from servers import Server, Servers, wait_until

pytestmark = pytest.mark.anyio

#: Words that occur nowhere but in what people write; searches keep stems of them.
MARK = "zyxwort"


def key_line(id_: str) -> str:
    return f"{id_}:{base64.b64encode(os.urandom(32)).decode()}"


def traces(server: Server, *folders: Path) -> list[str]:
    """Where a word stands: in keys, in values (raw, packed, dumped), in files."""

    def holds(raw: bytes) -> bool:
        return any(MARK.encode() in text.lower() for text in readings(raw))

    found = []
    with server.client() as redis:
        for key in redis.keys("*"):
            held = [key, redis.dump(key) or b"", *values_of(redis, key)]
            if any(map(holds, held)):
                found.append(key.decode())
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return [*found, *(str(file) for file in files if holds(file.read_bytes()))]


def files_with(text: str, folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


async def lived(flywheel: Flywheel, session: str = "s1", user: str = "ann") -> None:
    """Everything that may come of a person's questions."""
    asked = f"How is the {MARK} {session} installed?"
    await flywheel.ask(asked, session=session, user=user)
    await flywheel.ask(f"And {MARK} on mobile?", session=session, user=user)
    await flywheel.ask(f"What is my {MARK} called?", session=session, user=user)
    await flywheel.ask(asked, user=user)
    await flywheel.ask(asked, user="bob")
    await flywheel.ask(f"How can the {MARK} {session} be installed?", user=user)
    first = (await flywheel.sessions.show(session)).turns[0]
    await flywheel.similar.report(first.id, "outdated", note=f"about {MARK}", session=session, user=user)
    await flywheel.ask(asked, user=user)
    await flywheel.sessions.rename(session, f"{MARK} thoughts")
    await flywheel.sessions.tag(session, add=[f"{MARK}-tag"])
    await flywheel.history.search(MARK, user=user)
    await flywheel.popular.list()
    await flywheel.faq.list()
    await flywheel.settled()
    await flywheel.flush()


def traces_on_disk(server: Server) -> list[str]:
    """Where a word stands once the server has written all that it holds to its disk, as a snapshot and as a log."""

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
            return traces(server, server.directory)
        finally:
            redis.config_set("appendonly", "no")
            for file in server.directory.glob("*.rdb"):  # else the next test that restarts the server finds it
                file.unlink()


@pytest.mark.parametrize(("name", "index"), [("valkey9", "local"), ("stack74", "engine")])
async def test_a_life_leaves_nothing_that_can_be_read(servers: Servers, tmp_path: Path, name: str, index: str) -> None:
    server = servers.get(name)
    given = {"embedder": Words()}
    arguments = {"encryption_keys": key_line("k1"), "search_index": index}
    async with opened(server, tmp_path, {"oracle": Oracle()}, given=given, **arguments) as flywheel:
        await lived(flywheel)
        found = await flywheel.history.search(MARK, user="ann")
        assert found.index == index
        assert found.total >= 4
        assert all(MARK in one.question for one in found.found)
        assert f"{MARK}-tag" in found.found[0].tags
        assert (await flywheel.history.search("", user="ann", tag=f"{MARK}-tag")).total >= 3
        assert (await flywheel.history.search(f'"my {MARK}"', user="ann")).total == 1
        page = await flywheel.sessions.show("s1")
        assert page.session.title == f"{MARK} thoughts"
        assert page.session.tags == (f"{MARK}-tag",)
        assert MARK in page.turns[0].answer
        assert any(MARK in one.question for one in await flywheel.popular.list())
        assert traces(server, tmp_path) == []
        assert traces_on_disk(server) == []
        await flywheel.sessions.delete_turn("s1", page.turns[2].id, dry_run=False)
        assert (await flywheel.history.search(f'"my {MARK}"', user="ann")).total == 0


async def test_nothing_else_that_is_written_can_be_read(valkey: Server, tmp_path: Path) -> None:
    """What the life above does not write: two processes on one call, warm-ups, the FAQ, proposals, threads, imports."""
    gate, key = asyncio.Event(), key_line("k1")

    async def slowly(question: FlowQuestion) -> str:
        await gate.wait()
        return f"{MARK} says {question.text}"

    flows = {"oracle": Oracle(), "slow": slowly}
    exported = tmp_path / "export.jsonl"
    folders = [tmp_path / name for name in ("here", "there")]
    for folder in folders:
        folder.mkdir()
    async with (
        opened(valkey, folders[0], flows, encryption_keys=key) as flywheel,
        opened(valkey, folders[1], flows, encryption_keys=key) as other,
    ):
        both = [asyncio.create_task(one.ask(f"Who is {MARK}?", flow="slow")) for one in (flywheel, other)]
        await until(
            lambda: any(one._store.leases._listeners for one in (flywheel, other)), "one to listen to the other"
        )
        gate.set()
        assert {answer.text for answer in await asyncio.gather(*both)} == {f"{MARK} says Who is {MARK}?"}
        await flywheel.warming.run([f"What is warm of {MARK}?"], flow="oracle")
        job = (await other.warming.recent())[0].job
        assert [item.question for item in (await other.warming.show(job)).items] == [f"What is warm of {MARK}?"]
        draft = await flywheel.faq.add(f"What is {MARK}?", f"{MARK} is a word.", flow="oracle", wordings=[f"{MARK}?"])
        await flywheel.faq.edit(draft.id, answer=f"{MARK} is a long word.")
        await flywheel.faq.approve(draft.id, by="ann")
        assert (await other.ask(f"What is {MARK}?", flow="oracle")).text == f"{MARK} is a long word."
        proposal = Proposal(id="p", flow="oracle", setting="ttl", now="1 h", proposed="2 h", evidence=MARK, at=1.0)
        await flywheel._store.similar.put_proposal(proposal)
        decided = await other._store.similar.decide_proposal("p", "accepted", by="ann", reason=MARK, at=2.0)
        assert decided is not None
        assert decided.reason == MARK
        await flywheel.ask(f"Does {MARK} begin?", session="s1", flow="oracle")
        await flywheel.sessions.configure("s1", {"prompt": MARK})
        await flywheel.backup.export(exported)
        assert traces(valkey, *folders) == []
    assert MARK in exported.read_text()
    with valkey.client() as redis:
        redis.flushall()
    async with opened(valkey, folders[0], flows, encryption_keys=key) as flywheel:
        receipt = await flywheel.backup.restore(exported)
        assert receipt.records
        thread = await flywheel.sessions.show("s1")
        assert [turn.question for turn in thread.turns] == [f"Does {MARK} begin?"]
        assert thread.session.config == {"prompt": MARK}
        assert (await flywheel.ask(f"Does {MARK} begin?", flow="oracle")).outcome == "hit"
        assert traces(valkey, *folders) == []


async def test_what_was_plain_stays_readable_and_a_process_without_the_key_says_what_is_missing(
    valkey: Server, tmp_path: Path
) -> None:
    key, asked = key_line("k1"), f"How is the {MARK} installed?"
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as plain:
        await plain.ask(asked, session="s1", user="ann")
        await plain.ask(f"And {MARK} on mobile?", session="s1", user="ann")
        assert (await plain.history.search(MARK, user="ann")).total == 2
        assert traces(valkey, tmp_path)
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, encryption_keys=key) as flywheel:
        assert (await flywheel.ask(asked, user="bob")).outcome == "hit"
        assert len((await flywheel.sessions.show("s1")).turns) == 2
        assert (await flywheel.history.search(MARK, user="ann", session="s1")).total == 2
        await flywheel.ask(f"Is {MARK} free?", session="s2", user="ann")
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as plain:
        answer = await plain.ask("Who has no key?", session="s3", user="ann")
        assert answer.text == "oracle 1: Who has no key?"
        assert any("encrypted with the key k1" in warning for warning in answer.warnings)
        with pytest.raises(KeyMissing, match="no key is configured here"):
            await plain.sessions.show("s1")
        with pytest.raises(KeyMissing):
            await plain.history.search(MARK, user="ann")
    for given, said in (
        (key_line("k1"), "the key k1 of .* is another one"),
        (key_line("k9"), "encrypted with the key k1, and .* has only k9"),
    ):
        async with opened(valkey, tmp_path, {"oracle": Oracle()}, encryption_keys=given) as other:
            with pytest.raises(KeyMissing, match=said):
                await other.sessions.show("s1")
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, encryption_keys=key) as flywheel:
        with pytest.raises(UnknownSession):
            await flywheel.sessions.show("s3")  # nothing was written without the key
    assert files_with("Who has no key", tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"encryption_keys": "k1"}, "line 1: it does not begin with an id of a key and a colon"),
        ({"encryption_keys": "k1:!"}, "line 1: the key k1 is no base64"),
        ({"encryption_keys": "k1:AAAA"}, "line 1: the key k1 has 3 bytes, not 32"),
        ({"encryption_keys": ",".join([f"k1:{'A' * 43}="] * 2)}, "line 2: the id k1 is given to two keys"),
        ({"encryption_keys": f"k1:{'A' * 43}=", "encryption_current": "k2"}, "has no key of this id: k1"),
        ({"encryption_key_file": "/nowhere/keys"}, "/nowhere/keys cannot be read .*: No such file"),
        ({"encryption_key_command": "sh -c 'echo no vault >&2; exit 3'"}, "exit code 3: no vault"),
        ({"encryption_key_command": "true"}, "holds no key"),
        ({"encryption_key_command": "true", "encryption_keys": "k1:A"}, "one source, and 2 are set"),
    ],
)
def test_a_source_of_keys_that_is_wrong_is_said_at_once(
    valkey: Server, tmp_path: Path, arguments: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        Flywheel.open(settings=settings_for(valkey, tmp_path, **arguments))
    assert "AAAA" not in str(refused.value)


async def test_a_file_and_a_command_give_keys_as_well(valkey: Server, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{key_line('k2')}\n\n{key_line('k1')}\n")
    for arguments in ({"encryption_key_file": str(file)}, {"encryption_key_command": f"cat {file}"}):
        async with opened(valkey, tmp_path, {"oracle": Oracle()}, **arguments) as flywheel:
            await flywheel.ask("How long do answers stay good?", session="s1")
            assert len((await flywheel.sessions.show("s1")).turns) == (1 if "encryption_key_file" in arguments else 2)
    with valkey.client() as redis:
        assert redis.hget("afw:v1:default:sealing", "index") == b"k2"


QUESTION = "How long do answers stay good?"


@pytest.mark.parametrize("how", ["swapped", "truncated", "changed", "foreign key", "foreign tenant", "replayed"])
async def test_a_value_that_is_not_what_was_written_here_is_a_counted_miss(
    valkey: Server, tmp_path: Path, how: str
) -> None:
    """Whatever is put under a stored answer's key: the flow is asked, and the damage is counted."""
    oracle = Oracle()
    key = key_line("k1")
    async with opened(valkey, tmp_path, {"oracle": oracle}, encryption_keys=key, ttl_jitter=0.0) as flywheel:
        first = await flywheel.ask(QUESTION, user="ann")
        other = await flywheel.ask("Which flows are there?", user="ann")
        assert (await flywheel.ask(QUESTION, user="bob")).outcome == "hit"
        calls = oracle.calls
        with valkey.client() as redis:
            raw = redis.get(first.key)
            match how:
                case "swapped":
                    redis.set(first.key, redis.get(other.key), keepttl=True)
                case "truncated":
                    redis.set(first.key, raw[:-5], keepttl=True)
                case "changed":
                    redis.set(first.key, raw[:-20] + bytes([raw[-20] ^ 1]) + raw[-19:], keepttl=True)
                case "foreign key":
                    vault = Vault(parsed(key_line("k1"), "elsewhere"))
                    redis.set(first.key, vault.seal(b"anything", first.key), keepttl=True)
                case "foreign tenant":
                    name = first.key.replace("default", "other")
                    vault = Vault(parsed(key, "here"))
                    redis.set(first.key, vault.seal(b"anything", name), keepttl=True)
                case "replayed":  # after its flow was cleared: the old answer, put back word for word
                    await flywheel.cache.clear(flow="oracle", dry_run=False)
                    redis.set(first.key, raw, px=1_000_000)
        again = await flywheel.ask(QUESTION, user="carl")
        assert again.outcome == "miss"
        assert again.text != first.text
        assert oracle.calls == calls + 1
        counted = (await flywheel.encryption.state()).unreadable
        assert counted == ({} if how == "replayed" else {"damaged": counted["damaged"]})
        assert (await flywheel.ask(QUESTION, user="dora")).text == again.text


@pytest.mark.parametrize("what", ["session", "user", "matching", "reported"])
async def test_a_forgotten_answer_that_is_put_back_is_a_counted_miss(
    redis_server: Server, tmp_path: Path, what: str
) -> None:
    """With its vector and everything else that lay there; what others asked meanwhile is not touched."""
    oracle = Oracle()
    arguments = {"encryption_keys": key_line("k1"), "near_enabled": False}
    async with opened(redis_server, tmp_path, {"oracle": oracle}, **arguments) as flywheel:
        first = await flywheel.ask(QUESTION, session="s", user="ann")
        other = await flywheel.ask("Which flows are there?", user="bob")
        await flywheel.flush()
        with redis_server.client() as redis:
            raw = redis.get(first.key)
            assert (await flywheel.ask(QUESTION, user="bob")).text == first.text
            if what == "reported":
                await flywheel.similar.report(first.turn_id, "outdated", user="ann")
            else:
                target = {"session": "s", "user": "ann", "matching": QUESTION}[what]
                await getattr(flywheel.forgetting, what)(target, dry_run=False)
            assert redis.get(first.key) is None
            redis.set(first.key, raw, px=1_000_000)
            again = await flywheel.ask(QUESTION, user="carl")
            assert (again.outcome, again.reason) == ("miss", "damaged")
            assert again.text != first.text
            assert (await flywheel.ask("Which flows are there?", user="carl")).text == other.text
            # Its place was taken; who it was of may ask again, and that answer is a new one.
            assert (await flywheel.ask(QUESTION, user="ann")).text == again.text
            redis.set(first.key, raw, px=1_000_000)
            assert (await flywheel.ask(QUESTION, user="ann")).text not in {first.text, again.text}


async def test_an_answer_past_its_end_that_is_put_back_is_a_miss(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    arguments = {"encryption_keys": key_line("k1"), "ttl_jitter": 0.0}
    async with opened(valkey, tmp_path, {"oracle": oracle}, **arguments) as flywheel:
        await flywheel.lifetimes.set("oracle", timedelta(seconds=1))
        first = await flywheel.ask(QUESTION, user="ann")
        with valkey.client() as redis:
            raw = redis.get(first.key)
            await until(lambda: redis.get(first.key) is None, "the answer to end")
            redis.set(first.key, raw, px=1_000_000)
        again = await flywheel.ask(QUESTION, user="bob")
        assert (again.outcome, again.reason, oracle.calls) == ("miss", "expired", 2)


async def test_turns_and_titles_that_were_moved_are_not_shown(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, encryption_keys=key_line("k1")) as flywheel:
        for session in ("s1", "s2"):
            await flywheel.ask(f"What does session {session} hold?", session=session)
            await flywheel.ask("And what else?", session=session)
            await flywheel.sessions.tag(session, add=["important"])
        with valkey.client() as redis:
            one, two = (f"afw:v1:default:session:{{{name}}}" for name in ("s1", "s2"))
            foreign, own = redis.xrange(f"{two}:turns")[0][1], redis.xrange(f"{one}:turns")[0][1]
            redis.xadd(f"{one}:turns", foreign)  # a turn of another session
            redis.xadd(f"{one}:turns", own)  # one of its own, once more
            redis.hset(one, "title", redis.hget(two, "title"))
            redis.hset(one, "tags", redis.hget(one, "title"))
        page = await flywheel.sessions.show("s1")
        assert [turn.question for turn in page.turns] == ["What does session s1 hold?", "And what else?"]
        assert any("damaged" in warning for warning in page.warnings)
        assert "s2" not in page.session.title
        assert (await flywheel.ask("And then?", session="s1")).outcome == "miss"
        assert [page.id for page in (await flywheel.sessions.list()).sessions] == ["s1", "s2"]


async def test_turns_wait_sealed_and_bound_to_their_session(valkey: Server, tmp_path: Path) -> None:
    key = key_line("k1")
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, encryption_keys=key) as flywheel:
        await flywheel.ask("Is Redis there?", session="s1")
    arguments = {"encryption_keys": key, "redis_command_timeout_seconds": 0.2, "redis_connect_timeout_seconds": 0.2}
    valkey.pause()
    try:
        async with opened(valkey, tmp_path, {"oracle": Oracle()}, **arguments) as flywheel:
            for number in (1, 2):
                await flywheel.ask(f"Is the {MARK} kept, {number}?", session="s1")
            assert (await flywheel.outbox.status()).waiting == 2
            assert files_with(MARK, tmp_path) == []
    finally:
        valkey.resume()
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, encryption_keys=key_line("k2")) as flywheel:
        with pytest.raises(KeyMissing):
            await flywheel.outbox.deliver()
        assert (await flywheel.outbox.status()).waiting == 2  # for whoever has the key
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, encryption_keys=key) as flywheel:
        await flywheel.outbox.deliver()
        turns = (await flywheel.sessions.show("s1")).turns
        assert [turn.question for turn in turns][1:] == [f"Is the {MARK} kept, {number}?" for number in (1, 2)]
        assert traces(valkey, tmp_path) == []


def drop_leases(server: Server) -> None:
    """Calls that ended are forgotten after 15 seconds; here at once."""
    with server.client() as redis:
        for key in redis.keys("*:lease:*"):
            redis.delete(key)


async def test_a_rotation_under_load_loses_nothing(valkey: Server, tmp_path: Path) -> None:
    """Plain, then two keys one after the other, while sessions grow and questions are asked: all is there, and in the
    end nothing is left that the last key does not open."""
    old, new = key_line("old"), key_line("new")
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    async with opened(valkey, here, {"oracle": Oracle()}, given={"embedder": Words()}) as plain:
        await lived(plain, "plain")
    asked: dict[str, list[str]] = {f"s{number}": [] for number in range(4)}
    done = asyncio.Event()

    async def ask_on(flywheel: Flywheel) -> int:
        number = 0
        while not done.is_set():
            for session, questions in asked.items():
                question = f"What of the {MARK} number {number} in {session}?"
                await flywheel.ask(question, session=session, user="ann")
                questions.append(question)
            number += 1
        return number

    async with opened(valkey, here, {"oracle": Oracle()}, encryption_keys=old) as flywheel:
        await lived(flywheel, "first")
        progress: list[tuple[int, int, int]] = []
        loading = asyncio.create_task(ask_on(flywheel))
        rotated = await flywheel.encryption.rotate(lambda *how: progress.append(how))
        assert rotated.complete
        assert rotated.sealed > 10
        assert all(0 <= part <= whole for part, whole, _ in progress)
        async with opened(valkey, there, {"oracle": Oracle()}, encryption_keys=f"{new},{old}") as other:
            await other.encryption.rotate()
            rotated_again = await other.encryption.rotate()
            assert not rotated_again.complete or loading.done() or rotated_again.sealed >= 0
            done.set()
            assert await loading > 0
            await flywheel.flush()
            await flywheel.settled()
            last = await other.encryption.rotate()
            assert last.complete
            assert last.unreadable == 0
    drop_leases(valkey)
    assert traces(valkey, there) == []
    async with opened(valkey, there, {"oracle": Oracle()}, encryption_keys=new) as flywheel:
        for session, questions in asked.items():
            thread = await flywheel.sessions.show(session)
            assert [turn.question for turn in thread.turns] == questions
        for session in ("plain", "first"):
            assert (await flywheel.sessions.show(session)).session.title == f"{MARK} thoughts"
            assert (await flywheel.ask(f"How is the {MARK} {session} installed?", user="dora")).outcome == "hit"
        assert (await flywheel.history.search(f"{MARK} installed", user="ann")).total >= 6
        assert any(MARK in one.question for one in await flywheel.popular.list())
        assert [report.note for report in await flywheel.similar.reports()] == [f"about {MARK}"] * 2
        state = await flywheel.encryption.state()
        assert [(view.id, view.used) for view in state.keys] == [("new", True)]
        assert not state.unreadable


async def test_a_rotation_that_is_stopped_is_gone_on_with(valkey: Server, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int, number: int) -> None:
        if done * 2 > total:
            raise Stopped

    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as plain:
        for number in range(60):
            await plain.ask(f"What is {MARK} {number}?", session=f"s{number}")
        await plain.flush()
    monkey = pytest.MonkeyPatch()
    monkey.setattr("agentic_flywheel.store.rotation._KEEP_EVERY", 1)
    with monkey.context():
        async with opened(valkey, tmp_path, {"oracle": Oracle()}, encryption_keys=key_line("k1")) as flywheel:
            with pytest.raises(Stopped):
                await flywheel.encryption.rotate(stop)
            assert (await flywheel.encryption.state()).rotating
            assert traces(valkey)
            seen: list[tuple[int, int, int]] = []
            rotated = await flywheel.encryption.rotate(lambda *how: seen.append(how))
            assert rotated.complete
            assert rotated.resumed
            assert not (await flywheel.encryption.state()).rotating
            drop_leases(valkey)
            assert traces(valkey) == []
    monkey.undo()
