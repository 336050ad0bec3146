"""The hooks that shorten the sequence while the model runs.

A cut at layer 0 drops tokens before the language model, one at K > 0 on entering its layer K; a staged method makes
several. The hooks here see a forward come by, in this order: the whole model, the projector, the language model, its layers.
What becomes of a prompt is in `lib.models.cutting`, what of a forward that goes on from its cache in `lib.models.steps`.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from torch import Tensor, nn

from lib.models.attention import Sight, probe
from lib.models.borrowed import CACHE, arguments, cache_of
from lib.models.caches import Record, record_of, remember
from lib.models.choosing import Decision
from lib.models.cutting import Cutter
from lib.models.gate import Gate
from lib.models.guards import Uncopied
from lib.models.prompt_end import BYPASSED
from lib.models.refusals import check_form, check_images
from lib.models.steps import Steps
from lib.models.tiles import Encoded, pack_numbers
from lib.models.trace import Call
from lib.models.vision import Watch
from lib.models.whole import hand_back


class Executor(Uncopied, threading.local):
    """The hooks of one `prune` context. What a call is at is each thread's own: one may read while another generates."""

    def __init__(self, watch: Watch, cutter: Cutter, gate: Gate) -> None:
        self.watch, self.cutter, self.gate = watch, cutter, gate
        self.anatomy, self.needs, self.schedule = cutter.anatomy, cutter.needs, cutter.schedule
        self.ends, self.trace, self.inside = cutter.ends, cutter.trace, cutter.inside
        self.steps = Steps(self.anatomy, self.inside, gate, self.schedule, cutter.method.positions)
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
        if self.cutter.early:
            if self.needs.projected:  # not the call, which would come back here
                self.encoded.projected = module.forward(features).flatten(0, -2)
            self.decision = self.cutter.choose_early(self.encoded)
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
        check_images(self.anatomy, bound)
        placed = bound.get("position_ids") is not None
        cache = bound[CACHE]
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
        embeds = kwargs["inputs_embeds"]
        if not call.prefill:
            return args, self.steps.enter_decoder(call, embeds, kwargs)
        call.encoded = self.encoded
        return args, self.cutter.enter_decoder(call, self.decision, embeds, kwargs)

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
            enter = self.cutter.enter_layer if call.prefill else self.steps.enter_layer
            args = (enter(call, number, module, args[0], kwargs), *args[1:])
        # Rotary embeddings are made by now; gaps in the ids themselves read as packed sequences to flash
        # kernels.
        return args, kwargs | call.layer_kwargs | {"position_ids": None}

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
                cache, Record(self.steps.counting, tuple(call.cuts), call.behind, self.gate.stay, deltas)
            )
        self.trace.pruned += 1
        self.ends.remember(call, call.encoded.projected)
        hand_back(output, call.cuts, call.prompt_end)
        return output
