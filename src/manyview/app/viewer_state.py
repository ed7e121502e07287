"""What the viewer shows, as arrays: settings in, points, colours and cameras out. Nothing here needs a browser."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from html import escape
from typing import Literal, get_args

import numpy as np

from manyview.errors import InputError
from manyview.images.colourmaps import coloured
from manyview.scene import Scene, SceneView

__all__ = [
    "ColourBy",
    "Frustum",
    "SceneBox",
    "Shown",
    "ViewPoints",
    "confidence_colours",
    "confidence_range",
    "frustum",
    "report",
    "scene_box",
    "starting_place",
    "thumbnail",
    "view_colour",
    "visible_points",
    "visible_views",
]

ColourBy = Literal["picture", "confidence", "view"]

MOST_PERCENTILE = 95.0  # beyond it hardly any point is left
SAMPLE = 100_000  # pixels that percentiles over all views are estimated from: more would change nothing visible
THUMBNAIL_SIDE = 192  # pixels: enough for a picture that fills a tenth of the screen


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What to show, and how.

    Attributes:
        percentile: in each view, points whose confidence is below this percentile (0 to 95) are left out.
        colour_by: "picture" for the photos' colours, "confidence" for blue (low) to red (high), "view" for one hue
            a view.
        include_low_confidence: also show views whose status is "low_confidence".
        max_points: most points over all views; None for all. The draw is repeatable.
        point_size, camera_size: as a fraction of `SceneBox.size`.
        show_cameras: whether to show the cameras as pyramids with their pictures.
        timestep: index of the view that playback is at; None for the last.
        cumulative: show all views up to `timestep`, instead of that one alone.

    Raises:
        InputError: a value out of its range.
    """

    percentile: float = 20.0
    colour_by: ColourBy = "picture"
    include_low_confidence: bool = False
    max_points: int | None = 1_000_000
    point_size: float = 0.002
    camera_size: float = 0.05
    show_cameras: bool = True
    timestep: int | None = None
    cumulative: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.percentile <= MOST_PERCENTILE:
            raise InputError(f"got percentile {self.percentile}", hint=f"Give a number from 0 to {MOST_PERCENTILE:g}.")
        if self.colour_by not in get_args(ColourBy):
            raise InputError(
                f"cannot colour by {self.colour_by!r}", hint=f"Choose one of {', '.join(get_args(ColourBy))}."
            )
        for name in ("point_size", "camera_size"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"got {name} {getattr(self, name)}", hint="Give a fraction of the scene's size.")
        for name in ("max_points", "timestep"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise InputError(f"got {name} {getattr(self, name)}", hint="Give 0 or more, or None.")


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewPoints:
    """The points shown of one view.

    Attributes:
        points: (P, 3) float32, world frame.
        colours: (P, 3) uint8 RGB.
    """

    points: np.ndarray
    colours: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SceneBox:
    """Where a scene is and how large.

    Attributes:
        centre: (3,) float64, world frame.
        size: a length in world units, above 0: the diagonal of the box without the outer fifths of the points.
    """

    centre: np.ndarray
    size: float


@dataclass(frozen=True, kw_only=True)
class Frustum:
    """A camera as a viewer draws it: symmetrical about the optical axis.

    Attributes:
        fov: vertical angle of view in radians.
        aspect: width over height of the picture plane.
        world_from_camera: (4, 4) float64, OpenCV axes.
    """

    fov: float
    aspect: float
    world_from_camera: np.ndarray


def visible_points(scene: Scene, settings: Shown) -> list[ViewPoints]:
    """For each view the points that pass `settings`; none for views that its status keeps out.

    `timestep` and `cumulative` do not matter here, so that stepping through the views moves no points.
    """
    cloud = scene.point_cloud(
        percentile=settings.percentile,
        include_low_confidence=settings.include_low_confidence,
        max_points=settings.max_points,
    )
    if settings.colour_by == "picture":
        colours = cloud.colours
    elif settings.colour_by == "confidence":
        colours = confidence_colours(cloud.confidence, *confidence_range(scene))
    else:
        colours = _view_colours(len(scene.views))[cloud.view]
    ends = np.searchsorted(cloud.view, np.arange(1, len(scene.views)))
    pieces = zip(np.split(cloud.points, ends), np.split(colours, ends), strict=True)
    return [ViewPoints(points=points, colours=of_points) for points, of_points in pieces][: len(scene.views)]


def visible_views(scene: Scene, settings: Shown) -> list[bool]:
    """For each view whether it is shown at this time step. Views without a camera never are."""
    last = len(scene.views) - 1
    now = last if settings.timestep is None else min(settings.timestep, last)
    statuses = ("used", "low_confidence") if settings.include_low_confidence else ("used",)
    return [
        view.status in statuses and (index <= now if settings.cumulative else index == now)
        for index, view in enumerate(scene.views)
    ]


def confidence_range(scene: Scene) -> tuple[float, float]:
    """The 2nd and 98th percentile of the confidence of all valid pixels; (1, 1) if there are none.

    It is one range for all views, so that colours can be compared; single pixels of enormous confidence would make
    everything else blue.
    """
    share = SAMPLE // max(len(scene.views), 1)
    samples = [_thinned(view.confidence[view.valid], share) for view in scene.views]
    values = np.concatenate([np.zeros(0, np.float32), *samples])
    if not values.size:
        return 1.0, 1.0
    low, high = np.percentile(values, (2, 98))
    return float(low), float(high)


def confidence_colours(confidence: np.ndarray, low: float, high: float) -> np.ndarray:
    """Confidence (P,) -> (P, 3) uint8 RGB of the colour map "turbo", from `low` (blue) to `high` (red)."""
    return coloured((confidence - low) / max(high - low, np.finfo(np.float32).tiny), "turbo")


def view_colour(index: int, count: int) -> tuple[int, int, int]:
    """RGB of view `index` of `count`: hue index / count, the same for its points and its camera."""
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(index / max(count, 1), 0.85, 0.95))
    return red, green, blue


