"""Claims and published numbers on what a small study recorded."""

from __future__ import annotations

import json

import pytest

from clipstudy.claims import CLAIMS
from clipstudy.cli import claims as commands
from clipstudy.results import evidence
from clipstudy.results.verdicts import Row
from clipstudy.settings import Settings
from clipstudy.tracking import open as open_tracking
from tests.acceptance.conftest import STUDY, Place, Typed

#: The same tiny model in two roles, on tasks that claims read or that somebody published.
ROLES = (
    STUDY.replace("layers = 2\n", 'layers = 2\nrole = "bert"\n')
    .replace("[models.bert-untrained]", '[models.twin]\nsource = "transformers"\ncheckpoint = "./bert"\nlayers = 2\n'
             'role = "gpt2"\n[models.bert-untrained]')
    .replace("[tasks.order]", "[tasks.bigram_shift]")
    + '[tasks.phrases-released]\nkind = "phrase_clusters"\ndataset = "chunks"\n'
    "options = { labelled = 60, outside = 20, fit = 60, samples = 2 }\n"
)  # fmt: skip


@pytest.fixture
def recorded(place: Place, typed: Typed) -> Typed:
    (place.folder / "tasks.toml").write_text(ROLES)
    typed("enqueue", "--model", "bert", "--model", "twin", "--task", "*")
    place.work()
    return typed


