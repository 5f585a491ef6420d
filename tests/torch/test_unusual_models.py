"""Models that are built otherwise than most: their states are the library's, or a message says why there are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from transformers import (
    AlbertConfig,
    AutoModel,
    ConvBertConfig,
    DebertaV2Config,
    DPRConfig,
    FNetConfig,
    IBertConfig,
    JambaConfig,
    LongformerConfig,
    OpenAIGPTConfig,
    OPTConfig,
    XLMConfig,
)

from clipstudy import backbones
from clipstudy.errors import ModelError
from clipstudy.spec import ModelSpec
from tests.torch import checkpoints
from tests.torch.image_checkpoints import unsettle

TEXTS = [["the", "cat", "sat", "."], ["cats"], ["the", "unseen", "cat", ",", "sitting", "!"]]
BERT = {"num_hidden_layers": 3, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
BERT |= {"max_position_embeddings": 24, "vocab_size": 67, "pad_token_id": 0}
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


def refused(spec: ModelSpec, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        backbones.load(spec, "cpu")
    assert caught.value.message.startswith(f"[models.{spec.name}]") and caught.value.message.endswith(".")
    for word in words:
        assert word in caught.value.message, caught.value.message


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
    ],
    ids=["xlm", "deberta-v2", "dpr"],
)
def test_texts_whose_layers_are_not_clear(config: Any, words: str, tmp_path: Path) -> None:
    refused(saved(tmp_path, config), words)


def test_last_states_of_another_width_are_not_trained_on(tmp_path: Path) -> None:
    more = {"word_embed_proj_dim": 8, "ffn_dim": 32, "bos_token_id": 2, "eos_token_id": 3}
    spec = saved(tmp_path, OPTConfig(**{k: v for k, v in BERT.items() if k != "intermediate_size"}, **more))
    backbone: Any = backbones.load(spec, "cpu")
    ids, mask = padded(backbone.pieces(TEXTS))
    assert backbone.states(ids, mask, [3])[3].shape[2] == 16
    with pytest.raises(ModelError, match="projects its last states, 16 wide, to 8"):
        backbone.last(ids, mask, torch.zeros_like(mask))


# --- images


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModelSpec]:
    """One of timm's architectures, small, as its name without weights gives it."""
    create = timm.create_model

    def make(name: str, layers: int, **args: Any) -> ModelSpec:
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
