"""The README's picture: a report's heading and legend over two of its charts, as Chromium draws them.

    python tests/real/picture.py report.html [docs/images/report.png] [chart title …]

Whatever the report's study is called and holds: the charts are found by their titles, and the numbers are the report's.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "report.png"
CHARTS = ("Phrase clusters", "Syntactic: average")
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1200, 700
SHARPNESS = 1.5  #: the file's pixels a CSS pixel

#: Leaves the heading, the longest of the panels' legends and the charts asked for, and redraws these in the room that
#: they then have.
ARRANGE = """async ([titles, height]) => {
  const charts = titles.map(title => [...document.querySelectorAll(".chart")].find(
    chart => chart.getAttribute("aria-label").startsWith(title + ":")));
  const lost = titles.filter((title, i) => !charts[i]);
  if (lost.length) throw new Error("the report has no chart called " + lost.join(", "));
  const stage = document.createElement("div");
  stage.className = "figures";
  const legends = charts.map(chart => chart.closest(".panel").querySelector(".legend"));
  const legend = legends.reduce((most, other) => other.childElementCount > most.childElementCount ? other : most);
  const kept = [document.querySelector("h1"), ...[...document.querySelectorAll(".callout")].slice(0, 1)];
  document.body.replaceChildren(...kept, legend, stage);
  stage.append(...charts);
  document.body.style.padding = "1.5rem 2rem 1rem";
  const room = height - stage.getBoundingClientRect().top - 16;
  for (const chart of charts) {
    chart.style.height = room + "px";
    await Plotly.relayout(chart, { height: room, width: chart.clientWidth, "font.size": 14, "title.font.size": 18 });
  }
}"""


def draw(browser: Any, report: Path, picture: Path, titles: Sequence[str] = CHARTS) -> None:
    """Writes ``picture``, a PNG of 1800×1050.

    Raises:
        playwright.sync_api.Error: the report lacks one of the charts.
    """
    size = {"width": WIDTH, "height": HEIGHT}
    page = browser.new_page(viewport=size, device_scale_factor=SHARPNESS, color_scheme="light")
    page.goto(report.resolve().as_uri())
    page.wait_for_selector("body[data-drawn=yes]", state="attached")
    page.evaluate(ARRANGE, [list(titles), HEIGHT])
    keep(page.screenshot(), picture)
    page.close()


def keep(taken: bytes, picture: Path) -> None:
    """Writes a screenshot as a PNG of few colours: it lies in the repository, and this is a third of the bytes.

    Rare colours stay as they are: a swatch is a few pixels, and says which model is which.
    """
    picture.parent.mkdir(parents=True, exist_ok=True)
    few = Image.open(io.BytesIO(taken)).convert("RGB").quantize(128, method=Image.Quantize.MAXCOVERAGE)
    few.save(picture, optimize=True)


def main(report: str, picture: str = str(PICTURE), *titles: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        draw(browser, Path(report), Path(picture), titles or CHARTS)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
