"""What a method sees inside the language model: rows of attention, keys, states and positions, token by token and word by word."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.models.anatomy import Anatomy
from lib.models.attention import Sight, glimpse
from lib.models.columns import last_real, take
from lib.models.trace import Call
from lib.pruning.base import Needs


@dataclass(frozen=True)
class Inside:
    """Reads what `needs` asks for off the layers of one model, for the forward `call` that is under way."""

    anatomy: Anatomy
    needs: Needs

    def words(self, call: Call, visual: Tensor) -> Tensor:
        """Columns that are not visual, [B, T], of a sequence with `visual` [B, S] in it; rows with fewer are filled up."""
        least = min(call.sizes)
        return visual.to(torch.uint8).argsort(dim=1, stable=True)[:, : call.visual.shape[1] - least]

    def look(self, call: Call, sight: Sight) -> None:
        """Note what the layer before a cut attends with."""
        visual, mask = call.state
        if self.needs.attention:
            call.attention = sight.row(last_real(mask, visual.shape[1]))
        if self.needs.prompt:
            call.prompt_attention = sight.rows(self.words(call, visual))
        if self.needs.attended_keys:
            call.keys = sight.key.transpose(1, 2)

    def look_ahead(self, call: Call, module: nn.Module, hidden: Tensor, kwargs: dict) -> None:
        """Note how the layer `module`, about to run on `hidden`, would attend if nothing were cut."""
        visual, mask = call.state
        names = ("attention_mask", "position_embeddings")
        told = {name: value for name, value in (kwargs | call.layer_kwargs).items() if name in names}
        sight = glimpse(module.self_attn, module.input_layernorm(hidden), **told)
        call.next_attention = sight.row(last_real(mask, visual.shape[1]))

    def cues(self, call: Call, module: nn.Module, hidden: Tensor, kwargs: dict) -> dict[str, Tensor]:
        """What can be seen on entering the layer `module`, one row a sample, every token at its first place."""
        needs, before = self.needs, call.cuts[-1] if call.cuts else None
        one = slice(None, None, call.repeat)  # a beam search has expanded the rows, at prefill still alike
        hidden = hidden[one]
        columns, gone = call.columns[one], None
        words = self.words(call, call.state[0])[one] if needs.hears else None
        if before is not None:
            gone = ~before.stays[one].gather(1, columns)
            columns = torch.searchsorted(before.index[one].contiguous(), columns.contiguous())
            columns = columns.clamp(max=hidden.shape[1] - 1)
        entering = take(hidden, columns)
        seen, told = {"features": entering}, {}  # [B, N, ...] and [B, T, ...]
        if needs.keys:
            seen["keys"] = module.self_attn.k_proj(
                entering if needs.keys == "raw" else module.input_layernorm(entering)
            )
        if needs.attended_keys:
            keys = self._turned_back(call, kwargs)[one]
            seen["attended_keys"] = take(keys, columns).flatten(2)
            told["prompt_keys"] = take(keys, words).flatten(2)
        if needs.final_states:
            norm = self.anatomy.decoder.norm
            seen["final_states"], told["prompt_states"] = norm(entering), norm(take(hidden, words))
        if needs.rotary:
            angles = self._angles(call, hidden, kwargs)
            seen["rotary"], told["prompt_rotary"] = take(angles, columns), take(angles, words)
        rows = ("attention", "next_attention", "prompt_attention")
        for name in rows:
            if getattr(call, name) is not None:
                seen[name] = take(getattr(call, name)[one].movedim(-1, 1), columns)
        if gone is not None:
            seen = {
                name: value.masked_fill(gone.reshape(*gone.shape, *[1] * (value.ndim - 2)), 0)
                for name, value in seen.items()
            }
        seen |= {name: seen[name].movedim(1, -1) for name in rows if name in seen}
        return seen | told

    def positions(self, call: Call, kwargs: dict, length: int) -> Tensor:
        """Position ids of the sequence as it came, with all their axes."""
        for positions in (call.positions, kwargs.get("position_ids")):
            if positions is not None:
                return positions
        return torch.arange(length, device=call.visual.device)[None]

    def rotary(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's rotary embeddings of position ids; of four axes the first counts the text."""
        positions = positions[-3:] if positions.ndim == 3 else positions
        return self.anatomy.decoder.rotary_emb(hidden, position_ids=positions)

    def _turned_back(self, call: Call, kwargs: dict) -> Tensor:
        """Rotated keys [B, S', G, d] as they are where positions count from the first column that is not padding.

        Attention knows differences of positions alone, the size of a key's coordinates does not: without this a row would
        depend on how far its batch mates pad it.
        """
        mask, keys = call.state[1], call.keys
        if mask is None:
            return keys  # pyrefly: ignore[bad-return]  # seen by now
        first = (mask != 0).to(torch.uint8).argmax(1, keepdim=True)
        angles = (kwargs | call.layer_kwargs)["position_embeddings"]
        cosine, sine = (take(part, first)[:, :, None] for part in angles)
        half = keys.shape[-1] // 2
        return keys * cosine - torch.cat([-keys[..., half:], keys[..., :half]], -1) * sine

    def _angles(self, call: Call, hidden: Tensor, kwargs: dict) -> Tensor:
        """Cosines and sines of the rotary angles of the sequence as it is now, side by side, one row a sample: float32."""
        positions = call.places
        if positions is None:
            positions = self.positions(call, kwargs, call.visual.shape[1])
        angles = torch.cat(self.rotary(hidden.float(), positions), -1)
        return angles[:: call.repeat] if len(angles) > 1 else angles
