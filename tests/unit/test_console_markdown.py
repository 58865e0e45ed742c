"""What flows say is shown as text with a little form, whatever they say."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.interfaces.http.console.markdown import rendered

#: All that an answer may become.
TAGS = {
    *("p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "h4", "h5", "h6", "a"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


def tags_of(html: str) -> set[str]:
    return set(re.findall(r"<\s*/?\s*([a-zA-Z][^\s>/]*)", html))


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a <img src=x onerror=alert(1)> b",
        "<div>\n<iframe src='https://example.com'></iframe>\n</div>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "[x](/signout)",
        "[x](//example.com)",
        "[x](vbscript:x)",
        "<javascript:alert(1)>",
        "[a]: javascript:alert(1)\n\n[a]",
        "![x](data:image/png;base64,AAAA)",
        '[x](https://example.com "onmouseover=alert(1)")',
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "```html\n<script>alert(1)</script>\n```",
        '```"><script>alert(1)</script>\n```',
    ],
)
def test_nothing_that_runs_or_loads_comes_of_an_answer(text: str) -> None:
    html = str(rendered(text))
    assert tags_of(html) <= TAGS, html
    assert not re.search(r"<[^>]*\s(?:on\w+|style|src|srcset)\s*=", html), html
    assert all(re.match(r"https://|mailto:", url) for url in re.findall(r'href="([^"]*)"', html)), html


@given(st.text(alphabet=st.sampled_from(list("<>/\"'=[]()!`*_#|-:\n ax&;.")) | st.characters(), max_size=300))
def test_no_text_becomes_a_tag_of_its_own(text: str) -> None:
    html = str(rendered(text))
    assert tags_of(html) <= TAGS
    assert not re.search(r"<[^>]*\s(?:on\w+|style|src)\s*=\s*", html)


def test_images_are_named_and_not_loaded() -> None:
    html = str(rendered("![a cat](https://example.com/cat.png)"))
    assert '<a class="image" href="https://example.com/cat.png" rel="noopener noreferrer nofollow"' in html
    assert "a cat</a>" in html
    assert "<img" not in html


def test_links_leave_nothing_behind_and_headings_stand_below_those_of_the_page() -> None:
    html = str(rendered("# Title\n\n[x](https://example.com/a?b=1&c=2)\n\n| a | b |\n|---|---|\n| 1 | 2 |"))
    assert "<h4>Title</h4>" in html
    assert 'href="https://example.com/a?b=1&amp;c=2" rel="noopener noreferrer nofollow" target="_blank"' in html
    assert "<table>" in html


def test_a_very_long_answer_is_shown_as_it_is() -> None:
    html = str(rendered("<b>" * 100_000))
    assert html.startswith('<pre class="plain">&lt;b&gt;')
