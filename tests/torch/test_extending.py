"""docs/design/extending.md: its examples, as they stand there, in a study that is run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from clipstudy import data, run, tasks, tasksfile
from clipstudy.data.labelled import Labelled
from clipstudy.errors import DataError, StudyError
from clipstudy.job import Selection, plan
from clipstudy.outcome import Outcome
from clipstudy.results import units
from clipstudy.spec import DatasetSpec
from clipstudy.tasks.task import Bench
from tests.torch import checkpoints

GUIDE = (Path(__file__).parents[2] / "docs" / "design" / "extending.md").read_text(encoding="utf-8")
(KIND, READER), (TASK,) = (re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S) for language in ("python", "toml"))
STUDY = """
[study]
name = "guide"
[models.bert]
source = "transformers"
checkpoint = "./bert"
layers = {layers}
[datasets.reviews]
reader = "senteval"
path = "./reviews.txt"
"""


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example kind, as if its file lay beside the others."""
    home = tmp_path / "kinds"
    home.mkdir()
    (home / "anisotropy.py").write_text(KIND)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(home)])


@pytest.fixture
def study(tmp_path: Path) -> str:
    """A study file of the example task, its model and data beside it."""
    sample = checkpoints.bert(tmp_path / "bert")
    rows = [
        f"{split}\t{i % 2}\tthe cat {word} sat ." for split in ("tr", "va", "te") for i, word in enumerate("abcdef")
    ]
    (tmp_path / "reviews.txt").write_text("\n".join(rows))
    return STUDY.format(layers=sample.spec.layers).replace("./bert", sample.spec.checkpoint) + TASK


def cosines(study: str, folder: Path, layers: tuple[int, ...] | None = None) -> Mapping[int, float]:
    parsed = tasksfile.parse(study, folder / "tasks.toml")
    [(group, every)] = plan(parsed, Selection())
    found = dict(run.run(group, layers or every, shelf=run.Shelf("cpu"), store=None, bench=Bench()))
    assert all(isinstance(outcome, Outcome) for outcome in found.values()), found
    return {layer: outcome.metrics["cosine"].value for layer, outcome in found.items()}


@pytest.mark.usefixtures("kind")
def test_the_kind_is_measured(study: str, tmp_path: Path) -> None:
    found = cosines(study, tmp_path)
    assert len(found) > 1 and all(-1 <= value <= 1 for value in found.values())
    # Nothing of a layer follows from which others are in the batch.
    last = max(found)
    assert cosines(study, tmp_path, (last,)) == {last: pytest.approx(found[last], abs=1e-6)}


@pytest.mark.usefixtures("kind")
def test_its_metric_is_shown_as_it_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "known", units.known.__wrapped__)  # as in a process that starts with the file there
    assert units.axis_title("mean/cosine") == "mean cosine of two texts, mean" and units.better("cosine") == 0


@pytest.mark.usefixtures("kind")
def test_its_options_are_checked_with_the_study_file(study: str, tmp_path: Path) -> None:
    for options, why in (
        ("pairs = 0", "expected 1 or more"),
        ("pears = 5", "pairs"),
        ('pairs = "5"', "a whole number"),
    ):
        with pytest.raises(StudyError, match=why):
            tasksfile.parse(f"{study}options = {{ {options} }}\n", tmp_path / "tasks.toml")


def test_the_example_is_short() -> None:
    code = [line for line in KIND.split('"""')[2].splitlines() if line.strip()]
    assert len(code) <= 40


@pytest.fixture
def read() -> Callable[[DatasetSpec], Labelled[tuple[str, ...]]]:
    room: dict[str, Callable[[DatasetSpec], Labelled[tuple[str, ...]]]] = {}
    exec(compile(READER, "extending.md", "exec"), room)
    return room["read"]


def test_the_reader_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, read: Callable[[DatasetSpec], Labelled[tuple[str, ...]]]
) -> None:
    monkeypatch.setattr(data, "READERS", {**data.READERS, "piped": {"path": ("splits", "limit")}})
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.txt").write_text(f"good|the {split} sat\nbad|the cat|dog\n\n")
    found = read(DatasetSpec("reviews", "piped", path=str(tmp_path)))
    assert found.classes == ("bad", "good") and found.dev.items[0] == ("the", "dev", "sat")
    assert found.test.items[1] == ("the", "cat|dog")
    other = tmp_path / "test.txt"
    other.write_text("good|the test sat\n\nno label here\n")
    with pytest.raises(DataError, match=r"test\.txt:3: .*label\|sentence"):
        read(DatasetSpec("reviews", "piped", path=str(tmp_path)))
