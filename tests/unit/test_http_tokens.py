"""Signed tokens: what is taken, and everything that is not."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import CredentialsRefused, CredentialsUnchecked, SettingsError
from agentic_flywheel.interfaces.http.tokens import Tokens
from agentic_flywheel.settings import load_settings

pytestmark = pytest.mark.anyio

ISSUER, AUDIENCE = "https://id.example.com/", "flywheel"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
STRANGER = ec.generate_private_key(ec.SECP256R1())


def jwk(private: Any, id_: str, **more: Any) -> dict[str, Any]:
    """The public half of a key as issuers publish it."""
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(private, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**algorithm.to_jwk(private.public_key(), as_dict=True), "kid": id_, "use": "sig", **more}


def claims(**more: Any) -> dict[str, Any]:
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 300, "scope": "afw:ask openid"}
    return {name: value for name, value in {**usual, **more}.items() if value is not None}


def signed(private: Any = EC_KEY, id_: str | None = "ec", algorithm: str = "ES256", **more: Any) -> str:
    headers = {"kid": id_} if id_ is not None else {}
    return jwt.encode(claims(**more), private, algorithm=algorithm, headers=headers)


@pytest.fixture
def tokens(tmp_path: Path) -> Callable[..., Tokens]:
    def make(keys: Any = None, **given: Any) -> Tokens:
        (tmp_path / "keys.json").write_text(json.dumps({"keys": keys or [jwk(EC_KEY, "ec"), jwk(RSA_KEY, "rsa")]}))
        named = {"jwt.issuer": ISSUER, "jwt.audience": AUDIENCE, "jwt.jwks": "keys.json", "tenant": "home"}
        named |= {f"jwt.{name}": value for name, value in given.items()}
        return Tokens(load_settings(named, environ={}, directory=tmp_path))

    return make


async def test_a_right_token_says_who_calls(tokens: Callable[..., Tokens]) -> None:
    for token in (signed(), signed(RSA_KEY, "rsa", "RS256")):
        caller = await tokens().caller_of(token)
        assert (caller.tenant, caller.user, caller.name, caller.proof) == ("home", "ann", "ann", "token")
        assert caller.scopes == {Scope.ASK}


def _unsigned() -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none', 'kid': 'ec'})}.{part(claims())}."


def _hmac_with_public_key() -> str:
    """The old trick: a public key taken for the secret of an HMAC."""
    import hmac

    public = EC_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    body = f"{part(json.dumps({'alg': 'HS256', 'kid': 'ec'}).encode())}.{part(json.dumps(claims()).encode())}"
    return f"{body}.{part(hmac.digest(public, body.encode(), 'sha256'))}"


def _headed(private: Any = EC_KEY, said: dict[str, Any] | None = None, **headers: Any) -> str:
    """A right token but for its head, and what it `said`."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    body = (
        f"{part(json.dumps({'alg': 'ES256'} | headers).encode())}.{part(json.dumps(claims() | (said or {})).encode())}"
    )
    algorithm = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256)
    return f"{body}.{part(algorithm.sign(body.encode(), private))}"


async def test_a_head_that_the_test_makes_is_right_where_its_key_is(tokens: Callable[..., Tokens]) -> None:
    assert (await tokens().caller_of(_headed(kid="ec"))).user == "ann"


def _tampered() -> str:
    head, body, signature = signed().split(".")
    raw = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))) | {"sub": "root"}
    return f"{head}.{base64.urlsafe_b64encode(json.dumps(raw).encode()).decode().rstrip('=')}.{signature}"


@pytest.mark.parametrize(
    ("what", "make"),
    [
        ("not signed", _unsigned),
        ("HMAC", _hmac_with_public_key),
        ("tampered", _tampered),
        ("a stranger's", lambda: signed(STRANGER)),
        ("a key that is not there", lambda: signed(STRANGER, "other")),
        ("no key named, and there are two", lambda: signed(id_=None)),
        ("the other key's algorithm", lambda: signed(RSA_KEY, "ec", "RS256")),
        ("an algorithm that is not pinned", lambda: signed(RSA_KEY, "rsa", "RS512")),
        ("expired", lambda: signed(exp=int(time.time()) - 60)),
        ("endless", lambda: signed(exp=None)),
        ("not yet", lambda: signed(nbf=int(time.time()) + 120)),
        ("another issuer", lambda: signed(iss="https://evil.example/")),
        ("no issuer", lambda: signed(iss=None)),
        ("another audience", lambda: signed(aud="other")),
        ("no audience", lambda: signed(aud=None)),
        ("nobody", lambda: signed(sub=None)),
        ("an empty name", lambda: signed(sub=" ")),
        ("a name that drives terminals", lambda: signed(sub="\x1b[2J")),
        ("nonsense", lambda: "eyJ.x.y"),
        ("a key by its path", lambda: _headed(kid="../../../../dev/null")),
        ("a key that is a list", lambda: _headed(kid=["ec"])),
        ("a key of its own in its head", lambda: _headed(STRANGER, kid="own", jwk=jwk(STRANGER, "own"))),
        ("a key of its own elsewhere", lambda: _headed(STRANGER, kid="own", jku="https://evil.example/jwks.json")),
        ("something critical that nobody knows", lambda: _headed(kid="ec", crit=["exp-policy"], **{"exp-policy": 1})),
        ("an end that is a word", lambda: signed(exp="tomorrow")),
        ("an end beyond all numbers", lambda: signed(exp=float("inf"))),
        ("an end that is no number", lambda: signed(exp=float("nan"))),
        ("several names", lambda: signed(sub=["ann", "root"])),
        ("a name that is a claim", lambda: signed(sub={"name": "ann"})),
        ("two issuers", lambda: _headed(said={"iss": [ISSUER, "https://evil.example/"]}, kid="ec")),
    ],
)
async def test_any_other_is_refused(tokens: Callable[..., Tokens], what: str, make: Callable[[], str]) -> None:
    with pytest.raises(CredentialsRefused):
        await tokens().caller_of(make())


