"""The hooks that shorten the sequence while the model runs.

A cut at layer 0 drops tokens before the language model, one at K > 0 on entering its layer K; a staged method makes
several. The visual columns leave the sequence for real: later layers compute and cache only what stays. Padding stays
in place, and how much each row loses follows from the shapes of a choice alone.

What differs between families is in `lib.models.anatomy` and `lib.models.tiles`; here is what all have in common.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from lib.models.anatomy import Anatomy
from lib.models.attention import Sight, probe
from lib.models.borrowed import CACHE, arguments, cache_of, causal_mask
from lib.models.caches import Cut, Record, record_of, remember
from lib.models.choosing import Chooser, Decision
from lib.models.columns import (
    kept_columns,
    renumber,
    staying,
    take,
    take_positions,
    visual_columns,
)
from lib.models.conditions import read
from lib.models.gate import Gate
from lib.models.guards import Uncopied
from lib.models.inside import Inside
from lib.models.prompt_end import BYPASSED, PromptEnd
from lib.models.refusals import WHOLE_AGAIN, check_form, runs_of
from lib.models.tiles import Encoded, Picture, pack_numbers
from lib.models.trace import Call, Trace
from lib.models.vision import Watch
from lib.models.whole import hand_back, predicted
from lib.pruning.methods import Method, Needs


class Executor(Uncopied, threading.local):
    """The hooks of one `prune` context. What a call is at is each thread's own: one may read while another generates."""

    def __init__(
        self,
        anatomy: Anatomy,
        method: Method,
        needs: Needs,
        watch: Watch,
        chooser: Chooser,
        ends: PromptEnd,
        gate: Gate,
        trace: Trace,
    ) -> None:
        self.anatomy, self.method, self.needs = anatomy, method, needs
        self.watch, self.chooser, self.ends, self.gate, self.trace = watch, chooser, ends, gate, trace
        self.inside = Inside(anatomy, needs)
        self.schedule = method.schedule(len(anatomy.layers))
        # Where every image gives one grid, a choice before the language model needs no prompt: it is made as the features
        # enter the projector. Elsewhere it waits for the prompt, at the language model's door.
        self.early = anatomy.grid is not None and self.schedule == (0,) and not needs.words
        self.encoded: Encoded | None = None
        self.decision: Decision | None = None
        self.call: Call | None = None

    def install(self, stack: ExitStack) -> None:
        parts, first, guard = self.anatomy, self.schedule[0], self.gate.hook
        before = [(parts.core, self._core), (parts.projector, self._project), (parts.decoder, self._decode)]
        before += [(parts.layers[i], partial(self._layer, i)) for i in range(first, len(parts.layers))]
        for module, hook in before:
            stack.callback(module.register_forward_pre_hook(guard(hook), with_kwargs=True).remove)
        stack.callback(parts.projector.register_forward_hook(guard(self._projected)).remove)
        stack.callback(parts.decoder.register_forward_hook(guard(self._decoded)).remove)
        if self.needs.attention or self.needs.prompt or self.needs.attended_keys:
            for layer in self.schedule:
                stack.enter_context(probe(parts.layers[layer - 1].self_attn, guard(self._look)))
        if parts.family.packs:
            # The one place where the model is told the sizes of images; `generate` calls it outside any forward.
            parts.core.pack_image_features = self._packing(parts.core.pack_image_features)
            stack.callback(delattr, parts.core, "pack_image_features")

    # Images

    def _project(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        self.trace.ran = True
        features = self.watch.spread(args[0])
        self.encoded, self.decision = self.watch.encoded(features), None
        if self.early:
            if self.needs.projected:  # not the call, which would come back here
                self.encoded.projected = module.forward(features).flatten(0, -2)
            self.decision = self._choose(self._pictures())
            if self.decision.features is not None:
                features = self.decision.features.reshape(features.shape)
        return (features, *args[1:]), kwargs

    def _projected(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.encoded.projected = output.detach().flatten(0, -2)

    def _packing(self, pack: Callable) -> Callable:
        """The model's packing of crops, which is run once more on the numbers of their cells."""

        @functools.wraps(pack)
        def packing(*args, **kwargs):
            if self.gate.within:
                given = inspect.signature(pack).bind(*args, **kwargs).arguments
                self.encoded.packed = pack_numbers(pack, given)
            return pack(*args, **kwargs)

        return packing

    def _pictures(self, counts: Callable[[], Sequence[int]] = list) -> list[Picture]:
        """What became of the images; `counts` gives the visual tokens of each row, for families that need them."""
        pictures = self.anatomy.family.layout(self.anatomy, self.encoded, counts)
        self.chooser.check_batch(pictures)
        return pictures

    def _choose(self, pictures: Sequence[Picture], own: dict | None = None) -> Decision:
        cuts = [] if self.call is None else self.call.cuts
        if own is None or "features" not in own:
            return self.chooser.choose(self.encoded, pictures, own or {})
        before = self.call.decisions[-1] if cuts else None
        decision = self.chooser.choose(self.encoded, pictures, own, before, len(cuts))
        if decision.features is not None:
            raise ValueError(
                f"features may be rewritten at layer 0 only, {self.method.name} runs at {self.schedule[0]}"
            )
        return decision

    # Sequence

    def _core(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if module is not self.anatomy.core:
            raise ValueError(
                "model runs as a copy of the one being pruned (on another device?): call that one"
            )
        self.trace.ran, labels = True, self.ends.take_labels()
        if self.gate.foreign and self.ends.run is None:
            self.encoded = None  # of an earlier call; images of this one come with it
        bound = arguments(module, args, kwargs)
        if bound.get("input_ids") is None:
            raise ValueError(
                "input_ids must be given: inputs_embeds alone do not say which columns are visual"
            )
        given = bound.get("mm_encoder_outputs") or {}
        kinds = {
            "image": given.get("image") is not None or bound.get("pixel_values") is not None,
            "video": given.get("video") is not None or bound.get("pixel_values_videos") is not None,
        }
        cache = bound[CACHE]
        if any(kinds.values()) and cache is not None and cache.get_seq_length():
            raise ValueError(f"{CACHE} must be empty when images come in: later chunks cannot be pruned")
        if kinds["video"] and (kinds["image"] or not self.anatomy.family.video):
            allowed = (
                "images or videos in a batch, not both" if self.anatomy.family.video else "images, not videos"
            )
            raise ValueError(
                f"pixel_values_videos cannot be pruned here: {self.anatomy.name} takes {allowed}"
            )
        for output in given.values():
            if output is not None and getattr(output, "last_hidden_state", None) is None:
                raise ValueError(
                    "mm_encoder_outputs must come whole from this model: no chunked prefill, no own features"
                )
        placed = bound.get("position_ids") is not None
        record = None if placed or cache is None else record_of(cache)
        if record is not None and record.deltas is not None:
            module.rope_deltas = record.deltas  # of these rows, whatever the model has read since
        self.call = Call(bound["input_ids"], labels=labels, placed=placed)

    def _decode(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        call, mask, cache = self.call, kwargs.get("attention_mask"), cache_of(kwargs)
        if call is None:
            raise ValueError("the language model must be reached through the whole model inside prune")
        check_form(mask, cache)
        if self.schedule[0] and module.training and getattr(module, "gradient_checkpointing", False):
            raise ValueError("layer must be 0 with gradient checkpointing, which would select twice")
        positions = kwargs.get("position_ids")
        call.mask = mask
        call.positions = positions if positions is not None and positions.ndim == 3 else None
        call.prefill = cache is None or cache.get_seq_length() == 0
        step = self._prefill if call.prefill else self._continue
        return args, step(kwargs["inputs_embeds"], kwargs)

    def _prefill(self, embeds: Tensor, kwargs: dict) -> dict:
        call = self.call
        batch, length, _ = embeds.shape
        call.visual = self._is_visual(call.input_ids)
        if self.encoded is None:
            self._read_counts(None)
            raise ValueError(
                f"images must be encoded inside prune; no image went through the vision tower{self.gate.hint}"
            )
        pictures = self._pictures(lambda: runs_of(call.visual))
        sizes = [len(picture.rows) for picture in pictures]
        if length < max(sizes):
            self._read_counts(sizes)
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
        images = self.encoded.projected.to(embeds)[rows.clamp_min(0)]
        foreign = (rows < 0)[..., None]
        call.sound["genuine"] = ((take(embeds, call.columns) == images) | images.isnan() | foreign).all()
        call.sound["behind"] = (length - 1 - call.image_end).amin()
        self.ends.settle(call, len(pictures))
        self._recall(sizes)
        if self.needs.prompt or self.needs.words:
            call.words = take(embeds, self.inside.words(call, call.visual))
        if self.schedule[0]:
            return kwargs
        decision = call.known[0] if call.known else self.decision
        if decision is None:
            decision = self._choose(pictures, self._prompt())
        if not self.early and decision.features is not None:
            embeds = self._rewrite(embeds, decision.features, rows)
        positions = kwargs.get("position_ids")
        positions = torch.arange(length, device=embeds.device)[None] if positions is None else positions
        index, positions = self._apply(0, decision, positions)
        cut = call.cuts[-1]
        # Always an explicit mask: without one, and without a cache, gaps in the position ids read as packed
        # sequences.
        short = cut.mask if cut.mask is not None else torch.ones_like(index)
        more = self.anatomy.family.shorten(kwargs, index, cut.alive, self._flat(decision, sizes))
        return kwargs | {
            "inputs_embeds": take(embeds, index),
            "position_ids": positions,
            "attention_mask": short,
            **more,
        }

    def _recall(self, sizes: Sequence[int]) -> None:
        """Without a cache each step of a generation is a prefill of the same prompt: its choices stand."""
        found = self.ends.recall(self.call, self.encoded.projected)
        if found is not None:
            self.call.sound["known"], known = found
            if self._read_counts(sizes)["known"]:
                self.call.known = known

    def _is_visual(self, ids: Tensor) -> Tensor:
        video = self.anatomy.video_token_id
        visual = ids == self.anatomy.image_token_id
        return visual if video is None else visual | (ids == video)

    def _rewrite(self, embeds: Tensor, features: Tensor, rows: Tensor) -> Tensor:
        """The prompt [B, S, W] with what the projector makes of rewritten features; `rows` [B, N] as in `Picture`."""
        new = self.anatomy.projector.forward(features.reshape(self.encoded.shape)).flatten(0, -2)
        columns = self.call.columns
        values = torch.where((rows < 0)[..., None], take(embeds, columns), new.to(embeds)[rows.clamp_min(0)])
        return embeds.scatter(1, columns[..., None].expand_as(values), values)

    def _flat(self, decision: Decision, sizes: Sequence[int]) -> Tensor:
        """Places of the kept tokens among all visual tokens of the batch, row after row."""
        places, first = [], 0
        for kept, size in zip(decision.kept, sizes, strict=True):
            for _ in range(self.call.repeat):
                places.append(kept + first)
                first += size
        return torch.cat(places)

    def _apply(self, layer: int, decision: Decision, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Verify a choice, write the trace and note the cut.

        Returns the columns that make the short sequence, [B, S'], and their position ids.
        """
        call = self.call
        visual, before = call.visual, call.cuts[-1] if call.cuts else None
        sizes = [len(picture.rows) for picture in call.pictures]
        marks = visual.new_zeros(len(sizes), max(sizes))
        for row, kept in zip(marks, decision.kept, strict=True):
            row.index_fill_(0, kept, True)
        stays = staying(visual, marks.repeat_interleave(call.repeat, 0))
        real = torch.ones_like(visual) if call.mask is None else call.mask != 0
        if call.labels is not None and len(call.cuts) + 1 == len(self.schedule):
            call.sound["labels"] = predicted(call.labels, stays, real, call.prompt_end)
        if not call.known:
            self._read_counts(sizes, decision)
        lost = {size - len(kept) for size, kept in zip(sizes, decision.kept, strict=True)}
        total = visual.shape[1]
        present = None
        if before is not None:
            present = torch.zeros_like(visual).scatter(1, before.index, True)
        index = kept_columns(stays, total - min(lost), present)
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
        call.cuts.append(Cut(layer, total, index, stays, short, fewer))
        self.trace.lengths = call.lengths(self.trace.layers)
        return index, positions

    def _read_counts(self, sizes: Sequence[int] | None, decision: Decision | None = None) -> dict[str, int]:
        """Read from the device what has to hold by now, see `conditions.read`."""
        if sizes is None and self.anatomy.tokens is not None:
            sizes = [self.anatomy.tokens] * len(self.call.input_ids)
        return read(self.call, sizes, decision, self.method.name, self.ends.given)

    def _continue(self, embeds: Tensor, kwargs: dict) -> dict:
        """A forward on a filled cache: generation steps, candidates of assisted decoding, a second turn."""
        call, cache = self.call, cache_of(kwargs)
        record = record_of(cache)
        if record is None or (record.schedule, record.positions) != (self.schedule, self.method.positions):
            raise ValueError(f"{CACHE} was not filled by this method inside prune{self.gate.hint}")
        if record.rows != embeds.shape[0]:
            raise ValueError(
                f"{CACHE} holds {record.rows} rows, got {embeds.shape[0]} of input_ids: rows of a pruned cache are moved by "
                "its own methods"
            )
        new, held = embeds.shape[1], cache.get_seq_length()
        seen = held + record.before
        positions = kwargs.get("position_ids")
        self._check_turn(seen, new, positions, record)
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

    def _check_turn(self, seen: int, new: int, positions: Tensor | None, record: Record) -> None:
        call = self.call
        wrong = call.mask is not None and call.mask.shape[1] != seen + new
        if new > 1:  # rare enough to read the device
            if bool(self._is_visual(call.input_ids).any()):
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

    def _prompt(self) -> dict[str, Tensor]:
        """The prompt's words as a method sees them, one row a sample."""
        call = self.call
        if not self.needs.hears:
            return {}
        words = self.inside.words(call, call.visual)
        real = torch.ones_like(call.visual) if call.mask is None else call.mask != 0
        real = real & ~call.visual if call.asked is None else real & ~call.visual & call.asked
        valid = take(real, words) & (words > call.image_end[:, None])
        if call.words is not None:  # a method that reads what words say needs one; DART can do without
            call.sound["words"] = valid.any(1).all()
        if (
            valid.device.type == "cpu"
        ):  # here a read costs nothing, and a method would stumble over what is missing
            self._read_counts([len(picture.rows) for picture in call.pictures])
        told = {} if call.words is None else {"prompt": call.words[:: call.repeat]}
        return told | {"prompt_valid": valid[:: call.repeat]}

    def _running(self) -> Call:
        """The forward that is under way, as the hooks of the whole model and of its decoder have prepared it."""
        if self.call is None or self.call.prefill is None:
            raise ValueError(BYPASSED)
        return self.call

    def _look(self, sight: Sight) -> None:
        call = self._running()
        if call.prefill and not call.known:
            self.inside.look(call, sight)

    def _layer(self, number: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        call = self._running()
        if number and number in self.schedule:
            enter = self._select if call.prefill else self._step
            args = (enter(number, module, args[0], kwargs), *args[1:])
        # Rotary embeddings are made by now; gaps in the ids themselves read as packed sequences to flash
        # kernels.
        return args, kwargs | call.layer_kwargs | {"position_ids": None}

    def _select(self, number: int, module: nn.Module, hidden: Tensor, kwargs: dict) -> Tensor:
        """Choose on entering a layer, hand the short sequence to it and its successors."""
        call = self.call
        before = call.cuts[-1] if call.cuts else None
        if call.known:
            decision = call.known[len(call.cuts)]
        else:
            if self.needs.next_attention:
                self.inside.look_ahead(call, module, hidden, kwargs)
            seen = self.inside.cues(call, module, hidden, kwargs)
            decision = self._choose(call.pictures, seen | self._prompt())
        positions = self.inside.positions(call, kwargs, call.visual.shape[1])
        index, positions = self._apply(number, decision, positions)
        call.places = positions
        local = index if before is None else torch.searchsorted(before.index.contiguous(), index.contiguous())
        short = take(hidden, local)
        if self.method.positions == "original":
            rotary = tuple(take(part, index) for part in kwargs["position_embeddings"])
        else:
            rotary = self.inside.rotary(short, positions)
        mask = self._causal(number, short, call.cuts[-1].mask, kwargs)
        call.layer_kwargs = {"attention_mask": mask, "position_embeddings": rotary}
        return short

    def _step(self, number: int, module: nn.Module, hidden: Tensor, kwargs: dict) -> Tensor:
        """A generation step on entering a cut's layer, whose cache is shorter than that of the layers before."""
        call = self.call
        mask = self._causal(number, hidden, call.short_masks[number], kwargs)
        call.layer_kwargs = {"attention_mask": mask}
        if call.record.positions == "renumbered":
            cut = next(cut for cut in call.record.cuts if cut.layer == number)
            positions = self.inside.positions(call, kwargs, hidden.shape[1]) - cut.fewer
            call.layer_kwargs["position_embeddings"] = self.inside.rotary(hidden, positions)
        return hidden

    def _causal(self, number: int, hidden: Tensor, mask: Tensor | None, kwargs: dict) -> Tensor | None:
        return causal_mask(self.anatomy.decoder.config, hidden, mask, cache_of(kwargs), number)

    def _decoded(self, module: nn.Module, args: tuple, output):
        """Give the states back their columns and let the cache remember what it lacks."""
        call, self.call = self.call, None
        if not call.prefill:
            hand_back(output, call.record.cuts, None)
            return output
        if len(call.cuts) < len(self.schedule):
            raise ValueError(BYPASSED)
        cache = cache_of(output)
        if cache is not None:
            deltas = getattr(self.anatomy.core, "rope_deltas", None)
            if deltas is not None:
                deltas = deltas.repeat_interleave(max(1, len(call.input_ids) // len(deltas)), 0)
            remember(
                cache, Record(self.method.positions, tuple(call.cuts), call.behind, self.gate.stay, deltas)
            )
        self.trace.pruned += 1
        self.ends.remember(call, self.encoded.projected)
        hand_back(output, call.cuts, call.prompt_end)
        return output
