"""Dense depth from cameras that are exact and depth that is about right: search, check, fuse.

From coarse to fine: at each size of the pictures every view's depth is searched around what is known so far
(`plane_sweep`), compared with that of the other views (`consistency`), and filled where it was not found. The first
search is wide and cheap, the last one narrow and sub-pixel. What is searched, filled and carried on is the offset of
log inverse depth from the depth that was given, so that its shape survives where the pictures say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from manyview.errors import InputError
from manyview.geometry import Camera, pixel_grid
from manyview.images import Progress
from manyview.refine.consistency import (
    DepthView,
    Tolerance,
    check_consistency,
    fuse,
    needed,
    without_speckles,
)
from manyview.refine.neighbours import choose_neighbours
from manyview.refine.plane_sweep import Sweep, Transfer, semi_global, step_for, sweep_scores, winner
from manyview.scene_points import FusedPoints

if TYPE_CHECKING:
    from torch import Tensor

LEAST_LONG_SIDE = 160  # pixels: nothing is searched in smaller pictures
PIXELS_A_STEP = (1.0, 0.75, 0.5)  # between hypotheses, of the first, the middle and the last search
LATER_REACH = 3.0  # steps of the search before, to either side, that a later search covers
MOST_STEPS = 48  # to either side
SURE_SCORE, UNSURE_SCORE = 0.85, 0.2  # of the correlation: between them confidence rises from 0 to 1
SURE_SHARPNESS = 0.025  # of the correlation's peak, from which on it lowers confidence no more
UNCONFIRMED = 0.2  # weight of depth that no other view confirms, between two searches
PULL = 0.05  # weight of what the surroundings say where a pixel is filled


@dataclass(frozen=True, kw_only=True)
class DensifyOptions:
    """How hard to look.

    Attributes:
        long_side: pixels of the pictures' longer side at which depth is found; smaller photos stay as they are.
        neighbours: most views that each one is searched with.
        compared: most views that each one is checked against.
        best: how many of the neighbours, those that agree most, a pixel is scored by; the others may be hidden.
        passes: searches, from coarse to fine; each doubles the size.
        search: how far off the given depth may be, as a share: 0.3 covers 1 / 1.3 to 1.3 times it.
        radius: of the windows that are compared, pixels.
        smoothness: cost of a step between neighbouring pixels; 0 lets every pixel choose for itself.
        min_views: how many other views must confirm a point; fewer for views that fewer overlap.
        least_patch: pixels of the smallest patch of confirmed depth that stays; smaller ones agree by chance.
        tolerance: when two views agree.
    """

    long_side: int = 640
    neighbours: int = 4
    compared: int = 8
    best: int = 2
    passes: int = 3
    search: float = 0.3
    radius: int = 3
    smoothness: float = 0.12
    min_views: int = 2
    least_patch: int = 20
    tolerance: Tolerance = field(default_factory=Tolerance)

    def __post_init__(self) -> None:
        for name in ("long_side", "neighbours", "compared", "best", "passes", "radius", "min_views", "least_patch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}", hint="Give at least 1.")
        if not 0 < self.search <= 4 or not 0 <= self.smoothness < math.inf:
            raise InputError(
                f"got a search of {self.search} and a smoothness of {self.smoothness}",
                hint="Give a search above 0 and up to 4, and a smoothness of at least 0.",
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedPhoto:
    """A picture with its exact camera and rough depth, all at one size (H, W).

    Attributes:
        name: for messages.
        image: (H, W, 3) uint8 RGB.
        camera: of the image's pixels.
        depth: (H, W) z-depth in world units; not finite or not above zero where nothing is known.
    """

    name: str
    image: np.ndarray
    camera: Camera
    depth: np.ndarray

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.shape[:2] != self.depth.shape:
            raise InputError(
                f"{self.name}: got an image of shape {self.image.shape} and depth of shape {self.depth.shape}",
                hint="Expected (H, W, 3) and (H, W) of the same H and W.",
            )
        if (self.camera.height, self.camera.width) != self.depth.shape:
            raise InputError(
                f"{self.name}: the camera is of a picture of {self.camera.height} x {self.camera.width} pixels, "
                f"the image has {self.depth.shape[0]} x {self.depth.shape[1]}"
            )
        if self.image.dtype != np.uint8:
            raise InputError(f"{self.name}: got an image of {self.image.dtype}, expected uint8")


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseView:
    """What was found for one photo, at the working size (H, W).

    Attributes:
        name: of the photo.
        image: (H, W, 3) uint8 RGB.
        camera: of these pixels.
        depth: (H, W) float32 z-depth; the mean over the views that agree, where some do. Where nothing was found it is
            a filled-in guess, with low confidence. 0 where the photo had no depth at all.
        confidence: (H, W) float32, 0..1: how well the pictures agree there, and how clearly better than elsewhere.
        views: (H, W) int32, how many other views confirm the depth.
        needed: how many of them a pixel needs to be of use.
        neighbours: names of the views it was searched with.
        words: what stood in the way, for people; empty if nothing did.
    """

    name: str
    image: np.ndarray
    camera: Camera
    depth: np.ndarray
    confidence: np.ndarray
    views: np.ndarray
    needed: int
    neighbours: tuple[str, ...]
    words: str = ""

    @property
    def confirmed(self) -> np.ndarray:
        """(H, W) bool: where enough other views confirm the depth."""
        return self.views >= self.needed


@dataclass(frozen=True, kw_only=True, eq=False)
class Densified:
    """Dense depth of all views and the cloud that they agree on.

    Attributes:
        views: N, in the order of the photos.
        cloud: fused; empty where no views confirm each other.
        warnings: what was changed or could not be done, for people.
    """

    views: tuple[DenseView, ...]
    cloud: FusedPoints
    warnings: tuple[str, ...]


def densify(
    photos: Sequence[PosedPhoto],
    options: DensifyOptions = DensifyOptions(),
    *,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Densified:
    """Find depth at every pixel of photos whose cameras are exact.

    Args:
        photos: N, at least 1, in one world frame.
        device: where to search.
        progress: called after each view of each search.

    Raises:
        InputError: no photos.
    """
    if not photos:
        raise InputError("got no photos to densify", hint="Give at least one; two that overlap find depth.")
    photos = [shrunk(photo, options.long_side) for photo in photos]
    cameras, depths = [photo.camera for photo in photos], [_usable(photo.depth) for photo in photos]
    ranked = choose_neighbours(cameras, depths, max(options.neighbours, options.compared))
    states = [_State.of(photo, torch.device(device)) for photo in photos]
    for number in range(options.passes):
        level = _Level.of(number, options, states)
        states = _searched(states, ranked, level, options, progress)
    return _result(photos, states, [order[: options.compared] for order in ranked], options)


def _usable(depth: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0.0)


# ------------------------------------------------------------------ sizes
def shrunk(photo: PosedPhoto, long_side: int) -> PosedPhoto:
    """The photo with its longer side at most that many pixels."""
    import cv2

    height, width = photo.depth.shape
    if max(height, width) <= long_side:
        return photo
    scale = long_side / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return PosedPhoto(
        name=photo.name,
        image=cv2.resize(photo.image, size[::-1], interpolation=cv2.INTER_AREA),
        camera=resized_camera(photo.camera, *size),
        depth=cv2.resize(_usable(photo.depth), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT),
    )


def resized_camera(camera: Camera, height: int, width: int) -> Camera:
    """The same camera for its picture resized to other numbers of pixels."""
    scale = np.array([width / camera.width, height / camera.height])
    K = np.array(camera.K, dtype=np.float64)
    K[:2] *= scale[:, None]
    K[:2, 2] += (scale - 1) / 2  # integers are at pixel centres, so the picture's corner is at -0.5
    return replace(camera, K=K, width=width, height=height)


def depth_in_picture(depth: np.ndarray, picture_from_depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A depth map (h, w), such as a network's, at the pixels of a picture of another size and crop.

    Args:
        depth: 0 where it is not known.
        picture_from_depth: (3, 3) affine, from pixels of the depth map to pixels of the picture.
        size: (height, width) of the picture.

    Returns:
        `size`, float64; 0 outside the map and where it is not known.
    """
    from manyview.refine.depth_fit import sample_depth

    back = np.linalg.inv(picture_from_depth)
    pixels = pixel_grid(*size).reshape(-1, 2) @ back[:2, :2].T + back[:2, 2]
    return np.nan_to_num(sample_depth(np.asarray(depth, dtype=np.float64), pixels)).reshape(size)


