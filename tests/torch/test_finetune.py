"""Fine-tuning on tiny checkpoints: what is learnt, what it depends on, and what it leaves behind."""

from __future__ import annotations

import csv
import gc
import io
import json
import random
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from clipstudy import backbones, run, tasks
from clipstudy.data.pairs import Pair
from clipstudy.errors import DeviceError
from clipstudy.job import Failure, Group, layers_of
from clipstudy.outcome import Outcome
from clipstudy.probes import tuning
from clipstudy.spec import WHOLE_MODEL, DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tasks import finetune
from clipstudy.tasks.parts import readings
from clipstudy.tasks.task import BadOption, Bench, options, plain
from tests.torch import checkpoints

FAST = {"learning_rate": 3e-3, "batch_size": 16, "epochs": 4, "dropout": 0.0, "draws": 50, "question_only": False}


def boolq(folder: Path, rows: dict[str, list[tuple[str, str, bool]]]) -> DatasetSpec:
    folder.mkdir(exist_ok=True)
    for split, found in rows.items():
        lines = [json.dumps({"question": q, "passage": p, "answer": a}) for q, p, a in found]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return DatasetSpec("d", "boolq", path=str(folder), development=0.25)


def rows(where: str, sizes: tuple[int, int] = (160, 60)) -> dict[str, list[tuple[str, str, bool]]]:
    """The answer is in the question, in the passage, or nowhere."""
    draw = random.Random(0)

    def row(at: int) -> tuple[str, str, bool]:
        answer = draw.random() < 0.5
        told = "the" if answer else "cat"
        filler = " ".join(draw.choices("bdf", k=2))
        passage = f"{chr(97 + at % 26)} {chr(97 + at // 26)} {filler}"
        question = " ".join(draw.choices("gh", k=2))
        words = {"question": (f"{told} {question}", passage), "passage": (question, f"{told} {told} {told} {passage}")}
        return *words.get(where, (question, passage)), answer

    return {split: [row(at) for at in range(size)] for split, size in zip(("train", "dev"), sizes, strict=True)}


def wic(folder: Path, size: int = 24) -> DatasetSpec:
    draw = random.Random(0)
    for split in ("train", "dev"):
        lines, gold = [], []
        for at in range(size):
            texts = [" ".join([*draw.choices("abc", k=k), "cat", "."]) for k in (2, 3)]
            lines.append(f"c{at}\tN\t2-3\t{texts[0]}\t{texts[1]}")
            gold.append("TF"[at % 2])
        (folder / f"{split}.data.txt").write_text("\n".join(lines) + "\n")
        (folder / f"{split}.gold.txt").write_text("\n".join(gold) + "\n")
    return DatasetSpec("d", "wic", path=str(folder), development=0.25)


def group(model: ModelSpec, data: DatasetSpec, seeds: Sequence[int] = (0,), **given: Any) -> Group:
    opts = plain(options(tasks.load("finetune"), {**FAST, **given}))
    task = TaskSpec("t", "finetune", "d", "accuracy", seeds=tuple(seeds), layers="whole", options=opts)
    return Group("s", model, data, task)


def tuned(asked: Group, **more: Any) -> Any:
    shelf, bench = more.pop("shelf", None) or run.Shelf("cpu"), more.pop("bench", Bench())
    layers = layers_of(asked.model, asked.task)
    assert layers == (WHOLE_MODEL,)
    [(layer, outcome)] = run.run(asked, layers, shelf=shelf, store=None, bench=bench, **more)
    assert layer == WHOLE_MODEL
    return outcome


def table(outcome: Outcome, name: str) -> Any:
    content = {a.name: a.content for a in outcome.artifacts}[name]
    if name.endswith("parquet"):
        return pq.read_table(io.BytesIO(content)).to_pandas()
    return list(csv.DictReader(io.StringIO(content.decode())))


@pytest.fixture
def bert(tmp_path: Path) -> ModelSpec:
    return checkpoints.bert(tmp_path / "bert").spec


