"""TRIM: the tokens that the question picks out, and the mean of all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lib.pruning.base import Choice, Cues, Method, Needs
from lib.pruning.checks import check_flag, check_scores, check_shape
from lib.pruning.merging import gather_rows
from lib.pruning.picking import highest
from lib.pruning.precision import product, unit, wide


@dataclass(frozen=True, kw_only=True)
class Trim(Method):
    """The tokens that the question picks out, and one that is the mean of all others.

    Source: TRIM (arXiv 2409.10994), released code.
    """

    name: ClassVar[str] = "trim"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = (
        "Similarity of CLIP patches with the question's embedding; outliers stay, the rest becomes one token."
    )
    code: ClassVar[str] = (
        "Layer -2, negated products of patches and question, neither of unit length, softmax; outliers by quartiles or a "
        "ratio, and the mean of all others as one token more at the end. The question is cut after 77 tokens."
    )
    ours: ClassVar[str] = (
        "The same products, a fixed budget that counts the mean; the mean stands in the place of the best token that it holds. "
        "Cosine in place of the product is a field."
    )

    negated: bool = True  # released code
    normalised: bool = False  # released code: the product; True: the cosine
    aggregate: bool = True  # released code

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        for flag in ("negated", "normalised", "aggregate"):
            check_flag(flag, getattr(self, flag))

    def needs(self) -> Needs:
        return Needs(patches="penultimate", text=True, long_text="truncated")

    def choose(self, cues: Cues) -> Choice:
        patches, sentence = self.see(cues, "patches"), self.see(cues, "sentence")
        check_shape("sentence", sentence, B=cues.batch, E=patches.shape[2])
        check_scores("features", cues.features)
        scaled = unit if self.normalised else wide
        relevance = (scaled(patches) * scaled(sentence)[:, None]).sum(-1).float()
        relevance = -relevance if self.negated else relevance
        count = self.budget(cues)
        ranked = highest(relevance, count)
        kept = ranked.sort(dim=-1).values
        if not self.aggregate or count == cues.count:
            return Choice(kept, {"task": relevance})
        worst = ranked[:, -1:]  # its place goes to the mean of it and all dropped tokens
        dropped = torch.ones_like(relevance).scatter(1, kept, 0.0).scatter(1, worst, 1.0)
        features = cues.features.float()
        mean = product(dropped[:, None], features) / dropped.sum(1)[:, None, None]
        rows = torch.where((kept == worst)[..., None], mean, gather_rows(features, kept))
        return Choice(kept, {"task": relevance}, rows.to(cues.features.dtype))
