"""What is to be recorded, and how MLflow names it: tags, parameters, run names. Pure but for ``environment``."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clipstudy.job import Group, layers_of
from clipstudy.outcome import Artifact, End, Estimate, Result
from clipstudy.redaction import redact
from clipstudy.spec import WHOLE_MODEL, ModelSpec, decisive

#: Every tag of ours; a Result carries them without it.
PREFIX = "clipstudy."
#: Where a run stands, as metrics too: MLflow compares only metrics as numbers. No results, so no Result has them.
PLACE = ("layer", "depth")
#: MLflow's own limits (mlflow.utils.validation), in characters.
LONGEST_PARAM, LONGEST_TAG, LONGEST_KEY = 6000, 8000, 250
PACKAGES = ("clipstudy", "mlflow", "torch", "transformers", "open_clip_torch", "timm", "scikit-learn", "numpy")


@dataclass(frozen=True)
class Entry:
    """One attempt of one job, as it shall stand in MLflow for good."""

    group: Group
    job: int  #: the job's id in the job table
    attempt: int
    layer: int
    label: str  #: how the layer is called
    kind: End
    started: datetime  #: aware; frozen, so that a repeated record writes the same points
    ended: datetime
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)  #: what only the computing process knew
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    error: str | None = None
    log: str = ""

    @property
    def key(self) -> str:
        """What the run is found by again. Job ids start anew with a new job table; start and end do not."""
        times = milliseconds(self.started), milliseconds(self.ended)
        return short_hash(repr((group_key(self.group), self.job, self.attempt, self.layer, *times)))

    @property
    def title(self) -> str:
        """The run's name: ``bert · depth · block 3``, and that the attempt failed where it did."""
        failed = "" if self.kind == "finished" else f" (attempt {self.attempt} failed)"
        return clip(f"{group_title(self.group)} · {self.label}", LONGEST_KEY - len(failed)) + failed

    def result(self, run_id: str) -> Result:
        """The Result that reading the recorded run would give."""
        tags = {key.removeprefix(PREFIX): value for key, value in entry_tags(self).items()}
        params = {safe_key(k): clip(v, LONGEST_PARAM) for k, v in entry_params(self).items()}
        named = tags["study"], tags["model"], tags["task"]
        return Result(run_id, *named, self.layer, safe_metrics(self.metrics), params, tags)


def group_key(group: Group) -> str:
    """study/model/task/digest, in letters that need no quoting in MLflow's filters."""
    return "/".join(safe_key(name) for name in (group.study, group.model.name, group.task.name, group.digest))


def group_title(group: Group) -> str:
    """The parent run's name: ``bert · depth``, at most 250 characters."""
    return clip(f"{group.model.name} · {group.task.name}", LONGEST_KEY)


def group_tags(group: Group) -> dict[str, str]:
    """What parent and children share; empty ones left out."""
    model, task = group.model, group.task
    named = {
        "study": group.study,
        "note": group.note,
        "description": group.description,
        "group": group_key(group),
        "digest": group.digest,
        "model": model.name,
        "model_title": model.title,
        "family": model.family or model.name,
        "role": model.role,
        "twin_of": model.twin_of,
        "init": model.init,
        "init_seed": str(model.init_seed),
        "blocks": str(model.layers),
        "modality": task.modality,
        "task": task.name,
        "task_title": task.title,
        "kind": task.kind,
        "category": task.category,
        "metric": task.metric,
        "dataset": group.dataset.name,
        "layers": ",".join(str(k) for k in layers_of(model, task)),
    }
    return {PREFIX + key: clip(value, LONGEST_TAG) for key, value in named.items() if value}


def entry_tags(entry: Entry) -> dict[str, str]:
    """Every tag of the entry's run, MLflow's own excepted."""
    own = {
        "level": "job",
        "entry": entry.key,
        "job": str(entry.job),
        "attempt": str(entry.attempt),
        "layer": str(entry.layer),
        "layer_label": entry.label,
        "started": entry.started.astimezone(UTC).isoformat(),
        "ended": entry.ended.astimezone(UTC).isoformat(),
    }
    if entry.layer != WHOLE_MODEL:
        own["depth"] = f"{place(entry)['depth']:.3f}"
    if entry.error:
        own["error"] = entry.error
    theirs = {PREFIX + safe_key(key): clip(value, LONGEST_TAG) for key, value in entry.tags.items()}
    return theirs | group_tags(entry.group) | {PREFIX + k: clip(v, LONGEST_TAG) for k, v in own.items()}


