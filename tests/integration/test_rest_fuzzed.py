"""The REST interface under generated requests: no server error, and nothing that its own document does not say.

A few examples of each operation, always the same ones; with `AFW_FUZZ_EXAMPLES=100` so many, and others each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from traceback import format_exception_only
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from afw_command import Afw
from http_process import served
from servers import Servers

pytestmark = pytest.mark.xdist_group("rest_fuzzed")

_EXAMPLES = int(os.environ.get("AFW_FUZZ_EXAMPLES", "0"))
#: Codes with which the service says in its own words that others do not do what was asked: a flow that is not there, a
#: memory without the answer that was to come from it (RFC 9111: 504).
_OF_OTHERS = {"not_cached", "flow_unavailable", "flow_timeout", "flow_missing", "flow_garbled", "flow_error"}


def no_server_error(_context: Any, response: Any, _case: Any) -> None:
    """Whatever is sent, the service does not fail."""
    if response.status_code >= 500:
        assert response.json()["code"] in _OF_OTHERS, response.text


_CHECKS = [
    no_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
_BOUNDED = settings(
    max_examples=_EXAMPLES or 2,
    derandomize=not _EXAMPLES,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[str]:
    home = Afw(tmp_path_factory.mktemp("fuzzed"), servers.get("valkey9").url)
    with served(home) as server:
        yield server.url


@pytest.fixture(scope="module")
def known(url: str) -> Mapping[str, str]:
    """Parts of paths that lead to something."""
    api = f"{url}/api/v2"

    def made(path: str, **body: Any) -> Any:
        response = requests.post(api + path, json=body, timeout=180)
        assert response.ok, response.text
        return response.json()

    for session in ("monday", "tuesday"):
        asked = made("/ask", question="How long?", flow="echo", session_id=session)
    return {
        "session_id": "tuesday",
        "other_id": "monday",
        "turn_id": asked["turn_id"],
        "key": asked["key"],
        "flow": "echo",
        "name": "technical",
        "faq_id": made("/faq/entries", question="How?", answer="So.", flow="echo")["entry"]["id"],
        "job": made("/warm-ups", questions=[{"question": "Why?", "flow": "echo"}])["job"],
        "key_name": made("/keys", name="widget", scopes=["ask"])["key"]["id"],
        "value_key": "note",
    }


def _last(operation: Any) -> bool:
    """Whether it removes something that others need."""
    return operation.method == "delete" or operation.path.endswith(("/forget", "/clear", "/retire"))


def _tried(operation: Any, mode: GenerationMode, places: Mapping[str, str], session: requests.Session) -> None:
    """Generated requests of one operation; those with `places` lead to what is there."""
    fixed = {"path_parameters": dict(places)} if places else {}

    @_BOUNDED
    @given(case=operation.as_strategy(mode, **fixed))
    def once(case: schemathesis.Case) -> None:
        if operation.path.endswith("/events") and str((case.query or {}).get("seconds", 300)).isdigit():
            case.query = {**(case.query or {}), "seconds": 1}  # else it goes on for minutes
        case.call_and_validate(session=session, checks=_CHECKS, timeout=180)

    once()


def test_generated_requests_find_no_server_error_and_nothing_undocumented(url: str, known: Mapping[str, str]) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/api/v2/openapi.json")
    tried, failures = 0, list[str]()
    with requests.Session() as session:
        for operation in sorted((found.ok() for found in schema.get_all_operations()), key=_last):
            names = [parameter.name for parameter in operation.path_parameters]
            places = {name: known[name] for name in names} if names and all(name in known for name in names) else {}
            for mode in GenerationMode:
                if mode is GenerationMode.NEGATIVE and not (operation.query or operation.body):
                    continue
                try:
                    _tried(operation, mode, places, session)
                except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 -- all of them are shown together
                    failures.append("".join([f"{operation.label} ({mode.value}): ", *format_exception_only(error)]))
            tried += 1
    assert tried
    assert not failures, "\n\n".join(failures)
