"""Bundle adjustment by COLMAP: cameras, intrinsics and points that agree best with all observations at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from manyview.refine.options import RefineOptions

if TYPE_CHECKING:
    import pycolmap

# Relative changes of the cost at which a solution is taken: between rounds of triangulation, and in the end. Ending
# sooner between photos saves a third of the time, and leads astray where patterns repeat.
ROUGH, FINE = 1e-5, 1e-8
LEAST_FOR_FOCAL = 3  # views
LEAST_FOR_PRIORS = 3  # positions that a reconstruction can be laid upon


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """What bundle adjustment has to respect. Views are numbered from 0, cameras from 1.

    Attributes:
        fixed_lenses: numbers of the cameras whose intrinsics are known.
        constant: views whose cameras stay where they are.
        positions: (3,) known camera centres, to stay near.
    """

    fixed_lenses: frozenset[int] = frozenset()
    constant: frozenset[int] = frozenset()
    positions: Mapping[int, np.ndarray] = field(default_factory=dict)


def adjust(
    model: pycolmap.Reconstruction,
    options: RefineOptions,
    anchors: Anchors = Anchors(),
    *,
    tolerance: float = ROUGH,
) -> bool:
    """Adjust all registered cameras and points of a reconstruction, in place.

    Args:
        model: view i is its image i + 1.
        options: which intrinsics may change, and the loss.
        anchors: what may not.
        tolerance: relative change of the cost at which it ends.

    Returns:
        Whether the solver found something usable; otherwise the reconstruction is of no use.
    """
    import pycolmap

    config = pycolmap.BundleAdjustmentConfig()
    for image in model.reg_image_ids():
        config.add_image(image)
    # Two views tell a focal length badly, or not at all where their axes meet.
    fixed = set(model.cameras) if model.num_reg_images() < LEAST_FOR_FOCAL else set(anchors.fixed_lenses)
    for number in fixed & set(model.cameras):
        config.set_constant_cam_intrinsics(number)
    held = [view for view in anchors.constant if model.image(view + 1).has_pose]
    for view in held:
        config.set_constant_rig_from_world_pose(model.image(view + 1).frame_id)
    positions = {view: where for view, where in anchors.positions.items() if model.image(view + 1).has_pose}
    settings = bundle_options(options, tolerance)
    if len(positions) >= LEAST_FOR_PRIORS and not held:
        adjuster = pycolmap.create_pose_prior_bundle_adjuster(
            settings, _prior_options(options), config, _priors(model, positions, options), model
        )
    else:
        config.fix_gauge(
            pycolmap.BundleAdjustmentGauge.UNSPECIFIED
            if len(held) > 1
            else pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD
        )
        adjuster = pycolmap.create_default_bundle_adjuster(settings, config, model)
    usable = adjuster.solve().is_solution_usable()
    model.update_point_3d_errors()
    return usable


def bundle_options(options: RefineOptions, tolerance: float) -> pycolmap.BundleAdjustmentOptions:
    """COLMAP's settings; intrinsics that are not to be refined are held camera by camera."""
    import pycolmap

    losses = {
        "none": pycolmap.LossFunctionType.TRIVIAL,
        "soft_l1": pycolmap.LossFunctionType.SOFT_L1,
        "huber": pycolmap.LossFunctionType.HUBER,
        "cauchy": pycolmap.LossFunctionType.CAUCHY,
    }
    settings = pycolmap.BundleAdjustmentOptions()
    settings.print_summary = False
    settings.refine_principal_point = options.refine_principal_point
    settings.ceres.loss_function_type = losses[options.loss]
    settings.ceres.loss_function_scale = options.loss_scale
    settings.ceres.use_gpu = False
    settings.ceres.solver_options.num_threads = options.mapping_threads
    settings.ceres.solver_options.function_tolerance = tolerance
    return settings


def _prior_options(options: RefineOptions) -> pycolmap.PosePriorBundleAdjustmentOptions:
    import pycolmap

    settings = pycolmap.PosePriorBundleAdjustmentOptions()
    settings.alignment_ransac.random_seed = options.seed
    settings.ceres.prior_position_loss_function_type = pycolmap.LossFunctionType.CAUCHY  # a wrong one counts little
    return settings


def _priors(
    model: pycolmap.Reconstruction, positions: Mapping[int, np.ndarray], options: RefineOptions
) -> list[pycolmap.PosePrior]:
    import pycolmap

    centres = np.array(list(positions.values()))
    extent = float(np.linalg.norm(centres - np.median(centres, axis=0), axis=1).max())
    sigma = max(options.prior_sigma * extent, 1e-9)
    priors = []
    for view, centre in sorted(positions.items()):
        prior = pycolmap.PosePrior()
        prior.pose_prior_id, prior.corr_data_id = view + 1, model.image(view + 1).data_id
        prior.position, prior.position_covariance = centre, np.eye(3) * sigma**2
        prior.coordinate_system = pycolmap.PosePriorCoordinateSystem.CARTESIAN
        priors.append(prior)
    return priors
