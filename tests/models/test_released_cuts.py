"""The cuts of a whole run against a loop over transformers' own layers, one sample at a time, in a decoder of 32 layers."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from lib.models.prune import prune
from lib.pruning import methods
from lib.study.replay import Replay
from testkit.tiny import IMAGE, SIDE, build_inputs, build_model, text_config

COUNT = SIDE**2
LOWEST = torch.finfo(torch.float32).min


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def deep(request, clip):
    text = text_config(LlamaConfig)
    text.num_hidden_layers = 32
    return build_model(attention=request.param, clip=clip, text_config=text.to_dict())


class Loop:
    """One sample's sequence, layer by layer, with nothing but the model's modules."""

    def __init__(self, model, inputs, row, renumbered):
        real = inputs["attention_mask"][row].bool()
        self.core, self.ids = model.model, inputs["input_ids"][row][real]
        self.decoder, self.renumbered = self.core.language_model, renumbered
        tower = self.core.vision_tower(inputs["pixel_values"][row : row + 1], output_hidden_states=True)
        picture = self.core.multi_modal_projector(tower.hidden_states[-2][:, 1:])[0]
        hidden = self.decoder.embed_tokens(self.ids)
        hidden[self.ids == IMAGE] = picture
        self.hidden, self.columns = hidden[None], torch.arange(len(self.ids))
        self.first = int((self.ids == IMAGE).nonzero()[0])
        self.entered = self.hidden[0].clone()

    @property
    def visual(self):
        return ((self.columns >= self.first) & (self.columns < self.first + COUNT)).nonzero()[:, 0]

    @property
    def words(self):
        return (self.columns >= self.first + COUNT).nonzero()[:, 0]

    @property
    def places(self):
        return (torch.arange(len(self.columns)) if self.renumbered else self.columns)[None]

    def rotary(self):
        return self.decoder.rotary_emb(self.hidden, position_ids=self.places)

    def queries_and_keys(self, layer):
        block = self.decoder.layers[layer]
        normed = block.input_layernorm(self.hidden)
        query, key = (
            project(normed).unflatten(-1, (-1, block.self_attn.head_dim)).transpose(1, 2)
            for project in (block.self_attn.q_proj, block.self_attn.k_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *self.rotary())
        return query[0], key[0]

    def attention(self, layer):
        query, key = self.queries_and_keys(layer)
        key = key.repeat_interleave(len(query) // len(key), 0)
        logits = query @ key.mT * query.shape[-1] ** -0.5
        later = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
        return logits.masked_fill(later, LOWEST).softmax(-1)

    def run(self, layer):
        size = len(self.columns)
        later = torch.ones(size, size, dtype=torch.bool).triu(1)
        mask = torch.zeros(1, 1, size, size).masked_fill(later, LOWEST)
        self.hidden = self.decoder.layers[layer](
            self.hidden, attention_mask=mask, position_embeddings=self.rotary()
        )

    def cut(self, scores, count):
        """Leave the `count` best of the visual columns; their places in the grid."""
        best = scores.sort(descending=True, stable=True).indices[:count].sort().values
        stay = torch.ones(len(self.columns), dtype=torch.bool)
        stay[self.visual] = False
        stay[self.visual[best]] = True
        self.hidden, self.columns = self.hidden[:, stay], self.columns[stay]
        return (self.columns[self.visual] - self.first).tolist()


def pyramiddrop(loop, keep):
    kept, shares = [], {8: (keep / COUNT) ** (1 / 3), 16: (keep / COUNT) ** (2 / 3), 24: keep / COUNT}
    for layer in range(25):
        if layer in shares:
            row = loop.attention(layer)[:, -1].mean(0)[loop.visual]
            kept.append(loop.cut(row, int(COUNT * shares[layer] + 1e-9)))
        loop.run(layer)
    return kept


def sparsevlm(loop, keep, version):
    words, tokens = loop.entered[loop.words], loop.entered[loop.visual]
    match = (tokens @ words.T).softmax(-1).mean(0)
    raters = (match > match.mean()).nonzero()[:, 0]
    raters = raters if len(raters) else torch.arange(len(words))
    counts = {"v1": (66, 30, 17), "v2": (66, 34, 20)}[version]
    counts, kept = dict(zip((2, 6, 15), counts, strict=True)), []
    for layer in range(16):
        if layer in counts:
            rows, columns = loop.words[raters], loop.visual
            seen = loop.attention(layer)[:, rows][:, :, columns].double()
            if version == "v2":
                apart = (loop.places[0, rows][:, None] - loop.places[0, columns]).double()
                theta = loop.decoder.rotary_emb.inv_freq.double()
                seen = seen / (2 * (apart[..., None] * theta).cos().sum(-1) / (2 * len(theta)) ** 0.5)
                seen = seen[seen.sum((1, 2)).argsort(descending=True)[:14]]
            count = min(COUNT, round(keep * counts[layer] / counts[15]))
        loop.run(layer)
        if layer in counts:
            kept.append(loop.cut(seen.mean((0, 1)), count))
    return kept


def dart(loop, keep):
    for layer in range(2):
        keys = loop.queries_and_keys(layer)[1].transpose(0, 1).flatten(1).abs().sum(-1)
        loop.run(layer)
    states, first = loop.decoder.norm(loop.hidden)[0], loop.first
    visual = loop.visual[keys[loop.visual].argsort(descending=True)[:4]].tolist()
    words = loop.words[keys[loop.words].argsort(descending=True)[:4]].tolist()
    kept, pivots = set(visual), sorted(visual + words, key=lambda column: -keys[column])
    missing = keep - 4
    for turn, pivot in enumerate(pivots):
        share = (turn + 1) * missing // len(pivots) - turn * missing // len(pivots)
        like = torch.nn.functional.cosine_similarity(states[pivot], states, dim=-1)
        left = [column for column in loop.visual.tolist() if column not in kept]
        kept |= set(sorted(left, key=lambda column: like[column])[:share])
    return [sorted(column - first for column in kept)]


@pytest.mark.parametrize(
    ("method", "loop"),
    [
        (methods.PyramidDrop(keep=2), pyramiddrop),
        (methods.PyramidDrop(keep=5), pyramiddrop),
        (methods.SparseVLM(keep=2), lambda loop, keep: sparsevlm(loop, keep, "v1")),
        (methods.SparseVLM(keep=3, version="v2"), lambda loop, keep: sparsevlm(loop, keep, "v2")),
        (methods.Dart(keep=9), dart),
    ],
    ids=["pyramiddrop2", "pyramiddrop5", "v1", "v2", "dart"],
)
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_every_cut_is_the_loop_s(deep, method, loop, side):
    found = set()
    for seed in range(3):
        inputs, noted = build_inputs((5, 2, 9), side, seed), Replay(method)
        with prune(deep, noted):
            deep(**inputs)
        for row in range(3):
            expected = loop(Loop(deep, inputs, row, method.positions == "renumbered"), method.keep)
            assert [choice.kept[row].tolist() for choice in noted.noted] == expected
            found.add(tuple(expected[-1]))
    assert len(found) > 3
