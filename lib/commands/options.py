"""How a command's options are written."""

from pathlib import Path

import typer

from lib.paths import user_path


def to_path(text: str) -> Path:
    """A path as a user writes it, ``~`` being the home folder."""
    try:
        return user_path(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def path(meant: str, metavar: str = "FOLDER") -> object:
    """An option that takes a path."""
    return typer.Option(parser=to_path, metavar=metavar, help=meant)


def option(meant: str, metavar: str | None = None) -> object:
    """An option with its help; typer adds its default."""
    return typer.Option(help=meant, metavar=metavar)


def switch(name: str, meant: str) -> object:
    """An option that is on when it is given."""
    return typer.Option(name, help=meant)
