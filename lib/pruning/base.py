"""The line between a method and whoever runs it: what a method needs, what it sees, what it answers.

Shapes: B batch, N visual tokens, D feature width, E joint image-text width, T text tokens, H heads, k kept.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from lib.pruning.checks import check_grid, check_integer, check_mask, check_option, check_scores, check_shape
from lib.pruning.picking import ROUNDINGS, budget, check_keep

POSITIONS = ("original", "renumbered")
PATCHES = ("qq", "qk", "kk", "vv", "hidden", "penultimate")
REWEIGHTED = tuple(kind for kind in PATCHES if kind not in ("hidden", "penultimate"))
KEYS = ("raw", "normed")
LONG_TEXTS = ("segments", "pieces", "truncated")  # see `lib.models.clip.encode_text`
SHAPES: Mapping[str, str] = MappingProxyType(  # of the cues, one letter a size
    {
        "saliency": "BHN",
        "patches": "BNE",
        "vision_keys": "BNd",
        "projected": "BNW",
        "image": "BE",
        "tokens": "BTE",
        "sentence": "BE",
        "text_valid": "BT",
        "text_special": "BT",
        "text_importance": "BT",
        "attention": "BHN",
        "prompt": "BTW",
        "prompt_valid": "BT",
        "prompt_attention": "BHTN",
        "next_attention": "BHN",
        "keys": "BNd",
        "attended_keys": "BNd",
        "prompt_keys": "BTd",
        "final_states": "BNW",
        "prompt_states": "BTW",
        "rotary": "BNR",
        "prompt_rotary": "BTR",
        "evidence": "BN",
    }
)
PADDED = frozenset({"tokens", "text_importance"})  # padding may hold anything, and is emptied on use
MASKS = frozenset({"text_valid", "text_special", "prompt_valid", "evidence"})


def comments(kind: type) -> dict[str, str]:
    """The comment behind each field of a dataclass, from its source."""
    found = re.finditer(r"^ {4}(\w+): [^#\n]*# (.*)$", inspect.getsource(kind), re.MULTILINE)
    return {match[1]: match[2] for match in found}


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What has to be captured for a method; everything is off by default."""

    saliency_layer: int | None = None  # vision layer (Python index) whose [CLS] attention row is wanted
    patches: str | None = None  # patches in the joint space: one of PATCHES
    vision_keys: int | None = None  # vision layer (Python index) whose keys of the patches are wanted
    projected: bool = False  # what the projector makes of the features
    text: bool = False  # the question's tokens from the paired text tower
    long_text: str = "segments"  # what becomes of a question longer than that tower: one of LONG_TEXTS
    attention: bool = False  # attention of the last real prompt token, in the decoder layer before the cut
    next_attention: bool = False  # the same in the decoder layer at the cut, on all tokens that enter it
    words: bool = False  # the prompt's words as the language model reads them, before it runs
    prompt: bool = False  # the prompt's words, and how each attends in the decoder layer before the cut
    keys: str | None = None  # key projection of the decoder layer at the cut: "raw" hidden state, or "normed"
    attended_keys: bool = False  # rotated keys of the decoder layer before the cut, of tokens and words
    final_states: bool = False  # hidden states at the cut after the decoder's last norm, of tokens and words
    rotary: bool = False  # rotary position embeddings at the cut, of tokens and words
    evidence: bool = False  # a per-sample evidence mask, given by the caller
    seeds: bool = False  # one int a row, from that row's own content

    @property
    def hears(self) -> bool:
        """Whether anything of the prompt's words is wanted."""
        return self.words or self.prompt or self.attended_keys or self.final_states or self.rotary

    @property
    def inside(self) -> bool:
        """Whether anything is wanted that only a layer of the language model can tell."""
        reads = self.attention, self.next_attention, self.prompt, self.attended_keys, self.final_states
        return any(reads) or self.rotary or self.keys is not None


@dataclass(frozen=True, kw_only=True, eq=False)
class Cues:
    """What a method sees. Tensors are ``None`` unless needed.

    A method that cuts again sees every token at its first place: where a token is gone already, what the language model
    would tell about it (features, attention, keys) is zero.
    """

    grid: tuple[int, int]  # (rows, columns), rows * columns == N
    features: Tensor  # [B, N, D] stage 0: the projector's input; stage K: hidden states entering layer K
    saliency: Tensor | None = None  # [B, H, N] [CLS] attention over the patches
    patches: Tensor | None = None  # [B, N, E] not normalised
    vision_keys: Tensor | None = None  # [B, N, d] head mean of a vision layer's keys
    projected: Tensor | None = None  # [B, N, W] the projector's output
    image: Tensor | None = None  # [B, E] the [CLS] row of the same projection
    tokens: Tensor | None = None  # [B, T, E] text tokens, start and end included, or pieces; not normalised
    sentence: Tensor | None = None  # [B, E] the [EOS] text embedding
    text_valid: Tensor | None = None  # [B, T] bool, false on padding
    text_special: Tensor | None = None  # [B, T] bool, true on start and end tokens
    text_importance: Tensor | None = None  # [B, T] head-mean attention of [EOS] in the last text layer
    attention: Tensor | None = None  # [B, H, N] decoder attention row over the visual tokens
    prompt: Tensor | None = None  # [B, T, W] input embeddings of all columns that are not visual
    prompt_valid: Tensor | None = None  # [B, T] bool, true on real words after the image
    prompt_attention: Tensor | None = None  # [B, H, T, N] attention of these columns over the visual tokens
    next_attention: Tensor | None = None  # [B, H, N] as attention, in the layer that is about to run
    keys: Tensor | None = None  # [B, N, Dk] all heads concatenated
    attended_keys: Tensor | None = None  # [B, N, Dk] after rotation, all heads concatenated
    prompt_keys: Tensor | None = None  # [B, T, Dk] likewise of the columns that are not visual
    final_states: Tensor | None = None  # [B, N, W] after the decoder's last norm
    prompt_states: Tensor | None = None  # [B, T, W] likewise of the columns that are not visual
    rotary: Tensor | None = None  # [B, N, R] cosines and sines of each token's rotary angles, side by side
    prompt_rotary: Tensor | None = None  # [B, T, R] likewise of the columns that are not visual
    stage: int = -1  # which of the method's cuts this is, from 0; -1: the last, for most the only one
    among: Tensor | None = None  # [B, M] int64, ascending: tokens that are still there; None: all
    evidence: Tensor | None = None  # [B, N] bool
    seeds: Sequence[int] | None = None  # one int a row, from that row's own content

    def __post_init__(self) -> None:
        check_shape("features", self.features, B=None, N=None, D=None)
        check_grid(self.grid, self.features.shape[1])

    @property
    def batch(self) -> int:
        """B."""
        return self.features.shape[0]

    @property
    def count(self) -> int:
        """N."""
        return self.features.shape[1]


