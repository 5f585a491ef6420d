"""What is chosen of the table is what the view's sentence is about; its workers are all there are."""

from __future__ import annotations

from sqlalchemy import Engine

from clipstudy import queueview
from clipstudy.job import Selection
from clipstudy.queue import jobs
from tests.queue.samples import cells, claim, group, hand_over


def test_the_summary_is_of_the_cells_chosen_and_workers_are_whoever_works(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("bert"), group("gpt2")))
    jobs.register(engine, jobs.WorkerInfo("ann", "here", 1, "cpu"))
    for job in claim(engine).jobs:
        hand_over(engine, job)
    claim(engine)
    bert, gpt2 = (queueview.read(engine, Selection(models=(name,))) for name in ("bert", "gpt2"))
    assert bert.summary.endswith("; 4 results not in MLflow yet")
    assert "MLflow" not in gpt2.summary and gpt2.summary.startswith("0 of 4 cells done, 4 running")
    assert [row.computes for row in (*bert.workers, *gpt2.workers)] == ["gpt2 · depth"] * 2


def test_a_worker_on_settings_that_were_changed_since_is_not_idle(engine: Engine) -> None:
    jobs.enqueue(engine, cells(group("bert", epochs=4)))
    jobs.register(engine, jobs.WorkerInfo("ann", "here", 1, "cpu"))
    claim(engine)
    jobs.enqueue(engine, cells(group("bert", epochs=5)))
    view = queueview.read(engine, Selection())
    assert [row.computes for row in view.workers] == ["bert · depth"]
