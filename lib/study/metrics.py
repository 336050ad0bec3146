"""Score answers by the benchmarks' own rules. Arrays in, arrays or plain numbers out.

Per-question rules (`exact_match`, `vqa_accuracy`, `multiple_choice`) give one score a question, so that
paired intervals stay possible. `pope` and `mme` are defined on whole lists and give a dictionary of numbers.
"""

import re
from collections.abc import Sequence

import numpy as np

_COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBER_WORDS = {word: str(value) for value, word in enumerate(_COUNTS)} | {"none": "0"}
ARTICLES = frozenset({"a", "an", "the"})
# The words whose apostrophes annotators drop; what they drop is derived below, not listed a second time. Words with a
# capital I are left out: the official table has them, but looks words up in lower case, so they never match.
_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't "
    "haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't "
    "mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've "
    "should've shouldn't shouldn't've somebody'd somebody'd've somebody'll somebody's someone'd "
    "someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've "
    "there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll "
    "what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll "
    "why're why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're "
    "you've "
)
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
MME_PERCEPTION = (
    *("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork"),
    "OCR",
)
MME_COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def _contraction_table() -> dict[str, str]:
    """Map every spelling that lacks one apostrophe to the full one; the official table restores no two at once."""
    return {
        word[:place] + word[place + 1 :]: word
        for word in _CONTRACTED.split()
        for place, letter in enumerate(word)
        if letter == "'"
    }


CONTRACTIONS = _contraction_table()


