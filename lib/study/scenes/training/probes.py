"""What a tower's features tell of each item: linear probes on unseen pictures."""

from __future__ import annotations

import numpy as np
import torch

from lib.models import embedded
from lib.study.scenes.layout import BADGE, CARD, OBJECT, PATCH
from lib.study.scenes.questions import evidence_mask
from lib.study.scenes.training.batches import onto
from lib.study.scenes.training.train_tower import tower_states


@torch.no_grad()
def probe(vision, scenes_train, scenes_test, layer: int = -2, boxes: bool = False) -> dict[str, float]:
    """Accuracy of linear probes for every attribute at the patch in the middle of its item, on unseen pictures.

    With `boxes` a probe reads the mean over the patches of the item's box: in the hole of a large ring there is no ring.
    """
    from sklearn.linear_model import LogisticRegression

    sets, device = {}, vision.embeddings.class_embedding.device
    for part, scenes in (("train", scenes_train), ("test", scenes_test)):
        states = [
            tower_states(vision, embedded.pixels(onto(scenes.images[i : i + 100], device)))[layer][:, 1:]
            for i in range(0, len(scenes.images), 100)
        ]
        features = torch.cat(states).cpu().numpy()
        middle = scenes.box.reshape(*scenes.kind.shape, 2, 2).mean(2).astype(int) // PATCH  # column, row
        patch = middle[..., 1] * scenes.layout.grid[1] + middle[..., 0]
        at = np.take_along_axis(features, patch[..., None], 1)
        if boxes:
            grid = scenes.layout.grid
            at = np.array(
                [
                    [some[evidence_mask(box[None], grid)].mean(0) for box in found]
                    for some, found in zip(features, scenes.box, strict=True)
                ]
            )
        objects, cards, badges = (scenes.kind == kind for kind in (OBJECT, CARD, BADGE))
        sets[part] = {
            "shape": (at[objects], scenes.shape[objects]),
            "color": (at[objects], scenes.color[objects]),
            "digit": (at[cards], scenes.value[cards]),
            "badge": (at[badges], scenes.value[badges]),
            "background": (features.mean(1), scenes.background),
        }
    result = {}
    for name, (x, y) in sets["train"].items():
        mean, scale = x.mean(0), x.std(0) + 1e-6
        model = LogisticRegression(max_iter=200, C=1.0).fit((x - mean) / scale, y)
        x, y = sets["test"][name]
        result[name] = float(model.score((x - mean) / scale, y))
    return result
