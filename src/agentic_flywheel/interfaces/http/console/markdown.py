"""Stored answers as HTML: what a flow says is untrusted, and is shown as text with a little form.

Invariant: nothing that an answer says becomes a tag of its own. HTML in it is shown as it was written; images are not
loaded, but named and linked; links lead to `http`, `https` and `mailto` alone, and are told to leave nothing behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

_SCHEMES: Final = frozenset({"http", "https", "mailto"})
#: Longer answers are shown as plain text: nesting costs time, and nobody reads their form.
_LONGEST: Final = 200_000


def rendered(text: str) -> Markup:
    """An answer as HTML.

    >>> str(rendered("<b>x</b>"))
    '<p>&lt;b&gt;x&lt;/b&gt;</p>\\n'
    """
    if len(text) > _LONGEST:
        return Markup('<pre class="plain">{}</pre>').format(text)
    return Markup(_parser().render(text))  # noqa: S704 -- made by the parser below, with HTML off


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 30}).enable("table")
    parser.enable("strikethrough")
    parser.validateLink = _admits  # type: ignore[method-assign]
    parser.add_render_rule("link_open", _link_open)
    parser.add_render_rule("image", _image)
    for level in ("heading_open", "heading_close"):
        parser.add_render_rule(level, _heading)
    return parser


def _admits(url: str) -> bool:
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return False
    return parts.scheme.casefold() in _SCHEMES and (parts.scheme.casefold() == "mailto" or bool(parts.netloc))


def _link_open(renderer: RendererHTML, tokens: Sequence[Token], at: int, options: Any, _env: Any) -> str:
    token = tokens[at]
    token.attrSet("rel", "noopener noreferrer nofollow")
    token.attrSet("target", "_blank")
    return renderer.renderToken(tokens, at, options, _env)


def _image(_renderer: RendererHTML, tokens: Sequence[Token], at: int, _options: Any, _env: Any) -> str:
    token = tokens[at]
    address = str(token.attrs.get("src", ""))
    shown = escape(token.content or address)
    return f'<a class="image" href="{escape(address)}" rel="noopener noreferrer nofollow" target="_blank">{shown}</a>'


def _heading(renderer: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    """Headings of an answer stand below those of the page."""
    token = tokens[at]
    token.tag = f"h{min(6, int(token.tag[1]) + 3)}" if token.meta.get("moved") is None else token.tag
    token.meta["moved"] = True
    return renderer.renderToken(tokens, at, options, env)
