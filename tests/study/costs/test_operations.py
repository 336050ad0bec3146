"""What happens inside a pruned forward: no layer twice, no attention map of the whole model, no value read on the host."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from lib.models.architectures import LLAVA, SIZES
from lib.models.embedded import IMAGE
from lib.models.random_weights import clip_pair, llava
from lib.pruning.base import Choice
from lib.pruning.methods import NAMES, FastV, make
from lib.study.costs import operations as witness

METHODS = [name for name in NAMES if name not in ("none", "blind", "oracle")]
LOOKS_AT_TEXT = {name for name in METHODS if make(name, keep=1).needs().text}
# DeSAP weighs values by query-query products in one layer of the tower, once; all other attention is fused.
MAPS = {"desap": 1, "multicue": 1}


@pytest.fixture(scope="module")
def bench():
    sizes = SIZES["tiny"][0]
    row = [10] * 30 + [IMAGE] * sizes.tokens + [10] * 30
    inputs = {"input_ids": torch.tensor([row] * 2), "pixel_values": torch.randn(2, 3, 168, 168)}
    return sizes, llava(sizes), clip_pair(sizes, ["word"]), inputs


@pytest.mark.parametrize("name", METHODS)
def test_no_second_forward_and_no_eager_attention(bench, name):
    sizes, model, pair, inputs = bench
    found = witness.witness(model, make(name, keep=16), inputs, ["word word"] * 2, pair)
    for layer, count in found.layer_calls.items():
        # texts are encoded one by one, so that none depends on its batch mates
        assert count == (2 * (name in LOOKS_AT_TEXT) if layer.startswith("text") else 1), layer
    texts = 2 * sizes.text_layers * (name in LOOKS_AT_TEXT)
    assert found.fused == sizes.vision_layers + sizes.layers + texts
    assert found.squares == MAPS.get(name, 0)


def test_unpruned_forward_is_the_baseline(bench):
    sizes, model, _, inputs = bench
    found = witness.witness(model, None, inputs)
    assert set(found.layer_calls.values()) == {1}
    assert (found.fused, found.squares) == (sizes.vision_layers + sizes.layers, 0)


def test_eager_attention_would_be_seen(bench):
    sizes, _, _, inputs = bench
    found = witness.witness(llava(sizes, attention="eager"), None, inputs)
    assert found.fused == 0
    assert found.squares == sizes.vision_layers + sizes.layers


@pytest.mark.parametrize("name", METHODS)
def test_selection_reads_nothing_on_the_host(name):
    assert witness.selection_work(make(name, keep=64), LLAVA).host_reads == 0


@pytest.mark.parametrize("name", ["desap", "adaptprune", "fastv", "divprune", "cdpruner"])
def test_selection_launches_no_more_for_a_batch(name):
    one, eight = (witness.selection_work(make(name, keep=64), LLAVA, batch) for batch in (1, 8))
    assert one.operations == eight.operations


@dataclass(frozen=True, kw_only=True)
class Reader(FastV):
    """Reads a value on the host, as a plain loop with `.item()` does."""

    name: ClassVar[str] = "reader"

    def choose(self, cues) -> Choice:
        int(cues.attention.mean(1).argmax(-1)[0])
        return super().choose(cues)


@dataclass(frozen=True, kw_only=True)
class Masker(FastV):
    """Chooses by a mask, whose length only its values tell."""

    name: ClassVar[str] = "masker"

    def choose(self, cues) -> Choice:
        cues.attention[cues.attention > 0]
        return super().choose(cues)


@pytest.mark.parametrize("kind", [Reader, Masker])
def test_a_reader_is_caught(kind):
    with pytest.raises(ValueError, match=f"{kind.name}: choose\\(\\) reads a value on the host"):
        witness.selection_work(kind(keep=64), SIZES["tiny"][0])


def test_tally_counts_reads_of_other_devices_only():
    with witness.Tally() as tally:
        torch.arange(3.0).sum().item()
    assert tally.host_reads == 0
    assert tally.operations["sum"] == 1


@pytest.mark.gpu
@pytest.mark.parametrize("name", METHODS)
def test_selection_does_not_wait_for_the_device(name):
    sizes = SIZES["tiny"][0]
    method = make(name, keep=16)
    cues = witness.sample_cues(sizes, method, 2, device="cuda")
    list(map(method.choose, witness.stages(method, cues)))  # tables that are made once are made now
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(map(method.choose, witness.stages(method, cues)))
    finally:
        torch.cuda.set_sync_debug_mode(before)
