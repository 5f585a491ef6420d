"""The pocket models' card, of made-up records: every figure is a record's, and what is not good enough is said."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from clipstudy.errors import ModelError
from clipstudy.pocket.training import card
from clipstudy.pocket.training.models import MODELS
from clipstudy.pocket.training.pretrain import RECIPES, RECORD

SEEN = {
    "captions": {"retrieval": 0.512, "true_over_twin": 0.713, "zero_shot": 0.334, "k_nn": 0.221},
    "classes": {"top_1": 0.654, "top_1_shape": 0.755, "k_nn": 0.556},
    "pairs": {"k_nn_object": 0.287, "k_nn": 0.041},
}


def record(name: str, **changed: Any) -> dict[str, Any]:
    model = MODELS[name]
    made = {
        "name": name,
        "objective": model.objective,
        "seed": 0,
        "recipe": asdict(RECIPES[name]),
        "parameters": 654321,
        "curve": [[step, 1 + 6 / step] for step in range(1, 101)],
        "figures": SEEN[model.objective] if model.sees else {"perplexity": 45.67},
        "untrained": dict.fromkeys(SEEN[model.objective], 0.0123) if model.sees else {"perplexity": 1789.12},
        "floors": {} if model.sees else {"unigram": 234.56, "grammar": 23.45},
        "held": 1024,
    }
    return made | changed


def put(folder: Path, *records: dict[str, Any], size: int = 1000) -> Path:
    for made in records:
        place = folder / made["name"]
        place.mkdir(exist_ok=True)
        (place / RECORD).write_text(json.dumps(made))
        (place / "model.safetensors").write_bytes(bytes(size))
    return folder


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    return put(tmp_path, *(record(name) for name in MODELS))


def rows(text: str) -> list[list[str]]:
    """The cells of every table row of a card."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_the_card_says_what_the_records_say(seven: Path) -> None:
    text = card.write(seven).read_text()
    assert text.startswith("# The pocket models\n\nThese are miniature models")
    assert "They say nothing about real CLIP" in text
    cells = rows(text)
    assert ["[bert](bert/pretraining.json)", "BERT", "transformers", "masked words"] in [row[:4] for row in cells]
    [vit] = [row for row in cells if row[0] == "[vit](vit/pretraining.json)"]
    assert vit[4:7] == ["pictures with their class", "654,321", "4,500 × 128"]
    against = "unigram 234.6, grammar 23.4"
    assert ["gpt2", "perplexity, next word", "**45.7**", "1,789.1", against] in cells
    assert ["clip-vit", "class by its name, zero-shot, of 100", "**33.4%**", "1.2%", "chance 1.0%"] in cells
    assert ["clip-vit", "caption or picture found among 256", "**51.2%**", "1.2%", "chance 0.4%"] in cells
    assert ["clip-vit", "true caption preferred to a false one", "71.3%", "1.2%", "chance 50.0%"] in cells
    assert ["resnet", "its shape, of 20", "75.5%", "1.2%", "chance 5.0%"] in cells
    assert ["vit-pairs", "class and colour by its 20 nearest, of 1000", "**28.7%**", "1.2%", "chance 0.1%"] in cells
    assert "at most 1.6 points" in text and "All 7 are." in text
    assert f"{sum(card.sizes(seven).values()) / 1e6:.2f} MB" in text
    assert "    clipstudy pocket pretrain\n" in text and "Apache-2.0" in text
    assert "| text | shared | bert | gpt2 | clip-resnet | clip-vit |" in text


def test_every_row_of_a_table_has_as_many_cells(seven: Path) -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", card.write(seven).read_text(), flags=re.MULTILINE)
    assert len(blocks) == 5
    assert all(len({len(row) for row in rows(block)}) == 1 for block in blocks)


def test_equal_records_give_an_equal_card(seven: Path) -> None:
    first = card.write(seven).read_bytes()
    assert card.write(seven).read_bytes() == first


