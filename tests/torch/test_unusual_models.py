"""Models that are built otherwise than most: their states are the library's, or a message says why there are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    BigBirdConfig,
    ConvBertConfig,
    CpmAntConfig,
    DebertaConfig,
    DebertaV2Config,
    DPRConfig,
    FNetConfig,
    Gemma3TextConfig,
    GemmaConfig,
    IBertConfig,
    JambaConfig,
    LongformerConfig,
    ModernBertConfig,
    OpenAIGPTConfig,
    OPTConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    RwkvConfig,
    XLMConfig,
)

from clipstudy import backbones
from clipstudy.backbones import vision
from clipstudy.errors import ModelError
from clipstudy.spec import ModelSpec
from tests.torch import checkpoints
from tests.torch.image_checkpoints import picture, unsettle
from tests.torch.refusals import refused

TEXTS = [["the", "cat", "sat", "."], ["cats"], ["the", "unseen", "cat", ",", "sitting", "!"]]
BERT = {"num_hidden_layers": 3, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
BERT |= {"max_position_embeddings": 24, "vocab_size": 67, "pad_token_id": 0}
SPECIAL = {"vocab_size": 72, "bos_token_id": 2, "eos_token_id": 3}
GROUPED = BERT | SPECIAL | {"num_key_value_heads": 1, "head_dim": 8}
GPT = {"n_layer": 3, "n_embd": 16, "n_head": 2, "n_positions": 24, "vocab_size": 67, "pad_token_id": 0}


def saved(folder: Path, config: Any) -> ModelSpec:
    torch.manual_seed(0)
    return checkpoints._save(folder, AutoModel.from_config(config), checkpoints.bert_tokenizer(), "", 1, 1).spec


def padded(pieces: Any) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(p.ids) for p in pieces)
    ids = torch.tensor([[*p.ids, *[7] * (longest - len(p.ids))] for p in pieces])
    return ids, torch.tensor([[k < len(p.ids) for k in range(longest)] for p in pieces])


@pytest.mark.parametrize(
    "config",
    [
        AlbertConfig(**BERT, embedding_size=8),  # one block for all layers
        AlbertConfig(**BERT | {"num_hidden_layers": 4}, embedding_size=8, num_hidden_groups=2),
        LongformerConfig(**BERT, attention_window=8),  # lengthens texts
        FNetConfig(**BERT),  # has no mask
        ConvBertConfig(**BERT, embedding_size=16),  # its convolutions know none
        OpenAIGPTConfig(**GPT),  # its blocks give lists
        IBertConfig(**BERT),  # an embedding of another kind
        JambaConfig(**BERT, num_key_value_heads=2, attn_layer_period=2, attn_layer_offset=1, mamba_dt_rank=2),
        ModernBertConfig(**BERT | SPECIAL, local_attention=4, cls_token_id=2, sep_token_id=3),
        Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=3, max_window_layers=1),
        Qwen3Config(**GROUPED),
        GemmaConfig(**GROUPED),  # scales what it embeds
        Gemma3TextConfig(**GROUPED, sliding_window=3),
    ],
    ids=lambda config: config.model_type,
)
def test_states_of_texts_are_the_librarys_for_each_text_alone(config: Any, tmp_path: Path) -> None:
    spec = saved(tmp_path, config)
    backbone: Any = backbones.load(spec, "cpu")
    normed: Any = backbones.load(replace(spec, final_norm=True), "cpu")
    model = AutoModel.from_pretrained(spec.checkpoint).eval()
    pieces, every = backbone.pieces(TEXTS), range(spec.layers + 1)
    ids, mask = padded(pieces)
    found, last = backbone.states(ids, mask, every), backbone.last(ids, mask, torch.zeros_like(mask))
    ends = normed.states(ids, mask, [spec.layers])[spec.layers]
    for row, text in enumerate(pieces):
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor([text.ids]), output_hidden_states=True)
        own = slice(len(text.ids))
        for layer in range(spec.layers):
            assert found[layer].shape == (*ids.shape, backbone.width)
            torch.testing.assert_close(found[layer][row, own], theirs.hidden_states[layer][0], atol=1e-5, rtol=1e-4)
        for mine in (ends, last):
            torch.testing.assert_close(mine[row, own], theirs.last_hidden_state[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        # The halves of its blocks lie in lists of their own, each as long as the model is deep.
        (XLMConfig(n_layers=3, emb_dim=16, n_heads=2, vocab_size=67, pad_index=0), "has no list of 3 blocks"),
        (
            DebertaV2Config(**BERT, conv_kernel_size=3, conv_act="gelu"),
            "changes its states between blocks 1 and 2",
        ),
        (DPRConfig(**BERT), "cannot read a text by its token ids and a mask alone"),
        (
            CpmAntConfig(
                vocab_size=67,
                hidden_size=16,
                num_attention_heads=2,
                dim_head=8,
                dim_ff=32,
                num_hidden_layers=3,
                prompt_types=4,
                prompt_length=4,
            ),
            "puts something of its own in front of a text",
        ),
    ],
    ids=["xlm", "deberta-v2", "dpr", "cpmant"],
)
def test_texts_whose_layers_are_not_clear(config: Any, words: str, tmp_path: Path) -> None:
    refused(saved(tmp_path, config), words)


def test_states_that_a_model_would_halve_on_its_way(tmp_path: Path) -> None:
    """RWKV, every sixth block, for half precision."""
    config = RwkvConfig(vocab_size=72, hidden_size=16, num_hidden_layers=7, attention_hidden_size=16)
    assert backbones.load(replace(saved(tmp_path, config), layers=7), "cpu").depth == 7


def test_a_model_reads_no_text_for_which_it_would_change_its_attention(tmp_path: Path) -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BigBirdConfig(vocab_size=72, block_size=2, num_random_blocks=1, max_position_embeddings=64, **shape)
    assert backbones.load(saved(tmp_path, config), "cpu").limit == 14


@pytest.mark.parametrize("own", [False, True])
def test_a_model_reads_no_text_at_which_its_rotations_would_change(own: bool, tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "rope_theta": 1e4}
    positions = {"original_max_position_embeddings": 16, "max_position_embeddings": 64}
    config = Phi3Config(
        **BERT | SPECIAL | positions, rope_parameters={**rope, "rope_type": "longrope" if own else "default"}
    )
    assert backbones.load(saved(tmp_path, config), "cpu").limit == (16 if own else 64)


def test_positions_kept_for_padding_are_not_for_text(tmp_path: Path) -> None:
    config = IBertConfig(**BERT | {"max_position_embeddings": 20})
    backbone: Any = backbones.load(saved(tmp_path, config), "cpu")
    text = backbone.pieces([["the"] * 40])
    assert backbone.limit == 20 - config.pad_token_id - 1 == len(text[0].ids)
    assert backbone.states(*padded(text), [3])[3].isfinite().all()


def test_a_vocabulary_of_as_many_words_as_positions_keeps_none_for_padding(tmp_path: Path) -> None:
    config = BertConfig(**BERT | {"max_position_embeddings": BERT["vocab_size"]})
    assert backbones.load(saved(tmp_path, config), "cpu").limit == BERT["vocab_size"]


def test_outlying_dimensions_do_not_hide_that_padding_is_read(tmp_path: Path) -> None:
    """As some models have them: one dimension a thousand times as large as the others."""
    spec = saved(tmp_path, FNetConfig(**BERT))
    (weights,) = Path(spec.checkpoint).glob("*.safetensors")
    state = load_file(weights)
    state["encoder.layer.2.output.LayerNorm.bias"][3] = 3e4
    save_file(state, weights, {"format": "pt"})
    backbone: Any = backbones.load(spec, "cpu")
    short, longer = backbone.pieces([["the"], ["the"] * 9])
    alone = backbone.states(*padded([short]), [3])[3]
    among = backbone.states(*padded([short, longer]), [3])[3]
    torch.testing.assert_close(among[0, : len(short.ids)], alone[0], atol=1e-3, rtol=1e-4)


def test_a_model_that_knows_no_padding_token(tmp_path: Path) -> None:
    config = RwkvConfig(vocab_size=72, hidden_size=16, num_hidden_layers=2, attention_hidden_size=16)
    backbone: Any = backbones.load(saved(tmp_path, config), "cpu")
    ids, mask = padded(backbone.pieces(TEXTS))
    assert backbone.native == "eot" and backbone.states(ids, mask, [2])[2].isfinite().all()


def test_what_closes_a_text_of_a_causal_model_stands_for_it(tmp_path: Path) -> None:
    """As in Qwen3-Embedding, whose tokenizer puts it there; without one, the last piece does."""
    spec = saved(tmp_path, Qwen3Config(**GROUPED))
    backbone: Any = backbones.load(spec, "cpu")  # BERT's tokenizer: [CLS] … [SEP]
    assert backbone.native == "eot"


@pytest.mark.parametrize(
    "config", [GemmaConfig(**GROUPED), Qwen3Config(**GROUPED)], ids=lambda config: config.model_type
)
def test_half_precision_is_the_librarys(config: Any, tmp_path: Path) -> None:
    spec = saved(tmp_path, config)
    backbone: Any = backbones.load(replace(spec, dtype="bfloat16"), "cpu")
    model = AutoModel.from_pretrained(spec.checkpoint, dtype=torch.bfloat16).eval()
    pieces = backbone.pieces(TEXTS)
    found = backbone.states(*padded(pieces), range(spec.layers))
    for row, text in enumerate(pieces):
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor([text.ids]), output_hidden_states=True).hidden_states
        for layer in range(spec.layers):
            apart = (found[layer][row, : len(text.ids)] - theirs[layer][0]).abs().max()
            assert apart <= 0.02 * theirs[layer].abs().max()


def test_a_model_that_half_precision_breaks(tmp_path: Path) -> None:
    spec = saved(tmp_path, DebertaConfig(**BERT, relative_attention=True, pos_att_type=["p2c", "c2p"]))
    refused(replace(spec, dtype="bfloat16"), "cannot read a text in bfloat16", 'Write dtype = "float32"')


def test_last_states_of_another_width_are_not_trained_on(tmp_path: Path) -> None:
    more = {"word_embed_proj_dim": 8, "ffn_dim": 32, "bos_token_id": 2, "eos_token_id": 3}
    spec = saved(tmp_path, OPTConfig(**{k: v for k, v in BERT.items() if k != "intermediate_size"}, **more))
    backbone: Any = backbones.load(spec, "cpu")
    ids, mask = padded(backbone.pieces(TEXTS))
    assert backbone.states(ids, mask, [3])[3].shape[2] == 16
    with pytest.raises(ModelError, match="projects its last states, 16 wide, to 8"):
        backbone.last(ids, mask, torch.zeros_like(mask))


# --- images

VIT = {"depth": 2, "embed_dim": 16, "num_heads": 2}
SWIN = {"depths": (1, 1, 1, 1), "embed_dim": 8, "num_heads": (1, 1, 2, 2)}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModelSpec]:
    """One of timm's architectures, small, as its name without weights gives it."""
    create = timm.create_model

    def make(name: str, layers: int, /, **args: Any) -> ModelSpec:
        def smaller(*of: Any, **how: Any) -> Any:
            return unsettle(create(*of, **how, **args))

        monkeypatch.setattr(timm, "create_model", smaller)
        return ModelSpec("m", "timm", name, layers, modality="image", init="random")

    return make


