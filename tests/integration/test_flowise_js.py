"""Flowise's own JavaScript clients in front of `afw serve`, unchanged: the SDK in Node.js, the widget in a browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import npm_packages
from afw_command import Afw
from browser import chromium
from flowise_replay import FLOWS, LoopbackServer, ReplayFlowise, Reply, Request
from http_process import HttpServer, served
from servers import Server, Servers

pytestmark = pytest.mark.xdist_group("flowise_js")

SDK, WIDGET = "flowise-sdk@1.0.9", "flowise-embed@3.1.6"

ASK = """
const { FlowiseClient } = require(process.argv[2]);
const [, , , baseUrl, chatflowId, question] = process.argv;
(async () => {
  const client = new FlowiseClient({ baseUrl });
  const plain = await client.createPrediction({ chatflowId, question });
  let text = "", events = [];
  for await (const chunk of await client.createPrediction({ chatflowId, question, streaming: true })) {
    events.push(chunk.event);
    if (chunk.event === "token") text += chunk.data;
  }
  console.log(JSON.stringify({ plain, text, events }));
})();
"""

PAGE = """<!doctype html><meta charset="utf-8"><title>A site</title><flowise-fullchatbot></flowise-fullchatbot>
<script type="module">
  import Chatbot from "/web.js";
  Chatbot.initFull({ chatflowid: "%s", apiHost: "%s" });
</script>"""


class Site(LoopbackServer):
    """A web site of somebody's with the widget on it."""

    def __init__(self, script: bytes) -> None:
        super().__init__()
        self.page = ""
        self._script = script

    async def respond(self, request: Request) -> Reply:
        if request.path == "/web.js":
            return Reply(200, "text/javascript", (self._script,))
        return Reply(200, "text/html", (self.page.encode(),)) if request.path == "/" else Reply.json({}, status=404)


def fetched(package: str) -> Path:
    """Where a package lies, fetched if it is not there."""
    name = package.partition("@")[0]
    directory = npm_packages.CACHE / package.replace("@", "-")
    if not directory.is_dir():
        try:
            if package == SDK:
                npm_packages.install([package], directory)
            else:
                npm_packages.unpack(package, directory)
        except npm_packages.NotFetched as error:
            if os.environ.get("CI") == "true" and not error.npm_missing:
                raise
            pytest.skip(str(error))
    return directory / "node_modules" / name if package == SDK else directory


@pytest.fixture(scope="module")
def flowise() -> Iterator[ReplayFlowise]:
    with ReplayFlowise() as replay:
        yield replay


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site((fetched(WIDGET) / "dist" / "web.js").read_bytes()) as site:
        yield site


@pytest.fixture(scope="module")
def running(
    flowise: ReplayFlowise, site: Site, tmp_path_factory: pytest.TempPathFactory, servers: Servers
) -> Iterator[HttpServer]:
    home = Afw(tmp_path_factory.mktemp("js"), servers.get("valkey9").url)
    home.environ |= {"AFW_SERVE_FLOWISE_URL": flowise.url, "AFW_SERVE_ORIGINS": site.url}
    with served(home) as server:
        yield server


@pytest.fixture
def server(running: HttpServer, flowise: ReplayFlowise, valkey: Server) -> HttpServer:
    flowise.calls.clear()
    return running


def test_the_sdk_runs_unchanged(server: HttpServer, flowise: ReplayFlowise, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no Node.js")
        pytest.skip("there is no Node.js on this machine")
    script = tmp_path / "ask.js"
    script.write_text(ASK)
    told: list[dict[str, Any]] = []
    for question in ("What can it do?", "what can it do"):
        command = [node, str(script), str(fetched(SDK)), server.url, FLOWS["llm"], question]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    for one in told:
        assert one["plain"]["text"].endswith("What can it do?")
        assert one["text"] == one["plain"]["text"]
        assert one["events"][0] == "start"
        assert one["events"][-2:] == ["metadata", "end"]
    assert len(flowise.calls) == 1


def test_the_widget_runs_unchanged_in_a_browser(server: HttpServer, flowise: ReplayFlowise, site: Site) -> None:
    site.page = PAGE % (FLOWS["llm"], server.url)
    wrong: list[str] = []
    with chromium() as browser:
        for _ in range(2):
            page = browser.new_context().new_page()
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.goto(f"{site.url}/")
            box = page.locator("textarea")
            box.fill("How long are answers kept?")
            with page.expect_response(
                lambda reply: "/prediction/" in reply.url and reply.request.method == "POST"
            ) as r:
                box.press("Enter")
            assert r.value.headers["x-afw-outcome"] in {"miss", "hit"}
            page.get_by_text("after 0 messages: How long are answers kept?").wait_for()
            page.close()
    assert wrong == []
    assert [call.question for call in flowise.calls] == ["How long are answers kept?"]
