"""The commands that a user types beside the main road, in this process where starting one is not the point."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clipstudy import cli
from clipstudy import run as runner
from clipstudy.errors import DatabaseUnreachable, StudyError, TrackingUnreachable
from clipstudy.job import Failure, FailureKind, Status
from clipstudy.outcome import Estimate, Outcome
from clipstudy.queue import dialect, jobs
from clipstudy.settings import Settings
from tests.acceptance.conftest import STUDY, Place, Typed, totals
from tests.servers import free_port


def test_results_in_every_format(place: Place, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    typed("enqueue", "--task", "phrases", "--model", "bert")
    place.work()
    text = typed("results").out
    assert "Tiny BERT" in text and "± half of the 95% interval" in text
    rows = json.loads(typed("results", "-f", "json").out)
    assert {(r["study"], r["model"], r["task"], r["layer"]) for r in rows} == {
        ("small", "bert", "phrases", k) for k in range(3)
    }
    assert all(0 <= r["metrics"]["nmi"] <= 1 for r in rows)
    table = list(csv.DictReader(io.StringIO(typed("results", "-f", "csv").out)))
    assert all(len(row) == len(table[0]) and None not in row for row in table)
    assert {(row["study"], row["task"]) for row in table if row["what"] == "layer"} == {("small", "phrases")}
    assert {"random clusters", "span length"} <= {row["what"] for row in table}, "what the table shows beside layers"
    only = json.loads(typed("results", "-f", "json", "--metric", "ami").out)
    assert len(only) == 3 and all("ami" in r["metrics"] and "nmi" not in r["metrics"] for r in only)
    assert typed("results", "-f", "markdown").out.count("|") > 10
    assert "tabular" in typed("results", "-f", "latex").out
    assert typed("results", "--metric", "ami").out != text

    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, typed("results").out.splitlines())) <= 80
    best = json.loads(typed("results", "--best", "-f", "json").out)
    names = [line["name"] for line in best["lines"]]
    for format in ("text", "markdown", "csv", "latex"):
        shown = typed("results", "--best", "-f", format).out
        assert all(name.split(",")[0] in shown for name in names) and best["head"][1] in shown
    assert best["lines"][0]["cells"][0]["text"].endswith(")"), "which layer"
    assert 'Did you mean "csv"' in typed("results", "-f", "cvs", code=2).err
    assert 'no model "brt". Did you mean "bert"' in typed("results", "--model", "brt", code=2).err
    assert 'no task "order". What exists: phrases' in typed("results", "--task", "order", code=2).err
    assert 'no metric "nmy". Did you mean "nmi"' in typed("results", "--metric", "nmy", code=2).err
    assert 'no study "smal". Did you mean "small"' in typed("results", "--study", "smal", code=2).err
    assert typed("results", "--study", "tasks.toml").out == text

    # Once more, and the results stay meanwhile.
    assert typed("rerun", "--task", "phrases", "--layer", "0-1").out == "2 cells queued again\n"
    assert totals(typed) == {"queued": 2, "done": 1}
    said = typed("results", "-f", "json")
    assert len(json.loads(said.out)) == 3 and said.err.startswith("Not all cells are done: 2 queued")
    place.work()
    assert "Not all" not in typed("results").err
    assert {(r["attempt"], r["status"]) for r in json.loads(typed("status", "--rows", "--json").out)["rows"]} == {
        (1, "done"),
        (2, "done"),
    }
    assert len(json.loads(typed("results", "-f", "json").out)) == 3


def test_a_draining_worker_says_that_cells_failed_and_retry_takes_them_up(place: Place, typed: Typed) -> None:
    rows = (place.folder / "order.txt").read_text()
    (place.folder / "order.txt").unlink()
    (place.folder / "order.txt").write_text(rows + "te up\n")
    typed("enqueue", "--task", "order", "--model", "bert", "--layer", "0")
    said = typed("worker", "--drain", "--device", "cpu", code=1)
    assert "1 failed (see: clipstudy status)" in said.err and said.err.count("found 1 column,") == 1
    (place.folder / "order.txt").write_text(rows)
    why = "none is failed as lost (its worker vanished). What is there: 1 failed"
    assert typed("retry", "--lost").out == f"0 cells queued again: {why}\n"
    assert typed("retry").out == "1 cell queued again\n"
    said = typed("worker", "--drain", "--device", "cpu")
    assert "1 cell computed, 0 failed, 1 recorded" in said.err
    assert totals(typed) == {"done": 1}


def test_the_log_of_a_cell_that_is_tried_again(place: Place, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has been recorded, and the cell waits for its next attempt."""
    from clipstudy.progress import Lines
    from clipstudy.tracking import open as open_tracking
    from clipstudy.worker import Habits, Worker

    def broken(*words: Any, **named: Any) -> Any:
        raise ZeroDivisionError("in the probe")

    typed("enqueue", "--task", "order", "--model", "bert", "--layer", "0")
    monkeypatch.setattr(runner, "run", broken)
    settings = Settings.read()
    engine = dialect.connect(settings.database)
    assert Worker(engine, open_tracking(settings), None, "cpu", Habits(), Lines()).step()
    assert jobs.get(engine, 1).status is Status.QUEUED
    assert json.loads(typed("status", "--json").out)["outbox"] == 0
    assert "ZeroDivisionError: in the probe" in typed("logs", "1").out
    engine.dispose()


