"""`afw serve --demo`: a service to look around in, with a Redis and a team's history of its own, all of it temporary.

Invariant: nothing of the user's is read or written: no Redis, registry, data or session. The folder and the server in
it are gone when the service has ended.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentic_flywheel.flywheel import Flywheel
from agentic_flywheel.interfaces.http import demo_flow
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.embedded import EmbeddedServer

_REGISTRY = """\
flows:
  documents:
    kind: documents
    folder: package:documentation
    name: Documentation
    description: Answers from the documentation of Agentic Flywheel, word for word.
    type: document
    intent_keywords: [flywheel, cache, session, redis, afw]
  assistant:
    kind: python
    callable: agentic_flywheel.interfaces.http.demo_flow:answer
    name: Assistant
    description: Stands for a model that takes its time; it knows the team of a small shop.
    type: technical
    intent_keywords: [deploy, invoice, release, staging, password]
"""

#: What the team has asked so far: who, in which session, which flow, what.
_ASKED = (
    ("ann", "ann-release", "assistant", "How do I deploy to staging?"),
    ("ann", "ann-release", "assistant", "And how do I roll that back?"),
    ("ann", "ann-release", "assistant", "Who has to approve a release?"),
    ("bob", "bob-onboarding", "assistant", "How do I reset a customer's password?"),
    ("bob", "bob-onboarding", "documents", "How do I resume a session?"),
    ("bob", "bob-onboarding", "documents", "What happens when Redis is down?"),
    ("bob", "bob-deploy", "assistant", "how do I deploy to staging"),
    ("chloe", "chloe-factures", "assistant", "Quand les factures sont-elles envoyées ?"),
    ("chloe", "chloe-factures", "assistant", "When are invoices sent?"),
    ("chloe", "chloe-deploy", "assistant", "How do I deploy to staging?"),
    ("dan", "dan-first-day", "assistant", "How do I deploy to staging?"),
    ("dan", "dan-first-day", "assistant", "Where are the logs of staging?"),
    ("dan", "dan-first-day", "documents", "How long are answers kept?"),
    ("dan", "dan-support", "assistant", "How do I reset a customer's password?"),
    ("eve", "eve-billing", "assistant", "When are invoices sent?"),
    ("eve", "eve-billing", "assistant", "How do I refund an order?"),
    ("eve", "eve-billing", "documents", "How do I forget a session?"),
    ("eve", "eve-review", "assistant", "Who has to approve a release?"),
)


@contextmanager
def demonstration(settings: Settings) -> Iterator[Settings]:
    """The settings of a demo whose server runs and whose history is there; all of it ends with the block."""
    folder = Path(tempfile.mkdtemp(prefix="afw-demo-"))
    server: EmbeddedServer | None = None
    try:
        registry = folder / "flow-registry.yaml"
        registry.write_text(_REGISTRY, "utf-8")
        given = {"data_dir": str(folder / "data"), "registry": str(registry), "tenant": "demo"}
        # Whoever looks around on a busy machine should see answers kept.
        own = settings.overlaid({**given, "redis.command_timeout_seconds": 2.0})
        server = EmbeddedServer(own)
        own = own.overlaid({"redis_url": f"unix://{server.ensure_now()}?db=0"})
        asyncio.run(_ask_around(own))
        yield own
    finally:
        if server is not None:
            server.stop_now()
        shutil.rmtree(folder, ignore_errors=True)


async def _ask_around(settings: Settings) -> None:
    """Have the team ask what it asked."""
    pause, demo_flow.pause_seconds = demo_flow.pause_seconds, 0.0
    try:
        async with Flywheel.open(settings=settings) as flywheel:
            for user, session, flow, question in _ASKED:
                await flywheel.ask(question, session=session, flow=flow, user=user)
            await flywheel.sessions.rename("ann-release", "Releasing the shop")
            await flywheel.sessions.tag("ann-release", add=["release"])
            await flywheel.settled()
    finally:
        demo_flow.pause_seconds = pause
