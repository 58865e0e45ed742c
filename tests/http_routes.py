"""Who may do what over HTTP: every route of the service has its row here, and a route without one fails a test.

A row is the route's methods and pattern (`*`: every method), the scope that it needs (`public`: nobody has to say who
they are; `inside`: any caller, the route decides by what it is asked), and a path that fits.
"""

from __future__ import annotations

from agentic_flywheel.interfaces.http.routes import AccessRoute
from rest_routes import REST

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
    "GET /report": ("ask", "/report?session=nowhere&turn=none"),
    "GET /report.json": ("ask", "/report.json?session=nowhere&turn=none"),
    "POST /report": ("ask", "/report"),
    "GET /reports": ("read", "/reports"),
    "GET /reports.json": ("read", "/reports.json"),
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


def row_of(route: AccessRoute) -> str:
    """The name of a route's row."""
    methods = " ".join(sorted(route.methods - {"HEAD"})) if route.methods else "*"
    return f"{methods} {route.path}"