def test_two_studies_in_one_table(place: Place, typed: Typed) -> None:
    other = place.folder / "other.toml"
    other.write_text(STUDY.replace('name = "small"', 'name = "large"'))
    typed("enqueue", "--all")
    assert "study" not in typed("status").out.splitlines()[0]
    typed("enqueue", "--study", "other.toml", "--model", "bert")
    assert typed("status").out.splitlines()[0].split()[:3] == ["study", "model", "task"]
    assert typed("status", "--rows").out.splitlines()[0].split()[:3] == ["job", "study", "model"]
    assert totals(typed) == {"queued": 24}
    assert totals(typed, "--study", "large") == totals(typed, "--study", "other.toml") == {"queued": 6}
    assert len(json.loads(typed("status", "--json").out)["groups"]) == 8
    assert typed("prioritise", "3", "--study", "large").out == "6 cells changed\n"
    said = typed("cancel", "--study", "large", "--model", "gpt2", code=2).err
    assert 'Of study large, the job table has no model "gpt2". What exists: bert' in said
    assert typed("cancel", "--study", "large", "--task", "order").out == "3 cells cancelled\n"
    assert typed("cancel", "--study", "other.toml").out == "3 cells cancelled\n"
    why = "none is cancelled. What is there: 18 queued"
    assert typed("retry", "--cancelled", "--study", "small").out == f"0 cells queued again: {why}\n"
    assert typed("retry", "--cancelled", "--study", "large").out == "6 cells queued again\n"
    why = "none is done or failed. What is there: 6 queued"
    assert typed("rerun", "--study", "large").out == f"0 cells queued again: {why}\n"
    assert typed("prioritise", "-5", "--study", "large").out == "6 cells changed\n"
    assert "type: clipstudy enqueue --study other.toml --all" in typed("enqueue", "--study", "other.toml", code=2).err
    assert "type: clipstudy prioritise -5 --all" in typed("prioritise", "-5", code=2).err
    other.write_text(other.read_text().replace("labelled = 60", "labelled = 50"))
    said = json.loads(typed("enqueue", "--study", "other.toml", "--all", "--dry-run", "--json").out)
    assert {one["model"] for one in said["changed"]} == {"bert"}
    assert said["changed"][0]["settings"] == {"task.options.labelled": {"was": 60, "is": 50}}


def test_a_study_without_results_beside_one_that_has_some(place: Place, typed: Typed) -> None:
    typed("enqueue", "--task", "phrases", "--model", "bert")
    place.work()
    (place.folder / "other.toml").write_text(STUDY.replace('name = "small"', 'name = "large"'))
    typed("enqueue", "--study", "other.toml", "--model", "bert")
    for words in (["results"], ["report"], ["claims"]):
        said = typed(*words, "--study", "large", code=2).err
        assert (
            "Nothing of large is recorded yet" in said and "What is enqueued: 6 queued. Type: clipstudy worker" in said
        )


