"""Word what is found: an interval, a table of intervals, a list, and the versions a page was run with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from lib.study.records import installed

LEVEL = 0.05  # an adjusted p below it gets a star
PACKAGES = ("torch", "transformers", "numpy", "pandas")


def interval(value: float, low: float, high: float, form: str = "+.3f") -> str:
    """Word a number with its interval, each in the format `form`."""
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def row_interval(row: Mapping[str, float] | pd.Series, form: str = "+.3f", value: str = "estimate") -> str:
    """Word a row's `value` with its low and high."""
    return interval(row[value], row["low"], row["high"], form)


def intervals(frame: pd.DataFrame, form: str = "+.3f", value: str = "estimate") -> list[str]:
    """Word every row's `value` with its low and high."""
    return [row_interval(row, form, value) for row in frame.to_dict("records")]


def starred(frame: pd.DataFrame, form: str = "+.3f", blank: str = "") -> list[str]:
    """Word every row's interval with a star where its column p is below `LEVEL`, else `blank`."""
    return [
        told + ("*" if p < LEVEL else blank)
        for told, p in zip(intervals(frame, form), frame["p"], strict=True)
    ]


def wide(frame: pd.DataFrame, cells: Sequence[object], index: str | list[str], columns: str) -> pd.DataFrame:
    """Lay a cell a row of `frame` out as a table: lines and columns in the order in which `frame` names them first."""
    table = frame.assign(cell=cells).pivot(index=index, columns=columns, values="cell")
    lines = frame[index].drop_duplicates()
    lines = pd.MultiIndex.from_frame(lines) if isinstance(index, list) else lines
    return table.loc[lines, list(dict.fromkeys(frame[columns]))]


def markdown(frame: pd.DataFrame) -> str:
    """Write a frame as a Markdown table whose columns line up, for files: no index, cells as they are."""
    return frame.to_markdown(index=False, disable_numparse=True)


def markdown_table(frame: pd.DataFrame) -> str:
    """Write a frame as a Markdown table for notebooks, where long cells wrap; a bar inside a cell is escaped."""
    cells = [[str(value).replace("|", r"\|") for value in row] for row in frame.itertuples(index=False)]
    lines = [list(map(str, frame.columns)), ["---"] * frame.shape[1], *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def listing(words: Iterable[str]) -> str:
    """Join words as English does: "a, b and c"."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def versions(between: str = " | ") -> str:
    """Say what a page was run with: Python and `PACKAGES`."""
    return between.join(f"{name} {number}" for name, number in installed(*PACKAGES).items())
