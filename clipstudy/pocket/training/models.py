"""The seven pocket models: what they are built of, and their checkpoints in the libraries' own layouts.

Sizes are chosen so that twins are alike: the three text transformers, the two residual towers and the three image
transformers each have the same blocks of the same width. What is still not alike is tabled in ``twins``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import nn

from clipstudy.pocket.images.scenes import FINE
from clipstudy.pocket.text import wordlist
from clipstudy.pocket.text.wordlist import END, PAD, START

Objective = Literal["masked words", "next word", "captions", "classes", "pairs"]

TEXT_LAYERS, IMAGE_STAGES = 6, 4
TEXT = {"width": 96, "heads": 4, "hidden": 288, "context": 64}
#: Residual towers: CLIP's modified ResNet, bottleneck blocks whose four stages end 4, 8, 16 and 32 × ``width`` wide.
RESIDUAL = {"width": 10, "blocks": 2}
TRANSFORMER = {"width": 64, "heads": 4, "patch": 8}
#: Side of a picture, in pixels.
SIDE = 64
#: Size of the space that captions and pictures share.
SHARED = 64
#: Pixels from 0 to 1 are brought near a mean of 0 and a deviation of 1 by these, for every model.
MEAN, DEVIATION = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class PocketModel:
    """One of the seven."""

    name: str
    source: Literal["transformers", "open_clip", "timm"]
    objective: Objective
    title: str
    trunk: Literal["text", "residual", "transformer"]  #: which of its trunks it is that its twins share

    @property
    def reads(self) -> bool:
        return self.source != "timm"

    @property
    def sees(self) -> bool:
        return self.source != "transformers"


MODELS: Mapping[str, PocketModel] = MappingProxyType({
    model.name: model
    for model in (
        PocketModel("bert", "transformers", "masked words", "BERT", "text"),
        PocketModel("gpt2", "transformers", "next word", "GPT-2", "text"),
        PocketModel("clip-resnet", "open_clip", "captions", "CLIP, residual tower", "residual"),
        PocketModel("clip-vit", "open_clip", "captions", "CLIP, transformer tower", "transformer"),
        PocketModel("resnet", "timm", "classes", "residual network, supervised", "residual"),
        PocketModel("vit", "timm", "classes", "vision transformer, supervised", "transformer"),
        PocketModel("vit-pairs", "timm", "pairs", "vision transformer, pairs of renders", "transformer"),
    )
})  # fmt: skip


def build(name: str, seed: int = 0) -> Any:
    """A model with the random weights that its library gives it.

    Raises:
        KeyError: there is no pocket model of that name.
    """
    model = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "bert":
            return _bert()
        if name == "gpt2":
            return _gpt2()
        return _clip(model) if model.source == "open_clip" else _timm(model)


def save(name: str, model: nn.Module, folder: Path) -> None:
    """Write ``model`` into ``folder`` (made if missing) as its library would: half-precision safetensors and what
    describes them. The model itself is left as it is."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    half: Any = copy.deepcopy(model).half()
    weights = {key: value.contiguous() for key, value in half.state_dict().items()}
    if MODELS[name].source == "transformers":
        wordlist.write(folder, framed=name == "bert")
        _keep_quiet(lambda: half.save_pretrained(folder))
    elif MODELS[name].source == "open_clip":
        wordlist.write(folder, framed=True)
        described = {"model_cfg": clip_config(MODELS[name]), "preprocess_cfg": {"mean": MEAN, "std": DEVIATION}}
        _write_json(folder / "open_clip_config.json", described)
        save_file(weights, folder / "open_clip_model.safetensors")
    else:
        _write_json(folder / "config.json", timm_config(MODELS[name]))
        save_file(weights, folder / "model.safetensors")


def load(name: str, folder: Path) -> Any:
    """The model in ``folder``, by its library's own loader, in single precision and evaluation mode."""
    if MODELS[name].source == "transformers":
        from transformers import BertForMaskedLM, GPT2LMHeadModel

        kind: Any = BertForMaskedLM if name == "bert" else GPT2LMHeadModel
        model = _keep_quiet(lambda: kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True))
    elif MODELS[name].source == "open_clip":
        import open_clip

        model = open_clip.create_model(f"local-dir:{folder}")
    else:
        import timm

        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return model.eval()


def size(model: nn.Module) -> int:
    """Number of parameters, embedding tables included; a table used twice counts once."""
    return sum(weight.numel() for weight in model.parameters())


# --- text: transformers


