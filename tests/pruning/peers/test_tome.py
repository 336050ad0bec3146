"""ToMe: merging against a slow transcription."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pruning.peers.tome import bipartite_merge
from lib.study.parity.oracles import top_k, unit
from testkit.builders import example

few = settings(max_examples=25, deadline=None)


@few
@given(seed=st.integers(0, 10_000), keep=st.integers(1, 30))
def test_merging_keeps_every_token_with_its_weight(seed, keep):
    _, features = example(seed, 1, 30)
    groups = [([i], np.asarray(features[0, i], np.float64)) for i in range(30)]
    while len(groups) > keep:
        even, odd = groups[::2], [[list(m), v] for m, v in groups[1::2]]
        like = unit([value for _, value in even]) @ unit([value for _, value in odd]).T
        offers = sorted(top_k(like.max(1), min(len(groups) - keep, len(even), len(odd))))
        partner = like.argmax(1)
        places = [group[0][0] for group in groups[1::2]]
        for j, group in enumerate(odd):
            mine = [even[i] for i in offers if partner[i] == j]
            total = group[1] * len(group[0]) + sum((v * len(m) for m, v in mine), np.zeros(features.shape[2]))
            group[0] = group[0] + [t for m, _ in mine for t in m]
            group[1] = total / len(group[0])
        stay = [(even[i][0], even[i][1]) for i in range(len(even)) if i not in offers]
        merged = sorted(
            [(m[0], (m, v)) for m, v in stay] + [(p, (m, v)) for p, (m, v) in zip(places, odd, strict=True)]
        )
        groups = [group for _, group in merged]
    kept, values = bipartite_merge(features, keep)
    assert kept[0].tolist() == [group[0][0] for group in groups]
    np.testing.assert_allclose(values[0].numpy(), [group[1] for group in groups], atol=1e-4)
    assert sorted(token for group in groups for token in group[0]) == list(range(30))
