"""The pocket models: their sizes, their checkpoints in the libraries' own layouts, and what twins share."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import timm
import torch

from clipstudy.backbones import load
from clipstudy.pocket.text import wordlist
from clipstudy.pocket.text.language import Language
from clipstudy.pocket.training import batches, models, twins
from clipstudy.spec import ModelSpec

TEXT = [name for name, model in models.MODELS.items() if model.reads]
SEEING = [name for name, model in models.MODELS.items() if model.sees]


@pytest.fixture(scope="module")
def built() -> dict[str, torch.nn.Module]:
    found = {name: models.build(name, seed=3).eval() for name in models.MODELS}
    draw = torch.Generator().manual_seed(0)
    for model in found.values():  # norms start as the identity, which would hide a forgotten one
        for weight in model.parameters():
            weight.data.add_(torch.randn(weight.shape, generator=draw) * 0.02)
    return found


@pytest.fixture(scope="module")
def folders(built, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pocket")
    for name, model in built.items():
        models.save(name, model, root / name)
    return {name: root / name for name in built}


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return batches.pixels(next(batches.scene_batches(0, 4)))


def test_each_has_under_a_million_and_a_half_weights(built):
    assert len(built) == 7
    for name, model in built.items():
        assert 100_000 < models.size(model) < 1_500_000, name


def test_checkpoints_are_half_precision_safetensors_and_small_together(folders):
    bytes_ = 0
    for name, folder in folders.items():
        (weights,) = folder.glob("*.safetensors")
        header = weights.read_bytes()
        described = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
        kinds = {value["dtype"] for key, value in described.items() if key != "__metadata__"}
        assert kinds <= {"F16", "I64"}, name  # a batch norm counts its batches in whole numbers
        assert not [*folder.glob("*.bin"), *folder.glob("*.pt")]
        bytes_ += sum(file.stat().st_size for file in folder.iterdir())
    assert bytes_ < 12e6


def test_a_checkpoint_read_back_is_the_model_that_was_written(built, folders):
    for name, model in built.items():
        read = models.load(name, folders[name]).state_dict()
        for key, value in model.state_dict().items():
            torch.testing.assert_close(read[key].float(), value.float(), atol=1e-3, rtol=1e-3, msg=f"{name} {key}")


def test_writing_a_checkpoint_leaves_the_model_in_single_precision(built):
    assert {weight.dtype for model in built.values() for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", TEXT)
def test_the_ordinary_adapters_read_the_text_models(name, folders, built):
    spec = ModelSpec(name, models.MODELS[name].source, str(folders[name]), models.TEXT_LAYERS)
    backbone = load(spec, "cpu")
    assert (backbone.depth, backbone.width) == (models.TEXT_LAYERS, models.TEXT["width"])
    assert backbone.limit == models.TEXT["context"]
    assert backbone.native == {"bert": "cls", "gpt2": "last"}.get(name, "eot")
    sentences = [next(iter(Language(seed))).words for seed in range(20)]
    for words, pieces in zip(sentences, backbone.pieces(sentences), strict=True):
        trained = wordlist.encode(words)
        # GPT-2's tokenizer adds nothing; the adapter puts the first token there, and the last it has no use for.
        assert list(pieces.ids) == (trained[:-1] if name == "gpt2" else trained)
    ids = batches.padded([wordlist.encode(words) for words in sentences[:3]])
    states = backbone.states(ids, ids != 0, [0, 3, 6])
    assert all(found.shape == (*ids.shape, models.TEXT["width"]) for found in states.values())
    direct = _last(name, built[name], ids)
    torch.testing.assert_close(states[6][ids != 0], direct[ids != 0], atol=3e-2, rtol=3e-2)


def _last(name: str, model, ids: torch.Tensor) -> torch.Tensor:
    """The last block's raw output."""
    kept = []
    hook = twins.trunk_of(name, "text", model)[-1].register_forward_hook(
        lambda _module, _args, output: kept.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad():
        if name == "bert":
            model.bert(ids, attention_mask=(ids != 0).long())
        elif name == "gpt2":
            model.transformer(ids, attention_mask=torch.ones_like(ids))
        else:
            models.encode_text(model, ids)
    hook.remove()
    return kept[0]


@pytest.mark.parametrize("name", ["clip-resnet", "clip-vit"])
def test_open_clip_reads_what_it_should(name, folders, built, pixels):
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folders[name]}")
    model.eval()
    assert list(transform.transforms[-1].mean) == list(models.MEAN)
    tokens = open_clip.get_tokenizer(f"local-dir:{folders[name]}")(
        ["there is a red star .", "a mug is in the middle ."]
    )
    assert tokens.shape == (2, models.TEXT["context"])
    with torch.no_grad():
        short = models.encode_text(model, tokens[:, :10])
        torch.testing.assert_close(short, model.encode_text(tokens), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model.encode_image(pixels), built[name].encode_image(pixels), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("name", ["resnet", "vit", "vit-pairs"])
def test_timm_reads_what_it_should(name, folders, built, pixels):
    model = timm.create_model(f"local-dir:{folders[name]}", pretrained=True).eval()
    assert list(model.pretrained_cfg["mean"]) == list(models.MEAN)
    assert list(model.pretrained_cfg["input_size"]) == [3, models.SIDE, models.SIDE]
    assert model.num_classes == (0 if name == "vit-pairs" else 100)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), built[name](pixels), atol=2e-2, rtol=2e-2)
        again = models.encode_image(name, built[name], pixels)
        assert again.shape == (4, model.num_features)