def test_a_line_of_loss_a_model(seven: Path) -> None:
    lines = [line for line in card.write(seven).read_text().splitlines() if line.endswith(" nats")]
    assert [line.split()[0] for line in lines] == list(MODELS)
    assert len({len(line) for line in lines}) == 1
    assert re.fullmatch(r"bert +7\.000 +█[▁-█]+▁ +1\.060 nats", lines[0])


def test_bars_follow_the_means_of_their_parts() -> None:
    assert card.sparkline([8, 7, 6, 5, 4, 3, 2, 1]) == "█▇▆▅▄▃▂▁"
    assert card.sparkline([9, 7, 0, 2], wide=2) == "█▁"
    assert card.sparkline([3, 3, 3]) == "▁▁▁"
    assert len(card.sparkline(range(199))) == card.WIDE


def test_nothing_is_wrong_with_seven_good_ones(seven: Path) -> None:
    assert card.problems(seven) == []


def test_a_share_must_be_three_standard_errors_above(seven: Path) -> None:
    before = 0.05
    enough = before
    while enough - before <= 3 * math.sqrt((enough * (1 - enough) + before * (1 - before)) / 1024):
        enough += 1e-4
    put(seven, record("vit-pairs", figures={"k_nn_object": enough}, untrained={"k_nn_object": before}))
    assert card.problems(seven) == []
    put(seven, record("vit-pairs", figures={"k_nn_object": enough - 2e-4}, untrained={"k_nn_object": before}))
    [said] = card.problems(seven)
    assert re.fullmatch(
        r"vit-pairs: k_nn_object is 8\..%, not clearly better: .*twin's is 5\.0%, so it must be above .*", said
    )
    assert said in card.write(seven).read_text()
    # Fewer pictures, more doubt; a record that does not say how many has the usual number.
    put(seven, record("vit-pairs", figures={"k_nn_object": enough}, untrained={"k_nn_object": before}, held=200))
    assert len(card.problems(seven)) == 1


@pytest.mark.parametrize(
    ("trained", "untrained", "good"), [(117, 1789, True), (118, 1789, False), (99, 200, True), (101, 200, False)]
)
def test_a_perplexity_must_be_below_half(seven: Path, trained: float, untrained: float, good: bool) -> None:
    put(seven, record("bert", figures={"perplexity": trained}, untrained={"perplexity": untrained}))
    said = card.problems(seven)
    assert (said == []) is good
    assert good or (said[0].startswith(f"bert: perplexity is {trained}.0") and "unigram's 234.6" in said[0])


def test_what_a_model_was_not_trained_for_does_not_count(seven: Path) -> None:
    put(seven, record("clip-vit", figures=SEEN["captions"] | {"true_over_twin": 0.01, "k_nn": 0.0}))
    assert card.problems(seven) == []


def test_missing_models_other_recipes_and_large_files_are_said(tmp_path: Path) -> None:
    short = record("bert") | {"recipe": asdict(RECIPES["bert"]) | {"steps": 5}}
    put(tmp_path, short, *(record(name) for name in MODELS if name not in ("bert", "vit")), size=2_000_001)
    missing, recipe, large = card.problems(tmp_path)
    assert missing == f"vit: there is no pretraining.json in {tmp_path / 'vit'}."
    assert recipe == "bert: trained by another recipe than today's (5 steps; today's has 9,000)."
    assert large == f"The models take {sum(card.sizes(tmp_path).values()) / 1e6:.2f} MB together, more than 12 MB."
    text = card.write(tmp_path).read_text()
    assert missing in text and "All 7 are" not in text


def test_a_card_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"There is no pocket model in .*\. Type: clipstudy pocket pretrain$"):
        card.write(tmp_path)
    put(tmp_path, record("bert"))
    (tmp_path / "bert" / RECORD).write_text("{")
    with pytest.raises(ModelError, match=r"bert/pretraining\.json cannot be read .* Remove .*, then type: clipstudy"):
        card.write(tmp_path)
