"""The same promises for every accepted class: one matrix of checks over tiny models, see `testkit.families`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from lib.models.anatomy import FAMILIES, Anatomy
from lib.models.borrowed import BEAMS_REPEAT_IMAGES, cache_of
from lib.models.prune import prune
from lib.pruning import methods
from testkit.common import close
from testkit.families import ROWS, Row, generate, inputs_of, model_of, single, visual_counts

DESAP = methods.DeSAP(keep=0.5, similarity="embedding")
BEFORE = (DESAP, methods.ClsTopK(keep=0.5, saliency_layer=-1), methods.VisionZip(keep=0.5, saliency_layer=-1))
INSIDE = (methods.FastV(keep=0.5), methods.AdaptPrune(keep=0.5, radius=2.0))
STAGED = methods.PyramidDrop(keep=0.3, layers=(2, 3))
DART = methods.Dart(keep=0.5)
BOTH = (BEFORE[0], INSIDE[1])
KERNELS = ("sdpa", "eager")
every_row = pytest.mark.parametrize("row", ROWS, ids=str)
both_stages = pytest.mark.parametrize("method", BOTH, ids=lambda method: method.name)
both_positions = pytest.mark.parametrize("positions", ["original", "renumbered"])


@dataclass(frozen=True, kw_only=True)
class Thin(methods.Method):
    """Every second token from the second on, and of these again at each further cut."""

    name: ClassVar[str] = "thin"
    stage: ClassVar[str] = "any"
    keep: float = 0.5
    cuts: tuple[int, ...]

    def schedule(self, layers):
        return self.cuts

    def choose(self, cues):
        kept = torch.arange(1, cues.count, 2 ** (max(cues.stage, 0) + 1))
        return methods.Choice(kept.expand(cues.batch, -1))


def logits_of(model, inputs, method=None, **options):
    with torch.no_grad():
        if method is None:
            return model(**inputs).logits, None
        with prune(model, method, **options) as trace:
            return model(**inputs).logits, trace


def closed_gaps(positions: torch.Tensor, kept: list[int], real: list[int]) -> torch.Tensor:
    """Position ids [axes, S] of one sample, each lowered by the lower ids that only dropped columns had."""
    used = {int(value) for column in real for value in positions[:, column]}
    left = {int(value) for column in kept for value in positions[:, column]}
    gone = used - left
    return torch.tensor([[int(v) - sum(lost < v for lost in gone) for v in axis] for axis in positions])


def hidden_by_masks(row: Row, model, inputs, cuts, positions: str):
    """The whole prompt through the untouched model, dropped columns masked as keys from each cut's layer on.

    `cuts` gives for each layer what is kept, as in `Trace`. Returns the logits and the columns that stay to the end.
    """
    decoder = model.model.language_model
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    batch, length = ids.shape
    causal = torch.ones(length, length).tril().bool()
    told = {}
    for layer, kept in cuts.items():
        stays = torch.ones(batch, length, dtype=torch.bool)
        for sample in range(batch):
            columns = (ids[sample] == row.placeholder).nonzero()[:, 0]
            stays[sample, columns] = False
            stays[sample, columns[kept[sample]]] = True
        seen = causal & (real & stays)[:, None, None]
        told[layer] = (stays, torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min))
    ids_seen = {}

    def entering(module, args, kwargs):
        ids_seen["all"] = kwargs.get("position_ids")

    def masked(layer, module, args, kwargs):
        stays, mask = told[layer]
        change = {"attention_mask": mask}
        if positions == "renumbered":
            axes = ids_seen["all"]
            axes = torch.arange(length)[None].expand(batch, -1) if axes is None else axes
            axes = axes.reshape(-1, batch, length)
            moved = [
                closed_gaps(
                    axes[:, sample],
                    (stays & real)[sample].nonzero()[:, 0].tolist(),
                    real[sample].nonzero()[:, 0].tolist(),
                )
                for sample in range(batch)
            ]
            moved = torch.stack(moved, 1)
            moved = moved[0] if len(moved) == 1 else moved
            change["position_embeddings"] = decoder.rotary_emb(args[0], position_ids=moved)
        return args, kwargs | change

    with ExitStack() as stack, torch.no_grad():
        stack.callback(decoder.register_forward_pre_hook(entering, with_kwargs=True).remove)
        for number, block in enumerate(decoder.layers):
            layer = max((layer for layer in told if layer <= number), default=None)
            if layer is not None:
                hook = lambda *call, layer=layer: masked(layer, *call)  # noqa: E731
                stack.callback(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
        logits = model(**inputs).logits
    return logits, told[max(told)][0] & real


def test_every_accepted_class_has_a_row():
    assert {type(model_of(row)).__name__ for row in ROWS} == set(FAMILIES)


@every_row
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("layer", [0, 2])
def test_keeping_everything_changes_no_bit(row, kernel, layer):
    model, inputs = model_of(row, kernel), inputs_of(row)
    plain = generate(model, inputs)
    expected, _ = logits_of(model, inputs)
    whole = [methods.NoPruning(layer=layer)]
    whole += [replace(method, keep=1.0) for method in (INSIDE if layer else BEFORE[:1])]
    for method in whole:
        logits, trace = logits_of(model, inputs, method)
        assert torch.equal(logits, expected)
        assert [len(kept) for kept in trace.kept] == visual_counts(row)
    with prune(model, whole[-1]):
        ours = generate(model, inputs)
    assert torch.equal(plain.sequences, ours.sequences)
    assert all(map(torch.equal, plain.logits, ours.logits))


@every_row
@pytest.mark.parametrize("kernel", KERNELS)
@both_positions
@pytest.mark.parametrize("method", [BEFORE[1], INSIDE[0]], ids=lambda method: method.name)
def test_dropping_equals_masking(row, kernel, positions, method):
    model, inputs = model_of(row, kernel), inputs_of(row)
    method = replace(method, positions=positions)
    logits, trace = logits_of(model, inputs, method)
    expected, stays = hidden_by_masks(row, model, inputs, {method.layer: trace.kept}, positions)
    close(logits[stays], expected[stays], 3e-5)
    dropped = inputs["attention_mask"].bool() & ~stays
    lost = [count - len(kept) for count, kept in zip(visual_counts(row), trace.kept, strict=True)]
    assert dropped.sum(1).tolist() == lost
    assert not logits[dropped].any()
    assert trace.lengths[-1] == logits.shape[1] - min(lost)
    full, _ = logits_of(model, inputs)
    assert (logits - full)[stays].abs().max() > 0.05
    logits_without_cache, _ = logits_of(model, inputs | {"use_cache": False}, method)
    close(logits_without_cache, logits)


@every_row
@both_positions
def test_cutting_twice_equals_masking(row, positions):
    model, inputs = model_of(row), inputs_of(row)
    _, first = logits_of(model, inputs, Thin(cuts=(2,), positions=positions))
    logits, last = logits_of(model, inputs, Thin(cuts=(2, 3), positions=positions))
    cuts = {2: first.kept, 3: last.kept}
    expected, stays = hidden_by_masks(row, model, inputs, cuts, positions)
    close(logits[stays], expected[stays], 3e-5)
    assert all(set(b.tolist()) < set(a.tolist()) for a, b in zip(first.kept, last.kept, strict=True))


@dataclass(frozen=True, kw_only=True)
class Ahead(Thin):
    """`Thin`, and tells how the layer about to run would attend."""

    name: ClassVar[str] = "ahead"

    def needs(self):
        return methods.Needs(next_attention=True)

    def choose(self, cues):
        return replace(super().choose(cues), scores={"next": cues.next_attention.mean(1)})


@every_row
@both_positions
def test_a_second_cut_sees_the_layer_about_to_run_on_what_the_first_left(row, positions):
    """Its attention equals that of a run which cuts once: the mask and the positions are those of the short sequence."""
    model, inputs = model_of(row, "eager"), inputs_of(row)
    once = Thin(cuts=(2,), positions=positions)
    with prune(model, once) as first, torch.no_grad():
        rows = model(**inputs, output_attentions=True).attentions[3].mean(1)[:, -1]
    _, trace = logits_of(model_of(row), inputs, Ahead(cuts=(2, 3), positions=positions))
    for sample, kept in enumerate(first.kept):
        ids = inputs["input_ids"][sample]
        visual = (ids == row.placeholder).nonzero()[:, 0]
        gone = visual[~torch.isin(torch.arange(len(visual)), kept)]
        # Rows that lose more than others hold masked columns, which no attention goes to.
        stays = torch.ones(len(ids), dtype=torch.bool)
        stays[gone] = False
        told = trace.scores["next"][sample, : len(visual)]
        expected = rows[sample][rows[sample] > 0]
        there = told.nan_to_num(0.0) > 0
        assert there.nonzero()[:, 0].tolist() == [i for i in kept.tolist() if not told[i].isnan()]
        seen = expected[(ids == row.placeholder)[stays & inputs["attention_mask"][sample].bool()]]
        newline = told[kept].isnan()
        torch.testing.assert_close(told[kept][~newline], seen[~newline], atol=2e-6, rtol=0)


@every_row
@both_positions
@pytest.mark.parametrize(
    "method",
    [BEFORE[1], Thin(cuts=(2,)), Thin(cuts=(2, 3))],
    ids=["cls", "inside", "twice"],
)
def test_cache_changes_nothing(row, positions, method):
    """Of choices that read no generated word: without a cache, each step chooses anew."""
    model, inputs = model_of(row), inputs_of(row)
    with prune(model, replace(method, positions=positions)) as trace:
        cached = generate(model, inputs)
        lengths = trace.lengths
        plain = generate(model, inputs, use_cache=False)
    assert torch.equal(cached.sequences, plain.sequences)
    for left, right in zip(cached.logits, plain.logits, strict=True):
        close(left, right, 5e-5)
    held = [cache_of(cached).get_seq_length(layer) for layer in range(len(lengths))]
    assert held == [length + 2 for length in lengths]


@every_row
@pytest.mark.parametrize("method", [*BEFORE, *INSIDE, STAGED, DART], ids=lambda method: method.name)
def test_batch_equals_singles(row, method):
    model, inputs = model_of(row), inputs_of(row)
    with prune(model, method) as trace:
        batch = generate(model, inputs)
    for place in range(2):
        with prune(model, method) as alone:
            one = generate(model, single(row, inputs, place))
        assert torch.equal(alone.kept[0], trace.kept[place])
        assert alone.grids[0] == trace.grids[place]
        assert torch.equal(one.sequences[0, -3:], batch.sequences[place, -3:])
        for name, values in alone.scores.items():
            theirs = trace.scores[name][place, : values.shape[1]]
            torch.testing.assert_close(values[0], theirs, atol=1e-5, rtol=0, equal_nan=True)
        for left, right in zip(one.logits, batch.logits, strict=True):
            close(left[0], right[place], 5e-5)


@every_row
@both_stages
def test_beams_share_their_choice(row, method):
    if BEAMS_REPEAT_IMAGES and row.name in ("internvl", "qwen3_vl_video"):
        pytest.skip(
            "transformers 5.17 repeats tile by tile, and cannot repeat a video whose frames stand apart"
        )
    model, inputs = model_of(row), inputs_of(row)
    with prune(model, method) as trace:
        generate(model, inputs)
        kept = trace.kept
        beams = generate(model, inputs, num_beams=2, length_penalty=0.0)
    assert all(map(torch.equal, trace.kept[:: 2 if BEAMS_REPEAT_IMAGES else 1], kept))
    with prune(model, method):
        one = generate(model, single(row, inputs, 1), num_beams=2, length_penalty=0.0)
    assert torch.equal(beams.sequences[1, -3:], one.sequences[0, -3:])


@every_row
@pytest.mark.parametrize("method", [*BEFORE, *INSIDE], ids=lambda method: method.name)
def test_kept_tokens_ascend_and_fill_the_budget(row, method):
    model, inputs = model_of(row), inputs_of(row)
    _, trace = logits_of(model, inputs, method)
    for kept, grids, count in zip(trace.kept, trace.grids, visual_counts(row), strict=True):
        assert (kept[1:] > kept[:-1]).all()
        patches = sum(rows * columns for rows, columns in grids)
        newlines = count - patches
        assert len(kept) == patches // 2 + newlines
        assert kept[0] >= 0
        assert kept[-1] < count
    for values in trace.scores.values():
        assert values.shape == (2, max(visual_counts(row)))
    cls = Anatomy.of(model).family.cls
    assert trace.saliency == ("" if method in INSIDE else "cls" if cls else "received")


def state_of(model):
    kinds = ("_forward_pre_hooks", "_forward_hooks")
    return {
        name: (
            tuple(len(getattr(module, kind)) for kind in kinds),
            id(getattr(module, "config", None)),
            sorted(vars(module)),
        )
        for name, module in model.named_modules()
    }


@every_row
@both_stages
def test_nothing_is_left_behind_after_an_exception(row, method):
    model, inputs = model_of(row), inputs_of(row)
    plain, _ = logits_of(model, inputs)
    before = state_of(model)

    def interrupted():
        with prune(model, method), torch.no_grad():
            model(**inputs)
            assert state_of(model) != before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert state_of(model) == before
    with prune(model, method), torch.no_grad():
        model(**inputs)
    assert state_of(model) == before
    assert torch.equal(logits_of(model, inputs)[0], plain)
