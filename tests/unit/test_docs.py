"""The README names every command and variable; it and docs/ every key, option and reader; and what they name exists."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import typer

from clipstudy import data, tasks
from clipstudy.cli import app
from clipstudy.results.sheets import CHOSEN
from clipstudy.spec import DatasetSpec, ModelSpec, TaskSpec
from clipstudy.tasksfile import tables
from clipstudy.tracking.pretraining import EXPERIMENT

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
DOCS = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in FILES}
README = DOCS["README.md"]
WORDS = set(re.findall(r"[A-Za-z_][\w-]*", README))
STUDY_FILE = (ROOT / "docs" / "study-file.md").read_text(encoding="utf-8")
KEYS = set(re.findall(r"[A-Za-z_][\w-]*", STUDY_FILE))
OPTION = r"(?<![\w-])--[a-z][a-z-]+"
#: Options in the docs that belong to other programs.
FOREIGN = {
    "python -m benchmarks": {"--clock", "--only"},
    "make chaos": {"--idle"},
    "mlflow server": {"--allowed-hosts", "--artifacts-destination", "--backend-store-uri"},
    "createdb": {"--owner"},
    "scancel": {"--signal"},
}


def commands(command: Any, *names: str) -> Iterator[tuple[str, Any]]:
    """Every command by its name, those of groups by both: ``fleet submit``."""
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from commands(below, *names, name)
    else:
        yield " ".join(names), command


COMMANDS = dict(commands(typer.main.get_command(app)))
OPTIONS = {
    name: {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    for name, command in COMMANDS.items()
}


def test_every_command() -> None:
    table = README.split("## Commands")[1].split("\n## ")[0]
    assert len(COMMANDS) > 20
    assert [name for name in COMMANDS if not re.search(rf"`{name}[` ]", table)] == []
    assert [name for name, command in COMMANDS.items() if not command.help] == []


def test_every_option() -> None:
    """Each is in the README or in docs/."""
    there = set(re.findall(OPTION, "\n".join(DOCS.values())))
    assert sorted(set().union(*OPTIONS.values()) - there) == []


def test_every_commands_options_are_where_it_is() -> None:
    """In the paragraph of docs/commands.md that it begins or stands in; a group's together."""
    paragraphs = re.sub(r"\n(?!\n)", " ", DOCS["docs/commands.md"]).split("\n")
    lacking = {}
    for name, options in OPTIONS.items():
        [own] = [paragraph for paragraph in paragraphs if f"**`{name}`**" in paragraph]
        if left := options - set(re.findall(OPTION, own)) - {"--help"}:
            lacking[name] = sorted(left)
    assert lacking == {}


def test_every_option_that_is_named_exists() -> None:
    known = set().union(*OPTIONS.values()) | {"--help", "--version"}
    foreign = set().union(*FOREIGN.values())
    named = {option: file for file, text in DOCS.items() for option in re.findall(OPTION, text)}
    assert {option: file for option, file in named.items() if option not in known | foreign} == {}
    assert sorted(foreign - named.keys()) == [], "no longer named"


def test_every_command_that_is_spelled_out_can_be_typed() -> None:
    """``clipstudy fleet submit --workers 8`` in code: the command is there, and takes these options."""
    spelled = [
        (file, line)
        for file, text in DOCS.items()
        for code in (*re.findall(r"^(?: {4}|```\w*\n)(.*)$", text, re.MULTILINE), *re.findall(r"`([^`\n]+)`", text))
        if code != EXPERIMENT
        for line in re.findall(r"(?<![\w/.=-])clipstudy ([a-z][^;|#&)]*)", code)
    ]
    assert len(spelled) > 30
    wrong = []
    for file, line in spelled:
        words = line.split()
        name = next((name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS), None)
        group = any(command.startswith(f"{words[0]} ") for command in COMMANDS) and len(words) == 1
        if not group and (name is None or not set(re.findall(OPTION, line)) <= OPTIONS[name] | {"--help"}):
            wrong.append(f"{file}: clipstudy {line}")
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("cls", [ModelSpec, DatasetSpec, TaskSpec])
def test_every_key(cls: type) -> None:
    assert [k for k in tables.keys(cls) if k not in KEYS] == []


@pytest.mark.parametrize(("what", "cls"), [("model", ModelSpec), ("data set", DatasetSpec), ("task", TaskSpec)])
def test_every_keys_default(what: str, cls: type) -> None:
    """As its row has it: in TOML, none, or words for what depends on something else."""
    rows = STUDY_FILE.split(f"| key of a {what} |")[1].split("\n\n")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", rows, re.MULTILINE))
    known = {field.name: field for field in fields(cls)}
    assert set(told) == set(tables.keys(cls)) | ({"init_seeds"} if cls is ModelSpec else set())
    for key, text in told.items():
        default = known[key].default if key in known else None
        if text == "–":
            assert default is MISSING, key
        elif text == "none":
            assert default is None, key
        elif text.startswith("`"):
            made = known[key].default_factory() if default is MISSING else default
            assert tomllib.loads(f"a = {text.strip('`')}")["a"] == made, key


def test_every_reader() -> None:
    assert [reader for reader in data.READERS if f"`{reader}`" not in STUDY_FILE] == []


@pytest.mark.parametrize("kind", tasks.kinds())
def test_every_option_and_profile(kind: str) -> None:
    assert f"| `{kind}`" in README or f"`{kind}` |" in README
    module = tasks.load(kind)
    options = {f.name for f in fields(module.Options)}
    assert [k for k in (*options, *module.PROFILES) if k not in KEYS] == []
    assert module.__doc__ and all(profile in module.__doc__ for profile in module.PROFILES)


@pytest.mark.parametrize("kind", tasks.kinds())
def test_every_default(kind: str) -> None:
    """A kind's table has each option of its own with what it is in the first profile."""
    module = tasks.load(kind)
    table = STUDY_FILE.split(f"| option of `{kind}` |")[1].split("\n\n")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| (`[^`]*`|none)", table, re.MULTILINE))
    chosen = {name: getattr(module.Options, name) for name in vars(module.Options)["__annotations__"]}
    chosen |= next(iter(module.PROFILES.values()))
    assert {name: None if text == "none" else json.loads(text.strip("`")) for name, text in told.items()} == {
        name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()
    }


@pytest.mark.parametrize("kind", tasks.kinds())
def test_every_profile(kind: str) -> None:
    """What each but the first sets stands in one table, as it is written in a study file."""
    table = STUDY_FILE.split("## What profiles set")[1].split("\n## ")[0]
    told = {
        name: tomllib.loads("\n".join(re.findall(r"`(\w+ = [^`]+)`", sets)))
        for name, sets in re.findall(rf"^\| `(\w+)` of `{kind}` \| (.*) \|$", table, re.MULTILINE)
    }
    assert told == dict(list(tasks.load(kind).PROFILES.items())[1:])


def test_every_variable() -> None:
    code = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "clipstudy").rglob("*.py"))
    named = set(re.findall(r"\bCLIPSTUDY_[A-Z_]*[A-Z]", code)) - {"CLIPSTUDY_REAL_DATA"}
    assert sorted(named - WORDS) == []


def test_tables_of_best_layers_say_how_the_layer_was_chosen() -> None:
    captions = [line for text in DOCS.values() for line in text.splitlines() if line.startswith("**Best layers**")]
    assert len(captions) >= 2 and [line for line in captions if f"(in brackets; {CHOSEN})" not in line] == []


def test_relative_links_exist() -> None:
    for name, text in DOCS.items():
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert link.startswith("http") or (ROOT / name).parent.joinpath(link).exists(), f"{name}: {link}"
