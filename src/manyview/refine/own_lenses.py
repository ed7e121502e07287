"""Whether photos of one size come from one camera: phones have several, and people zoom.

One focal length for all is the better model of one camera, and a wrong one of several. So a model with shared
intrinsics is adjusted once more with a focal length for each photo: if the photos come from one camera, the matches are
missed by hardly less. It is also a way out where shared intrinsics have led cameras astray: from where the free ones
end, shared ones are tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from manyview.geometry import Camera
from manyview.refine.bundle import ROUGH, Anchors, adjust
from manyview.refine.lenses import K_of_colmap, Lenses
from manyview.refine.matching import MatchDatabase
from manyview.refine.settling import Mapped, Part, cameras_of, settle

if TYPE_CHECKING:
    import pycolmap

LEAST_VIEWS = 6  # fewer do not tell focal lengths one by one
PROMISING, WORTH_IT = 0.9, 0.8  # of the mean reprojection error with shared intrinsics: at once, and once settled
AS_GOOD = 1.1  # times the error with free intrinsics, at which shared ones are preferred
LESS_EXPLAINED = 0.05  # of the matches that free intrinsics may explain less: they were not filtered for them
MOST_SPREAD = 0.2  # standard deviation of the changes of focal lengths over their mean: beyond it they have run away


def with_fitting_lenses(part: Part, model: Mapped) -> tuple[Mapped, list[str]]:
    """The model with shared intrinsics or with those of each photo, whichever fits, and what there is to say.

    Nothing is tried where intrinsics or cameras are known, or `options.intrinsics` says which it is.
    """
    if not _is_open(part, model) or not _gain_of_freedom(part, model) < PROMISING:
        return model, []
    own = _settled_with_own_lenses(part, model)
    if own is None or not _is_better(own, model, WORTH_IT) or _spread(own, model) > MOST_SPREAD:
        return model, []
    shared = settle(part, _placed(own), _shared_again(part, own), model.how, model.views)
    if shared is not None and _is_better(shared, model, 1.0) and _error(shared) < AS_GOOD * _error(own):
        return shared, []
    told = "photos of one size differ in focal length, as of several cameras or zooms: each was given one of its own"
    return own, [told]


def _is_open(part: Part, model: Mapped) -> bool:
    numbers = {part.database.lenses.number_of[view] for view in model.views}
    return (
        part.options.intrinsics == "auto"
        and len(model.views) >= LEAST_VIEWS
        and len(numbers) < len(model.views)
        and not part.database.lenses.fixed & numbers
        and not part.anchors.constant
        and not part.anchors.positions
    )


def _gain_of_freedom(part: Part, model: Mapped) -> float:
    """Mean reprojection error once every photo has intrinsics of its own, as a share of what it was; no new points."""
    free = own_cameras(model.model)
    if not adjust(free, part.scaled_options, Anchors(), tolerance=ROUGH):
        return 1.0
    return free.compute_mean_reprojection_error() / max(_error(model), 1e-12)


def own_cameras(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """A copy in which every registered image has a camera of its own, numbered as the image."""
    import pycolmap

    copied = pycolmap.Reconstruction()
    for number in sorted(model.reg_image_ids()):
        image = model.image(number)
        camera = copy(model.camera(image.camera_id))
        camera.camera_id = number
        copied.add_camera_with_trivial_rig(camera)
        points = [pycolmap.Point2D(point.xy) for point in image.points2D]
        named = pycolmap.Image(name=image.name, points2D=points, camera_id=number, image_id=number)
        copied.add_image_with_trivial_frame(named, image.cam_from_world())
    for _, point in sorted(model.points3D.items()):
        copied.add_point3D(point.xyz, point.track, point.color)
    return copied


def _settled_with_own_lenses(part: Part, model: Mapped) -> Mapped | None:
    database = part.database.with_own_lenses(_own_lenses(part.database, model))
    own = replace(part, database=database, anchors=Anchors())
    return settle(own, _placed(model), {}, model.how, model.views)


def _own_lenses(database: MatchDatabase, model: Mapped) -> Lenses:
    """A camera for each view, from 1: with the intrinsics that the model has for it."""
    lenses = database.lenses
    views = range(len(database.features))
    K = {view + 1: lenses.K[lenses.number_of[view]] for view in views}
    for view in model.views:
        K[view + 1] = K_of_colmap(model.model.camera(model.model.image(view + 1).camera_id))
    return Lenses(
        number_of=tuple(view + 1 for view in views),
        K=K,
        sizes={view + 1: lenses.sizes[lenses.number_of[view]] for view in views},
        fixed=frozenset(),
        model={view + 1: lenses.model[lenses.number_of[view]] for view in views},
    )


def _shared_again(part: Part, own: Mapped) -> dict[int, pycolmap.Camera]:
    """COLMAP's cameras by the numbers of the part's: with the median of the parameters that their views have now."""
    lenses = part.database.lenses
    cameras = {}
    for number in {lenses.number_of[view] for view in own.views}:
        members = [view for view in own.views if lenses.number_of[view] == number]
        params = [own.model.camera(own.model.image(view + 1).camera_id).params for view in members]
        camera = lenses.colmap_camera(number)
        camera.params = np.median(params, axis=0).tolist()
        cameras[number] = camera
    return cameras


def _placed(model: Mapped) -> dict[int, Camera]:
    cameras = cameras_of(model.model, 1 + max(model.views))
    return {view: camera for view in model.views if (camera := cameras[view]) is not None}


def _error(model: Mapped) -> float:
    return model.model.compute_mean_reprojection_error()


def _is_better(new: Mapped, old: Mapped, share: float) -> bool:
    """Whether a model misses its matches by less than a share of what another does, and loses nothing for it."""
    explains = new.agreement.explained >= old.agreement.explained - LESS_EXPLAINED
    return set(new.views) >= set(old.views) and explains and _error(new) < share * _error(old)


def _spread(own: Mapped, shared: Mapped) -> float:
    changes = _focals(own.model, own.views) / _focals(shared.model, own.views)
    return float(np.std(changes) / np.mean(changes))


def _focals(model: pycolmap.Reconstruction, views: Sequence[int]) -> np.ndarray:
    return np.array([model.camera(model.image(view + 1).camera_id).mean_focal_length() for view in views])
