"""Stands for `clipstudy worker` where the supervisor is tested: it lives and dies as the word in ACT says."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

NAME = f"{socket.gethostname()}:{os.getpid()}:fake"


def main(url: str) -> int:
    print(f"{NAME} on a device", flush=True)
    match os.environ["ACT"]:
        case "end":
            print(f"I see {os.environ.get('CUDA_VISIBLE_DEVICES')}", flush=True)
            return 0
        case "crash":
            return 3
        case "wait":
            signal.signal(signal.SIGTERM, lambda *told: sys.exit(0))
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case act:
            return claim(url, act)
    print("ready", flush=True)
    time.sleep(60)
    return 4


def claim(url: str, act: str) -> int:
    """Take a batch and die amid it; or, where nothing is queued, say that all is done."""
    from clipstudy.queue import dialect, jobs
    from tests.queue.samples import LEASE, hand_over

    engine = dialect.connect(url)
    jobs.register(engine, jobs.WorkerInfo(NAME, socket.gethostname(), os.getpid(), "a device"))
    batch = jobs.claim(engine, NAME, lease=LEASE)
    if batch is None:
        return 0
    if act == "hand over one and die":
        hand_over(engine, batch.jobs[0])
    os.kill(os.getpid(), signal.SIGKILL)
    return 5


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
