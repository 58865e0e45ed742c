"""The screens by which a team is looked after, as programs meet them: who may what, and what is written down."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import msgspec
import pytest

from agentic_flywheel.callers import Scope
from agentic_flywheel.interfaces.http.app import App
from agentic_flywheel.model import Receipt
from http_app import app_on, client_of, key_for
from servers import Server

pytestmark = pytest.mark.anyio

HTML = {"Accept": "text/html"}
OURS = {"Sec-Fetch-Site": "same-origin", **HTML}
TOKEN = re.compile(r'name="token" value="([0-9a-f]{64})"')
RESET, FORGOTTEN = "How do I reset the router password?", "Router password forgotten: how to reset it?"


@pytest.fixture
async def guarded(valkey: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with app_on(valkey, tmp_path, serve_credentials="always") as made:
        made.service.registry.register("oracle", lambda question: f"You said: {question}")
        for user in ("ann", "bob"):
            await made.service.home.ask("Who am I?", session=f"of-{user}", user=user, flow="oracle")
        yield made


async def posted(client: httpx2.AsyncClient, page: str, path: str, **form: Any) -> httpx2.Response:
    """A form of a page, as a browser sends it."""
    found = TOKEN.search((await client.get(page, headers=HTML)).text)
    assert found
    return await client.post(path, data={"token": found[1], **form}, headers=OURS)


async def test_somebody_may_have_their_own_forgotten_and_nobody_elses(guarded: App) -> None:
    async with client_of(guarded, await key_for(guarded, Scope.ASK, user="ann")) as client:
        assert "All of mine" in (await client.get("/privacy", headers=HTML)).text
        for kind, target, status in (
            ("session", "of-bob", 404),
            ("session", "nobodys", 404),
            ("user", "bob", 403),
            ("flow", "oracle", 400),
        ):
            refused = await posted(client, "/privacy", "/privacy/forget", kind=kind, target=target, typed=target)
            assert refused.status_code == status, (kind, target)
        seen = await posted(client, "/privacy", "/privacy/forget", kind="user", target="ann")
        assert "Would be removed" in seen.text
        assert await guarded.service.home.sessions.resume("of-ann")
        done = await posted(client, "/privacy", "/privacy/forget", kind="user", target="ann", typed="ann", why="asked")
        assert "ann is forgotten" in done.text
        assert (await client.get("/sessions.json")).json()["sessions"] == []
        assert (await client.get("/privacy/audit")).status_code == 403
    assert (await guarded.service.home.sessions.resume("of-bob")).owner == "bob"
    (entry,), _ = await guarded.service.home.audit.list(limit=1)
    assert (entry.action, entry.target, entry.by, entry.why) == ("user.forget", "ann", "key:test-ask", "asked")
    kept = re.search(r'href="data:application/json;charset=utf-8,([^"]+)"', done.text)
    assert kept is not None
    receipt = msgspec.json.decode(unquote(kept[1]), type=Receipt)
    assert receipt.audit == entry.head
    assert (await guarded.service.home.audit.verify_receipt(receipt)).valid


async def test_an_administrator_sets_policies_and_everybody_is_shown_their_own(guarded: App) -> None:
    home = guarded.service.home
    async with client_of(guarded, await key_for(guarded, Scope.ADMIN, Scope.ASK, Scope.READ)) as client:
        form = {
            "whose": "user",
            "name": "ann",
            "history": "off",
            "cache": "",
            "retention_days": "30",
            "redact": "Email, iban",
        }
        done = await posted(client, "/privacy", "/privacy/policy", why="asked for", **form)
        assert done.status_code == 303
        said = (await client.get(done.headers["location"].partition("#")[0], headers=HTML)).text
        assert "from the next question on" in said
        assert "not kept" in said
        held = await home.policies.of(user="ann")
        assert (held.history, held.cache, held.retention_days, held.redact) == (False, True, 30, {"email", "iban"})
        twin = (await client.get("/privacy.json")).json()["policies"]
        assert [(one["whose"], one["name"]) for one in twin["policies"]] == [("user", "ann")]
        french = await client.get("/privacy", headers={**HTML, "Accept-Language": "fr"})
        assert "Politiques et durée de conservation" in french.text
        for wrong in ({"whose": "flow", "name": "nothing"}, {"retention_days": "soon"}, {"whose": "all"}, {"name": ""}):
            refused = await posted(client, "/privacy", "/privacy/policy", **(form | wrong))
            assert refused.status_code in {400, 404}, wrong
        (entry,), _ = await home.audit.list(limit=1)
        assert (entry.action, entry.target, entry.why) == ("privacy.set", "user ann", "asked for")
        assert entry.facts == {"policy": "history off, retention 30 days, redact email, iban"}
    async with client_of(guarded, await key_for(guarded, Scope.ASK, user="ann")) as client:
        own = (await client.get("/privacy.json")).json()["policies"]
        assert [(one["user"], one["privacy"]["history"]) for one in own["in_force"]] == [("ann", False)]
        assert (own["policies"], own["flows"]) == ([], [])
        page = (await client.get("/privacy", headers=HTML)).text
        assert 'action="/privacy/policy"' not in page
        refused = await posted(client, "/privacy", "/privacy/policy", **form)
        assert refused.status_code == 403
    async with client_of(guarded, await key_for(guarded, Scope.ADMIN, Scope.ASK)) as client:
        back = await posted(client, "/privacy", "/privacy/policy", whose="user", name="ann", clear="1")
        assert back.status_code == 303
        assert (await home.policies.show()).policies == ()


async def test_who_speaks_for_nobody_and_administers_nothing_forgets_nothing(guarded: App) -> None:
    async with client_of(guarded, await key_for(guarded, Scope.READ, Scope.ASK)) as client:
        refused = await posted(client, "/privacy", "/privacy/forget", kind="session", target="of-ann", typed="of-ann")
        assert refused.status_code == 403
    assert await guarded.service.home.sessions.resume("of-ann")


async def test_readers_are_shown_no_forms_and_nothing_of_the_insides(guarded: App) -> None:
    async with client_of(guarded, await key_for(guarded, Scope.READ)) as client:
        for path in ("/faq", "/flows", "/flows/flow?key=oracle", "/proposals", "/warming", "/popular"):
            page = await client.get(path, headers=HTML)
            assert page.status_code == 200, path
            posts = set(re.findall(r'<form method="post" action="([^"]+)"', page.text))
            assert posts <= {"/preferences", "/signout"}, path
        shown = (await client.get("/flows/flow.json?key=oracle")).json()["flow"]
        assert (shown["origin"], shown["address"], shown["options"], shown["id"]) == ("", "", {}, "")
        assert "/" not in (await client.get("/flows.json")).json()["registry"]
        for path in ("/health", "/settings", "/privacy/audit"):
            assert (await client.get(path)).status_code == 403


async def test_what_all_tenants_share_is_shown_and_changed_by_its_operator_alone(guarded: App) -> None:
    from agentic_flywheel.access import ApiKeys

    home = guarded.service.home
    other = await ApiKeys(home._store, home.audit, "elsewhere").create("other", {Scope.ADMIN}, by="test")
    async with client_of(guarded, other.secret) as client:
        assert (await client.get("/settings")).status_code == 403
        assert (await client.get("/flows")).status_code == 200
        refused = await posted(client, "/flows", "/flows/sharing", key="oracle", sharing="user")
        assert refused.status_code == 403
    async with client_of(guarded, await key_for(guarded, Scope.ADMIN)) as client:
        found = (await client.get("/settings.json?q=redis_url")).json()
        assert [one["name"] for group in found["groups"] for one in group["settings"]] == ["redis_url"]


async def test_what_seems_to_ask_the_same_is_joined_or_split(guarded: App) -> None:
    home = guarded.service.home
    for number, (question, user) in enumerate([(RESET, "u"), (RESET, "v"), (RESET, "w"), (FORGOTTEN, "x")]):
        await home.ask(question, flow="oracle", user=user, session=f"s-{number}")
    async with client_of(guarded, await key_for(guarded, Scope.ADMIN)) as client:
        (one,) = (await client.get("/faq.json")).json()["candidates"]
        assert (one["question"], one["asked"], one["alike"]) == (RESET, 4, [FORGOTTEN])
        page = f"/faq/entry?id={one['id']}"
        joined = await posted(client, page, "/faq/judge", id=one["id"], wording=FORGOTTEN, does="join")
        assert joined.headers["location"] == f"{page}&said=faq_joined"
        (one,) = (await client.get("/faq.json")).json()["candidates"]
        assert (one["wordings"], one["alike"]) == ([FORGOTTEN], [])
        await posted(client, page, "/faq/judge", id=one["id"], wording=FORGOTTEN, does="split")
        (one,) = (await client.get("/faq.json")).json()["candidates"]
        assert (one["asked"], one["wordings"], one["alike"]) == (3, [], [])


async def test_the_faq_leaves_as_a_document_and_odd_forms_are_refused(guarded: App) -> None:
    home = guarded.service.home
    draft = await home.faq.add("What is <b>kept</b>?", "All.", flow="oracle", by="ann")
    await home.faq.approve(draft.id, owner="ann", by="ann")
    async with client_of(guarded, await key_for(guarded, Scope.ADMIN)) as client:
        document = await client.get("/faq/export")
        assert document.headers["content-type"].startswith("text/markdown")
        assert document.headers["content-disposition"] == 'attachment; filename="faq.md"'
        assert (await client.get("/faq/export?form=json")).json()["entries"]
        left = await posted(client, "/faq", "/faq/retire", id=draft.id, reason="it is over")
        assert left.headers["location"] == f"/faq/entry?id={draft.id}&said=faq_retired"
        again = await posted(
            client, "/faq", "/faq/approve", id=draft.id, question="What is <b>kept</b>?", answer="All."
        )
        assert again.headers["location"] == f"/faq/entry?id={draft.id}&said=faq_approved"
        done, _ = await home.audit.list(limit=2)
        assert [(one.action, one.target, one.why) for one in done] == [
            ("faq.approve", draft.id, ""),
            ("faq.retire", draft.id, "it is over"),
        ]
        shown = (await client.get(f"/faq/entry.json?id={draft.id}")).json()["entry"]
        assert (shown["state"], shown["approval"]["answer"], shown["history"][0]["what"]) == (
            "published",
            "All.",
            "approved",
        )
        page = await client.get(f"/faq/entry?id={draft.id}", headers=HTML)
        assert "<b>kept" not in page.text
        fields = {"id": draft.id, "question": "What?", "answer": "x", "owner": "ann"}
        for odd in ({"review": "soon"}, {"revision": "x"}, {"question": "x" * 20000}):
            refused = await posted(client, "/faq", "/faq/approve", **(fields | odd))
            assert refused.status_code == 400, odd
            assert 'role="alert"' in refused.text
            assert "--help" not in refused.text, "a page does not send people to a command line"
        for path, form in (
            ("/flows/ttl", {"name": "nothing", "ttl": "1d"}),
            ("/flows/ttl", {"name": "technical", "ttl": "long"}),
            ("/flows/similar", {"key": "oracle", "max_error": "much"}),
            ("/flows/sharing", {"key": "oracle", "sharing": "world"}),
            ("/warming/begin", {"popular": "many"}),
            ("/warming/begin", {"questions": "x?", "money": "free"}),
            ("/warming/begin", {}),
            ("/warming/stop", {"id": "w-nothing"}),
            ("/proposals/decide", {"id": "nothing", "decision": "accept"}),
        ):
            refused = await posted(client, "/flows", path, **form)
            assert refused.status_code in {400, 404}, (path, form)
            assert "--help" not in refused.text, (path, form)
