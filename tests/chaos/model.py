"""The made-up source of models: nothing is loaded, and it is told where from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from clipstudy.spec import ModelSpec


def load(spec: ModelSpec, device: str) -> Any:
    return SimpleNamespace(resolved={"checkpoint": f"sha256:{spec.checkpoint}"})
