"""A Flowise that answers from recordings of a real one (3.1.4), deterministic and on a real socket.

    async with ReplayFlowise() as server:      # or `with`, in a thread, for tests that block
        server.url, FLOWS["llm"]               # where it listens, a flow that it knows
        server.answer = lambda asked: ...      # what it says (default: `default_answer`)
        server.calls                           # the predictions that were asked
        server.edit(FLOWS["llm"], temperature=0.1)
        server.queue(FLOWS["llm"], recorded("pred_model_err401"), SILENCE)

`python -m tests.flowise_replay --port 0` runs it as a process and prints its URL.
"""

from __future__ import annotations

from .loopback import DROPPED, SILENCE, LoopbackServer, Reply, Request
from .recorded import RECORDINGS, Recording, recorded
from .server import FLOWS, KEY, Asked, Flow, ReplayFlowise, default_answer

__all__ = [
    "DROPPED",
    "FLOWS",
    "KEY",
    "RECORDINGS",
    "SILENCE",
    "Asked",
    "Flow",
    "LoopbackServer",
    "Recording",
    "ReplayFlowise",
    "Reply",
    "Request",
    "default_answer",
    "recorded",
]
