"""What holds for every method: exact choices, frozen fields, and what is refused."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pruning import methods
from lib.pruning.base import PADDED, SHAPES
from lib.pruning.contract import BROUGHT, asked_for
from lib.pruning.methods import Cues, FastV
from testkit.builders import COUNTS, build, chosen, expected_count, make_cues, on_meta, row_of

few = settings(max_examples=15, deadline=None)


def test_names_and_table():
    assert {"none", "blind", "random", "oracle", "desap", "adaptprune"} < set(methods.NAMES)
    assert len(methods.NAMES) >= 22
    assert len(set(methods.NAMES)) == len(methods.NAMES)
    table = methods.rows()
    assert [row["name"] for row in table] == list(methods.NAMES)
    assert all(row[column] for row in table for column in ("paper", "code", "ours"))


@few
@given(seed=st.integers(0, 10_000), keep=st.one_of(st.integers(1, 36), st.floats(0.05, 1.0)))
@pytest.mark.parametrize("name", methods.NAMES)
def test_choices_are_exact_and_free_of_batch_mates(name, seed, keep):
    cues = make_cues(seed)
    method = build(name, keep)
    choice = method.choose(cues)
    count = expected_count(name, keep, 36)
    assert choice.kept.shape == (2, count)
    assert choice.kept.dtype == torch.int64
    assert (choice.kept.diff(dim=-1) > 0).all()
    assert torch.equal(choice.kept, method.choose(cues).kept)
    for row in range(2):
        alone = method.choose(row_of(cues, row))
        assert torch.equal(alone.kept[0], choice.kept[row])
        for cue_name, scores in choice.scores.items():
            assert scores.dtype == torch.float32
            assert scores.shape == (2, 36)
            assert torch.equal(alone.scores[cue_name][0], scores[row])
    if choice.features is not None:
        assert choice.features.shape == (2, count, cues.features.shape[2])


@pytest.mark.parametrize("name", methods.NAMES)
def test_keeping_everything_is_identity(name):
    if name == "blind":
        return
    cues = make_cues()
    choice = build(name, 1.0).choose(cues)
    assert torch.equal(choice.kept, torch.arange(36).expand(2, -1))
    assert choice.features is None or torch.equal(choice.features, cues.features)


@pytest.mark.parametrize("name", methods.NAMES)
def test_no_method_reads_the_device(name):
    choice = build(name).choose(on_meta(make_cues()))
    assert choice.kept.device.type == "meta"


@pytest.mark.parametrize("name", methods.NAMES)
def test_methods_are_frozen_keyword_only_and_comparable(name):
    method = build(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.layer = 3
    with pytest.raises(TypeError):
        type(method)(9)
    assert method == build(name)
    assert hash(method) == hash(build(name))
    assert dataclasses.replace(method, positions="original").positions == "original"


@pytest.mark.parametrize("name", methods.NAMES)
def test_a_method_needs_what_it_asks_for(name):
    method, full = build(name), make_cues()
    asked = asked_for(full, method.needs())
    assert chosen(method, asked) == chosen(method, full)
    for cues in BROUGHT.values():
        present = [cue for cue in cues if getattr(asked, cue) is not None]
        without = [dataclasses.replace(asked, **{cue: None}) for cue in present]
        told = {
            cue: refusal(lambda less=less: method.choose(less))
            for cue, less in zip(present, without, strict=True)
        }
        assert set(told.values()) <= {None, *(f"{name} needs cues.{cue}, got None" for cue in present)}
        assert any(told.values()) or not present, f"{name} asks for {present} and uses none"


@pytest.mark.parametrize("name", [name for name in methods.NAMES if name not in ("none", "blind")])
@pytest.mark.parametrize("keep", [0, -1, True, 0.0, 1.5, math.nan, None, "9"])
def test_bad_keep_is_refused_on_building(name, keep):
    with pytest.raises(ValueError, match="keep"):
        methods.make(name, keep=keep)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("magic", {"keep": 4}, "name must be one of none, random, .*; got 'magic'"),
        ("desap", {"keep": 4, "shares": 0.5}, "desap has no field shares; known: keep, .*share"),
        ("desap", {}, "keep must be given for desap"),
        ("none", {"keep": 4}, "keep must stay None: none has no budget; got 4"),
        ("blind", {"keep": 4}, "keep must stay None: blind has no budget; got 4"),
        ("desap", {"keep": 4, "share": 1.5}, "share must be at most 1.0, got 1.5"),
        ("desap", {"keep": 4, "share": -0.5}, "share must be at least 0.0, got -0.5"),
        ("desap", {"keep": 4, "combine": "mean"}, "combine must be one of split, sum; got 'mean'"),
        ("desap", {"keep": 4, "similarity": "cosine"}, "similarity must be one of .*; got 'cosine'"),
        (
            "desap",
            {"keep": 4, "attention": "hidden"},
            "attention must be one of qq, qk, kk, vv; got 'hidden'",
        ),
        ("desap", {"keep": 4, "pooling": "max"}, "pooling must be one of .*; got 'max'"),
        ("desap", {"keep": 4, "aligned": 1}, "aligned must be True or False, got 1"),
        ("desap", {"keep": 4, "scale": math.inf}, "scale must be finite, got inf"),
        ("desap", {"keep": 4, "key_tokens": 0}, "key_tokens must be at least 1, got 0"),
        ("desap", {"keep": 4, "saliency_layer": 0.5}, "saliency_layer must be an int, got 0.5"),
        ("desap", {"keep": 4, "layer": 2}, "layer must be 0, desap prunes before the decoder; got 2"),
        (
            "desap",
            {"keep": 4, "positions": "kept"},
            "positions must be one of original, renumbered; got 'kept'",
        ),
        ("desap", {"keep": 4, "rounding": "up"}, "rounding must be one of floor, round, ceil; got 'up'"),
        ("cls", {"keep": 4, "merge": "yes"}, "merge must be True or False, got 'yes'"),
        ("cls", {"keep": 4, "layer": 1}, "layer must be 0, cls prunes before the decoder; got 1"),
        ("fastv", {"keep": 4, "layer": 0}, "layer must be above 0, fastv reads the decoder; got 0"),
        ("fastv", {"keep": 4, "layer": -1}, "layer must be at least 0, got -1"),
        ("adaptprune", {"keep": 4, "radius": -1}, "radius must be at least 0.0, got -1"),
        ("adaptprune", {"keep": 4, "sigma_centre": 0}, "sigma_centre must be above 0.0, got 0"),
        ("adaptprune", {"keep": 4, "sigma_distance": -1.5}, "sigma_distance must be above 0.0, got -1.5"),
        ("adaptprune", {"keep": 4, "sigma_similarity": 0.0}, "sigma_similarity must be above 0.0, got 0.0"),
        ("adaptprune", {"keep": 4, "keys": "rotated"}, "keys must be one of raw, normed; got 'rotated'"),
        ("adaptprune", {"keep": 4, "spatial": None}, "spatial must be True or False, got None"),
        ("random", {"keep": 4, "seed": 0.5}, "seed must be an int, got 0.5"),
    ],
)
def test_bad_fields_are_refused_on_building(name, fields, message):
    with pytest.raises(ValueError, match=message):
        methods.make(name, **fields)


def test_bad_cues_are_refused():
    with pytest.raises(ValueError, match=r"grid \(5, 7\) has 35 positions but there are 36 tokens"):
        dataclasses.replace(make_cues(), grid=(5, 7))
    with pytest.raises(ValueError, match="features must have shape"):
        Cues(grid=(2, 2), features=torch.zeros(4, 3))
    with pytest.raises(ValueError, match="keep=40 asks for 40 of 36 tokens"):
        FastV(keep=40).choose(make_cues())
    wrong = dataclasses.replace(make_cues(), evidence=torch.zeros(2, 35, dtype=torch.bool))
    with pytest.raises(ValueError, match="evidence must have shape"):
        methods.make("oracle", keep=4).choose(wrong)
    sick = dataclasses.replace(make_cues(), attention=torch.full((2, 4, 36), torch.nan))
    with pytest.raises(ValueError, match="attention must be finite"):
        FastV(keep=4).choose(sick)


def refusal(call) -> str | None:
    """What a call refuses, None where it accepts."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", methods.NAMES)
