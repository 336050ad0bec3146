"""A pruned cache follows every operation on its rows and columns: what comes after equals the samples by themselves."""

import copy
import pickle

import pytest
import torch
from transformers import DynamicCache

from lib.models.borrowed import CACHE, cache_of
from lib.models.prune import prune
from lib.pruning import methods
from testkit.common import RAGGED, close
from testkit.families import ROWS, inputs_of, model_of, single, visual_counts

STAGED = ((1, ((0, 2, 3, 4, 7, 9, 12), (1, 2, 5, 8, 13, 14, 15))), (3, ((2, 9), (1, 15))))
FAMILIES = [row for row in ROWS if row.name in ("llava_next", "qwen2_5_vl", "qwen3_vl", "internvl")]


def cuts_of(tiny, kind, positions):
    if kind == "staged":
        return tiny.Cuts(cuts=STAGED, positions=positions)
    return tiny.Fixed(kept=RAGGED, layer=int(kind), positions=positions)


def of_row(method, row):
    """The method that keeps for one sample what it keeps for that of the batch."""
    if hasattr(method, "cuts"):
        return type(method)(
            cuts=tuple((layer, kept[row : row + 1]) for layer, kept in method.cuts),
            positions=method.positions,
        )
    return type(method)(kept=method.kept[row : row + 1], layer=method.layer, positions=method.positions)


def step(model, cache, tokens, mask=None):
    """Logits [B, n, V] of the newest tokens [B, n]; a mask [B, S] of the prompt is continued."""
    if mask is not None:
        more = cache.get_seq_length() + tokens.shape[1]
        whole = max(more, mask.shape[1] + tokens.shape[1])
        mask = torch.cat([mask, mask.new_ones(len(mask), whole - mask.shape[1])], 1)
    return model(input_ids=tokens, attention_mask=mask, **{CACHE: cache}).logits


def alone(tiny, model, method, inputs, row, *tokens):
    """The same steps of one sample by itself: logits of the last."""
    with prune(model, of_row(method, row)), torch.no_grad():
        cache = cache_of(model(**tiny.one_row(inputs, row), use_cache=True))
        for token in tokens:
            logits = step(model, cache, token)
    return logits[0]


every_cut = pytest.mark.parametrize("kind", ["0", "2", "staged"])
both_positions = pytest.mark.parametrize("positions", ["original", "renumbered"])


@every_cut
@both_positions
def test_rows_that_move_equal_the_samples_alone(model, tiny, kind, positions):
    inputs, method = tiny.inputs((5, 2)), cuts_of(tiny, kind, positions)
    one, two = torch.tensor([[7]]), torch.tensor([[9]])
    moves = {
        "reorder": (lambda cache: cache.reorder_cache(torch.tensor([1, 0])), [1, 0]),
        "one beam wins": (lambda cache: cache.reorder_cache(torch.tensor([1, 1])), [1, 1]),
        "select": (lambda cache: cache.batch_select_indices(torch.tensor([1])), [1]),
        "select by mask": (lambda cache: cache.batch_select_indices(torch.tensor([True, False])), [0]),
        "repeat": (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1]),
    }
    expected = [alone(tiny, model, method, inputs, row, one, two) for row in range(2)]
    for move, rows in moves.values():
        with prune(model, method), torch.no_grad():
            cache = cache_of(model(**inputs, use_cache=True))
            step(model, cache, one.expand(2, 1), inputs["attention_mask"])
            move(cache)
            mask = inputs["attention_mask"][rows]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
            logits = step(model, cache, two.expand(len(rows), 1), mask)
        for row, values in zip(rows, logits, strict=True):
            close(values, expected[row], 3e-5)


@every_cut
@both_positions
def test_columns_that_go_were_never_there(model, tiny, kind, positions):
    inputs, method = tiny.inputs((5, 2)), cuts_of(tiny, kind, positions)
    mask = inputs["attention_mask"]
    tokens = torch.tensor([[7, 8], [9, 10]])
    with prune(model, method), torch.no_grad():
        cache = cache_of(model(**inputs, use_cache=True))
        expected = step(model, cache, tokens, mask)
        cache.crop(-2)
        close(step(model, cache, tokens, mask), expected)
        cache.crop(-1)
        close(
            step(model, cache, tokens[:, 1:], torch.cat([mask, mask.new_ones(2, 1)], 1))[:, 0], expected[:, 1]
        )
        cache.crop(-3)  # and the prompt's last word: another question about the same image
        shorter = mask[:, :-1]
        asked = step(model, cache, torch.tensor([[11, 12, 13], [14, 15, 16]]), shorter)
        cache.crop(0)
        with pytest.raises(ValueError, match="at most the last 4 columns can go, got -5"):
            cache.crop(-5)
        with pytest.raises(ValueError, match="tokens_to_remove must be negative"):
            cache.crop(20)
        ids = torch.cat([inputs["input_ids"][:, :-1], torch.tensor([[11, 12, 13], [14, 15, 16]])], 1)
        whole = {"input_ids": ids, "attention_mask": torch.cat([shorter, mask.new_ones(2, 3)], 1)}
        fresh = model(**inputs | whole).logits
        close(asked, fresh[:, -3:], 3e-5)
        again = step(model, cache, tokens, torch.cat([shorter, mask.new_ones(2, 3)], 1))
    for row in range(2):
        close(again[row], alone(tiny, model, method, inputs | whole, row, tokens[row : row + 1]), 3e-5)


