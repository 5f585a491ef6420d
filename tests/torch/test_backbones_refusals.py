"""Checkpoints that cannot serve: each refusal says what was found and ends with what to do."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import open_clip
import pytest
import timm
import torch
import transformers
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from safetensors.torch import load_file, save_file
from torch import nn

from clipstudy import backbones
from clipstudy.backbones import blocks, building, checkpoint, open_clip_image
from clipstudy.errors import DeviceError, ModelError
from clipstudy.spec import ModelSpec
from tests.torch import checkpoints, image_checkpoints
from tests.torch.refusals import refused

COMMIT = "c0ffee" + "0" * 34


@pytest.fixture
def bert(tmp_path: Path) -> ModelSpec:
    return checkpoints.bert(tmp_path / "bert").spec


@pytest.fixture
def tower(tmp_path: Path) -> ModelSpec:
    return checkpoints.open_clip_text(tmp_path / "tower").spec


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bert: ModelSpec) -> ModelSpec:
    """``owner/tiny`` in a Hub cache, with no network."""
    repository = tmp_path / "hub" / "models--owner--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(bert.checkpoint, repository / "snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return replace(bert, checkpoint="owner/tiny")


def test_depth_must_be_the_checkpoints(bert, tower):
    for spec in (bert, tower):
        refused(replace(spec, layers=14), "layers = 14, but the checkpoint has 3 blocks", "Write layers = 3.")


def test_no_such_folder_and_no_such_name(bert, tower):
    refused(replace(bert, checkpoint="/nowhere/model"), 'there is no folder "/nowhere/model"')
    refused(replace(bert, checkpoint="a/b/c"), "there is no folder")
    refused(replace(bert, checkpoint="not an id!"), "neither a folder here nor a Hub id")
    refused(replace(tower, checkpoint="local-dir:/nowhere"), "/nowhere/open_clip_config.json")
    refused(replace(tower, checkpoint="/nowhere"), "/nowhere/open_clip_config.json")
    refused(replace(tower, checkpoint="ViT-B-33", init="random"), 'Did you mean "ViT-B-32"?')


def test_what_the_hub_cache_holds_is_taken(cached, bert):
    backbone = backbones.load(cached, "cpu")
    assert backbone.resolved["checkpoint"] == COMMIT
    assert backbones.load(replace(cached, revision="main"), "cpu").resolved == backbone.resolved
    assert backbones.load(bert, "cpu").resolved["checkpoint"].startswith("sha256:")


@pytest.mark.parametrize("place", ["runs/snapshots/last", f"runs/snapshots/{COMMIT}", "models--mine/snapshots/last"])
def test_a_folder_that_looks_like_the_hubs_is_known_by_its_files(tmp_path, bert, place):
    folder = tmp_path / place
    shutil.copytree(bert.checkpoint, folder)
    spec = replace(bert, checkpoint=str(folder))
    before = backbones.load(spec, "cpu").resolved["checkpoint"]
    (weights,) = folder.glob("*.safetensors")
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    after = backbones.load(spec, "cpu").resolved["checkpoint"]
    assert before.startswith("sha256:") and after.startswith("sha256:") and before != after


def test_a_tokenizer_of_its_own_name_is_part_of_what_a_text_tower_is(cached, tower, tmp_path, monkeypatch):
    folder = Path(tower.checkpoint.removeprefix("local-dir:"))
    description = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    description["text_cfg"]["hf_tokenizer_name"] = cached.checkpoint
    (tmp_path / "tiny-with-a-tokenizer.json").write_text(json.dumps(description))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    open_clip.add_model_config(tmp_path / "tiny-with-a-tokenizer.json")
    spec = replace(tower, checkpoint="tiny-with-a-tokenizer", init="random")
    before = backbones.load(spec, "cpu").resolved["checkpoint"]
    (file,) = (tmp_path / "hub").rglob("tokenizer.json")
    file.write_text(file.read_text() + "\n")
    assert backbones.load(spec, "cpu").resolved["checkpoint"] != before


def test_what_the_hub_cache_lacks_is_said(cached):
    refused(replace(cached, checkpoint="owner/other"), "not in the local cache", "clipstudy fetch --model")
    refused(replace(cached, revision="v9"), 'at revision "v9"', "not in the local cache")


@pytest.mark.parametrize(
    ("error", "words"),
    [(RevisionNotFoundError, 'has no revision "v9"'), (RepositoryNotFoundError, "is not on the Hub")],
)
def test_what_the_hub_says_is_passed_on(bert, monkeypatch, error, words):
    def answer(*_args, **_kwargs):
        raise error("404", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    refused(replace(bert, checkpoint="owner/tiny", revision="v9"), words)


def test_pickled_weights_are_never_read(bert, tower):
    for spec, name in ((bert, "pytorch_model.bin"), (tower, "open_clip_pytorch_model.bin")):
        folder = Path(spec.checkpoint.removeprefix("local-dir:"))
        for file in folder.glob("*.safetensors"):
            file.rename(folder / name)
        refused(spec, "no safetensors weights", name, "can run code")
    folder.joinpath(name).unlink()
    refused(spec, "no weights at all")


def test_corrupt_weights(bert, tower):
    for spec in (bert, tower):
        (file,) = Path(spec.checkpoint.removeprefix("local-dir:")).glob("*.safetensors")
        whole = file.read_bytes()
        for broken in (whole[:-10], b"not safetensors at all", b""):
            file.write_bytes(broken)
            refused(spec, file.name, "corrupt or was cut short", "fetch it again")


def test_a_missing_shard(bert):
    folder = Path(bert.checkpoint)
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: weights[name] for name in held}, folder / shard, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    backbones.load(bert, "cpu")
    (folder / "model-2.safetensors").unlink()
    refused(bert, "names 2 files, but model-2.safetensors is missing")
    (folder / "model.safetensors.index.json").write_text("{")
    refused(bert, "not a readable index")


def test_weights_of_another_model(bert, tower):
    file = Path(bert.checkpoint) / "model.safetensors"
    weights = load_file(file)
    part = {k: v for k, v in weights.items() if not k.startswith("encoder.layer.1.")}
    save_file(part, file, metadata={"format": "pt"})
    refused(bert, "lacks 16 weights of BertModel", "encoder.layer.1.")
    save_file({k: v[..., :5].contiguous() for k, v in weights.items()}, file, metadata={"format": "pt"})
    refused(bert, "cannot be loaded")
    (theirs,) = Path(tower.checkpoint.removeprefix("local-dir:")).glob("*.safetensors")
    save_file(weights, theirs)
    refused(tower, "does not hold the weights of", "belong together")


def test_a_head_that_is_not_ours_may_be_missing(bert):
    file = Path(bert.checkpoint) / "model.safetensors"
    weights = {k: v for k, v in load_file(file).items() if "pooler" not in k}
    save_file(weights, file, metadata={"format": "pt"})
    assert backbones.load(bert, "cpu").depth == 3


def test_tokenizers_that_are_absent_or_too_large(bert):
    folder = Path(bert.checkpoint)
    config = json.loads((folder / "config.json").read_text())
    for file in folder.glob("*token*"):
        file.rename(file.with_suffix(".away"))
    refused(bert, "has no tokenizer that can be read", "beside config.json")
    for file in folder.glob("*.away"):
        file.rename(file.with_suffix(".json"))
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 20}))
    refused(replace(bert, init="random"), "ids up to 66, but the model embeds 20 tokens")


def test_a_tokenizer_whose_unknown_token_is_unknown(bert):
    """The library looks it up by looking it up."""
    file = Path(bert.checkpoint) / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"unk_token": ""}))
    refused(bert, "has no tokenizer that can be read (maximum recursion depth exceeded")


def test_models_that_do_not_fit_into_memory(bert, tower, tmp_path):
    """None of these could be made: the kernel would end whoever tries."""
    large = 2**40 // 256
    file = Path(bert.checkpoint) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"intermediate_size": large}))
    file = Path(tower.checkpoint.removeprefix("local-dir:")) / "open_clip_config.json"
    described = json.loads(file.read_text())
    described["model_cfg"]["text_cfg"]["context_length"] = 2**22  # the mask alone: 64 TiB
    file.write_text(json.dumps(described))
    small = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2}
    vit = image_checkpoints.of_timm("vit_tiny_patch16_224", small, "cls", (2, 2, 2), True, tmp_path / "vit").spec
    file = Path(vit.checkpoint.removeprefix("local-dir:")) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_args": {**small, "mlp_ratio": large}}))
    for spec in (bert, tower, vit):
        refused(replace(spec, init="random"), "is too large for this machine", "GiB of memory, and", "are free")
    with pytest.raises(ModelError) as told:
        backbones.load(replace(vit, init="random"), "cpu")
    assert not told.value.transient, "no waiting helps"


def test_watching_memory_changes_nothing_that_is_drawn(monkeypatch):
    spec = ModelSpec("m", "timm", "resnet18", 4, init="random", init_seed=3, modality="image")
    monkeypatch.setattr(building, "UNSEEN", 0)
    with building.building(spec):
        watched = timm.create_model("resnet18")
    torch.manual_seed(3)
    assert checkpoint.weights_of(watched) == checkpoint.weights_of(timm.create_model("resnet18"))
    monkeypatch.setattr(building, "free", lambda: 2**20)
    with pytest.raises(ModelError, match="resnet18") as told, building.building(spec):
        timm.create_model("resnet18")
    assert told.value.transient, "others hold the memory, and may give it back"


def test_another_models_tokenizer(bert, tmp_path, caplog):
    gpt2 = checkpoints.gpt2(tmp_path / "gpt2").spec
    folder = Path(gpt2.checkpoint)
    for file in folder.glob("*token*"):
        file.unlink()
    for file in Path(bert.checkpoint).glob("*token*"):
        shutil.copy(file, folder)
    refused(gpt2, "bos_token_id is 261, which its tokenizer does not know", "put the model's own tokenizer files")

    config = Path(bert.checkpoint) / "config.json"
    backbones.load(bert, "cpu")
    assert "is it the model's own?" not in caplog.text
    config.write_text(config.read_text().replace('"vocab_size": 67', '"vocab_size": 80'))
    backbones.load(replace(bert, init="random"), "cpu")
    assert "its tokenizer knows 67 of the 80 tokens that the model embeds; is it the model's own?" in caplog.text


def test_models_that_are_not_one_stack_of_text(bert):
    folder = Path(bert.checkpoint)
    for config, words in (
        ({"model_type": "bart"}, "encoder-decoder"),
        ({"model_type": "siglip"}, "several towers"),
        ({"model_type": "siglip_text_model"}, "no AutoModel for. Choose another checkpoint; SigLIP's text tower"),
        ({"model_type": "vit"}, 'has no vocabulary: source "transformers" gives text models'),
        ({"model_type": "made-up"}, "does not know"),
        ({"model_type": "made-up", "auto_map": {"AutoConfig": "code.Config"}}, "own code"),
    ):
        (folder / "config.json").write_text(json.dumps(config))
        refused(bert, words)
    (folder / "config.json").unlink()
    refused(bert, "has no config.json")


def test_weights_that_are_not_the_files_beside_the_configuration(bert):
    """A quantised checkpoint, an adapter, another file that the configuration names."""
    folder = Path(bert.checkpoint)
    plain = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(plain | {"quantization_config": {"quant_method": "fp8"}}))
    refused(bert, "is quantised")
    (folder / "config.json").write_text(json.dumps(plain | {"transformers_weights": "elsewhere/other.safetensors"}))
    backbones.load(bert, "cpu")
    (folder / "adapter_config.json").write_text("{}")
    refused(bert, "adapter beside its weights")


def test_the_encoder_of_an_encoder_decoder(bert, tmp_path):
    config = transformers.T5Config(vocab_size=67, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2)
    transformers.T5EncoderModel(config).save_pretrained(tmp_path)
    for file in Path(bert.checkpoint).glob("*token*"):
        shutil.copy(file, tmp_path)
    refused(replace(bert, checkpoint=str(tmp_path), layers=2), "is the encoder of an encoder-decoder (t5)")


def test_keys_that_do_not_fit_the_source(bert, tower):
    refused(replace(bert, tower="text"), "it has one tower", "Remove the tower key.")
    for spec in (bert, tower):
        refused(replace(spec, tower="image"), 'tower = "image"')
        refused(replace(spec, dtype="float16"), "float32, bfloat16")
        refused(replace(spec, view="mean"), "cls, last, eot")
        refused(replace(spec, max_tokens=2), "leaves no room", "Raise it.")
    refused(replace(bert, pretrained="openai"), 'source "open_clip"')
    refused(replace(tower, revision="main"), "Remove it.")
    named = replace(tower, checkpoint="ViT-B-32-quickgelu", layers=12)
    refused(named, "has no pretrained key")
    refused(replace(named, pretrained="openia"), 'Did you mean "openai"?')
    refused(replace(named, checkpoint="coca_ViT-B-32"), "CoCa")
    refused(replace(named, checkpoint="roberta-ViT-B-32"), "transformers model (roberta-base)")


def test_weights_given_as_a_file(tower, tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(b"anything")
    named = replace(tower, checkpoint="ViT-B-32-quickgelu", layers=12)
    refused(replace(named, pretrained=str(file)), "not safetensors", "can run code")


def test_another_gelu_than_the_weights(tower, monkeypatch, tmp_path):
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_args, **_more: str(tmp_path))
    spec = replace(tower, checkpoint="ViT-B-32", layers=12, pretrained="openai")
    refused(spec, "computes another GELU", 'Write checkpoint = "ViT-B-32-quickgelu".')
    laion = replace(spec, checkpoint="ViT-B-32-quickgelu", pretrained="laion2b_s34b_b79k")
    refused(laion, 'pretrained = "laion2b_s34b_b79k" is neither a file here nor a tag of ViT-B-32-quickgelu')
    refused(replace(spec, checkpoint="ViT-B-32-quickgelu"), "corrupt or was cut short")


def test_how_images_of_weights_in_a_file_are_prepared():
    """As for all of open_clip's own of that name: SigLIP's description does not say that they are squashed."""
    tower = SimpleNamespace(preprocess_cfg={"size": 224, "mean": (0.48,) * 3, "resize_mode": "shortest"})
    spec = ModelSpec("m", "open_clip", "ViT-B-16-SigLIP", 12, modality="image", pretrained="./siglip.safetensors")
    seen = open_clip_image.preprocessing(spec, tower)
    assert (seen.mean, seen.std, seen.resize_mode) == ((0.5,) * 3, (0.5,) * 3, "squash")
    differing = replace(spec, checkpoint="ViT-L-14", layers=24)
    with pytest.raises(ModelError, match=r"does not say how images are prepared.*Put the file into a folder"):
        open_clip_image.preprocessing(differing, tower)
    untrained = replace(differing, pretrained=None, init="random")
    assert open_clip_image.preprocessing(untrained, tower).resize_mode == "shortest"
    assert open_clip_image.preprocessing(replace(spec, checkpoint="local-dir:/x"), tower).mean == (0.48,) * 3


def test_a_device_that_does_not_exist(bert):
    with pytest.raises(DeviceError, match="Try --device auto"):
        backbones.load(bert, "cuda:99")


class Odd(nn.Module):
    """Lists of the right length that are not the blocks: unused, called backwards, smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
        self.backwards = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(3))
        self.real = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.real:
            x = block(x)
        for norm in self.norms:
            x = x + norm(x)
        for block in reversed(self.backwards):
            x = block(x)
        return x


def test_blocks_are_found_by_watching_them_run():
    model = Odd()
    found = blocks.find(model, 3, lambda: model(torch.zeros(1, 4)), "odd")
    assert all(a is b for a, b in zip(found, model.real, strict=True))
    assert not any(m._forward_pre_hooks for m in model.modules())
    with pytest.raises(ModelError, match="no list of 5 blocks"):
        blocks.find(model, 5, lambda: model(torch.zeros(1, 4)), "odd")
