"""Signed tokens (JWT) of an issuer that the operator trusts, as who calls.

Invariant: only the algorithms of `jwt.algorithms` count, all of them asymmetric, and only for a key that is made for
them; a token must be signed by one of the issuer's keys, name issuer and audience as set, and carry an end that has not
passed. Keys are fetched when one is wanted that is not known, every 5 s at most, and each hour; keys at hand go on
counting for a day while the issuer cannot be reached.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jwt

from agentic_flywheel.callers import Caller, Scope
from agentic_flywheel.errors import CredentialsRefused, CredentialsUnchecked, IdError, SettingsError
from agentic_flywheel.policy.admission import admit_id
from agentic_flywheel.settings import Settings

#: What may be pinned. No HMAC: whoever can check such a token can make one. No `none`.
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
_REFRESH_SECONDS = 3600.0
_AGAIN_SECONDS = 5.0
_KEPT_SECONDS = 86400.0
_FETCH_SECONDS = 5.0
_LONGEST_SET = 1_000_000
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Tokens:
    """The issuer that the settings name. Raises `SettingsError` where they do not make sense together."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self.issuer = settings.text("jwt.issuer")
        self._audience = settings.text("jwt.audience")
        self._algorithms = [name.strip() for name in settings.text("jwt.algorithms").split(",") if name.strip()]
        self._keys = SigningKeys(settings.text("jwt.jwks"), settings.directory, clock)
        for name in ("audience", "jwks"):
            if not settings.text(f"jwt.{name}"):
                raise SettingsError(
                    f"setting 'jwt.{name}' is missing: with an issuer, audience and signing keys are needed",
                    setting=f"jwt.{name}",
                )
        unfit = [name for name in self._algorithms if name not in ALGORITHMS]
        if unfit or not self._algorithms:
            raise SettingsError(
                f"setting 'jwt.algorithms': {', '.join(unfit) or 'nothing'} cannot be pinned; choose among "
                f"{', '.join(sorted(ALGORITHMS))}",
                setting="jwt.algorithms",
            )

    def is_ours(self, token: str) -> bool:
        """Whether a token says that it is of our issuer; one that does must be right."""
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
        except jwt.PyJWTError:
            return False
        return claims.get("iss") == self.issuer

    async def caller_of(self, token: str) -> Caller:
        """Who bears the token. Raises `CredentialsRefused`, `CredentialsUnchecked`."""
        try:
            header = jwt.get_unverified_header(token)
            key = await self._keys.get(str(header.get("kid", "")))
            claims = jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                issuer=self.issuer,
                audience=self._audience,
                leeway=self._settings.number("jwt.leeway_seconds"),
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise CredentialsRefused("the token has expired") from error
        except jwt.PyJWTError as error:
            raise CredentialsRefused(f"the token is not right: {error}") from error
        return self._caller(claims)

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        tenant_claim = self._settings.text("jwt.tenant_claim")
        tenant = claim_of(claims, tenant_claim) if tenant_claim else self._settings.text("tenant")
        user = claim_of(claims, self._settings.text("jwt.user_claim"))
        try:
            tenant, user = admit_id(tenant, "tenant"), admit_id(user, "user")
        except IdError as error:
            raise CredentialsRefused(f"the token does not say for whom it stands: {error.message}") from error
        said = claim_of(claims, self._settings.text("jwt.scope_claim"))
        words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
        prefix = self._settings.text("jwt.scope_prefix")
        scopes = {scope for scope in Scope if f"{prefix}{scope.value}" in words}
        return Caller(tenant=tenant, user=user, scopes=frozenset(scopes), name=user, proof="token")


class SigningKeys:
    """The keys of an issuer (RFC 7517), from an address or a file, by their id."""

    def __init__(self, place: str, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._place = place
        self._remote = "://" in place
        if self._remote:
            parts = urlsplit(place)
            if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
                raise SettingsError(
                    f"setting 'jwt.jwks': {place} is not encrypted, so anybody on the way could make tokens; use https",
                    setting="jwt.jwks",
                )
        self._file = Path(directory, Path(place).expanduser())
        self._stamp = 0
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._lock = asyncio.Lock()

    async def get(self, id_: str) -> jwt.PyJWK:
        """The key of this id; where there is none, or the token names none, the only one that there is.

        Raises `CredentialsRefused` for a key that the issuer does not have, `CredentialsUnchecked` where nobody says.
        """
        now = self._clock()
        if now - self._fetched_at > _REFRESH_SECONDS or self._named(id_) is None or self._changed():
            await self._renew(id_)
        key = self._named(id_)
        if key is None:
            if self._fetched_at == float("-inf"):
                raise CredentialsUnchecked("the issuer's signing keys cannot be read")
            raise CredentialsRefused("the token is signed with a key that its issuer does not have")
        return key

    def _named(self, id_: str) -> jwt.PyJWK | None:
        if not id_ and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(id_)

    def _changed(self) -> bool:
        """Whether a file is another one now."""
        if self._remote:
            return False
        try:
            return self._file.stat().st_mtime_ns != self._stamp
        except OSError:
            return True

    async def _renew(self, id_: str) -> None:
        async with self._lock:
            now = self._clock()
            known = self._named(id_) is not None and now - self._fetched_at <= _REFRESH_SECONDS
            if self._remote and (known or now - self._tried_at < _AGAIN_SECONDS):
                return  # somebody else has just looked
            self._tried_at = now
            try:
                document = await self._fetch() if self._remote else self._read()
                keys = _usable(document)
            except (OSError, ValueError, jwt.PyJWTError) as error:
                if now - self._fetched_at > _KEPT_SECONDS:
                    self._keys = {}
                    raise CredentialsUnchecked(f"the signing keys at {self._place} cannot be read: {error}") from error
                return
            self._keys, self._fetched_at = keys, now

    def _read(self) -> Any:
        stamp = self._file.stat().st_mtime_ns
        document = json.loads(self._file.read_bytes())
        self._stamp = stamp
        return document

    async def _fetch(self) -> Any:
        import httpx2

        try:
            async with httpx2.AsyncClient(timeout=_FETCH_SECONDS, follow_redirects=False) as client:
                response = await client.get(self._place, headers={"Accept": "application/json"})
                response.raise_for_status()
        except httpx2.HTTPError as error:
            raise OSError(str(error) or type(error).__name__) from error
        if len(response.content) > _LONGEST_SET:
            raise ValueError("the key set is larger than any")
        return json.loads(response.content)


def _usable(document: Any) -> dict[str, jwt.PyJWK]:
    """The keys of a set that sign; those that cannot be used are left out."""
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("it is not a key set (an object with `keys`)")  # noqa: TRY004 -- told like any bad content
    found = {}
    for raw in document["keys"]:
        if not isinstance(raw, dict) or raw.get("use", "sig") != "sig" or raw.get("kty") == "oct":
            continue
        try:
            found[str(raw.get("kid", ""))] = jwt.PyJWK(raw)
        except jwt.PyJWTError:
            continue  # of a kind that this library does not know
    return found


def claim_of(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by the names on the way to it with dots between; None where there is none.

    >>> claim_of({"realm_access": {"roles": ["afw:ask"]}}, "realm_access.roles")
    ['afw:ask']
    >>> claim_of({"https://example.com/tenant": "docs"}, "https://example.com/tenant")
    'docs'
    """
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
