"""What of a chatflow decides its answers, as a digest.

Invariant: pure. The digest stays the same under everything that is only looks or housekeeping (positions, sizes,
selection, the order of nodes, names, welcome messages, rate limits, dates) and changes with everything else that
Flowise shows: inputs of nodes, connections, prompts, models, allowed overrides, post-processing, Flowise's version.
Not visible to anybody who asks Flowise for a chatflow, and so not covered: the values of credentials and variables,
custom tools, the contents of document stores, flows called by this one, and the model behind a name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from agentic_flywheel.flows.replies import json_or_none

_NODE_PARTS = ("name", "label", "version", "inputs", "outputs", "credential")
_EDGE_PARTS = ("source", "sourceHandle", "target", "targetHandle")


def chatflow_digest(chatflow: Mapping[str, Any], version: str) -> str | None:
    """The digest of a chatflow as Flowise `version` gives it, None where it holds no flow.

    Both shapes are read: the full one (`GET /chatflows/{id}`) and the public one (`GET /public-chatbotConfig/{id}`),
    which lacks credentials, types and allowed overrides; so their digests of one flow differ.
    """
    flow = _parsed(chatflow.get("flowData"))
    if not isinstance(flow, dict) or not isinstance(flow.get("nodes"), list):
        return None
    edges = flow.get("edges")
    decisive = {
        "type": chatflow.get("type"),
        "nodes": sorted((_node(node) for node in flow["nodes"] if _counts(node)), key=_canonical),
        "edges": sorted(
            ([edge.get(part) for part in _EDGE_PARTS] for edge in edges or [] if isinstance(edge, dict)), key=_canonical
        ),
        "overrides": _part(chatflow.get("apiConfig"), "overrideConfig"),
        "post_processing": _part(chatflow.get("chatbotConfig"), "postProcessing"),
        "follow_up_prompts": _parsed(chatflow.get("followUpPrompts")),
        "speech_to_text": _parsed(chatflow.get("speechToText")),
        "version": version,
    }
    return digest_of(decisive)


def digest_of(decisive: Any) -> str:
    """128 bits of SHA-256 over canonical JSON, in hexadecimal digits."""
    return hashlib.sha256(_canonical(decisive).encode()).hexdigest()[:32]


def _counts(node: Any) -> bool:
    return isinstance(node, dict) and node.get("type") != "stickyNote" and _inner(node).get("name") != "stickyNote"


def _node(node: dict[str, Any]) -> dict[str, Any]:
    inner = _inner(node)
    return {"id": node.get("id")} | {part: inner[part] for part in _NODE_PARTS if part in inner}


def _inner(node: dict[str, Any]) -> dict[str, Any]:
    inner = node.get("data")
    return inner if isinstance(inner, dict) else {}


def _parsed(value: Any) -> Any:
    """Flowise keeps JSON within JSON as text."""
    return json_or_none(value) if isinstance(value, str) and value else value


def _part(value: Any, name: str) -> Any:
    parsed = _parsed(value)
    return parsed.get(name) if isinstance(parsed, dict) else None


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
