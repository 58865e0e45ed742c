"""The console as a program meets it: policies, twins, forms of other sites, keys, errors."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from agentic_flywheel.callers import Scope
from agentic_flywheel.interfaces.http.app import App
from http_app import app_on, client_of, key_for
from servers import Server

pytestmark = pytest.mark.anyio

HTML = {"Accept": "text/html"}
OURS = {"Sec-Fetch-Site": "same-origin", **HTML}
TOKEN = re.compile(r'name="token" value="([0-9a-f]{64})"')


@pytest.fixture
async def app(valkey: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with app_on(valkey, tmp_path, serve_origins="https://friend.example") as made:
        yield made


@pytest.fixture
async def guarded(valkey: Server, tmp_path: Path) -> AsyncIterator[App]:
    async with app_on(valkey, tmp_path, serve_credentials="always") as made:
        yield made


async def token_of(client: httpx2.AsyncClient, path: str = "/sessions") -> str:
    """The token of a page's forms; the cookie stays in the client."""
    page = await client.get(path, headers=HTML)
    found = TOKEN.search(page.text)
    assert found, page.text
    return found[1]


async def test_pages_allow_nothing_but_our_own_files(app: App) -> None:
    async with client_of(app) as client:
        for path in ("/", "/sessions", "/nothing"):
            page = await client.get(path, headers=HTML)
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            policy = page.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
            assert "unsafe" not in policy
            assert page.headers["cache-control"] == "no-store"
            assert page.headers["x-content-type-options"] == "nosniff"


async def test_every_page_has_its_twin(app: App) -> None:
    await app.service.home.sessions.configure("monday", {})
    async with client_of(app) as client:
        for path, twin in (("/", "/index.json"), ("/sessions", "/sessions.json"), ("/session", "/session.json")):
            query = {"id": "monday"} if path == "/session" else {}
            by_path = await client.get(path, params=query, headers={"Accept": "application/json"})
            by_name = await client.get(twin, params=query)
            assert by_path.headers["content-type"] == by_name.headers["content-type"] == "application/json"
            assert set(by_path.json()) == set(by_name.json())
            page = await client.get(path, params=query, headers=HTML)
            assert f'href="{twin}' in page.text
        assert (await client.get("/sessions.json")).json()["sessions"][0]["id"] == "monday"


async def test_files_are_kept_by_browsers_and_nothing_else_is_served(app: App) -> None:
    async with client_of(app) as client:
        page = await client.get("/", headers=HTML)
        files = re.findall(r'(?:src|href)="(/static/[^"#]+)"', page.text)
        assert len(files) >= 5
        for file in files:
            got = await client.get(file)
            assert got.status_code == 200, file
            assert got.headers["cache-control"] == "public, max-age=31536000, immutable"
        base = files[0].rsplit("/", 1)[0]
        for odd in ("vendor/manifest.toml", "../pages.py", "..%2Fpages.py", "%2e%2e/pages.py", "nothing.js", ""):
            assert (await client.get(f"{base}/{odd}")).status_code == 404, odd
        assert (await client.get(files[-1].replace(files[-1].split("/")[2], "0" * 16))).status_code == 404


async def test_forms_are_only_taken_from_our_own_pages(app: App) -> None:
    async with client_of(app) as client:
        token = await token_of(client)
        good = {"token": token, "theme": "dark"}
        for headers, form in (
            ({"Sec-Fetch-Site": "cross-site", "Origin": "https://friend.example"}, good),
            ({"Sec-Fetch-Site": "same-site", "Origin": "https://friend.example"}, good),
            ({"Sec-Fetch-Site": "none"}, good),
            ({}, good),
            ({"Origin": "null"}, good),
            ({"Origin": "https://friend.example"}, good),
            (OURS, {"theme": "dark"}),
            (OURS, good | {"token": token[::-1]}),
        ):
            refused = await client.post("/preferences", data=form, headers=headers)
            assert refused.status_code in {400, 403}, (headers, form)
            assert "set-cookie" not in refused.headers
        for headers in (OURS, {"Origin": "http://127.0.0.1:8765"}):
            taken = await client.post("/preferences", data=good, headers=headers)
            assert (taken.status_code, taken.headers["location"]) == (303, "/")
            assert "afw_theme=dark" in taken.headers["set-cookie"]
        client.cookies.delete("afw_form")
        assert (await client.post("/preferences", data=good, headers=OURS)).status_code == 400


async def test_a_form_leads_nowhere_else(app: App) -> None:
    async with client_of(app) as client:
        token = await token_of(client)
        for odd in (
            "https://elsewhere.example/",
            "//elsewhere.example",
            "/\\elsewhere.example",
            "/a\r\nSet-Cookie: x=1",
        ):
            went = await client.post("/preferences", data={"token": token, "next": odd}, headers=OURS)
            assert went.headers["location"] == "/"


