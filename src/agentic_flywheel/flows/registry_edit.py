"""Editing a registry file without disturbing the rest of it.

Invariant: an edit changes the lines of its own flow and nothing else: comments, order and spacing stay as people left
them. It is made on the text; what comes out is parsed again and compared with what was wanted before it is written,
and where the lines cannot say it (a file in YAML's `{...}` style) the whole tree is written instead. The file is
replaced in one step, under a lock between processes, so no reader sees half of it and no edit is lost.
"""

from __future__ import annotations

import difflib
import io
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agentic_flywheel.errors import RegistryError
from agentic_flywheel.flows.registry_file import FIELDS, SECTIONS, parse_tree, plain

_LOCK_SECONDS = 10.0
_LOCK_FILE = ".flow-registry.lock"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the registry's folder for one edit, against every other process. Raises `RegistryError`."""
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.parent / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise RegistryError(
                        f"{path} has been held by another process for {_LOCK_SECONDS:g} s; nothing was changed",
                        suggestions=("Try again; if it persists, look for a stuck `afw` process.",),
                        file=str(path),
                    ) from error
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def read_raw(path: Path) -> bytes:
    """The file's content. Raises `RegistryError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RegistryError(f"cannot read {path}: {error.strerror or error}", file=str(path)) from error


def write_whole(path: Path, raw: bytes) -> None:
    """Replace the file in one step; it is on disk when this returns. Raises `RegistryError`."""
    import tempfile  # only who edits needs it, and what it brings along

    path = path.resolve()  # a link stays a link
    temporary = ""
    try:
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if temporary:
            with suppress(FileNotFoundError):  # it was renamed before the failure
                Path(temporary).unlink()
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> RegistryError:
    return RegistryError(
        f"cannot write {path}: {error.strerror or error}; nothing was changed",
        suggestions=("Check the rights of the folder and the space on its disk.",),
        file=str(path),
    )


def fields_of(raw: bytes, path: Path, key: str) -> dict[str, Any] | None:
    """What the file says of a flow, as builtin values; None where it does not name the flow."""
    tree = parse_tree(raw, path)
    section = _section_of(tree, key)
    return None if section is None else dict(plain(tree[section][key]) or {})


def with_flow(raw: bytes, path: Path, key: str, fields: Mapping[str, Any]) -> bytes:
    """The content with one more flow, at the end of the section that holds flows."""
    tree = parse_tree(raw, path)
    section = next((name for name in SECTIONS if name in tree), SECTIONS[0])
    wanted = plain(tree)
    wanted[section] = {**(wanted.get(section) or {}), key: dict(fields)}
    lines = _lines(raw)
    node = tree.get(section)
    if section not in tree:
        lines = [*lines, *([""] if lines and lines[-1].strip() else []), f"{section}:"]
        at, indent = len(lines), 2
    elif not node:
        at, indent = int(tree.lc.key(section)[0]) + 1, 2
    else:
        last = list(node)[-1]
        at, indent = _span(lines, node, last)[1], int(node.lc.key(last)[1])
    gap = [""] if at and lines[at - 1].strip() and node else []
    lines[at:at] = [*gap, *_emit({key: dict(fields)}, indent)]
    return _checked(lines, wanted, path) or _rewritten(raw, path, [(section, key, dict(fields))])


def with_changes(raw: bytes, path: Path, key: str, changes: Mapping[str, Any]) -> bytes:
    """The content with fields of a flow set, and those removed whose new value is None."""
    tree = parse_tree(raw, path)
    section = _section_of(tree, key)
    if section is None:
        raise KeyError(key)
    wanted = plain(tree)
    flow = wanted[section][key]
    for name, value in changes.items():
        if value is None:
            flow.pop(name, None)
        else:
            flow[name] = value
    lines = _lines(raw)
    node = tree[section][key]
    indent = int(node.lc.key(next(iter(node)))[1]) if node else int(tree[section].lc.key(key)[1]) + 2
    end = _span(lines, tree[section], key)[1]
    edits: list[tuple[int, int, list[str]]] = []
    for name, value in changes.items():
        if name in node:
            start, stop = _span(lines, node, name)
            emitted = [] if value is None else _emit({name: value}, indent)
            comment = _comment_beside(node, name)
            if comment and len(emitted) == 1 and stop == start + 1:
                emitted = [f"{emitted[0]}  {comment}"]
            edits.append((start, stop, emitted))
        elif value is not None:
            edits.append((end, end, _emit({name: value}, indent)))
    for start, stop, emitted in sorted(edits, key=lambda edit: edit[0], reverse=True):
        lines[start:stop] = emitted
    return _checked(lines, wanted, path) or _rewritten(raw, path, [(section, key, flow)])


def without_flow(raw: bytes, path: Path, key: str) -> bytes:
    """The content without a flow."""
    tree = parse_tree(raw, path)
    section = _section_of(tree, key)
    if section is None:
        raise KeyError(key)
    wanted = plain(tree)
    del wanted[section][key]
    wanted[section] = wanted[section] or None
    lines = _lines(raw)
    start, stop = _span(lines, tree[section], key)
    while start > 0 and stop < len(lines) and not lines[start - 1].strip() and not lines[stop].strip():
        stop += 1  # one blank line between the neighbours is enough
    del lines[start:stop]
    return _checked(lines, wanted, path) or _rewritten(raw, path, [(section, key, None)])


def _section_of(tree: Any, key: str) -> str | None:
    return next((name for name in SECTIONS if isinstance(tree.get(name), dict) and key in tree[name]), None)


def _lines(raw: bytes) -> list[str]:
    return raw.decode("utf-8-sig").splitlines()


def _span(lines: list[str], node: Any, key: Any) -> tuple[int, int]:
    """The lines of one key with its value: from the key's to the last that is indented deeper or belongs to it."""
    start, column = node.lc.key(key)
    stop = start + 1
    for number in range(start + 1, len(lines)):
        text = lines[number]
        if not text.strip():
            continue
        depth = len(text) - len(text.lstrip())
        # a list may stand at the depth of its key; a comment belongs to the value only when it stands deeper
        if depth < column or (depth == column and not text.lstrip().startswith("- ")):
            break
        if depth > column or text.lstrip().startswith("- "):
            stop = number + 1
    return int(start), int(stop)


