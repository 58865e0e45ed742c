"""What is in ops/ is what it says: it parses, names settings and routes that exist, and keeps to a few rules."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from agentic_flywheel.settings import _OTHER_VARIABLES
from agentic_flywheel.settings_table import SETTINGS
from pages import ROOT

OPS = ROOT / "ops"
VARIABLES = {setting.variable for setting in SETTINGS} | set(_OTHER_VARIABLES)
FILES = sorted(path for path in OPS.rglob("*") if path.is_file())


def _yaml(name: str) -> Any:
    return YAML(typ="safe").load((OPS / name).read_text("utf-8"))


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(OPS)))
def test_every_variable_named_is_a_setting(file: Path) -> None:
    named = set(re.findall(r"\bAFW_[A-Z_]+", file.read_text("utf-8")))
    assert named - VARIABLES == set()


def test_every_file_is_explained() -> None:
    page = (ROOT / "docs" / "server.md").read_text("utf-8")
    assert [str(file.relative_to(ROOT)) for file in FILES if f"`{file.relative_to(ROOT)}`" not in page] == []


def test_the_unit_is_valid_and_confined() -> None:
    unit = OPS / "systemd" / "afw-serve.service"
    text = unit.read_text("utf-8")
    sections = re.findall(r"^\[(\w+)\]$", text, re.MULTILINE)
    assert sections == ["Unit", "Service", "Install"]
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=", "KillSignal=SIGTERM"):
        assert f"\n{line}\n" in text
    if (verify := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not on this machine")
    done = subprocess.run([verify, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    # The program is not installed where tests run; anything else that it says is a mistake.
    said = [line for line in done.stderr.splitlines() if "afw-serve" in line and "not executable" not in line]
    assert said == []


def test_the_image_is_built_from_a_documented_base_and_runs_as_nobody_in_particular() -> None:
    text = (OPS / "docker" / "Dockerfile").read_text("utf-8")
    steps = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    plain = [step if not step.startswith(("CMD", "HEALTHCHECK")) else step.split()[0] for step in steps if step]
    words = [shlex.split(step) for step in plain]
    known = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
    assert {step[0] for step in words} <= known | {"ENTRYPOINT", "CMD"}
    base = next(step[1].partition("=")[2] for step in words if step[0] == "ARG")
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base)
    assert {step[1] for step in words if step[0] == "FROM"} == {"${PYTHON}"}
    assert "sha256:" not in text
    assert [step[1] for step in words if step[0] == "USER"] == ["10001"]
    for step in words:
        if step[0] == "COPY" and not step[1].startswith("--from"):
            for source in step[1:-1]:
                assert (ROOT / source).exists(), source
    assert "--require-hashes" in text
    assert ["EXPOSE", str(next(s.default for s in SETTINGS if s.name == "serve.port"))] in words


def test_the_compose_file_ties_service_and_redis_together() -> None:
    services = _yaml("docker/compose.yaml")["services"]
    flywheel, redis = services["flywheel"], services["redis"]
    assert (OPS / "docker" / flywheel["build"]["context"]).resolve() == ROOT
    assert (ROOT / flywheel["build"]["dockerfile"]).is_file()
    assert flywheel["environment"]["AFW_REDIS_URL"] == "redis://redis:6379/0"
    assert flywheel["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert all(port.startswith("127.0.0.1:") for port in flywheel["ports"])
    assert "ports" not in redis  # nobody from outside
    assert redis["command"][1:3] == ["--appendonly", "yes"]
    assert redis["command"][redis["command"].index("--maxmemory-policy") + 1] == "volatile-lru"
    volumes = {volume.split(":")[0] for one in services.values() for volume in one["volumes"]}
    assert {name for name in volumes if not name.startswith((".", "/"))} == set(_yaml("docker/compose.yaml")["volumes"])


def test_the_dashboard_and_the_rules_are_whole() -> None:
    dashboard = json.loads((OPS / "grafana" / "agentic-flywheel.json").read_text("utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in panels:
        for target in panel["targets"]:
            expression = target["expr"]
            assert expression.count("(") == expression.count(")")
            assert set(re.findall(r"\$(\w+)", expression)) <= variables | {"__rate_interval"}
    rules = [rule for group in _yaml("prometheus/alerts.yaml")["groups"] for rule in group["rules"]]
    assert len(rules) >= 5
    assert all({"alert", "expr", "labels", "annotations"} <= set(rule) for rule in rules)
    (job,) = _yaml("prometheus/agentic-flywheel.yaml")["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
