"""VisPruner: the tokens that [CLS] looks at most, and of the rest those that no other resembles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lib.pruning.base import Choice, Cues, Method, Needs
from lib.pruning.checks import check_integer, check_number, check_scores, check_shape
from lib.pruning.cues import cls_saliency
from lib.pruning.merging import gather_rows
from lib.pruning.picking import highest
from lib.pruning.precision import cosine_table, unit


@dataclass(frozen=True, kw_only=True)
class VisPruner(Method):
    """Salient tokens, and of the rest those that no other resembles.

    Source: VisPruner (arXiv 2412.01818), released code.
    """

    name: ClassVar[str] = "vispruner"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = (
        "A share of the budget by [CLS] attention, the rest by removing duplicates step by step."
    )
    code: ClassVar[str] = (
        "Head mean of the [CLS] row; 0.5 or 0.75 important, rounded down. The rest is a list by falling attention: a round "
        "compares its even places with its odd ones, drops the eight most duplicated and goes on with what is left of the even "
        "ones, most duplicated first, then the odd ones. Stops with an error on a list of odd length and on a round of fewer "
        "than eight pairs; in half precision the list takes another way."
    )
    ours: ClassVar[str] = (
        "The same, in double precision. Where the released code stops, ours goes on: the list may be odd, and a round drops at "
        "most all even places."
    )

    important: float = 0.5  # released code's example for 128 tokens; 0.75 for 64
    step: int = 8  # released code
    saliency_layer: int = -2  # the layer of the features, as FasterVLM

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        check_number("important", self.important, least=0.0, most=1.0)
        check_integer("step", self.step, least=1)
        check_integer("saliency_layer", self.saliency_layer)

    def needs(self) -> Needs:
        return Needs(saliency_layer=self.saliency_layer)

    def choose(self, cues: Cues) -> Choice:
        saliency = cls_saliency(self.see(cues, "saliency"))
        count = self.budget(cues)
        important = int(self.important * count)
        ranked = highest(saliency, cues.count)
        first, rest = ranked[:, :important], ranked[:, important:]
        if important < count:
            unlike = drop_duplicates(gather_rows(cues.features, rest), count - important, self.step)
            first = torch.cat([first, rest.gather(1, unlike)], 1)
        return Choice(first.sort(dim=-1).values, {"saliency": saliency})


@torch.no_grad()
def drop_duplicates(features: Tensor, keep: int, step: int) -> Tensor:
    """Drop the most duplicated rows of a list, `step` a round, until `keep` are left.

    A round compares every even place of the list with all odd ones and drops the evens with the highest best cosine. The next
    list holds the other evens, most duplicated first (ties to the earlier place), then the odd ones in their order.

    Parameters
    ----------
    features : [B, M, D], in the order of the list.
    keep : rows that stay, 1 to M.
    step : rows dropped a round; fewer where only fewer are too many, or are at even places.

    Returns
    -------
    Tensor
        [B, keep] int64, ascending places in the list.

    Who meets whom hangs on every round before, so a likeness rounded to float32 ends in another set. Hence all cosines in
    float64: M x M of them a sample (2.4 MB for 544 rows) beside one float64 copy of the features.

    Source: VisPruner (arXiv 2412.01818), released code.
    """
    check_shape("features", features, B=None, M=None, D=None)
    check_scores("features", features)
    check_integer("step", step, least=1)
    batch, total, _ = features.shape
    if check_integer("keep", keep, least=1) > total:
        raise ValueError(f"keep must be at most {total}, got {keep}")
    left = torch.arange(total, device=features.device).expand(batch, -1)
    if keep == total:
        return left
    pairs = cosine_table(unit(features), fine=True).flatten(1)
    while left.shape[1] > keep:
        even, odd = left[:, ::2], left[:, 1::2]
        drop = min(step, left.shape[1] - keep, even.shape[1])
        pair = even[:, :, None] * total + odd[:, None]
        twin = pairs.gather(1, pair.flatten(1)).view(pair.shape).amax(-1)
        stay = even.gather(1, highest(twin, even.shape[1])[:, drop:])
        left = torch.cat([stay, odd], 1)
    return left.sort(dim=-1).values
