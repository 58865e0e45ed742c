"""Reading a flow registry file: YAML in, flows and routing rules out, or an error that names the line.

Invariant: a value that is not understood is never guessed at: it is refused with file, line, what was expected and
what was found. Keys that are not ours are left alone, so that files of other tools can be used as they are.

The flows stand under `flows`, `operational_flows` or `routing_flows`, all of the same shape. Those of the last
classify rather than answer, so no question is routed to them unless they say `routable: true`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agentic_flywheel.errors import RegistryError
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry_values import (
    Unexpected,
    as_age,
    as_boolean,
    as_duration,
    as_limit,
    as_mapping,
    as_positive,
    as_price,
    as_privacy,
    as_seconds,
    as_share,
    as_similar,
    as_text,
    as_whole,
    as_words,
    one_of,
)
from agentic_flywheel.flows.snapshot import RegistrySnapshot, RoutingRules
from agentic_flywheel.likeness import SimilarPolicy
from agentic_flywheel.model import FlowType, Sharing

KINDS = ("flowise", "openai", "langflow", "documents", "python")
SECTIONS = ("flows", "operational_flows", "routing_flows")
#: A `folder` that begins so names something inside the installed package, not a path.
PACKAGE_FOLDER = "package:"
#: The kind's own setting that stands for `id` where the kind has no id of its own.
_ID_OPTION = {"documents": "folder", "openai": "model", "python": "callable"}
#: Keys of the same file format that other tools read; they are kept and mean nothing here.
_FOREIGN_KEYS = ("performance_metrics", "status")
_DEEPEST = 64


#: Every key of a flow that has a meaning here, and how its value is read; in the order in which tools write them.
FIELDS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "kind": one_of(*KINDS),
        "id": as_text,
        "model": as_text,
        "folder": as_text,
        "callable": as_text,
        "name": as_text,
        "description": as_text,
        "purpose": as_text,
        "type": one_of(*FlowType),
        "sharing": one_of(*Sharing),
        "active": as_boolean,
        "routable": as_boolean,
        "intent_keywords": as_words,
        "base_url": as_text,
        "api_key_env": as_text,
        "ttl": as_duration,
        "ttl_seconds": as_seconds,
        "sliding": as_boolean,
        "verbatim": as_boolean,
        "timeout_seconds": as_seconds,
        "check_every_seconds": as_age,
        "context_turns": as_whole,
        "context_relevant": as_whole,
        "context_tokens": as_whole,
        "max_concurrency": as_limit,
        "calls_per_minute": as_limit,
        "acts": as_boolean,
        "price_per_call": as_price,
        "price_per_1000_tokens_in": as_price,
        "price_per_1000_tokens_out": as_price,
        "warm": as_whole,
        "similar": as_similar,
        "privacy": as_privacy,
        "session_format": as_text,
        "config": as_mapping,
        "options": as_mapping,
    }
)


def parse_tree(raw: bytes, path: Path) -> Any:
    """The file's YAML as a tree that knows its lines (ruamel.yaml's round-trip form). Raises `RegistryError`."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _refuse(path, line, "UTF-8 text", f"the byte 0x{raw[error.start]:02x}") from error
    try:
        tree = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _broken_yaml(
            path, None if mark is None else mark.line + 1, str(error.problem or error.context)
        ) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise _broken_yaml(path, None, str(error).partition("\n")[0]) from error
    if not isinstance(tree, dict):
        found = "nothing" if tree is None else f"a {_kind_of(tree)}"
        raise _refuse(path, 1, "a mapping with a section 'flows'", found)
    return tree


def _broken_yaml(path: Path, line: int | None, problem: str) -> RegistryError:
    problem = problem.replace("\n", " ").strip().removeprefix("found ")
    if problem.startswith("duplicate key"):
        problem = problem.partition(" with value")[0]
    if "'\\t'" in problem:
        problem = "a tab; YAML is indented with spaces"
    place = str(path) if line is None else f"{path}:{line}"
    return RegistryError(
        f"{place}: expected YAML, found {problem}", file=str(path), line=line, expected="YAML", found=problem
    )


def parse_registry(raw: bytes, path: Path, origin: str) -> RegistrySnapshot:
    """The snapshot of a registry file's content. Raises `RegistryError`."""
    return _Reader(parse_tree(raw, path), path).snapshot(origin)


def plain(node: Any, depth: int = 0) -> Any:
    """A tree of ruamel.yaml as builtin values; dates become text in ISO form."""
    if depth > _DEEPEST:
        raise Unexpected("a value that does not contain itself")
    if isinstance(node, dict):
        return {str(key): plain(value, depth + 1) for key, value in node.items()}
    if isinstance(node, list | tuple | set):
        return [plain(item, depth + 1) for item in node]
    if node is None or isinstance(node, bool):
        return node
    for builtin in (str, int, float):
        if isinstance(node, builtin):
            return builtin(node)
    if type(node).__name__ == "ScalarBoolean":
        return bool(node)
    return node.isoformat() if hasattr(node, "isoformat") else str(getattr(node, "value", node))


