"""Training: a step runs, a resumed run is the straight one, packed questions are worth single prompts."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch

from lib.models import embedded
from lib.models.architectures import Sizes
from lib.models.embedded import END, IMAGE, PAD, START, USER
from lib.study import cards
from lib.study.pages import n80_training
from lib.study.scenes.layout import Layout
from lib.study.scenes.questions import words
from lib.study.scenes.render import generate
from lib.study.scenes.training import loop, train_decoder, train_tower
from lib.study.scenes.training import train as training
from lib.study.scenes.training.batches import Paused, drawn
from lib.study.scenes.training.recipe import Recipe
from testkit.commands import command

SMALL = Layout(cells=2, objects=2, cards=1, badges=0)
SIZES = Sizes()


@pytest.fixture(scope="module")
def vocab():
    return embedded.vocabulary(words())


@pytest.fixture(scope="module")
def clip(vocab):
    torch.manual_seed(0)
    return embedded.clip_model(SIZES, len(vocab)).eval()


@pytest.fixture(scope="module")
def model(clip, vocab):
    torch.manual_seed(1)
    return embedded.llava_model(SIZES, clip, len(vocab)).eval()


def tower_phases(count):
    layouts = ((1.0, SMALL),)
    return tuple(train_tower.Phase(steps=1, batch=4, rate=1e-3, layouts=layouts) for _ in range(count))


def decoder_phases(count):
    one = {"steps": 1, "batch": 2, "rate": 1e-3, "layouts": ((1.0, SMALL),), "per_suite": 1, "counts": 1}
    return tuple(train_decoder.Phase(**one) for _ in range(count))


def same(left, right):
    left, right = left.state_dict(), right.state_dict()
    return all(torch.equal(left[name], right[name]) for name in left)


def test_a_resumed_tower_is_the_straight_one(tmp_path, vocab):
    straight = train_tower.train_tower(tmp_path / "straight", vocab, SIZES, tower_phases(2), every=1)
    train_tower.train_tower(tmp_path / "resumed", vocab, SIZES, tower_phases(1), every=1)
    resumed = train_tower.train_tower(tmp_path / "resumed", vocab, SIZES, tower_phases(2), every=1)
    assert same(straight, resumed)
    lines = [json.loads(line) for line in (tmp_path / "resumed" / "tower.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(np.isfinite(line["contrast"]) for line in lines)
    again = train_tower.train_tower(tmp_path / "resumed", vocab, SIZES, tower_phases(2), every=1)
    assert same(again, resumed)


def test_a_resumed_decoder_is_the_straight_one(tmp_path, clip, vocab):
    straight = train_decoder.train_decoder(tmp_path / "straight", clip, vocab, SIZES, decoder_phases(2))
    train_decoder.train_decoder(tmp_path / "resumed", clip, vocab, SIZES, decoder_phases(1))
    resumed = train_decoder.train_decoder(tmp_path / "resumed", clip, vocab, SIZES, decoder_phases(2))
    assert same(straight, resumed)
    tower = straight.model.vision_tower
    assert same(tower, clip.vision_model)
    lines = [json.loads(line) for line in (tmp_path / "resumed" / "decoder.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(0 <= lines[-1][f"validation {suite}"] <= 1 for suite in ("exists", "read"))


@pytest.mark.parametrize("alone", [0, 2])
def test_packed_loss_is_the_loss_of_single_prompts(model, vocab, alone):
    phase = train_decoder.Phase(steps=1, batch=2, rate=1.0, per_suite=1, counts=1, stories=1, alone=alone)
    scenes = generate(np.random.default_rng(3), 2)
    with torch.no_grad():
        lesson = train_decoder.lesson(scenes, vocab, np.random.default_rng(5), phase)
        packed, _ = train_decoder.decoder_loss(model, lesson, phase)
    rng = np.random.default_rng(5)
    corner = rng.integers(0, 1, (2, 2))  # where the picture lies: the only place that a whole one has
    ids, labels = train_decoder.pack(scenes, vocab, rng, phase, corner)
    seeing, visual = train_decoder.blocks(phase), SIZES.grid**2
    rooms = [train_decoder.BLOCK] * (seeing + alone) + [train_decoder.STORY]
    starts = np.cumsum([0, *rooms])
    losses = []
    for row, picture in enumerate(embedded.pixels(scenes.images)):
        for block, (start, room) in enumerate(zip(starts, rooms, strict=False)):
            line, wanted = ids[row, start : start + room], labels[row, start : start + room]
            line, wanted = line[line != PAD], wanted[line != PAD]
            if not len(line):
                continue
            blind = seeing <= block < seeing + alone
            prefix = [START, USER] if blind else [START, USER, *[IMAGE] * visual]
            prompt = torch.cat([torch.tensor(prefix), line])[None]
            begin = 2 if blind and block % 2 == 0 else visual + 2  # where the block counts on from
            position = torch.cat([torch.arange(len(prefix)), begin + torch.arange(len(line))])[None]
            picture_or_none = {} if blind else {"pixel_values": picture[None]}
            with torch.no_grad():
                logits = model(input_ids=prompt, position_ids=position, **picture_or_none).logits[0]
            logits, learned = logits[-len(line) - 1 : -1], wanted != -100
            losses.append(
                torch.nn.functional.cross_entropy(logits[learned], wanted[learned], reduction="none")
            )
    torch.testing.assert_close(packed, torch.cat(losses).mean(), atol=1e-5, rtol=0)


def test_pack_teaches_answers_only(vocab):
    phase = train_decoder.Phase(steps=1, batch=2, rate=1.0, per_suite=1, counts=1, stories=0)
    scenes = generate(np.random.default_rng(3), 4)
    ids, labels = train_decoder.pack(scenes, vocab, np.random.default_rng(5), phase, np.zeros((4, 2), int))
    learned = labels != -100
    assert torch.equal(ids[learned], labels[learned])
    names = {index: word for word, index in vocab.items()}
    told = [names[int(token)] for token in labels[learned]]
    assert told.count("</s>") == int((labels == END).sum()) > 4
    assert not {"what", "is", "there", "?", "where", "how"} & set(told)


def test_blocks_do_not_see_each_other():
    phase = train_decoder.Phase(steps=1, batch=1, rate=1.0, per_suite=1, counts=1, stories=1)
    mask, position = train_decoder.packed_mask(4, phase)
    seen, prefix = mask[0, 0], 6
    first, second = prefix, prefix + train_decoder.BLOCK
    assert seen[first, :prefix].all()
    assert seen[second + 1, second]
    assert not seen[second, first : first + train_decoder.BLOCK].any()
    assert not torch.triu(seen, 1).any()
    assert int(position[0, first]) == int(position[0, second]) == prefix
    apart = prefix + train_decoder.blocks(phase) * train_decoder.BLOCK
    for start, begin in ((apart, 2), (apart + train_decoder.BLOCK, prefix)):
        assert seen[start, :2].all()
        assert not seen[start, 2:start].any()
        assert int(position[0, start]) == begin


def test_contrast_spares_twins(clip):
    torch.manual_seed(0)
    image, text = torch.randn(2, 3, 8)
    codes = [
        torch.from_numpy(train_tower.caption_codes(texts)) for texts in (["a", "b", "c"], ["a", "a", "c"])
    ]
    different, twins = (train_tower.contrast(clip, image, text, code) for code in codes)
    assert twins < different


def test_small_pictures_take_their_place_on_the_grid(clip):
    scenes = generate(np.random.default_rng(0), 2, SMALL)
    pixels = embedded.pixels(scenes.images)
    here = train_tower.tower_states(clip.vision_model, pixels)[0]
    there = train_tower.tower_states(clip.vision_model, pixels, torch.full((2, 2), 6))[0]
    assert here.shape == (2, 1 + 36, SIZES.vision_width)
    assert torch.equal(here[:, 0], there[:, 0])
    assert not torch.allclose(here[:, 1:], there[:, 1:])


def test_whole_pictures_are_encoded_as_the_model_does(clip):
    pixels = embedded.pixels(generate(np.random.default_rng(0), 2).images)
    with torch.no_grad():
        states = train_tower.tower_states(clip.vision_model, pixels)
        model = clip.vision_model(pixels, output_hidden_states=True).hidden_states
    for ours, theirs in zip(states, model, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_train_refuses_other_runs_folder(tmp_path):
    with pytest.raises(ValueError, match="scale must be above 0"):
        training.train(tmp_path, scale=0)
    training._claim(tmp_path, {"scale": 1.0, "seed": 0})
    training._claim(tmp_path, {"scale": 1.0, "seed": 0})
    with pytest.raises(ValueError, match=r"holds a run with .*asked for"):
        training._claim(tmp_path, {"scale": 0.5, "seed": 0})
    training._claim(tmp_path, {"scale": 1.0, "seed": 0, "grid": 12})  # a folder from before there were grids
    with pytest.raises(ValueError, match=r"'grid': 12.*asked for .*'grid': 24"):
        training._claim(tmp_path, {"scale": 1.0, "seed": 0, "grid": 24})


def small_recipe():
    """A frame of nine cells, two steps of the tower and two of the decoder."""
    frame = train_decoder.NINE
    layouts = (0.5, SMALL), (0.5, frame)
    tower = train_tower.Phase(steps=2, batch=8, rate=1e-3, layouts=layouts)
    decoder = train_decoder.Phase(steps=2, batch=2, rate=1e-3, layouts=layouts, per_suite=1, counts=1)
    sizes = Sizes(image=frame.pixels, vision_layers=2, text_layers=1, layers=2, width=64, intermediate=96)
    return Recipe(sizes=sizes, frame=frame, tower=lambda scale: (tower,), decoder=lambda scale: (decoder,))


def test_calls_cut_short_make_the_model_of_a_single_one(tmp_path):
    make = partial(training.train, seed=4, probed=40, recipe=small_recipe())
    straight = make(tmp_path / "straight")
    for part in ("tower", "decoder"):
        with pytest.raises(Paused, match=f"{part} at step 1 of 2"):
            make(tmp_path / "cut", minutes=1e-9)
    cut = make(tmp_path / "cut", minutes=1e-9)
    names = sorted(path.relative_to(straight) for path in straight.rglob("*.safetensors"))
    assert len(names) > 1
    assert all((straight / name).read_bytes() == (cut / name).read_bytes() for name in names)
    made = [cards.read_card(each) for each in (straight, cut)]
    for card in made:
        assert (card["grid"], card["device"] != "", card["torch"]) == (9, True, torch.__version__)
        assert card["minutes"] > 0
        assert card["parameters"] > 100_000
    curves = [
        [
            {k: v for k, v in line.items() if k != "seconds"}
            for part in ("tower", "decoder")
            for line in card[part]["curve"]
        ]
        for card in made
    ]
    assert curves[0] == curves[1]
    seconds = (
        made[1]["tower"]["curve"][-1]["seconds"],
        training._seconds(tmp_path / "cut/checkpoints/tower.pt"),
    )
    assert 0 < seconds[0] == round(seconds[1], 1)
    assert "9 x 9 visual tokens" in n80_training.recipe_sentence(made[1])
    with pytest.raises(ValueError, match=r"'grid': 9.*asked for .*'grid': 12"):
        training.train(tmp_path / "cut", seed=4)


def test_the_command_says_how_far_it_is(tmp_path):
    told = ["train", "--out", tmp_path, "--scale", "0.001"]
    done = command(*told, "--minutes", "1e-9")
    assert done.exit_code == 3
    assert done.stdout == "not finished: tower at step 1 of 4; run the same command again to go on\n"
    wrong = [(["--grid", "24"], "holds a run with"), (["--grid", "16"], "grid must be one of 12, 24, got 16")]
    wrong += [(["--minutes", "0"], "minutes must be above 0, got 0.0")]
    if not torch.cuda.is_available():
        wrong += [(["--device", "cuda"], "device 'cuda' was asked for, but torch")]
    for arguments, error in wrong:
        done = command(*told, *arguments)
        assert done.exit_code == 2
        assert error in done.stderr


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path, monkeypatch):
    file, layer = tmp_path / "tower.pt", torch.nn.Linear(2, 2)
    recent = [torch.tensor([1.0, 2.0])]
    loop.write_checkpoint(file, {"clip": layer}, (), loop.Kept(3, 7.0, recent))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda state, path: path.write_bytes(b"half") / 0)  # cut off
        with pytest.raises(ZeroDivisionError):
            loop.write_checkpoint(file, {"clip": layer}, (), loop.Kept(4, 8.0, []))
    kept = loop.read_checkpoint(file, {"clip": torch.nn.Linear(2, 2)}, ())
    assert (kept.step, kept.seconds, loop.means(kept.recent)) == (3, 7.0, [1.0, 2.0])
    torch.save({"clip": layer.state_dict(), "optimizers": [], "step": 5}, file)  # an older version's
    kept = loop.read_checkpoint(file, {"clip": layer}, ())
    assert kept.step == 5
    assert math.isnan(kept.seconds)
    loop.log_line(tmp_path / "tower.jsonl", {"step": 5}, kept.seconds)
    assert (tmp_path / "tower.jsonl").read_text() == '{"step": 5}\n'


def squares(step):
    return np.array([step, step**2])


def test_workers_change_neither_batches_nor_their_order():
    alone, helped = (list(drawn(squares, range(3, 8), workers)) for workers in (0, 2))
    assert [batch.tolist() for batch in alone] == [[step, step**2] for step in range(3, 8)]
    assert all(np.array_equal(left, right) for left, right in zip(alone, helped, strict=True))


def test_a_step_of_the_decoder_waits_for_no_device(vocab):
    """A meta tensor has no value, so whatever the host reads, or leaves behind on the host, is an error there."""
    recipe = small_recipe()
    with torch.device("meta"):
        clip = embedded.clip_model(recipe.sizes, len(vocab))
        model = embedded.llava_model(recipe.sizes, clip, len(vocab))
    phase = recipe.decoder(1.0)[0]
    batch = train_decoder.draw_step(0, (phase,), vocab, 0, recipe.frame)
    loss, _ = train_decoder.decoder_loss(model, batch, phase)
    parameters = [p for p in model.parameters() if p.requires_grad]
    loop.take_step(loss, parameters, loop.split_optimizers(model), 1e-3)
    assert loss.device.type == "meta"
    assert all(p.grad is not None for p in parameters)
