"""Who may do what over REST: the rows of `http_routes` for `/api/v2`."""

from __future__ import annotations

REST: dict[str, tuple[str, str]] = {
    "GET /openapi.json": ("public", "/openapi.json"),
    "GET /docs": ("public", "/docs"),
    "POST /ask": ("ask", "/ask"),
    "POST /ask/stream": ("ask", "/ask/stream"),
    "POST /explain": ("ask", "/explain"),
    "POST /key": ("ask", "/key"),
    "POST /reports": ("ask", "/reports"),
    "GET /sessions": ("ask", "/sessions?user_id=ann"),
    "POST /sessions/sweep": ("admin", "/sessions/sweep"),
    "GET /sessions/{session_id}": ("ask", "/sessions/s"),
    "GET /sessions/{session_id}/turns": ("ask", "/sessions/s/turns"),
    "GET /sessions/{session_id}/turns/{turn_id}": ("ask", "/sessions/s/turns/t"),
    "DELETE /sessions/{session_id}/turns/{turn_id}": ("ask", "/sessions/s/turns/t"),
    "PATCH /sessions/{session_id}": ("ask", "/sessions/s"),
    "GET /sessions/{session_id}/links": ("ask", "/sessions/s/links"),
    "PUT /sessions/{session_id}/links/{other_id}": ("ask", "/sessions/s/links/o"),
    "DELETE /sessions/{session_id}/links/{other_id}": ("ask", "/sessions/s/links/o"),
    "GET /sessions/{session_id}/export": ("ask", "/sessions/s/export"),
    "DELETE /sessions/{session_id}": ("ask", "/sessions/s"),
    "POST /forget": ("ask", "/forget"),
}
