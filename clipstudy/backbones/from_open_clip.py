"""Loading of open_clip's two-tower models: OpenAI's CLIP, its replications, SigLIP."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import HF_SAFE_WEIGHTS_NAME
from torch import nn

from clipstudy import hub
from clipstudy.backbones import blocks, checkpoint, open_clip_image, open_clip_text, vision
from clipstudy.backbones.backbone import SUMMARIES
from clipstudy.backbones.building import building
from clipstudy.backbones.checkpoint import DTYPES
from clipstudy.backbones.described import HUB, LOCAL
from clipstudy.backbones.vision import Vision
from clipstudy.errors import ModelError, did_you_mean, said
from clipstudy.hub import Part, Repository
from clipstudy.spec import ModelSpec

TOKENIZER = "hf_tokenizer_name"  #: key of a description, where the tokenizer is a repository of its own


def load(spec: ModelSpec, device: str) -> open_clip_text.OpenClipText | Vision:
    """Load the tower that ``spec.modality`` names; of the other nothing stays in memory.

    ``spec.checkpoint`` is one of open_clip's model names, a folder (``./x``, ``/x``, open_clip's own
    ``local-dir:FOLDER``) or ``hf-hub:OWNER/NAME``; ``spec.pretrained`` is a tag of open_clip's or a safetensors file,
    for a name alone.

    Raises:
        ModelError: the name, tag, weights or tokenizer is missing, broken, or not what the table says.
        DeviceError: it cannot be put on ``device``.
    """
    _check(spec)
    if spec.checkpoint.startswith((".", "/", "~")):  # a path, as other sources take it
        spec = replace(spec, checkpoint=f"{LOCAL}{Path(spec.checkpoint).expanduser()}")
    config = _config(spec)
    weights = _weights(spec, config) if spec.init == "pretrained" else None
    described = json.dumps(config, sort_keys=True)
    words = _tokenizer_files(spec, config) if spec.modality == "text" else []
    model = _filled(spec, weights)
    if weights is None:
        identity = checkpoint.fingerprint(words, described, f"random init, {checkpoint.weights_of(model)}")
    else:
        identity = checkpoint.fingerprint([*words, weights], described)
    resolved = {
        "checkpoint": identity,
        "open_clip": checkpoint.release(open_clip.__version__),
        "torch": checkpoint.release(torch.__version__),
        "dtype": spec.dtype,
        "final_norm": str(spec.final_norm).lower(),
    }
    if spec.modality == "text":
        readers = ("transformers", "tokenizers") if config.get("text_cfg", {}).get(TOKENIZER) else ("ftfy",)
        resolved |= {name: checkpoint.release(version(name)) for name in readers}
    if weights and (commit := checkpoint.commit_of(weights.parent)):
        resolved["revision"] = commit  # the weights' repository; what identifies them is their content
    if spec.modality == "image":
        with checkpoint.describing(spec, vision.PREPARED):
            seen = open_clip_image.preprocessing(spec, model.visual)
            anatomy = open_clip_image.anatomy(spec, model.visual, seen)
        checkpoint.check_depth(spec, len(anatomy.stages))
        resolved["input"] = json.dumps(asdict(seen), sort_keys=True)
        tower = model.visual.to(DTYPES[spec.dtype])
        return Vision(spec, tower, anatomy, resolved, device, partial(_captions, spec, weights, device))
    tower = open_clip_text.tower(model, spec).to(DTYPES[spec.dtype])
    return open_clip_text.OpenClipText(spec, tower, open_clip_text.tokenizer(spec), resolved, device)


def wanted(spec: ModelSpec) -> list[Repository]:
    """What :func:`load` reads of the Hub. To know that of ``hf-hub:OWNER/NAME``, its configuration is downloaded."""
    _check(spec)
    if spec.checkpoint.startswith((".", "/", "~", LOCAL)):
        return []
    config, found = _config(spec), []
    if spec.checkpoint.startswith(HUB):
        found.append(_configuration(spec))
    if spec.init == "pretrained" and (weights := _published(spec, config)):
        found.append(weights)
    text = config.get("text_cfg", {})
    # An image tower's too: both towers are built, and zero-shot reads the classes' names.
    parts = (
        (TOKENIZER, "tokenizer", checkpoint.DESCRIPTION),
        ("hf_model_name", "text tower", ("config.json",)),
    )
    for key, what, patterns in parts:
        if text.get(key):
            found.append(_named(spec, what, text[key], patterns))
    return found


def _named(spec: ModelSpec, what: str, name: str, patterns: tuple[str, ...]) -> Repository:
    return Repository(f"models.{spec.name}", what, name, (Part(what, patterns),))


def _tokenizer_files(spec: ModelSpec, config: Mapping[str, Any]) -> list[Path]:
    """What says how a text is read, where that is a file: in the checkpoint's folder, or on the Hub by its own name."""
    folder, name = _folder(spec), config.get("text_cfg", {}).get(TOKENIZER)
    if folder is None and name:
        folder = hub.snapshot(_named(spec, "tokenizer", name, checkpoint.DESCRIPTION))
    return checkpoint.description_in(folder) if folder else []


