"""HoloV as released: seats for crops, and the most salient tokens of each."""

from __future__ import annotations

import numpy as np

from lib.study.parity.oracles import top_k, unit
from lib.study.parity.trial import SIZES, Case, Draw, Told


def rule(draw: Draw, crops: int | None) -> Told:
    """Seats by weight, tokens by attention; a full crop's surplus is lost, and ours gives it to the most salient others."""
    saliency, features = draw.see("saliency").mean(0), draw.see("projected")
    count = max(1, int(16 / 9 * draw.count / draw.keep)) if crops is None else crops
    weight, kept, start = np.zeros(count), [], 0
    bounds = []
    for crop in range(count):
        stop = start + draw.count // count + (crop < draw.count % count)
        bounds.append((start, stop))
        weight[crop] = weigh(saliency[start:stop], features[start:stop]).mean()
        start = stop
    seats = np.floor(draw.keep * weight / weight.sum()).astype(int)
    for crop in top_k(weight, draw.keep - seats.sum()):
        seats[crop] += 1
    for (start, stop), mine in zip(bounds, seats, strict=True):
        kept += [start + place for place in top_k(saliency[start:stop], min(mine, stop - start))]
    lost = draw.keep - len(kept)
    while len(kept) < draw.keep:
        kept.append(next(token for token in top_k(saliency, draw.count) if token not in kept))
    return Told({"saliency": saliency, "kept": sorted(kept)}, "loses seats" if lost else "")


def weigh(saliency: np.ndarray, features: np.ndarray) -> np.ndarray:
    """What each token of a crop adds to the crop's weight."""
    tokens = len(saliency)
    alike = unit(features) @ unit(features).T
    np.fill_diagonal(alike, 0.0)
    mean = alike.sum(1) / (tokens - 1)
    variance = ((alike - mean[:, None]) ** 2).sum(1) / (tokens - 1)
    scaled = variance * (1000 * saliency).mean() / (variance.mean() + 1e-6)
    return 1000 * saliency + 0.09 * scaled


TOLD = (
    "Where the release loses the seats that a full crop cannot take (and feeds rows of zeros), ours gives them to the most "
    "salient tokens elsewhere: the trials under `declared`."
)
CASES = tuple(
    Case(
        method="holov",
        setting=setting,
        fields={"crops": crops},
        release="obananas/HoloV 1d2e65e",
        rule=lambda draw, crops=crops: rule(draw, crops),
        settled=TOLD,
        sizes=sizes,
    )
    for setting, crops, sizes in (
        ("crops=16, as its file for LLaVA", 16, SIZES),
        ("crops=None, as its file for Qwen", None, SIZES),
        ("crops=16, a third to a half kept", 16, (((24, 24), 288), ((12, 12), 48))),
    )
)
