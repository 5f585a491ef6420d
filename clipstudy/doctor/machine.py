"""What this machine is like: packages, devices, places and their room, the Hub, the two stores, the clocks."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from clipstudy import device as devices
from clipstudy.doctor.finding import Finding, Level
from clipstudy.errors import ClipstudyError, DeviceError
from clipstudy.queue import dialect, migration
from clipstudy.queue.schema import HEAD, jobs
from clipstudy.redaction import redact
from clipstudy.settings import Settings
from clipstudy.tracking import Tracking, store
from clipstudy.tracking.entry import PACKAGES

if TYPE_CHECKING:
    from sqlalchemy import Engine

OK, WARNING, WRONG = Level.OK, Level.WARNING, Level.WRONG

#: Free bytes of a place: below the first nothing can be computed, below the second not for long.
FULL, SCARCE = 2**30, 10 * 2**30
#: Seconds that the Hub has for its answer.
PATIENCE = 3.0
#: Seconds by which clocks may differ before it is said.
SKEW = 2.0


def packages() -> Iterator[Finding]:
    """Are all that clipstudy needs here, in versions that it takes?"""
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(line) for line in requires("clipstudy") or ()]
    except PackageNotFoundError:
        yield Finding(WARNING, "packages", "clipstudy runs uninstalled; what it needs is not checked", "pip install .")
        return
    bad = []
    for one in needed:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(one.name)
        except PackageNotFoundError:
            found = ""
        if not found or not one.specifier.contains(found, prereleases=True):
            bad.append(one)
            here = f"{found} is here" if found else "is not here"
            wanted = str(one.specifier)
            says = f"{one.name} {here}, expected {wanted}"
            yield Finding(WRONG, "packages", says, f"pip install '{one.name}{wanted}'")
    if not bad:
        known = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
        yield Finding(OK, "packages", f"{known}: as required")


def device(settings: Settings, survey: Callable[[], Iterable[devices.Gpu]] = devices.gpus) -> Iterator[Finding]:
    """Is the device that workers take here, and are there GPUs that torch does not see?"""
    try:
        place = devices.find(settings.device)
        yield Finding(OK, "device", f"{devices.described(place)}, as CLIPSTUDY_DEVICE={settings.device} says")
        found = tuple(survey()) if place.startswith("cuda") else ()
    except DeviceError as error:
        yield Finding(WRONG, "device", error.message)
        found = ()
    for gpu in found:
        room = f"{gpu.free / 2**30:.1f} of {gpu.total / 2**30:.1f} GiB free"
        yield Finding(OK, "device", f"cuda:{gpu.index} ({gpu.name}): {room}")
    if not found and shutil.which("nvidia-smi") and not devices.find("auto").startswith("cuda"):
        yield Finding(
            WARNING,
            "device",
            "there is an NVIDIA driver here, and torch sees no GPU: a CPU build, a driver too old for it, or "
            "CUDA_VISIBLE_DEVICES",
            "nvidia-smi; python -c 'import torch; print(torch.version.cuda)'",
        )


def places(settings: Settings) -> Iterator[Finding]:
    """Can what is computed be written, and is there room?"""
    from huggingface_hub import constants

    where = {"CLIPSTUDY_CACHE": settings.cache, "HF_HOME": Path(constants.HF_HOME)}
    if (file := store.sqlite_file(settings.database)) is not None:
        where = {"CLIPSTUDY_DATABASE": file.parent, **where}
    if urlsplit(settings.tracking).scheme not in store.SERVERS and "://" not in settings.artifacts:
        where = {**where, "CLIPSTUDY_ARTIFACTS": Path(settings.artifacts)}
    for variable, folder in where.items():
        yield place(variable, folder)


def place(variable: str, folder: Path) -> Finding:
    """Can ``folder``, or the one that it will be made in, be written to?"""
    elsewhere = "sqlite:///ANOTHER_FOLDER/clipstudy.db" if variable == "CLIPSTUDY_DATABASE" else "ANOTHER_FOLDER"
    try:
        there = folder
        while not there.exists() and there != there.parent:
            there = there.parent
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as error:
        return Finding(
            WRONG, "disk", f"{folder} cannot be written to ({error.strerror})", f"export {variable}={elsewhere}"
        )
    free = shutil.disk_usage(there).free
    says = f"{folder}: {free / 1e9:,.1f} GB free" + ("" if there == folder else ", will be made")
    if free >= SCARCE:
        return Finding(OK, "disk", says)
    return Finding(WRONG if free < FULL else WARNING, "disk", says, f"make room, or export {variable}={elsewhere}")


def hub() -> Finding:
    """Does the Hub answer, where it may be asked?"""
    import urllib.error
    import urllib.request

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Finding(OK, "Hub", f"not asked (HF_HUB_OFFLINE): workers read what is in {constants.HF_HOME}")
    endpoint = constants.ENDPOINT
    troubles: list[str] = []  # one, empty where the Hub answers; none where nothing came of it

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=PATIENCE).close()
            troubles.append("")
        except urllib.error.HTTPError as error:  # it answers, whatever it says
            troubles.append("" if error.code < 500 else f"HTTP {error.code}")
        except (OSError, ValueError) as error:
            troubles.append(str(getattr(error, "reason", error)) or type(error).__name__)

    began = time.monotonic()
    asking = threading.Thread(target=ask, daemon=True)  # looking up a name knows no time-out
    asking.start()
    asking.join(PATIENCE + 0.5)
    took = time.monotonic() - began
    if troubles and not troubles[0]:
        return Finding(OK, "Hub", f"{redact(endpoint)} answers ({took:.1f} s)")
    why = troubles[0] if troubles else f"no answer within {PATIENCE:.0f} s"
    return Finding(
        WARNING,
        "Hub",
        redact(f"HEAD {endpoint}: {why}. What is not in {constants.HF_HOME} cannot be read"),
        "on a machine with network: clipstudy fetch; here: export HF_HUB_OFFLINE=1",
    )


def table(engine: Engine) -> Iterator[Finding]:
    """Does the job table answer, is it this version's, may it be written to, and what time is it there?

    Where it cannot be used at all the last finding is wrong, and nothing else is asked of it.
    """
    where = redact(engine.url.render_as_string(hide_password=True))
    try:
        migration.check(engine)
        before = time.time()
        there = dialect.now(engine)
        after = time.time()
        with dialect.writing(engine) as connection:  # changes no row, and needs the right to
            connection.execute(jobs.update().where(jobs.c.id < 0).values(priority=0))
    except ClipstudyError as error:
        yield Finding(WRONG, "job table", error.message)
        return
    yield Finding(OK, "job table", f"{where}, version {HEAD}, may be written to")
    yield clock(there, before, after)


def clock(there: datetime, before: float, after: float) -> Finding:
    """The database's clock, read between two looks at this machine's (seconds since 1970)."""
    earliest, latest = there.timestamp() - after, there.timestamp() - before
    ahead = min(max(earliest, 0.0), latest) if latest > 0 else latest
    if abs(ahead) <= SKEW:
        return Finding(OK, "clock", "the database's and this machine's agree")
    how = "behind" if ahead > 0 else "ahead of"
    return Finding(
        WARNING,
        "clock",
        f"this machine's is {abs(ahead):,.0f} s {how} the database's. Leases and results go by the database's; by this "
        "one go logs, which of two open runs of one result is kept, and which ones `doctor` takes for just begun",
        "timedatectl set-ntp true",
    )


def mlflow(tracking: Tracking) -> Finding:
    """Does MLflow answer, with a store of its own version?"""
    where = redact(tracking.uri)
    file = store.sqlite_file(tracking.uri)
    if file is not None and not file.exists():
        return Finding(WARNING, "MLflow", f"{where}: nothing there yet", "clipstudy init")
    began = time.monotonic()
    try:
        number = tracking.experiment()
    except ClipstudyError as error:
        return Finding(WRONG, "MLflow", error.message)
    return Finding(OK, "MLflow", f"{where} answers ({time.monotonic() - began:.1f} s), experiment {number}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "–"
