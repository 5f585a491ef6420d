"""Control labels: by type, from the task's distribution, blind to order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clipstudy.probes.control import control_labels, share_seen

LABELS = np.repeat([0, 2, 3], [700, 200, 100])  # class 1 never occurs
words = st.lists(st.text(max_size=4), min_size=1, max_size=30)


@given(words, st.randoms())
def test_a_types_label_is_its_own_whatever_stands_around_it(types: list[str], random) -> None:
    found = dict(zip(types, control_labels(types, LABELS, 4), strict=True))
    shuffled = types + types[:3]
    random.shuffle(shuffled)
    assert [found[t] for t in shuffled] == control_labels(shuffled, LABELS, 4).tolist()


def test_the_labels_follow_the_tasks_distribution() -> None:
    types = [f"word{i}" for i in range(20_000)]
    shares = np.bincount(control_labels(types, LABELS, 4), minlength=4) / len(types)
    assert np.allclose(shares, [0.7, 0, 0.2, 0.1], atol=0.015)
    assert shares[1] == 0
    agree = (control_labels(types, LABELS, 4) == control_labels(types, LABELS, 4, seed=1)).mean()
    assert abs(agree - (0.7**2 + 0.2**2 + 0.1**2)) < 0.02  # another seed is another, independent draw


def test_a_seed_means_the_same_labels_on_every_host() -> None:
    assert control_labels(["the", "a", "he", "she", "it"], np.arange(10), 10).tolist() == [4, 3, 3, 1, 6]


def test_the_share_of_rows_that_memory_can_serve() -> None:
    assert share_seen(["the", "a"], ["the", "the", "he", "a"]) == 0.75
