"""The parts of the last vision layer add up, and its weights are those that made the patches."""

import pytest
import torch

from lib.models.anatomy import Anatomy
from lib.models.clip import patches
from lib.models.last_layer import watch_last_layer


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_parts_add_up_and_nothing_stays(tiny, attention):
    model = tiny.model(attention=attention)
    pixels = tiny.inputs((5, 5))["pixel_values"]
    tower, layer = Anatomy.of(model).tower, Anatomy.of(model).vision_layers[-1]
    config = layer.self_attn.config
    hooks = [(module._forward_hooks, module._forward_pre_hooks) for module in layer.modules()]
    assert not any(kind for pair in hooks for kind in pair)
    seen = watch_last_layer(model, pixels)
    torch.testing.assert_close(
        seen.residual + seen.attention + seen.feed_forward, seen.hidden, rtol=1e-4, atol=1e-4
    )
    assert layer.self_attn.config is config
    assert not any(kind for pair in hooks for kind in pair)
    with torch.no_grad():
        states = tower(pixels, output_hidden_states=True).hidden_states
    torch.testing.assert_close(seen.residual, states[-2])
    torch.testing.assert_close(seen.hidden, states[-1])


def test_own_weights_are_the_attention_that_ran(tiny, model, clip):
    pixels = tiny.inputs((5,))["pixel_values"]
    seen, parts = watch_last_layer(model, pixels), Anatomy.of(model)
    for kind in ("qk", "qq", "kk"):
        weights = seen.weights(kind)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    own, _ = patches(
        parts.vision_layers[-1], seen.residual, parts.tower.post_layernorm, clip.visual_projection, "qk"
    )
    with torch.no_grad():
        joint = clip.visual_projection(parts.tower.post_layernorm(seen.attention))[:, 1:]
    torch.testing.assert_close(own, joint, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(seen.weights("qq"), seen.weights("qk"))
    with pytest.raises(ValueError, match="kind must be one of qk, qq, kk, got 'vv'"):
        seen.weights("vv")