@pytest.mark.parametrize(
    ("name", "layers", "args", "tokens"),
    [
        ("regnetx_002", 4, {}, False),
        ("mixer_s32_224", 8, {}, True),
        # Its class token joins behind the blocks.
        ("cait_xxs24_224", 2, {"depth": 2, "embed_dim": 16, "num_heads": 2}, True),
        ("focalnet_tiny_srf", 4, {}, False),
        # Their maps are [images, rows, columns, channels].
        ("swin_tiny_patch4_window7_224", 4, SWIN, False),
        ("swinv2_tiny_window8_256", 4, SWIN, False),
        ("mambaout_femto", 4, {"depths": (1,) * 4, "dims": (8, 8, 16, 16)}, False),
    ],
)
def test_states_of_images_are_the_librarys(
    name: str, layers: int, args: dict[str, Any], tokens: bool, small: Callable[..., ModelSpec]
) -> None:
    backbone: Any = backbones.load(small(name, layers, **args), "cpu")
    pixels = torch.rand(2, 3, *backbone.size)
    found = backbone.states(pixels, range(layers + 1))
    theirs = backbone.module.forward_intermediates(pixels, intermediates_only=True)[-layers:]
    assert (backbone.tokens is not None) is tokens and backbone.summaries == ("gap",)
    for layer in range(1, layers + 1):
        same = theirs[layer - 1]
        assert (found[layer].map - same).abs().max() <= 1e-5 * same.abs().max()


