"""What a visitor does on a page, and reads there."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&<b>bold</b>"
SEEN = "() => document.querySelector('#said')?.textContent && !document.title.includes('null')"
#: Opens an address of a dashboard that is served for it.
Open = Callable[..., Any]


def go(page: Any, path: str) -> None:
    page.goto(path)
    page.wait_for_function(SEEN)


def said(page: Any, text: str) -> None:
    """Wait until the page says that it shows this."""
    page.wait_for_function("text => document.querySelector('#said')?.textContent.includes(text)", arg=text)


def choose(page: Any, text: str) -> None:
    page.locator("#controls").get_by_text(text, exact=True).click()


def drawn(page: Any, title: str) -> list[dict[str, Any]]:
    """What Plotly drew in the chart of that title: name, x and y of every trace."""
    figure = page.locator("figure", has=page.get_by_role("img", name=re.compile(f"^{re.escape(title)}:")))
    figure.locator(".js-plotly-plot .xtitle").wait_for(state="attached")
    script = "e => e.querySelector('.js-plotly-plot').data.map(t => ({name: t.name, x: [...t.x], y: [...t.y]}))"
    found: list[dict[str, Any]] = figure.evaluate(script)
    return found


def cells(page: Any, name: str) -> list[list[str]]:
    """The rows of a grid as a person reads them; those that are on the screen."""
    page.locator(f"#{name} .ag-center-cols-container .ag-cell").first.wait_for()
    script = """grid => {
      const rows = {};
      for (const cell of grid.querySelectorAll(".ag-body .ag-cell")) {
        const at = cell.closest("[row-index]").getAttribute("row-index");
        (rows[at] ??= []).push([Number(cell.getAttribute("aria-colindex")), cell.textContent]);
      }
      return Object.keys(rows).map(Number).sort((a, b) => a - b)
        .map(at => rows[at].sort((a, b) => a[0] - b[0]).map(pair => pair[1]));
    }"""
    found: list[list[str]] = page.eval_on_selector(f"#{name}", script)
    return found
