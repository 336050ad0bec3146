"""FasterVLM: the highest attention of [CLS]."""

from __future__ import annotations

from lib.pruning import methods, selection
from lib.pruning.methods import Needs
from testkit.builders import chosen, make_cues


def test_cls_reads_its_layer():
    assert methods.make("cls", keep=4).needs() == Needs(saliency_layer=-2)
    cues = make_cues(12)
    expected = selection.top_k(cues.saliency.mean(1), 9).tolist()
    assert chosen(methods.make("cls", keep=9), cues) == expected