def normalise(text: str) -> str:
    """Normalise one answer as the VQA evaluation does.

    Lower case; punctuation removed, or made a blank where it joins two words; number words to digits;
    articles dropped; dropped apostrophes put back.

    Source: the rules of the VQA challenge's evaluation (visualqa.org/evaluation.html).
    """
    text = re.sub(r"\s+", " ", text).strip()
    in_number = _COMMA_IN_NUMBER.search(text) is not None
    cleaned = text
    for mark in _PUNCTUATION:
        stands_alone = f"{mark} " in text or f" {mark}" in text or in_number
        cleaned = cleaned.replace(mark, "" if stands_alone else " ")
    words = (NUMBER_WORDS.get(word, word) for word in _PERIOD.sub("", cleaned).lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def tokenised(text: str) -> str:
    """Normalise one answer as TextVQA's evaluation does, and LLaVA for answers that it sends to a server.

    Before `normalise`: lower case, commas and question marks removed without a blank, `'s` cut off as a word.

    Source: the answer processor of Pythia / MMF (m4c evaluator), which LLaVA's evaluation calls.
    """
    plain = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalise(plain)


def _same_length(**arrays: Sequence) -> int:
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{' and '.join(lengths)} differ in length: {list(lengths.values())}")
    if not next(iter(lengths.values())):
        raise ValueError(f"{next(iter(lengths))} is empty")
    return next(iter(lengths.values()))


def exact_match(predictions: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """Score 1 where prediction and answer are the same text, else 0.

    Case, outer blanks and one closing full stop do not count. Used by GQA and by Scenes.

    Returns
    -------
    ndarray
        [n] float64.
    """
    _same_length(predictions=predictions, answers=answers)

    def plain(text: str) -> str:
        return text.strip().lower().removesuffix(".").strip()

    pairs = zip(predictions, answers, strict=True)
    return np.array([float(plain(guess) == plain(truth)) for guess, truth in pairs])


def vqa_accuracy(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> np.ndarray:
    """Score against several human answers: an answer given by three others is fully right.

    For each of the human answers, ``min(1, matches among the others / 3)``; their mean is the score. Both
    sides are normalised. (Where all humans agree the official script normalises neither. The published answers
    are in normal form, as LLaVA's predictions are by `tokenised` before they are scored, so nothing changes.)

    Parameters
    ----------
    predictions
        [n] texts.
    answers
        [n] lists of human answers, usually ten each, two at least.

    Returns
    -------
    ndarray
        [n] float64 in [0, 1]. Used by VQAv2, TextVQA and VizWiz.
    """
    _same_length(predictions=predictions, answers=answers)
    scores = []
    for guess, humans in zip(predictions, answers, strict=True):
        if isinstance(humans, str) or len(humans) < 2:
            raise ValueError(f"answers needs two or more human answers a question, got {humans!r}")
        same = np.array([normalise(human) == normalise(guess) for human in humans])
        scores.append(np.minimum(1.0, (same.sum() - same) / 3).mean())
    return np.array(scores)


def _says_yes(text: str) -> bool:
    """Read a free answer as POPE does: no if its first sentence has "no" or "not", else yes.

    Case does not count (the official script knows "No", "no" and "not" alone).
    """
    words = text.split(".")[0].replace(",", "").lower().split()
    return not {"no", "not"} & set(words)


def pope(predictions: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """Score yes/no object questions; "yes" is the positive class.

    Returns
    -------
    dict
        accuracy, precision, recall, f1 and yes_ratio, each in [0, 1]. A rate without any case is 0.

    Source: the evaluation rule of POPE (Li et al., 2023).
    """
    _same_length(predictions=predictions, answers=answers)
    truth = np.array([_yes_or_no(answer) for answer in answers])
    guess = np.array([_says_yes(text) for text in predictions])
    hits = float((guess & truth).sum())
    precision = hits / max(guess.sum(), 1)
    recall = hits / max(truth.sum(), 1)
    return {
        "accuracy": float((guess == truth).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(2 * precision * recall / (precision + recall)) if hits else 0.0,
        "yes_ratio": float(guess.mean()),
    }


def _yes_or_no(answer: str) -> bool:
    word = answer.strip().lower()
    if word not in ("yes", "no"):
        raise ValueError(f"answers must be yes or no, got {answer!r}")
    return word == "yes"


def multiple_choice(predictions: Sequence[str], answers: Sequence[str], choices: int = 5) -> np.ndarray:
    """Score lettered questions: 1 where the letter read from the prediction is the answer.

    A letter is read from "B", "B.", "(B)", "B. some text" or "The answer is B". What gives no letter is
    wrong.

    Parameters
    ----------
    predictions, answers
        [n] texts; an answer is one capital letter.
    choices
        Letters in play, from A on.

    Returns
    -------
    ndarray
        [n] float64.
    """
    _same_length(predictions=predictions, answers=answers)
    if not 2 <= choices <= 26:
        raise ValueError(f"choices must lie in 2..26, got {choices}")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:choices]
    wrong = sorted({answer for answer in answers if answer not in list(letters)})
    if wrong:
        raise ValueError(f"answers must be single letters of {letters}, got {wrong[0]!r}")
    alone = re.compile(rf"\(?([{letters}])\)?(?:[.:)](?:\s.*)?)?$", re.DOTALL)
    stated = re.compile(rf"[Tt]he answer is \(?([{letters}])\b")

    def letter(text: str) -> str | None:
        if found := alone.match(text.strip()):
            return found.group(1)
        said = set(stated.findall(text))
        return said.pop() if len(said) == 1 else None

    pairs = zip(predictions, answers, strict=True)
    return np.array([float(letter(guess) == truth) for guess, truth in pairs])


def mme(predictions: Sequence[str], answers: Sequence[str], image: Sequence) -> dict[str, float]:
    """Score one MME task: two yes/no questions an image.

    Parameters
    ----------
    predictions, answers
        [n] texts. A prediction counts as yes or no by its first four letters; anything else is wrong.
    image
        [n] image ids; each must occur exactly twice.

    Returns
    -------
    dict
        accuracy (questions), accuracy_plus (images with both questions right), score = 100 x their sum.
    """
    _same_length(predictions=predictions, answers=answers, image=image)

    def read(text: str) -> bool | None:
        start = text.strip().lower()[:4]
        return True if "yes" in start else False if "no" in start else None

    pairs = zip(predictions, answers, strict=True)
    right = np.array([read(guess) is _yes_or_no(truth) for guess, truth in pairs])
    ids, place, times = np.unique(np.asarray(image), return_inverse=True, return_counts=True)
    if (times != 2).any():
        raise ValueError(
            f"image must name each image twice, got {ids[times != 2][0]!r} {times[times != 2][0]} times"
        )
    both = np.bincount(place, weights=right) == 2
    accuracy, plus = float(right.mean()), float(both.mean())
    return {"accuracy": accuracy, "accuracy_plus": plus, "score": 100 * (accuracy + plus)}


def pope_by_category(
    predictions: Sequence[str], answers: Sequence[str], category: Sequence[str]
) -> dict[str, float]:
    """Score POPE's splits (random, popular, adversarial) one by one and average them, as papers print it.

    Returns
    -------
    dict
        f1, accuracy, yes_ratio: means over the splits; then the same for each split, as `f1_random`.
    """
    _same_length(predictions=predictions, answers=answers, category=category)
    splits = {
        name: pope(*_chosen(category, name, predictions, answers)) for name in sorted({*map(str, category)})
    }
    wanted = ("f1", "accuracy", "yes_ratio")
    means = {key: float(np.mean([found[key] for found in splits.values()])) for key in wanted}
    return means | {f"{key}_{name}": found[key] for name, found in splits.items() for key in wanted}


def _chosen(names: Sequence, name: str, *columns: Sequence) -> list[list]:
    """The entries of some columns at which `names` is `name`."""
    return [
        [value for value, own in zip(column, names, strict=True) if str(own) == name] for column in columns
    ]


def mme_total(
    predictions: Sequence[str], answers: Sequence[str], image: Sequence, task: Sequence[str]
) -> dict[str, float]:
    """Score all of MME: each task as `mme` does, summed within perception (10 tasks) and cognition (4).

    Returns
    -------
    dict
        score (the sum of both), perception, cognition. Tasks without a question count 0.

    Raises
    ------
    ValueError
        On a task that MME does not have, or an image without exactly two questions.
    """
    _same_length(predictions=predictions, answers=answers, image=image, task=task)
    known = MME_PERCEPTION + MME_COGNITION
    if foreign := sorted({*map(str, task)} - set(known)):
        raise ValueError(f"task must be one of {', '.join(known)}; got {foreign[0]!r}")
    scores = {
        name: mme(*_chosen(task, name, predictions, answers, image))["score"] for name in {*map(str, task)}
    }
    perception = sum(scores.get(name, 0.0) for name in MME_PERCEPTION)
    cognition = sum(scores.get(name, 0.0) for name in MME_COGNITION)
    return {"score": perception + cognition, "perception": perception, "cognition": cognition}
