"""Random inputs for the tests of selections and methods."""

from __future__ import annotations

import dataclasses
import math

import torch

from lib.pruning import methods, selection
from lib.pruning.base import SHAPES
from lib.pruning.methods import Cues

GRID = (6, 6)


def make_cues(seed: int = 0, batch: int = 2, grid: tuple[int, int] = GRID, width: int = 8) -> Cues:
    """Every cue filled with random values."""
    generator = torch.Generator().manual_seed(seed)
    tokens = math.prod(grid)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    def positive(*shape):
        return torch.rand(*shape, generator=generator)

    return Cues(
        grid=grid,
        features=normal(batch, tokens, width),
        saliency=positive(batch, 3, tokens),
        patches=normal(batch, tokens, width),
        image=normal(batch, width),
        tokens=normal(batch, 5, width),
        sentence=normal(batch, width),
        text_valid=torch.tensor([True, True, True, True, False]).expand(batch, -1),
        text_special=torch.tensor([True, False, False, True, False]).expand(batch, -1),
        text_importance=positive(batch, 5),
        attention=positive(batch, 4, tokens),
        keys=1 + 0.3 * normal(batch, tokens, width),  # one common part: neighbours are alike, as keys are
        evidence=positive(batch, tokens) > 0.8,
        seeds=list(range(batch)),
        vision_keys=normal(batch, tokens, 4),
        projected=normal(batch, tokens, width),
    )


def row_of(cues: Cues, row: int) -> Cues:
    """The same cues with one row of the batch."""
    values = {}
    for field in dataclasses.fields(cues):
        value = getattr(cues, field.name)
        values[field.name] = value if field.name == "grid" else value[row : row + 1]
    return Cues(**values)


def on_meta(cues: Cues) -> Cues:
    """The same cues without values."""
    values = {field.name: getattr(cues, field.name) for field in dataclasses.fields(cues)}
    return Cues(**{k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in values.items()})


def cast(cues: Cues, dtype: torch.dtype) -> Cues:
    """The same cues with every floating tensor in another dtype."""
    values = {field.name: getattr(cues, field.name) for field in dataclasses.fields(cues)}
    moved = {
        k: v.to(dtype) for k, v in values.items() if isinstance(v, torch.Tensor) and v.is_floating_point()
    }
    return dataclasses.replace(cues, **moved)


def turned(cues: Cues) -> tuple[Cues, torch.Tensor]:
    """The cues of the transposed grid, and the old position of each new one, [N]."""
    old = torch.arange(cues.count).view(cues.grid).T.flatten()
    moved = {
        name: getattr(cues, name).index_select(form.index("N"), old)
        for name, form in {"features": "BND", **SHAPES}.items()
        if "N" in form
    }
    return dataclasses.replace(cues, grid=cues.grid[::-1], **moved), old


SCORES = ("random", "constant", "zeros", "one_hot", "ties", "subnormal")
FEATURES = ("random", "constant", "zeros", "one_hot", "duplicates", "subnormal")


def degenerate_cues(
    scores: str,
    features: str,
    dtype: torch.dtype,
    seed: int,
    batch: int,
    grid: tuple[int, int],
    width: int = 8,
) -> Cues:
    """Cues whose scores and features are of a kind that careless code trips over."""
    cues = make_cues(seed, batch, grid, width)
    tokens = cues.count
    draw = torch.Generator().manual_seed(seed)

    def score(like):
        hot = torch.nn.functional.one_hot(torch.randint(tokens, like.shape[:-1], generator=draw), tokens)
        return {
            "random": like,
            "constant": torch.full_like(like, 0.5),
            "zeros": torch.zeros_like(like),
            "one_hot": hot.to(like.dtype),
            "ties": (like * 3).round(),
            "subnormal": like * torch.finfo(dtype).tiny / 2,
        }[scores]

    def feature(like):
        place = torch.arange(tokens) % like.shape[-1]
        return {
            "random": like,
            "constant": torch.ones_like(like),
            "zeros": torch.zeros_like(like),
            "one_hot": torch.nn.functional.one_hot(place, like.shape[-1]).to(like.dtype).expand_as(like),
            "duplicates": like[:, torch.arange(tokens) // 3 * 2 % tokens],
            "subnormal": like * torch.finfo(dtype).tiny / 8,
        }[features]

    made = {name: score(getattr(cues, name)) for name in ("saliency", "attention")}
    made |= {
        name: feature(getattr(cues, name))
        for name in ("features", "patches", "keys", "vision_keys", "projected")
    }
    return cast(dataclasses.replace(cues, **made), dtype)


# Methods that are not built from `keep` alone, and how many of N tokens they leave.
BUILDERS = {
    name: lambda keep, fixed=name, **fields: methods.make(fixed, **fields) for name in ("none", "blind")
}
COUNTS = {"none": lambda tokens: tokens, "blind": lambda tokens: 0}

# Does a transposed grid give the transposed choice, where no two scores tie? "" means yes, else the reason why not.
TURNS = {
    "none": "",
    "random": "the draw is over raster positions",
    "uniform": "rows are filled before columns",
    "blind": "",
    "oracle": "the filling spread steps differently down and across",
    "centre_crop": "equal distances from the middle tie, by position alone",
    "pool": "the places are those of uniform",
    "cls": "",
    "fastv": "",
    "desap": "",
    "adaptprune": "",
    "visionzip": "every step-th token in raster order is a target",
    "vispruner": "even raster places are compared with odd ones",
    "trim": "",
    "divprune": "two tokens that are each other's nearest tie for the first pick",
    "cdpruner": "",
    "holov": "crops are runs in raster order",
    "dart": "",
    "tome": "even raster places offer themselves to odd ones",
    "multicue": "",
}


def build(name: str, keep: int | float = 9, **fields):
    """A method of `methods.NAMES` with a budget, where it has one."""
    make = BUILDERS.get(name, lambda keep, **more: methods.make(name, keep=keep, **more))
    try:
        return make(keep, **fields)
    except (TypeError, ValueError) as error:
        message = f"{name} cannot be built from keep={keep!r}: give it an entry in BUILDERS of tests/pruning/builders.py"
        raise AssertionError(f"{message} ({error})") from error


def expected_count(name: str, keep: int | float, tokens: int) -> int:
    """How many tokens a method keeps."""
    return COUNTS[name](tokens) if name in COUNTS else selection.budget(keep, tokens)


def chosen(method, cues: Cues) -> list[list[int]]:
    return method.choose(cues).kept.tolist()


def example(seed: int, batch: int, tokens: int, width: int = 6):
    """Distinct positive scores, features with some near twins, and a relevance."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch, tokens, generator=generator)
    centres = torch.randn(batch, 3, width, generator=generator)
    group = torch.randint(3, (batch, tokens), generator=generator)
    noise = 0.2 * torch.randn(batch, tokens, width, generator=generator)
    return scores, centres.gather(1, group[..., None].expand(-1, -1, width)) + noise


def all_selections(scores, features, grid, keep):
    """Every batched selection on one input."""
    return {
        "top_k": selection.top_k(scores, keep),
        "split_top_k": selection.split_top_k(scores, scores.flip(-1), keep),
        "adaptive_nms": selection.adaptive_nms(scores, features, grid, keep),
        "adaptive_nms, no window": selection.adaptive_nms(
            scores, features, grid, keep, radius=math.inf, sigma_distance=math.inf
        ),
        "adaptive_nms, distance alone": selection.adaptive_nms(
            scores, None, grid, keep, sigma_similarity=math.inf
        ),
        "max_min": selection.max_min(features, keep),
        "dpp_map": selection.dpp_map(scores, features, keep),
    }
