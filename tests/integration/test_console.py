"""The console as people use it: a real service, real history, Debian's Chromium, wide and narrow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest
from playwright.sync_api import Browser

from afw_command import Afw
from browser import chromium
from console_pages import Console, console
from http_process import HttpServer, served
from servers import Servers

pytestmark = pytest.mark.xdist_group("console")

STORED = '<script>document.title = "taken over"</script> <b>bold</b> ![x](https://elsewhere.example/x.png)'

ASKED = (
    ("ann", "monday", "How do I deploy?"),
    ("ann", "monday", "And how do I roll back?"),
    ("ann", "monday", STORED),
    ("bob", "tuesday", "How do I deploy?"),
)


@pytest.fixture(scope="module")
def server(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    """A service whose team has asked a few things."""
    afw = Afw(tmp_path_factory.mktemp("console"), servers.get("valkey").url)
    with served(afw) as running:
        for user, session, question in ASKED:
            ask(running, question, session=session, user=user)
        with running.client() as client:
            changed = {"title": "Monday's release", "add_tags": ["release"]}
            assert client.patch("/api/v2/sessions/monday", json=changed).status_code == 200
        yield running


def ask(server: HttpServer, question: str, *, session: str, user: str) -> None:
    """Ask as a client of the service does."""
    message = {"role": "user", "content": question}
    body = {"model": "echo", "messages": [message], "user": user, "metadata": {"session_id": session}}
    with server.client() as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def desktop(browser: Browser, server: HttpServer) -> Iterator[Console]:
    with console(browser, server.url) as look:
        yield look


PAGES = {
    "home": "/",
    "search": "/search?q=deploy",
    "sessions": "/sessions",
    "session": "/session?id=monday",
    "signin": "/signin",
    "reports": "/reports",
    "why": "/why?session=tuesday&turn={turn}",
    "report": "/report?session=tuesday&turn={turn}",
    "missing": "/nothing-here",
}


def first_turn(server: HttpServer, session: str) -> str:
    """The id of a session's first turn, by the twin of its page."""
    with server.client() as client:
        turns = client.get("/session.json", params={"id": session}).json()["thread"]["turns"]
    return str(turns[0]["id"])


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_every_page_is_whole(browser: Browser, server: HttpServer, size: str, scheme: str) -> None:
    with console(browser, server.url, size, color_scheme=scheme) as look:
        for name, path in PAGES.items():
            page = look.open(path.format(turn=first_turn(server, "tuesday")))
            assert page.locator("h1").count() == 1, name
            look.check(name)


def test_what_flows_said_is_shown_as_text(desktop: Console) -> None:
    page = desktop.open("/session?id=monday")
    assert "<script>document.title" in page.locator(".answer").last.inner_text()
    assert page.title().startswith("Monday's release")
    assert desktop.faults == []


def test_a_question_goes_on_with_its_session_without_scripts(browser: Browser, server: HttpServer) -> None:
    with console(browser, server.url, java_script_enabled=False) as look:
        page = look.open("/session?id=tuesday")
        page.get_by_label("Go on").fill("What about Friday?")
        page.get_by_role("button", name="Ask", exact=True).click()
        assert "/session?id=tuesday#turn-" in page.url
        assert "What about Friday?" in page.locator(".turn").last.inner_text()
        page.get_by_text("Title and tags").click()
        page.get_by_label("Tags").fill("deploy friday")
        page.get_by_role("button", name="Save").click()
        assert page.get_by_role("status").first.inner_text() == "Saved."
        assert page.locator(".tag").all_inner_texts() == ["deploy", "friday"]


def test_pages_hear_of_what_is_asked_elsewhere(desktop: Console, server: HttpServer) -> None:
    page = desktop.open("/session?id=monday")
    page.locator(".live.on").wait_for()
    turns = page.locator(".turn").count()
    ask(server, "Is it Monday?", session="monday", user="ann")
    page.locator(".turn", has_text="Is it Monday?").wait_for()
    assert page.locator(".turn").count() == turns + 1
    assert desktop.faults == []


def test_appearance_and_language_are_kept(desktop: Console) -> None:
    page = desktop.open("/sessions?tag=release")
    page.locator("details.menu > summary").click()
    page.locator("select[name=theme]").select_option("dark")
    page.locator("select[name=language]").select_option("fr")
    page.get_by_role("button", name="Apply").click()
    assert page.url.endswith("/sessions?tag=release")
    assert page.locator("html").get_attribute("lang") == "fr"
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    assert page.locator("td time").first.inner_text().startswith(("il y a ", "à l’instant"))
    desktop.check("french", barriers=False)


def test_keys_lead_through_a_page(desktop: Console) -> None:
    page = desktop.open("/sessions")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.locator(".thread").wait_for()
    assert desktop.faults == []


def test_search_finds_narrows_and_keeps_its_state_in_the_address(desktop: Console) -> None:
    page = desktop.open("/")
    page.keyboard.press("/")
    page.keyboard.type("deploy")
    page.keyboard.press("Enter")
    page.locator(".found").wait_for()
    assert page.url.endswith("/search?q=deploy")
    assert page.locator("mark").first.inner_text() == "deploy"
    people = page.get_by_role("complementary").get_by_role("link")
    assert {"ann", "bob"} <= set(people.all_inner_texts())
    people.get_by_text("bob", exact=True).click()
    assert "person=bob" in page.url
    assert page.locator(".found > li").count() == 1
    page.reload()
    assert page.locator(".found .meta").inner_text().split()[:3] == ["hit", "echo", "bob"]
    page.get_by_label("Without bob").click()
    assert page.url.endswith("/search?q=deploy")
    desktop.check(barriers=False)
    page = desktop.open("/search?q=zebra")
    assert "Nothing fits" in page.locator(".empty").inner_text()
    desktop.check("search-empty")


