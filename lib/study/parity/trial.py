"""One trial: what both sides see, what each answers step by step, and where they part."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from lib.pruning import methods
from lib.pruning.base import Cues

KINDS = ("random", "clustered", "smooth")
SIZES = (((24, 24), 64), ((24, 24), 128), ((24, 24), 192), ((12, 12), 16))  # grid, tokens kept
SEEDS = 6
WIDTH = 256  # of features: above the largest budget, so that no kernel runs out of rank
HEADS, WORDS = 4, 6
TOLERANCE = 1e-5  # of a step's largest value, for steps that are numbers and not tokens


@dataclass(frozen=True)
class Draw:
    """Constructed cues of one sample: the same numbers for the method (float32) and for the rule (float64).

    Parameters
    ----------
    kind
        "random": all tokens are independent; "clustered": they fall into twelve kinds; "smooth": neighbours are alike.
    grid, keep, seed
        Rows and columns, the count that is kept, and which of the draws.
    """

    kind: str
    grid: tuple[int, int]
    keep: int
    seed: int

    @property
    def count(self) -> int:
        """N."""
        return math.prod(self.grid)

    def numbers(self, name: str) -> np.random.Generator:
        """Random numbers of this draw's picture (whatever the budget) for one purpose."""
        return np.random.default_rng([self.seed, *self.grid, zlib.crc32(f"{self.kind}/{name}".encode())])

    def rows(self, name: str, width: int = WIDTH) -> np.ndarray:
        """Feature rows [N, width] of this draw's kind, float32."""
        draw = self.numbers(name)
        noise = draw.standard_normal((self.count, width))
        if self.kind == "random":
            return noise.astype(np.float32)
        if self.kind == "clustered":
            kinds = self.numbers("kinds").integers(12, size=self.count)
            return (draw.standard_normal((12, width))[kinds] + 0.3 * noise).astype(np.float32)
        down, across = np.divmod(np.arange(self.count), self.grid[1])
        place = np.stack([down / self.grid[0], across / self.grid[1]], 1)
        waves = np.sin(place @ draw.uniform(-9, 9, (2, 24)) + draw.uniform(0, 2 * np.pi, 24))
        return (waves @ draw.standard_normal((24, width)) / np.sqrt(12) + 0.1 * noise).astype(np.float32)

    def attention(self, name: str, heads: int = HEADS) -> np.ndarray:
        """Attention [heads, N] of one query, positive, a little of it outside the tokens, float32."""
        logits = 3.0 * self.rows(name, heads).astype(np.float64).T
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return (0.9 * weights / weights.sum(-1, keepdims=True)).astype(np.float32)

    @cached_property
    def cues(self) -> Cues:
        """Everything that a method before the language model, or one that cuts once inside it, may ask for; batch 1."""
        words = {
            name: self.numbers(name).standard_normal((WORDS, WIDTH)).astype(np.float32)
            for name in ("tokens", "prompt")
        }
        arrays = {
            "features": self.rows("features"),
            "saliency": self.attention("saliency"),
            "patches": self.rows("patches"),
            "vision_keys": self.rows("vision_keys", 64),
            "projected": self.rows("projected"),
            "image": self.numbers("image").standard_normal(WIDTH).astype(np.float32),
            **words,
            "sentence": words["tokens"][-1],
            "text_valid": np.ones(WORDS, bool),
            "text_special": np.zeros(WORDS, bool),
            "text_importance": self.numbers("importance").random(WORDS, np.float32),
            "attention": self.attention("attention"),
            "keys": self.rows("keys"),
            "prompt_valid": np.ones(WORDS, bool),
            "attended_keys": self.rows("attended_keys"),
            "final_states": self.rows("final_states"),
            "prompt_keys": self.numbers("prompt_keys").standard_normal((WORDS, WIDTH)).astype(np.float32),
            "prompt_states": self.numbers("prompt_states").standard_normal((WORDS, WIDTH)).astype(np.float32),
        }
        return Cues(grid=self.grid, **{name: torch.from_numpy(value)[None] for name, value in arrays.items()})

    def see(self, name: str) -> np.ndarray:
        """One of the cues in double precision, without the batch."""
        value = getattr(self.cues, name)[0].numpy()
        return value if value.dtype == bool else value.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Told:
    """What one side answers.

    Attributes
    ----------
    steps : named answers in the order in which they are taken. A list holds tokens and has to be equal; an array holds
        numbers, equal to `TOLERANCE`. Scores go by the names that the method gives them; then "kept", the ascending
        places; then "features", the rows of the kept tokens, where the method rewrites them.
    declared : of a rule alone: where the release gives no such answer (it stops, or keeps another number of tokens), what
        happens in its place. The steps then hold what the method declares to do.
    """

    steps: Mapping[str, list[int] | np.ndarray]
    declared: str = ""


def choose_once(draw: Draw, case: Case) -> Told:
    """Ask the library's method once, with the draw's cues."""
    choice = methods.make(case.method, keep=draw.keep, **case.fields).choose(draw.cues)
    steps = {name: scores[0].double().numpy() for name, scores in choice.scores.items()}
    steps["kept"] = choice.kept[0].tolist()
    if choice.features is not None:
        steps["features"] = choice.features[0].double().numpy()
    return Told(steps)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A method beside the rule of its release.

    Attributes
    ----------
    method, fields : the library's method, and what is set but `keep`.
    setting : words for those fields; "" where all are the class's own.
    release : repository and commit whose rule is restated.
    rule : the transcription.
    settled : what settles a difference; for equal sets, what of the release lies outside the comparison.
    sizes : (grid, keep) pairs.
    ask : how the library's side is asked; methods that cut several times, or whose place in the model is part of the
        rule, bring their own.
    """

    method: str
    release: str
    rule: Callable[[Draw], Told]
    settled: str
    setting: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
    sizes: tuple[tuple[tuple[int, int], int], ...] = SIZES
    ask: Callable[[Draw, Case], Told] = choose_once

    def draws(self, seeds: int = SEEDS) -> list[Draw]:
        """All trials: kinds x sizes x seeds."""
        return [
            Draw(kind, grid, keep, seed)
            for kind in KINDS
            for grid, keep in self.sizes
            for seed in range(seeds)
        ]


def parting(ours: Told, released: Told) -> str:
    """The first step of the rule at which the method differs, or "none"."""
    for name, expected in released.steps.items():
        found = ours.steps.get(name)
        if isinstance(expected, list):
            same = found == expected
        else:
            scale = TOLERANCE * max(1e-12, float(np.abs(expected).max(initial=0.0)))
            same = found is not None and found.shape == expected.shape
            same = same and bool(np.allclose(found, expected, rtol=0, atol=scale))
        if not same:
            return name
    return "none"
