"""What a caller needs for each tool and resource, where callers are told apart: the service over HTTP.

Invariant: a tool that is not listed here can be used by nobody but the operator; a test holds the table and the tools
together. Over stdio whoever starts the server is the operator, and none of this applies.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from agentic_flywheel.callers import Scope


class Need(StrEnum):
    """What takes more than a scope."""

    OPERATOR = "operator"  # administers what all tenants of the service share


TOOLS: Final[Mapping[str, Scope | Need]] = {
    "coaia_fetch": Need.OPERATOR,  # keys outside of any tenant's
    "coaia_tash": Need.OPERATOR,
    "flowise_add_flow": Need.OPERATOR,
    "flowise_browse": Scope.ASK,
    "flowise_cache_stats": Scope.READ,
    "flowise_clear_cache": Scope.ADMIN,
    "flowise_configure": Need.OPERATOR,  # of a session alone: `OWN_SESSION`
    "flowise_domain_query": Scope.ASK,
    "flowise_faq": Scope.READ,
    "flowise_flow_health": Scope.READ,
    "flowise_list_flows": Scope.ASK,
    "flowise_popular_questions": Scope.READ,
    "flowise_quality_score": Scope.READ,  # of a conversation that is named: `OWN_SESSION`
    "flowise_query": Scope.ASK,
    "flowise_report_answer": Scope.ASK,
    "flowise_search_history": Scope.READ,
    "flowise_session_history": Scope.ASK,
    "flowise_session_info": Scope.ASK,
    "flowise_set_ttl": Scope.ADMIN,
    "flowise_trace_search": Scope.READ,
    "flowise_trace_view": Scope.READ,  # in a conversation that is named: `OWN_SESSION`
    "flowise_usage_analytics": Scope.READ,
    "flowise_warm_cache": Scope.ADMIN,
}
#: With `session_id` these touch that session alone.
OWN_SESSION: Final[Mapping[str, Scope]] = {
    "flowise_configure": Scope.ASK,
    "flowise_quality_score": Scope.ASK,
    "flowise_trace_view": Scope.ASK,
}
#: Tools that keep a caller that is limited to flows to those; it has no others.
BY_FLOW: Final = frozenset(
    {
        "flowise_domain_query",
        "flowise_list_flows",
        "flowise_query",
        "flowise_report_answer",
        "flowise_search_history",
    }
)
#: The same for resources.
RESOURCES_BY_FLOW: Final = frozenset({"flowise://config-schema", "flowise://flows"})
RESOURCES: Final[Mapping[str, Scope | Need]] = {
    "flowise://cache-metrics": Scope.READ,
    "flowise://config-schema": Scope.ASK,
    "flowise://faq": Scope.READ,
    "flowise://flow-health": Scope.READ,
    "flowise://flows": Scope.ASK,
    "flowise://sessions": Scope.READ,
    "flowise://traces": Scope.READ,
}


def need_of_tool(name: str, *, session: bool = False) -> Scope | Need:
    """What a caller needs for a tool; `session` says that a session is named."""
    if session and name in OWN_SESSION:
        return OWN_SESSION[name]
    return TOOLS.get(name, Need.OPERATOR)


def need_of_resource(uri: str) -> Scope | Need:
    """What a caller needs for a resource."""
    return RESOURCES.get(uri, Need.OPERATOR)