def test_where_nothing_can_be_kept_it_is_said_before_anything_is_computed(place: Place, typed: Typed) -> None:
    (place.folder / "file").write_text("")
    said = typed("run", "bert", "phrases", "--layer", "0", "--device", "cpu", "--save", "file", code=2)
    assert said.err.endswith("Name another one: --save FOLDER\n") and not said.out
    (place.folder / "kept").mkdir()
    (place.folder / "kept" / "layer_00").write_text("")
    shown = typed("run", "bert", "order", "--layer", "0", "--device", "cpu").out
    lines = [line.split() for line in shown.splitlines() if line.strip()]
    assert shown.index("accuracy (%)") < shown.index("items"), "the headline first"
    (majority,) = [words for words in lines if any("baseline/majority" in word for word in words)]
    assert 10 < float(majority[-1]) < 100, "in the unit of what it is beside"
    said = typed("run", "bert", "phrases", "--layer", "0", "--device", "cpu", "--save", "kept", code=2)
    assert "layer_00 cannot be written to" in said.err and "NMI" in said.out, "what was measured is shown"


def test_why_nothing_matches(place: Place, typed: Typed) -> None:
    study = place.folder / "tasks.toml"
    whole = study.read_text()
    study.write_text(whole.replace("[tasks.phrases]", '[tasks.phrases]\nmodels = ["bert-*"]'))
    said = typed("run", "bert", "phrases", code=2).err
    assert '[tasks.phrases] models = ["bert-*"] leaves bert out. Fix' in said
    study.write_text(re.sub(r"(\[tasks\.\w+\])", r"\1\noptional = true", whole))
    said = typed("enqueue", "--model", "bert", code=2).err
    assert "the task order is optional, and runs only where it is named: --task order. Fix" in said


@pytest.mark.parametrize("verb", ["cancel", "retry", "rerun", "prioritise 1", "status", "status --json"])
def test_names_that_are_not_there(typed: Typed, verb: str) -> None:
    words = verb.split()
    typed("enqueue", "--model", "bert", "--task", "order")
    assert 'no model "brt". Did you mean "bert"' in typed(*words, "--model", "brt", code=2).err
    assert 'no model "gpt*"' in typed(*words, "--model", "bert", "--model", "gpt*", code=2).err
    assert 'no task "phrases". What exists: order' in typed(*words, "--task", "phrases", code=2).err
    assert 'no study "smal". Did you mean "small"' in typed(*words, "--study", "smal", code=2).err
    if "prioritise" not in words:
        assert "no cell that has them all at layer 9" in typed(*words, "--layer", "9", code=2).err


def test_status_of_nothing(typed: Typed) -> None:
    typed("init")
    assert "Nothing is enqueued. Type: clipstudy enqueue --all" in typed("status").out
    assert "Nothing is enqueued" in typed("cancel", "--model", "bert", code=2).err


def test_run_keeps_what_a_task_keeps(place: Place, typed: Typed) -> None:
    typed("run", "bert", "phrases", "--layer", "0-1", "--device", "cpu", "--save", "kept")
    kept = sorted(p.relative_to(place.folder).as_posix() for p in (place.folder / "kept").rglob("*") if p.is_file())
    assert {Path(name).parent.name for name in kept} == {"layer_00", "layer_01"}, kept


