"""New ids: their form, and that no thread and no forked process draws another's."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator

import pytest

from agentic_flywheel.identifiers import new_id, new_session_id


@pytest.fixture
def hasty_switching() -> Iterator[None]:
    """Threads that take turns as often as possible."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_ids_have_their_form_and_never_repeat() -> None:
    ids = [new_id() for _ in range(5000)]
    sessions = [new_session_id() for _ in range(5000)]
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)
    assert all(re.fullmatch("s-[0-9a-f]{16}", one) for one in sessions)
    assert len({*ids, *sessions}) == 10_000
    assert len({one[:8] for one in ids}) > 4990  # random from the first digit on


def test_a_forked_child_draws_others_than_its_parent() -> None:
    new_id()  # now a batch is at hand, which the child inherits
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, " ".join(new_id() for _ in range(300)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as lines:
        theirs = lines.read().split()
    assert os.waitpid(child, 0)[1] == 0
    ours = [new_id() for _ in range(300)]
    assert len({*theirs, *ours}) == 600


@pytest.mark.usefixtures("hasty_switching")
def test_threads_draw_different_ids() -> None:
    drawn: list[list[str]] = [[] for _ in range(4)]
    start = threading.Barrier(4)

    def draw(mine: list[str]) -> None:
        start.wait()
        mine += [new_id() for _ in range(5000)]

    threads = [threading.Thread(target=draw, args=(mine,)) for mine in drawn]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for mine in drawn for one in mine}) == 20_000
