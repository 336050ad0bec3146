"""The report's sources: every claim has its page, and every link, figure and file on it is there."""

import json
import re

import nbformat
import pytest

from lib.paths import NOTEBOOKS
from lib.study.claims import read_claims
from lib.study.pages.site import claim_pages, pages

LINKS = re.compile(r"\]\(([^)#\s]+)\)|\{(?:image|figure)\} (\S+)|\{download\}`[^<]*<([^>]+)>`")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "source"
    pages.write_sources(folder, json.dumps({"said": "</script>"}))
    return folder


def test_every_link_and_file_of_every_page_is_there(site):
    lost = []
    for page in site.rglob("*.md"):
        for found in LINKS.finditer(page.read_text(encoding="utf-8")):
            name = next(group for group in found.groups() if group)
            if "://" not in name and not (page.parent / name).is_file():
                lost.append((page.name, name))
    assert not lost


def test_every_anchor_that_a_page_names_is_in_a_notebook(site):
    asked = {
        name
        for page in (site / "claims").glob("*.md")
        for name in re.findall(r"\]\(#([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    there = {
        name
        for path in (site / "notebooks").glob("*.ipynb")
        for name in re.findall(r"^\(([^)]+)\)=$", "\n".join(_prose(path)), re.MULTILINE)
    }
    assert asked
    assert asked <= there


def _prose(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


def test_each_claim_has_a_page_with_verdict_rule_evidence_and_command(site):
    front = (site / "index.md").read_text(encoding="utf-8")
    for row in read_claims().to_dict("records"):
        page = (site / "claims" / f"{row['id']}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {row['id']} · ")
        assert f"[{row['verdict']}]{{.verdict" in page
        assert row["rule"].split("#")[0].split(";")[0].strip() in page
        assert f"](claims/{row['id']}.md)" in front
        if row["n"] != "0":  # what was run is shown: clauses, the sentence and the command
            assert '<div class="frame">' in page
            assert f"**{row['id']}: {row['verdict']}.**" in page
            assert re.search(
                r"lib\.study\.run notebooks/\w+\.ipynb data/runs/mine/\w+\.ipynb -p output", page
            )


def test_limits_are_a_page(site):
    text = (site / "about.md").read_text(encoding="utf-8")
    assert "## Limits" in text
    assert "<!-- verdicts" not in text


def test_copied_notebooks_differ_by_anchors_alone(site):
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        ours, copy = (nbformat.read(one, as_version=4) for one in (path, site / "notebooks" / path.name))
        for before, after in zip(ours.cells, copy.cells, strict=True):
            assert re.sub(r"\A\([\w-]+\)=\n", "", after.source) == before.source
            assert after.get("outputs") == before.get("outputs")


def test_a_figure_goes_with_the_claims_of_its_section():
    found = claim_pages.sections(nbformat.read(NOTEBOOKS / "11_desap_claims.ipynb", as_version=4))
    (section,) = [section for section in found if "D-7" in section.claims]
    assert [name for name, _ in section.figures] == ["D-7_share"]
    assert section.figures[0][1].endswith("`D-7_share.csv`.")
    assert set(section.claims) == {"D-7"}


def test_data_inside_the_page_cannot_end_its_script(site):
    page = (site / "explorer.md").read_text(encoding="utf-8")
    assert '{"said": "<\\/script>"}' in page
    assert "@DATA@" not in page
