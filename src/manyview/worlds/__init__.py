"""Procedural scenes with exact ground truth: training data and demonstrations without any download."""

from __future__ import annotations

from manyview.worlds.overlap import overlap
from manyview.worlds.render import WorldBatch, render_mixed_worlds, render_worlds
from manyview.worlds.settings import WorldSettings

__all__ = ["WorldBatch", "WorldSettings", "overlap", "render_mixed_worlds", "render_worlds"]
