"""Ask the embedded model some questions under several methods and budgets, for the report's explorer page.

The pictures are the first of the test set and the suites take turns, so that nobody chose them. What is written is one
JSON document: pictures as PNG, questions, and for every method and budget the kept tokens and the answer.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from lib.files import whole
from lib.pruning.checks import check_integer
from lib.pruning.methods import make
from lib.study.arms import BUDGETS
from lib.study.pages.looks import look
from lib.study.scenes.capture import Asked, one_question, quiet_model, see
from lib.study.scenes.layout import Layout
from lib.study.scenes.split import LOCAL_SUITES, TEST_PICTURES

METHODS = ("desap", "adaptprune", "cls", "fastv", "random", "oracle")
PICTURES = 6
WORDS = 2  # tokens of an answer, as in the records


def questions(pictures: int = PICTURES) -> list[Asked]:
    """Two questions about each of the first test pictures, of suites that take turns.

    Raises
    ------
    ValueError
        When `pictures` is not in 1..300.
    """
    if check_integer("pictures", pictures, least=1) > TEST_PICTURES:
        raise ValueError(f"pictures must be at most {TEST_PICTURES}, got {pictures}")
    count = len(LOCAL_SUITES)
    return [
        one_question(picture, LOCAL_SUITES[(picture + step) % count])
        for picture in range(pictures)
        for step in (0, 2)
    ]


def explore(
    asked: Sequence[Asked], methods: Sequence[str] = METHODS, budgets: Sequence[int] = BUDGETS
) -> dict[str, object]:
    """Answer every question under every method and budget.

    Parameters
    ----------
    asked
        The questions; those about one picture stand together on the page.
    methods
        Names in `lib.pruning.methods.NAMES`; "random" takes seed 0.
    budgets
        Visual tokens kept.

    Returns
    -------
    dict
        Plain JSON values: `grid` (rows, columns), `methods` (name and label), `budgets` ascending and `pictures`;
        a picture has `png` (a data URI) and `questions`; a question its text, right answer, evidence `boxes` in
        shares of the picture (left, top, right, bottom), the `unpruned` answer and `runs` by method and budget with
        `kept` tokens, row by row, and `answer`.
    """
    loaded, budgets = quiet_model(), sorted(budgets)
    whole = see(loaded, asked, make("none"), words=WORDS).answers
    runs: list[dict[str, dict[str, object]]] = [{name: {} for name in methods} for _ in asked]
    for name, keep in tqdm([(name, keep) for name in methods for keep in budgets], desc="explorer"):
        seen = see(loaded, asked, make(name, keep=keep), words=WORDS)
        for place, answer in enumerate(seen.answers):
            kept = seen.trace.kept[place].tolist()
            runs[place][name][str(keep)] = {"kept": kept, "answer": answer}
    pictures: dict[int, dict[str, object]] = {}
    for one, answer, found in zip(asked, whole, runs, strict=True):
        page = pictures.setdefault(one.picture, {"png": _png(one.image), "questions": []})
        page["questions"].append(
            {
                "suite": one.suite,
                "text": one.question,
                "right": one.answer,
                "boxes": _shares(one),
                "unpruned": answer,
                "runs": found,
            }
        )
    return {
        "grid": list(Layout().grid),
        "methods": [{"name": name, "label": look(name).label} for name in methods],
        "budgets": budgets,
        "pictures": list(pictures.values()),
    }


def _png(image: np.ndarray) -> str:
    """A picture as a data URI, so that the page also works when it is opened as a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shares(one: Asked) -> list[list[float]]:
    height, width = one.image.shape[:2]
    return (np.asarray(one.boxes, float).reshape(-1, 4) / (width, height, width, height)).round(4).tolist()


def write(path: Path, pictures: int = PICTURES) -> Path:
    """Ask, and write the document; return its path.

    Raises
    ------
    ValueError
        On another kind of file, and as `questions` does.
    """
    if path.suffix != ".json":
        raise ValueError(f"out must be a .json file, got {path}")
    found = explore(questions(pictures))
    with whole(path) as part:
        part.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
    return path
