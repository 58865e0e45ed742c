"""The flow registry: which file is in force, what it says now, and edits to it.

Invariant: `Registry.current` is never older than the file: each call looks (a few `stat` calls), and reads again when
the file changed or one of higher priority appeared. A file that became unreadable or wrong does not take the flows
away: the last good reading stays in force and `problem` says what is wrong.

The first file of the cascade that exists is used whole; nothing is merged across files: the setting `registry`, the
project's `.agentic_flywheel/flow-registry.yaml` (from the working directory upwards), `flow-registry.yaml` in the
user's configuration directory, the packaged default.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from agentic_flywheel.errors import RegistryError
from agentic_flywheel.flows import registry_edit as edits
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry_file import FIELDS, parse_registry
from agentic_flywheel.flows.registry_values import Unexpected, as_privacy, as_similar, said_of
from agentic_flywheel.flows.snapshot import RegistrySnapshot, RoutingRules
from agentic_flywheel.likeness import SimilarPolicy
from agentic_flywheel.model import FlowType, Sharing
from agentic_flywheel.privacy import PrivacyPolicy
from agentic_flywheel.settings import PROJECT_FOLDER, Settings, project_folder

__all__ = ["REGISTRY_FILE", "Registry", "RegistryChange", "RegistrySnapshot", "RoutingRules", "config_digest"]

REGISTRY_FILE = "flow-registry.yaml"
PACKAGED_REGISTRY = Path(__file__).with_name("default-registry.yaml")
#: A file changed less than this before it was read may change again within the same tick of its file system's clock,
#: with the same size: such a reading is not trusted on the next call.
_RACY_NS = 100_000_000
_DURATION_FIELDS = {"ttl": "ttl", "timeout": "timeout_seconds", "check_every": "check_every_seconds"}


class RegistryChange(msgspec.Struct, frozen=True, kw_only=True):
    """What an edit did: `action` is added, edited or removed; `path` is the file that was written.

    `created` says that this file was made for the edit, as a copy of the packaged default. `before` and `after` hold
    the fields that differ, as the file writes them.
    """

    action: str
    key: str
    path: Path
    created: bool = False
    before: Mapping[str, Any] = {}
    after: Mapping[str, Any] = {}


class Registry:
    """The flow registry in force, read again when it changes.

    >>> from agentic_flywheel.settings import load_settings
    >>> registry = Registry(load_settings(environ={"AFW_CONFIG_DIR": "/nonexistent"}, directory=Path("/")))
    >>> registry.register("echo", lambda question: question).kind
    'python'
    >>> sorted(registry.current().flows), registry.current().origin
    (['documents', 'echo'], 'packaged')
    """

    def __init__(self, settings: Settings) -> None:
        self.problem: RegistryError | None = None
        #: For programs that are asked thousands of times a second: no file is looked at again within so long.
        self.look_every_seconds = 0.0
        self._looked_at = float("-inf")
        named = settings.text("registry")
        self._named = Path(settings.directory, Path(named).expanduser()) if named else None
        self._project = project_folder(settings.directory)
        self._user = settings.config_dir / REGISTRY_FILE
        self._cascade = _cascade(self._named, settings.origin("registry"), settings.directory, self._user)
        self._registered: dict[str, FlowSpec] = {}
        self._file: RegistrySnapshot | None = None
        self._stamp: tuple[object, ...] = ()
        self._settled = False
        self._merged: RegistrySnapshot | None = None

    def current(self) -> RegistrySnapshot:
        """The registry as it is now. Raises `RegistryError` only if no reading has ever succeeded."""
        if self.look_every_seconds and self._merged is not None:
            now = time.monotonic()
            if now < self._looked_at + self.look_every_seconds:
                return self._merged
            self._looked_at = now
        path, origin, stamp = self._in_force()
        if stamp != self._stamp or not self._settled:
            self._read(Path(path), origin, stamp)
        if self._merged is None:
            raise self.problem or RegistryError(f"cannot read {path}", file=str(path))
        return self._merged

    def _in_force(self) -> tuple[str, str, tuple[object, ...]]:
        for name, origin in self._cascade:
            try:
                stat = os.stat(name)  # noqa: PTH116 (on the way of every question; a Path costs three times as much)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:  # the file exists and cannot be looked at: reading it says why
                return name, origin, (name, "unreadable")
            return name, origin, (name, stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_ctime_ns)
        missing, origin = self._cascade[-1]
        return missing, origin, (missing, "missing")

    def _read(self, path: Path, origin: str, stamp: tuple[object, ...]) -> None:
        changed = stamp[-1] if isinstance(stamp[-1], int) else time.time_ns()
        settled = time.time_ns() - changed > _RACY_NS
        try:
            snapshot = parse_registry(edits.read_raw(path), path, origin)
        except RegistryError as error:
            self.problem = error
        else:
            self.problem, self._file = None, snapshot
            self._merge()
        self._stamp, self._settled = stamp, settled

    def _merge(self) -> None:
        if self._file is None:
            return
        doubled = [key for key in self._registered if key in self._file.flows]
        self._merged = msgspec.structs.replace(
            self._file,
            flows=MappingProxyType({**self._file.flows, **self._registered}),
            notes=(*self._file.notes, *(f"{key!r}: registered from Python, the file's is not used" for key in doubled)),
        )

    def register(self, key: str, answer: Callable[..., Any], **fields: Any) -> FlowSpec:
        """Add a flow of this process that a Python callable answers; it comes before a flow of the file with this key.

        `fields` are those of `FlowSpec`. See `flows.callable` for what the callable may look like.
        """
        if not key.strip():
            raise RegistryError("a flow's key must not be empty", flow=key)
        if not callable(answer):
            raise RegistryError(f"flow {key!r}: expected a callable, found {type(answer).__name__}", flow=key)
        known = set(FlowSpec.__struct_fields__) - {"key", "kind", "origin"}
        if unknown := sorted(set(fields) - known):
            raise RegistryError(f"flow {key!r}: no such field: {', '.join(unknown)}", flow=key, unknown=unknown)
        name = f"{getattr(answer, '__module__', '')}:{getattr(answer, '__qualname__', type(answer).__qualname__)}"
        try:
            fields["type"] = FlowType(fields.get("type", FlowType.TECHNICAL))
            fields["sharing"] = Sharing(fields.get("sharing", Sharing.TEAM))
            fields["similar"] = as_similar(fields.get("similar", {}))
            if fields.get("privacy") is not None:
                fields["privacy"] = as_privacy(fields["privacy"])
        except ValueError as error:
            raise RegistryError(f"flow {key!r}: {error}", flow=key) from error
        except Unexpected as error:
            raise RegistryError(
                f"flow {key!r}: expected {error.inner or 'similar'!r} to be {error}", flow=key
            ) from error
        fields["options"] = {**fields.get("options", {}), "callable": answer}
        fields["intent_keywords"] = tuple(fields.get("intent_keywords", ()))
        spec = FlowSpec(key=key, kind="python", origin="python", **{"id": name, "name": key, **fields})
        self._registered[key] = spec
        self._merge()
        return spec

    def adopt(self, spec: FlowSpec) -> FlowSpec:
        """Make a flow that somebody asked by its service's own id known to this process, until it is in the file."""
        self._registered[spec.key] = spec
        self._merge()
        return spec

    def unregister(self, key: str) -> None:
        """Take away a flow registered from Python; without effect where there is none."""
        self._registered.pop(key, None)
        self._merge()

    def add(self, key: str, **fields: Any) -> RegistryChange:
        """Add a flow; `fields` are the file's keys, durations may be `timedelta`. Raises `RegistryError`."""
        if not key.strip():
            raise RegistryError("a flow's key must not be empty", flow=key)
        written = edits.in_order({k: v for k, v in _written(key, fields).items() if v is not None})

        def change(raw: bytes, path: Path) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
            if edits.fields_of(raw, path, key) is not None:
                raise RegistryError(
                    f"{path} has a flow {key!r} already",
                    suggestions=(f"Change it with `afw flow edit {key}`.", "Choose another key."),
                    file=str(path),
                    flow=key,
                )
            return edits.with_flow(raw, path, key, written), {}, written

        return self._edit("added", key, change)

    def edit(self, key: str, **changes: Any) -> RegistryChange:
        """Change fields of a flow in the file; None removes a field. Raises `UnknownFlow` and `RegistryError`."""
        written = _written(key, changes)

        def change(raw: bytes, path: Path) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
            found = self._found(raw, path, key)
            for one, other in (("ttl", "ttl_seconds"), ("ttl_seconds", "ttl")):
                if written.get(one) is not None and other in found and other not in written:
                    written[other] = None  # two ways of saying one thing: the new one holds
            differs = {name: value for name, value in written.items() if found.get(name) != value}
            before = {name: found[name] for name in differs if name in found}
            after = {name: value for name, value in differs.items() if value is not None}
            return (edits.with_changes(raw, path, key, differs) if differs else raw), before, after

        return self._edit("edited", key, change)

    def remove(self, key: str) -> RegistryChange:
        """Remove a flow from the file. Raises `UnknownFlow` and `RegistryError`."""

        def change(raw: bytes, path: Path) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
            found = self._found(raw, path, key)
            return edits.without_flow(raw, path, key), found, {}

        return self._edit("removed", key, change)

    def _found(self, raw: bytes, path: Path, key: str) -> dict[str, Any]:
        found = edits.fields_of(raw, path, key)
        if found is None:
            raise parse_registry(raw, path, "").unknown(key, f"no flow {key!r} in {path}")
        return found

    def _edit(
        self, action: str, key: str, change: Callable[[bytes, Path], tuple[bytes, dict[str, Any], dict[str, Any]]]
    ) -> RegistryChange:
        if key in self._registered:
            raise RegistryError(f"the flow {key!r} was registered from Python and stands in no file", flow=key)
        path = self._writable()
        with edits.locked(path):
            created = not path.exists()
            raw = edits.read_raw(PACKAGED_REGISTRY if created else path)
            new, before, after = change(raw, path)
            parse_registry(new, path, "")  # an edit that would break the file is refused
            if new != raw or created:
                edits.write_whole(path, new)
                self._looked_at = float("-inf")
        return RegistryChange(action=action, key=key, path=path, created=created, before=before, after=after)

    def _writable(self) -> Path:
        """The file that edits go to: the one in force, or the user's (the project's) in place of the packaged one."""
        path, origin, _ = self._in_force()
        if origin != "packaged":
            return Path(path)
        return self._project / REGISTRY_FILE if self._project else self._user


