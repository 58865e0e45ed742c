"""The log: two forms, and what is left out of both."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from agentic_flywheel.errors import SettingsError
from agentic_flywheel.interfaces.http.logs import log_request, log_to_stderr

pytestmark = pytest.mark.anyio
SECRET = "SECRETWORD"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, level, handlers = logging.root, logging.root.level, logging.root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def fail() -> None:
    try:
        int(SECRET)
    except ValueError as error:
        raise RuntimeError(f"about {SECRET}") from error


def log_everything() -> None:
    log = logging.getLogger("agentic_flywheel.test")
    log.info("asked", extra={"facts": {"method": "GET", "route": "/a", "status": 200, "ms": 1.5, "caller": ""}})
    try:
        fail()
    except RuntimeError:
        log.exception("it failed (error id %s)", "abc")
    logging.getLogger("asyncio").error(f"Task exception was never retrieved\nfuture: <Task exception=V('{SECRET}')>")
    logging.getLogger("asyncio").error(f"Exception in callback f('{SECRET}')()\nhandle: <Handle f('{SECRET}')>")
    logging.getLogger("httpx2").info(f"HTTP Request: POST http://flow/{SECRET}")
    log.debug(f"debug {SECRET}")


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("json", level="INFO")
    log_everything()
    said = capsys.readouterr().err
    assert SECRET not in said
    asked, failed, *others = [json.loads(line) for line in said.splitlines()]
    assert (asked["message"], asked["route"], asked["status"], asked["level"]) == ("asked", "/a", 200, "INFO")
    assert asked["time"].endswith("+00:00")
    assert [one["type"] for one in failed["exceptions"]] == ["ValueError", "RuntimeError"]
    assert "fail" in failed["exceptions"][0]["at"][0]
    assert [other["message"] for other in others] == ["Task exception was never retrieved", "Exception in callback f"]


def test_text_is_for_people_and_as_discreet(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("text", level="INFO")
    log_everything()
    said = capsys.readouterr().err
    assert SECRET not in said
    assert "INFO agentic_flywheel.test: asked ms=1.5\n" in said
    assert "ValueError at " in said


def test_who_debugs_sees_everything(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("text", level="debug")
    log_everything()
    assert f"debug {SECRET}" in capsys.readouterr().err


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingsError, match="LOUD"):
        log_to_stderr("text", level="LOUD")


async def test_lines_of_requests_keep_their_order_among_others(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("text")
    facts = {"method": "GET", "status": 200}
    for route in ("/a", "/b"):
        log_request(facts | {"route": route})
    logging.getLogger("agentic_flywheel.test").warning("between")
    log_request(facts | {"route": "/c"})
    await asyncio.sleep(0)  # nothing waits longer than this turn of the loop
    said = [line.split(": ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert said == ["GET /a 200", "GET /b 200", "between", "GET /c 200"]
