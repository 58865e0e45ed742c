"""The console put together: its routes, the frame of its pages, and what is shown when something went wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from agentic_flywheel import __version__
from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import CredentialsMissing, CredentialsRefused, FlywheelError, StoreError
from agentic_flywheel.interfaces.http.authentication import COOKIE as KEY_COOKIE
from agentic_flywheel.interfaces.http.console import assets, live, signing
from agentic_flywheel.interfaces.http.console.forms import Token, form_of
from agentic_flywheel.interfaces.http.console.pages import HEADERS, Action, Page, Screen, Went, json_of
from agentic_flywheel.interfaces.http.console.screens import ALL
from agentic_flywheel.interfaces.http.console.templating import environment
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.interfaces.http.problems import problem_of, problem_response
from agentic_flywheel.interfaces.http.routes import INSIDE, PUBLIC, AccessRoute, Needs

if TYPE_CHECKING:
    from starlette.types import Scope as Connection

    from agentic_flywheel.interfaces.http.call import Call
    from agentic_flywheel.interfaces.http.service import Service

_Endpoint = Callable[[Request], Awaitable[Response]]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What a page of an error shows."""

    status: int
    title: str
    detail: str
    code: str
    suggestions: tuple[str, ...]
    error_id: str
    next: str = ""


class Site:
    """The pages of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        screens: list[Screen] = [screen for module in ALL for screen in module.SCREENS]
        actions: list[Action] = [action for module in ALL for action in module.ACTIONS]
        placed = [screen for screen in screens if screen.place is not None]
        self._navigation = sorted(placed, key=lambda screen: screen.place or 0)
        self.routes: list[AccessRoute] = []
        for screen in screens:
            self.routes += [
                AccessRoute(path, self._shown(screen, twin=twin), needs=screen.needs)
                for path, twin in screen.paths.items()
            ]
        self.routes += [
            AccessRoute(action.path, self._done(action), needs=action.needs, methods=["POST"])
            for action in (*actions, *signing.ACTIONS)
        ]
        self.routes += [
            AccessRoute("/signin", self._shown(signing.SCREEN), needs=PUBLIC),
            AccessRoute("/live", live.follow_team, needs=Scope.READ),
            AccessRoute("/live/session", live.follow_session, needs=Scope.ASK),
            AccessRoute("/static/{digest}/{name:path}", assets.serve, needs=PUBLIC),
        ]

    def _shown(self, screen: Screen, *, twin: bool = False) -> _Endpoint:
        async def show(request: Request) -> Response:
            visit = Visit(request)
            page = await screen.show(visit)
            return page if isinstance(page, Response) else await self._response(visit, page, twin=twin)

        return show

    def _done(self, action: Action) -> _Endpoint:
        async def do(request: Request) -> Response:
            visit = Visit(request)
            form = await form_of(request, visit.call)
            result = await action.do(visit, form)
            if isinstance(result, Went):
                if _wants_json(request.headers):
                    return json_of({"url": result.url, "said": result.said})
                return RedirectResponse(_with_said(result), 303)
            return result if isinstance(result, Response) else await self._response(visit, result)

        return do

    async def _response(self, visit: Visit, page: Page, *, twin: bool = False) -> Response:
        if twin or _wants_json(visit.request.headers):
            return json_of(page.view, page.status)
        return await self._html(visit, page)

    async def _html(self, visit: Visit, page: Page) -> Response:
        token = Token(visit.request, visit.call)
        said = f"said.{visit.text('said')}"
        navigation = [screen for screen in self._navigation if _may_see(visit, screen.needs)]
        content = (
            environment()
            .get_template(page.template)
            .render(
                visit=visit,
                words=visit.words,
                _=visit.words,
                view=page.view,
                form_token=token.text,
                asset=assets.address,
                navigation=navigation,
                said=said if visit.words.has(said) else "",
                degraded=await self._degraded(visit),
                version=__version__,
                guarded=self._service.guarded,
            )
        )
        response = Response(content, page.status, HEADERS, "text/html")
        token.keep(response)
        return response

    async def _degraded(self, visit: Visit) -> bool:
        """Whether Redis is away: every page says so."""
        if visit.call.known is None:
            return False
        try:
            await visit.flywheel.ping()
        except StoreError:
            return True
        except FlywheelError:  # no flywheel is to be had just now: the page says what it is about
            return False
        return False

    async def failed(
        self, error: FlywheelError, call: Call, headers: Mapping[str, str], scope: Connection
    ) -> Response | None:
        """An error as a page, for whoever asked for a page; None where they did not."""
        request = Request(scope)
        if not _wants_page(request):
            return None
        visit = Visit(request)
        told = problem_of(error, call)
        problem = Problem(
            status=told["status"],
            title=told["title"],
            detail=told["detail"],
            code=told["code"],
            suggestions=tuple(told["suggestions"]),
            error_id=told["error_id"],
            next=visit.here if request.method in {"GET", "HEAD"} else "/",
        )
        locked = isinstance(error, CredentialsMissing | CredentialsRefused)
        response = await self._html(visit, Page("signin.html" if locked else "problem.html", problem, problem.status))
        plain = problem_response(error, call, dict(headers))  # its headers: when to try again, what to present
        for name, value in plain.headers.items():
            if name not in {"content-type", "content-length"}:
                response.headers.setdefault(name, value)
        if isinstance(error, CredentialsRefused):
            response.delete_cookie(KEY_COOKIE, path="/", httponly=True, samesite="strict")
        return response


def _with_said(went: Went) -> str:
    address, mark, fragment = went.url.partition("#")
    said = f"{'&' if '?' in address else '?'}said={went.said}" if went.said else ""
    return f"{address}{said}{mark}{fragment}"


def _may_see(visit: Visit, needs: Needs) -> bool:
    if visit.call.known is None:
        return False
    return needs in {PUBLIC, INSIDE} or visit.may(needs)


def _wants_json(headers: Mapping[str, str]) -> bool:
    accepted = headers.get("accept", "")
    return "application/json" in accepted and "text/html" not in accepted


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") and not request.url.path.endswith(".json")