def _view_colours(count: int) -> np.ndarray:
    return np.array([view_colour(index, count) for index in range(count)], dtype=np.uint8).reshape(-1, 3)


def scene_box(scene: Scene) -> SceneBox:
    """The box between the 20th and the 80th percentile of the points of the views in use, along each axis.

    Far walls and stray points so hardly count. Without points the cameras' places take their part; without those
    the box is of size 1 about the origin.
    """
    used = [view for view in scene.views if view.status in ("used", "low_confidence")]
    points = [_thinned(view.points[view.valid], SAMPLE // max(len(used), 1)) for view in used]
    places = np.concatenate([np.zeros((0, 3), np.float32), *points]).astype(np.float64)
    if not len(places):
        places = np.array([view.camera.centre for view in used if view.camera is not None]).reshape(-1, 3)
    if not len(places):
        return SceneBox(centre=np.zeros(3), size=1.0)
    low, centre, high = np.percentile(places, (20, 50, 80), axis=0)
    size = float(np.linalg.norm(high - low))
    return SceneBox(centre=centre, size=size if size > 0 else 1.0)


def _thinned(values: np.ndarray, most: int) -> np.ndarray:
    """Every k-th entry, so that at most about `most` are left."""
    return values[:: max(1, math.ceil(len(values) / max(most, 1)))]


def starting_place(scene: Scene, box: SceneBox) -> tuple[np.ndarray, np.ndarray]:
    """Where the visitor stands at first and what they look at, both (3,) in the world: above and behind the cameras."""
    found = [view.camera.world_from_camera for view in scene.views if view.camera is not None]
    if not found:
        return box.centre + box.size * np.array([0.0, -0.3, -1.0]), box.centre
    forward = np.mean([camera[:3, 2] for camera in found], axis=0)
    length = np.linalg.norm(forward)
    forward = forward / length if length > 0.1 else found[0][:3, 2]  # cameras all around: behind the first
    centres = np.array([camera[:3, 3] for camera in found])
    behind = np.median(centres, axis=0) if length > 0.1 else centres[0]
    place = behind - 0.5 * box.size * forward + np.array([0.0, -0.3 * box.size, 0.0])
    ahead = max(float((box.centre - place) @ forward), 0.1 * box.size)
    return place, place + 0.5 * ((box.centre - place) + ahead * forward)


def frustum(view: SceneView) -> Frustum | None:
    """The pyramid of a view's picture, or None if its camera was not found.

    It is as wide and high as the picture's angle of view, about the optical axis: an off-centre principal point
    cannot be drawn.
    """
    camera = view.network_camera
    if camera is None:
        return None
    width, height = camera.width / camera.K[0, 0], camera.height / camera.K[1, 1]
    return Frustum(
        fov=2 * math.atan(height / 2), aspect=float(width / height), world_from_camera=camera.world_from_camera
    )


def thumbnail(view: SceneView, longest: int = THUMBNAIL_SIDE) -> np.ndarray:
    """The picture (H, W, 3) uint8, averaged over blocks so that no side is longer than `longest` pixels."""
    from PIL import Image

    factor = max(1, math.ceil(max(view.size) / longest))
    return np.asarray(Image.fromarray(view.image).reduce(factor))


def report(scene: Scene) -> str:
    """What the scene is and what is wrong with it, as HTML: counts, units, model, and each view or file not shown.

    Names of files come from elsewhere, so all text is escaped.
    """
    counts = {status: sum(view.status == status for view in scene.views) for status in _STATUS}
    lines = [f"<b>{len(scene.views)} views</b>: " + ", ".join(f"{n} {_STATUS[s]}" for s, n in counts.items() if n)]
    lines.append(f"Model: {escape(scene.provenance.model)} (weights: {escape(scene.provenance.weights_licence)})")
    lines.append(f"Lengths: {escape(scene.units)}")
    troubles = [(view.name, _STATUS[view.status], view.status_reason) for view in scene.views if view.status != "used"]
    troubles += [(name, "skipped", reason) for name, reason in scene.skipped]
    items = [f"<b>{escape(name)}</b>: {what}{_because(reason)}" for name, what, reason in troubles]
    items += [f"Warning: {escape(warning)}" for warning in scene.warnings]
    paragraphs = "".join(f"<p style='margin:0.3em 0'>{line}</p>" for line in lines)
    listed = "".join(f"<li>{item}</li>" for item in items)
    listing = f"<ul style='margin:0.3em 0;padding-left:1.3em'>{listed}</ul>" if items else ""
    style = "padding:0 0.9em 0.5em;font-size:0.85em;max-height:16em;overflow:auto;overflow-wrap:anywhere"
    return f"<div style='{style}'>{paragraphs}{listing}</div>"


_STATUS = {
    "used": "used",
    "low_confidence": "low confidence",
    "camera_not_found": "camera not found",
    "other_group": "in another group",
}


def _because(reason: str) -> str:
    return f" ({escape(reason)})" if reason else ""
