"""Write the page of one claim: its rule, and what the notebook that judges it shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from lib.study.claims import NOT_RUN
from lib.study.pages.page import shown
from lib.study.pages.readme import numbers

WORKPLACE = "data/runs/mine"  # where the commands on the pages write
_HEADING = re.compile(r"^### ([A-Z]-\d+) · ")


@dataclass(frozen=True)
class Section:
    """A part of a notebook, from one heading to the next.

    Attributes
    ----------
    place
        Index of the Markdown cell with the heading.
    figures
        Name and caption of each figure drawn in it.
    claims
        For each claim judged in it, the outputs that show it, heading left out.
    """

    place: int
    figures: tuple[tuple[str, str], ...]
    claims: Mapping[str, tuple[NotebookNode, ...]]


def sections(book: NotebookNode) -> list[Section]:
    """Split a notebook at its headings and collect what each part shows."""
    starts = [
        place
        for place, cell in enumerate(book.cells)
        if cell.cell_type == "markdown" and re.search(r"^#{1,2} ", cell.source, re.MULTILINE)
    ]
    found = []
    for start, end in zip(starts, [*starts[1:], len(book.cells)], strict=True):
        cells = [cell for cell in book.cells[start:end] if cell.cell_type == "code"]
        figures = tuple(pair for cell in cells for pair in shown(cell.outputs))
        found.append(Section(start, figures, _claims(out for cell in cells for out in cell.outputs)))
    return found


def _claims(outputs: Iterable[NotebookNode]) -> dict[str, tuple[NotebookNode, ...]]:
    found: dict[str, list[NotebookNode]] = {}
    claim = None
    for out in outputs:
        heading = _HEADING.match(out.get("data", {}).get("text/markdown", ""))
        if heading:
            claim = heading.group(1)
            found[claim] = []
        elif claim and _belongs(claim, out):
            found[claim].append(out)
        else:
            claim = None
    return {name: tuple(mine) for name, mine in found.items()}


def _belongs(claim: str, out: NotebookNode) -> bool:
    data = out.get("data", {})
    return "text/html" in data or data.get("text/markdown", "").startswith(f"**{claim}:")


def anchor(stem: str, place: int) -> str:
    """Name a section of a notebook's page, to link to it."""
    return f"{stem}-{place}".replace("_", "-")


def write_notebook(path: Path, folder: Path) -> list[Section]:
    """Copy a notebook with an anchor before each section; return its sections."""
    book = nbformat.read(path, as_version=4)
    found = sections(book)
    for section in found:
        cell = book.cells[section.place]
        cell.source = f"({anchor(path.stem, section.place)})=\n{cell.source}"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, folder / path.name)
    return found


def verdict_badge(verdict: str) -> str:
    """Return a verdict in a span whose class names it; the word stays, colour is never alone."""
    word = verdict or NOT_RUN
    return f"[{word}]{{.verdict .v-{word.replace(' ', '-')}}}"


def plain(text: str) -> str:
    """Keep Markdown from reading a claim's words: [CLS] is no link, a bar no cell."""
    return re.sub(r"([\[\]|*_<>])", r"\\\1", text)


def commands(stem: str) -> str:
    """Return the commands that show a notebook's claims: from the records, live on a sample, and compared."""
    run = f"python -m lib.study.run notebooks/{stem}.ipynb"
    return "\n".join(
        [
            "# from the committed records",
            f"{run} {WORKPLACE}/{stem}.ipynb -p output {WORKPLACE}",
            "# live: ask the model anew about 30 pictures",
            f"{run} {WORKPLACE}-live/{stem}.ipynb -p source live -p questions 30 -p output {WORKPLACE}-live",
            "# compare what this notebook writes with what is committed",
            f"python -m lib verify {stem}",
        ]
    )


def claim_page(row: Mapping[str, str], stem: str | None, section: Section | None, trainings: str = "") -> str:
    """Return one claim's page.

    Parameters
    ----------
    row
        Of the register.
    stem, section
        The notebook and the part of it that show the claim; None where none does.
    trainings
        In how many trainings the verdict is the same; "" where no trained model judges.
    """
    rule, _, note = (part.strip() for part in row["rule"].partition("#"))
    facts = [
        ("Verdict", verdict_badge(row["verdict"])),
        *([("The same verdict in trainings", trainings)] if trainings else []),
        ("Published", plain(row["published"])),
        ("Estimate, 95 % interval", numbers(row) or "none"),
        ("n", row["n"] or "0"),
        ("Kind", row["kind"]),
        ("Tier of evidence", row["tier"]),
    ]
    lines = [f"# {row['id']} · {plain(row['claim'])}", ""]
    lines += [f"{name}\n: {said}\n" for name, said in facts]
    lines += ["## What would count", "", "Written before any record existed.", ""]
    lines += ["```text", *(part.strip() for part in rule.split(";")), "```", ""]
    lines += [f"{plain(note[0].upper() + note[1:])}.", ""] if note else []
    if section is None:
        lines += [
            "## Where it is shown",
            "",
            "- [Among what cannot be tested](../notebooks/90_verdicts.ipynb)",
            "",
        ]
    else:
        lines += _shown(row["id"], section)
        lines += ["## Where it is shown", ""]
        lines += [f"- [The section of `{stem}`](#{anchor(stem, section.place)})", ""]
        lines += ["## Do it again", "", "```sh", commands(stem), "```", ""]
    return "\n".join(lines)


def _shown(claim: str, section: Section) -> list[str]:
    lines = ["## What was found", ""]
    for out in section.claims[claim]:
        if "text/html" in out.data:
            lines += [
                "````{raw} html",
                f'<div class="frame">{_bare(out.data["text/html"])}</div>',
                "````",
                "",
            ]
        else:
            lines += [_sentence(out.data["text/markdown"]), ""]
    for name, caption in section.figures:
        lines += [f"```{{figure}} ../figures/{name}.png", f":alt: Figure {name}", "", caption, "```", ""]
        files = (f"{{download}}`{kind.upper()} <../figures/{name}.{kind}>`" for kind in ("csv", "svg", "png"))
        lines += [f"`{name}`: {', '.join(files)}", ""]
    return lines


def _bare(html: str) -> str:
    """A pandas table without its style element and its border attribute; the site's style sheet has its own."""
    return re.sub(r'<style.*?</style>|border="1" | style="[^"]*"', "", html, flags=re.DOTALL)


def _sentence(text: str) -> str:
    return text if text.strip().endswith((".", "**")) else f"{text}."


def find_claim(
    row: Mapping[str, str], parts: Mapping[str, Sequence[Section]]
) -> tuple[str | None, Section | None]:
    """Find where a claim is shown: in the notebook that the register names, else in the first that shows it."""
    for stem in (row["notebook"], *parts):
        for section in parts.get(stem, ()):
            if row["id"] in section.claims:
                return stem, section
    return None, None
