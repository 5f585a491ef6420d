"""`make screenshots`: every page of the dashboard, and MLflow's own pages, on real results, as Chromium draws them.

    python tests/real/screens.py [docs/images]

The results are those of CLIPSTUDY_HOME, after `make demo` say; nothing is written to them. The queue's page is of a
queue at work: a study of its own in a folder of temporary files, whose first cells fail since their data are not there.
The pictures, small ones, go into docs/images; docs/dashboard.md and docs/mlflow.md show them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.real.picture import CHROMIUM, keep  # noqa: E402  (a script: the project is not on its path before)

IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1280, 800
MODELS, TASK = ("bert", "gpt2", "clip-vit"), "bigram_shift"
#: Picture → the dashboard's address.
DASHBOARD = {
    "layers": "/?panel=Syntactic",
    "tables": "/tables",
    "claims": "/claims",
    "gallery": "/gallery?task=visualise&model=clip-vit-image&model=vit&layer=4",
    "runs": "/runs?first=bert&second=gpt2",
}


def main(folder: str = str(IMAGES)) -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as fresh, sync_playwright() as running:
        images = Path(fresh)  # the old pictures stay until all the new ones are drawn
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.route(re.compile(r"^https?://(?!127\.0\.0\.1[:/])"), lambda route: route.abort())
        with serving("dashboard") as url:
            for name, path in DASHBOARD.items():
                dashboard(page, url + path, images / f"dashboard-{name}.png")
        with at_work() as environment, serving("dashboard", environment=environment) as url:
            dashboard(page, f"{url}/queue", images / "dashboard-queue.png")
        with serving("ui") as url:
            mlflow(page, url, images)
        browser.close()
        for picture in sorted(images.iterdir()):
            print(f"{shutil.copy(picture, folder)}: {picture.stat().st_size / 1000:.0f} kB")


def dashboard(page: Any, address: str, picture: Path) -> None:
    page.goto(address)
    page.locator("#body > *").first.wait_for(state="attached", timeout=120_000)
    page.locator("#working").wait_for(state="hidden", timeout=120_000)
    page.get_by_text("claims are being tested").first.wait_for(state="detached", timeout=300_000)
    page.wait_for_timeout(2000)  # charts, grids and pictures are drawn after their page
    keep(page.screenshot(), picture)


def mlflow(page: Any, url: str, images: Path) -> None:
    """Runs, one parent's curves, three parents compared, a model's entry, a picture and a table of a run."""
    parents = {model: runs(f"{model} · {TASK}")[0] for model in MODELS}
    experiment = next(iter(parents.values())).info.experiment_id
    there = f"{url}/#/experiments/{experiment}"
    three = [run.info.run_id for run in parents.values()]
    metric = {"runs": three, "metric": "accuracy", "experiments": [experiment], "plot_metric_keys": ["accuracy"]}
    metric |= {"x_axis": "step", "plot_layout": {}, "deselected_curves": [], "last_linear_y_axis_range": []}
    chosen = quote(f"tags.`clipstudy.task` = '{TASK}' and tags.`clipstudy.level` = 'parent'")
    first = there + "/runs/" + parents[MODELS[0]].info.run_id
    drawn = next(run for run in runs(kind="visualise"))
    table = next(run for run in runs(f"{MODELS[0]} · {TASK} · block 6"))
    pages = {
        "runs": f"{there}/runs?searchFilter={chosen}",
        "parent": first,
        "curves": f"{url}/#/metric?"
        + "&".join(f"{k}={quote(v if k == 'x_axis' else json.dumps(v))}" for k, v in metric.items()),
        "picture": f"{there}/runs/{drawn.info.run_id}/artifacts/images_seed_0.png",
        "table": f"{there}/runs/{table.info.run_id}/artifacts/confusion.csv",
        "models": f"{there}/models",
    }
    page.add_init_script(
        """if (location.protocol === "http:") {
          localStorage.setItem("mlflow.assistant.autoOpenedOnFirstLoad_v1", "true");
          localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
        }"""
    )
    page.goto(url)  # it opens its assistant once
    page.wait_for_timeout(8000)
    for name, address in pages.items():
        page.goto("about:blank")  # an address that differs after its # alone would not load anew
        page.goto(f"{address}{'&' if '?' in address else '?'}workflowType=machine_learning")
        page.wait_for_timeout(8000)  # it never stops asking, so there is nothing to wait for
        keep(page.screenshot(), images / f"mlflow-{name}.png")


def runs(name: str | None = None, kind: str | None = None) -> list[Any]:
    from clipstudy.settings import Settings
    from clipstudy.tracking import open as open_tracking

    client, experiment = open_tracking(Settings.read()).connect()
    asked = f"attributes.run_name = '{name}'"
    if kind:
        asked = f"tags.`clipstudy.kind` = '{kind}' and tags.`clipstudy.level` = 'job'"
    found = list(client.search_runs([experiment], asked))
    if not found:
        sys.exit(f"no run {name or 'of ' + str(kind)} under CLIPSTUDY_HOME. Type: make demo, and set CLIPSTUDY_HOME")
    return found


@contextmanager
def at_work() -> Iterator[dict[str, str]]:
    """The environment of a queue with failed cells, and a worker on others."""
    with tempfile.TemporaryDirectory(prefix="clipstudy-screens-") as home:
        own = {"CLIPSTUDY_HOME": home}
        clipstudy("init", **own)
        clipstudy("enqueue", "--study", "pocket", "--task", "word_content", "--model", "bert", **own)
        clipstudy("worker", "--drain", **own, CLIPSTUDY_CACHE=f"{home}/empty")
        clipstudy("enqueue", "--study", "pocket", "--task", "*_*", "--model", "bert", "--model", "gpt2", **own)
        worker = subprocess.Popen(command("worker"), env={**os.environ, **own}, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            for _ in range(600):
                if json.loads(clipstudy("status", "--json", **own))["totals"].get("running"):
                    break
                time.sleep(0.2)
            yield own
        finally:
            worker.terminate()
            worker.wait(60)


@contextmanager
def serving(verb: str, *words: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of ``clipstudy VERB`` while it serves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        command(verb, "--port", str(port), *words),
        env={**os.environ, **(environment or {})},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(900):
            if process.poll() is not None:
                sys.exit(f"clipstudy {verb} ended: see what `clipstudy {verb}` says")
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def clipstudy(*words: str, **environment: str) -> str:
    done = subprocess.run(command(*words), env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True)
    return done.stdout


def command(*words: str) -> Sequence[str]:
    return [sys.executable, "-m", "clipstudy", *words]


if __name__ == "__main__":
    main(*sys.argv[1:])
