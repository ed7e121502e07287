"""Two photos -> which of their pixels show the same place, and how the cameras stand.

network, both ways round -> two pairs of pointmaps
  matches          pixels that are each other's nearest in 3D, in the frame of the better pair
  focal lengths    each from the pair in which its photo comes first
  relative camera  PnP on the other photo's points of the better pair, or the similarity between both pairs
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from manyview.errors import ExportError, InputError
from manyview.files import replaced, write_json
from manyview.geometry import default_focal, estimate_focal, intrinsics, picture_centre, transform_pixels
from manyview.geometry.absolute_pose import PoseStatus, check_intrinsics
from manyview.geometry.matching import Search, reciprocal_matches
from manyview.geometry.relative_pose import RelativePose, relative_pose_by_pnp, relative_pose_by_procrustes
from manyview.images import Fit, View, load_views
from manyview.images.sources import ImageInput
from manyview.methods.fast3r import FOCAL_POINTS, LEAST_INLIERS, PNP_POINTS, reprojection_limit

if TYPE_CHECKING:
    from torch import Tensor

    from manyview.alignment.problem import PairMaps

BOTH_WAYS = np.array([[0, 1], [1, 0]])
ABOUT = (
    "pixels are (x, y) of the upright originals, integers at pixel centres; first_from_second places the second "
    "camera in the first one's frame (OpenCV axes), in a unit of its own"
)


class PairPredictor(Protocol):
    """A pairwise network with its weights, as matching and localisation use it."""

    @property
    def patch_size(self) -> int:
        """Heights and widths of pictures are multiples of it."""
        ...

    @property
    def image_size(self) -> int:
        """Pixels of the longer side that it was trained at."""
        ...

    @property
    def least_confidence(self) -> float:
        """Pixels below it are not to be trusted: 3 for the official releases."""
        ...

    def predict_pairs(self, pictures: Sequence[np.ndarray], edges: np.ndarray) -> PairMaps:
        """Pointmaps of pairs: (H, W, 3) uint8 RGB pictures, edges (E, 2) of their indices, each picture in one."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """M matches between two photos. Pixels are (x, y) of the upright originals, integers at pixel centres.

    Attributes:
        views: the photos as the network saw them.
        first_pixels, second_pixels: (M, 2) float64; a pixel of the network's pictures is in one match at most.
        confidence: (M,) float32: the lesser one of both pixels', the higher of both directions each; at least 1.
        K: (3, 3) float64 of each photo, original pixels, as given or as found.
        relative: the second camera in the first one's frame, in a unit of its own; None if it could not be found.
        status: "doubtful" if few points agree with the relative camera; `reason` says it in words.
    """

    views: tuple[View, View]
    first_pixels: np.ndarray
    second_pixels: np.ndarray
    confidence: np.ndarray
    K: tuple[np.ndarray, np.ndarray]
    relative: RelativePose | None
    status: PoseStatus
    reason: str = ""

    def __len__(self) -> int:
        return len(self.confidence)

    @property
    def focals(self) -> tuple[float, float]:
        """Focal lengths in original pixels."""
        return float(self.K[0][0, 0]), float(self.K[1][0, 0])

    @property
    def figures(self) -> dict[str, str | int | float | None]:
        """What was found, in a few numbers."""
        relative = self.relative
        return {
            "matches": len(self),
            "status": self.status,
            "reason": self.reason,
            "first_focal_pixels": round(self.focals[0], 1),
            "second_focal_pixels": round(self.focals[1], 1),
            "inliers": None if relative is None else relative.inliers,
            "points": None if relative is None else relative.points,
            "median_reprojection_error_pixels": None if relative is None else round(relative.median_error, 2),
        }

    def save(self, path: str | Path) -> Path:
        """Write everything but the pictures as .json or .npz (which `numpy.load` reads without pickle).

        Keys: `first_pixels`, `second_pixels` (M, 2), `confidence` (M,), `first_K`, `second_K` (3, 3), `names` (2),
        `sizes` (2, 2) as (height, width), `status`, `reason`, `about`, and where it was found `first_from_second`
        (4, 4).

        Raises:
            ExportError: another ending, or the disk refuses.
        """
        path = Path(path)
        record = self._record()
        if path.suffix not in (".json", ".npz"):
            raise ExportError(f"cannot write matches as {path.name}", hint="The name ends in .json or .npz.")
        with replaced(path) as temporary:
            if path.suffix == ".json":
                plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in record.items()}
                write_json(temporary, plain)
            else:
                arrays: dict[str, Any] = {k: np.asarray(v) for k, v in record.items()}
                with temporary.open("wb") as file:
                    np.savez_compressed(file, **arrays)
        return path

    def _record(self) -> dict[str, Any]:
        placed = {} if self.relative is None else {"first_from_second": self.relative.first_from_second}
        return {
            "about": ABOUT,
            "names": [view.name for view in self.views],
            "sizes": [list(view.original_size) for view in self.views],
            "status": self.status,
            "reason": self.reason,
            "first_K": self.K[0],
            "second_K": self.K[1],
            **placed,
            "first_pixels": self.first_pixels,
            "second_pixels": self.second_pixels,
            "confidence": self.confidence,
        }


def match_pictures(
    predictor: PairPredictor,
    first: ImageInput,
    second: ImageInput,
    *,
    K: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    cameras: Literal["pnp", "similarity"] = "pnp",
    least_confidence: float | None = None,
    image_size: int | None = None,
    fit: Fit = "crop",
    square_ok: bool = False,
    search: Search = "auto",
    max_pixels: int | None = None,
) -> Matches:
    """Find the pixels of two photos that show the same place.

    Args:
        predictor: the network.
        first, second: paths, arrays or Pillow pictures.
        K: (3, 3) of each photo in pixels of the upright originals; None estimates it, with square pixels and the
            principal point in the middle.
        cameras: how the relative camera is found: by PnP on the other photo's points of the surer direction, or by the
            similarity between both directions, better for small models, whose maps err smoothly.
        least_confidence: pixels below it match nothing; the predictor's own by default.
        image_size: pixels of the longer side at which the network works; the predictor's own by default.
        fit, square_ok, max_pixels: as in `load_views`.
        search: as in `reciprocal_matches`.

    Raises:
        InputError: a photo cannot be read, or a K does not fit its photo.
    """
    size = predictor.image_size if image_size is None else image_size
    views = _two_views(first, second, size, predictor.patch_size, fit, square_ok, max_pixels)
    given = [None if k is None else check_intrinsics(k, view.original_size) for k, view in zip(K, views, strict=True)]
    pair = _Pair.of(predictor.predict_pairs([view.pixels for view in views], BOTH_WAYS), views)
    limit = predictor.least_confidence if least_confidence is None else least_confidence
    masks = [(fused >= limit) & view.valid for fused, view in zip(pair.fused, views, strict=True)]
    rows = [np.flatnonzero(mask) for mask in masks]
    common = pair.points[pair.reference]
    points = [xyz.reshape(-1, 3)[chosen] for xyz, chosen in zip(common, rows, strict=True)]
    matched = reciprocal_matches(points[0], points[1], search=search)
    matched = np.stack([rows[side][matched[:, side]] for side in (0, 1)], axis=-1)
    matched = matched[np.argsort(matched[:, 0])]
    sure = [fused.reshape(-1)[matched[:, side]] for side, fused in enumerate(pair.fused)]
    found_K = [
        intrinsics_from_map(view, pair.array(photo, photo), pair.confidence[photo][photo]) if k is None else k
        for photo, (k, view) in enumerate(zip(given, views, strict=True))
    ]
    relate = _relative_by_similarity if cameras == "similarity" else _relative_by_pnp
    relative = relate(pair, views, found_K, masks)
    status, reason = _judge(relative, len(matched), limit)
    return Matches(
        views=views,
        first_pixels=original_pixels(views[0], matched[:, 0]),
        second_pixels=original_pixels(views[1], matched[:, 1]),
        confidence=np.minimum(*sure),
        K=(found_K[0], found_K[1]),
        relative=relative,
        status=status,
        reason=reason,
    )


def intrinsics_from_map(view: View, points: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """K (3, 3) in original pixels, from points (H, W, 3) in the view's own frame and their confidence (H, W).

    Square pixels, and the principal point in the middle of the original.
    """
    to_network = np.linalg.inv(view.original_from_network)
    middle = picture_centre(*view.original_size)
    centre_x, centre_y = transform_pixels(to_network, np.array(middle))
    focal = estimate_focal(
        np.where(view.valid[..., None], points, np.nan),
        confidence,
        principal_point=(float(centre_x), float(centre_y)),
        max_points=FOCAL_POINTS,
    )
    focal = focal or default_focal(*view.size)  # the points contradict every focal length: a mere guess
    return intrinsics(focal / float(np.sqrt(abs(np.linalg.det(to_network[:2, :2])))), middle)


def original_pixels(view: View, rows: np.ndarray) -> np.ndarray:
    """Indices (M,) into the flattened network picture -> (M, 2) float64 original pixels (x, y)."""
    width = view.size[1]
    return transform_pixels(view.original_from_network, np.stack([rows % width, rows // width], axis=-1).astype(float))


@dataclass(frozen=True)
class _Pair:
    """Both directions of a pair; [frame][photo] in the order of the photos, whichever came first.

    Attributes:
        points: (H, W, 3) tensors: of each photo in the frame of each photo.
        confidence: (H, W) arrays, as `points`.
        reference: the photo whose direction is the surer one.
    """

    points: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
    confidence: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    reference: int

    @classmethod
    def of(cls, maps: PairMaps, views: Sequence[View]) -> _Pair:
        """From a prediction for `BOTH_WAYS`."""
        sizes = tuple(view.size for view in views)
        if not np.array_equal(maps.edges, BOTH_WAYS) or maps.sizes != sizes:
            raise InputError(f"the predictor gave pairs {maps.edges.tolist()} of {maps.sizes}; expected {sizes}")
        (first, second), (back_second, back_first) = maps.points
        sure = [[side.cpu().numpy() for side in pair] for pair in maps.confidence]
        return cls(
            ((first, second), (back_first, back_second)),
            ((sure[0][0], sure[0][1]), (sure[1][1], sure[1][0])),
            int(np.argmax(maps.scores)),
        )

    @property
    def fused(self) -> tuple[np.ndarray, np.ndarray]:
        """For each photo (H, W): the higher confidence of both directions."""
        return (
            np.maximum(self.confidence[0][0], self.confidence[1][0]),
            np.maximum(self.confidence[0][1], self.confidence[1][1]),
        )

    def array(self, frame: int, photo: int, mask: np.ndarray | None = None) -> np.ndarray:
        """(H, W, 3) points of one photo in one frame; nan where not `mask`."""
        points = self.points[frame][photo].cpu().numpy()
        return points if mask is None else np.where(mask[..., None], points, np.nan)


def _two_views(
    first: ImageInput, second: ImageInput, size: int, patch_size: int, fit: Fit, square_ok: bool, max_pixels: int | None
) -> tuple[View, View]:
    views = load_views(
        [first, second],
        size=size,
        fit=fit,
        patch_size=patch_size,
        square_ok=square_ok,
        max_pixels=max_pixels,
        strict=True,
    )
    if len(views) != 2:
        raise InputError(f"expected two photos, got {len(views)}", hint="Give two paths, arrays or Pillow pictures.")
    return views[0], views[1]


def _relative_by_pnp(
    pair: _Pair, views: Sequence[View], K: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> RelativePose | None:
    other = 1 - pair.reference
    found = relative_pose_by_pnp(
        pair.array(pair.reference, other),
        _network_K(views[other], K[other]),
        masks[other],
        reprojection_error=reprojection_limit(views[other]),
        max_points=PNP_POINTS,
        point_confidence=pair.fused[other],
    )
    if found is None or pair.reference == 0:
        return found
    return replace(found, first_from_second=found.inverse())


def _relative_by_similarity(
    pair: _Pair, views: Sequence[View], K: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> RelativePose | None:
    return relative_pose_by_procrustes(
        (pair.array(0, 0, masks[0]), pair.array(0, 1, masks[1])),
        (pair.array(1, 0, masks[0]), pair.array(1, 1, masks[1])),
        _network_K(views[1], K[1]),
        forward_confidence=pair.confidence[0],
        backward_confidence=pair.confidence[1],
        reprojection_error=reprojection_limit(views[1]),
    )


def _network_K(view: View, K: np.ndarray) -> np.ndarray:
    return np.linalg.inv(view.original_from_network) @ K


def _judge(relative: RelativePose | None, matches: int, limit: float) -> tuple[PoseStatus, str]:
    if relative is None and not matches:
        return "not_found", f"no pixels of both photos match with confidence {limit:g} or more"
    if relative is None:
        return "not_found", "no camera agrees with the points of the other photo"
    if relative.inlier_ratio < LEAST_INLIERS:
        return "doubtful", f"only {relative.inlier_ratio:.0%} of the points agree with the relative camera"
    return "found", ""
