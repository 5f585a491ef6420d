"""`clipstudy fetch` as it is typed: what it prints, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from clipstudy import checksum
from tests.acceptance.conftest import Place, Typed
from tests.hub import Hub


@pytest.fixture
def hub(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The place's data set, released at an address and no longer here."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    released = tmp_path / "root" / "released"
    released.mkdir(parents=True)
    file = released / "order.txt"
    file.write_bytes((place.folder / "order.txt").read_bytes())
    (place.folder / "order.txt").unlink()
    with Hub(tmp_path / "root").serving() as hub:
        keys = f'url = "{hub.url}/released/order.txt"\nchecksum = "{checksum.like("sha256:", file)}"'
        study = place.folder / "tasks.toml"
        study.write_text(study.read_text().replace('path = "./order.txt"', f'path = "./order.txt"\n{keys}'))
        yield hub


def test_fetch_and_verify(place: Place, typed: Typed, hub: Hub) -> None:
    said = typed("enqueue", "--task", "order", "--model", "bert*", "--dry-run").err
    assert said.count("warning") == 1 and "1 data set not downloaded yet, and no worker downloads any: order." in said
    assert said.endswith("Type: clipstudy fetch --model 'bert*' --task order\n")
    said = typed("fetch", "--dry-run").out
    assert "order.txt" in said and "together" in said and "kB" in said
    assert not (place.folder / "order.txt").exists()
    assert "was not fetched" in typed("fetch", "--verify", code=2).err

    assert "everything is here" in typed("fetch").out
    assert (place.folder / "order.txt").read_bytes() == (hub.root / "released" / "order.txt").read_bytes()
    again = json.loads(typed("fetch", "--json").out)
    (item,) = again["items"]  # the model and the chunks are local files
    assert (item["to_download"], item["tables"], again["failures"]) == (0, ["datasets.order"], [])

    assert typed("enqueue", "--all", "--dry-run").err == ""
    for options in ([], ["--dry-run"], ["--verify"]):
        assert "nothing to fetch" in typed("fetch", "--task", "phrases", *options).out

    hub.stop()
    assert "everything is here and whole (1 item)" in typed("fetch", "--verify").out
    assert json.loads(typed("fetch", "--verify", "--json").out)["items"][0]["problems"] == []
    (place.folder / "order.txt").unlink()
    assert "order.txt is missing" in typed("fetch", "--verify", code=2).err
    said = typed("fetch", "--task", "order", "--dry-run", code=2).err.splitlines()
    assert said[0].startswith(f"clipstudy: No answer from {hub.url.removeprefix('http://')} (")
    assert said[1:] == [
        "Not reached: datasets order",
        "On a machine with network, type: clipstudy fetch --task order --dry-run",
    ]
    assert "order.txt does not answer" in json.loads(typed("fetch", "--json", code=2).out)["failures"][0]
    assert "no model" in typed("fetch", "--model", "brt", code=2).err
    assert "not both" in typed("fetch", "--dry-run", "--verify", code=2).err


def test_without_network_what_was_typed_is_what_is_told(
    place: Place, typed: Typed, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the Hub alone: a file of another address is not its own."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "order.txt" in typed("fetch", "--dry-run").out
    study = place.folder / "tasks.toml"
    study.write_text(study.read_text().replace('checkpoint = "./', 'checkpoint = "owner/'))
    said = typed("fetch", "--task", "order", code=2).err
    assert "HF_HUB_OFFLINE=0 clipstudy fetch --task order)" in said
    assert "(clipstudy fetch --task order --verify)" in said


def test_a_cache_that_cannot_be_written_fails_one_item_after_the_other(
    place: Place, typed: Typed, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.folder / "file").write_text("")
    monkeypatch.setenv("CLIPSTUDY_CACHE", str(place.folder / "file"))
    said = typed("fetch", code=2).err
    assert "cannot be written to" in said and "export CLIPSTUDY_CACHE=FOLDER" in said
    assert (place.folder / "order.txt").exists(), "what came is kept"


def test_a_study_may_have_a_long_name_of_any_letters(place: Place, typed: Typed, hub: Hub) -> None:
    study = place.folder / "tasks.toml"
    study.write_text(study.read_text().replace('name = "small"', f'name = "{"図" * 60}"'))
    assert "everything is here" in typed("fetch").out
    assert "everything is here and whole" in typed("fetch", "--verify").out


def test_where_there_is_nothing_to_fetch_nobody_need_be_asked(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "nothing to fetch" in typed("fetch").out
    told = json.loads(typed("fetch", "--json").out)
    assert (told["items"], told["failures"]) == ([], [])
