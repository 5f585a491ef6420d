"""Study files, dashboards and data files of any content: the only errors are the house's own, and name the file.

A few dozen examples each in the suite; ten thousand each by ``make fuzz``.
"""

from __future__ import annotations

import io
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipstudy import fetch, tasksfile
from clipstudy.backbones.described import has_attention
from clipstudy.dashboard import panels
from clipstudy.data import boolq, conll2000, formats, images, senteval, table, wic
from clipstudy.errors import DataError, NotFetched, StudyError
from clipstudy.job import Selection, keys, plan
from clipstudy.outcome import Result
from clipstudy.results import evidence, run_files
from clipstudy.results.run_files import PNG
from clipstudy.spec import DatasetSpec, ModelSpec
from clipstudy.tracking.entry import LONGEST_KEY, clip, safe_key
from tests.fuzz.damage import damaged, fuzzed, toml, values

ROOT = Path(__file__).parents[2]
#: Bytes that the process may grow by, over all that is read here.
ROOM = 1 << 30


@pytest.fixture(autouse=True, scope="module")
def no_more_memory() -> Iterator[None]:
    peak = Path("/proc/self/clear_refs")
    if peak.exists():  # forget what other tests of this process needed
        peak.write_text("5")
    before = _peak()
    yield
    assert (grown := _peak() - before) < ROOM, f"it grew by {grown >> 20} MiB"


