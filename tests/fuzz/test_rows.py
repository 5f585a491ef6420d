"""Rows of the job table of any content: whoever can write to it ends no worker by what a row says."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clipstudy.errors import Unreadable
from clipstudy.job import Group
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
    with contextlib.suppress(Unreadable):
        Group.from_json(text)
