"""The flywheels of a service: one for each tenant, bounded, and never closed under a call."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from agentic_flywheel.errors import FlywheelError, ServiceBusy
from agentic_flywheel.flywheel import Flywheel
from agentic_flywheel.interfaces.http.tenants import Tenants
from flywheels import until

pytestmark = pytest.mark.anyio


class Fake:
    """A flywheel as the pool sees it."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.closed = False

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed = True
        if self.tenant == "odd":
            raise FlywheelError("not in order")


def pool(most: int) -> tuple[Tenants, list[Any]]:
    made: list[Any] = []

    def open_one(tenant: str) -> Flywheel:
        made.append(Fake(tenant))
        return cast("Flywheel", made[-1])

    return Tenants(open_one, most=most), made


async def test_each_tenant_has_one_flywheel_that_is_kept() -> None:
    tenants, made = pool(2)
    first = tenants.lend("a")
    assert tenants.lend("a") is first
    assert tenants.lend("b") is not first
    for flywheel in (first, first):
        tenants.take_back(flywheel)
    assert tenants.lend("a") is first
    assert len(made) == 2


async def test_beyond_the_bound_the_one_that_was_used_least_recently_goes() -> None:
    tenants, made = pool(2)
    for tenant in ("a", "b", "a"):
        tenants.take_back(tenants.lend(tenant))
    tenants.take_back(tenants.lend("c"))
    await until(lambda: made[1].closed, "the tenant to be closed")
    assert [(one.tenant, one.closed) for one in made] == [("a", False), ("b", True), ("c", False)]
    assert len(tenants.everyone()) == 2


async def test_one_that_is_held_stays_and_where_all_are_nobody_else_comes_in() -> None:
    tenants, made = pool(2)
    held = tenants.lend("a"), tenants.lend("a"), tenants.lend("b")
    with pytest.raises(ServiceBusy) as busy:
        tenants.lend("c")
    assert busy.value.retry_after_seconds > 0
    tenants.take_back(held[0])  # held twice
    with pytest.raises(ServiceBusy):
        tenants.lend("c")
    tenants.take_back(held[1])
    tenants.lend("c")
    assert [one.tenant for one in made] == ["a", "b", "c"]
    await tenants.aclose()
    assert all(one.closed for one in made)


async def test_closing_closes_all_whatever_one_of_them_does() -> None:
    tenants, made = pool(3)
    for tenant in ("a", "odd", "b"):
        tenants.lend(tenant)
    await tenants.aclose()
    assert all(one.closed for one in made)
    assert tenants.everyone() == []
