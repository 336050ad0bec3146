"""The command trains tower and decoder to a model that loads, and a stopped one says so and goes on."""

import json
from dataclasses import replace

import torch

from lib.models.architectures import Sizes
from lib.models.hub import load
from lib.study.scenes.next import decoder, recipe, train
from lib.study.scenes.next.world import Layout
from lib.study.scenes.training import train_tower

SMALL = ((1.0, Layout(pixels=96, objects=2, cards=1, badges=0)),)


def test_the_command_leaves_a_model_that_loads(tmp_path, monkeypatch, capsys):
    sizes = Sizes(image=192, vision_layers=2, text_layers=1, width=32, layers=2, intermediate=32)
    seen = train_tower.Phase(steps=2, batch=2, rate=1e-3, layouts=SMALL)
    told = decoder.Phase(steps=1, batch=1, rate=1e-3, layouts=SMALL, times=(1,) * 7)
    monkeypatch.setattr(recipe, "SIZES", sizes)
    monkeypatch.setattr(recipe, "tower", lambda: (seen,))
    monkeypatch.setattr(recipe, "SHALLOW", replace(sizes, layers=1))
    for phases in ("shallow", "decoder"):
        monkeypatch.setattr(recipe, phases, lambda: (told,))
    monkeypatch.setattr(train, "PROBED", 8)
    monkeypatch.setattr(decoder, "VALIDATED", 1)
    call = [f"--out={tmp_path}", "--seeds", "3", "--threads", str(torch.get_num_threads())]
    assert train.main([*call, "--minutes", "0"]) == 3
    assert "tower at step 1 of 2" in capsys.readouterr().out
    assert train.main(call) == 0
    loaded = load(tmp_path / "3" / "model")
    kept = torch.load(tmp_path / "3" / "decoder.pt", weights_only=True)["model"]
    assert all(torch.equal(value, kept[name]) for name, value in loaded.model.state_dict().items())
    card = json.loads((tmp_path / "3" / "model" / "training.json").read_text())
    assert card["tower"]["steps"] == 2
    assert [point["step"] for point in card["decoder"]["curve"]] == [1]
    assert set(card["probe"]["accuracy"]) == {"shape", "color", "digit", "badge", "background"}
