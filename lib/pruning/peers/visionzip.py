"""VisionZip: the most salient tokens, and a few that stand for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lib.pruning.base import Choice, Cues, Method, Needs
from lib.pruning.checks import check_integer, check_number, check_scores
from lib.pruning.cues import cls_saliency
from lib.pruning.merging import gather_rows
from lib.pruning.picking import highest, others
from lib.pruning.precision import cosine, product


@dataclass(frozen=True, kw_only=True)
class VisionZip(Method):
    """The most salient tokens, and a few that stand for the rest.

    Source: VisionZip (arXiv 2412.04467).
    """

    name: ClassVar[str] = "visionzip"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = (
        "Dominant tokens by [CLS] attention; the others merge into contextual tokens by key similarity."
    )
    code: ClassVar[str] = (
        "Layer -2; 54 dominant (with [CLS]) and 10 contextual of 64; every step-th token left is a target, and "
        "the mean of its members is added to it."
    )
    ours: ClassVar[str] = (
        "The same without the [CLS] token among the kept, so its 64 are 63 here; the contextual share is a field."
    )

    contextual: float = 10 / 64  # released code, 10 of 64
    saliency_layer: int = -2  # released code

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        check_number("contextual", self.contextual, least=0.0, most=1.0)
        check_integer("saliency_layer", self.saliency_layer)

    def needs(self) -> Needs:
        return Needs(saliency_layer=self.saliency_layer, vision_keys=self.saliency_layer)

    def choose(self, cues: Cues) -> Choice:
        saliency = cls_saliency(self.see(cues, "saliency"))
        keys = self.see(cues, "vision_keys")
        check_scores("features", cues.features)
        count = self.budget(cues)
        contextual = round(self.contextual * count)
        dominant = highest(saliency, count - contextual)
        rest = others(dominant, cues.count)
        step = max(1, rest.shape[1] // max(1, contextual))
        targets = rest[:, ::step][:, :contextual]
        kept = torch.cat([dominant, targets], 1).sort(dim=-1).values
        if contextual == 0 or rest.shape[1] == contextual:
            return Choice(kept, {"saliency": saliency})
        nearest = cosine(gather_rows(keys, rest), gather_rows(keys, targets)).argmax(-1)
        member = (nearest[..., None] == torch.arange(contextual, device=rest.device)).float()
        is_target = (rest[..., None] == targets[:, None]).any(-1)
        member = member.masked_fill(is_target[..., None], 0.0)
        features = gather_rows(cues.features, rest).float()
        mean = product(member.mT, features) / member.sum(1)[..., None].clamp_min(1.0)
        rewritten = cues.features.float().scatter_add(
            1, targets[..., None].expand(-1, -1, features.shape[2]), mean
        )
        return Choice(kept, {"saliency": saliency}, gather_rows(rewritten, kept).to(cues.features.dtype))