def _check(spec: ModelSpec) -> None:
    here = f"[models.{spec.name}]"
    if spec.tower not in (None, spec.modality):
        other = "image" if spec.modality == "text" else "text"
        raise ModelError(
            f'{here} tower = "{spec.tower}" with modality = "{spec.modality}". Write tower = "{spec.modality}", or '
            f'modality = "{other}".'
        )
    if spec.modality == "image":
        vision.check(spec)
    else:
        checkpoint.check_dtype(spec)
        if spec.view is not None and spec.view not in SUMMARIES:
            raise ModelError(f'{here} view = "{spec.view}" is unknown. Write one of: {", ".join(SUMMARIES)}.')
    if spec.revision is not None:
        raise ModelError(f"{here} revision belongs to other sources; here pretrained names the weights. Remove it.")


def _config(spec: ModelSpec) -> dict[str, Any]:
    """open_clip's description of the model, its tower's depth checked against the table."""
    here = f'[models.{spec.name}] checkpoint = "{spec.checkpoint}"'
    folder = _folder(spec)
    if folder is not None and not (folder / "open_clip_config.json").is_file():
        raise ModelError(f"{here}: there is no {folder / 'open_clip_config.json'}. Fix the path.")
    if spec.checkpoint.startswith(HUB):
        hub.snapshot(_configuration(spec))  # says what is wrong; open_clip then finds it in the cache
    try:
        config = open_clip.get_model_config(spec.checkpoint)
        wrong = [key for key in ("vision_cfg", "text_cfg") if config and not isinstance(config.get(key, {}), dict)]
        if wrong:
            raise ValueError(f"{wrong[0]} is no table")
    except checkpoint.BROKEN as error:
        raise ModelError(
            f"{here} has no configuration that can be read ({error}). Fix the key, or give a folder that has one."
        ) from error
    if config is None:
        raise ModelError(
            f"{here} is not a model of open_clip {open_clip.__version__}. "
            f"{did_you_mean(spec.checkpoint, open_clip.list_models())} Fix the key."
        )
    if spec.modality == "image":
        open_clip_image.check(spec, config)
    else:
        open_clip_text.check(spec, config)
    return dict(config)


def _weights(spec: ModelSpec, config: Mapping[str, Any]) -> Path:
    """The one safetensors file that holds the weights, fetched if it must be, verified."""
    here = f"[models.{spec.name}]"
    folder = _folder(spec)
    if folder is not None:
        files = checkpoint.weights_in(folder, spec)
        if len(files) > 1:
            raise ModelError(
                f"{here} {folder} holds {len(files)} safetensors files ({', '.join(f.name for f in files)}). Keep one, "
                "or name it: checkpoint = open_clip's model name, pretrained = the file."
            )
        return files[0]
    repository = _published(spec, config)
    if repository is None:
        file = Path(str(spec.pretrained)).expanduser()
    else:
        (name,) = repository.allow
        file = hub.snapshot(repository) / name
        if not file.is_file():
            raise ModelError(
                f"{repository.where}: {name} is not in the local cache. Fetch it on a machine with network "
                f"({repository.remedy})."
            )
    checkpoint.verify(file, spec)
    return file