def _bert() -> Any:
    from transformers import BertConfig, BertForMaskedLM

    known = wordlist.numbers()
    return BertForMaskedLM(
        BertConfig(
            vocab_size=len(known),
            hidden_size=TEXT["width"],
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=TEXT["heads"],
            intermediate_size=TEXT["hidden"],
            max_position_embeddings=TEXT["context"],
            # Every line is new, so there is nothing to overfit to.
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=known[PAD],
            bos_token_id=known[START],
            eos_token_id=known[END],
        )
    )


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    known = wordlist.numbers()
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(known),
            n_embd=TEXT["width"],
            n_layer=TEXT_LAYERS,
            n_head=TEXT["heads"],
            n_inner=TEXT["hidden"],
            n_positions=TEXT["context"],
            activation_function="gelu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            pad_token_id=known[PAD],
            bos_token_id=known[START],
            eos_token_id=known[END],
        )
    )


def _keep_quiet(call: Any) -> Any:
    """The library draws a bar for files of a megabyte."""
    import transformers

    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        return call()
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


# --- text and images: open_clip


def clip_config(model: PocketModel) -> dict[str, Any]:
    """open_clip's description of a CLIP with the image tower of ``model``."""
    if model.trunk == "residual":
        # A head for the attention pool is as wide as can be with as many heads as there are in text.
        last = 32 * RESIDUAL["width"]
        vision: dict[str, Any] = {"layers": [RESIDUAL["blocks"]] * IMAGE_STAGES, "width": RESIDUAL["width"]}
        vision |= {"head_width": last // 4}
    else:
        vision = {"layers": IMAGE_STAGES, "width": TRANSFORMER["width"], "patch_size": TRANSFORMER["patch"]}
        vision |= {"head_width": TRANSFORMER["width"] // TRANSFORMER["heads"]}
    text = {
        "context_length": TEXT["context"],
        "vocab_size": len(wordlist.tokens()),
        # open_clip reads the tokenizer beside this description; any name says that it is not OpenAI's.
        "hf_tokenizer_name": "pocket",
        "width": TEXT["width"],
        "heads": TEXT["heads"],
        "layers": TEXT_LAYERS,
        "mlp_ratio": TEXT["hidden"] / TEXT["width"],
    }
    return {"embed_dim": SHARED, "vision_cfg": {"image_size": SIDE, **vision}, "text_cfg": text}


def _clip(model: PocketModel) -> Any:
    import open_clip

    return open_clip.CLIP(**clip_config(model))


def encode_text(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Caption vectors ``[B, SHARED]`` of ids ``[B, T]``, padded with 0 on the right; not normalised.

    open_clip's own computes every text over the whole context. Under its causal mask what follows the end of a text
    cannot change it, so here a batch is as long as its longest text: the same vectors, several times faster.
    """
    length = ids.shape[1]
    states = model.token_embedding(ids) + model.positional_embedding[:length]
    states = model.ln_final(model.transformer(states, attn_mask=model.attn_mask[:length, :length]))
    pooled: torch.Tensor = states[torch.arange(len(ids)), ids.argmax(dim=1)] @ model.text_projection
    return pooled


# --- images: timm


def timm_config(model: PocketModel) -> dict[str, Any]:
    """timm's description of ``model``: the same trunk as open_clip builds for CLIP, with timm's own head."""
    if model.trunk == "residual":
        # Three-convolution stem, average pools for strides and on the way past: CLIP's changes to the ResNet.
        architecture, width = "resnetaa50d", RESIDUAL["width"]
        args: dict[str, Any] = {
            "layers": [RESIDUAL["blocks"]] * IMAGE_STAGES,
            "channels": [width, 2 * width, 4 * width, 8 * width],
            "stem_width": width // 2,
        }
    else:
        architecture = "vit_base_patch16_clip_224"
        args = {"img_size": SIDE, "patch_size": TRANSFORMER["patch"], "embed_dim": TRANSFORMER["width"]}
        # timm's own start leaves so small a transformer on the plateau of guessing; Google's scaled one does not.
        args |= {"depth": IMAGE_STAGES, "num_heads": TRANSFORMER["heads"], "weight_init": "jax"}
    classes = len(FINE) if model.objective == "classes" else 0
    pretrained = {"input_size": [3, SIDE, SIDE], "crop_pct": 1.0, "interpolation": "bicubic", "custom_load": False}
    pretrained |= {"mean": list(MEAN), "std": list(DEVIATION), "num_classes": classes, "tag": "pocket"}
    return {"architecture": architecture, "num_classes": classes, "model_args": args, "pretrained_cfg": pretrained}


def _timm(model: PocketModel) -> Any:
    import timm

    described = timm_config(model)
    return timm.create_model(described["architecture"], num_classes=described["num_classes"], **described["model_args"])


def encode_image(name: str, model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """The model's own vector of each picture, before any classifier: ``[B, width]``."""
    if MODELS[name].source == "open_clip":
        found: torch.Tensor = model.encode_image(pixels)
        return found
    pooled: torch.Tensor = model.forward_head(model.forward_features(pixels), pre_logits=True)
    return pooled


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
