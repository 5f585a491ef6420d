"""The page of ratios keeps what was not measured again, and mixes no machines."""

from __future__ import annotations

import pytest

from benchmarks.figures import Row
from benchmarks.page import FULL, MARKS, QUICK, filled

EMPTY = f"# Page\n\n{MARKS[0]}\nold\n{MARKS[1]}\n\nThe end.\n"
HERE, ORDER = {"cores": "2"}, ("Probes", "Memory", "Growth")


def row(what: str, value: float, most: float | None = None) -> Row:
    return Row(what, [value], "x", most=most)


def test_a_topic_measured_again_leaves_the_others() -> None:
    first = filled(
        EMPTY, {"Memory": [row("peak", 7, most=6)], "Probes": [row("fit", 3, most=4)]}, "Full, 1", HERE, ORDER
    )
    assert first.startswith("# Page") and first.endswith("The end.\n") and "old" not in first
    assert "1 of 2 bounds are met. Not measured on this machine: Growth." in first
    assert first.index("### Probes") < first.index("### Memory")
    again = filled(first, {"Memory": [row("peak", 5, most=6)], "Growth": []}, "Quick, 2", HERE, ORDER)
    assert "2 of 2 bounds are met. Not measured on this machine: Growth." in again
    assert again.count("Full, 1.") == again.count("Quick, 2.") == again.count("### Memory") == 1
    assert filled(again, {}, "none", HERE, ORDER) == again


def test_a_quick_run_fills_what_no_full_run_has() -> None:
    full = filled(EMPTY, {"Memory": [row("peak", 7)]}, f"{FULL}, 1", HERE, ORDER)
    both = {"Memory": [row("peak", 5)], "Probes": [row("fit", 3)]}
    quick = filled(full, both, f"{QUICK}, 2", HERE, ORDER)
    assert quick.count("Full run, 1.") == quick.count("Quick run, 2.") == 1 and "| peak | 7.00 x |" in quick
    assert filled(quick, both, f"{FULL}, 3", HERE, ORDER).count("Full run, 3.") == 2


def test_another_machine_begins_a_new_page() -> None:
    first = filled(EMPTY, {"Memory": [row("peak", 7)]}, "Full, 1", HERE, ORDER)
    other = filled(first, {"Probes": [row("fit", 3)]}, "Full, 2", {"cores": "64"}, ORDER)
    assert "### Memory" not in other and "### Probes" in other and "cores: 64" in other


def test_a_page_without_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="has no"):
        filled("# Page", {}, "", HERE, ORDER)
