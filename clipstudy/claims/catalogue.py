"""The claims of the course report, each with its sentence. Adding one is adding it to ``CLAIMS``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from clipstudy.claims.quantities import UNTRAINED, MetricReference, Quantity, read, shown


@dataclass(frozen=True)
class Inequality:
    """Of a quantity, at each of its places: above 0; with ``below``, below it; with a margin, within it."""

    text: str
    quantity: Quantity  #: the left side of ``text`` less its right one, or what the margin bounds
    below: bool = False
    margin: float | None = None


@dataclass(frozen=True)
class Clause:
    """Inequalities that must all hold at all their places, or of which one must hold somewhere."""

    parts: tuple[Inequality, ...]
    some: bool = False

    @property
    def text(self) -> str:
        return ("somewhere: " if self.some else "") + "; ".join(part.text for part in self.parts)


@dataclass(frozen=True)
class Claim:
    """A sentence of the course report, and what must hold for it."""

    number: str
    quote: str
    clauses: tuple[Clause, ...] = ()
    untestable: str = ""  #: why it cannot be tested
    both_norms: bool = False  #: judged also on models whose last layer is read after the final norm
    note: str = ""  #: what its verdict leaves open

    @property
    def reads(self) -> frozenset[MetricReference]:
        return frozenset().union(*(part.quantity.reads for clause in self.clauses for part in clause.parts))

    @property
    def text(self) -> str:
        return "; ".join(clause.text for clause in self.clauses)


#: The course report does not say how it gave CLIP two texts.
_JOINED = (
    "how the course report gave CLIP two texts is not said; here every model reads them as one, cut to what it can read"
)


def above(first: Quantity, second: Quantity | float = 0.0) -> Inequality:
    """``first`` > ``second`` at each place that both have; a bound in the metric's own scale (accuracy: a share)."""
    return Inequality(f"{first.text} > {_named(second, first)}", first - second)


def below(first: Quantity, second: Quantity | float = 0.0) -> Inequality:
    """``first`` < ``second`` at each place that both have."""
    return Inequality(f"{first.text} < {_named(second, first)}", first - second, below=True)


def within(margin: float, first: Quantity, second: Quantity | float) -> Inequality:
    """They are equivalent: their difference is at most ``margin`` either way (two one-sided tests)."""
    apart = first - second
    return Inequality(f"|{apart.text}| ≤ {shown(margin, apart.metric)}", apart, margin=margin)


def _named(bound: Quantity | float, beside: Quantity) -> str:
    return bound.text if isinstance(bound, Quantity) else shown(bound, beside.metric)


def every(*parts: Inequality) -> tuple[Clause, ...]:
    """All of them hold."""
    return (Clause(parts),)


def some(*parts: Inequality) -> tuple[Clause, ...]:
    """One of them holds, or more."""
    return (Clause(parts, some=True),)


#: One point of accuracy, which is a share.
POINT = 0.01
NMI = read("NMI", "nmi", "phrases")
LENGTH = read("sentence length", "accuracy", "sentence_length")
SYN = read("syntactic", "accuracy", "bigram_shift", "tree_depth", "top_constituents")
SEM = read("semantic", "accuracy", "past_present", "subj_number", "obj_number", "odd_man_out", "coordination_inversion")
BOOLQ = read("BoolQ", "accuracy", "boolq")
WIC = read("WiC", "accuracy", "wic")
PICTURES = read("image classification", "accuracy", "cifar100", kind="classify")
LOSS = read("reconstruction loss", "mse", "reconstruct", kind="reconstruct")
MEAN_IMAGE = read("loss of the mean image", "baseline/mean_image", "reconstruct", kind="reconstruct")
VARIATION = read("total variation", "total_variation", "visualise", kind="visualise")
FINE = read("high-frequency share", "high_frequency", "visualise", kind="visualise")
COLOUR = read("colour entropy", "colour_entropy", "visualise", kind="visualise")
EDGES = read("edge density", "edge_density", "visualise", kind="visualise")
OVERLAP = read("Jaccard", "jaccard", "attend", kind="attend")
EDGE_HEAD = read("correlation with edges of the best head", "best/edges", "attend", kind="attend")
DIVERSITY = read("head diversity", "diversity", "attend", kind="attend")

