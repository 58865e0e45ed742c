"""What the facade's values look like as JSON: their fields by name, whatever form they are stored in.

Invariant: a response is made by the very type that the document of the interface describes it with. That type is
derived from the facade's own struct, so a field that is added there is in both at once. Bytes (what services said word
for word) stay inside, and what looks like a secret in a flow's configuration leaves masked.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from agentic_flywheel.interfaces.secrets import shown_config

#: How values are written, everywhere.
JSON = "application/json"
_MASKED = ("config", "options")
_encoder = msgspec.json.Encoder(enc_hook=str)  # what functions and paths are called, in options of flows


@cache
def shape_of(kind: Any) -> Any:
    """The type that a value of `kind` is given out as; `kind` itself where it is plain."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _twin(kind)
    if kind is timedelta:
        raise TypeError("a duration has its unit in its name on the wire: give seconds out")
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is None:
        return kind
    if origin is Annotated:
        return Annotated[(shape_of(arguments[0]), *arguments[1:])]
    shapes = tuple(one if one is Ellipsis or isinstance(one, str) else shape_of(one) for one in arguments)
    if origin in {Union, types.UnionType}:
        return Union[shapes]  # noqa: UP007 -- made of what is only known now
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return types.GenericAlias(dict, shapes)
    if origin is not tuple and isinstance(origin, type) and issubclass(origin, Sequence):
        return types.GenericAlias(list, shapes)
    return origin[shapes]


def given_out(value: Any, kind: Any) -> Any:
    """A value of `kind` in its shape."""
    return msgspec.convert(value, shape_of(kind), from_attributes=True)


def written(value: Any, kind: Any) -> bytes:
    """A value of `kind` in its shape, as JSON."""
    return _encoder.encode(given_out(value, kind))


def _twin(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    hints = get_type_hints(kind, include_extras=True)
    fields = [(name, shape_of(hints[name])) for name in kind.__struct_fields__ if hints[name] is not bytes]
    namespace: dict[str, Any] = {"__doc__": inspect.getdoc(kind)}
    if masked := [name for name, _ in fields if name in _MASKED]:
        namespace["__post_init__"] = _masking(masked)
    return msgspec.defstruct(kind.__name__, fields, namespace=namespace, module=kind.__module__, kw_only=True)


def _masking(names: Sequence[str]) -> Any:
    def mask(self: Any) -> None:
        for name in names:
            if content := getattr(self, name):
                setattr(self, name, shown_config(content))

    return mask
