"""Build the report: sources by `lib.study.pages.site.pages`, pages by Sphinx."""

from pathlib import Path

from lib.paths import ROOT
from lib.study.pages import explorer
from lib.study.pages.site.pages import HERE, write_sources


def build(out: Path, asked: Path | None = None) -> int:
    """Write the sources, let Sphinx build them; return its exit status. A warning is an error.

    Parameters
    ----------
    out
        Folder to build in; the pages are in its ``html``.
    asked
        The explorer's document; without it the model is asked now.

    Raises
    ------
    ValueError
        Without Sphinx.
    """
    try:
        from sphinx.cmd.build import build_main
    except ImportError:
        raise ValueError("Sphinx is not installed; run: make report") from None
    data = asked or explorer.write(out / "explorer.json")
    sources, pages = out / "source", out / "html"
    print(f"{write_sources(sources, data.read_text(encoding='utf-8').strip())} claims")
    words = ["-c", str(HERE), "-b", "html", "-q", "-W", "--keep-going", "-d", str(out / "doctrees")]
    failed = build_main([*words, str(sources), str(pages)])
    if not failed:
        index = (pages / "index.html").resolve()
        print(f"done: {index.relative_to(ROOT) if index.is_relative_to(ROOT) else index}")
    return failed
