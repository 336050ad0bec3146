"""What the calls of a model tell from outside: where the prompt ends, and whether an image that came in was pruned.

A method that reads the prompt must not see what comes after it: candidates of assisted decoding, the words generated so
far where there is no cache, an answer that is scored. Where the prompt ends is settled here, once for all methods.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from numbers import Integral

import torch
from torch import Tensor, nn

from lib.models.borrowed import arguments
from lib.models.choosing import Decision
from lib.models.gate import Gate
from lib.models.guards import Uncopied
from lib.models.trace import Call, Trace
from lib.models.whole import IGNORED

PIXELS = ("pixel_values", "pixel_values_videos")
BYPASSED = (
    "nothing can be pruned where a part of the model runs past the hooks of prune, as one does that was traced, exported or "
    "captured; call the model itself"
)


class NothingPruned(UserWarning):
    """A context of `prune` ended without a call of its model."""


@dataclass
class Run:
    """One call of `generate`: the columns of its prompt (None where it was given no ids), and what its first forward
    decided: `decisions`, one a cut, for the prompt `ids` [B, columns] about the images `projected`."""

    columns: int | None
    ids: Tensor | None = None
    projected: Tensor | None = None
    decisions: Sequence[Decision] = ()


@dataclass
class PromptEnd(Uncopied, threading.local):
    """Where prompts end: as the caller says, else before the labels, else where the input of `generate` ends.

    Each thread's calls are its own. `given` are columns of the input, padding included, one number for all samples or one each.
    """

    given: int | list[int] | None
    trace: Trace
    gate: Gate
    labels: Tensor | None = None
    runs: list[Run] = field(default_factory=list)
    pruned: int = 0  # prompts so far
    awaited: int = 0  # prompts that must have been pruned when the forward under way ends

    def install(self, model: nn.Module, stack: ExitStack) -> None:
        """Watch `model(...)` and `model.generate(...)`."""
        stack.callback(model.register_forward_pre_hook(self.gate.hook(self._enter), with_kwargs=True).remove)
        stack.callback(model.register_forward_hook(self.gate.hook(self._leave)).remove)
        before = vars(model).get("generate")
        restore = functools.partial(setattr, model, "generate", before) if before else None
        stack.callback(restore or functools.partial(delattr, model, "generate"))
        model.generate = self._noting(model, model.generate)

    @property
    def run(self) -> Run | None:
        """The call of `generate` that is under way."""
        return self.runs[-1] if self.runs else None

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.trace.ran = True
        given = arguments(module, args, kwargs) if args else kwargs
        self.labels = given.get("labels")
        self.awaited = self.pruned + _holds_image(given)

    def _leave(self, module: nn.Module, args: tuple, output) -> None:
        if self.pruned < self.awaited:
            raise ValueError(BYPASSED)

    def _noting(self, model: nn.Module, generate: Callable) -> Callable:
        @functools.wraps(generate)
        def noting(*args, **kwargs):
            self.gate.enter()
            try:
                return noted(*args, **kwargs) if self.gate.within else generate(*args, **kwargs)
            finally:
                self.gate.leave()

        def noted(*args, **kwargs):
            self.trace.ran = True
            if kwargs.get("assistant_model") is model:
                raise ValueError(
                    "assistant_model must be another object than the model that is pruned (a copy made outside of prune "
                    "will do): a draft sees no image"
                )
            awaited = self.pruned + _holds_image(kwargs)
            ids = args[0] if args else kwargs.get("inputs")
            ids = kwargs.get("input_ids") if ids is None else ids
            self.runs.append(Run(None if ids is None else ids.shape[1]))
            try:
                out = generate(*args, **kwargs)
            finally:
                self.runs.pop()
            if self.pruned < awaited:
                raise ValueError(BYPASSED)
            return out

        return noting

    def take_labels(self) -> Tensor | None:
        """The labels of the forward that is under way; they are handed out once."""
        labels, self.labels = self.labels, None
        return labels

    def settle(self, call: Call, samples: int) -> None:
        """Write into `call` which columns hold the prompt, and what has to be true of it.

        Parameters
        ----------
        call : of a prefill, `visual` known.
        samples : rows of the input, without the copies that a beam search makes.

        Raises
        ------
        ValueError
            If `prompt_length` is longer than the input or says another number of samples; if `labels` do not cover the
            input.
        """
        rows, length = call.visual.shape
        place = torch.arange(length, device=call.visual.device)
        last = call.image_end
        if call.labels is not None and call.labels.shape != call.input_ids.shape:
            if self.given is None:
                raise ValueError(
                    f"labels must have the shape of input_ids, {tuple(call.input_ids.shape)}, to tell where the prompt ends, "
                    f"got {tuple(call.labels.shape)}; prune(..., prompt_length=...) tells it otherwise"
                )
            call.labels = None  # of columns that are not known
        if self.given is not None:
            ends = self._ends(samples, rows, length).to(place.device)
            call.sound["prompt_length"] = (ends > last).all()
        elif call.labels is not None:
            answer = (call.labels != IGNORED) & (place > last[:, None])
            ends = torch.where(answer.any(1), answer.long().argmax(1), length)
        elif self.run is not None and (self.run.columns or length) < length:
            ends = torch.full_like(last, self.run.columns)
        else:
            return
        call.asked = place < ends[:, None]

    def _ends(self, samples: int, rows: int, length: int) -> Tensor:
        given = torch.as_tensor(self.given)
        if given.ndim and len(given) != samples:
            raise ValueError(
                f"prompt_length must hold one number for each of {samples} samples, got {len(given)}"
            )
        if int(given.max()) > length:
            raise ValueError(
                f"prompt_length must not exceed the {length} columns of the input, got {self.given}"
            )
        return given.expand(samples).repeat_interleave(rows // samples)

    def remember(self, call: Call, projected: Tensor) -> None:
        """Keep the choices of a prefill for the rest of the call of `generate`, and count it."""
        self.pruned += 1
        run = self.run
        if run is not None and run.columns is not None:
            run.ids = call.input_ids[:, : run.columns]
            run.projected, run.decisions = projected, call.decisions

    def recall(self, call: Call, projected: Tensor) -> tuple[Tensor, Sequence[Decision]] | None:
        """Choices that were made in this call of `generate`, and whether prompt and images are the same."""
        run = self.run
        if run is None or run.ids is None or len(run.ids) != len(call.input_ids):
            return None
        if run.projected.shape != projected.shape:
            return None
        same = (call.input_ids[:, : run.columns] == run.ids).all() & (run.projected == projected).all()
        return same, run.decisions


def check_prompt_length(given) -> int | list[int] | None:
    """`prompt_length` of `prune` as a number or a list of numbers; anything else is refused."""
    given = given.tolist() if hasattr(given, "tolist") else given
    numbers = given if isinstance(given, (list, tuple)) else [given]
    whole = all(isinstance(number, Integral) and not isinstance(number, bool) for number in numbers)
    if given is not None and not (numbers and whole and min(numbers) >= 1):
        raise ValueError(
            f"prompt_length must be a number of columns above 0, or one for each sample, got {given!r}"
        )
    return list(given) if isinstance(given, tuple) else given


def _holds_image(given: Mapping) -> bool:
    encoded = given.get("mm_encoder_outputs") or {}
    return any(given.get(name) is not None for name in PIXELS) or any(
        output is not None for output in encoded.values()
    )
