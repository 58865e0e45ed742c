"""A request of somebody who looks at the console: who it is, what they ask for, in which language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from agentic_flywheel.callers import Caller, Scope
from agentic_flywheel.errors import InputError
from agentic_flywheel.interfaces.http.call import Call, call_of
from agentic_flywheel.interfaces.http.console.words import LANGUAGES, Words

if TYPE_CHECKING:
    from starlette.requests import Request

    from agentic_flywheel.flywheel import Flywheel

LANGUAGE_COOKIE: Final = "afw_language"
THEME_COOKIE: Final = "afw_theme"
THEMES: Final = ("auto", "light", "dark")


class Visit:
    """One request; `Screen.show` is given it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.call: Call = call_of(request)
        self.words = Words(_language(request))
        chosen = request.cookies.get(THEME_COOKIE, "auto")
        self.theme = chosen if chosen in THEMES else "auto"

    @property
    def flywheel(self) -> Flywheel:
        """The flywheel of the caller's tenant."""
        return self.call.flywheel

    @property
    def caller(self) -> Caller:
        """Who looks. Raises `CredentialsMissing`."""
        return self.call.caller

    @property
    def user(self) -> str | None:
        """The user in whose name they look; None where they speak for nobody in particular."""
        return self.call.speaks_for(None)

    def may(self, scope: str) -> bool:
        """Whether whoever looks may do this."""
        return self.call.known is not None and self.call.known.may(Scope(scope))

    def text(self, name: str, default: str = "") -> str:
        """A parameter of the URL."""
        return self.request.query_params.get(name, default).strip()

    def required(self, name: str) -> str:
        """A parameter that must be there. Raises `InputError`."""
        value = self.text(name)
        if not value:
            raise InputError(f"the address of this page lacks {name!r}", suggestions=("Follow a link to it.",))
        return value

    def whole(self, name: str, default: int, *, most: int) -> int:
        """A parameter that is a whole number from 1 to `most`. Raises `InputError`."""
        value = self.text(name) or str(default)
        if not value.isascii() or not value.isdigit() or not 1 <= int(value[:9]) <= most:
            raise InputError(f"{name} is a whole number from 1 to {most}, not {value!r}")
        return int(value)

    @property
    def here(self) -> str:
        """The path and query of this request."""
        query = self.request.url.query
        return self.request.url.path + (f"?{query}" if query else "")

    @staticmethod
    def link(path: str, **parameters: object) -> str:
        """A link within the console; parameters that are empty are left out."""
        given = {name: str(value) for name, value in parameters.items() if value not in (None, "", False)}
        return f"{path}?{urlencode(given)}" if given else path

    def changed(self, **parameters: object) -> str:
        """This page with other parameters (None takes one away); it begins at its first page again."""
        given: dict[str, object] = dict(self.request.query_params)
        given.pop("cursor", None)
        given.pop("said", None)
        return self.link(self.request.url.path, **(given | parameters))

    @property
    def twin(self) -> str:
        """The JSON twin of this page."""
        path = self.request.url.path
        query = self.request.url.query
        twin = "/index.json" if path == "/" else f"{path}.json"
        return f"{twin}?{query}" if query else twin


def _language(request: Request) -> str:
    """The one that was chosen, else the first that the browser asks for and we speak, else English."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    if chosen in LANGUAGES:
        return chosen
    wanted: list[tuple[float, str]] = []
    for part in request.headers.get("accept-language", "").split(","):
        name, _, quality = part.partition(";q=")
        language = name.strip().casefold().partition("-")[0]
        if language in LANGUAGES:
            try:
                wanted.append((float(quality or 1), language))
            except ValueError:
                continue
    return max(wanted, key=lambda one: one[0])[1] if wanted else LANGUAGES[0]
