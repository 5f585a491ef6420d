"""The paper's text study from tasks.toml, whole but thin: fetched from a stand-in of the Hub, then run without it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from clipstudy import tasksfile
from clipstudy.job import Selection, keys, plan
from clipstudy.settings import Settings
from clipstudy.tracking import open as open_tracking
from tests import paper
from tests.acceptance.conftest import Place
from tests.hub import Hub

TWINS = tuple(f"{name}-untrained-0" for name in paper.MODELS)
LONGEST = 900  #: seconds that a worker may take on a machine that others use too; a minute by itself


def results(place: Place) -> dict[tuple[str, str, int], Any]:
    settings = Settings.read({**place.environment, "CLIPSTUDY_HOME": str(place.folder)})
    return {(r.model, r.task, r.layer): r for r in open_tracking(settings).results("paper")}


def work(place: Place) -> None:
    worker = place.start("worker", "--drain", "--device", "cpu")
    said, _ = worker.communicate(timeout=LONGEST)
    assert worker.returncode == 0, said[-4000:]


@pytest.mark.real
@pytest.mark.timeout(2 * LONGEST)
def test_fetched_then_run_online_and_offline(place: Place, real: Path, tmp_path: Path) -> None:
    root = tmp_path / "published"
    paper.publish(root, real, paper.SMALL)
    hub = Hub(root)
    with hub.serving():
        study = paper.thinned(root, hub.url, paper.SMALL)
        (place.folder / "tasks.toml").write_text(study)
        place.environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        place.environment |= {"HF_HUB_DISABLE_XET": "1", "COLUMNS": "200"}

        told = place.json("fetch")
        assert told["failures"] == [] and len(told["items"]) == 3 + 2 + 10
        assert not any(path.endswith((".bin", ".py")) for path in hub.downloads())
        hub.asked.clear()
        place("enqueue", "--model", "clip-text", "--model", "gpt2", "--task", "wic-frozen")
        work(place)
        assert not hub.downloads(), "what was fetched is not downloaded again"

    place.environment["HF_HUB_OFFLINE"] = "1"
    assert "everything is here and whole" in place("fetch", "--verify").stdout
    place("enqueue", "--all")
    work(place)
    whole = tasksfile.load(place.folder / "tasks.toml")
    planned = {(key.model, key.task, key.layer) for key in keys(plan(whole, Selection()))}
    assert {model for model, _, _ in planned} == {*paper.MODELS, *TWINS} and len(planned) > 310
    assert place.json("status")["totals"] == {"done": len(planned)}

    found = results(place)
    assert set(found) == planned
    for result in found.values():
        assert result.tags["metric"] in result.metrics and math.isfinite(result.metrics[result.tags["metric"]].value)
