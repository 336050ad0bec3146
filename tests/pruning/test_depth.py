"""The one rule that maps published cuts to a decoder at hand."""

from __future__ import annotations

import pytest

from lib.pruning import methods
from lib.pruning.depth import entering, schedule


@pytest.mark.parametrize(
    ("cut", "layers", "found"),
    [
        (2, 32, 2),
        (3, 32, 3),
        (2, 40, 2),
        (3, 40, 4),
        (16, 5, 2),
        (24, 5, 4),
        (8, 4, 1),
        (2, 5, 1),
        (20, 4, 2),
    ],
)
def test_a_cut_falls_on_the_nearest_layer_halves_on_the_even_one(cut, layers, found):
    assert entering(cut, layers) == found == max(1, round(cut * layers / 32))


def test_another_depth_may_be_the_one_of_the_constants():
    assert entering(7, 14, of=28) == 4  # 3.5
    assert schedule((2, 4), 24, of=24) == (2, 4)


@pytest.mark.parametrize(
    ("cuts", "layers", "found"),
    [
        ((3, 7, 16), 5, (1, 2, 3)),  # 0.47, 1.09 and 2.5 alone would be 1, 1 and 2
        ((3, 7, 16), 4, (1, 2, 3)),
        ((8, 16, 24), 5, (1, 2, 4)),
        ((8, 16, 24), 24, (6, 12, 18)),
        ((1, 2, 31), 32, (1, 2, 31)),
    ],
)
def test_each_cut_comes_at_least_one_layer_after_the_one_before(cuts, layers, found):
    assert schedule(cuts, layers) == found


def test_every_published_cut_stays_where_it_is_in_a_decoder_of_32():
    for cut in range(1, 32):
        assert entering(cut, 32) == cut
    assert methods.make("sparsevlm", keep=17).schedule(32) == (3, 7, 16)
    assert methods.make("pyramiddrop", keep=72).schedule(32) == (8, 16, 24)
    for name in ("fastv", "adaptprune", "dart"):
        assert methods.make(name, keep=9).schedule(32) == (entering(2, 32),) == (2,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedule((8, 16, 24), 3), r"layers=3 are too few for cuts=\(8, 16, 24\) of 32: they fall on entering \[1, 2, 3\]"),
        (lambda: entering(31, 4), r"layers=4 are too few for cuts=\(31,\) of 32: they fall on entering \[4\]"),
        (lambda: entering(0, 8), "cuts must be at least 1, got 0"),
        (lambda: entering(32, 8), r"cuts must ascend and stay within 31, got \(32,\)"),
        (lambda: entering(2.0, 8), "cuts must be an int, got 2.0"),
        (lambda: entering(2, 0), "layers must be at least 1, got 0"),
        (lambda: schedule((3, 3), 8), r"cuts must ascend and stay within 31, got \(3, 3\)"),
        (lambda: schedule((), 8), r"cuts must be a tuple of decoder layers, got \(\)"),
    ],
)  # fmt: skip
def test_bad_cuts_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