async def test_a_key_signs_in_for_as_long_as_it_is_in_force(guarded: App) -> None:
    key = await key_for(guarded, Scope.ASK)
    other = await key_for(guarded, Scope.READ)
    async with client_of(guarded) as client:
        locked = await client.get("/sessions?tag=x", headers=HTML)
        assert locked.status_code == 401
        assert 'name="next" value="/sessions?tag=x"' in locked.text
        assert locked.headers["www-authenticate"].startswith("Bearer")
        token = TOKEN.search(locked.text)
        assert token
        form = {"token": token[1], "next": "/sessions?tag=x"}
        wrong = await client.post("/signin", data={**form, "key": key[:-1] + "x"}, headers=OURS)
        assert wrong.status_code == 401
        assert "opens nothing here" in wrong.text
        signed = await client.post("/signin", data={**form, "key": f" {key} "}, headers=OURS)
        assert (signed.status_code, signed.headers["location"]) == (303, "/sessions?tag=x")
        cookie = signed.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.casefold()
        assert (await client.get("/sessions", headers=HTML)).status_code == 200
        # No more than the key: it has no scope read.
        assert (await client.get("/live?seconds=0")).status_code == 403
        page = await client.get("/", headers=HTML)
        assert 'action="/search"' not in page.text
        # A form that was given to another key, or to nobody, does nothing for this one.
        assert (await client.post("/preferences", data={"token": token[1]}, headers=OURS)).status_code == 400
        mine = await token_of(client)
        assert mine != token[1]
        assert (await client.post("/preferences", data={"token": mine}, headers=OURS)).status_code == 303
        await guarded.service.home.api_keys.revoke("test-ask", by="test", dry_run=False)
        ended = await client.get("/sessions", headers=HTML)
        assert ended.status_code == 401
        assert "opens nothing here" in ended.text
        assert 'afw_key=""' in ended.headers["set-cookie"]
        token = TOKEN.search(ended.text)
        assert token
        again = await client.post("/signin", data={"token": token[1], "key": other}, headers=OURS)
        assert again.status_code == 303
        out = await client.post("/signout", data={"token": await token_of(client, "/")}, headers=OURS)
        assert out.headers["location"] == "/signin"
        assert (await client.get("/", headers=HTML)).status_code == 401


