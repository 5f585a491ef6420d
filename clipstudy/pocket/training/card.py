"""The pocket models' card, made of their records: what each is, what it learnt, and whether that is enough to ship."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from clipstudy.errors import ModelError
from clipstudy.pocket.images.scenes import COLOURS, FINE
from clipstudy.pocket.images.silhouettes import TEXTURES
from clipstudy.pocket.training import evaluation, twins
from clipstudy.pocket.training.models import MODELS, PocketModel
from clipstudy.pocket.training.pretrain import RECIPES, RECORD

CARD = "CARD.md"
#: What the folders of all models may take together, in millions of bytes.
MOST_MB = 12
#: Clearly better than the untrained twin is a share above it by so many standard errors of the difference. Chance alone
#: does that once in 740 times, and as both are measured on the same pictures, less often still.
ERRORS = 3
#: ... and a perplexity below this part of the unigram's (and of the twin's): one bit a word that only what stands
#: around it can have given. An untrained model is worse than the unigram, so to beat it alone proves no more than that
#: words were counted.
PART = 1 / 2
#: The figures by which a model is judged: those of what it was trained for.
JUDGED: Mapping[str, tuple[str, ...]] = {
    "masked words": ("perplexity",),
    "next word": ("perplexity",),
    "captions": ("retrieval", "zero_shot"),
    "classes": ("top_1",),
    "pairs": ("k_nn_object",),
}
#: Kinds of main objects: a fine class in a colour.
OBJECTS = len(FINE) * len(COLOURS)
BARS = "▁▂▃▄▅▆▇█"
WIDE = 40  #: letters of a loss curve

Record = Mapping[str, Any]


def write(folder: Path) -> Path:
    """Write ``folder/CARD.md`` from the records of the models in ``folder``: equal records, equal card.

    Raises:
        ModelError: there is no record, or one that cannot be read.
    """
    by_name = records(folder)
    if not by_name:
        raise ModelError(f"There is no pocket model in {folder}. Type: clipstudy pocket pretrain")
    card = folder / CARD
    card.write_text(as_markdown(by_name, sizes(folder), problems(folder)), encoding="utf-8")
    return card


def problems(folder: Path) -> list[str]:
    """A sentence for each reason not to ship the models in ``folder``; empty: there is none.

    Raises:
        ModelError: a record cannot be read.
    """
    by_name = records(folder)
    wrong = [f"{name}: there is no {RECORD} in {folder / name}." for name in MODELS if name not in by_name]
    for name, record in by_name.items():
        if record["recipe"] != asdict(RECIPES[name]):
            steps, wanted = record["recipe"]["steps"], RECIPES[name].steps
            wrong.append(f"{name}: trained by another recipe than today's ({steps:,} steps; today's has {wanted:,}).")
        wrong += [_unclear(record, figure) for figure in JUDGED[record["objective"]] if not _clear(record, figure)]
    if (total := sum(sizes(folder).values()) / 1e6) > MOST_MB:
        wrong.append(f"The models take {total:.2f} MB together, more than {MOST_MB} MB.")
    return wrong


def records(folder: Path) -> dict[str, Record]:
    """Model → record, of the pocket models in ``folder``, in their usual order.

    Raises:
        ModelError: a record cannot be read.
    """
    by_name = {}
    for file in (folder / name / RECORD for name in MODELS):
        if not file.is_file():
            continue
        try:
            by_name[file.parent.name] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{file} cannot be read ({error}). Remove {file.parent}, then type: clipstudy pocket pretrain"
            ) from error
    return by_name


def sizes(folder: Path) -> dict[str, int]:
    """Model → bytes of all files in its folder."""
    there = {name: folder / name for name in MODELS if (folder / name).is_dir()}
    return {name: sum(file.stat().st_size for file in at.rglob("*") if file.is_file()) for name, at in there.items()}


def as_markdown(by_name: Mapping[str, Record], sizes: Mapping[str, int], problems: Sequence[str]) -> str:
    seeds = sorted({record["seed"] for record in by_name.values()})
    seed = "".join(f" --seed {seed}" for seed in seeds if seed)
    parts = [
        "# The pocket models",
        "These are miniature models of a miniature world, with a made-up language and drawn pictures. They show that a "
        "study works from end to end without a network. **They say nothing about real CLIP, BERT or GPT-2.**",
        "## What they are",
        _models(by_name, sizes),
        f"Weights are half-precision safetensors in each library's own layout. All files together: "
        f"{sum(sizes.values()) / 1e6:.2f} MB.",
        "## What they learnt",
        _figures(by_name),
        _explained(by_name),
        _verdict(by_name, problems),
        "## How they learnt",
        "Training loss in nats, from the first steps to the last; each curve is as tall as its own range.",
        _curves(by_name),
        "## What twins share",
        "What differs between two models besides what they learnt is what a comparison of them cannot tell apart from "
        "it. (″: the same as on the left.)",
        twins.as_markdown().strip(),
        "## Making them again",
        f"    clipstudy pocket pretrain{seed}",
        f"trains {'them' if len(by_name) > 1 else 'it'} from seed {' and '.join(map(str, seeds))} on fresh sentences "
        "and pictures, without a network. The same seed gives the same weights, but for rounding on another machine. "
        f"`{RECORD}` beside each checkpoint is what this card is made of.",
        "## Licence",
        "Apache-2.0, like clipstudy itself. Language, pictures and models are made by its code and nothing else.",
    ]
    return "\n\n".join(parts) + "\n"


# --- parts of the card


def _models(by_name: Mapping[str, Record], sizes: Mapping[str, int]) -> str:
    rows = []
    for name, record in by_name.items():
        model, recipe = MODELS[name], record["recipe"]
        rows.append([
            f"[{name}]({name}/{RECORD})",
            model.title,
            model.source,
            record["objective"],
            twins.TRAINED_ON[record["objective"]],
            f"{record['parameters']:,}",
            f"{recipe['steps']:,} × {recipe['batch']}",
            f"{sizes[name] / 1e6:.2f}",
        ])  # fmt: skip
    header = ("model", "is a", "library", "objective", "data", "weights", "steps × batch", "MB")
    return _table(header, rows, numbers=3)


def _figures(by_name: Mapping[str, Record]) -> str:
    rows = []
    for name, record in by_name.items():
        for figure, value in record["figures"].items():
            text = _shown(figure, value)
            judged = figure in JUDGED[record["objective"]]
            rows.append([
                name,
                _title(MODELS[name], figure, _held(record)),
                f"**{text}**" if judged else text,
                _shown(figure, record["untrained"][figure]),
                _floor(record, figure),
            ])  # fmt: skip
    header = ("model", "held out", "trained", "untrained twin", "to hold it against")
    return _table(header, rows, numbers=3)


def _explained(by_name: Mapping[str, Record]) -> str:
    fewest = min(_held(record) for record in by_name.values())
    text = (
        f"Measured on {' or '.join(f'{held:,}' for held in sorted({_held(r) for r in by_name.values()}))} sentences or "
        "pictures that no model was trained on, after the weights were written and read back. In **bold** what a model "
        f"was trained for. The standard error of a share is at most {50 / math.sqrt(fewest):.1f} points (more for the "
        "false captions, which not every picture has)."
    )
    if any(record["floors"] for record in by_name.values()):
        text += (
            " *Unigram* is the perplexity of words by their frequency alone; *grammar* is what each next word costs "
            "whoever knows the grammar by heart, an upper bound of the language's own. A masked word is seen from both "
            "sides, so it may cost less."
        )
    return text


def _verdict(by_name: Mapping[str, Record], problems: Sequence[str]) -> str:
    clearly = (
        f"Clearly better than the untrained twin means: a share more than {ERRORS} standard errors of the difference "
        f"above the twin's, a perplexity below {PART:.0%} of the unigram's and of the twin's."
    )
    if not problems:
        return f"{clearly} All {len(by_name)} are."
    return "\n".join([f"{clearly} What is wrong here:", "", *(f"- {problem}" for problem in problems)])


def _curves(by_name: Mapping[str, Record]) -> str:
    longest = max(map(len, by_name))
    lines = ["```text"]
    for name, record in by_name.items():
        losses = [loss for _, loss in record["curve"]]
        lines.append(f"{name:{longest}}  {losses[0]:6.3f}  {sparkline(losses):{WIDE}}  {losses[-1]:6.3f} nats")
    return "\n".join([*lines, "```"])


def sparkline(values: Sequence[float], wide: int = WIDE) -> str:
    """``values`` as at most ``wide`` bars, each the mean of its part, the lowest one ▁ and the highest █."""
    wide = min(wide, len(values))
    edges = [round(part * len(values) / wide) for part in range(wide + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
    low, high = min(means), max(means)
    if low == high:
        return BARS[0] * wide
    return "".join(BARS[round((mean - low) / (high - low) * (len(BARS) - 1))] for mean in means)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: int) -> str:
    """A table whose last ``numbers`` columns are aligned to the right."""
    rule = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


# --- figures


def _title(model: PocketModel, figure: str, held: int) -> str:
    titles = {
        "perplexity": f"perplexity, {model.objective}",
        "retrieval": f"caption or picture found among {min(evaluation.CHOICE, held)}",
        "true_over_twin": "true caption preferred to a false one",
        "zero_shot": f"class by its name, zero-shot, of {len(FINE)}",
        "top_1": f"class, top-1, of {len(FINE)}",
        "top_1_shape": f"its shape, of {len(FINE) // len(TEXTURES)}",
        "k_nn": f"class by its {evaluation.NEIGHBOURS} nearest, of {len(FINE)}",
        "k_nn_object": f"class and colour by its {evaluation.NEIGHBOURS} nearest, of {OBJECTS}",
    }
    return titles.get(figure, figure)


def _floor(record: Record, figure: str) -> str:
    if figure == "perplexity":
        return ", ".join(f"{floor} {_shown(figure, value)}" for floor, value in record["floors"].items())
    chances = {
        "retrieval": 1 / min(evaluation.CHOICE, _held(record)),
        "true_over_twin": 1 / 2,
        "top_1_shape": len(TEXTURES) / len(FINE),
        "k_nn_object": 1 / OBJECTS,
    }
    return f"chance {_shown(figure, chances.get(figure, 1 / len(FINE)))}"


def _shown(figure: str, value: float) -> str:
    return f"{value:,.1f}" if figure == "perplexity" else f"{value:.1%}"


def _held(record: Record) -> int:
    """Items behind each figure; a record that does not say has the usual number."""
    return int(record.get("held", evaluation.HELD))


def _bound(record: Record, figure: str) -> float:
    """What a figure must be beyond to be clearly better than the untrained twin's."""
    before = record["untrained"][figure]
    if figure == "perplexity":
        return float(PART * min(before, record["floors"]["unigram"]))
    both = (record["figures"][figure], before)
    return float(before + ERRORS * math.sqrt(sum(share * (1 - share) for share in both) / _held(record)))


def _clear(record: Record, figure: str) -> bool:
    value, bound = record["figures"][figure], _bound(record, figure)
    return bool(value < bound if figure == "perplexity" else value > bound)


def _unclear(record: Record, figure: str) -> str:
    value, before, bound = (
        _shown(figure, number)
        for number in (record["figures"][figure], record["untrained"][figure], _bound(record, figure))
    )
    against = f"the untrained twin's is {before}"
    if figure == "perplexity":
        against += f", the unigram's {_shown(figure, record['floors']['unigram'])}"
    wanted = "below" if figure == "perplexity" else "above"
    return f"{record['name']}: {figure} is {value}, not clearly better: {against}, so it must be {wanted} {bound}."
