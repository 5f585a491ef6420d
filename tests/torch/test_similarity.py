"""Two models on the same texts: features whose likeness is known, and tiny checkpoints through `run`."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipstudy import run, tasks
from clipstudy.errors import DataError, ModelError
from clipstudy.features.cache import Store
from clipstudy.features.extract import Text
from clipstudy.job import Failure, Group
from clipstudy.outcome import Outcome
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tasks import similarity
from clipstudy.tasks.task import Bench, WithReference, options, plain
from tests.torch import checkpoints
from tests.torch.test_tasks import Known

TEXTS, SMALL = 160, {"batch_size": 16, "draws": 60}
REFERENCE = ModelSpec("other", "transformers", "./other", 2)


def states(seed: int, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((TEXTS, width)).astype(np.float32)


def known(table: Mapping[int, np.ndarray], native: Mapping[int, np.ndarray] | None = None) -> Known:
    views = {"mean": table, "native": native or table}
    filled = {(layer, view): x for view, layers in views.items() for layer, x in layers.items()}
    return Known(filled, {}, np.zeros(TEXTS, bool), np.zeros(0, bool))


def measured(own: Known, reference: Known, layers: list[int], **given: Any) -> dict[int, Outcome]:
    data = similarity.Texts(tuple(Text((f"w{i}",)) for i in range(TEXTS)), 3, "sha256:0", "made")
    opts = options(tasks.load("similarity"), {**SMALL, **given})
    pair = WithReference(own, reference, REFERENCE)  # type: ignore[arg-type]
    return {o.layer: o for o in similarity.measure(pair, data, layers, (0, 1), opts, Bench())}


class TestMeasure:
    reference = known({0: states(10), 1: states(11, 40), 2: states(12)})

    def test_the_layer_that_is_alike_is_found(self) -> None:
        turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))
        own = known({0: states(1), 1: (states(11, 40) @ turn * 5 + 3).astype(np.float32)})
        found = measured(own, self.reference, [0, 1])
        metrics = found[1].metrics
        assert metrics["cka"].value == metrics["cka/1"].value == pytest.approx(1, abs=1e-6)
        assert metrics["nearest"].value == 1
        assert abs(metrics["cka/0"].value) < 0.1 and abs(metrics["baseline/permuted"].value) < 0.1
        unlike = found[0].metrics
        assert abs(unlike["cka"].value) < 0.1
        assert unlike["cka"].value == max(unlike[f"cka/{j}"].value for j in range(3))
        assert found[0].params["reference"] == "other"

    def test_the_interval_is_the_nearest_layers(self) -> None:
        own = known({0: states(11, 40) + states(3, 40)})
        metrics = measured(own, self.reference, [0])[0].metrics
        assert metrics["cka"] == metrics["cka/1"]
        assert metrics["cka"].low < metrics["cka"].value < metrics["cka"].high  # type: ignore[operator]

    def test_siblings_do_not_matter(self) -> None:
        own = known({k: states(k) + states(10) * k for k in range(3)})
        together, alone = measured(own, self.reference, [0, 1, 2]), measured(own, self.reference, [1])
        assert together[1] == alone[1]

    def test_views_beside_each_other(self) -> None:
        own = known({0: states(10)}, native={0: np.ones((TEXTS, 8), np.float32)})
        metrics = measured(own, self.reference, [0])[0].metrics
        assert metrics["cka"].value == pytest.approx(1)
        assert metrics["native/cka"].value == metrics["native/cka/2"].value == 0  # the same of every text
        assert {"native/nearest", "native/baseline/permuted"} <= set(metrics)
        assert not any(
            name.startswith("native") for name in measured(own, self.reference, [0], views=["mean"])[0].metrics
        )

    def test_a_large_dimension_may_decide_unless_standardised(self) -> None:
        noise, shared = states(20), np.random.default_rng(0).standard_normal(TEXTS) * 100
        own, reference = noise.copy(), states(21)
        own[:, 0] = reference[:, 3] = shared
        others = known({0: reference, 1: states(22), 2: states(23)})
        as_it_is = measured(known({0: own}), others, [0])[0].metrics["cka"].value
        weighed = measured(known({0: own}), others, [0], standardise=True)[0].metrics["cka"].value
        assert as_it_is > 0.99 and weighed < 0.4

    def test_the_file_is_the_row_of_the_heat_map(self) -> None:
        outcome = measured(known({5: states(10)}), self.reference, [5])[5]
        [file] = outcome.artifacts
        rows = list(csv.DictReader(io.StringIO(file.content.decode())))
        assert file.name == "cka.csv" and [r["view"] for r in rows] == ["mean"] * 3 + ["native"] * 3
        for row in rows[:3]:
            cell = outcome.metrics[f"cka/{row['reference_layer']}"]
            assert (float(row["cka"]), float(row["low"]), float(row["high"])) == (cell.value, cell.low, cell.high)
            assert row["layer"] == "5" and abs(float(row["permuted"])) < 0.2

    def test_what_was_counted(self) -> None:
        own = known({0: states(1)})
        own.truncated[:2] = True
        metrics = measured(own, self.reference, [0])[0].metrics
        counted = {n: metrics[n].value for n in ("truncated", "reference/truncated", "items/test", "items/repeated")}
        assert counted == {"truncated": 2, "reference/truncated": 0, "items/test": 160, "items/repeated": 3}


class TestRead:
    def senteval(self, folder: Path, texts: list[str]) -> DatasetSpec:
        lines = [f"{split}\t{i % 2}\t{text}" for split in ("tr", "va", "te") for i, text in enumerate(texts)]
        (folder / "shift.txt").write_text("\n".join(lines) + "\n")
        return DatasetSpec("shift", "senteval", path=str(folder / "shift.txt"))

    def read(self, spec: DatasetSpec, **given: Any) -> similarity.Texts:
        return similarity.read(spec, options(tasks.load("similarity"), {"batch_size": 4, **given}))

    def test_a_repeated_text_counts_once(self, tmp_path: Path) -> None:
        texts = [f"the cat {i}" for i in range(32)]
        data = self.read(self.senteval(tmp_path, [*texts, *texts[:5]]))
        assert [" ".join(t.words) for t in data.texts] == texts and data.repeated == 5

    def test_too_few_texts(self, tmp_path: Path) -> None:
        spec = self.senteval(tmp_path, ["the cat", "a cat", "the cat"])
        with pytest.raises(DataError, match=r"has 2 different texts; 8 minibatches of batch_size = 4 want 32. Lower"):
            self.read(spec)

    def test_chunked_sentences_without_the_excluded(self, tmp_path: Path) -> None:
        (tmp_path / "test.txt").write_text("\n".join(f"w{i} NN B-NP\n" for i in range(34)))
        spec = DatasetSpec("chunks", "conll2000", path=str(tmp_path), exclude={"test": (1,)})
        data = self.read(spec)
        assert len(data.texts) == 33 and Text(("w1",)) not in data.texts


class TestHallway:
    """BERT and GPT-2 in their own layouts, tiny, over one file of sentences."""

    @pytest.fixture
    def group(self, tmp_path: Path) -> Group:
        bert, gpt2 = (build(tmp_path / name).spec for name, build in (("b", checkpoints.bert), ("g", checkpoints.gpt2)))
        sentences = [f"the {a} cat {b}" for a in "abcdefgh" for b in "stuvw"]
        data = TestRead().senteval(tmp_path, sentences)
        opts = plain(options(tasks.load("similarity"), {"batch_size": 4, "draws": 20}))
        task = TaskSpec("like", "similarity", "shift", "cka", seeds=(0,), options=opts, reference=gpt2)
        return Group("s", bert, data, task)

    def run(self, group: Group, layers: list[int], store: Store | None = None, **more: Any) -> dict[int, Any]:
        shelf = more.pop("shelf", None) or run.Shelf("cpu")
        return dict(run.run(group, layers, shelf=shelf, store=store, bench=Bench(), **more))

    def test_a_model_with_itself_has_ones_on_the_diagonal(self, group: Group) -> None:
        found = self.run(replace(group, task=replace(group.task, reference=group.model)), [0, 1, 2, 3])
        for layer, outcome in found.items():
            assert outcome.metrics[f"cka/{layer}"].value == pytest.approx(1, abs=1e-6)
        assert found[0].metrics["cka/3"].value == pytest.approx(found[3].metrics["cka/0"].value)

    def test_two_models(self, group: Group) -> None:
        pinned: dict[str, str] = {}
        shelf = run.Shelf("cpu")
        found = self.run(group, [1, 3], shelf=shelf, pin=pinned.update)
        assert list(found) == [1, 3] and {f"cka/{j}" for j in range(4)} <= set(found[1].metrics)
        assert set(pinned) == {"checkpoint", "data", "reference"} and pinned["checkpoint"] != pinned["reference"]
        assert found[1].params["resolved.reference"] == pinned["reference"]
        assert found[1].params["resolved.checkpoint"] == pinned["checkpoint"]
        assert shelf.name == group.model.name  # what the next batch of this model wants

    def test_one_model_in_memory_at_a_time(self, group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
        import gc
        import weakref

        from clipstudy import backbones

        load, before = backbones.load, []

        def watched(spec: ModelSpec, device: str) -> Any:
            gc.collect()
            assert [model for model in before if model() is not None] == []
            model = load(spec, device)
            before.append(weakref.ref(model))
            return model

        monkeypatch.setattr(backbones, "load", watched)
        assert self.run(group, [1]) and len(before) == 2

    def test_the_store_serves_the_reference(self, group: Group, tmp_path: Path) -> None:
        store = Store(tmp_path / "store")
        first = self.run(group, [1], store)
        known = len(store.entries())
        assert known == 2 * (4 + 1)  # two views; all layers of the reference, one of the model
        again = self.run(group, [1, 2], store)
        assert len(store.entries()) == known + 2
        assert again[1].numbers() == first[1].numbers()

    def test_another_checkpoint_under_the_name_is_pinned(self, group: Group, tmp_path: Path) -> None:
        first: dict[str, str] = {}
        then: dict[str, str] = {}
        self.run(group, [1], pin=first.update)
        assert group.task.reference
        folder = Path(group.task.reference.checkpoint)
        shutil.rmtree(folder)
        other = checkpoints.bert(tmp_path / "other")
        shutil.move(other.spec.checkpoint, folder)
        self.run(group, [1], pin=then.update)
        assert {k for k in first if first[k] != then[k]} == {"reference"}

    def test_a_reference_that_cannot_be_loaded_is_named(self, group: Group) -> None:
        assert group.task.reference
        gone = replace(group.task.reference, name="gone", checkpoint="./nowhere")
        with pytest.raises(ModelError, match=r"models\.gone"):
            self.run(replace(group, task=replace(group.task, reference=gone)), [1])

    def test_other_kinds_are_given_what_they_were(self, group: Group) -> None:
        opts = plain(options(tasks.load("classify"), {"max_epoch": 4, "probes": ["linear"], "control": False}))
        alone = replace(group, task=TaskSpec("t", "classify", "shift", "accuracy", seeds=(0,), options=opts))
        pinned: dict[str, str] = {}
        [(_, outcome)] = self.run(alone, [1], pin=pinned.update).items()
        assert not isinstance(outcome, Failure) and "resolved.reference" not in outcome.params
        assert set(pinned) == {"checkpoint", "data"}
