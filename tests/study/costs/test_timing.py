"""Timers and ceilings: what they return, never how long anything took."""

import math

import pytest
import torch

from lib.study.costs import timing


def test_interval_of_the_median_comes_from_ranks():
    assert timing.median_interval(range(20)) == (5.0, 14.0)  # 95.9 % by the binomial distribution
    assert timing.median_interval(range(6)) == (0.0, 5.0)
    assert timing.median_interval([3.0]) == (3.0, 3.0)
    with pytest.raises(ValueError, match="values must hold"):
        timing.median_interval([])


def test_interval_holds_the_median_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(2000, 20, generator=generator)
    held = [low <= 0.5 <= high for low, high in map(timing.median_interval, draws.tolist())]
    assert sum(held) / len(held) > 0.94


def test_work_is_called_warm_ups_and_repeats_times():
    calls = []
    found = timing.timed(lambda: calls.append(1), repeats=7, warm_up=2)
    assert len(calls) == 9
    assert found.repeats == 7
    assert 0 <= found.low <= found.median <= found.high
    assert found.first <= found.median <= found.third
    assert math.isnan(found.peak)  # nobody counts a host's allocations


def test_laps_come_in_order():
    def work(lap):
        for _ in range(3):
            torch.ones(10).sum()
            lap()

    (found,) = timing.timed_laps([work], repeats=4, warm_up=1)
    assert [lap.repeats for lap in found] == [4, 4, 4]
    assert found[0].median <= found[1].median <= found[2].median


def test_what_is_compared_is_timed_in_turn():
    seen = []
    works = [timing.whole(lambda name=name: seen.append(name)) for name in "ab"]
    timing.timed_laps(works, repeats=3, warm_up=0)
    assert "".join(seen) == "ababab"


def test_times_faster_is_paired():
    """A machine that slows down in one round slows both, and their ratio stays."""
    slow, fast = timing.summary([2.0, 20.0, 4.0]), timing.summary([1.0, 10.0, 2.0])
    assert timing.times_faster(slow, fast) == (2.0, 2.0, 2.0)


def test_a_limit_ends_the_rounds_but_leaves_enough_for_an_interval():
    found = timing.timed_laps([timing.whole(lambda: None)], repeats=50, warm_up=0, limit=-1.0)
    assert found[0][0].repeats == timing.FEWEST


@pytest.mark.parametrize(("repeats", "warm_up"), [(0, 1), (1, -1)])
def test_bad_counts_are_refused(repeats, warm_up):
    with pytest.raises(ValueError, match=f"got {repeats} and {warm_up}"):
        timing.timed(lambda: None, repeats=repeats, warm_up=warm_up)


def test_roofline_takes_the_later_ceiling():
    peaks = timing.Ceilings(100.0, 10.0, "")
    assert timing.roofline(200, 10, peaks) == (2.0, "arithmetic")
    assert timing.roofline(100, 40, peaks) == (4.0, "memory")


def test_ceilings_and_names_of_this_host():
    found = timing.ceilings("cpu")
    assert found.flops > 0
    assert found.bandwidth > 0
    assert "float32" in found.how
    assert timing.device_name("cpu").startswith("CPU")
    assert timing.driver("cpu") == "none"


@pytest.mark.gpu
def test_device_clock_and_peak():
    found = timing.timed(lambda: torch.ones(2**20, device="cuda"), "cuda", repeats=3)
    assert found.peak >= 2**22
    assert found.median > 0