def _cascade(named: Path | None, by: str, directory: Path, user: Path) -> list[tuple[str, str]]:
    if named is not None:
        return [(str(named), by)]
    home = Path.home()
    folders = [folder for folder in (directory, *directory.parents) if folder != home]
    project = [(str(folder / PROJECT_FOLDER / REGISTRY_FILE), "project") for folder in folders]
    return [*project, (str(user), "user"), (str(PACKAGED_REGISTRY), "packaged")]


def _written(key: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as the file writes them. Refuses names that mean nothing, so that a slip is not stored."""
    written: dict[str, Any] = {}
    for name, value in fields.items():
        field = _DURATION_FIELDS.get(name, name)
        if field not in FIELDS and field not in {"status", "performance_metrics"}:
            near = edits.nearest_field(field)
            hint = f"; did you mean {near!r}?" if near else ""
            raise RegistryError(
                f"flow {key!r}: unknown field {name!r}{hint}", flow=key, field=name, nearest=near or None
            )
        written[field] = _as_yaml(value, text=field == "ttl")
    return written


def _as_yaml(value: Any, *, text: bool = False) -> Any:
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
        number = int(seconds) if seconds == int(seconds) else seconds
        return f"{number}s" if text else number
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, SimilarPolicy):
        value = said_of(value)
    if isinstance(value, PrivacyPolicy):
        value = msgspec.to_builtins(value, order="deterministic")
    if isinstance(value, Mapping):
        return {str(name): _as_yaml(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_yaml(item) for item in value]
    return value


def config_digest(spec: FlowSpec) -> str:
    """Digest of everything in the registry that decides an answer of this flow (BLAKE2b, 128 bits, in hex).

    Names, descriptions, keywords, lifetimes, keys of access and what holds for similar questions decide none: changing
    them takes no stored answer away. A folder counts as it is written, so that
    two machines with the project in different places agree; what is in it is the client's `revision`.

    >>> spec = FlowSpec(key="a", id="x", kind="flowise", config={"temperature": 0})
    >>> config_digest(spec) == config_digest(msgspec.structs.replace(spec, name="Another name"))
    True
    """
    options = {
        name: value for name, value in spec.options.items() if not (spec.kind == "documents" and name == "folder")
    }
    decides = [spec.kind, spec.id, spec.base_url.rstrip("/"), spec.session_format, dict(spec.config), options]
    raw = msgspec.json.encode(decides, enc_hook=_name_of, order="sorted")
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def _name_of(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if callable(value):
        return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', type(value).__qualname__)}"
    raise RegistryError(f"a flow's configuration holds a {type(value).__name__}, which has no JSON form")
