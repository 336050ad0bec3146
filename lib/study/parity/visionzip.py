"""VisionZip as released, without [CLS] among the kept: dominant and contextual tokens."""

from __future__ import annotations

import numpy as np

from lib.study.parity.oracles import top_k, unit
from lib.study.parity.trial import Case, Draw, Told


def rule(draw: Draw) -> Told:
    """Dominant tokens by [CLS] attention; every step-th other token takes the mean of the others nearest to it by key."""
    saliency, features = draw.see("saliency").mean(0), draw.see("features")
    contextual = round(10 / 64 * draw.keep)
    dominant = top_k(saliency, draw.keep - contextual)
    rest = [token for token in range(draw.count) if token not in dominant]
    targets = rest[:: len(rest) // contextual][:contextual]
    keys = unit(draw.see("vision_keys"))
    rows = {token: features[token] for token in dominant}
    members: dict[int, list[int]] = {target: [] for target in targets}
    for token in rest:
        if token not in members:
            members[targets[int(np.argmax(keys[targets] @ keys[token]))]].append(token)
    for target, joined in members.items():
        rows[target] = features[target] + (features[joined].mean(0) if joined else 0.0)
    places = sorted(rows)
    return Told(
        {"saliency": saliency, "kept": places, "features": np.stack([rows[place] for place in places])}
    )


CASES = (
    Case(
        method="visionzip",
        release="dvlab-research/VisionZip 3151f6d",
        rule=rule,
        settled="The release counts [CLS], which it keeps, among its K: keep is K - 1 (63, 127, 191 for 64, 128, 192), and the "
        "default share then gives its 10, 20 and 30 contextual tokens.",
        sizes=(((24, 24), 63), ((24, 24), 127), ((24, 24), 191), ((12, 12), 16)),
    ),
)
