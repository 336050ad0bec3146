"""Random inputs for the tests of selections and methods."""

from __future__ import annotations

import dataclasses
import math

import torch

from lib.pruning import methods, selection
from lib.pruning.base import SHAPES
from lib.pruning.contract import SQUARE, make_cues, on_meta, row_of
from lib.pruning.methods import Cues

__all__ = ["GRID", "all_selections", "build", "chosen", "example", "make_cues", "on_meta", "row_of"]

GRID = SQUARE


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
        place = torch.arange(like.shape[1]) % like.shape[-1]
        return {
            "random": like,
            "constant": torch.ones_like(like),
            "zeros": torch.zeros_like(like),
            "one_hot": torch.nn.functional.one_hot(place, like.shape[-1]).to(like.dtype).expand_as(like),
            "duplicates": like[:, torch.arange(like.shape[1]) // 3 * 2 % like.shape[1]],
            "subnormal": like * torch.finfo(dtype).tiny / 8,
        }[features]

    rows = ("saliency", "attention", "next_attention", "prompt_attention")
    made = {name: score(getattr(cues, name)) for name in rows}
    states = ("features", "patches", "keys", "vision_keys", "projected", "prompt")
    states += ("attended_keys", "prompt_keys", "final_states", "prompt_states")
    made |= {name: feature(getattr(cues, name)) for name in states}
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
    "vispruner": "",
    "trim": "",
    "divprune": "two tokens that are each other's nearest tie for the first pick",
    "cdpruner": "",
    "holov": "crops are runs in raster order",
    "dart": "",
    "tome": "even raster places offer themselves to odd ones",
    "downsample": "rows of the smaller image are fixed before columns",
    "pyramiddrop": "",
    "sparsevlm": "",
    "multicue": "",
}


def build(name: str, keep: int | float = 9, **fields):
    """A method of `methods.NAMES` with a budget, where it has one."""
    make = BUILDERS.get(name, lambda keep, **more: methods.make(name, keep=keep, **more))
    try:
        return make(keep, **fields)
    except (TypeError, ValueError) as error:
        message = f"{name} cannot be built from keep={keep!r}: give it an entry in BUILDERS of tests/testkit/builders.py"
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


def card_of(**probe):
    phases = [{"steps": 2, "batch": 4, "rate": 1e-3}]
    curve = [{"step": step, "contrast": 2.0, "rate": 1e-3, "seconds": 1.0} for step in (1, 2)]
    lesson = [{"step": 2, "loss": 1.0, "rate": 1e-3, "seconds": 1.0, "validation read": 0.5}]
    return {
        "sizes": {
            "image": 96,
            "patch": 8,
            "vision_layers": 4,
            "vision_width": 128,
            "layers": 5,
            "width": 192,
        },
        "tower": {"seed": 0, "phases": phases, "curve": curve, "probe": probe},
        "decoder": {"seed": 0, "phases": phases, "curve": lesson},
        "hardware": "two cores",
        "notes": ["a note"],
    }
