"""The document of the interface as a page to browse, made of the document alone.

Invariant: the page is whole by itself: no script, no request beyond its own address, and a policy that allows neither.
Everything in it is escaped text.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from html import escape
from typing import Any, Final

import msgspec

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --link: light-dark(#0b57d0, #8ab4f8); }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; overflow-wrap: anywhere; }
a { color: var(--link); }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { margin: 2rem 0 .25rem; } h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
nav ul { columns: 14rem; padding-left: 1.2rem; margin: .5rem 0; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .4rem 0; padding: 0 .75rem; }
details[open] { padding-bottom: .75rem; }
summary { cursor: pointer; padding: .5rem 0; }
code, pre { font: .875rem/1.45 ui-monospace, monospace; }
pre { background: var(--soft); overflow-x: auto; padding: .6rem; border-radius: .3rem; }
.method { display: inline-block; min-width: 4.2rem; font-weight: 700; }
.what { display: block; opacity: .85; }
.fields { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .5rem .3rem 0; text-align: left; vertical-align: top; }
@media (max-width: 40rem) {
  tr, td { display: block; } tr { border-bottom: 1px solid var(--line); padding: .3rem 0; }
  td { border: 0; padding: 0; }
}
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
"""
#: What the page may do: show itself, with this one style.
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_of(document: Mapping[str, Any], address: str) -> str:
    """The page; `address` is where the document itself is."""
    return "\n".join(_page(document, address)) + "\n"


def _page(document: Mapping[str, Any], address: str) -> Iterator[str]:
    info, schemas = document["info"], document["components"]["schemas"]
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(info['title'])}: REST</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>"
    yield f"<h1>{escape(info['title'])}: REST</h1>"
    yield f"<p>{escape(info['description'])}</p>"
    yield f'<p>Version {escape(info["version"])}. The document: <a href="{escape(address)}">{escape(address)}</a>'
    yield f"(OpenAPI {escape(document['openapi'])}).</p>"
    operations = [(path, method, one) for path, methods in document["paths"].items() for method, one in methods.items()]
    yield '<nav aria-label="Groups"><ul>'
    yield from (f'<li><a href="#group-{_id(tag["name"])}">{escape(tag["name"])}</a></li>' for tag in document["tags"])
    yield '<li><a href="#schemas">schemas</a></li></ul></nav>'
    for tag in document["tags"]:
        yield f'<section aria-labelledby="group-{_id(tag["name"])}">'
        yield f'<h2 id="group-{_id(tag["name"])}">{escape(tag["name"])}</h2><p>{_text(tag["description"])}</p>'
        for path, method, one in operations:
            if tag["name"] in one["tags"]:
                yield from _operation(path, method, one, schemas)
        yield "</section>"
    yield '<section aria-labelledby="schemas"><h2 id="schemas">schemas</h2>'
    for name, schema in schemas.items():
        # A link to what is inside opens it; one to the element itself does not.
        yield f"<details><summary><code>{escape(name)}</code></summary>"
        yield f'<p id="schema-{_id(name)}">{_text(schema.get("description", ""))}</p>'
        yield from _fields(schema) if "properties" in schema else [f"<p>{_type(schema)}</p>"]
        yield "</details>"
    yield "</section>\n</main>\n</body>\n</html>"


def _operation(path: str, method: str, one: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    yield f'<details id="{_id(one["operationId"])}"><summary><span class="method">{method.upper()}</span>'
    yield f'<code>{escape(path)}</code> <span class="what">{_text(one["summary"])}</span></summary>'
    yield from (f"<p>{_text(part)}</p>" for part in one["description"].split("\n\n"))
    if parameters := one.get("parameters"):
        yield "<h3>Parameters</h3>"
        yield from _table(
            [
                (
                    f"<code>{escape(parameter['name'])}</code>",
                    f"{parameter['in']}, {_type(parameter['schema'])}{_bounds(parameter['schema'])}",
                    _text(parameter.get("description", "")),
                )
                for parameter in parameters
            ]
        )
    if "requestBody" in one:
        yield "<h3>Body</h3>"
        for media, content in one["requestBody"]["content"].items():
            yield f"<p><code>{escape(media)}</code>: {_type(content['schema'])}</p>"
            yield from _fields(schemas.get(content["schema"].get("$ref", "").rpartition("/")[2], {}))
    yield "<h3>Answers</h3>"
    rows = []
    for status, response in one["responses"].items():
        if "$ref" not in response:
            contents = response.get("content", {}).items()
            kinds = "<br>".join(f"<code>{escape(media)}</code> {_type(kind['schema'])}" for media, kind in contents)
            rows.append((escape(status), kinds, _text(response["description"])))
    yield from _table(
        [*rows, ("4XX, 5XX", '<code>application/problem+json</code> <a href="#schema-Problem">Problem</a>', "")]
    )
    yield f"<pre>{escape(_example(path, method, one))}</pre></details>"


def _example(path: str, method: str, one: Mapping[str, Any]) -> str:
    verb = "" if method == "get" else f"-X {method.upper()} "
    body = ""
    if "requestBody" in one:
        media = next(iter(one["requestBody"]["content"]))
        body = (
            ' -H "Content-Type: application/json" -d @body.json'
            if media == "application/json"
            else " --data-binary @file"
        )
    return f'curl {verb}-H "X-API-Key: $KEY"{body} "$URL{path}"'


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    required = set(schema.get("required", ()))
    yield from _table(
        [
            (
                f"<code>{escape(name)}</code>" + ("" if name in required else " (may be left out)"),
                _type(part) + _bounds(part),
                _text(part.get("description", "")),
            )
            for name, part in schema.get("properties", {}).items()
        ]
    )


def _table(rows: list[tuple[str, str, str]]) -> Iterator[str]:
    if not rows:
        return
    yield '<div class="fields"><table>'
    yield from ("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    yield "</table></div>"


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, with links to those that have a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{_id(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if schema.get("items") else "list"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return escape(str(schema.get("type", "anything")))


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "maximum": "at most", "maxItems": "most items", "default": "default"}
    said = [f"{word} {msgspec.json.encode(schema[name]).decode()}" for name, word in words.items() if name in schema]
    return escape("; " + ", ".join(said)) if said else ""


def _text(text: str) -> str:
    """Prose, with what stands in backquotes as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))


def _id(name: str) -> str:
    return escape(name.replace(" ", "-"))
