"""The store of features: what it holds is not computed again, and what is broken is dropped."""

from __future__ import annotations

import errno
import io
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from clipstudy.backbones.backbone import Pieces
from clipstudy.errors import ModelError
from clipstudy.features import cache
from clipstudy.features.cache import HALF, MemorySheet, Store
from clipstudy.features.extract import Text, extract
from clipstudy.probes.inputs import Inputs, Labels, standardise
from clipstudy.probes.mlp import Recipe, fit


@dataclass
class Scaled:
    """One state a word, ``word × scale + layer``; counts its passes and the layers asked of it."""

    name: str = "scaled"
    depth: int = 4
    width: int = 3
    native: str = "last"
    limit: int = 50
    device = torch.device("cpu")
    resolved: dict[str, str] = field(default_factory=lambda: {"checkpoint": "one"})
    scale: float = 1.0
    passes: list[tuple[int, ...]] = field(default_factory=list)
    fail_at: int | None = None  #: pass at which the process is interrupted
    bad: int | None = None  #: a layer of NaN

    def pieces(self, texts):
        return [Pieces(tuple(map(int, words)), tuple(range(len(words)))) for words in texts]

    def copies(self, most):
        return [self]

    def states(self, ids, mask, layers):
        self.passes.append(tuple(layers))
        if len(self.passes) == self.fail_at:
            raise KeyboardInterrupt
        values = ids.float().unsqueeze(-1).expand(*ids.shape, self.width) * self.scale
        return {k: values + k if k != self.bad else values * torch.nan for k in layers}


TEXTS = [Text(("1", "2"), ((0, 2),)), Text(("3",)), Text(("4", "5", "6"), ((1, 2), (0, 3)))]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "features")


def run(backbone, store, texts=TEXTS, layers=(0, 1), views=("mean", "span"), **more):
    return extract(backbone, texts, layers=layers, views=views, batch_size=1, store=store, **more)


def same(a, b, layers=(0, 1), views=("mean",)):
    return all(
        np.array_equal(a.span_ends(k), b.span_ends(k))
        and all(np.array_equal(a.vectors(k, v), b.vectors(k, v)) for v in views)
        for k in layers
    )


def test_a_second_extraction_reads_the_first(store):
    first = run(Scaled(), store)
    backbone = Scaled()
    again = run(backbone, store)
    assert not backbone.passes and same(first, again) and same(first, run(Scaled(), None))
    assert again.coverage.tokens_executed == 0 and first.coverage.tokens_executed > 0
    assert again.coverage.spans == 3 and again.span_seen.all()
    assert again.vectors(0, "mean").dtype == np.float32


def test_only_what_is_missing_is_extracted(store):
    run(Scaled(), store, layers=[0, 2])
    backbone = Scaled()
    features = run(backbone, store, layers=[0, 1, 2, 3])
    assert set(backbone.passes) == {(1, 3)}
    assert features.vectors(2, "mean")[:, 0].tolist() == [3.5, 5, 7]
    backbone = Scaled()
    run(backbone, store, layers=[0, 1, 2, 3], views=("mean", "native"))
    assert set(backbone.passes) == {(0, 1, 2, 3)}
    assert len(list(store.path.glob("*.mean.0.npy"))) == 1
    backbone = Scaled()
    run(backbone, store, layers=[0, 1], views=("last",))
    assert not backbone.passes, "native is the view that it names"


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"resolved": {"checkpoint": "two"}}, TEXTS),
        ({"resolved": {"checkpoint": "one", "dtype": "bfloat16"}}, TEXTS),
        ({}, TEXTS[:2]),
        ({}, [Text(("12",)), *TEXTS[1:]]),
    ],
)
def test_the_key_is_everything_that_decides_the_numbers(store, change, texts):
    run(Scaled(), store)
    backbone = Scaled(**change)
    run(backbone, store, texts=texts)
    assert backbone.passes


