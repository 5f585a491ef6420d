"""Checkpoints of any content: the only errors are the house's own, and name the model."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipstudy import backbones
from clipstudy.backbones import building, checkpoint, from_open_clip
from clipstudy.errors import ModelError
from clipstudy.spec import ModelSpec
from tests.fuzz.damage import damaged, fuzzed, values
from tests.torch import checkpoints, image_checkpoints

#: Bytes that a model may take.
ROOM = 1 << 28


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptions of large models are refused, not filled with numbers, however much memory there is."""
    monkeypatch.setattr(building, "free", lambda: ROOM)


SPEC = ModelSpec("m", "transformers", "x", 3)
TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def safetensors(header: bytes, length: int | None = None, rest: bytes = b"\0" * 8) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + rest


WHOLE = json.dumps({"w": TENSOR, "__metadata__": {"format": "pt"}}).encode()
headers = st.one_of(
    st.builds(safetensors, damaged(WHOLE), st.none() | st.integers(0, 2**64 - 1)),
    st.builds(
        lambda value, key: safetensors(json.dumps({"w": {**TENSOR, key: value}}).encode()),
        values,
        st.sampled_from(sorted(TENSOR)),
    ),
    damaged(safetensors(WHOLE)),
)


@fuzzed()
@given(headers)
def test_headers_of_safetensors(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    try:
        checkpoint.verify(file, SPEC)
    except ModelError as error:
        assert str(error).startswith("[models.m]") and "model.safetensors" in str(error)


INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()


@fuzzed()
@given(st.one_of(damaged(INDEX), values.map(lambda held: json.dumps({"weight_map": held}).encode())))
def test_indexes_of_shards(tmp_path: Path, content: bytes) -> None:
    for shard in ("model-1.safetensors", "model-2.safetensors"):
        (tmp_path / shard).write_bytes(safetensors(WHOLE))
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    try:
        checkpoint.weights_in(tmp_path, SPEC)
    except ModelError as error:
        assert str(error).startswith("[models.m]")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return checkpoints.bert(tmp_path_factory.mktemp("whole") / "bert").spec


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@fuzzed(20)
@given(data=st.data())
def test_descriptions(name: str, bert: ModelSpec, tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(bert.checkpoint, folder, dirs_exist_ok=True)
    whole = (folder / name).read_bytes()
    held = json.loads(whole)
    one = st.builds(lambda key, value: json.dumps({**held, key: value}).encode(), st.sampled_from(sorted(held)), values)
    (folder / name).write_bytes(data.draw(st.one_of(damaged(whole, 2), one)))
    try:
        backbones.load(ModelSpec("m", "transformers", str(folder), 3), "cpu")
    except ModelError as error:
        assert str(error).startswith("[models.m]") or "the tokenizer" in str(error)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    args = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2}
    folder = tmp_path_factory.mktemp("whole") / "vit"
    return image_checkpoints.of_timm("vit_tiny_patch16_224", args, "cls", (2, 2, 2), True, folder).spec


@fuzzed(20)
@given(data=st.data())
def test_descriptions_of_images(image: ModelSpec, tmp_path: Path, data: st.DataObject) -> None:
    """How they are prepared, above all."""
    whole = (Path(image.checkpoint.removeprefix("local-dir:")) / "config.json").read_bytes()
    held = json.loads(whole)
    seen = held["pretrained_cfg"]

    def changed(key: str, value: object) -> bytes:
        return json.dumps({**held, "pretrained_cfg": {**seen, key: value}}).encode()

    one = st.builds(changed, st.sampled_from([*sorted(seen), "crop_mode", "fixed_input_size"]), values)
    (tmp_path / "config.json").write_bytes(data.draw(st.one_of(damaged(whole, 2), one)))
    try:
        backbones.load(replace(image, checkpoint=f"local-dir:{tmp_path}", init="random"), "cpu")
    except ModelError as error:
        assert str(error).startswith("[models.")


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return checkpoints.open_clip_text(tmp_path_factory.mktemp("whole") / "tower").spec


@fuzzed(20)
@given(data=st.data())
def test_open_clips_descriptions(tower: ModelSpec, tmp_path: Path, data: st.DataObject) -> None:
    """Up to the model's weights; its tokenizer comes with the library, and takes as long as a hundred models."""
    whole = (Path(tower.checkpoint.removeprefix("local-dir:")) / "open_clip_config.json").read_bytes()
    held = json.loads(whole)
    parts = [("model_cfg", name) for name in sorted(held["model_cfg"])]
    parts += [("text_cfg", name) for name in sorted(held["model_cfg"]["text_cfg"])]

    def changed(at: tuple[str, str], value: object) -> bytes:
        model = json.loads(whole)["model_cfg"]
        (model if at[0] == "model_cfg" else model["text_cfg"])[at[1]] = value
        return json.dumps({"model_cfg": model}).encode()

    one = st.builds(changed, st.sampled_from(parts), values)
    (tmp_path / "open_clip_config.json").write_bytes(data.draw(st.one_of(damaged(whole, 2), one)))
    spec = ModelSpec("m", "open_clip", f"local-dir:{tmp_path}", 3, tower="text", init="random")
    try:
        from_open_clip._config(spec)
        from_open_clip._filled(spec, None)
    except ModelError as error:
        assert str(error).startswith("[models.m]")
