"""`run`, with a real tiny model and a kind whose behaviour is known."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clipstudy import run, tasks
from clipstudy.data.images import Picture
from clipstudy.errors import DatabaseUnreachable, DataError, ModelError
from clipstudy.features.extract import Text
from clipstudy.job import Failure, FailureKind, Group
from clipstudy.outcome import Estimate, Outcome
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tasks.task import Bench, Frozen, Needs
from tests.torch import checkpoints, image_checkpoints


@dataclass(frozen=True)
class Options:
    profile: str = "plain"


@dataclass(frozen=True)
class Data:
    texts: Sequence[Text] = (Text(("the", "cat")),)
    fingerprint: str = "sha256:1"
    source: str = "made"


def kind(measure: Any) -> Any:
    return SimpleNamespace(
        Options=Options, PROFILES={"plain": {}}, read=lambda dataset, options: Data(), views=lambda options: ("mean",),
        measure=measure, NEEDS=Needs.VECTORS,
    )  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> ModelSpec:
    return checkpoints.bert(tmp_path).spec


def outcomes(
    monkeypatch: pytest.MonkeyPatch, model: ModelSpec, fail: Any, layers: Sequence[int] = (0, 1, 2)
) -> dict[int, Outcome | Failure]:
    """What `run` yields where ``fail(layers)`` may raise before anything is yielded."""

    def measure(features: Any, data: Any, some: Sequence[int], *rest: Any) -> Iterator[Outcome]:
        fail(some)
        for layer in some:
            yield Outcome(layer, {"norm": Estimate(float(abs(features.vectors(layer, "mean")).sum()))})

    monkeypatch.setattr(tasks, "load", lambda name: kind(measure))
    group = Group("s", model, DatasetSpec("d", "senteval", path="./d"), TaskSpec("t", "made", "d", "norm"))
    return dict(run.run(group, layers, shelf=run.Shelf("cpu"), store=None, bench=Bench()))


def test_outcomes_carry_what_was_resolved(monkeypatch: pytest.MonkeyPatch, model: ModelSpec) -> None:
    found = outcomes(monkeypatch, model, lambda some: None)
    assert list(found) == [0, 1, 2]
    one = found[1]
    assert isinstance(one, Outcome) and one.metrics["norm"].value > 0
    assert one.params["resolved.checkpoint"].startswith("sha256:") and one.params["resolved.data"] == "sha256:1"


def test_a_bad_stack_falls_back_to_layer_by_layer(
    monkeypatch: pytest.MonkeyPatch, model: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(some: Sequence[int]) -> None:
        if 1 in some:
            raise ZeroDivisionError("in the stack")

    found = outcomes(monkeypatch, model, fail)
    assert isinstance(found[0], Outcome) and isinstance(found[2], Outcome)
    bad = found[1]
    assert isinstance(bad, Failure) and bad.kind is FailureKind.CODE and "in the stack" in bad.error
    assert "Traceback" in caplog.text


def test_a_bug_in_a_single_layer_leaves_its_traceback(
    monkeypatch: pytest.MonkeyPatch, model: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(some: Sequence[int]) -> None:
        raise ZeroDivisionError("alone")

    assert isinstance(outcomes(monkeypatch, model, fail, [2])[2], Failure)
    assert "ZeroDivisionError: alone" in caplog.text and "Traceback" in caplog.text


def test_what_a_user_can_mend_has_none(
    monkeypatch: pytest.MonkeyPatch, model: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(some: Sequence[int]) -> None:
        raise DataError("Fix the file.")

    caplog.set_level(logging.INFO)
    found = outcomes(monkeypatch, model, fail)
    assert all(isinstance(f, Failure) and f.error == "Fix the file." and not f.retry for f in found.values())
    assert "Traceback" not in caplog.text


def test_stopping_is_not_a_failure(monkeypatch: pytest.MonkeyPatch, model: ModelSpec) -> None:
    def fail(some: Sequence[int]) -> None:
        raise run.Stopped

    with pytest.raises(run.Stopped):
        outcomes(monkeypatch, model, fail)


@pytest.mark.parametrize(
    "yielded",
    [[0], [], [0, 0, 0], [0, 7]],
    ids=["too few", "nothing", "one too often", "one unasked"],
)
def test_each_layer_comes_once_whatever_a_kind_yields(
    monkeypatch: pytest.MonkeyPatch, model: ModelSpec, yielded: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """A layer that did not come at all would be given back, claimed again, and so on for ever."""

    def measure(given: Any, data: Any, some: Sequence[int], *rest: Any) -> Iterator[Outcome]:
        yield from (Outcome(layer, {"norm": Estimate(0.0)}) for layer in yielded)

    monkeypatch.setattr(tasks, "load", lambda name: kind(measure))
    group = Group("s", model, DatasetSpec("d", "senteval", path="./d"), TaskSpec("t", "made", "d", "norm"))
    found = list(run.run(group, (0, 1, 2), shelf=run.Shelf("cpu"), store=None, bench=Bench()))
    assert [layer for layer, _ in found] == [0, 1, 2]
    came = yielded[:1]
    assert [layer for layer, one in found if isinstance(one, Outcome)] == came
    for layer, one in found:
        assert layer in came or (isinstance(one, Failure) and not one.retry and 'kind = "made"' in one.error)
    assert caplog.text.count("dropped") == len(yielded) - len(came)


def test_a_layer_that_came_before_its_kind_broke_stays(monkeypatch: pytest.MonkeyPatch, model: ModelSpec) -> None:
    def measure(given: Any, data: Any, some: Sequence[int], *rest: Any) -> Iterator[Outcome]:
        yield Outcome(some[0], {"norm": Estimate(0.0)})
        raise ZeroDivisionError

    monkeypatch.setattr(tasks, "load", lambda name: kind(measure))
    group = Group("s", model, DatasetSpec("d", "senteval", path="./d"), TaskSpec("t", "made", "d", "norm"))
    found = list(run.run(group, (0, 1, 2), shelf=run.Shelf("cpu"), store=None, bench=Bench()))
    assert [(layer, type(one)) for layer, one in found] == [(layer, Outcome) for layer in range(3)]


class TestShelf:
    def test_keeps_the_last_model(self, model: ModelSpec) -> None:
        shelf = run.Shelf("cpu")
        assert shelf.take(model) is shelf.take(replace(model, label="Other name", batch_size=3))
        assert shelf.name == model.name

    def test_the_same_path_in_two_folders_is_two_models(self, tmp_path: Path) -> None:
        """Two studies may both say ./bert."""
        made = {name: build(tmp_path / name).spec for name, build in (("a", checkpoints.bert), ("b", checkpoints.gpt2))}
        shelf, found = run.Shelf("cpu"), {}
        for name, spec in made.items():
            (tmp_path / f"study-{name}").mkdir()
            (tmp_path / f"study-{name}" / "model").symlink_to(spec.checkpoint)
            found[name] = shelf.take(replace(spec, checkpoint="./model", base=str(tmp_path / f"study-{name}")))
        assert found["a"].resolved["checkpoint"] != found["b"].resolved["checkpoint"]

    def test_a_changed_depth_is_noticed(self, model: ModelSpec) -> None:
        shelf = run.Shelf("cpu")
        shelf.take(model)
        with pytest.raises(ModelError, match="layers = 9"):
            shelf.take(replace(model, layers=9))


@pytest.mark.parametrize(
    ("error", "kind", "retry"),
    [
        (DataError("x."), FailureKind.CODE, False),
        (DatabaseUnreachable(), FailureKind.INFRA, True),
        (ZeroDivisionError(), FailureKind.CODE, True),
        (ConnectionResetError(), FailureKind.INFRA, True),
        (MemoryError(), FailureKind.INFRA, True),
        (RuntimeError("CUDA out of memory"), FailureKind.INFRA, True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), FailureKind.INFRA, True),
        (OSError(5, "Input/output error"), FailureKind.INFRA, True),
        (FileNotFoundError(2, "gone"), FailureKind.CODE, True),
        (PermissionError(13, "no"), FailureKind.CODE, True),
    ],
)
def test_whose_fault_it_is(error: Exception, kind: FailureKind, retry: bool) -> None:
    found = run.failure_of(error)
    assert (found.kind, found.retry) == (kind, retry)


def test_secrets_stay_out_of_failures() -> None:
    assert "s3cret" not in run.failure_of(ConnectionError("cannot reach http://me:s3cret@host/x")).error


def test_a_kind_that_looks_into_a_model_is_given_it_calibrated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = replace(image_checkpoints.BUILDERS["resnet"](tmp_path).spec, init="random")
    picture = tmp_path / "one.png"
    image_checkpoints.picture().save(picture)
    rows = [Picture(picture, "one.png", "train")] * 3
    seen: list[Any] = []

    def measure(given: Any, *rest: Any) -> Iterator[Outcome]:
        norms = [m for m in given.backbone.module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        seen.append((type(given), given.spec, {bool(norm.running_mean.any()) for norm in norms}))
        yield Outcome(1, {"norm": Estimate(0.0)})

    made = kind(measure)
    made.NEEDS, made.read = (
        Needs.FROZEN,
        lambda dataset, options: SimpleNamespace(pictures=rows, fingerprint="sha256:1", source="made"),
    )
    monkeypatch.setattr(tasks, "load", lambda name: made)
    group = Group("s", spec, DatasetSpec("d", "images", path="./d"), TaskSpec("t", "made", "d", "norm"))
    assert dict(run.run(group, [1], shelf=run.Shelf("cpu"), store=None, bench=Bench()))
    assert seen == [(Frozen, spec, {True})]
