"""Who is started, who starts anew, who is given up, who is told to stop. The workers are stand-ins; that they are
processes, how they die, and the table are real. No GPU is: what they would see is looked at."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from clipstudy import device
from clipstudy.device import Gpu
from clipstudy.errors import DeviceError
from clipstudy.job import FailureKind, Status
from clipstudy.queue import dialect, jobs
from clipstudy.supervisor import Crew, Pace, Post, alike, chosen, obey_signals, on_gpus
from tests.queue import processes
from tests.queue.processes import another
from tests.queue.samples import cells, come_due, group, statuses

QUICK = Pace(first=0.01, longest=0.02, strikes=3, grace=0.2, look=0.05)
GB = 2**30
TWO = (Gpu(0, "H100", 70 * GB, 80 * GB), Gpu(1, "H100", GB // 2, 80 * GB))


@pytest.fixture
def table(tmp_path: Path, migrated_file: Path) -> Iterator[Engine]:
    shutil.copy(migrated_file, tmp_path / "jobs.db")
    engine = dialect.connect(f"sqlite:///{tmp_path / 'jobs.db'}")
    yield engine
    engine.dispose()


class Heard(list[tuple[str, str]]):
    def __call__(self, post: str, line: str) -> None:
        self.append((post, line))

    def of(self, post: str) -> str:
        return "\n".join(line for who, line in self if who == post)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def crew(engine: Engine, heard: Heard, *acts: str, words: tuple[str, ...] = (), **environment: str) -> Crew:
    """One post an act: a, b, …"""
    command = [sys.executable, "-m", "tests.queue.fake_worker", str(engine.url)]
    posts = [Post(name, (), {"ACT": act, **environment}) for name, act in zip("abc", acts, strict=False)]
    return Crew(posts, engine, words, heard, command=command, pace=QUICK)


def until(true: Callable[[], bool], of: Crew) -> None:
    end = time.monotonic() + 60
    while not true():
        assert of.tend() and time.monotonic() < end
        time.sleep(0.02)


def test_a_process_each(table: Engine, heard: Heard) -> None:
    assert crew(table, heard, "end", "end", CUDA_VISIBLE_DEVICES="7").work() == 0
    assert {post for post, _ in heard} == {"a", "b"}
    assert "I see 7" in heard.of("a") and "I see 7" in heard.of("b")


def test_a_crash_loop_ends(table: Engine, heard: Heard) -> None:
    """Each start is later than the one before; the others are none the worse for it."""
    assert crew(table, heard, "crash", "end").work() == 1
    assert heard.of("a").count("ended with exit code 3: started again in") == 2
    assert "given up: 3 crashes without a cell in between" in heard.of("a")
    assert heard.of("b").count(" on a device") == 1


def test_a_draining_workers_own_words_are_no_crash(table: Engine, heard: Heard) -> None:
    from clipstudy import supervisor

    assert {0, 2, 75} == set(supervisor.DELIBERATE)
    for words, starts in (((), 3), (("--drain",), 1)):
        heard.clear()
        command = [sys.executable, "-c", "import sys; print('here'); sys.exit(1)"]
        assert Crew([Post("a", ())], table, words, heard, command=command, pace=QUICK).work() == 1
        assert heard.of("a").count("here") == starts


def test_databases_that_are_away_are_no_fault_of_a_post(table: Engine, heard: Heard) -> None:
    """However long it takes: it is not given up for that."""
    command = [sys.executable, "-c", "import sys; sys.exit(69)"]
    tended = Crew([Post("a", ())], table, ["--drain"], heard, command=command, pace=replace(QUICK, longest=0.05))
    until(lambda: heard.of("a").count("the databases are away: started again") > 2 * QUICK.strikes, tended)
    assert "given up" not in heard.of("a")
    tended.stop()
    assert tended.work() == 75


def test_who_was_told_to_stop_before_it_could_listen_stopped(table: Engine, heard: Heard) -> None:
    """By what every command makes of the signal."""
    script = (
        "import signal, sys; signal.signal(15, lambda *_: sys.exit(143)); print('ready', flush=True); signal.pause()"
    )
    for words, code in ((["--drain"], 75), ([], 0)):
        heard.clear()
        tended = Crew([Post("a", ())], table, words, heard, command=[sys.executable, "-c", script], pace=QUICK)
        until(lambda: "ready" in heard.of("a"), tended)
        tended.stop()
        assert tended.work() == code


def test_a_bug_is_a_crash_also_where_it_drains(table: Engine, heard: Heard) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit(70)"]
    assert Crew([Post("a", ())], table, ["--drain"], heard, command=command, pace=QUICK).work() == 1
    assert heard.of("a").count("ended with exit code 70: started again") == QUICK.strikes - 1


def test_what_a_killed_worker_held_is_taken_back_at_once(table: Engine, heard: Heard) -> None:
    """Its lease would run for five minutes."""
    jobs.enqueue(table, cells(group(blocks=1)))
    tended = crew(table, heard, "die amid a batch")
    until(lambda: "was killed by SIGKILL" in heard.of("a"), tended)
    assert "amid 2 cells of bert · depth, which are tried again" in heard.of("a")
    rows = jobs.rows(table)
    assert {(job.status, job.failure, job.tries) for job in rows} == {(Status.QUEUED, FailureKind.LOST, 1)}
    assert jobs.workers(table) == []
    tended.stop()
    assert tended.work() == 0


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--drain",), 1)])
def test_poison_costs_its_own_tries_and_no_worker(
    table: Engine, heard: Heard, words: tuple[str, ...], code: int
) -> None:
    """More crashes than strikes, all amid one group: the queue fails its cells, and the post stays. Whoever waits for a
    draining crew hears of them, though its last worker saw none fail."""
    jobs.enqueue(table, cells(group(blocks=1)), max_tries=2)
    tended = crew(table, heard, "die amid a batch", words=words)
    while tended.tend():
        come_due(table)
        time.sleep(0.02)
    assert tended.code == code and "given up" not in heard.of("a")
    assert heard.of("a").count("SIGKILL") == 3  # the batch, then each by itself
    assert statuses(table) == [Status.FAILED] * 2


def test_a_device_that_kills_whatever_it_is_given_is_given_up(table: Engine, heard: Heard) -> None:
    jobs.enqueue(table, cells(*(group(f"m{k}", blocks=1) for k in range(5))))
    assert crew(table, heard, "die amid a batch").work() == 1
    assert len({job.group_id for job in jobs.rows(table) if job.attempt}) == 3
    assert statuses(table) == [Status.QUEUED] * 10  # nothing of it is failed for good


def test_a_cell_in_between_clears_the_strikes(table: Engine, heard: Heard) -> None:
    jobs.enqueue(table, cells(*(group(f"m{k}", blocks=1) for k in range(5))))
    assert crew(table, heard, "hand over one and die").work() == 0
    assert heard.of("a").count("SIGKILL") >= 5
    assert statuses(table)[::2] == [Status.COMPUTED] * 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on(table: Engine, heard: Heard, number: signal.Signals) -> None:
    tended = crew(table, heard, "wait", "wait")
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        obey_signals(tended)
        until(lambda: [line for _, line in heard].count("ready") == 2, tended)
        began = time.monotonic()
        os.kill(os.getpid(), number)
        assert tended.work() == 0
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
    assert time.monotonic() - began < 20 and tended.stopping == 1


def test_a_word_amid_a_start_reaches_who_is_started(
    table: Engine, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    tended = crew(table, heard, "wait")

    class Interrupted(subprocess.Popen[str]):
        def __init__(self, *words: Any, **named: Any) -> None:
            super().__init__(*words, **named)
            tended.stop()

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    until(lambda: tended.stopping == 1, tended)
    began = time.monotonic()
    assert tended.work() == 0 and time.monotonic() - began < 30  # else it would work on for a minute


def test_however_signals_meet_the_loop_they_are_heard() -> None:
    """A handler runs amid the loop's own waiting, and must not wait for what that holds."""
    with another(processes.stop_crews, 300) as (process, _):
        process.join(60)
        assert process.exitcode == 0