def test_other_spans_in_the_same_texts_share_the_texts_vectors(store):
    run(Scaled(), store)
    backbone = Scaled()
    moved = [Text(TEXTS[0].words, ((1, 2),)), *TEXTS[1:]]
    features = run(backbone, store, texts=moved)
    assert backbone.passes and features.span_ends(0)[0, :, 0].tolist() == [2, 2]
    assert len(list(store.path.glob("*.mean.0.npy"))) == 1 and len(list(store.path.glob("*.span.0.npy"))) == 2


def test_half_precision_unless_the_values_overflow_it(store):
    few = [Text((str(i),)) for i in range(cache.ENOUGH - 1)]
    run(Scaled(), store, texts=few, views=("mean",))
    assert {np.load(e.path).dtype for e in store.entries()} == {np.dtype(np.float32)}, "too few to know"
    store.prune(0)
    run(Scaled(), store, texts=[*few, Text(("99",))], views=("mean",))
    assert {np.load(e.path).dtype for e in store.entries()} == {np.dtype(np.float16)}
    numbers = [16_384, 32_768, 49_152, *range(10_000, 10_048, 8), 70_000]  # equally long, so in this order
    texts = [Text((str(i),)) for i in numbers]
    features = run(Scaled(), store, texts=texts, layers=[0], views=("mean",))
    assert features.vectors(0, "mean")[:, 0].tolist() == numbers
    assert sum(np.load(e.path).dtype == np.float32 for e in store.entries()) == 1
    assert not list(store.path.glob("*.tmp"))
    backbone = Scaled()
    run(backbone, store, texts=texts, layers=[0], views=("mean",))
    assert not backbone.passes


@dataclass
class Told:
    """A text is one number, and each of a state's columns what ``columns`` makes of it."""

    columns: Callable[[torch.Tensor], list[torch.Tensor]]
    name: str = "told"
    depth: int = 1
    native: str = "last"
    limit: int = 5
    device = torch.device("cpu")
    resolved: dict[str, str] = field(default_factory=lambda: {"checkpoint": "one"})

    @property
    def width(self):
        return len(self.columns(torch.zeros(1)))

    def pieces(self, texts):
        return [Pieces(tuple(map(int, words)), tuple(range(len(words)))) for words in texts]

    def copies(self, most):
        return [self]

    def states(self, ids, mask, layers):
        return dict.fromkeys(layers, torch.stack(self.columns(ids.float()), dim=-1))


def extracted(columns, store, n=400):
    texts = [Text((str(i),)) for i in range(n)]
    return extract(Told(columns), texts, layers=[0], views=["mean"], batch_size=16, store=store).vectors(0, "mean")


def test_a_dimension_that_half_precision_cannot_tell_apart_is_kept(store):
    """Massive activations: in half precision 2999.5 and 3000.5 are both 3000, and a probe would be shown no label."""

    def columns(ids):
        return [3000 + (ids % 2 - 0.5), torch.sin(ids)]

    found = extracted(columns, store)
    assert store.entries()[0].bytes > 400 * 2 * 4
    _, test = standardise(found[:200], found[200:])
    assert set(np.sign(test[::2, 0])) == {-1} and set(np.sign(test[1::2, 0])) == {1}
    assert np.array_equal(extracted(columns, None), found)


@pytest.mark.parametrize("batches", [[1, 2, 100], [7, 1, 95], [3, 3, 3, 94]])
def test_rows_that_come_before_precision_is_known_are_not_rounded(store, batches):
    """The longest texts come first, a few at a time: rounded to 3000, they would lie far from the others."""
    exact = (3000 + np.random.default_rng(0).normal(0, 0.01, (103, 4))).astype(np.float32)
    for sheet in (store.sheet("k", "mean", 0, exact.shape), MemorySheet(exact.shape, HALF)):
        for rows in np.split(exact, np.cumsum(batches)[:-1]):
            sheet.append(rows)
        assert np.array_equal(sheet.close(), exact)


