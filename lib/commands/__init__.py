"""The commands of ``python -m lib``; each imports what it needs when it runs, so that help comes at once.

A wrong word, a missing file or too little memory ends in one message and status 2, a stop from the keyboard in status 130.
Notebooks are run by ``python -m lib.study.run``, whose form is papermill's.
"""

from __future__ import annotations

import sys

import typer
from typer.core import TyperGroup

from lib.commands import measuring, study

RESUMED = ("live", "record-cost", "seeds", "train")  # go on where they stopped when they are started again
GATED = "(a gated repository also wants its terms accepted on its page, and `hf auth login`)"


class OneMessage(TyperGroup):
    """Runs a command; what it returns is the exit status, and what a user can mend is one message."""

    # pyrefly: ignore[bad-override]  # typer's context is click's
    def invoke(self, ctx: typer.Context) -> None:
        try:
            status = super().invoke(ctx) or 0
        except (ValueError, OSError, MemoryError) as error:
            hint = f"\n{GATED}" if "hf download" in str(error) else ""
            print(f"error: {error}{hint}", file=sys.stderr)
            status = 2
        except KeyboardInterrupt:
            on = ": the same command goes on from here" if ctx.invoked_subcommand in RESUMED else ""
            print(f"stopped{on}", file=sys.stderr)
            status = 130
        raise typer.Exit(status)


app = typer.Typer(
    cls=OneMessage,
    help="Every command of the study; notebooks are run by python -m lib.study.run.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    study.live,
    study.train,
    study.seeds,
    study.prepare,
    study.verify,
    study.readme,
    study.report,
    study.explorer,
    measuring.parity,
    measuring.half_precision,
    measuring.selection_speed,
    measuring.record_cost,
    measuring.kernel_bench,
):
    app.command()(command)
