"""Whose code a model of source "torch" may be: only that of packages which the worker's own settings name. Nothing is
imported here."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

from clipstudy.settings import Settings
from clipstudy.spec import ModelSpec


def within(path: str, packages: Sequence[str]) -> bool:
    """Is ``path`` the import path of one of the packages, or of a module in it?"""
    return any(path == package or path.startswith(f"{package}.") for package in packages)


def refusal(spec: ModelSpec) -> str | None:
    """Why the code that ``spec.checkpoint`` names is not imported by a process with these settings; None: it is, as far
    as that shows before it is tried."""
    here = f'[models.{spec.name}] checkpoint = "{spec.checkpoint}"'
    path, _, name = spec.checkpoint.partition(":")
    package = path.partition(".")[0]
    # `package.__main__` is no module but a program.
    if not all(part.isidentifier() and not part.startswith("__") for part in (*path.split("."), name)):
        return f'{here} names no code. Write "package.module:factory", what builds the model.'
    trusted = Settings.read().torch_packages
    if not within(path, trusted):
        return (
            f"{here} is code that this worker may not import: CLIPSTUDY_TORCH_PACKAGES is "
            f'"{",".join(trusted)}". If you trust package {package}, set it where the worker starts: '
            f"CLIPSTUDY_TORCH_PACKAGES={','.join((*trusted, package))}"
        )
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        return missing(spec, package)
    return None


def missing(spec: ModelSpec, module: str) -> str:
    """That there is no such module; the current folder is not searched, whatever lies in it."""
    return (
        f'[models.{spec.name}] checkpoint = "{spec.checkpoint}": there is no module {module} here. Install its package '
        "where the worker runs (pip install -e FOLDER), or set PYTHONPATH there to the folder that it lies in, or fix "
        "the key."
    )
