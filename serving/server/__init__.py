"""Serves models over HTTP: `python -m serving.server`, or `create_app` in an ASGI server.

Importing the package imports none of its modules: worker processes start through it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ..session import InpaintingSession
    from .settings import Settings


def create_app(
    sessions: "InpaintingSession | Sequence[InpaintingSession]", settings: "Settings | None" = None
) -> "FastAPI":
    """Builds the application around models, see `serving.server.app.create_app`."""
    from . import app

    return app.create_app(sessions, settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line, see `serving.server.command_line`; returns its exit code."""
    from . import command_line

    return command_line.main(argv)
