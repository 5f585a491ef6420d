"""What errors say."""

from __future__ import annotations

import pytest

from clipstudy.errors import said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\ntwo", "one"),
        ("Error(s) in loading:\n\n\tMissing key: x\n\tmore", "Error(s) in loading: Missing key: x"),
        (" \n", "ValueError"),
        ("x" * 300, "x" * 200),
    ],
)
def test_what_a_library_says_in_a_line(text: str, shown: str) -> None:
    assert said(ValueError(text)) == shown