def test_cues_of_another_shape_are_refused(name):
    method, cues = build(name), make_cues()
    for cue, form in SHAPES.items():
        good = getattr(cues, cue)
        if refusal(lambda cue=cue: method.choose(dataclasses.replace(cues, **{cue: None}))) is None:
            continue  # the method does not look at it
        bad = [torch.cat([good, good[:1]]), good[:1], good.tolist(), good[0]]
        bad += [good.narrow(form.index("N"), 0, 35)] if "N" in form else []
        for value in bad:
            with pytest.raises(ValueError, match=cue):
                method.choose(dataclasses.replace(cues, **{cue: value}))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", methods.NAMES)
def test_cues_that_are_not_finite_are_refused_or_not_read(name, bad):
    method, cues = build(name), make_cues()
    well = method.choose(cues)
    for cue in [*SHAPES, "features"]:
        good = getattr(cues, cue)
        if not good.is_floating_point() or cue in PADDED:
            continue
        sick = dataclasses.replace(cues, **{cue: torch.full_like(good, bad)})
        said = refusal(lambda sick=sick: method.choose(sick))
        if said is None:
            choice = method.choose(sick)
            assert torch.equal(choice.kept, well.kept), cue
            assert well.features is None or torch.equal(choice.features, well.features), cue
        else:
            assert said.startswith(f"{cue} must be finite"), said


