"""`afw report`, `explain`, `similar` and `proposals`, and similar answers wherever answers are shown."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path

import pytest

from afw_command import Afw, assert_error
from agentic_flywheel.likeness import Proposal
from flywheels import everything
from servers import Server
from similar_command import ALIKE, OFF, ON, STORED, SimilarAfw

ECHO = ("--flow", "echo")


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> SimilarAfw:
    return SimilarAfw(tmp_path, valkey.url)


def test_a_similar_answer_says_which_question_it_was_given_to(afw: SimilarAfw) -> None:
    first = afw.keep(STORED)
    done = afw.alike(ALIKE, "--session", "talk")
    assert done.out == f"You said: {STORED}\n"
    assert re.fullmatch(rf"similar · \d\d+ % like: {re.escape(STORED)} · .* · turn [0-9a-f]{{32}}\n", done.err)
    again = json.loads(afw.alike(ALIKE, "--json").out)
    assert (again["outcome"], again["reason"]) == ("similar", "similar")
    assert (again["matched_question"], again["key"]) == (STORED, first["key"])
    assert 0.99 <= again["similarity"] <= 1
    assert set(afw.asked()) == {STORED}
    shown = afw.ok("session", "show", "talk").out.replace("100 %", "99 %")
    assert "[similar]" in shown
    assert f"99 % like: {STORED}" in shown
    (turn,) = afw.json("session", "show", "talk")["turns"]
    assert turn["matched_question"] == STORED
    figures = afw.ok("cache", "stats", *ECHO).out.splitlines()
    row = dict(zip(re.split(r"\s{2,}", figures[0]), re.split(r"\s{2,}", figures[1]), strict=True))
    assert row["similar"] == "2"
    assert afw.json("cache", "stats", *ECHO)["total"]["outcomes"]["similar"] == 2


def test_ask_explains_what_was_near(afw: SimilarAfw) -> None:
    afw.keep(STORED)
    done = afw.alike(ALIKE, "--explain")
    assert f"% like: {STORED}" in done.err
    assert re.search(rf"\n  similar      (0\.99\d|1\.000)  {re.escape(STORED)} · .*\n +served\n", done.err)
    assert re.search(r"\n  cut          0\.990: ", done.err)
    afw.keep(ON)
    key = afw.ok("cache", "key", OFF, *ECHO).out.strip()
    for _ in range(10):
        refused = afw.ok("ask", OFF, *ECHO, "--explain")
        if ON in refused.err:  # its embedder was loaded in time
            break
        afw.ok("cache", "clear", "--key", key, "--yes")
    assert f"  {ON} · " in refused.err
    assert "enable" in refused.err.partition(ON)[2]
    assert refused.out == f"You said: {OFF}\n"


def test_explain_shows_the_decision_and_does_nothing(afw: SimilarAfw, valkey: Server) -> None:
    afw.keep(STORED)
    afw.keep(ON)
    asked = afw.asked()
    before = everything(valkey)
    shown = afw.json("explain", ALIKE, *ECHO)
    assert (shown["outcome"], shown["flow"], shown["scope"]) == ("similar", "echo", "team")
    nearest = shown["similar"][0]
    assert (nearest["question"], nearest["served"]) == (STORED, True)
    assert len(nearest["guards"]) >= 6
    assert all(guard["passed"] for guard in nearest["guards"])
    assert shown["cut"]["value"] == 0.99
    assert len(afw.json("explain", ALIKE, *ECHO, "--count", "1")["similar"]) == 1

    human = afw.ok("explain", ALIKE, *ECHO, COLUMNS="80").out
    assert human.startswith(f"{ALIKE}\n\ndecision       similar\n")
    assert "echo, as named" in human
    assert shown["key"] in human
    assert "passed: " in human
    assert max(len(line) for line in human.splitlines() if "afw:v1:" not in line) <= 80

    opposite = afw.json("explain", OFF, *ECHO)
    assert opposite["outcome"] == "miss"
    refusal = next(guard for guard in opposite["similar"][0]["guards"] if not guard["passed"])
    assert "enable" in refusal["evidence"]
    assert f"not served: refused by {refusal['guard']}: {refusal['evidence']}" in afw.ok("explain", OFF, *ECHO).out

    assert afw.json("explain", STORED, *ECHO)["outcome"] == "hit"
    assert "You said" not in afw.ok("explain", "-", *ECHO, stdin="Is anybody there?").out
    assert [key for key, value in everything(valkey).items() if before.get(key) != value] == []
    assert afw.asked() == asked
    assert_error(afw.json("explain", ALIKE, "--flow", "ecko", code=1), "unknown_flow")
    assert_error(afw.json("explain", " ", code=2), "invalid_question")
    assert_error(afw.json("explain", ALIKE, "--count", "0", code=2), "invalid_input")


def test_a_wrong_answer_is_reported_and_the_pair_never_merged_again(afw: SimilarAfw) -> None:
    afw.keep(STORED)
    hit = json.loads(afw.alike(ALIKE, "--session", "talk", "--json").out)
    done = afw.ok("report", hit["turn_id"], "--wrong", "--note", "That is another gateway.")
    assert done.out.startswith("echo: reported as wrong, ")
    for word in (
        hit["turn_id"],
        ALIKE,
        f"% like: {STORED}",
        "another gateway",
        "removed        1 entry",
        "never taken",
    ):
        assert word in done.out, word
    assert "A fresh answer:  afw ask" in done.err
    assert afw.json("explain", STORED, *ECHO)["outcome"] == "miss"

    fresh = shlex.split(done.err.partition("A fresh answer:  afw ")[2])
    answer = afw.json(*fresh)
    assert (answer["text"], answer["reason"], answer["session_id"]) == (f"You said: {ALIKE}", "no_cache", "talk")
    afw.keep(STORED)
    for question, other in ((ALIKE, STORED), (STORED, ALIKE)):
        shown = afw.json("explain", question, *ECHO)
        blocked = {near["question"] for near in shown["similar"] if near["blocked"]}
        assert other in blocked, question

    (kept,) = afw.json("similar", "reports", "echo")["reports"]
    assert (kept["kind"], kept["turn_id"], kept["note"]) == ("wrong", hit["turn_id"], "That is another gateway.")
    assert "That is another gateway." in afw.ok("similar", "reports").out


def test_reporting_asks_again_where_that_is_wanted(afw: SimilarAfw) -> None:
    afw.ok("ask", STORED, *ECHO, "--session", "talk")
    done = afw.ok("report", "last", "--outdated", "--fresh", "--session", "talk")
    receipt, _, answer = done.out.rpartition("\n\n")
    assert "reported as outdated" in receipt
    assert answer == f"You said: {STORED}\n"
    assert "miss · no cache" in done.err
    assert afw.asked() == [STORED, STORED]
    both = afw.json("report", "last", "--outdated", "--fresh")
    assert both["receipt"]["report"]["kind"] == "outdated"
    assert both["answer"]["outcome"] == "miss"
    assert afw.json("report", "last", "--outdated", "--user", "")["answer"] is None


def test_a_private_answer_is_kept_for_nobody_else(afw: SimilarAfw) -> None:
    first = afw.json("ask", STORED, *ECHO)
    done = afw.ok("report", first["turn_id"], "--private")
    assert "reported as private" in done.out
    assert "--private" in done.err.partition("A fresh answer: ")[2]
    again = afw.json("ask", STORED, *ECHO)
    assert (again["outcome"], again["reason"]) == ("bypass", "withdrawn")
    assert afw.json("ask", ALIKE, *ECHO)["outcome"] == "miss"
    assert STORED not in afw.ok("similar", "reports").out


@pytest.mark.parametrize("kinds", [(), ("--wrong", "--private")])
def test_a_report_says_exactly_one_thing(afw: SimilarAfw, kinds: tuple[str, ...]) -> None:
    error = afw.json("report", "x", *kinds, code=2)
    assert_error(error, "invalid_input")
    assert "exactly one" in error["error"]


def test_a_turn_that_does_not_exist_cannot_be_reported(afw: SimilarAfw) -> None:
    assert_error(afw.json("report", "last", "--wrong", code=1), "unknown_session")
    afw.ok("ask", STORED, *ECHO, "--session", "talk", "--user", "ann")
    assert_error(afw.json("report", "nothing", "--wrong", code=1), "unknown_turn")
    assert_error(afw.json("report", "nothing", "--wrong", "--session", "talk", code=1), "unknown_turn")
    assert_error(afw.json("report", "last", "--wrong", "--session", "nobody", code=1), "unknown_turn")
    assert_error(afw.json("report", "last", "--wrong", "--user", "bob", "--session", "talk", code=1), "unknown_session")


def test_a_flow_says_how_it_stands(afw: SimilarAfw) -> None:
    afw.learn({"audit:any:95:right": 9, "audit:any:95:wrong": 3})
    status = afw.json("similar", "show", "echo")
    assert (status["terms"]["mode"], status["terms"]["profile"], status["cut"]["value"]) == ("learn", "strict", 0.99)
    assert (status["labels"], status["audits"], status["audits_wrong"]) == (72, 12, 3)
    human = afw.ok("similar", "show", "echo", COLUMNS="80").out
    assert human.startswith("echo: strict, mode learn\n")
    assert re.search(r"\ncut, alone +0\.990: ", human)
    assert set(status["cuts"]) == {"agreed", "alone", "contested"}
    assert "budget         at most 5 % of similar answers may be wrong" in human
    assert re.search(r"measured       25 % wrong \(\d[\d.]* % to \d\d[\d.]* %\)", human)
    assert re.search(r"  0\.99 to 1\.00     60     0  #{30}\n", human)
    assert re.search(r"  0\.95 to 0\.96      9     3  #{5}xx\n", human)
    assert max(map(len, human.splitlines())) <= 80
    rows = [re.split(r"\s{2,}", line) for line in afw.ok("similar", "show").out.splitlines()]
    assert rows[0] == ["flow", "mode", "profile", "cut", "labels", "measured error", "reports"]
    assert [row[:5] for row in rows if row[0] == "echo"] == [["echo", "learn", "strict", "0.990", "72"]]
    assert {row["flow"] for row in afw.json("similar", "show")["flows"]} == {"documents", "echo"}
    assert_error(afw.json("similar", "show", "ecko", code=1), "unknown_flow")


def test_people_decide_what_holds(afw: SimilarAfw) -> None:
    afw.keep(STORED)
    changed = afw.json("similar", "set", "echo", "--profile", "balanced", "--max-error", "2%")
    assert (changed["terms"]["profile"], changed["terms"]["max_error"]) == ("balanced", 0.02)
    assert changed["cut"]["value"] is None
    assert re.search(r"\ncut, alone +[^0].*closed", afw.ok("similar", "show", "echo").out)
    assert afw.json("explain", ALIKE, *ECHO)["outcome"] == "miss"
    kept = afw.json("similar", "set", "echo", "--max-error", "0.05")
    assert (kept["terms"]["profile"], kept["cut"]["value"]) == ("balanced", 0.99)
    assert afw.json("explain", ALIKE, *ECHO)["outcome"] == "similar"
    assert afw.json("similar", "set", "echo", "--mode", "off")["terms"]["mode"] == "off"
    assert afw.json("explain", ALIKE, *ECHO)["outcome"] == "miss"
    assert "a person's choice" in afw.ok("similar", "show", "echo").out.replace("\n" + " " * 15, " ")
    reset = afw.ok("similar", "set", "echo", "--reset")
    assert reset.out.startswith("echo: strict, mode learn\n")
    assert afw.json("explain", ALIKE, *ECHO)["outcome"] == "similar"
    for wrong in ((), ("--reset", "--mode", "off"), ("--max-error", "x"), ("--max-error", "70%"), ("--mode", "on")):
        assert_error(afw.json("similar", "set", "echo", *wrong, code=2), "invalid_input")
    assert_error(afw.json("similar", "set", "ecko", "--mode", "off", code=1), "unknown_flow")


def test_changes_of_the_cut_are_listed_with_their_evidence(afw: SimilarAfw) -> None:
    assert "has not changed" in afw.ok("similar", "changes", "documents").err
    afw.keep(STORED)
    hit = json.loads(afw.alike(ALIKE, "--json").out)
    afw.ok("report", hit["turn_id"], "--wrong")
    changes = afw.json("similar", "changes", "echo")["changes"]
    newest, first = [change for change in changes if change["standing"] == "alone"]
    assert (first["old"], first["new"], first["right"], first["wrong"]) == (None, 0.99, 60, 0)
    assert (newest["old"], newest["new"]) == (0.99, None)  # one wrong of 61 may be more than 5 %
    shown = afw.ok("similar", "changes", "echo").out
    assert "alone: 0.990 -> closed" in shown
    assert "alone: closed -> 0.990 (60 right, 0 wrong, at most 3.76 % wrong)" in shown
    assert "Changes of the cut" in afw.ok("similar", "show", "echo").out
    assert_error(afw.json("similar", "changes", "ecko", code=1), "unknown_flow")


def test_proposals_are_decided_by_people(afw: SimilarAfw) -> None:
    assert "No proposal waits" in afw.ok("proposals").err
    for name, setting, now, proposed in (("p1", "profile", "strict", "balanced"), ("p2", "ttl", "604800", "86400")):
        proposal = Proposal(
            id=name, flow="echo", setting=setting, now=now, proposed=proposed, evidence="300 labels", at=time.time()
        )
        afw.inside(lambda flywheel, proposal=proposal: flywheel._store.similar.put_proposal(proposal))
    listed = afw.ok("proposals")
    assert "echo: profile strict -> balanced" in listed.out
    assert "echo: ttl 7 days -> 1 day" in listed.out
    assert "300 labels" in listed.out
    assert "afw proposals accept ID" in listed.err
    assert {proposal["id"] for proposal in afw.json("proposals")["proposals"]} == {"p1", "p2"}

    accepted = afw.json("proposals", "accept", "p1", "--user", "ann")
    assert (accepted["state"], accepted["decided_by"]) == ("accepted", "ann")
    assert afw.json("similar", "show", "echo")["terms"]["profile"] == "balanced"
    rejected = afw.ok("proposals", "reject", "p2", "--reason", "It never changes.")
    assert "rejected just now" in rejected.out
    assert "It never changes." in rejected.out
    rows = {row["name"]: row for row in afw.json("ttl", "show")["lifetimes"]}
    assert rows["echo"]["ttl_seconds"] == 604800
    assert "No proposal waits" in afw.ok("proposals", "list").err
    assert len(afw.json("proposals", "list", "--all")["proposals"]) == 2
    for action in ("accept", "reject"):
        assert_error(afw.json("proposals", action, "p1", code=1), "unknown_proposal")


def test_without_an_embedder_everything_says_so(tmp_path: Path, valkey: Server) -> None:
    afw = Afw(tmp_path, valkey.url)
    afw.environ["AFW_EMBEDDER_MODEL"] = "off"
    afw.ok("ask", STORED, *ECHO)
    shown = afw.json("explain", ALIKE, *ECHO)
    assert (shown["outcome"], shown["similar"]) == ("miss", [])
    assert "embedder" in " ".join(shown["notes"])
    assert "embedder" in afw.ok("explain", ALIKE, *ECHO).out
    assert "\nembedder       none" in afw.ok("similar", "show", "echo").out
    assert afw.ok("ask", ALIKE, *ECHO, "--explain").err.startswith("miss · not stored")
    hit = afw.json("ask", STORED, *ECHO)
    assert afw.json("report", hit["turn_id"], "--wrong")["receipt"]["removed"]["entries"] == 1
    assert afw.json("ask", STORED, *ECHO)["outcome"] == "miss"


def test_an_answer_is_reported_in_a_conversation(afw: SimilarAfw) -> None:
    afw.ok("ask", STORED, *ECHO)
    done = afw.ok("chat", *ECHO, stdin=f"{STORED}\n/explain\n/report wrong That is another one.\n")
    assert "decision     hit: exact" in done.err
    assert "echo: reported as wrong" in done.out
    assert "That is another one." in done.out
    assert afw.json("explain", STORED, *ECHO)["outcome"] == "miss"
    unsaid = afw.run("chat", *ECHO, stdin="/report wrong\n")
    assert unsaid.code == 2
    assert "Nothing has been asked yet" in unsaid.err
    assert "wrong | outdated | private" in afw.run("chat", *ECHO, stdin=f"{ON}\n/report ugly\n").err
