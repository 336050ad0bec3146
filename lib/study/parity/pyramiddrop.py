"""PyramidDrop as released: what the layer about to run would attend to."""

from __future__ import annotations

import numpy as np

from lib.study.parity.decoder import Prompt, run_library, softmax, told
from lib.study.parity.oracles import top_k
from lib.study.parity.trial import Case, Draw, Told

RATIOS = {8: 0.5, 16: 0.25, 24: 0.125}


def rule(draw: Draw) -> Told:
    """On entering layers 8, 16 and 24: the last column's attention there, over all columns, positions counted anew."""
    prompt, kept = Prompt.of(draw, renumbered=True), []
    for layer in range(max(RATIOS) + 1):
        if layer in RATIOS:
            query, key = prompt.queries_and_keys(layer)
            key = key.repeat(len(query) // len(key), 0)
            logits = np.einsum("hd,hsd->hs", query[:, -1], key) / np.sqrt(query.shape[-1])
            scores = softmax(logits).mean(0)[prompt.visual]
            kept.append(prompt.cut(prompt.visual[sorted(top_k(scores, int(draw.count * RATIOS[layer])))]))
        prompt.run(layer)
    return told(kept)


CASES = (
    Case(
        method="pyramiddrop",
        release="Cooperx521/PyramidDrop 6444f30",
        rule=rule,
        settled="An eighth is kept, as released; for another budget the shares before the last follow from it.",
        sizes=(((24, 24), 72), ((12, 12), 18)),
        ask=run_library,
    ),
)
