"""Every command of the project: ``python -m lib --help`` lists them."""

from lib.commands import app

app(prog_name="python -m lib")
