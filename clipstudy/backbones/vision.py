"""Image models of any library behind one protocol: a library's module says how its model is built, the rest is here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from clipstudy.backbones import attention, blocks, checkpoint
from clipstudy.backbones.backbone import IMAGE_SUMMARIES, ImageStates, Tokens
from clipstudy.backbones.fused import Fused
from clipstudy.backbones.pixels import centre
from clipstudy.errors import ModelError, said
from clipstudy.spec import ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image

#: Scales of branches start at most here (1e-6 to 1e-4); a scale of 0.1 lets a branch through.
SMALL = 1e-2
#: What a description says of how images are prepared; and the longest side that is taken for one.
PREPARED, LARGEST = "how images are prepared", 4096
#: Raised when untrained models are calibrated in another way, since they are other models then.
CALIBRATION = "calibration 2"


@dataclass(frozen=True)
class Anatomy:
    """How an image model is built, in the words of this house."""

    stages: Sequence[nn.Module]  #: layers 1..depth, called one after another
    forward: Callable[[torch.Tensor], torch.Tensor]  #: stem and stages; its last states after the final norm
    transform: Callable[[Image], Any]  #: the library's own, for evaluation
    whole: Callable[[Image], Any]  #: the same, but that it shows all of a square image
    size: tuple[int, int]  #: height and width of what the transform gives
    mean: Sequence[float]  #: each channel's, that the transform takes off pixels in [0, 1]
    deviation: Sequence[float]  #: each channel's, that it divides by then
    grid: tuple[int, int] | None = None  #: rows and columns of patch tokens; None: the stages give maps
    prefix: int = 0  #: tokens before the patch tokens
    cls: bool = False  #: is the first of them a class token?
    normed: bool = False  #: is there a final norm over the states of the last stage?
    native: str = "gap"  #: what the model's own head reads
    nhwc: bool = False  #: are its maps ``[images, rows, columns, channels]``, as Swin's are?
    direct: bool = True  #: does each stage read what the one before it gave, as it is?
    #: May its maps lie channels last in memory? Convolutions are faster so, but code that calls ``view`` on them fails.
    channels_last: bool = True

    @property
    def tokens(self) -> Tokens | None:
        return None if self.grid is None else Tokens(self.grid, self.prefix, self.cls)


class Vision:
    """An image model behind the :class:`~clipstudy.backbones.backbone.ImageBackbone` protocol."""

    def __init__(
        self,
        spec: ModelSpec,
        model: Any,
        anatomy: Anatomy,
        resolved: Mapping[str, str],
        device: str,
        captions: Callable[[Sequence[str]], torch.Tensor] | None = None,
    ) -> None:
        """``captions`` gives texts in the space that ``model`` puts images into; None: it shares none."""
        self._captions = captions
        self.name, self.depth, self.resolved = spec.name, len(anatomy.stages), resolved
        self._anatomy, self._final_norm = anatomy, spec.final_norm
        self._device, self._dtype = torch.device(device), checkpoint.DTYPES[spec.dtype]
        if spec.final_norm and not anatomy.normed:
            raise ModelError(
                f"[models.{spec.name}] final_norm = true, but {type(model).__name__} has no norm after its last layer "
                "that is known here. Remove the key."
            )
        self.module, self.size = model, anatomy.size
        with checkpoint.describing(spec, PREPARED):
            self.mean, self.deviation = _channels(anatomy.mean), _channels(anatomy.deviation)
            _try_out(anatomy)
        self.tokens = anatomy.tokens
        self.summaries = IMAGE_SUMMARIES if self.tokens and self.tokens.cls else ("gap",)
        self.native = spec.view or anatomy.native
        if self.native not in self.summaries:
            raise ModelError(
                f'[models.{spec.name}] view = "{self.native}", but {type(model).__name__} has no class token. '
                'Write view = "gap".'
            )
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._uncalibrated = norms if spec.init == "random" else []
        if self._uncalibrated:
            self.resolved = {**resolved, "checkpoint": f"{resolved['checkpoint']}, {CALIBRATION}"}
        blocks.place(model, device)
        # Convolutions are faster so; what a transformer makes of its one convolution is the same.
        last = anatomy.channels_last and not self.tokens and not anatomy.nhwc
        self._layout = torch.channels_last if last else torch.contiguous_format
        model.to(memory_format=self._layout)
        every = range(self.depth + 1)
        noise = self._placed(torch.rand(1, 3, *anatomy.size, generator=torch.Generator().manual_seed(0)))
        self._fused = Fused(model, anatomy.stages, lambda: self._run(noise, every))
        trial = self._tried(noise, every)
        maps = {layer: self._told_apart(layer, trial[layer]).map for layer in every}
        self._check_places(maps)
        self.widths = tuple(maps[layer].shape[1] for layer in every)

    def _tried(self, pixels: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """States of ``layers``, the stages watched: does each read what the one before it gave?"""
        states: dict[int, torch.Tensor] = {}
        try:
            gap = blocks.severed(self._anatomy.stages, lambda: states.update(self._run(pixels, layers)))
        except (StopIteration, *checkpoint.BROKEN) as error:
            raise ModelError(
                f"[models.{self.name}] {type(self.module).__name__} cannot be read stage by stage ({said(error)}). "
                "Choose a residual network or a vision transformer."
            ) from error
        if len(states) < len(layers) or (gap and self._anatomy.direct):
            raise ModelError(
                f"[models.{self.name}] {type(self.module).__name__}: what stage {gap} gives is not what the next one "
                "reads, so its layers are not clear. Choose a residual network or a vision transformer whose stages "
                "follow one another directly."
            )
        return states

    def _check_places(self, maps: Mapping[int, torch.Tensor]) -> None:
        """Raises ModelError where a map's channels lie elsewhere than the model says (PVT's stem): then its rows or
        columns would be taken for channels."""
        height, width = self.size
        for layer, found in maps.items():
            _, first, rows, columns = found.shape
            if abs(rows * width - columns * height) < max(self.size):
                continue
            # Its channels lie where rows or columns are expected: in a map as it is, or as it was turned.
            nhwc = self._anatomy.nhwc
            off = columns * width - first * height if nhwc else first * width - rows * height
            if abs(off) < max(self.size):
                shape = (1, rows, columns, first) if nhwc else tuple(found.shape)
                is_, want = ("first", "last") if nhwc else ("last", "first")
                raise ModelError(
                    f"[models.{self.name}] layer {layer} has states of shape {shape}: channels {is_}, expected maps "
                    f"with channels {want}. Choose a residual network or a vision transformer."
                )

    @property
    def uncalibrated(self) -> bool:
        return bool(self._uncalibrated)

    def calibrate(self, batches: Iterable[torch.Tensor]) -> None:
        for norm in self._uncalibrated:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches, not a moving one
            norm.train()
        for pixels in batches:
            self._run(self._placed(pixels), [self.depth])
        for norm in self._uncalibrated:
            norm.eval()

    def preprocess(self, image: Image, whole: bool = False) -> torch.Tensor:
        # Libraries resize what they are given and turn it to RGB later or never; palettes do not survive resizing.
        image = image.convert("RGB")
        pixels: torch.Tensor = self._anatomy.whole(centre(image)) if whole else self._anatomy.transform(image)
        return pixels

    def states(self, pixels: torch.Tensor, layers: Sequence[int], gradients: bool = False) -> dict[int, ImageStates]:
        pixels = self._placed(pixels)
        with nullcontext() if gradients else self._fused.running():
            found = self._run(pixels, layers, gradients)
        return {layer: self._told_apart(layer, states) for layer, states in found.items()}

    def _run(self, pixels: torch.Tensor, layers: Sequence[int], gradients: bool = False) -> dict[int, torch.Tensor]:
        return blocks.run(
            self._anatomy.stages, layers, lambda: self._anatomy.forward(pixels), self._final_norm, gradients
        )

    def attention(self, pixels: torch.Tensor, layers: Collection[int], take: attention.Take) -> None:
        tokens = self.tokens
        if tokens is None:
            raise ModelError(
                f"[models.{self.name}] is a {type(self.module).__name__}, whose layers give maps: it has no attention "
                "to look at. Choose a vision transformer."
            )
        if wrong := [layer for layer in layers if not 1 <= layer <= self.depth]:
            raise ModelError(
                f"[models.{self.name}] layer {wrong[0]} has no attention; its blocks are layers 1 to {self.depth}. "
                'Write layers = "blocks" in the task.'
            )

        def checked(layer: int, weights: torch.Tensor) -> None:
            if weights.ndim != 4 or weights.shape[2:] != (len(tokens), len(tokens)):
                raise ModelError(
                    f"[models.{self.name}] layer {layer} has attention of shape {tuple(weights.shape)}, expected "
                    f"[images, heads, {len(tokens)}, {len(tokens)}]. Choose a vision transformer whose blocks look at "
                    "all tokens."
                )
            take(layer, weights)

        pixels = self._placed(pixels)
        attention.run(
            self.module, self._anatomy.stages, layers, lambda: self._anatomy.forward(pixels), checked, self.name
        )

    def _placed(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(self._device, self._dtype).contiguous(memory_format=self._layout)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        self._contrastive()
        with torch.no_grad():
            shared = self.module(self._placed(pixels))
        if isinstance(shared, tuple):  # CoCa's tower gives its tokens behind the pooled vector
            shared = shared[0]
        return nn.functional.normalize(shared.float(), dim=1)

    def captions(self, texts: Sequence[str]) -> torch.Tensor:
        shared = self._contrastive()(texts).to(self._device, torch.float32)
        return nn.functional.normalize(shared, dim=1)

    def _contrastive(self) -> Callable[[Sequence[str]], torch.Tensor]:
        if self._captions is None:
            raise ModelError(
                f"[models.{self.name}] has no text tower, so it knows no class by its name. Name the models that have "
                'one in the task\'s table, as in models = ["clip-*"].'
            )
        return self._captions

    def _told_apart(self, layer: int, states: torch.Tensor) -> ImageStates:
        tokens = self.tokens
        if tokens is None and states.ndim == 4:
            return ImageStates(states.permute(0, 3, 1, 2) if self._anatomy.nhwc else states)
        if tokens is None and states.ndim == 2:  # of a layer behind the pooling: a map of one place
            return ImageStates(states[:, :, None, None])
        if tokens is None or states.ndim != 3 or states.shape[1] != len(tokens):
            maps = "maps of four dimensions"
            want = f"{tokens.prefix} + {tokens.grid[0]} × {tokens.grid[1]} tokens" if tokens else maps
            raise ModelError(
                f"[models.{self.name}] layer {layer} has states of shape {tuple(states.shape)}, expected {want}. "
                "Choose a residual network or a vision transformer whose blocks keep all tokens."
            )
        patches = states[:, tokens.prefix :].transpose(1, 2).unflatten(2, tokens.grid)
        return ImageStates(patches, states[:, 0] if tokens.cls else None)


def _try_out(anatomy: Anatomy) -> None:
    """Raises ValueError, or whatever a library does, where the transforms give no images of their size."""
    import PIL.Image

    if not all(isinstance(side, int) and 0 < side <= LARGEST for side in anatomy.size):
        raise ValueError(f"size {anatomy.size}, expected two numbers of pixels, at most {LARGEST}")
    for transform in (anatomy.transform, anatomy.whole):
        given = transform(PIL.Image.new("RGB", (80, 60), "grey"))
        if tuple(given.shape) != (3, *anatomy.size) or not torch.isfinite(given).all():
            raise ValueError(f"it gives numbers [{', '.join(map(str, given.shape))}] for 3 × {anatomy.size} pixels")


def _channels(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def check(spec: ModelSpec) -> None:
    """What every source of image models refuses.

    Raises:
        ModelError: a dtype or view that does not exist, or a key that only text models have.
    """
    here = f"[models.{spec.name}]"
    checkpoint.check_dtype(spec)
    if spec.view is not None and spec.view not in IMAGE_SUMMARIES:
        raise ModelError(
            f'{here} view = "{spec.view}" is none of an image. Write one of: {", ".join(IMAGE_SUMMARIES)}.'
        )
    if spec.max_tokens is not None:
        raise ModelError(f"{here} max_tokens belongs to text models. Remove it.")


#: What a branch is multiplied by, as libraries and papers call it (NFNet, SkipInit, ReZero, attention with a gate).
GAINS = ("gain", "skipinit_gain", "resweight", "gamma")
#: Norms that add their input, so that at zero they let all of it through (ConvNeXt-V2's).
ADDING = ("GlobalResponseNorm", "GRN")


def open_branches(model: nn.Module) -> None:
    """Let the residual branches of an untrained model through.

    Libraries start the last norm of each branch at zero, or its gain (NFNet's), or its scale next to zero (DINOv2's,
    ConvNeXt's), which helps training; without training it would leave a twin of shortcuts alone.
    """
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        closing = [own[name] for name in GAINS if name in own]
        if "weight" in own and own["weight"].ndim == 1:
            closing.append(own["weight"])
        if type(module).__name__ in ADDING:
            closing = []
        for scale in closing:
            if not scale.any():
                nn.init.ones_(scale)
        for scale in own.values():
            # Nothing but a layer's scale is one small number throughout: offsets start at zero, weights at random.
            if scale.numel() > 1 and 0 < (first := scale.flatten()[0]) <= SMALL and bool((scale == first).all()):
                nn.init.ones_(scale)
