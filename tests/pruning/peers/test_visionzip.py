"""VisionZip against a slow transcription."""

from __future__ import annotations

import numpy as np

from lib.pruning import methods
from lib.study.parity.oracles import top_k, unit
from testkit.builders import make_cues


def test_visionzip_is_its_transcription():
    cues, keep = make_cues(3), 12
    choice = methods.make("visionzip", keep=keep, contextual=0.25).choose(cues)
    for row in range(2):
        saliency = cues.saliency[row].mean(0).numpy()
        keys, features = unit(cues.vision_keys[row]), cues.features[row].numpy().astype(np.float64)
        like = keys @ keys.T
        dominant = sorted(top_k(saliency, 9))
        rest = [i for i in range(36) if i not in dominant]
        targets = rest[:: len(rest) // 3][:3]
        expected = {i: features[i].copy() for i in dominant + targets}
        joined = {i: [] for i in targets}
        for i in rest:
            if i not in targets:
                joined[max(targets, key=lambda t: (like[i, t], -t))].append(i)
        for target, members in joined.items():
            if members:
                expected[target] += features[members].mean(0)
        assert choice.kept[row].tolist() == sorted(expected)
        np.testing.assert_allclose(
            choice.features[row].numpy(), [expected[i] for i in sorted(expected)], atol=1e-5
        )
