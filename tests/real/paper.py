"""`make paper`: the paper's text study on models of full size, with no network but a stand-in of the Hub.

BERT-base, GPT-2 and CLIP ViT-B/32 with random weights and the real tokenizers, a few hundred real rows a data set, are
served over HTTP; `clipstudy fetch` brings them; then the server is stopped and a worker runs with HF_HUB_OFFLINE=1. One
batch of each model by default, `--all` for every cell. The weights are random: only times and sizes mean anything.
Needs 5 GB of disk, under the folder of temporary files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def clipstudy(environment: Mapping[str, str], *words: str) -> None:
    print(f"$ clipstudy {' '.join(words)}", flush=True)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "clipstudy", *words], env={**os.environ, **environment}, cwd=ROOT)
    if done.returncode:
        sys.exit(f"clipstudy {' '.join(words)} failed")
    print(f"  {time.perf_counter() - began:.0f} s\n", flush=True)


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests import paper
    from tests.hub import Hub

    asked = argparse.ArgumentParser(description="The paper's text study on full-size stand-ins.")
    asked.add_argument("--all", action="store_true", help="every cell; else one batch of each model")
    everything = asked.parse_args().all
    real = Path(os.environ.get("CLIPSTUDY_REAL_DATA", ""))
    if not (real / "tokenizers").is_dir():
        sys.exit(
            "CLIPSTUDY_REAL_DATA does not name the folder of real rows. Type: make paper CLIPSTUDY_REAL_DATA=/rows"
        )
    with tempfile.TemporaryDirectory(prefix="clipstudy-paper-") as name:
        folder = Path(name)
        paper.publish(folder / "published", real, paper.FULL)
        environment = {
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "CLIPSTUDY_HOME": str(folder),
            "CLIPSTUDY_CACHE": str(folder / "cache"),
        }
        with Hub(folder / "published").serving() as hub:
            (folder / "tasks.toml").write_text(paper.thinned(hub.root, hub.url, paper.FULL), encoding="utf-8")
            online = {**environment, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
            clipstudy(online, "fetch", "--dry-run")
            clipstudy(online, "fetch")
        offline = {**environment, "HF_HUB_OFFLINE": "1"}
        clipstudy(offline, "fetch", "--verify")
        cells = ["--all"] if everything else [word for model in paper.MODELS for word in ("--model", model)]
        clipstudy(offline, "enqueue", *cells, *([] if everything else ["--task", "bigram_shift"]))
        clipstudy(offline, "worker", "--drain")
        clipstudy(offline, "status")


if __name__ == "__main__":
    main()
