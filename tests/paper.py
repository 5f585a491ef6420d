"""The paper's text study, its models and data on a stand-in of the Hub: random weights, real tokenizers, real rows.

``publish`` lays them out as their homes do (``tests/hub.py`` serves the folder); ``thinned`` is the text half of
tasks.toml with fewer rows, seeds and epochs: the same models, data sets and tasks, by the same readers and kinds.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipstudy import checksum, data
from clipstudy.data import conll2000

ROOT = Path(__file__).parents[1]
NOTE = "Stand-ins for the paper's models, with random weights, on a few rows: no figure says anything about them."
MODELS = ("bert", "gpt2", "clip-text")  #: those of tasks.toml that have weights
WIDTH = "bigram_shift-width"
CLIP = "timm/vit_base_patch32_clip_224.openai"

#: Where the real rows of SentEval's files are, under the folder of real rows. Of the last two only some twenty rows are
#: at hand, all of one split: they are dealt out over the three.
PROBING = {
    **dict.fromkeys(
        ["sentence_length", "word_content", "tree_depth", "bigram_shift", "subj_number", "obj_number"], "xprobe"
    ),
    **dict.fromkeys(["top_constituents", "odd_man_out"], "probing_derived_wsj"),
    **dict.fromkeys(["past_present", "coordination_inversion"], "senteval_original_sample"),
}


@dataclass(frozen=True)
class Size:
    """How large the stand-ins are."""

    width: int | None  #: of every model; None: as the real ones are
    depth: int
    sentences: int  #: of CoNLL-2000's train split
    per_label: int  #: rows of a label in a probing file's train split; a quarter of that in dev, a third in test
    pairs: int  #: rows of BoolQ's and WiC's train split; half of that in dev


SMALL = Size(width=64, depth=2, sentences=50, per_label=9, pairs=16)
FULL = Size(width=None, depth=12, sentences=300, per_label=60, pairs=300)


def publish(root: Path, real: Path, size: Size) -> None:
    """Everything that the text half of tasks.toml reads, under ``root`` as ``tests.hub.Hub`` serves it."""
    _bert(root / "models" / "google-bert" / "bert-base-uncased", real, size)
    _gpt2(root / "models" / "openai-community" / "gpt2", real, size)
    _clip(root / "models" / CLIP, size)
    _conll2000(root / "datasets" / "eriktks" / "conll2000", real, size)
    _superglue(root / "datasets" / "aps" / "super_glue", real, size)
    (root / "released").mkdir()
    for name, folder in PROBING.items():
        _probing(root / "released" / f"{name}.txt", real / folder / f"{name}.txt", size)


def thinned(root: Path, url: str, size: Size) -> str:
    """tasks.toml without images and optional models; released files are at ``url``, and what takes time is cut."""
    study = tomllib.loads((ROOT / "tasks.toml").read_text(encoding="utf-8"))
    study["study"] |= {"seeds": [0], "note": NOTE}
    study["models"] = {name: model for name, model in study["models"].items() if model.get("twin_of", name) in MODELS}
    study["datasets"] = {n: d for n, d in study["datasets"].items() if data.modality(d["reader"]) == "text"}
    # The arm of equal width is the same kind on the same data: one of its ten tasks stands for all.
    study["tasks"] = {
        name: task
        for name, task in study["tasks"].items()
        if task["dataset"] in study["datasets"] and (not name.endswith("-width") or name == WIDTH)
    }
    for model in study["models"].values():
        if size.width and "layers" in model:
            model["layers"] = size.depth
        if size.width and model.get("source") == "open_clip" and model.get("pretrained") == "openai":
            model["checkpoint"] = f"hf-hub:{CLIP}"  # a name of open_clip's means the full size
            del model["pretrained"]
        if "init_seeds" in model:
            model["init_seeds"] = [0]
    for name, dataset in study["datasets"].items():
        dataset.pop("exclude", None)  # row numbers of the whole corpus
        if "url" in dataset:
            dataset["url"] = f"{url}/released/{name}.txt"
            dataset["checksum"] = checksum.like("git:", root / "released" / f"{name}.txt")
    probing = {"max_epoch": 4, "draws": 20}
    spans = {"labelled": 50, "outside": 10, "fit": 40, "samples": 1, "restarts": 1}
    tuning = {"epochs": 1, "batch_size": 16, "max_tokens": 64, "draws": 20, "question_only": False}
    thin = {"classify": probing, "classify_pairs": probing, "phrase_clusters": spans, "finetune": tuning}
    thin |= {"similarity": {"split": "train", "batch_size": 4, "draws": 20}}
    if size.width:
        study["tasks"][WIDTH]["options"] = {"width": size.width // 4}
    for task in study["tasks"].values():
        task["options"] = {**task.get("options", {}), **thin[task["kind"]]}
        if task["kind"] in ("phrase_clusters", "finetune"):
            task["seeds"] = task["seeds"][:2]
        if task["kind"] == "finetune" and "long" in task["options"]:  # twins go through the same arm once, truncated
            task["models"] = list(MODELS)
    return "".join(as_toml(study))


def as_toml(study: Mapping[str, Any]) -> Iterator[str]:
    def value(held: Any) -> str:
        if isinstance(held, dict):
            return "{ " + ", ".join(f"{key} = {value(inner)}" for key, inner in held.items()) + " }"
        return json.dumps(held)

    def table(name: str, keys: Mapping[str, Any]) -> str:
        return f"[{name}]\n" + "".join(f"{key} = {value(held)}\n" for key, held in keys.items())

    yield table("study", study["study"])
    for section in ("models", "datasets", "tasks"):
        yield from (table(f"{section}.{name}", keys) for name, keys in study[section].items())


def _bert(folder: Path, real: Path, size: Size) -> None:
    from transformers import BertConfig, BertModel, BertTokenizer

    # From the vocabulary alone: the tokenizer.json beside it pads every text to 128.
    lines = (real / "tokenizers" / "bert-base-uncased" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    shape = {"hidden_size": size.width, "num_attention_heads": 2, "intermediate_size": 2 * (size.width or 0)}
    config = BertConfig(num_hidden_layers=size.depth, **(shape if size.width else {}))
    _save(folder, BertModel, config, BertTokenizer(vocab={token: i for i, token in enumerate(lines)}))
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _gpt2(folder: Path, real: Path, size: Size) -> None:
    from transformers import GPT2Config, GPT2Model, GPT2Tokenizer

    home = real / "tokenizers" / "gpt2"
    vocabulary = json.loads((home / "vocab.json").read_text(encoding="utf-8"))
    lines = (home / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    config = GPT2Config(n_layer=size.depth, **({"n_embd": size.width, "n_head": 2} if size.width else {}))
    _save(folder, GPT2Model, config, GPT2Tokenizer(vocab=vocabulary, merges=merges))


def _save(folder: Path, kind: Any, config: Any, tokenizer: Any) -> None:
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"must never be fetched")


def _clip(folder: Path, size: Size) -> None:
    import open_clip

    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    if size.width:
        config["text_cfg"] |= {"width": size.width, "heads": 2, "layers": size.depth}
        config["vision_cfg"] |= {"width": size.width, "layers": 1, "image_size": 32, "head_width": 32}
        config["embed_dim"] = size.width
    save_clip(folder, config)


def save_clip(folder: Path, config: Mapping[str, Any]) -> None:
    """A model of open_clip with random weights, as its repository on the Hub holds one."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"must never be fetched")


