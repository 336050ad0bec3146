"""Rows of a benchmark's files as questions that can be put."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.study.harness.benchmarks import Benchmark
from lib.study.harness.scoring import METRICS


@dataclass(frozen=True)
class Asked:
    """One question, ready to be put.

    Attributes
    ----------
    question : its text alone, which methods hear.
    prompt : what the model reads.
    answer : a text, or the humans' answers.
    image_id : the cluster of every interval.
    extra : what the metric needs besides (number, category, options).
    """

    question: str
    prompt: str
    answer: str | list[str]
    image_id: str
    extra: dict[str, object]


def _text(value: object) -> str:
    """A cell as text; what stands for "nothing" in these files is ""."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = str(value).strip()
    return "" if text in ("nan", "None", "none") else text


def options_of(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, str]:
    """Letter to text of the choices; they end at the first that is empty."""
    values = row[columns[0]] if len(columns) == 1 else [row[column] for column in columns]
    found: dict[str, str] = {}
    for letter, value in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", values or (), strict=False):
        if value is None or (len(columns) > 1 and not _text(value)):
            break
        found[letter] = str(value)
    return found


def ask(row: Mapping[str, Any], of: Benchmark) -> Asked:
    """Turn one row of a benchmark's file into the question that is put.

    Raises
    ------
    ValueError
        On an empty question or answer, or a multiple-choice question with fewer than two options.
    """
    question = str(row[of.question] or "").strip()
    if not question:
        raise ValueError(f"{of.question} is empty")
    options = options_of(row, of.options) if of.options else {}
    if of.options and len(options) < 2:
        raise ValueError(f"{', '.join(of.options)} hold fewer than two options")
    hint = _text(row[of.hint]) if of.hint else ""
    prompt = of.prompt.format(
        question=question,
        hint=of.hint_form.format(hint) if hint else "",
        options="\n".join(f"{letter}. {text}" for letter, text in options.items()),
        ocr=", ".join(row[of.ocr] or ()) if of.ocr else "",
    )
    extra: dict[str, object] = {"options": options} if options else {}
    extra |= {key: row[name] for key, name in (("number", of.number), ("category", of.category)) if name}
    image_id = _text(row[of.image_id]) if of.image_id else ""
    return Asked(question, prompt, _answer(row[of.answer], of, options), image_id, extra)


def _answer(value: Any, of: Benchmark, options: Mapping[str, str]) -> str | list[str]:
    """A cell of answers: a text, a letter or its number, texts, or records that hold a text."""
    if METRICS[of.metric].several:
        found = [str(item["answer"] if isinstance(item, Mapping) else item) for item in value or ()]
        if len(found) < 2:
            raise ValueError(f"{of.answer} must hold two or more answers, got {found}")
        return found
    if options and isinstance(value, int):
        value = dict(enumerate(options)).get(value)
    text = "" if value is None else str(value).strip()
    if not text or (options and text not in options):
        raise ValueError(
            f"{of.answer} must be {'one of ' + ', '.join(options) if options else 'a text'}, got {value!r}"
        )
    return text


def answer_text(answer: str | list[str]) -> str:
    """An answer as one text: several as a JSON list."""
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
