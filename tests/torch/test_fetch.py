"""Fetching a study ahead, from a stand-in of the Hub: what comes, what never comes, what is said when it cannot."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from clipstudy import backbones, checksum, data, fetch, hub, run, tasksfile
from clipstudy.data import table
from clipstudy.errors import ClipstudyError, DataError, ModelError, NotFetched
from clipstudy.fetch import released
from clipstudy.job import FailureKind, Selection, plan
from clipstudy.progress import Lines
from clipstudy.spec import DatasetSpec, ModelSpec
from tests.hub import Hub
from tests.torch import checkpoints

STUDY = """
[models.tiny]
source = "transformers"
checkpoint = "org/tiny"
layers = 3
[models.tiny-untrained]
twin_of = "tiny"
init = "random"
init_seeds = [0, 1]
[datasets.shift]
reader = "senteval"
path = "./data/shift.txt"
url = "URL"
checksum = "CHECKSUM"
[datasets.asked]
reader = "boolq"
hub = "org/asked"
config = "boolq"
revision = "refs/convert/parquet"
splits = { dev = "validation" }
[tasks.shift]
kind = "classify"
dataset = "shift"
[tasks.asked]
kind = "classify_pairs"
dataset = "asked"
"""
MODEL, ASKED = "model:org/tiny@main", "dataset:org/asked@refs/convert/parquet"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a data set and a released file, among what nobody asked for."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tmp_path_factory.mktemp("published")
    model = root / "models" / "org" / "tiny"
    checkpoints.bert(model)
    (model / "onnx").mkdir()
    for name in ("pytorch_model.bin", "tokenizer.py", "vocab.pkl", "README.md", "onnx/model.safetensors"):
        (model / name).write_text("not asked for")
    for config in ("boolq", "wic"):
        for split in ("train", "validation", "test"):
            file = root / "datasets" / "org" / "asked" / config / split / "0000.parquet"
            file.parent.mkdir(parents=True)
            asked = [f"is the cat {word}" for word in (split, "here", "there", "away")]
            columns = {"question": asked, "passage": [f"the cat sat , {q} ." for q in asked], "label": [0, 1, 0, 1]}
            pq.write_table(pa.table(columns), file)
    (root / "datasets" / "org" / "asked" / "boolq" / "load.py").write_text("raise SystemExit")
    (root / "released").mkdir()
    rows = [f"{split}\t{label}\tthe cat sat\n" for split in ("tr", "va", "te") for label in "OI"]
    (root / "released" / "shift.txt").write_text("".join(rows))
    return root


@pytest.fixture
def served(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Served from a copy, with an empty cache of the Hub's."""
    shutil.copytree(published, tmp_path / "root")
    constants = huggingface_hub.constants
    with Hub(tmp_path / "root").serving() as hub:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        yield hub


