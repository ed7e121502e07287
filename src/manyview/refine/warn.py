"""What does not fit, in words: parallax that is missing, and given cameras or intrinsics that the photos contradict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from manyview.refine.agreement import has_no_parallax, judge_cameras
from manyview.refine.bundle import FINE, Anchors, adjust
from manyview.refine.lenses import K_of_colmap, Lenses
from manyview.refine.mapping import GOOD_SHARE, map_part, rank
from manyview.refine.options import GivenCameras
from manyview.refine.settling import Mapped, Part
from manyview.scene import SceneView

if TYPE_CHECKING:
    import pycolmap

FOCAL_OFF = 0.03  # relative difference from which a given focal length is called into question ...
ERROR_FALLS = 0.85  # ... if the mean reprojection error falls to this share without it
POINTS_ASKED = 2000
LITTLE_PARALLAX = 5.0  # degrees between the rays to a point: photographs of an object all around have 8 to 45
GIVEN_EXPLAIN = 0.5  # of the matches that given cameras should explain


def only_turns(part: Part) -> bool:
    """Whether a part's photos were all taken from one place, as far as their matches tell."""
    lenses = part.database.lenses
    cameras = [lenses.camera_at(number, np.eye(4)) for number in lenses.number_of]
    return has_no_parallax(cameras, part.pairs)


def doubts_about_parallax(model: Mapped, names: str) -> list[str]:
    """A sentence where the rays to a model's points meet at small angles: then matches tell little of depth."""
    angle = parallax(model.model)
    if angle >= LITTLE_PARALLAX:
        return []
    told = f"{names}: little parallax, the rays to a point meet at {angle:.1f} degrees (median)"
    return [f"{told}; places and depth are not sure. Take photos from further apart"]


def parallax(model: pycolmap.Reconstruction) -> float:
    """Degrees, median over some of the points: the largest angle between the rays from the views that see a point."""
    centres = {image: model.image(image).projection_center() for image in model.reg_image_ids()}
    angles = []
    numbers = sorted(model.points3D)
    for number in numbers[:: 1 + len(numbers) // POINTS_ASKED]:
        point = model.points3D[number]
        rays = point.xyz - np.array([centres[seen.image_id] for seen in point.track.elements])
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        angles.append(np.arccos(np.clip((rays @ rays.T).min(), -1, 1)))
    return float(np.degrees(np.median(angles))) if angles else 0.0


def doubts_about_intrinsics(part: Part, models: Sequence[Mapped], given: GivenCameras) -> list[str]:
    """Sentences on given intrinsics that the photos contradict: without them, errors would be much smaller."""
    lenses = part.database.lenses
    numbers = {lenses.number_of[view] for view in part.members if given.K_of(view) is not None}
    if not numbers:
        return []
    best = models[0] if models else None
    without = _adjusted_freely(part, best) if best is not None else None
    if best is None or len(best.views) < len(part.members) or best.agreement.explained < GOOD_SHARE:
        mapped = _mapped_freely(part, numbers)
        if mapped is not None and (best is None or rank(mapped)[:3] > rank(best)[:3]):
            return [_focal_sentence(lenses, mapped, numbers, _gain(mapped, best))]
    if best is None or without is None:
        return []
    before, after = (model.model.compute_mean_reprojection_error() for model in (best, without))
    if after < ERROR_FALLS * before and _focal_change(lenses, without, numbers) > FOCAL_OFF:
        return [_focal_sentence(lenses, without, numbers, f"an error of {after:.2f} pixels instead of {before:.2f}")]
    return []


def doubts_about_cameras(part: Part, views: Sequence[SceneView], given: GivenCameras) -> list[str]:
    """A sentence where the given cameras contradict the matches."""
    known = [view for view in part.members if given.camera_of(view) is not None]
    pairs = [pair for pair in part.pairs if pair.first in known and pair.second in known]
    if not pairs:
        return []
    cameras = [part.start.get(view) if view in known else None for view in range(len(views))]
    share = judge_cameras(cameras, pairs).explained
    if share >= GIVEN_EXPLAIN:
        return []
    names = ", ".join(views[view].name for view in known[:5])
    return [f"the given cameras ({names}{', ...' if len(known) > 5 else ''}) explain {share:.0%} of the matches"]


def _adjusted_freely(part: Part, model: Mapped) -> Mapped | None:
    import pycolmap

    freed = pycolmap.Reconstruction(model.model)
    anchors = replace(part.anchors, fixed_lenses=frozenset())
    if not adjust(freed, part.scaled_options, anchors, tolerance=FINE):
        return None
    return replace(model, model=freed)


def _mapped_freely(part: Part, numbers: set[int]) -> Mapped | None:
    lenses = part.database.lenses
    database = part.database.with_lenses(replace(lenses, fixed=lenses.fixed - numbers))
    try:
        models = map_part(replace(part, database=database, anchors=Anchors()))
    finally:
        part.database.set_cameras([lenses.colmap_camera(number) for number in sorted(numbers)])
    return models[0] if models else None


def _focal_change(lenses: Lenses, model: Mapped, numbers: set[int]) -> float:
    return max(
        (abs(_focal(model, number) / lenses.K[number][0, 0] - 1) for number in _present(model, numbers)), default=0.0
    )


def _focal_sentence(lenses: Lenses, model: Mapped, numbers: set[int], gain: str) -> str:
    told = ", ".join(
        f"{lenses.K[number][0, 0]:.0f} was given, the photos say {_focal(model, number):.0f}"
        for number in _present(model, numbers)[:5]
    )
    return f"the given intrinsics do not fit the photos (focal length in pixels: {told}); without them: {gain}"


def _present(model: Mapped, numbers: set[int]) -> list[int]:
    return [number for number in sorted(numbers) if number in model.model.cameras]


def _focal(model: Mapped, number: int) -> float:
    return float(K_of_colmap(model.model.camera(number))[0, 0])


def _gain(mapped: Mapped, best: Mapped | None) -> str:
    """What one model has more of than another: photos, or matches that it explains."""
    if best is None or len(mapped.views) != len(best.views):
        return f"{len(mapped.views)} photos instead of {0 if best is None else len(best.views)}"
    return f"{mapped.agreement.explained:.0%} of the matches explained instead of {best.agreement.explained:.0%}"