@pytest.mark.parametrize(
    ("name", "prefix", "cls", "native"),
    [
        ("vit_small_patch14_reg4_dinov2", 5, True, "cls"),
        ("deit_tiny_distilled_patch16_224", 2, True, "cls"),
        ("vit_medium_patch16_reg4_gap_256", 4, False, "gap"),
        ("vit_base_patch16_siglip_224", 0, False, "gap"),
        ("beit_base_patch16_224", 1, True, "gap"),
        ("eva02_base_patch16_clip_224", 1, True, "cls"),
        ("vit_small_patch16_dinov3", 5, True, "gap"),
        ("vit_relpos_base_patch16_clsgap_224", 1, True, "gap"),
    ],
)
def test_patches_lie_behind_registers_and_class_tokens(
    name: str, prefix: int, cls: bool, native: str, small: Callable[..., ModelSpec]
) -> None:
    backbone: Any = backbones.load(small(name, 2, **VIT), "cpu")
    assert (backbone.tokens.prefix, backbone.tokens.cls, backbone.native) == (prefix, cls, native)
    pixels = torch.rand(2, 3, *backbone.size)
    found, seen = backbone.states(pixels, range(3)), {}
    more = {"return_prefix_tokens": True} if prefix else {}
    theirs = backbone.module.forward_intermediates(pixels, intermediates_only=True, norm=False, **more)
    backbone.attention(pixels, [1, 2], seen.__setitem__)
    for layer in (1, 2):
        patches, front = theirs[layer - 1] if prefix else (theirs[layer - 1], None)
        assert front is None or front.shape[1] == prefix
        assert (found[layer].map - patches).abs().max() <= 1e-5 * patches.abs().max()
        if cls:
            assert (found[layer].cls - front[:, 0]).abs().max() <= 1e-5 * front.abs().max()
        assert seen[layer].shape == (2, 2, len(backbone.tokens), len(backbone.tokens))
        torch.testing.assert_close(seen[layer].sum(dim=-1), torch.ones(2, 2, len(backbone.tokens)))


