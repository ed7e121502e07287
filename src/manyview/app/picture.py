"""A scene as one picture: each view's photo, depth and confidence, and the points and cameras seen from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from manyview.errors import InputError
from manyview.files import replaced
from manyview.geometry import Camera, Similarity, finite_points
from manyview.images.colourmaps import ColourMap, colour_table, coloured
from manyview.scene import Scene, SceneView

if TYPE_CHECKING:
    from manyview.evaluation.held_out import Truth

WIDTH = 1200
MARGIN, GAP, HEADER, FOOTER = 20, 8, 30, 34
COLUMN_WIDTHS = (130, 250)  # narrowest and widest column of the views, pixels
PREFERRED_HEIGHT = 560  # of the block of views: columns become narrower for many views and wider for few
LEAST_HEIGHT = 346
SHARPNESS = 2  # the top view is drawn this many times larger and reduced, so that its lines are smooth

PAPER, INK, FAINT, PANEL, EMPTY = (255, 255, 255), (36, 41, 47), (110, 119, 129), (243, 244, 246), (216, 220, 225)
TRUTH_COLOUR = (36, 41, 47)
VIEW_COLOURS = (
    (214, 39, 40), (31, 119, 180), (44, 160, 44), (255, 127, 14),
    (148, 103, 189), (23, 190, 207), (227, 119, 194), (140, 86, 75),
)  # fmt: skip

SHOWN_COLOURS = (0.04, 0.92)  # first share of a colour map and how much follows: its ends are nearly black

MAX_POINTS = 400_000
FRUSTUM_LENGTH = 0.09  # of the top view's extent; more than eight cameras are drawn smaller
MOST_NUMBERS = 30  # more cameras than this are not numbered
SHOWN_RANGE = (1.5, 98.5)  # percentiles of the points that the top view is sure to hold
ROOF_PERCENTILE = 65.0  # points above this height and above every camera are left out: they would hide the rest


def scene_picture(
    scene: Scene,
    *,
    truth: Truth | None = None,
    photos: Sequence[np.ndarray] | None = None,
    max_views: int = 4,
) -> np.ndarray:
    """Draw a scene.

    Depth is coloured by its inverse (near is red, far is blue) and confidence by its logarithm (sure is yellow), each
    with one scale for all views. The top view looks along the cameras' common vertical, the first camera faces up.

    Args:
        scene: at least one view.
        truth: of the same views; its cameras are outlined in the top view, laid over the found ones by a similarity.
        photos: (H, W, 3) uint8, one a view, shown instead of the smaller pictures that the network saw.
        max_views: how many views get a row, evenly spread; all are in the top view.

    Returns:
        (H, 1200, 3) uint8 RGB.

    Raises:
        InputError: there is no view, or `photos` or `truth` are not as many as the views.
    """
    _check(scene, truth, photos, max_views)
    shown = np.unique(np.rint(np.linspace(0, len(scene.views) - 1, min(max_views, len(scene.views)))).astype(int))
    column, row = _cell([scene.views[index] for index in shown])
    block = max(LEAST_HEIGHT, len(shown) * (row + GAP) - GAP)
    left_width = 3 * column + 2 * GAP
    panel_left = MARGIN + left_width + MARGIN
    page = Image.new("RGB", (WIDTH, HEADER + block + FOOTER + MARGIN), PAPER)
    _draw_views(page, scene, photos, shown.tolist(), (column, row))
    panel = top_view(scene, truth, (block, WIDTH - panel_left - MARGIN))
    page.paste(Image.fromarray(panel), (panel_left, HEADER + MARGIN // 2))
    _draw_words(page, scene, truth, column, panel_left, HEADER + MARGIN // 2 + block)
    return np.asarray(page).copy()


def save_picture(
    scene: Scene,
    path: str | Path,
    *,
    truth: Truth | None = None,
    photos: Sequence[np.ndarray] | None = None,
    max_views: int = 4,
) -> Path:
    """Write `scene_picture` as PNG, whole or not at all; a file of that name is replaced.

    Raises:
        InputError: as `scene_picture`.
        ExportError: the disk refuses.
    """
    path = Path(path)
    picture = Image.fromarray(scene_picture(scene, truth=truth, photos=photos, max_views=max_views))
    with replaced(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    return path


def _check(scene: Scene, truth: Truth | None, photos: Sequence[np.ndarray] | None, max_views: int) -> None:
    count = len(scene.views)
    if not count or max_views < 1:
        raise InputError(f"expected at least one view to draw, got a scene of {count} and {max_views=}")
    for what, given in (("photos", photos), ("true cameras", None if truth is None else truth.cameras)):
        if given is not None and len(given) != count:
            raise InputError(f"got {len(given)} {what} for {count} views", hint="Give one for each view.")


# ------------------------------------------------------------------ the views
def _cell(views: Sequence[SceneView]) -> tuple[int, int]:
    """Width and height of the cells in which views are shown."""
    aspect = float(np.clip(np.median([view.size[0] / view.size[1] for view in views]), 0.4, 1.6))
    column = int(np.clip((PREFERRED_HEIGHT / len(views) - GAP) / aspect, *COLUMN_WIDTHS))
    return column, round(column * aspect)


def _draw_views(
    page: Image.Image,
    scene: Scene,
    photos: Sequence[np.ndarray] | None,
    shown: Sequence[int],
    cell: tuple[int, int],
) -> None:
    views = [scene.views[index] for index in shown]
    depths = depth_colours(views)
    confidences = confidence_colours(views)
    draw = ImageDraw.Draw(page)
    for row, index in enumerate(shown):
        photo = scene.views[index].image if photos is None else photos[index]
        top = HEADER + MARGIN // 2 + row * (cell[1] + GAP)
        for number, picture in enumerate((photo, depths[row], confidences[row])):
            _paste(page, picture, (MARGIN + number * (cell[0] + GAP), top), cell)
        _badge(draw, (MARGIN + 5, top + 5), index)
        if scene.views[index].camera is None:
            draw.text(
                (MARGIN + 6, top + cell[1] - 20), "camera not found", PAPER, _font(12), stroke_width=2, stroke_fill=INK
            )


def _paste(page: Image.Image, picture: np.ndarray, corner: tuple[int, int], cell: tuple[int, int]) -> None:
    """Fit a picture into a cell, whole and centred."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    scale = min(cell[0] / image.width, cell[1] / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    page.paste(image, (corner[0] + (cell[0] - size[0]) // 2, corner[1] + (cell[1] - size[1]) // 2))


