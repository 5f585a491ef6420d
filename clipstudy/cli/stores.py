"""What the settings point to, opened: the job table, and the features on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer

from clipstudy.errors import ClipstudyError, NotMigrated
from clipstudy.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from clipstudy.features.cache import Store
    from clipstudy.job import Group, Selection
    from clipstudy.results.planned import Planned

#: Bytes.
GB = 10**9


def engine(settings: Settings) -> Engine:
    """The job table."""
    from clipstudy.queue import dialect, migration

    engine = dialect.connect(settings.database)
    if not dialect.exists(engine):
        raise NotMigrated(
            f"There is no job table at {engine.url.database}. If yours is in another folder, go there or type: "
            "export CLIPSTUDY_HOME=FOLDER. To begin here, type: clipstudy init"
        )
    migration.check(engine)
    return engine


@contextmanager
def table(settings: Settings, dry_run: bool) -> Iterator[Engine]:
    """The job table, for enqueueing. Where it is the embedded file and not there yet, it is created; for a dry run an
    empty one stands in for it, since that is what it would be."""
    from clipstudy.queue import dialect, migration

    there = dialect.connect(settings.database)
    if dialect.exists(there):
        migration.check(there)
        yield there
        return
    with TemporaryDirectory() as folder:
        made = dialect.connect(f"sqlite:///{folder}/empty.db") if dry_run else there
        migration.migrate(made)
        yield made
        if dry_run:
            made.dispose()


def planned(settings: Settings, selection: Selection) -> Planned:
    """What the job table has of the cells chosen; nothing where there is no table, which results do without."""
    from clipstudy.queue import jobs

    try:
        return jobs.counts(engine(settings), selection)
    except NotMigrated:
        return {}
    except ClipstudyError as error:
        typer.echo(f"cannot tell what was planned: {error.message}", err=True)
        return {}


def groups(engine: Engine) -> list[Group]:
    """The newest settings of each model on each task, as they were last enqueued."""
    from clipstudy.queue import audit

    return [row.group for row in audit.group_rows(engine)[0] if row.newest]


def features(settings: Settings) -> Store:
    """The store of features under the cache folder, within its budget."""
    from clipstudy.features.cache import Store

    return Store(settings.cache / "features", budget_bytes=int(settings.cache_gb * GB))
