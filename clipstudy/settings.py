"""Where things are: the environment as one frozen value, read once at the start of a command."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Every place that clipstudy reads from or writes to. Environment variables, each with an embedded default."""

    home: Path  #: CLIPSTUDY_HOME: the folder that relative paths start from (here)
    database: str  #: CLIPSTUDY_DATABASE: URL of the job table (sqlite:///HOME/mlruns/clipstudy.db)
    tracking: str  #: CLIPSTUDY_TRACKING, else MLFLOW_TRACKING_URI (sqlite:///HOME/mlruns/mlflow.db)
    artifacts: str  #: CLIPSTUDY_ARTIFACTS: where runs keep files, for a SQLite store (HOME/mlruns/artifacts)
    cache: Path  #: CLIPSTUDY_CACHE: extracted features (~/.cache/clipstudy)
    device: str  #: CLIPSTUDY_DEVICE: auto, cpu, cuda:N or mps

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> Settings:
        env = os.environ if environment is None else environment
        home = Path(env.get("CLIPSTUDY_HOME") or ".").resolve()
        store = home / "mlruns"
        cache = env.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return cls(
            home=home,
            database=env.get("CLIPSTUDY_DATABASE") or f"sqlite:///{store / 'clipstudy.db'}",
            tracking=env.get("CLIPSTUDY_TRACKING")
            or env.get("MLFLOW_TRACKING_URI")
            or f"sqlite:///{store / 'mlflow.db'}",
            artifacts=env.get("CLIPSTUDY_ARTIFACTS") or str(store / "artifacts"),
            cache=Path(env.get("CLIPSTUDY_CACHE") or Path(cache) / "clipstudy").expanduser(),
            device=env.get("CLIPSTUDY_DEVICE") or "auto",
        )


def redact(text: str) -> str:
    """``text`` with the password of every URL in it replaced."""
    return re.sub(r"(\w+://[^:/@\s]*):[^@/\s]*@", r"\1:***@", text)
