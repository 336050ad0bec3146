"""The test split of Scenes: its pictures, its questions, which of them have a place to find."""

from __future__ import annotations

from functools import lru_cache

from lib.models.architectures import Sizes
from lib.study.scenes.layout import SUITES, Scenes
from lib.study.scenes.questions import Question, benchmark, evidence_mask
from lib.study.scenes.training.recipe import recipe_of

TEST_PICTURES, TEST_SEED = 300, 2026
LOCAL_SUITES = tuple(suite for suite in SUITES if suite != "scene")  # a whole picture has no place to find


def earlier_place(picture: int, place: int, suites: int) -> int:
    """Which suite's question was asked before that of suite `place` about a picture: never the same one.

    The step to it changes from picture to picture, so that every ordered pair of suites occurs equally often.
    """
    return (place + 1 + picture % (suites - 1)) % suites


def test_set() -> tuple[Scenes, list[list[Question]]]:
    """The benchmark's test split: 300 pictures, one question of each suite a picture."""
    return split_at(Sizes().grid)


@lru_cache(maxsize=2)
def split_at(side: int) -> tuple[Scenes, list[list[Question]]]:
    """The test split in pictures of `side` x `side` visual tokens; ValueError where there is no recipe for them."""
    return benchmark("test", TEST_PICTURES, TEST_SEED, recipe_of(side).frame)


def evidence_sizes() -> dict[str, int]:
    """Evidence tokens of every test question."""
    scenes, asked = test_set()
    return {
        f"test-{TEST_SEED}-{row:04d}-{question.suite}": int(
            evidence_mask(question.boxes, scenes.layout.grid).sum()
        )
        for row, found in enumerate(asked)
        for question in found
    }
