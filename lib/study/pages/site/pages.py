"""Write the sources of the report: pages that are generated, and copies of what they show.

Every number is copied out of the register or out of a notebook's committed outputs; nothing is computed here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
from nbformat import NotebookNode

from lib.paths import ROOT
from lib.study.claims import NOT_RUN, VERDICTS, read_claims
from lib.study.pages.front import answers
from lib.study.pages.readme import END, SEED_VERDICTS, agreement, gate_part, numbers, tally

HERE = Path(__file__).resolve().parent
WORKPLACE = "data/runs/mine"  # where the commands on the pages write
_SAVED = re.compile(r'\bsave\(\s*[^,]+,\s*f?"([^"]+)"')
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
        figures = tuple(pair for cell in cells for pair in _figures(cell))
        found.append(Section(start, figures, _claims(out for cell in cells for out in cell.outputs)))
    return found


def _figures(cell: NotebookNode) -> list[tuple[str, str]]:
    """Names of the saved figures of a cell; the caption is the first italic output, where there is one."""
    said = [out.data.get("text/markdown", "") for out in cell.outputs if "data" in out]
    captions = [text.strip("*") for text in said if re.fullmatch(r"\*[^*].*\*", text.strip(), re.DOTALL)]
    names = [name for name in _SAVED.findall(cell.source) if "{" not in name]
    return [(name, captions[0] if captions else "") for name in names]


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


def front_table(claims: pd.DataFrame) -> str:
    """Return the verdicts as a MyST table, each row linking to its claim's page."""
    lines = [
        "| id | claim | verdict | estimate [95 % interval] | n | tier |",
        "|---|---|---|---|---|---|",
    ]
    for row in claims.to_dict("records"):
        cells = (
            f"[{row['id']}](claims/{row['id']}.md)",
            _plain(row["claim"]),
            verdict_badge(row["verdict"]),
            numbers(row),
            row["n"],
            row["tier"],
        )
        lines.append("| " + " | ".join(cells) + " |")
    return _table("\n".join(lines), "verdicts")


def _table(text: str, name: str) -> str:
    return f"````{{table}}\n:class: {name}\n\n{text}\n````"


def _plain(text: str) -> str:
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
            f"python -m lib.study.pages.verify {stem}",
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
        ("Published", _plain(row["published"])),
        ("Estimate, 95 % interval", numbers(row) or "none"),
        ("n", row["n"] or "0"),
        ("Kind", row["kind"]),
        ("Tier of evidence", row["tier"]),
    ]
    lines = [f"# {row['id']} · {_plain(row['claim'])}", ""]
    lines += [f"{name}\n: {said}\n" for name, said in facts]
    lines += ["## What would count", "", "Written before any record existed.", ""]
    lines += ["```text", *(part.strip() for part in rule.split(";")), "```", ""]
    lines += [f"{_plain(note[0].upper() + note[1:])}.", ""] if note else []
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


def figures_page(names: Sequence[str]) -> str:
    """Return the page of all figures with their numbers."""
    lines = ["# Figures", "", "Each figure with the numbers that it plots.", ""]
    for name in names:
        files = (f"{{download}}`{kind.upper()} <figures/{name}.{kind}>`" for kind in ("csv", "svg", "png"))
        lines += [f"## {name}", "", f"```{{image}} figures/{name}.png", f":alt: Figure {name}", "```", ""]
        lines += [", ".join(files), ""]
    return "\n".join(lines)


def tables_page(tables: Sequence[Path]) -> str:
    """Return the page of all tables: size and columns of each, and the file."""
    lines = ["# Tables", "", "What the columns mean is said in [Data](data.md).", ""]
    lines += ["- {download}`claims.csv <claims.csv>`: the claim register"]
    for path in tables:
        frame = pd.read_csv(path)
        columns = ", ".join(f"`{column}`" for column in frame.columns)
        lines.append(f"- {{download}}`{path.name} <tables/{path.name}>`: {len(frame):,} rows; {columns}")
    return "\n".join([*lines, ""])


def notebooks_page(text: str, stems: Sequence[str]) -> str:
    """Turn notebooks/README.md into the page of all notebooks: names become links, pages become children."""
    for stem in stems:
        text = text.replace(f"| `{stem}` |", f"| [{stem}](notebooks/{stem}.ipynb) |")
    return text + _toctree([f"notebooks/{stem}" for stem in stems])


def _toctree(pages: Sequence[str], caption: str = "", hidden: bool = True) -> str:
    lines = ["", "```{toctree}", ":maxdepth: 1", *([":hidden:"] if hidden else [])]
    lines += [f":caption: {caption}"] if caption else []
    return "\n".join([*lines, "", *pages, "```", ""])


