"""Claims on made-up measurements of which it is known what holds."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipstudy import claims
from clipstudy.claims import CLAIMS, Claim, Judgement, Measured, Verdict
from clipstudy.claims.quantities import Stack, read
from clipstudy.claims.stated import above, below, every, some, within

SUPPORTED, REFUTED, UNDECIDED = Verdict.SUPPORTED, Verdict.REFUTED, Verdict.UNDECIDED
NUMBERED = {claim.number: claim for claim in CLAIMS}
DOWN = np.linspace(0.5, 0.2, 12)
UP = DOWN[::-1]
FLAT = np.full(12, 0.4)


def clusterings(role: str, curve: Sequence[float] | np.ndarray, noise: float = 0.002, model: str = "") -> Measured:
    """NMI at blocks 1 to L: 50 replicates around ``curve``."""
    rng = np.random.default_rng(zlib.crc32(role.encode()))
    drawn = np.asarray(curve)[:, None] + noise * rng.standard_normal((len(curve), 50))
    return _measured(role, "phrases", "nmi", drawn.mean(axis=1), model, replicates=drawn, items="samples")


def probes(
    role: str, task: str, curve: Sequence[float] | np.ndarray, n: int = 2000, seeds: int = 2, model: str = ""
) -> Measured:
    """Accuracies at blocks 1 to L (of one value: of the whole model), each seed right on that share of ``n`` items."""
    # At one layer the same items are hard for all models: a better model is right on more of one order.
    right = []
    for layer, value in enumerate(curve):
        place = np.random.default_rng([zlib.crc32(task.encode()), layer]).permutation(n)
        right.append(np.stack([place < round(value * n)] * seeds))
    right = np.stack(right)
    return _measured(role, task, "accuracy", right.mean(axis=(1, 2)), model, scores=right, items="test")


def _measured(role: str, task: str, metric: str, values: np.ndarray, model: str, **kept: object) -> Measured:
    layers = tuple(range(1, len(values) + 1)) if len(values) > 1 else (-1,)
    ends = np.stack([values, values - 0.01, values + 0.01], axis=1)
    return Measured(model or role, role, task, "kind", metric, len(layers), layers, ends, **kept)  # type: ignore[arg-type]


def judged(number: str, *measured: Measured, draws: int = 1000) -> Judgement:
    (judgement,) = claims.judge(measured, [NUMBERED[number]], draws)
    return judgement


SYN, SEM = ("bigram_shift", "tree_depth", "top_constituents"), (
    "past_present", "subj_number", "obj_number", "odd_man_out", "coordination_inversion",
)  # fmt: skip


def sentences(bert: np.ndarray, gpt2: np.ndarray, clip: np.ndarray, tasks: Sequence[str] = SYN + SEM) -> list[Measured]:
    curves = {"bert": bert, "gpt2": gpt2, "clip_text": clip}
    return [probes(role, task, curve) for role, curve in curves.items() for task in tasks]


def phrases(bert: np.ndarray, gpt2: np.ndarray, clip: np.ndarray, noise: float = 0.002) -> list[Measured]:
    return [clusterings(r, c, noise) for r, c in {"bert": bert, "gpt2": gpt2, "clip_text": clip}.items()]


def pairs(task: str, bert: float, gpt2: float, clip: float) -> list[Measured]:
    return [probes(r, task, [v]) for r, v in {"bert": bert, "gpt2": gpt2, "clip_text": clip}.items()]


def stages(**accuracy: Sequence[float]) -> list[Measured]:
    return [probes(role, "cifar100", curve) for role, curve in accuracy.items()]


LATE = np.linspace(0.6, 0.9, 12)  # goes on rising
SIX = np.concatenate([np.linspace(0.5, 0.6, 6), np.full(6, 0.6)])  # rises to block 6
LOWER = 0.03 * (np.arange(12) > 5)  # after block 6
FIRST = 0.2 * (np.arange(12) == 0)
DROP = np.concatenate([np.linspace(0.6, 0.55, 11), [0.1]])
CASES: dict[str, tuple[list[Measured], list[Measured], list[Measured]]] = {
    "C1": ([clusterings("bert", DOWN)], [clusterings("bert", UP)], [clusterings("bert", FLAT, 0.1)]),
    "C2": ([clusterings("gpt2", DOWN)], [clusterings("gpt2", UP)], [clusterings("gpt2", FLAT, 0.1)]),
    "C3": (phrases(FLAT, FLAT - 0.1, FLAT), phrases(DOWN, UP, FLAT), phrases(FLAT, FLAT - 0.1, FLAT, 0.1)),
    "C4": (phrases(FLAT, FLAT - 0.1, FLAT), phrases(FLAT, FLAT, DOWN), phrases(FLAT, FLAT - 0.1, FLAT, 0.1)),
    "C5": (phrases(FLAT, FLAT, DROP), phrases(FLAT, FLAT, FLAT + 0.1), phrases(FLAT, FLAT, DROP, 0.2)),
    "C6": (phrases(FLAT, FLAT, DROP), phrases(FLAT, FLAT, DROP[::-1]), phrases(FLAT, FLAT, DOWN, 0.05)),
    "C7": (
        phrases(FLAT, FLAT, FLAT + 0.1),
        phrases(FLAT + 0.1, FLAT, FLAT),
        phrases(FLAT, FLAT, FLAT + 0.1, 0.3),
    ),
    "C8": (phrases(FLAT, FLAT, FLAT + 0.02), phrases(FLAT, FLAT, FLAT + 0.1), phrases(FLAT, FLAT, FLAT, 0.3)),
    "C16": (pairs("boolq", 0.69, 0.66, 0.62), pairs("boolq", 0.62, 0.66, 0.62), pairs("boolq", 0.69, 0.64, 0.62)),
    "C17": (pairs("wic", 0.7, 0.5, 0.6), pairs("wic", 0.7, 0.6, 0.5), pairs("wic", 0.7, 0.5, 0.5)),
    "C18": (pairs("wic", 0.7, 0.5, 0.6), pairs("wic", 0.6, 0.5, 0.6), pairs("wic", 0.65, 0.5, 0.6)),
    "C19": (
        [*pairs("wic", 0.7, 0.5, 0.6), *phrases(FLAT, FLAT, FLAT + 0.1)],
        [*pairs("wic", 0.7, 0.5, 0.6), *phrases(FLAT, FLAT, FLAT - 0.1)],
        [*pairs("wic", 0.7, 0.5, 0.5), *phrases(FLAT, FLAT, FLAT + 0.1)],
    ),
    "C9": (
        sentences(FLAT, FLAT + 0.01, FLAT, ["sentence_length"]),
        sentences(FLAT, FLAT, DOWN, ["sentence_length"]),
        sentences(FLAT, FLAT + 0.05, FLAT, ["sentence_length"]),
    ),
    "C10": (
        sentences(DOWN, DOWN + 0.1, DOWN, ["sentence_length"]),
        sentences(DOWN, DOWN, UP, ["sentence_length"]),
        sentences(FLAT, FLAT, FLAT, ["sentence_length"]),
    ),
    "C11": (
        sentences(LATE, LATE, SIX - 0.1, SYN),
        sentences(SIX - 0.1, LATE, LATE, SYN),
        sentences(LATE, LATE, LATE, SYN),
    ),
    "C12": (
        sentences(LATE, LATE, SIX + FIRST, SYN),
        sentences(SIX, SIX, LATE, SYN),
        sentences(LATE, FLAT, FLAT, SYN),
    ),
    "C13": (
        sentences(LATE, LATE, SIX - LOWER, SYN),
        sentences(LATE, SIX - LOWER, LATE, SYN),
        sentences(LATE, LATE, SIX, SYN),
    ),
    "C14": (
        sentences(np.linspace(0.75, 0.95, 12), LATE, SIX - LOWER + FIRST),
        sentences(LATE, LATE, LATE + 0.05),
        sentences(np.linspace(0.75, 0.95, 12), LATE, SIX + FIRST),
    ),
    "C15": (sentences(LATE, LATE, SIX), sentences(SIX, LATE, LATE), sentences(LATE, LATE, LATE)),
    "C21": (
        stages(clip_rn50=[0.2, 0.3, 0.5, 0.7], rn50=[0.2, 0.3, 0.5, 0.7], vit_small=[0.2, 0.3, 0.5, 0.7]),
        stages(clip_rn50=[0.2, 0.3, 0.5, 0.7], rn50=[0.2, 0.3, 0.5, 0.4], vit_small=[0.2, 0.3, 0.5, 0.7]),
        stages(clip_rn50=[0.2, 0.3, 0.5, 0.7], rn50=[0.2, 0.3, 0.5, 0.5], vit_small=[0.2, 0.3, 0.5, 0.7]),
    ),
    "C22": (
        stages(clip_rn50=[0.3, 0.4, 0.5, 0.6], rn50=[0.2, 0.3, 0.5, 0.7], vit_small=[0.2, 0.3, 0.5, 0.7]),
        stages(clip_rn50=[0.3, 0.2, 0.5, 0.6], rn50=[0.2, 0.3, 0.5, 0.7], vit_small=[0.2, 0.3, 0.5, 0.7]),
        stages(clip_rn50=[0.3, 0.3, 0.5, 0.6], rn50=[0.2, 0.3, 0.5, 0.7], vit_small=[0.2, 0.3, 0.5, 0.7]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("number", CASES)
@pytest.mark.parametrize(("at", "verdict"), enumerate([SUPPORTED, REFUTED, UNDECIDED]))
def test_a_claim_holds_fails_and_is_undecided(number: str, at: int, verdict: Verdict) -> None:
    judgement = judged(number, *CASES[number][at])
    assert judgement.verdict == verdict, [(p.where, *p.found) for p in judgement.parts]
    assert judgement.paired and judgement.deciding in judgement.parts and judgement.p is not None
    assert (judgement.p <= claims.ALPHA) == (verdict != UNDECIDED)


def test_every_claim_is_quoted_and_says_what_it_compares_or_why_it_cannot() -> None:
    assert [c.number for c in CLAIMS] == [f"C{i}" for i in range(1, 36)]
    assert all(len(c.quote) > 10 for c in CLAIMS)
    assert all(bool(c.clauses) != bool(c.untestable) and bool(c.text) == bool(c.clauses) for c in CLAIMS)
    assert {c.number for c in CLAIMS if c.untestable} == {"C20", "C33", "C34"}


def test_roles_are_those_of_the_study() -> None:
    text = ("clip_text", "bert", "gpt2")
    image = ("clip_rn50", "rn50", "vit_small", "clip_vit", "vit_sup", "dino")
    assert {reading.role for claim in CLAIMS for reading in claim.reads} == {*text, *image}


def test_nothing_measured_is_not_run_and_names_the_roles() -> None:
    judgement = judged("C3")
    assert (judgement.verdict, judgement.why) == (Verdict.NOT_RUN, "no result of a model with the roles bert, gpt2")
    assert not judgement.parts and judgement.deciding is None and judgement.p is None


def test_missing_layers_and_tasks_are_named_with_the_command() -> None:
    bert, gpt2, _ = phrases(FLAT, FLAT, FLAT)
    judgement = judged("C3", bert, replace(gpt2, missing=(3, 4)))
    assert (judgement.verdict, judgement.why) == (Verdict.NOT_RUN, "missing: gpt2 · phrases: layers 3, 4")
    assert judgement.todo == "clipstudy enqueue --model gpt2 --task phrases"
    judgement = judged("C19", *pairs("wic", 0.7, 0.5, 0.6))
    assert judgement.why == "missing: clip_text · phrases: no nmi; gpt2 · phrases: no nmi"
    assert judgement.todo == "clipstudy enqueue --model clip_text --model gpt2 --task phrases"


def test_a_role_that_two_models_play_is_judged_for_each() -> None:
    better, worse = clusterings("clip_text", FLAT + 0.1, model="a"), clusterings("clip_text", FLAT - 0.1, model="b")
    found = claims.judge([better, worse, clusterings("gpt2", FLAT)], [NUMBERED["C4"]], 1000)
    assert [(j.models, j.verdict) for j in found] == [
        ({"clip_text": "a", "gpt2": "gpt2"}, SUPPORTED),
        ({"clip_text": "b", "gpt2": "gpt2"}, REFUTED),
    ]


def test_only_the_last_layers_drop_is_judged_after_the_final_norm_too() -> None:
    plain = clusterings("clip_text", DROP, model="plain")
    normed = replace(clusterings("clip_text", DOWN, model="normed"), final_norm=True)
    rest = [clusterings("gpt2", FLAT)]
    assert [j.models["clip_text"] for j in claims.judge([plain, normed, *rest], [NUMBERED["C6"]])] == [
        "plain",
        "normed",
    ]
    assert [j.models["clip_text"] for j in claims.judge([plain, normed, *rest], [NUMBERED["C4"]])] == ["plain"]


def test_models_of_different_depth_are_not_compared_layer_by_layer() -> None:
    judgement = judged("C3", clusterings("bert", FLAT), clusterings("gpt2", FLAT[:6]))
    assert judgement.verdict == Verdict.NOT_TESTABLE and "different depth: 6 and 12 layers" in judgement.why


@pytest.mark.parametrize("depth", [4, 6, 12, 24])
def test_a_model_of_any_depth_has_early_and_late_blocks(depth: int) -> None:
    assert judged("C1", clusterings("bert", np.linspace(0.5, 0.2, depth))).verdict == SUPPORTED
    # All but the last block, and the last: each layer once.
    flat = [clusterings(role, np.full(depth, 0.4)) for role in ("bert", "clip_text")]
    assert [p.where for p in judged("C5", *flat).parts] == [f"block {k}" for k in range(1, depth + 1)]
    late = [p.where for p in judged("C15", *sentences(*[np.full(depth, 0.4)] * 3)).parts[: -(-depth // 3)]]
    assert late[-1] == f"block {depth}" and len({*late}) == len(late)


def test_a_model_too_shallow_for_a_claim_is_told() -> None:
    judgement = judged("C1", clusterings("bert", [0.5, 0.2]))
    assert (judgement.verdict, judgement.why) == (
        Verdict.NOT_TESTABLE,
        "no layer measured stands for blocks 1–3 of 12",
    )


def test_stages_are_quarters_of_the_depth() -> None:
    twelve = [0.2, 0.21, 0.3, 0.31, 0.32, 0.5, 0.51, 0.52, 0.6, 0.61, 0.62, 0.7]
    networks = stages(clip_rn50=[0.2, 0.3, 0.5, 0.7], rn50=[0.2, 0.3, 0.5, 0.7], vit_small=twelve)
    judgement = judged("C21", *networks)
    assert judgement.verdict == SUPPORTED
    assert [round(p.found.value, 2) for p in judgement.parts[-3:]] == [0.2, 0.1, 0.1]
    assert judgement.parts[-1].where == "stage 3 to stage 4"


def test_without_items_the_recorded_intervals_are_taken_and_it_says_so() -> None:
    def bare(one: Measured) -> Measured:
        return replace(one, scores=None, replicates=None, items="")

    bert, gpt2, clip = pairs("wic", 0.7, 0.5, 0.53)
    judgement = judged("C17", bert, gpt2, bare(clip))
    assert (judgement.verdict, judgement.paired) == (SUPPORTED, False)
    # Two normal errors of 0.01 / 1.96 each, around 0.03.
    assert judgement.deciding is not None
    half = (judgement.deciding.found.high - judgement.deciding.found.low) / 2
    assert half == pytest.approx(0.01 * np.sqrt(2), rel=0.1)
    unknown = replace(bare(clip), estimates=np.array([[0.53, np.nan, np.nan]]))
    judgement = judged("C17", bert, gpt2, unknown)
    assert judgement.verdict == Verdict.NOT_TESTABLE and "without an interval" in judgement.why


def test_other_items_are_not_paired() -> None:
    _, gpt2, clip = pairs("wic", 0.7, 0.5, 0.53)
    together, apart = judged("C17", gpt2, clip), judged("C17", gpt2, replace(clip, items="others"))
    assert together.paired and not apart.paired
    assert together.deciding is not None and apart.deciding is not None
    assert apart.deciding.found.error > 2 * together.deciding.found.error
    moved = replace(clusterings("bert", FLAT), items="other samples")
    assert not judged("C3", moved, clusterings("gpt2", FLAT - 0.1)).paired


def test_a_paired_difference_is_metrics_own() -> None:
    from clipstudy.metrics import paired_difference

    _, gpt2, clip = pairs("wic", 0.7, 0.5, 0.53)
    assert gpt2.scores is not None and clip.scores is not None
    (expected,) = paired_difference(clip.scores, gpt2.scores, draws=10_000)
    (part,) = judged("C17", gpt2, clip, draws=10_000).parts
    assert part.found.value == pytest.approx(expected.value)
    assert (part.found.low, part.found.high) == pytest.approx((expected.low, expected.high), abs=0.002)


PHRASES = read("NMI", "nmi", "phrases")
A, B = read("a", "accuracy", "wic")("a"), read("b", "accuracy", "wic")("b")
levels = st.lists(st.floats(0.1, 0.9), min_size=4, max_size=4)


@settings(max_examples=25, deadline=None)
@given(levels, levels)
def test_a_claim_and_its_reverse_never_hold_both(a: list[float], b: list[float]) -> None:
    measured = [probes("a", "wic", a, n=200), probes("b", "wic", b, n=200)]
    more, less, same = (
        claims.judge(measured, [Claim("C0", "said", every(part))], 300)[0].verdict
        for part in (above(A, B), above(B, A), within(0.05, A, B))
    )
    assert (more, less) != (SUPPORTED, SUPPORTED)
    assert more != SUPPORTED or less == REFUTED  # at every layer, so at some
    assert same != SUPPORTED or all(abs(x - y) <= 0.055 for x, y in zip(a, b, strict=True))


@settings(max_examples=25, deadline=None)
@given(levels, levels)
def test_somewhere_is_the_reverse_of_everywhere(a: list[float], b: list[float]) -> None:
    measured = [probes("a", "wic", a, n=200), probes("b", "wic", b, n=200)]
    (all_of,), (one_of,) = (
        claims.judge(measured, [Claim("C0", "said", clauses)], 300)
        for clauses in (every(above(A, B)), some(above(B, A)))
    )
    mirrored = {SUPPORTED: REFUTED, REFUTED: SUPPORTED, UNDECIDED: UNDECIDED}
    assert one_of.verdict == mirrored[all_of.verdict]


def test_one_layer_that_goes_the_other_way_by_chance_does_not_refute() -> None:
    """Twelve layers without a difference: a lone p under α is not enough, Holm asks for α/12."""
    values = np.zeros((12, 50))
    values[:] = np.linspace(-1, 1, 50)
    a = replace(clusterings("gpt2", FLAT), replicates=0.4 + 0.1 * values)
    shifted = FLAT.copy()
    shifted[5] += 0.13  # 2.2 standard errors of the replicates
    b = replace(
        clusterings("clip_text", FLAT),
        replicates=shifted[:, None] + np.zeros((12, 50)),
        estimates=np.stack([shifted, shifted, shifted], axis=1),
    )
    a = replace(a, estimates=np.stack([FLAT, FLAT, FLAT], axis=1))
    judgement = judged("C4", b, a)
    reverse = claims.judge([b, a], [Claim("C0", "said", every(below(PHRASES("clip_text"), PHRASES("gpt2"))))])[0]
    assert judgement.verdict == UNDECIDED and reverse.verdict == UNDECIDED
    raw = min(part.found.p for part in reverse.parts)
    assert raw <= claims.ALPHA < min(part.against for part in reverse.parts)


def test_texts_say_what_is_compared() -> None:
    assert NUMBERED["C3"].text == "NMI(gpt2) < NMI(bert)"
    assert NUMBERED["C8"].text == "|mean of NMI(clip_text) − mean of NMI(bert)| ≤ 0.05"
    assert "somewhere: " in NUMBERED["C12"].text
    assert NUMBERED["C1"].text.startswith("Spearman(layer, NMI(bert)) < 0; ")
    assert NUMBERED["C18"].text == "WiC(bert) − WiC(clip_text) > 5 points"


def test_spearman_agrees_with_scipy() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, (12, 5)).astype(float)
    reading = next(iter(A.reads))
    stack = Stack(tuple(range(1, 13)), ("",) * 12, values)
    found = A.trend().of({reading: stack}).values[0]
    assert found == pytest.approx([spearmanr(range(12), column).statistic for column in values.T])
