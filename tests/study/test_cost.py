"""Costs against the numbers the paper prints."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from lib.models.architectures import LLAVA, MISTRAL, NEXT, SIZES
from lib.models.borrowed import CACHE
from lib.models.embedded import IMAGE
from lib.models.prune import prune
from lib.models.random_weights import clip_pair, llava
from lib.pruning.methods import NAMES, make
from lib.study import cost
from lib.study.costs.operations import selection_work
from lib.study.pages import n40_operations


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


def counted(work):
    """Multiply-adds that torch's own counter finds; it counts two operations each."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops() / 2


def empty(*shape):
    return torch.empty(*shape, device="meta", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def model():
    return llava(LLAVA, "meta", torch.bfloat16)


@pytest.fixture(scope="module")
def small():
    sizes = SIZES["tiny"][0]
    # eager attention, as torch's counter does not know the fused kernel of the host
    return sizes, llava(sizes, attention="eager"), clip_pair(sizes, ["word"], attention="eager")


class TestAgainstTheCounter:
    """Formulas against what torch counts in the real classes at published size, which on "meta" need no memory."""

    def decoder(self, model, sizes, tokens, cached=0):
        decoder = model.model.language_model
        cache = DynamicCache(config=decoder.config)
        for layer in range(sizes.layers if cached else 0):
            part = empty(1, sizes.kv_heads, cached, sizes.head_width)
            cache.update(part, part, layer)
        inputs = {"inputs_embeds": empty(1, tokens, sizes.width), CACHE: cache}
        place = torch.zeros(1, tokens, dtype=torch.long, device="meta")
        return counted(lambda: decoder(**inputs, position_ids=place, use_cache=True))

    @pytest.mark.parametrize(("tokens", "tera"), [(636, 8.450), (252, 3.297), (124, 1.614), (60, 0.779)])
    def test_prefill(self, model, tokens, tera):
        found = self.decoder(model, LLAVA, tokens)
        assert found == cost.decoder_macs(LLAVA, [tokens] * 32)
        assert 2 * found / 1e12 == pytest.approx(tera, rel=5e-4)

    def test_step(self, model):
        assert self.decoder(model, LLAVA, 1, 636) == cost.decode_macs(LLAVA, [636] * 32)

    def test_tower_and_projector(self, model):
        tower, projector = model.model.vision_tower, model.model.multi_modal_projector
        assert counted(lambda: tower(empty(1, 3, 336, 336))) == cost.tower_macs(LLAVA)
        assert counted(lambda: projector(empty(1, 576, 1024))) == cost.projector_macs(LLAVA)

    def test_tiles_are_towers(self, model):
        assert cost.tower_macs(NEXT) == 5 * cost.tower_macs(LLAVA)
        assert counted(lambda: model.model.vision_tower(empty(5, 3, 336, 336))) == cost.tower_macs(NEXT)

    def test_head(self, model):
        assert counted(lambda: model.lm_head(empty(1, 1, 4096))) == cost.head_macs(LLAVA)

    def test_grouped_keys(self):
        model = llava(MISTRAL, "meta", torch.bfloat16)
        assert self.decoder(model, MISTRAL, 100) == cost.decoder_macs(MISTRAL, [100] * 32)
        assert self.decoder(model, MISTRAL, 1, 50) == cost.decode_macs(MISTRAL, [50] * 32)

    def test_text_tower(self):
        pair = clip_pair(LLAVA, ["a"], "meta", torch.bfloat16)
        ids = torch.zeros(1, 30, dtype=torch.long, device="meta")
        states = empty(1, 30, 768)
        # the tower itself is given no mask here: on meta one cannot be read
        tower = counted(lambda: pair.text_model(input_ids=ids))
        assert tower + counted(lambda: pair.text_projection(states)) == cost.text_macs(LLAVA, 30) - 30 * 768


class TestWholeForward:
    """Part by part, every method adds up to what one pruned forward is counted to do."""

    @pytest.mark.parametrize("name", [name for name in NAMES if name not in ("none", "blind", "oracle")])
    def test_parts_add_up(self, small, name):
        sizes, model, pair = small
        method = make(name, keep=16)
        row = [10] * 30 + [IMAGE] * sizes.tokens + [10] * 30
        inputs = {"input_ids": torch.tensor([row]), "pixel_values": torch.randn(1, 3, 168, 168)}

        def run():
            with prune(model, method, text=["word " * 28], clip=pair) as trace:
                model(**inputs, logits_to_keep=1)
            assert trace.lengths == cost.prompt_tokens(sizes, method)

        parts = cost.method_macs(sizes, method, selection_work(method, sizes).macs)
        assert counted(run) == sum(parts.values())


def test_both_countings_of_the_field():
    table = n40_operations.countings(LLAVA, (576, 64)).set_index(["counting", "kept"])
    assert table.loc[("visual tokens only", 64), "times"] == pytest.approx(9.19, abs=5e-3)
    assert table.loc[("all tokens", 64), "saving"] == pytest.approx(0.809, abs=5e-4)
    assert table.loc[("all tokens, tower and projector", 64), "tera_flops"] == pytest.approx(2.020, abs=5e-4)
    inside = n40_operations.countings(LLAVA, (576, 57), layer=2, text=30).set_index(["counting", "kept"])
    assert inside.loc[("all tokens", 57), "saving"] == pytest.approx(cost.formula("saving_with_30_text"))


def test_cache_and_weights_in_bytes():
    assert cost.cache_bytes(LLAVA, [1] * 32) == 2**19
    assert cost.cache_bytes(MISTRAL, [1] * 32) == 2**17
    assert cost.weight_bytes(LLAVA) == pytest.approx(2 * 6.476e9, rel=1e-3)
