"""Forms that are posted: only from pages of our own, by whoever the page was given to.

Invariant: a form does something only if the browser says that it was sent from a page of this very origin
(`Sec-Fetch-Site`, or `Origin` where it does not say), and if its token is the one of this browser and this credential:
the HMAC of the credential's digest under a random cookie that no script can read and no other site has sent along. So
a page of another origin, which the service's list of origins may allow to ask, posts no form here; and a form that was
given to one key does nothing for another. Nothing of it is kept on the server, so every worker can check it.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from agentic_flywheel.errors import InputError

if TYPE_CHECKING:
    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response

    from agentic_flywheel.interfaces.http.call import Call

COOKIE: Final = "afw_form"
FIELD: Final = "token"
#: Fields of one form.
_MOST_FIELDS: Final = 300
_OLD: Final = (
    "Load the page again and send its form once more.",
    "Let the browser keep cookies of this address.",
    "Programs use the REST interface, or the tools of MCP: forms are for browsers.",
)


class Form:
    """What was filled in."""

    def __init__(self, data: FormData) -> None:
        self._data = data

    def text(self, name: str, default: str = "") -> str:
        """A field, with ends of lines as everywhere else. Raises `InputError` for a file."""
        value = self._data.get(name, default)
        if not isinstance(value, str):
            raise InputError(f"the field {name!r} is text")
        return value.replace("\r\n", "\n").strip()

    def required(self, name: str) -> str:
        """A field that must be filled in. Raises `InputError`."""
        value = self.text(name)
        if not value:
            raise InputError(f"the field {name!r} is empty", suggestions=("Go back and fill it in.",))
        return value

    def all(self, name: str) -> Sequence[str]:
        """Every value of a field that can be chosen more than once."""
        return [value for value in self._data.getlist(name) if isinstance(value, str)]

    def ticked(self, name: str) -> bool:
        """Whether a box is ticked."""
        return bool(self.text(name))


async def form_of(request: Request, call: Call) -> Form:
    """The form of a request. Raises `InputError` for one that is not from a page of ours, or is too large."""
    check_same_origin(request)
    form = Form(await request.form(max_files=0, max_fields=_MOST_FIELDS))
    cookie = request.cookies.get(COOKIE, "")
    if not cookie or not hmac.compare_digest(_token(cookie, call), form.text(FIELD)):
        raise InputError("this form is not of this browser, or no longer", suggestions=_OLD)
    return form


def check_same_origin(request: Request) -> None:
    """Raises `InputError` for what was not sent from a page of this origin."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin", "")
    host = request.headers.get("host", "")
    ours = site == "same-origin" if site is not None else urlsplit(origin).netloc.casefold() == host.casefold() != ""
    if not ours:
        raise InputError("forms are only taken from pages of this console", suggestions=_OLD)


class Token:
    """The token that the forms of one page get, and the cookie that goes with it."""

    def __init__(self, request: Request, call: Call) -> None:
        known = request.cookies.get(COOKIE, "")
        self._fresh = not (len(known) == 43 and known.isascii())
        self._cookie = secrets.token_urlsafe(32) if self._fresh else known
        self._secure = request.url.scheme == "https"
        self.text = _token(self._cookie, call)

    def keep(self, response: Response) -> None:
        """Have the browser keep the cookie."""
        if self._fresh:
            response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict", secure=self._secure, path="/")


def _token(cookie: str, call: Call) -> str:
    return hmac.digest(cookie.encode(), b"form|" + call.seal, "sha256").hex()