class TestLearns:
    @pytest.mark.parametrize("given", [{}, {"sides": "apart"}, {"long": "windows", "window": 4}])
    def test_leaked_labels(self, bert: ModelSpec, tmp_path: Path, given: dict[str, Any]) -> None:
        outcome = tuned(group(bert, boolq(tmp_path / "d", rows("passage")), epochs=16, **given))
        assert outcome.metrics["accuracy"].value == outcome.metrics["dev_accuracy"].value == 1.0
        assert outcome.metrics["baseline/majority"].value < 0.7 and outcome.metrics["one_class"].value == 0

    def test_what_the_question_alone_gives(self, bert: ModelSpec, tmp_path: Path) -> None:
        given = {"question_only": True, "epochs": 10}
        told = tuned(group(bert, boolq(tmp_path / "d", rows("question")), **given)).metrics
        silent = tuned(group(bert, boolq(tmp_path / "e", rows("passage")), **given)).metrics
        assert told["question_only/accuracy"].value == told["accuracy"].value == silent["accuracy"].value == 1.0
        assert silent["question_only/accuracy"].value < 0.75

    def test_shuffled_labels_are_chance(self, bert: ModelSpec, tmp_path: Path) -> None:
        data = boolq(tmp_path / "d", rows("nowhere", (160, 200)))
        accuracy = tuned(group(bert, data, (0, 1, 2))).metrics["accuracy"]
        assert 0.38 < accuracy.value < 0.62 and accuracy.low <= accuracy.value <= accuracy.high


class TestDependsOn:
    def test_the_seed_alone(self, bert: ModelSpec, tmp_path: Path) -> None:
        data = boolq(tmp_path / "d", rows("nowhere"))
        both = table(tuned(group(bert, data, (0, 1), dropout=0.3)), "epochs.csv")
        torch.manual_seed(99)
        expected = torch.rand(3)
        torch.manual_seed(99)
        alone = table(tuned(group(bert, data, (1,), dropout=0.3)), "epochs.csv")
        assert torch.equal(torch.rand(3), expected), "training must not draw from the global generator"
        assert alone == [row for row in both if row["seed"] == "1"]
        losses = {(row["seed"], row["epoch"]): row["loss"] for row in both}
        assert losses["0", "1"] != losses["1", "1"]

    def test_not_the_reported_labels(self, bert: ModelSpec, tmp_path: Path) -> None:
        found = rows("passage", (60, 40))
        flipped = {**found, "dev": [(q, p, not answer) for q, p, answer in found["dev"]]}
        one, other = (
            tuned(group(bert, boolq(tmp_path / name, some), (0, 1))) for name, some in (("d", found), ("e", flipped))
        )
        assert table(one, "epochs.csv") == table(other, "epochs.csv")
        assert one.params["epochs_chosen"] == other.params["epochs_chosen"]
        for seed in (0, 1):
            said = [table(o, "predictions.parquet")[f"both/seed_{seed}"].tolist() for o in (one, other)]
            assert said[0] == said[1]
        assert one.metrics["accuracy"].value == pytest.approx(1 - other.metrics["accuracy"].value)

    def test_the_best_epoch_on_development_is_taken(self, bert: ModelSpec, tmp_path: Path) -> None:
        data = boolq(tmp_path / "d", rows("nowhere"))
        outcome = tuned(group(bert, data, epochs=9, patience=2))
        epochs = table(outcome, "epochs.csv")
        scores = [float(row["dev_accuracy"]) for row in epochs]
        chosen = [row["chosen"] for row in epochs].index("True")
        assert chosen == scores.index(max(scores)) and len(epochs) in (9, chosen + 3)
        assert outcome.metrics["dev_accuracy"].value == max(scores)
        assert outcome.params["epochs_chosen"] == str(chosen + 1)
        until_then, longer = (
            tuned(group(bert, data, epochs=epochs_, patience=9)) for epochs_ in (chosen + 1, len(epochs))
        )
        said = [table(one, "predictions.parquet")["both/seed_0"].tolist() for one in (outcome, until_then, longer)]
        assert len(epochs) > chosen + 1 and said[0] == said[1] == said[2], "they are that epoch's predictions"


