"""Several workers on one machine, a process each: started, kept at work, given up, told to stop.

What a worker does is the worker's. Here it is known how a process ended, which neither the queue nor the worker itself
can know: what a dead one held is taken back at once, not when its lease runs out. Where this process itself is killed,
its workers go on, each by itself.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Protocol

from clipstudy.device import Gpu
from clipstudy.errors import AWAY, ECHO, DatabaseUnreachable, DeviceError
from clipstudy.job import Job, Status
from clipstudy.queue import jobs
from clipstudy.wording import counted

if TYPE_CHECKING:
    from sqlalchemy import Engine

COMMAND = (sys.executable, "-m", "clipstudy", "worker")
#: Of a draining worker that a signal stopped before the queue was empty (EX_TEMPFAIL of sysexits.h).
STOPPED = 75
#: Exit codes with which a worker says that it is done; its other ends are crashes. 2: something that a user must mend.
#: Of a draining one also 1: cells failed, or MLflow took nothing.
DELIBERATE = (0, 2, STOPPED)
#: Seconds for which the job table may be asked later than a worker's end is noticed.
_LATE = 60.0


@dataclass(frozen=True)
class Post:
    """Where one worker works."""

    name: str  #: for people
    words: tuple[str, ...]  #: of its command
    environment: Mapping[str, str] = field(default_factory=dict)  #: beside this process's own


@dataclass(frozen=True)
class Pace:
    """How crashes are borne. Times in seconds."""

    first: float = 1.0  #: wait before a new start; doubles with each strike
    longest: float = 60.0
    #: Strikes in a row after which a post is given up. A crash amid cells of a group that crashed here before is none:
    #: the queue counts those, and fails a cell that is poison after its own tries.
    strikes: int = 5
    steady: float = 3600.0  #: a worker that lived so long, or handed a cell over, begins with no strikes
    grace: float = 10.0  #: between the second word to stop and a kill
    look: float = 0.5  #: between two looks


def chosen(asked: str, here: Sequence[Gpu]) -> list[Gpu]:
    """``all``, or numbers with commas between them, as GPUs that are ``here``.

    Raises:
        DeviceError: it is neither, or one of them is not here; says what is.
    """
    there = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in here) or "none (torch sees no CUDA device)"
    instead = "clipstudy worker --gpu all" if here else "clipstudy worker --device cpu"
    if asked.strip() == "all":
        if not here:
            raise DeviceError(f"--gpu all: GPUs here: {there}. Type: {instead}")
        return list(here)
    numbers = [part.strip() for part in asked.split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise DeviceError(f'--gpu "{asked}": expected 0, or 0,1, or all. GPUs here: {there}. Type: {instead}')
    wanted = [int(number) for number in numbers]
    if twice := sorted({number for number in wanted if wanted.count(number) > 1}):
        raise DeviceError(f'--gpu "{asked}" names {twice[0]} twice; a GPU has one worker. Name each once.')
    by_number = {gpu.index: gpu for gpu in here}
    if unknown := [number for number in wanted if number not in by_number]:
        raise DeviceError(f'--gpu "{asked}": no GPU {unknown[0]}. GPUs here: {there}. Type: {instead}')
    return [by_number[number] for number in wanted]


def on_gpus(gpus: Iterable[Gpu], room: int) -> tuple[list[Post], list[str]]:
    """A post on each GPU that has ``room`` bytes free, and what is to be said of each that has not.

    Each worker sees its own GPU alone, so that no library takes memory on another.
    """
    posts, left_out = [], []
    for gpu in gpus:
        if gpu.free < room:
            free = f"{gpu.free / 2**30:.1f} of {gpu.total / 2**30:.1f} GiB free"
            left_out.append(f"GPU {gpu.index} ({gpu.name}) is left out: {free}, expected {room / 2**30:.1f}")
            continue
        seen = {"CUDA_VISIBLE_DEVICES": gpu.visible_as}
        posts.append(Post(f"gpu {gpu.index}", ("--device", "cuda:0"), seen))
    return posts, left_out


def alike(number: int, device: str, threads: int | None = None) -> list[Post]:
    """``number`` posts on one device. On the CPU they share its cores, where ``threads`` does not say how many each."""
    words: tuple[str, ...] = ("--device", device)
    environment = {}
    if device == "cpu":
        each = threads or max(1, (os.cpu_count() or 1) // number)
        words += ("--threads", str(each))
        # glibc gives each thread memory of its own to allocate from and keeps what it frees: the threads that write and
        # beat made a worker a tenth larger.
        environment = {"OMP_NUM_THREADS": str(each), "MALLOC_ARENA_MAX": "1"}
    return [Post(f"worker {k + 1}", words, environment) for k in range(number)]


class Say(Protocol):
    """Takes a line that belongs to a post: its worker's own, or about it."""

    def __call__(self, post: str, line: str) -> None: ...


