"""Who may do what over HTTP: every route of the service has its row here, and a route without one fails a test.

A row is the route's methods and pattern (`*`: every method), the scope that it needs (`public`: nobody has to say who
they are; `inside`: any caller, the route decides by what it is asked), and a path that fits.
"""

from __future__ import annotations

from agentic_flywheel.interfaces.http.routes import AccessRoute
from rest_routes import REST, REST_BY_FLOW

ROWS: dict[str, tuple[str, str]] = {
    "GET /healthz": ("public", "/healthz"),
    "GET /readyz": ("public", "/readyz"),
    "GET /": ("inside", "/"),
    "GET /index.json": ("inside", "/index.json"),
    "GET /sessions": ("ask", "/sessions"),
    "GET /sessions.json": ("ask", "/sessions.json"),
    "GET /session": ("ask", "/session?id=nowhere"),
    "GET /session.json": ("ask", "/session.json?id=nowhere"),
    "GET /session/export": ("ask", "/session/export?id=nowhere"),
    "POST /session/title": ("ask", "/session/title"),
    "POST /ask": ("ask", "/ask"),
    "GET /search": ("read", "/search?q=deploy"),
    "GET /search.json": ("read", "/search.json"),
    "GET /why": ("ask", "/why?session=nowhere&turn=none"),
    "GET /why.json": ("ask", "/why.json?session=nowhere&turn=none"),
    "POST /why/clear": ("admin", "/why/clear"),
    "GET /report": ("ask", "/report?session=nowhere&turn=none"),
    "GET /report.json": ("ask", "/report.json?session=nowhere&turn=none"),
    "POST /report": ("ask", "/report"),
    "GET /reports": ("read", "/reports"),
    "GET /reports.json": ("read", "/reports.json"),
    "GET /faq": ("read", "/faq"),
    "GET /faq.json": ("read", "/faq.json"),
    "GET /faq/export": ("read", "/faq/export"),
    "GET /faq/entry": ("read", "/faq/entry"),
    "GET /faq/entry.json": ("read", "/faq/entry.json"),
    "POST /faq/save": ("admin", "/faq/save"),
    "POST /faq/approve": ("admin", "/faq/approve"),
    "POST /faq/judge": ("admin", "/faq/judge"),
    "POST /faq/retire": ("admin", "/faq/retire"),
    "GET /popular": ("read", "/popular"),
    "GET /popular.json": ("read", "/popular.json"),
    "GET /popular/paths": ("read", "/popular/paths?question=What"),
    "GET /popular/paths.json": ("read", "/popular/paths.json?question=What"),
    "GET /flows": ("read", "/flows"),
    "GET /flows.json": ("read", "/flows.json"),
    "GET /flows/flow": ("read", "/flows/flow?key=nothing"),
    "GET /flows/flow.json": ("read", "/flows/flow.json?key=nothing"),
    "POST /flows/ttl": ("admin", "/flows/ttl"),
    "POST /flows/similar": ("admin", "/flows/similar"),
    "POST /flows/sharing": ("admin", "/flows/sharing"),
    "POST /flows/clear": ("admin", "/flows/clear"),
    "GET /proposals": ("read", "/proposals"),
    "GET /proposals.json": ("read", "/proposals.json"),
    "POST /proposals/decide": ("admin", "/proposals/decide"),
    "GET /warming": ("read", "/warming"),
    "GET /warming.json": ("read", "/warming.json"),
    "GET /warming/job": ("read", "/warming/job?id=w-nothing"),
    "GET /warming/job.json": ("read", "/warming/job.json?id=w-nothing"),
    "POST /warming/begin": ("admin", "/warming/begin"),
    "POST /warming/stop": ("admin", "/warming/stop"),
    "POST /warming/resume": ("admin", "/warming/resume"),
    "GET /privacy": ("ask", "/privacy"),
    "GET /privacy.json": ("ask", "/privacy.json"),
    "POST /privacy/policy": ("admin", "/privacy/policy"),
    "POST /privacy/forget": ("ask", "/privacy/forget"),
    "GET /privacy/data": ("ask", "/privacy/data"),
    "GET /privacy/data.json": ("ask", "/privacy/data.json"),
    "GET /privacy/data/file": ("ask", "/privacy/data/file"),
    "GET /privacy/audit": ("admin", "/privacy/audit"),
    "GET /privacy/audit.json": ("admin", "/privacy/audit.json"),
    "GET /health": ("admin", "/health"),
    "GET /health.json": ("admin", "/health.json"),
    "GET /settings": ("admin", "/settings"),
    "GET /settings.json": ("admin", "/settings.json"),
    "GET /signin": ("public", "/signin"),
    "POST /signin": ("public", "/signin"),
    "POST /signout": ("public", "/signout"),
    "POST /preferences": ("public", "/preferences"),
    "GET /live": ("read", "/live?seconds=0"),
    "GET /live/session": ("ask", "/live/session?id=nowhere"),
    "GET /static/{digest}/{name:path}": ("public", "/static/0/console.css"),
    "GET /problems/{code}": ("public", "/problems/unknown_flow"),
    "GET /metrics": ("metrics", "/metrics"),
    "GET /whoami": ("inside", "/whoami"),
    "POST /v1/chat/completions": ("ask", "/v1/chat/completions"),
    "GET /v1/models": ("ask", "/v1/models"),
    "GET /v1/models/{model:path}": ("ask", "/v1/models/documents"),
    "POST /mcp": ("inside", "/mcp"),
    "POST /api/v1/prediction/{id}": ("ask", "/api/v1/prediction/1"),
    "* /api/v1/{path:path}": ("ask", "/api/v1/ping"),
}
ROWS |= {name.replace(" ", " /api/v2", 1): (needs, f"/api/v2{path}") for name, (needs, path) in REST.items()}
#: Routes that keep a caller that is limited to flows to those; all others are closed to it.
BY_FLOW = frozenset(
    {
        "GET /whoami",
        "POST /v1/chat/completions",
        "GET /v1/models",
        "GET /v1/models/{model:path}",
        "POST /mcp",
        "POST /api/v1/prediction/{id}",
        "* /api/v1/{path:path}",
        *(name.replace(" ", " /api/v2", 1) for name in REST_BY_FLOW),
    }
)


def row_of(route: AccessRoute) -> str:
    """The name of a route's row."""
    methods = " ".join(sorted(route.methods - {"HEAD"})) if route.methods else "*"
    return f"{methods} {route.path}"
