"""The parts of docs pages that benchmarks write themselves, each between two markers of its name; most of them are in
docs/performance.md."""

from __future__ import annotations

import os
import platform
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "performance.md"


def write_part(name: str, text: str, file: Path = PAGE) -> None:
    """Put `text` in place of what stands between `<!-- name -->` and `<!-- /name -->`."""
    page = file.read_text("utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if begin not in page or end not in page:
        raise SystemExit(f"{file} has no part {name!r}")
    before, after = page.split(begin, 1)[0], page.split(end, 1)[1]
    file.write_text(f"{before}{begin}{_laid_out(text)}\n{end}{after}", "utf-8")


def circumstances(server: str) -> str:
    """When, on what machine, against which server: one sentence that belongs under every table."""
    processors = f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f} at the end"
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {server}; Python {platform.python_version()} on "
        f"{sys.platform} {platform.machine()}, {processors}."
    )


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _laid_out(text: str) -> str:
    """Running text in lines of the width that other pages have; tables and pictures as they are."""
    lines = []
    for line in text.strip().splitlines():
        indent = "  " if line.startswith("- ") else ""
        lines += [line] if line.startswith(("|", "!")) else textwrap.wrap(line, 116, subsequent_indent=indent) or [""]
    return "\n".join(lines)
