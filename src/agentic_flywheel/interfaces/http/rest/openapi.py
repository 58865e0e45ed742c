"""The document of the interface (OpenAPI 3.1), made of the operations that are served.

Invariant: nothing in it is written down twice: paths, parameters, bodies and responses are those of the declared
operations, their schemas those of the types that read and write them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from agentic_flywheel import __version__
from agentic_flywheel.interfaces.http.problems import MEDIA_TYPE
from agentic_flywheel.interfaces.http.rest.operations import BASE, Operation, Operations
from agentic_flywheel.interfaces.http.rest.repeating import HEADER
from agentic_flywheel.interfaces.http.rest.shapes import shape_of
from agentic_flywheel.interfaces.http.routes import INSIDE, PUBLIC

_REF: Final = "#/components/schemas/{name}"
_STREAM: Final = "text/event-stream"
#: One event of a stream.
_EVENT: Final = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
_ABOUT: Final = (
    "Everything that `afw` does, over HTTP: ask flows with a memory, read and search what was asked, look after stored "
    "answers, flows, the FAQ and warm-ups. Times are seconds since 1970 (UTC). Errors are problem documents (RFC 9457)."
)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong (RFC 9457): `code` is for programs, `detail` and `suggestions` are for people. The log of the
    service has more under `error_id`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    details: dict[str, Any]
    suggestions: list[str]
    retry_after_seconds: float
    error_id: str
    request_id: str


def document_of(groups: Sequence[Operations]) -> dict[str, Any]:
    """The document, as JSON holds it."""
    operations = [one for group in groups for one in group.all]
    kinds: list[Any] = [Problem]
    for one in operations:
        kinds += [kind for kind in (one.query, one.body) if kind is not None]
        kinds += [*one.places.values(), *([shape_of(one.returns)] if one.returns is not None else [])]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    known = dict(zip(map(id, kinds), schemas, strict=True))
    queries = {kind.query.__name__: components[kind.query.__name__] for kind in operations if kind.query is not None}
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(BASE + one.path, {})[one.method.lower()] = _operation(one, known, queries)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Agentic Flywheel",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"key": []}, {"bearer": []}],
        "tags": [{"name": group.name, "description": group.about} for group in groups],
        "paths": paths,
        "components": {
            "schemas": {name: _tidy(schema) for name, schema in components.items() if name not in queries},
            "securitySchemes": {
                "key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-API-Key",
                    "description": "`afw key create` makes one.",
                },
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of your issuer."},
            },
            "responses": {
                "Problem": {
                    "description": "What went wrong, and what to do.",
                    "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
                }
            },
        },
    }


def _operation(one: Operation, known: dict[int, Any], queries: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": one.name,
        "tags": [one.group],
        "summary": one.summary,
        "description": "\n\n".join(part for part in (one.description, _needs(one)) if part),
        "parameters": [*_places(one, known), *_parameters(one, queries), *_headers(one)],
        "responses": {
            **_responses(one, known),
            "4XX": {"$ref": "#/components/responses/Problem"},
            "5XX": {"$ref": "#/components/responses/Problem"},
        },
    }
    if one.needs == PUBLIC:
        described["security"] = [{}]
    if one.body is not None:
        required = any(part.required for part in msgspec.structs.fields(one.body))
        content = {"application/json": {"schema": known[id(one.body)]}}
        described["requestBody"] = {"required": required, "content": content}
    elif one.takes:
        schema = {"type": "string", "contentMediaType": one.takes}
        described["requestBody"] = {"required": True, "content": {one.takes: {"schema": schema}}}
    return described


def _needs(one: Operation) -> str:
    if one.needs == PUBLIC:
        return "Needs nothing."
    return "Needs a caller." if one.needs == INSIDE else f"Needs the scope `{one.needs}`."


def _responses(one: Operation, known: dict[int, Any]) -> dict[str, Any]:
    if one.produces:
        content = {media: {"schema": _EVENT if media == _STREAM else {}} for media in one.produces}
        return {str(one.status): {"description": " ".join(one.produces.values()), "content": content}}
    if one.returns is None:
        return {"204": {"description": "Done."}}
    content = {"application/json": {"schema": known[id(shape_of(one.returns))]}}
    return {str(one.status): {"description": _what(one), "content": content}}


def _what(one: Operation) -> str:
    doc = getattr(one.returns, "__doc__", "") or ""
    return " ".join(doc.split("\n\n", 1)[0].split()) or one.summary


def _places(one: Operation, known: dict[int, Any]) -> list[dict[str, Any]]:
    found = []
    for name, kind in one.places.items():
        schema = dict(known[id(kind)])
        described = {"name": name, "in": "path", "required": True, "schema": schema}
        if about := schema.pop("description", ""):
            described["description"] = about
        found.append(described)
    return found


def _parameters(one: Operation, queries: dict[str, Any]) -> list[dict[str, Any]]:
    if one.query is None:
        return []
    whole, found = queries[one.query.__name__], []
    for name, described in whole["properties"].items():
        schema = dict(_given(described))
        parameter = {"name": name, "in": "query", "required": name in whole["required"], "schema": schema}
        if about := schema.pop("description", ""):
            parameter["description"] = about
        found.append(parameter)
    return found


def _headers(one: Operation) -> list[dict[str, Any]]:
    found = []
    if one.repeats == "once":
        about = "Makes it done once, however often it is sent: the same key gives the same response, for a day."
        found.append(_header(HEADER, about, minLength=16, maxLength=255, pattern="^[!-~]*$"))
    if one.tagged and one.method != "GET" and one.wants_request:
        about = "The ETag of what was read: where somebody has changed it since, 412 and no change."
        found.append(_header("If-Match", about))
    return found


def _header(name: str, about: str, **bounds: Any) -> dict[str, Any]:
    schema = {"type": "string", **bounds}
    return {"name": name, "in": "header", "required": False, "description": about, "schema": schema}


def _tidy(value: Any) -> Any:
    """A schema with its descriptions in one line each."""
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("description"), str):
        value = {**value, "description": " ".join(value["description"].split())}
    if "properties" in value:
        value = {**value, "properties": {name: _tidy(part) for name, part in value["properties"].items()}}
    return value


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema: one that is null unless it is given can only be given, or left out."""
    choices = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(choices) == 1 and schema.get("default", "") is None:
        schema = choices[0]
    return cast("dict[str, Any]", _tidy(schema))