@pytest.mark.parametrize("name", ["desap", "cdpruner", "multicue"])
def test_masks_that_are_none_are_refused(name):
    for value, said in (
        (torch.full((2, 5), 0.5), "got torch.float32"),
        (torch.full((2, 5), 2), r"got \[2\]"),
    ):
        with pytest.raises(ValueError, match=f"text_valid must .*{said}"):
            build(name).choose(dataclasses.replace(make_cues(), text_valid=value))
    whole = dataclasses.replace(make_cues(), text_valid=make_cues().text_valid.long())
    assert chosen(build(name), whole) == chosen(build(name), make_cues())


@pytest.mark.parametrize("name", methods.NAMES)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("positions", "kept"),
        ("positions", 1),
        ("rounding", "up"),
        ("rounding", None),
        ("layer", -1),
        ("layer", 0.5),
        ("layer", True),
        ("layer", None),
    ],
)
def test_bad_shared_fields_are_refused_by_every_method(name, field, value):
    keep = {} if name in COUNTS else {"keep": 4}
    with pytest.raises(ValueError, match=f"{field} must be .*{value}"):
        methods.make(name, **keep, **{field: value})


@pytest.mark.parametrize("name", methods.NAMES)
def test_bad_values_of_every_field_are_refused(name):
    # Whatever a field's type, this is no value of it.
    keep = {} if name in COUNTS else {"keep": 4}
    for field in dataclasses.fields(build(name)):
        for value in ("nonsense", math.nan, [], object()):
            bad = {**keep, field.name: value}
            said = refusal(lambda bad=bad: methods.make(name, **bad))
            assert said is not None, f"{name} took {field.name}={value!r}"
            assert said.startswith(f"{field.name} must"), said
            assert repr(value) in said


def test_row_seeds_are_whole():
    with pytest.raises(ValueError, match=r"seeds must be an int, got 0\.5"):
        build("random").choose(dataclasses.replace(make_cues(), seeds=[0.5, 1]))


@pytest.mark.parametrize("name", methods.NAMES)
def test_autocast_changes_nothing(name):
    """Products of scores and of merged features keep their type, whatever the caller runs his model in."""
    cues = make_cues(0)
    method = build(name, 7)
    for stage in range(len(method.schedule(32))):
        told = dataclasses.replace(cues, stage=stage)
        plain = method.choose(told)
        with torch.autocast("cpu", torch.bfloat16):
            ours = method.choose(told)
        assert torch.equal(ours.kept, plain.kept)
        assert all(torch.equal(ours.scores[cue], scores) for cue, scores in plain.scores.items())
        assert all(scores.dtype == torch.float32 for scores in ours.scores.values())
        if plain.features is not None:
            assert torch.equal(ours.features, plain.features)
