"""Where flows may be that somebody adds from elsewhere than this machine's command line.

Invariant: API keys in the environment of a process are only ever sent to machines that a person named on it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from agentic_flywheel.errors import InputError
from agentic_flywheel.flows.protocol import FlowSpec


def admit_known_address(address: str, flows: Sequence[FlowSpec]) -> None:
    """Refuse a machine that is neither this one nor one that a flow is on. Raises `InputError`."""
    origin = _origin(address)
    host = origin[1]
    known = {_origin(spec.base_url) for spec in flows if spec.base_url}
    if host == "localhost" or re.fullmatch(r"127(\.\d{1,3}){3}|::1", host) or origin in known:
        return
    raise InputError(
        f"flows at {address!r} are added by a person: no flow of the registry is there yet",
        suggestions=(
            "Ask a person to add it: `afw flow add` (docs/configuration.md).",
            "Use an address that a flow of the registry is on already: `afw flow list` (MCP: flowise_list_flows).",
            "Leave base_url out if the flow is on the registry's own Flowise.",
        ),
        address=address,
    )


def _origin(address: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(address)
        origin = parts.scheme, (parts.hostname or "").casefold(), parts.port
        if origin[0] not in {"http", "https"} or not origin[1]:
            raise ValueError(address)  # noqa: TRY301 -- the same refusal as for what cannot be parsed
    except ValueError as error:
        raise InputError(
            f"{address!r} is not the address of a service",
            suggestions=(
                "Write it with scheme, host and port: http://127.0.0.1:3000.",
                "Leave base_url out if the flow is on the registry's own Flowise.",
                "Look at the addresses of other flows with `afw flow list` (MCP: flowise_list_flows).",
            ),
            address=address,
        ) from error
    return origin