def _published(spec: ModelSpec, config: Mapping[str, Any]) -> Repository | None:
    """The one file of a Hub repository that holds the weights; None: ``pretrained`` names a file here."""
    here = f"[models.{spec.name}]"
    if spec.checkpoint.startswith(HUB):
        return _weights_file(spec, spec.checkpoint.removeprefix(HUB), HF_SAFE_WEIGHTS_NAME)
    if spec.pretrained is None:
        raise ModelError(
            f'{here} has no pretrained key. Name the weights (pretrained = "openai", or a safetensors file), or write '
            'init = "random".'
        )
    if Path(spec.pretrained).expanduser().is_file():
        return None
    tags = open_clip.list_pretrained_tags_by_model(spec.checkpoint)
    if spec.pretrained not in tags:
        raise ModelError(
            f'{here} pretrained = "{spec.pretrained}" is neither a file here nor a tag of {spec.checkpoint}. '
            f"{did_you_mean(spec.pretrained, tags)} Fix the key."
        )
    tagged = open_clip.get_pretrained_cfg(spec.checkpoint, spec.pretrained)
    if bool(tagged.get("quick_gelu")) != bool(config.get("quick_gelu")):
        plain = spec.checkpoint.removesuffix("-quickgelu")
        other = f"{plain}-quickgelu" if tagged.get("quick_gelu") else plain
        # One model's description and its only weights' tag contradict each other, and neither is known to be wrong.
        if other != spec.checkpoint and other in open_clip.list_models():
            raise ModelError(
                f'{here} checkpoint = "{spec.checkpoint}" computes another GELU than the weights "{spec.pretrained}" '
                f'were trained with. Write checkpoint = "{other}".'
            )
    # "owner/name/" or "owner/name/file"; open_clip looks for the safetensors of a pickled file's name as well.
    home, _, name = str(tagged.get("hf_hub") or "").rpartition("/")
    if not home:
        raise ModelError(
            f'{here} the weights "{spec.pretrained}" of {spec.checkpoint} are not on the Hub as safetensors, and other '
            f"formats can run code. {did_you_mean('', tags)} Choose another tag."
        )
    return _weights_file(spec, home, str(Path(name).with_suffix(".safetensors")) if name else HF_SAFE_WEIGHTS_NAME)


def _weights_file(spec: ModelSpec, home: str, name: str) -> Repository:
    key = "checkpoint" if spec.checkpoint.startswith(HUB) else "pretrained"
    return Repository(f"models.{spec.name}", key, home, (Part(f"safetensors weights ({name})", (name,)),))


def _configuration(spec: ModelSpec) -> Repository:
    home = spec.checkpoint.removeprefix(HUB)
    return Repository(f"models.{spec.name}", "checkpoint", home, (Part("configuration", ("open_clip_config.json",)),))


def _filled(spec: ModelSpec, weights: Path | None) -> Any:
    """Both towers, on the CPU, with the weights that the file holds; None: random ones."""
    model = _create(spec)
    if weights is None:
        if spec.modality == "image":
            vision.open_branches(model)
        return model
    try:
        open_clip.load_checkpoint(model, str(weights))
    except checkpoint.BROKEN as error:
        raise ModelError(
            f"[models.{spec.name}] {weights} does not hold the weights of {spec.checkpoint} "
            f"({said(error)}). Fix checkpoint or pretrained so that they belong together."
        ) from error
    return model


@torch.no_grad()
def _captions(spec: ModelSpec, weights: Path | None, device: str, texts: Sequence[str]) -> torch.Tensor:
    """Texts in the space that the image tower of ``spec`` puts images into: ``[N, E]``."""
    model = _filled(spec, weights)
    del model.visual  # it is on the device already
    blocks.place(model.to(DTYPES[spec.dtype]), device)
    ids = open_clip_text.tokenizer(spec)(list(texts)).to(device)
    return torch.cat([model.encode_text(some) for some in ids.split(spec.batch_size)])


def _create(spec: ModelSpec) -> Any:
    quiet = logging.getLogger()
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # it warns, on the root logger, that no weights were loaded; they are loaded after
    try:
        with building(spec), _nobody_asked():
            model: nn.Module = open_clip.create_model(
                spec.checkpoint, load_weights=False, pretrained_image=False, pretrained_text=False
            )
    except checkpoint.BROKEN as error:
        remedy = hub.remedy(f"models.{spec.name}")
        raise ModelError(
            f'[models.{spec.name}] checkpoint = "{spec.checkpoint}" cannot be built as its configuration says '
            f"({said(error)}). Fix open_clip_config.json, or fetch what it names ({remedy})."
        ) from error
    finally:
        quiet.setLevel(level)
    return model


@contextmanager
def _nobody_asked() -> Iterator[None]:
    """open_clip reads the configuration of a text tower from the Hub without saying that its code is never run; at a
    terminal transformers would then ask whether to run it. Within, it refuses."""
    from transformers import dynamic_module_utils

    patience, dynamic_module_utils.TIME_OUT_REMOTE_CODE = dynamic_module_utils.TIME_OUT_REMOTE_CODE, 0
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = patience


def _folder(spec: ModelSpec) -> Path | None:
    if not spec.checkpoint.startswith(LOCAL):
        return None
    return Path(spec.checkpoint.removeprefix(LOCAL)).expanduser()
