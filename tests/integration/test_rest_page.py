"""The page that describes the REST interface, in a browser: whole by itself, at any width, light and dark."""

from __future__ import annotations

from pathlib import Path

from afw_command import Afw
from browser import chromium
from http_process import served
from servers import Servers


def test_the_page_needs_nothing_else_and_fits_every_width(tmp_path: Path, servers: Servers) -> None:
    with served(Afw(tmp_path, servers.get("valkey9").url)) as server, chromium() as browser:
        address = f"{server.url}/api/v2/docs"
        backgrounds = set()
        for width, scheme in ((1280, "light"), (360, "dark")):
            context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
            page = context.new_page()
            said: list[str] = []
            asked: list[str] = []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(address)
            page.get_by_text("/api/v2/sessions/{session_id}/turns", exact=True).click()
            shown = page.locator("#list_turns")
            assert "next_cursor" in shown.inner_text()
            shown.get_by_role("link", name="TurnItems").click()
            page.locator("#schema-TurnItems").wait_for(state="visible")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            backgrounds.add(page.evaluate("getComputedStyle(document.querySelector('#schema-TurnItems')).color"))
            assert (said, asked) == ([], [address])
            context.close()
        assert len(backgrounds) == 2, "light and dark look the same"
