"""The commands for what is kept on this machine: fetch (weights and data sets), cache (extracted features)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from clipstudy.cli import screen, selecting, stores
from clipstudy.cli.options import Json, Models, StudyFile, Tasks
from clipstudy.errors import NotFetched, StudyError
from clipstudy.job import Selection
from clipstudy.settings import Settings

if TYPE_CHECKING:
    from clipstudy.features.cache import Entry
    from clipstudy.fetch import Item, Survey


def fetch(
    study: StudyFile = None,
    model: Models = None,
    task: Tasks = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the downloads and their sizes; download nothing.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check, without network, that everything fetched is here and whole.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Download all weights and data sets of a study once; its cells then run without network (HF_HUB_OFFLINE=1)."""
    from clipstudy import fetch as fetching
    from clipstudy import progress as progresses
    from clipstudy import tasksfile
    from clipstudy.job import plan

    if dry_run and verify:
        raise typer.BadParameter("type --dry-run or --verify, not both")
    settings = Settings.read()
    found = tasksfile.load(tasksfile.find(study, settings.home))
    selection = Selection(tuple(model or ()), tuple(task or ()))
    groups = plan(found, selection)
    if wrong := selecting.wrong(found, selection, groups):
        raise StudyError(wrong)
    items = fetching.wanted(group for group, _ in groups)
    manifest = fetching.manifest_path(settings.cache, found.name)
    whole = {"study": found.name, "manifest": str(manifest)}
    if not items and not as_json:
        typer.echo(f"{found.name}: nothing to fetch: its models and data sets are files on this machine")
        return
    again = selecting.command("fetch", study, selection)
    if verify:
        _verify(fetching.verify(items, manifest), whole, again, as_json)
        return
    surveys, failures = fetching.survey_all(items, again)
    if surveys and not as_json:
        _print(surveys)
    if not dry_run:
        progress = progresses.for_stderr()
        screen.log(False, progress)
        try:
            failures += fetching.fetch_all(surveys, manifest, progress)
        finally:
            progress.close()
    if as_json:
        said = [failure.error.message for failure in failures]
        typer.echo(json.dumps({**whole, "dry_run": dry_run, "items": list(map(_plain, surveys)), "failures": said}))
    if failures:
        raise NotFetched("\n".join(fetching.told(failures, again + " --dry-run" * dry_run)))
    if not as_json and not dry_run:
        typer.echo(
            f"everything is here, as listed in {manifest}\nwithout network: HF_HUB_OFFLINE=1 clipstudy worker --drain"
        )


def _plain(survey: Survey) -> dict[str, object]:
    return {
        "item": survey.item.key,
        "tables": survey.item.tables,
        "commit": survey.commit,
        "files": len(survey.entries),
        "bytes": survey.size,
        "to_download": survey.to_download,
    }


def _print(surveys: Sequence[Survey]) -> None:
    rows = [
        [
            survey.item.name if survey.commit else survey.entries[0].path,  # an address would fill the screen
            (survey.commit or "")[:8],
            survey.item.readers,
            str(len(survey.entries)),
            screen.size(survey.size),
            screen.size(survey.to_download),
        ]
        for survey in surveys
    ]
    total = (sum(survey.size for survey in surveys), sum(survey.to_download for survey in surveys))
    rows.append(["together", "", "", str(sum(len(s.entries) for s in surveys)), *map(screen.size, total)])
    screen.table(["what", "commit", "read by", "files", "size", "to download"], rows)


def _verify(verified: Iterable[tuple[Item, list[str]]], whole: Mapping[str, object], again: str, as_json: bool) -> None:
    from clipstudy.wording import counted

    results = dict(verified)
    if as_json:
        shown = [{"item": item.key, "tables": item.tables, "problems": problems} for item, problems in results.items()]
        typer.echo(json.dumps({**whole, "items": shown}))
    wrong = [f"{item.name} {problem}" for item, problems in results.items() for problem in problems]
    if wrong:
        raise NotFetched("\n".join([*wrong, f"On a machine with network, type: {again}"]))
    if not as_json:
        typer.echo(f"everything is here and whole ({counted(len(results), 'item')}), as {whole['manifest']} says")


def cache(
    prune: Annotated[
        float | None,
        typer.Option(
            "--prune", min=0, metavar="GB", help="Remove the least recently used until at most this many GB are left."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the extracted features that are kept, last used first. Workers keep them within CLIPSTUDY_CACHE_GB."""
    from clipstudy.wording import counted, duration

    settings = Settings.read()
    store = stores.features(settings)
    removed = [] if prune is None else store.prune(int(prune * stores.GB))
    sets: dict[tuple[str, str], list[Entry]] = {}
    for entry in reversed(store.entries()):
        sets.setdefault((entry.key, entry.view), []).append(entry)
    held, freed = (sum(entry.bytes for entry in entries) for entries in (chain(*sets.values()), removed))
    if as_json:
        shown = [
            {
                "key": key,
                "label": entries[0].label,
                "view": view,
                "layers": sorted(entry.layer for entry in entries),
                "bytes": sum(entry.bytes for entry in entries),
                "used": entries[0].used,
            }
            for (key, view), entries in sets.items()
        ]
        whole = {"folder": str(store.path), "bytes": held, "budget_bytes": store.budget_bytes, "sets": shown}
        typer.echo(json.dumps({**whole, "removed": len(removed), "removed_bytes": freed}))
        return
    if sets:
        rows = [
            [
                entries[0].label or key[:8],
                view,
                str(len(entries)),
                screen.size(sum(entry.bytes for entry in entries)),
                f"{duration(max(0.0, time.time() - entries[0].used))} ago",
            ]
            for (key, view), entries in sets.items()
        ]
        screen.table(["model and data", "view", "layers", "size", "last used"], rows)
    if prune is not None:
        typer.echo(f"removed {counted(len(removed), 'file')}, {screen.size(freed)}" if removed else "nothing to remove")
    kept = screen.size(held) if sets else "nothing kept"
    typer.echo(f"{kept}, of at most {settings.cache_gb:g} GB (CLIPSTUDY_CACHE_GB), in {store.path}")
