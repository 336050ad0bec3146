"""The hooks that shorten the sequence while the model runs.

A cut at layer 0 drops tokens before the language model, one at K > 0 on entering its layer K; a staged method makes
several. The visual columns leave the sequence for real: later layers compute and cache only what stays. Padding stays
in place, so every row loses the same number of columns and lengths follow from shapes alone.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.masking_utils import create_causal_mask

from lib.models.anatomy import Anatomy
from lib.models.attention import Sight, probe
from lib.models.columns import kept_columns, last_real, put_back, renumber, take, visual_columns
from lib.models.record import RECORD, Call, Cut, Encoded, Record, Trace
from lib.models.vision import Watch
from lib.pruning.methods import Choice, Cues, Method, Needs


class Executor:
    """The hooks of one `prune` context."""

    def __init__(self, anatomy: Anatomy, method: Method, needs: Needs, watch: Watch, trace: Trace) -> None:
        self.anatomy, self.method, self.needs = anatomy, method, needs
        self.watch, self.trace = watch, trace
        self.schedule = method.schedule(len(anatomy.layers))
        self.encoded: Encoded | None = None
        self.call: Call | None = None

    def install(self, stack: ExitStack) -> None:
        parts, first = self.anatomy, self.schedule[0]
        before = [(parts.core, self._core), (parts.projector, self._project), (parts.decoder, self._decode)]
        before += [(parts.layers[i], partial(self._layer, i)) for i in range(first, len(parts.layers))]
        for module, hook in before:
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        stack.callback(parts.projector.register_forward_hook(self._projected).remove)
        stack.callback(parts.decoder.register_forward_hook(self._decoded).remove)
        if self.needs.attention or self.needs.prompt:
            for layer in self.schedule:
                stack.enter_context(probe(parts.layers[layer - 1].self_attn, self._look))

    # Images

    def _project(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        features = self.watch.spread(args[0])
        cues = self.watch.cues(features)
        if self.needs.projected:
            cues["projected"] = module.forward(features)  # not the call, which would come back here
        choice = None
        if self.schedule == (0,):
            choice = self._choose(Cues(grid=self.anatomy.grid, features=features, **cues))
            if choice.features is not None:
                rows = choice.kept[..., None].expand(-1, -1, features.shape[2])
                features = features.scatter(1, rows, choice.features.to(features.dtype))
        self.encoded = Encoded(cues, choice)
        return (features, *args[1:]), kwargs

    def _projected(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.encoded = Encoded(self.encoded.cues, self.encoded.choice, output.detach())

    def _choose(self, cues: Cues) -> Choice:
        choice = self.method.choose(cues)
        kept = choice.kept
        if kept.dtype != torch.int64 or kept.ndim != 2 or kept.shape[0] != cues.features.shape[0]:
            raise ValueError(f"kept must be int64 [B, k], got {kept.dtype} {tuple(kept.shape)}")
        if choice.features is not None and self.schedule != (0,):
            raise ValueError(
                f"features may be rewritten at layer 0 only, {self.method.name} runs at {self.schedule[0]}"
            )
        return choice

    # Sequence

    def _core(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        bound = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        if bound.get("input_ids") is None:
            raise ValueError(
                "input_ids must be given: inputs_embeds alone do not say which columns are visual"
            )
        image = (bound.get("mm_encoder_outputs") or {}).get("image")
        cache = bound.get("past_key_values")
        images = image is not None or bound.get("pixel_values") is not None
        if images and cache is not None and cache.get_seq_length():
            raise ValueError(
                "past_key_values must be empty when images come in: later chunks cannot be pruned"
            )
        if image is not None and getattr(image, "last_hidden_state", None) is None:
            raise ValueError(
                "mm_encoder_outputs must come whole from this model: no chunked prefill, no own features"
            )
        self.call = Call(bound["input_ids"])

    def _decode(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        call, mask, cache = self.call, kwargs.get("attention_mask"), kwargs.get("past_key_values")
        if call is None:
            raise ValueError("the language model must be reached through the whole model inside prune")
        if getattr(cache, "is_compileable", False) or (mask is not None and mask.ndim != 2):
            raise ValueError(
                "past_key_values must be dynamic and attention_mask 2-D: a static cache cannot be pruned"
            )
        if self.schedule[0] and module.training and getattr(module, "gradient_checkpointing", False):
            raise ValueError("layer must be 0 with gradient checkpointing, which would select twice")
        call.mask = mask
        call.prefill = cache is None or cache.get_seq_length() == 0
        step = self._prefill if call.prefill else self._continue
        return args, step(kwargs["inputs_embeds"], kwargs)

    def _prefill(self, embeds: Tensor, kwargs: dict) -> dict:
        call, tokens = self.call, self.anatomy.tokens
        batch, length, _ = embeds.shape
        call.visual = call.input_ids == self.anatomy.image_token_id
        if self.encoded is None or length < tokens:
            self._read(call.visual.sum(1))
            raise ValueError("images must be encoded inside prune; no image went through the vision tower")
        images = self.encoded.projected
        if batch % len(images):
            raise ValueError(
                f"input_ids must have one image a sample, got {len(images)} images for {batch} rows"
            )
        call.repeat = batch // len(images)
        images = images.to(embeds).repeat_interleave(call.repeat, 0)
        call.genuine = ((take(embeds, visual_columns(call.visual, tokens)) == images) | images.isnan()).all()
        if self.needs.prompt:
            call.words = take(embeds, self._words(call.visual))
        if self.schedule[0]:
            return kwargs
        index = self._apply(0, self.encoded.choice, call.repeat)
        positions = kwargs.get("position_ids")
        positions = torch.arange(length, device=embeds.device)[None] if positions is None else positions
        place = take if self.method.positions == "original" else renumber
        # Always an explicit mask: without one, and without a cache, gaps in the position ids read as packed
        # sequences.
        short = call.cuts[-1].mask if call.cuts[-1].mask is not None else torch.ones_like(index)
        return kwargs | {
            "inputs_embeds": take(embeds, index),
            "position_ids": place(positions, index),
            "attention_mask": short,
        }

    def _apply(self, layer: int, choice: Choice, repeat: int, among: Tensor | None = None) -> Tensor:
        """Verify a choice, write the trace, note the cut, and return the columns that stay, [B, S']."""
        call, tokens = self.call, self.anatomy.tokens
        kept = choice.kept
        good = ((kept >= 0) & (kept < tokens)).all() & (kept[:, 1:] > kept[:, :-1]).all()
        finite = [scores.isfinite().all() for scores in choice.scores.values()]
        finite = torch.stack(finite).all() if finite else torch.ones_like(good)
        there = torch.ones_like(good)
        if among is not None:
            left = torch.zeros(len(among), tokens, dtype=torch.bool, device=among.device).scatter(
                1, among, True
            )
            there = left.gather(1, kept.clamp(0, tokens - 1)).all()
        self._read(call.visual.sum(1), finite, good, there, call.genuine)
        total, layers = call.visual.shape[1], self.trace.layers
        index = kept_columns(call.visual, kept.repeat_interleave(repeat, 0), tokens)
        short = None if call.mask is None else take(call.mask, index)
        # A beam search has expanded the rows by layer K; at prefill those of one sample are still alike.
        one = slice(None, None, call.repeat if layer else 1)
        self.trace.kept = list(kept.detach()[one])
        self.trace.scores = {name: scores.detach()[one] for name, scores in choice.scores.items()}
        lengths = self.trace.lengths[:layer] if call.cuts else [total] * layer
        self.trace.lengths = lengths + [index.shape[1]] * (layers - layer)
        call.cuts.append(Cut(layer, total, index, short, kept))
        return index

    def _read(self, counts: Tensor, *flags: Tensor) -> None:
        """The one place that reads the device: all conditions at once."""
        read = torch.cat([counts, *(flag.to(counts)[None] for flag in flags)]).tolist()
        rows, flags = read[: len(counts)], read[len(counts) :]
        tokens = self.anatomy.tokens
        if any(count != tokens for count in rows):
            raise ValueError(
                f"input_ids must have {tokens} visual tokens (one image) in every row, got {rows}"
            )
        faults = (
            f"scores of {self.method.name} must be finite, got NaN or infinity",
            f"kept must be ascending and within the {tokens} visual tokens",
            f"kept must be among the tokens that {self.method.name} left at its cut before",
            "images must be encoded inside prune; the prompt holds other visual features than the latest",
        )
        for good, fault in zip(flags, faults, strict=False):
            if not good:
                raise ValueError(fault)

    def _continue(self, embeds: Tensor, kwargs: dict) -> dict:
        """A forward on a filled cache: generation steps, candidates of assisted decoding, a second turn."""
        call, cache = self.call, kwargs["past_key_values"]
        record: Record | None = getattr(cache, RECORD, None)
        if record is None or (record.schedule, record.positions) != (self.schedule, self.method.positions):
            raise ValueError("past_key_values were not filled by this method inside prune")
        new = embeds.shape[1]
        seen = cache.get_seq_length() + record.before
        positions = kwargs.get("position_ids")
        self._check_turn(seen, new, positions, record)
        call.record = record
        call.short_masks = {cut.layer: cut.extend(call.mask, seen + new) for cut in record.cuts}
        if not record.before:
            return kwargs
        if record.positions == "original" and positions is None:
            positions = torch.arange(seen, seen + new, device=embeds.device)[None]
        elif record.positions == "renumbered" and positions is not None:
            positions = positions - record.before
        return kwargs | {"attention_mask": call.short_masks[0], "position_ids": positions}

    def _check_turn(self, seen: int, new: int, positions: Tensor | None, record: Record) -> None:
        call = self.call
        wrong = call.mask is not None and call.mask.shape[1] != seen + new
        if new > 1:  # rare enough to read the device
            if bool((call.input_ids == self.anatomy.image_token_id).any()):
                raise ValueError(
                    "input_ids must have no visual token on a filled cache: no chunked prefill, no new image"
                )
            if record.schedule == (0,) and call.mask is None and positions is not None:
                wrong = int(positions.reshape(-1)[0]) != seen
        if wrong:
            raise ValueError(
                f"past_key_values stand for {seen} columns, which this input of {new} does not continue: for "
                "a second turn after layer 0, pass only new input_ids and the mask of the whole conversation"
            )

    def _words(self, visual: Tensor) -> Tensor:
        """Columns that are not visual, [B, T], of a sequence with `visual` [B, S] in it."""
        return visual.to(torch.uint8).argsort(dim=1, stable=True)[
            :, : self.call.visual.shape[1] - self.anatomy.tokens
        ]

    def _look(self, sight: Sight) -> None:
        call = self.call
        if not call.prefill:
            return
        visual, mask = call.state
        if self.needs.attention:
            call.attention = sight.row(last_real(mask, visual.shape[1]))
        if self.needs.prompt:
            call.prompt_attention = sight.rows(self._words(visual)).mean(1)

    def _layer(self, number: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        call = self.call
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
        index = self._apply(
            number, self._choose(self._cues(module, hidden, before)), 1, before and before.kept
        )
        local = index if before is None else torch.searchsorted(before.index.contiguous(), index.contiguous())
        short = take(hidden, local)
        if self.method.positions == "original":
            rotary = tuple(take(part, index) for part in kwargs["position_embeddings"])
        else:
            positions = renumber(kwargs["position_ids"], index)
            rotary = self.anatomy.decoder.rotary_emb(short, position_ids=positions)
        mask = self._causal(number, short, call.cuts[-1].mask, kwargs)
        call.layer_kwargs = {"attention_mask": mask, "position_embeddings": rotary}
        return short

    def _cues(self, module: nn.Module, hidden: Tensor, before: Cut | None) -> Cues:
        """What can be seen on entering the layer `module`, every token at its first place."""
        call, needs = self.call, self.needs
        tokens = self.anatomy.tokens if before is None else before.kept.shape[1]
        columns = visual_columns(call.state[0], tokens)
        entering = take(hidden, columns)
        own = {"features": entering}
        if needs.keys:
            own["keys"] = module.self_attn.k_proj(
                entering if needs.keys == "raw" else module.input_layernorm(entering)
            )
        for name in ("attention", "prompt_attention"):
            row = getattr(call, name)
            if row is not None:
                own[name] = row.gather(2, columns[:, None].expand(-1, row.shape[1], -1))
        found = {name: _repeat(value, call.repeat) for name, value in self.encoded.cues.items()}
        if needs.prompt:
            words = self._words(call.visual)
            real = take(torch.ones_like(call.visual) if call.mask is None else call.mask != 0, words)
            after = words > visual_columns(call.visual, self.anatomy.tokens)[:, -1:]
            found |= {"prompt": call.words, "prompt_valid": real & after}
        if before is not None:
            spread = {"features": 1, "keys": 1, "attention": 2, "prompt_attention": 2}
            own = {
                name: _spread(value, before.kept, self.anatomy.tokens, spread[name])
                for name, value in own.items()
            }
            found["among"] = before.kept
        return Cues(grid=self.anatomy.grid, stage=len(call.cuts), **own, **found)

    def _step(self, number: int, module: nn.Module, hidden: Tensor, kwargs: dict) -> Tensor:
        """A generation step on entering a cut's layer, whose cache is shorter than that of the layers before."""
        call = self.call
        mask = self._causal(number, hidden, call.short_masks[number], kwargs)
        call.layer_kwargs = {"attention_mask": mask}
        if call.record.positions == "renumbered":
            cut = next(cut for cut in call.record.cuts if cut.layer == number)
            positions = kwargs["position_ids"] - cut.dropped
            call.layer_kwargs["position_embeddings"] = self.anatomy.decoder.rotary_emb(
                hidden, position_ids=positions
            )
        return hidden

    def _causal(self, number: int, hidden: Tensor, mask: Tensor | None, kwargs: dict) -> Tensor | None:
        cache: Cache | None = kwargs.get("past_key_values")
        return create_causal_mask(
            config=self.anatomy.decoder.config,
            inputs_embeds=hidden,
            attention_mask=mask,
            past_key_values=cache,
            layer_idx=number,
        )

    def _decoded(self, module: nn.Module, args: tuple, output):
        """Give the states back their columns and let the cache remember what it lacks."""
        call, self.call = self.call, None
        if not call.prefill:
            return output
        if output.past_key_values is not None:
            setattr(output.past_key_values, RECORD, Record(self.method.positions, tuple(call.cuts)))
        last = call.cuts[-1]
        output.last_hidden_state = put_back(output.last_hidden_state, last.index, last.total)
        return output


def _repeat(value, times: int):
    """Each row `times` times in a row, as beam search expands a batch."""
    if isinstance(value, Tensor):
        return value.repeat_interleave(times, 0)
    return [item for item in value for _ in range(times)]


def _spread(values: Tensor, places: Tensor, count: int, dim: int) -> Tensor:
    """`values`, whose dimension `dim` counts the `places` [B, M], over `count` places; zero elsewhere."""
    shape = list(values.shape)
    rows = places.reshape(len(places), *[1] * (dim - 1), -1, *[1] * (values.ndim - dim - 1)).expand_as(values)
    shape[dim] = count
    return values.new_zeros(shape).scatter(dim, rows, values)
