"""Cameras, similarities, focal lengths, camera resectioning and depth: numpy in, numpy out, float64 inside."""

from manyview.geometry.absolute_pose import AbsolutePose, solve_absolute_pose
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
from manyview.geometry.focal import DepthMap, default_focal, depth_and_focal, estimate_focal
from manyview.geometry.matching import nearest_neighbours, reciprocal_matches
from manyview.geometry.pnp import PnpResult, solve_pnp, solve_pnp_unknown_focal
from manyview.geometry.relative_pose import RelativePose, relative_pose_by_pnp, relative_pose_by_procrustes
from manyview.geometry.sampling import confidence_threshold, confident_pixels, finite_points, spread_sample
from manyview.geometry.similarity import Similarity, align_local_to_global, fit_similarity

__all__ = [
    "AbsolutePose",
    "Camera",
    "DepthMap",
    "PnpResult",
    "RelativePose",
    "Similarity",
    "align_local_to_global",
    "confidence_threshold",
    "confident_pixels",
    "default_focal",
    "depth_and_focal",
    "depth_from_points",
    "estimate_focal",
    "finite_points",
    "fit_similarity",
    "intrinsics",
    "invert_rigid",
    "nearest_neighbours",
    "picture_centre",
    "pixel_grid",
    "points_from_depth",
    "project_points",
    "reciprocal_matches",
    "relative_pose_by_pnp",
    "relative_pose_by_procrustes",
    "solve_absolute_pose",
    "solve_pnp",
    "solve_pnp_unknown_focal",
    "spread_sample",
    "transform_pixels",
    "transform_points",
]