def test_run_shows_what_went_well_beside_what_failed(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(of: Any, layers: Any, **rest: Any) -> Iterator[tuple[int, Any]]:
        for k in layers:
            bad = Failure(FailureKind.CODE, "it has NaN", retry=False)
            metrics = {
                "accuracy": Estimate(k / 8, 0.0, 1.0),
                "baseline/majority": Estimate(0.5),
                "items/test": Estimate(20),
            }
            yield k, bad if k == 1 else Outcome(k, metrics)

    monkeypatch.setattr(runner, "run", stand_in)
    said = typed("run", "bert", "order", "--device", "cpu", code=2)
    assert re.search(r"accuracy \(%\) +0\.0 \[0\.0, 16\.1\] +25\.0 \[0\.0, 100\.0\]", said.out)
    assert re.search("items/test +20 +20", said.out)
    assert "baseline: what can be reached without the model; items: how many rows" in said.out
    assert "layer 1 failed: it has NaN" in said.err
    whole = json.loads(typed("run", "bert", "order", "--device", "cpu", "--json", code=2).out)
    assert [one["layer"] for one in whole["layers"]] == [0, 2] and whole["failed"] == {"1": "it has NaN"}
    assert "it has NaN" in typed("run", "bert", "order", "--layer", "1", "--device", "cpu", code=2).err


def test_the_cache_is_listed_and_pruned(place: Place, typed: Typed) -> None:
    assert "nothing kept, of at most 20 GB" in typed("cache").out, "nothing yet"
    typed("enqueue", "--task", "order", "--model", "bert")
    place.work()
    held = json.loads(typed("cache", "--json").out)
    (one,) = [one for one in held["sets"] if one["view"] == "cls"]
    assert one["layers"] == [0, 1, 2] and one["label"].startswith("bert, ") and one["label"].endswith(" texts")
    files = list(Path(held["folder"]).glob("*.npy"))
    assert held["bytes"] == sum(file.stat().st_size for file in files) > 0
    assert one["label"] in typed("cache").out
    last = max(files, key=lambda file: file.stat().st_size)
    os.utime(last, (time.time() + 60,) * 2)
    left = json.loads(typed("cache", "--prune", str(last.stat().st_size / 10**9), "--json").out)
    assert list(Path(held["folder"]).glob("*.npy")) == [last], "the least recently used go first"
    assert (left["removed"], left["bytes"]) == (len(files) - 1, last.stat().st_size)
    assert left["removed_bytes"] == held["bytes"] - left["bytes"]
    assert "removed 1 file" in typed("cache", "--prune", "0").out
    assert not json.loads(typed("cache", "--json").out)["sets"]


def test_ui(place: Place) -> None:
    port = free_port()
    server = place.start("ui", "--port", str(port))
    try:
        until = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.status == 200
                    break
            except OSError:
                assert server.poll() is None and time.monotonic() < until
                time.sleep(0.2)
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name?experiment_name=clipstudy"
        )
        with urllib.request.urlopen(asked, timeout=20) as answer:
            assert json.load(answer)["experiment"]["name"] == "clipstudy"
        command = Path(f"/proc/{server.pid}/cmdline")
        if command.exists():
            assert "mlflow.db" not in command.read_text()
    finally:
        server.terminate()
        server.communicate(timeout=60)


def test_ui_says_that_its_port_is_taken(typed: Typed) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = typed("ui", "--port", str(port), code=2).err
    assert f"--port {port}: another program listens there. Type: clipstudy ui --port" in said


def test_a_worker_of_one_study(place: Place, typed: Typed) -> None:
    typed("enqueue", "--task", "phrases", "--model", "bert")
    assert 'no study "smal". Did you mean "small"?' in typed("worker", "--drain", "--study", "smal", code=2).err
    assert totals(typed) == {"queued": 3}


def test_a_range_of_layers_that_is_none_selects_nothing(typed: Typed) -> None:
    typed("enqueue", "--task", "phrases", "--model", "bert")
    for wrong in ("2-1", "²", "1-", "-1", "1-2-3"):
        assert "expected a number or a range" in typed("cancel", f"--layer={wrong}", code=2).err
    for far in ("99999999999999999999", "0-99999999999"):
        assert f'--layer "{far}": no model has more than' in typed("status", "--layer", far, code=2).err
    assert totals(typed) == {"queued": 3}
    assert typed("prioritise", "3", "--layer", "1-2").out == "2 cells changed\n"


def test_numbers_that_no_database_holds_are_said(typed: Typed) -> None:
    far = "99999999999999999999"
    typed("enqueue", "--task", "phrases", "--model", "bert")
    assert "Numbers go from 1 to 3" in typed("show", far, code=2).err
    assert "less than or equal to" in typed("enqueue", "--all", "--priority", far, code=2).err
    assert "less than or equal to" in typed("prioritise", far, "--all", code=2).err


def test_a_dry_run_needs_no_table_and_leaves_none(place: Place, typed: Typed) -> None:
    told = json.loads(typed("enqueue", "--all", "--dry-run", "--json").out)
    assert told["new"] == told["cells"] > 0
    assert not (place.folder / "mlruns" / "clipstudy.db").exists()


