"""A method that repeats its choices: the same ones, in the same order, and no more than there are."""

import pytest
import torch

from lib.pruning.methods import Choice, make
from lib.study.replay import Replay
from testkit.builders import make_cues


class Staged:
    """Chooses one token fewer at every call."""

    name, layer, calls = "staged", 3, 0

    def choose(self, cues):
        self.calls += 1
        return Choice(torch.arange(9 - self.calls).expand(cues.batch, -1))


def test_choices_come_back_in_order():
    replay = Replay(Staged())
    first = [replay.choose(make_cues(seed)) for seed in (0, 1)]
    replay.rewind()
    second = [replay.choose(make_cues(seed)) for seed in (5, 6)]
    assert all(new is old for new, old in zip(second, first, strict=True))
    assert replay.method.calls == 2
    with pytest.raises(ValueError, match="staged chose 2 times before and is asked once more"):
        replay.choose(make_cues())


def test_rewritten_features_are_repeated_and_needs_are_the_method_s():
    method = make("desap", keep=9)
    replay = Replay(method)
    noted = replay.choose(make_cues(0))
    replay.rewind()
    again = replay.choose(make_cues(1))
    assert torch.equal(again.features, noted.features)
    assert (replay.needs(), replay.layer, replay.positions) == (method.needs(), 0, method.positions)


def test_what_cannot_be_repeated_is_refused():
    replay = Replay(make("cls", keep=9))
    with pytest.raises(ValueError, match="cls has no choice to repeat"):
        replay.rewind()
    replay.choose(make_cues(batch=2))
    replay.rewind()
    with pytest.raises(ValueError, match="cls chose for 2 rows and is asked for 1"):
        replay.choose(make_cues(batch=1))
