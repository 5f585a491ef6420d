"""The files that the code of a model of anybody's own lies in: other code computes other states."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from torch import nn

from clipstudy.backbones import trust
from clipstudy.errors import ModelError
from clipstudy.spec import ModelSpec

#: Whose base classes are of a version that is known by itself.
NOT_OWN = frozenset({"torch", *sys.stdlib_module_names})
#: What each file held when this process first looked, which is right after it imported it: what it runs is that.
_imported: dict[Path, bytes] = {}


def files(spec: ModelSpec, factory: Callable[[], object], model: nn.Module, trusted: Sequence[str]) -> list[Path]:
    """The files that define the factory and what ``model`` is built of, base classes too, torch's own left out; and, of
    the packages that are trusted, whatever those files import.

    Raises:
        ModelError: one was changed since this process imported it: what it would run is not what is there.
    """
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    own: list[Any] = [factory, *(kind for kind in kinds if kind.__module__.partition(".")[0] not in NOT_OWN)]
    found = {Path(file) for file in map(_source_file, own) if file}
    # The module that is named may only hold what another one makes.
    modules = {spec.checkpoint.partition(":")[0], *(str(getattr(_defined(code), "__module__", "")) for code in own)}
    found |= _imported_by({name for name in modules if trust.within(name, trusted)}, trusted)
    for file in sorted(found):
        now = hashlib.sha256(file.read_bytes()).digest()
        if _imported.setdefault(file, now) != now:
            raise ModelError(
                f'[models.{spec.name}] checkpoint = "{spec.checkpoint}": {file} was changed since this process '
                "imported it. Restart the worker. Where cells of it are done, all of it is measured anew: clipstudy "
                f"rerun --model {spec.name}; else type: clipstudy retry --failed"
            )
    return sorted(found)


def _defined(code: Any) -> Any:
    """The function or class of ``code``: of an object that is called, its class."""
    code = inspect.unwrap(code)
    return code if inspect.isroutine(code) or inspect.isclass(code) else type(code)


def _source_file(code: Any) -> str | None:
    """Where ``code`` is defined; None: read of no file."""
    try:
        return inspect.getsourcefile(_defined(code))
    except TypeError:  # built into the interpreter, or compiled
        return None


def _imported_by(names: set[str], trusted: Sequence[str]) -> set[Path]:
    """The files of these modules, and of all that they import of ``trusted`` packages, as their text says it: what else
    this process has imported changes nothing. What code imports by a name that it computes is not found."""
    found: dict[str, Path] = {}
    todo = sorted(names)
    while todo:
        name = todo.pop()
        if name in found or not trust.within(name, trusted) or (file := _file_of(name)) is None:
            continue
        found[name] = file
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        todo += _imports(file, package)
        todo += [name.rpartition(".")[0]]  # a package's own file is run before its modules
    return set(found.values())


def _file_of(name: str) -> Path | None:
    """The file of a module, its source or what was compiled of it; None: there is no such module, or it has none.

    Nothing is imported: a program that stands among a package's modules would run."""
    top, *parts = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
        for at in range(len(parts)):
            if spec is None or spec.submodule_search_locations is None:
                return None
            whole = ".".join([top, *parts[: at + 1]])
            spec = PathFinder.find_spec(whole, list(spec.submodule_search_locations))
    except (ImportError, ValueError):  # it is imported, and says nothing of itself
        return None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _imports(file: Path, package: str) -> Iterator[str]:
    """What a file may import: modules, and names in them, which may be modules too."""
    if file.suffix != ".py":
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):  # for another Python than this one, which then does not run it
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
