"""Cameras, similarities, focal lengths, camera resectioning and depth: numpy in, numpy out, float64 inside."""

from manyview.geometry.cameras import (
    Camera,
    intrinsics,
    invert_rigid,
    picture_centre,
    pixel_grid,
    transform_pixels,
    transform_points,
)
from manyview.geometry.depth import depth_from_points, points_from_depth, project_points
from manyview.geometry.focal import default_focal, estimate_focal
from manyview.geometry.pnp import PnpResult, solve_pnp, solve_pnp_unknown_focal
from manyview.geometry.sampling import confidence_threshold, confident_pixels, finite_points, spread_sample
from manyview.geometry.similarity import Similarity, align_local_to_global, fit_similarity

__all__ = [
    "Camera",
    "PnpResult",
    "Similarity",
    "align_local_to_global",
    "confidence_threshold",
    "confident_pixels",
    "default_focal",
    "depth_from_points",
    "estimate_focal",
    "finite_points",
    "fit_similarity",
    "intrinsics",
    "invert_rigid",
    "picture_centre",
    "pixel_grid",
    "points_from_depth",
    "project_points",
    "solve_pnp",
    "solve_pnp_unknown_focal",
    "spread_sample",
    "transform_pixels",
    "transform_points",
]