def failed(typed: Typed, kind: FailureKind) -> None:
    """Three cells that failed so."""
    typed("enqueue", "--task", "phrases", "--model", "bert")
    engine = dialect.connect(Settings.read().database)
    batch = jobs.claim(engine, "ann", lease=timedelta(minutes=5))
    assert batch is not None
    for job in batch.jobs:
        jobs.fail(engine, job, Failure(kind, "broke", "", retry=False))
    engine.dispose()


def test_lost_means_lost_with_all_too(place: Place, typed: Typed) -> None:
    failed(typed, FailureKind.CODE)
    assert typed("retry", "--lost", "--all").out.startswith("0 cells queued again: none is failed")
    assert typed("retry", "--all").out == "3 cells queued again\n"


def test_a_cancelled_cell_says_why_it_has_no_log(typed: Typed) -> None:
    typed("enqueue", "--task", "phrases", "--model", "bert")
    typed("cancel", "--all")
    said = typed("logs", "1", code=2).err
    assert "job 1 is cancelled and has no log" in said and "clipstudy retry --cancelled" in said
    assert "status      cancelled" in typed("show", "1").out


def test_without_a_study_file_the_demo_is_offered(place: Place, typed: Typed) -> None:
    (place.folder / "tasks.toml").unlink()
    said = typed("enqueue", "--all", code=2).err
    assert "no study file" in said and "pocket" in said and "clipstudy demo" in said


def test_in_a_folder_without_a_study_the_place_looked_at_is_named(place: Place, typed: Typed) -> None:
    for words in (["status"], ["results"]):
        said = typed(*words, code=2).err
        assert str(place.folder) in said and "export CLIPSTUDY_HOME=" in said and "clipstudy init" in said


def test_version(typed: Typed) -> None:
    from clipstudy import __version__

    assert typed("--version").out == f"clipstudy {__version__}\n"


