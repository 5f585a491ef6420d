"""Where things are: the environment as one frozen value.

A command reads it at its start and hands it on. What a study file names is looked up far below, where it is not handed
on: where a path leads, and whose code a model may be. There the environment is read again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipstudy.errors import ClipstudyError
from clipstudy.redaction import redact


@dataclass(frozen=True)
class Settings:
    """Every place that clipstudy reads from or writes to. Environment variables, each with an embedded default."""

    home: Path  #: CLIPSTUDY_HOME: the folder of tasks.toml, dashboards/ and mlruns/ (the current one)
    database: str  #: CLIPSTUDY_DATABASE: URL of the job table (sqlite:///HOME/mlruns/clipstudy.db)
    tracking: str  #: CLIPSTUDY_TRACKING, else MLFLOW_TRACKING_URI (sqlite:///HOME/mlruns/mlflow.db)
    artifacts: str  #: CLIPSTUDY_ARTIFACTS: where runs keep files, for a SQLite store (HOME/mlruns/artifacts)
    cache: Path  #: CLIPSTUDY_CACHE: extracted features (~/.cache/clipstudy)
    cache_gb: float  #: CLIPSTUDY_CACHE_GB: what the cache may hold; least recently used goes first (20)
    device: str  #: CLIPSTUDY_DEVICE: auto, cpu, cuda:N or mps
    #: CLIPSTUDY_TORCH_PACKAGES: whose code a model of source "torch" may be, by commas (none). A study file can name
    #: any code; only the machine that would run it says what it trusts.
    torch_packages: tuple[str, ...] = ()

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """From ``environment`` (the process's own).

        Raises:
            ClipstudyError: a variable holds what cannot be: no number above 0, a SQLite URL without a file, a folder in
                the home of nobody.
        """
        env = os.environ if environment is None else environment
        home = _folder(env, "CLIPSTUDY_HOME", ".").resolve()
        store = home / "mlruns"
        caches = env.get("XDG_CACHE_HOME") or "~/.cache"
        return cls(
            home=home,
            database=_url(env, store / "clipstudy.db", "CLIPSTUDY_DATABASE"),
            tracking=_url(env, store / "mlflow.db", "CLIPSTUDY_TRACKING", "MLFLOW_TRACKING_URI"),
            artifacts=_place(env, "CLIPSTUDY_ARTIFACTS", store / "artifacts"),
            cache=_folder(env, "CLIPSTUDY_CACHE", f"{caches}/clipstudy").absolute(),
            cache_gb=_number(env, "CLIPSTUDY_CACHE_GB", 20.0),
            device=env.get("CLIPSTUDY_DEVICE") or "auto",
            torch_packages=tuple(filter(None, re.split(r"[,\s]+", env.get("CLIPSTUDY_TORCH_PACKAGES", "")))),
        )


#: A SQLite URL without the third slash, behind which a file is named, or with nothing behind it.
_NO_FILE = re.compile(r"sqlite(\+\w+)?:(?!///[^?])", re.IGNORECASE)


def _url(env: Mapping[str, str], file: Path, *names: str) -> str:
    """What the first of the variables ``names`` that is set holds; the SQLite file ``file`` where none is."""
    name = next((name for name in names if env.get(name)), None)
    if name is None:
        return f"sqlite:///{file}"
    if _NO_FILE.match(env[name]):
        raise ClipstudyError(
            f'{name} is "{redact(env[name])}", which names no file. Three slashes stand before one. Type: '
            f"export {name}=sqlite:///FOLDER/file.db"
        )
    return env[name]


def _folder(env: Mapping[str, str], name: str, default: str) -> Path:
    text = env.get(name) or default
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~NAME of nobody, or a user without a home
        raise ClipstudyError(
            f'{name} is "{text}", and no home folder is known for that. Type: export {name}=/WHOLE/PATH'
        ) from None


def _place(env: Mapping[str, str], name: str, default: Path) -> str:
    """A URL as it is, else a whole path: it is written down, and read from other folders."""
    text = env.get(name) or str(default)
    return text if "://" in text else str(_folder(env, name, text).absolute())


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name) or str(default)
    with contextlib.suppress(ValueError):
        found = float(text)
        if math.isfinite(found) and found > 0:
            return found
    raise ClipstudyError(f'{name} is "{text}", expected a number above 0. Fix it, then retry.')


#: How a path begins that leads into an installed Python package.
PACKAGE = "package:"
#: Environment variables whose value may be, or hold, a credential.
_PRIVATE = re.compile(r"TOKEN|PASS|SECRET|KEY|CREDENTIAL|^CLIPSTUDY_(DATABASE|TRACKING|ARTIFACTS)$", re.IGNORECASE)


def locate(reference: str, base: str = "") -> Path | None:
    """The file or folder that a study file's ``reference`` means; None where it is a name (a Hub id), not a path.

    A path is absolute, or begins with ``./`` or ``../`` (from the study file's folder, ``base``), with
    ``${CLIPSTUDY_…}`` (only such variables are read, and of those none that may hold a password: a path must not carry
    a secret into the table; those that have a default need not be set), or with
    ``package:NAME/`` (a file inside an installed Python package, which is not imported; where it is not installed, the
    path begins with ``package:`` still).
    """
    if reference.startswith(PACKAGE):
        package, _, rest = reference.removeprefix(PACKAGE).partition("/")
        found = importlib.util.find_spec(package) if package.isidentifier() else None
        root = Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else None
        within = os.path.normpath(f"/{rest}").lstrip("/")  # no `..` leads out of the package
        return (root or Path(PACKAGE) / package) / within
    if not reference.startswith((".", "/", "~", "${CLIPSTUDY_")) or "\0" in reference:
        return None
    settings = Settings.read()
    known = {**os.environ, "CLIPSTUDY_HOME": str(settings.home), "CLIPSTUDY_CACHE": str(settings.cache)}

    def value(variable: re.Match[str]) -> str:
        # One that is set to nothing is not set: else what follows it would begin at the root of the disk.
        return variable[0] if _PRIVATE.search(variable[1]) else known.get(variable[1]) or variable[0]

    path = Path(re.sub(r"\$\{(CLIPSTUDY_\w+)\}", value, reference))
    with contextlib.suppress(RuntimeError):  # ~NAME of a user who does not exist: no such file
        path = path.expanduser()
    return Path(os.path.normpath(Path(base or ".") / path))
