"""`afw faq`, `afw doctor`, `flowise_faq`, `flowise://faq` and HTTP: one FAQ, and only people approve."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from afw_command import Afw, Done, assert_error
from agentic_flywheel import Flywheel
from agentic_flywheel.errors import InputError
from agentic_flywheel.interfaces.cli.main import run
from agentic_flywheel.model import Origin
from flywheels import Oracle, opened, until
from mcp_process import ERAS, called, connected, refused, resource
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How do I reset the router password?"


class Here(Afw):
    """The command line in this process, which is fifty times faster than one of its own for each command."""

    def __init__(self, home: Path, redis_url: str, capture: pytest.CaptureFixture[str], patch: Any) -> None:
        super().__init__(home, redis_url)
        self._capture = capture
        self._patch = patch
        for name in [name for name in os.environ if name.startswith("AFW_")]:
            patch.delenv(name)
        for name, value in self.environ.items():
            patch.setenv(name, value)
        patch.setenv("AFW_REDIS_CONNECT_TIMEOUT_SECONDS", "5")  # a busy test machine is not an outage
        patch.syspath_prepend(str(home))
        patch.delitem(sys.modules, "afw_test_flow", raising=False)
        patch.chdir(self.work)

    def run(self, *arguments: str, stdin: str | bytes = b"", **environ: str) -> Done:
        with self._patch.context() as patch:
            raw = stdin.encode() if isinstance(stdin, str) else stdin
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
            for name, value in environ.items():
                patch.setenv(name, value)
            code = run(arguments)
        said = self._capture.readouterr()
        return Done(code, said.out, said.err)


@pytest.fixture
def afw(tmp_path: Path, valkey: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    return Here(tmp_path, valkey.url, capsys, monkeypatch)


def added(afw: Afw, *more: str) -> str:
    view = afw.json("faq", "add", QUESTION, "--flow", "echo", "--answer", "Hold the button.", *more)
    assert view["state"] == "draft"
    return str(view["entry"]["id"])


def test_the_life_of_an_entry(afw: Afw) -> None:
    assert "The FAQ is empty" in afw.ok("faq").err
    id_ = added(afw, "--wording", "Router reset?", "--user", "ann")
    assert afw.json("ask", QUESTION, "--flow", "echo")["source"] == "flow"
    assert "has an owner" in afw.run("faq", "approve", id_).err
    shown = afw.ok("faq", "approve", id_[:6], "--owner", "ann", "--review", "90d", "--user", "bob").out
    assert "published" in shown
    answer = afw.json("ask", "router reset", "--flow", "echo")
    assert (answer["outcome"], answer["reason"], answer["source"], answer["faq"]) == ("hit", "curated", "faq", id_)
    assert answer["ttl_seconds"] is None
    asked = afw.ok("ask", QUESTION, "--flow", "echo", "--explain")
    assert asked.out == "Hold the button.\n"
    assert f"hit · curated · FAQ {id_}" in asked.err
    assert "a person approved it" in asked.err
    explained = afw.ok("explain", "router reset", "--flow", "echo").out
    assert "serve the approved answer of the FAQ" in explained
    assert f"afw faq show {id_}" in explained
    afw.ok("faq", "edit", id_, "--answer", "-", "--no-wordings", "--user", "eve", stdin="Other words.\n")
    seen = afw.ok("faq", "show", id_).out
    for word in ("Other words.", "Hold the button.", "Served until this is approved", "edited by eve", "owner ann"):
        assert word in seen
    shown = afw.json("faq", "show", id_)
    assert [change["what"] for change in shown["history"]] == ["added", "approved", "edited"]
    assert (shown["entry"]["published"]["answer"], shown["entry"]["answer"]) == ("Hold the button.", "Other words.")
    assert "Hold the button." in afw.ok("faq", "export").out
    listed = afw.ok("faq", "list")
    assert "published*" in listed.out
    assert afw.run("faq", "retire", id_).code == 1
    assert afw.json("ask", QUESTION, "--flow", "echo")["source"] == "faq"
    receipt = afw.json("faq", "retire", id_, "--yes", "--reason", "gone")
    assert (receipt["dry_run"], receipt["unreachable"]) == (False, 1)
    assert afw.json("ask", QUESTION, "--flow", "echo")["source"] == "cache"
    assert afw.json("faq", "list")["entries"] == []
    assert afw.json("faq", "list", "--all")["entries"][0]["state"] == "retired"
    assert afw.json("faq", "retire", id_, "--purge", "--yes")["removed"] == {"FAQ entries": 1}
    assert_error(afw.json("faq", "show", id_, code=1), "unknown_faq_entry")


def test_a_candidate_is_read_edited_and_approved(afw: Afw) -> None:
    for user in ("u", "v", "w"):
        afw.ok("ask", QUESTION, "--flow", "echo", "--user", user)
    assert "candidate" in afw.ok("faq").out
    assert "1 question that many ask" in afw.ok("proposals").err
    (candidate,) = afw.json("faq", "list")["candidates"]
    short = candidate["id"][:12]
    shown = afw.ok("faq", "show", short)
    assert "3 times by 3 askers" in shown.out
    assert f"You said: {QUESTION}" in shown.out
    assert f"afw faq approve {short}" in shown.err
    view = afw.json("faq", "approve", short, "--owner", "ann", "--review", "never")
    assert (view["state"], view["entry"]["published"]["review_at"]) == ("published", 0.0)
    assert afw.json("ask", QUESTION, "--flow", "echo")["source"] == "faq"
    assert len(afw.asked()) == 1


def test_what_seems_to_ask_the_same_is_joined_and_split(afw: Afw) -> None:
    alike = "Resetting a router?"
    for question, user in ((QUESTION, "u"), (QUESTION, "v"), (QUESTION, "w"), (alike, "u"), (alike, "v")):
        afw.ok("ask", question, "--flow", "echo", "--user", user)
    (candidate,) = afw.json("faq", "list")["candidates"]
    assert (candidate["asked"], candidate["wordings"], candidate["alike"]) == (5, [], [alike])
    listed = afw.ok("faq")
    assert f"~ {alike}" in listed.out
    assert "afw faq join" in listed.err
    short = candidate["id"][:12]
    assert f"afw faq join {short}" in afw.ok("faq", "show", short).err
    assert afw.json("faq", "join", short)["candidate"]["wordings"] == [alike]
    assert afw.run("faq", "split", short, "Who is it?").code == 2
    assert alike not in afw.ok("faq", "split", short, alike).out
    assert afw.json("faq", "show", short)["candidate"]["asked"] == 3
    note = afw.ok("faq", "join", added(afw), "Router?").out
    assert "Router?" in note


def test_an_editor_and_what_is_written_in_vain(afw: Afw) -> None:
    id_ = added(afw)
    editor = afw.home / "editor.py"
    editor.write_text(
        "import sys, subprocess, os\n"
        "path = sys.argv[1]\n"
        "text = open(path).read()\n"
        "assert 'revision' in text and '# Question' in text, text\n"
        "meanwhile = os.environ.get('MEANWHILE')\n"
        "if meanwhile: subprocess.run(meanwhile, shell=True, check=True, stdout=subprocess.DEVNULL)\n"
        "open(path, 'w').write(text.replace('Hold the button.', '# Steps\\n\\nHold it.'))\n"
    )
    python = afw.command()[0]
    edited = afw.json("faq", "edit", id_, EDITOR=f"{python} {editor}")
    assert edited["entry"]["answer"] == "# Steps\n\nHold it."
    afw.ok("faq", "edit", id_, "--answer", "Hold the button.")
    meanwhile = " ".join(afw.command("faq", "edit", id_, "--answer", "Bobs", "--user", "bob"))
    lost = afw.run("faq", "edit", id_, EDITOR=f"{python} {editor}", MEANWHILE=meanwhile)
    assert lost.code == 1
    assert "bob has changed the entry" in lost.err
    kept = Path(lost.err.split("What you wrote is in ", 1)[1].split()[0])
    assert "Hold it." in kept.read_text()
    kept.unlink()
    assert afw.json("faq", "show", id_)["entry"]["answer"] == "Bobs"
    nothing = afw.run("faq", "edit", id_, EDITOR="true")
    assert nothing.code == 2
    assert_error(afw.json("faq", "edit", id_, "--answer", "x", "--revision", "1", code=1), "edit_conflict")


def test_wrong_usage_is_said(afw: Afw) -> None:
    id_ = added(afw)
    for arguments in (
        ("faq", "add"),
        ("faq", "edit", id_, "--answer", "x", "--answer-file", "y"),
        ("faq", "edit", id_, "--wording", "x", "--no-wordings"),
        ("faq", "edit", id_, "--answer-file", "nowhere"),
        ("faq", "approve", id_, "--owner", "ann", "--review", "soon"),
        ("faq", "add", QUESTION, "--answer", "x"),
    ):
        assert afw.run(*arguments).code == 2, arguments
    assert afw.run("faq", "approve", "zzzz", "--owner", "ann").code == 1
    assert "write 2027-03-01, 90d or never" in afw.run("faq", "approve", id_, "--owner", "ann", "--review", "soon").err
    for past in ("0d", "2020-01-01", "2020-01-01T10:00+02:00"):
        refused = afw.run("faq", "approve", id_, "--owner", "ann", "--review", past)
        assert (refused.code, "is looked at again later" in refused.err) == (2, True), past
    (afw.work / "empty.md").write_text("\n")
    for nothing in (("--answer", " "), ("--answer-file", "empty.md"), ("--answer", "-")):
        assert "is empty" in afw.run("faq", "edit", id_, *nothing).err, nothing
    assert "--flow KEY" in afw.run("faq", "add", QUESTION, "--answer", "x").err
    assert afw.json("faq", "show", id_)["entry"]["revision"] == 1


async def test_an_answer_is_not_taken_away_by_an_edit(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        draft = await flywheel.faq.add(QUESTION, flow="oracle")
        draft = await flywheel.faq.edit(draft.id, answer="")
        draft = await flywheel.faq.edit(draft.id, answer="Hold it.")
        with pytest.raises(InputError, match="the answer is empty"):
            await flywheel.faq.edit(draft.id, answer="  ")
        assert (await flywheel.faq.show(draft.id)).entry.answer == "Hold it."


def test_documents_go_to_files(afw: Afw) -> None:
    afw.ok("faq", "approve", added(afw), "--owner", "ann")
    afw.ok("faq", "export", "faq.json")
    document = json.loads((afw.work / "faq.json").read_text())
    assert document == afw.json("faq", "export") | {"at": document["at"]}
    assert afw.ok("faq", "export", "faq.md", "--flow", "echo").err == "wrote faq.md\n"
    assert f"### {QUESTION}" in (afw.work / "faq.md").read_text()
    afw.registry.write_text(afw.registry.read_text().replace("name: Echo", "name: Echo\n    options: {version: 2}"))
    changed = afw.ok("faq", "export")
    assert QUESTION not in changed.out
    assert "Left out, since not served now: 1 entry (--all has them)." in changed.err
    assert "Left out" not in afw.ok("faq", "export", "--all").err


async def test_the_doctor_tells_what_waits_for_a_person(valkey: Server, tmp_path: Path) -> None:
    async def told(flywheel: Flywheel) -> tuple[str, str] | None:
        return next(((check.state, check.message) for check in await flywheel.doctor() if check.name == "faq"), None)

    async with opened(valkey, tmp_path, {"oracle": (Oracle(), {"options": {"version": "1"}})}) as flywheel:
        assert await told(flywheel) is None
        draft = await flywheel.faq.add(QUESTION, "Hold it.", flow="oracle")
        await flywheel.faq.approve(draft.id, owner="ann")
        assert await told(flywheel) == ("ok", "1 served")
        review = time.time() + 0.2
        await flywheel.faq.approve(draft.id, review_at=review)
        await until(lambda: time.time() >= review, "the moment of its review")
        assert await told(flywheel) == ("warn", "1 served, 1 due")
    async with opened(valkey, tmp_path, {"oracle": (Oracle(), {"options": {"version": "2"}})}) as flywheel:
        assert await told(flywheel) == ("warn", "0 served, 1 stale")


@pytest.mark.parametrize("era", ERAS)
async def test_mcp_clients_read_and_cannot_approve(tmp_path: Path, valkey: Server, era: str) -> None:
    afw = Afw(tmp_path, valkey.url)
    id_ = added(afw, "--wording", "Router reset?")
    hidden = afw.json("faq", "add", "What is a draft?", "--flow", "echo", "--answer", "Hidden.")["entry"]["id"]
    afw.ok("faq", "approve", id_, "--owner", "ann", "--user", "bob")
    async with connected(afw, era) as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}

        async def faq(**arguments: Any) -> dict[str, Any]:
            result = await client.call_tool("flowise_faq", arguments)
            told: dict[str, Any] = result.structured_content or {}
            Draft202012Validator(schemas["flowise_faq"] or {}).validate(told)
            assert "Hidden" not in result.model_dump_json()
            return told

        (entry,) = (await faq())["entries"]
        assert (entry["id"], entry["question"], entry["answer"]) == (id_, QUESTION, "Hold the button.")
        assert (entry["owner"], entry["approved_by"], entry["state"]) == ("ann", "bob", "published")
        assert (await faq(action="get", faq_id=id_))["entries"] == [entry]
        assert (await faq(action="search", query="resetting routers"))["entries"] == [entry]
        assert (await faq(action="search", query="zebra"))["entries"] == []
        assert (await faq(action="list", flow="echo"))["entries"] == [entry]
        assert (await resource(client, "flowise://faq"))["entries"] == [entry]
        assert (await refused(client, "flowise_faq", action="get", faq_id=hidden))["error_type"] == "unknown_faq_entry"
        assert (await refused(client, "flowise_faq", action="search"))["error_type"] == "invalid_input"
        answer = await called(client, "flowise_query", question="router reset", flow_override="echo", session_id="s")
        assert (answer["source"], answer["faq"], answer["text"]) == ("faq", id_, "Hold the button.")
        (turn,) = (await called(client, "flowise_session_history", session_id="s"))["turns"]
        assert turn["faq"] == id_
        afw.ok("faq", "edit", id_, "--answer", "Press it twice.")  # in another process, while this one answers
        afw.ok("faq", "approve", id_)
        again = await called(client, "flowise_query", question=QUESTION, flow_override="echo")
        assert (again["source"], again["text"]) == ("faq", "Press it twice.")
        for user in ("u", "v", "w"):
            await called(client, "flowise_query", question="What is asked a lot?", flow_override="echo", user_id=user)
        (candidate,) = (await faq(action="candidates"))["candidates"]
        assert (candidate["question"], candidate["asked"], candidate["askers"]) == ("What is asked a lot?", 3, 3)
        await called(client, "flowise_report_answer", turn_id=answer["turn_id"], kind="wrong")
        assert (await faq())["entries"] == []


async def test_http_headers_name_the_source() -> None:
    from agentic_flywheel.interfaces.http.caching import provenance_of
    from agentic_flywheel.interfaces.http.openai.writing import provenance
    from agentic_flywheel.model import Answer, Outcome, Reason

    answer = Answer(
        text="So.",
        flow="f",
        flow_id="f",
        flow_name="f",
        session_id="s",
        turn_id="t",
        trace_id="x",
        outcome=Outcome.HIT,
        reason=Reason.CURATED,
        question="Why?",
        source=Origin.FAQ,
        faq="abc",
    )
    headers = provenance_of(answer)
    assert (headers["X-AFW-Source"], headers["X-AFW-FAQ"]) == ("faq", "abc")
    assert (provenance(answer)["source"], provenance(answer)["faq"]) == ("faq", "abc")
