"""What a refinement did to each photo: registered or not and why, errors before and after, how far cameras moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from manyview.errors import InputError
from manyview.geometry import Camera, Similarity
from manyview.refine.pair_graph import PairGraph
from manyview.refine.photo_report import PhotoReport

CameraSource = Literal["refined", "incremental", "network", "none"]
"""Where a photo's camera is from: the network's, adjusted; incremental mapping, adjusted; the network's, moved into the
refined frame; or nowhere."""

SettingValue = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class PhotoOutcome:
    """What became of one photo; numbers are None where they do not exist.

    Attributes:
        registered: its camera is tied to the others by verified matches.
        reason: why not, or what else is to be known, in words.
        camera_source: which camera it has now.
        observations: sparse points that it sees.
        error_before, error_after: median over its verified matches with other photos of how far, in pixels of the
            original, the cameras before and after miss them (`agreement.errors`).
        rotation_degrees: how far the camera turned, beside the change of frame.
        translation: how far it moved, as a share of the scene's size.
        group: 0 for the photos that share the scene's world.
    """

    name: str
    registered: bool
    reason: str = ""
    camera_source: CameraSource = "none"
    observations: int = 0
    error_before: float | None = None
    error_after: float | None = None
    rotation_degrees: float | None = None
    translation: float | None = None
    group: int = 0


@dataclass(frozen=True, kw_only=True)
class RefineTotals:
    """Sums and medians over the photos; errors are None without an observation."""

    photos: int
    registered: int
    refined: int
    incremental: int
    network: int
    without_camera: int
    observations: int
    points: int
    error_before: float | None
    error_after: float | None
    rotation_degrees: float | None
    translation: float | None


@dataclass(frozen=True, kw_only=True)
class RefineReport:
    """The result of a refinement in words and numbers; ready for JSON (`dataclasses.asdict`).

    Attributes:
        photos: in the scene's order.
        totals: over all of them; errors and movements are medians over the photos that have one.
        kept: "refined", or "unrefined" where the refinement would have made the scene worse and was undone.
        verdict: one sentence for people: what was used, and why.
        settings: enough to repeat it.
        seconds: wall time by part.
        warnings: what a user should know.
    """

    photos: tuple[PhotoOutcome, ...]
    totals: RefineTotals
    kept: Literal["refined", "unrefined"]
    verdict: str
    settings: dict[str, SettingValue] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def refine_report(
    photos: Sequence[PhotoOutcome],
    *,
    points: int,
    kept: Literal["refined", "unrefined"] = "refined",
    verdict: str = "",
    settings: Mapping[str, SettingValue] | None = None,
    seconds: Mapping[str, float] | None = None,
    warnings: Sequence[str] = (),
) -> RefineReport:
    """Add up what became of the photos.

    Args:
        photos: one for each photo of the scene, in its order.
        points: how many sparse points there are.
        kept, verdict, settings, seconds, warnings: as in `RefineReport`; without a verdict one is made.

    Raises:
        InputError: there is no photo, or a number is not finite: JSON has no word for it.
    """
    if not photos:
        raise InputError("a report needs at least one photo")
    for photo in photos:
        numbers = (photo.error_before, photo.error_after, photo.rotation_degrees, photo.translation)
        if not all(number is None or np.isfinite(number) for number in numbers):
            raise InputError(f"{photo.name}: a number of its outcome is not finite", hint="Give None instead.")
    totals = _totals(photos, points)
    return RefineReport(
        photos=tuple(photos),
        totals=totals,
        kept=kept,
        verdict=verdict or _verdict(totals, kept),
        settings=dict(settings or {}),
        seconds=dict(seconds or {}),
        warnings=tuple(warnings),
    )


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that is known of a set of photos; `dataclasses.asdict` of it is what report.json holds.

    Attributes:
        photos: what photos tell by themselves.
        graph: how they hang together, if they were matched or reconstructed.
        refined: what a refinement did.
    """

    photos: PhotoReport
    graph: PairGraph | None = None
    refined: RefineReport | None = None
    format_version: int = 1


@dataclass(frozen=True, kw_only=True)
class Movement:
    """How one camera moved: degrees, and the distance as a share of the scene's size."""

    rotation_degrees: float
    translation: float