@pytest.mark.parametrize(
    ("name", "layers", "stem"),
    [("efficientnet_b0", 7, ("conv_stem", "bn1")), ("mobilenetv3_small_050", 6, ("conv_stem", "bn1"))],
)
def test_stages_that_the_library_counts_otherwise(
    name: str, layers: int, stem: tuple[str, ...], small: Callable[..., ModelSpec]
) -> None:
    backbone: Any = backbones.load(small(name, layers), "cpu")
    model, pixels = backbone.module, torch.rand(1, 3, 64, 64)
    found, theirs = backbone.states(pixels, range(layers + 1)), pixels
    assert backbone.uncalibrated
    with torch.no_grad():
        for part in (*(getattr(model, part) for part in stem), *model.blocks):
            theirs = part(theirs)
            layer = next((k for k, block in enumerate(model.blocks, 1) if block is part), 0)
            assert part is model.conv_stem or (found[layer].map - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_maps_whose_channels_lie_last_are_turned_at_every_layer(small: Callable[..., ModelSpec]) -> None:
    spec = replace(small("swin_tiny_patch4_window7_224", 4, **SWIN), final_norm=True)
    backbone: Any = backbones.load(spec, "cpu")
    assert backbone.native == "gap" and backbone.widths == (8, 8, 16, 32, 64) and not backbone.uncalibrated
    pixels = torch.rand(1, 3, *backbone.size, requires_grad=True)
    found = backbone.states(pixels, [1, 4], gradients=True)
    theirs = backbone.module.forward_features(pixels).permute(0, 3, 1, 2)
    assert found[1].map.shape == (1, 8, 56, 56) and (found[4].map - theirs).abs().max() <= 1e-5
    (flow,) = torch.autograd.grad(found[1].map[:, 3, 5, 7].sum(), pixels)
    assert flow[..., 20:24, 28:32].abs().sum() > 0, "the patch in row 5, column 7"


def test_a_stem_whose_channels_lie_last_is_refused(small: Callable[..., ModelSpec]) -> None:
    args = {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 2, 2)}
    refused(small("pvt_v2_b0", 4, **args), "layer 0 has states of shape (1, 56, 56, 8): channels last")


