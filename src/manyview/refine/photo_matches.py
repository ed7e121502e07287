"""Which photos hang together, by matches alone: for reports on photos of which nothing is made yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from manyview.refine.colmap_log import quiet_colmap
from manyview.refine.exact_cameras import match_views
from manyview.refine.features import extract_features
from manyview.refine.lenses import find_lenses
from manyview.refine.matching import MatchDatabase, VerifiedPair
from manyview.refine.options import GivenCameras, RefineOptions
from manyview.refine.overlap import overlap
from manyview.scene import SceneView


def match_scene(views: Sequence[SceneView], options: RefineOptions) -> list[VerifiedPair]:
    """Verified matches between views.

    Args:
        views: with whatever the network says of them: it tells which pairs of many are worth matching.
        options: of features and matches.
    """
    with TemporaryDirectory(prefix="manyview-matches-") as scratch, quiet_colmap():
        features = extract_features(views, options)
        lenses = find_lenses(views, GivenCameras(), options)
        database = MatchDatabase(Path(scratch) / "matches.db", features, lenses, options)
        return match_views(database, views, overlap(views))
