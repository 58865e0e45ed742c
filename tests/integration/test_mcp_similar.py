"""Similar answers and reports over MCP, with the official client in both protocol eras."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from jsonschema import Draft202012Validator
from mcp import Client

from mcp_process import ERAS, called, connected, refused
from servers import Server
from similar_command import ALIKE, OFF, ON, STORED, SimilarAfw

pytestmark = pytest.mark.anyio


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> SimilarAfw:
    return SimilarAfw(tmp_path, valkey.url)


async def ready(client: Client) -> None:
    """Store a question's answer, and wait until the server, which loads its embedder behind the scenes, compares."""
    stored = await called(client, "flowise_query", question=STORED, flow_override="echo")
    assert (stored["outcome"], stored["similarity"], stored["matched_question"]) == ("miss", None, "")
    asked = {"question": ALIKE, "flow_override": "echo", "only_if_cached": True}
    with anyio.fail_after(60):
        while (await client.call_tool("flowise_query", asked)).is_error:  # noqa: ASYNC110 (another process: no Event)
            await anyio.sleep(0.02)


@pytest.mark.parametrize("era", ERAS)
async def test_a_similar_answer_carries_what_it_was_given_to(afw: SimilarAfw, era: str) -> None:
    async with connected(afw, era) as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        await ready(client)
        result = await client.call_tool(
            "flowise_query", {"question": ALIKE, "flow_override": "echo", "session_id": "s"}
        )
        answer = result.structured_content or {}
        Draft202012Validator(schemas["flowise_query"] or {}).validate(answer)
        assert (answer["outcome"], answer["reason"], answer["text"]) == ("similar", "similar", f"You said: {STORED}")
        assert answer["matched_question"] == STORED
        assert 0.99 <= answer["similarity"] <= 1
        weighed = [candidate for candidate in answer["considered"] if candidate["similarity"] is not None]
        assert [(candidate["question"], candidate["refusals"]) for candidate in weighed] == [(STORED, [])]
        provenance = result.content[1]
        assert provenance.type == "text"
        assert provenance.text.startswith("From memory (similar, similarity ")
        assert repr(STORED) in provenance.text
        history = await called(client, "flowise_session_history", session_id="s")
        assert [turn["matched_question"] for turn in history["turns"]] == [STORED]

        await called(client, "flowise_query", question=ON, flow_override="echo")
        opposite = await called(client, "flowise_query", question=OFF, flow_override="echo")
        assert opposite["outcome"] == "miss"
        (near,) = [candidate for candidate in opposite["considered"] if candidate["question"] == ON]
        assert any("enable" in refusal for refusal in near["refusals"])


@pytest.mark.parametrize("era", ERAS)
async def test_a_reported_answer_is_served_no_more(afw: SimilarAfw, era: str) -> None:
    async with connected(afw, era) as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        await ready(client)
        hit = await called(client, "flowise_query", question=ALIKE, flow_override="echo", session_id="s")
        assert hit["outcome"] == "similar"
        result = await client.call_tool(
            "flowise_report_answer",
            {"turn_id": hit["turn_id"], "kind": "wrong", "note": "Not that gateway.", "fresh": True, "user_id": "ana"},
        )
        report = result.structured_content or {}
        Draft202012Validator(schemas["flowise_report_answer"] or {}).validate(report)
        assert (report["kind"], report["turn_id"], report["session_id"]) == ("wrong", hit["turn_id"], "s")
        assert (report["question"], report["matched_question"]) == (ALIKE, STORED)
        assert (report["note"], report["by"], report["removed"]["entries"]) == ("Not that gateway.", "ana", 1)
        assert report["blocked"] == [ALIKE, STORED]
        assert report["done"]
        assert (report["answer"]["outcome"], report["answer"]["text"]) == ("miss", f"You said: {ALIKE}")
        said, text, provenance = (block.text for block in result.content if block.type == "text")
        assert said.startswith("Reported as wrong: ")
        assert all(sentence in said for sentence in report["done"])
        assert text == f"You said: {ALIKE}"
        assert provenance.startswith("Computed now (miss, no_cache)")

        stored = await called(client, "flowise_query", question=STORED, flow_override="echo")
        assert (stored["outcome"], stored["text"]) == ("miss", f"You said: {STORED}")


async def test_what_is_private_stays_out(afw: SimilarAfw) -> None:
    async with connected(afw) as client:
        await called(client, "flowise_query", question=STORED, flow_override="echo", session_id="s")
        report = await called(client, "flowise_report_answer", turn_id="last", kind="private", session_id="s")
        assert (report["question"], report["answer"]) == ("", None)
        again = await called(client, "flowise_query", question=STORED, flow_override="echo")
        assert (again["outcome"], again["reason"], again["key"]) == ("bypass", "withdrawn", None)
        error = await refused(client, "flowise_report_answer", turn_id="last", kind="wrong")
        assert error["error_type"] == "invalid_input"