def _peak() -> int:
    """Bytes that the process held at most, lately where the system can say so."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- TOML

STUDIES = [
    (ROOT / name).read_bytes() for name in ("tasks.toml", "tests/real/study.toml", "clipstudy/pocket/tasks.toml")
]
TABLES = {
    "models.m": {"source": "transformers", "checkpoint": "./m", "layers": 2},
    "models.n": {"twin_of": "m", "init": "random", "init_seeds": [0, 1]},
    "models.o": {"source": "torch", "checkpoint": "a.b:c", "layers": ["x", "y"], "size": 8, "init": "random"},
    "models.p": {"source": "open_clip", "checkpoint": "ViT-B-16-quickgelu", "layers": 12, "tower": "image"},
    "datasets.d": {"reader": "senteval", "path": "./d.txt"},
    "datasets.e": {"reader": "images", "hub": "a/b", "splits": {"train": "x"}, "columns": {"label": "y"}},
    "tasks.t": {"kind": "classify", "dataset": "d"},
    "tasks.u": {"kind": "attend", "dataset": "e", "models": ["p"]},
    "tasks.v": {"kind": "similarity", "dataset": "d", "reference": "m", "options": {"profile": "x"}},
    "study": {"name": "s", "seeds": [0, 1]},
}
KEYS = sorted(
    {key for table in TABLES.values() for key in table} | {"view", "seeds", "metric", "exclude", "url", "limit"}
)
#: Other values at a few keys, of tables that exist or not.
changes = st.dictionaries(
    st.tuples(st.sampled_from([*TABLES, "models", "x"]), st.sampled_from(KEYS)), values, max_size=4
)


def planned(text: str) -> None:
    try:
        study = tasksfile.parse(text, Path("here/study.toml"))
    except StudyError as error:
        assert str(error).startswith("here/study.toml")
    else:
        cells = plan(study, Selection())
        assert len(keys(cells)) < 10**7 and all(group.digest for group, _ in cells)


@fuzzed()
@given(st.one_of(st.binary(max_size=200), *map(damaged, STUDIES)))
def test_study_files_of_any_bytes(content: bytes) -> None:
    planned(content.decode("utf-8", "replace"))


@fuzzed()
@given(changes)
def test_study_files_of_any_values(changed: dict[tuple[str, str], Any]) -> None:
    tables: dict[str, dict[str, Any]] = {name: dict(table) for name, table in TABLES.items()}
    for (name, key), value in changed.items():
        tables.setdefault(name, {})[key] = value
    planned("\n".join(f"[{n}]\n" + "".join(f"{k} = {toml(v)}\n" for k, v in t.items()) for n, t in tables.items()))


@fuzzed()
@given(st.binary(max_size=300))
def test_study_files_on_the_disk(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "study.toml"
    file.write_bytes(content)
    with pytest.raises(StudyError, match=r"study\.toml"):
        tasksfile.load(file)


DASHBOARD = (ROOT / "dashboards" / "layers.toml").read_bytes()
panel = st.dictionaries(st.sampled_from(["title", "tasks", "category", "metric", "x", "average", "caption"]), values)


@fuzzed()
@given(st.one_of(damaged(DASHBOARD), st.lists(panel, max_size=3).map(lambda some: toml_panels(some).encode())))
def test_dashboards(content: bytes) -> None:
    try:
        panels.parse(content.decode("utf-8", "replace"), "here/board.toml")
    except StudyError as error:
        assert str(error).startswith("here/board.toml")


def toml_panels(some: list[dict[str, Any]]) -> str:
    return "\n".join("[[panel]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in one.items()) for one in some)


# --- texts

SENTEVAL = b"".join(f"{s}\t{c}\tthe cat sat {s}\n".encode() for s in ("tr", "va", "te") for c in "OI")
CONLL = b"The DT B-NP\ncat NN I-NP\nsat VBD B-VP\n. . O\n\nIt PRP B-NP\nslept VBD B-VP\n"
BOOLQ = b"".join(
    b'{"question": "is it %d", "passage": "it is .", "answer": %s}\n' % (i, a)
    for i, a in enumerate([b"true", b"false"] * 3)
)
WIC = b"".join(b"run\tV\t1-1\tI run %d\tthey run\n" % i for i in range(6))
RAN = {"word": "run", "sentence1": "I run", "sentence2": "a run", "start1": 2, "end1": 5, "start2": 2, "end2": 5}
WIC_ROWS = "".join(json.dumps({**RAN, "label": label}) + "\n" for label in [True, False] * 3).encode()
CSV = b"text,label\n" + b"".join(b'"a, b",%d\n' % (i % 2) for i in range(6))
TSV = b"text\tlabel\n" + b"".join(b'"a" b\t%d\n' % (i % 2) for i in range(6))
ROWS = b"".join(b'{"text": "a b", "label": %d}\n' % (i % 2) for i in range(6))
LISTED = json.dumps([{"text": "a b", "label": i % 2} for i in range(6)]).encode()
LAYOUTS: dict[str, tuple[bytes, str, Callable[[DatasetSpec], Any]]] = {
    "senteval": (SENTEVAL, "x.txt", senteval.read),
    "conll2000": (CONLL, "train.txt", lambda spec: conll2000.read(spec, "train")),
    "boolq": (BOOLQ, "train.jsonl", lambda spec: boolq.released(spec, "train")),
    "wic": (WIC, "train.data.txt", lambda spec: wic.released(spec, "train")),
    "wic rows": (WIC_ROWS, "train.jsonl", lambda spec: wic.released(spec, "train")),
    "csv": (CSV, "train.csv", lambda spec: table.load(spec, "train", ("text", "label"))),
    "tsv": (TSV, "train.tsv", lambda spec: table.load(spec, "train", ("text", "label"))),
    "jsonl": (ROWS, "train.jsonl", lambda spec: table.load(spec, "train", ("text", "label"))),
    "json": (LISTED, "train.json", lambda spec: table.load(spec, "train", ("text", "label"))),
}


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for one file, and one for what ``datasets`` makes of it."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "made")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def tried(read: Callable[[DatasetSpec], Any], reader: str, at: Path, name: str) -> None:
    """The error names the file or the dataset's table."""
    try:
        read(DatasetSpec("d", reader, path=str(at)))
    except DataError as error:
        assert name in str(error) or str(at.parent) in str(error) or "[datasets.d]" in str(error)
    shutil.rmtree(at.parent / "made", ignore_errors=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@fuzzed(25)
@given(data=st.data())
def test_data_files(layout: str, held: Path, data: st.DataObject) -> None:
    whole, name, read = LAYOUTS[layout]
    (held / name).write_bytes(data.draw(damaged(whole)))
    if name.endswith(tuple(formats.ENDINGS)):
        assert all(isinstance(column, str) for column in formats.header(held / name))
    if layout == "wic":
        (held / "train.gold.txt").write_bytes(data.draw(damaged(b"T\nF\n" * 3, 1)))
    tried(read, layout.partition(" ")[0], held / name if layout == "senteval" else held, name)


# --- tables and images


def parquet(columns: dict[str, list[Any]], about: bytes | None = None) -> bytes:
    """``about``: what ``datasets`` says of the columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(about and {"huggingface": about}), file)
    return file.getvalue()


def picture(kind: str) -> bytes:
    import PIL.Image

    file = io.BytesIO()
    PIL.Image.radial_gradient("L").resize((24, 20)).convert("RGB").save(file, kind)
    return file.getvalue()


PARQUET = {
    "texts": parquet({"text": ["a b", "c"] * 3, "label": [0, 1] * 3}),
    "images": parquet({"image": [{"bytes": picture("PNG"), "path": "x.png"}] * 4, "label": ["a", "b"] * 2}),
}


CLASSES = {"label": {"names": ["a", "b"], "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}


@fuzzed(25)
@given(
    st.one_of(
        damaged(json.dumps({"info": {"features": CLASSES}}).encode()),
        values.map(lambda held: json.dumps({"info": {"features": held}}).encode()),
        st.builds(
            lambda key, held: json.dumps({"info": {"features": {**CLASSES, "label": {**CLASSES["label"], key: held}}}}),
            st.sampled_from(["names", "_type", "num_classes", "id", "x"]),
            values,
        ).map(str.encode),
    )
)
def test_what_a_table_says_of_its_columns(held: Path, about: bytes) -> None:
    content = parquet({"text": ["a b", "c"] * 3, "label": [0, 1] * 3}, about)
    for split in ("train", "dev", "test"):
        (held / f"{split}.parquet").write_bytes(content)
    tried(table.read, "table", held, "parquet")


@pytest.mark.parametrize("kind", PARQUET)
@fuzzed(25)
@given(data=st.data())
def test_parquet(kind: str, held: Path, data: st.DataObject) -> None:
    content = data.draw(damaged(PARQUET[kind]))
    for split in ("train", "dev", "test"):
        (held / f"{split}.parquet").write_bytes(content)
    tried(table.read if kind == "texts" else images.read, "table" if kind == "texts" else "images", held, "parquet")


PICTURES = {kind: picture(kind) for kind in images.FORMATS}


@pytest.mark.parametrize("kind", PICTURES)
@fuzzed(25)
@given(data=st.data())
def test_pictures(kind: str, data: st.DataObject) -> None:
    content = data.draw(damaged(PICTURES[kind]))
    try:
        opened = images.Picture(content, "here", "train", mask=content).open()
        assert opened.convert("RGB").width * opened.height <= 200_000_000
        images.Foreground(images.Picture(content, "here", "train", mask=content)).open()
    except DataError as error:
        assert str(error).startswith("here")


# --- what runs keep, read back from whoever may write to MLflow

KEPT = {
    "accuracy": parquet(
        {"id": [0, 1], "label": ["a", "b"], "mean/mlp/seed_0": ["a", "a"], "mean/mlp/seed_1": ["b", "b"]}
    ),
    "nmi": parquet({"sample": [0, 0, 1, 1], "label": ["a", "b"] * 2, "cluster_0": [0, 1, 0, 1]}),
    "mse": parquet({"mse/seed_0": [0.5, 0.25], "mse/mean_image": [0.5, 0.5]}),
    "jaccard": parquet({"row": [0, 1], "jaccard": [0.5, float("nan")]}),
    "edge_density": b"channel,edge_density\n0,0.5\n1,0.25\n0,0.75\n1,0.5\n",
}
#: Cells of every type that a column may have.
CELLS = [["x", "y"], [1, 2], [0.5, None], [[1], [2]], [{"a": 1}, {"a": 2}], [b"\xff", b""], [True, False], [None, None]]


@st.composite
def kept(draw: st.DrawFn, metric: str) -> bytes:
    """The file behind ``metric``: damaged, or with other cells in a column."""
    if metric == "edge_density" or draw(st.booleans()):
        return draw(damaged(KEPT[metric]))
    import pyarrow.parquet as pq

    held = pq.read_table(io.BytesIO(KEPT[metric])).to_pydict()
    held[draw(st.sampled_from(sorted(held)))] = draw(st.sampled_from(CELLS)) * (len(next(iter(held.values()))) // 2)
    return parquet(held)


@pytest.mark.parametrize("metric", KEPT)
@fuzzed(25)
@given(data=st.data())
def test_scores_that_runs_keep(metric: str, data: st.DataObject) -> None:
    content = data.draw(kept(metric))
    run = Result(run_id="r", study="s", model="m", task="t", layer=1, metrics={}, params={}, tags={})
    try:
        rows = evidence.read(evidence.SCORE_FILES[metric], metric, run, lambda run_id, name: content)
    except DataError:
        assert content != KEPT[metric]
    else:
        assert rows.scores.ndim == 2 and rows.scores.shape[1] == len(rows.names)
        assert content != KEPT[metric] or rows.scores.size


@fuzzed()
@given(damaged(PNG + b"\0\0\0\x0biTXtTitle\0\0\0\0\0Heads\0\0\0\0\0\0\0\0IDAT"))
def test_what_pictures_say_of_themselves(content: bytes) -> None:
    assert all(isinstance(text, str) for text in run_files._texts(content))


# --- names, manifests, descriptions


@fuzzed()
@given(st.text(max_size=400), st.integers(20, LONGEST_KEY))
def test_names_of_runs(name: str, longest: int) -> None:
    safe = safe_key(name, longest)
    assert 0 < len(safe) <= longest and safe.isascii() and not {"..", "."} & set(safe.split("/")) and safe[0] != "/"
    clip(name, longest).encode()


HELD = {"tables": [], "commit": None, "patterns": [], "files": {"x.txt": {"size": 1, "checksum": "git:0"}}}
MANIFEST = json.dumps({"version": 1, "items": {"https://h/x": HELD}}).encode()
in_json = values.map(lambda value: json.dumps(value).encode())


@fuzzed()
@given(
    st.one_of(
        in_json,
        damaged(MANIFEST),
        values.map(lambda value: json.dumps({"version": 1, "items": value}).encode()),
        values.map(lambda value: json.dumps({"version": 1, "items": {"https://h/x": value}}).encode()),
        st.builds(
            lambda key, value: json.dumps({"version": 1, "items": {"https://h/x": {**HELD, key: value}}}).encode(),
            st.sampled_from(sorted(HELD)),
            values,
        ),
    )
)
@example(MANIFEST.replace(b"x.txt", b"x" * 3000))
def test_manifests(tmp_path: Path, content: bytes) -> None:
    from clipstudy.data import Released

    manifest = tmp_path / "study.json"
    manifest.write_bytes(content)
    item = fetch.Item(Released("datasets.d", "https://h/x", "git:0", tmp_path / "x.txt"), ("datasets.d",))
    try:
        assert [problems for _, problems in fetch.verify([item], manifest)]
    except NotFetched as error:
        assert "study.json" in str(error)


@fuzzed()
@given(
    st.one_of(
        in_json,
        damaged(b'{"model_cfg": {"vision_cfg": {"layers": 3}}, "architecture": "resnet18"}'),
        values.map(lambda value: json.dumps({"model_cfg": value, "architecture": value}).encode()),
        values.map(lambda value: json.dumps({"model_cfg": {"vision_cfg": value}}).encode()),
    )
)
def test_descriptions_beside_weights(tmp_path: Path, content: bytes) -> None:
    for name in ("open_clip_config.json", "config.json"):
        (tmp_path / name).write_bytes(content)
    for source in ("open_clip", "timm"):
        assert has_attention(ModelSpec("m", source, str(tmp_path), 1, modality="image")) in (True, False, None)