@every_cut
def test_copies_are_caches_of_their_own(model, tiny, kind):
    inputs, method = tiny.inputs((5, 2)), cuts_of(tiny, kind, "renumbered")
    tokens = torch.tensor([[7], [9]])

    def stored(cache):
        return pickle.loads(pickle.dumps(cache))

    for copied in (copy.deepcopy, stored):
        with prune(model, method), torch.no_grad():
            cache = cache_of(model(**inputs, use_cache=True))
            other = copied(cache)
            other.reorder_cache(torch.tensor([1, 0]))
            moved = step(model, other, tokens.flip(0), inputs["attention_mask"].flip(0))
            logits = step(model, cache, tokens, inputs["attention_mask"])
            close(moved.flip(0), logits, 3e-5)
            shared = copy.copy(cache)  # a shallow copy has the same layers
            shared.reorder_cache(torch.tensor([1, 0]))
            mask = torch.cat([inputs["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1)
            close(
                step(model, copied(cache), tokens, mask.flip(0)),
                step(model, shared, tokens, mask.flip(0)),
                3e-5,
            )
    assert isinstance(cache, DynamicCache)
    assert type(other) is type(cache)


@every_cut
def test_a_cache_that_was_reset_begins_anew(model, tiny, kind):
    inputs, method = tiny.inputs((5, 2)), cuts_of(tiny, kind, "renumbered")
    with prune(model, method), torch.no_grad():
        out = model(**inputs, use_cache=True)
        cache = cache_of(out)
        cache.reset()
        cache.reorder_cache(torch.tensor([1, 0]))  # of which nothing is to be remembered
        if cache.get_seq_length() == 0:
            again = model(**inputs, **{CACHE: cache})
            close(again.logits, out.logits)
        else:  # older transformers keep the columns of a cache that was reset
            with pytest.raises(ValueError, match="must be empty when images come in"):
                model(**inputs, **{CACHE: cache})


def test_rows_that_were_moved_behind_the_record_are_told(model, tiny):
    inputs = tiny.inputs((5, 2))
    with prune(model, cuts_of(tiny, "2", "original")), torch.no_grad():
        cache = cache_of(model(**inputs, use_cache=True))
        for layer in cache.layers:
            layer.batch_select_indices(torch.tensor([1]))
        with pytest.raises(ValueError, match="holds 2 rows, got 1 of input_ids"):
            step(model, cache, torch.tensor([[7]]))


@pytest.mark.parametrize("row", FAMILIES, ids=str)
@pytest.mark.parametrize("layer", [0, 2])
def test_rows_of_other_families_move(row, layer):
    """Images that lose different numbers, and ids of several axes, of which the model itself remembers the latest batch."""
    model, (first, second) = model_of(row), visual_counts(row)
    texts = (
        3 + max(0, second - first),
        3 + max(0, first - second),
    )  # no padding: Qwen-VL counts a mask's columns anew
    inputs, method = inputs_of(row, texts=texts), methods.UniformGrid(keep=0.5, layer=layer)
    tokens, expected = torch.tensor([[7], [9]]), []
    with prune(model, method), torch.no_grad():
        for sample in range(2):
            cache = cache_of(model(**single(row, inputs, sample), use_cache=True))
            for _ in range(2):
                logits = step(model, cache, tokens[sample : sample + 1])
            expected.append(logits[0])
        cache = cache_of(model(**inputs, use_cache=True))
        step(model, cache, tokens)
        other = copy.deepcopy(cache)
        model(**single(row, inputs, 0))
        cache.reorder_cache(torch.tensor([1, 0]))
        moved = step(model, cache, tokens.flip(0))
        other.batch_select_indices(torch.tensor([1]))
        chosen = step(model, other, tokens[1:])
    close(moved[0], expected[1], 5e-5)
    close(moved[1], expected[0], 5e-5)
    close(chosen[0], expected[1], 5e-5)
