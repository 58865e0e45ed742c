"""What is checked of a request before anybody looks at who sent it: host, origin, proxies.

Invariant: a web page changes something here only from an origin that is the service's own or on the list
(`serve.origins`), and whatever name it gives this machine must be one of `serve.hosts`: a page's own name that is made
to resolve to loopback (DNS rebinding) is not. Where nobody has to say who they are, a request that came through a
reverse proxy counts as one from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from agentic_flywheel.errors import HostRefused, OriginRefused
from agentic_flywheel.settings import Settings

_SAFE_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: What reverse proxies add.
_FORWARDED: Final = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip")

#: What a response has unless its handler said otherwise. Pages of the console have a policy of their own.
HEADERS: Final = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Boundary:
    """The lists in force. `guarded` says that everybody must say who they are."""

    def __init__(self, settings: Settings, *, guarded: bool) -> None:
        named = {name.casefold() for name in _listed(settings.text("serve.hosts"))}
        bound = settings.text("serve.host").casefold()
        bound = f"[{bound}]" if ":" in bound else bound
        #: Names by which this machine may be called; None: by any, since nobody is answered without credentials.
        self.hosts = None if guarded and not named else named | _LOOPBACK_NAMES | {bound}
        self.origins = frozenset(origin.rstrip("/").casefold() for origin in _listed(settings.text("serve.origins")))
        self._guarded = guarded

    def check_host(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises `HostRefused` for a name that is not this machine's."""
        if self.hosts is None:
            return
        host = headers.get(b"host", b"").decode("latin-1").casefold()
        name = host.rpartition(":")[0] if _has_port(host) else host
        if name not in self.hosts:
            raise HostRefused(f"this service is not called {name!r}")

    def allows_origin(self, origin: str) -> bool:
        """Whether pages of an origin may use the service."""
        return "*" in self.origins or origin.casefold() in self.origins

    def check_origin(self, method: bytes, headers: Mapping[bytes, bytes]) -> None:
        """Raises `OriginRefused` where a page of another origin would change something.

        `Sec-Fetch-Site` is the browser's own word; where it does not say, `Origin` is compared with `Host`.
        """
        if method in _SAFE_METHODS:
            return
        origin = headers.get(b"origin")
        site = headers.get(b"sec-fetch-site")
        if site in {b"same-origin", b"none"} or (origin is None and site is None):
            return
        said = b"" if origin is None else origin
        if site is None and urlsplit(said.decode("latin-1")).netloc.casefold() == _host(headers):
            return
        if not self.allows_origin(said.decode("latin-1")):
            raise OriginRefused(f"pages of {said.decode('latin-1')!r} may not do this")

    def came_from_elsewhere(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request on loopback was passed on by a proxy."""
        return any(name in headers for name in _FORWARDED)

    def cors(self, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """What lets the page that asked read the response; nothing for pages that are not on the list."""
        origin = headers.get(b"origin")
        if origin is None or not self.origins or not self.allows_origin(origin.decode("latin-1")):
            return []
        shown = b"Retry-After, X-Request-ID, Age, ETag, Link, X-AFW-Outcome, X-AFW-Reason, X-AFW-Entry, X-AFW-Trace"
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", shown),
            (b"cross-origin-resource-policy", b"cross-origin"),
            (b"vary", b"Origin"),
        ]

    def preflight(self, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """The headers that answer a preflight. Raises `OriginRefused`."""
        allowed = self.cors(headers)
        if not allowed:
            raise OriginRefused(f"pages of {headers[b'origin'].decode('latin-1')!r} may not use this service")
        wanted = headers.get(b"access-control-request-headers", b"")
        return [
            *allowed,
            (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
            *([(b"access-control-allow-headers", wanted)] if wanted else []),
            (b"access-control-max-age", b"600"),
        ]


def _host(headers: Mapping[bytes, bytes]) -> str:
    return headers.get(b"host", b"").decode("latin-1").casefold()


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdigit() and not host.endswith("]")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