async def test_errors_are_pages_for_people_and_problems_for_programs(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    async with client_of(app) as client:
        missing = await client.get("/nothing/<b>here</b>", headers=HTML)
        assert (missing.status_code, missing.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert "<b>here" not in missing.text
        assert (await client.get("/nothing")).headers["content-type"] == "application/problem+json"
        assert (await client.get("/session.json?id=x", headers=HTML)).headers[
            "content-type"
        ] == "application/problem+json"
        unknown = await client.get("/session?id=nowhere", headers=HTML)
        assert unknown.status_code == 404

        async def fall_over(*_: object, **__: object) -> None:
            raise RuntimeError("the secret of the insides")

        monkeypatch.setattr(app.service.home.sessions, "list", fall_over)
        failed = await client.get("/sessions", headers=HTML)
        assert failed.status_code == 500
        assert "secret" not in failed.text
        assert "Traceback" not in failed.text
        assert re.search(r"Error [0-9a-f]{12}", failed.text)


async def test_a_key_without_a_scope_is_told_so(guarded: App) -> None:
    async with client_of(guarded, await key_for(guarded, Scope.METRICS)) as client:
        page = await client.get("/sessions", headers=HTML)
        assert page.status_code == 403
        assert "This key does not open this page" in page.text
        assert (await client.get("/", headers=HTML)).status_code == 200


async def test_another_users_session_is_as_unknown_as_none(guarded: App) -> None:
    await guarded.service.home.api_keys.list()
    key = await key_for(guarded, Scope.ASK, user="ann")
    home = guarded.service.home
    guarded.service.registry.register("oracle", lambda question: f"You said: {question}")
    for user in ("ann", "bob"):
        await home.ask("Who am I?", session=f"of-{user}", user=user, flow="oracle")
    async with client_of(guarded, key) as client:
        listed = (await client.get("/sessions.json?user=bob")).json()["sessions"]
        assert [session["id"] for session in listed] == ["of-ann"]
        assert (await client.get("/session?id=of-ann", headers=HTML)).status_code == 200
        told = [await client.get(f"{path}?id={id_}") for path in ("/session", "/session/export", "/live/session")
                for id_ in ("of-bob", "nobodys")]  # fmt: skip
        assert {(one.status_code, one.json()["code"]) for one in told} == {(404, "unknown_session")}
        # Its own may be renamed, another's not, whatever the form says.
        token = await token_of(client)
        form = {"token": token, "title": "Mine", "tags": "a, b"}
        assert (await client.post("/session/title", data={**form, "id": "of-bob"}, headers=OURS)).status_code == 404
        assert (await client.post("/session/title", data={**form, "id": "of-ann"}, headers=OURS)).status_code == 303
        session = (await client.get("/session.json?id=of-ann")).json()["thread"]["session"]
        assert (session["title"], session["tags"]) == ("Mine", ["a", "b"])


async def test_another_users_answer_is_as_unknown_as_none(guarded: App) -> None:
    home = guarded.service.home
    guarded.service.registry.register("oracle", lambda question: f"You said: {question}", sharing="user")
    guarded.service.registry.register("team", lambda question: f"You said: {question}")
    theirs = await home.ask("What is the plan?", session="of-bob", user="bob", flow="oracle")
    # In a session of its own: what follows from an answer of bob's alone is bob's as well.
    shared = await home.ask("What is the plan?", session="of-bob-too", user="bob", flow="team")
    async with client_of(guarded, await key_for(guarded, Scope.ASK, Scope.READ, user="ann")) as client:
        refused = await client.get("/why.json", params={"key": theirs.key})
        gone = await client.get("/why.json", params={"key": (theirs.key or "")[:-4] + "0000"})
        assert (refused.status_code, refused.json()["code"]) == (gone.status_code, gone.json()["code"])
        assert refused.json()["code"] == "unknown_key"
        assert (await client.get("/why.json", params={"key": shared.key})).json()["stored"]["entry"]["asked"]
        turn = await client.get("/why.json", params={"session": "of-bob", "turn": theirs.turn_id})
        assert turn.json()["code"] == "unknown_session"
        token = await token_of(client)
        form = {"token": token, "session": "of-bob", "turn": theirs.turn_id, "kind": "wrong"}
        reported = await client.post("/report", data=form, headers=OURS)
        assert reported.status_code == 404
        assert (
            await client.post("/why/clear", data={"token": token, "key": shared.key}, headers=OURS)
        ).status_code == 403
    async with client_of(guarded, await key_for(guarded, Scope.ADMIN)) as client:
        assert (await client.get("/why.json", params={"key": theirs.key})).json()["stored"]["scope"] == "user"
        token = await token_of(client)
        cleared = await client.post("/why/clear", data={"token": token, "key": shared.key}, headers=OURS)
        assert cleared.headers["location"] == "/?said=cleared"
        assert (await client.get("/why.json", params={"key": shared.key})).status_code == 404


async def test_lists_go_on_with_their_filters(app: App) -> None:
    app.service.registry.register("oracle", lambda question: f"You said: {question}")
    for number in range(3):
        await app.service.home.ask(f"What is step {number}?", session=f"s{number}", flow="oracle", user="ann")
    async with client_of(app) as client:
        for path, name, query in (("/sessions", "sessions", "user=ann&"), ("/search", "page", "q=step&mode=words&")):
            seen: list[str] = []
            address = f"{path}?{query}limit=2"
            while address:
                page = await client.get(address, headers=HTML)
                view = (await client.get(address, headers={"Accept": "application/json"})).json()
                rows = view[name] if path == "/sessions" else view["page"]["found"]
                seen += [row.get("session_id", row.get("id")) for row in rows]
                following = re.search(r'rel="next" href="([^"]+)"', page.text)
                address = following[1].replace("&amp;", "&") if following else ""
                assert not address or query.rstrip("&") in address
            assert sorted(seen) == ["s0", "s1", "s2"], path


async def test_parameters_that_mean_nothing_are_refused_kindly(app: App) -> None:
    async with client_of(app) as client:
        for path in (
            *("/?since=yesteryear", "/sessions?limit=0", "/sessions?limit=x", "/sessions?cursor=x", "/session"),
            *(
                "/why",
                "/why?key=a&turn=b",
                "/why?turn=x",
                "/search?mode=guess",
                "/search?since=never",
                "/search?person=%22",
            ),
            *("/report?session=x", "/session/export?id=x&form=pdf", "/search?limit=101", "/search?outcome=lucky"),
        ):
            page = await client.get(path, headers=HTML)
            assert page.status_code == 400, path
            assert 'class="problem"' in page.text


async def test_pages_speak_the_language_that_is_asked_for(app: App) -> None:
    async with client_of(app) as client:
        for wanted, spoken in (("fr-CA,en;q=0.5", "fr"), ("de,en;q=0.7,fr;q=0.3", "en"), ("de", "en"), ("x;q=y", "en")):
            page = await client.get("/sessions", headers={**HTML, "Accept-Language": wanted})
            assert f'<html lang="{spoken}"' in page.text


async def test_news_end_with_their_time_and_say_nothing_of_words(app: App) -> None:
    app.service.registry.register("oracle", lambda question: f"You said: {question}")
    async with client_of(app) as client, app.service.home.following.listen() as ear:
        await app.service.home.ask("A secret?", session="monday", flow="oracle")
        news = await ear.next(60)
        assert news is not None
        assert news.sessions == {"monday"}
        quiet = await client.get("/live?seconds=0")
        assert quiet.headers["content-type"].startswith("text/event-stream")
        assert quiet.text == "retry: 2000\n\n"
