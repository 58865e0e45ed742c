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
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from afw_command import Afw
from http_process import served
from servers import Servers

_EXAMPLES = int(os.environ.get("AFW_FUZZ_EXAMPLES", "0"))
_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
_BOUNDED = settings(
    max_examples=_EXAMPLES or 2,
    derandomize=not _EXAMPLES,
    database=None,
    deadline=None,
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
    asked = requests.post(
        f"{url}/api/v2/ask", json={"question": "How long?", "flow": "echo", "session_id": "monday"}, timeout=60
    )
    assert asked.status_code == 200, asked.text
    return {"session_id": "monday", "turn_id": asked.json()["turn_id"], "flow": "echo", "key": asked.json()["key"]}


def _tried(operation: Any, mode: GenerationMode, places: Mapping[str, str], session: requests.Session) -> None:
    """Generated requests of one operation; those with `places` lead to what is there."""
    fixed = {"path_parameters": dict(places)} if places else {}

    @_BOUNDED
    @given(case=operation.as_strategy(mode, **fixed))
    def once(case: schemathesis.Case) -> None:
        case.call_and_validate(session=session, checks=_CHECKS, timeout=60)

    once()


def test_generated_requests_find_no_server_error_and_nothing_undocumented(url: str, known: Mapping[str, str]) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/api/v2/openapi.json")
    tried, failures = 0, []
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()
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