class Place:
    """A study beside its manifest."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub = folder, hub
        self.manifest = fetch.manifest_path(folder, "study")
        file = hub.root / "released" / "shift.txt"
        self.text = STUDY.replace("URL", f"{hub.url}/released/shift.txt").replace(
            "CHECKSUM", checksum.like("git:", file)
        )

    def items(self, *models: str) -> list[fetch.Item]:
        study = tasksfile.parse(self.text, self.folder / "study.toml")
        return fetch.wanted(group for group, _ in plan(study, Selection(models)))

    def fetch(self, *models: str) -> list[str]:
        surveys, refused = fetch.survey_all(self.items(*models))
        failures = refused + fetch.fetch_all(surveys, self.manifest, Lines())
        return [failure.error.message for failure in failures]

    def problems(self, *models: str) -> list[str]:
        return [
            f"{item.name} {problem}"
            for item, problems in fetch.verify(self.items(*models), self.manifest)
            for problem in problems
        ]

    def cached(self, name: str) -> Path:
        (found,) = (self.folder / "cache").rglob(f"snapshots/*/{name}")
        return found


@pytest.fixture
def place(tmp_path: Path, served: Hub) -> Place:
    return Place(tmp_path, served)


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_what_is_read_comes_once_and_nothing_that_can_run_code(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    surveys, refused = fetch.survey_all(place.items())
    assert not refused and not place.hub.downloads()  # to say what and how large costs nothing
    assert [(s.item.name, s.to_download == s.size > 0) for s in surveys] == [
        ("org/tiny", True),
        (f"{place.hub.url}/released/shift.txt", True),
        ("org/asked", True),
    ]
    assert fetch.fetch_all(surveys, place.manifest, Lines()) == []
    came = [re.sub(".*/resolve/[^/]+/", "", path) for path in place.hub.downloads()]
    model = sorted(p.name for p in (place.hub.root / "models/org/tiny").glob("*.json"))
    tables = ["boolq/train/0000.parquet", "boolq/validation/0000.parquet"]
    assert sorted(came) == sorted(["/released/shift.txt", *tables, *model, "model.safetensors"])

    held = json.loads(place.manifest.read_text())["items"]
    assert held[MODEL]["commit"] == place.hub.commit("models", "org/tiny")
    assert held[MODEL]["tables"] == ["models.tiny", "models.tiny-untrained-0", "models.tiny-untrained-1"]
    weights = place.hub.root / "models/org/tiny/model.safetensors"
    assert held[MODEL]["files"]["model.safetensors"] == {
        "size": weights.stat().st_size,
        "checksum": checksum.like("sha256:", weights),
    }
    place.hub.asked.clear()
    assert place.fetch() == [] and not place.hub.downloads()
    assert json.loads(place.manifest.read_text())["items"] == held

    place.hub.stop()  # and now without network
    offline(monkeypatch)
    assert place.problems() == []
    study = tasksfile.parse(place.text, place.folder / "study.toml")
    for model_spec in study.models.values():
        assert backbones.load(model_spec, "cpu").depth == 3
    assert backbones.load(study.models["tiny"], "cpu").resolved["checkpoint"] == held[MODEL]["commit"]
    from clipstudy.data import boolq, senteval

    assert senteval.read(study.datasets["shift"]).classes == ("I", "O")
    assert boolq.read(replace(study.datasets["asked"], development=0.5)).source.count(held[ASKED]["commit"]) == 2


def test_an_untrained_twin_needs_no_weights(place: Place) -> None:
    assert place.fetch("tiny-untrained-1") == []
    assert not any("safetensors" in path for path in place.hub.downloads())
    assert place.problems("tiny-untrained-*") == []
    assert place.problems("tiny") == ["org/tiny was fetched for less than the tables read now"]
    assert place.fetch("tiny") == [] and place.fetch("tiny-untrained-1") == []
    assert place.problems() == []


def test_a_connection_that_breaks_is_taken_up_where_it_broke(place: Place) -> None:
    place.hub.breaks["model.safetensors"] = 5000
    assert place.fetch() == [] and place.problems() == []
    assert sum(path.endswith("model.safetensors") for path in place.hub.downloads()) == 2


def test_a_released_file_that_breaks_off_is_not_taken_for_whole(place: Place) -> None:
    place.hub.breaks["shift.txt"] = 20
    (said,) = place.fetch()
    assert said.startswith("[datasets.shift] url:") and not list((place.folder / "data").iterdir())
    assert place.fetch() == [] and place.problems() == []


def test_what_was_whole_before_a_failure_stays(place: Place) -> None:
    (file,) = [f for f in (place.hub.root / "released").iterdir()]
    away = file.rename(file.with_suffix(".away"))
    (refused,) = place.fetch()
    assert refused.startswith("[datasets.shift] url: http") and "answers 404" in refused
    assert set(json.loads(place.manifest.read_text())["items"]) == {MODEL, ASKED}
    assert place.problems() == [f"{place.hub.url}/released/shift.txt was not fetched"]
    away.rename(file)
    place.hub.asked.clear()
    assert place.fetch() == [] and place.hub.downloads() == ["/released/shift.txt"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])  # known by SHA-256, and by a Git blob's id
def test_damaged_on_the_way(place: Place, name: str) -> None:
    place.hub.damaged.add(name)
    (said,) = place.fetch()
    assert said.startswith('[models.tiny] checkpoint = "org/tiny"') and f"{name} came damaged" in said
    place.hub.damaged.clear()
    place.hub.asked.clear()
    assert place.fetch() == [] and place.problems() == []
    assert len(place.hub.downloads()) == 1


def test_a_released_file_that_changed_at_its_home(place: Place) -> None:
    file = place.hub.root / "released" / "shift.txt"
    file.write_text(file.read_text().replace("cat", "dog"))
    (said,) = place.fetch()
    assert said.startswith("[datasets.shift] url:") and "the file changed" in said
    assert checksum.like("git:", file) in said
    assert not list((place.folder / "data").iterdir())


def test_an_address_that_is_none_and_a_size_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a row: study files are checked for such an address."""
    source = data.Released("datasets.d", "http://127.0.0.1:9/ü", f"sha256:{0:064x}", tmp_path / "x.txt")
    with pytest.raises(DataError, match=r"\[datasets\.d\] url: .* is no address .* Fix the url"):
        released.size(source)
    answer = SimpleNamespace(headers={"Content-Length": "many"})
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: nullcontext(answer))
    assert released.size(source) == 0


