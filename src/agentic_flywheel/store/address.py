"""Which Redis to use: one address, and where it came from.

Invariant: an address that leaves here is complete and unambiguous. What a client library would ignore in silence (a
database that is no number, an unknown option, the tail of a password after `#`) is refused with a message that does
not show the password. Nothing is read but the settings, the environment in them, and the files of coaiapy users.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import msgspec

from agentic_flywheel.errors import SettingsError
from agentic_flywheel.settings import Settings

SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")
REDIS_PORT = 6379
SENTINEL_PORT = 26379

_WHOLE = re.compile(r"\d+")
_SECONDS = re.compile(r"\d+(\.\d*)?")
_CERTIFICATES = re.compile(r"none|optional|required")
_ANYTHING = re.compile(r"(?s).+")
#: What may stand behind the `?` of an address, and what its value must look like.
_OPTIONS = {
    "db": _WHOLE,
    "username": _ANYTHING,
    "password": _ANYTHING,
    "client_name": _ANYTHING,
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
    "ssl_cert_reqs": _CERTIFICATES,
    "ssl_check_hostname": re.compile(r"(?i)true|false|yes|no|1|0"),
    "ssl_ca_certs": _ANYTHING,
    "ssl_ca_path": _ANYTHING,
    "ssl_certfile": _ANYTHING,
    "ssl_keyfile": _ANYTHING,
    "ssl_password": _ANYTHING,
    "ssl_ciphers": _ANYTHING,
    "sentinel_username": _ANYTHING,
    "sentinel_password": _ANYTHING,
}


class Address(msgspec.Struct, frozen=True):
    """Where Redis is. `url` is "" for the embedded server, whose socket is known once it runs.

    >>> Address("redis://me:secret@example.org:6380/2", "environment REDIS_URL").masked
    'redis://me:***@example.org:6380/2'
    """

    url: str
    origin: str
    embedded: bool = False

    @property
    def masked(self) -> str:
        """The address as people may see it: without passwords."""
        return _mask(self.url) if self.url else "embedded server"

    @property
    def shown(self) -> str:
        """The address as people may see it, and where it came from."""
        return self.masked if self.embedded else f"{self.masked} ({self.origin})"

    @property
    def options(self) -> dict[str, str]:
        """What stands behind the `?` of the address."""
        return dict(parse_qsl(urlsplit(self.url).query))

    @property
    def kind(self) -> str:
        """`cluster`, `sentinel`, or `server` for all others."""
        return self.url.partition("://")[0].partition("+")[2] or "server"

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.url.startswith("rediss")

    @property
    def hosts(self) -> tuple[tuple[str, int], ...]:
        """Host and port of every server that is named: one, or several of a cluster or sentinels; none for a socket."""
        parts = urlsplit(self.url)
        if parts.scheme in ("", "unix"):
            return ()
        usual = SENTINEL_PORT if self.kind == "sentinel" else REDIS_PORT
        return tuple(_host_port(named, usual) for named in parts.netloc.rpartition("@")[2].split(","))

    @property
    def service(self) -> str:
        """What sentinels call the service: the first part of the path."""
        return unquote(urlsplit(self.url).path.strip("/").partition("/")[0]) if self.kind == "sentinel" else ""

    @property
    def database(self) -> int:
        """The number of the database: the option `db`, else what the path names, else 0. Raises `ValueError`."""
        path = "" if self.url.startswith("unix:") else unquote(urlsplit(self.url).path).strip("/")
        named = path.partition("/")[2] if self.kind == "sentinel" else path
        return int(self.options.get("db") or named or 0)

    @property
    def local(self) -> bool:
        """Whether the connection stays on this machine."""
        return all(host in ("localhost", "::1") or host.startswith("127.") for host, _ in self.hosts)

    def at(self, host: str, port: int) -> Address:
        """One server of a cluster, or the one that sentinels point to: same credentials, database and options."""
        parts = urlsplit(self.url)
        database = parts.path.strip("/").partition("/")[2] if self.kind == "sentinel" else parts.path.strip("/")
        options = [(name, value) for name, value in parse_qsl(parts.query) if not name.startswith("sentinel_")]
        return Address(_located(self, parts.netloc, host, port, database, options), self.origin)

    def sentinel(self, host: str, port: int) -> Address:
        """One of the sentinels, with credentials of their own."""
        options = dict(parse_qsl(urlsplit(self.url).query))
        own = {name: value for name, value in options.items() if name.startswith(("ssl_", "socket_"))}
        own |= {name: options[f"sentinel_{name}"] for name in _LOGIN if f"sentinel_{name}" in options}
        return Address(_located(self, "", host, port, "", list(own.items())), self.origin)


_LOGIN = ("username", "password")


def _host_port(named: str, usual: int) -> tuple[str, int]:
    parts = urlsplit(f"//{named}")
    return parts.hostname or "localhost", parts.port or usual


def _located(whole: Address, netloc: str, host: str, port: int, database: str, options: list[tuple[str, str]]) -> str:
    credentials = netloc.rpartition("@")[0]
    bracketed = f"[{host}]" if ":" in host else host
    return urlunsplit(
        (
            "rediss" if whole.tls else "redis",
            f"{credentials}@{bracketed}:{port}" if credentials else f"{bracketed}:{port}",
            f"/{database}" if database else "",
            urlencode(options),
            "",
        )
    )


def resolve_address(settings: Settings) -> Address:
    """The Redis that the settings name, else that of coaiapy's variables and files, else the embedded server.

    Raises `SettingsError` where an address cannot be used, or there is none and the embedded server is switched off.
    """
    if url := settings.text("redis_url"):
        return _checked(url, settings.origin("redis_url"))
    for url, origin in _coaia_addresses(settings):
        return _checked(url, origin)
    if settings["embedded.enabled"]:
        return Address("", "embedded server", embedded=True)
    raise SettingsError(
        "no Redis is configured and the embedded server is switched off",
        suggestions=(
            "Set AFW_REDIS_URL, for example redis://localhost:6379/0.",
            "Set AFW_EMBEDDED_ENABLED=true to use the embedded server.",
        ),
        setting="redis_url",
    )


def _coaia_addresses(settings: Settings) -> Iterator[tuple[str, str]]:
    """What coaiapy would use, in its order, each with its origin.

    Unlike with coaiapy, the process environment beats an `.env` that merely lies there; a file that is named
    (AFW_ENV_FILE, COAIAPY_ENV_PATH) beats both. Companions (a token, a port, a password) may come from either.
    """
    environ = settings.environ
    variable = next((name for name in ("AFW_ENV_FILE", "COAIAPY_ENV_PATH") if environ.get(name)), "")
    file = settings.directory / Path(environ[variable] if variable else ".env").expanduser()
    if variable and not file.is_file():
        raise SettingsError(f"{variable} names {file}, which is no file", setting=variable, file=str(file))
    values = _read_variables(file) if file.is_file() else {}
    if variable:
        yield from _from_variables(values, {**environ, **values}, str(file))
    everything = {**values, **environ}
    yield from _from_variables(environ, everything, "environment")
    yield from _from_variables(values, everything, str(file))
    yield from _from_coaia_json(settings)


def _from_variables(values: Mapping[str, str], companions: Mapping[str, str], place: str) -> Iterator[tuple[str, str]]:
    for name, token in (
        ("UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN"),
        ("KV_REST_API_URL", "KV_REST_API_TOKEN"),
    ):
        if rest := values.get(name):
            yield _from_rest(rest, companions.get(token, ""), f"{place} {name}"), f"{place} {name}"
    for name in ("KV_URL", "REDIS_URL"):
        if url := values.get(name):
            yield url, f"{place} {name}"
    for name in ("REDIS_HOST", "UPSTASH_HOST"):
        if host := values.get(name):
            password = companions.get("REDIS_PASSWORD") or companions.get("UPSTASH_PASSWORD") or ""
            tls = companions.get("REDIS_SSL", "").lower() in ("1", "true", "yes")
            yield _url(host, companions.get("REDIS_PORT") or "6379", password, tls=tls), f"{place} {name}"


def _from_rest(rest: str, token: str, origin: str) -> str:
    """The Redis behind a REST address: same host, the token as password, TLS where the REST side has it."""
    try:
        parts = urlsplit(rest)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SettingsError(f"the address in {origin} cannot be read: {error}", origin=origin) from error
    if not host or parts.scheme not in ("http", "https"):
        raise SettingsError(f"{origin} must be an http(s) address, found {_mask(rest)!r}", origin=origin)
    return _url(host, str(port or 6379), token, tls=parts.scheme == "https")


def _from_coaia_json(settings: Settings) -> Iterator[tuple[str, str]]:
    """`jtaleconf` of ./coaia.json laid over that of ~/coaia.json."""
    home = Path(settings.environ.get("HOME") or Path.home())
    conf: dict[str, Any] = {}
    origin = ""
    for file in (home / "coaia.json", settings.directory / "coaia.json"):
        found = _read_json(file).get("jtaleconf") if file.is_file() else None
        if isinstance(found, dict) and found:
            conf |= found
            origin = str(file)
    if host := conf.get("host"):
        password = str(conf.get("password") or "")
        yield _url(str(host), str(conf.get("port") or 6379), password, tls=bool(conf.get("ssl"))), origin


def _url(host: str, port: str, password: str, *, tls: bool) -> str:
    credentials = f":{quote(password, safe='')}@" if password else ""
    bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{'rediss' if tls else 'redis'}://{credentials}{bracketed}:{port}"


def _checked(url: str, origin: str) -> Address:
    """The address, if a client would understand all of it."""

    def refuse(problem: str, *suggestions: str) -> SettingsError:
        return SettingsError(
            f"the Redis address {_mask(url)!r} ({origin}) {problem}", suggestions=suggestions, origin=origin
        )

    scheme = url.partition("://")[0] if "://" in url else ""
    if not scheme:
        raise refuse("has no scheme", f"Write redis://{_mask(url)}, or unix:///path/to/redis.sock for a socket.")
    if scheme not in SCHEMES:
        nearest = difflib.get_close_matches(scheme, SCHEMES, n=1)
        hint = f"; did you mean {nearest[0]}://?" if nearest else f"; use {', '.join(f'{s}://' for s in SCHEMES)}"
        raise refuse(f"has the unknown scheme {scheme!r}{hint}")
    try:
        parts = urlsplit(url)
        hosts = Address(url, origin).hosts
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        advice = "Percent-encode special characters in the password: @ as %40, / as %2F, : as %3A, # as %23, ? as %3F."
        raise refuse("cannot be read", advice) from error
    if parts.fragment:
        raise refuse("holds a '#', and what follows it would be lost", "Write # as %23 inside the password.")
    if scheme == "unix":
        if not parts.path or parts.hostname:
            raise refuse("has no absolute path", "Write unix:///path/to/redis.sock, with three slashes.")
    else:
        _check_place(scheme, parts.path, len(hosts), refuse)
    for name, value in options:
        _check_option(name, value, refuse)
    return Address(url, origin)


def _check_place(scheme: str, path: str, hosts: int, refuse: Callable[..., SettingsError]) -> None:
    """How many servers are named, and what stands behind them: a database, and a service in front of it."""
    database = path.strip("/")
    if scheme.endswith("+sentinel"):
        service, _, database = database.partition("/")
        if not service:
            raise refuse("names no service", "Write redis+sentinel://host:26379/service, as the sentinels call it.")
    elif hosts > 1 and not scheme.endswith("+cluster"):
        raise refuse("names several servers", "Write redis+cluster:// or redis+sentinel://HOSTS/SERVICE for several.")
    if not re.fullmatch(r"\d*", database):
        raise refuse(f"names the database {database!r}, which is not a number")
    if scheme.endswith("+cluster") and int(database or 0):
        raise refuse("names a database other than 0, and a cluster has no other")


def _check_option(name: str, value: str, refuse: Callable[[str], SettingsError]) -> None:
    if name not in _OPTIONS:
        nearest = difflib.get_close_matches(name, _OPTIONS, n=1, cutoff=0.5)
        raise refuse(f"has the unknown option {name!r}{f'; did you mean {nearest[0]!r}?' if nearest else ''}")
    if not _OPTIONS[name].fullmatch(value):
        shown = "***" if "password" in name else repr(value)
        raise refuse(f"has an option {name!r} with the impossible value {shown}")


def _mask(url: str) -> str:
    """`url` without passwords, however badly it is formed."""
    url = re.sub(r"(password=)[^&]*", r"\1***", url)
    if "://" not in url:
        url = re.sub(r"^([^:@/]*):.*@", r"\1:***@", url)
    # Up to the last @, since an unencoded password may hold one; the user's name is no secret.
    return re.sub(r"(?<=://)([^:@/]*):.*@", r"\1:***@", url)


def _read_variables(file: Path) -> dict[str, str]:
    """Variables of a file in either form that coaiapy takes: JSON, or KEY=VALUE lines."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {file}: {error}", file=str(file)) from error
    if text.lstrip().startswith("{"):
        return {name: str(value) for name, value in _read_json(file).items() if isinstance(value, str | int)}
    values = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            values[name.strip()] = value[1:-1] if quoted else value
    return values


def _read_json(file: Path) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read {file}: {error}", file=str(file)) from error
    if not isinstance(tree, dict):
        raise SettingsError(f"{file} holds no JSON object", file=str(file))
    return tree
