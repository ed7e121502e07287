"""The `manyview` command: one thin function a sub-command."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from manyview.cli import models, refinement, scenes
from manyview.cli.shared import Verbose, app, set_verbose
from manyview.errors import ManyviewError

__all__ = ["app", "main", "models", "refinement", "scenes"]

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it


def main() -> None:
    """Run the command; errors of ours become one line, a hint and an exit code."""
    from manyview.app.console import WarningLines, show_error

    logger, lines = logging.getLogger("manyview"), WarningLines()
    logger.addHandler(lines)
    try:
        app()
    except ManyviewError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        logger.removeHandler(lines)


def _show_version(wanted: bool) -> None:
    if wanted:
        import manyview

        typer.echo(manyview.__version__)
        raise typer.Exit


@app.callback()
def settings(
    verbose: Verbose = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Photos or a video in; cameras, depth and dense coloured 3D points out."""
    set_verbose(verbose)
