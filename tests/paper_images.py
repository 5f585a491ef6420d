"""The paper's image study, its models and data on a stand-in of the Hub: random weights, real pictures.

As ``tests/paper.py`` is for texts. The pictures are a hundred classes of Tiny ImageNet in the columns of CIFAR-100's
tables; every five classes in a row stand for one of its coarse ones.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipstudy import data
from tests.paper import NOTE, ROOT, as_toml, parquet, save_clip

#: Of tasks.toml, by the repository that holds their weights.
TIMM = {
    "rn50": "timm/resnet50.tv_in1k",
    "vit-small": "timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit": "timm/vit_base_patch16_224.augreg_in21k_ft_in1k",
    "dino": "timm/vit_base_patch16_224.dino",
}
OPEN_CLIP = {
    "clip-rn50": ("timm/resnet50_clip.openai", "RN50-quickgelu"),
    "clip-vit": ("timm/vit_base_patch16_clip_224.openai", "ViT-B-16-quickgelu"),
}
MODELS = (*OPEN_CLIP, *TIMM)
COARSE = 5  #: fine classes of a coarse one


@dataclass(frozen=True)
class Size:
    """How large the stand-ins are."""

    side: int | None  #: pixels that every model looks at; None: models as large as the real ones
    classes: int
    pictures: int  #: of a class, in train; half of that in test
    batch: int  #: pictures a step of the decoders


SMALL = Size(side=32, classes=10, pictures=6, batch=8)
FULL = Size(side=None, classes=20, pictures=10, batch=16)


def publish(root: Path, real: Path, size: Size) -> None:
    """Everything that the image half of tasks.toml reads, under ``root`` as ``tests.hub.Hub`` serves it."""
    for name, repository in TIMM.items():
        _timm(root / "models" / repository, repository.partition("/")[2], size, residual=name == "rn50")
    for name, (repository, called) in OPEN_CLIP.items():
        _clip(root / "models" / repository, called, size, residual=name == "clip-rn50")
    _cifar100(root / "datasets" / "uoft-cs" / "cifar100" / "cifar100", real / "tiny_imagenet_100", size)


def thinned(size: Size) -> str:
    """tasks.toml without texts and optional parts, one initialisation a twin, and what takes time is cut."""
    study = tomllib.loads((ROOT / "tasks.toml").read_text(encoding="utf-8"))
    study["study"] |= {"seeds": [0], "note": NOTE}
    study["models"] = {name: model for name, model in study["models"].items() if model.get("twin_of", name) in MODELS}
    study["datasets"] = {n: d for n, d in study["datasets"].items() if data.modality(d["reader"]) == "image"}
    study["tasks"] = {n: task for n, task in study["tasks"].items() if task["dataset"] in study["datasets"]}
    for name, model in study["models"].items():
        if "init_seeds" in model:
            model["init_seeds"] = [0]
        elif size.side:  # a name of a library's means the full size
            model["checkpoint"] = f"hf-hub:{TIMM.get(name) or OPEN_CLIP[name][0]}"
            model["layers"] = 4
            model.pop("pretrained", None)
    thin: dict[str, dict[str, Any]] = {
        "classify": {"max_epoch": 2, "draws": 20, "hidden": 16},
        "zero_shot": {"draws": 20},
        "reconstruct": {"steps": 6, "batch_size": size.batch, "draws": 20},
        "visualise": {"channels": 2, "steps": 4, "chunk": 2, "natural": 8, "draws": 20},
        "attend": {"pictures": 10, "draws": 20, "shown": 2},
    }
    if size.side:
        thin["reconstruct"] |= {"profile": "small"}
        thin["visualise"] |= {"size": size.side}
    for name, task in study["tasks"].items():
        task.pop("optional", None)
        task["options"] = {**task.get("options", {}), **thin[task["kind"]]}
        if size.side and "width" in task["options"]:
            task["options"]["width"] = size.side
        if name == "visualise":
            task["seeds"] = [0]
        if size.side and name == "attend":  # a library's name tells which have attention, a Hub id does not
            task["models"] = ["vit*", "clip-vit*", "dino*"]
    return "".join(as_toml(study))


def _timm(folder: Path, name: str, size: Size, *, residual: bool) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    architecture = name.partition(".")[0]
    config: dict[str, Any] = {"architecture": architecture}
    if size.side:
        shape = {"img_size": size.side, "patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 2}
        config = {"architecture": "test_resnet"} if residual else {**config, "model_args": shape}
        config["pretrained_cfg"] = {"input_size": [3, size.side, size.side]}
    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # By its tag: DINO's has no head.
        model = timm.create_model(config["architecture"] if size.side else name, **config.get("model_args", {}))
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"must never be fetched")


def _clip(folder: Path, called: str, size: Size, *, residual: bool) -> None:
    import open_clip

    config = open_clip.get_model_config(called)
    if size.side:
        seen = {"layers": [1, 1, 1, 1], "width": 16} if residual else {"layers": 4, "width": 64, "patch_size": 8}
        config["vision_cfg"] |= {**seen, "image_size": size.side, "head_width": 32}
        config["text_cfg"] |= {"width": 64, "heads": 2, "layers": 2}
        config["embed_dim"] = 64
    save_clip(folder, config)


def _cifar100(folder: Path, real: Path, size: Size) -> None:
    from datasets import ClassLabel, Features, Image

    lines = (real / "classes.tsv").read_text(encoding="utf-8").splitlines()
    names = [line.split("\t")[2].split(",")[0] for line in lines[1 : size.classes + 1]]
    features = Features(
        img=Image(),
        fine_label=ClassLabel(names=names),
        coarse_label=ClassLabel(names=[f"group {k}" for k in range(size.classes // COARSE)]),
    )
    for split, most in (("train", size.pictures), ("test", size.pictures // 2)):
        rows = _rows(real / f"{split}.parquet", size.classes, most)
        columns = {
            "img": [row["img"] for row in rows],
            "fine_label": [row["fine_label"] for row in rows],
            "coarse_label": [row["fine_label"] // COARSE for row in rows],
        }
        parquet(folder / f"{split}-00000-of-00001.parquet", columns, features)


def _rows(path: Path, classes: int, most: int) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    kept: dict[int, list[dict[str, Any]]] = {label: [] for label in range(classes)}
    for row in pq.read_table(path).to_pylist():
        if len(kept.get(row["fine_label"], range(most))) < most:
            kept[row["fine_label"]].append(row)
    return [row for rows in zip(*kept.values(), strict=True) for row in rows]
