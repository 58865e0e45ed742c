"""What is shown in README.md and docs/ runs: Python, registries, settings, rights, commands."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from afw_command import Afw
from agentic_flywheel import Flywheel
from agentic_flywheel.errors import StoreRefused
from agentic_flywheel.flows.registry_file import parse_registry
from agentic_flywheel.interfaces.cli.commands import afw
from agentic_flywheel.settings import load_settings
from pages import ROOT, Block, blocks, read
from servers import Server

pytestmark = pytest.mark.anyio


def _own_place(place: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOME": place, "AFW_CONFIG_DIR": place, "AFW_REDIS_URL": redis_url}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(place)


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_python_examples_print_what_the_page_says(
    page: str, valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _own_place(tmp_path, valkey.url, monkeypatch)
    names: dict[str, Any] = {"__name__": "example"}
    shown = blocks(page, "python", "text")
    printed: list[tuple[Block, str]] = []
    with asyncio.Runner() as runner:
        for block, following in zip(shown, [*shown[1:], None], strict=True):
            if block.language != "python":
                continue
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                _run(block, f"{page}:{block.line}", names, runner)
            expected = following.text if following is not None and following.language == "text" else ""
            assert out.getvalue() == expected, f"{page}:{block.line}"
            printed.append((block, out.getvalue()))
    assert printed


def _run(block: Block, place: str, names: dict[str, Any], runner: asyncio.Runner) -> None:
    """Run a block; one with `await` outside of a function runs on the page's own event loop, the others without one."""
    code = compile("\n" * block.line + block.text, place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:

        async def whole() -> None:
            await eval(code, names)

        runner.run(whole())
    else:
        exec(code, names)


@pytest.mark.parametrize("page", ["README.md", "docs/configuration.md", "docs/sharing.md"])
def test_registries_are_understood(page: str) -> None:
    shown = blocks(page, "yaml")
    assert shown
    for block in shown:
        snapshot = parse_registry(block.text.encode(), Path(f"{page}:{block.line}"), "argument")
        assert snapshot.flows
        assert snapshot.notes == ()


def test_configuration_files_are_understood(tmp_path: Path) -> None:
    shown = blocks("docs/configuration.md", "toml")
    for block in shown:
        (tmp_path / "config.toml").write_text(block.text)
        settings = load_settings(environ={"AFW_CONFIG_DIR": str(tmp_path)}, directory=Path("/"))
        for section, said in tomllib.loads(block.text).items():
            named = {f"{section}.{name}": value for name, value in said.items()} if isinstance(said, dict) else {}
            for name, value in (named or {section: said}).items():
                assert settings[name] == value, f"docs/configuration.md:{block.line}"
    assert len(shown) == 2


def test_json_is_json() -> None:
    shown = blocks("README.md", "json")
    assert shown
    assert all(json.loads(block.text) for block in shown)


async def test_the_least_rights_are_enough(valkey: Server, tmp_path: Path) -> None:
    """Every part of the way and of looking after it works for the ACL user of docs/configuration.md, and only that."""
    section = read("docs/configuration.md").split("## Redis: least rights", 1)[1]
    rule = section.split("```")[1].replace("PASSWORD", "secret")
    _, _, user, *rights = shlex.split(rule.replace(">", "\\>"))
    admin: Redis = valkey.client()
    try:
        admin.execute_command("ACL", "SETUSER", user, *rights)
        url = f"unix://{user}:secret@{valkey.socket}?db=0"
        environ = {"AFW_CONFIG_DIR": str(tmp_path), "AFW_REDIS_COMMAND_TIMEOUT_SECONDS": "5"}
        async with Flywheel.open(
            settings=load_settings({"redis_url": url}, environ=environ, directory=tmp_path)
        ) as flywheel:
            await _use_everything(flywheel)
            with pytest.raises(StoreRefused):
                await flywheel.plain_get("somebody-elses")
    finally:
        admin.execute_command("ACL", "DELUSER", user)
        admin.close()


async def _use_everything(flywheel: Flywheel) -> None:
    for _ in range(2):
        answer = await flywheel.ask("How long are answers kept?", session="one", user="ada")
        assert answer.warnings == ()
        assert answer.remembered
    await flywheel.ask("How long are answers kept?", user="ada")
    await flywheel.sessions.rename("one", "First")
    await flywheel.sessions.tag("one", add=["a"])
    await flywheel.sessions.configure("two", {"k": 3})
    assert len((await flywheel.sessions.list()).sessions) == 3
    assert len((await flywheel.sessions.list(user="ada")).sessions) == 2
    assert len((await flywheel.sessions.show("one")).turns) == 2
    await flywheel.lifetimes.set("documents", (await flywheel.lifetimes.show())[0].ttl_seconds and _day())
    await flywheel.lifetimes.reset("documents")
    await flywheel.lifetimes.set("technical", _day())
    await flywheel.flows.changes("documents")
    listed, _ = await flywheel.cache.list()
    assert listed
    await flywheel.cache.show(listed[0].key)
    await flywheel.cache.stats()
    draft = await flywheel.faq.add(turn=answer.turn_id, by="ada")
    approved = await flywheel.faq.approve(draft.id, owner="ada")
    assert (await flywheel.ask("How long are answers kept?")).faq == approved.id
    await flywheel.faq.edit(approved.id, answer="For a while.")
    assert len(await flywheel.faq.history(approved.id)) == 3
    await flywheel.faq.retire(approved.id, dry_run=False)
    await flywheel.faq.retire(approved.id, purge=True, dry_run=False)
    await flywheel.cache.clear(session="one", dry_run=False)
    await flywheel.cache.clear(everything=True, dry_run=False)
    await flywheel.cache.reclaim()
    await flywheel.sessions.sweep(dry_run=False)
    await flywheel.sessions.delete("one", dry_run=False)


def _day() -> Any:
    from datetime import timedelta

    return timedelta(days=1)


def _shown_commands() -> list[str]:
    lines = [line for block in blocks("README.md", "console") for line in block.text.splitlines()]
    return [line[2:] for line in lines if line.startswith("$ ")]


def test_commands_of_the_readme_work(valkey: Server, tmp_path: Path) -> None:
    command = Afw(tmp_path, valkey.url)
    command.registry.unlink()
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    project = tomllib.loads(read("pyproject.toml"))["project"]
    outputs = {}
    for line in _shown_commands():
        program, *arguments = shlex.split(line)
        if program == "make":
            assert set(arguments) <= targets, line
        elif program == "pip":
            name, _, extras = arguments[-1].rstrip("]").partition("[")
            assert name == project["name"], line
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), line
        else:
            assert program == "afw", line
            outputs[line] = command.ok(*arguments)
    shown = next(block.text for block in blocks("README.md", "console") if "afw ask" in block.text)
    said = re.search(r"^\$ afw ask [^\n]+\n(.*?)^(?:\.\.\.|\[1\])", shown, re.MULTILINE | re.DOTALL)
    assert said is not None
    asked = [outputs[line] for line in _shown_commands() if line.startswith("afw ask")]
    assert asked[0].out.startswith(said[1]), "README.md shows another answer than the command gives"
    assert asked[0].out == asked[1].out
    assert "miss · not stored · documents" in asked[0].err
    assert "hit · exact" in asked[1].err


def test_commands_named_in_running_text_exist() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = set()
    for page in pages:
        text = " ".join(page.read_text("utf-8").split())
        named |= {tuple(found.split()) for found in re.findall(r"`afw ((?:[a-z]+ ?)+)", text)}
    assert len(named) > 15
    for words in sorted(named):
        group: Any = afw
        for word in words:
            if not hasattr(group, "get_command"):
                break  # an argument
            found = group.get_command(None, word)
            assert found is not None, f"`afw {' '.join(words)}` is no command"
            group = found
