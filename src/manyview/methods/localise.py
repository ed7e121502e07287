"""Visual localisation: where a photo was taken, from posed photos whose pixels have 3D points (DUSt3R, section 4.1).

query and map photos  cut to a trained ratio and resized
  a map photo at a time  pair (query, map); pixels that are sure on both sides, and on the map's have a 3D point;
                         those that are each other's nearest: query pixel <-> world point
  all matches            perspective-n-point with RANSAC
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manyview.errors import InputError
from manyview.geometry import Camera, confident_pixels, finite_points, pixel_grid, transform_pixels
from manyview.geometry.absolute_pose import (
    AbsolutePose,
    PoseStatus,
    Solver,
    check_intrinsics,
    require_solver,
    solve_absolute_pose,
    undistort_pixels,
)
from manyview.geometry.matching import Search, reciprocal_matches
from manyview.images import Progress, Skipped
from manyview.images.aspect import AspectFrame, AspectPicture, Shape, load_aspect_picture, trained_shapes
from manyview.images.sources import ImageInput
from manyview.methods.match import PairPredictor
from manyview.scene_photos import photo_of

if TYPE_CHECKING:
    from torch import Tensor

    from manyview.scene import Scene, SceneView

DEFAULT_MODEL = "manyview-small-pairs"
PAIRS_AT_ONCE = 16  # map photos that are read and predicted together: memory does not grow with the map
EDGE_FACTOR = 4.0  # neighbours this many times further apart than usual are on two things
COLMAP_CENTRE = 0.5  # there the centre of the top-left pixel is (0.5, 0.5)


@dataclass(frozen=True, kw_only=True, eq=False)
class MapImage:
    """A photo some of whose pixels have known world points: either `world_points`, or `pixels` and `points`.

    Attributes:
        picture: a path, an array or a Pillow picture.
        world_points: (H, W, 3), one a pixel of the upright original; nan where it is not known.
        pixels: (P, 2) as (x, y) of the upright original, integers at pixel centres.
        points: (P, 3), world frame.
        size: (height, width) that `pixels` refer to; an error if the photo has another. None trusts it.
        name: for people; the file's by default.
    """

    picture: ImageInput
    world_points: np.ndarray | None = None
    pixels: np.ndarray | None = None
    points: np.ndarray | None = None
    size: Shape | None = None
    name: str = ""

    def __post_init__(self) -> None:
        dense, pixels, points = self.world_points, self.pixels, self.points
        if dense is not None and (pixels is not None or points is not None):
            raise InputError("a map image has either world_points, or pixels and points; got both")
        if dense is not None:
            fits = np.ndim(dense) == 3 and np.shape(dense)[2] == 3
        else:
            fits = (
                pixels is not None and np.ndim(pixels) == 2 and np.shape(pixels)[1] == 2
                and points is not None and np.shape(points) == (len(pixels), 3)
            )  # fmt: skip
        if not fits:
            raise InputError(
                f"a map image with world_points {_shape(dense)}, pixels {_shape(pixels)} and points {_shape(points)}",
                hint="Expected world_points (H, W, 3), or pixels (P, 2) with points (P, 3).",
            )

    def network_points(self, frame: AspectFrame) -> np.ndarray:
        """(h, w, 3) float64: the world point of each pixel of the network's picture; nan where none is known.

        Raises:
            InputError: the photo has another size than the points refer to.
        """
        size = self.size if self.world_points is None else np.shape(self.world_points)[:2]
        if size is not None and tuple(size) != frame.original_size:
            raise InputError(
                f"{self.name or 'a map image'}: the upright photo has (height, width) {frame.original_size} and its "
                f"points are for {tuple(size)}",
                hint="Points must be given in pixels of the photo as it is shown upright.",
            )
        return self._looked_up(frame) if self.world_points is not None else self._scattered(frame)

    def _looked_up(self, frame: AspectFrame) -> np.ndarray:
        """The mean of the four original pixels around the centre of each of the network's, weighted bilinearly.

        The nearest one alone would lie half a pixel off, always to one side, where pictures are halved. It is taken
        where one of the four is not known, or where they lie far apart: at the edges of things.
        """
        dense = np.asarray(self.world_points)
        places = transform_pixels(frame.original_from_network, pixel_grid(*frame.size))
        last = np.array(frame.original_size[::-1]) - 1
        places = np.clip(places, 0, last)
        low = np.minimum(np.floor(places).astype(np.int64), np.maximum(last - 1, 0))
        high = np.minimum(low + 1, last)
        share = (places - low)[..., None, :]
        corners = np.stack([dense[y[..., 1], x[..., 0]] for y in (low, high) for x in (low, high)], axis=-2)
        along_x, along_y = (np.concatenate([1 - share[..., k], share[..., k]], axis=-1) for k in (0, 1))
        weights = (along_y[..., :, None] * along_x[..., None, :]).reshape(*frame.size, 4, 1)
        nearest = np.take_along_axis(corners, weights.argmax(axis=-2)[..., None, :], axis=-2)[..., 0, :]
        apart = np.linalg.norm(np.ptp(corners, axis=-2), axis=-1)
        together = apart <= EDGE_FACTOR * np.nanmedian(apart) if np.isfinite(apart).any() else apart == 0
        return np.where(together[..., None], (weights * corners).sum(axis=-2), nearest).astype(np.float64)

    def _scattered(self, frame: AspectFrame) -> np.ndarray:
        """Each point on the network pixel that it falls on; of several, the one nearest to the pixel's centre."""
        pixels, points = np.asarray(self.pixels, dtype=np.float64), np.asarray(self.points, dtype=np.float64)
        known = np.isfinite(pixels).all(axis=1) & np.isfinite(points).all(axis=1)
        places = transform_pixels(frame.network_from_original, pixels[known])
        rounded = np.rint(places)
        inside = ((rounded >= 0) & (rounded < [frame.size[1], frame.size[0]])).all(axis=1)
        # The last one assigned stays.
        order = np.flatnonzero(inside)[np.argsort(-np.linalg.norm(places - rounded, axis=1)[inside], kind="stable")]
        x, y = rounded[order].astype(np.int64).T
        scattered = np.full((*frame.size, 3), np.nan)
        scattered[y, x] = points[known][order]
        return scattered


