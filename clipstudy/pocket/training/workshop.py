"""Pretraining several pocket models by one call: a process each, the longest first, and nothing twice."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from clipstudy.errors import ClipstudyError, ModelError, did_you_mean
from clipstudy.pocket.text import wordlist
from clipstudy.pocket.training import batches, evaluation, models, objectives
from clipstudy.pocket.training.pretrain import RECIPES, RECORD, Recipe, pretrain

log = logging.getLogger(__name__)

#: Raise it when equal settings come to give other models (another grammar, another way to draw): old ones are then
#: made again.
METHOD = 1
#: By time at full length, so that the last ones end together.
LONGEST_FIRST = ("clip-vit", "clip-resnet", "vit-pairs", "vit", "gpt2", "resnet", "bert")

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Ready:
    """A model whose checkpoint is in its place."""

    name: str
    folder: Path
    record: Mapping[str, Any]  #: of ``RECORD``
    seconds: float | None  #: that its process took; None: it was there already


def pretrain_all(
    names: Iterable[str],
    folder: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    jobs: int | None = None,
    again: bool = False,
    held: int = evaluation.HELD,
    progress: Progress | None = None,
    on_done: Callable[[Ready], object] | None = None,
) -> list[Ready]:
    """Train each of ``names`` into ``folder/NAME``, in a process of its own with one thread of torch.

    A checkpoint comes into its place whole, with its record. A model that is there already, of the same seed and
    settings, is left alone. A model that fails does not stop the others.

    Args:
        steps: instead of the recipes'.
        jobs: processes at once; as many as there are cores unless said.
        again: train what is there already too.
        held: held-out sentences or pictures behind each figure.
        progress: told (name, steps done, of).
        on_done: told of each model as soon as it is in its place, of those that were there already first. What it
            raises, Ctrl-C included, ends every process.

    Returns:
        The models in the order of ``on_done``.

    Raises:
        ModelError: there is no pocket model of that name, or some could not be trained: which, and why.
        ClipstudyError: ``steps``, ``jobs`` or ``folder`` cannot be used.
    """
    names = _checked(names, steps, jobs)
    ready: list[Ready] = []

    def done(model: Ready) -> None:
        ready.append(model)
        if on_done is not None:
            on_done(model)

    waiting: deque[str] = deque()
    for name in names:
        record = finished(name, folder / name, seed, steps, held)
        if again or record is None:
            _ours(folder / name, again)
            waiting.append(name)
        else:
            done(Ready(name, folder / name, record, None))
    if waiting:
        at_once = jobs or min(_cores(), len(waiting))
        failed = _train_each(
            waiting, folder, at_once, partial(_begin, seed=seed, steps=steps, held=held), progress, done
        )
        if failed:
            raise ModelError(_sentence(failed))
    return ready


def finished(name: str, folder: Path, seed: int, steps: int | None, held: int) -> Mapping[str, Any] | None:
    """The record of the checkpoint in ``folder``, if it is what ``pretrain_all`` would make; else None."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    wanted = {"name": name, "seed": seed, "recipe": asdict(_recipe(name, steps))}
    # A record that ``pretrain`` wrote by itself does not say the rest, and is believed.
    wanted |= {key: value for key, value in _settings(held).items() if key in record}
    same = all(record.get(key) == value for key, value in wanted.items())
    return record if same and any(folder.glob("*.safetensors")) else None


def _train_each(
    waiting: deque[str],
    folder: Path,
    at_once: int,
    begin: Callable[..., _Bench],
    progress: Progress | None,
    done: Callable[[Ready], object],
) -> dict[str, str]:
    """Train those that are ``waiting`` and put each into its place; of those that failed: name → why."""
    failed: dict[str, str] = {}
    with _beside(folder) as beside, _benches() as benches:
        for bench, message in _messages(waiting, benches, at_once, partial(begin, beside=beside)):
            match message:
                case "steps", int(so_far), int(of):
                    if progress is not None:
                        progress(bench.name, so_far, of)
                case "done", *_:
                    record = _put_in_place(beside / bench.name, folder / bench.name)
                    done(Ready(bench.name, folder / bench.name, record, time.monotonic() - bench.began))
                case "failed", str(why):
                    log.error("%s: %s", bench.name, why)
                    failed[bench.name] = why
    return failed


# --- the process


def _train(pipe: Connection, name: str, folder: Path, seed: int, steps: int | None, held: int) -> None:
    """What a process does: tell how far it is, and at last how it ended."""
    torch.set_num_threads(1)
    try:
        pretrain(name, folder, steps, seed, lambda _, done, of: pipe.send(("steps", done, of)), held)
        record = json.loads((folder / RECORD).read_text(encoding="utf-8")) | _settings(held)
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        pipe.send(("done",))
    except BrokenPipeError:
        pass  # whoever asked for this is gone
    except ClipstudyError as error:
        pipe.send(("failed", error.message))
    except Exception:  # told with its traceback, which would be lost with the process
        pipe.send(("failed", traceback.format_exc().strip()))