def _conll2000(folder: Path, real: Path, size: Size) -> None:
    from datasets import ClassLabel, Features, List, Value

    for split, n in (("train", size.sentences), ("test", size.sentences // 2)):
        path = real / "conll2000" / f"{split}.txt"
        sentences = list(itertools.islice(conll2000.parse(path.read_text(encoding="utf-8").split("\n"), path), n))
        rows = [(s.words, s.pos, s.tags) for s in sentences] + [((), (), ())]  # the Hub's copy ends so
        pos, tags = (sorted({tag for row in rows for tag in row[column]}) for column in (1, 2))
        features = Features(
            id=Value("string"),
            tokens=List(Value("string")),
            pos_tags=List(ClassLabel(names=pos)),
            chunk_tags=List(ClassLabel(names=tags)),
        )
        columns = {
            "id": [str(i) for i in range(len(rows))],
            "tokens": [list(words) for words, _, _ in rows],
            "pos_tags": [list(named) for _, named, _ in rows],
            "chunk_tags": [list(named) for _, _, named in rows],
        }
        parquet(folder / "conll2000" / split / "0000.parquet", columns, features)


def _superglue(folder: Path, real: Path, size: Size) -> None:
    from datasets import ClassLabel, Features, Value

    boolq = [json.loads(line) for line in (real / "boolq" / "superglue_val.jsonl").read_text().splitlines()]
    text = {name: Value("string") for name in ("question", "passage")}
    _pairs(folder / "boolq", boolq, Features(**text, label=ClassLabel(names=["False", "True"])), size)

    lines = [line.split("\t") for line in (real / "wic" / "train.data.txt").read_text().splitlines()]
    gold = (real / "wic" / "train.gold.txt").read_text().split()
    wic = [_wic(fields, label == "T") for fields, label in zip(lines, gold, strict=True)]
    kinds = {name: Value("string" if isinstance(held, str) else "int32") for name, held in wic[0].items()}
    _pairs(folder / "wic", wic, Features(kinds | {"label": ClassLabel(names=["False", "True"])}), size)


def _wic(fields: Sequence[str], label: bool) -> dict[str, Any]:
    """A released row in SuperGLUE's columns, which mark characters where the release marks words."""
    word, _, places, *sentences = fields
    row: dict[str, Any] = {"word": word}
    for side, place, sentence in zip((1, 2), map(int, places.split("-")), sentences, strict=True):
        words = sentence.split(" ")
        start = len(" ".join([*words[:place], ""]))
        row |= {f"sentence{side}": sentence, f"start{side}": start, f"end{side}": start + len(words[place])}
    return row | {"label": label}


def _pairs(folder: Path, rows: Sequence[Mapping[str, Any]], features: Any, size: Size) -> None:
    """As many of either label in each split; the labels of test are hidden, as they are on the Hub."""
    by_label = [[row for row in rows if bool(row["label"]) is label] for label in (False, True)]
    mixed = [row for both in zip(*by_label, strict=False) for row in both]
    cuts = {"train": mixed[: size.pairs], "validation": mixed[size.pairs : size.pairs * 3 // 2], "test": mixed[-4:]}
    for split, part in cuts.items():
        columns = {name: [row[name] for row in part] for name in features}
        columns["label"] = [-1 if split == "test" else int(row["label"]) for row in part]
        parquet(folder / split / "0000.parquet", columns, features)


def parquet(path: Path, columns: Mapping[str, Any], features: Any) -> None:
    import datasets

    datasets.disable_progress_bars()
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(dict(columns), features=features).to_parquet(path)


def _probing(path: Path, real: Path, size: Size) -> None:
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    dealt = itertools.cycle(("tr", "tr", "va", "tr", "te"))
    for line in real.read_text(encoding="utf-8").split("\n"):
        if line:
            split, label, sentence = line.split("\t")
            found[label][next(dealt) if "sample" in str(real) else split].append(sentence)
    labels = [label for label in sorted(found) if all(found[label][split] for split in ("tr", "va", "te"))][:6]
    most = {"tr": size.per_label, "va": max(1, size.per_label // 4), "te": max(1, size.per_label // 3)}
    rows = [
        f"{split}\t{label}\t{sentence}\n"
        for split in most
        for label in labels
        for sentence in found[label][split][: most[split]]
    ]
    path.write_text("".join(rows), encoding="utf-8")