# ------------------------------------------------------------------ what is known of a view between searches
@dataclass(frozen=True, eq=False)
class _State:
    """A view while it is searched.

    Attributes:
        camera: of the full working size (H, W).
        grey: (H, W) float32, 0..1.
        prior: (H, W) float32, logarithm of the inverse of the given depth; holes are filled.
        offset: (h, w) float32 of any size: what was found so far is prior + offset.
        confidence: (h, w) float32, 0..1.
        step: of the last search, in log inverse depth; None before the first.
        empty: whether there was no depth at all to start from.
    """

    camera: Camera
    grey: Tensor
    prior: Tensor
    offset: Tensor
    confidence: Tensor
    step: float | None = None
    empty: bool = False

    @classmethod
    def of(cls, photo: PosedPhoto, device: torch.device) -> _State:
        weights = np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255
        grey = torch.as_tensor(photo.image.astype(np.float32) @ weights, device=device)
        depth = _usable(photo.depth)
        known = torch.as_tensor(depth > 0, device=device)
        logarithm = torch.as_tensor(-np.log(np.where(depth > 0, depth, 1.0)), dtype=torch.float32, device=device)
        prior = torch.where(known, logarithm, filled(logarithm, known.float()))
        zero = torch.zeros_like(prior)
        return cls(photo.camera, grey, prior, zero, zero, empty=not bool(known.any()))


