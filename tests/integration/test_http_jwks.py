"""Tokens of an issuer whose keys are behind an address: fetched, exchanged, away; and through the real service."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from afw_command import Afw
from agentic_flywheel.errors import CredentialsRefused, CredentialsUnchecked
from agentic_flywheel.interfaces.http.tokens import Tokens
from agentic_flywheel.settings import load_settings
from http_process import assert_problem, served
from servers import Server

pytestmark = pytest.mark.anyio

ISSUER = "https://id.example.com/"
OLD, NEW = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def signed(private: Any, id_: str, **more: Any) -> str:
    claims = {"iss": ISSUER, "aud": "flywheel", "sub": "ann", "exp": int(time.time()) + 300, "scope": "afw:ask", **more}
    return jwt.encode(claims, private, algorithm="ES256", headers={"kid": id_})


class Issuer:
    """An issuer's address: the keys that it shows now, and how often it was asked."""

    def __init__(self) -> None:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                body = issuer.body
                self.send_response(200 if body else 503)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None: ...

        self.asked = 0
        self.body = b""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def show(self, **keys: Any) -> None:
        algorithm = jwt.algorithms.ECAlgorithm
        shown = [{**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": name} for name, key in keys.items()]
        self.body = json.dumps({"keys": shown}).encode()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.close()


async def test_keys_are_fetched_when_they_are_wanted_and_not_more_often(issuer: Issuer, tmp_path: Path) -> None:
    named = {"jwt.issuer": ISSUER, "jwt.audience": "flywheel", "jwt.jwks": issuer.url}
    now = 1000.0
    tokens = Tokens(load_settings(named, environ={}, directory=tmp_path), clock=lambda: now)
    with pytest.raises(CredentialsUnchecked):
        await tokens.caller_of(signed(OLD, "old"))
    issuer.show(old=OLD)
    now += 6
    for _ in range(3):
        assert (await tokens.caller_of(signed(OLD, "old"))).user == "ann"
    assert issuer.asked == 2
    for number in range(3):  # made-up key ids make nobody ask the issuer again and again
        with pytest.raises(CredentialsRefused):
            await tokens.caller_of(signed(NEW, f"made-up-{number}"))
    assert issuer.asked == 2
    now += 6
    issuer.show(new=NEW)
    assert (await tokens.caller_of(signed(NEW, "new"))).user == "ann"
    assert issuer.asked == 3
    with pytest.raises(CredentialsRefused):  # withdrawn
        await tokens.caller_of(signed(OLD, "old"))
    issuer.body = b""
    now += 3601
    assert (await tokens.caller_of(signed(NEW, "new"))).user == "ann"  # the issuer is away: what is at hand goes on
    now += 86400
    with pytest.raises(CredentialsUnchecked):
        await tokens.caller_of(signed(NEW, "new"))


def test_the_service_takes_tokens_and_passes_those_of_others_on(issuer: Issuer, tmp_path: Path, valkey: Server) -> None:
    afw = Afw(tmp_path, valkey.url)
    issuer.show(old=OLD)
    afw.environ |= {
        "AFW_SERVE_CREDENTIALS": "always",
        "AFW_SERVE_RATE_PER_MINUTE": "3",
        "AFW_JWT_ISSUER": ISSUER,
        "AFW_JWT_AUDIENCE": "flywheel",
        "AFW_JWT_JWKS": issuer.url,
    }
    with served(afw) as server, server.client() as client:  # an issuer is enough to start with, no key is needed
        bearer = {"Authorization": f"Bearer {signed(OLD, 'old')}"}
        who = client.get("/whoami", headers=bearer)
        assert who.json() == {
            "name": "ann",
            "proof": "token",
            "tenant": "default",
            "user": "ann",
            "scopes": ["ask"],
            "flows": None,
        }
        assert who.headers["ratelimit"].startswith('"key";r=2;t=')
        assert_problem(
            client.get("/whoami", headers={"Authorization": f"Bearer {signed(NEW, 'old')}"}), 401, "credentials_refused"
        )
        others = {"Authorization": f"Bearer {signed(NEW, 'x', iss='https://other.example')}"}
        assert_problem(client.get("/whoami", headers=others), 401, "credentials_missing")
        for _ in range(2):
            assert client.get("/whoami", headers=bearer).status_code == 200
        assert_problem(client.get("/whoami", headers=bearer), 429, "rate_limited")
