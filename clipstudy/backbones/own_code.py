"""The files that the code of a model of anybody's own lies in: other code computes other states."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from clipstudy.backbones import trust
from clipstudy.errors import ModelError
from clipstudy.spec import ModelSpec

#: What each file held when this process first looked, which is right after it imported it: what it runs is that.
_imported: dict[Path, bytes] = {}


def files(spec: ModelSpec, factory: Callable[[], object], model: nn.Module, trusted: Sequence[str]) -> list[Path]:
    """The files that define the factory and what ``model`` is built of, base classes too, torch's own left out; and, of
    the packages that are trusted, whatever those files import.

    Raises:
        ModelError: one was changed since this process imported it: what it would run is not what is there.
    """
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    own: list[Any] = [factory, *(kind for kind in kinds if kind.__module__.partition(".")[0] != "torch")]
    found = {Path(file) for file in map(_source_file, own) if file}
    modules = {str(getattr(_defined(code), "__module__", "")) for code in own}
    found |= _imported_by({name for name in modules if trust.within(name, trusted)}, trusted)
    for file in sorted(found):
        now = hashlib.sha256(file.read_bytes()).digest()
        if _imported.setdefault(file, now) != now:
            raise ModelError(
                f'[models.{spec.name}] checkpoint = "{spec.checkpoint}": {file} was changed since this process '
                "imported it. Restart the worker, then type: clipstudy retry --failed"
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
    """The source of a module; None: there is no such module, or it has none."""
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # a package on the way is none, or is the user's own code, which may raise anything
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _imports(file: Path, package: str) -> Iterator[str]:
    """What a file may import: modules, and names in them, which may be modules too."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