def test_a_map_whose_channels_do_not_lie_last_is_refused_among_those(
    small: Callable[..., ModelSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small("convnext_atto", 4, depths=[1] * 4, dims=[8] * 4)
    create = timm.create_model

    def misnamed(*of: Any, **how: Any) -> Any:
        model = create(*of, **how)
        model.output_fmt = "NHWC"
        return model

    monkeypatch.setattr(timm, "create_model", misnamed)
    refused(spec, "states of shape (1, 8, 56, 56): channels first, expected maps with channels last")


def test_a_size_that_does_not_fit_the_patches_is_refused(small: Callable[..., ModelSpec]) -> None:
    refused(small("vit_base_patch16_224", 2, **VIT, img_size=32), "Input height (224) doesn't match model (32)")


def shows_all(backbone: Any) -> None:
    """Of a square picture, whatever the sides of its input are: all of a frame, and what is in it."""
    framed = Image.new("RGB", (96, 96), "white")
    framed.paste("black", (16, 16, 80, 80))
    shown = backbone.preprocess(framed, whole=True)
    rows, columns = backbone.size
    assert shown.shape == (3, rows, columns)
    frame = shown[:, 0], shown[:, -1], shown[:, :, 0], shown[:, :, -1]
    assert min(side.mean() for side in frame) > shown[:, rows // 2, columns // 2].max() + 1


def test_an_input_whose_sides_differ_holds_all_of_a_square(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def of_two_sides(*of: Any, **how: Any) -> Any:
        model = create(*of, img_size=(32, 48), **VIT, **how)
        model.pretrained_cfg["input_size"] = (3, 32, 48)
        return model

    monkeypatch.setattr(timm, "create_model", of_two_sides)
    spec = ModelSpec("m", "timm", "vit_tiny_patch16_224", 2, modality="image", init="random")
    backbone: Any = backbones.load(spec, "cpu")
    assert backbone.size == (32, 48)
    shows_all(backbone)


@pytest.mark.parametrize(
    ("name", "args"),
    [("vit_small_patch14_dinov2", VIT), ("convnext_atto", {"depths": [1] * 4, "dims": [8] * 4})],
)
def test_an_untrained_twin_has_more_than_its_shortcuts(name: str, args: dict[str, Any]) -> None:
    """Their branches start scaled to a millionth."""
    model = timm.create_model(name, **args)
    before = {path: weight.clone() for path, weight in model.named_parameters()}
    vision.open_branches(model)
    changed = {path: weight for path, weight in model.named_parameters() if not torch.equal(weight, before[path])}
    assert changed.keys() == {path for path in before if path.endswith("gamma")} != set()
    assert all(bool((scale == 1).all()) for scale in changed.values())


@pytest.mark.parametrize("scale", ["gamma", "weight"])
def test_a_norm_that_adds_its_input_is_not_opened(scale: str) -> None:
    """ConvNeXt-V2's, as its authors call its scale and as timm does: at zero all of the input passes."""
    norm = type("GRN", (torch.nn.Module,), {})()
    norm.register_parameter(scale, torch.nn.Parameter(torch.zeros(8)))
    vision.open_branches(torch.nn.Sequential(norm))
    assert not getattr(norm, scale).any()


@pytest.mark.parametrize("skipinit", [False, True])
def test_so_has_one_without_norms(skipinit: bool) -> None:
    """Their branches are multiplied by a gain of zero."""
    from timm.models.nfnet import NfCfg, NormFreeNet

    torch.manual_seed(0)
    model = NormFreeNet(NfCfg(depths=(1,) * 4, channels=(16,) * 4, stem_chs=16, skipinit=skipinit)).eval()
    vision.open_branches(model)
    seen = torch.rand(1, 3, 64, 64)
    block, states = model.stages[1][0], model.stages[0](model.stem(seen))
    shortcut = block.downsample(block.act1(states) * block.beta)
    assert (block(states) - shortcut).abs().mean() > 0.01 * shortcut.abs().mean()


def test_a_norm_that_adds_its_input_stays_as_the_library_draws_it() -> None:
    model = timm.create_model("convnextv2_atto", depths=[1] * 4, dims=[8] * 4)
    before = {path: weight.clone() for path, weight in model.named_parameters()}
    vision.open_branches(model)
    assert [path for path, weight in model.named_parameters() if not torch.equal(weight, before[path])] == []
    assert not model.stages[0].blocks[0].mlp.grn.weight.any()


@pytest.mark.parametrize(
    ("tower", "size", "tokens", "native", "normed"),
    [
        # CLIPA: no norm before the blocks, the mean of patches, the last norm after it.
        ({"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}, (32, 32), 17, "gap", False),
        ({"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}, (32, 32), 17, "gap", False),
        ({"image_size": [32, 48]}, (32, 48), 25, "cls", True),
        ({"qk_norm": True, "scale_heads": True, "scale_fc": True, "ls_init_value": 1e-5}, (32, 32), 17, "cls", True),
        ({"layers": [1, 2, 1, 1], "width": 8, "image_size": 96}, (96, 96), 0, "gap", False),  # RN50x4 and the like
    ],
    ids=["clipa", "attentional-pool", "two-sides", "custom-blocks", "resnet"],
)
def test_image_towers_of_open_clips_own(
    tower: dict[str, Any], size: tuple[int, int], tokens: int, native: str, normed: bool, tmp_path: Path
) -> None:
    vision_ = {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8} | tower
    text = {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
    config = {"embed_dim": 8, "vision_cfg": vision_, "text_cfg": text}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    model: Any = unsettle(open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False)).eval()
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    spec = ModelSpec("m", "open_clip", str(tmp_path), 2 if tokens else 4, modality="image")
    backbone: Any = backbones.load(spec, "cpu")
    assert backbone.size == size and backbone.native == native and len(backbone.tokens or ()) == tokens
    if not normed:
        refused(replace(spec, final_norm=True), "has no norm after its last layer")
    shows_all(backbone)
    pixels = torch.stack([backbone.preprocess(picture(seed)) for seed in range(2)])
    found, theirs = backbone.states(pixels, range(spec.layers + 1)), {}
    stages = (
        model.visual.transformer.resblocks if tokens else [getattr(model.visual, f"layer{k}") for k in (1, 2, 3, 4)]
    )
    for layer, stage in enumerate(stages, 1):
        stage.register_forward_hook(lambda _module, _args, gave, layer=layer: theirs.__setitem__(layer, gave))
    with torch.no_grad():
        shared = model.encode_image(pixels, normalize=True)
    for layer, gave in theirs.items():
        mine = found[layer].map.flatten(2).transpose(1, 2) if tokens else found[layer].map
        assert (mine - (gave[:, 1:] if tokens else gave)).abs().max() <= 1e-5 * gave.abs().max()
        assert not tokens or (found[layer].cls - gave[:, 0]).abs().max() <= 1e-5 * gave.abs().max()
    assert sorted(theirs) == list(range(1, spec.layers + 1))
    torch.testing.assert_close(backbone.embed(pixels), shared)


def test_a_text_tower_that_its_library_cannot_run(tmp_path: Path) -> None:
    sample = checkpoints.open_clip_text(tmp_path / "cosine", scaled_cosine_attn=True)
    refused(sample.spec, "the text tower cannot be run", "Choose another model")


@pytest.mark.parametrize(
    ("name", "args", "pool", "proj", "layers", "native"),
    [
        ("vit_base_patch16_siglip_224", None, "map", "none", 2, "gap"),  # SigLIP
        ("eva02_base_patch16_clip_224", None, "token", None, 2, "cls"),  # EVA02-CLIP
        ("convnext_atto", {"depths": [1] * 4, "dims": [4, 8, 12, 16]}, "", "linear", 4, "gap"),  # its ConvNeXts
        ("fastvit_t8", {"layers": (1,) * 4, "embed_dims": (32,) * 4}, "avg", None, 4, "gap"),  # MobileCLIP
    ],
)
def test_image_towers_of_timm_in_open_clip(
    name: str,
    args: dict[str, Any] | None,
    pool: str,
    proj: str | None,
    layers: int,
    native: str,
    small: Callable[..., ModelSpec],
    tmp_path: Path,
) -> None:
    small(name, layers, **(VIT if args is None else args))
    tower = {"image_size": 224, "timm_model_name": name, "timm_pool": pool, "timm_proj": proj}
    text = {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
    config = {"embed_dim": 16, "custom_text": True, "vision_cfg": tower, "text_cfg": text}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    spec = ModelSpec("m", "open_clip", str(tmp_path), layers, modality="image", init="random")
    refused(replace(spec, layers=9), f"layers = 9, but the checkpoint has {layers}", f"layers = {layers}.")
    backbone: Any = backbones.load(spec, "cpu")
    assert backbone.native == native and backbone.uncalibrated is (name == "fastvit_t8")
    pixels = torch.stack([backbone.preprocess(picture(seed)) for seed in range(2)])
    found = backbone.states(pixels, range(layers + 1))
    trunk = backbone.module.trunk
    assert pixels.shape[2:] == (224, 224)
    theirs = trunk.forward_intermediates(pixels, intermediates_only=True, norm=False)[-layers:]
    for layer in range(1, layers + 1):
        assert (found[layer].map - theirs[layer - 1]).abs().max() <= 1e-5 * theirs[layer - 1].abs().max()
    with torch.no_grad():
        shared = torch.nn.functional.normalize(backbone.module(pixels), dim=1)
    torch.testing.assert_close(backbone.embed(pixels), shared)
    assert backbone.captions(["the cat", "a dog"]).shape == (2, 16)


@pytest.mark.parametrize(
    ("name", "layers", "args", "words"),
    [
        ("convit_tiny", 3, {"depth": 3, "local_up_to_layer": 2, "embed_dim": 16, "num_heads": 4}, "what stage 2 gives"),
        ("twins_svt_small", 4, {"embed_dims": [16] * 4, "num_heads": [2] * 4, "depths": [1] * 4}, "what stage 1 gives"),
        ("crossvit_tiny_240", 3, {"embed_dim": [12, 12]}, "cannot be read stage by stage"),
    ],
)
def test_images_whose_layers_are_not_clear(
    name: str, layers: int, args: dict[str, Any], words: str, small: Callable[..., ModelSpec]
) -> None:
    refused(small(name, layers, **args), words, "Choose a residual network or a vision transformer")
