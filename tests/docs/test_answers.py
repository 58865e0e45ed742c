"""The documentation answers what people ask it first: `afw ask` works right after installation."""

from __future__ import annotations

import pytest

from agentic_flywheel.flows.documents import DocumentsClient
from agentic_flywheel.flows.protocol import FlowQuestion, FlowSpec, answer_of
from pages import DOCS, PAGES

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("How long are answers kept?", "7 days"),
        ("How do I change the TTL of a flow?", "afw ttl set"),
        ("Where is the data stored?", "~/.local/share/agentic-flywheel/redis"),
        ("How do I use my own Redis?", "AFW_REDIS_URL"),
        ("What happens when Redis is down?", "still answered"),
        ("How do I forget a session?", "afw session delete"),
        ("How do I clear the cache of a flow?", "afw cache clear --flow"),
        ("How do I resume a session?", "afw ask --session"),
        ("How do I add a Flowise chatflow?", "afw flow add"),
        ("What happens when a flow changes?", "flow_changed"),
        ("Why was my question not answered from the cache?", "--explain"),
        ("Can I use Redis Cluster?", "redis+cluster://"),
        ("How do I keep my question private?", "--no-store"),
        ("What does the outcome bypass mean?", "no answer is stored"),
        ("Which rights does the Redis user need?", "ACL SETUSER"),
        ("How do I register a Python function as a flow?", "register("),
    ],
)
async def test_common_questions_are_answered(question: str, said: str) -> None:
    client = DocumentsClient(FlowSpec(key="d", id="d", kind="documents", options={"folder": str(DOCS)}))
    answer = await answer_of(client.stream(FlowQuestion(text=question)))
    assert said in answer.text
    assert answer.complete
    pages = {str(page.relative_to(DOCS)) for page in PAGES if DOCS in page.parents}
    assert {source.uri.partition("#")[0] for source in answer.sources} <= pages