def depth_colours(views: Sequence[SceneView]) -> list[np.ndarray]:
    """(H, W, 3) uint8 a view, one scale for all: from far (blue) to near (red) by inverse depth; grey where none."""
    inverse = [1 / np.where(view.valid, view.depth, 1).astype(np.float64) for view in views]
    return _coloured(inverse, [view.valid for view in views], "turbo")


def confidence_colours(views: Sequence[SceneView]) -> list[np.ndarray]:
    """(H, W, 3) uint8 a view, one scale for all: from unsure (violet) to sure (yellow); grey where not valid."""
    logarithm = [np.log(view.confidence.astype(np.float64)) for view in views]
    return _coloured(logarithm, [view.valid for view in views], "viridis")


def _coloured(values: Sequence[np.ndarray], valid: Sequence[np.ndarray], colours: ColourMap) -> list[np.ndarray]:
    known = np.concatenate([value[mask] for value, mask in zip(values, valid, strict=True)])
    low, high = np.percentile(known, (2, 98)) if known.size else (0.0, 1.0)
    start, length = SHOWN_COLOURS
    shades = [start + length * np.clip((value - low) / max(high - low, 1e-12), 0, 1) for value in values]
    return [
        np.where(mask[..., None], coloured(shade, colours), np.array(EMPTY, dtype=np.uint8))
        for shade, mask in zip(shades, valid, strict=True)
    ]