async def test_clocks_may_differ_a_little(tokens: Callable[..., Tokens]) -> None:
    late = signed(exp=int(time.time()) - 20)
    assert (await tokens().caller_of(late)).user == "ann"
    with pytest.raises(CredentialsRefused, match="expired"):
        await tokens(leeway_seconds=0).caller_of(late)


async def test_claims_are_found_where_the_settings_say(tokens: Callable[..., Tokens]) -> None:
    made = tokens(tenant_claim="https://example.com/team", user_claim="email", scope_claim="realm_access.roles")
    caller = await made.caller_of(
        signed(
            **{"https://example.com/team": "docs"},
            email="ann@example.com",
            realm_access={"roles": ["afw:read", "afw:admin", "user"]},
        )
    )
    assert (caller.tenant, caller.user, caller.scopes) == ("docs", "ann@example.com", {Scope.READ, Scope.ADMIN})
    with pytest.raises(CredentialsRefused):  # no tenant: never the service's own
        await made.caller_of(signed(email="ann@example.com"))


@pytest.mark.parametrize("said", ["admin read ask", ["admin"], "xafw:admin", {"afw:admin": True}, 7, None, "AFW:ADMIN"])
async def test_other_words_in_the_claim_open_nothing(tokens: Callable[..., Tokens], said: Any) -> None:
    assert (await tokens().caller_of(signed(scope=said))).scopes == frozenset()


async def test_keys_in_a_file_are_exchanged_without_a_restart(tokens: Callable[..., Tokens], tmp_path: Path) -> None:
    made = tokens([jwk(EC_KEY, "old")])
    await made.caller_of(signed(EC_KEY, "old"))
    assert (await made.caller_of(signed(EC_KEY, None))).user == "ann"  # the only key there is
    with pytest.raises(CredentialsRefused):
        await made.caller_of(signed(STRANGER, "new"))
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [jwk(STRANGER, "new")]}))
    assert (await made.caller_of(signed(STRANGER, "new"))).user == "ann"
    with pytest.raises(CredentialsRefused):
        await made.caller_of(signed(EC_KEY, "old"))


async def test_keys_that_do_not_sign_are_left_out(tokens: Callable[..., Tokens]) -> None:
    secret = {"kty": "oct", "k": base64.urlsafe_b64encode(b"x" * 32).decode(), "kid": "hmac"}
    made = tokens([jwk(EC_KEY, "enc", use="enc"), secret, {"kty": "??"}, 7, jwk(EC_KEY, "ec")])
    await made.caller_of(signed())
    with pytest.raises(CredentialsRefused):
        await made.caller_of(signed(EC_KEY, "enc"))


async def test_a_file_that_is_not_there_can_be_put_there_later(tokens: Callable[..., Tokens], tmp_path: Path) -> None:
    made = tokens()
    kept = (tmp_path / "keys.json").read_text()
    for content in (None, "", "[]", '{"keys": 7}'):
        (tmp_path / "keys.json").unlink(missing_ok=True)
        if content is not None:
            (tmp_path / "keys.json").write_text(content)
        with pytest.raises(CredentialsUnchecked):
            await made.caller_of(signed())
    (tmp_path / "keys.json").write_text(kept)
    await made.caller_of(signed())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"audience": ""}, "jwt.audience"),
        ({"jwks": ""}, "jwt.jwks"),
        ({"jwks": "http://id.example.com/keys"}, "https"),
        ({"algorithms": "none"}, "none"),
        ({"algorithms": "RS256, HS256"}, "HS256"),
        ({"algorithms": ","}, "nothing"),
    ],
)
def test_settings_that_would_let_anybody_in_are_refused(
    tokens: Callable[..., Tokens], given: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        tokens(**given)


def test_tokens_of_others_are_not_taken_for_ours(tokens: Callable[..., Tokens]) -> None:
    assert tokens().is_ours(signed())
    assert not tokens().is_ours(signed(iss="https://other.example"))
    assert not tokens().is_ours("eyJhbGciOiJFUzI1NiJ9")
