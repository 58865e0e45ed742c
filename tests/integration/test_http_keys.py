"""API keys: made, used, limited, revoked, against real servers and real processes."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import timedelta
from pathlib import Path

import pytest

from afw_command import Afw, assert_error
from agentic_flywheel import Flywheel
from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import CredentialsRefused, InputError, RateLimited, UnknownApiKey
from agentic_flywheel.interfaces.http.call import Call
from flywheels import opened, text_anywhere
from http_app import app_on, client_of, key_for
from http_process import assert_problem, served
from servers import Server

pytestmark = pytest.mark.anyio


# The keys themselves.


async def test_a_key_is_known_by_its_secret_alone(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, tenant="docs") as flywheel:
        made = await flywheel.api_keys.create("widget", {Scope.ASK}, by="test", user="ann")
        caller, allowance = await flywheel.api_keys.admit(made.secret)
        assert (caller.tenant, caller.user, caller.name, caller.proof) == ("docs", "ann", "widget", "key")
        assert caller.scopes == {Scope.ASK}
        assert allowance.per_minute == 0
        other = await flywheel.api_keys.create("other", {Scope.READ, Scope.ADMIN}, by="test")
        mixed = made.secret[:17] + other.secret[17:]
        for wrong in (mixed, made.secret[:-1] + ("a" if made.secret[-1] != "a" else "b"), made.secret.upper(), "afw_"):
            with pytest.raises(CredentialsRefused):
                await flywheel.api_keys.admit(wrong)
        assert text_anywhere(redis_server, made.secret) == []
        assert text_anywhere(redis_server, made.secret.rpartition("_")[2]) == []


async def test_a_key_works_whatever_tenant_looks_it_up(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, tenant="a") as one, opened(valkey, tmp_path, tenant="b") as other:
        made = await one.api_keys.create("mine", {Scope.ASK}, by="test")
        caller, _ = await other.api_keys.admit(made.secret)
        assert caller.tenant == "a"
        assert await other.api_keys.list() == []
        assert [key.id for key in await other.api_keys.list(all_tenants=True)] == [made.key.id]
        with pytest.raises(UnknownApiKey):
            await other.api_keys.revoke("mine", by="test", dry_run=False)
        await one.api_keys.admit(made.secret)


async def test_a_revoked_key_is_refused_at_once_by_everybody(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path) as one, opened(redis_server, tmp_path) as other:
        made = await one.api_keys.create("mine", {Scope.ASK}, by="test")
        await other.api_keys.admit(made.secret)
        receipt = await one.api_keys.revoke("mine", by="test")
        assert receipt.dry_run
        await other.api_keys.admit(made.secret)
        await one.api_keys.revoke(made.key.id, by="test", dry_run=False)
        for flywheel in (other, one):
            with pytest.raises(CredentialsRefused, match="revoked"):
                await flywheel.api_keys.admit(made.secret)
        assert [key.state(time.time()) for key in await other.api_keys.list()] == ["revoked"]
        with pytest.raises(UnknownApiKey):
            await one.api_keys.revoke("mine", by="test", dry_run=False)
        await one.api_keys.create("mine", {Scope.ASK}, by="test")  # the name is free again


async def test_a_key_ends_when_it_was_to_end(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path) as flywheel:
        made = await flywheel.api_keys.create("short", {Scope.ASK}, by="test", expires=timedelta(seconds=1))
        assert await flywheel.api_keys.any_active()

        async def refused() -> bool:
            try:
                await flywheel.api_keys.admit(made.secret)
            except CredentialsRefused as error:
                return "expired" in error.message
            return False

        deadline = asyncio.get_running_loop().time() + 20
        while not await refused():
            assert asyncio.get_running_loop().time() < deadline, "the key goes on"
        assert not await flywheel.api_keys.any_active()


async def test_a_rate_holds_over_all_processes_and_fills_evenly(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path) as one, opened(redis_server, tmp_path) as other:
        made = await one.api_keys.create("slow", {Scope.ASK}, by="test", rate_per_minute=3)
        lefts = [(await flywheel.api_keys.admit(made.secret))[1].left for flywheel in (one, other, one)]
        assert lefts == [2, 1, 0]
        with pytest.raises(RateLimited) as limited:
            await other.api_keys.admit(made.secret)
        assert 15 < limited.value.retry_after_seconds <= 20
        assert limited.value.details["limit"] == 3
        free = await one.api_keys.create("free", {Scope.ASK}, by="test", rate_per_minute=0)
        for _ in range(10):
            await one.api_keys.admit(free.secret, per_minute=2)
        usual = await one.api_keys.create("usual", {Scope.ASK}, by="test")
        for _ in range(2):
            await one.api_keys.admit(usual.secret, per_minute=2)
        with pytest.raises(RateLimited):
            await one.api_keys.admit(usual.secret, per_minute=2)


@pytest.mark.parametrize(
    ("name", "scopes", "more"),
    [
        ("", {Scope.ASK}, {}),
        ("\x1b[2J", {Scope.ASK}, {}),
        ("a" * 65, {Scope.ASK}, {}),
        ("0123456789ab", {Scope.ASK}, {}),
        ("ok", set(), {}),
        ("ok", {Scope.ASK}, {"user": ""}),
        ("ok", {Scope.ASK}, {"expires": timedelta(0)}),
        ("ok", {Scope.ASK}, {"expires": timedelta(days=4000)}),
        ("ok", {Scope.ASK}, {"rate_per_minute": -1}),
    ],
)
async def test_keys_that_make_no_sense_are_not_made(
    valkey: Server, tmp_path: Path, name: str, scopes: set[Scope], more: dict[str, object]
) -> None:
    async with opened(valkey, tmp_path) as flywheel:
        with pytest.raises(InputError):
            await flywheel.api_keys.create(name, scopes, by="test", **more)  # type: ignore[arg-type]
        assert await flywheel.api_keys.list() == []


async def test_what_was_done_with_keys_is_in_the_audit_log(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path) as flywheel:
        made = await flywheel.api_keys.create("k", {Scope.ASK, Scope.READ}, by="cli:ada", user="bob", why="a test")
        await flywheel.api_keys.revoke("k", by="cli:eve", why="over")
        await flywheel.api_keys.revoke("k", by="cli:eve", why="over", dry_run=False)
        entries, more = await flywheel.audit.list()
        assert [(e.action, e.by, e.target, e.why) for e in entries] == [
            ("key.revoke", "cli:eve", made.key.id, "over"),
            ("key.create", "cli:ada", made.key.id, "a test"),
        ]
        assert entries[1].facts == {"name": "k", "scopes": "ask read", "user": "bob"}
        assert more == ""
        first, more = await flywheel.audit.list(limit=1)
        second, end = await flywheel.audit.list(limit=1, cursor=more)
        assert [*first, *second] == entries
        assert end == ""
        with pytest.raises(InputError):
            await flywheel.audit.list(cursor="x")


async def _used(flywheel: Flywheel) -> bool:
    return (await flywheel.api_keys.list())[0].used_at is not None


async def test_when_a_key_was_used_last_is_known(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path) as flywheel:
        made = await flywheel.api_keys.create("k", {Scope.ASK}, by="test")
        assert not await _used(flywheel)
        await flywheel.api_keys.admit(made.secret)
        assert await _used(flywheel)


# The service and its keys.


async def test_nobody_is_answered_who_does_not_say_who_they_are(valkey: Server, tmp_path: Path) -> None:
    async with app_on(valkey, tmp_path, serve_credentials="always") as app, client_of(app) as client:
        secret = await key_for(app, Scope.ASK, user="ann")
        assert (await client.get("/healthz")).status_code == (await client.get("/readyz")).status_code == 200
        for method, address in (("GET", "/whoami"), ("POST", "/whoami"), ("GET", "/nothing"), ("GET", "/")):
            response = await client.request(method, address)
            assert_problem(response, 401, "credentials_missing")
            assert response.headers["www-authenticate"] == 'Bearer realm="agentic-flywheel"'
        for headers in (
            {"X-API-Key": secret},
            {"Authorization": f"Bearer {secret}"},
            {"authorization": f"bearer   {secret}"},
            {"Cookie": f"a=b; afw_key={secret}"},
            {"X-API-Key": secret, "Authorization": "Bearer somebody-elses"},
            {"X-API-Key": "somebody-elses", "Authorization": f"Bearer {secret}"},
        ):
            who = (await client.get("/whoami", headers=headers)).json()
            assert who == {
                "name": "test-ask",
                "proof": "key",
                "tenant": "default",
                "user": "ann",
                "flows": None,
                "scopes": ["ask"],
            }
        for headers in (
            {"X-API-Key": secret[:-1]},
            {"Authorization": f"Bearer {secret}x"},
            {"X-API-Key": "afw_" + "0" * 12 + "_" + "a" * 52},
            {"X-API-Key": secret[:-1], "Authorization": f"Bearer {secret}"},
        ):
            response = await client.get("/whoami", headers=headers)
            assert_problem(response, 401, "credentials_refused")
            assert 'error="invalid_token"' in response.headers["www-authenticate"]
        for headers in (
            {"Authorization": f"Basic {secret}"},
            {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
            {"Cookie": "afw_key=other"},
            {"X-AFW-Key": secret},
        ):
            assert_problem(await client.get("/whoami", headers=headers), 401, "credentials_missing")
        assert_problem(await client.get(f"/whoami?api_key={secret}"), 401, "credentials_missing")
        known = {"X-API-Key": secret}
        assert_problem(await client.get("/nothing", headers=known), 404, "unknown_address")
        twice = [("X-API-Key", secret), ("X-API-Key", secret)]
        assert_problem(await client.get("/whoami", headers=twice), 400, "invalid_input")
        # Public addresses too refuse a credential that is wrong, so that a wrong key is noticed where it is tried.
        assert_problem(await client.get("/healthz", headers={"X-API-Key": secret[:-1]}), 401, "credentials_refused")


async def test_a_credential_for_a_service_behind_is_passed_on_and_ours_never(valkey: Server, tmp_path: Path) -> None:
    async with app_on(valkey, tmp_path) as app:
        secret = await key_for(app, Scope.ASK)
        for headers, upstream in (
            ({"authorization": "Bearer flowise-key"}, "Bearer flowise-key"),
            ({"authorization": "Bearer flowise-key", "x-api-key": secret}, "Bearer flowise-key"),
            ({"authorization": "Basic dXNlcjpwYXNz"}, "Basic dXNlcjpwYXNz"),
            ({"authorization": f"Bearer {secret}"}, ""),
            ({"authorization": f"Bearer {secret}", "x-api-key": secret}, ""),
            ({}, ""),
        ):
            call = Call(app.service)
            await app.service.admit(call, {name.encode(): value.encode() for name, value in headers.items()})
            assert call.upstream_authorization == upstream


async def test_who_calls_too_often_is_told_when_to_come_back(valkey: Server, tmp_path: Path) -> None:
    async with app_on(valkey, tmp_path, serve_rate_per_minute=60) as app:
        slow, usual = await key_for(app, Scope.ASK, rate_per_minute=2), await key_for(app, Scope.READ)
        async with client_of(app, slow) as client:
            first = await client.get("/whoami")
            assert first.headers["ratelimit-policy"] == '"key";q=2;w=60'
            assert first.headers["ratelimit"].startswith('"key";r=1;t=')
            assert (await client.get("/whoami")).headers["ratelimit"].startswith('"key";r=0;t=')
            limited = await client.get("/whoami")
            assert_problem(limited, 429, "rate_limited")
            assert 0 < int(limited.headers["retry-after"]) <= 30
            assert limited.headers["ratelimit-policy"] == '"key";q=2;w=60'
        async with client_of(app, usual) as client:
            assert (await client.get("/whoami")).headers["ratelimit-policy"] == '"key";q=60;w=60'


async def test_a_key_goes_on_while_redis_is_away_but_administers_nothing(valkey: Server, tmp_path: Path) -> None:
    given = {"serve_credentials": "always", "redis_command_timeout_seconds": 0.2}
    async with app_on(valkey, tmp_path, **given) as app, client_of(app) as client:
        known, unknown = await key_for(app, Scope.ADMIN), await key_for(app, Scope.ASK)
        revoked = await key_for(app, Scope.READ)
        everything = (await client.get("/whoami", headers={"X-API-Key": known})).json()["scopes"]
        assert everything == ["ask", "read", "admin", "metrics"]
        await client.get("/whoami", headers={"X-API-Key": revoked})
        await app.service.home.api_keys.revoke("test-read", by="test", dry_run=False)
        assert (await client.get("/whoami", headers={"X-API-Key": revoked})).status_code == 401
        valkey.pause()
        try:
            assert (await client.get("/whoami", headers={"X-API-Key": known})).json()["scopes"] == ["ask", "read"]
            for secret in (unknown, revoked):
                unchecked = await client.get("/whoami", headers={"X-API-Key": secret})
                assert_problem(unchecked, 503, "credentials_unchecked")
                assert unchecked.headers["retry-after"] == "5"
        finally:
            valkey.resume()


async def test_a_request_that_a_proxy_passed_on_is_not_from_here(valkey: Server, tmp_path: Path) -> None:
    async with app_on(valkey, tmp_path) as app, client_of(app) as client:
        assert (await client.get("/whoami")).json()["name"] == "anybody here"
        for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
            assert_problem(await client.get("/whoami", headers={name: "203.0.113.9"}), 401, "credentials_missing")


# The command, and real processes.


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


def test_an_address_that_is_reached_from_elsewhere_needs_a_key(afw: Afw) -> None:
    error = afw.json("serve", "--host", "0.0.0.0", "--port", "0", code=2)
    assert_error(error, "invalid_setting")
    assert "afw key create" in error["suggestions"][0]
    error = afw.json("serve", "--port", "0", code=2, AFW_SERVE_ORIGINS="*")
    assert_error(error, "invalid_setting")
    assert "any web page" in error["error"]


def test_a_key_that_is_revoked_is_refused_by_every_worker(afw: Afw) -> None:
    made = afw.ok("key", "create", "me", "--scope", "ask", "--user", "ann", "--expires", "30d", "--why", "a test")
    secret = made.out.strip()
    assert re.fullmatch(r"afw_[0-9a-f]{12}_[a-z2-7]{52}", secret)
    assert "not stored" in made.err
    with served(afw, "--host", "0.0.0.0", "--workers", "2") as server:
        server.url = server.url.replace("0.0.0.0", "127.0.0.1")

        def statuses(key: str) -> set[int]:
            found = set()
            for _ in range(8):  # new connections, so that both workers come to answer
                with server.client(key) as client:
                    found.add(client.get("/whoami").status_code)
            return found

        assert statuses("") == {401}
        assert statuses(secret) == {200}
        with server.client() as client:  # any name will do where nobody is answered without a key
            assert client.get("/healthz", headers={"Host": "flywheel.example"}).status_code == 200
        assert afw.json("key", "revoke", "me", code=1)["dry_run"]
        assert statuses(secret) == {200}
        assert not afw.json("key", "revoke", "me", "--yes", "--why", "over")["dry_run"]
        assert statuses(secret) == {401}
    assert secret not in server.log
    (key,) = afw.json("key", "list")["keys"]
    assert (key["name"], key["user"], key["state"], key["scopes"]) == ("me", "ann", "revoked", ["ask"])
    assert [(e["action"], e["why"]) for e in afw.json("audit", "list")["entries"]] == [
        ("key.revoke", "over"),
        ("key.create", "a test"),
    ]
    assert_error(afw.json("key", "revoke", "me", "--yes", code=1), "unknown_api_key")
    assert "revoked" in afw.ok("key", "list").out
    assert "key.create" in afw.ok("audit", "list").out
