"""Methods in another's place: what every stand-in hands on, and one that repeats its choices for a later question."""

from __future__ import annotations

from collections.abc import Iterator

from lib.pruning.base import Choice, Cues, Method


class StandIn:
    """Whatever is not its own it takes from `method`: needs, layer, positions, name."""

    def __init__(self, method: Method) -> None:
        self.method = method

    def __getattr__(self, name: str):
        return getattr(self.method, name)


class Replay(StandIn):
    """A method that notes every choice it makes and, after `rewind`, makes the same ones again in the same order.

    It asks for the same cues either way, so that both passes run under the same hooks. A choice is noted whole: kept
    tokens and rewritten features.
    """

    def __init__(self, method: Method) -> None:
        super().__init__(method)
        self.noted: list[Choice] = []
        self.left: Iterator[Choice] | None = None

    def rewind(self) -> None:
        """From now on repeat what was noted.

        Raises
        ------
        ValueError
            When nothing was: the first question has not been run.
        """
        if not self.noted:
            raise ValueError(f"{self.name} has no choice to repeat: run the first question before `rewind`")
        self.left = iter(self.noted)

    def choose(self, cues: Cues) -> Choice:
        """Choose and note, or repeat; the batch must be that of the first pass."""
        if self.left is None:
            self.noted.append(self.method.choose(cues))
            return self.noted[-1]
        choice = next(self.left, None)
        if choice is None:
            raise ValueError(f"{self.name} chose {len(self.noted)} times before and is asked once more")
        if len(choice.kept) != cues.batch:
            raise ValueError(f"{self.name} chose for {len(choice.kept)} rows and is asked for {cues.batch}")
        return choice
