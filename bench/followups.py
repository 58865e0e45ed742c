"""How many follow-ups are answered from another conversation: the measured leak of the word-for-word exception.

    python bench/followups.py [--server valkey|redis|URL] [--json] [FOLDER ...]

In a tenant of its own, every rewritten question (which stands alone) is asked first, in a session of its own. Then
every question as it was really asked, turn by turn, in one session per conversation. Each answer names the question
and the context that it was computed from, and where a hit came from is told by its origin trace. Done twice, without
the exception (`session.verbatim` off) and with it. A follow-up is the second or a later question of its conversation;
it counts as

    same path   answered from a conversation that had said, word for word, the same things before
    alone       answered from another conversation, and its own rewrite is itself: it did stand alone
    leak        answered from another conversation, though its authors had to rewrite it
    refused     not answered from memory, though another conversation began with the same words: what would leak
                if words alone decided

FOLDER holds the sets named in followup_sets.py; default: ../shared/data/history beside the project. Without them
nothing is measured, and this ends with 0. It ends with 1 where a rule is broken: anything at all from another
conversation without the exception, or a leak that carries a marker with it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agentic_flywheel import Flywheel, Outcome
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.model import Exchange
from agentic_flywheel.policy.identity import normalise
from agentic_flywheel.policy.sharing import marker
from followup_sets import Conversation, read_conversations
from private_server import private_server, private_settings

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "history"


class Served(msgspec.Struct, frozen=True):
    """A follow-up that was answered from memory, or that had an answer of the same words refused."""

    kind: str  # same path, alone, leak, refused
    source: str
    conversation: str
    turn: int
    question: str
    rewrite: str
    origin: str  # the conversation and turn whose answer it was, or would have been


class Figures(msgspec.Struct):
    """One run: follow-ups by source, those answered from memory, and how often the flow was asked."""

    followups: Counter[str]
    served: list[Served]
    calls: int = 0

    def count(self, kind: str, source: str = "") -> int:
        return sum(served.kind == kind and source in ("", served.source) for served in self.served)


def tag_of(question: str, history: Sequence[Exchange]) -> str:
    """What the flow answers: a name of the question and of all that was said before."""
    said = json.dumps([question, [(exchange.question, exchange.answer) for exchange in history]])
    return f"{'in context' if history else 'context-free'} {hashlib.blake2b(said.encode(), digest_size=8).hexdigest()}"


async def measure(url: str, conversations: list[Conversation], *, verbatim: bool) -> Figures:
    """Ask everything in a new tenant."""
    figures = Figures(Counter(), [])

    async def answer(question: str, history: Sequence[Exchange]) -> str:
        figures.calls += 1
        return tag_of(question, history)

    with tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
        tenant = f"followups-{'on' if verbatim else 'off'}"
        settings = private_settings(url, folder, tenant=tenant, **{"session.verbatim": verbatim})
        registry = Registry(settings)
        registry.register("tag", answer)
        async with Flywheel.open(settings=settings, registry=registry) as flywheel:
            await _ask_all(flywheel, conversations, figures)
    return figures


async def _ask_all(flywheel: Flywheel, conversations: list[Conversation], figures: Figures) -> None:
    origins: dict[str, tuple[str, int]] = {}
    stand_alone: dict[str, str] = {}  # what was asked first in a session, and where
    for conversation in conversations:
        for turn, asked in enumerate(conversation.questions, 1):
            session = f"alone {conversation.name} {turn}"
            given = await flywheel.ask(asked.rewrite, session=session, flow="tag")
            if not given.text.startswith("context-free"):
                raise SystemExit(f"the first question of a session was given context: {asked.rewrite!r}")
            origins[given.trace_id] = (f"the rewrite of {conversation.name}", turn)
            stand_alone.setdefault(normalise(asked.rewrite), f"the rewrite of {conversation.name}, turn {turn}")
    # Turn by turn through all conversations, so that every question that began one is there to be taken for another's.
    for turn in range(1, max(len(conversation.questions) for conversation in conversations) + 1):
        for conversation in conversations:
            if turn > len(conversation.questions):
                continue
            asked = conversation.questions[turn - 1]
            given = await flywheel.ask(asked.raw, session=conversation.name, flow="tag")
            origins[given.trace_id] = (conversation.name, turn)
            if turn == 1:
                stand_alone.setdefault(normalise(asked.raw), f"{conversation.name}, turn 1")
                continue
            figures.followups[conversation.source] += 1
            needs_context = normalise(asked.raw) != normalise(asked.rewrite)
            if given.outcome is Outcome.HIT:
                name, place = origins[given.origin_trace_id]
                from_stranger = "leak" if needs_context else "alone"
                kind = "same path" if given.text.startswith("in context") else from_stranger
                origin = f"{name}, turn {place}"
            elif needs_context and normalise(asked.raw) in stand_alone:
                kind, origin = "refused", stand_alone[normalise(asked.raw)]
            else:
                continue
            figures.served.append(
                Served(kind, conversation.source, conversation.name, turn, asked.raw, asked.rewrite, origin)
            )


def table(figures: dict[str, Figures]) -> str:
    """The runs as people read them."""
    lines = [f"{'':28}{'follow-ups':>12}{'same path':>11}{'alone':>8}{'leak':>7}{'refused':>10}"]
    for name, run in figures.items():
        lines.append(f"{name} (the flow was asked {run.calls} times)")
        for source, followups in [*sorted(run.followups.items()), ("all", run.followups.total())]:
            of = "" if source == "all" else source
            same, alone, leak, refused = (run.count(kind, of) for kind in ("same path", "alone", "leak", "refused"))
            lines.append(f"  {source:26}{followups:12}{same:11}{alone:8}{leak:7}{refused:10}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[FOLDER], metavar="FOLDER")
    parser.add_argument("--server", default="valkey", help="valkey (default), redis, or a Redis address")
    parser.add_argument("--json", action="store_true", help="figures and the list as JSON")
    given = parser.parse_args()
    conversations = read_conversations(given.folders)
    if not conversations:
        print(f"nothing measured: no follow-up sets in {', '.join(map(str, given.folders))}", file=sys.stderr)
        return 0
    figures: dict[str, Figures] = {}
    with private_server(given.server) as server:
        url = next(iter(server.urls.values()))
        for name, verbatim in (("exception off", False), ("exception on", True)):
            figures[name] = asyncio.run(measure(url, conversations, verbatim=verbatim))
    if given.json:
        print(json.dumps(msgspec.to_builtins(figures), indent=2))
    else:
        print(table(figures))
        for name, run in figures.items():
            print(f"\n{name}: follow-ups answered from another conversation's entry")
            from_others = (served for served in run.served if served.kind in {"alone", "leak"})
            for served in sorted(from_others, key=lambda served: (served.kind, served.source)):
                print(f"  {served.kind:6} {served.conversation}, turn {served.turn}: {served.question}")
                if served.kind == "leak":
                    print(f"         meant: {served.rewrite}\n         served from {served.origin}")
    off, on = figures["exception off"], figures["exception on"]
    broken = off.count("alone") + off.count("leak")
    marked = sum(served.kind == "leak" and bool(marker(served.question)) for served in on.served)
    return int(bool(broken or marked))


if __name__ == "__main__":
    sys.exit(main())