@dataclass(frozen=True, kw_only=True, eq=False)
class Localisation:
    """Where a query photo was taken, and the matches that say so.

    Attributes:
        camera: in the map's world frame and unit; K as given, without its distortion. None if `status` is "not_found".
        pose: how well the matches agree, and which.
        pixels: (M, 2) of the query, original pixels as they are (with distortion), integers at pixel centres.
        points: (M, 3), world frame.
        map_index: (M,) int64: which map image a match comes from.
        skipped: map images that could not be read.
    """

    camera: Camera | None
    pose: AbsolutePose
    pixels: np.ndarray
    points: np.ndarray
    map_index: np.ndarray
    skipped: tuple[Skipped, ...] = ()

    @property
    def status(self) -> PoseStatus:
        """ "found", "doubtful" or "not_found"; `reason` says it in words."""
        return self.pose.status

    @property
    def reason(self) -> str:
        """Why it is not found, or doubtful."""
        return self.pose.reason


@dataclass(frozen=True)
class _Found:
    """Matches of one map image: query pixels (M, 2) of the original, world points (M, 3)."""

    pixels: np.ndarray
    points: np.ndarray


def localize(
    query: ImageInput,
    mapped: Sequence[MapImage],
    *,
    model: str | Path | PairPredictor = DEFAULT_MODEL,
    K: np.ndarray,
    distortion: np.ndarray | None = None,
    least_confidence: float | None = None,
    solver: Solver = "pycolmap",
    reprojection_error: float | None = None,
    max_matches: int = 100_000,
    seed: int = 0,
    search: Search = "auto",
    max_pixels: int | None = None,
    progress: Progress | None = None,
) -> Localisation:
    """Find the camera of a photo among posed photos.

    Args:
        query: a path, an array or a Pillow picture.
        mapped: photos that show the same place (those that a retrieval found, not a whole city).
        model: a pairwise (DUSt3R) model: loaded, or what `manyview.load` takes.
        K: (3, 3), pixels of the upright query.
        distortion: OpenCV's coefficients of the query's lens; None for a pinhole.
        least_confidence: of both pixels of a match; the model's own by default, and 3 as published.
        solver, reprojection_error, max_matches, seed: as in `solve_absolute_pose`. Published figures are with
            "poselib".
        search: as in `reciprocal_matches`.
        max_pixels: as in `load_views`.
        progress: called as (done, total, what).

    Raises:
        InputError: the query, or every map image, cannot be read; K, the coefficients or a map image do not fit their
            photos; the solver is not installed.
    """
    require_solver(solver)
    if not mapped:
        raise InputError("no map images were given", hint="Give at least one photo with known 3D points.")
    model = _ready(model)
    shapes = trained_shapes(model.image_size, model.patch_size)
    picture = load_aspect_picture(query, shapes, max_pixels=max_pixels)
    K = check_intrinsics(K, picture.frame.original_size)
    undistort_pixels(np.zeros((0, 2)), K, distortion)  # wrong coefficients are said before the network runs
    limit = model.least_confidence if least_confidence is None else least_confidence
    found: dict[int, _Found] = {}
    skipped: list[Skipped] = []
    for start in range(0, len(mapped), PAIRS_AT_ONCE):
        loaded = _loaded(mapped, range(start, min(start + PAIRS_AT_ONCE, len(mapped))), shapes, max_pixels, skipped)
        found |= _matched(picture, mapped, loaded, model, limit, search)
        if progress is not None:
            progress(min(start + PAIRS_AT_ONCE, len(mapped)), len(mapped), "matching with the map")
    if len(skipped) == len(mapped):
        raise InputError(f"none of {len(mapped)} map images could be read; the first: {skipped[0].reason}")
    pixels = np.concatenate([np.zeros((0, 2)), *(item.pixels for item in found.values())])
    points = np.concatenate([np.zeros((0, 3)), *(item.points for item in found.values())])
    pose = solve_absolute_pose(
        pixels,
        points,
        K,
        picture.frame.original_size,
        distortion=distortion,
        solver=solver,
        reprojection_error=reprojection_error,
        max_matches=max_matches,
        seed=seed,
    )
    return Localisation(
        camera=_camera(pose, K, picture.frame.original_size),
        pose=pose,
        pixels=pixels,
        points=points,
        map_index=np.repeat(np.array(list(found), dtype=np.int64), [len(item.pixels) for item in found.values()]),
        skipped=tuple(skipped),
    )


