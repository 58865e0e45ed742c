"""Server-sent events, as the HTML standard frames them (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from typing import Any

import msgspec


def event(name: str, value: Any, *, id_: str = "") -> bytes:
    """One event with JSON in its data, which has no line ends of its own; `id_` is where who comes back goes on."""
    place = f"id: {id_}\n".encode() if id_ else b""
    return place + b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(value, enc_hook=str) + b"\n\n"
