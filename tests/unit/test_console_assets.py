"""Files that pages load: libraries are those that were released, and nothing comes from elsewhere."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

from agentic_flywheel.interfaces.http.console import assets

STATIC = Path(assets.__file__).parent / "static"
TEMPLATES = STATIC.parent / "templates"


def test_libraries_are_byte_for_byte_those_of_the_manifest_with_their_licences() -> None:
    manifest = tomllib.loads((STATIC / "vendor/manifest.toml").read_text("utf-8"))["file"]
    there = {path.name for path in (STATIC / "vendor").iterdir()} - {"manifest.toml"}
    assert there == {row["name"] for row in manifest} | {row["licence_file"] for row in manifest}
    for row in manifest:
        raw = (STATIC / "vendor" / row["name"]).read_bytes()
        assert hashlib.sha256(raw).hexdigest() == row["sha256"], row["name"]
        assert (STATIC / "vendor" / row["licence_file"]).stat().st_size > 300
    assert {row["licence"] for row in manifest} <= {"0BSD", "MIT"}


def test_nothing_is_loaded_from_elsewhere_and_nothing_stands_inline() -> None:
    for template in TEMPLATES.glob("*.html"):
        text = template.read_text("utf-8")
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text), template.name
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|\|\s*safe\s*}}", text), template.name
        scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
        assert [script for script in scripts if script] == [], template.name


def test_addresses_change_with_their_files() -> None:
    assert re.fullmatch(r"/static/[0-9a-f]{16}/console\.css", assets.address("console.css"))
    assert set(assets.assets()) >= {"console.css", "console.js", "icon.svg", "vendor/htmx.min.js"}
    assert not any(name.endswith((".toml", ".txt")) for name in assets.assets())
