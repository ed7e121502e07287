"""Metrics and protocols: cameras, point clouds, depth."""

from manyview.evaluation.depth import DepthAlignment, DepthReport, evaluate_depth, median_relative_point_error
from manyview.evaluation.poses import (
    PoseReport,
    accuracy_below,
    evaluate_poses,
    mean_average_accuracy,
    pairwise_rotation_errors,
    pairwise_translation_errors,
)
from manyview.evaluation.reconstruction import (
    ReconstructionReport,
    compare_clouds,
    estimate_normals,
    evaluate_reconstruction,
)

__all__ = [
    "DepthAlignment",
    "DepthReport",
    "PoseReport",
    "ReconstructionReport",
    "accuracy_below",
    "compare_clouds",
    "estimate_normals",
    "evaluate_depth",
    "evaluate_poses",
    "evaluate_reconstruction",
    "mean_average_accuracy",
    "median_relative_point_error",
    "pairwise_rotation_errors",
    "pairwise_translation_errors",
]
