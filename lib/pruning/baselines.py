"""The arms that every pruning method has to beat, and the two ends of the scale: blind and oracle."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lib.pruning.base import Choice, Cues, Method, Needs
from lib.pruning.checks import check_grid, check_integer, check_scores
from lib.pruning.merging import join
from lib.pruning.picking import budget
from lib.pruning.selection import lattice_places, random_choice, spread_priority, top_k, uniform_grid


@dataclass(frozen=True, kw_only=True)
class NoPruning(Method):
    """Keep every visual token, by the same way that a pruning method goes."""

    name: ClassVar[str] = "none"
    stage: ClassVar[str] = "any"
    paper: ClassVar[str] = "The full model, 100 % in every table."
    code: ClassVar[str] = "The model without any change."
    ours: ClassVar[str] = "All tokens go through the executor; the output must equal the untouched model's."

    # pyrefly: ignore[bad-override]  # the one kind of method that has no budget
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

    # pyrefly: ignore[bad-override]  # the one kind of method that has no budget
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
class CentreCrop(Method):
    """The k tokens nearest to the middle of the image."""

    name: ClassVar[str] = "centre_crop"
    stage: ClassVar[str] = "any"
    paper: ClassVar[str] = "A control for the habit of photographs to show things in the middle."
    code: ClassVar[str] = "None."
    ours: ClassVar[str] = (
        "Exactly k tokens by distance from the middle; of equal distances the lower position stays."
    )

    def reads_grid(self) -> bool:
        return True

    def choose(self, cues: Cues) -> Choice:
        cells = _cells(cues.grid, cues.features.device)
        middle = (torch.tensor(cues.grid, dtype=torch.float64, device=cells.device) - 1) / 2
        nearness = -(cells - middle).square().sum(-1).float()
        return Choice(top_k(nearness.expand(cues.batch, -1), self.budget(cues)))


@dataclass(frozen=True, kw_only=True)
class Pooling(Method):
    """Average pooling: every token joins the nearest of k evenly spread places."""

    name: ClassVar[str] = "pool"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = "Average pooling of the grid, a baseline in several papers' tables."
    code: ClassVar[str] = "Windows of equal size, so only some budgets exist."
    ours: ClassVar[str] = "Any budget: windows are the cells nearest to k evenly spread places."

    def reads_grid(self) -> bool:
        return True

    def choose(self, cues: Cues) -> Choice:
        check_scores("features", cues.features)
        places = uniform_grid(cues.grid, self.budget(cues)).to(cues.features.device, non_blocking=True)
        kept = places.expand(cues.batch, -1)
        cells = _cells(cues.grid, cues.features.device)
        # Places are rounded down, so of two that are equally near the later one is the nearer.
        centres = cells[places] - 0.25
        nearest = (cells[:, None] - centres).square().sum(-1).argmin(-1)
        return Choice(kept, {}, join(cues.features, kept, nearest.expand(cues.batch, -1)))


@dataclass(frozen=True, kw_only=True)
class Downsample(Method):
    """The image itself made smaller, so that the encoder cuts it into fewer patches."""

    name: ClassVar[str] = "downsample"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = "VTC-Bench: a smaller image beats many methods, so it is the baseline to beat."
    code: ClassVar[str] = "The processor's resolution is lowered, on models that take any."
    ours: ClassVar[str] = (
        "Any budget: the smallest nearly square image with at least k patches, position embeddings interpolated; patches too "
        "many leave evenly; each stands at its place in the full grid."
    )

    def lattice(self, grid: tuple[int, int]) -> tuple[int, int]:
        rows, columns = check_grid(grid)
        count = budget(self.keep, rows * columns, self.rounding)
        lines = min(rows, max(round(math.sqrt(count * rows / columns)), math.ceil(count / columns)))
        return lines, math.ceil(count / lines)

    def reads_grid(self) -> bool:
        return True

    def choose(self, cues: Cues) -> Choice:
        places = lattice_places(cues.grid, self.lattice(cues.grid))
        count = self.budget(cues)
        stay = [(2 * place + 1) * len(places) // (2 * count) for place in range(count)]
        kept = torch.tensor(places)[stay].to(cues.features.device, non_blocking=True)
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


def _refuse_keep(method: Method) -> None:
    if method.keep is not None:
        raise ValueError(f"keep must stay None: {method.name} has no budget; got {method.keep!r}")
    method.check_shared()


def _cells(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Row and column of each position: [N, 2] float64."""
    rows, columns = check_grid(grid)
    place = torch.arange(rows * columns, device=device)
    return torch.stack([place // columns, place % columns], -1).double()
