"""The paper's image study from tasks.toml, whole but thin: fetched from a stand-in of the Hub, then run without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipstudy import tasksfile
from clipstudy.job import Selection, keys, plan
from clipstudy.settings import Settings
from clipstudy.tracking import open as open_tracking
from tests import paper_images
from tests.acceptance.conftest import Place
from tests.hub import Hub

TWINS = tuple(f"{name}-untrained-0" for name in paper_images.MODELS)
LONGEST = 900  #: seconds that a worker may take on a machine that others use too


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(2 * LONGEST)
def test_fetched_then_run_offline(place: Place, real: Path, tmp_path: Path) -> None:
    root = tmp_path / "published"
    paper_images.publish(root, real, paper_images.SMALL)
    (place.folder / "tasks.toml").write_text(paper_images.thinned(paper_images.SMALL))
    hub = Hub(root)
    with hub.serving():
        place.environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        place.environment |= {"HF_HUB_DISABLE_XET": "1", "COLUMNS": "200"}
        told = place.json("fetch")
        assert told["failures"] == [] and len(told["items"]) == len(paper_images.MODELS) + 1
        assert not any(path.endswith((".bin", ".py")) for path in hub.downloads())

    place.environment["HF_HUB_OFFLINE"] = "1"
    place("enqueue", "--all")
    worker = place.start("worker", "--drain", "--device", "cpu")
    said, _ = worker.communicate(timeout=LONGEST)
    assert worker.returncode == 0, said[-4000:]
    whole = tasksfile.load(place.folder / "tasks.toml")
    planned = {(key.model, key.task, key.layer) for key in keys(plan(whole, Selection()))}
    assert {model for model, _, _ in planned} == {*paper_images.MODELS, *TWINS}
    assert {task.kind for task in whole.tasks.values()} == {
        "classify", "zero_shot", "reconstruct", "visualise", "attend",
    }  # fmt: skip
    assert place.json("status")["totals"] == {"done": len(planned)}

    settings = Settings.read({**place.environment, "CLIPSTUDY_HOME": str(place.folder)})
    found = {(r.model, r.task, r.layer): r for r in open_tracking(settings).results("paper")}
    assert set(found) == planned
    for result in found.values():
        assert result.metrics[result.tags["metric"]].value is not None
    assert {layer for model, task, layer in planned if task == "cifar100"} == {1, 2, 3, 4}
