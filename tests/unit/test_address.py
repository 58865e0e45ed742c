"""Which Redis is used, for every source and its order; and that what cannot be used is refused without leaking."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentic_flywheel.errors import SettingsError
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.address import Address, resolve_address


def resolve(directory: Path, arguments: dict[str, object] | None = None, **environ: str) -> Address:
    home = directory / "home"
    return resolve_address(load_settings(arguments, environ={"HOME": str(home), **environ}, directory=directory))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def test_embedded_server_where_nothing_is_configured(tmp_path: Path) -> None:
    address = resolve(tmp_path)
    assert address == Address("", "embedded server", embedded=True)
    assert address.masked == "embedded server"
    assert address.local


def test_nothing_configured_and_embedded_server_off(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="switched off") as caught:
        resolve(tmp_path, {"embedded.enabled": False})
    assert any("AFW_REDIS_URL" in suggestion for suggestion in caught.value.suggestions)


def test_order_of_sources(tmp_path: Path, home: Path) -> None:
    (home / "coaia.json").write_text(json.dumps({"jtaleconf": {"host": "home", "password": "pw", "ssl": True}}))
    assert resolve(tmp_path) == Address("rediss://:pw@home:6379", str(home / "coaia.json"))

    (tmp_path / "coaia.json").write_text(json.dumps({"jtaleconf": {"host": "here", "port": 1234}}))
    assert resolve(tmp_path) == Address("rediss://:pw@here:1234", str(tmp_path / "coaia.json"))

    weakest_first = [
        ("UPSTASH_HOST", "upstash", "redis://upstash:6379"),
        ("REDIS_HOST", "host", "redis://host:6379"),
        ("REDIS_URL", "redis://url/3", "redis://url/3"),
        ("KV_URL", "rediss://kv", "rediss://kv"),
        ("KV_REST_API_URL", "https://kv.rest", "rediss://kv.rest:6379"),
        ("UPSTASH_REDIS_REST_URL", "http://upstash.rest:8080", "redis://upstash.rest:8080"),
        ("AFW_REDIS_URL", "redis://ours", "redis://ours"),
    ]
    environ: dict[str, str] = {}
    for variable, value, url in weakest_first:
        environ[variable] = value
        assert resolve(tmp_path, **environ) == Address(url, f"environment {variable}")
    assert resolve(tmp_path, {"redis_url": "redis://argument"}, **environ).origin == "argument"


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        (
            {"KV_REST_API_URL": "https://eu1.example.io", "KV_REST_API_TOKEN": "to/k@en"},
            "rediss://:to%2Fk%40en@eu1.example.io:6379",
        ),
        (
            {"UPSTASH_REDIS_REST_URL": "https://eu1.example.io", "UPSTASH_REDIS_REST_TOKEN": "t"},
            "rediss://:t@eu1.example.io:6379",
        ),
        ({"REDIS_HOST": "h", "REDIS_PORT": "7000", "REDIS_PASSWORD": "p:w"}, "redis://:p%3Aw@h:7000"),
        ({"UPSTASH_HOST": "h", "UPSTASH_PASSWORD": "pw", "REDIS_SSL": "true"}, "rediss://:pw@h:6379"),
        ({"REDIS_HOST": "::1"}, "redis://[::1]:6379"),
    ],
)
def test_variables_are_put_together(tmp_path: Path, environ: dict[str, str], url: str) -> None:
    assert resolve(tmp_path, **environ).url == url


def test_environment_beats_an_env_file_that_is_not_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# the shop's\nexport KV_URL='redis://file'\nREDIS_PASSWORD=\"from file\"\n")
    assert resolve(tmp_path) == Address("redis://file", f"{file} KV_URL")
    assert resolve(tmp_path, REDIS_URL="redis://process").url == "redis://process"
    assert resolve(tmp_path, REDIS_HOST="process").url == "redis://:from%20file@process:6379"


@pytest.mark.parametrize("variable", ["AFW_ENV_FILE", "COAIAPY_ENV_PATH"])
@pytest.mark.parametrize("content", ["REDIS_URL=redis://file\n", '{"REDIS_URL": "redis://file"}'])
def test_named_env_file_beats_the_environment(tmp_path: Path, variable: str, content: str) -> None:
    (tmp_path / "shop.env").write_text(content)
    environ = {variable: "shop.env", "KV_URL": "redis://process"}
    assert resolve(tmp_path, **environ).url == "redis://file"
    with pytest.raises(SettingsError, match="no file"):
        resolve(tmp_path, **{variable: "absent.env"})


@pytest.mark.parametrize(
    ("file", "content"), [("coaia.json", "{"), ("coaia.json", "[]"), (".env", b"\xff\xfe"), ("coaia.json", b"\xff")]
)
def test_unreadable_file_is_named(tmp_path: Path, file: str, content: str | bytes) -> None:
    (tmp_path / file).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SettingsError) as caught:
        resolve(tmp_path)
    assert str(tmp_path / file) in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://user:p%40ss@[::1]:6380/15",
        "rediss://h:1/0?ssl_cert_reqs=none&ssl_ca_certs=/etc/ca.pem",
        "unix:///run/redis.sock?db=2&password=x",
        "unix://:secret@/run/redis.sock",
        "redis://h?socket_timeout=1.5",
        "redis+cluster://h:7000,[::1]:7001,h/0",
        "rediss+sentinel://:p@a,b:26380/main/3?sentinel_username=s&sentinel_password=q",
    ],
)
def test_usable_addresses(tmp_path: Path, url: str) -> None:
    assert resolve(tmp_path, AFW_REDIS_URL=url).url == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:6379", "no scheme"),
        ("reddis://h", "did you mean redis://"),
        ("http://h", "unknown scheme"),
        ("redis://a,b", "several servers"),
        ("redis+cluster://a,b/1", "other than 0"),
        ("redis+cluster://a,b:x", "cannot be read"),
        ("redis+sentinel://h", "no service"),
        ("redis+sentinel://h/main/first", "not a number"),
        ("redis://h:port", "cannot be read"),
        ("redis://h:99999", "cannot be read"),
        ("redis://h/first", "not a number"),
        ("redis://h/1/2", "not a number"),
        ("redis://h?db=x", "impossible value"),
        ("redis://h?ssl_cert_req=none", "did you mean 'ssl_cert_reqs'"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", "impossible value"),
        ("redis://h?flag", "cannot be read"),
        ("unix://relative/redis.sock", "three slashes|absolute"),
        ("redis://:sec/ret@h", "cannot be read"),
        ("redis://:sec#ret@h", "cannot be read|'#'"),
        ("redis://:sec?ret@h", "cannot be read"),
        ("redis://u:s@cret@h/x", "not a number"),
        ("redis://h?password=", "impossible value"),
    ],
)
def test_unusable_addresses_are_refused(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        resolve(tmp_path, REDIS_URL=url)
    assert "REDIS_URL" in caught.value.message
    shown = json.dumps(caught.value.as_dict())
    assert not any(secret in shown for secret in ("sec/", "sec#", "sec?", "s@cret"))


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://u:p%40@h:1/2", "redis://u:***@h:1/2"),
        ("redis://:p@h", "redis://:***@h"),
        ("redis://h/1", "redis://h/1"),
        ("redis://u@h", "redis://u@h"),
        ("unix:///s?password=x&db=1", "unix:///s?password=***&db=1"),
        ("rediss://h?ssl_password=x", "rediss://h?ssl_password=***"),
    ],
)
def test_masked(url: str, masked: str) -> None:
    assert Address(url, "").masked == masked


@pytest.mark.parametrize(
    ("url", "local", "tls"),
    [
        ("redis://127.0.0.1", True, False),
        ("unix:///s", True, False),
        ("redis://[::1]", True, False),
        ("rediss://example.org", False, True),
        ("redis://10.0.0.1", False, False),
    ],
)
def test_how_far_away(url: str, local: bool, tls: bool) -> None:
    address = Address(url, "")
    assert (address.local, address.tls) == (local, tls)


def test_servers_of_a_cluster() -> None:
    address = Address("rediss+cluster://me:p%40@a:7000,[::1]:7001,c?ssl_ca_certs=/ca", "here")
    assert (address.kind, address.tls, address.local) == ("cluster", True, False)
    assert address.hosts == (("a", 7000), ("::1", 7001), ("c", 6379))
    assert address.at("::1", 7001) == Address("rediss://me:p%40@[::1]:7001?ssl_ca_certs=%2Fca", "here")


def test_sentinels_and_the_server_they_point_to() -> None:
    url = "redis+sentinel://me:p@a,b:26380/ma%20in/3?client_name=x&sentinel_username=s&sentinel_password=q"
    address = Address(url, "here")
    assert (address.kind, address.service, address.hosts) == ("sentinel", "ma in", (("a", 26379), ("b", 26380)))
    assert address.at("10.0.0.1", 6379).url == "redis://me:p@10.0.0.1:6379/3?client_name=x"
    assert address.sentinel("b", 26380).url == "redis://b:26380?username=s&password=q"
    assert address.masked == url.replace("me:p@", "me:***@").replace("=q", "=***")


def test_a_socket_and_the_embedded_server_name_no_host() -> None:
    assert Address("unix:///run/redis.sock", "").hosts == Address("", "", embedded=True).hosts == ()
