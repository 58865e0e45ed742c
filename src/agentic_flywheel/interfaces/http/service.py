"""What all requests share: settings, the flywheels of the tenants, and whether the service is closing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from agentic_flywheel.callers import Caller, Scope
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.flywheel import Flywheel
from agentic_flywheel.interfaces.http.boundary import Boundary
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.tenants import Tenants
from agentic_flywheel.settings import Settings


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
        self.body_limit = int(settings.number("serve.max_body_megabytes") * 1_000_000)
        self.tenants = Tenants(open_flywheel or self._open, most=int(settings["serve.max_tenants"]))
        self.closing = False
        #: Whether everybody must say who they are.
        self.guarded = settings["serve.credentials"] == "always" or not is_loopback(settings.text("serve.host"))
        self.boundary = Boundary(settings, guarded=self.guarded)
        #: Who calls where nobody has to say so: whoever can reach loopback could run `afw` as well.
        self.anybody = Caller(
            tenant=settings.text("tenant"), scopes=frozenset(Scope), name="anybody here", proof="none"
        )

    def _open(self, tenant: str) -> Flywheel:
        return Flywheel.open(settings=self.settings.overlaid({"tenant": tenant}), registry=self.registry)

    async def admit(self, call: Call, headers: Mapping[bytes, bytes]) -> Caller | None:  # noqa: ARG002
        """Who calls; None where nothing says so and somebody has to."""
        if self.guarded or self.boundary.came_from_elsewhere(headers):
            return None
        return self.anybody

    def answered(self, call: Call, method: str, status: int, seconds: float) -> None:
        """A response was sent: count it, and say so in the log."""

    async def ping(self) -> None:
        """Have Redis say that it is there. Raises `StoreError`."""
        flywheel = self.tenants.lend(self.settings.text("tenant"))
        try:
            await flywheel.ping()
        finally:
            self.tenants.take_back(flywheel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every tenant; what is written behind is sent first."""
        self.closing = True
        await self.tenants.aclose()


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
