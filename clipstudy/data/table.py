"""Any Hub or local table, read by its column names. Never a loading script, never remote code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipstudy.data import files, fingerprint
from clipstudy.data.labelled import Labelled, checked
from clipstudy.errors import DataError, did_you_mean
from clipstudy.spec import DatasetSpec

#: What a local table may be, by ending, and how `datasets` calls its loader.
FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".json": "json"}


@dataclass(frozen=True)
class Table:
    """One split of a table."""

    rows: Any  #: a ``datasets.Dataset``
    fingerprint: str
    source: str  #: for messages: the file, or ``id@commit``

    def values(self, spec: DatasetSpec, column: str) -> list[Any]:
        """A column by the name that the reader uses, or the one that ``columns`` gives it. Class numbers become names.

        Raises:
            DataError: there is no such column.
        """
        name = spec.columns.get(column, column)
        if name not in self.rows.column_names:
            raise DataError(
                f'[datasets.{spec.name}.columns] {column} = "{name}": {self.source} has no such column; '
                + did_you_mean(name, self.rows.column_names)
            )
        feature: Any = self.rows.features[name]
        known = getattr(getattr(feature, "feature", feature), "names", None)
        values: list[Any] = list(self.rows[name])
        if known is None:
            return values
        return [[known[i] for i in v] if isinstance(v, list) else known[v] for v in values]


def read(spec: DatasetSpec) -> Labelled:
    """A labelled text data set: ``columns`` names its ``text`` and ``label``, ``splits`` its train, dev and test.

    Raises:
        DataError: a column or split that does not exist, and all that ``labelled.checked`` refuses.
    """
    parts, tables = [], []
    for split in ("train", "dev", "test"):
        table = load(spec, split)
        texts, labels = table.values(spec, "text"), table.values(spec, "label")
        parts.append([(tuple(str(t).split()), str(v)) for t, v in zip(texts, labels, strict=True)])
        tables.append(table)
    train, dev, test = parts
    print_ = fingerprint(table.fingerprint.encode() for table in tables)
    return checked(spec, train, dev, test, print_, tables[0].source)


def load(spec: DatasetSpec, split: str) -> Table:
    """One split: parquet files of a Hub repository at a commit, or a local parquet, csv or jsonl file.

    Raises:
        DataError: no such repository, revision, file or split; no network and nothing cached.
    """
    import datasets

    datasets.disable_progress_bars()
    folder, source = _snapshot(spec) if spec.hub else (files(spec), str(files(spec)))
    name = spec.splits.get(split, split)
    found = _split_files(folder, spec.config, name)
    if not found:
        there = sorted({p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in FORMATS})
        raise DataError(
            f'[datasets.{spec.name}.splits] {source} has no table for "{name}". ' + did_you_mean(name, there)
        )
    rows = datasets.load_dataset(FORMATS[found[0].suffix], data_files=[str(p) for p in found], split="train")
    print_ = fingerprint(p.read_bytes() for p in found)
    return Table(rows, print_, source)


def _split_files(folder: Path, config: str | None, name: str) -> list[Path]:
    if folder.is_file():
        return [folder]
    root = folder / config if config and (folder / config).is_dir() else folder
    tables = sorted(p for p in root.rglob("*") if p.suffix in FORMATS)
    # The Hub's layouts: <split>/0000.parquet, data/<split>-00000-of-00001.parquet, <split>.parquet.
    return [p for p in tables if p.parent.name == name or p.stem == name or p.stem.startswith(f"{name}-")]


def _snapshot(spec: DatasetSpec) -> tuple[Path, str]:
    # snapshot_download reads the cache when offline, which load_dataset by name does not; its folder is the commit.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    where = f'[datasets.{spec.name}] hub = "{spec.hub}"'
    wanted = [f"*{ending}" for ending in FORMATS]
    try:
        folder = snapshot_download(str(spec.hub), repo_type="dataset", revision=spec.revision, allow_patterns=wanted)
    except (LocalEntryNotFoundError, ConnectionError) as error:
        raise DataError(
            f"{where} is not in the Hub cache and the Hub does not answer ({type(error).__name__}). "
            "Connect once, or name a local folder in `path`."
        ) from None
    except HfHubHTTPError as error:
        raise DataError(f"{where}: {str(error).splitlines()[0]} Check the id, `revision` and your access.") from None
    return Path(folder), f"{spec.hub}@{Path(folder).name}"
