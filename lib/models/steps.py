"""A model that goes on from a pruned cache: generation steps, candidates of assisted decoding, a second turn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.models.anatomy import Anatomy
from lib.models.borrowed import CACHE, cache_of, causal_mask
from lib.models.caches import Record, record_of
from lib.models.gate import Gate
from lib.models.inside import Inside
from lib.models.refusals import WHOLE_AGAIN
from lib.models.trace import Call


@dataclass(frozen=True)
class Steps:
    """Forwards on a cache that cuts at `schedule` have filled: their masks and positions are those of the short prompt.

    It holds no state: all that a forward is at is in its `Call`.
    """

    anatomy: Anatomy
    inside: Inside
    gate: Gate
    schedule: tuple[int, ...]
    counting: str  # how positions count, as `Method.positions`

    def enter_decoder(self, call: Call, embeds: Tensor, kwargs: dict) -> dict:
        """What the language model is to go on with, of its `inputs_embeds` [B, n, W] and all of its arguments."""
        cache = cache_of(kwargs)
        record = record_of(cache)
        if record is None or (record.schedule, record.positions) != (self.schedule, self.counting):
            raise ValueError(f"{CACHE} was not filled by this method inside prune{self.gate.hint}")
        if record.rows != embeds.shape[0]:
            raise ValueError(
                f"{CACHE} holds {record.rows} rows, got {embeds.shape[0]} of input_ids: rows of a pruned cache are moved by "
                "its own methods"
            )
        new, held = embeds.shape[1], cache.get_seq_length()
        seen = held + record.before
        positions = kwargs.get("position_ids")
        self._check_turn(call, seen, new, positions, record)
        call.record, record.stay = record, self.gate.stay
        call.short_masks = {cut.layer: cut.extend(call.mask, seen + new) for cut in record.cuts}
        if not record.before and record.schedule[0]:
            return kwargs
        if positions is None:
            positions = torch.arange(held, held + new, device=embeds.device)[None]
        if not call.placed:  # counted from what the cache holds
            positions = positions + record.before
        return kwargs | {
            "attention_mask": call.short_masks[0],
            "position_ids": positions - record.cuts[0].fewer,
        }

    def enter_layer(self, call: Call, number: int, module: nn.Module, hidden: Tensor, kwargs: dict) -> Tensor:
        """Entering a cut's layer, whose cache is shorter than that of the layers before."""
        cut = next(cut for cut in call.record.cuts if cut.layer == number)
        mask = causal_mask(
            self.anatomy.decoder.config, hidden, call.short_masks[number], cache_of(kwargs), number
        )
        call.layer_kwargs = {"attention_mask": mask}
        if self.counting == "renumbered":
            positions = self.inside.positions(call, kwargs, hidden.shape[1]) - cut.fewer
            call.layer_kwargs["position_embeddings"] = self.inside.rotary(hidden, positions)
        return hidden

    def _check_turn(self, call: Call, seen: int, new: int, positions: Tensor | None, record: Record) -> None:
        wrong = call.mask is not None and call.mask.shape[1] != seen + new
        if new > 1:  # rare enough to read the device
            if bool(self.anatomy.visual(call.input_ids).any()):
                raise ValueError(WHOLE_AGAIN)
            if record.schedule == (0,) and call.mask is None and call.placed:
                first = seen
                if positions.ndim == 3 and len(positions) != 4:  # the first of four axes counts the text
                    first += int(record.deltas.reshape(-1)[0])
                wrong = int(positions.reshape(-1)[0]) != first
        if wrong:
            raise ValueError(
                f"{CACHE} stands for {seen} columns, which this input of {new} does not continue: for "
                "a second turn after layer 0, pass only new input_ids and the mask of the whole conversation"
            )
