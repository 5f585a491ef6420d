"""`make paper`: the paper's study on models of full size, with no network but a stand-in of the Hub.

Its models with random weights and the real tokenizers, a few hundred real rows a data set, are served over HTTP;
`clipstudy fetch` brings them; then the server is stopped and a worker runs with HF_HUB_OFFLINE=1. Texts, or with
`--images` pictures. Of texts one batch of each model by default, of pictures every task kind once, `--all` for every
cell. The weights are random: only times and sizes mean anything. Needs 5 GB of disk, in the folder of temporary files.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: What of the text study is run: words of `clipstudy enqueue`. One batch of each model.
TEXTS = ["--model bert --model gpt2 --model clip-text --task bigram_shift"]
#: Of the image study: every task kind, on a residual network and a transformer of each library.
IMAGES = [
    "--model clip-rn50 --model rn50 --model clip-vit --model dino --task cifar100 --task reconstruct",
    "--model clip-rn50 --model clip-vit --task cifar100-zero-shot",
    "--model clip-rn50 --model rn50 --task visualise",
    "--model clip-vit --model dino --task attend",
]


def clipstudy(environment: Mapping[str, str], *words: str) -> None:
    print(f"$ clipstudy {' '.join(words)}", flush=True)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "clipstudy", *words], env={**os.environ, **environment}, cwd=ROOT)
    if done.returncode:
        sys.exit(f"clipstudy {' '.join(words)} failed")
    print(f"  {time.perf_counter() - began:.0f} s\n", flush=True)


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests import paper, paper_images
    from tests.hub import Hub

    asked = argparse.ArgumentParser(description="The paper's study on full-size stand-ins.")
    asked.add_argument("--images", action="store_true", help="its image study, not its text study")
    asked.add_argument("--all", action="store_true", help="every cell")
    words = asked.parse_args()
    real = Path(os.environ.get("CLIPSTUDY_REAL_DATA", ""))
    if not (real / "tokenizers").is_dir():
        sys.exit(
            "CLIPSTUDY_REAL_DATA does not name the folder of real rows (docs/real-rows.md says what is in it). Type: "
            "make paper CLIPSTUDY_REAL_DATA=FOLDER"
        )
    with tempfile.TemporaryDirectory(prefix="clipstudy-paper-") as name:
        folder = Path(name)
        if words.images:
            paper_images.publish(folder / "published", real, paper_images.FULL)
        else:
            paper.publish(folder / "published", real, paper.FULL)
        environment = {
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "CLIPSTUDY_HOME": str(folder),
            "CLIPSTUDY_CACHE": str(folder / "cache"),
        }
        with Hub(folder / "published").serving() as hub:
            if words.images:
                study = paper_images.thinned(paper_images.FULL)
            else:
                study = paper.thinned(hub.root, hub.url, paper.FULL)
            (folder / "tasks.toml").write_text(study, encoding="utf-8")
            online = {**environment, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
            clipstudy(online, "fetch", "--dry-run")
            clipstudy(online, "fetch")
        offline = {**environment, "HF_HUB_OFFLINE": "1"}
        clipstudy(offline, "fetch", "--verify")
        for cells in ["--all"] if words.all else IMAGES if words.images else TEXTS:
            clipstudy(offline, "enqueue", *cells.split())
        clipstudy(offline, "worker", "--drain")
        clipstudy(offline, "status")
        # Of all the commands above, and a worker's is the largest.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(f"peak memory of a worker: {peak / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