@dataclass(frozen=True)
class _Bench:
    """A process at work, and the end of its pipe that is heard here."""

    name: str
    process: BaseProcess
    pipe: Connection
    began: float

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def _begin(name: str, beside: Path, seed: int, steps: int | None, held: int) -> _Bench:
    # Spawned: a fork would inherit torch's threads half alive.
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(there, name, beside / name, seed, steps, held), daemon=True)
    with _unheard_interrupts():
        process.start()
    there.close()  # so that the pipe ends with the process
    return _Bench(name, process, here, time.monotonic())


def _messages(
    waiting: deque[str], benches: dict[Connection, _Bench], at_once: int, begin: Callable[[str], _Bench]
) -> Iterator[tuple[_Bench, tuple[Any, ...]]]:
    """What every process tells, as it comes. With its last message a process ends, and the next one begins."""
    while waiting or benches:
        while waiting and len(benches) < at_once:
            bench = begin(waiting.popleft())
            benches[bench.pipe] = bench
        for pipe in connection.wait(list(benches)):
            bench = benches[pipe]  # type: ignore[index]
            message = _told(bench)
            yield bench, message
            if message[0] != "steps":
                del benches[bench.pipe]
                bench.end()


@contextmanager
def _unheard_interrupts() -> Iterator[None]:
    """A terminal sends Ctrl-C to all processes. One that is begun here never hears of it: its caller ends it."""
    resource_tracker.ensure_running()  # the first process would begin it, and with that be made to hear
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _told(bench: _Bench) -> tuple[Any, ...]:
    """Its next message; where it ended without one, that it failed."""
    try:
        message: tuple[Any, ...] = bench.pipe.recv()
    except EOFError:
        bench.process.join()
        code = bench.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return "failed", f"its process ended without a word ({how}). Is there enough memory? Fewer at once need less."
    return message


@contextmanager
def _benches() -> Iterator[dict[Connection, _Bench]]:
    """Whatever happens here, no process is left behind."""
    benches: dict[Connection, _Bench] = {}
    try:
        yield benches
    finally:
        for bench in benches.values():
            bench.end()


# --- the folder


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder for what is not finished yet, on the same disk as ``folder``; gone in the end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".pretraining-", dir=folder))
    except OSError as error:
        raise ClipstudyError(
            f"Checkpoints cannot be written into {folder} ({error.strerror}). Name another: "
            "clipstudy pocket pretrain --folder FOLDER"
        ) from error
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _put_in_place(made: Path, place: Path) -> Mapping[str, Any]:
    """Move ``made`` to ``place``, whole, instead of what is there; its record."""
    if place.exists():
        place.rename(made.with_name(made.name + ".old"))  # a folder with files in it cannot be replaced at one go
    made.rename(place)
    record: dict[str, Any] = json.loads((place / RECORD).read_text(encoding="utf-8"))
    return record


def _ours(place: Path, again: bool) -> None:
    """
    Raises:
        ClipstudyError: at ``place`` there is a checkpoint of other settings, and it was not said that it may go; or
            something that no pretraining has put there.
    """
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if (place / RECORD).is_file():
        if again:
            return
        raise ClipstudyError(
            f"{place} holds a checkpoint of another seed, number of steps or state of the code. To train it anew in "
            "its place, add --again; to keep it, name another folder: clipstudy pocket pretrain --folder FOLDER"
        )
    raise ClipstudyError(
        f"{place} is there and has no {RECORD}, so it is no pocket checkpoint and is left alone. Move it away, or name "
        "another folder: clipstudy pocket pretrain --folder FOLDER"
    )


# --- what is asked


def _checked(names: Iterable[str], steps: int | None, jobs: int | None) -> list[str]:
    """``names`` once each, the longest to train first."""
    wanted = set(names)
    for name in sorted(wanted - set(models.MODELS)):
        raise ModelError(f'There is no pocket model "{name}". {did_you_mean(name, models.MODELS)}')
    for what, number in (("steps", steps), ("jobs", jobs)):
        if number is not None and number < 1:
            raise ClipstudyError(f"{what} is {number}, expected 1 or more. Type: clipstudy pocket pretrain --{what} 1")
    return sorted(wanted, key=LONGEST_FIRST.index)


def _recipe(name: str, steps: int | None) -> Recipe:
    return RECIPES[name] if steps is None else replace(RECIPES[name], steps=steps)


def _settings(held: int) -> dict[str, Any]:
    """What a record says besides: ``held``, and a digest of ``METHOD``, the words and every plain constant of the
    modules that make up data, models, objectives and figures."""
    constants = [
        (f"clipstudy.pocket.{module.__name__.rpartition('.')[2]}", name, value)  # in whichever folder of it
        for module in (batches, evaluation, models, objectives)
        for name, value in sorted(vars(module).items())
        if name.isupper() and isinstance(value, int | float | str | tuple | dict) and _is_plain(value)
    ]
    text = json.dumps([METHOD, wordlist.tokens(), constants], sort_keys=True)
    return {"held": held, "settings": hashlib.sha256(text.encode()).hexdigest()[:16]}


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _cores() -> int:
    """Those that this process may use, where the system can tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _sentence(failed: Mapping[str, str]) -> str:
    # The last line of a traceback says what it was; all of it is in the log.
    whys = " ".join(f"{name}: {why.splitlines()[-1]}" for name, why in failed.items())
    return (
        f"Not trained: {', '.join(failed)}. {whys} "
        "Fix that, then type: clipstudy pocket pretrain (what is done is not done again)"
    )
