"""The claims of the report that the study repeats, as inequalities over measured quantities, and their verdicts. Pure.

A claim is a few lines of :data:`CLAIMS`: its sentence, quoted, and what must hold for it. What holds is judged by
resampling: every quantity is an array of one point estimate and many draws, in which models are compared on the same
items (a draw resamples items together, each model's seeds by themselves; clusterings are compared on the same span
samples), so that any function of the curves has an interval and a p. Where a kind keeps no single items, the recorded
95% intervals are taken as independent normal errors, which is wider; the judgement says so.

- "at every layer" is an intersection-union test (Berger 1982): supported when each part holds at α, uncorrected;
  refuted when some part goes the other way after Holm's correction over the parts.
- "at some layer" is its mirror image: supported when some part holds after Holm, refuted when each goes the other way.
- "comparable" is an equivalence test (TOST) with its margin stated.
- Otherwise undecided. A claim whose cells are missing is not run, and says which.

Layers are named as the report does, of twelve blocks: layer k of n stands for block 12k/n, so that claims about early
and late layers, and about four stages (blocks 3, 6, 9, 12), are asked of models of any depth.

Rooms: ``quantities`` (curves and what is computed from them), ``stated`` (the claims), ``judging`` (verdicts).
"""

from __future__ import annotations

from clipstudy.claims.judging import ALPHA, DRAWS, Judgement, Measured, Part, Verdict, judge
from clipstudy.claims.stated import CLAIMS, Claim, wanted

__all__ = ["ALPHA", "CLAIMS", "DRAWS", "Claim", "Judgement", "Measured", "Part", "Verdict", "judge", "wanted"]
