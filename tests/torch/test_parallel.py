"""Batches side by side: the order, the errors, the threads; and that copies of a model give what it gives."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from clipstudy import backbones
from clipstudy.features import parallel
from clipstudy.features.extract import Text, extract
from tests.torch import checkpoints

WORDS = ["the", "cat", "sat", ".", "zebra", "quick", "on", "x"]


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


class TestInOrder:
    def test_results_come_in_the_order_of_the_batches_whichever_is_done_first(self) -> None:
        second = threading.Event()

        def work(_reader: str, batch: int) -> int:
            if batch == 0:
                assert second.wait(60), "the other reader never came to its batch"
            if batch == 1:
                second.set()
            return batch

        assert list(parallel.in_order(work, ["a", "b"], range(50))) == list(range(50))

    def test_a_reader_has_one_batch_at_a_time(self) -> None:
        at_work: list[str] = []
        together = threading.Barrier(3, timeout=60)

        def work(reader: str, batch: int) -> str:
            assert reader not in at_work
            at_work.append(reader)
            together.wait()
            at_work.remove(reader)
            together.wait()
            return reader

        assert set(parallel.in_order(work, ["a", "b", "c"], range(12))) == {"a", "b", "c"}

    def test_each_has_its_share_of_the_threads_and_nobody_else_less(self) -> None:
        def work(_reader: int, _batch: int) -> tuple[int, str]:
            return torch.get_num_threads(), threading.current_thread().name

        found = list(parallel.in_order(work, [1, 2], range(8)))
        assert {threads for threads, _ in found} == {2}
        assert threading.current_thread().name not in {name for _, name in found}
        assert torch.get_num_threads() == 4
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 4

    def test_a_reader_alone_works_in_the_thread_that_asks_with_all_of_them(self) -> None:
        def work(_reader: int, _batch: int) -> tuple[int, str]:
            return torch.get_num_threads(), threading.current_thread().name

        assert set(parallel.in_order(work, [1], range(3))) == {(4, threading.current_thread().name)}

    def test_batches_are_taken_a_few_ahead(self) -> None:
        taken: list[int] = []

        def batches() -> Iterator[int]:
            for batch in range(100):
                taken.append(batch)
                yield batch

        found = parallel.in_order(lambda _, batch: batch, ["a", "b"], batches())
        assert next(found) == 0
        assert len(taken) == 5
        found.close()

    def test_an_error_ends_it_at_its_batch(self) -> None:
        done: list[int] = []

        def work(_reader: str, batch: int) -> int:
            if batch == 3:
                raise ValueError("the fourth")
            done.append(batch)
            return batch

        found = parallel.in_order(work, ["a", "b"], range(1000))
        assert [next(found) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="the fourth"):
            next(found)
        assert len(done) < 20

    def test_who_closes_it_waits_for_what_runs_and_for_no_more(self) -> None:
        begun, ended = [], []
        running, let = threading.Event(), threading.Event()

        def work(_reader: str, batch: int) -> int:
            begun.append(batch)
            if batch == 1:
                running.set()
                assert let.wait(60)
            ended.append(batch)
            return batch

        found = parallel.in_order(work, ["a", "b"], range(1000))
        next(found)
        assert running.wait(60)
        closing = threading.Thread(target=found.close)
        closing.start()
        assert 1 not in ended and closing.is_alive()
        let.set()
        closing.join(60)
        assert sorted(begun) == sorted(ended) and 1 in ended
        assert len(begun) <= 5


@pytest.fixture(scope="module", params=["bert", "gpt2", "clip", "open_clip"])
def backbone(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    sample = checkpoints.BUILDERS[request.param](tmp_path_factory.mktemp("parallel") / request.param)
    return backbones.load(sample.spec, "cpu")


class TestCopies:
    def test_weights_are_shared_and_modules_are_not(self, backbone: Any) -> None:
        itself, copy = backbone.copies(2)
        assert itself is backbone
        assert [weight.data_ptr() for weight in copy.module.parameters()] == [
            weight.data_ptr() for weight in backbone.module.parameters()
        ]
        assert not set(copy.module.modules()) & set(backbone.module.modules())

    def test_at_the_same_time_each_gives_what_the_model_gives_alone(self, backbone: Any) -> None:
        """Different batches and different layers, so that one's hooks in the other's pass would show."""
        draw = np.random.default_rng(0)
        asked = []
        for turn in range(60):
            ids = torch.tensor(draw.integers(3, 9, (int(draw.integers(1, 5)), int(draw.integers(2, 9)))))
            asked.append((ids, torch.ones_like(ids, dtype=torch.bool), [turn % (backbone.depth + 1), backbone.depth]))
        alone = [backbone.states(*one) for one in asked]
        together = parallel.in_order(lambda reader, one: reader.states(*one), backbone.copies(4), asked)
        for one, other in zip(alone, together, strict=True):
            assert one.keys() == other.keys()
            for layer, states in one.items():
                torch.testing.assert_close(other[layer], states, atol=1e-5, rtol=1e-4)

    def test_the_model_is_what_it_was_after_it(self, backbone: Any) -> None:
        list(
            parallel.in_order(
                lambda reader, _: reader.states(torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3) > 0, [1]),
                backbone.copies(2),
                range(8),
            )
        )
        for module in backbone.module.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
            assert "forward" not in vars(module)

    def test_nothing_holds_a_copy_when_it_is_let_go(self, backbone: Any) -> None:
        _, copy = backbone.copies(2)
        gone = weakref.ref(copy.module)
        del copy
        gc.collect()
        assert gone() is None


class Watched:
    """A model that notes how many copies it is asked for."""

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone
        self.asked: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def copies(self, most: int) -> Any:
        self.asked.append(most)
        return self._backbone.copies(most)


def test_features_are_those_of_one_reader(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [Text(tuple(WORDS[(k + i) % 8] for i in range(1 + k % 9)), ((0, 1), (0, 1 + k % 9))) for k in range(72)]
    layers = range(backbone.depth + 1)
    watched = Watched(backbone)

    def features() -> Any:
        return extract(watched, texts, layers=layers, views=["mean", "native", "span"], batch_size=2)

    several = features()
    monkeypatch.setattr(parallel, "MOST", 1)
    one = features()
    assert watched.asked == [4, 1]
    assert several.coverage == one.coverage
    for layer in layers:
        for view in ("mean", "native"):
            np.testing.assert_allclose(several.vectors(layer, view), one.vectors(layer, view), atol=1e-5, rtol=2**-10)
        np.testing.assert_allclose(several.span_ends(layer), one.span_ends(layer), atol=1e-5, rtol=2**-10)


def test_few_texts_have_as_many_readers_as_batches(backbone: Any) -> None:
    watched = Watched(backbone)
    extract(watched, [Text(("the", "cat"))], layers=[0], views=["mean"], batch_size=8)
    assert watched.asked == [1]