class TestLeavesBehind:
    def test_the_shelfs_copy_is_never_trained(self, bert: ModelSpec, tmp_path: Path) -> None:
        shelf = run.Shelf("cpu")
        kept = shelf.take(bert)
        before = {name: weight.clone() for name, weight in kept.module.state_dict().items()}
        tuned(group(bert, boolq(tmp_path / "d", rows("passage", (40, 20)))), shelf=shelf)
        assert all(torch.equal(before[name], weight) for name, weight in kept.module.state_dict().items())
        assert shelf.name is None
        assert all(torch.equal(before[name], weight) for name, weight in shelf.take(bert).module.state_dict().items())

    def test_one_model_in_memory_at_a_time(
        self, bert: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load, before = backbones.load, []

        def watched(spec: ModelSpec, device: str) -> Any:
            gc.collect()
            assert [model for model in before if model() is not None] == []
            before.append(weakref.ref(model := load(spec, device)))
            return model

        monkeypatch.setattr(backbones, "load", watched)
        asked = group(bert, boolq(tmp_path / "d", rows("passage", (40, 20))), (0, 1, 2), epochs=1)
        assert isinstance(tuned(asked), Outcome) and len(before) == 4

    def test_every_step_is_told_and_may_stop_it(self, bert: ModelSpec, tmp_path: Path) -> None:
        told: list[tuple[str, int, int]] = []
        asked = group(bert, boolq(tmp_path / "d", rows("passage", (44, 20))), (0, 1), question_only=True)
        outcome = tuned(asked, bench=Bench(progress=lambda *one: told.append(one)))
        steps = 4 * -(-int(outcome.metrics["items/train"].value) // 16)
        assert {(what, of) for what, _, of in told} == {("fine-tune", 2 * 2 * steps)}
        done = [at for _, at, _ in told]
        assert done == sorted(done) and set(range(1, 4 * steps + 1)) <= set(done)

        def stop(what: str, at: int, of: int) -> None:
            if at == 2:
                raise run.Stopped

        with pytest.raises(run.Stopped):
            tuned(asked, bench=Bench(progress=stop))


class TestMemory:
    """A batch that does not fit is halved, and the effective batch stays."""

    def trained(self, bert: ModelSpec, tmp_path: Path, fits: int, **given: Any) -> tuning.Tuned:
        backbone = backbones.load(bert, "cpu")
        for module in backbone.module.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        last: Callable[..., Any] = backbone.last

        def scarce(ids: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
            if len(ids) > fits:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return last(ids, *rest)

        backbone.last = scarce  # type: ignore[method-assign]
        opts = options(tasks.load("finetune"), {**FAST, **given})
        pairs = finetune.read(boolq(tmp_path / "d", rows("passage", (160, 90))), opts).pairs
        some = [
            readings.items(backbone, part, opts, False) for part in (pairs.train, pairs.development, pairs.reported)
        ]
        labels = [np.array([pair.label == "True" for pair in part], int) for part in (pairs.train, pairs.development)]
        parts = tuning.Parts(some[0], labels[0], some[1], labels[1], some[2], 2)
        return tuning.tune(backbone, parts, finetune.recipe(opts), 0, lambda done: None)

    def test_halved_batches_train_as_whole_ones(self, bert: ModelSpec, tmp_path: Path) -> None:
        whole, halved = (self.trained(bert, tmp_path, fits, epochs=2) for fits in (1000, 5))
        assert (whole.portion, halved.portion) == (16, 4)
        for one, other in zip(whole.epochs, halved.epochs, strict=True):
            assert one.loss == pytest.approx(other.loss, rel=1e-3)
            assert one.dev_accuracy == pytest.approx(other.dev_accuracy, abs=0.03)
        assert (whole.predictions == halved.predictions).mean() > 0.95 and halved.predictions.min() == 0

    def test_not_even_one(self, bert: ModelSpec, tmp_path: Path) -> None:
        with pytest.raises(DeviceError, match=r"not even one item fits .*models\.bert.* Lower max_tokens"):
            self.trained(bert, tmp_path, 0)


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "clip", "open_clip"])
@pytest.mark.parametrize("profile", ["superglue", "pair"])
def test_every_model_on_marked_words(name: str, profile: str, tmp_path: Path) -> None:
    model = checkpoints.BUILDERS[name](tmp_path / name).spec
    twin = replace(model, name="twin", init="random", init_seed=3)
    given = {"question_only": True, "profile": profile, "sides": "joined" if profile == "superglue" else "apart"}
    for one in (model, twin) if name == "gpt2" else (model,):
        outcome = tuned(group(one, wic(tmp_path), epochs=1, **given))
        assert isinstance(outcome, Outcome), outcome
        assert outcome.metrics["words_unseen"].value == outcome.metrics["truncated_share"].value == 0
        assert outcome.metrics["items/test"].value == 24 and outcome.params["limit"] == "24"
        assert {"question_only/accuracy", "question_only/macro_f1", "baseline/majority"} <= set(outcome.metrics)
        said = table(outcome, "predictions.parquet")
        assert said["id"].tolist() == [f"dev/{at}" for at in range(24)] and "question_only/seed_0" in said


def test_an_order_of_texts_that_are_read_apart_says_nothing() -> None:
    with pytest.raises(BadOption, match='order: found "question_first", which says nothing with sides = "apart"'):
        options(tasks.load("finetune"), {"profile": "pair", "order": "question_first"})


class TestReadings:
    pair = Pair("dev/0", ("is", "it"), tuple("abcdefg"), "True")
    marked = Pair("dev/1", ("a", "cat"), ("c", "d", "e", "cat", "f"), "True", "cat", (1, 3))

    def read(self, pair: Pair, alone: bool = False, **given: Any) -> list[list[tuple[tuple[str, ...], Any]]]:
        opts = options(tasks.load("finetune"), {"window": 3, **given})
        found = readings.shown_texts(pair, opts, alone)
        return [[(tuple(" ".join(words) for words in one.texts), one.marks) for one in side] for side in found]

    def test_joined(self) -> None:
        assert self.read(self.pair) == [[(("a b c d e f g", "is it"), ())]]
        assert self.read(self.pair, order="question_first") == [[(("is it", "a b c d e f g"), ())]]
        assert self.read(self.pair, long="budget") == [[(("a b c", "is it"), ())]]
        windows = [(("a b c", "is it"), ()), (("d e f", "is it"), ()), (("g", "is it"), ())]
        assert self.read(self.pair, long="windows") == [windows]
        assert self.read(self.marked) == [[(("a cat", "c d e cat f"), (1, 5))]]  # sentences keep their order
        windows = [(("a cat", "c d e"), (1, None)), (("a cat", "cat f"), (1, 2))]
        assert self.read(self.marked, long="windows") == [windows]
        assert self.read(self.marked, marked=False) == [[(("a cat", "c d e cat f"), ())]]

    def test_apart(self) -> None:
        assert self.read(self.pair, sides="apart") == [[(("is it",), ())], [(("a b c d e f g",), ())]]
        second = [(("c d e",), (None,)), (("cat f",), (0,))]
        assert self.read(self.marked, sides="apart", long="windows") == [[(("a cat",), (1,))], second]

    def test_the_question_alone(self) -> None:
        for sides in ("joined", "apart"):
            assert self.read(self.pair, alone=True, sides=sides) == [[(("is it",), ())]]
            assert self.read(self.marked, alone=True, sides=sides) == [[(("a cat",), (1,))]]

    def test_what_was_cut_is_counted(self, bert: ModelSpec, tmp_path: Path) -> None:
        long = {
            split: [(q, "the cat " * 30 + p, a) for q, p, a in found] for split, found in rows("none", (40, 20)).items()
        }
        for given, share in (({}, 1), ({"long": "windows", "window": 9}, 0), ({"long": "budget", "window": 9}, 1)):
            outcome = tuned(group(bert, boolq(tmp_path / "d", long), epochs=1, **given))
            assert outcome.metrics["truncated_share"].value == share, given
        assert tuned(group(bert, boolq(tmp_path / "d", long), epochs=1, max_tokens=9)).params["limit"] == "9"

    def test_what_the_model_cuts_within_the_budget_is_counted_by_itself(self, bert: ModelSpec, tmp_path: Path) -> None:
        """It saw less than the others, for all that the budget is the same."""
        data = boolq(
            tmp_path / "d",
            {k: [(q, "the cat " * 30 + p, a) for q, p, a in v] for k, v in rows("none", (40, 20)).items()},
        )
        for more, share in (({}, 0), ({"max_tokens": 9}, 1)):
            found = tuned(group(bert, data, epochs=1, long="budget", window=9, **more)).metrics
            assert (found["truncated_share"].value, found["limit_share"].value) == (1, share)
        assert "limit_share" not in tuned(group(bert, data, epochs=1)).metrics


class TestRefused:
    @pytest.mark.parametrize(
        "given",
        [{"epochs": 0}, {"learning_rate": 0}, {"warmup": 1.0}, {"max_tokens": 2}, {"long": "all"}, {"profile": "bert"}],
    )
    def test_options(self, given: dict[str, Any]) -> None:
        with pytest.raises(BadOption):
            options(tasks.load("finetune"), given)

    def test_half_precision(self, bert: ModelSpec, tmp_path: Path) -> None:
        asked = group(replace(bert, dtype="bfloat16"), boolq(tmp_path / "d", rows("passage", (40, 20))))
        failure = tuned(asked)
        assert isinstance(failure, Failure) and 'Write dtype = "float32"' in failure.error and not failure.retry

    def test_a_loss_that_is_not_finite(self, bert: ModelSpec, tmp_path: Path) -> None:
        asked = group(bert, boolq(tmp_path / "d", rows("passage", (40, 20))), learning_rate=1e30)
        failure = tuned(asked)
        assert isinstance(failure, Failure) and "Lower learning_rate" in failure.error


def test_profiles() -> None:
    kind = tasks.load("finetune")
    one, other = (options(kind, {"profile": profile}) for profile in kind.PROFILES)
    assert (one.sides, one.learning_rate, one.batch_size, one.epochs) == ("joined", 1e-5, 4, 10)
    assert (other.sides, other.learning_rate, other.batch_size, other.schedule) == ("apart", 2e-5, 32, "linear")