def test_a_released_file_that_changed_here(place: Place) -> None:
    assert place.fetch() == []
    file = place.folder / "data" / "shift.txt"
    file.write_text(file.read_text().replace("cat", "dog"))
    study = tasksfile.parse(place.text, place.folder / "study.toml")
    with pytest.raises(DataError, match=r"\[datasets\.shift\] checksum: .*shift\.txt is git:.*, expected git:"):
        data.files(study.datasets["shift"])
    (said,) = place.problems()
    assert "shift.txt is git:" in said and "fetched was git:" in said
    (said,) = place.fetch()
    assert "is there already, and is not the file that checksum says" in said and "dog" in file.read_text()
    file.unlink()
    assert place.fetch() == [] and place.problems() == []
    file.unlink()
    with pytest.raises(DataError, match=r"does not exist.*clipstudy fetch; with --study FILE"):
        data.files(study.datasets["shift"])


def test_verify_names_every_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.fetch() == []
    offline(monkeypatch)
    config = place.cached("config.json").resolve()
    config.write_bytes(config.read_bytes() + b" ")
    place.cached("boolq/train/0000.parquet").unlink()
    said = place.problems()
    assert [line.split(" is ")[0] for line in said] == ["org/tiny config.json", "org/asked boolq/train/0000.parquet"]
    place.manifest.write_text("{")
    with pytest.raises(NotFetched, match="cannot be read"):
        place.problems()
    place.manifest.unlink()
    assert {line.partition(" ")[2] for line in place.problems()} == {"was not fetched"}


def test_a_branch_that_moved(place: Place) -> None:
    assert place.fetch() == []
    config = place.hub.root / "models/org/tiny/config.json"
    config.write_text(config.read_text() + " ")
    huggingface_hub.snapshot_download("org/tiny", allow_patterns=["config.json"])  # by someone else
    (said,) = place.problems("tiny")
    assert f"is at commit {place.hub.commit('models', 'org/tiny')} in the Hub's cache" in said
    assert place.fetch() == [] and place.problems() == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("layers = 3", 'layers = 3\nrevision = "v9"', '[models.tiny] checkpoint = "org/tiny" has no revision "v9"'),
        ("org/tiny", "org/tinny", '[models.tiny] checkpoint = "org/tinny" is not on the Hub'),
        ("org/asked", "org/aksed", '[datasets.asked] hub = "org/aksed" is not on the Hub'),
        ('"boolq"\nrevision', '"bolq"\nrevision', 'has no table for "train" at'),
        ("org/tiny", "org/weightless", '[models.tiny] checkpoint = "org/weightless" has no safetensors weights at'),
        ("/released/", "/nowhere/", "[datasets.shift] url: http"),
    ],
)
def test_what_cannot_be_fetched_is_said_and_the_rest_is_fetched(place: Place, old: str, new: str, says: str) -> None:
    (place.hub.root / "models/org/weightless").mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        shutil.copy(place.hub.root / "models/org/tiny" / name, place.hub.root / "models/org/weightless")
    assert old in place.text
    place.text = place.text.replace(old, new)
    (said,) = place.fetch()
    assert says in said and said.endswith(".")
    assert len(json.loads(place.manifest.read_text())["items"]) == 2