def _comment_beside(node: Any, key: Any) -> str:
    tokens = node.ca.items.get(key)
    token = tokens[2] if tokens and len(tokens) > 2 else None
    first = str(token.value).partition("\n")[0].strip() if token is not None else ""
    return first if first.startswith("#") else ""


def _emit(tree: Mapping[str, Any], indent: int) -> list[str]:
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt", pure=True)
    yaml.width = 100_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    buffer = io.StringIO()
    yaml.dump(dict(tree), buffer)
    return [" " * indent + line if line else line for line in buffer.getvalue().splitlines()]


def _checked(lines: list[str], wanted: Any, path: Path) -> bytes | None:
    """The lines as the file's new content, None where they do not say what is wanted."""
    raw = ("\n".join(lines) + "\n").encode()
    try:
        return raw if plain(parse_tree(raw, path)) == wanted else None
    except RegistryError:
        return None


def _rewritten(raw: bytes, path: Path, changes: list[tuple[str, str, dict[str, Any] | None]]) -> bytes:
    from ruamel.yaml import YAML

    tree = parse_tree(raw, path)
    for section, key, fields in changes:
        if tree.get(section) is None:
            tree[section] = {}
        if fields is None:
            del tree[section][key]
            continue
        node = tree[section].setdefault(key, {})
        for name in [name for name in node if name not in fields]:
            del node[name]
        for name, value in fields.items():
            if name not in node or plain(node[name]) != value:
                node[name] = value
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 100_000
    buffer = io.StringIO()
    yaml.dump(tree, buffer)
    return buffer.getvalue().encode()


def nearest_field(name: str) -> str:
    """The known field spelled most like `name`, "" where none is."""
    return next(iter(difflib.get_close_matches(name, list(FIELDS), n=1, cutoff=0.6)), "")


def in_order(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields in the order in which people read them best: ours first, unknown ones behind."""
    ranks = {name: rank for rank, name in enumerate(FIELDS)}
    return dict(sorted(fields.items(), key=lambda item: ranks.get(item[0], len(ranks))))
