"""The screens by which a team is looked after, as people use them: each screen's main action, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from afw_command import Afw
from browser import chromium
from console_pages import Console, console
from http_process import HttpServer, served
from servers import Server, Servers

pytestmark = pytest.mark.xdist_group("console")

DEPLOY = "How do I deploy to staging?"
PEOPLE = ("ann", "bob", "chloe")
PAGES = {
    "faq": "/faq?all=1",
    "faq-new": "/faq/entry?flow=echo",
    "faq-candidate": "/faq/entry?id={candidate}",
    "popular": "/popular",
    "paths": "/popular/paths?question=How+do+I+deploy+to+staging%3F&flow=echo",
    "flows": "/flows",
    "flow": "/flows/flow?key=echo",
    "proposals": "/proposals",
    "warming": "/warming?popular=3",
    "warming-job": "/warming/job?id={job}",
    "privacy": "/privacy?session=ann-1",
    "audit": "/privacy/audit",
    "health": "/health",
    "settings": "/settings?q=similar",
}
#: Pages whose barriers are looked for on a telephone in the dark, the others on a desktop in the light.
ON_PHONE = {"faq", "faq-candidate", "flow", "warming-job", "privacy", "health", "settings"}


class Team(Afw):
    """A team that has asked a few things, and its service."""

    server: HttpServer
    redis: Server
    candidate: str
    job: str

    def twin(self, path: str) -> Any:
        """A page of the console, as programs read it."""
        with self.server.client() as client:
            answer = client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def team(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    redis = servers.get("valkey")
    team = Team(tmp_path_factory.mktemp("care"), redis.url)
    team.redis = redis
    team.environ["AFW_USER"] = "ann"
    with served(team) as team.server:
        for user in PEOPLE:
            ask(team.server, DEPLOY, session=f"{user}-1", user=user)
            ask(team.server, "And how do I roll that back?", session=f"{user}-1", user=user)
            ask(team.server, "Who approves a release?", session=f"{user}-2", user=user)
        team.candidate = team.twin("/faq.json")["candidates"][0]["id"]
        team.job = team.json("warm", "run", "-", "--flow", "echo", stdin="Which printer has colour?\nAnd then?\n")[
            "job"
        ]
        yield team


def ask(server: HttpServer, question: str, *, session: str, user: str, flow: str = "echo") -> tuple[str, str]:
    """Ask as a client of the service does; the answer, and whose words it is."""
    message = {"role": "user", "content": question}
    body = {"model": flow, "messages": [message], "user": user, "metadata": {"session_id": session}}
    with server.client() as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"], answer.headers["X-AFW-Source"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def desktop(browser: Browser, team: Team) -> Iterator[Console]:
    with console(browser, team.server.url) as look:
        yield look


@pytest.fixture
def phone(browser: Browser, team: Team) -> Iterator[Console]:
    """A telephone without scripts: everything is links and forms."""
    with console(browser, team.server.url, "phone", java_script_enabled=False) as look:
        yield look


def status(page: Page) -> str:
    """What the page says was done."""
    return page.get_by_role("status").first.inner_text()


@pytest.mark.parametrize(("size", "scheme", "locale"), [("desktop", "light", "en-GB"), ("phone", "dark", "fr-FR")])
def test_every_page_is_whole(browser: Browser, team: Team, size: str, scheme: str, locale: str) -> None:
    with console(browser, team.server.url, size, color_scheme=scheme, locale=locale) as look:
        for name, path in PAGES.items():
            page = look.open(path.format(candidate=team.candidate, job=team.job))
            assert page.locator("h1").count() == 1, name
            assert page.locator("html").get_attribute("lang") == locale[:2]
            look.check(f"{name}-{scheme}", barriers=(name in ON_PHONE) is (size == "phone"))


def test_a_question_that_many_ask_is_edited_and_approved(desktop: Console, team: Team) -> None:
    page = desktop.open("/faq")
    page.get_by_role("link", name=DEPLOY).first.click()
    assert "asked 3 times by 3 people" in page.locator("main").inner_text()
    page.locator("[name=answer]").fill("Run `make deploy`.")
    page.locator("[name=wordings]").fill("deploy to staging, how?")
    page.locator("[name=owner]").fill("ann")
    page.locator("[name=review]").fill("2027-03-01")
    page.get_by_role("button", name="Approve and serve").click()
    assert status(page).startswith("Approved")
    assert page.locator("#served + p").inner_text() == DEPLOY
    assert "review 2027-03-01" in page.locator("main").inner_text().casefold()
    answer = ask(team.server, "deploy to staging, how?", session="dan-1", user="dan")
    assert answer == ("Run `make deploy`.", "faq")
    desktop.check()

    # Two people change it: the second is told, and keeps what was typed.
    page.locator("[name=answer]").fill("Run `make deploy ENV=staging`.")
    other = desktop.context.new_page()
    other.goto(page.url)
    other.locator("[name=answer]").fill("Somebody else's words.")
    other.get_by_role("button", name="Save as a draft").click()
    assert status(other).startswith("Saved")
    page.get_by_role("button", name="Save as a draft").click()
    assert "Somebody else changed it" in page.get_by_role("alert").inner_text()
    assert page.locator("[name=answer]").input_value() == "Run `make deploy ENV=staging`."
    desktop.check()


def test_an_entry_is_begun_and_retired_without_scripts(phone: Console, team: Team) -> None:
    page = phone.open("/faq")
    page.get_by_role("link", name="Add an entry").click()
    page.locator("[name=flow]").select_option("echo")
    page.locator("[name=question]").fill("Where is the coffee machine?")
    page.get_by_role("button", name="Approve and serve").click()
    assert "has no answer yet" in page.get_by_role("alert").inner_text()
    page.locator("[name=answer]").fill("On the second floor.")
    page.locator("[name=owner]").fill("dan")
    page.get_by_role("button", name="Approve and serve").click()
    assert status(page).startswith("Approved")
    page.get_by_text("Retire it").first.click()
    page.get_by_label("Why, for those who come after").fill("it broke")
    page.get_by_role("button", name="Retire it").click()
    assert status(page).startswith("Retired")
    assert "reason: it broke" in page.locator(".timeline").inner_text()
    assert ask(team.server, "Where is the coffee machine?", session="dan-2", user="dan")[1] == "flow"


def test_a_lifetime_is_set_and_taken_back(desktop: Console, team: Team) -> None:
    page = desktop.open("/flows/flow?key=echo")
    page.get_by_label("New lifetime of echo").fill("36h")
    page.locator("#lifetime").get_by_role("button", name="Set").click()
    assert "1.5 days" in page.locator("#lifetime").inner_text()
    row = team.twin("/flows/flow.json?key=echo")["lifetime"]
    assert (row["ttl_seconds"], row["origin"]) == (129600, "set at run time")
    page.locator("#lifetime").get_by_role("button", name="Take back").click()
    assert "7 days" in page.locator("#lifetime").inner_text()
    page.get_by_label("New lifetime of echo").fill("a while")
    page.locator("#lifetime").get_by_role("button", name="Set").click()
    assert "not a duration" in page.locator("main").inner_text()
    assert desktop.faults == []


def test_terms_of_similar_questions_and_sharing_are_set(phone: Console, team: Team) -> None:
    page = phone.open("/flows/flow?key=echo")
    page.get_by_label("Profile").select_option("balanced")
    page.get_by_label("Error budget").fill("2 %")
    page.locator("#similar").get_by_role("button", name="Set").click()
    terms = team.twin("/flows/flow.json?key=echo")["similar"]["terms"]
    assert (terms["profile"], terms["max_error"]) == ("balanced", 0.02)
    page.locator("#similar").get_by_role("button", name="Take back").click()
    assert team.twin("/flows/flow.json?key=echo")["similar"]["terms"]["profile"] == "strict"
    page.locator("#sharing select").select_option("user")
    page.locator("#sharing").get_by_role("button").click()
    assert "sharing: user" in team.registry.read_text()
    page.locator("#sharing select").select_option("team")
    page.locator("#sharing").get_by_role("button").click()
    assert "this comment must survive" in team.registry.read_text()
    assert team.twin("/flows/flow.json?key=echo")["flow"]["sharing"] == "team"


def test_a_flow_is_cleared_once_that_is_confirmed(desktop: Console, team: Team) -> None:
    ask(team.server, "How long are answers kept?", session="dan-3", user="dan", flow="documents")
    page = desktop.open("/flows/flow?key=documents")
    page.get_by_role("button", name="Clear its stored answers").click()
    assert "would no longer be served" in page.locator(".receipt").inner_text()
    desktop.check()
    assert team.twin("/flows/flow.json?key=documents")["entries"] == 1
    page.get_by_role("button", name="Clear its stored answers").click()
    assert "can no longer be served" in page.locator(".receipt").inner_text()
    assert team.twin("/flows/flow.json?key=documents")["entries"] == 0


def test_a_proposal_is_accepted_and_another_rejected(desktop: Console, team: Team) -> None:
    with team.redis.client() as client:
        for name, proposed in (("up", "864000"), ("down", "86400")):
            client.hset("afw:v1:default:proposals", name, proposal(name, proposed))
    page = desktop.open("/proposals")
    desktop.check("proposals-open")
    page.locator("article", has_text="10 days").get_by_role("button", name="Accept").click()
    assert status(page).startswith("Accepted")
    assert team.twin("/flows/flow.json?key=documents")["lifetime"]["ttl_seconds"] == 864000
    page.get_by_placeholder("Why not").fill("They change weekly.")
    page.get_by_role("button", name="Reject").click()
    assert "They change weekly." in page.locator("table").inner_text()
    decided = {one["id"]: one["state"] for one in team.twin("/proposals.json")["decided"]}
    assert decided == {"up": "accepted", "down": "rejected"}


def proposal(name: str, proposed: str) -> bytes:
    """A proposal as it is kept."""
    from agentic_flywheel.likeness import Proposal
    from agentic_flywheel.store.codec import encode

    return encode(
        Proposal(
            id=name,
            flow="documents",
            setting="ttl",
            now="259200",
            proposed=proposed,
            evidence="Of 42 answers that were refreshed, 41 said the same.",
            at=1.8e9,
        )
    )


def test_a_warm_up_is_watched_stopped_and_gone_on_with(desktop: Console, team: Team) -> None:
    page = desktop.open("/warming")
    page.locator("[name=questions]").fill(
        "How are plants watered?\nWhich printers hang without paper?\nWhich bus goes downtown?\nWhen does lunch begin?"
    )
    page.locator("[name=flow]").select_option("echo")
    page.get_by_label("At a time").fill("1")
    page.get_by_role("button", name="Only say what would be asked").click()
    assert "would be asked" in page.locator("table").first.inner_text()
    assert page.get_by_label("At a time").input_value() == "1"
    page.get_by_role("button", name="Begin").click()
    page.locator(".progress-line", has_text="1 / 4").wait_for()  # nobody has loaded the page again
    desktop.check("warming-live", barriers=False)  # it changes under the checker's hands
    page.get_by_role("button", name="Stop").click()
    page.locator(".badge", has_text="stop").first.wait_for()  # it stops, or has stopped
    (team.home / "release").touch()
    page.get_by_role("button", name="Go on").wait_for()
    assert "stopped" in page.locator(".head").first.inner_text()
    page.get_by_role("button", name="Go on").click()
    page.locator(".badge.good", has_text="done").wait_for()
    (team.home / "release").unlink()
    report = team.twin(page.url.replace(team.server.url, "").replace("/job?", "/job.json?"))["report"]
    assert (report["state"], report["failed"], report["left"]) == ("done", 0, 0)
    assert team.asked().count("Which printers hang without paper?") == 1
    desktop.check()


def test_a_session_is_forgotten_once_its_name_was_typed(browser: Browser, team: Team, tmp_path: Path) -> None:
    with console(browser, team.server.url, "phone") as look:
        page = look.open("/privacy?session=ann-2")
        page.get_by_role("button", name="Show what would be removed").click()
        assert "Would be removed" in page.locator(".receipt").inner_text()
        look.check("forget")
        page.get_by_label("To confirm, type").fill("ann-1")
        page.get_by_role("button", name="Forget it").click()
        assert "nothing was removed" in page.get_by_role("alert").inner_text()
        assert team.twin("/session.json?id=ann-2")
        page.get_by_label("To confirm, type").fill("ann-2")
        page.get_by_role("button", name="Forget it").click()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the receipt").click()
        download.value.save_as(tmp_path / "receipt.json")
        receipt = json.loads((tmp_path / "receipt.json").read_text())
        assert (receipt["target"], receipt["removed"]["sessions"], receipt["removed"]["turns"]) == ("ann-2", 1, 1)
        look.check("forgotten")
        look.open("/privacy/audit")
        assert "session.forget" in page.locator("table").inner_text()
    with team.server.client() as client:
        assert client.get("/session.json?id=ann-2").status_code == 404
