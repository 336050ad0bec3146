"""Costs against the numbers the paper prints."""

import pytest

from lib.pruning.methods import make
from lib.study import cost


@pytest.mark.parametrize(("kept", "tera"), [(576, 3.817), (192, 1.253), (128, 0.833), (64, 0.4155)])
def test_prefill_matches_the_paper(kept, tera):
    assert cost.prefill_macs(4096, 11008, [kept] * 32) / 1e12 == pytest.approx(tera, rel=5e-4)


def test_prefill_matches_next_at_2880_and_320():
    assert cost.llava_macs(2880, 2880) / 1e12 == pytest.approx(20.83, rel=5e-4)
    assert cost.llava_macs(2880, 320) / 1e12 == pytest.approx(2.10, rel=5e-3)


def test_layers_add_up_and_grouped_queries_cost_less():
    assert cost.prefill_macs(8, 16, [3, 5]) == cost.prefill_macs(8, 16, [3]) + cost.prefill_macs(8, 16, [5])
    assert cost.prefill_macs(8, 16, [1]) - cost.prefill_macs(8, 16, [1], kv_ratio=0.25) == 1.5 * 64


def test_layer_tokens_counts_text_only_when_asked():
    assert cost.layer_tokens(4, 576, 57, prune_layer=2, text=30) == [606, 606, 87, 87]
    assert cost.layer_tokens(3, 576, 57, text=30, visual_only=True) == [57, 57, 57]


def test_kv_bytes():
    assert cost.kv_bytes([576] * 32, kv_heads=32, head_width=128) == 2 * 576 * 32 * 4096 * 2


def test_alignment_is_what_the_paper_counts():
    assert cost.alignment_operations() == pytest.approx(2.65e7, rel=2e-3)


def test_adaptprune_saving_depends_on_what_is_counted():
    assert cost.formula("saving_visual_only") == pytest.approx(0.847, abs=5e-4)
    assert cost.formula("saving_with_30_text") == pytest.approx(0.806, abs=5e-4)
    assert cost.formula("saving_with_60_text") == pytest.approx(0.769, abs=5e-4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: cost.prefill_macs(0, 1, [1]), "hidden must be at least 1, got 0"),
        (lambda: cost.prefill_macs(1, 1, []), "tokens must list"),
        (lambda: cost.prefill_macs(1, 1, [1], kv_ratio=0), "kv_ratio"),
        (lambda: cost.layer_tokens(4, 10, 11), "kept must lie in 0..10, got 11"),
        (lambda: cost.layer_tokens(4, 10, 5, prune_layer=5), "prune_layer"),
        (lambda: cost.kv_bytes([1], 0, 1), "kv_heads"),
        (lambda: cost.formula("nothing"), "'nothing' is unknown"),
    ],
)
def test_bad_input_names_the_argument(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_visual_tokens_in_each_layer_follow_the_cuts():
    assert cost.visual_tokens(make("none"), 576, 3) == [576] * 3
    assert cost.visual_tokens(make("blind"), 576, 3) == [0] * 3
    assert cost.visual_tokens(make("desap", keep=64), 576, 3) == [64] * 3
    assert cost.visual_tokens(make("fastv", keep=0.1), 576, 4) == [576, 576, 57, 57]
    assert (
        cost.visual_tokens(make("pyramiddrop", keep=72), 576, 8)
        == [576] * 2 + [288] * 2 + [144] * 2 + [72] * 2
    )
