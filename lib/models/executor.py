"""The hooks that shorten the sequence while the model runs.

Stage 0 drops tokens before the language model, stage K > 0 on entering its layer K. The visual columns
leave the sequence for real: later layers compute and cache only what stays. Padding stays in place, so
every row loses the same number of columns and lengths follow from shapes alone.
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
from lib.models.record import RECORD, Call, Encoded, Record, Trace
from lib.models.vision import Watch
from lib.pruning.methods import Choice, Cues, Method, Needs


class Executor:
    """The hooks of one `prune` context."""

    def __init__(self, anatomy: Anatomy, method: Method, needs: Needs, watch: Watch, trace: Trace) -> None:
        self.anatomy, self.method, self.needs = anatomy, method, needs
        self.watch, self.trace = watch, trace
        self.encoded: Encoded | None = None
        self.call: Call | None = None

    def install(self, stack: ExitStack) -> None:
        parts, layer = self.anatomy, self.method.layer
        before = [(parts.core, self._core), (parts.projector, self._project), (parts.decoder, self._decode)]
        before += [(parts.layers[i], partial(self._layer, i)) for i in range(layer, len(parts.layers))]
        for module, hook in before:
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        stack.callback(parts.projector.register_forward_hook(self._projected).remove)
        stack.callback(parts.decoder.register_forward_hook(self._decoded).remove)
        if self.needs.attention:
            stack.enter_context(probe(parts.layers[layer - 1].self_attn, self._look))

    # Images

    def _project(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        features = args[0]
        cues = self.watch.cues(features)
        if self.needs.projected:
            cues["projected"] = module.forward(features)  # not the call, which would come back here
        choice = None
        if self.method.layer == 0:
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
        if choice.features is not None and self.method.layer:
            raise ValueError(
                f"features may be rewritten at layer 0 only, {self.method.name} runs at {self.method.layer}"
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
        if self.method.layer and module.training and getattr(module, "gradient_checkpointing", False):
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
        if self.method.layer:
            return kwargs
        index = self._apply(self.encoded.choice, call.repeat)
        positions = kwargs.get("position_ids")
        positions = torch.arange(length, device=embeds.device)[None] if positions is None else positions
        place = take if self.method.positions == "original" else renumber
        # Always an explicit mask: without one, and without a cache, gaps in the position ids read as packed
        # sequences.
        short = call.record.mask if call.record.mask is not None else torch.ones_like(index)
        return kwargs | {
            "inputs_embeds": take(embeds, index),
            "position_ids": place(positions, index),
            "attention_mask": short,
        }

    def _apply(self, choice: Choice, repeat: int) -> Tensor:
        """Verify a choice, write trace and record, and return the columns that stay, [B, S']."""
        call, method, layers = self.call, self.method, self.trace.layers
        kept = choice.kept
        inside = (kept >= 0) & (kept < self.anatomy.tokens)
        ascending = (kept[:, 1:] > kept[:, :-1]).all() & inside.all()
        finite = [scores.isfinite().all() for scores in choice.scores.values()]
        finite = torch.stack(finite).all() if finite else torch.ones_like(ascending)
        self._read(call.visual.sum(1), finite, ascending, call.genuine)
        total = call.visual.shape[1]
        index = kept_columns(call.visual, kept.repeat_interleave(repeat, 0), self.anatomy.tokens)
        short = None if call.mask is None else take(call.mask, index)
        call.record = Record(method.layer, method.positions, total, index, short)
        # A beam search has expanded the rows by layer K; at prefill those of one sample are still alike.
        one = slice(None, None, call.repeat if method.layer else 1)
        self.trace.kept = list(kept.detach()[one])
        self.trace.scores = {name: scores.detach()[one] for name, scores in choice.scores.items()}
        self.trace.lengths = [total] * method.layer + [index.shape[1]] * (layers - method.layer)
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
            "images must be encoded inside prune; the prompt holds other visual features than the latest",
        )
        for good, fault in zip(flags, faults, strict=False):
            if not good:
                raise ValueError(fault)

    def _continue(self, embeds: Tensor, kwargs: dict) -> dict:
        """A forward on a filled cache: generation steps, candidates of assisted decoding, a second turn."""
        call, cache = self.call, kwargs["past_key_values"]
        record: Record | None = getattr(cache, RECORD, None)
        if record is None or (record.layer, record.positions) != (self.method.layer, self.method.positions):
            raise ValueError("past_key_values were not filled by this method inside prune")
        new = embeds.shape[1]
        seen = cache.get_seq_length() + (record.dropped if record.layer == 0 else 0)
        positions = kwargs.get("position_ids")
        self._check_turn(seen, new, positions, record)
        call.record, call.short_mask = record, record.extend(call.mask, seen + new)
        if record.layer or not record.dropped:
            return kwargs
        if record.positions == "original" and positions is None:
            positions = torch.arange(seen, seen + new, device=embeds.device)[None]
        elif record.positions == "renumbered" and positions is not None:
            positions = positions - record.dropped
        return kwargs | {"attention_mask": call.short_mask, "position_ids": positions}

    def _check_turn(self, seen: int, new: int, positions: Tensor | None, record: Record) -> None:
        call = self.call
        wrong = call.mask is not None and call.mask.shape[1] != seen + new
        if new > 1:  # rare enough to read the device
            if bool((call.input_ids == self.anatomy.image_token_id).any()):
                raise ValueError(
                    "input_ids must have no visual token on a filled cache: no chunked prefill, no new image"
                )
            if record.layer == 0 and call.mask is None and positions is not None:
                wrong = int(positions.reshape(-1)[0]) != seen
        if wrong:
            raise ValueError(
                f"past_key_values stand for {seen} columns, which this input of {new} does not continue: for "
                "a second turn after layer 0, pass only new input_ids and the mask of the whole conversation"
            )

    def _look(self, sight: Sight) -> None:
        call = self.call
        if call.prefill:
            call.attention = sight.row(last_real(call.mask, call.visual.shape[1]))

    def _layer(self, number: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        call = self.call
        if self.method.layer and number == self.method.layer:
            enter = self._select if call.prefill else self._step
            args = (enter(module, args[0], kwargs), *args[1:])
        # Rotary embeddings are made by now; gaps in the ids themselves read as packed sequences to flash
        # kernels.
        return args, kwargs | call.layer_kwargs | {"position_ids": None}

    def _select(self, module: nn.Module, hidden: Tensor, kwargs: dict) -> Tensor:
        """Choose on entering layer K, hand the short sequence to it and its successors."""
        call, decoder = self.call, self.anatomy.decoder
        columns = visual_columns(call.visual, self.anatomy.tokens)
        features = take(hidden, columns)
        found = {name: _repeat(value, call.repeat) for name, value in self.encoded.cues.items()}
        if self.needs.attention:
            found["attention"] = call.attention.gather(
                2, columns[:, None].expand(-1, call.attention.shape[1], -1)
            )
        if self.needs.keys:
            entering = features if self.needs.keys == "raw" else module.input_layernorm(features)
            found["keys"] = module.self_attn.k_proj(entering)
        index = self._apply(self._choose(Cues(grid=self.anatomy.grid, features=features, **found)), 1)
        short = take(hidden, index)
        if self.method.positions == "original":
            rotary = tuple(take(part, index) for part in kwargs["position_embeddings"])
        else:
            rotary = decoder.rotary_emb(short, position_ids=renumber(kwargs["position_ids"], index))
        call.short_mask = call.record.mask
        call.layer_kwargs = {"attention_mask": self._causal(short, kwargs), "position_embeddings": rotary}
        return short

    def _step(self, module: nn.Module, hidden: Tensor, kwargs: dict) -> Tensor:
        """A generation step on entering layer K, whose cache is shorter than that of the layers before."""
        call = self.call
        call.layer_kwargs = {"attention_mask": self._causal(hidden, kwargs)}
        if call.record.positions == "renumbered":
            positions = kwargs["position_ids"] - call.record.dropped
            call.layer_kwargs["position_embeddings"] = self.anatomy.decoder.rotary_emb(
                hidden, position_ids=positions
            )
        return hidden

    def _causal(self, hidden: Tensor, kwargs: dict) -> Tensor | None:
        cache: Cache | None = kwargs.get("past_key_values")
        return create_causal_mask(
            config=self.anatomy.decoder.config,
            inputs_embeds=hidden,
            attention_mask=self.call.short_mask,
            past_key_values=cache,
            layer_idx=self.method.layer,
        )

    def _decoded(self, module: nn.Module, args: tuple, output):
        """Give the states back their columns and let the cache remember what it lacks."""
        call, self.call = self.call, None
        if not call.prefill:
            return output
        if output.past_key_values is not None:
            setattr(output.past_key_values, RECORD, call.record)
        output.last_hidden_state = put_back(output.last_hidden_state, call.record.index, call.record.total)
        return output


def _repeat(value, times: int):
    """Each row `times` times in a row, as beam search expands a batch."""
    if isinstance(value, Tensor):
        return value.repeat_interleave(times, 0)
    return [item for item in value for _ in range(times)]