#: What a task must have been asked for to record a metric that it may leave out.
ASKED_FOR = {"jaccard": "it asks for masks = true, and a data set that has masks"}

#: Nothing is "obvious" that takes off less than this share of a floor's error.
OBVIOUS = 0.1

CLIP, BERT, GPT2 = "clip_text", "bert", "gpt2"
CLIP_RN50, RN50, VIT = "clip_rn50", "rn50", "vit_small"
CLIP_VIT, VIT_SUP, DINO = "clip_vit", "vit_sup", "dino"
OTHERS = (BERT, GPT2)


def _degrades(role: str) -> tuple[Clause, ...]:
    return every(below(NMI(role).trend()), above(NMI(role).blocks(1, 3).mean(), NMI(role).blocks(10, 12).mean()))


def _gain(quantity: Quantity) -> Quantity:
    """By how much each block of the later half exceeds block 6. Not by how much the best of them does: the best of
    several noisy numbers is too high on average, and "at each" and "at some" say the same without choosing one."""
    return quantity.blocks(7, 12) - quantity.blocks(6)


def _below_bert(mean: Callable[[str], Quantity]) -> tuple[Clause, ...]:
    return every(below(mean(CLIP), mean(BERT)))


def _below_gpt2_later(mean: Callable[[str], Quantity]) -> tuple[Clause, ...]:
    early, late = (1, 6), (7, 12)
    not_early = some(above(mean(CLIP).blocks(*early), mean(GPT2).blocks(*early)))
    return every(below(mean(CLIP).blocks(*late), mean(GPT2).blocks(*late))) + not_early


def _levels_off(mean: Callable[[str], Quantity]) -> tuple[Clause, ...]:
    more = 0.5 * POINT
    others = [clause for m in OTHERS for clause in some(above(_gain(mean(m)), more))]
    return (*every(below(_gain(mean(CLIP)), more)), *others)


def _no_obvious_reconstruction(role: str) -> tuple[Clause, ...]:
    """Non-inferiority of two floors: what the model's maps tell takes off less than a margin of the error of a decoder
    that is told nothing, and of one that looks at the untrained network's maps."""
    loss, floors = LOSS(role).stages(1, 2, 3, 4), (MEAN_IMAGE(role), LOSS(UNTRAINED + role))
    return every(*(above(loss, floor.stages(1, 2, 3, 4).times(1 - OBVIOUS)) for floor in floors))


_DROP, _BEFORE = NMI(CLIP).drops().last(), (NMI(CLIP).drops().but_last(), NMI(CLIP).rises().but_last())
_ACROSS = [below(WIC(GPT2), WIC(CLIP)), above(NMI(CLIP).mean(), NMI(GPT2).mean())]
_IMAGE_FIRST = [above(PICTURES(CLIP_RN50).stages(1, 2, 3, 4), PICTURES(m).stages(1, 2, 3, 4)) for m in (RN50, VIT)]

