"""Claims on made-up measurements of which it is known what holds."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clipstudy import claims, metrics
from clipstudy.claims import CLAIMS, UNTRAINED, Claim, Judgement, Measured, Unit, Verdict
from clipstudy.claims.catalogue import above, below, every, some, within
from clipstudy.claims.quantities import Evaluation, read
from clipstudy.job import layers_of
from clipstudy.results import verdicts
from clipstudy.spec import ModelSpec, TaskSpec

SUPPORTED, REFUTED, UNDECIDED = Verdict.SUPPORTED, Verdict.REFUTED, Verdict.UNDECIDED
NOT_RUN, NOT_TESTABLE = Verdict.NOT_RUN, Verdict.NOT_TESTABLE
NUMBERED = {claim.number: claim for claim in CLAIMS}
DOWN = np.linspace(0.5, 0.2, 12)
UP = DOWN[::-1]
FLAT = np.full(12, 0.4)


def clusterings(role: str, curve: Sequence[float] | np.ndarray, noise: float = 0.002, model: str = "") -> Measured:
    """NMI at blocks 1 to L: 5 samples × 10 seeds around ``curve``."""
    rng = np.random.default_rng(zlib.crc32(role.encode()))
    drawn = np.asarray(curve)[:, None, None] + noise * rng.standard_normal((len(curve), 10, 5))
    return measured(role, "phrases", "nmi", drawn, model, unit=Unit.SAMPLES)


def probes(
    role: str, task: str, curve: Sequence[float] | np.ndarray, n: int = 2000, seeds: int = 5, model: str = ""
) -> Measured:
    """Accuracies at blocks 1 to L (of one value: of the whole model), each seed right on that share of ``n`` items."""
    # At one layer the same items are hard for all models: a better model is right on more of one order.
    right = []
    for layer, value in enumerate(curve):
        place = np.random.default_rng([zlib.crc32(task.encode()), layer]).permutation(n)
        right.append(np.stack([place < round(value * n)] * seeds))
    return measured(role, task, "accuracy", np.stack(right), model)


def pictures(
    role: str, metric: str, curve: Sequence[float] | np.ndarray, noise: float = 0.02, model: str = "", n: int = 60
) -> Measured:
    """A number a picture around ``curve``, one seed: some pictures have more of it than others, for every model."""
    kind = "attend" if metric in {"jaccard", "best/edges", "diversity"} else "reconstruct"
    shared = 0.02 * np.random.default_rng(7).standard_normal(n)
    own = noise * np.random.default_rng(zlib.crc32(f"{role} {metric}".encode())).standard_normal((len(curve), 1, n))
    return measured(role, kind, metric, np.asarray(curve)[:, None, None] + shared + own, model, kind, seeded=False)


def looks(role: str, metric: str, curve: Sequence[float] | np.ndarray, noise: float = 0.02) -> Measured:
    """A number for each of 32 channels with 3 seeds, around ``curve``; the first layer has 20."""
    rng = np.random.default_rng(zlib.crc32(f"{role} {metric}".encode()))
    drawn = np.asarray(curve)[:, None, None] + noise * rng.standard_normal((len(curve), 3, 32))
    drawn[0, :, 20:] = np.nan
    return replace(measured(role, "visualise", metric, drawn, kind="visualise", unit=Unit.CHANNELS), items=())


def measured(
    role: str, task: str, metric: str, scores: np.ndarray, model: str = "", kind: str = "kind", **more: Any
) -> Measured:
    layers = tuple(range(1, len(scores) + 1)) if len(scores) > 1 else (-1,)
    items = tuple(f"item {at}" for at in range(scores.shape[2]))
    return Measured(model or role, role, task, kind, metric, len(layers), layers, scores, items, **more)


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


def reconstructed(mean_image: float = 0.1, noise: float = 0.005, **loss: Sequence[float]) -> list[Measured]:
    """Losses at four stages, role by role (``twin``: of clip_rn50's untrained twin), and the mean image's."""
    twin = {"twin": UNTRAINED + "clip_rn50"}
    found = [pictures(twin.get(role, role), "mse", curve, noise, model=role) for role, curve in loss.items()]
    floor = pictures("clip_rn50", "baseline/mean_image", [mean_image] * 4, 0)
    return [*(replace(one, twin_of="clip_rn50" if one.model == "twin" else "") for one in found), floor]


def drawings(noise: float = 0.02, **curves: dict[str, Sequence[float]]) -> list[Measured]:
    """Role → measure → its values at four stages."""
    return [looks(role, metric, curve, noise) for role, own in curves.items() for metric, curve in own.items()]


def attention(metric: str, noise: float = 0.02, **curves: Sequence[float] | np.ndarray) -> list[Measured]:
    return [pictures(role, metric, curve, noise) for role, curve in curves.items()]


def three(metric: str, curve: np.ndarray, noise: float = 0.02, **other: np.ndarray) -> list[Measured]:
    """The same curve for the three models of attention, but for the ``other``."""
    return attention(metric, noise, **({"clip_vit": curve, "vit_sup": curve, "dino": curve} | other))


FOUR = np.array([0.4, 0.4, 0.4, 0.4])
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
    "C23": (
        [
            *stages(clip_rn50=[0.5, 0.6, 0.7, 0.8], rn50=[0.3, 0.4, 0.5, 0.6], vit_small=[0.3, 0.4, 0.5, 0.6]),
            *phrases(FLAT, FLAT, FLAT + 0.1),
        ],
        [
            *stages(clip_rn50=[0.5, 0.6, 0.7, 0.5], rn50=[0.3, 0.4, 0.5, 0.6], vit_small=[0.3, 0.4, 0.5, 0.6]),
            *phrases(FLAT, FLAT, FLAT + 0.1),
        ],
        [
            *stages(clip_rn50=[0.5, 0.6, 0.7, 0.8], rn50=[0.3, 0.4, 0.5, 0.6], vit_small=[0.3, 0.4, 0.5, 0.6]),
            *phrases(FLAT, FLAT, FLAT + 0.1, 0.2),
        ],
    ),
    "C24": (
        reconstructed(clip_rn50=FOUR, rn50=FOUR - 0.1, vit_small=FOUR),
        reconstructed(clip_rn50=FOUR, rn50=np.add(FOUR, [0, 0, 0, 0.1]), vit_small=FOUR),
        reconstructed(clip_rn50=FOUR, rn50=FOUR - 0.1, vit_small=np.subtract(FOUR, [0, 0, 0, 0.1])),
    ),
    "C25": (
        reconstructed(0.4, clip_rn50=FOUR - 0.02, twin=FOUR - 0.03),
        reconstructed(0.4, clip_rn50=np.subtract(FOUR, [0.2, 0, 0, 0]), twin=FOUR),
        reconstructed(0.4, 0.03, clip_rn50=FOUR - 0.037, twin=FOUR),
    ),
    "C26": (
        drawings(clip_rn50={"total_variation": [0.1, 0.2, 0.3, 0.4]}, rn50={"total_variation": [0.1, 0.2, 0.3, 0.4]}),
        drawings(clip_rn50={"total_variation": [0.1, 0.2, 0.3, 0.4]}, rn50={"total_variation": [0.4, 0.3, 0.2, 0.1]}),
        drawings(clip_rn50={"total_variation": [0.1, 0.2, 0.3, 0.4]}, rn50={"total_variation": FOUR}),
    ),
    "C27": (
        drawings(clip_rn50={"high_frequency": FOUR - 0.1, "colour_entropy": FOUR - 0.1},
                 rn50={"high_frequency": FOUR, "colour_entropy": FOUR}),
        drawings(clip_rn50={"high_frequency": FOUR - 0.1, "colour_entropy": FOUR + 0.1},
                 rn50={"high_frequency": FOUR, "colour_entropy": FOUR}),
        drawings(0.2, clip_rn50={"high_frequency": FOUR - 0.1, "colour_entropy": FOUR},
                 rn50={"high_frequency": FOUR, "colour_entropy": FOUR}),
    ),
    "C28": (
        drawings(clip_rn50={"edge_density": FOUR - 0.1}, rn50={"edge_density": FOUR}),
        drawings(clip_rn50={"edge_density": FOUR}, rn50={"edge_density": FOUR - 0.1}),
        drawings(clip_rn50={"edge_density": FOUR}, rn50={"edge_density": FOUR}),
    ),
    "C29": (
        three("jaccard", FLAT, dino=FLAT + 0.1),
        three("jaccard", FLAT, vit_sup=FLAT + 0.1),
        three("jaccard", FLAT, 0.2, dino=FLAT + 0.02),
    ),
    "C30": (
        three("jaccard", FLAT, dino=FLAT + 0.02),
        three("jaccard", FLAT, dino=FLAT + 0.1),
        three("jaccard", FLAT, dino=FLAT + 0.05),
    ),
    "C31": (
        three("best/edges", FLAT, vit_sup=FLAT + 0.3 * (np.arange(12) == 3)),
        three("best/edges", FLAT),
        three("best/edges", FLAT, vit_sup=FLAT + 0.1 * (np.arange(12) == 3)),
    ),
    "C32": (
        three("diversity", LATE),
        three("diversity", LATE, dino=LATE[::-1]),
        three("diversity", LATE, dino=FLAT),
    ),
    "C35": (
        [*sentences(LATE, LATE, SIX - 0.1), *pairs("boolq", 0.8, 0.75, 0.6),
         *reconstructed(clip_rn50=FOUR, rn50=FOUR - 0.1)],
        [*sentences(LATE, LATE, SIX - 0.1), *pairs("boolq", 0.8, 0.75, 0.6),
         *reconstructed(clip_rn50=FOUR, rn50=FOUR + 0.1)],
        [*sentences(LATE, LATE, SIX - 0.1), *pairs("boolq", 0.8, 0.6, 0.6),
         *reconstructed(clip_rn50=FOUR, rn50=FOUR - 0.1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("number", CASES)
@pytest.mark.parametrize(("at", "verdict"), enumerate([SUPPORTED, REFUTED, UNDECIDED]))
def test_a_claim_holds_fails_and_is_undecided(number: str, at: int, verdict: Verdict) -> None:
    judgement = judged(number, *CASES[number][at])
    assert judgement.verdict == verdict, [(p.text, p.where, *p.found, p.holds, p.against) for p in judgement.parts]
    assert judgement.deciding in judgement.parts and judgement.p is not None
    assert (judgement.p <= claims.ALPHA) == (verdict != UNDECIDED)
    assert judgement.paired == (number not in {"C26", "C27", "C28"})


@pytest.mark.parametrize("number", CASES)
def test_a_claim_with_nothing_to_draw_from_is_not_tested(number: str) -> None:
    """Of each claim: what the runs no longer keep, and what they kept too little of."""
    gone = judged(number, *(replace(one, scores=None) for one in CASES[number][0]))
    assert gone.verdict == NOT_TESTABLE and "clipstudy rerun --model" in gone.why and gone.deciding is None
    gone = judged(number, *(replace(one, scores=None, lost="Copy the folder") for one in CASES[number][0]))
    assert gone.verdict == NOT_TESTABLE and gone.why.endswith(": Copy the folder")
    few = judged(number, *(fewer(one) for one in CASES[number][0]))
    assert few.verdict == NOT_TESTABLE and few.why.startswith("too few "), few.why


def fewer(one: Measured) -> Measured:
    """Nine items, nine channels, or a single sample."""
    assert one.scores is not None
    n = 1 if one.unit is Unit.SAMPLES else 9
    return replace(one, scores=one.scores[:, :, :n], items=one.items[:n])


def test_every_claim_that_is_tested_has_its_cases() -> None:
    assert set(CASES) == {claim.number for claim in CLAIMS if not claim.untestable}


def test_every_claim_is_quoted_and_says_what_it_compares_or_why_it_cannot() -> None:
    assert [c.number for c in CLAIMS] == [f"C{i}" for i in range(1, 36)]
    assert all(len(c.quote) > 10 for c in CLAIMS)
    assert all(bool(c.clauses) != bool(c.untestable) and bool(c.text) == bool(c.clauses) for c in CLAIMS)
    assert {c.number for c in CLAIMS if c.untestable} == {"C20", "C33", "C34"}


def test_roles_are_those_of_the_study() -> None:
    text = ("clip_text", "bert", "gpt2")
    image = ("clip_rn50", "rn50", "vit_small", "clip_vit", "vit_sup", "dino")
    assert {r.role.removeprefix(UNTRAINED) for claim in CLAIMS for r in claim.reads} == {*text, *image}


def test_nothing_measured_is_not_run_and_names_the_roles() -> None:
    judgement = judged("C3")
    assert (judgement.verdict, judgement.why) == (Verdict.NOT_RUN, "no result of a model with the roles bert, gpt2")
    assert not judgement.parts and judgement.deciding is None and judgement.p is None


def test_missing_layers_and_tasks_are_named_with_the_command() -> None:
    bert, gpt2, _ = phrases(FLAT, FLAT, FLAT)
    judgement = judged("C3", bert, replace(gpt2, missing=(3, 4)))
    assert (judgement.verdict, judgement.why) == (Verdict.NOT_RUN, "missing: gpt2 · phrases: layers 3, 4")
    assert judgement.todo == "clipstudy enqueue --model gpt2 --task phrases"
    assert judged("C11", *sentences(LATE, LATE, SIX, ["tree_depth"])).why == (
        "missing: bert · bigram_shift, top_constituents: no accuracy; "
        "clip_text · bigram_shift, top_constituents: no accuracy"
    )
    judgement = judged("C19", *pairs("wic", 0.7, 0.5, 0.6))
    assert judgement.why == "missing: clip_text · phrases: no nmi; gpt2 · phrases: no nmi"
    assert judgement.todo == "clipstudy enqueue --model clip_text --model gpt2 --task phrases"


def test_of_several_conditions_it_is_said_which_fails() -> None:
    """CLIP is lower than GPT2 everywhere: so not only in the later layers."""
    judgement = judged("C12", *sentences(FLAT, FLAT, FLAT - 0.1, SYN))
    later, early = judgement.conditions
    assert (judgement.verdict, later.side, early.side) == (REFUTED, 1, -1)
    assert early.text.startswith("somewhere: ") and judgement.deciding and judgement.deciding.text in early.text
    told = verdicts.rows([judgement])[0].conditions
    assert told == "1 of 2 conditions fails", "the row shows which"
    other = replace(judgement, deciding=None)
    assert verdicts.rows([other])[0].conditions == f"1 of 2 conditions fails: {early.text}"
    every = replace(judgement, conditions=tuple(one._replace(side=-1) for one in judgement.conditions))
    assert verdicts.rows([every])[0].conditions == "all 2 conditions fail"


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
    [alone] = claims.judge([normed, *rest], [NUMBERED["C4"]])
    assert alone.verdict == Verdict.NOT_RUN and "raw; the last layer of normed is read after" in alone.why


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


@pytest.mark.parametrize("depth", [4, 6, 10, 12, 14, 24])
def test_the_stages_measured_are_those_asked_for(depth: int) -> None:
    """Also where the depth is no multiple of four, and beside a model of another depth."""
    model = ModelSpec("m", "timm", "m", depth, "image")
    task = TaskSpec("t", "classify", "d", "accuracy", "image", layers="stages")
    kept = [k - 1 for k in layers_of(model, task)]
    rising = probes("vit_small", "cifar100", np.linspace(0.2, 0.7, depth))
    assert rising.scores is not None
    layers = tuple(rising.layers[k] for k in kept)
    measured = replace(rising, layers=layers, scores=rising.scores[kept])
    judgement = judged("C22", *stages(clip_rn50=[0.8, 0.8, 0.9, 0.9], rn50=[0.2, 0.3, 0.5, 0.7]), measured)
    assert judgement.verdict == SUPPORTED, judgement.why
    assert [p.where for p in judgement.parts] == ["stage 1", "stage 2"] * 2


def test_models_are_compared_on_the_items_that_all_have() -> None:
    _, gpt2, clip = pairs("wic", 0.7, 0.5, 0.53)
    assert gpt2.scores is not None
    fewer = replace(gpt2, scores=gpt2.scores[:, :, 500:], items=gpt2.items[500:])
    judgement = judged("C17", fewer, clip)
    assert judgement.paired and judgement.n == (1500,)
    (part,) = judgement.parts
    assert clip.scores is not None
    assert part.found.value == pytest.approx(clip.scores[:, :, 500:].mean() - gpt2.scores[:, :, 500:].mean())
    other = replace(clip, items=tuple(f"other {item}" for item in clip.items))
    judgement = judged("C17", gpt2, other)
    assert judgement.verdict == NOT_TESTABLE and "have 0 in common" in judgement.why
    assert "settings or data differ" in judgement.why


def test_channels_are_none_of_another_models() -> None:
    judgement = judged("C28", *CASES["C28"][0])
    assert (judgement.paired, judgement.n) == (False, (20,)) and judgement.why.startswith("not paired: a channel")
    # Means over 32 channels, each of 3 seeds with a deviation of 0.02.
    assert judgement.deciding is not None
    assert judgement.deciding.found.error == pytest.approx(0.02 / np.sqrt(3) / np.sqrt(32) * np.sqrt(2), rel=0.2)


def test_one_seed_is_told_where_another_could_differ() -> None:
    one = judged("C17", *(probes(role, "wic", [value], seeds=1) for role, value in (("clip_text", 0.6), ("gpt2", 0.5))))
    assert one.verdict == SUPPORTED and one.why.startswith("one seed of clip_text, gpt2: ")
    two = judged("C17", *(probes(role, "wic", [value], seeds=2) for role, value in (("clip_text", 0.6), ("gpt2", 0.5))))
    assert two.why.startswith("2 seeds of clip_text, gpt2: ")
    of_pairs = judged("C17", *pairs("wic", 0.7, 0.5, 0.6))
    assert of_pairs.why == of_pairs.claim.note and judged("C29", *CASES["C29"][0]).why == ""
    assert "how the course report gave CLIP two texts is not said" in of_pairs.why


def test_a_single_initialisation_of_a_twin_is_told() -> None:
    for inits, told in ((1, True), (3, False)):
        found = [
            replace(one, scores=np.concatenate([one.scores] * 3, axis=1), inits=inits) if one.twin_of else one
            for one in reconstructed(0.4, clip_rn50=[0.3] * 4, twin=[0.3] * 4)
            if one.scores is not None
        ]
        assert ("one initialisation of twin: " in judged("C25", *found).why) is told


def test_what_hangs_on_few_seeds_is_not_shown_by_many_items() -> None:
    """Three seeds a model, which differ by more than the items add: all of one are better, by chance in one of ten."""
    rng = np.random.default_rng(2)
    items = rng.random(5000)

    def model(role: str, *levels: float) -> Measured:
        return measured(role, "wic", "accuracy", np.stack([items < level for level in levels])[None])

    near, far = model("gpt2", 0.60, 0.66, 0.70), model("clip_text", 0.71, 0.75, 0.80)
    (part,) = judged("C17", near, far).parts
    assert part.found.value == pytest.approx(0.1, abs=0.01)
    student = stats.ttest_ind([0.71, 0.75, 0.80], [0.60, 0.66, 0.70]).pvalue
    assert part.found.p == pytest.approx(student, rel=0.35) and part.found.p > 0.02
    (alone,) = metrics.paired_difference(far.scores, near.scores)
    assert part.found.p == pytest.approx(alone.p, rel=0.1), "one way on both pages"
    many = [replace(one, scores=np.tile(one.scores, (1, 5, 1))) for one in (near, far) if one.scores is not None]
    assert judged("C17", *many).parts[0].found.p < 0.001


def test_replicates_that_cannot_differ_decide_nothing() -> None:
    same = clusterings("bert", DOWN, noise=0)
    judgement = judged("C1", same)
    assert judgement.verdict == NOT_TESTABLE and "all 5 samples are equal" in judgement.why
    assert same.scores is not None
    one = replace(same, scores=same.scores[:, :, :1], items=same.items[:1])
    assert "too few span samples: bert · phrases have 1, expected 2 or more" in judged("C1", one).why


@pytest.mark.parametrize("seeds", [3, 7])
def test_models_without_a_mistake_on_ten_items_decide_nothing(seeds: int) -> None:
    bert, clip = (probes(role, "wic", [1.0], n=10, seeds=seeds) for role in ("bert", "clip_text"))
    more = judged("C18", bert, clip)
    assert more.verdict == UNDECIDED and more.parts[0].found.low == pytest.approx(-0.328, abs=1e-3)
    alike = Claim("C0", "said", every(within(0.05, WIC("bert"), WIC("clip_text"))))
    (same,) = claims.judge([bert, clip], [alike], 1000)
    assert same.verdict == UNDECIDED and same.parts[0].found.high == pytest.approx(0.278, abs=1e-3)
    many = [probes(role, "wic", [1.0], n=10_000, seeds=seeds) for role in ("bert", "clip_text")]
    assert judged("C18", *many).verdict == REFUTED and claims.judge(many, [alike], 1000)[0].verdict == SUPPORTED


def test_samples_are_judged_by_student_however_many_seeds_each_has() -> None:
    """Three samples of the smallest spread: no normal tail makes a p of them, and no number of seeds."""
    full = clusterings("bert", DOWN)
    assert full.scores is not None
    few = replace(full, scores=full.scores[:, :2, :3], items=full.items[:3])
    (rho, mean) = judged("C1", few).parts
    assert rho.found.low >= -1 and rho.found.high <= 1, "a correlation ends there"
    step = 12 / (12 * 143)  # of a rank correlation over twelve layers
    assert rho.found.error == pytest.approx(step * np.sqrt(4 / 3)) and 0 < rho.holds < 0.001
    assert few.scores is not None and 0 < mean.holds < 0.001
    again = replace(few, scores=np.tile(few.scores, (1, 10, 1)))
    assert [part.found for part in judged("C1", again).parts] == [pytest.approx(p.found) for p in (rho, mean)]


def test_what_of_one_task_is_read_is_drawn_on_the_same_items() -> None:
    """A loss and its floor: what makes an image hard for both cancels."""
    together = judged("C25", *reconstructed(0.4, clip_rn50=FOUR - 0.02, twin=FOUR - 0.03))
    floor, _ = together.parts[0], together.parts[-1]
    assert floor.text.endswith("0.9 × loss of the mean image(clip_rn50) at stages 1, 2, 3, 4")
    # Alone, each loss has an error of 0.02 / √60; of the difference a tenth of it is left beside the noise.
    assert floor.found.error < np.hypot(0.005, 0.1 * 0.02) / np.sqrt(60) * 1.3


def test_an_untrained_twin_is_of_its_own_model() -> None:
    both = reconstructed(0.4, clip_rn50=FOUR, twin=FOUR)
    other = [replace(one, model="other") for one in both if one.role == "clip_rn50"]
    first, second = claims.judge([*both, *other], [NUMBERED["C25"]])
    assert first.verdict == SUPPORTED
    assert first.models == {"clip_rn50": "clip_rn50", UNTRAINED + "clip_rn50": "twin"}
    assert second.verdict == NOT_RUN
    assert second.why == 'missing: an untrained twin of other (twin_of, init = "random") · reconstruct: no result'
    assert second.todo == "clipstudy enqueue --task reconstruct"
    twin = replace(both[1], missing=(4,))
    assert judged("C25", both[0], twin, both[2]).todo == "clipstudy enqueue --model 'twin*' --task reconstruct"


def test_a_task_of_a_kind_goes_by_the_name_that_it_has() -> None:
    clip, resnet, vit, _ = reconstructed(clip_rn50=FOUR, rn50=FOUR - 0.1, vit_small=FOUR)
    named = [replace(one, task="inversion") for one in (clip, resnet)]
    alone = judged("C24", *named, replace(vit, metric="baseline/mean_image", task="inversion"))
    assert (alone.verdict, alone.todo) == (NOT_RUN, "clipstudy enqueue --model vit_small --task inversion")
    assert judged("C24", *named, replace(vit, task="inversion")).verdict == SUPPORTED
    assert judged("C24", *named, replace(vit, task="inversion")).why == "read from inversion, in place of reconstruct"
    # One task for all, that of the name where there is one.
    both = judged("C24", *named, replace(vit, task="inversion"), clip, resnet)
    assert (both.verdict, both.why) == (NOT_RUN, "missing: vit_small · reconstruct: no mse")
    others = [probes(role, "wic", [0.5]) for role in ("clip_rn50", "rn50", "vit_small")]
    unknown = judged("C24", *others)
    assert "a task of the kind reconstruct" in unknown.why
    assert unknown.todo == "clipstudy enqueue --model clip_rn50 --model rn50 --model vit_small"


def test_images_are_those_of_the_study_and_no_text() -> None:
    given = [replace(one, task="things", kind="classify") for one in CASES["C22"][0]]
    text = [replace(probes("bert", "bigram_shift", LATE), kind="classify")]
    judgement = claims.judge([*text, *given], CLAIMS)[21]
    assert (judgement.claim.number, judgement.verdict) == ("C22", SUPPORTED)
    assert judgement.why == "read from things, in place of cifar100"


def test_what_a_task_can_never_give_is_not_asked_for_again() -> None:
    unmasked = [replace(one, layers=(), scores=None) for one in CASES["C29"][0]]
    judgement = judged("C29", *unmasked)
    assert (judgement.verdict, judgement.todo) == (NOT_TESTABLE, "")
    assert "clip_vit · attend records no jaccard: it asks for masks = true" in judgement.why


@pytest.mark.parametrize("number", ["C3", "C17", "C22", "C24", "C28", "C29"])
def test_the_order_of_items_decides_nothing(number: str) -> None:
    def shuffled(one: Measured) -> Measured:
        assert one.scores is not None
        order = np.random.default_rng(zlib.crc32(one.role.encode())).permutation(one.scores.shape[2])
        return replace(one, scores=one.scores[:, :, order], items=tuple(one.items[at] for at in order))

    given = CASES[number][2]
    if number == "C28":  # channels have no names: their order alone could differ
        given = [replace(one, items=()) for one in given]
        assert judged(number, *given).parts == judged(number, *given[::-1]).parts
        return
    before, after = judged(number, *given), judged(number, *map(shuffled, given))
    assert [part.found for part in before.parts] == [pytest.approx(part.found) for part in after.parts]


@pytest.mark.parametrize("number", ["C17", "C24", "C29", "C32"])
def test_more_items_make_narrower_intervals(number: str) -> None:
    def first(share: float) -> float:
        few = [
            replace(one, scores=one.scores[:, :, : int(share * one.scores.shape[2])],
                    items=one.items[: int(share * len(one.items))])
            for one in CASES[number][0] if one.scores is not None
        ]  # fmt: skip
        return float(np.mean([part.found.high - part.found.low for part in judged(number, *few).parts]))

    assert first(1) < first(0.5) < first(0.25)


@pytest.mark.parametrize(
    ("number", "one", "other"),
    [("C17", "gpt2", "clip_text"), ("C28", "rn50", "clip_rn50"), ("C4", "gpt2", "clip_text")],
)
def test_models_that_change_places_change_the_sign(number: str, one: str, other: str) -> None:
    swap = {one: other, other: one}
    given = [m for m in CASES[number][0] if m.role in swap]
    swapped = [replace(m, role=swap[m.role]) for m in given]  # each keeps its name, and so its draws
    before, after = judged(number, *given), judged(number, *swapped)
    assert (before.verdict, after.verdict) == (SUPPORTED, REFUTED)
    for a, b in zip(before.parts, after.parts, strict=True):
        assert (a.found.value, a.found.low, a.found.high) == pytest.approx(
            (-b.found.value, -b.found.high, -b.found.low)
        )
        assert a.found.p == pytest.approx(b.found.p)


def test_a_paired_difference_is_metrics_own() -> None:
    from clipstudy.metrics import paired_difference

    _, gpt2, clip = pairs("wic", 0.7, 0.5, 0.53)
    assert gpt2.scores is not None and clip.scores is not None
    (expected,) = paired_difference(clip.scores, gpt2.scores, draws=10_000)
    (part,) = judged("C17", gpt2, clip, draws=10_000).parts
    assert part.found.value == pytest.approx(expected.value)
    assert (part.found.low, part.found.high) == pytest.approx((expected.low, expected.high), abs=0.002)


PHRASES = read("NMI", "nmi", "phrases")
WIC = read("WiC", "accuracy", "wic")
A, B = read("a", "accuracy", "wic")("a"), read("b", "accuracy", "wic")("b")
levels = st.lists(st.floats(0.1, 0.9), min_size=4, max_size=4)


@settings(max_examples=25, deadline=None)
@given(levels, levels)
def test_a_claim_and_its_reverse_never_hold_both(a: list[float], b: list[float]) -> None:
    both = [probes("a", "wic", a, n=200), probes("b", "wic", b, n=200)]
    more, less, same = (
        claims.judge(both, [Claim("C0", "said", every(part))], 300)[0].verdict
        for part in (above(A, B), above(B, A), within(0.05, A, B))
    )
    assert (more, less) != (SUPPORTED, SUPPORTED)
    assert more != SUPPORTED or less == REFUTED  # at every layer, so at some
    assert same != SUPPORTED or all(abs(x - y) <= 0.055 for x, y in zip(a, b, strict=True))


@settings(max_examples=25, deadline=None)
@given(levels, levels)
def test_somewhere_is_the_reverse_of_everywhere(a: list[float], b: list[float]) -> None:
    both = [probes("a", "wic", a, n=200), probes("b", "wic", b, n=200)]
    (all_of,), (one_of,) = (
        claims.judge(both, [Claim("C0", "said", clauses)], 300) for clauses in (every(above(A, B)), some(above(B, A)))
    )
    mirrored = {SUPPORTED: REFUTED, REFUTED: SUPPORTED, UNDECIDED: UNDECIDED}
    assert one_of.verdict == mirrored[all_of.verdict]


def test_one_layer_that_goes_the_other_way_by_chance_does_not_refute() -> None:
    """Twelve layers without a difference: a lone p under α is not enough, Holm asks for α/12."""
    spread = np.tile(np.linspace(-1, 1, 5), (10, 1))
    shifted = FLAT.copy()
    shifted[5] += 0.28  # 3.2 standard errors of the five samples
    a = measured("gpt2", "phrases", "nmi", 0.4 + 0.1 * np.stack([spread] * 12), unit=Unit.SAMPLES)
    b = measured("clip_text", "phrases", "nmi", shifted[:, None, None] + np.zeros((12, 10, 5)), unit=Unit.SAMPLES)
    judgement = judged("C4", b, a)
    reverse = claims.judge([b, a], [Claim("C0", "said", every(below(PHRASES("clip_text"), PHRASES("gpt2"))))])[0]
    assert judgement.verdict == UNDECIDED and reverse.verdict == UNDECIDED
    raw = min(part.found.p for part in reverse.parts)
    assert raw <= claims.ALPHA < min(part.against for part in reverse.parts)


def test_one_of_several_conditions_that_fails_by_chance_does_not_refute() -> None:
    """A claim of two clauses is refuted by either, so each side that refutes pays for both."""
    both = [probes("a", "wic", [0.5], n=400), probes("b", "wic", [0.53], n=400)]
    one, two = (
        claims.judge(both, [Claim("C0", "said", clauses)])[0].parts[0]
        for clauses in (every(above(A, B)), every(above(A, B)) + some(above(B, A)))
    )
    assert two.against == pytest.approx(2 * one.against) and two.holds == one.holds


def test_texts_say_what_is_compared() -> None:
    assert NUMBERED["C3"].text == "NMI(gpt2) < NMI(bert)"
    assert NUMBERED["C8"].text == "|mean of NMI(clip_text) − mean of NMI(bert)| ≤ 0.05"
    assert "somewhere: " in NUMBERED["C12"].text
    assert NUMBERED["C1"].text.startswith("Spearman(layer, NMI(bert)) < 0; ")
    assert NUMBERED["C25"].text.endswith("> 0.9 × reconstruction loss(untrained clip_rn50) at stages 1, 2, 3, 4")
    assert NUMBERED["C18"].text == "WiC(bert) − WiC(clip_text) > 5 points"


def test_spearman_agrees_with_scipy() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, (12, 5)).astype(float)
    reference = next(iter(A.reads))
    evaluation = Evaluation(tuple(range(1, 13)), ("",) * 12, values)
    found = A.trend().of({reference: evaluation}).values[0]
    assert found == pytest.approx([spearmanr(range(12), column).statistic for column in values.T])
