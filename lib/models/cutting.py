"""Cutting a prompt short: what the method is asked, and what its choice does to the sequence, to the trace and to the cut.

The visual columns leave the sequence for real: later layers compute and cache only what stays. Padding stays in place, and
how much each row loses follows from the shapes of a choice alone. What differs between families is in `lib.models.anatomy`
and `lib.models.tiles`; here is what all have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lib.models.anatomy import Anatomy
from lib.models.borrowed import cache_of, causal_mask
from lib.models.caches import Cut
from lib.models.choosing import Chooser, Decision
from lib.models.columns import kept_columns, renumber, staying, take, take_positions, visual_columns
from lib.models.conditions import read
from lib.models.inside import Inside
from lib.models.prompt_end import PromptEnd
from lib.models.refusals import runs_of
from lib.models.tiles import Encoded, Picture
from lib.models.trace import Call, Trace
from lib.models.whole import predicted
from lib.pruning.methods import Method, Needs


class Cutter:
    """Makes the cuts of one `prune` context, each on entering the language model or one of its layers.

    It holds no state: all that a forward is at is in its `Call`.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        method: Method,
        needs: Needs,
        chooser: Chooser,
        ends: PromptEnd,
        trace: Trace,
    ) -> None:
        self.anatomy, self.method, self.needs = anatomy, method, needs
        self.chooser, self.ends, self.trace = chooser, ends, trace
        self.inside = Inside(anatomy, needs)
        self.schedule = method.schedule(len(anatomy.layers))
        # Where every image gives one grid, a choice before the language model needs no prompt: it is made as the features
        # enter the projector. Elsewhere it waits for the prompt, at the language model's door.
        self.early = anatomy.grid is not None and self.schedule == (0,) and not needs.words

    def choose_early(self, encoded: Encoded) -> Decision:
        """A choice that needs no prompt."""
        return self.chooser.choose(encoded, self._pictures(encoded))

    def _pictures(self, encoded: Encoded, counts: Callable[[], Sequence[int]] = list) -> list[Picture]:
        """What became of the images; `counts` gives the visual tokens of each row, for families that need them."""
        pictures = self.anatomy.family.layout(self.anatomy, encoded, counts)
        self.chooser.check_batch(pictures)
        return pictures

    def enter_decoder(self, call: Call, early: Decision | None, embeds: Tensor, kwargs: dict) -> dict:
        """Read the prompt as it comes to the language model; where the first cut is here, make it.

        Parameters
        ----------
        call : of a prefill.
        early : the choice that the projector has seen, if one was made there.
        embeds, kwargs : the language model's `inputs_embeds` [B, S, W] and all of its arguments.

        Returns
        -------
        The arguments to go on with.
        """
        batch, length, _ = embeds.shape
        call.visual = self.anatomy.visual(call.input_ids)
        if call.encoded is None:
            self._read(call, None)
            raise ValueError(
                "images must be encoded inside prune; no image went through the vision tower"
                f"{self.ends.gate.hint}"
            )
        pictures = self._pictures(call.encoded, lambda: runs_of(call.visual))
        sizes = [len(picture.rows) for picture in pictures]
        if length < max(sizes):
            self._read(call, sizes)
        if batch % len(pictures):
            raise ValueError(
                f"input_ids must have one image a sample, got {len(pictures)} images for {batch} rows"
            )
        call.repeat, call.pictures = batch // len(pictures), pictures
        call.columns = visual_columns(call.visual, max(sizes))
        self.trace.grids = [tuple(view.grid for view in picture.views) for picture in pictures]
        rows = torch.full((len(pictures), max(sizes)), -1, dtype=torch.int64)
        for line, picture in zip(rows, pictures, strict=True):
            line[: len(picture.rows)] = picture.rows
        rows = rows.to(embeds.device).repeat_interleave(call.repeat, 0)
        images = call.encoded.projected.to(embeds)[rows.clamp_min(0)]
        foreign = (rows < 0)[..., None]
        call.sound["genuine"] = ((take(embeds, call.columns) == images) | images.isnan() | foreign).all()
        call.sound["behind"] = (length - 1 - call.image_end).amin()
        self.ends.settle(call, len(pictures))
        self._recall(call)
        if self.needs.prompt or self.needs.words:
            call.words = take(embeds, self.inside.words(call, call.visual))
        if self.schedule[0]:
            return kwargs
        decision = call.known[0] if call.known else early
        if decision is None:
            decision = self.chooser.choose(call.encoded, pictures, self._prompt(call))
        if not self.early and decision.features is not None:
            embeds = self._rewritten(call, embeds, decision.features, rows)
        index, positions = self._apply(call, 0, decision, self.inside.positions(call, kwargs, length))
        cut = call.cuts[-1]
        # Always an explicit mask: without one, and without a cache, gaps in the position ids read as packed
        # sequences.
        short = cut.mask if cut.mask is not None else torch.ones_like(index)
        more = self.anatomy.family.shorten(kwargs, index, cut.alive, _flat(call, decision))
        return kwargs | {
            "inputs_embeds": take(embeds, index),
            "position_ids": positions,
            "attention_mask": short,
            **more,
        }

    def enter_layer(self, call: Call, number: int, module: nn.Module, hidden: Tensor, kwargs: dict) -> Tensor:
        """Choose on entering a layer; give the short sequence to it, and what belongs to that to its successors."""
        before = call.cuts[-1] if call.cuts else None
        if call.known:
            decision = call.known[len(call.cuts)]
        else:
            if self.needs.next_attention:
                self.inside.look_ahead(call, module, hidden, kwargs)
            seen = self.inside.cues(call, module, hidden, kwargs) | self._prompt(call)
            latest = call.decisions[-1] if before else None
            decision = self.chooser.choose(call.encoded, call.pictures, seen, latest, len(call.cuts))
        if decision.features is not None:
            raise ValueError(
                f"features may be rewritten at layer 0 only, {self.method.name} runs at {self.schedule[0]}"
            )
        positions = self.inside.positions(call, kwargs, call.visual.shape[1])
        index, positions = self._apply(call, number, decision, positions)
        call.places = positions
        local = index if before is None else torch.searchsorted(before.index.contiguous(), index.contiguous())
        short = take(hidden, local)
        if self.method.positions == "original":
            rotary = tuple(take(part, index) for part in kwargs["position_embeddings"])
        else:
            rotary = self.inside.rotary(short, positions)
        mask = causal_mask(self.anatomy.decoder.config, short, call.cuts[-1].mask, cache_of(kwargs), number)
        call.layer_kwargs = {"attention_mask": mask, "position_embeddings": rotary}
        return short

    def _recall(self, call: Call) -> None:
        """Without a cache each step of a generation is a prefill of the same prompt: its choices stand."""
        found = self.ends.recall(call, call.encoded.projected)
        if found is not None:
            call.sound["known"], known = found
            if self._read(call, call.sizes)["known"]:
                call.known = known

    def _prompt(self, call: Call) -> dict[str, Tensor]:
        """The prompt's words as a method sees them, one row a sample."""
        if not self.needs.hears:
            return {}
        words = self.inside.words(call, call.visual)
        real = call.real & ~call.visual
        real = real if call.asked is None else real & call.asked
        valid = take(real, words) & (words > call.image_end[:, None])
        if call.words is not None:  # a method that reads what words say needs one; DART can do without
            call.sound["words"] = valid.any(1).all()
        # On the CPU a read costs nothing, and a method would stumble over what is missing.
        if valid.device.type == "cpu":
            self._read(call, call.sizes)
        told = {} if call.words is None else {"prompt": call.words[:: call.repeat]}
        return told | {"prompt_valid": valid[:: call.repeat]}

    def _rewritten(self, call: Call, embeds: Tensor, features: Tensor, rows: Tensor) -> Tensor:
        """The prompt [B, S, W] with what the projector makes of rewritten features; `rows` [B, N] as in `Picture`."""
        new = self.anatomy.projector.forward(features.reshape(call.encoded.shape)).flatten(0, -2)
        old = take(embeds, call.columns)
        values = torch.where((rows < 0)[..., None], old, new.to(embeds)[rows.clamp_min(0)])
        return embeds.scatter(1, call.columns[..., None].expand_as(values), values)

    def _apply(self, call: Call, layer: int, decision: Decision, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Verify a choice, write the trace and note the cut.

        Returns the columns that make the short sequence, [B, S'], and their position ids.
        """
        visual, real, sizes = call.visual, call.real, call.sizes
        marks = visual.new_zeros(len(sizes), max(sizes))
        for row, kept in zip(marks, decision.kept, strict=True):
            row.index_fill_(0, kept, True)
        stays = staying(visual, marks.repeat_interleave(call.repeat, 0))
        if call.labels is not None and len(call.cuts) + 1 == len(self.schedule):
            call.sound["labels"] = predicted(call.labels, stays, real, call.prompt_end)
        if not call.known:
            self._read(call, sizes, decision)
        lost = {size - len(kept) for size, kept in zip(sizes, decision.kept, strict=True)}
        present = None
        if call.cuts:
            present = torch.zeros_like(visual).scatter(1, call.cuts[-1].index, True)
        index = kept_columns(stays, visual.shape[1] - min(lost), present)
        short = None if call.mask is None else take(call.mask, index)
        if len(lost) > 1:  # rows that lost more than others hold fillers, which count as padding
            short = (torch.ones_like(index) if short is None else short) * stays.gather(1, index)
        if self.method.positions == "original":
            positions, fewer = take_positions(positions, index), 0
        else:
            positions, fewer = renumber(positions, index, stays, real)
        self.trace.kept = [kept.detach() for kept in decision.kept]
        self.trace.scores = decision.scores
        call.decisions.append(decision)
        call.cuts.append(Cut(layer, visual.shape[1], index, stays, short, fewer))
        self.trace.lengths = call.lengths(self.trace.layers)
        return index, positions

    def _read(
        self, call: Call, sizes: Sequence[int] | None, decision: Decision | None = None
    ) -> dict[str, int]:
        """Read from the device what has to hold by now, see `conditions.read`."""
        if sizes is None and self.anatomy.tokens is not None:
            sizes = [self.anatomy.tokens] * len(call.input_ids)
        return read(call, sizes, decision, self.method.name, self.ends.given)


def _flat(call: Call, decision: Decision) -> Tensor:
    """Places of the kept tokens among all visual tokens of the batch, row after row."""
    places, first = [], 0
    for kept, size in zip(decision.kept, call.sizes, strict=True):
        for _ in range(call.repeat):
            places.append(kept + first)
            first += size
    return torch.cat(places)
