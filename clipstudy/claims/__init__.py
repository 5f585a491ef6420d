"""The claims of the course report that the study repeats, as inequalities over measured quantities, and their verdicts.
Pure.

A claim is a few lines of :data:`CLAIMS`: its sentence, quoted, and what must hold for it. What holds is judged by
resampling: every quantity is an array of one point estimate and many draws, so that any function of the curves has an
interval and a p. Models, layers and floors of a task are compared on the same test items: a draw resamples items
together, each model's seeds by themselves. Clusterings are compared on the same span samples, each a replicate of the
whole. Channels have no counterpart in another layer or model, so each layer's are resampled by themselves. Where the
runs kept no scores of single items, or too few, nothing is tested and the judgement says so.

- "at every layer" is an intersection-union test (Berger 1982): supported when each part holds at α, uncorrected;
  refuted when some part goes the other way after Holm's correction over the parts.
- "at some layer" is its mirror image: supported when some part holds after Holm, refuted when each goes the other way.
- "comparable" is an equivalence test (TOST) with its margin stated.
- "no better than" is non-inferiority: the bound is the floor less a stated margin.
- Otherwise undecided. A claim whose cells are missing is not run, and says which.

Layers are named as the course report does, of twelve blocks: layer k of n stands for block 12k/n, so that claims about
early and late layers, and about four stages (blocks 3, 6, 9, 12), are asked of models of any depth.

Rooms: ``quantities`` (curves and what is computed from them), ``catalogue`` (the claims), ``draws`` (what was measured,
and its draws), ``judging`` (verdicts).
"""

from __future__ import annotations

from clipstudy.claims.catalogue import CLAIMS, Claim, wanted
from clipstudy.claims.draws import Measured, Unit, tasks_read
from clipstudy.claims.judging import ALPHA, DRAWS, Condition, Judgement, Part, Verdict, judge
from clipstudy.claims.quantities import UNTRAINED

__all__ = [
    "ALPHA",
    "CLAIMS",
    "DRAWS",
    "UNTRAINED",
    "Claim",
    "Condition",
    "Judgement",
    "Measured",
    "Part",
    "Unit",
    "Verdict",
    "judge",
    "tasks_read",
    "wanted",
]
