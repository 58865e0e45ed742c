"""Pages that can be read: links lead somewhere, decisions are numbered, indexes are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pages import DOCS, PAGES, ROOT, anchors, links


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_pages_and_headings_that_exist(page: Path) -> None:
    broken = []
    for target in links(page.read_text("utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        file, _, fragment = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        if not linked.is_file() or (fragment and fragment not in anchors(linked.read_text("utf-8"))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if DOCS in page.parents], ids=_name)
def test_pages_that_ship_with_the_package_do_not_link_out_of_it(page: Path) -> None:
    outside = [
        target
        for target in links(page.read_text("utf-8"))
        if "://" not in target and target[0] != "#" and not (page.parent / target).resolve().is_relative_to(DOCS)
    ]
    assert outside == []


def test_pages_that_the_code_refers_to_exist() -> None:
    sources = [*ROOT.glob("src/**/*.py"), *ROOT.glob("src/**/*.yaml"), *ROOT.glob("tests/**/*.py"), ROOT / "Makefile"]
    named = {name for source in sources for name in re.findall(r"docs/[\w/-]+\.md", source.read_text("utf-8"))}
    assert len(named) > 5
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_decisions_have_numbers_of_their_own_and_one_form() -> None:
    decisions = sorted(page for page in (DOCS / "decisions").glob("*.md") if page.name != "README.md")
    numbers = [int(page.name[:4]) for page in decisions]
    assert len(set(numbers)) == len(numbers)
    for number, page in zip(numbers, decisions, strict=True):
        text = page.read_text("utf-8")
        assert text.startswith(f"# {number}. "), page.name
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Choice", "Evidence"], page.name


@pytest.mark.parametrize("folder", [DOCS, DOCS / "decisions"], ids=_name)
def test_every_page_is_in_the_index_of_its_folder(folder: Path) -> None:
    listed = links((folder / "README.md").read_text("utf-8"))
    assert [page.name for page in folder.glob("*.md") if page.name not in listed and page.name != "README.md"] == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_no_line_of_running_text_is_longer_than_a_screen(page: Path) -> None:
    lines = page.read_text("utf-8").splitlines()
    assert [line for line in lines if len(line) > 135 and not line.lstrip().startswith(("|", "`", "["))] == []