def place(entry: Entry) -> dict[str, float]:
    """The layer's number and its depth as a fraction of the model's blocks; empty for a task of the whole model."""
    if entry.layer == WHOLE_MODEL:
        return {}
    return dict(zip(PLACE, (float(entry.layer), entry.layer / max(entry.group.model.layers, 1)), strict=True))


def group_params(group: Group) -> dict[str, str]:
    """What was asked: the decisive keys of the model, the data set and the task, one parameter each."""
    task = decisive(group.task)
    options = task.pop("options")
    tables = {"dataset": decisive(group.dataset), "task": task, "option": options}
    return model_params(group.model) | {f"{t}.{k}": v for t, table in tables.items() for k, v in _texts(table).items()}


def model_params(model: ModelSpec) -> dict[str, str]:
    """The decisive keys of a model's table, ``model.checkpoint`` and so on, as text."""
    return {f"model.{key}": value for key, value in _texts(decisive(model)).items()}


def entry_params(entry: Entry) -> dict[str, str]:
    """Every parameter of the entry's run: what was asked, and what only the computing process knew."""
    return group_params(entry.group) | dict(entry.params)


def note(group: Group, entry: Entry | None = None) -> str:
    """The run's description, Markdown: a sentence that says what was measured on what."""
    model, dataset, task = group.model, group.dataset, group.task
    what = f"all layers of **{model.title}**" if entry is None else f"{entry.label} of **{model.title}**"
    weights = "untrained" if model.init == "random" else "pretrained"
    text = f"**{task.title}** ({task.kind}) at {what}: `{model.checkpoint}`, {weights}, on `{dataset.name}`."
    if entry is not None and entry.error:
        text += f"\n\nFailed: {entry.error}"
    return clip(text, LONGEST_TAG)


def source(entry: Entry | None = None) -> dict[str, str]:
    """What MLflow's pages call the source of a run, with the commit of the code where it is known."""
    commit = entry.params.get("git.commit", "").removesuffix("+") if entry else ""
    named = {"mlflow.source.name": "clipstudy", "mlflow.source.type": "LOCAL"}
    return named | ({"mlflow.source.git.commit": commit} if commit else {})


def milliseconds(when: datetime) -> int:
    """MLflow's clock: milliseconds since 1970, UTC."""
    return round(when.timestamp() * 1000)


def safe_key(name: str, longest: int = LONGEST_KEY) -> str:
    """``name`` as MLflow takes it: letters, digits and ``_-. :/``, no path tricks, 250 characters.

    A name that had to be changed ends with a short hash of itself, so that two names never become one.
    """
    text = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)
    text = "/".join(part for part in text.split("/") if part.strip(". ")) or "_"
    if text == name and len(text) <= longest:
        return text
    return f"{text[: longest - 9]}-{short_hash(name)[:8]}"


def safe_metrics(metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """``metrics`` under names that leave room for ``.low`` and ``.high``."""
    return {safe_key(name, LONGEST_KEY - len(".high")): estimate for name, estimate in metrics.items()}


def short_hash(text: str) -> str:
    """Twenty hexadecimal digits that tell ``text`` from any other."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:20]


def clip(value: str, longest: int) -> str:
    """``value`` as any database stores it: no NUL, no lone surrogate, at most ``longest`` characters; no credential."""
    text = redact(str(value)).replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
    if len(text) <= longest:
        return text
    tail = f"… ({len(text)} characters)"
    return text[: longest - len(tail)] + tail


@functools.cache
def environment() -> Mapping[str, str]:
    """What computed the result: package versions, commit, host. To be asked in the process that computes."""
    found = {"version.python": platform.python_version(), "host": platform.node()}
    for package in PACKAGES:
        try:
            found[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    commit = _commit()
    return found | ({"git.commit": commit} if commit else {})


def _commit() -> str | None:
    """The commit of the checkout that this code runs from, ``+`` where files differ from it; None: no checkout."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _texts(table: Mapping[str, Any]) -> dict[str, str]:
    """The keys of ``table`` that say something, as MLflow takes them."""
    given = {key: value for key, value in table.items() if value not in (None, "", {}, [])}
    return {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in given.items()}