def _ready(model: str | Path | PairPredictor) -> PairPredictor:
    """The model itself, or the one of that name."""
    if not isinstance(model, (str, Path)):
        return model
    from manyview.methods.model import load

    return load(model)


# ------------------------------------------------------------------ maps from what others made
def map_from_scene(scene: Scene, *, percentile: float = 20.0) -> list[MapImage]:
    """The views of a scene that are in use, with their dense points; the query is then found in the scene's world.

    The picture is the photo if the view has one that is still there, and else (frames of videos, arrays) the one that
    the network saw.

    Args:
        scene: from any model.
        percentile: pixels whose confidence is below this percentile (0..100) of their view give no point.
    """
    return [_view_image(view, percentile) for view in scene.views if view.status == "used" and view.valid.any()]


def map_from_colmap(model: str | Path, photos: str | Path, *, names: Sequence[str] | None = None) -> list[MapImage]:
    """The registered images of a COLMAP model that observe 3D points, with these as sparse points.

    Args:
        model: folder with cameras, images and points3D (.bin or .txt).
        photos: folder that the images' names are relative to.
        names: of the images to take (those that a retrieval found); all by default.

    Raises:
        InputError: there is no readable model, a named image is not in it, or nothing observes a point.
    """
    import pycolmap

    try:
        reconstruction = pycolmap.Reconstruction(str(model))
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"{model} holds no COLMAP model that can be read: {error}", hint="Give the folder of cameras.bin."
        ) from error
    registered = {reconstruction.image(number).name: number for number in reconstruction.reg_image_ids()}
    if missing := [name for name in names or () if name not in registered]:
        raise InputError(f"the COLMAP model has no registered image {missing[0]!r} (of {len(missing)} such names)")
    wanted = sorted(registered) if names is None else names
    images = [_colmap_image(reconstruction, registered[name], Path(photos)) for name in wanted]
    images = [image for image in images if image.points is not None and len(image.points)]
    if not images:
        raise InputError(f"no image of the COLMAP model {model} observes a 3D point")
    return images


