"""The pieces of a vision-language model at work, each ready to be timed: nothing in here reads a clock.

Weights and inputs are random: how long a piece takes depends on shapes alone. Pixels and prompts lie on the device
before a clock starts, so that decoding of image files and tokenisation are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from lib.models.anatomy import Anatomy
from lib.models.architectures import Architecture
from lib.models.attention import Sight, glimpse, probe
from lib.models.borrowed import CACHE, cache_of, kernel_name
from lib.models.clip import ClipPair, encode_text, patches
from lib.models.embedded import IMAGE
from lib.models.prune import prune
from lib.models.random_weights import clip_pair, llava
from lib.pruning.methods import Method
from lib.study.cost import TEXT, WORDS, prompt_tokens
from lib.study.costs.launches import LAUNCHES, Work, graphed, shrinking
from lib.study.costs.operations import sample_cues, stages

BEFORE = 35  # of the text tokens, those ahead of the image: length of LLaVA-1.5's fixed conversation prefix


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One model on one device; every method returns work that can be called again and again.

    Attributes
    ----------
    sizes, device, dtype : what is timed where.
    model, clip : with random weights.
    text, words : text tokens of a prompt, and words of its question.
    """

    sizes: Architecture
    device: torch.device
    dtype: torch.dtype
    model: nn.Module
    clip: ClipPair
    text: int = TEXT
    words: int = WORDS
    anatomy: Anatomy = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "anatomy", Anatomy.of(self.model))

    @classmethod
    def of(
        cls, sizes: Architecture, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> Bench:
        """Build the model; the seed makes weights the same on one device and version."""
        torch.manual_seed(0)
        device = torch.device(device)
        model, clip = llava(sizes, device, dtype), clip_pair(sizes, ["word"], device, dtype)
        return cls(sizes=sizes, device=device, dtype=dtype, model=model, clip=clip)

    @contextmanager
    def backend(self, name: str) -> Iterator[None]:
        """Run the whole model with another attention implementation."""
        before = kernel_name(self.model.config)
        self.model.set_attn_implementation(name)
        try:
            yield
        finally:
            self.model.set_attn_implementation(before)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.device, dtype=self.dtype)

    def pixels(self, batch: int) -> Tensor:
        """Random pictures, [B * tiles, 3, side, side]."""
        side = self.sizes.grid * self.sizes.patch
        return self._normal(batch * self.sizes.tiles, 3, side, side)

    def ids(self, batch: int, visual: int) -> Tensor:
        """Token ids of a prompt with `visual` placeholders, [B, S]."""
        row = torch.full((self.text + visual,), IMAGE + 8, device=self.device)
        row[BEFORE : BEFORE + visual] = IMAGE
        return row.repeat(batch, 1)

    @property
    def question(self) -> str:
        """Text whose tokens, start and end included, are `words`."""
        return " ".join(["word"] * (self.words - 2))

    # Parts

    def tower(self, batch: int) -> Work:
        """The vision tower on all tiles."""
        return partial(self.anatomy.tower, self.pixels(batch))

    def projector(self, batch: int) -> Work:
        """The projector on every patch."""
        features = self._normal(batch * self.sizes.tiles, self.sizes.grid**2, self.sizes.vision_width)
        return partial(self.anatomy.projector, features)

    def prefill(self, batch: int, lengths: Sequence[int], launch: str = "eager") -> Work:
        """The decoder on a prompt, its sequence `lengths` [layers] as it shrinks; returns the filled cache."""
        decoder, embeds = self.anatomy.decoder, self._normal(batch, lengths[0], self.sizes.width)

        def run(call: Callable) -> DynamicCache:
            cache = DynamicCache(config=decoder.config)
            call(inputs_embeds=embeds, use_cache=True, **{CACHE: cache})
            return cache

        def plain() -> DynamicCache:
            with shrinking(self.anatomy.layers, lengths):
                return run(decoder)

        return self._launched(plain, run, launch)

    def step(self, batch: int, cached: Sequence[int], launch: str = "eager") -> Work:
        """One generation step on caches of `cached` [layers] tokens: decoder, language head, choice of the token."""
        decoder, head = self.anatomy.decoder, self.model.lm_head
        shape = (batch, self.sizes.kv_heads)
        filled = [
            (self._normal(*shape, count, self.sizes.head_width), self._normal(*shape, count, self.sizes.head_width))
            for count in cached
        ]  # fmt: skip
        cache = DynamicCache(config=decoder.config)
        for number, (keys, values) in enumerate(filled):
            cache.update(keys, values, number)
        embeds = self._normal(batch, 1, self.sizes.width)
        place = torch.full((batch, 1), max(cached), device=self.device)

        def run(call: Callable) -> Tensor:
            states = call(
                inputs_embeds=embeds, position_ids=place, use_cache=True, **{CACHE: cache}
            ).last_hidden_state
            # The step has left its token, in a copy of the whole cache; the next call must find the same length again.
            for layer, (keys, values) in zip(cache.layers, filled, strict=True):
                layer.keys, layer.values = keys, values
            return head(states[:, -1]).argmax(-1)

        return self._launched(lambda: run(decoder), run, launch)

    def _launched(self, plain: Work, run: Callable[[Callable], object], launch: str) -> Work:
        if launch == "eager":
            return plain
        if launch == "graph":
            return graphed(plain)
        if launch == "compile":
            return partial(run, torch.compile(self.anatomy.decoder, dynamic=False))
        raise ValueError(f"launch must be one of {', '.join(LAUNCHES)}, got {launch!r}")

    def words_cue(self, batch: int) -> Work:
        """The text tower on the questions."""
        return partial(encode_text, self.clip, [self.question] * batch)

    def vision_cues(self, method: Method, batch: int) -> Work:
        """What a method reads off the vision tower, on states that the tower has left: no second pass of it."""
        needs, layers = method.needs(), self.anatomy.vision_layers
        pieces: list[Work] = []
        seen: list[Sight] = []
        residual: list[Tensor] = []
        with ExitStack() as stack:
            if needs.saliency_layer is not None:
                stack.enter_context(probe(layers[needs.saliency_layer].self_attn, seen.append))
            hook = layers[-1].register_forward_pre_hook(
                lambda module, args, kwargs: residual.append(args[0] if args else kwargs["hidden_states"]),
                with_kwargs=True,
            )
            stack.callback(hook.remove)
            self.tower(batch)()
        if seen:
            pieces.append(lambda: seen[0].row(0)[:, :, 1:])
        if needs.patches is not None:
            tower, joint = self.anatomy.tower, self.clip.visual_projection
            pieces.append(
                partial(patches, layers[-1], residual[0], tower.post_layernorm, joint, needs.patches)
            )
        if needs.projected:
            pieces.append(self.projector(batch))
        return partial(_each, pieces)

    def decoder_cues(self, method: Method, batch: int) -> Work:
        """What a method reads off the decoder before each of its cuts."""
        needs, layers = method.needs(), self.anatomy.layers
        lengths = prompt_tokens(self.sizes, method, self.text)
        cuts = [layer for layer in method.schedule(len(layers)) if layer]
        seen: list[Sight] = []
        with ExitStack() as stack:
            for layer in cuts:
                stack.enter_context(probe(layers[layer - 1].self_attn, seen.append))
            self.prefill(batch, lengths)()
        pieces: list[Work] = []
        for layer, sight in zip(cuts, seen, strict=True):
            last = lengths[layer - 1] - 1
            if needs.attention:
                pieces.append(partial(sight.row, last))
            if needs.prompt:
                rows = torch.arange(last + 1 - self.text, last + 1, device=self.device).repeat(batch, 1)
                pieces.append(partial(sight.rows, rows))
            states = self._normal(batch, lengths[layer - 1], self.sizes.width)
            if needs.next_attention:
                angles = self.anatomy.decoder.rotary_emb(
                    states, position_ids=torch.arange(states.shape[1], device=self.device)[None]
                )
                pieces.append(partial(_look_ahead, layers[layer].self_attn, states, angles))
            if needs.final_states:
                pieces.append(partial(self.anatomy.decoder.norm, states))
            if needs.keys is not None:
                visual = states[:, : lengths[layer - 1] - self.text].contiguous()
                pieces.append(partial(layers[layer].self_attn.k_proj, visual))
        return partial(_each, pieces)

    def selection(self, method: Method, batch: int) -> Work:
        """The method's choices, all its cuts, on random cues that lie on the device."""
        cues = sample_cues(
            self.sizes, method, batch, text=self.text, words=self.words, device=self.device, dtype=self.dtype
        )
        return lambda: [method.choose(stage) for stage in stages(method, cues)]

    # Whole answers

    def answer(
        self, batch: int, marks: Sequence[int], method: Method | None = None, born: int | None = None
    ) -> Callable[[Callable[[], None]], DynamicCache]:
        """Answer greedily from pixels to the last token, with a lap after each number of new tokens in `marks`.

        Parameters
        ----------
        method
            None runs unpruned. Encoding the text and setting the hooks lies inside.
        born
            In place of a method: only so many visual tokens are handed to the decoder, chosen by nobody and for
            nothing. No method that keeps as many before the decoder can be faster.
        """
        pixels = self.pixels(batch)
        if method is not None:

            def pruned(lap: Callable[[], None]) -> DynamicCache:
                texts = [self.question] * batch
                with torch.no_grad(), prune(self.model, method, text=texts, clip=self.clip):
                    return self._generate(self._first(pixels, batch), marks, lap)

            return pruned

        def plain(lap: Callable[[], None]) -> DynamicCache:
            with torch.no_grad():
                return self._generate(self._born(pixels, batch, born), marks, lap)

        if born is None and self.sizes.tiles == 1:
            return lambda lap: self._generate(self._first(pixels, batch), marks, lap)
        return plain

    def _first(self, pixels: Tensor, batch: int) -> tuple[Tensor, Cache | None]:
        """The model's own first forward; logits [B, V] of the last column, and the cache."""
        ids = self.ids(batch, self.sizes.tokens)
        out = self.model(input_ids=ids, pixel_values=pixels, logits_to_keep=1, use_cache=True)
        return out.logits[:, -1], cache_of(out)

    def _born(self, pixels: Tensor, batch: int, kept: int | None) -> tuple[Tensor, DynamicCache]:
        """The same on embeddings, with the first `kept` visual tokens alone."""
        decoder = self.anatomy.decoder
        features = self.anatomy.projector(
            self.anatomy.tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        )
        visual = features.reshape(batch, self.sizes.tokens, -1)[:, :kept]
        words = decoder.embed_tokens(self.ids(batch, 0))
        embeds = torch.cat([words[:, :BEFORE], visual, words[:, BEFORE:]], dim=1)
        cache = DynamicCache(config=decoder.config)
        states = decoder(inputs_embeds=embeds, use_cache=True, **{CACHE: cache}).last_hidden_state
        return self.model.lm_head(states[:, -1]), cache

    def _generate(
        self, first: tuple[Tensor, DynamicCache], marks: Sequence[int], lap: Callable[[], None]
    ) -> DynamicCache:
        """Go on until the last mark. No end token is looked for: that would read the device at each step."""
        logits, cache = first
        for count in range(1, max(marks) + 1):
            token = logits.argmax(-1, keepdim=True)
            if count in marks:
                lap()
            if count < max(marks):
                out = self.model(input_ids=token, use_cache=True, logits_to_keep=1, **{CACHE: cache})
                logits = out.logits[:, -1]
        return cache


def _each(pieces: Sequence[Work]) -> list[object]:
    return [piece() for piece in pieces]


def _look_ahead(module: nn.Module, hidden: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """The last column's attention in a layer that has not run; `hidden` [B, S, D] enters its attention module."""
    sight = glimpse(module, hidden, attention_mask=None, position_embeddings=angles)
    return sight.row(hidden.shape[1] - 1)
