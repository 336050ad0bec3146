"""What every method has to hold, checked on constructed cues: no model is needed.

Shapes: B batch, N visual tokens, D feature width, E joint image-text width, T text tokens, H heads, k kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType

import torch
from torch import Tensor

from lib.pruning import methods
from lib.pruning.base import Choice, Cues, Method, Needs, comments

SQUARE, OBLONG = (6, 6), (4, 9)  # the second tells rows from columns; both hold 36 tokens
KEEPS = (1, 7, 0.5)
BATCH = 3
STAGES = ("encoder", "decoder", "any", "staged")
# Which cues each need brings.
BROUGHT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "saliency_layer": ("saliency",),
        "patches": ("patches", "image"),
        "vision_keys": ("vision_keys",),
        "projected": ("projected",),
        "text": ("tokens", "sentence", "text_valid", "text_special", "text_importance"),
        "attention": ("attention",),
        "next_attention": ("next_attention",),
        "words": ("prompt", "prompt_valid"),
        "prompt": ("prompt", "prompt_valid", "prompt_attention"),
        "keys": ("keys",),
        "attended_keys": ("attended_keys", "prompt_keys", "prompt_valid"),
        "final_states": ("final_states", "prompt_states", "prompt_valid"),
        "rotary": ("rotary", "prompt_rotary", "prompt_valid"),
        "evidence": ("evidence",),
        "seeds": ("seeds",),
    }
)
HOLDS = (
    "a frozen dataclass with a name of its own, a stage and the three rows of the table of methods",
    "sees only the cues that needs() asks for",
    "keeps exactly the budget: int64, within the picture, ascending, no token twice",
    "gives the same answer to the same cues",
    "no picture's answer depends on its batch mates",
    "reads no value on the host, so it never stops an accelerator",
    "keeping every token changes nothing",
)


def make_cues(seed: int = 0, batch: int = 2, grid: tuple[int, int] = SQUARE, width: int = 8) -> Cues:
    """Every cue filled with random values; T = 5 text tokens, the last of them padding."""
    generator = torch.Generator().manual_seed(seed)
    tokens = math.prod(grid)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def positive(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def circle(count: int) -> Tensor:
        angles = torch.arange(count)[:, None] / torch.tensor([1.0, 8.0]) + positive(batch, 1, 1)
        return torch.cat([angles.cos(), angles.cos(), angles.sin(), angles.sin()], -1)

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
        prompt=normal(batch, 5, width),
        prompt_valid=torch.tensor([False, True, True, True, True]).expand(batch, -1),
        prompt_attention=positive(batch, 4, 5, tokens),
        next_attention=positive(batch, 4, tokens),
        attended_keys=normal(batch, tokens, width),
        prompt_keys=normal(batch, 5, width),
        final_states=normal(batch, tokens, width),
        prompt_states=normal(batch, 5, width),
        rotary=circle(tokens),
        prompt_rotary=circle(5),
    )


def row_of(cues: Cues, row: int) -> Cues:
    """The same cues with one row of the batch."""
    values = {field.name: getattr(cues, field.name) for field in fields(cues)}
    cut = {
        name: value if name in ("grid", "stage") or value is None else value[row : row + 1]
        for name, value in values.items()
    }
    return Cues(**cut)


def on_meta(cues: Cues) -> Cues:
    """The same cues without values."""
    values = {field.name: getattr(cues, field.name) for field in fields(cues)}
    return Cues(
        **{name: value.to("meta") if isinstance(value, Tensor) else value for name, value in values.items()}
    )


def asked_for(cues: Cues, needs: Needs) -> Cues:
    """The cues without those that a method did not ask for."""
    kept = {cue for need, brought in BROUGHT.items() if _wanted(needs, need) for cue in brought}
    return replace(cues, **{cue: None for brought in BROUGHT.values() for cue in brought if cue not in kept})


def _wanted(needs: Needs, need: str) -> bool:
    return getattr(needs, need) not in (None, False)


def rows() -> list[dict[str, str]]:
    """One row a cue, written from the source of `Cues` and `Needs`: its name, what it is, how to ask for it.

    Of several needs that bring a cue, the first is explained.
    """
    needs_of: dict[str, list[str]] = {}
    for need, brought in BROUGHT.items():
        for cue in brought:
            needs_of.setdefault(cue, []).append(need)
    told, wanted = comments(Cues), comments(Needs)
    return [
        {
            "cue": f"cues.{field.name}",
            "what it is": told[field.name],
            "ask with Needs(...)": " or ".join(needs_of.get(field.name, ["always there"])),
            "meaning of the need": wanted.get(needs_of.get(field.name, [""])[0], ""),
        }
        for field in fields(Cues)
    ]


def check_method(method: Method) -> tuple[str, ...]:
    """Run a method on constructed cues and refuse it at its first fault.

    Parameters
    ----------
    method : of any budget; other budgets are tried too. It must not need a model to choose.

    Returns
    -------
    tuple of str
        What holds, a sentence each.

    Raises
    ------
    ValueError
        One, that names the method and the fault: a wrong count or number type, a token out of range, twice or out
        of order, a cue used but not asked for, an answer that changes or depends on batch mates, a value read
        on the host, or tokens changed though all are kept.
    """
    _check_class(method)
    variants = [method] if method.keep is None else [replace(method, keep=keep) for keep in KEEPS]
    for variant in variants:
        for seed, grid in enumerate((SQUARE, OBLONG)):
            cues = asked_for(make_cues(seed, BATCH, grid), variant.needs())
            choice = _choose(variant, cues)
            _check_choice(variant, cues, choice)
            _check_again(variant, cues, choice)
            _check_alone(variant, cues, choice)
    _check_host(variants[0])
    if method.keep is not None:
        _check_everything(replace(method, keep=1.0))
    return HOLDS


def _fault(method: Method, text: str) -> ValueError:
    return ValueError(f"{getattr(method, 'name', type(method).__name__)}: {text}")


def _check_class(method: Method) -> None:
    if not isinstance(method, Method):
        raise ValueError(f"method must be a Method, made by calling its class, got {method!r}")
    kind = type(method)
    if "__dataclass_params__" not in vars(kind):
        raise _fault(method, "the class needs @dataclass(frozen=True, kw_only=True)")
    for word in ("name", "stage", "paper", "code", "ours"):
        if not isinstance(getattr(kind, word, None), str) or not getattr(kind, word).strip():
            raise _fault(method, f"{word} must be a text, got {getattr(kind, word, None)!r}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", kind.name):
        raise _fault(method, "name must be small letters, digits and _, as file names and labels hold it")
    if kind.name in methods.NAMES and getattr(methods, kind.__name__, None) is not kind:
        raise _fault(method, "this name is taken by a method of lib.pruning.methods; choose another")
    if kind.stage not in STAGES:
        raise _fault(method, f"stage must be one of {', '.join(STAGES)}, got {kind.stage!r}")
    if not isinstance(method.needs(), Needs):
        raise _fault(method, f"needs() must return Needs, got {method.needs()!r}")


def _choose(method: Method, cues: Cues) -> Choice:
    try:
        return method.choose(cues)
    except ValueError:
        raise  # says what it is about
    except Exception as error:
        told = f"choose() fails on the cues that needs() asks for: {type(error).__name__}: {error}"
        raise _fault(method, told) from error


def _check_choice(method: Method, cues: Cues, choice: Choice) -> None:
    if not isinstance(choice, Choice):
        raise _fault(method, f"choose() must return a Choice, got {type(choice).__name__}")
    kept = choice.kept
    if kept.dtype != torch.int64 or kept.ndim != 2 or len(kept) != cues.batch:
        raise _fault(method, f"kept must be int64 [B={cues.batch}, k], got {kept.dtype} {list(kept.shape)}")
    if method.keep is not None and kept.shape[1] != method.budget(cues):
        told = f"keep={method.keep} of {cues.count} tokens is {method.budget(cues)}, got {kept.shape[1]}"
        raise _fault(method, f"kept has the wrong count: {told}")
    if kept.numel() and not 0 <= int(kept.min()) <= int(kept.max()) < cues.count:
        raise _fault(
            method, f"kept must lie in 0..{cues.count - 1}, got {int(kept.min())}..{int(kept.max())}"
        )
    for row in kept.tolist():
        if len(set(row)) < len(row):
            raise _fault(method, f"kept must hold no token twice, got {row}")
        if row != sorted(row):
            raise _fault(method, f"kept must be ascending, got {row}")
    for name, scores in choice.scores.items():
        if scores.dtype != torch.float32 or scores.shape != (cues.batch, cues.count):
            raise _fault(
                method, f"scores[{name!r}] must be float32 [B, N], got {scores.dtype} {list(scores.shape)}"
            )
        if not scores.isfinite().all():
            raise _fault(method, f"scores[{name!r}] must be finite")
    if choice.features is not None:
        wanted = (*kept.shape, cues.features.shape[2])
        if method.layer or method.stage == "staged":
            raise _fault(method, "features may be rewritten before the language model only, at layer 0")
        if choice.features.shape != wanted:
            raise _fault(
                method, f"features must be [B, k, D] {list(wanted)}, got {list(choice.features.shape)}"
            )


def _check_again(method: Method, cues: Cues, choice: Choice) -> None:
    if not torch.equal(_choose(method, cues).kept, choice.kept):
        raise _fault(
            method, "the same cues must give the same tokens; draw from cues.seeds, not from a global state"
        )


def _check_alone(method: Method, cues: Cues, choice: Choice) -> None:
    for row in range(cues.batch):
        alone, told = _choose(method, row_of(cues, row)), choice.kept[row].tolist()
        if alone.kept[0].tolist() != told:
            raise _fault(
                method,
                f"a row depends on its batch mates: kept {told} beside them, {alone.kept[0].tolist()} alone",
            )
        if choice.features is not None and not torch.allclose(
            alone.features[0], choice.features[row], atol=1e-6
        ):
            raise _fault(method, "a row's rewritten features depend on its batch mates")


def _check_host(method: Method) -> None:
    try:
        method.choose(on_meta(asked_for(make_cues(), method.needs())))
    except Exception as error:
        told = f"choose() reads values on the host or mixes devices ({type(error).__name__}: {error})"
        raise _fault(method, told) from error


def _check_everything(method: Method) -> None:
    cues = asked_for(make_cues(), method.needs())
    choice = _choose(method, cues)
    if not torch.equal(choice.kept, torch.arange(cues.count).expand(cues.batch, -1)):
        raise _fault(method, "keep=1.0 must keep every token")
    if choice.features is not None and not torch.equal(choice.features, cues.features):
        raise _fault(method, "keep=1.0 must leave the features as they are")
