from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipstudy.job import FailureKind, Status
from clipstudy.queue.retries import FREE_SETBACKS, LONGEST_DELAY_S, delay, together, verdict

CODE, INFRA, LOST = FailureKind.CODE, FailureKind.INFRA, FailureKind.LOST
Q, F = Status.QUEUED, Status.FAILED


@pytest.mark.parametrize(
    ("kind", "retry", "tries", "infra", "then"),
    [
        (CODE, True, 1, 0, (Q, 1, 0)),
        (CODE, True, 3, 0, (F, 3, 0)),
        (CODE, False, 1, 0, (F, 1, 0)),
        (LOST, True, 2, 0, (Q, 2, 0)),
        (LOST, True, 3, 0, (F, 3, 0)),
        (INFRA, True, 1, 0, (Q, 0, 1)),
        (INFRA, True, 3, 0, (Q, 2, 1)),
        (INFRA, False, 1, 0, (F, 1, 1)),
        (INFRA, True, 1, FREE_SETBACKS, (Q, 1, FREE_SETBACKS + 1)),
        (INFRA, True, 3, FREE_SETBACKS, (F, 3, FREE_SETBACKS + 1)),
    ],
)
def test_verdict(kind: FailureKind, retry: bool, tries: int, infra: int, then: tuple[Status, int, int]) -> None:
    got = verdict(kind, retry, tries, 3, infra, seed=1)
    assert (got.status, got.tries, got.infra) == then
    assert (got.delay > 0) is (got.status is Q)


@given(st.integers(1, 100) | st.integers(1000, 10**9), st.integers(1, 10_000))
def test_delays_double_up_to_a_bound_and_siblings_share_them(failures: int, seed: int) -> None:
    full = min(5.0 * 2 ** min(failures - 1, 99), LONGEST_DELAY_S)
    assert full / 2 <= delay(failures, seed) <= full


def test_a_delay_is_the_same_on_every_host() -> None:
    """Siblings that fail on two hosts come back together."""
    found = [round(delay(failures, seed), 6) for failures, seed in ((1, 1), (3, 7), (9, 10_000))]
    assert found == [4.290871, 17.743612, 541.325258]


def test_groups_spread_out() -> None:
    assert len({delay(3, seed) for seed in range(50)}) == 50


@given(st.floats(1e9, 2e9), st.floats(0.5, LONGEST_DELAY_S), st.floats(0, 0.05))
def test_what_fails_at_nearly_the_same_time_is_due_at_one_of_two_strokes(now: float, wait: float, later: float) -> None:
    first, second = together(now, wait), together(now + later, wait)
    assert now < first <= now + wait / 4 + 1e-3
    assert min(abs(second - first), abs(second - first - wait / 4)) < 1e-3
