"""A context that pruned nothing says so: nothing ran, or what ran went past the hooks."""

import pytest
import torch

from lib.models.prompt_end import NothingPruned
from lib.models.prune import prune
from testkit.common import EVERY_OTHER


def test_a_context_without_a_call_warns(model, tiny):
    method = tiny.Fixed(kept=(EVERY_OTHER,))
    with pytest.warns(NothingPruned, match="the model was not called inside prune"), prune(model, method):
        pass
    with pytest.raises(KeyError), prune(model, method):  # the exception says enough
        raise KeyError
    with prune(model, method) as trace, torch.no_grad():  # an image, but no prompt
        model.model.get_image_features(tiny.inputs((5,))["pixel_values"])
        assert (trace.ran, trace.pruned) == (True, 0)
        model(**tiny.inputs((5,)))
        tiny.greedy(model, tiny.inputs((5,)))
        assert (trace.ran, trace.pruned) == (True, 2)


def pass_by(module):
    """Call the forward of a module without its hooks, as a compiled module does that ran before they were there."""
    kind = type(module)
    passing = {"__call__": lambda self, *args, **kwargs: self.forward(*args, **kwargs)}
    module.__class__ = type(kind.__name__, (kind,), passing)


TOLD = "runs past the hooks of prune|must be reached through the whole model"


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("part", ["model", "core", "decoder", "layers"])
def test_modules_that_run_past_the_hooks_are_told(tiny, part, layer):
    model, inputs = tiny.model(), tiny.inputs((5, 2))
    core = model.model
    parts = {"model": [model, core], "core": [core], "decoder": [core.language_model]}
    for module in parts.get(part, core.language_model.layers):
        pass_by(module)
    method = tiny.Fixed(kept=(EVERY_OTHER,), layer=layer)
    with prune(model, method) as trace, torch.no_grad():
        if part == "layers" and layer == 0:  # such a cut needs no hook of a layer
            model(**inputs)
            assert trace.pruned == 1
            return
        with pytest.raises(ValueError, match=TOLD):
            tiny.greedy(model, inputs)
        if part != "model":
            with pytest.raises(ValueError, match=TOLD):
                model(**inputs)
    assert trace.pruned == 0
