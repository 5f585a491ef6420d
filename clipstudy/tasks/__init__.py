"""Task kinds: one room each, found by its file name. `docs/design/house.md` says what a kind must have."""

from __future__ import annotations

import importlib
import pkgutil

from clipstudy.errors import StudyError, did_you_mean
from clipstudy.tasks.task import Kind

#: Rooms here that are not kinds.
_OTHERS = frozenset({"arms", "files", "items", "looking", "overlays", "readings", "sheet", "studio", "task"})


def kinds() -> tuple[str, ...]:
    """The kinds that exist, by name."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _OTHERS))


def load(kind: str) -> Kind:
    """The room of ``kind``. Light: a kind imports torch only inside ``measure``.

    Raises:
        StudyError: there is no such kind.
    """
    if kind not in kinds():
        raise StudyError(f'kind = "{kind}": no such task kind. {did_you_mean(kind, kinds())}')
    module: Kind = importlib.import_module(f"{__name__}.{kind}")
    return module
