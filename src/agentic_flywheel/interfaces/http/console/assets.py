"""Files that pages load: our own style and script, and libraries of others as they were released.

Invariant: a file's address changes whenever any of them does (the digest of all stands in it), so what a browser has
kept is never out of date, and it may keep it for a year. Libraries are byte for byte those of `vendor/manifest.toml`.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from agentic_flywheel.errors import UnknownAddress

#: What is served, by the end of its name; whatever else lies in the folder is not.
_SERVED: Final = (".css", ".js", ".svg")
_TEXT: Final = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


class Asset(NamedTuple):
    """A file as it is sent."""

    media_type: str
    raw: bytes
    packed: bytes


@cache
def assets() -> dict[str, Asset]:
    """Every file by its name below `static`."""
    found: dict[str, Asset] = {}

    def look(folder: Traversable, before: str) -> None:
        for one in folder.iterdir():
            if one.is_dir():
                look(one, f"{before}{one.name}/")
            elif one.name.endswith(_SERVED):
                raw = one.read_bytes()
                kind = _TEXT[f".{one.name.rpartition('.')[2]}"]
                found[before + one.name] = Asset(kind, raw, gzip.compress(raw, mtime=0))

    look(files(__package__) / "static", "")
    return found


@cache
def digest() -> str:
    """What tells these files from those of any other release."""
    summed = hashlib.sha256()
    for name, asset in sorted(assets().items()):
        summed.update(f"{name}\0{len(asset.raw)}\0".encode() + asset.raw)
    return summed.hexdigest()[:16]


def address(name: str) -> str:
    """Where a page finds a file. Raises `KeyError` for one that is not there."""
    _ = assets()[name]
    return f"/static/{digest()}/{name}"


async def serve(request: Request) -> Response:
    """A file, to be kept by the browser. Raises `UnknownAddress`."""
    found = assets().get(request.path_params["name"])
    if found is None or request.path_params["digest"] != digest():
        raise UnknownAddress("there is no such file")
    packs = "gzip" in request.headers.get("accept-encoding", "")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if packs:
        headers["Content-Encoding"] = "gzip"
    return Response(found.packed if packs else found.raw, headers=headers, media_type=found.media_type)
