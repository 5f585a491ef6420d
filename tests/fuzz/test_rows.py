"""Rows of the job table of any content: whoever can write to it ends no worker by what a row says."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clipstudy.errors import Unreadable
from clipstudy.job import Group
from clipstudy.queue import outbox
from tests.fuzz.damage import damaged, fuzzed, values
from tests.queue.samples import group

WHOLE: dict[str, Any] = json.loads(group().to_json())
PLACES = [(table, key) for table, held in WHOLE.items() if isinstance(held, dict) for key in held]


def with_value(place: tuple[str, str], value: object) -> str:
    table, key = place
    return json.dumps({**WHOLE, table: {**WHOLE[table], key: value}})


settings = st.one_of(
    damaged(json.dumps(WHOLE).encode()).map(lambda content: content.decode(errors="replace")),
    values.map(json.dumps),
    st.builds(lambda key, value: json.dumps({**WHOLE, key: value}), st.sampled_from(sorted(WHOLE)), values),
    st.builds(with_value, st.sampled_from(PLACES), values),
)


@fuzzed()
@given(settings)
def test_settings_of_groups(text: str) -> None:
    try:
        read = Group.from_json(text)
    except Unreadable:
        return
    assert Group.from_json(read.to_json()).to_json() == read.to_json()  # NaN is no equal of its own


HELD = {"metrics": '{"accuracy": [0.5, 0.4, 0.6]}', "params": '{"a": "1"}', "tags": '{"b": "2"}'}
instants = st.one_of(st.floats(), st.integers(-(2**70), 2**70), st.text(max_size=4))


@fuzzed()
@given(st.sampled_from(sorted(HELD)), st.one_of(values.map(json.dumps), st.text(max_size=40)), instants, instants)
def test_results_that_wait(column: str, text: str, started: object, ended: object) -> None:
    """What cannot be read is one of the errors that let a result rest; whatever else it is, MLflow refuses it alone."""
    row: Any = SimpleNamespace(
        id=1,
        token="t",
        attempt=1,
        kind="finished",
        worker="w",
        error=None,
        log=None,
        tries=0,
        **{**HELD, column: text, "started_at": started, "ended_at": ended},
    )
    spec: Any = SimpleNamespace(spec=json.dumps(WHOLE), resolved=None, parent_run_id=None)
    job: Any = SimpleNamespace(id=1, layer=0, label="embedding")
    with contextlib.suppress(*outbox._UNREAD):
        outbox._record(row, job, spec, ())
