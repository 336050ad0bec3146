"""How each kind of benchmark is scored: one question, and all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from lib.study import metrics

ROTATION = 10**6  # MMBench numbers the rotated copies of a question in steps of this


def option_letter(prediction: str, options: Mapping[str, str]) -> str | None:
    """Read the chosen option as MMBench does before it asks a judge; None where only a judge could tell.

    A letter that stands alone, bare or marked as an option, if exactly one does (a bare "A" in a longer sentence is
    an article); else the one option whose text the prediction holds.

    Parameters
    ----------
    prediction
        The model's answer.
    options
        Letter to text.
    """
    words = prediction.split()
    marks = (
        "{}",
        "{}.",
        "{},",
        "{}:",
        "{})",
        "{}).",
        "({})",
        "({}).",
        ":{}",
        ":{},",
        ":{}.",
        ":{})",
        ":{}).",
    )
    for mark in marks:
        named = [letter for letter in "ABCDE" if mark.format(letter) in words]
        article = mark == "{}" and "A" in words and len(words) > 3
        if len(named) == 1 and not article:
            return named[0]
    held = [letter for letter, text in options.items() if text.lower() in prediction.lower()]
    return held[0] if len(held) == 1 else None


def circular(right: Sequence[float], index: Sequence[int]) -> dict[str, float]:
    """Score MMBench's circular evaluation: a question counts if it is right under every rotation of its options.

    Parameters
    ----------
    right
        [n] 1 or 0.
    index
        [n] the benchmark's numbers; rotations of one question are equal modulo 10**6.

    Returns
    -------
    dict
        accuracy (circular), single (accuracy over all rows), rotations (mean rows a question; 1 means that the
        data hold no rotations and `accuracy` is not circular).
    """
    questions, place = np.unique(np.asarray(index, dtype=np.int64) % ROTATION, return_inverse=True)
    wrong = np.bincount(place, weights=1.0 - np.asarray(right, dtype=float))
    return {
        "accuracy": float((wrong == 0).mean()),
        "single": float(np.mean(right)),
        "rotations": len(index) / len(questions),
    }


@dataclass(frozen=True)
class Rows:
    """Answered questions of one benchmark and arm, column by column."""

    predictions: list[str]
    answers: list
    images: list[str]
    extra: list[dict[str, object]]
    correct: list[float]

    def column(self, key: str) -> list:
        return [extra.get(key, "") for extra in self.extra]


class Metric:
    """How one kind of benchmark is scored: each question, and all of them."""

    several = False  # whether a question has several human answers
    percent = True  # whether the table prints percent

    def one(self, prediction: str, answer, extra: Mapping[str, object]) -> float:
        """Score of one question, 0 to 1."""
        raise NotImplementedError

    def whole(self, rows: Rows) -> list[bool]:
        """Which questions can be scored where a limit has cut the benchmark off."""
        return [True] * len(rows.correct)

    def all(self, rows: Rows) -> dict[str, float]:
        """Scores of the benchmark; the first is the one that papers print."""
        return {"accuracy": sum(rows.correct) / len(rows.correct)}


class Exact(Metric):
    def one(self, prediction, answer, extra):
        return float(metrics.exact_match([prediction], [answer])[0])


class Letter(Metric):
    def one(self, prediction, answer, extra):
        return float(metrics.multiple_choice([prediction], [answer], len(extra["options"]))[0])


class Vqa(Metric):
    several = True

    def one(self, prediction, answer, extra):
        return float(metrics.vqa_accuracy([metrics.tokenised(prediction)], [answer])[0])


class TextVqa(Metric):
    several = True

    def one(self, prediction, answer, extra):
        humans = [metrics.tokenised(human) for human in answer]
        return float(metrics.vqa_accuracy([metrics.tokenised(prediction)], [humans])[0])


class Pope(Metric):
    def one(self, prediction, answer, extra):
        return metrics.pope([prediction], [answer])["accuracy"]

    def all(self, rows):
        return metrics.pope_by_category(rows.predictions, rows.answers, rows.column("category"))


class Mme(Metric):
    percent = False

    def one(self, prediction, answer, extra):
        # Twice the same question makes a whole image of one.
        return metrics.mme([prediction] * 2, [answer] * 2, [0, 0])["accuracy"]

    def whole(self, rows):
        pairs = list(zip(rows.column("category"), rows.images, strict=True))
        times = Counter(pairs)
        return [times[pair] == 2 for pair in pairs]

    def all(self, rows):
        return metrics.mme_total(rows.predictions, rows.answers, rows.images, rows.column("category"))


class MMBench(Metric):
    def one(self, prediction, answer, extra):
        return float(option_letter(prediction, extra["options"]) == answer)

    def all(self, rows):
        return circular(rows.correct, rows.column("number"))


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "exact": Exact(),
        "letter": Letter(),
        "vqa": Vqa(),
        "textvqa": TextVqa(),
        "pope": Pope(),
        "mme": Mme(),
        "mmbench": MMBench(),
    }
)
