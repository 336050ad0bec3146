"""Intervals: against closed forms, against a plain loop, and where they must fail."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.study.stats import holm, mean_interval, mean_intervals, paired_difference


def test_interval_matches_the_normal_one_for_independent_values():
    values = np.random.default_rng(0).normal(0.3, 1.0, 2000)
    found = mean_interval(values, np.arange(2000), seed=1)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert found.estimate == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)


def test_clusters_widen_the_interval():
    values = np.repeat(np.random.default_rng(0).normal(size=200), 5)
    apart = mean_interval(values, np.arange(1000))
    together = mean_interval(values, np.repeat(np.arange(200), 5))
    assert (together.high - together.low) > 1.8 * (apart.high - apart.low)


def test_same_seed_same_interval_and_order_does_not_matter():
    generator = np.random.default_rng(3)
    a, b, image = generator.random(90), generator.random(90), np.repeat(np.arange(30), 3)
    first = paired_difference(a, b, image, seed=7)
    assert first == paired_difference(a, b, image, seed=7)
    order = generator.permutation(90)
    assert paired_difference(a[order], b[order], image[order], seed=7) == pytest.approx(first)
    assert paired_difference(b, a, image, seed=7).estimate == pytest.approx(-first.estimate)


def test_several_means_at_once_are_the_single_ones_to_the_bit():
    generator = np.random.default_rng(4)
    rows, image = generator.random((5, 90)), np.repeat(np.arange(30), 3)
    for weights in (None, generator.random(90) + 0.1):
        single = [mean_interval(values, image, seed=2, threshold=0.5, weights=weights) for values in rows]
        assert mean_intervals(rows, image, seed=2, threshold=0.5, weights=weights) == single


def test_bootstrap_equals_a_plain_loop():
    generator = np.random.default_rng(5)
    values, image = generator.random(12), np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3])
    counts = np.random.default_rng(0).multinomial(4, [0.25] * 4, size=10_000)
    means = []
    for row in counts:
        drawn = np.concatenate([np.tile(values[image == cluster], row[cluster]) for cluster in range(4)])
        means.append(drawn.mean())
    found = mean_interval(values, image, seed=0)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-6)


def test_no_difference_is_no_evidence():
    found = paired_difference(np.ones(20), np.ones(20), np.arange(20))
    assert (found.estimate, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_p_value_is_against_the_threshold():
    a, b = np.full(40, 0.5), np.full(40, 0.4)
    assert paired_difference(a, b, np.arange(40)).p < 0.001
    above = paired_difference(a, b, np.arange(40), threshold=0.2)
    assert above.p < 0.001
    assert above.high < 0.2


def test_weights_make_suites_equal():
    values = np.array([1.0] * 9 + [0.0])
    weights = np.array([1 / 9] * 9 + [1.0])
    assert mean_interval(values, np.arange(10), weights=weights).estimate == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("a", "cluster", "said"),
    [
        ([1.0, np.nan], [0, 1], "a holds a value that is not finite"),
        ([1.0, 2.0], [0, 0], "cluster must name two clusters"),
        ([1.0, 2.0], [0], "cluster must have shape"),
        ([1.0, 2.0, 3.0], [0, 1, 2], "b must have shape"),
    ],
)
def test_bad_input_names_the_argument(a, cluster, said):
    with pytest.raises(ValueError, match=said):
        paired_difference(a, [0.0, 0.0], cluster)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    with pytest.raises(ValueError, match="pvalues must lie"):
        holm([0.5, 1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_order_and_never_lowers(pvalues):
    adjusted = holm(pvalues)
    assert (adjusted >= np.array(pvalues)).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(pvalues, kind="stable")]) >= 0).all()
