"""What the tests of pruning share: questions, selections, methods and two comparisons."""

import torch

from lib.models.prune import prune
from lib.pruning import methods

EVERY_OTHER = tuple(range(0, 16, 3))
RAGGED = ((0, 3, 4, 9), (1, 2, 14, 15))
TEXT = ["what color is the star ?", "how many dots"]
METHODS = [
    methods.DeSAP(keep=6),
    methods.DeSAP(keep=6, merge=False, positions="original"),
    methods.AdaptPrune(keep=6, radius=2.0),
    methods.AdaptPrune(keep=6, keys="normed", layer=1, positions="renumbered"),
    methods.FastV(keep=6),
    methods.ClsTopK(keep=6),
    methods.UniformGrid(keep=6, layer=2),
    methods.Random(keep=6),
    methods.Random(keep=6, layer=1),
    methods.Blind(),
    *(methods.make(name, keep=6) for name in ("visionzip", "trim", "cdpruner", "holov", "dart", "tome")),
    *(methods.make(name, keep=6) for name in ("pyramiddrop", "sparsevlm", "downsample")),
]


def logits_of(model, inputs, method=None, **kwargs):
    with torch.no_grad():
        if method is None:
            return model(**inputs).logits
        with prune(model, method, **kwargs):
            return model(**inputs).logits


def close(left, right, tolerance=1e-5):
    torch.testing.assert_close(left, right, atol=tolerance, rtol=0)
