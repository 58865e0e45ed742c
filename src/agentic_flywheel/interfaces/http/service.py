"""What all requests share: settings, the flywheels of the tenants, and whether the service is closing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Self

from agentic_flywheel.callers import Caller, Scope
from agentic_flywheel.errors import ServiceBusy, SettingsError, StoreError
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.flywheel import Flywheel
from agentic_flywheel.interfaces.http.again import Repeats
from agentic_flywheel.interfaces.http.authentication import Authentication
from agentic_flywheel.interfaces.http.boundary import Boundary
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.counting import Metrics
from agentic_flywheel.interfaces.http.logs import log_request
from agentic_flywheel.interfaces.http.tenants import Tenants
from agentic_flywheel.interfaces.http.warm_ups import WarmUps
from agentic_flywheel.settings import Settings

#: Requests that come within so long share a look at the registry's file.
_LOOK_SECONDS = 0.001
_access = logging.getLogger("agentic_flywheel.access")

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.tokens import Tokens


class Service:
    """One process of the service; use it as `async with`. Nothing is connected before the first request.

    `registry` is shared by all tenants. `open_flywheel` makes the flywheel of a tenant, for tests and programs that
    bring their own.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        registry: Registry | None = None,
        open_flywheel: Callable[[str], Flywheel] | None = None,
    ) -> None:
        self.settings = settings
        self.registry = registry or Registry(settings)
        self.registry.look_every_seconds = _LOOK_SECONDS
        self.body_limit = int(settings.number("serve.max_body_megabytes") * 1_000_000)
        #: Requests that came before.
        self.repeats = Repeats(self)
        most = int(settings["serve.max_tenants"])
        self.tenants = Tenants(open_flywheel or self._open, most=most, on_close=self.repeats.forget)
        self.warm_ups = WarmUps(self.tenants)
        self.closing = False
        self.metrics = Metrics()
        self._tokens = tokens_of(settings)
        self._home: Flywheel | None = None
        self._authentication: Authentication | None = None
        #: Whether everybody must say who they are.
        self.guarded = is_guarded(settings)
        self.boundary = Boundary(settings, guarded=self.guarded)
        #: Who calls where nobody has to say so: whoever can reach loopback could run `afw` as well.
        self.anybody = Caller(
            tenant=settings.text("tenant"), scopes=frozenset(Scope), name="anybody here", proof="none"
        )

    def _open(self, tenant: str) -> Flywheel:
        settings = self.settings.overlaid({"tenant": tenant})
        flywheel = Flywheel.open(settings=settings, registry=self.registry, listener=self.metrics)
        flywheel.encryption.on_unreadable(self.metrics.unreadable)
        return flywheel

    @property
    def home(self) -> Flywheel:
        """The flywheel of the tenant that the service was started for; open as long as the service is."""
        if self._home is None:
            raise ServiceBusy("the service is not open")
        return self._home

    async def admit(self, call: Call, headers: Mapping[bytes, bytes]) -> Caller | None:
        """Who calls; None where nothing says so and somebody has to. Raises `AccessError`."""
        if self._authentication is None:
            raise ServiceBusy("the service is not open")
        caller = await self._authentication.caller_of(call, headers)
        if caller is not None or self.guarded or self.boundary.came_from_elsewhere(headers):
            return caller
        return self.anybody

    def answered(
        self, route: str, caller: Caller | None, request_id: str, method: str, status: int, seconds: float
    ) -> None:
        """A response was sent: count it, and say so in the log, without a word of what was asked."""
        self.metrics.ended(route, method, status, seconds)
        if _access.isEnabledFor(logging.INFO):
            facts = {
                "method": method,
                "route": route or "none",
                "status": status,
                "ms": round(seconds * 1000, 1),
                "request_id": request_id,
                "caller": caller.name if caller else "",
                "tenant": caller.tenant if caller else "",
            }
            log_request(facts)

    async def ping(self) -> None:
        """Have Redis say that it is there. Raises `StoreError`."""
        await self.home.ping()

    async def __aenter__(self) -> Self:
        self._home = self.tenants.lend(self.settings.text("tenant"))
        self._home.keep_house()  # other tenants' begins with their first question
        self._authentication = Authentication(self.settings, self._home.api_keys, self._tokens)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every tenant; what is written behind is sent first."""
        self.closing = True
        await self.warm_ups.aclose()
        await self.tenants.aclose()


def tokens_of(settings: Settings) -> Tokens | None:
    """The issuer of tokens that the settings name, if any. Raises `SettingsError`."""
    if not settings.text("jwt.issuer"):
        return None
    from agentic_flywheel.interfaces.http.tokens import Tokens

    return Tokens(settings)


async def check_access(settings: Settings) -> str:
    """What should be known of who may use the service, "" where nothing.

    Raises `SettingsError` where nobody could, or anybody could who should not.
    """
    if not is_guarded(settings):
        if "*" in settings.text("serve.origins"):
            raise SettingsError(
                "serve.origins is *, and nobody has to say who they are: any web page could ask and change everything",
                suggestions=(
                    "Name the origins that may: AFW_SERVE_ORIGINS=https://docs.example.com.",
                    "Demand credentials: AFW_SERVE_CREDENTIALS=always, and `afw key create NAME --scope ask`.",
                ),
                setting="serve.origins",
            )
        return ""
    if tokens_of(settings) is not None:
        return ""
    async with Flywheel.open(settings=settings, background=False) as flywheel:
        try:
            if await flywheel.api_keys.any_active():
                return ""
        except StoreError as error:
            return f"nobody can be let in before Redis is there: {error.message}"
    raise SettingsError(
        f"callers of {settings.text('serve.host')} must say who they are, and there is no key yet",
        suggestions=(
            "Make one, and start again: `afw key create NAME --scope ask` (or --scope admin).",
            "Or set jwt.issuer, jwt.audience and jwt.jwks, to take the tokens of an issuer of yours.",
            "Or listen on this machine alone: --host 127.0.0.1.",
        ),
        setting="serve.host",
    )


def is_guarded(settings: Settings) -> bool:
    """Whether everybody must say who they are."""
    return settings["serve.credentials"] == "always" or not is_loopback(settings.text("serve.host"))


def is_loopback(host: str) -> bool:
    """Whether nothing but this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("127.example.com")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