def test_claims_and_published_numbers_of_what_was_recorded(
    place: Place, recorded: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a run kept is what its metrics say.
    tracking = open_tracking(Settings.read())
    results = tracking.results("small")
    measured = {(one.model, one.metric): one for one in evidence.measured(results, tracking.artifact)}
    values = {(r.model, r.task, r.layer): r.metrics[r.tags["metric"]].value for r in results}
    assert set(measured) == {(model, metric) for model in ("bert", "twin") for metric in ("accuracy", "nmi")}
    for one in measured.values():
        assert one.scores is not None and one.layers == (1, 2) and one.missing == ()
        assert one.scores.mean(axis=(1, 2)) == pytest.approx([values[one.model, one.task, k] for k in (1, 2)], abs=1e-5)
        assert one.scores.shape == ((2, 2, 100) if one.metric == "accuracy" else (2, 2, 3))  # layers, seeds, samples
    assert measured["bert", "nmi"].items == measured["twin", "nmi"].items != ""

    told = {row["claim"]: row for row in json.loads(recorded("claims", "--json").out)}
    assert [*told] == [claim.number for claim in CLAIMS]
    same = told["C3"]  # one model in both roles
    assert (same["verdict"], same["paired"], same["n"]) == ("undecided", True, [3])
    assert [part["value"] for part in same["parts"]] == [0, 0]
    assert same["models"] == {"bert": "bert", "gpt2": "twin"}
    assert told["C1"]["why"] == "no layer measured stands for blocks 1–3 of 12"
    assert told["C11"]["why"] == "no result of a model with the role clip_text"
    text = recorded("claims", "--study", "small").out
    assert "small: 1 undecided, " in text
    at = next(n for n, line in enumerate(text.splitlines()) if line.startswith("C3 "))
    quoted, decided = text.splitlines()[at : at + 2]
    assert quoted.startswith('C3   "However, the NMI score across all layers is lower than ')
    closing = "where the study is not tasks.toml; then: clipstudy worker --drain; clipstudy claims\n"
    assert "→ clipstudy enqueue" in text and text.endswith(closing)
    monkeypatch.setenv("COLUMNS", "80")
    assert ' …"' in (narrow := recorded("claims").out) and "To read the full quotations: " in narrow
    monkeypatch.setenv("COLUMNS", "400")
    assert ' …"' not in (wide := recorded("claims").out) and "To read the full quotations: " not in wide
    assert decided.startswith("     undecided: ") and "left − right [95%]" in decided and "n 3" in decided
    assert 'Did you mean "small"' in recorded("claims", "--study", "smal", code=2).err

    compared = json.loads(recorded("published", "phrases-released", "--json").out)["compared"]
    assert [(c["model"], c["layer"], c["comparable"], c["from_memory"]) for c in compared] == [
        ("bert", 1, True, True),
        ("bert", 2, True, True),
    ]
    nmi = {r.layer: r.metrics["nmi"].value for r in results if (r.model, r.task) == ("bert", "phrases-released")}
    for row, published in zip(compared, (0.38, 0.37), strict=True):
        assert (row["measured"]["value"], row["published"]) == (nmi[row["layer"]], published)
        assert row["difference"] is row["inside"] is None, "no result is held to what is from memory"
    text = recorded("published", "phrases-released").out
    assert "0.380 (from memory)" in text and "no: from memory" in text and "memory (unverified)" in text

    # The page has them too; and where a file is gone nothing is decided.
    recorded("report", "--out", "page.html")
    page = (place.folder / "page.html").read_text()
    assert 'id="claims"' in page
    # A page of one model says of the claims what the whole study says.
    recorded("report", "--model", "twin", "--out", "part.html")
    part = (place.folder / "part.html").read_text()
    missing = "no result of a model with the role"
    assert part.count(missing) == page.count(missing) > 0
    assert "report-paper.html" in recorded("report", "--dashboard", "paper").out
    assert "BERT-base, uncased: Jawahar" in (place.folder / "report-paper.html").read_text()
    assert not (place.folder / "report.html").exists(), "another dashboard's page is no report.html"
    gone = [r for r in results if (r.model, r.task) == ("twin", "phrases")]
    for file in (place.folder / "mlruns" / "artifacts").rglob("predictions.parquet"):
        if any(r.run_id in file.parts for r in gone):
            file.unlink()
    bare = next(row for row in json.loads(recorded("claims", "--json").out) if row["claim"] == "C3")
    assert (bare["verdict"], bare["p"]) == ("not testable", None)
    assert bare["why"].endswith("Type: clipstudy rerun --model twin --task phrases")


def test_published_numbers_before_anything_is_measured(typed: Typed) -> None:
    told = json.loads(typed("published", "--json").out)
    assert len(told["published"]) == 203 and told["compared"] == []
    memory = [n for n in told["published"] if not n["verified"]]
    assert memory and all(n["read"] == "memory" for n in memory)
    text = typed("published", "wic", "bert*").out
    assert "word_content" in text and "63.25 ± 1.63%" in text and "GPT-1" not in text
    assert "No result recorded here has the role" in text
    tasks, models = typed("published", "bolq", code=2).err.splitlines()[1:]
    assert tasks.startswith("  tasks: ") and "word_content" in tasks and models.startswith("  models: ")
    assert 'Did you mean "boolq"? What exists:' in typed("published", "bolq", code=2).err
    assert "Nothing is recorded" in typed("published", "--study", "paper", code=2).err
    assert "Nothing is recorded" in typed("claims", code=2).err


def test_before_anything_is_judged_the_next_command_is_named(typed: Typed) -> None:
    said = typed("claims", code=2).err
    assert "nothing is enqueued" in said and said.endswith("clipstudy worker --drain\n")
    typed("enqueue", "--task", "phrases", "--model", "bert")
    said = typed("claims", code=2).err
    assert said.endswith("What is enqueued: 3 queued. Type: clipstudy worker --drain\n")
    assert 'no study "smal". Did you mean "small"' in typed("claims", "--study", "smal", code=2).err
    typed("cancel", "--all")
    assert typed("claims", code=2).err.endswith("Type: clipstudy retry --cancelled\n")


def test_the_last_line_goes_on_from_what_was_judged() -> None:
    row = Row("C1", "words", "not run", "", "", "", "", "", "", "", "missing", "clipstudy enqueue --model bert")
    pocket = row._replace(todo="clipstudy enqueue --model bert --study pocket")
    assert "; then: clipstudy worker --drain; clipstudy claims" in commands._goes_on({"small": [row]})
    assert "--study FILE" in commands._goes_on({"small": [row]})
    assert "--study FILE" not in commands._goes_on({"pocket": [pocket]})
    assert commands._goes_on({"a b": [row._replace(todo="")]}) == "With the figures: clipstudy report --study 'a b'"
