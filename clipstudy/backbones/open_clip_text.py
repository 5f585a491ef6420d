"""Text towers of open_clip's two-tower models, and the tokenizers that they come with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import open_clip
import torch
from open_clip.transformer import TextTransformer
from torch import nn

from clipstudy import hub
from clipstudy.backbones import blocks, checkpoint
from clipstudy.backbones.backbone import Pieces
from clipstudy.backbones.fused import Fused
from clipstudy.backbones.wordpieces import WordPieces, lead_of
from clipstudy.errors import ModelError, said
from clipstudy.spec import ModelSpec

#: How a tower pools its tokens → which token that is.
NATIVE = {"argmax": "eot", "eos": "eot", "last": "eot", "first": "cls"}


class OpenClipText:
    """An open_clip text tower behind the :class:`~clipstudy.backbones.backbone.TextBackbone` protocol.

    open_clip computes every text over the whole context (77 positions). Under a causal mask what follows a token
    cannot change it, so here a batch is computed at its own length with the mask cut to it: the same states, several
    times faster. Towers without that mask attend to their padding, so theirs are computed over the whole context.
    """

    def __init__(self, spec: ModelSpec, tower: Any, tokenizer: Any, resolved: Mapping[str, str], device: str):
        self.name = spec.name
        self.module = self._tower = tower
        self._final_norm = spec.final_norm
        blocks.place(tower, device)
        self.device = torch.device(device)
        self._context, self.width = self._tower.positional_embedding.shape
        front, back, self._pad = _frame(tokenizer)
        rows = self._tower.token_embedding.num_embeddings
        if max((*front, *back, self._pad)) >= rows:
            raise ModelError(
                f"[models.{spec.name}] the tokenizer's special tokens ({front}, {back}) are past the {rows} that the "
                "model embeds. Put the model's own tokenizer beside its weights."
            )
        self.limit = min(self._context, spec.max_tokens or self._context)
        if self.limit <= len(front) + len(back):
            raise ModelError(f"[models.{spec.name}] max_tokens = {spec.max_tokens} leaves no room for text. Raise it.")

        try:
            self._blocks = blocks.find(tower, spec.layers, lambda: self._forward(*self._trial()), spec.name)
        except checkpoint.BROKEN as error:
            raise ModelError(
                f"[models.{spec.name}] the text tower cannot be run ({said(error)}). Choose another model."
            ) from error
        self.depth = len(self._blocks)
        self._fused = Fused(tower, self._blocks, lambda: self._run(*self._trial(), range(self.depth + 1)))
        pool = _pool(tower)
        self.native = spec.view or NATIVE[pool]
        encode = _encoder(tokenizer)
        # Where the model reads the last position of the padded text, padding is part of what it reads.
        fill = (self._pad, self._context) if pool == "last" and self._tower.attn_mask is None else None
        self._words = WordPieces(encode, front, back, self.limit, self._pad, lead=lead_of(encode), fill=fill)
        # A text cut shorter is still computed among as much padding as the model knows.
        among = f" of {self._context}" if self._tower.attn_mask is None and self.limit < self._context else ""
        self.resolved = {**resolved, "limit": f"{self.limit}{among}"}

    def pieces(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        return self._words.pieces(texts)

    def states(self, ids: torch.Tensor, mask: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        with self._fused.running():
            states = self._run(ids, mask, layers)
        return {layer: of[:, : ids.shape[1]] for layer, of in states.items()}

    def copies(self, most: int) -> Sequence[OpenClipText]:
        return [self, *(self._fused.copy(self, self._words) for _ in range(most - 1))]

    def _run(self, ids: torch.Tensor, mask: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        return blocks.run(self._blocks, layers, lambda: self._forward(ids, mask), self._final_norm)

    def joined(self, pairs: Sequence[tuple[Sequence[str], Sequence[str]]], whole: int) -> list[Pieces]:
        return self._words.joined(pairs, whole)

    def last(self, ids: torch.Tensor, mask: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self._forward(ids, mask)[:, : ids.shape[1]]

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        ids = ids.to(self.device).masked_fill(~mask.to(self.device), self._pad)
        causal = self._tower.attn_mask
        if causal is None:
            ids = nn.functional.pad(ids, (0, self._context - ids.shape[1]), value=self._pad)
        length = ids.shape[1]
        x = self._tower.token_embedding(ids) + self._tower.positional_embedding[:length]
        x = self._tower.transformer(x, attn_mask=None if causal is None else causal[:length, :length])
        last: torch.Tensor = self._tower.ln_final(x)
        return last

    def _trial(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool)


def check(spec: ModelSpec, config: Mapping[str, Any]) -> None:
    """Raises ModelError where open_clip's description is of another depth, or of a tower that cannot be read here."""
    here = f'[models.{spec.name}] checkpoint = "{spec.checkpoint}"'
    text = config.get("text_cfg", {})
    if text.get("hf_model_name"):
        raise ModelError(
            f"{here} has a transformers model ({text['hf_model_name']}) as its text tower. Choose a model whose text "
            "tower is open_clip's own, such as CLIP or SigLIP."
        )
    if text.get("use_pad_mask"):
        raise ModelError(
            f"{here} masks the padding of its texts (use_pad_mask), which is not done here. Choose a model that does "
            "not."
        )
    if "multimodal_cfg" in config or text.get("embed_cls") or text.get("tokenizer_mode"):
        raise ModelError(
            f"{here} puts a class token behind the text (CoCa, CLIPS), where padding would be taken for text. Choose "
            "a model without one, such as CLIP or SigLIP."
        )
    checkpoint.check_depth(spec, text.get("layers", open_clip.CLIPTextCfg.layers), "blocks")


