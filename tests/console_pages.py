"""Pages of the console in a real browser: opened as a desktop and a telephone have them, and looked at for faults."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

import npm_packages

AXE = "axe-core@4.14.1"
SIZES = {"desktop": (1280, 900), "phone": (360, 740)}
#: Set to a folder, screens are kept there as pictures.
PICTURES = os.environ.get("AFW_TEST_PICTURES", "")
#: What is expected of pages that show an error.
_STATUS = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")


def axe_source() -> str:
    """The accessibility checker, fetched if it is not there."""
    directory = npm_packages.CACHE / AXE.replace("@", "-")
    if not directory.is_dir():
        try:
            npm_packages.unpack(AXE, directory)
        except npm_packages.NotFetched as error:
            if os.environ.get("CI") == "true" and not error.npm_missing:
                raise
            pytest.skip(str(error))
    return (directory / "axe.min.js").read_text("utf-8")


class Console:
    """One browser's look at a service: whatever a page complains of, or asks of anybody else, is a failure."""

    def __init__(self, browser: Browser, url: str, size: str, **options: Any) -> None:
        self.url, self.size = url, size
        width, height = SIZES[size]
        options = {"color_scheme": "light", "locale": "en-GB", "timezone_id": "UTC", **options}
        self.context: BrowserContext = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.context.set_default_timeout(60_000)
        self.page: Page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.context.on("request", self._requested)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not _STATUS.match(message.text):
            self.faults.append(f"{message.type}: {message.text}")

    def _requested(self, request: Request) -> None:
        if not request.url.startswith((f"{self.url}/", "data:", "blob:")):
            self.faults.append(f"asked elsewhere: {request.url}")

    def open(self, path: str) -> Page:
        """Go to a page of the console."""
        self.page.goto(self.url + path)
        return self.page

    def check(self, name: str = "", *, barriers: bool = True) -> None:
        """Nothing was complained of, nothing is wider than the screen, and (`barriers`, a second's work) nothing stands
        in anybody's way; with a name, a picture is kept where that is wanted."""
        assert self.faults == [], f"{self.page.url}: {self.faults}"
        wider = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{self.page.url} is {wider} px wider than the screen ({self.size})"
        if name and PICTURES:
            self.page.screenshot(path=Path(PICTURES) / f"{name}-{self.size}.png", full_page=True)
        if not barriers:
            return
        self.page.evaluate(axe_source())
        # `target-size` is WCAG 2.2; the rest is up to 2.1 AA, and best practice.
        found = self.page.evaluate(
            "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
        )
        found_barriers = [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]
        assert found_barriers == [], f"{self.page.url}: {found_barriers}"


@contextmanager
def console(browser: Browser, url: str, size: str = "desktop", **options: Any) -> Iterator[Console]:
    """A look at a service that has ended when the block has."""
    look = Console(browser, url, size, **options)
    try:
        yield look
    finally:
        look.context.close()
