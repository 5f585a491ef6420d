"""Image models of anybody's own: a function that builds a torch module, its weights, and the names of its layers.

The one source that imports code which a study file names. A study file may come from anywhere, so it is not it that
decides what is imported: only packages that the worker's own CLIPSTUDY_TORCH_PACKAGES lists are, and of those only what
they define themselves. Weights are safetensors; nothing is unpickled.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import ImageOps
from PIL.Image import Resampling
from safetensors.torch import load_model
from torch import nn

from clipstudy.backbones import blocks, checkpoint, own_code, trust, vision
from clipstudy.backbones.vision import Anatomy, Vision
from clipstudy.device import seeded
from clipstudy.errors import ModelError, did_you_mean, said
from clipstudy.hub import Repository
from clipstudy.settings import Settings
from clipstudy.spec import ANY_SEED, ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image


def load(spec: ModelSpec, device: str) -> Vision:
    """Build and load an image model.

    ``spec.checkpoint`` is ``package.module:factory``, what returns the module when it is called with nothing;
    ``spec.pretrained`` a safetensors file of its state; ``spec.modules`` the names of layers 1, 2, … among its modules,
    in the order in which they run. A layer's states are maps ``[B, C, H, W]``, vectors ``[B, C]``, or the tokens
    ``[B, T, C]`` of a square of patches: with ``view = "cls"`` a class token stands before them. Layer 0 is what the
    first of the layers is given. Images are resized (bicubic, the shorter side to ``spec.size``) and cropped to the
    square in their middle.

    Raises:
        ModelError: the package is not one that this worker may import; the factory, a layer or the weights are missing,
            broken, or not what the table says.
        DeviceError: it cannot be put on ``device``.
    """
    _check(spec)
    factory = _factory(spec)
    model = _built(spec, factory, spec.init_seed)
    code = own_code.files(spec, factory, model, Settings.read().torch_packages)
    if spec.init == "random":
        _check_random(spec, model, _built(spec, factory, (spec.init_seed + 1) % len(ANY_SEED)))
        vision.open_branches(model)
        identity = checkpoint.fingerprint(code, spec.checkpoint, f"random init, {checkpoint.weights_of(model)}")
    else:
        identity = checkpoint.fingerprint([*code, _loaded(spec, model)], spec.checkpoint)
    stages = _stages(spec, model)
    size, mean, std = spec.size or 0, spec.mean or (0.0,) * 3, spec.std or (1.0,) * 3
    tokens = _tokens(spec, model, stages)
    prefix = int(tokens is not None and spec.view == "cls")
    side = _side(spec, tokens - prefix) if tokens else 0
    transform = _transform(size, mean, std)
    anatomy = Anatomy(
        stages,
        model,
        transform,
        transform,  # it shows all of a square
        size=(size, size),
        mean=mean,
        deviation=std,
        grid=(side, side) if tokens else None,
        prefix=prefix,
        cls=bool(prefix),
        native="cls" if prefix else "gap",
        channels_last=False,
        direct=False,
    )
    resolved = {
        "checkpoint": identity,
        "torch": checkpoint.release(torch.__version__),
        "dtype": spec.dtype,
        "modules": json.dumps(spec.modules),
        "input": json.dumps({"size": size, "mean": mean, "std": std, "view": spec.view}),
    }
    return Vision(spec, model.to(checkpoint.DTYPES[spec.dtype]), anatomy, resolved, device)


def wanted(spec: ModelSpec) -> list[Repository]:
    """What :func:`load` reads of the Hub: nothing, its weights are a file."""
    _check(spec)
    return []


def _check(spec: ModelSpec) -> None:
    vision.check(spec)
    here = f"[models.{spec.name}]"
    for key in ("tower", "revision"):
        if getattr(spec, key) is not None:
            raise ModelError(f'{here} {key} belongs to other sources than "torch". Remove the key.')
    if spec.final_norm:
        raise ModelError(
            f"{here} final_norm = true, but which module is the last norm is not known here. Remove the key, and name "
            "that module among the layers."
        )
    if not spec.modules or not spec.size:
        raise ModelError(
            f'{here} wants the names of its layers and the size of its pictures: layers = ["layer1", "layer2"], '
            "size = 224."
        )
    checkpoint.check_depth(spec, len(spec.modules))


# --- its code


def _built(spec: ModelSpec, factory: Callable[[], object], seed: int) -> nn.Module:
    """The module that the factory returns, with random weights drawn by ``seed``."""
    here = f'[models.{spec.name}] checkpoint = "{spec.checkpoint}"'
    with seeded(seed):
        try:
            model = factory()
        except Exception as error:  # the user's own code, which may raise anything
            raise ModelError(
                f"{here} cannot be built: called with nothing, it raises {_said(error)}. Fix it, or name a function "
                "that gives it what it wants."
            ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{here} returns a {type(model).__name__}, expected a torch.nn.Module. Name what builds one.")
    return model


def _check_random(spec: ModelSpec, model: nn.Module, other: nn.Module) -> None:
    """An untrained twin is what its seed draws: a factory that loads weights, or sets a seed itself, draws nothing.

    Told by the weights of two or more axes, by their number: norms, biases and fixed positions begin alike.
    """
    drawn = dict(other.named_parameters())
    same = total = 0
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            total += weight.numel()
            same += weight.numel() * (name in drawn and torch.equal(weight, drawn[name]))
    if 2 * same >= total:
        raise ModelError(
            f'[models.{spec.name}] init = "random", but {spec.checkpoint} gives the same weights for another seed '
            f"({same} of {total} numbers): it loads them, sets a seed, or has none. Name a factory that draws them "
            "from torch's generator."
        )


def _factory(spec: ModelSpec) -> Callable[[], object]:
    here = f'[models.{spec.name}] checkpoint = "{spec.checkpoint}"'
    if why := trust.refusal(spec):
        raise ModelError(why)
    path, _, name = spec.checkpoint.partition(":")
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise ModelError(trust.missing(spec, str(error.name))) from error
    except Exception as error:  # the user's own code, which may raise anything
        raise ModelError(f"{here}: importing {path} raises {_said(error)}. Fix it.") from error
    factory = getattr(module, name, None)
    trusted = Settings.read().torch_packages
    # Not what the module imported from elsewhere: a trusted package may well import os. Nor what builds no model.
    if not callable(factory) or not _may_build(factory, trusted):
        own = [n for n, held in vars(module).items() if _builds(held, trusted)]
        raise ModelError(f"{here}: {path} defines no function or class {name}. {did_you_mean(name, own)} Fix the key.")
    build: Callable[[], object] = factory
    return build


def _may_build(factory: object, trusted: Sequence[str]) -> bool:
    own = trust.within(str(getattr(factory, "__module__", "")), trusted)
    return own and (not inspect.isclass(factory) or issubclass(factory, nn.Module))


def _builds(held: object, trusted: Sequence[str]) -> bool:
    is_model = inspect.isclass(held) and issubclass(held, nn.Module)
    return (is_model or inspect.isfunction(held)) and trust.within(held.__module__, trusted)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {said(error)}"


# --- its weights


def _loaded(spec: ModelSpec, model: nn.Module) -> Path:
    """The file whose weights ``model`` was given."""
    here = f"[models.{spec.name}] pretrained"
    if spec.pretrained is None:
        raise ModelError(f'{here}: missing. Name a safetensors file of the model\'s weights, or write init = "random".')
    file = Path(spec.pretrained).expanduser()
    if not file.is_file():
        raise ModelError(f'{here} = "{spec.pretrained}": there is no such file. Fix the path.')
    checkpoint.verify(file, spec)
    try:
        load_model(model, file)
    except RuntimeError as error:
        raise ModelError(
            f'{here} = "{spec.pretrained}" does not hold the weights of {spec.checkpoint} '
            f"({' '.join(str(error).split())[:300]}). Save them with safetensors.torch.save_model of that very model."
        ) from error
    return file


# --- its layers


def _stages(spec: ModelSpec, model: nn.Module) -> list[nn.Module]:
    known = {name: module for name, module in model.named_modules() if name}
    found = []
    for name in spec.modules or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
            # A large model has thousands of modules: the near ones, and those at the top.
            there = {*near, *(n for n in known if "." not in n)}
            raise ModelError(
                f'[models.{spec.name}] layers: {spec.checkpoint} has no module "{name}". {did_you_mean(name, there)} '
                "Fix the key; a module within another is named outer.inner."
            )
        found.append(known[name])
    return found


def _tokens(spec: ModelSpec, model: nn.Module, stages: Sequence[nn.Module]) -> int | None:
    """How many tokens the layers' states have; None: they are maps or vectors. Found by a look at a black picture."""
    names = dict(zip(map(id, stages), spec.modules or (), strict=True))
    called: list[str] = []
    shapes: dict[str, tuple[int, ...]] = {}

    def note(module: nn.Module, _args: object, output: Any) -> None:
        name = names[id(module)]
        called.append(name)
        first = output[0] if isinstance(output, tuple | list) and output else output
        if not isinstance(first, torch.Tensor) or first.ndim not in (2, 3, 4):
            what = tuple(first.shape) if isinstance(first, torch.Tensor) else f"of type {type(output).__name__}"
            raise ModelError(
                f'[models.{spec.name}] layers: "{name}" gives states {what}, expected a tensor [B, C, H, W], '
                "[B, tokens, C] or [B, C]. Name a module that gives one."
            )
        shapes[name] = tuple(first.shape)

    hooks = [stage.register_forward_hook(note) for stage in stages]
    black = torch.zeros(1, 3, spec.size or 0, spec.size or 0)
    model.eval()
    try:
        with torch.no_grad():
            model(black)
    except ModelError:
        raise
    except Exception as error:  # the user's own code, which may raise anything
        raise ModelError(
            f"[models.{spec.name}] {spec.checkpoint} cannot read a picture of {spec.size} × {spec.size} pixels: it "
            f"raises {_said(error)}. Fix size, or the model."
        ) from error
    finally:
        blocks.remove(hooks)
    if called != list(names.values()):
        raise ModelError(
            f"[models.{spec.name}] layers = {json.dumps(spec.modules)}, but one pass runs {json.dumps(called)}. List "
            "modules that run once each, in that order."
        )
    counts = {shape[1] if len(shape) == 3 else None for shape in shapes.values()}
    if len(counts) > 1:
        raise ModelError(
            f"[models.{spec.name}] layers: their states differ in kind ({', '.join(map(str, shapes.values()))}). List "
            "the modules that give maps or vectors, or those that give equally many tokens, in a table each."
        )
    (tokens,) = counts
    return tokens


def _side(spec: ModelSpec, patches: int) -> int:
    side = math.isqrt(patches)
    if side * side != patches:
        other = (
            'Remove view = "cls" if there is no class token.' if spec.view == "cls"
            else 'If a class token stands before them, write view = "cls".'
        )  # fmt: skip
        raise ModelError(f"[models.{spec.name}] layers: {patches} patch tokens make no square. {other}")
    return side


def _transform(size: int, mean: Sequence[float], std: Sequence[float]) -> Callable[[Image], torch.Tensor]:
    offset, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))

    def transform(image: Image) -> torch.Tensor:
        square = ImageOps.fit(image, (size, size), Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(square, dtype=np.float32)).permute(2, 0, 1) / 255
        return (pixels - offset) / scale

    return transform
