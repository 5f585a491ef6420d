"""`--help`, `enqueue --all` and `status` answer at once: nothing heavy is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.acceptance.conftest import Place

HEAVY = [
    "torch",
    "mlflow",
    "sklearn",
    "scipy",
    "numpy",
    "pandas",
    "transformers",
    "open_clip",
    "timm",
    "datasets",
    "plotly",
    "dash",
    "alembic",
]
PROGRAM = """
import sys
from clipstudy import cli
sys.argv[1:] = {words!r}
try:
    cli.main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("HEAVY:", *sorted(set({heavy!r}) & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "words", [["--help"], ["enqueue", "--all"], ["status"], ["status", "--json"], ["status", "--rows"]]
)
def test_light(place: Place, words: list[str]) -> None:
    place("enqueue", "--all")
    program = PROGRAM.format(words=words, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "HEAVY:", done.stdout


def test_quick_beside_python_itself(place: Place) -> None:
    """Half a second on an idle machine; here as a ratio to starting Python, and of the processor's time, since the
    machine may be busy."""
    place("enqueue", "--all")

    def seconds(*command: str) -> float:
        took = []
        for _ in range(3):
            process = subprocess.Popen(command, cwd=place.folder, env=place.env(), stdout=subprocess.DEVNULL)
            _, process.returncode, used = os.wait4(process.pid, 0)
            assert process.returncode == 0
            took.append(used.ru_utime + used.ru_stime)
        return min(took)

    bare = seconds(sys.executable, "-c", "import sqlalchemy, typer, rich.table")
    for words in (["--help"], ["enqueue", "--all"], ["status"]):
        assert seconds(sys.executable, "-m", "clipstudy", *words) < 3 * bare + 0.2, words


WHILE_WORKERS_RUN = """
import sys
from contextlib import contextmanager
from clipstudy import demo, progress
from clipstudy.pocket.baskets import Sizes
from clipstudy.settings import Settings

@contextmanager
def workers(settings, engine, device):
    print("HEAVY:", *sorted({"torch", "mlflow", "sklearn", "pandas", "plotly", "dash"} & set(sys.modules)))
    with demo.Crew([], engine, [], print) as crew:
        yield crew

demo._workers, demo.SIZES = workers, Sizes(20, 10, 20)
demo.run(Settings.read(), full=False, device="cpu", progress=progress.for_stderr())
"""


def test_the_demonstration_leaves_the_memory_to_its_workers(place: Place) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WHILE_WORKERS_RUN],
        cwd=place.folder,
        env=place.env(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["HEAVY:"], done.stdout
