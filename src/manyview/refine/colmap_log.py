"""COLMAP's log, silenced for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_colmap() -> Iterator[None]:
    """Let COLMAP log errors that end the program and nothing below, and put its level back afterwards.

    The level is the library's own, of the whole process: what other threads do with it meanwhile is silent too.
    """
    import pycolmap

    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before