def index_page(readme: str, answered: str, claims: pd.DataFrame, gate: str) -> str:
    """Return the front page: what was studied, the verdicts, three answers, how good the model is, where to go on."""
    title, intro = readme.split("<!--")[0].strip().split("\n\n", 1)
    lines = [title, "", intro, "", f"**{tally(claims)}**", "", front_table(claims), ""]
    lines += [
        "The numbers are those of each claim's weakest comparison. A verdict is computed by a rule that was written before",
        "the records existed; each id leads to the rule, the figure, the numbers and the command.",
        "",
        "[See what each method keeps](explorer.md), picture by picture, and read the [limits](about.md) first: orders found on",
        "a small trained model need not hold on a large one.",
        "",
        answered,
        "",
        gate,
    ]
    pages = ("explorer", "claims", "notebooks", "figures", "tables", "data", "about")
    return "\n".join(lines) + "\n" + _toctree(pages)


def about_page(readme: str) -> str:
    """Return what README says below its generated part: commands, methods, tiers of evidence, limits."""
    return "# Use, tiers of evidence and limits\n" + readme.split(END)[1]


def claims_page(claims: pd.DataFrame) -> str:
    """Return the page that lists claims by verdict."""
    lines = ["# Claims", ""]
    for verdict in (*VERDICTS, ""):
        mine = claims[claims["verdict"] == verdict]
        if len(mine):
            lines += [f"## {verdict or NOT_RUN}", ""]
            for name, said in zip(mine["id"], mine["claim"], strict=True):
                lines.append(f"- [{name}](claims/{name}.md) {_plain(said)}")
            lines.append("")
    return "\n".join(lines) + _toctree([f"claims/{name}" for name in claims["id"]])


def explorer_page(data: str) -> str:
    """Return the explorer: a template with its data inside, so that it also works when opened as a file."""
    body = (HERE / "explorer.html").read_text(encoding="utf-8").replace("@DATA@", data.replace("</", "<\\/"))
    said = (
        "Choose a picture, a question, a method and a budget. Bright tokens were kept; the dashed box is the evidence, which "
        "only the oracle is told. The answers are the embedded model's, recorded when this page was made."
    )
    return f"# Explorer\n\n{said}\n\n`````{{raw}} html\n{body}\n`````\n"


def write_sources(folder: Path, explorer: str, root: Path = ROOT) -> int:
    """Write all sources of the site.

    Parameters
    ----------
    folder
        Emptied first.
    explorer
        JSON of `lib.study.pages.explorer`.
    root
        The repository.

    Returns
    -------
    int
        Number of claims' pages.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name, origin in (("figures", "figures"), ("tables", "data/tables")):
        shutil.copytree(root / origin, folder / name)
    shutil.copy(root / "data" / "claims.csv", folder)
    (folder / "claims").mkdir()
    books = {path.stem: path for path in sorted((root / "notebooks").glob("*.ipynb"))}
    parts = {stem: write_notebook(path, folder / "notebooks") for stem, path in books.items()}
    claims = read_claims(root / "data" / "claims.csv")
    same = agreement(root / "data" / "tables" / SEED_VERDICTS)
    for row in claims.to_dict("records"):
        stem, section = find_claim(row, parts)
        page = claim_page(row, stem, section, same.get(row["id"], ""))
        _write(folder / "claims" / f"{row['id']}.md", page)
    readme = (root / "README.md").read_text(encoding="utf-8")
    gate = gate_part(root / "data" / "tables" / "accuracy.csv")
    _write(folder / "index.md", index_page(readme, answers(root), claims, gate))
    _write(folder / "claims.md", claims_page(claims))
    _write(folder / "about.md", about_page(readme))
    _write(folder / "explorer.md", explorer_page(explorer))
    _write(
        folder / "figures.md", figures_page(sorted(path.stem for path in (root / "figures").glob("*.png")))
    )
    _write(folder / "tables.md", tables_page(sorted((root / "data" / "tables").glob("*.csv"))))
    _write(folder / "data.md", (root / "data" / "README.md").read_text(encoding="utf-8"))
    told = (root / "notebooks" / "README.md").read_text(encoding="utf-8")
    _write(folder / "notebooks.md", notebooks_page(told, list(books)))
    return len(claims)


def find_claim(
    row: Mapping[str, str], parts: Mapping[str, Sequence[Section]]
) -> tuple[str | None, Section | None]:
    """Find where a claim is shown: in the notebook that the register names, else in the first that shows it."""
    for stem in (row["notebook"], *parts):
        for section in parts.get(stem, ()):
            if row["id"] in section.claims:
                return stem, section
    return None, None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
