"""The documentation as tests read it: pages, their code blocks, their links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+\s+(.+?)\s*$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its language, its text, the line of the page it begins in."""

    language: str
    text: str
    line: int


def read(name: str) -> str:
    """A page, by its path from the project's root."""
    return (ROOT / name).read_text("utf-8")


def blocks(page: str, *languages: str) -> list[Block]:
    """The fenced blocks of a page in these languages, in order."""
    text = read(page)
    found = [Block(m[1], m[2], text.count("\n", 0, m.start()) + 1) for m in _BLOCK.finditer(text)]
    return [block for block in found if block.language in languages]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return _BLOCK.sub("", text)


def links(text: str) -> list[str]:
    """The targets of a page's links."""
    return _LINK.findall(prose(text))


def anchors(text: str) -> set[str]:
    """The fragments that a page's headings can be reached by, as GitHub makes them."""
    kept = ("".join(c for c in title.lower() if c.isalnum() or c in "-_ ") for title in _HEADING.findall(prose(text)))
    return {title.strip().replace(" ", "-") for title in kept}


def first_column(page: str, heading: str) -> list[str]:
    """What stands in backticks in the first column of the tables under a heading."""
    section = read(page).split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
