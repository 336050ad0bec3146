"""Build the report: a static site of the committed notebooks, verdicts, tables and figures, and the explorer."""

import argparse
import sys
from collections.abc import Sequence

from lib.paths import ROOT, RUNS, user_path
from lib.study.pages import explorer
from lib.study.pages.site.pages import HERE, write_sources


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the sources, let Sphinx build them; return its exit status. A warning is an error."""
    parser = argparse.ArgumentParser(prog="python -m lib.study.pages.site", description=__doc__)
    parser.add_argument(
        "--out", type=user_path, default=RUNS / "report", metavar="FOLDER", help="where to build"
    )
    parser.add_argument(
        "--explorer", type=user_path, metavar="FILE.json", help="use this one instead of asking the model now"
    )
    given = parser.parse_args(arguments)
    try:
        from sphinx.cmd.build import build_main
    except ImportError:
        print("error: Sphinx is not installed; run: make report", file=sys.stderr)
        return 2
    data = given.explorer or given.out / "explorer.json"
    if given.explorer is None and (failed := explorer.main(["--out", str(data)])):
        return failed
    sources, pages = given.out / "source", given.out / "html"
    print(f"{write_sources(sources, data.read_text(encoding='utf-8').strip())} claims")
    words = ["-c", str(HERE), "-b", "html", "-q", "-W", "--keep-going", "-d", str(given.out / "doctrees")]
    failed = build_main([*words, str(sources), str(pages)])
    if not failed:
        index = (pages / "index.html").resolve()
        print(f"done: {index.relative_to(ROOT) if index.is_relative_to(ROOT) else index}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