def test_status_on_a_narrow_screen(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names stay in one piece, whatever is counted."""
    typed("enqueue", "--all")
    typed("cancel", "--layer", "0")
    monkeypatch.setenv("COLUMNS", "80")
    assert sum(line.split()[:2] == ["bert-untrained-1", "phrases"] for line in typed("status").out.splitlines()) == 1
    monkeypatch.setenv("COLUMNS", "60")
    lines = [line.rstrip() for line in typed("status").out.splitlines()]
    assert " bert-untrained-1" in lines and sum(line.split()[:1] == ["phrases"] for line in lines) == 3


def test_the_pocket_world(typed: Typed) -> None:
    assert "| transformer |" in typed("pocket", "twins").out
    assert 'Did you mean "bert"' in typed("pocket", "pretrain", "brt", code=2).err


def test_status_of_more_cells_than_lines(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds of task, and the failures as ever."""
    typed("enqueue", "--all")
    engine = dialect.connect(Settings.read().database)
    batch = jobs.claim(engine, "ann", lease=timedelta(minutes=5))
    assert batch is not None
    jobs.fail(engine, batch.jobs[0], Failure(FailureKind.CODE, "broke", "", retry=False))
    engine.dispose()
    monkeypatch.setenv("LINES", "12")
    said = typed("status").out.splitlines()
    assert [line.split()[:3] for line in said[:3]] == [
        ["kind", "queued", "running"],
        ["classify", "6", "2"],
        ["phrase_clusters", "9", "·"],
    ]
    assert "--rows" in said[3] and any("broke" in line for line in said)
    assert len(said) < len(typed("status", "--rows").out.splitlines())
    assert typed("status", "--task", "order").out.split()[:2] == ["model", "task"]  # few enough again


def test_what_is_no_number_of_a_job(typed: Typed) -> None:
    for verb in ("show", "logs"):
        said = typed(verb, "abc", code=2).err
        assert said == 'clipstudy: "abc" is not a job number. To list them, type: clipstudy status --rows\n'
    typed("enqueue", "--model", "bert", "--task", "order")
    for word, listed in (("brt", "--model bert"), ("order", "--task order")):
        said = typed("show", word, code=2).err
        assert said.startswith(f'clipstudy: "{word}" is not a job number. ')
        assert said.endswith(f", type: clipstudy status --rows {listed}\n")
    assert typed("logs", "abc", code=2).err.endswith("To list them, type: clipstudy status --rows\n")


def test_enqueue_tells_at_once_what_a_worker_would_refuse(place: Place, typed: Typed) -> None:
    own = """
[models.own]
source = "torch"
checkpoint = "no_such_package.models:build"
init = "random"
layers = ["stem", "body"]
size = 32
[datasets.pictures]
reader = "images"
path = "./pictures"
[tasks.shapes]
kind = "classify"
dataset = "pictures"
"""
    study = STUDY.replace("layers = 2", "layers = 5") + own
    (place.folder / "tasks.toml").write_text(study)
    said = typed("enqueue", "--all", "--dry-run").err
    assert "[models.bert] layers = 5, but the checkpoint has 2 blocks or stages. Write layers = 2." in said
    assert "[models.own]" in said and "CLIPSTUDY_TORCH_PACKAGES=no_such_package" in said
    assert "[datasets.pictures] path: " in said and "does not exist. In " in said
    assert said.count("warning: a worker here would refuse this: ") == 4  # bert, its two twins' table, own, pictures
    assert "[models.bert-untrained] layers = 5" in said and "bert-untrained-0" not in said
    assert typed("enqueue", "--model", "bert", "--task", "order").err.count("warning") == 1
    (place.folder / "tasks.toml").write_text(STUDY)
    assert typed("enqueue", "--all").err == ""
    lost = STUDY.replace('checkpoint = "./bert"', 'checkpoint = "./nowhere"')
    (place.folder / "tasks.toml").write_text(lost)
    assert "[models.bert] checkpoint: there is no folder" in typed("enqueue", "--all", "--dry-run").err


def test_retry_names_the_cells_that_it_leaves(typed: Typed) -> None:
    failed(typed, FailureKind.LOST)
    assert "clipstudy retry --lost" in typed("status").out
    said = typed("retry", "--failed").out
    assert said.startswith("0 cells queued again: none is failed by an error")
    assert said.endswith("3 cells failed because a worker vanished: clipstudy retry --lost\n")
    assert "failed" in typed("enqueue", "--task", "phrases", "--model", "bert").out
    assert typed("retry", "--failed", "--lost").out == "3 cells queued again\n"


def test_what_may_succeed_later_has_an_exit_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, code in ((DatabaseUnreachable(), 69), (TrackingUnreachable(), 69), (StudyError(), 2)):

        def broken(error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(cli, "app", broken)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == code


TOLD = """
import signal
from clipstudy import cli

def app():
    try:
        {does}
    finally:
        print("tidied up")

signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.{hung_up})
cli.app = app
cli.main()
"""
TERMINATED, HUNG_UP = "signal.raise_signal(signal.SIGTERM)", "signal.raise_signal(signal.SIGHUP)"
GIVES_BACK = "signal.signal(signal.SIGTERM, lambda *_: print('given back'))"


@pytest.mark.parametrize(
    ("does", "hung_up", "code", "said"),
    [
        (TERMINATED, "SIG_DFL", 143, "tidied up\n"),
        (HUNG_UP, "SIG_DFL", 143, "tidied up\n"),
        (HUNG_UP, "SIG_IGN", 0, "tidied up\n"),
        (f"{GIVES_BACK}; {HUNG_UP}; {HUNG_UP}", "SIG_DFL", 0, "given back\ntidied up\n"),
    ],
)
def test_a_signal_ends_no_command_in_the_middle(does: str, hung_up: str, code: int, said: str) -> None:
    program = TOLD.format(does=does, hung_up=hung_up)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (code, said), done.stderr


def test_letters_that_a_terminal_has_not_are_no_error(place: Place) -> None:
    said = place("--help", PYTHONIOENCODING="ascii").stdout
    assert "image?text" in said and said.isascii()


def test_who_reads_no_further_is_told_nothing(place: Place) -> None:
    words = [sys.executable, "-m", "clipstudy", "--version"]
    with subprocess.Popen(words, env=place.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
