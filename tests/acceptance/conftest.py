"""A small study on a model made here: everything real but its size."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clipstudy import cli

WORDS = [f"w{i}" for i in range(30)]
STUDY = """
[study]
name = "small"
seeds = [0, 1]
[models.bert]
source = "transformers"
checkpoint = "./bert"
layers = 2
label = "Tiny BERT"
[models.bert-untrained]
twin_of = "bert"
init = "random"
init_seeds = [0, 1]
label = "Tiny BERT, untrained"
[datasets.order]
reader = "senteval"
path = "./order.txt"
[datasets.chunks]
reader = "conll2000"
path = "./chunks"
[tasks.order]
kind = "classify"
dataset = "order"
category = "syntactic"
options = { max_epoch = 3, draws = 100 }
[tasks.phrases]
kind = "phrase_clusters"
dataset = "chunks"
category = "phrase"
options = { labelled = 60, outside = 20, fit = 60, samples = 3 }
"""


@dataclass
class Place:
    """A folder with a study in it, and clipstudy's commands run there."""

    folder: Path
    environment: dict[str, str]

    def env(self, **more: str) -> dict[str, str]:
        return {**os.environ, **self.environment, **more}

    def __call__(self, *words: str, ok: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "clipstudy", *words],
            cwd=self.folder,
            env=self.env(**environment),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert not ok or done.returncode == 0, done.stderr
        return done

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "clipstudy", *words],
            cwd=self.folder,
            env=self.env(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def work(self) -> None:
        """A worker that drains the queue, in this process: it saves starting one where the start is not the point."""
        from clipstudy.features.cache import Store
        from clipstudy.progress import Lines
        from clipstudy.queue import dialect
        from clipstudy.settings import Settings
        from clipstudy.tracking import open as open_tracking
        from clipstudy.worker import Habits, Worker

        settings = Settings.read({"CLIPSTUDY_HOME": str(self.folder), **self.environment})
        engine = dialect.connect(settings.database)
        store = Store(settings.cache / "features")
        Worker(engine, open_tracking(settings), store, "cpu", Habits(drain=True, poll=0.05), Lines()).work()
        engine.dispose()

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json").stdout)


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model and the data, made once."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("material")
    model = folder / "bert"
    model.mkdir()
    (model / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=35, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=32,
        )  # fmt: skip
        BertModel(config).save_pretrained(model)
    draw = random.Random(0)
    rows = []
    for split, n in (("tr", 200), ("va", 60), ("te", 100)):
        for i in range(n):
            words = sorted(draw.sample(WORDS, 6), reverse=bool(i % 2))
            rows.append(f"{split}\t{'down' if i % 2 else 'up'}\t{' '.join(words)}\n")
    (folder / "order.txt").write_text("".join(rows))
    (folder / "chunks").mkdir()
    sentences = []
    for _ in range(60):
        tags = ["B-NP", "I-NP", "B-VP", "O", "B-PP", "B-NP"]
        sentences.append("".join(f"{draw.choice(WORDS)} X {tag}\n" for tag in tags))
    (folder / "chunks" / "train.txt").write_text("\n".join(sentences))
    return folder


@pytest.fixture
def place(tmp_path: Path, material: Path, empty_mlflow: Path) -> Iterator[Place]:
    """A fresh folder with the small study, on the embedded default."""
    folder = tmp_path / "here"
    (folder / "mlruns").mkdir(parents=True)
    shutil.copy(empty_mlflow, folder / "mlruns" / "mlflow.db")
    for name in ("bert", "order.txt", "chunks"):
        (folder / name).symlink_to(material / name)
    (folder / "tasks.toml").write_text(STUDY)
    yield Place(folder, {"CLIPSTUDY_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"})


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def placed(request: pytest.FixtureRequest, place: Place) -> Place:
    """The same on both databases."""
    if request.param == "postgres":
        place.environment["CLIPSTUDY_DATABASE"] = request.getfixturevalue("new_database")()
    return place


class Said(NamedTuple):
    code: Any
    out: str
    err: str


Typed = Callable[..., Said]


@pytest.fixture
def typed(place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Typed:
    """``clipstudy WORDS`` in the place's folder: exit code and what was printed."""
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(place.folder)

    def type_in(*words: str, code: int = 0) -> Said:
        monkeypatch.setattr(sys, "argv", ["clipstudy", *words])
        capfd.readouterr()
        found: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            found = stop.code or 0
        said = Said(found, *capfd.readouterr())
        assert found == code, said
        assert "Traceback" not in said.err
        return said

    return type_in


def told(typed: Typed, *words: str) -> Any:
    return json.loads(typed(*words, "--json").out)


def totals(typed: Typed, *words: str) -> Any:
    return told(typed, "status", *words)["totals"]
