"""Documents taken apart into passages: the pieces of text that can answer a question by themselves.

Invariant: every visible line of a document is in exactly one passage, in order; a code block, a table and an item
of a list are never cut in two, and each passage knows the headings that it stands under.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

import msgspec

#: Neighbouring blocks of a section are joined up to this many characters: about one screen's paragraph or two.
_JOINED = 700
#: Items of a long list are taken together up to this many characters.
_ITEMS = 200

_ATX = re.compile(r"^ {0,3}(#{1,6})\s+(.+?)\s*#*\s*$")
_UNDERLINE = re.compile(r"^([=\-~^\"'`#*+.:_])\1{2,}\s*$")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
_ITEM = re.compile(r"^\s{0,3}(?:[-*+]|\d{1,3}[.)])\s+\S")
_RULE = re.compile(r"^ {0,3}([-*_])(?:\s*\1){2,}\s*$")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_MARKS = re.compile(r"[*`]|(?<!\w)_+|_+(?!\w)")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")


class Passage(msgspec.Struct, frozen=True):
    """A piece of a document. `titles` are the headings above it, outermost first; `file` is relative to the folder.

    `kind` is that of its largest block: text, list, table or code.
    """

    file: str
    anchor: str
    titles: tuple[str, ...]
    text: str
    kind: str

    @property
    def title(self) -> str:
        """The nearest heading."""
        return self.titles[-1]


class _Block(msgspec.Struct):
    kind: str
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).strip("\n")


def passages_of(text: str, file: str) -> list[Passage]:
    """The passages of a Markdown, reStructuredText or plain text document, in order.

    >>> found = passages_of("# Install\\n\\nOne command.\\n\\n## Upgrade\\n\\n- stop\\n- start", "a.md")
    >>> [(passage.title, passage.kind) for passage in found]
    [('Install', 'text'), ('Upgrade', 'list')]
    """
    lines = _without_front_matter(_COMMENT.sub("", text).replace("\t", "    ").splitlines())
    found: list[Passage] = []
    titles: list[tuple[int, str]] = []
    underlines: list[str] = []
    anchors: dict[str, int] = {}
    anchor = ""
    body: list[str] = []

    def close() -> None:
        above = tuple(title for _, title in titles) or (_title_of(file),)
        found.extend(Passage(file, anchor, above, text, kind) for kind, text in _joined(_blocks(body)))
        body.clear()

    number = 0
    fence = ""
    while number < len(lines):
        line = lines[number]
        heading = None if fence else _heading(lines, number, underlines, file)
        if heading is None:
            fence = _fence_after(line, fence)
            body.append(line)
            number += 1
            continue
        close()
        level, title, used = heading
        titles[:] = [above for above in titles if above[0] < level] + [(level, title)]
        anchor = _anchor(title, anchors)
        number += used
    close()
    return found


def plain_title(text: str) -> str:
    """A heading without its Markdown."""
    return _MARKS.sub("", _LINK.sub(r"\1", text)).strip()


def _heading(lines: list[str], number: int, underlines: list[str], file: str) -> tuple[int, str, int] | None:
    """Level, title and number of lines of the heading that begins here; levels of underlines as they first occur."""
    line = lines[number]
    if atx := _ATX.match(line):
        return (len(atx[1]), plain_title(atx[2]), 1) if not file.endswith((".rst", ".txt")) else None
    following = lines[number + 1].rstrip() if number + 1 < len(lines) else ""
    if not line.strip() or line.startswith(" ") or not _UNDERLINE.match(following) or _UNDERLINE.match(line):
        return None
    is_markdown = file.endswith((".md", ".markdown"))
    alone = number == 0 or not lines[number - 1].strip() or _UNDERLINE.match(lines[number - 1]) is not None
    if not alone or line.lstrip().startswith("|") or _ITEM.match(line):
        return None
    if is_markdown:
        return ({"=": 1, "-": 2}[following[0]], plain_title(line), 2) if following[0] in "=-" else None
    if len(following) < len(line.rstrip()) - 2:
        return None
    if following[0] not in underlines:
        underlines.append(following[0])
    return underlines.index(following[0]) + 1, plain_title(line), 2


def _fence_after(line: str, fence: str) -> str:
    """The open code fence after this line, "" for none."""
    mark = _FENCE.match(line)
    if mark is None:
        return fence
    if not fence:
        return mark[1]
    closes = mark[1][0] == fence[0] and len(mark[1]) >= len(fence) and line.strip() == mark[1]
    return "" if closes else fence


def _blocks(lines: list[str]) -> list[_Block]:
    blocks: list[_Block] = []
    fence = ""
    after_blank = True
    for line in lines:
        block = blocks[-1] if blocks else None
        was_open, fence = fence, _fence_after(line, fence)
        if was_open and block is not None:
            block.lines.append(line)
        elif fence:
            nested = block is not None and block.kind == "list" and line.startswith("  ")
            if nested and block is not None:
                block.lines.append(line)
            else:
                blocks.append(_Block("code", [line]))
        elif not line.strip() or _RULE.match(line) or _UNDERLINE.match(line):
            if block is not None and block.kind == "list":
                block.lines.append("")
            after_blank = True
            continue
        else:
            _place(line, blocks, after_blank=after_blank)
        after_blank = False
    return [part for block in blocks if block.text.strip() for part in _parts(block)]


def _parts(block: _Block) -> list[_Block]:
    """A long list as several, cut between its items: each item of such a list is a subject of its own."""
    if block.kind != "list" or len(block.text) <= _JOINED:
        return [block]
    parts: list[_Block] = []
    margin = len(block.lines[0]) - len(block.lines[0].lstrip())
    for line in block.lines:
        begins = _ITEM.match(line) is not None and len(line) - len(line.lstrip()) <= margin
        if not parts or (begins and len(parts[-1].text) > _ITEMS):
            parts.append(_Block("list", []))
        parts[-1].lines.append(line)
    return parts


def _place(line: str, blocks: list[_Block], *, after_blank: bool) -> None:
    """Put a line of running text where it belongs: in the block before it, or in a new one."""
    block = blocks[-1] if blocks else None
    last = block.kind if block is not None else ""
    if line.lstrip().startswith("|"):
        kind = "table"
    elif _ITEM.match(line) or (last == "list" and (line.startswith("  ") or not after_blank)):
        kind = "list"
    elif line.startswith("    ") and (after_blank or last == "code"):
        kind = "code"
    else:
        kind = "text"
    joins = block is not None and kind == last and (kind in {"list", "code"} or not after_blank)
    if block is not None and joins:
        if kind == "code" and after_blank:
            block.lines.append("")
        block.lines.append(line)
    else:
        blocks.append(_Block(kind, [line]))


def _joined(blocks: list[_Block]) -> list[tuple[str, str]]:
    """Blocks of one section as passages: short neighbours together, and what introduces a block with that block."""
    passages: list[list[_Block]] = []
    for block in blocks:
        current = passages[-1] if passages else None
        size = sum(len(b.text) for b in current) if current else 0
        introduced = current is not None and current[-1].text.rstrip().endswith(":") and len(current[-1].text) < _JOINED
        items = current is not None and current[-1].kind == "list" and block.kind == "list"  # of a long list
        if current is not None and not items and (introduced or size + len(block.text) <= _JOINED):
            current.append(block)
        else:
            passages.append([block])
    return [
        (max(passage, key=lambda b: len(b.text)).kind, "\n\n".join(b.text for b in passage)) for passage in passages
    ]


def _without_front_matter(lines: list[str]) -> list[str]:
    if lines and lines[0].strip() == "---":
        for number, line in enumerate(lines[1:60], 1):
            if line.strip() in {"---", "..."}:
                return lines[number + 1 :]
    return lines


def _anchor(title: str, taken: dict[str, int]) -> str:
    """The fragment that common renderers give a heading (GitHub's rule)."""
    kept = [c for c in unicodedata.normalize("NFC", title).lower() if c.isalnum() or c in "-_ "]
    slug = "".join(kept).replace(" ", "-")
    count = taken.get(slug, 0)
    taken[slug] = count + 1
    return f"{slug}-{count}" if count else slug


def _title_of(file: str) -> str:
    name = PurePosixPath(file).stem.replace("-", " ").replace("_", " ").strip()
    return name[:1].upper() + name[1:]
