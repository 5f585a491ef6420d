"""Names beside lines: none over another, none farther from its line than it must be."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipstudy.dashboard.labels import APART, LEADER, LETTER, LINE, LONGEST, apart, drawn, margin
from clipstudy.dashboard.series import LineInfo

PLACES = st.lists(st.floats(0, 200), max_size=8).map(sorted)


def test_what_is_apart_stays_where_it_is() -> None:
    assert apart([20, 40, 100], [16, 16, 16], 200) == [20, 40, 100]
    assert apart([], [], 200) == []


def test_what_collides_shares_the_way() -> None:
    assert apart([50, 50], [10, 10], 200) == [45, 55]
    assert apart([50, 54, 58], [10, 10, 10], 200) == [44, 54, 64]
    assert apart([50, 50], [30, 10], 200) == [40, 60], "a longer one has more room"
    assert apart([0, 2], [10, 10], 200) == [5, 15], "within the room"
    assert apart([199, 200], [10, 10], 200) == [185, 195]
    assert apart([5, 5, 5], [10, 10, 10], 20) == [5, 15, 25], "and beyond it where there is none"


@given(PLACES, st.data())
def test_never_one_over_another(wanted: list[float], data: st.DataObject) -> None:
    sizes = [float(data.draw(st.integers(1, 24))) for _ in wanted]
    found = apart(wanted, sizes, 200)
    for (above, size), (below, more) in pairwise(zip(found, sizes, strict=True)):
        assert below - above >= (size + more) / 2 - 1e-6
    assert all(size / 2 - 1e-6 <= at <= 200 - size / 2 + 1e-6 for at, size in zip(found, sizes, strict=True))


def test_a_line_leads_to_its_name() -> None:
    (one,) = drawn([LineInfo("zero-shot", 25.0, "#0072B2")], (0, 100), 200)
    assert (one["y"], one["ax"], one["ay"], one["arrowcolor"]) == (25.0, LEADER, 0, "#0072B2")
    above, below = drawn([LineInfo("a", 50.0), LineInfo("b", 50.0)], (0, 100), 200)
    assert (below["ay"], above["ay"]) == ((LINE + APART) / 2, -(LINE + APART) / 2)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("majority class", "majority class"),
        ("zero-shot, CLIP RN50", "zero-shot, CLIP RN50"),
        ("zero-shot, CLIP ViT-B/32", "zero-shot,<br>CLIP ViT-B/32"),
        ("last word's coarse part of speech", "last word's coarse<br>part of speech"),
        ("zero-shot, <i>", "zero-shot, &lt;i&gt;"),
    ],
)
def test_a_long_name_is_broken_between_what_it_is_and_whose(label: str, text: str) -> None:
    assert drawn([LineInfo(label, 1.0)], (0, 2), 200)[0]["text"] == text


def test_names_have_a_margin_and_take_no_more() -> None:
    assert margin([]) == 0 and margin([LineInfo("chance", 1.0)]) == LEADER + 6 * LETTER
    assert margin([LineInfo("x" * 500, 1.0)]) == LEADER + LETTER * LONGEST
