"""Packed questions are worth single prompts, attention in two parts is whole attention, a stopped training goes on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.models import embedded
from lib.models.architectures import Sizes
from lib.models.embedded import PAD, START, USER
from lib.study.scenes.next import decoder, recipe
from lib.study.scenes.next.decoder import BLOCK, Phase, draw_step, hidden_states, train_decoder
from lib.study.scenes.next.words import words
from lib.study.scenes.next.world import Layout
from lib.study.scenes.training import train_tower
from lib.study.scenes.training.half_linears import half_linears

SMALL = Layout(pixels=96, objects=2, cards=1, badges=0)
SIZES = Sizes(image=192, vision_layers=2, text_layers=1, width=64, layers=2, intermediate=64)
PHASE = Phase(steps=2, batch=1, rate=1e-3, layouts=((1.0, SMALL),), times=(1, 1, 1, 1, 1, 1, 2))


@pytest.fixture(scope="module")
def vocab():
    return embedded.vocabulary(words())


@pytest.fixture(scope="module")
def clip(vocab):
    torch.manual_seed(0)
    return embedded.clip_model(SIZES, len(vocab)).eval()


def test_packed_questions_are_worth_single_prompts(clip, vocab):
    torch.manual_seed(1)
    model = embedded.llava_model(SIZES, clip, len(vocab)).eval()
    lesson = draw_step(0, (PHASE,), vocab, 0, recipe.WHOLE)
    ids = torch.from_numpy(lesson.ids)[:2]
    features = torch.randn(2, 144, SIZES.vision_width)
    with torch.no_grad():
        packed = hidden_states(model, features, ids, PHASE.blocks, PHASE.alone)[:, 146:].unflatten(
            1, (-1, BLOCK)
        )
        seen = model.model.multi_modal_projector(features)
        embed = model.model.language_model.embed_tokens
        for row in range(2):
            for block, line in enumerate(ids[row].view(-1, BLOCK)):
                start, blind = embed(torch.tensor([[START, USER]])), block >= PHASE.blocks
                prompt = torch.cat([start, *([] if blind else [seen[row][None]]), embed(line[None])], 1)
                length = prompt.shape[1]
                position, causal = torch.arange(length), torch.ones(length, length, dtype=torch.bool).tril()
                if blind and block % 2:  # counts on from where a picture would end
                    position[2:] += 144
                alone = model.model.language_model(
                    inputs_embeds=prompt,
                    attention_mask=causal[None, None],  # without one a jump of positions parts the prompt
                    position_ids=position[None],
                    use_cache=False,
                )
                wanted = alone.last_hidden_state[0, -BLOCK:]
                told = int((line != PAD).sum())
                assert torch.allclose(packed[row, block, :told], wanted[:told], atol=1e-5)


def test_products_in_bfloat16_are_near_and_leave_nothing_behind(clip, vocab):
    torch.manual_seed(1)
    model = embedded.llava_model(SIZES, clip, len(vocab))
    lesson = draw_step(0, (PHASE,), vocab, 0, recipe.WHOLE)

    def step():
        model.zero_grad()
        loss, _ = decoder.decoder_loss(model, lesson, PHASE)
        loss.backward()
        weights = [p for name, p in model.named_parameters() if p.grad is not None and p.ndim == 2]
        return loss.item(), torch.cat([p.grad.flatten() for p in weights])

    exact = step()
    with half_linears(model):
        half, grad = step()
    again = step()
    assert exact[0] == again[0]
    assert torch.equal(exact[1], again[1])
    assert half != exact[0]
    assert half == pytest.approx(exact[0], rel=1e-3)
    assert (grad - exact[1]).norm() < 0.02 * exact[1].norm()


def test_a_stopped_training_goes_on(tmp_path, clip, vocab, monkeypatch):
    monkeypatch.setattr(decoder, "VALIDATED", 2)
    two = (Phase(steps=1, batch=1, rate=1e-3, layouts=((1.0, SMALL),), times=(1,) * 7),) * 2
    straight = train_decoder(tmp_path / "straight", clip, vocab, SIZES, two, points=1, every=1)
    train_decoder(tmp_path / "cut", clip, vocab, SIZES, two[:1], points=1, every=1)
    resumed = train_decoder(tmp_path / "cut", clip, vocab, SIZES, two, points=1, every=1)
    one, other = straight.state_dict(), resumed.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    line = json.loads((tmp_path / "cut" / "decoder.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 2
    assert 0 <= line["validation relate"] <= 1


def test_a_checkpoint_is_written_when_its_time_has_come(tmp_path, vocab, monkeypatch):
    saved = []
    monkeypatch.setattr(
        "lib.study.scenes.training.loop.write_checkpoint", lambda file, *rest: saved.append(file.name)
    )
    phases = (train_tower.Phase(steps=3, batch=2, rate=1e-3, layouts=((1.0, SMALL),)),)
    ways = {"frame": recipe.WHOLE, "world": recipe.WORLD}
    train_tower.train_tower(tmp_path / "a", vocab, SIZES, phases, seconds=0.0, **ways)
    assert len(saved) == 3
    train_tower.train_tower(tmp_path / "b", vocab, SIZES, phases, **ways)
    assert len(saved) == 4


def test_the_plan_is_deep_and_ends_on_whole_pictures():
    sizes = recipe.SIZES
    assert (sizes.grid, sizes.layers) == (24, 24)
    with torch.device("meta"):
        model = embedded.llava_model(sizes, embedded.clip_model(sizes, 90), 90)
    assert 4 * sum(p.numel() for p in model.parameters()) < 40 * 2**20
    for phases in (recipe.tower(0.01), recipe.shallow(0.01), recipe.decoder(0.01)):
        assert recipe.WHOLE in [layout for _, layout in phases[-1].layouts]
    for phase in (*recipe.shallow(), *recipe.decoder()):
        assert sum(share for share, _ in phase.layouts) == pytest.approx(1)
    rng = np.random.default_rng(0)
    for layout in {
        layout
        for phase in (*recipe.tower(), *recipe.shallow(), *recipe.decoder())
        for _, layout in phase.layouts
    }:
        recipe.WORLD.generate(rng, 8, layout)


def test_a_deeper_decoder_begins_as_the_shallow_one(vocab):
    sizes = Sizes(image=64, vision_layers=2, text_layers=1, width=32, layers=4, intermediate=32)
    clip = embedded.clip_model(sizes, len(vocab))
    shallow, model = (
        embedded.llava_model(some, clip, len(vocab)).eval() for some in (replace(sizes, layers=2), sizes)
    )
    ids = torch.randint(5, 40, (2, 9))
    with torch.no_grad():
        expected = shallow(input_ids=ids).logits
        assert not torch.allclose(model(input_ids=ids).logits, expected)
        decoder.deepen(model, shallow)
        torch.testing.assert_close(model(input_ids=ids).logits, expected)
    with pytest.raises(ValueError, match="4 layers are no multiple of 3"):
        decoder.deepen(model, embedded.llava_model(replace(sizes, layers=3), clip, len(vocab)))