def _view_image(view: SceneView, percentile: float) -> MapImage:
    usable = view.valid & finite_points(view.points)
    usable &= confident_pixels(np.where(usable, view.confidence, np.nan), percentile / 100)
    pixels = pixel_grid(*view.size)[usable]
    photo = photo_of(view)
    return MapImage(
        picture=view.image if photo is None else photo,
        pixels=pixels if photo is None else transform_pixels(view.original_from_network, pixels),
        points=view.points[usable],
        size=view.size if photo is None else view.original_size,
        name=view.name,
    )


def _colmap_image(reconstruction, number: int, photos: Path) -> MapImage:
    image = reconstruction.image(number)
    camera = reconstruction.camera(image.camera_id)
    seen = [observation for observation in image.points2D if observation.has_point3D()]
    return MapImage(
        picture=photos / image.name,
        pixels=np.array([observation.xy for observation in seen]).reshape(-1, 2) - COLMAP_CENTRE,
        points=np.array([reconstruction.point3D(observation.point3D_id).xyz for observation in seen]).reshape(-1, 3),
        size=(camera.height, camera.width),
        name=image.name,
    )


# ------------------------------------------------------------------ one group of map photos
def _loaded(
    mapped: Sequence[MapImage],
    indices: range,
    shapes: Sequence[Shape],
    max_pixels: int | None,
    skipped: list[Skipped],
) -> dict[int, AspectPicture]:
    """The photos that can be read; the others are added to `skipped`."""
    loaded = {}
    for index in indices:
        try:
            loaded[index] = load_aspect_picture(mapped[index].picture, shapes, max_pixels=max_pixels)
        except InputError as error:
            skipped.append(Skipped(mapped[index].name or f"map image {index}", str(error.args[0])))
    return loaded


def _matched(
    query: AspectPicture,
    mapped: Sequence[MapImage],
    loaded: dict[int, AspectPicture],
    model: PairPredictor,
    limit: float,
    search: Search,
) -> dict[int, _Found]:
    world = {index: mapped[index].network_points(picture.frame) for index, picture in loaded.items()}
    if not loaded:
        return {}
    edges = np.array([(0, position) for position in range(1, len(loaded) + 1)])
    maps = model.predict_pairs([query.pixels, *(picture.pixels for picture in loaded.values())], edges)
    return {
        index: _match(query.frame, points, confidence, world[index], limit, search)
        for index, points, confidence in zip(loaded, maps.points, maps.confidence, strict=True)
    }


def _match(
    frame: AspectFrame,
    points: tuple[Tensor, Tensor],
    confidence: tuple[Tensor, Tensor],
    world: np.ndarray,
    limit: float,
    search: Search,
) -> _Found:
    """Matches of a pair (query, map photo), given the world points (h, w, 3) of the latter."""
    query_sure, map_sure = (sure.cpu().numpy() >= limit for sure in confidence)
    query_rows = np.flatnonzero(query_sure)
    map_rows = np.flatnonzero(map_sure & finite_points(world))
    chosen = [points[0].reshape(-1, 3)[query_rows], points[1].reshape(-1, 3)[map_rows]]
    pairs = reciprocal_matches(chosen[0], chosen[1], search=search)
    rows, width = query_rows[pairs[:, 0]], frame.size[1]
    pixels = np.stack([rows % width, rows // width], axis=-1).astype(np.float64)
    return _Found(transform_pixels(frame.original_from_network, pixels), world.reshape(-1, 3)[map_rows[pairs[:, 1]]])


def _camera(pose: AbsolutePose, K: np.ndarray, size: Shape) -> Camera | None:
    if pose.world_from_camera is None:
        return None
    return Camera(K=K, world_from_camera=pose.world_from_camera, width=size[1], height=size[0])


def _shape(array: np.ndarray | None) -> str:
    return "missing" if array is None else str(np.shape(array))
