"""Hostile files: good ones with bytes changed, and values of every kind where another was meant."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st


def fuzzed(examples: int = 50) -> settings:
    """So many examples in the suite; by ``make fuzz`` as many as its profile says. An example of seconds is a hang.

    Each file is written anew, so a test's folder may serve all its examples.
    """
    return settings(
        max_examples=max(examples, settings().max_examples if settings().max_examples > 100 else 0),
        deadline=30_000,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


#: What parsers stumble over.
ODD = [b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b"\t", b"[" * 3000, b'"', b"9" * 5000, b"\xe2\x80\xae"]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, most: int = 6) -> bytes:
    """``whole`` with up to ``most`` places cut, overwritten, repeated or filled with something odd."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([0, 1, 1, 2, 4, 8, 64, 1 << 20]))
        put = draw(st.one_of(st.binary(max_size=8), st.sampled_from(ODD), st.just(bytes(content[at : at + 64]))))
        content[at : at + length] = put
    return bytes(content)


#: A value of any kind that TOML has, and JSON.
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=12),
        st.sampled_from(["", "./x", "../../x", "train", "clip-*", "text", "all", "[", "a/b", "package:os/x", "0"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=5,
)


def toml(value: Any) -> str:
    """``value`` as TOML writes it inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(held)}" for key, held in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)  # json spells nan and inf otherwise
    return json.dumps(value).replace("\x7f", "\\u007f")