@pytest.mark.parametrize("columns", [
    lambda ids: [torch.sin(ids), torch.full_like(ids, 0.1), 100 + torch.sin(ids), torch.zeros_like(ids)],
    lambda ids: [1e5 * torch.sin(ids), torch.cos(ids)],
    lambda ids: [1e-7 * torch.sin(ids), torch.cos(ids)],
    lambda ids: [torch.where(ids > 390, 3000.0, torch.sin(ids)), torch.cos(ids)],
], ids=["ordinary", "overflows", "tiny", "outliers"])  # fmt: skip
def test_features_are_the_same_with_and_without_a_store(store, columns):
    found = extracted(columns, None)
    assert np.array_equal(extracted(columns, store), found) and np.array_equal(extracted(columns, store), found)


def test_half_precision_is_kept_where_it_tells_apart_what_varies(store):
    """A constant, and one that varies by a hundredth of its size, cost no more than others."""
    extracted(lambda ids: [torch.full_like(ids, 0.1), 100 + torch.sin(ids), torch.sin(ids)], store)
    assert store.entries()[0].bytes < 400 * 3 * 2 + 200


def test_probes_do_not_notice_half_precision():
    """The coarsest that is let through: columns that vary by little more than 1/256 of their size, in which classes
    overlap. The five seeds' mean moves by less than seeds differ by."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 1500)
    exact = (rng.standard_normal((1500, 24)) + 0.35 * label[:, None]).astype(np.float32)
    exact[:, :12] += 180  # rounded to eighths
    kept = MemorySheet(exact.shape, HALF)
    for start in range(0, 1500, 100):
        kept.append(exact[start : start + 100])
    rounded = kept.close()
    assert np.abs(rounded - exact).max() > 0.05, "half precision"
    labels = Labels(label[:500], label[500:700], label[700:])
    recipe = Recipe(hidden=50, l2=(1e-4,), batch_size=64, max_epoch=20)
    shown = [partial(Inputs, *standardise(x[:500], x[500:700], x[700:])) for x in (exact, rounded)]
    fits = fit(shown, [labels], 2, recipe, [0, 1, 2, 3, 4])
    first, second = ((f.predictions == labels.test).mean(axis=1) for (f,) in fits)
    assert first.mean() > 0.7
    assert abs(first.mean() - second.mean()) < max(first.std(ddof=1), 0.005)


def damaged(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.unlink()  # whoever has the whole file mapped keeps it
    if how in ("another shape", "another type"):
        np.save(path, np.zeros((2, 3), np.float16) if how == "another shape" else np.zeros((3, 3), np.int32))
        with path.open("r+b") as file:
            size = path.stat().st_size
            found = cache._sum(file, size)
            file.seek(size)
            file.write(found)
    elif how == "pickled":
        np.save(path, np.full((3, 3), None), allow_pickle=True)
    else:
        changed = {
            "cut": content[:-1],
            "longer": content + b"x",
            "empty": b"",
            "header": bytes(len(content)),
            "zeros": content[:128] + bytes(len(content) - 128),
            "zeros but the sum": content[:128] + bytes(len(content) - 132) + content[-4:],
            "no sum": content[:-4],
            "brace": content.replace(b"}", b"{", 1),
            "word": content.replace(b"False", b"F\x00lse", 1),
        }
        path.write_bytes(changed[how])


DAMAGE = (
    "cut, longer, empty, header, zeros, zeros but the sum, no sum, another shape, another type, pickled, brace, word"
)


@pytest.mark.parametrize("how", DAMAGE.split(", "))
def test_a_broken_file_is_dropped_and_computed_again(store, how):
    first = run(Scaled(), store)
    (path,) = store.path.glob("*.mean.1.npy")
    damaged(path, how)
    backbone = Scaled()
    assert same(run(backbone, store), first)
    assert set(backbone.passes) == {(1,)}
    assert np.load(path).shape == (3, 3)


@pytest.mark.parametrize("lost", [slice(-50_000, None), slice(200_000, 300_000), slice(128, 5000)])
def test_lost_pages_of_a_large_file_are_noticed(store, lost):
    """What a power loss leaves: the right size, and zeros where pages did not reach the disk."""
    shape = (4000, 128)
    sheet = store.sheet("k", "mean", 0, shape)
    sheet.append(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    sheet.close()
    (path,) = store.path.glob("*.npy")
    content = bytearray(path.read_bytes())
    assert len(content) > 3 * cache.BLOCK * cache.BLOCKS
    assert store.read("k", "mean", 0, shape) is not None
    content[lost] = bytes(len(content[lost]))
    path.write_bytes(content)
    assert store.read("k", "mean", 0, shape) is None and not path.exists()


def test_a_check_costs_the_same_however_large_the_file(tmp_path):
    read = []

    class Counted(io.BytesIO):
        def read(self, size=-1):
            read.append(size)
            return super().read(size)

    cache._sum(Counted(bytes(10_000_000)), 10_000_000)
    assert sum(read) <= (cache.BLOCKS + 2) * cache.BLOCK


def test_a_file_is_on_the_disk_before_it_has_its_name(store, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append((os.fstat(file).st_size, list(store.path.glob("*.npy")))))
    sheet = store.sheet("k", "mean", 0, (2, 3))
    sheet.append(np.ones((2, 3), np.float32))
    sheet.close()
    (path,) = store.path.glob("*.npy")
    assert seen == [(path.stat().st_size, [])]


def test_the_disk_is_at_work_before_the_end(store, monkeypatch):
    monkeypatch.setattr("clipstudy.features.collect.SYNCED", 0)
    sizes, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (sizes.append(os.fstat(file).st_size), fsync(file)))
    run(Scaled(width=5000), store, layers=[0], views=["mean"])
    (path,) = store.path.glob("*.npy")
    assert sizes[-1] == path.stat().st_size > sizes[0], "only the last is of the whole file"


def test_what_the_disk_refuses_ends_the_extraction_without_a_trace(store, monkeypatch):
    def refuses(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("clipstudy.features.collect.SYNCED", 0)
    monkeypatch.setattr(os, "fsync", refuses)
    with pytest.raises(OSError, match="Input/output"):
        run(Scaled(), store)
    assert not list(store.path.iterdir())


def test_what_else_lies_in_the_folder_is_left_alone(store):
    run(Scaled(), store, layers=[0], views=("mean",))
    (store.path / "a.mean.0.npy").mkdir()
    (store.path / "a.npy.1.tmp").mkdir()
    os.utime(store.path / "a.npy.1.tmp", (0, 0))
    for name in ("mine.npy", "a.b.c.npy", "a.b.c.1.npy", "notes.tmp"):
        (store.path / name).write_bytes(b"x")
        os.utime(store.path / name, (0, 0))
    assert [entry.layer for entry in store.entries()] == [0]
    assert len(store.prune(budget_bytes=0)) == 1
    assert len(list(store.path.iterdir())) == 6


def test_an_interrupted_extraction_leaves_nothing(store):
    with pytest.raises(KeyboardInterrupt):
        run(Scaled(fail_at=2), store)
    assert not list(store.path.iterdir())


def test_a_layer_that_is_not_finite_is_not_kept(store):
    features = run(Scaled(bad=1), store)
    with pytest.raises(ModelError, match="layer 1"):
        features.vectors(1, "mean")
    assert {entry.layer for entry in store.entries()} == {0} and not list(store.path.glob("*.tmp"))


def test_least_recently_used_files_go_first(tmp_path):
    now = [1000.0]
    store = Store(tmp_path, clock=lambda: now[0])
    for layer in range(4):
        run(Scaled(), store, layers=[layer], views=("mean",))
        (path,) = store.path.glob(f"*.mean.{layer}.npy")
        os.utime(path, (now[0], now[0]))
        now[0] += 10
    run(Scaled(), store, layers=[0], views=("mean",))  # read: now the most recently used
    entries = store.entries()
    assert [entry.layer for entry in entries] == [1, 2, 3, 0]
    assert all(entry.bytes == entry.path.stat().st_size and entry.view == "mean" for entry in entries)
    removed = store.prune(budget_bytes=2 * entries[0].bytes)
    assert [entry.layer for entry in removed] == [1, 2]
    assert [entry.layer for entry in store.entries()] == [3, 0]


def test_a_key_is_called_by_what_it_stands_for_while_anything_of_it_is_kept(store):
    run(Scaled(), store, layers=[0, 1], views=("mean",))
    assert {entry.label for entry in store.entries()} == {"scaled, 3 texts"}
    (called,) = store.path.glob("*.txt")
    called.write_bytes(b"\xff\x1b[31m" + b"x" * 10_000)
    (label,) = {entry.label for entry in store.entries()}
    assert "\x1b" not in label and len(label) <= 220
    store.prune(budget_bytes=store.entries()[0].bytes)
    assert called.exists()
    store.prune(budget_bytes=0)
    assert not list(store.path.iterdir())


def test_a_budget_holds_while_what_was_extracted_stays_readable(tmp_path):
    store = Store(tmp_path, budget_bytes=400)
    features = run(Scaled(), store, layers=range(5))
    assert sum(entry.bytes for entry in store.entries()) <= 400
    assert features.vectors(0, "mean")[:, 0].tolist() == [1.5, 3, 5]


def sheet_of(store, layer=0):
    sheet = store.sheet("k", "mean", layer, (2, 3))
    sheet.append(np.ones((2, 3), np.float32))
    return sheet


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ENOMEM])
def test_a_file_that_cannot_be_read_now_is_left(store, monkeypatch, number):
    def refuses(path):
        raise OSError(number, os.strerror(number))

    sheet_of(store).close()
    monkeypatch.setattr(cache, "_mapped", refuses)
    assert store.read("k", "mean", 0, (2, 3)) is None
    monkeypatch.undo()
    assert store.read("k", "mean", 0, (2, 3)) is not None


def test_what_may_not_be_removed_is_left(store, monkeypatch):
    for layer in (0, 1):
        sheet_of(store, layer).close()
    store.label("k", "two files")
    unlink, kept = Path.unlink, store.path / "k.mean.0.npy"

    def refuses(path, missing_ok=False):
        if path == kept:
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuses)
    assert [entry.layer for entry in store.prune(budget_bytes=0)] == [1]
    (left,) = store.entries()
    assert (left.path, left.label) == (kept, "two files")
    kept.write_bytes(b"")
    assert store.read("k", "mean", 0, (2, 3)) is None and kept.exists()


def computed_and_not_kept(store, caplog):
    assert same(run(Scaled(), store), run(Scaled(), None))
    assert same(run(Scaled(), store), run(Scaled(), None))
    assert store.entries() == [] and store.prune(budget_bytes=0) == []
    (said,) = [record.getMessage() for record in caplog.records if "cannot be written to" in record.getMessage()]
    assert str(store.path) in said and said.endswith("Type: export CLIPSTUDY_CACHE=FOLDER")


@pytest.mark.parametrize("folder", ["file", "file/features"])
def test_where_there_can_be_no_folder_features_are_computed_and_not_kept(tmp_path, caplog, folder):
    (tmp_path / "file").write_text("")
    computed_and_not_kept(Store(tmp_path / folder), caplog)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_may_not_be_written_to_is_told_from_a_full_disk(store, monkeypatch, caplog, number):
    """Made up: root, as whom tests may run, may write everywhere."""

    def refuses(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuses)
    if number != errno.ENOSPC:
        computed_and_not_kept(store, caplog)
        return
    with pytest.raises(OSError, match="No space left"):
        run(Scaled(), store)


def test_abandoned_temporary_files_are_removed(tmp_path):
    store = Store(tmp_path)
    old, new = tmp_path / "a.npy.1.tmp", tmp_path / "a.npy.2.tmp"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    store.prune()
    assert not old.exists() and new.exists()
    assert Store(tmp_path / "nothing").entries() == [] and Store(tmp_path / "nothing").prune() == []


def test_memory_does_not_grow_with_texts_times_layers(store):
    texts = [Text((str(i), str(i % 7))) for i in range(3000)]
    backbone = Scaled(depth=12, width=128)
    tracemalloc.start()
    extract(backbone, texts, layers=range(13), views=("mean", "last"), batch_size=64, store=store)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    everything = 3000 * 13 * 2 * 128 * 4
    assert peak < everything / 4