# ------------------------------------------------------------------ from above
@dataclass(frozen=True)
class _Plan:
    """From the world to the pixels of the top view.

    Attributes:
        axes: (3, 3), rows are right, up on the page, and towards the eye, in the world frame.
        middle: (2,) the centre of the page along the first two axes.
        scale: pixels to one world unit.
        size: (height, width) pixels.
    """

    axes: np.ndarray
    middle: np.ndarray
    scale: float
    size: tuple[int, int]

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) -> (..., 2) as (x, y)."""
        across = (np.asarray(points, dtype=np.float64) @ self.axes[:2].T - self.middle) * self.scale
        return across * [1, -1] + np.array([self.size[1], self.size[0]]) / 2


def top_view(scene: Scene, truth: Truth | None, size: tuple[int, int]) -> np.ndarray:
    """Points and cameras seen from above, (height, width) = `size` -> (H, W, 3) uint8 RGB.

    Found cameras are filled in their view's colour and numbered from 1; true ones are dark outlines.
    """
    cloud = scene.point_cloud(include_low_confidence=True, max_points=MAX_POINTS)
    cameras = {index: view.camera for index, view in enumerate(scene.views) if view.camera is not None}
    true = {} if truth is None else _true_cameras(truth, cameras)
    large = size[0] * SHARPNESS, size[1] * SHARPNESS
    axes = _page_axes(list(cameras.values()))
    heights = cloud.points @ axes[2]
    kept = heights <= _roof(heights, [camera.centre @ axes[2] for camera in cameras.values()])
    centres = np.array([camera.centre for camera in [*cameras.values(), *true.values()]]).reshape(-1, 3)
    plan = _plan(cloud.points[kept], centres, axes, large)
    canvas = np.full((*large, 3), PANEL, dtype=np.uint8)
    order = np.argsort(heights[kept], kind="stable")
    _splat(canvas, plan.pixels(cloud.points[kept][order]), cloud.colours[kept][order])
    image = Image.fromarray(canvas)
    reduction = min(1.0, float(np.sqrt(8 / max(len(scene.views), 1))))
    length = FRUSTUM_LENGTH * reduction * min(large) / plan.scale
    drawn = {index: plan.pixels(_frustum(camera, length)) for index, camera in cameras.items()}
    for index, frustum in drawn.items():
        _draw_camera(image, frustum, index)
    for camera in true.values():
        _draw_edges(image, plan.pixels(_frustum(camera, length)), TRUTH_COLOUR, width=SHARPNESS)
    if len(drawn) <= MOST_NUMBERS:
        for index, frustum in drawn.items():
            _draw_number(image, frustum[0], index, reduction)
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.LANCZOS))


def _page_axes(cameras: Sequence[Camera]) -> np.ndarray:
    """Right, up on the page (where the first camera looks) and towards the eye; rows, world frame.

    People hold cameras level: the vertical is the direction most square to all cameras' x axes, and, as these may all
    be alike, near to their mean y axis.
    """
    if not cameras:
        return np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    rotations = np.array([camera.world_from_camera[:3, :3] for camera in cameras])
    down = rotations[:, :, 1].mean(axis=0)
    right = rotations[:, :, 0]
    _, vectors = np.linalg.eigh(right.T @ right / len(right) - 0.1 * np.outer(down, down))
    eye = vectors[:, 0] * (-1.0 if vectors[:, 0] @ down > 0 else 1.0)
    forward = rotations[0, :, 2]
    if abs(forward @ eye) > 0.98:  # a camera that looks straight down: the top of its picture is up on the page
        forward = -rotations[0, :, 1]
    up = forward - (forward @ eye) * eye
    up /= np.linalg.norm(up)
    return np.stack([np.cross(up, eye), up, eye])


def _roof(heights: np.ndarray, camera_heights: Sequence[float]) -> float:
    if not heights.size:
        return 0.0
    return max(float(np.percentile(heights, ROOF_PERCENTILE)), *camera_heights, -np.inf)


def _plan(points: np.ndarray, centres: np.ndarray, axes: np.ndarray, size: tuple[int, int]) -> _Plan:
    """Most points and all cameras are on the page, which keeps a margin."""
    across = points @ axes[:2].T
    corners = [centres @ axes[:2].T]
    if len(across):
        corners.append(np.percentile(across, SHOWN_RANGE, axis=0))
    both = np.concatenate(corners)
    low, high = (both.min(axis=0), both.max(axis=0)) if len(both) else (np.zeros(2), np.ones(2))
    room = np.array([size[1], size[0]]) * 0.86
    scale = float(np.min(room / np.maximum(high - low, 1e-9)))
    return _Plan(axes, (low + high) / 2, scale, size)


def _splat(canvas: np.ndarray, pixels: np.ndarray, colours: np.ndarray) -> None:
    """Paint points as small squares, later ones over earlier ones; few points get larger squares."""
    height, width = canvas.shape[:2]
    side = int(np.clip(np.sqrt(0.8 * height * width / max(len(pixels), 1)), 2, 8))
    corner = np.rint(pixels - (side - 1) / 2).astype(np.int64)
    inside = ((corner >= 0) & (corner < [width - side, height - side])).all(axis=1)
    x, y = corner[inside].T
    for offset_y in range(side):
        for offset_x in range(side):
            canvas[y + offset_y, x + offset_x] = colours[inside]


def _frustum(camera: Camera, length: float) -> np.ndarray:
    """(5, 3): centre and the picture's corners, clockwise from the top left, `length` away."""
    far = camera.frustum(1.0)[1:] - camera.centre
    # Wide and narrow lenses give frusta of one size on the page.
    far *= length / np.linalg.norm(far, axis=1, keepdims=True)
    return np.concatenate([camera.centre[None], camera.centre + far])