@dataclass
class _Staffed:
    """A post and who is on it."""

    post: Post
    process: subprocess.Popen[str] | None = None
    reader: threading.Thread | None = None
    began: float = 0.0
    start_at: float = 0.0
    worker: str | None = None  #: its name in the job table, which it says first
    strikes: set[object] = field(default_factory=set)
    code: int | None = None  #: with which the post is done
    failed: bool = False  #: whether a worker that crashed here left failed cells


class Crew:
    """A worker on each post, until all have said that they are done, or are given up."""

    def __init__(
        self,
        posts: Sequence[Post],
        engine: Engine,
        words: Sequence[str],
        say: Say,
        *,
        command: Sequence[str] = COMMAND,
        pace: Pace | None = None,
    ) -> None:
        self.engine, self.command, self.say, self.pace = engine, [*command, *words], say, pace or Pace()
        self.draining = "--drain" in words
        self.stopping = 0  #: how often it was told to
        self._kill_at, self._told_at = float("inf"), float("-inf")
        self._words: queue.SimpleQueue[None] = queue.SimpleQueue()  # to stop
        self._staff = [_Staffed(post) for post in posts]

    def work(self) -> int:
        """Tend until nobody is at work; the highest exit code of any post (1 where one was given up)."""
        while self.tend():
            self._listen(self.pace.look)
        return self.code

    @property
    def code(self) -> int:
        """The highest exit code of the posts that are done; of a draining crew no less than 1 where cells failed."""
        return max((one.code or int(self.draining and one.failed) for one in self._staff), default=0)

    @property
    def _stopped(self) -> int:
        """What a worker says that was told to stop."""
        return STOPPED if self.draining else 0

    def tend(self) -> bool:
        """One look at every post: who ended is taken note of, who crashed starts anew when it is time. False: nobody is
        at work any more."""
        self._listen(0)
        for one in self._staff:
            if one.process is None:
                if one.code is None and self.stopping:
                    one.code = self._stopped
                elif one.code is None and time.monotonic() >= one.start_at:
                    self._start(one)
            elif one.process.poll() is not None:
                self._ended(one, one.process.returncode)
            elif time.monotonic() >= self._kill_at:
                one.process.kill()
        return any(one.code is None for one in self._staff)

    def stop(self) -> None:
        """Workers give back what they hold, and leave. Told twice: they wait for nothing, and have ``grace`` seconds;
        told three times, they are killed.

        It is done at the next look. Signal handlers may say it: they run amid whatever is done here, the start of a
        worker or the wait for one, and a SimpleQueue is made for that.
        """
        self._words.put(None)

    def _listen(self, seconds: float) -> None:
        """Do what was said; wait up to ``seconds`` for a word."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._words.get(timeout=seconds)
                seconds = 0
                self._pass_on()

    def _pass_on(self) -> None:
        self.stopping += 1
        if self.stopping > 1:
            # What comes at once is no second word to a worker.
            time.sleep(max(0.0, self._told_at + 1.1 * ECHO - time.monotonic()))
            self._kill_at = time.monotonic() + self.pace.grace * (self.stopping == 2)
        self._told_at = time.monotonic()
        for one in self._staff:
            if one.process is not None and one.process.poll() is None:
                one.process.terminate()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()
        self.work()

    def _start(self, one: _Staffed) -> None:
        one.worker, one.began = None, time.monotonic()
        one.process = subprocess.Popen(
            [*self.command, *one.post.words],
            env={**os.environ, **one.post.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us to pass on: told twice they would not give back in peace
        )
        one.reader = threading.Thread(target=self._read, args=(one, one.process.stdout), daemon=True)
        one.reader.start()

    def _read(self, one: _Staffed, lines: IO[str]) -> None:
        assert one.process is not None
        named = re.compile(rf"({re.escape(socket.gethostname())}:{one.process.pid}:\S+) on ")
        for line in lines:
            if one.worker is None and (found := named.match(line)):
                one.worker = found[1]
            with contextlib.suppress(OSError, ValueError):  # nobody listens any more; the worker must not wait for it
                self.say(one.post.name, line.rstrip("\n"))

    def _ended(self, one: _Staffed, code: int) -> None:
        if one.reader is not None:
            one.reader.join(5)  # whoever it started may still hold the other end
        lived, one.process = time.monotonic() - one.began, None
        lost, ends = self._bury(one.worker, lived)
        one.failed |= Status.FAILED in ends
        if code in DELIBERATE or (code == 1 and self.draining) or self.stopping:
            one.code = self._exit_code(code)
            return
        if code == AWAY:  # through no fault of the post's, and for as long as it takes
            one.start_at = time.monotonic() + self.pace.longest
            self.say(one.post.name, f"the databases are away: started again in {self.pace.longest:.0f} s")
            return
        held = sorted({f"{job.model} · {job.task}" for job in lost})
        amid = ""
        if lost:
            amid = f" amid {counted(len(lost), 'cell')} of {', '.join(held)}, which are tried again or failed"
        if ends & {Status.COMPUTED, Status.DONE} or lived >= self.pace.steady:
            one.strikes.clear()
        one.strikes |= {job.group_id for job in lost} or {object()}
        if len(one.strikes) >= self.pace.strikes:
            one.code = 1
            again = f"given up: {self.pace.strikes} crashes without a cell in between; what it said is above"
        else:
            wait = min(self.pace.first * 2 ** (len(one.strikes) - 1), self.pace.longest)
            one.start_at = time.monotonic() + wait
            again = f"started again in {wait:.0f} s"
        self.say(one.post.name, f"the worker {_how(code)}{amid}: {again}")

    def _exit_code(self, code: int) -> int:
        """A worker's end as a shell has it: 128 + the signal's number where one killed it."""
        if self.stopping and code in (-signal.SIGTERM, 128 + signal.SIGTERM):
            return self._stopped  # it met the worker before it could listen
        return code if code >= 0 else 128 + abs(code)

    def _bury(self, worker: str | None, lived: float) -> tuple[list[Job], set[Status]]:
        """What it held, taken back; and the statuses of what ended with it in the seconds that it lived."""
        if worker is None:
            return [], set()
        try:
            lost = jobs.bury(self.engine, worker)
            ends = jobs.ended_by(self.engine, worker, timedelta(seconds=lived + _LATE))
            jobs.forget(self.engine, worker)
        except DatabaseUnreachable:  # then its leases run out
            return [], set()
        return lost, ends


def obey_signals(crew: Crew) -> None:
    """SIGTERM, SIGUSR1 and SIGINT are words to stop."""

    def on_signal(number: int, frame: object) -> None:
        crew.stop()

    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, on_signal)


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    why = ", as the kernel does where memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{why}"
