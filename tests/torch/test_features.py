"""Extraction: every layer and view in one pass, each distinct text once, whatever the batches were."""

from __future__ import annotations

import random
import re
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipstudy import backbones
from clipstudy.backbones.backbone import Pieces
from clipstudy.errors import DeviceError, ModelError
from clipstudy.features import reading
from clipstudy.features import views as view_of
from clipstudy.features.cache import Store
from clipstudy.features.collect import Collection
from clipstudy.features.extract import Text, extract
from tests.torch import checkpoints

ALL = ("mean", "native", "cls", "last", "eot", "span")
WORDS = ["the", "cat", "sat", ".", "zebra", "quick", "on", "x"]


class Counting:
    """States that can be computed by hand: ``id + layer``, in two columns of which the second is negative."""

    name, depth, width, native, limit = "counting", 3, 2, "last", 12
    resolved = {"checkpoint": "by hand"}
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.fits = 10_000  #: tokens of a batch beyond which memory is out
        self.error: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        self.bad: tuple[int, float] | None = None  #: (layer, value) put in place of id 5

    def pieces(self, texts):
        found = []
        for words in texts:
            inner = [int(w) for w in words][: self.limit - 2]
            owners = (None, *range(len(inner)), None)
            found.append(Pieces((1, *inner, 2), owners, len(inner) if len(words) > len(inner) else None))
        return found

    def copies(self, most):
        return [self]

    def states(self, ids, mask, layers):
        self.batches.append(tuple(ids.shape))
        if ids.numel() > self.fits:
            raise self.error
        values = torch.where(mask, ids, torch.tensor(0)).float()
        values = torch.where(mask, values, torch.nan)  # padding is undefined, and must not matter
        found = {k: torch.stack([values + k, -values - k], -1) for k in layers}
        if self.bad:
            layer, value = self.bad
            if layer in found:
                found[layer][ids == 5] = value
        return found


def texts_of(*rows: str) -> list[Text]:
    return [Text(tuple(row.split())) for row in rows]


def run(backbone, texts, layers=(0, 1, 2, 3), views=ALL, batch_size=2, **more):
    return extract(backbone, texts, layers=layers, views=views, batch_size=batch_size, **more)


def test_every_view_by_hand():
    texts = [Text(("10", "20", "30"), ((0, 2), (2, 3))), Text(("40",), ((0, 1),))]
    features = run(Counting(), texts, batch_size=3)
    for k in range(4):
        assert features.vectors(k, "mean").tolist() == [[20 + k, -20 - k], [40 + k, -40 - k]]
        assert features.vectors(k, "cls")[:, 0].tolist() == [1 + k, 1 + k]
        assert features.vectors(k, "eot")[:, 0].tolist() == [2 + k, 2 + k]
        assert features.vectors(k, "last")[:, 0].tolist() == [30 + k, 40 + k]
        assert np.array_equal(features.vectors(k, "native"), features.vectors(k, "last"))
        assert features.span_ends(k)[:, :, 0].tolist() == [[10 + k, 20 + k], [30 + k, 30 + k], [40 + k, 40 + k]]
    assert features.vectors(0, "mean").dtype == features.span_ends(0).dtype == np.float32
    assert features.span_seen.tolist() == [True] * 3 and features.truncated.tolist() == [False] * 2
    coverage = features.coverage
    assert (coverage.texts, coverage.distinct, coverage.spans, coverage.spans_single_piece) == (2, 2, 3, 2)
    assert (coverage.tokens_useful, coverage.tokens_executed) == (8, 10)


def made(number: int) -> list[Text]:
    """Texts that are all different, each with a span over all its words; the model does not see the longest ones'."""
    numbers = random.Random(0)
    rows = [tuple(str(numbers.randint(3, 999)) for _ in range(numbers.randint(1, 13))) for _ in range(number)]
    return [Text((str(1000 + i), *row), ((0, len(row) + 1),)) for i, row in enumerate(rows)]


