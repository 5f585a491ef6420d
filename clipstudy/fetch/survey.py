"""Asking publishers what there is, beside what is here. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterable

from clipstudy import hub
from clipstudy.data import Released
from clipstudy.errors import ClipstudyError, DataError, NotFetched
from clipstudy.fetch import released
from clipstudy.fetch.items import Failure, Item, Survey
from clipstudy.hub import Entry, Repository


def survey_all(items: Iterable[Item], again: str = "clipstudy fetch") -> tuple[list[Survey], list[Failure]]:
    """What :func:`survey` found of the items, and what it refused. ``again`` is the command that was typed.

    Raises:
        NotFetched: HF_HUB_OFFLINE forbids to ask, where there is something to ask the Hub for.
    """
    from huggingface_hub import constants

    items = list(items)
    if constants.HF_HUB_OFFLINE and any(isinstance(item.source, Repository) for item in items):
        raise NotFetched(
            "HF_HUB_OFFLINE is set, so nothing can be fetched. On a machine with network take it away "
            f"(HF_HUB_OFFLINE=0 {again}); here see what there is ({again} --verify)."
        )
    found, refused = [], []
    for item in items:
        try:
            found.append(survey(item))
        except ClipstudyError as error:
            refused.append(Failure(item, error))
    return found, refused


def survey(item: Item) -> Survey:
    """Ask the publisher what there is, and look what is here. Nothing is downloaded.

    Raises:
        ModelError, DataError: the publisher does not answer, or has not what is wanted.
    """
    source = item.source
    if isinstance(source, Released):
        try:
            whole = Entry(source.path.name, 0, source.checksum).is_at(source.path)
            size = source.path.stat().st_size if whole else released.size(source)
        except OSError as error:
            raise DataError(
                f"[{source.table}] path: {source.path} cannot be read ({error.strerror or error}). Let it be read, or "
                "fix path."
            ) from error
        entry = Entry(source.path.name, size, source.checksum)
        return Survey(item, None, (entry,), frozenset({entry.path} if whole else ()))
    from huggingface_hub import try_to_load_from_cache

    commit, entries = hub.listing(source)
    here = (
        entry.path
        for entry in entries
        if isinstance(try_to_load_from_cache(source.id, entry.path, revision=commit, repo_type=source.kind), str)
    )
    return Survey(item, commit, entries, frozenset(here))
