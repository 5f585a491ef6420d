"""The README names every command and variable; it and docs/ every key, option and reader."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from clipstudy import data, tasks, tasksfile
from clipstudy.cli import app
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORDS = set(re.findall(r"[A-Za-z_][\w-]*", README))
STUDY_FILE = (ROOT / "docs" / "study-file.md").read_text(encoding="utf-8")
KEYS = set(re.findall(r"[A-Za-z_][\w-]*", STUDY_FILE))
WORKERS = README + (ROOT / "docs" / "workers.md").read_text(encoding="utf-8")


def test_every_command() -> None:
    names = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]
    assert len(names) > 10
    table = README.split("## Commands")[1].split("\n## ")[0]
    assert [n for n in names if f"`{n}" not in table] == []
    assert all(c.callback and c.callback.__doc__ for c in app.registered_commands)


def test_every_option() -> None:
    """Of `worker` and `doctor`: what each of the others takes is said by its --help alone."""
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {o for name in ("worker", "doctor") for p in known[name].params for o in p.opts if o.startswith("--")}
    assert sorted(o for o in options - {"--verbose"} if f"`{o}" not in WORKERS and f"{o} " not in WORKERS) == []


@pytest.mark.parametrize("cls", [ModelSpec, DatasetSpec, TaskSpec])
def test_every_key(cls: type) -> None:
    assert [k for k in tasksfile._keys(cls) if k not in KEYS] == []


def test_every_reader() -> None:
    assert [reader for reader in data.READERS if f"`{reader}`" not in STUDY_FILE] == []


@pytest.mark.parametrize("kind", tasks.kinds())
def test_every_option_and_profile(kind: str) -> None:
    assert f"| `{kind}`" in README or f"`{kind}` |" in README
    module = tasks.load(kind)
    options = {f.name for f in fields(module.Options)}
    assert [k for k in (*options, *module.PROFILES) if k not in KEYS] == []
    assert module.__doc__ and all(profile in module.__doc__ for profile in module.PROFILES)


def test_every_variable() -> None:
    code = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "clipstudy").rglob("*.py"))
    named = set(re.findall(r"\bCLIPSTUDY_[A-Z_]*[A-Z]", code)) - {"CLIPSTUDY_REAL_DATA"}
    assert sorted(named - WORDS) == []


def test_relative_links_exist() -> None:
    for file in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)", file.read_text(encoding="utf-8")):
            assert link.startswith("http") or (file.parent / link).exists(), f"{file.name}: {link}"
