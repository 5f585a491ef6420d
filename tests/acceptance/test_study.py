"""A study from tasks.toml to a chart, by the commands that a user types."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from clipstudy.outcome import flat
from clipstudy.results import boards
from clipstudy.settings import Settings
from clipstudy.tracking import open as open_tracking
from tests.acceptance.conftest import Place, Typed, told, totals

CELLS = 3 * 2 * 3  # models × tasks × layers


def results(place: Place) -> list:
    settings = Settings.read({"CLIPSTUDY_HOME": str(place.folder), **place.environment})
    return open_tracking(settings).results("small")


def test_from_tasks_toml_to_a_chart(placed: Place, typed: Typed) -> None:
    """Enqueue, two workers at once, every cell once in MLflow, the report; then once more, and nothing is new."""
    placed("init")
    dry = told(typed, "enqueue", "--all", "--dry-run")
    assert (dry["cells"], dry["new"]) == (CELLS, CELLS)
    assert totals(typed) == {}
    assert told(typed, "enqueue", "--all")["new"] == CELLS
    assert told(typed, "enqueue", "--all")["new"] == 0

    crew = placed.start("worker", "--workers", "2", "--drain", "--device", "cpu", "--layers-per-batch", "2")
    said = crew.communicate(timeout=240)[0]
    assert crew.returncode == 0, said
    assert all(f"[worker {k}] " in said for k in (1, 2)) and said.count("0 failed") == 2
    status = told(typed, "status", "--rows")
    assert status["totals"] == {"done": CELLS}, status["totals"]
    assert {row["attempt"] for row in status["rows"]} == {1}
    assert status["workers"] == [] and status["outbox"] == 0

    found = results(placed)
    assert Counter(Counter((r.model, r.task, r.layer) for r in found).values()) == {1: CELLS}
    assert {r.run_id for r in found} == {row["run_id"] for row in status["rows"]}
    one = next(r for r in found if (r.model, r.task, r.layer) == ("bert", "order", 2))
    assert one.tags["depth"] == "1.000" and one.tags["category"] == "syntactic"
    assert one.params["resolved.checkpoint"].startswith("sha256:")
    assert one.params["option.max_epoch"] == "3" and one.params["version.torch"]
    assert 0 <= one.metrics["accuracy"].value <= 1 and one.metrics["items/test"].value == 100

    assert f"{CELLS} results" in typed("report", "--out", "page.html").out
    text = (placed.folder / "page.html").read_text()
    assert "Tiny BERT" in text and "<script src" not in text

    assert "0 cells computed" in typed("worker", "--drain", "--device", "cpu").err

    # All layers at once, without queue, store of results and other workers: the same numbers.
    for model, task in (("bert", "order"), ("bert-untrained-1", "phrases")):
        shown = told(typed, "run", model, task)["layers"]
        recorded = {r.layer: flat(boards.estimates(r.metrics)) for r in found if (r.model, r.task) == (model, task)}
        assert {layer["layer"]: layer["metrics"] for layer in shown} == recorded and len(recorded) == 3


def test_what_a_model_is_called_is_not_measured_anew(place: Place, typed: Typed) -> None:
    typed("enqueue", "--model", "bert", "--task", "order", "--layer", "1")
    place.work()
    assert "Tiny BERT" in typed("results").out
    assert not any(row["todo"] for row in told(typed, "claims")), "no model plays any"
    file = place.folder / "tasks.toml"
    text = file.read_text().replace('label = "Tiny BERT"', 'label = "Little BERT"\nrole = "bert"')
    file.write_text(text.replace('category = "syntactic"', 'category = "order"'))
    assert told(typed, "enqueue", "--model", "bert", "--task", "order", "--layer", "1")["new"] == 0
    assert "Little BERT" in typed("results").out and "Tiny" not in typed("results").out
    assert any(row["todo"] for row in told(typed, "claims")), "it plays its role"


def test_a_changed_table_gives_new_cells(place: Place, typed: Typed) -> None:
    typed("enqueue", "--all")
    file = place.folder / "tasks.toml"
    file.write_text(file.read_text().replace("max_epoch = 3", "max_epoch = 4"))
    assert "max_epoch was 3, is 4" in typed("enqueue", "--all", "--dry-run").out
    enqueued = told(typed, "enqueue", "--all")
    assert (enqueued["new"], enqueued["superseded"]) == (CELLS // 2, CELLS // 2)


def test_verbs(typed: Typed) -> None:
    """cancel, enqueue again (revives), show, and what they say of cells that are not there."""
    typed("enqueue", "--all")
    assert typed("cancel", "--model", "bert-*", "--layer", "0-1").out == "8 cells cancelled\n"
    assert totals(typed) == {"queued": CELLS - 8, "cancelled": 8}
    assert told(typed, "enqueue", "--all")["revived"] == 8
    shown = told(typed, "show", "1")
    assert (shown["model"], shown["layer"], shown["status"]) == ("bert", 0, "queued")
    assert typed("prioritise", "5", "--task", "phrases").out.startswith("9 cells")
    assert "no job 999" in typed("show", "999", code=2).err
    assert "or type: clipstudy cancel --all" in typed("cancel", code=2).err


def test_sigterm_gives_back(place: Place, typed: Typed) -> None:
    """A worker that is told to stop leaves at once; what it held is queued again and no try is spent. Here it is its
    supervisor that is told, and passes it on."""
    file = place.folder / "tasks.toml"
    file.write_text(file.read_text().replace("max_epoch = 3", "max_epoch = 100000, tenacity = 100000"))
    typed("enqueue", "--task", "order", "--model", "bert")
    worker = place.start("worker", "--workers", "1", "--device", "cpu")
    until = time.monotonic() + 120
    while not totals(typed).get("running"):
        assert worker.poll() is None and time.monotonic() < until, worker.stdout and worker.stdout.read()
        time.sleep(0.1)  # another process's progress: nothing but the table tells of it
    worker.send_signal(signal.SIGTERM)
    said = worker.communicate(timeout=60)[0]
    assert worker.returncode == 0, said
    rows = told(typed, "status", "--rows")["rows"]
    assert {(r["status"], r["tries"], r["attempt"]) for r in rows} == {("queued", 0, 1)}, said


def test_mlflow_down_loses_nothing(place: Place, typed: Typed) -> None:
    """Results wait in the outbox; once MLflow is back they are recorded, and nothing is computed again."""
    typed("enqueue", "--task", "phrases", "--model", "bert")
    worker = place.start("worker", "--device", "cpu", CLIPSTUDY_TRACKING="http://127.0.0.1:9")
    until = time.monotonic() + 120
    while totals(typed) != {"computed": 3}:
        assert worker.poll() is None and time.monotonic() < until
        time.sleep(0.1)  # another process's progress: nothing but the table tells of it
    worker.terminate()
    said = worker.communicate(timeout=60)[0]
    assert "MLflow does not answer" in said
    place.work()
    rows = told(typed, "status", "--rows")["rows"]
    assert {(r["status"], r["attempt"]) for r in rows} == {("done", 1)}
    assert len(results(place)) == 3


def test_a_file_that_changes_midway_is_not_mixed_in(place: Place, typed: Typed) -> None:
    rows = (place.folder / "order.txt").read_text()
    (place.folder / "order.txt").unlink()
    (place.folder / "order.txt").write_text(rows)
    typed("enqueue", "--task", "order", "--model", "bert", "--layer", "0")
    place.work()
    (place.folder / "order.txt").write_text(rows + "te\tup\tw1 w2\n")
    typed("enqueue", "--task", "order", "--model", "bert")
    place.work()
    by_layer = {r["layer"]: r for r in told(typed, "status", "--rows")["rows"]}
    assert by_layer[0]["status"] == "done"
    assert by_layer[1]["status"] == by_layer[2]["status"] == "failed"
    assert "data changed since this group began" in by_layer[1]["error"]
    # The way on is the command that the message names.
    assert typed(*by_layer[1]["error"].split("clipstudy ")[1].split()).out == "3 cells queued again\n"
    place.work()
    assert totals(typed) == {"done": 3}
    assert {r.metrics["items/test"].value for r in results(place)} == {101}


class TestBadInput:
    """Each mistake: exit 2, one message that says what to do, no traceback; and nothing is lost."""

    def refused(self, typed: Typed, *words: str) -> str:
        return typed(*words, code=2).err

    def failed(self, place: Place, typed: Typed, says: str) -> None:
        """The worker goes on to the end; the cells fail with the message, without a retry; `logs` has the traceback."""
        typed("enqueue", "--all")
        place.work()
        rows = [r for r in told(typed, "status", "--rows")["rows"] if r["status"] == "failed"]
        assert rows, typed("status").out
        assert all(says in r["error"] for r in rows), rows[0]["error"]
        assert {r["attempt"] for r in rows} == {1}
        shown = typed("status").out
        assert "failed" in shown and "Traceback" not in shown
        assert says in typed("logs", str(rows[0]["id"])).out

    def test_names(self, typed: Typed) -> None:
        assert 'Did you mean "bert"' in self.refused(typed, "enqueue", "--model", "brt")
        assert "no cell at layer 9" in self.refused(typed, "enqueue", "--layer", "9")
        assert "no cell at layer 3, 4;" in self.refused(typed, "enqueue", "--layer", "1-4")
        assert "or type: clipstudy enqueue --all" in self.refused(typed, "enqueue")
        assert "no study file" in self.refused(typed, "enqueue", "--all", "--study", "other.toml")

    def test_layer_beyond_the_checkpoint(self, place: Place, typed: Typed) -> None:
        file = place.folder / "tasks.toml"
        file.write_text(file.read_text().replace("layers = 2", "layers = 5"))
        self.failed(place, typed, "layers = 5, but the checkpoint has 2 blocks")

    def test_corrupt_checkpoint(self, place: Place, typed: Typed, material: Path) -> None:
        (place.folder / "bert").unlink()
        (place.folder / "bert").mkdir()
        for file in (material / "bert").iterdir():
            content = file.read_bytes()
            (place.folder / "bert" / file.name).write_bytes(
                content[:1000] if file.suffix == ".safetensors" else content
            )
        text = (place.folder / "tasks.toml").read_text()
        head, twin = text.split("[models.bert-untrained]")
        (place.folder / "tasks.toml").write_text(head + twin[twin.index("[datasets") :])  # an untrained one would do
        self.failed(place, typed, "model.safetensors")

    def test_malformed_row(self, place: Place, typed: Typed) -> None:
        rows = (place.folder / "order.txt").read_text()
        (place.folder / "order.txt").unlink()
        (place.folder / "order.txt").write_text(rows + "te up\n")
        self.failed(place, typed, "order.txt:361: found 1 column,")

    def test_device_that_is_not_there(self, typed: Typed) -> None:
        typed("enqueue", "--all")
        assert 'device "cuda:7" does not exist here' in self.refused(typed, "worker", "--gpu", "7")

    def test_database_not_migrated(self, typed: Typed) -> None:
        assert "clipstudy init" in self.refused(typed, "status")

    def test_database_away(self, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CLIPSTUDY_DATABASE", "postgresql://me:s3cret@127.0.0.1:9/clipstudy")
        said = typed("status", code=69).err  # another time it may answer
        assert "127.0.0.1" in said and "CLIPSTUDY_DATABASE" in said and "s3cret" not in said

    def test_tracking_in_a_folder(self, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
        typed("enqueue", "--all")
        monkeypatch.setenv("CLIPSTUDY_TRACKING", "./mlruns")
        assert "sqlite:///" in self.refused(typed, "report")

    def test_nothing_to_report(self, typed: Typed) -> None:
        typed("init")
        assert "clipstudy enqueue --all" in self.refused(typed, "report")
