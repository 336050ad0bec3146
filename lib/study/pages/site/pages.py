"""Write the sources of the report: pages that are generated, and copies of what they show.

Every number is copied out of the register or out of a notebook's committed outputs; nothing is computed here.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lib.paths import ROOT
from lib.study.claims import NOT_RUN, VERDICTS, read_claims
from lib.study.pages.front import answers
from lib.study.pages.readme import END, SEED_VERDICTS, agreement, gate_part, numbers, tally
from lib.study.pages.site.claim_pages import claim_page, find_claim, plain, verdict_badge, write_notebook

HERE = Path(__file__).resolve().parent


def front_table(claims: pd.DataFrame) -> str:
    """Return the verdicts as a MyST table, each row linking to its claim's page."""
    lines = [
        "| id | claim | verdict | estimate [95 % interval] | n | tier |",
        "|---|---|---|---|---|---|",
    ]
    for row in claims.to_dict("records"):
        cells = (
            f"[{row['id']}](claims/{row['id']}.md)",
            plain(row["claim"]),
            verdict_badge(row["verdict"]),
            numbers(row),
            row["n"],
            row["tier"],
        )
        lines.append("| " + " | ".join(cells) + " |")
    return _table("\n".join(lines), "verdicts")


def _table(text: str, name: str) -> str:
    return f"````{{table}}\n:class: {name}\n\n{text}\n````"


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
                lines.append(f"- [{name}](claims/{name}.md) {plain(said)}")
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


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
