"""What is kept about a person is handed over whole: nothing of it is in Redis that the document does not tell of."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
from test_forgetting import MARK, lived

from afw_command import Afw
from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import InputError
from agentic_flywheel.forgetting import contributed
from agentic_flywheel.model import Directives, Entry, Turn
from agentic_flywheel.own_data import PARTS, PLACES, OwnData, place_of_key
from agentic_flywheel.own_data_pages import FORMS, document_of
from agentic_flywheel.privacy import PrivacyPolicy, Whose
from agentic_flywheel.store.codec import decode
from flywheels import Oracle, opened, text_anywhere
from http_app import app_on, client_of, key_for
from meanings import Words
from servers import Server
from sinks import nobody

pytestmark = pytest.mark.anyio

USER = "annabelle.q"
SECRET_OF_BOB = "bobswort"


async def everything(flywheel: Any) -> None:
    """A life with something of every kind; and somebody else's beside it."""
    await lived(flywheel, USER, "s1")
    await flywheel.ask(f"What of {MARK} is mine alone?", user=USER, directives=Directives(private=True))
    await flywheel.ask(f"Does {SECRET_OF_BOB} work?", session="of-bob", user="bob")
    await flywheel.ask("Who knows more?", session="open")
    await flywheel.ask(f"How is the {MARK}s1 installed?", session="open", user=USER)
    turn = (await flywheel.sessions.show("s1")).turns[0]
    await flywheel.traces.judge(7, id=turn.id, session="s1", feedback=f"{MARK} was good", user=USER)
    await flywheel.faq.add(f"What is {MARK}?", f"It is {MARK}.", flow="oracle", by=USER)
    await flywheel.api_keys.create(f"key of {USER}", {Scope.ASK}, user=USER, by="test")
    await flywheel.policies.set(Whose.USER, USER, policy=PrivacyPolicy(retention_days=300))
    await flywheel.audit.record("session.rename", "s1", by=f"user:{USER}", why="she asked")
    await flywheel.settled()
    await flywheel.flush()


def holding(server: Server, *needles: str) -> list[str]:
    found: dict[str, None] = {}
    for needle in needles:
        found |= dict.fromkeys(key.decode() for key in text_anywhere(server, needle))
    return list(found)


async def test_all_that_is_in_redis_of_a_person_is_told(redis_server: Server, tmp_path: Path) -> None:
    where = {"trace_exporter": "otlp", "trace_endpoint": nobody(), "trace_close_seconds": 0.0}
    flows = {"oracle": Oracle(), "own": (Oracle(), {"sharing": "user"})}
    async with opened(redis_server, tmp_path, flows, given={"embedder": Words()}, **where) as flywheel:
        await everything(flywheel)
        await flywheel.ask(f"What of {MARK} is only hers?", flow="own", user=USER)
        await flywheel.flush()
        data = await flywheel.own_data.of(USER)
        document = document_of(data, "json").decode()
        root = f"afw:v1:{data.tenant}"
        told = {part for part in PARTS if getattr(data, part)}
        keys = holding(redis_server, MARK, USER)
        assert keys
        for key in keys:
            place = place_of_key(key, root)
            assert place is not None, f"{key} holds something of the person, and no part of the document tells of it"
            assert place.part in told or place.why, key
        assert told == set(PARTS) - {"waiting"}

        # Every turn and stored answer of hers is in it, word for word; nothing of another person is.
        for kind, text in words_of(redis_server, USER):
            assert json.dumps(text, ensure_ascii=False)[1:-1] in document, kind
        assert SECRET_OF_BOB not in document
        assert all(one.owned and not one.others for one in data.sessions)  # who asks in nobody's session, has it
        assert all(line.why for line in data.absent)

        # What forgetting removes was in it: the counts are those of the document.
        receipt = await flywheel.forgetting.user(USER, dry_run=True)
        owned = [one for one in data.sessions if one.owned]
        assert receipt.removed["sessions"] == len(owned)
        assert receipt.removed["turns"] == sum(len(one.turns) for one in owned)
        assert receipt.removed["reports"] == len(data.reports)
        assert receipt.removed["counted days"] == len(data.counts)
        going = await contributed(flywheel._store, [one.session.id for one in owned])
        assert len(going) == receipt.removed["shared answers"]
        assert set(going) <= {f"{root}:{one.key}" for one in data.answers}


def words_of(server: Server, user: str) -> list[tuple[str, str]]:
    """The texts of every turn and answer in Redis that says that it is a user's."""
    found = []
    with server.client() as redis:
        for key in redis.scan_iter(count=1000):
            match redis.type(key):
                case b"stream" if key.endswith(b":turns"):
                    for _, fields in redis.xrange(key):
                        turn = decode(fields[b"t"], Turn)
                        if turn.user == user:
                            found += [("turn", turn.question), ("turn", turn.answer)]
                case b"string" if b":q:" in key:
                    entry = decode(redis.get(key), Entry)
                    if entry.user == user:
                        found += [("entry", entry.question), ("entry", entry.answer)]
    assert {kind for kind, _ in found} == {"turn", "entry"}
    return found