def test_told_twice_it_is_not_asked_again(table: Engine, heard: Heard) -> None:
    tended = crew(table, heard, "stubborn")
    until(lambda: "ready" in heard.of("a"), tended)
    tended.stop()
    assert tended.tend()
    tended.stop()
    assert tended.work() == 128 + signal.SIGKILL


def test_leaving_the_block_stops_all(table: Engine, heard: Heard) -> None:
    with pytest.raises(ZeroDivisionError), crew(table, heard, "wait") as tended:
        until(lambda: "ready" in heard.of("a"), tended)
        raise ZeroDivisionError
    assert not tended.tend()


def test_which_gpus() -> None:
    assert chosen("all", TWO) == chosen("0,1", TWO) == list(TWO)
    assert chosen("1", TWO) == [TWO[1]]
    for garbled in ("x", "0;1", "0,", "", "-1", "²"):
        with pytest.raises(DeviceError, match=r"expected 0, or 0,1, or all\. GPUs here: 0 \(H100\), 1 \(H100\)\."):
            chosen(garbled, TWO)
    with pytest.raises(
        DeviceError, match=r"no GPU 4\. GPUs here: 0 \(H100\), 1 \(H100\)\. Type: clipstudy worker --gpu"
    ):
        chosen("0,4", TWO)
    with pytest.raises(DeviceError, match="names 1 twice"):
        chosen("1,0,1", TWO)
    for asked in ("all", "0,1"):
        with pytest.raises(
            DeviceError, match=r"none \(torch sees no CUDA device\)\. Type: clipstudy worker --device cpu"
        ):
            chosen(asked, ())


def test_each_sees_its_own_gpu_and_a_full_one_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    posts, left_out = on_gpus(TWO, GB // 4)
    assert [post.environment["CUDA_VISIBLE_DEVICES"] for post in posts] == ["0", "1"] and not left_out
    assert {post.words for post in posts} == {("--device", "cuda:0")}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-5f3a")  # what a cluster gave
    posts, left_out = on_gpus(TWO, 2 * GB)
    assert [post.environment["CUDA_VISIBLE_DEVICES"] for post in posts] == ["4"]
    assert left_out == ["GPU 1 (H100) is left out: 0.5 of 80.0 GiB free, expected 2.0"]
    assert TWO[1].visible_as == "GPU-5f3a"


def test_how_workers_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (device.registered("cuda:0"), device.registered("cpu")) == ("cuda:0", "cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert (device.registered("cuda:0"), device.registered("cpu")) == ("cuda:0 (GPU 3)", "cpu")


def test_several_on_the_cpu_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [post.words for post in alike(3, "cpu")] == [("--device", "cpu", "--threads", "2")] * 3
    assert alike(2, "cpu", threads=1)[0].environment["OMP_NUM_THREADS"] == "1"
    assert [post.words for post in alike(2, "mps")] == [("--device", "mps")] * 2
