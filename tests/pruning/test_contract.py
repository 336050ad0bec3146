"""The contract check: every method of the study holds it, and each fault has an error of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from lib.pruning import contract, methods
from lib.pruning.base import Choice, Cues, Method, Needs
from lib.pruning.cues import cls_saliency
from lib.pruning.selection import top_k
from testkit.builders import build


@dataclass(frozen=True, kw_only=True)
class Sound(Method):
    """The most salient tokens; the faulty ones below change one thing each."""

    name: ClassVar[str] = "sound"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = "None."
    code: ClassVar[str] = "None."
    ours: ClassVar[str] = "For this test."

    fault: str = ""

    def needs(self) -> Needs:
        return Needs(saliency_layer=-1)

    def choose(self, cues: Cues) -> Choice:
        saliency = cls_saliency(self.see(cues, "saliency"))
        return spoil(self, cues, saliency, top_k(saliency, self.budget(cues)))


def spoil(method: Sound, cues: Cues, saliency: torch.Tensor, kept: torch.Tensor) -> Choice:
    everything = kept.shape[1] == cues.count
    turned = {
        "count": lambda: kept[:, :-1],
        "type": lambda: kept.int(),
        "shape": lambda: kept[0],
        "range": lambda: kept + cues.count,
        "below": lambda: kept - cues.count,
        "twice": lambda: kept[:, :1].expand_as(kept),
        "order": lambda: kept.flip(-1),
        "mates": lambda: top_k(saliency[:1].expand_as(saliency), method.budget(cues)),
        "again": lambda: top_k(torch.rand(saliency.shape), method.budget(cues)),
        "shared": lambda: top_k(saliency - saliency.mean(0), method.budget(cues)),
        "host": lambda: kept[:, : max(1, int(saliency.sum()) * 99)],
        "absent": lambda: top_k(cues.attention.mean(1), method.budget(cues)),
        "unseen": lambda: top_k(method.see(cues, "attention").mean(1), method.budget(cues)),
    }
    kept = turned.get(method.fault, lambda: kept)()
    scores = {"saliency": saliency.double() if method.fault == "double" else saliency}
    if method.fault == "infinite":
        scores["saliency"] = saliency / 0
    features = None
    if method.fault == "features":
        features = cues.features
    if method.fault == "changed" and everything:
        features = 2 * cues.features
    if method.fault == "bare":
        return kept
    return Choice(kept, scores, features)


@pytest.mark.parametrize("name", methods.NAMES)
def test_every_method_holds_the_contract(name):
    assert contract.check_method(build(name)) == contract.HOLDS


def test_a_sound_method_of_a_reader_holds_it():
    assert contract.check_method(Sound(keep=16)) == contract.HOLDS
    assert contract.check_method(Sound(keep=0.1)) == contract.HOLDS


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("count", r"sound: kept has the wrong count: keep=1 of 36 tokens is 1, got 0"),
        ("type", r"sound: kept must be int64 \[B=3, k\], got torch.int32 \[3, 1\]"),
        ("shape", r"sound: kept must be int64 \[B=3, k\], got torch.int64 \[1\]"),
        ("range", r"sound: kept must lie in 0\.\.35, got \d+\.\.\d+"),
        ("below", r"sound: kept must lie in 0\.\.35, got -\d+\.\.-\d+"),
        ("twice", r"sound: kept must hold no token twice, got \["),
        ("order", r"sound: kept must be ascending, got \["),
        ("mates", r"sound: a row depends on its batch mates: kept .* beside them, .* alone"),
        ("shared", r"sound: a row depends on its batch mates"),
        ("again", r"sound: the same cues must give the same tokens"),
        ("host", r"sound: choose\(\) reads values on the host"),
        ("absent", r"sound: choose\(\) fails on the cues that needs\(\) asks for: AttributeError"),
        ("unseen", r"sound needs cues.attention, got None"),
        ("double", r"sound: scores\['saliency'\] must be float32"),
        ("infinite", r"sound: scores\['saliency'\] must be finite"),
        ("features", r"sound: features must be \[B, k, D\] \[3, 1, 8\], got \[3, 36, 8\]"),
        ("changed", r"sound: keep=1.0 must leave the features as they are"),
        ("bare", r"sound: choose\(\) must return a Choice, got Tensor"),
    ],
)
def test_each_fault_has_its_error(fault, told):
    with pytest.raises(ValueError, match=told):
        contract.check_method(Sound(keep=16, fault=fault))


def test_a_class_without_decorator_name_or_needs_is_refused():
    class Bare(Sound):
        pass

    with pytest.raises(ValueError, match=r"sound: the class needs @dataclass\(frozen=True, kw_only=True\)"):
        contract.check_method(Bare(keep=4))

    @dataclass(frozen=True, kw_only=True)
    class Blank(Sound):
        ours: ClassVar[str] = " "

    with pytest.raises(ValueError, match="ours must be a text, got ' '"):
        contract.check_method(Blank(keep=4))

    @dataclass(frozen=True, kw_only=True)
    class Spaced(Sound):
        name: ClassVar[str] = "my method"

    with pytest.raises(ValueError, match="name must be small letters"):
        contract.check_method(Spaced(keep=4))

    @dataclass(frozen=True, kw_only=True)
    class Copied(Sound):
        name: ClassVar[str] = "cls"

    with pytest.raises(ValueError, match="cls: this name is taken"):
        contract.check_method(Copied(keep=4))

    @dataclass(frozen=True, kw_only=True)
    class Placed(Sound):
        stage: ClassVar[str] = "late"

    with pytest.raises(ValueError, match="stage must be one of encoder, decoder, any, staged, got 'late'"):
        contract.check_method(Placed(keep=4))

    @dataclass(frozen=True, kw_only=True)
    class Needless(Sound):
        def needs(self):
            return {"saliency"}

    with pytest.raises(ValueError, match=r"needs\(\) must return Needs"):
        contract.check_method(Needless(keep=4))
    with pytest.raises(ValueError, match="method must be a Method"):
        contract.check_method(Sound)


def test_features_are_for_layer_0():
    @dataclass(frozen=True, kw_only=True)
    class Late(Sound):
        stage: ClassVar[str] = "decoder"
        layer: int = 2

    with pytest.raises(
        ValueError, match="features may be rewritten before the language model only, at layer 0"
    ):
        contract.check_method(Late(keep=4, fault="features"))


def test_every_cue_is_described():
    rows = contract.rows()
    assert [row["cue"] for row in rows][:3] == ["cues.grid", "cues.features", "cues.saliency"]
    assert all(row["what it is"] for row in rows)
    told = {row["cue"]: row["ask with Needs(...)"] for row in rows}
    assert told["cues.tokens"] == "text"
    assert told["cues.grid"] == "always there"
    assert not [
        row for row in rows if row["ask with Needs(...)"] != "always there" and not row["meaning of the need"]
    ]
