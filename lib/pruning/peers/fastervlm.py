"""FasterVLM: the patches that the vision encoder's [CLS] token looks at most; the method `cls`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lib.pruning.base import Choice, Cues, Method, Needs
from lib.pruning.checks import check_flag, check_integer
from lib.pruning.cues import cls_saliency
from lib.pruning.merging import average_into_kept
from lib.pruning.selection import top_k


@dataclass(frozen=True, kw_only=True)
class ClsTopK(Method):
    """The patches that the vision encoder's [CLS] token looks at most."""

    name: ClassVar[str] = "cls"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = "FasterVLM and VisionZip: head-mean [CLS] attention, highest first."
    code: ClassVar[str] = (
        "FasterVLM's is exactly this: head mean of the last but one vision layer. VisionZip reads the same row, sums over heads "
        "and adds merged tokens."
    )
    ours: ClassVar[str] = (
        "FasterVLM's, in raster order; the layer is a field, and averaging as in DeSAP is a switch."
    )

    saliency_layer: int = -2  # FasterVLM's, VisionZip's and HoloV's released code
    merge: bool = False  # FasterVLM drops without a trace

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        check_integer("saliency_layer", self.saliency_layer)
        check_flag("merge", self.merge)

    def needs(self) -> Needs:
        return Needs(saliency_layer=self.saliency_layer)

    def choose(self, cues: Cues) -> Choice:
        saliency = cls_saliency(self.see(cues, "saliency"))
        kept = top_k(saliency, self.budget(cues))
        merged = average_into_kept(cues.features, kept) if self.merge else None
        return Choice(kept, {"saliency": saliency}, merged)