class _Reader:
    """One pass over one file's tree."""

    def __init__(self, tree: Any, path: Path) -> None:
        self.tree = tree
        self.path = path
        self.notes: list[str] = []
        self.lines: dict[str, int] = {}

    def snapshot(self, origin: str) -> RegistrySnapshot:
        for key in self.tree:
            if key not in SECTIONS and (near := _nearest(str(key), SECTIONS, 0.8)):
                raise self._refuse(_line(self.tree, key), "a section that is known", f"{key!r}", near=near)
        base_url = self._environment()
        flows: dict[str, FlowSpec] = {}
        for section in SECTIONS:
            for key, node in self._section(self.tree, section).items():
                if not isinstance(key, str) or not key.strip():
                    raise self._refuse(
                        self._here(section, key), "a flow's key that is text (put it in quotes)", repr(key)
                    )
                if key in flows:
                    line = self._here(section, key)
                    raise self._refuse(line, f"each flow once ({key!r} stands in line {self.lines[key]})", "it again")
                self.lines[key] = self._here(section, key)
                flows[key] = self._flow(str(key), node, section, base_url)
        return RegistrySnapshot(
            flows=MappingProxyType(flows),
            path=self.path,
            origin=origin,
            routing=self._routing(flows),
            notes=tuple(self.notes),
        )

    def _here(self, section: str, key: Any) -> int:
        return _line(self.tree[section], key)

    def _section(self, tree: Any, name: str) -> Any:
        """A part of the file that must be a mapping, empty where it is missing or says nothing."""
        node = tree.get(name)
        if node is None:
            return {}
        if not isinstance(node, dict):
            raise self._refuse(_line(tree, name), f"'{name}' to be a mapping", f"a {_kind_of(node)}")
        return node

    def _flow(self, key: str, node: Any, section: str, base_url: str) -> FlowSpec:
        line = self.lines[key]
        if not isinstance(node, dict):
            found = "nothing" if node is None else f"a {_kind_of(node)}"
            raise self._refuse(line, f"flow {key!r} to be a mapping with 'id' or 'kind'", found, flow=key)
        values = {name: self._value(node, name, flow=key) for name in FIELDS if node.get(name) is not None}
        for name in node:
            if name not in FIELDS and name not in _FOREIGN_KEYS and (near := _nearest(str(name), FIELDS, 0.8)):
                place = f"{self.path}:{_line(node, name)}"
                self.notes.append(f"{place}: flow {key!r}: the key {name!r} means nothing; did you mean {near!r}?")
        if "ttl" in values and "ttl_seconds" in values:
            raise self._refuse(_line(node, "ttl_seconds"), "one of ttl and ttl_seconds", "both", flow=key)
        kind = values.get("kind", "flowise")
        options = dict(values.get("options", {}))
        options |= {name: values[name] for name in ("model", "folder", "callable") if name in values}
        if kind in _ID_OPTION:
            own = _ID_OPTION[kind]
            options.setdefault(own, values.get("id", ""))
        identity = values.get("id") or str(options.get(_ID_OPTION.get(kind, ""), ""))
        if not identity or (kind in _ID_OPTION and not options[_ID_OPTION[kind]]):
            wanted = _ID_OPTION.get(kind, "id")
            raise self._refuse(line, f"flow {key!r} of kind {kind} to have {wanted!r}", "none", flow=key)
        if kind == "documents":
            options["folder"] = _resolve_folder(str(options["folder"]), self.path)
        spec_url = values.get("base_url") or (base_url if kind == "flowise" else "")
        active = values.get("active", str(node.get("status", "")).strip().casefold() not in {"inactive", "disabled"})
        return FlowSpec(
            key=key,
            id=identity,
            kind=kind,
            name=values.get("name", ""),
            description=values.get("description", ""),
            purpose=values.get("purpose", ""),
            type=FlowType(values.get("type", FlowType.DOCUMENT if kind == "documents" else FlowType.TECHNICAL)),
            sharing=Sharing(values.get("sharing", Sharing.TEAM)),
            active=active,
            routable=values.get("routable", section != "routing_flows"),
            intent_keywords=values.get("intent_keywords", ()),
            base_url=spec_url.rstrip("/"),
            api_key_env=values.get("api_key_env", ""),
            config=values.get("config", {}),
            options=options,
            session_format=values.get("session_format", ""),
            ttl=values.get("ttl", values.get("ttl_seconds")),
            sliding=values.get("sliding", False),
            verbatim=values.get("verbatim"),
            timeout=values.get("timeout_seconds"),
            check_every=values.get("check_every_seconds"),
            context_turns=values.get("context_turns"),
            context_relevant=values.get("context_relevant"),
            context_tokens=values.get("context_tokens"),
            max_concurrency=values.get("max_concurrency"),
            calls_per_minute=values.get("calls_per_minute"),
            acts=values.get("acts", False),
            price_per_call=values.get("price_per_call"),
            price_per_1000_tokens_in=values.get("price_per_1000_tokens_in"),
            price_per_1000_tokens_out=values.get("price_per_1000_tokens_out"),
            warm=values.get("warm"),
            similar=values.get("similar", SimilarPolicy()),
            privacy=values.get("privacy"),
            origin=f"{self.path}:{line}",
        )

    def _value(self, node: Any, name: str, *, flow: str = "", read: Callable[[Any], Any] | None = None) -> Any:
        try:
            return (read or FIELDS[name])(plain(node[name]))
        except Unexpected as problem:
            where = repr(problem.inner or name)
            inner = problem.inner or problem.slip
            line = _line(node[name], inner) if inner else _line(node, name)
            found = node[name][problem.inner] if problem.inner else problem.slip or node[name]
            raise self._refuse(
                line,
                f"flow {flow!r}, {where} to be {problem.expected}" if flow else f"{where} to be {problem.expected}",
                _shown(found),
                flow=flow,
                near=_nearest(str(found), problem.choices, 0.5),
            ) from problem

    def _environment(self) -> str:
        """The address for Flowise flows that name none: that of the current environment, else the common one."""
        section = self._section(self.tree, "environment")
        current = section.get("current")
        chosen = section.get(current) if isinstance(current, str) and current != "base_url" else None
        if isinstance(chosen, str):
            return chosen.strip()
        if isinstance(chosen, dict) and chosen.get("base_url") is not None:
            return str(self._value(chosen, "base_url"))
        return str(self._value(section, "base_url")) if section.get("base_url") is not None else ""

    def _routing(self, flows: Mapping[str, FlowSpec]) -> RoutingRules:
        section = self._section(self.tree, "intent_classification")
        found: dict[str, Any] = {}
        for place in ("weights", "scoring", "scoring_weights", "keyword_weights"):
            if isinstance(section.get(place), dict):
                self._points(section[place], found)
        self._points(section, found)
        for name in ("confidence_threshold", "threshold"):
            if section.get(name) is not None:
                found["threshold"] = self._value(section, name, read=as_share)
        for name in ("fallback_flow", "fallback"):
            if section.get(name) is not None:
                fallback = self._value(section, name, read=as_text)
                if fallback and fallback not in flows:
                    near = _nearest(fallback, flows, 0.5)
                    raise self._refuse(_line(section, name), f"{name!r} to be a flow's key", repr(fallback), near=near)
                found["fallback"] = fallback
        return RoutingRules(**found)

    def _points(self, node: Any, found: dict[str, Any]) -> None:
        for name in ("exact", "partial", "similarity", "context"):
            for spelling in (name, f"{name}_match", f"{name}_weight"):
                if node.get(spelling) is not None and not isinstance(node[spelling], dict):
                    found[name] = self._value(node, spelling, read=as_positive)

    def _refuse(self, line: int, expected: str, found: str, *, flow: str = "", near: str = "") -> RegistryError:
        return _refuse(self.path, line, expected, found, flow=flow, near=near)


