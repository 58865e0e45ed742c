"""Requests with a credential that came before: answered quickly, and by who calls now, as the whole way has it.

Whatever is changed of a key is changed in Redis, by somebody else: this process is told of nothing.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agentic_flywheel.access import key_id
from agentic_flywheel.callers import Scope
from agentic_flywheel.model import Turn
from agentic_flywheel.store.codec import decode
from flowise_replay import FLOWS, ReplayFlowise
from http_app import key_for
from http_repeats import NEAR, PATH, QUESTION, WHOLE, Answered, Client, asked
from servers import Server

pytestmark = pytest.mark.anyio

GUARDED: dict[str, Any] = {"serve_credentials": "always"}
RATED: dict[str, Any] = {"rate_per_minute": 100_000}
LLM = FLOWS["llm"]
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "flowise": (PATH, QUESTION),
    "openai": ("/v1/chat/completions", {"model": LLM, "messages": [{"role": "user", "content": "Why?"}]}),
    "rest": ("/api/v2/ask", {"question": "Why so?", "flow": LLM}),
}
CARRIERS = {
    "x-api-key": lambda key: {"X-API-Key": key},
    "bearer": lambda key: {"Authorization": f"Bearer {key}"},
    "cookie": lambda key: {"Cookie": f"afw_key={key}"},
}


@pytest.fixture(scope="module")
def flowise() -> Iterator[ReplayFlowise]:
    with ReplayFlowise() as replay:
        yield replay


def status(response: Answered) -> int:
    return int(response.raw[9:12])


def left(response: Answered) -> int:
    """How many calls the caller has left, as the response says."""
    found = re.search(r"r=(\d+)", response.header("ratelimit"))
    assert found, response.raw
    return int(found[1])


def set_of(valkey: Server, key: str, **fields: str) -> None:
    """Change the record of a key."""
    with valkey.client() as redis:
        (record,) = redis.scan_iter(f"*{{{key_id(key)}}}")
        redis.hset(record, mapping=fields)


async def quick(client: Client, path: str, body: Any, headers: dict[str, str]) -> tuple[Answered, bool]:
    """A response, and whether it came without the whole way."""
    before = client.repeated
    response = await client.post(path, body, headers)
    return response, client.repeated > before


@NEAR
@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("way", WAYS)
async def test_each_way_in_answers_alike(
    near: bool, way: str, carrier: str, valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    async with asked(valkey, tmp_path, flowise, near=near, **GUARDED) as client:
        own = CARRIERS[carrier](await key_for(client.app, Scope.ASK, **RATED))
        path, body = WAYS[way]
        await client.post(*WAYS["flowise"], own)  # the flow is known from now on
        await client.post(path, body, own)
        await client.again(path, body, own)
        whole = await client.post(path, body, own | WHOLE)
        assert whole.header("x-afw-outcome") == "hit"
        again = await client.again(path, body, own)
        assert left(again)
        plain = [re.sub(rb"r=\d+;t=\d+", b"r=*", one.alike) for one in (again, whole)]
        assert plain[0] == plain[1].replace(b"x-request-id: whole", b"x-request-id: *")
        assert status(await client.post(path, body)) == 401


@NEAR
@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"revoked_at": repr(1.0)}, 401),
        ({"expires_at": repr(1.0)}, 401),
        ({"digest": "0" * 64}, 401),
        ({"scopes": "read"}, 403),
        ({"flows": '["another"]'}, 404),
    ],
    ids=["revoked", "expired", "another secret", "another scope", "another flow"],
)
async def test_what_becomes_of_a_key_holds_for_the_next_request(
    near: bool,
    fields: dict[str, str],
    refused: int,
    valkey: Server,
    tmp_path: Path,
    flowise: ReplayFlowise,
) -> None:
    async with asked(valkey, tmp_path, flowise, near=near, **GUARDED) as client:
        key, other = await key_for(client.app, Scope.ASK), await key_for(client.app, Scope.ASK, Scope.READ)
        for way in WAYS.values():
            for one in (key, other):
                await client.post(*way, {"X-API-Key": one})
                await client.again(*way, {"X-API-Key": one})
        set_of(valkey, key, **fields)
        for way in WAYS.values():
            response, repeated = await quick(client, *way, {"X-API-Key": key})
            assert (status(response), repeated) == (refused, False), response.raw
            assert b"Answer" not in response.raw
            assert (await quick(client, *way, {"X-API-Key": other}))[1], "another key is not concerned"


@NEAR
async def test_a_rate_is_spent_once_for_each_request_whichever_way_it_takes(
    near: bool, valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    """Of a rate this small, no part of a call comes back while a test runs."""
    async with asked(valkey, tmp_path, flowise, near=near, **GUARDED) as client:
        home = client.app.service.home
        own = {"X-API-Key": await key_for(client.app, Scope.ASK, rate_per_minute=1)}
        assert status(await client.post(PATH, QUESTION, own)) == 200
        assert status(await client.post(PATH, QUESTION, own)) == 429
        own = {"X-API-Key": await key_for(client.app, Scope.ASK, Scope.READ, rate_per_minute=20)}
        await client.post(PATH, QUESTION, own)
        have = left(await client.again(PATH, QUESTION, own))
        ways = []
        while have:
            if have % 3 == 0:
                await home.cache.clear(flow=LLM, dry_run=False)  # admitted, and then not at hand
            response, repeated = await quick(client, PATH, QUESTION, own)
            assert status(response) == 200
            ways.append(repeated)
            assert have - left(response) in (0, 1)  # a call that came back in the meantime, at most
            have = left(response)
        assert set(ways) == {True, False}
        for _ in range(3):  # unless the next one has just come back
            refused, repeated = await quick(client, PATH, QUESTION, own)
            if status(refused) == 429:
                break
        assert (status(refused), repeated) == (429, False)
        assert refused.header("ratelimit-policy") == '"key";q=20;w=60'


@NEAR
async def test_a_key_that_is_limited_to_flows(
    near: bool, valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    async with asked(valkey, tmp_path, flowise, near=near, **GUARDED) as client:
        everybody = {"X-API-Key": await key_for(client.app, Scope.ASK, Scope.READ)}
        other = f"/api/v1/prediction/{FLOWS['conv']}"
        for path in (PATH, other):
            await client.post(path, QUESTION, everybody)
            await client.again(path, QUESTION, everybody)
        own = {"X-API-Key": await key_for(client.app, Scope.ASK, flows={LLM})}
        for way in WAYS.values():
            await client.post(*way, own)
            assert (await client.again(*way, own)).header("x-afw-outcome") == "hit"
            elsewhere = (
                (other, way[1])
                if way[0] == PATH
                else (way[0], json.loads(json.dumps(way[1]).replace(LLM, FLOWS["conv"])))
            )
            for _ in range(3):
                response, repeated = await quick(client, *elsewhere, own)
                assert (status(response), repeated) == (404, False)
        # Without a name, the question is routed among its flows alone.
        for _ in range(3):
            response, repeated = await quick(client, "/api/v2/ask", {"question": "Why so?"}, own)
            assert (status(response), repeated) == (200, False)
            assert response.header("x-afw-flow") in ("", LLM)


@NEAR
async def test_who_asks_is_in_the_turn_and_in_the_answer(
    near: bool, valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    mine = "/api/v2/ask", {"question": "Where do I find my own invoices?", "flow": LLM}
    async with asked(valkey, tmp_path, flowise, near=near, **GUARDED) as client:
        texts = set()
        for user in ("ana", "bo"):
            made = await client.app.service.home.api_keys.create(user, {Scope.ASK}, by="test", user=user)
            own = {"X-API-Key": made.secret}
            await client.post(*WAYS["flowise"], own)
            await client.post(*mine, own)
            if near:  # what is one person's own is not in the near cache
                texts.add(json.loads((await client.post(*mine, own)).body)["text"])
            else:
                texts.add(json.loads((await client.again(*mine, own)).body)["text"])
            response = await client.again(*WAYS["flowise"], own)
            await client.app.service.home.flush()
            with valkey.client() as redis:
                session = response.header("x-afw-session")
                ((_, raw),) = redis.xrange(f"afw:v1:default:session:{{{session}}}:turns")
            assert decode(raw[b"t"], Turn).user == user
        assert len(texts) == 2


@NEAR
async def test_tenants_stay_apart_and_may_be_closed_in_between(
    near: bool, valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    async with asked(valkey, tmp_path, flowise, near=near, serve_max_tenants=2, **GUARDED) as client:
        tenants = client.app.service.tenants
        keys = {}
        for tenant in ("one", "two"):
            lent = tenants.lend(tenant)
            keys[tenant] = {"X-API-Key": (await lent.api_keys.create(tenant, {Scope.ASK}, by="test")).secret}
            tenants.take_back(lent)
        bodies: dict[str, set[str]] = {"one": set(), "two": set()}
        for _ in range(3):
            for tenant, own in keys.items():  # there is room for one of them beside the service's own
                await client.post(PATH, QUESTION, own)
                again = await client.again(PATH, QUESTION, own)
                bodies[tenant].add(json.loads(again.body)["text"])
                known = client.app.service.repeats._known.values()
                assert {one.again.flywheel for one in known} <= set(tenants.everyone()), "one is held for nobody"
        assert all(len(told) == 1 for told in bodies.values()), "each was answered once by the flow"
        assert bodies["one"] != bodies["two"]
        assert not tenants._held.keys() - {client.app.service.home}, "what was lent is given back"
        # One that is being closed takes nothing more, however well it could answer.
        going = tenants._open.pop("two")
        response, repeated = await quick(client, PATH, QUESTION, keys["two"])
        assert (response.header("x-afw-outcome"), repeated) == ("hit", False)
        await going.aclose()


async def test_no_secret_is_kept_for_it(valkey: Server, tmp_path: Path, flowise: ReplayFlowise) -> None:
    async with asked(valkey, tmp_path, flowise, near=False, **GUARDED) as client:
        key = await key_for(client.app, Scope.ASK)
        await client.post(PATH, QUESTION, {"X-API-Key": key})
        await client.again(PATH, QUESTION, {"X-API-Key": key})
        (known,) = client.app.service.repeats._known
        assert len(known) == 32


@NEAR
async def test_while_redis_is_away_it_is_as_on_the_whole_way(
    near: bool, valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    async with asked(valkey, tmp_path, flowise, near=near, **GUARDED) as client:
        key, unknown = await key_for(client.app, Scope.ASK), await key_for(client.app, Scope.ASK, Scope.READ)
        await client.post(PATH, QUESTION, {"X-API-Key": key})
        await client.again(PATH, QUESTION, {"X-API-Key": key})
        valkey.kill()
        if near:
            near_cache = client.app.service.home._near
            assert near_cache is not None
            near_cache.channel.trusted_until = 0.0
        response, repeated = await quick(client, PATH, QUESTION, {"X-API-Key": key})
        assert (status(response), repeated) == (200, False)
        assert response.header("x-afw-outcome") == "bypass"
        assert status(await client.post(PATH, QUESTION, {"X-API-Key": unknown})) == 503


@NEAR
async def test_a_token_is_checked_and_its_rate_spent(
    near: bool, valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    shown = {**jwt.algorithms.ECAlgorithm.to_jwk(private.public_key(), as_dict=True), "kid": "k"}
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [shown]}))
    settings = {
        "jwt_issuer": "https://id.example.com/",
        "jwt_audience": "flywheel",
        "jwt_jwks": str(tmp_path / "keys.json"),
        "serve_rate_per_minute": 10,
        **GUARDED,
    }
    claims = {"iss": "https://id.example.com/", "aud": "flywheel", "sub": "ann", "exp": int(time.time()) + 300}
    token = jwt.encode({**claims, "scope": "afw:ask"}, private, algorithm="ES256", headers={"kid": "k"})
    own = {"Authorization": f"Bearer {token}"}
    async with asked(valkey, tmp_path, flowise, near=near, **settings) as client:
        await client.post(PATH, QUESTION, own)
        have = left(await client.again(PATH, QUESTION, own))
        for _ in range(have + 1):
            response, repeated = await quick(client, PATH, QUESTION, own)
            if status(response) == 429:
                break
            assert repeated
        assert (status(response), repeated) == (429, False)