@pytest.mark.parametrize("kept", [False, True])
def test_order_is_the_texts_own_whatever_the_batches(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "FIRST", 16)
    monkeypatch.setattr(reading, "LARGEST", 32)
    texts = made(90)  # four windows
    means = [np.mean([int(w) for w in text.words[:10]]) for text in texts]
    for batch_size in (1, 3, 100):
        store = Store(tmp_path / str(batch_size)) if kept else None
        for _ in range(1 + kept):  # what was written is read
            features = run(Counting(), texts, batch_size=batch_size, views=["mean", "span", "last"], store=store)
            np.testing.assert_allclose(features.vectors(0, "mean")[:, 0], means, rtol=1e-3)
            assert features.truncated.tolist() == [len(text.words) > 10 for text in texts]
            assert features.span_seen.tolist() == [len(text.words) <= 10 for text in texts]
            assert features.span_ends(1)[:, :, 0].tolist() == [
                [int(text.words[0]) + 1, int(text.words[-1]) + 1] if len(text.words) <= 10 else [0, 0] for text in texts
            ]


def test_texts_are_tokenized_while_others_are_encoded(monkeypatch):
    monkeypatch.setattr(reading, "FIRST", 64)
    texts, read, at = made(1200), [0], []
    pieces, states = Counting.pieces, Counting.states

    def counted(self, texts):
        read[0] += len(texts)
        return pieces(self, texts)

    def watched(self, *given):
        at.append(read[0])
        return states(self, *given)

    monkeypatch.setattr(Counting, "pieces", counted)
    monkeypatch.setattr(Counting, "states", watched)
    features = run(Counting(), texts, views=["mean"], batch_size=8)
    assert at[0] == reading.SAMPLE + 64, "what tells a batch's size, and the first window"
    assert at[-1] == read[0] == reading.SAMPLE + 1200, "each text once"
    assert max(np.diff(at)) <= 64, "a few at a time"
    assert features.coverage.tokens_executed / features.coverage.tokens_useful < 1.1


def test_identical_texts_are_encoded_once():
    backbone = Counting()
    texts = [Text(("7", "8"), ((0, 1),)), Text(("9",)), Text(("7", "8"), ((1, 2), (0, 2)))]
    features = run(backbone, texts, batch_size=10)
    assert sum(rows for rows, _ in backbone.batches) == features.coverage.distinct == 2
    assert features.vectors(0, "mean")[:, 0].tolist() == [7.5, 9, 7.5]
    assert features.span_ends(0)[:, :, 0].tolist() == [[7, 7], [8, 8], [7, 8]]


def test_what_the_model_does_not_see_is_counted_and_marked():
    long = tuple(str(i) for i in range(10, 30))
    features = run(Counting(), [Text(long, ((0, 3), (8, 11), (15, 16))), Text(("5",), ((0, 1),)), Text(long)])
    assert features.truncated.tolist() == [True, False, True]
    assert features.span_seen.tolist() == [True, False, False, True]
    assert not features.span_ends(1)[1:3].any()
    assert (features.coverage.truncated, features.coverage.spans_unseen) == (2, 2)