def _resolve_folder(folder: str, path: Path) -> str:
    if folder.startswith(PACKAGE_FOLDER):
        return folder
    return str((path.parent / Path(folder).expanduser()).absolute())


def _refuse(path: Path, line: int, expected: str, found: str, *, flow: str = "", near: str = "") -> RegistryError:
    hint = f"; did you mean {near!r}?" if near else ""
    return RegistryError(
        f"{path}:{line}: expected {expected}, found {found}{hint}",
        file=str(path),
        line=line,
        expected=expected,
        found=found,
        flow=flow or None,
        nearest=near or None,
    )


def _line(node: Any, key: Any) -> int:
    """The line (1-based) of a key; that of its mapping where it comes from a YAML merge."""
    try:
        return int(node.lc.key(key)[0]) + 1
    except (AttributeError, KeyError, TypeError):
        return int(getattr(getattr(node, "lc", None), "line", None) or 0) + 1


def _nearest(name: str, known: Iterable[str], cutoff: float) -> str:
    close = difflib.get_close_matches(name.casefold(), list(known), n=1, cutoff=cutoff)
    return str(close[0]) if close else ""


def _kind_of(node: Any) -> str:
    if isinstance(node, dict):
        return "mapping"
    return "list" if isinstance(node, list) else f"single value ({_shown(node)})"


def _shown(node: Any) -> str:
    if isinstance(node, dict | list):
        return f"a {_kind_of(node)}"
    text = repr(plain(node))
    return text if len(text) <= 60 else text[:57] + "..."
