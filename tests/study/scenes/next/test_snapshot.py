"""A training carried through the files that git holds goes on where it was, weights to the bit."""

import json

import torch

from lib.models import embedded
from lib.models.architectures import Sizes
from lib.study.scenes.next import decoder, recipe, snapshot
from lib.study.scenes.next.words import words
from lib.study.scenes.next.world import Layout
from lib.study.scenes.training import train_tower

SMALL = Layout(pixels=96, objects=2, cards=1, badges=0)
SIZES = Sizes(image=192, vision_layers=1, text_layers=1, width=32, layers=2, intermediate=32)
ASKED = {"batch": 1, "rate": 1e-3, "layouts": ((1.0, SMALL),), "times": (1,) * 7}


def test_a_carried_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "VALIDATED", 1)
    vocab, phases = (
        embedded.vocabulary(words()),
        (train_tower.Phase(steps=1, batch=2, rate=1e-3, layouts=((1.0, SMALL),)),),
    )
    ways = {"frame": recipe.WHOLE, "world": recipe.WORLD}
    first, kept, second = (tmp_path / name for name in ("first", "kept", "second"))
    clip = train_tower.train_tower(first, vocab, SIZES, phases, every=1, **ways)
    two = (decoder.Phase(steps=1, **ASKED),) * 2

    def decode(folder, phases):
        return decoder.train_decoder(folder, clip, vocab, SIZES, phases, every=1, points=1)

    decode(first, two[:1])
    (first / "decoder.json").unlink()  # as in the middle of a plan: the moments are kept
    snapshot.save(first, kept)
    assert snapshot.restore(kept, second) == ["tower", "decoder"]
    assert snapshot.restore(kept, second) == []
    for half in ("tower", "decoder"):
        old, new = (torch.load(folder / f"{half}.pt", weights_only=True) for folder in (first, second))
        assert old.keys() - {"recent"} == new.keys() - {"recent"}
        for module in set(old) & {"clip", "head", "model"}:
            assert all(torch.equal(value, new[module][name]) for name, value in old[module].items())
            assert old[module].keys() == new[module].keys()
    moments = [state["optimizers"][0]["state"] for state in (old, new)]
    assert moments[0].keys() == moments[1].keys()
    assert all(
        torch.allclose(one["momentum"], moments[1][place]["momentum"], rtol=0.01)
        for place, one in moments[0].items()
    )
    straight, carried = (decode(folder, two) for folder in (first, second))
    assert json.loads((second / "decoder.jsonl").read_text().splitlines()[-1])["step"] == 2
    pairs = zip(straight.parameters(), carried.parameters(), strict=True)
    assert all(torch.allclose(one, other, atol=1e-3) for one, other in pairs)
    again = train_tower.train_tower(
        second, vocab, SIZES, phases, every=1, **ways
    )  # finished: nothing is trained
    assert all(
        torch.equal(one, other) for one, other in zip(clip.parameters(), again.parameters(), strict=True)
    )