def camera_movements(
    before: Sequence[Camera | None],
    after: Sequence[Camera | None],
    *,
    after_from_before: Similarity | None = None,
    scene_size: float | None = None,
) -> list[Movement | None]:
    """How far cameras moved beside the change of frame; None where a photo lacks one of both.

    Args:
        before, after: of N photos, each in a frame and scale of its own.
        after_from_before: the change of frame; by default the one that brings all cameras closest (the mean of their
            relative rotations, and equal spreads of the centres), so that one outlier moves the others a little, too.
        scene_size: in units of `after`, such as the median distance of the points from the cameras; by default the root
            mean square distance of the cameras from their middle.

    Raises:
        InputError: the numbers of cameras differ.
    """
    if len(before) != len(after):
        raise InputError(f"got {len(before)} cameras before and {len(after)} after")
    both = [(old, new) for old, new in zip(before, after, strict=True) if old is not None and new is not None]
    if not both:
        return [None] * len(before)
    old_placed = np.array([old.world_from_camera for old, _ in both])
    new_placed = np.array([new.world_from_camera for _, new in both])
    frame = after_from_before or _change_of_frame(old_placed, new_placed)
    moved = frame.apply_to_camera(old_placed)
    size = scene_size or max(_spread(new_placed), _spread(moved))
    movements = iter(_movements(moved, new_placed, size))
    pairs = zip(before, after, strict=True)
    return [next(movements) if old is not None and new is not None else None for old, new in pairs]


def _movements(before: np.ndarray, after: np.ndarray, size: float) -> list[Movement]:
    relative = np.einsum("nji,njk->nik", before[:, :3, :3], after[:, :3, :3])
    # Well-conditioned also for tiny angles, other than the arc cosine of the trace.
    skew = relative - np.swapaxes(relative, 1, 2)
    sine = np.linalg.norm(np.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=1), axis=1) / 2
    cosine = (np.trace(relative, axis1=1, axis2=2) - 1) / 2
    degrees = np.degrees(np.arctan2(sine, cosine))
    distances = np.linalg.norm(after[:, :3, 3] - before[:, :3, 3], axis=1)
    distances = distances / size if size > 1e-9 else np.zeros(len(distances))  # all at one place, before and after
    return [
        Movement(rotation_degrees=float(angle), translation=float(distance))
        for angle, distance in zip(degrees, distances, strict=True)
    ]


def _change_of_frame(before: np.ndarray, after: np.ndarray) -> Similarity:
    """(N, 4, 4) each. Unlike a fit of the centres alone it needs just one camera (Horn 1987, equation 40)."""
    left, _, right_t = np.linalg.svd(np.einsum("nij,nkj->ik", after[:, :3, :3], before[:, :3, :3]))
    rotation = (left * [1.0, 1.0, np.linalg.det(left) * np.linalg.det(right_t)]) @ right_t
    spreads = _spread(before), _spread(after)
    scale = spreads[1] / spreads[0] if min(spreads) > 1e-9 else 1.0
    middle = before[:, :3, 3].mean(axis=0)
    return Similarity(
        scale=scale, rotation=rotation, translation=after[:, :3, 3].mean(axis=0) - scale * rotation @ middle
    )


def _spread(placed: np.ndarray) -> float:
    """Root mean square distance of the cameras (N, 4, 4) from their middle."""
    centres = placed[:, :3, 3]
    return float(np.sqrt(np.mean(np.sum((centres - centres.mean(axis=0)) ** 2, axis=1))))


def _totals(photos: Sequence[PhotoOutcome], points: int) -> RefineTotals:
    sources = [photo.camera_source for photo in photos]
    return RefineTotals(
        photos=len(photos),
        registered=sum(photo.registered for photo in photos),
        refined=sources.count("refined"),
        incremental=sources.count("incremental"),
        network=sources.count("network"),
        without_camera=sources.count("none"),
        observations=sum(photo.observations for photo in photos),
        points=points,
        error_before=_median([photo.error_before for photo in photos]),
        error_after=_median([photo.error_after for photo in photos]),
        rotation_degrees=_median([photo.rotation_degrees for photo in photos]),
        translation=_median([photo.translation for photo in photos]),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _verdict(totals: RefineTotals, kept: str) -> str:
    words = f"{totals.registered} of {totals.photos} photos registered"
    if totals.error_after is not None:
        instead = "" if totals.error_before is None else f" instead of {totals.error_before:.2f}"
        words += f"; matches are missed by {totals.error_after:.2f} pixels{instead} (median)"
    if kept == "unrefined":
        return f"The refinement would have made the scene worse and was undone: {words}."
    return f"{words}."