def filled(values: Tensor, weights: Tensor) -> Tensor:
    """Values (H, W) where weights (H, W) are large, and where they are small what surrounds them says.

    Means over ever larger blocks, each of which is mixed with the next larger one in proportion to its weight (the
    "pull-push" of Gortler et al. 1996): smooth, defined everywhere, and as wide as a hole asks for.
    """
    height, width = values.shape
    if max(height, width) <= 2:
        total = weights.sum()
        mean = (weights * values).sum() / total.clamp_min(1e-12)
        return (weights * values + PULL * mean) / (weights + PULL)
    both = torch.stack([weights * values, weights])[None]
    pooled = F.avg_pool2d(both, 2, ceil_mode=True, count_include_pad=False)[0]
    weight = pooled[1]
    around = filled(pooled[0] / weight.clamp_min(1e-12), (4 * weight).clamp_max(1))
    around = F.interpolate(around[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0]
    return (weights * values + PULL * around) / (weights + PULL)


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w) -> `size`: means where it becomes smaller, between pixels where it becomes larger."""
    if values.shape == size:
        return values
    if size[0] < values.shape[0]:
        return F.interpolate(values[None, None], size=size, mode="area")[0, 0]
    return F.interpolate(values[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


# ------------------------------------------------------------------ one search of all views
@dataclass(frozen=True)
class _Level:
    """A search: its place among all, (height, width) of each view, and pixels between hypotheses."""

    number: int
    last: bool
    sizes: tuple[tuple[int, int], ...]
    shift: float

    @classmethod
    def of(cls, number: int, options: DensifyOptions, states: Sequence[_State]) -> _Level:
        halvings = options.passes - 1 - number
        last = halvings == 0
        sizes = []
        for state in states:
            height, width = state.grey.shape
            scale = min(1.0, max(0.5**halvings, LEAST_LONG_SIDE / max(height, width)))
            sizes.append((max(2, round(height * scale)), max(2, round(width * scale))))
        return cls(number, last, tuple(sizes), PIXELS_A_STEP[2 if last else min(number, 1)])


def _searched(
    states: Sequence[_State],
    ranked: Sequence[tuple[int, ...]],
    level: _Level,
    options: DensifyOptions,
    progress: Progress | None,
) -> list[_State]:
    """All views after one search, filled where it found nothing unless it was the last."""
    greys = [_resized(state.grey, size) for state, size in zip(states, level.sizes, strict=True)]
    cameras = [resized_camera(state.camera, *size) for state, size in zip(states, level.sizes, strict=True)]
    found = []
    for index, state in enumerate(states):
        near = ranked[index][: options.neighbours]
        found.append(_search_view(state, index, near, greys, cameras, level, options))
        if progress is not None:
            done = level.number * len(states) + index + 1
            progress(done, options.passes * len(states), "dense depth")
    weights = _confirmed(found, cameras, ranked, options)
    return [replace(state, offset=filled(state.offset, weight)) for state, weight in zip(found, weights, strict=True)]


def _search_view(
    state: _State,
    index: int,
    near: Sequence[int],
    greys: Sequence[Tensor],
    cameras: Sequence[Camera],
    level: _Level,
    options: DensifyOptions,
) -> _State:
    size = level.sizes[index]
    prior, offset = _resized(state.prior, size), _resized(state.offset, size)
    surface = prior + offset
    step, reach = _range(state, surface, cameras[index], [cameras[other] for other in near], level, options)
    if not near or state.empty or not math.isfinite(step):
        return replace(state, offset=offset, confidence=torch.zeros_like(offset))
    sweep = Sweep(
        grey=greys[index],
        neighbours=[greys[other] for other in near],
        transfers=[Transfer.between(cameras[index], cameras[other]) for other in near],
        inverse_depth=surface.exp(),
        step=step,
        reach=reach,
        radius=options.radius,
        best=options.best,
    )
    scores = sweep_scores(sweep)
    costs = 1 - scores
    if options.smoothness > 0:
        costs = semi_global(costs, sweep.grey, small_jump=options.smoothness, large_jump=6 * options.smoothness)
    place, score, sharpness = winner(costs, scores)
    return replace(state, offset=offset + place * step, confidence=_confidence(score, sharpness), step=step)


def _range(
    state: _State,
    surface: Tensor,
    camera: Camera,
    near: Sequence[Camera],
    level: _Level,
    options: DensifyOptions,
) -> tuple[float, int]:
    """The step of log inverse depth, and how many of them to either side."""
    stride = max(1, min(surface.shape) // 24)
    pixels = pixel_grid(*surface.shape)[::stride, ::stride].reshape(-1, 2)
    inverse_depth = surface[::stride, ::stride].reshape(-1).exp().cpu().double().numpy()
    step = step_for(camera, near, inverse_depth, pixels, level.shift)
    width = math.log1p(options.search) if state.step is None else LATER_REACH * state.step
    reach = max(2, math.ceil(width / step)) if step > 0 else 2
    if reach > MOST_STEPS:
        return width / MOST_STEPS, MOST_STEPS
    return step, reach


def _confidence(score: Tensor, sharpness: Tensor) -> Tensor:
    """(H, W), 0..1: high where the pictures agree, and more so than a little nearer or farther."""
    agreement = ((score - UNSURE_SCORE) / (SURE_SCORE - UNSURE_SCORE)).clamp(0, 1)
    return agreement * (sharpness / SURE_SHARPNESS).clamp(0, 1)


def _confirmed(
    states: Sequence[_State], cameras: Sequence[Camera], ranked: Sequence[tuple[int, ...]], options: DensifyOptions
) -> list[Tensor]:
    """(h, w) of each view: its confidence, lowered where no other view has the same depth."""
    views = [_depth_view(state, camera) for state, camera in zip(states, cameras, strict=True)]
    tolerance = replace(options.tolerance, depth=2 * options.tolerance.depth)
    weights = []
    for view, others in zip(views, ranked, strict=True):
        confirmed = check_consistency(view, [views[other] for other in others[: options.neighbours]], tolerance)
        weights.append(view.confidence * torch.where(confirmed.views > 0, 1.0, UNCONFIRMED))
    return weights


def _depth_view(state: _State, camera: Camera) -> DepthView:
    surface = _resized(state.prior, (camera.height, camera.width)) + state.offset
    return DepthView(camera=camera, depth=(-surface).exp(), confidence=state.confidence)


# ------------------------------------------------------------------ the result
def _result(
    photos: Sequence[PosedPhoto],
    states: Sequence[_State],
    others: Sequence[tuple[int, ...]],
    options: DensifyOptions,
) -> Densified:
    depths = [_depth_view(state, photo.camera) for state, photo in zip(states, photos, strict=True)]
    depths = [_without_speckles(depths, index, others[index], options) for index in range(len(depths))]
    views = []
    for photo, state, depth, near in zip(photos, states, depths, others, strict=True):
        check = check_consistency(depth, [depths[other] for other in near], options.tolerance)
        confirmed = bool((check.views >= needed(options.min_views, near)).any())
        views.append(
            DenseView(
                name=photo.name,
                image=photo.image,
                camera=photo.camera,
                depth=(torch.zeros_like(check.depth) if state.empty else check.depth).cpu().numpy(),
                confidence=depth.confidence.cpu().numpy(),
                views=check.views.cpu().numpy(),
                needed=needed(options.min_views, near),
                neighbours=tuple(photos[other].name for other in near[: options.neighbours]),
                words=_obstacle(state, near, confirmed=confirmed),
            )
        )
    images = [photo.image for photo in photos]
    cloud = fuse(depths, images, others, min_views=options.min_views, tolerance=options.tolerance)
    return Densified(views=tuple(views), cloud=cloud, warnings=_warnings(views, options))


def _without_speckles(
    depths: Sequence[DepthView], index: int, near: Sequence[int], options: DensifyOptions
) -> DepthView:
    """The view without confidence where only small patches of it are confirmed."""
    view = depths[index]
    check = check_consistency(view, [depths[other] for other in near], options.tolerance)
    confirmed = check.views >= needed(options.min_views, near)
    patches = without_speckles(view, confirmed, options.tolerance, least=options.least_patch)
    return replace(view, confidence=torch.where(confirmed & ~patches, 0.0, view.confidence))


def _obstacle(state: _State, near: Sequence[int], *, confirmed: bool) -> str:
    if state.empty:
        return "no depth to start from"
    if not near:
        return "no other view sees enough of the same from elsewhere: depth is as it was given"
    if not confirmed:
        return "no depth that was found is confirmed by other views: depth is as it was given"
    return ""


def _warnings(views: Sequence[DenseView], options: DensifyOptions) -> tuple[str, ...]:
    words = [f"{view.name}: {view.words}" for view in views if view.words]
    fewer = [view.name for view in views if view.neighbours and view.needed < options.min_views]
    if fewer:
        words.append(
            f"{', '.join(fewer[:5])}{' ...' if len(fewer) > 5 else ''}: points need fewer than {options.min_views} "
            "other views to confirm them there, since no more overlap"
        )
    return tuple(words)
