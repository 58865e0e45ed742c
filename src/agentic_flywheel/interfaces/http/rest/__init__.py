"""The REST interface, at `/api/v2`: everything that the command line does, described by its own document.

Invariant: an operation is declared once (`operations`), as a typed function over the facade; its route, its checks and
its description follow from that. A test holds the command line's commands and these operations together.
"""

from agentic_flywheel.interfaces.http.rest.room import room

__all__ = ["room"]
