"""Signing in with an API key, and out; and how pages are to look and speak.

Invariant: the cookie is the key itself, which no script can read and no other site has sent along: it opens what the
key opens, for as long as the key does, and nothing here remembers who signed in. The page that asks for a key comes in
place of any page that needs one, and takes a cookie away that no longer opens anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import RedirectResponse, Response

from agentic_flywheel.errors import NotAllowed
from agentic_flywheel.interfaces.http.authentication import COOKIE
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen
from agentic_flywheel.interfaces.http.console.visit import LANGUAGE_COOKIE, THEME_COOKIE, THEMES
from agentic_flywheel.interfaces.http.console.words import LANGUAGES
from agentic_flywheel.interfaces.http.routes import PUBLIC

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.console.forms import Form
    from agentic_flywheel.interfaces.http.console.visit import Visit

_YEAR_SECONDS = 365 * 86400


class SignIn(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go once it is known who calls."""

    next: str = "/"
    detail: str = ""
    code: str = ""


async def ask(visit: Visit) -> Page:
    """The page that asks for a key."""
    return Page("signin.html", SignIn(next=local(visit.text("next"))))


async def sign_in(visit: Visit, form: Form) -> Response:
    """Take a key. Raises `CredentialsRefused`, and `NotAllowed` for one to which every page would be closed."""
    key = form.required("key")
    caller, _ = await visit.call.service.home.api_keys.admit(key)
    if caller.flows is not None:
        raise NotAllowed(
            f"{caller.name!r} is limited to {', '.join(sorted(caller.flows))}: the console is about all flows",
            suggestions=("Sign in with a key that is not limited to flows.",),
            key=caller.name,
        )
    response = RedirectResponse(local(form.text("next")), 303)
    secure = visit.request.url.scheme == "https"
    response.set_cookie(COOKIE, key, httponly=True, samesite="strict", secure=secure, path="/")
    return response


async def sign_out(_visit: Visit, _form: Form) -> Response:
    """Forget the key."""
    response = RedirectResponse("/signin", 303)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


async def prefer(visit: Visit, form: Form) -> Response:
    """Keep how pages are to look and speak, in this browser."""
    response = RedirectResponse(local(form.text("next")), 303)
    for name, cookie, choices in (("theme", THEME_COOKIE, THEMES), ("language", LANGUAGE_COOKIE, LANGUAGES)):
        if (chosen := form.text(name)) in choices:
            secure = visit.request.url.scheme == "https"
            response.set_cookie(cookie, chosen, _YEAR_SECONDS, samesite="lax", httponly=True, secure=secure, path="/")
    return response


def local(address: str) -> str:
    """An address of this console to go on to, `/` for any other.

    >>> local("/search?q=x"), local("https://example.com/"), local("//example.com"), local("/\\\\example.com")
    ('/search?q=x', '/', '/', '/')
    """
    plain = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if plain and "\\" not in address else "/"


SCREEN = Screen("/signin", ask, needs=PUBLIC, name="signin")
ACTIONS = (
    Action("/signin", sign_in, needs=PUBLIC),
    Action("/signout", sign_out, needs=PUBLIC),
    Action("/preferences", prefer, needs=PUBLIC),
)
