"""The arms that every pruning method has to beat, and the two ends of the scale: blind and oracle."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch

from lib.pruning.base import Choice, Cues, Method, Needs
from lib.pruning.checks import check_flag, check_integer
from lib.pruning.cues import cls_saliency
from lib.pruning.merging import average_into_kept
from lib.pruning.selection import random_choice, spread_priority, top_k, uniform_grid


@dataclass(frozen=True, kw_only=True)
class NoPruning(Method):
    """Keep every visual token, by the same way that a pruning method goes."""

    name: ClassVar[str] = "none"
    stage: ClassVar[str] = "any"
    paper: ClassVar[str] = "The full model, 100 % in every table."
    code: ClassVar[str] = "The model without any change."
    ours: ClassVar[str] = "All tokens go through the executor; the output must equal the untouched model's."

    keep: None = None  # nothing to budget

    def __post_init__(self) -> None:
        _refuse_keep(self)

    def left(self, tokens: int) -> tuple[int, ...]:
        return (tokens,)

    def choose(self, cues: Cues) -> Choice:
        everything = torch.arange(cues.count, device=cues.features.device)
        return Choice(everything.expand(cues.batch, -1))


@dataclass(frozen=True, kw_only=True)
class Blind(Method):
    """Keep no visual token: what the language model knows without the image."""

    name: ClassVar[str] = "blind"
    stage: ClassVar[str] = "any"
    paper: ClassVar[str] = "Not in either paper."
    code: ClassVar[str] = "None."
    ours: ClassVar[str] = "Every visual token is dropped; the prompt's text stays."

    keep: None = None  # nothing to budget

    def __post_init__(self) -> None:
        _refuse_keep(self)

    def left(self, tokens: int) -> tuple[int, ...]:
        return (0,)

    def choose(self, cues: Cues) -> Choice:
        return Choice(torch.zeros(cues.batch, 0, dtype=torch.int64, device=cues.features.device))


@dataclass(frozen=True, kw_only=True)
class Random(Method):
    """A uniform random subset, drawn for each row from that row's own seed."""

    name: ClassVar[str] = "random"
    stage: ClassVar[str] = "any"
    paper: ClassVar[str] = "Not in either paper's tables; elsewhere random dropping beats several methods."
    code: ClassVar[str] = "None."
    ours: ClassVar[str] = "One draw a row from a hash of (seed, row seed); many seeds give the spread."

    seed: int = 0  # our choice; the study runs several

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        check_integer("seed", self.seed)

    def needs(self) -> Needs:
        return Needs(seeds=True)

    def choose(self, cues: Cues) -> Choice:
        rows = self.see(cues, "seeds")
        if len(rows) != cues.batch:
            raise ValueError(f"seeds must hold one int a row: {cues.batch} rows, {len(rows)} seeds")
        # torch's generator sees 32 bits of its seed and nearby sums collide, so the pair is hashed.
        mixed = [
            int.from_bytes(
                hashlib.sha256(f"{self.seed}/{check_integer('seeds', row)}".encode()).digest()[:4], "big"
            )
            for row in rows
        ]
        return Choice(random_choice(mixed, cues.count, self.budget(cues), cues.features.device))


@dataclass(frozen=True, kw_only=True)
class UniformGrid(Method):
    """Positions spread evenly over the grid, whatever the image shows."""

    name: ClassVar[str] = "uniform"
    stage: ClassVar[str] = "any"
    paper: ClassVar[str] = "Not in either paper's tables."
    code: ClassVar[str] = "None."
    ours: ClassVar[str] = "Exactly k distinct positions on evenly spaced rows."

    def reads_grid(self) -> bool:
        return True

    def choose(self, cues: Cues) -> Choice:
        kept = uniform_grid(cues.grid, self.budget(cues)).to(cues.features.device, non_blocking=True)
        return Choice(kept.expand(cues.batch, -1))


@dataclass(frozen=True, kw_only=True)
class Oracle(Method):
    """The tokens that hold the answer first, then an even spread over the rest of the image.

    Where the evidence is larger than the budget it is thinned evenly. An upper arm, not a method: it is told
    where the answer lies.
    """

    name: ClassVar[str] = "oracle"
    stage: ClassVar[str] = "any"
    paper: ClassVar[str] = "Not in either paper."
    code: ClassVar[str] = "None."
    ours: ClassVar[str] = "Tokens whose cell touches a box that answers the question, then an even spread."

    def needs(self) -> Needs:
        return Needs(evidence=True)

    def reads_grid(self) -> bool:
        return True

    def choose(self, cues: Cues) -> Choice:
        evidence = self.see(cues, "evidence")
        evidence = evidence.to(cues.features.device).float()
        spread = spread_priority(cues.grid, evidence.device)  # in [0, 1), so evidence always comes first
        return Choice(top_k(2 * evidence + spread, self.budget(cues)), {"evidence": evidence})


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


def _refuse_keep(method: Method) -> None:
    if method.keep is not None:
        raise ValueError(f"keep must stay None: {method.name} has no budget; got {method.keep!r}")
    method.check_shared()
