"""What the settings point to, opened: the job table, and the features on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clipstudy.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from clipstudy.features.cache import Store


def engine(settings: Settings, create: bool = False) -> Engine:
    """The job table. Where it is the embedded file and not there yet, the first enqueue creates it."""
    from clipstudy.queue import dialect, migration

    engine = dialect.connect(settings.database)
    if create and engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
        migration.migrate(engine)
    migration.check(engine)
    return engine


def features(settings: Settings) -> Store:
    """The store of features under the cache folder, within its budget."""
    from clipstudy.features.cache import Store

    return Store(settings.cache / "features", budget_bytes=int(settings.cache_gb * 2**30))
