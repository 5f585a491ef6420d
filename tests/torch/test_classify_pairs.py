"""Pairs of texts on frozen features: vectors that are known, and a tiny checkpoint through `run`."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest

from clipstudy import run, tasks
from clipstudy.data import boolq, wic
from clipstudy.data.pairs import Pair, Pairs
from clipstudy.features.extract import Text
from clipstudy.job import Group
from clipstudy.outcome import Outcome
from clipstudy.spec import DatasetSpec, TaskSpec
from clipstudy.tasks import classify_pairs
from clipstudy.tasks.parts.pairs import windows
from clipstudy.tasks.task import BadOption, Bench, options, plain
from tests.torch import checkpoints
from tests.torch.test_tasks import Known

WIDTH = 6


def read(pairs: list[Pair], monkeypatch: pytest.MonkeyPatch, **given: Any) -> tuple[classify_pairs.PairTexts, Any]:
    """The same pairs as every part: what is tested here is how texts become vectors."""
    found = Pairs(tuple(pairs), tuple(pairs), tuple(pairs), "sha256:0", "made")
    monkeypatch.setattr(classify_pairs, "pairs_of", lambda dataset: found)
    opts = options(tasks.load("classify_pairs"), given)
    return classify_pairs.read(DatasetSpec("d", "wic"), opts), opts


def features(texts: tuple[Text, ...]) -> Known:
    """A text's vector counts its words in the first place; a span's ends hold the number of its word."""
    draw = np.random.default_rng(0)
    table = draw.standard_normal((len(texts), WIDTH)).astype(np.float32)
    table[:, 0] = [len(text.words) for text in texts]
    words = [text.words[start] for text in texts for start, _ in text.spans]
    ends = np.zeros((len(words), 2, WIDTH), np.float32)
    for row, word in enumerate(words):
        ends[row, :, 1] = int(word[1:]) - 1, int(word[1:]) + 1
    views = {(0, "mean"): table, (0, "native"): -table}
    return Known(views, {0: ends}, np.zeros(len(texts), bool), np.ones(len(words), bool))


def words(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"w{i}" for i in range(first, last))


PLAIN = [Pair("dev/0", words(0, 3), words(0, 25), "True"), Pair("dev/1", words(0, 2), words(0, 7), "False")]
MARKED = [
    Pair("dev/0", words(0, 3), words(5, 30), "True", "w", (1, 12)),
    Pair("dev/1", words(0, 4), words(7, 14), "False", "w", (3, 0)),
]


class TestVectors:
    def test_a_pair_is_both_their_difference_and_their_product(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data, opts = read(PLAIN, monkeypatch, window=10)
        found = features(data.texts)
        shown = classify_pairs.PairFeatures(found, data, opts)  # type: ignore[arg-type]
        assert list(shown.arms) == ["mean", "native", "windows", "budget", "question_only"]
        u, v, difference, product = np.split(shown.vectors(0, "mean"), 4, axis=1)
        assert u[:2, 0].tolist() == [3, 2] and v[:2, 0].tolist() == [25, 7]
        assert np.allclose(difference, abs(u - v)) and np.allclose(product, u * v)
        assert np.allclose(shown.vectors(0, "native")[:, : 2 * WIDTH], -np.concatenate([u, v], axis=1))
        assert np.array_equal(shown.vectors(0, "question_only"), u)

    def test_windows_are_averaged_and_the_budget_is_the_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data, opts = read(PLAIN, monkeypatch, window=10)
        shown = classify_pairs.PairFeatures(features(data.texts), data, opts)  # type: ignore[arg-type]
        over, first = (np.split(shown.vectors(0, arm), 4, axis=1)[1][:2, 0] for arm in ("windows", "budget"))
        assert np.allclose(over, [25 / 3, 7]) and np.allclose(first, [10, 7])

    def test_marked_words_stand_beside_their_sentences(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data, opts = read(MARKED, monkeypatch, window=10)
        assert classify_pairs.views(opts) == ("mean", "native", "span")
        shown = classify_pairs.PairFeatures(features(data.texts), data, opts)  # type: ignore[arg-type]
        for arm, seen in (("mean", [17, 7]), ("windows", [17, 7]), ("budget", [0, 7])):
            u, v, difference, _ = np.split(shown.vectors(0, arm), 4, axis=1)
            assert u.shape[1] == 2 * WIDTH
            assert u[:2, WIDTH + 1].tolist() == [1, 3] and v[:2, WIDTH + 1].tolist() == seen
            assert np.allclose(difference[:2, WIDTH + 1], np.abs(np.subtract([1, 3], seen)))
        assert shown.vectors(0, "question_only").shape[1] == 2 * WIDTH

    def test_without_marked_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data, opts = read(MARKED, monkeypatch, marked=False)
        assert classify_pairs.views(opts) == ("mean", "native")
        shown = classify_pairs.PairFeatures(features(data.texts), data, opts)  # type: ignore[arg-type]
        assert shown.vectors(0, "mean").shape[1] == 4 * WIDTH

    @pytest.mark.parametrize("given", [{"long": []}, {"long": ["budget", "budget"]}, {"window": 0}])
    def test_refused(self, given: dict[str, Any]) -> None:
        with pytest.raises(BadOption):
            options(tasks.load("classify_pairs"), given)


class TestMeasure:
    """Vectors that hold the label in one side, in how the two go together, or nowhere."""

    def measured(self, how: str, monkeypatch: pytest.MonkeyPatch, **given: Any) -> dict[int, Outcome]:
        draw = random.Random(0)

        def part(name: str, size: int) -> tuple[Pair, ...]:
            return tuple(
                Pair(f"{name}/{i}", (f"w{draw.randrange(30)}", "b"), words(0, 12), str(draw.random() < 0.6))
                for i in range(size)
            )

        pairs = Pairs(part("t", 400), part("d", 100), part("r", 300), "sha256:0", "made")
        monkeypatch.setattr(classify_pairs, "pairs_of", lambda dataset: pairs)
        opts = options(tasks.load("classify_pairs"), {"draws": 100, "max_epoch": 40, "window": 8, **given})
        data = classify_pairs.read(DatasetSpec("d", "boolq"), opts)
        found = {}
        for layer in (0, 1):
            noise = np.random.default_rng(layer)
            table = noise.standard_normal((len(data.texts), WIDTH)).astype(np.float32)
            label = np.array([pair.label == "True" for pair in data.everything])
            (first, second) = (side.rows[side.starts] for side in data.sides["truncate"])
            sign = noise.choice([-1, 1], len(label))
            if how == "question":
                table[first, 0] = np.where(label, 5, -5)
            if how == "together":
                table[first, 0], table[second, 0] = sign, np.where(label, sign, -sign)
            found[layer, "mean"] = found[layer, "native"] = table
        truncated = np.zeros(len(data.texts), bool)
        truncated[second[:80]] = True
        known = Known(found, {}, truncated, np.zeros(0, bool))
        measure = tasks.load("classify_pairs").measure
        return {o.layer: o for o in measure(known, data, [0, 1], (0, 1), opts, Bench())}  # type: ignore[arg-type]

    def test_what_only_both_sides_tell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        metrics = self.measured("together", monkeypatch)[1].metrics
        assert min(metrics["accuracy"].value, metrics["linear/accuracy"].value) > 0.93
        majority = metrics["baseline/majority"].value
        assert abs(metrics["question_only/accuracy"].value - majority) < 0.1
        assert {"windows/accuracy", "budget/accuracy", "native/accuracy", "selectivity"} <= set(metrics)

    def test_what_the_question_tells_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        metrics = self.measured("question", monkeypatch)[0].metrics
        assert metrics["accuracy"].value == 1.0 and metrics["question_only/accuracy"].value > 0.98

    def test_noise_is_chance(self, monkeypatch: pytest.MonkeyPatch) -> None:
        metrics = self.measured("nothing", monkeypatch)[0].metrics
        assert metrics["accuracy"].value < metrics["baseline/majority"].value + 0.08

    def test_what_was_cut_is_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        metrics = self.measured("nothing", monkeypatch, max_epoch=2, control=False)[0].metrics
        assert metrics["truncated"].value == 80 and metrics["truncated_share"].value == 80 / 800
        assert metrics["windows/truncated_share"].value == 0 and metrics["budget/truncated_share"].value == 1
        assert metrics["budget/limit_share"].value == 0 and "limit_share" not in metrics
        assert metrics["items/test"].value == 300 and metrics["items/doubtful"].value == 0

    def test_predictions_are_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        outcome = self.measured("question", monkeypatch, max_epoch=4, control=False)[0]
        files = {a.name: a.content for a in outcome.artifacts}
        table = pq.read_table(io.BytesIO(files["predictions.parquet"])).to_pandas()
        assert len(table) == 300 and {"label", "mean/mlp/seed_0", "question_only/linear/seed_1"} <= set(table)


@pytest.mark.parametrize("kind", ["boolq", "wic"])
def test_through_run(kind: str, tmp_path: Path) -> None:
    draw = random.Random(0)
    for split, size in (("train", 60), ("dev", 30)):
        rows = []
        for i in range(size):
            texts = [" ".join(draw.choices("abcdefg", k=n)) + " cat" for n in (3, 40)]
            asked = {"question": texts[0], "passage": f"{i} {texts[1]}", "label": bool(i % 2)}
            marks = {"start1": 6, "end1": 9, "start2": 80, "end2": 83, "word": f"cat{i // 2}"}
            rows.append(json.dumps(asked | marks | {"sentence1": texts[0], "sentence2": texts[1]}))
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    data = DatasetSpec("d", kind, path=str(tmp_path), development=0.2)
    opts = plain(options(tasks.load("classify_pairs"), {"draws": 20, "max_epoch": 4, "window": 12}))
    task = TaskSpec("t", "classify_pairs", "d", "accuracy", seeds=(0, 1), options=opts)
    model = checkpoints.bert(tmp_path / "bert").spec  # it reads 24 tokens
    found = dict(run.run(Group("s", model, data, task), [0, 3], shelf=run.Shelf("cpu"), store=None, bench=Bench()))
    for outcome in found.values():
        assert isinstance(outcome, Outcome), outcome
        assert outcome.metrics["truncated_share"].value == outcome.metrics["budget/truncated_share"].value == 1
        assert outcome.metrics["windows/truncated_share"].value == 0
        if kind == "wic":
            unseen = [outcome.metrics[f"{arm}words_unseen"].value for arm in ("", "windows/", "budget/")]
            assert unseen == [1, 0, 1]


@pytest.mark.real
def test_what_the_design_page_says_of_the_real_rows(real: Path) -> None:
    """Of BoolQ's dev passages three in four are too long for CLIP; of their windows of 40 words one in a hundred is.
    Of WiC's dev pairs two in five are about a word of train."""
    encode = open_clip.SimpleTokenizer().encode
    passages = [
        pair.second for pair in boolq.released(DatasetSpec("b", "boolq", path=str(real / "boolq")), "dev").pairs
    ]
    size = options(tasks.load("classify_pairs"), {}).window

    def too_long(texts: list[tuple[str, ...]]) -> float:
        return float(np.mean([len(encode(" ".join(words))) + 2 > 77 for words in texts]))

    assert 0.72 < too_long(passages[:1000]) < 0.80
    assert too_long([one for words in passages[:1000] for one in windows(words, size)]) < 0.02
    train, dev = (
        wic.released(DatasetSpec("w", "wic", path=str(real / "wic")), split).pairs for split in ("train", "dev")
    )
    known = {pair.word for pair in train}
    assert 0.38 < np.mean([pair.word in known for pair in dev]) < 0.42