def _edges(frustum: np.ndarray) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    points = [(float(x), float(y)) for x, y in frustum]
    pairs = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)]
    return [(points[first], points[second]) for first, second in pairs]


def _draw_edges(image: Image.Image, frustum: np.ndarray, colour: tuple[int, int, int], *, width: int) -> None:
    draw = ImageDraw.Draw(image)
    for edge in _edges(frustum):
        draw.line(edge, fill=colour, width=width)


def _draw_camera(image: Image.Image, frustum: np.ndarray, index: int) -> None:
    """Translucent sides, and edges that a halo keeps apart from the points."""
    colour = VIEW_COLOURS[index % len(VIEW_COLOURS)]
    points = [(float(x), float(y)) for x, y in frustum]
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    for first, second in ((1, 2), (2, 3), (3, 4), (4, 1)):
        draw.polygon([points[0], points[first], points[second]], fill=(*colour, 90))
    image.paste(layer, mask=layer)
    _draw_edges(image, frustum, PAPER, width=4 * SHARPNESS)
    _draw_edges(image, frustum, colour, width=2 * SHARPNESS)


def _draw_number(image: Image.Image, centre: np.ndarray, index: int, reduction: float) -> None:
    x, y, radius = float(centre[0]), float(centre[1]), 9 * SHARPNESS * reduction
    draw = ImageDraw.Draw(image)
    colour = VIEW_COLOURS[index % len(VIEW_COLOURS)]
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=PAPER, width=SHARPNESS)
    draw.text((x, y), str(index + 1), PAPER, _font(round(12 * SHARPNESS * reduction)), anchor="mm")


# ------------------------------------------------------------------ true cameras over the found ones
def _true_cameras(truth: Truth, found: dict[int, Camera]) -> dict[int, Camera]:
    """All known true cameras in the scene's frame; none if no view has both."""
    pairs = [(truth.cameras[index], camera) for index, camera in found.items()]
    pairs = [(true, camera) for true, camera in pairs if true is not None]
    if not pairs:
        return {}
    fit = align_cameras([true for true, _ in pairs], [camera for _, camera in pairs])
    return {
        index: Camera(
            K=camera.K,
            world_from_camera=fit.apply_to_camera(camera.world_from_camera),
            width=camera.width,
            height=camera.height,
        )
        for index, camera in enumerate(truth.cameras)
        if camera is not None
    }


