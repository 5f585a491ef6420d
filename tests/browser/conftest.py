"""A real browser, where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from clipstudy.dashboard.pages.components import Desk
from tests.browser.served import serving
from tests.browser.visiting import Open, go

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium fonts-dejavu-core")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """Serves a desk and opens an address of it. After the test: nothing was asked of any other machine, and the console
    is empty."""
    complaints: list[str] = []
    with ExitStack() as stack:

        def open_page(shown: Desk, path: str = "/", **context: Any) -> Any:
            base = stack.enter_context(serving(shown))
            page = chromium.new_page(**{"viewport": {"width": 1280, "height": 900}, "base_url": base, **context})
            stack.callback(page.close)
            page.on("request", lambda r: r.url.startswith((base, "data:", "blob:")) or complaints.append(r.url))
            page.on("console", lambda m: m.location["url"].endswith("/nowhere") or complaints.append(m.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("dialog", lambda dialog: complaints.append(dialog.message))
            go(page, path)
            return page

        yield open_page
    assert complaints == []