@dataclass(frozen=True, eq=False)
class Choice:
    """What a method answers."""

    kept: Tensor  # [B, k] int64, ascending
    scores: dict[str, Tensor] = field(default_factory=dict)  # every cue's map, [B, N] float32
    features: Tensor | None = None  # [B, k, D] rewritten features of the kept rows, stage 0 only


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Base of all methods: a frozen configuration, one question (`needs`) and one answer (`choose`).

    Parameters
    ----------
    keep
        Count (int) or share (float in (0, 1]) of the visual tokens.
    rounding
        How a share becomes a count, see :func:`lib.pruning.picking.budget`.
    positions
        "original": kept tokens keep the position ids they had; "renumbered": the shortened prompt counts
        anew.
    layer
        0: before the language model; K > 0: on entering its decoder layer K.
    """

    name: ClassVar[str]
    stage: ClassVar[str]  # "encoder": layer must be 0; "decoder": above 0; "any"; "staged": see `schedule`
    paper: ClassVar[str]
    code: ClassVar[str]
    ours: ClassVar[str]

    keep: int | float
    rounding: str = "floor"  # released code of FastV and AdaptPrune: int(ratio * tokens)
    positions: str = "renumbered"  # papers: what leaves before the language model is not counted
    layer: int = 0

    def __post_init__(self) -> None:
        check_keep(self.keep)
        self.check_shared()

    def check_shared(self) -> None:
        """Refuse bad values of the fields that every method has, but for ``keep``."""
        check_option("rounding", self.rounding, ROUNDINGS)
        check_option("positions", self.positions, POSITIONS)
        check_integer("layer", self.layer, least=0)
        if self.stage == "encoder" and self.layer != 0:
            raise ValueError(f"layer must be 0, {self.name} prunes before the decoder; got {self.layer!r}")
        if self.stage == "staged" and self.layer != 0:
            raise ValueError(
                f"layer must be 0, {self.name} cuts where its fields cuts and layers say; got {self.layer!r}"
            )
        if self.stage == "decoder" and self.layer == 0:
            raise ValueError(f"layer must be above 0, {self.name} reads the decoder; got {self.layer!r}")

    def needs(self) -> Needs:
        """What the executor has to capture."""
        return Needs()

    def schedule(self, layers: int) -> tuple[int, ...]:
        """The cuts: decoder layers, of `layers`, on entering which `choose` is called; 0 is before all of them."""
        return (self.layer,)

    def left(self, tokens: int) -> tuple[int, ...]:
        """How many of `tokens` are left after each cut."""
        return (budget(self.keep, tokens, self.rounding),)

    def lattice(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches into which the encoder shall cut the image, itself made smaller to fit."""
        return grid

    def reads_grid(self) -> bool:
        """Whether the choice depends on where tokens lie; all of them must then lie on one grid."""
        return False

    @abstractmethod
    def choose(self, cues: Cues) -> Choice:
        """Choose the tokens to keep."""

    def budget(self, cues: Cues) -> int:
        """Tokens kept a row."""
        return budget(self.keep, cues.count, self.rounding)

    def see(self, cues: Cues, name: str):
        """The cue called ``name``; refuse a missing one, another shape, NaN and infinity, and a mask that is none."""
        value = getattr(cues, name)
        if value is None:
            raise ValueError(f"{self.name} needs cues.{name}, got None")
        if name in SHAPES:
            known = {"B": cues.batch, "N": cues.count}
            check_shape(name, value, **{size: known.get(size) for size in SHAPES[name]})
            if name not in PADDED:
                check_scores(name, value)
        return check_mask(name, value) if name in MASKS else value

    @classmethod
    def describe(cls) -> dict[str, str]:
        """The row "paper says / released code does / we do"."""
        return {"name": cls.name, "paper": cls.paper, "code": cls.code, "ours": cls.ours}

    @classmethod
    def known_fields(cls) -> tuple[str, ...]:
        """The names that the constructor takes."""
        return tuple(f.name for f in fields(cls))