#: Every claim of the course report, in its order. Adding one is adding it here.
CLAIMS = (
    Claim("C1", "the performance in the case of BERT degrades from lower to higher layers", _degrades(BERT)),
    Claim("C2", "We observe a similar trend in GPT2.", _degrades(GPT2)),
    Claim("C3", "However, the NMI score across all layers is lower than BERT.", every(below(NMI(GPT2), NMI(BERT)))),
    Claim(
        "C4",
        "the NMI score for CLIP is higher across all layers compared to GPT2",
        every(above(NMI(CLIP), NMI(GPT2))),
    ),
    Claim(
        "C5",
        "and even higher than BERT except the last layer",
        every(
            above(NMI(CLIP).but_last(), NMI(BERT).but_last()),
            below(NMI(CLIP).last(), NMI(BERT).last()),
        ),
    ),
    Claim(
        "C6",
        "where see a sharp drop",
        every(*(above(_DROP, change) for change in _BEFORE)),
        both_norms=True,
    ),
    Claim(
        "C7",
        "CLIP has the overall best performance",
        every(
            *(above(NMI(CLIP).mean(), NMI(m).mean()) for m in OTHERS),
            *(above(NMI(CLIP).max(), NMI(m).max()) for m in OTHERS),
        ),
    ),
    Claim(
        "C8",
        "the performance of CLIP text encoder is comparable to that of BERT",
        every(within(0.05, NMI(CLIP).mean(), NMI(BERT).mean())),
    ),
    Claim(
        "C9",
        "for surface level tasks the accuracy of CLIP is comparable to GPT2 and BERT",
        every(*(within(5 * POINT, LENGTH(CLIP), LENGTH(m)) for m in OTHERS)),
    ),
    Claim(
        "C10",
        "the trend of the performance of all the three models is similar",
        every(*(above(LENGTH(a).alike(LENGTH(b)), 0.7) for a, b in itertools.combinations((CLIP, BERT, GPT2), 2))),
    ),
    Claim("C11", "the performance of CLIP is lower than BERT across all layers", _below_bert(SYN)),
    Claim("C12", "and lower than GPT2 in the later layers", _below_gpt2_later(SYN)),
    Claim(
        "C13",
        "the trend in the performance of CLIP deviates from other models as there is no improvement in accuracy after "
        "the 6th layer",
        _levels_off(SYN),
    ),
    Claim(
        "C14",
        "the trend of the results on semantic tasks are very similar to the sytanctic tasks",
        _below_bert(SEM) + _below_gpt2_later(SEM) + _levels_off(SEM),
    ),
    Claim(
        "C15",
        "the performance of CLIP is significantly lower than GPT2 and BERT in higher layers on syntactic and semantic "
        "sentence level probing tasks",
        every(*(above(mean(m).blocks(9, 12), mean(CLIP).blocks(9, 12)) for mean in (SYN, SEM) for m in OTHERS)),
    ),
    Claim(
        "C16",
        "approximately 4 points lower than GPT2 and 7 points lower than BERT",
        every(
            within(2 * POINT, BOOLQ(GPT2) - BOOLQ(CLIP), 4 * POINT),
            within(2 * POINT, BOOLQ(BERT) - BOOLQ(CLIP), 7 * POINT),
        ),
        note=_JOINED,
    ),
    Claim(
        "C17",
        "performance of CLIP is better in comparison to GPT2 when evaluated on WIC",
        every(above(WIC(CLIP), WIC(GPT2))),
        note=_JOINED,
    ),
    Claim(
        "C18",
        "BERT beats CLIP on WIC by a large margin",
        every(above(WIC(BERT) - WIC(CLIP), 5 * POINT)),
        note=_JOINED,
    ),
    Claim(
        "C19",
        "inline with the results we obtained on the phrase level probing task where CLIP outperformed GPT2",
        every(*_ACROSS),
    ),
    Claim(
        "C20",
        "truncating the sequences resulted in significant loss of information … heavy overfitting on tasks where input "
        "sequences were very long",
        untestable="the study has one task of long inputs; how the gap grows with the share truncated needs several",
    ),
    Claim(
        "C21",
        "an increase in classification accuracy in all three models when we use deeper embedding representations",
        every(*(above(PICTURES(m).stages(1, 2, 3, 4).rises()) for m in (CLIP_RN50, RN50, VIT))),
    ),
    Claim(
        "C22",
        "clip has significantly higher accuracy in lower layers",
        every(*(above(PICTURES(CLIP_RN50).stages(1, 2), PICTURES(m).stages(1, 2)) for m in (RN50, VIT))),
    ),
    Claim(
        "C23",
        "the better performance in all of CLIP's intermediate layers compared to the single-modal counter parts in "
        "these tasks",
        every(*_IMAGE_FIRST, *(above(NMI(CLIP), NMI(m)) for m in OTHERS)),
    ),
    Claim(
        "C24",
        "the reconstruction capability of vanilla ResNet-50 is higher than both CLIP and ViT",
        every(*(below(LOSS(RN50).stages(1, 2, 3, 4), LOSS(m).stages(1, 2, 3, 4)) for m in (CLIP_RN50, VIT))),
    ),
    Claim(
        "C25",
        "it shows no obvious reconstruction capability",
        _no_obvious_reconstruction(CLIP_RN50),
    ),
    Claim(
        "C26",
        "lower layer(Row1) has more general visualizations compared to high layer(Row 2)",
        every(
            *(above(VARIATION(m).stages(4).mean(), VARIATION(m).stages(1).mean()) for m in (CLIP_RN50, RN50)),
        ),
    ),
    Claim(
        "C27",
        "CLIP ResNet tends to learn only simple color gradient, while Vanilla ResNet learns texture and more complex "
        "color patterns",
        every(*(below(measure(CLIP_RN50).stages(1), measure(RN50).stages(1)) for measure in (FINE, COLOUR))),
    ),
    Claim(
        "C28",
        "In higher layers CLIP ResNet tends to have less sharp edges and more gradient colors",
        every(below(EDGES(CLIP_RN50).stages(4), EDGES(RN50).stages(4))),
    ),
    Claim(
        "C29",
        "the self-supervised image-only training have good, interpret-able attention maps in the form of segmentation "
        "maps",
        every(*(above(OVERLAP(DINO).stages(4), OVERLAP(m).stages(4)) for m in (VIT_SUP, CLIP_VIT))),
    ),
    Claim(
        "C30",
        "As for the difference between multi-modal and image-only training, we find that there is no reasonable "
        "difference in the kinds of segmentation maps.",
        every(*(within(0.05, OVERLAP(CLIP_VIT).stages(4), OVERLAP(m).stages(4)) for m in (VIT_SUP, DINO))),
    ),
    Claim(
        "C31",
        "Specific heads at certain layers seem to behave like edge detectors.",
        some(*(above(EDGE_HEAD(m).blocks(1, 6), 0.5) for m in (CLIP_VIT, VIT_SUP, DINO))),
    ),
    Claim(
        "C32",
        "the attention heads in the later layers also seem to attend to different parts of the input image",
        every(
            *(
                above(DIVERSITY(m).blocks(7, 12).mean(), DIVERSITY(m).blocks(1, 6).mean())
                for m in (CLIP_VIT, VIT_SUP, DINO)
            )
        ),
    ),
    Claim(
        "C33",
        "zero-shot CLIP outperforms the baseline on 16 of 27 datasets",
        untestable="the course report cites it from another paper, and measured none of it",
    ),
    Claim(
        "C34",
        "BERT uses bidirectional context while GPT2 only uses left context",
        untestable="an explanation: it needs one model trained with and without a causal mask. CLIP's text tower is "
        "causal too, so C4 and C5, where supported, speak against it",
    ),
    Claim(
        "C35",
        "CLIP fails to learn a better representation compared to BERT, GPT, and ResNet",
        every(
            *(above(mean(m).mean(), mean(CLIP).mean()) for mean in (SYN, SEM, BOOLQ) for m in OTHERS),
            above(LOSS(CLIP_RN50).mean(), LOSS(RN50).mean()),
        ),
    ),
)


def wanted(claims: Iterable[Claim] = CLAIMS) -> frozenset[MetricReference]:
    """Everything that the claims read."""
    return frozenset(reference for claim in claims for reference in claim.reads)
