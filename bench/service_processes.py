"""The processes that benchmarks of the service start: `afw serve`, what stands behind it, and LiteLLM's proxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bench_venv import python_with
from private_server import free_port
from stand_in import FLOW_ID

HERE = Path(__file__).resolve().parent
LITELLM_KEY = "sk-bench"
LITELLM = ["litellm[proxy]==1.106.0"]
_REGISTRY = f"""\
flows:
  bench:
    kind: flowise
    id: {FLOW_ID}
    base_url: URL
    type: technical
"""


class Running(msgspec.Struct, frozen=True):
    """A server: where it is, and the process that serves (of the first worker, where there are several)."""

    url: str
    pid: int
    workers: tuple[int, ...] = ()
    routes: tuple[str, ...] = ()


@contextmanager
def stand_in() -> Iterator[Running]:
    """The Flowise and the model behind, and the bare endpoint."""
    with _started([sys.executable, str(HERE / "stand_in.py")], HERE) as process:
        yield Running(_first_line(process), process.pid)


@contextmanager
def service(folder: Path, redis_url: str, behind: str, *, workers: int = 1, **environ: str) -> Iterator[Running]:
    """`afw serve` as it is delivered, its log in `folder`; `environ` are settings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "flow-registry.yaml").write_text(_REGISTRY.replace("URL", behind))
    own = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(folder),
        "AFW_CONFIG_DIR": str(folder),
        "AFW_DATA_DIR": str(folder / "data"),
        "AFW_REDIS_URL": redis_url,
        "AFW_SERVE_FLOWISE_URL": behind,
        "AFW_REDIS_COMMAND_TIMEOUT_SECONDS": "10",  # the slowest replies are measured, and not cut off
        **environ,
    }
    command = [sys.executable, "-m", "agentic_flywheel.interfaces.cli.main", "serve", "--port", "0", "--json"]
    with (
        (folder / "serve.log").open("ab") as log,
        _started([*command, "--workers", str(workers)], folder, own, log.fileno()) as process,
    ):
        said = json.loads(_first_line(process))
        routes = tuple(path for paths in said["rooms"].values() for path in paths)
        yield Running(said["url"], said["workers"][0], tuple(said["workers"]), routes)


@contextmanager
def litellm(folder: Path, redis_url: str, behind: str) -> Iterator[Running | None]:
    """LiteLLM's proxy with its Redis cache and one worker; None where it cannot be installed."""
    python = python_with("litellm", LITELLM)
    if python is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    redis = urlsplit(redis_url)
    model = {"model": "openai/bench", "api_base": f"{behind}/v1", "api_key": "none"}
    cache = {"type": "redis", "host": redis.hostname, "port": redis.port, "ttl": 3600}
    config = {
        "model_list": [{"model_name": "bench", "litellm_params": model}],
        "litellm_settings": {"cache": True, "cache_params": cache},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(python.parent / "litellm"), "--config", "config.yaml", "--port", str(port), "--host", "127.0.0.1"]
    own = {"PATH": os.environ["PATH"], "HOME": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    own["LITELLM_MASTER_KEY"] = LITELLM_KEY  # it does not start without one
    with (
        (folder / "litellm.log").open("ab") as log,
        _started([*command, "--num_workers", "1"], folder, own, log.fileno(), out=log.fileno()) as process,
    ):
        _await(f"{url}/health/liveliness", process)
        yield Running(url, process.pid)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process in order, or else at once."""
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _started(
    command: list[str],
    folder: Path,
    environ: dict[str, str] | None = None,
    log: int | None = None,
    out: int = subprocess.PIPE,
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=folder, env=environ, stdout=out, stderr=log)
    try:
        yield process
    finally:
        stop(process)


def _first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().decode().strip()
    if not line:
        raise SystemExit(f"{process.args!r} ended with {process.wait()} before it served")
    return line


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                raise SystemExit(f"{process.args!r} ended with {process.returncode} before it served") from None
            time.sleep(0.2)
    raise SystemExit(f"waited 300 s for {url}")