@pytest.mark.parametrize("name", SEEING)
def test_pictures_pass_four_stages(name, built):
    trunk = "residual" if name.endswith("resnet") else "transformer"
    parts = twins.trunk_of(name, trunk, built[name])
    stages = parts[-4:] if trunk == "residual" else parts[-5:-1]
    assert len({type(stage) for stage in stages}) == 1
    assert len(parts) - len(stages) == {"residual": {"clip-resnet": 6}.get(name, 2), "transformer": 3}[trunk]


def test_the_same_seed_gives_the_same_first_weights_and_disturbs_no_one():
    torch.manual_seed(1)
    before = torch.rand(1)
    torch.manual_seed(1)
    one, same, other = (models.build("vit", seed) for seed in (0, 0, 1))
    assert torch.rand(1) == before
    weights = [model.blocks[0].attn.qkv.weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_the_token_that_ends_a_text_has_the_highest_number_and_padding_the_lowest():
    known = wordlist.numbers()
    assert known[wordlist.END] == len(known) - 1 and known[wordlist.PAD] == 0
    assert len(set(wordlist.tokens())) == len(wordlist.tokens()) > 1500


def test_twins_have_the_same_trunk_to_the_weight(built):
    for trunk, names in twins.TWINS.items():
        counts = {sum(models.size(part) for part in twins.trunk_of(name, trunk, built[name])) for name in names}
        assert len(counts) == 1, trunk
    # The three kinds of transformer have the same matrices, whether or not a library keeps some of them as one.
    for trunk in ("text", "transformer"):
        blocks = [twins.trunk_of(name, trunk, built[name])[-2] for name in twins.TWINS[trunk]]
        assert len({sum(w.numel() for w in block.parameters() if w.ndim > 1) for block in blocks}) == 1, trunk


def test_residual_twins_compute_the_same_function_of_their_trunk(built, pixels):
    """Not the same size by chance: with the weights of one, the other gives the same states."""
    clip, plain = models.build("clip-resnet").eval(), models.build("resnet", seed=9).eval()
    theirs = [v for part in twins.trunk_of("clip-resnet", "residual", clip) for v in part.state_dict().values()]
    assert [v.shape for v in theirs] == [v.shape for v in _in_order(plain)]
    with torch.no_grad():
        for value, new in zip(_in_order(plain), theirs, strict=True):
            value.copy_(new)
        seen = clip.visual.layer4(clip.visual.layer3(clip.visual.layer2(clip.visual.layer1(clip.visual.stem(pixels)))))
        torch.testing.assert_close(plain.forward_features(pixels), seen, atol=1e-5, rtol=1e-4)


def _in_order(plain) -> list[torch.Tensor]:
    parts = twins.trunk_of("resnet", "residual", plain)
    return [value for part in parts for value in part.state_dict().values()]


def test_the_table_of_twins_says_what_is_shared():
    rows = {(row.trunk, row.name): row for row in twins.aspects()}
    for trunk in twins.TWINS:
        assert rows[trunk, "weights in the trunk"].shared
        # What reads and what sees want another rate; CLIP has one for both its towers.
        assert rows[trunk, "optimiser"].shared == (trunk != "text")
        assert not rows[trunk, "trained to tell"].shared
    assert rows["residual", "steps × batch"].shared and rows["transformer", "steps × batch"].shared
    assert rows["text", "lines read"].shared and rows["text", "words, positions"].shared
    assert not rows["text", "looks"].shared
    text = twins.as_markdown()
    assert text.count("|---") == sum(len(names) + 2 for names in twins.TWINS.values())
    assert all(f" {name} |" in text for name in models.MODELS)