def align_cameras(source: Sequence[Camera], target: Sequence[Camera]) -> Similarity:
    """The similarity that lays cameras over their counterparts; unlike a fit of the centres alone it needs just one.

    The rotation is the mean of the cameras' own (nearest to all of them by least squares); the scale makes the centres
    spread equally (Horn 1987, equation 40), and is 1 where they do not spread.
    """
    source_poses = np.array([camera.world_from_camera for camera in source])
    target_poses = np.array([camera.world_from_camera for camera in target])
    left, _, right_t = np.linalg.svd(np.einsum("nij,nkj->ik", target_poses[:, :3, :3], source_poses[:, :3, :3]))
    signs = np.array([1.0, 1.0, np.linalg.det(left) * np.linalg.det(right_t)])
    rotation = (left * signs) @ right_t
    source_mean, target_mean = source_poses[:, :3, 3].mean(axis=0), target_poses[:, :3, 3].mean(axis=0)
    spread = np.linalg.norm(source_poses[:, :3, 3] - source_mean)
    target_spread = np.linalg.norm(target_poses[:, :3, 3] - target_mean)
    scale = float(target_spread / spread) if min(spread, target_spread) > 1e-9 else 1.0
    return Similarity(scale=scale, rotation=rotation, translation=target_mean - scale * rotation @ source_mean)


# ------------------------------------------------------------------ words
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _badge(draw: ImageDraw.ImageDraw, corner: tuple[int, int], index: int) -> None:
    """The view's number in its colour."""
    x, y = corner
    draw.ellipse((x, y, x + 20, y + 20), fill=VIEW_COLOURS[index % len(VIEW_COLOURS)], outline=PAPER)
    draw.text((x + 10, y + 10), str(index + 1), PAPER, _font(12), anchor="mm")


def _draw_words(
    page: Image.Image, scene: Scene, truth: Truth | None, column: int, panel_left: int, bottom: int
) -> None:
    draw = ImageDraw.Draw(page)
    for number, title in enumerate(("photo", "depth", "confidence")):
        draw.text((MARGIN + number * (column + GAP), HEADER), title, INK, _font(15), anchor="ls")
    _draw_scale(page, MARGIN + 2 * column + GAP, "turbo", "far", "near")
    _draw_scale(page, MARGIN + 3 * column + 2 * GAP, "viridis", "low", "high")
    draw.text((panel_left, HEADER), "points and cameras from above", INK, _font(15), anchor="ls")
    if truth is not None:
        draw.text((WIDTH - MARGIN, HEADER), "dark outline: true cameras", FAINT, _font(12), anchor="rs")
    draw.text((MARGIN, bottom + FOOTER // 2), _summary(scene), FAINT, _font(13), anchor="lm")


def _draw_scale(page: Image.Image, right: int, colours: ColourMap, low: str, high: str) -> None:
    """A small bar with its two ends named, in the header to the left of `right`."""
    width, height = 40, 8
    draw = ImageDraw.Draw(page)
    draw.text((right, HEADER), high, FAINT, _font(11), anchor="rs")
    left = right - round(draw.textlength(high, _font(11))) - 4 - width
    bar = np.broadcast_to(colour_table(colours)[None], (height, 256, 3))
    page.paste(Image.fromarray(np.ascontiguousarray(bar)).resize((width, height)), (left, HEADER - height))
    draw.text((left - 4, HEADER), low, FAINT, _font(11), anchor="rs")


def _summary(scene: Scene) -> str:
    found = sum(view.camera is not None for view in scene.views)
    points = sum(int((view.valid & finite_points(view.points)).sum()) for view in scene.views)
    return f"{scene.provenance.model}: {len(scene.views)} views, {found} cameras, {points:,} points"
