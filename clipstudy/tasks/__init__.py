"""Task kinds: one room each, found by its file name. `docs/design/extending.md` says what a kind must have."""

from __future__ import annotations

import importlib
import pkgutil

from clipstudy.errors import StudyError, did_you_mean
from clipstudy.tasks.task import Kind


def kinds() -> tuple[str, ...]:
    """The kinds that exist, by name: every file here but that of what they have in common."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg and m.name != "task"))


def load(kind: str) -> Kind:
    """The room of ``kind``. Light: a kind imports torch only inside ``measure``.

    Raises:
        StudyError: there is no such kind.
    """
    if kind not in kinds():
        raise StudyError(f'kind = "{kind}": no such task kind. {did_you_mean(kind, kinds())}')
    module: Kind = importlib.import_module(f"{__name__}.{kind}")
    return module
