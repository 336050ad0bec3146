"""The tiny models of `testkit.tiny` as fixtures, and `tiny`, which names all that is there."""

from types import SimpleNamespace

import pytest

from lib.models.clip import ClipPair
from testkit.tiny import (
    IMAGE,
    LAYERS,
    SIDE,
    Cuts,
    Fixed,
    Spy,
    build_clip,
    build_inputs,
    build_model,
    build_tokenizer,
    greedy,
    one_row,
)


@pytest.fixture(scope="session")
def clip():
    return build_clip()


@pytest.fixture(scope="session")
def pair(clip):
    return ClipPair.of(clip, build_tokenizer())


@pytest.fixture(scope="session", params=["sdpa", "eager"])
def any_model(request, clip):
    return build_model(attention=request.param, clip=clip)


@pytest.fixture(scope="session")
def model(clip):
    return build_model(clip=clip)


@pytest.fixture(scope="session")
def tiny():
    return SimpleNamespace(
        clip=build_clip,
        model=build_model,
        tokenizer=build_tokenizer,
        inputs=build_inputs,
        one_row=one_row,
        Fixed=Fixed,
        Spy=Spy,
        Cuts=Cuts,
        greedy=greedy,
        image=IMAGE,
        tokens=SIDE**2,
        side=SIDE,
        layers=LAYERS,
    )
