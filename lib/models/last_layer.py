"""What the last vision layer adds up: the parts of DeSAP's decomposition, each as it was computed."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.models.anatomy import Anatomy
from lib.models.attention import Sight, probe
from lib.pruning.precision import product

KINDS = ("qk", "qq", "kk")


@dataclass(frozen=True, kw_only=True)
class LastLayer:
    """One run of the last vision layer; [CLS] is token 0 of each [B, 1 + N, D].

    Attributes
    ----------
    residual : the hidden state that enters.
    attention : the attention block's output, after its output projection.
    feed_forward : the feed-forward block's output.
    hidden : the hidden state that leaves; the sum of the three.
    query, key : [B, H, 1 + N, d], what the attention block compares.
    scaling : factor of its dot products.

    Source: DeSAP (arXiv 2604.11240), section 3.2, Eq. 1.
    """

    residual: Tensor
    attention: Tensor
    feed_forward: Tensor
    hidden: Tensor
    query: Tensor
    key: Tensor
    scaling: float

    def weights(self, kind: str) -> Tensor:
        """Head mean of attention weights, [B, 1 + N, 1 + N]: "qk" the layer's own, "qq" of Eq. 2, "kk"."""
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        left, right = ({"q": self.query, "k": self.key}[letter] for letter in kind)
        # Head by head: all heads of some hundred pictures at once would fill the memory.
        heads = zip(left.unbind(1), right.unbind(1), strict=True)
        # pyrefly: ignore[bad-return]  # there is a head, so the sum is a tensor
        return sum((product(q, k.mT) * self.scaling).softmax(-1) for q, k in heads) / left.shape[1]


@torch.no_grad()
def watch_last_layer(model: nn.Module, pixel_values: Tensor) -> LastLayer:
    """Encode images and keep the parts of the last vision layer.

    Parameters
    ----------
    model : of a class in `anatomy.FAMILIES`; it is left as it was.
    pixel_values : [B, C, height, width], from the model's processor.
    """
    anatomy = Anatomy.of(model)
    if not anatomy.family.clip:
        raise ValueError(
            f"model is a {anatomy.name}, whose vision tower is not CLIP's: its last layer has other parts"
        )
    layer, found = anatomy.vision_layers[-1], {}

    def enter(module: nn.Module, args: tuple, kwargs: dict) -> None:
        found["residual"] = args[0] if args else kwargs["hidden_states"]

    def leave(name: str):
        def keep(module: nn.Module, args: tuple, output) -> None:
            found[name] = output[0] if isinstance(output, tuple) else output

        return keep

    def look(sight: Sight) -> None:
        found["query"], found["key"], found["scaling"] = sight.query, sight.key, sight.scaling

    parts = {"attention": layer.self_attn, "feed_forward": layer.mlp, "hidden": layer}
    with ExitStack() as stack:
        stack.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
        for name, module in parts.items():
            stack.callback(module.register_forward_hook(leave(name)).remove)
        stack.enter_context(probe(layer.self_attn, look))
        anatomy.tower(pixel_values)
    return LastLayer(**found)