def test_an_answer_tells_why_it_was_given(desktop: Console) -> None:
    page = desktop.open("/session?id=tuesday")
    page.locator(".turn").first.get_by_role("link", name="Why this answer?").click()
    assert "Served from memory" in page.locator(".verdict").inner_text()
    facts = page.locator(".facts").last.inner_text()
    assert "everybody of the tenant" in facts
    assert "afw:v1:default:team:flow:echo:q:" in facts
    page.locator("#now", has_text="serve the stored answer to this very question").wait_for()
    desktop.check("why-now")


def test_a_wrong_answer_is_reported_and_served_no_more(browser: Browser, server: HttpServer) -> None:
    ask(server, "How do I report?", session="wrong", user="ann")
    with console(browser, server.url, "phone") as look:
        page = look.open("/session?id=wrong")
        page.get_by_role("link", name="Wrong answer?").click()
        look.check(barriers=False)
        page.get_by_label("outdated").check()
        page.get_by_label("What is the matter").fill("We use <b>forms</b> now")
        page.get_by_role("button", name="Report").click()
        assert "The answer is gone from the cache" in page.locator("main").inner_text()
        assert "You said: How do I report?" in page.locator(".answer").inner_text()
        look.check("reported")
        page = look.open("/reports")
        assert "We use <b>forms</b> now" in page.locator(".found").inner_text()
        page.get_by_role("link", name="Why this answer?").first.click()
        assert "Asked of the flow, and kept" in page.locator(".verdict").inner_text()
        look.check(barriers=False)


def test_a_step_of_a_chart_leads_to_what_was_asked_in_it(desktop: Console) -> None:
    page = desktop.open("/?since=24h")
    page.locator("time-chart .plot canvas").first.wait_for()
    over = page.locator("time-chart[opens] .u-over")
    box = over.bounding_box()
    assert box
    over.click(position={"x": box["width"] - 4, "y": box["height"] - 2})
    page.locator(".found").wait_for()
    assert "since=" in page.url
    assert desktop.faults == []


EVIL = '"><img src=x onerror="document.title=1"><script>document.title=1</script>'


def test_names_of_every_kind_are_text_on_every_page(
    browser: Browser, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Flows, sessions, titles, tags, people, wordings: whatever something is called, no page takes it for more."""
    afw = Afw(tmp_path_factory.mktemp("evil"), servers.get("valkey").url)
    registry = afw.registry.read_text().replace("name: Echo", f"name: {json.dumps(EVIL)}")
    afw.registry.write_text(registry.replace("description: Says it again.", f"description: {json.dumps(EVIL)}"))
    with served(afw) as running, running.client() as client:
        asked = {"question": EVIL, "flow": "echo", "session_id": EVIL, "user_id": EVIL}
        turn = client.post("/api/v2/ask", json=asked).json()
        assert turn["session_id"] == EVIL
        again = client.post("/api/v2/ask", json={"question": f"And {EVIL}?", "flow": "echo"}).json()
        assert client.patch(
            f"/api/v2/sessions/{quote(EVIL, safe='')}", json={"title": EVIL, "add_tags": [EVIL]}
        ).is_success
        body = {"question": EVIL, "answer": f"[x](javascript:alert(1)) {EVIL}", "flow": "echo", "wordings": [EVIL]}
        entry = client.post("/api/v2/faq/entries", json=body).json()["entry"]["id"]
        assert client.post(
            "/api/v2/reports", json={"turn_id": again["turn_id"], "kind": "wrong", "note": EVIL}
        ).is_success
        job = client.post("/api/v2/warm-ups", json={"questions": [{"question": EVIL, "flow": "echo"}]}).json()["job"]
        client.post("/api/v2/keys", json={"name": "widget", "scopes": ["ask"], "why": EVIL})
        place = {"session": EVIL, "turn": turn["turn_id"]}
        paths = [
            *("/", "/sessions", "/reports", "/faq", "/popular", "/flows", "/proposals", "/warming", "/privacy"),
            *("/privacy/audit", "/health", "/settings", "/flows/flow?key=echo", f"/faq/entry?id={entry}"),
            *(f"/warming/job?id={job}", f"/session?{urlencode({'id': EVIL})}", f"/why?{urlencode(place)}"),
            *(f"/report?{urlencode(place)}", f"/search?{urlencode({'q': EVIL})}", "/search?q="),
            *(f"/popular/paths?{urlencode({'question': EVIL})}", f"/signin?{urlencode({'next': EVIL})}"),
            *(f"/session?{urlencode({'id': EVIL + 'x'})}", f"/?{urlencode({'since': EVIL})}"),
        ]
        with console(browser, running.url) as look:
            dialogs: list[str] = []
            look.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
            for path in paths:
                page = look.open(path)
                assert page.title() != "1", path
                assert page.locator('img[src="x"], a[href^="javascript:"]').count() == 0, path
                look.check(barriers=False)
            assert dialogs == []
