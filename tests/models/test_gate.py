"""Threads that call a model while another opens and leaves a context on it, and caches that leave the context."""

import copy
import pickle
import sys
import threading

import pytest
import torch

from lib.models.borrowed import CACHE, cache_of
from lib.models.gate import Gate
from lib.models.prune import prune
from lib.pruning import methods
from testkit.common import EVERY_OTHER
from testkit.tiny import Fixed

TOLD = (
    "a call from another thread has to begin inside the context",
    "filled inside prune and is of no use outside",  # transformers 5.17 encodes images within the first forward
)


@pytest.fixture
def hurried():
    """Threads take turns a thousand times as often as they do by default."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(
    "method",
    [
        methods.FastV(keep=6, layer=2),
        methods.VisionZip(keep=6),
        methods.PyramidDrop(keep=3, layers=(2, 3)),
        methods.Downsample(keep=6),
    ],
    ids=lambda method: method.name,
)
def test_a_thread_that_knows_of_no_context_gets_a_whole_answer_or_a_clear_word(tiny, hurried, method):
    """Contexts open and close under its calls: each is pruned or not, from end to end, or says why it is neither."""
    model, inputs = tiny.model(), tiny.inputs((5, 2))

    def ask():
        with torch.no_grad():
            return model(**inputs).logits, tiny.greedy(model, inputs, steps=3).sequences

    plain = ask()
    with prune(model, method):
        pruned = ask()
    found, ended, strange = set(), threading.Event(), []

    def call(number, work):
        try:
            ours = work()
        except ValueError as error:
            told = [word for word in TOLD if word in str(error)]
            found.update(told)
            strange.extend([error] if not told else [])
        except Exception as error:
            strange.append(error)
        else:
            kind = [
                name for name, of in (("plain", plain), ("pruned", pruned)) if torch.equal(ours, of[number])
            ]
            found.update(kind)
            strange.extend([ours] if not kind else [])

    def unaware():
        while not ended.is_set():
            with torch.no_grad():
                call(0, lambda: model(**inputs).logits)
                call(1, lambda: tiny.greedy(model, inputs, steps=3).sequences)

    thread = threading.Thread(target=unaware)
    thread.start()
    own = []
    for _ in range(15):
        with prune(model, method), torch.no_grad():
            own.append(torch.equal(model(**inputs).logits, pruned[0]))
    ended.set()
    thread.join(120)
    assert all(own)
    assert strange == []
    assert found


def test_leaving_waits_for_calls_under_way(tiny):
    model, inputs = tiny.model(), tiny.inputs((5,))
    begun, found, forwards = threading.Event(), [], []

    def count(*_):
        forwards.append(1)
        begun.set()

    model.model.language_model.layers[0].register_forward_hook(count)
    method = tiny.Fixed(kept=(EVERY_OTHER,), layer=2)
    with prune(model, method):
        expected = tiny.greedy(model, inputs, steps=20).sequences
    begun.clear()
    forwards.clear()
    with prune(model, method) as trace:
        thread = threading.Thread(target=lambda: found.append(tiny.greedy(model, inputs, steps=20).sequences))
        thread.start()
        assert begun.wait(60)
    assert len(forwards) == 20  # the context ended when the call had
    thread.join(60)
    assert torch.equal(found[0], expected)
    assert trace.pruned == 1


@pytest.mark.parametrize("layer", [0, 2])
def test_a_call_that_begins_while_the_context_waits_is_outside(tiny, monkeypatch, layer):
    """No hook acts on it, and its cache lacks columns: it ended in a mask of another width, or in other words."""
    model, inputs, step = tiny.model(), tiny.inputs((5,)), {"input_ids": torch.tensor([[9]])}
    begun, leaving, done, told = threading.Event(), threading.Event(), threading.Event(), []
    others = Gate._others

    def waits(gate):
        leaving.set()
        return others(gate)

    def hold(*_):
        if threading.current_thread() is slow:
            begun.set()
            assert done.wait(60)

    def late():
        assert leaving.wait(60)
        try:
            with torch.no_grad():
                told.append(model(**step, **{CACHE: cache}).logits)
        except Exception as error:
            told.append(error)
        done.set()

    monkeypatch.setattr(Gate, "_others", waits)
    model.model.language_model.layers[0].register_forward_hook(hold)
    slow, second = threading.Thread(target=lambda: model(**inputs)), threading.Thread(target=late)
    with prune(model, tiny.Fixed(kept=(EVERY_OTHER,), layer=layer)), torch.no_grad():
        cache = cache_of(model(**inputs, use_cache=True))
        slow.start()
        second.start()
        assert begun.wait(60)
    slow.join(60)
    second.join(60)
    assert "filled inside prune and is of no use outside" in str(told[0])


def test_an_exception_in_a_thread_does_not_keep_the_context(tiny):
    model, inputs, raised = tiny.model(), tiny.inputs((5,)), []

    def interrupt(*_):
        raise KeyboardInterrupt

    def fail():
        for bad in (
            inputs | {"pixel_values": torch.zeros(1, 3, 3)},
            {"input_ids": inputs["input_ids"][:, :2]},
        ):
            try:
                model(**bad)
            except ValueError as error:
                raised.append(error)
        try:
            model.model.language_model.layers[1].register_forward_hook(interrupt)
            model(**inputs)
        except KeyboardInterrupt as error:  # after which torch runs no hook
            raised.append(error)

    with prune(model, tiny.Fixed(kept=(EVERY_OTHER,))), torch.no_grad():
        model(**inputs)
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join(60)
    assert len(raised) == 3


def test_one_context_at_a_time_whatever_the_thread(tiny):
    model, method, told = tiny.model(), tiny.Fixed(kept=(EVERY_OTHER,)), []

    def open_too():
        try:
            with prune(model, method):
                told.append("opened")
        except ValueError as error:
            told.append(str(error))

    with prune(model, method), torch.no_grad():
        model(**tiny.inputs((5,)))
        thread = threading.Thread(target=open_too)
        thread.start()
        thread.join(60)
    assert len(told) == 1
    assert "pruned already, by one context at a time whatever the thread" in told[0]


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize(
    "way", [lambda cache: cache, copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))]
)
def test_a_cache_says_that_it_is_of_no_use_outside(model, tiny, layer, way):
    """It was wrong without a word: nothing outside knows which columns it lacks."""
    inputs, step = tiny.inputs((5,)), {"input_ids": torch.tensor([[9]])}
    method = Fixed(kept=(EVERY_OTHER,), layer=layer)
    with prune(model, method), torch.no_grad():
        cache = cache_of(model(**inputs, use_cache=True))
        expected = model(**step, **{CACHE: copy.deepcopy(cache)}).logits
        cache = way(cache)
    with torch.no_grad(), pytest.raises(ValueError, match="filled inside prune and is of no use outside"):
        model(**step, **{CACHE: cache})
    with prune(model, method), torch.no_grad():  # a new context goes on with it
        assert torch.equal(model(**step, **{CACHE: cache}).logits, expected)