def tower(model: Any, spec: ModelSpec) -> Any:
    """The text half of ``model``. ``CLIP`` holds its parts itself, beside the image tower, which is let go."""
    if isinstance(model, open_clip.CustomTextCLIP) and isinstance(model.text, TextTransformer):
        return model.text
    if isinstance(model, open_clip.CLIP):
        del model.visual
        return model
    raise ModelError(
        f"[models.{spec.name}] {spec.checkpoint} is a {type(model).__name__}, whose text tower cannot be taken apart. "
        "Choose a CLIP or SigLIP model."
    )


def tokenizer(spec: ModelSpec) -> Any:
    """The tokenizer of ``spec``'s checkpoint.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        described = open_clip.get_model_config(spec.checkpoint)["text_cfg"]
        # Said here, since a description may ask for it by its `tokenizer_kwargs`; those come last otherwise.
        never = {"trust_remote_code": False} if described.get("hf_tokenizer_name") else {}
        return open_clip.get_tokenizer(spec.checkpoint, **never)
    except Exception as error:  # a tokenizer from the Hub fails in as many ways as it has formats
        remedy = hub.remedy(f"models.{spec.name}")
        raise ModelError(
            f'[models.{spec.name}] the tokenizer of "{spec.checkpoint}" cannot be read ({error}). Put its files beside '
            f"open_clip_config.json, or fetch it on a machine with network ({remedy})."
        ) from error


def _encoder(tokenizer: Any) -> Callable[[Sequence[str]], Sequence[Sequence[int]]]:
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        return lambda texts: [tokenizer.encode(text) for text in texts]

    def cleaned(text: str) -> str:
        # Cleaning takes the blank in front, by which a tokenizer of SentencePiece's or GPT-2's kind tells a word inside
        # a text from the first one.
        clean = tokenizer.clean_fn(text)
        return f" {clean}" if clean and text[:1].isspace() else clean

    return lambda texts: tokenizer.tokenizer(
        [cleaned(text) for text in texts], add_special_tokens=False, padding=False, truncation=False
    )["input_ids"]


def _frame(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Special tokens in front, behind, and the padding, as the tokenizer's own call lays them out."""
    encode = _encoder(tokenizer)
    (own,) = encode(["a"])
    row = tokenizer(["a"])[0].tolist()
    at = next(i for i in range(len(row)) if row[i : i + len(own)] == list(own))
    # What closes a text may be the padding, too (SigLIP, CLIPA): in a text that is cut it stands by itself.
    much = " ".join(["a"] * len(row))
    (many,) = encode([much])
    cut = tokenizer([much])[0].tolist()
    end = next((i for i in range(at, len(row)) if cut[i] != many[i - at]), len(row))
    return tuple(row[:at]), tuple(cut[end:]), row[-1]


def _pool(tower: Any) -> str:
    # CLIP and TextTransformer call it differently.
    pool = getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", "argmax")
    return pool if pool in NATIVE else "argmax"
