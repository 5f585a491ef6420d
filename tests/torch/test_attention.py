"""Attention weights are those that the model's own output was made with, whatever library computes them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from clipstudy import backbones
from clipstudy.backbones.attention import weights
from clipstudy.backbones.described import has_attention
from clipstudy.errors import ModelError
from tests.torch.image_checkpoints import BUILDERS, picture

TRANSFORMERS = ["vit", "clip-vit", "vit-gap", "vit-registers"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    return {name: backbones.load(BUILDERS[name](root / name).spec, "cpu") for name in [*TRANSFORMERS, "resnet"]}


def batch(backbone, rows=2):
    return torch.stack([backbone.preprocess(picture(seed)) for seed in range(rows)])


def taken(backbone, pixels, layers):
    found = {}
    backbone.attention(pixels, layers, found.__setitem__)
    return found


def blocks_of(backbone):
    tower = backbone.module
    return tower.transformer.resblocks if hasattr(tower, "transformer") else tower.blocks


def watched(backbone, layer, pixels):
    """What block ``layer``'s attention module is given and what it gives, with no one looking."""
    found = {}

    def note(module, args, output):
        found["given"], found["gives"] = args[0], output[0] if isinstance(output, tuple) else output

    hook = blocks_of(backbone)[layer - 1].attn.register_forward_hook(note)
    backbone.states(pixels, [layer])
    hook.remove()
    return found["given"], found["gives"]


def values(attention, given):
    """The values that the weights mix, ``[B, heads, T, d]``, and the projection after."""
    if isinstance(attention, torch.nn.MultiheadAttention):
        qkv, project = F.linear(given, attention.in_proj_weight, attention.in_proj_bias), attention.out_proj
    else:
        qkv, project = attention.qkv(given), attention.proj
    return qkv.chunk(3, dim=-1)[2].unflatten(-1, (attention.num_heads, -1)).transpose(1, 2), project


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_weights_give_the_attentions_own_output(loaded, name):
    backbone = loaded[name]
    pixels = batch(backbone)
    found = taken(backbone, pixels, range(1, backbone.depth + 1))
    assert list(found) == list(range(1, backbone.depth + 1))
    for layer, weights_ in found.items():
        tokens = len(backbone.tokens)
        attention = blocks_of(backbone)[layer - 1].attn
        assert weights_.shape == (2, attention.num_heads, tokens, tokens) and weights_.dtype == torch.float32
        given, gives = watched(backbone, layer, pixels)
        mixed, project = values(attention, given)
        mine = project((weights_ @ mixed).transpose(1, 2).flatten(2))
        torch.testing.assert_close(mine, gives, atol=1e-5, rtol=1e-5)
        assert gives.std() > 1e-2  # two outputs of nothing would agree too


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_looking_changes_nothing(loaded, name):
    backbone = loaded[name]
    pixels = batch(backbone)
    before = backbone.states(pixels, [backbone.depth])[backbone.depth].map
    alone = taken(backbone, pixels, [backbone.depth])[backbone.depth]
    torch.testing.assert_close(alone, taken(backbone, pixels, range(1, backbone.depth + 1))[backbone.depth])
    torch.testing.assert_close(backbone.states(pixels, [backbone.depth])[backbone.depth].map, before)


def test_the_tokens_are_where_the_model_says(loaded):
    """A patch that alone differs from the others is a key like no other: its column is where the map says."""
    assert [(loaded[n].tokens.grid, loaded[n].tokens.prefix, loaded[n].tokens.cls) for n in TRANSFORMERS] == [
        ((8, 8), 1, True),
        ((8, 8), 1, True),
        ((4, 4), 0, False),
        ((4, 4), 5, True),
    ]
    backbone = loaded["vit-registers"]
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, :, 8:16, 24:32] = 3.0  # row 1, column 3 of the patches
    blank, marked = (taken(backbone, p, [1])[1] for p in (torch.zeros_like(pixels), pixels))
    ratio = (marked / blank)[0, :, 0]  # of a row's weights, all but the marked one change by the same factor
    odd = (ratio - ratio.median(dim=-1, keepdim=True).values).abs().argmax(dim=-1)
    assert odd.tolist() == [5 + 1 * 4 + 3] * 2


def test_timm_told_to_multiply_by_itself_is_seen_too(loaded):
    backbone = loaded["vit"]
    pixels = batch(backbone)
    fused = taken(backbone, pixels, [2])[2]
    for block in backbone.module.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(taken(backbone, pixels, [2])[2], fused)
    assert not any(block.attn.fused_attn for block in backbone.module.blocks)
    for block in backbone.module.blocks:
        block.attn.fused_attn = True


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"scale": 0.7},
        {"is_causal": True},
        {"attn_mask": torch.arange(5)[:, None] >= torch.arange(5) - 1},
        {"attn_mask": torch.linspace(-2, 2, 25).view(5, 5)},
        {"enable_gqa": True},
    ],
)
def test_every_argument_of_the_kernel_counts(more):
    torch.manual_seed(0)
    shared = 2 if "enable_gqa" in more else 4
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, shared, 5, 8), torch.randn(2, shared, 5, 8)
    mine = weights(q, k, v, **more) @ v.repeat_interleave(4 // shared, dim=1)
    torch.testing.assert_close(mine, F.scaled_dot_product_attention(q, k, v, **more), atol=1e-6, rtol=1e-5)


def test_a_residual_network_has_none(loaded):
    with pytest.raises(ModelError, match=r"\[models.resnet\] is a ResNet.*no attention.*Choose"):
        taken(loaded["resnet"], batch(loaded["resnet"], 1), [1])


@pytest.mark.parametrize("name", list(BUILDERS))
def test_whether_there_is_any_shows_before_loading(name, tmp_path):
    spec = BUILDERS[name](tmp_path / name).spec
    of_ones_own = spec.source == "torch"  # what a module of one's own calls, only running it says
    assert has_attention(spec) is (None if of_ones_own else name in [*TRANSFORMERS, "vit-pairs"])


def test_the_stem_has_none(loaded):
    with pytest.raises(ModelError, match=r"layer 0 has no attention; its blocks are layers 1 to 4.*blocks"):
        taken(loaded["vit"], batch(loaded["vit"], 1), [0, 1])


def test_a_block_without_attention_is_told(tmp_path):
    backbone = backbones.load(replace(BUILDERS["vit"](tmp_path / "vit").spec, name="odd"), "cpu")
    backbone.module.blocks[1].attn.forward = lambda states, **_: states
    with pytest.raises(ModelError, match=r"\[models.odd\] layer 2 is a Block that calls torch's attention 0 times"):
        taken(backbone, batch(backbone, 1), [1, 2])