async def test_turns_that_wait_on_this_machine_are_in_it(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask("Is anybody there?", session="s", user=USER)
        turn = (await flywheel.sessions.show("s")).turns[0]
        await flywheel.sessions.delete("s", dry_run=False)
        waiting = {"s": (turn,)}

        async def sessions() -> dict[str, tuple[Turn, ...]]:
            return waiting

        flywheel._store.outbox.sessions = sessions  # type: ignore[method-assign]
        assert (await flywheel.own_data.of(USER)).waiting == (turn,)
        assert (await flywheel.own_data.of("bob")).waiting == ()


async def test_with_a_key_it_is_readable_all_the_same(valkey: Server, tmp_path: Path) -> None:
    key = f"k1:{'A' * 43}="
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, encryption_keys=key) as flywheel:
        await flywheel.ask(f"Where is the {MARK}?", session="s", user=USER)
        await flywheel.flush()
        assert MARK in document_of(await flywheel.own_data.of(USER), "markdown").decode()


def test_the_forms() -> None:
    turn = Turn("t", "s", 1.0, "# Not\n> a heading", "```\nfence", "f", "", "miss", "not_stored", "")  # type: ignore[arg-type]
    from agentic_flywheel.model import Outcome, Reason, Session
    from agentic_flywheel.own_data import OwnSession

    turn = Turn("t", "s", 1.0, turn.question, turn.answer, "f", "", Outcome.MISS, Reason.NOT_STORED, "")
    data = OwnData(
        tenant="t", user="a*b", at=2.0, sessions=(OwnSession(session=Session(id="s"), owned=True, turns=(turn,)),)
    )
    read = json.loads(document_of(data, "json"))
    assert read["format"] == "agentic-flywheel own data"
    assert read["sessions"][0]["turns"][0]["question"] == turn.question
    page = document_of(data, "markdown").decode().splitlines()
    assert page[0] == "# What is kept about a\\*b"
    assert "> \\# Not" in page or "> # Not" in page
    assert "# Not" not in page
    with zipfile.ZipFile(io.BytesIO(document_of(data, "zip"))) as packed:
        assert packed.namelist() == ["own-data.md", "own-data.json"]
    with pytest.raises(InputError):
        document_of(data, "csv")
    assert set(FORMS) == {"json", "markdown", "zip"}


def test_every_place_says_where_it_is_told_or_why_not() -> None:
    for place in PLACES:
        assert place.part in PARTS or (not place.part and place.why), place
    assert place_of_key("afw:v1:t:session:{s}:turns", "afw:v1:t") == PLACES[1]
    assert place_of_key("afw:v1:t:something", "afw:v1:t") is None


def test_the_command_writes_a_file_for_its_owner_alone(valkey: Server, tmp_path: Path) -> None:
    afw = Afw(tmp_path, valkey.url)
    afw.ok("ask", "--flow", "echo", "--user", "ann", "--session", "s", f"Where is the {MARK}?")
    shown = afw.ok("export", "--user", "ann", "ann.zip")
    assert "1 turns" in shown.out or "1 turn" in shown.out
    file = afw.work / "ann.zip"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with zipfile.ZipFile(file) as packed:
        assert MARK in packed.read("own-data.md").decode()
        assert json.loads(packed.read("own-data.json"))["user"] == "ann"
    receipt = afw.json("export", "--user", "ann")
    assert receipt["holds"]["turns"] == 1
    assert (afw.work / receipt["file"]).stat().st_size == receipt["size_bytes"]
    assert afw.run("export", "--user", "ann", "ann.zip", "--sessions").code == 2
    assert afw.run("export", "--user", "ann", "nowhere/ann.zip").code != 0
    assert [entry["action"] for entry in afw.json("audit", "list")["entries"]].count("user.export") == 3
    assert afw.json("export", "--user", "ann", "ann.jsonl")["records"]["turn"] == 1  # a backup still


async def test_over_http_to_that_person_and_administrators(valkey: Server, tmp_path: Path) -> None:
    async with app_on(valkey, tmp_path, serve_credentials="always") as made:
        made.service.registry.register("oracle", lambda question: f"You said: {question}")
        for user in ("ann", "bob"):
            await made.service.home.ask(f"Who is {user}?", session=f"of-{user}", user=user, flow="oracle")
        async with client_of(made, await key_for(made, Scope.ASK, user="ann")) as client:
            mine = await client.get("/api/v2/users/ann/data")
            assert mine.json()["sessions"][0]["turns"][0]["question"] == "Who is ann?"
            assert mine.headers["Cache-Control"] == "no-store"
            assert (await client.get("/api/v2/users/bob/data")).status_code == 403
            assert (await client.get("/api/v2/users/ann/data?form=zip")).content[:2] == b"PK"
            page = await client.get("/privacy/data", headers={"Accept": "text/html"})
            assert "What is kept about ann" in page.text
            twin = (await client.get("/privacy/data.json")).json()
            assert twin["sizes"]["turns"] == 1
            file = await client.get("/privacy/data/file?form=markdown")
            assert "Who is ann?" in file.text
            assert (await client.get("/privacy/data?user=bob", headers={"Accept": "text/html"})).status_code == 403
        async with client_of(made, await key_for(made, Scope.ADMIN)) as client:
            assert (await client.get("/privacy/data.json?user=bob")).json()["user"] == "bob"
            french = await client.get(
                "/privacy/data?user=bob", headers={"Accept": "text/html", "Accept-Language": "fr"}
            )
            assert "Ce qui est gardé au sujet de bob" in french.text
            assert "/privacy/data" in (await client.get("/privacy", headers={"Accept": "text/html"})).text
