"""Text models of the transformers library: whatever ``AutoModel`` loads, encoders and decoders, CLIP's text tower."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, CLIPTextModel

from clipstudy.backbones import blocks, checkpoint, tokenizing
from clipstudy.backbones.backbone import SUMMARIES, Pieces
from clipstudy.backbones.building import building
from clipstudy.backbones.checkpoint import DTYPES
from clipstudy.backbones.fused import Fused
from clipstudy.backbones.wordpieces import WordPieces, lead_of
from clipstudy.errors import ModelError, said
from clipstudy.hub import Repository
from clipstudy.spec import ModelSpec

#: By how much a token's states may differ beside padding, as a share of their size: rounding, and far from a mean that
#: padding takes part in. Both are medians over dimensions: some models have a few that are a thousand times as large.
PADDED = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
#: Of token ids and their mask, the states of layers.
Run = Callable[..., dict[int, torch.Tensor]]
#: Most tokens of a model that has no positions of its own and whose table sets no ``max_tokens``.
UNBOUNDED = 2048


class TransformersText:
    """A model of the transformers library behind the :class:`~clipstudy.backbones.backbone.TextBackbone` protocol."""

    def __init__(self, spec: ModelSpec, model: nn.Module, tokenizer: Any, resolved: Mapping[str, str], device: str):
        self.name = spec.name
        self.width: int = _text_config(model.config).hidden_size
        self.module: Any = model
        self._final_norm = spec.final_norm
        blocks.place(model, device)
        self.device = torch.device(device)
        pad = getattr(_text_config(model.config), "pad_token_id", None)
        # Some models (RoBERTa) count positions by what is not padding, so padding must be their own.
        self._pad = pad if isinstance(pad, int) and 0 <= pad < tokenizing.embedded(model) else 0
        try:
            self._blocks = blocks.find(model, spec.layers, lambda: self._forward(*self._trial(0)), spec.name)
        except checkpoint.BROKEN as error:
            half = spec.dtype != "float32"
            how = f"in {spec.dtype}" if half else "by its token ids and a mask alone"
            remedy = 'Write dtype = "float32", or choose' if half else "Choose"
            raise ModelError(
                f"[models.{spec.name}] {type(model).__name__} cannot read a text {how} ({said(error)}). {remedy} "
                "another model."
            ) from error
        self.depth = len(self._blocks)
        self._fused = Fused(model, self._blocks, lambda: self._run(*self._trial(0), range(self.depth + 1)))
        self._check_shape()
        self._length_matters = self._reads_padding()

        self.limit = _limit(model, tokenizer, spec)
        encode = tokenizing.plain_encoder(tokenizer)
        front, back = tokenizing.special_tokens(tokenizer, encode)
        own = self._native(front, back)
        self.native = spec.view or own
        if not front and spec.bos and tokenizer.bos_token_id is not None:
            front = (tokenizer.bos_token_id,)
        # Only where both have types: GPT-2 takes them as well, and adds words' embeddings for them. ALBERT learned with
        # them, which its tokenizer in transformers 5 no longer says.
        config: Any = model.config
        types = getattr(_text_config(config), "type_vocab_size", 0)
        told = "token_type_ids" in tokenizer.model_input_names or config.model_type == "albert"
        self._typed = types > 1 and told
        between = tokenizing.separator(tokenizer, encode, front, back) if own == "cls" else ()
        # Byte-level tokenizers know every word; their unknown token is one that ends a text.
        unknown = tokenizer.unk_token_id
        self._words = WordPieces(
            encode,
            front,
            back,
            self.limit,
            empty=self._pad,
            lead=lead_of(encode),
            between=between,
            unknown=None if unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id) else unknown,
            name=spec.name,
        )
        self.resolved = {**resolved, "front": " ".join(map(str, front)), "limit": str(self.limit)}
        if self._length_matters:  # what was kept of it when that was not seen is another model's
            self.resolved["padding"] = "none"

    def pieces(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        return self._words.pieces(texts)

    def states(self, ids: torch.Tensor, mask: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        with self._fused.running():
            return self._unpadded(lambda ids, mask: self._run(ids, mask, layers), ids, mask)

    def copies(self, most: int) -> Sequence[TransformersText]:
        return [self, *(self._fused.copy(self, self._words) for _ in range(most - 1))]

    def _run(self, ids: torch.Tensor, mask: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        states = blocks.run(self._blocks, layers, lambda: self._forward(ids, mask), self._final_norm)
        # Some models (Longformer) lengthen texts to a multiple of their window.
        return {layer: of[:, : ids.shape[1]] for layer, of in states.items()}

    def joined(self, pairs: Sequence[tuple[Sequence[str], Sequence[str]]], whole: int) -> list[Pieces]:
        return self._words.joined(pairs, whole)

    def last(self, ids: torch.Tensor, mask: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        last = self._unpadded(self._last, ids, mask, second)[self.depth]
        if last.shape[2] != self.width:
            raise ModelError(
                f"[models.{self.name}] {type(self.module).__name__} projects its last states, {self.width} wide, to "
                f"{last.shape[2]}, so it cannot be trained here. Choose another model; its frozen layers can be read."
            )
        return last

    def _last(self, ids: torch.Tensor, mask: torch.Tensor, second: torch.Tensor) -> dict[int, torch.Tensor]:
        types = {"token_type_ids": second.long().to(self.device)} if self._typed else {}
        return {self.depth: self._forward(ids, mask, **types)}

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        mask = mask.to(self.device)
        ids = ids.to(self.device).masked_fill(~mask, self._pad)
        last: torch.Tensor = self.module(input_ids=ids, attention_mask=mask.long(), **more).last_hidden_state
        return last

    def _check_shape(self) -> None:
        ids, mask = self._trial(0)
        expected = (*ids.shape, self.width)
        for layer, states in self._run(ids, mask, range(self.depth + 1)).items():
            if states.shape != expected:
                raise ModelError(
                    f"[models.{self.name}] layer {layer} of {type(self.module).__name__} has states of shape "
                    f"{tuple(states.shape)} where [texts, tokens, width] would be {expected}. Choose another model."
                )
        trials = [self._trial(offset) for offset in (0, 1)]
        one, other = (self._run(*trial, [0])[0][0] for trial in trials)
        embedded = self.module.get_input_embeddings().weight
        apart = torch.ne(*(embedded[ids[0]] for ids, _ in trials)).any(1)
        if ((one == other).all(1) & apart).any():
            raise ModelError(
                f"[models.{self.name}] {type(self.module).__name__} puts something of its own in front of a text, so "
                "its tokens do not stand where they stand in the text. Choose another model."
            )

    def _reads_padding(self) -> bool:
        """Would a text have other states beside a longer one? So it is where no mask reaches: FNet's transforms,
        ConvBERT's convolutions."""
        ids, mask = self._trial(0)
        longer = (nn.functional.pad(ids, (0, 3)), nn.functional.pad(mask, (0, 3)))
        alone, among = (
            self._run(*of, [self.depth])[self.depth][:, : ids.shape[1]].float() for of in ((ids, mask), longer)
        )
        apart, size = ((among - alone).abs().median(2).values, alone.abs().median(2).values)
        return bool((apart > PADDED[self.module.dtype] * size).any())

    def _unpadded(
        self, run: Run, ids: torch.Tensor, mask: torch.Tensor, *more: torch.Tensor
    ) -> dict[int, torch.Tensor]:
        """What ``run`` gives; for a model that reads padding, of texts of one length at a time."""
        if not self._length_matters:
            return run(ids, mask, *more)
        whole: dict[int, torch.Tensor] = {}
        lengths = mask.sum(1)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            for layer, of in run(*(one[rows, :length] for one in (ids, mask, *more))).items():
                held = whole.setdefault(layer, of.new_zeros(*ids.shape, of.shape[2]))
                held[rows.to(of.device), :length] = of
        return whole

    def _native(self, front: tuple[int, ...], back: tuple[int, ...]) -> str:
        if isinstance(self.module, CLIPTextModel):
            return "eot"
        if not self._causal():
            return "cls" if front else "last"
        return "eot" if back else "last"  # a token that closes the text was put there to stand for it

    def _causal(self) -> bool:
        """Does the first token's last state ignore what follows? Asked of the model, as configurations do not say."""
        one, other = (self._forward(*self._trial(offset))[0, 0].float() for offset in (0, 1))
        return bool((one - other).abs().mean() <= 1e-5 * one.abs().mean())

    def _trial(self, offset: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A text of four tokens; ``offset`` changes all but the first."""
        usable = [i for i in range(min(tokenizing.embedded(self.module), 9)) if i != self._pad]
        ids = [usable[0], *(usable[(2 * i + offset) % len(usable)] for i in (1, 2, 3))]
        return torch.tensor([ids]), torch.ones(1, 4, dtype=torch.bool)


def load(spec: ModelSpec, device: str) -> TransformersText:
    """Load ``spec.checkpoint``: safetensors only, never the repository's own code.

    Raises:
        ModelError: the checkpoint or its tokenizer is missing, broken, or not what the table says.
        DeviceError: it cannot be put on ``device``.
    """
    _check(spec)
    transformers.utils.logging.disable_progress_bar()  # a worker's log is not a terminal
    folder = checkpoint.folder_of(spec, weights=spec.init == "pretrained")
    config = _config(folder, spec)
    tokenizer = tokenizing.read(folder, spec)
    files = checkpoint.description_in(folder)
    if spec.init == "random":
        model = _random(config, spec)
        identity = checkpoint.fingerprint(files, f"random init, {checkpoint.weights_of(model)}")
    else:
        files += checkpoint.weights_in(folder, spec)
        model = _pretrained(folder, config, spec)
        identity = checkpoint.commit_of(folder) or checkpoint.fingerprint(files)
    tokenizing.check(tokenizer, model, _text_config(model.config), spec)
    resolved = {
        "checkpoint": identity,
        "transformers": checkpoint.release(transformers.__version__),
        "tokenizers": checkpoint.release(tokenizers.__version__),
        "torch": checkpoint.release(torch.__version__),
        "dtype": spec.dtype,
        "final_norm": str(spec.final_norm).lower(),
    }
    return TransformersText(spec, model, tokenizer, resolved, device)


def wanted(spec: ModelSpec) -> list[Repository]:
    """What :func:`load` reads of the Hub."""
    repository = checkpoint.repository_of(spec, weights=spec.init == "pretrained")
    return [] if repository is None else [repository]


def _check(spec: ModelSpec) -> None:
    here = f"[models.{spec.name}]"
    checkpoint.check_dtype(spec)
    if spec.view is not None and spec.view not in SUMMARIES:
        raise ModelError(f'{here} view = "{spec.view}" is unknown. Write one of: {", ".join(SUMMARIES)}.')
    if spec.tower not in (None, "text"):
        raise ModelError(
            f'{here} tower = "{spec.tower}", but source "transformers" gives text models. Write tower = "text", or '
            "take the image tower from another source."
        )
    if spec.pretrained is not None:
        raise ModelError(f'{here} pretrained is a key of source "open_clip". Name the weights by checkpoint alone.')


def _config(folder: Path, spec: ModelSpec) -> Any:
    here = f'[models.{spec.name}] checkpoint = "{spec.checkpoint}"'
    if not (folder / "config.json").is_file():
        raise ModelError(f"{here} has no config.json. Give a checkpoint in the Hub's layout.")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except checkpoint.BROKEN as error:
        raise ModelError(
            f"{here} has a configuration that transformers {transformers.__version__} does not know "
            f"({said(error)}). Models that bring their own code are not run; choose one that the library has."
        ) from error
    # A configuration may name code of the Hub's for attention, which the library would fetch and run; what computes it
    # is not the checkpoint's to say. Nothing is generated here, so keys and values need not be kept.
    # It may name another file of weights than those that were looked at, too.
    for one in (config, _text_config(config)):
        one._attn_implementation = None
        one.use_cache = False
        one.transformers_weights = None
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"{here} is quantised: what its states are depends on the machine and on packages that are not here. "
            "Choose the checkpoint that it was made from."
        )
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{here} has an adapter beside its weights (adapter_config.json), which is not read. Merge the two into "
            "one checkpoint, or take that file away."
        )
    if config.model_type == "rwkv":
        config.rescale_every = 0  # halves the states of every sixth block, which half precision alone needs
    if config.is_encoder_decoder:
        raise ModelError(
            f"{here} is an encoder-decoder ({config.model_type}): its layers are not one stack. Choose an encoder "
            "or a decoder."
        )
    if hasattr(config, "vision_config") and config.model_type != "clip":
        raise ModelError(
            f'{here} is a {config.model_type} model of several towers; of those, source "transformers" takes CLIP\'s '
            'text tower only. Try source = "open_clip".'
        )
    if getattr(_text_config(config), "vocab_size", None) is None:
        raise ModelError(
            f'{here} is a {config.model_type} model, which has no vocabulary: source "transformers" gives text models. '
            'Take models of images from source = "timm" or "open_clip".'
        )
    if type(config) not in transformers.MODEL_MAPPING:
        raise ModelError(
            f"{here} is a {config.model_type} model, which transformers {transformers.__version__} has no AutoModel "
            'for. Choose another checkpoint; SigLIP\'s text tower can be read by source = "open_clip".'
        )
    if spec.tower == "text" and not config.model_type.startswith("clip"):
        raise ModelError(f"{here} is a {config.model_type} model: it has one tower. Remove the tower key.")
    checkpoint.check_depth(spec, getattr(_text_config(config), "num_hidden_layers", None), "blocks")
    return config


def _random(config: Any, spec: ModelSpec) -> nn.Module:
    with building(spec):
        try:
            if config.model_type == "clip":
                return CLIPTextModel._from_config(config.text_config, dtype=DTYPES[spec.dtype])
            model: nn.Module = AutoModel.from_config(config, dtype=DTYPES[spec.dtype], trust_remote_code=False)
        except checkpoint.BROKEN as error:
            raise ModelError(
                f'[models.{spec.name}] checkpoint = "{spec.checkpoint}" cannot be built as its config.json says '
                f"({said(error)}). Fetch the checkpoint again."
            ) from error
        return model


def _pretrained(folder: Path, config: Any, spec: ModelSpec) -> nn.Module:
    # AutoModel would load both of CLIP's towers.
    kind: Any = CLIPTextModel if config.model_type == "clip" else AutoModel
    told = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # it prints a table of what is looked at below
    try:
        model, loading = kind.from_pretrained(
            folder,
            config=_text_config(config),
            dtype=DTYPES[spec.dtype],
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except checkpoint.BROKEN as error:
        raise ModelError(
            f'[models.{spec.name}] checkpoint = "{spec.checkpoint}" cannot be loaded ({said(error)}). Weights '
            "and config.json do not belong together; fetch the checkpoint again."
        ) from error
    finally:
        transformers.utils.logging.set_verbosity(told)
    # The library fills what a checkpoint lacks with random numbers. A pooler is not ours; anything else is.
    absent = sorted(key for key in loading["missing_keys"] if "pooler" not in key)
    if absent and all(key.startswith("decoder.") for key in absent):
        raise ModelError(
            f'[models.{spec.name}] checkpoint = "{spec.checkpoint}" is the encoder of an encoder-decoder '
            f"({config.model_type}), which is not read without its decoder. Choose an encoder or a decoder."
        )
    if absent:
        raise ModelError(
            f'[models.{spec.name}] checkpoint = "{spec.checkpoint}" lacks {len(absent)} weights of '
            f"{type(model).__name__} ({absent[0]}, …). Choose a complete checkpoint of that model."
        )
    loaded: nn.Module = model
    return loaded


def _limit(model: nn.Module, tokenizer: Any, spec: ModelSpec) -> int:
    """Most tokens of a text: the model's positions, the tokenizer's word on it, the table's ``max_tokens``."""
    known = [spec.max_tokens] if spec.max_tokens is not None else []
    positions = getattr(_text_config(model.config), "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        known.append(positions - _kept_for_padding(model, positions))
    config: Any = model.config
    if getattr(config, "attention_type", "") == "block_sparse":
        # BigBird reads texts of so many blocks with full attention, and goes on so with longer ones once it has.
        known.append((5 + 2 * config.num_random_blocks) * config.block_size)
    rope = getattr(_text_config(config), "rope_parameters", None) or {}
    known += [
        # Phi-3's kind turns every text of a batch by other angles where one of them is longer.
        one["original_max_position_embeddings"]
        for one in (rope, *rope.values())
        if isinstance(one, dict) and one.get("rope_type") == "longrope"
    ]
    if not known:
        known.append(min(tokenizer.model_max_length, UNBOUNDED))
    specials = tokenizer.num_special_tokens_to_add()
    if min(known) <= specials + 1:
        raise ModelError(
            f"[models.{spec.name}] max_tokens = {spec.max_tokens} leaves no room beside {specials} special tokens. "
            "Raise it."
        )
    return min(known)


def _kept_for_padding(model: nn.Module, positions: int) -> int:
    """How many of the first positions no text has: RoBERTa counts from behind its padding's, and so does I-BERT, whose
    embedding is of its own kind. A vocabulary may have as many words as there are positions."""
    kept, words = 0, None
    with contextlib.suppress(AttributeError, NotImplementedError):  # of some kinds it is not known
        words = model.get_input_embeddings()  # type: ignore[operator]
    for module in model.modules():
        if module is words:
            continue
        weight, padding = (getattr(module, name, None) for name in ("weight", "padding_idx"))
        if isinstance(weight, torch.Tensor) and isinstance(padding, int) and len(weight) == positions:
            kept = max(kept, padding + 1)
    return kept


def _text_config(config: Any) -> Any:
    return config.text_config if config.model_type == "clip" else config
