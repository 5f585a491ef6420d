"""A page's state and its address are the same thing, and nothing that a browser sends makes another thing of it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipstudy.dashboard import address
from clipstudy.dashboard.address import Claims, Gallery, Layers, Place, Queue, Runs, Tables

KINDS = (Layers, Tables, Claims, Gallery, Runs, Queue)
NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=400),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner, max_size=5),
    max_leaves=9,
)


def values(wanted: Any) -> st.SearchStrategy[Any]:
    if wanted is str:
        return st.just("") | NAMES
    if wanted == tuple[str, ...]:
        return st.lists(NAMES, unique=True, max_size=5).map(tuple)
    if get_origin(wanted) is Literal:
        return st.sampled_from(get_args(wanted))
    return st.none() | st.integers(0, 10**address.DIGITS - 1)


@st.composite
def places(draw: st.DrawFn) -> Place:
    kind = draw(st.sampled_from(KINDS))
    hints = get_type_hints(kind)
    return kind(**{field.name: draw(values(hints[field.name])) for field in fields(kind)})


@given(places())
def test_a_link_reopens_the_same_view(place: Place) -> None:
    path, _, query = address.href(place).partition("?")
    assert path == place.PATH
    assert address.parse(type(place), f"?{query}") == (place, ())


@given(places())
def test_an_address_is_plain_ascii(place: Place) -> None:
    text = address.href(place)
    assert text.isascii() and not set(text) & set("<>\"' \n")


def test_what_is_at_its_default_is_left_out() -> None:
    assert address.href(Layers()) == "/"
    assert address.href(Layers(task=("a b", "c&d"), x="depth")) == "/?task=a+b&task=c%26d&x=depth"
    assert address.href(Queue(job=7)) == "/queue?job=7"


@given(st.sampled_from(KINDS), st.text())
def test_any_query_is_a_place(kind: type[Place], query: str) -> None:
    place, said = address.parse(kind, query)
    again, _ = address.parse(kind, "?" + address.href(place).partition("?")[2])
    assert again == place and all(len(line) < 1000 for line in said)


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(["study", "task", "x", "job", "model", "?"]), JSON))
def test_whatever_a_control_sends_is_a_place(kind: type[Place], sent: dict[str, Any]) -> None:
    place, _ = address.read(kind, sent)
    hints = get_type_hints(kind)
    for field in fields(kind):
        value = getattr(place, field.name)
        if get_origin(hints[field.name]) is Literal:
            assert value in get_args(hints[field.name])
        elif hints[field.name] == tuple[str, ...]:
            assert isinstance(value, tuple) and all(isinstance(text, str) for text in value)
        else:
            assert isinstance(value, str) or (field.name == "job" and (value is None or value >= 0))
    assert address.parse(kind, address.href(place).partition("?")[2])[0] == place


@pytest.mark.parametrize("query", [None, 3, {}, "?" + "&".join(f"a{i}=1" for i in range(5000))])
def test_what_is_no_query_is_the_default_place(query: object) -> None:
    assert address.parse(Layers, query)[0] == Layers()


def test_what_was_not_understood_is_said() -> None:
    place, said = address.parse(Layers, "?x=deepth&tsak=a&model=bert")
    assert place == Layers(model=("bert",))
    assert said == (
        'no setting "tsak". Did you mean "task"? What exists: draw, metric, model, panel, seeds, study, task, x.',
        'x = "deepth". Did you mean "depth"? What exists: depth, layer, panel, stage.',
    )
    assert address.parse(Queue, "?job=-1")[1] == ('job = "-1" is not a number',)


def test_a_choice_resets_what_depends_on_it() -> None:
    here = Layers(study="s", panel="Surface", task=("a",), metric="ami", model=("bert",), x="depth")
    assert address.changed(here, {"panel": "Semantic"}) == replace(here, panel="Semantic", task=(), metric="")
    assert address.changed(here, {"study": "t"}) == Layers(study="t")
    assert address.changed(here, {"model": []}) == replace(here, model=())
    assert address.changed(here, {"x": "sideways", "nonsense": 1}) == replace(here, x="panel")
