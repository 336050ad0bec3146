"""Commands of `python -m lib`, run inside a test."""

from typer.testing import CliRunner, Result

from lib.commands import app


def command(*words: object) -> Result:
    """Run ``python -m lib WORDS``: exit code, stdout and stderr."""
    return CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
