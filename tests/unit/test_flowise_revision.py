"""What changes the digest of a chatflow, and what must not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from agentic_flywheel.flows.flowise_revision import chatflow_digest
from flowise_replay import RECORDINGS

CHATFLOW = RECORDINGS["chatflow_get"].response["body"]
Edit = Callable[[dict[str, Any], dict[str, Any]], None]


def digest_after(edit: Edit, version: str = "3.1.4") -> str | None:
    chatflow = copy.deepcopy(CHATFLOW)
    graph = json.loads(chatflow["flowData"])
    edit(chatflow, graph)
    chatflow["flowData"] = json.dumps(graph, indent=1)
    return chatflow_digest(chatflow, version)


def nothing(chatflow: dict[str, Any], graph: dict[str, Any]) -> None:
    pass


def inputs(name: str, value: Any) -> Edit:
    def edit(chatflow: dict[str, Any], graph: dict[str, Any]) -> None:
        node = next(node for node in graph["nodes"] if name in node["data"]["inputs"])
        node["data"]["inputs"][name] = value

    return edit


def column(name: str, value: Any) -> Edit:
    return lambda chatflow, graph: chatflow.update({name: value})


def note(chatflow: dict[str, Any], graph: dict[str, Any]) -> None:
    graph["nodes"].append(
        {"id": "stickyNote_0", "type": "stickyNote", "data": {"name": "stickyNote", "inputs": {"note": "x"}}}
    )


def moved(chatflow: dict[str, Any], graph: dict[str, Any]) -> None:
    for node in graph["nodes"]:
        node["position"] = {"x": 77, "y": 7}
        node["selected"] = node["data"]["selected"] = True
        node["width"] = 1
    graph["viewport"]["zoom"] = 3
    graph["nodes"].reverse()
    graph["edges"].reverse()


def recoloured(chatflow: dict[str, Any], graph: dict[str, Any]) -> None:
    for edge in graph["edges"]:
        edge["data"] = {"sourceColor": "#fff"}
        edge["type"] = "other"


def described(chatflow: dict[str, Any], graph: dict[str, Any]) -> None:
    for node in graph["nodes"]:
        node["data"]["description"] = "newer words"
        node["data"]["inputParams"] = []


LOOKS: dict[str, Edit] = {
    "moved": moved,
    "recoloured": recoloured,
    "described": described,
    "note": note,
    "renamed": column("name", "other"),
    "touched": column("updatedDate", "2027-01-01T00:00:00.000Z"),
    "welcome": column("chatbotConfig", '{"welcomeMessage": "x"}'),
    "deployed": column("deployed", True),
    "category": column("category", "x"),
    "rate limit": column("apiConfig", json.dumps(json.loads(CHATFLOW["apiConfig"]) | {"rateLimit": {"limitMax": 3}})),
}
DECISIVE: dict[str, Edit] = {
    "temperature": inputs("temperature", 0.6),
    "model": inputs("modelName", "other"),
    "prompt": inputs("template", "You are verbose. Question: {question}"),
    "unplugged": lambda chatflow, graph: graph["edges"].pop(),
    "removed": lambda chatflow, graph: graph["nodes"].pop(),
    "credential": lambda chatflow, graph: graph["nodes"][0]["data"].update(credential="another"),
    "node version": lambda chatflow, graph: graph["nodes"][0]["data"].update(version=99),
    "overrides": column("apiConfig", '{"overrideConfig": {"status": false}}'),
    "post-processing": column("chatbotConfig", '{"postProcessing": {"enabled": true}}'),
    "follow-ups": column("followUpPrompts", '{"status": true}'),
    "speech": column("speechToText", '{"openAIWhisper": {"status": true}}'),
}


@pytest.mark.parametrize("name", LOOKS)
def test_looks_do_not_change_it(name: str) -> None:
    assert digest_after(LOOKS[name]) == digest_after(nothing)


@pytest.mark.parametrize("name", DECISIVE)
def test_what_decides_answers_changes_it(name: str) -> None:
    assert digest_after(DECISIVE[name]) != digest_after(nothing)


def test_every_decisive_edit_has_a_digest_of_its_own() -> None:
    assert len({digest_after(edit) for edit in DECISIVE.values()}) == len(DECISIVE)


def test_the_version_of_flowise_changes_it() -> None:
    assert digest_after(nothing, "3.1.5") != digest_after(nothing)


def test_the_public_shape_has_a_digest_too() -> None:
    public = RECORDINGS["public_chatbotconfig_private"].response["body"]
    assert chatflow_digest(public, "3.1.4") not in {None, digest_after(nothing)}


@pytest.mark.parametrize(
    "chatflow", [{}, {"flowData": None}, {"flowData": "<html>"}, {"flowData": "{}"}, {"flowData": "[]"}]
)
def test_what_holds_no_flow_has_none(chatflow: dict[str, Any]) -> None:
    assert chatflow_digest(chatflow, "3.1.4") is None
