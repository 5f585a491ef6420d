"""Who writes a checkpoint gets no code run: every library that would run some is shown to, and then asked our way."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import transformers

from clipstudy import backbones
from clipstudy.errors import ModelError
from clipstudy.spec import ModelSpec
from tests.torch import checkpoints
from tests.torch.image_checkpoints import BUILDERS as IMAGES

EVIL = """
from pathlib import Path
Path({marker!r}).touch()
import transformers
class Config(transformers.BertConfig): pass
class Model(transformers.BertModel): pass
class Tokenizer(transformers.BertTokenizer): pass
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Comes into being where the checkpoint's code is run."""
    return tmp_path / "it-ran"


def bring_code(folder: Path, marker: Path) -> None:
    """Put code beside a checkpoint's files, named where the libraries look for it."""
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
    for name, kinds in (
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Tokenizer", None]}),
        ("config.json", {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}),
    ):
        file = folder / name
        held = json.loads(file.read_text()) if file.exists() else {}
        held |= {"auto_map": kinds}
        if name == "config.json":
            held["model_type"] = "evil"
        else:
            held["tokenizer_class"] = "Evil"
        file.write_text(json.dumps(held))


def test_transformers_own_code(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    spec = checkpoints.bert(tmp_path / "bert").spec
    bring_code(Path(spec.checkpoint), marker)
    for init in ("pretrained", "random"):
        with pytest.raises(ModelError, match="Models that bring their own code are not run"):
            backbones.load(replace(spec, init=init), "cpu")
    assert not marker.exists()
    with_code = {"trust_remote_code": True, "local_files_only": True}
    transformers.AutoTokenizer.from_pretrained(spec.checkpoint, **with_code)
    assert marker.exists(), "the code would have run"


def test_open_clips_description_asks_for_a_tokenizers_code(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    spec = checkpoints.open_clip_text(tmp_path / "tower").spec
    folder = Path(spec.checkpoint.removeprefix("local-dir:"))
    checkpoints.bert_tokenizer().save_pretrained(folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "x/y", "tokenizer_kwargs": {"trust_remote_code": True}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    bring_code(folder, marker)
    with pytest.raises(ModelError, match=r"the tokenizer of .* cannot be read"):
        backbones.load(spec, "cpu")
    assert not marker.exists()
    open_clip.get_tokenizer(spec.checkpoint)
    assert marker.exists(), "the code would have run"


def test_nobody_is_asked_whether_to_run_a_text_towers_code(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an image model too, whose text tower is built and not read."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: marker.touch() or "y")
    spec = checkpoints.open_clip_text(tmp_path / "tower").spec
    folder = Path(spec.checkpoint.removeprefix("local-dir:"))
    described = tmp_path / "text"
    described.mkdir()
    bring_code(described, marker)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] = {"hf_model_name": str(described), "hf_tokenizer_name": str(described)}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    for modality, tower in (("image", "image"), ("text", "text")):
        with pytest.raises(ModelError):
            backbones.load(replace(spec, modality=modality, tower=tower), "cpu")
    assert not marker.exists()


def test_a_configuration_does_not_choose_code_for_attention(tmp_path: Path) -> None:
    spec = checkpoints.bert(tmp_path / "bert").spec
    file = Path(spec.checkpoint) / "config.json"
    clean = backbones.load(spec, "cpu").resolved
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attn_implementation": "someone/kernel"}))
    loaded = backbones.load(spec, "cpu")
    assert loaded.module.config._attn_implementation in ("sdpa", "eager")
    assert loaded.resolved["checkpoint"] != clean["checkpoint"], "it is another configuration all the same"
    with pytest.raises(Exception, match=r"kernel"):
        transformers.AutoModel.from_pretrained(spec.checkpoint, local_files_only=True)


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pth"])
def test_pickles_by_any_name(tmp_path: Path, marker: Path, name: str) -> None:
    """A file's bytes decide, not its name, and other names are not looked at."""
    pickled = pickle.dumps(Payload(marker))
    for spec in (checkpoints.bert(tmp_path / "bert").spec, IMAGES["resnet"](tmp_path / "resnet").spec):
        folder = Path(spec.checkpoint.removeprefix("local-dir:"))
        for file in folder.glob("*.safetensors"):
            file.unlink()
        (folder / name).write_bytes(pickled)
        with pytest.raises(ModelError, match=r"corrupt|no safetensors weights"):
            backbones.load(spec, "cpu")
    assert not marker.exists()
    pickle.loads(pickled)  # noqa: S301 (its own payload)
    assert marker.exists(), "the code would have run"


def test_timms_description_names_no_other_weights(tmp_path: Path, marker: Path) -> None:
    spec: ModelSpec = IMAGES["resnet"](tmp_path / "resnet").spec
    folder = Path(spec.checkpoint.removeprefix("local-dir:"))
    pickled = tmp_path / "elsewhere.pth"
    pickled.write_bytes(pickle.dumps(Payload(marker)))
    clean = backbones.load(spec, "cpu").module.state_dict()
    config = json.loads((folder / "config.json").read_text())
    named = {"file": str(pickled), "url": pickled.as_uri(), "hf_hub_id": "x/y", "custom_load": True}
    config["pretrained_cfg"] = {**config.get("pretrained_cfg", {}), **named}
    (folder / "config.json").write_text(json.dumps(config))
    loaded = backbones.load(spec, "cpu").module.state_dict()
    assert all(loaded[name].equal(weight) for name, weight in clean.items()) and not marker.exists()
