"""What must hold for every method on any input: ten thousand drawn cases, the same ones on every run."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pruning import methods
from testkit.builders import (
    FEATURES,
    SCORES,
    TURNS,
    build,
    degenerate_cues,
    expected_count,
    make_cues,
    row_of,
    turned,
)

CASES = 10_000
EACH = math.ceil(CASES / len(methods.NAMES))
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
fixed = settings(max_examples=EACH, deadline=None, derandomize=True, database=None)
grids = st.tuples(st.integers(1, 4), st.integers(1, 4))


@pytest.mark.parametrize("name", methods.NAMES)
def test_every_choice(name):
    """Exact, distinct, ascending, in range, the same twice, free of batch mates, and whole where all is kept."""
    seen = []

    @fixed
    @given(
        grid=grids,
        budget=st.one_of(st.just(1.0), st.integers(1, 16), st.floats(0.0, 1.0, exclude_min=True)),
        kinds=st.tuples(st.sampled_from(SCORES), st.sampled_from(FEATURES), st.sampled_from(DTYPES)),
        batch=st.integers(1, 3),
        seed=st.integers(0, 10_000),
    )
    def check(grid, budget, kinds, batch, seed):
        tokens = math.prod(grid)
        # A count above N or a share below one token is refused elsewhere; here it becomes the nearest good one.
        keep = min(budget, tokens) if isinstance(budget, int) else max(budget, 1 / tokens)
        cues = degenerate_cues(*kinds, seed, batch, grid)
        method = build(name, keep)
        choice = method.choose(cues)
        count = expected_count(name, keep, tokens)
        assert choice.kept.shape == (batch, count)
        assert choice.kept.dtype == torch.int64
        assert (choice.kept.diff(dim=-1) > 0).all()
        assert ((choice.kept >= 0) & (choice.kept < tokens)).all()
        if choice.features is not None:
            assert choice.features.shape == (batch, count, cues.features.shape[2])
            assert choice.features.dtype == cues.features.dtype
            assert choice.features.isfinite().all()
        for scores in choice.scores.values():
            assert scores.dtype == torch.float32
            assert scores.shape == (batch, tokens)
            assert scores.isfinite().all()
        again = method.choose(cues)
        assert torch.equal(again.kept, choice.kept)
        assert choice.features is None or torch.equal(again.features, choice.features)
        if batch > 1:
            row = seed % batch
            assert torch.equal(method.choose(row_of(cues, row)).kept[0], choice.kept[row])
        if count == tokens:
            assert torch.equal(choice.kept, torch.arange(tokens).expand(batch, -1))
            assert choice.features is None or torch.equal(choice.features, cues.features)
        seen.append(1)

    check()
    assert len(seen) >= EACH


def test_every_name_says_whether_it_turns_with_the_grid():
    missing = [name for name in methods.NAMES if name not in TURNS]
    assert not missing, f"give {', '.join(missing)} an entry in TURNS of tests/testkit/builders.py"


def turns(name, seed, grid, keep):
    """Whether the transposed grid gives the transposed choice."""
    cues = make_cues(seed, 1, grid, width=32)
    sideways, old = turned(cues)
    method = build(name, keep)
    there = old[method.choose(sideways).kept[0]].sort().values.tolist()
    return there == method.choose(cues).kept[0].tolist()


@pytest.mark.parametrize("name", [name for name in methods.NAMES if not TURNS.get(name, "")])
def test_a_transposed_grid_gives_the_transposed_choice(name):
    # Random float32 scores, more feature columns than tokens: nothing ties, no gain is ever exhausted.
    @settings(fixed, max_examples=60)
    @given(grid=grids, share=st.floats(0.04, 1.0), seed=st.integers(0, 10_000))
    def check(grid, share, seed):
        assert turns(name, seed, grid, max(1, int(share * math.prod(grid))))

    check()


@pytest.mark.parametrize("name", [name for name in methods.NAMES if TURNS.get(name, "")])
def test_what_does_not_turn_has_a_case_that_shows_it(name):
    tried = [(seed, grid, keep) for seed in range(8) for grid in ((5, 5), (3, 6)) for keep in (1, 4, 9)]
    tried += [(seed, (2, 2), 1) for seed in range(40)]
    assert not all(turns(name, *case) for case in tried)