def test_no_network_and_nothing_cached(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tasksfile.parse(place.text, place.folder / "study.toml")
    items = place.items()
    place.hub.stop()
    found, refused = fetch.survey_all(items)
    assert not found and "released/shift.txt does not answer" in refused[1].error.message
    silent, concerned, typed = fetch.told(refused, "clipstudy fetch --study study.toml")
    assert silent.startswith("No answer from the Hub (") and f", {place.hub.url.removeprefix('http://')} (" in silent
    assert concerned == "Not reached: models tiny +2; datasets shift, asked"
    assert typed == "On a machine with network, type: clipstudy fetch --study study.toml"
    with pytest.raises(ModelError, match="the Hub does not answer") as away:
        backbones.load(study.models["tiny"], "cpu")
    assert run.failure_of(away.value).kind is FailureKind.INFRA and run.failure_of(away.value).retry
    offline(monkeypatch)
    with pytest.raises(NotFetched, match="HF_HUB_OFFLINE is set"):
        fetch.survey_all(items)
    with pytest.raises(ModelError, match=r"clipstudy fetch --model tiny; with --study FILE") as missing:
        backbones.load(study.models["tiny"], "cpu")
    assert not run.failure_of(missing.value).retry, "it would be missing the next time, too"
    with pytest.raises(DataError, match=r"\[datasets\.asked\].*clipstudy fetch; with --study FILE"):
        table.load(study.datasets["asked"], "train", ["question"])


@pytest.mark.parametrize(
    ("spec", "homes"),
    [
        (
            ModelSpec("m", "open_clip", "ViT-B-32-quickgelu", 12, pretrained="openai", tower="text"),
            [("timm/vit_base_patch32_clip_224.openai", ("open_clip_model.safetensors",))],
        ),
        (ModelSpec("m", "open_clip", "ViT-B-32-quickgelu", 12, init="random", tower="text"), []),
        (
            ModelSpec("m", "open_clip", "ViT-B-16-SigLIP", 12, pretrained="webli", tower="text"),
            [("timm/ViT-B-16-SigLIP", ("open_clip_model.safetensors",)), ("timm/ViT-B-16-SigLIP", ("tokenizer*",))],
        ),
        (
            ModelSpec("m", "open_clip", "ViT-B-32", 12, pretrained="laion2b_s34b_b79k", modality="image"),
            [("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", ("open_clip_model.safetensors",))],
        ),
        (
            ModelSpec("m", "open_clip", "ViT-L-14-CLIPA", 24, init="random", modality="image"),
            [("bert-base-uncased", ("tokenizer*",))],
        ),
        (
            ModelSpec("m", "open_clip", "roberta-ViT-B-32", 12, init="random", modality="image"),
            [("roberta-base", ("tokenizer*",)), ("roberta-base", ("config.json",))],
        ),
        (
            ModelSpec("m", "timm", "resnet50.tv_in1k", 4, modality="image"),
            [("timm/resnet50.tv_in1k", ("config.json", "model.safetensors"))],
        ),
        (ModelSpec("m", "timm", "resnet50", 4, modality="image", init="random"), []),
        (ModelSpec("m", "transformers", str(checkpoints.MINILM), 6), []),
    ],
)
def test_what_each_library_reads_of_the_hub(spec: ModelSpec, homes: list[tuple[str, tuple[str, ...]]]) -> None:
    from huggingface_hub.utils import filter_repo_objects

    found = backbones.wanted(spec)
    assert [repository.id for repository in found] == [home for home, _ in homes]
    for repository, (_, names) in zip(found, homes, strict=True):
        there = ["config.json", "model.safetensors", "open_clip_model.safetensors", "tokenizer.json", "x.bin", "x.py"]
        allowed = list(
            filter_repo_objects(there, allow_patterns=list(repository.allow), ignore_patterns=list(repository.ignore))
        )
        for name in names:
            assert set(filter_repo_objects(there, allow_patterns=[name])) <= set(allowed)
        assert "x.bin" not in allowed and "x.py" not in allowed


def test_a_reference_model_is_fetched_too(place: Place) -> None:
    place.text += """
[models.other]
source = "transformers"
checkpoint = "org/other"
layers = 3
[tasks.like]
kind = "similarity"
dataset = "shift"
reference = "other"
"""
    study = tasksfile.parse(place.text, place.folder / "study.toml")
    items = fetch.wanted(group for group, _ in plan(study, Selection(("tiny",), ("like",))))
    assert [item.name for item in items][:2] == ["org/tiny", "org/other"]


def test_a_link_that_leads_nowhere_is_not_written_through(place: Place) -> None:
    (place.folder / "data").mkdir()
    (place.folder / "data" / "shift.txt").symlink_to(place.folder / "data" / "elsewhere.txt")
    (said,) = place.fetch()
    assert "is there already" in said and not (place.folder / "data" / "elsewhere.txt").exists()


def test_fetches_at_once_lose_no_entry(tmp_path: Path) -> None:
    """Eight processes' worth of threads: the lock is of the open file, not of the process."""
    manifest = tmp_path / "fetched" / "study.json"
    entries = [hub.Entry(f"{n}.txt", n, f"sha256:{n:064x}") for n in range(40)]
    surveys = [
        fetch.Survey(
            fetch.Item(
                data.Released(f"datasets.d{n}", f"https://h/{n}", entry.checksum, tmp_path / entry.path), ("d",)
            ),
            None,
            (entry,),
            frozenset(),
        )
        for n, entry in enumerate(entries)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda survey: fetch.record(manifest, survey), surveys))
    assert len(json.loads(manifest.read_text())["items"]) == len(surveys)


def test_no_address_for_a_file_that_is_just_here() -> None:
    assert data.wanted(DatasetSpec("d", "senteval", path="./x.txt")) is None
    assert issubclass(NotFetched, ClipstudyError)
