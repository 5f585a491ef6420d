"""Several pocket models by one call: processes of their own, told progress, and nothing twice."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from clipstudy.errors import ClipstudyError, ModelError
from clipstudy.pocket.training import card, evaluation, models, workshop
from clipstudy.pocket.training.pretrain import RECIPES, RECORD
from clipstudy.pocket.training.workshop import LONGEST_FIRST, Ready, finished, pretrain_all

HELD = 8


def short(names: list[str], folder: Path, **more: Any) -> list[Ready]:
    return pretrain_all(names, folder, **{"steps": 2, "held": HELD, "jobs": 2, **more})


def record(name: str, folder: Path, **changed: Any) -> Path:
    """Stands for a finished checkpoint."""
    place = folder / name
    place.mkdir()
    recipe = vars(workshop._recipe(name, 2))
    (place / RECORD).write_text(json.dumps({"name": name, "seed": 0, "recipe": recipe} | changed))
    (place / "model.safetensors").touch()
    return place


def nobody(*_: Any, **__: Any) -> None:
    raise AssertionError("a process was begun")


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_two_at_once_then_nothing_then_one_again_beside_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "deep" / "models"
    told: list[tuple[str, int, int]] = []
    ready = short(["bert", "resnet"], folder, progress=lambda *step: told.append(step))
    assert left(folder) == {"bert", "resnet"} == {model.name for model in ready}
    for name in ("bert", "resnet"):
        assert [step for step in told if step[0] == name] == [(name, 1, 2), (name, 2, 2)]
        models.load(name, folder / name)
    for model in ready:
        assert model.record == json.loads((folder / model.name / RECORD).read_text())
        assert model.record["held"] == HELD and model.record["recipe"]["steps"] == 2
        assert model.seconds is not None and model.seconds > 0

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(workshop, "_begin", nobody)
        there: list[Ready] = []
        assert short(["bert", "resnet"], folder, on_done=there.append) == there
    assert [(model.name, model.seconds) for model in there] == [("resnet", None), ("bert", None)]

    # A process of its own has a timm of its own.
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "timm.py").write_text("raise RuntimeError('broken on purpose')\n")
    monkeypatch.syspath_prepend(broken)
    done: list[Ready] = []
    with pytest.raises(
        ModelError, match=r"^Not trained: vit\. vit: RuntimeError: broken .* type: clipstudy pocket pretrain"
    ):
        short(["vit", "bert"], folder, again=True, on_done=done.append)
    assert left(folder) == {"bert", "resnet"}
    assert [(model.name, model.seconds is None) for model in done] == [("bert", False)]
    # The same seed gives the same checkpoint, in whatever company.
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_whatever_ends_the_call_ends_its_processes(tmp_path: Path) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        short(["bert"], tmp_path, steps=100_000, progress=interrupt)
    assert multiprocessing.active_children() == []
    assert left(tmp_path) == set()


def test_a_process_that_dies_is_told_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timm.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"vit: its process ended without a word \(signal SIGKILL\)"):
        short(["vit"], tmp_path / "models")


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"held": HELD}, True),
        ({"seed": 1}, False),
        ({"recipe": {}}, False),
        ({"held": HELD + 1}, False),
        ({"settings": "of another day"}, False),
    ],
)
def test_what_is_there_is_known_by_its_record(tmp_path: Path, changed: dict[str, Any], same: bool) -> None:
    place = record("bert", tmp_path, **changed)
    assert (finished("bert", place, 0, 2, HELD) is not None) is same
    assert finished("bert", place, 0, None, HELD) is None  # of other steps
    (place / "model.safetensors").unlink()
    assert finished("bert", place, 0, 2, HELD) is None


def test_the_digest_is_of_plain_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    before = workshop._settings(HELD)
    assert workshop._settings(HELD) == before
    monkeypatch.setitem(models.TEXT, "width", 97)
    assert workshop._settings(HELD)["settings"] != before["settings"]


def test_what_cannot_be_asked_for_is_said_before_a_process_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workshop, "_begin", nobody)

    def refused(match: str, names: list[str], folder: Path = tmp_path, **more: Any) -> None:
        with pytest.raises(ClipstudyError, match=match):
            short(names, folder, **more)

    refused(r'There is no pocket model "brt". Did you mean "bert"\?', ["brt"])
    refused(r"steps is 0, expected 1 or more\. Type: clipstudy pocket pretrain --steps 1$", ["bert"], steps=0)
    refused(r"jobs is 0, expected 1 or more", ["bert"], jobs=0)
    (tmp_path / "file").touch()
    refused(r"Checkpoints cannot be written into .*file", ["bert"], tmp_path / "file" / "models")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "thesis.txt").touch()
    refused(r"bert is there and has no pretraining\.json.* is left alone", ["bert"])
    record("gpt2", tmp_path, seed=1)
    refused(r"gpt2 holds a checkpoint of another seed.* add --again", ["gpt2"])
    assert left(tmp_path) == {"bert", "file", "gpt2"}


def test_the_longest_begin_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sorted(LONGEST_FIRST) == sorted(models.MODELS)
    begun: list[str] = []
    real: Callable[..., Any] = workshop._begin

    def begin(name: str, **settings: Any) -> Any:
        begun.append(name)
        if len(begun) == 3:
            raise InterruptedError
        return real(name, **settings)

    monkeypatch.setattr(workshop, "_begin", begin)
    with pytest.raises(InterruptedError):
        short(list(models.MODELS), tmp_path, jobs=3)
    assert begun == list(LONGEST_FIRST[:3])


def test_what_ships_is_of_this_very_code(tmp_path: Path) -> None:
    shipped = Path(models.__file__).parents[1] / "checkpoints"
    for name in models.MODELS:
        record = json.loads((shipped / name / RECORD).read_text(encoding="utf-8"))
        assert record["settings"] == workshop._settings(evaluation.HELD)["settings"], name
        assert record["recipe"] == asdict(RECIPES[name]), name
    copy = shutil.copytree(shipped, tmp_path / "checkpoints")
    text = card.write(copy).read_text(encoding="utf-8")
    assert text == (shipped / "CARD.md").read_text(encoding="utf-8") and "All 7 are." in text
    assert sum(card.sizes(shipped).values()) < 12e6
