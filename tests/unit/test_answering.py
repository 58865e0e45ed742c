"""What answers repeated requests relies on uvicorn's inside, and steps aside where that is another one."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from agentic_flywheel.interfaces.http.answering import fits
from agentic_flywheel.interfaces.http.slow_clients import impatient


def test_this_release_has_what_is_relied_on() -> None:
    assert fits(impatient(1.0))


def test_a_release_without_it_is_left_alone() -> None:
    class Other(HttpToolsProtocol):
        def _start_asgi_task(self, cycle: Any, app: Any, context: Any = None) -> None:
            """As a later release may have it."""

    assert not fits(Other)
    assert not fits(object)