def test_batches_hold_a_budget_of_tokens_longest_first():
    backbone = Counting()
    numbers = random.Random(1)
    texts = [Text(tuple(str(100 + 9 * j + i) for j in range(1 + i % 9))) for i in range(200)]
    numbers.shuffle(texts)
    features = run(backbone, texts, batch_size=8)
    lengths = [length for _, length in backbone.batches]
    assert lengths == sorted(lengths, reverse=True)
    assert max(rows * length for rows, length in backbone.batches) <= 8 * np.median([len(t.words) + 2 for t in texts])
    assert features.coverage.tokens_executed / features.coverage.tokens_useful < 1.1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory (allocated 1 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(error):
    backbone = Counting()
    backbone.fits, backbone.error = 20, error
    rows = [Text((str(i), str(i + 1), str(i + 2)), ((0, 3),)) for i in range(40)]
    features = run(backbone, rows, batch_size=16)
    assert features.vectors(0, "mean")[:, 0].tolist() == [i + 1 for i in range(40)]
    assert features.span_ends(2)[:, 1, 0].tolist() == [i + 4 for i in range(40)]
    assert [rows for rows, _ in backbone.batches] == [16, 8, *[4] * 10]
    assert features.coverage.tokens_useful == 200, "what did not fit is not counted"


def test_what_a_batch_gave_is_written_while_the_next_one_is_encoded(monkeypatch):
    encoding, writing = threading.Event(), threading.Event()
    append, states = Collection.append, Counting.states
    met = []

    def slow(self, *given):
        if not writing.is_set():  # the first batch: the second one's pass must begin meanwhile
            writing.set()
            met.append(encoding.wait(60))
        append(self, *given)

    def watched(self, *given):
        if self.batches:
            met.append(writing.wait(60))
            encoding.set()
        return states(self, *given)

    monkeypatch.setattr(Collection, "append", slow)
    monkeypatch.setattr(Counting, "states", watched)
    features = run(Counting(), texts_of("10", "20"), views=["mean"], batch_size=1)
    assert met == [True, True]
    assert features.vectors(0, "mean")[:, 0].tolist() == [10, 20]


def test_no_more_waits_to_be_written_than_is_allowed(monkeypatch):
    written, ahead, enough = [0], [], threading.Event()
    append, states = Collection.append, Counting.states

    def slow(self, cell, values):
        assert enough.wait(60)
        append(self, cell, values)
        written[0] += len(values)

    def watched(self, *given):
        ahead.append(len(self.batches) - written[0])
        if ahead[-1] >= 3:
            enough.set()
        return states(self, *given)

    monkeypatch.setattr(Collection, "append", slow)
    monkeypatch.setattr(Counting, "states", watched)
    monkeypatch.setattr("clipstudy.features.collect.WAITING", 5 * 2 * 4)  # five texts of two numbers
    run(Counting(), [Text((str(i),)) for i in range(10, 50)], layers=[1], views=["mean"], batch_size=1)
    assert len(ahead) == 40 and 3 <= max(ahead) <= 6
    assert {thread.name for thread in threading.enumerate() if thread.name.startswith("features")} == set()


def test_what_cannot_be_written_ends_the_extraction(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Collection, "append", full)
    with pytest.raises(OSError, match="No space left"):
        run(Counting(), texts_of("10", "20"), batch_size=1)


def test_the_log_says_how_much_was_the_encoders(caplog):
    with caplog.at_level("INFO", logger="clipstudy"):
        run(Counting(), texts_of("10", "20"))
    assert re.search(r"2 texts in \d+\.\d s, \d+% of it the encoder's", caplog.text)


def test_on_processor_cores_a_batch_stays_in_the_cache(monkeypatch):
    monkeypatch.setattr("clipstudy.features.extract.CACHE", 0)  # not even one text, so one a batch
    backbone = Counting()
    texts = texts_of(*(f"{i} {i + 1}" for i in range(10, 20)))
    found = run(backbone, texts, batch_size=4)
    assert [rows for rows, _ in backbone.batches] == [1] * 10
    assert np.array_equal(found.vectors(1, "mean"), run(Counting(), texts, batch_size=10).vectors(1, "mean"))


def test_a_text_that_fits_in_no_memory_is_a_device_error():
    backbone = Counting()
    backbone.fits = 4
    with pytest.raises(DeviceError, match=r"one text of 5 tokens .*max_tokens in \[models.counting\]"):
        run(backbone, texts_of("3 4 5"))


def test_other_errors_are_not_taken_for_memory():
    backbone = Counting()
    backbone.fits, backbone.error = 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1"):
        run(backbone, texts_of("3"))
    assert len(backbone.batches) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_layer_that_is_not_finite_fails_alone(value):
    backbone = Counting()
    backbone.bad = (2, value)
    features = run(backbone, texts_of("3 4", "5 6", "7"))
    with pytest.raises(ModelError, match=r"\[models.counting\] layer 2 has values that are not finite"):
        features.vectors(2, "mean")
    assert features.vectors(3, "mean")[:, 0].tolist() == [6.5, 8.5, 10]
    assert np.isfinite(features.vectors(2, "cls")).all(), "the bad token is in no summary but the mean and last"


def test_what_was_not_asked_for_is_not_there():
    features = run(Counting(), texts_of("3"), layers=[1], views=["mean"])
    for layer, view in ((0, "mean"), (1, "cls")):
        with pytest.raises(KeyError):
            features.vectors(layer, view)


def test_no_texts_and_no_spans():
    features = run(Counting(), [])
    assert features.vectors(0, "mean").shape == (0, 2) and features.span_ends(0).shape == (0, 2, 2)
    features = run(Counting(), texts_of("3", "4"))
    assert features.span_ends(0).shape == (0, 2, 2) and features.span_seen.shape == (0,)


def test_progress_counts_the_texts():
    seen: list[tuple[int, int]] = []
    run(Counting(), texts_of("3", "4 5", "6", "4 5"), batch_size=1, on_progress=lambda *at: seen.append(at))
    assert seen[-1] == (3, 3) and [total for _, total in seen] == [3] * len(seen)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_mean_ignores_what_is_not_the_texts_own():
    states = torch.tensor([[[1.0], [3.0], [5.0], [float("nan")]]])
    own = torch.tensor([[False, True, True, False]])
    assert view_of.mean([states, states + 1], own).tolist() == [[[4.0]], [[5.0]]]
    assert view_of.mean([states.bfloat16()], own).dtype == torch.float32


@pytest.fixture(scope="module", params=["bert", "gpt2", "clip", "open_clip"])
def backbone(request, tmp_path_factory):
    sample = checkpoints.BUILDERS[request.param](tmp_path_factory.mktemp("features") / request.param)
    return backbones.load(sample.spec, "cpu")


def test_on_models_batches_layers_and_siblings_change_nothing(backbone):
    numbers = random.Random(2)
    texts = []
    for _ in range(30):
        words = tuple(numbers.choice(WORDS) for _ in range(numbers.randint(1, 9)))
        texts.append(Text(words, ((0, 1), (0, len(words)))))
    layers = range(backbone.depth + 1)
    together = run(backbone, texts, layers=layers, batch_size=8)
    one_by_one = run(backbone, texts, layers=layers, batch_size=1)
    for layer in layers:
        alone = run(backbone, texts, layers=[layer], batch_size=8)
        assert np.array_equal(alone.span_ends(layer), together.span_ends(layer))
        for view in ("mean", "native", "cls", "last", "eot"):
            values = together.vectors(layer, view)
            assert np.array_equal(alone.vectors(layer, view), values)
            # What differs by a rounding of single precision may be rounded to the next number of half precision.
            np.testing.assert_allclose(one_by_one.vectors(layer, view), values, atol=1e-5, rtol=2**-10)


def test_vectors_are_the_models_states_bit_for_bit(backbone):
    def kept(states):
        return np.asarray(states, dtype=np.float16)  # at the least, as in a store

    class Watched:
        def __getattr__(self, name):
            return getattr(backbone, name)

        def copies(self, most):
            return [self]

        def states(self, *given):
            self.given, self.found = given, backbone.states(*given)
            return self.found

    numbers = random.Random(3)
    texts = [Text((str(i), *numbers.choices(WORDS, k=numbers.randint(2, 7))), ((1, 3),)) for i in range(9)]
    watched = Watched()
    features = run(watched, texts, layers=range(backbone.depth + 1), batch_size=100)
    (ids, mask, _), pieces = watched.given, backbone.pieces([text.words for text in texts])
    assert len(ids) == len(texts), "one batch"
    rows = {tuple(some[seen].tolist()): row for row, (some, seen) in enumerate(zip(ids, mask, strict=True))}
    for number, one in enumerate(pieces):
        row = rows[one.ids]
        own = torch.zeros(ids.shape[1], dtype=torch.bool)
        own[list(one.own)] = True
        for layer, states in watched.found.items():
            for view in ("cls", "last", "eot"):
                assert np.array_equal(kept(features.vectors(layer, view)[number]), kept(states[row, one.summary(view)]))
            mean = states.masked_fill(~own[:, None], 0).sum(1)[row] / own.sum()
            assert np.array_equal(kept(features.vectors(layer, "mean")[number]), kept(mean))
            ends = states[row, list(view_of.ends(one, (1, 3)))]
            assert np.array_equal(features.span_ends(layer)[number], ends)


def test_random_twins_differ_and_repeat(tmp_path):
    spec = replace(checkpoints.bert(tmp_path / "bert").spec, init="random")
    texts = texts_of("the cat sat", "zebra")
    a, b, c = (
        run(backbones.load(replace(spec, init_seed=seed), "cpu"), texts).vectors(3, "mean") for seed in (0, 0, 1)
    )
    assert np.array_equal(a, b) and not np.allclose(a, c, atol=1e-2)


def test_spans_that_no_text_has_keep_nothing_from_the_store(tmp_path):
    """A data set without spans, asked for them beside other views, is encoded once."""
    store, texts = Store(tmp_path), texts_of("10 20", "30")
    run(Counting(), texts, views=["mean", "span"], store=store)
    again = Counting()
    features = run(again, texts, views=["mean", "span"], store=store)
    assert features.coverage.tokens_executed == 0
    assert features.span_ends(1).shape[:2] == (0, 2)
