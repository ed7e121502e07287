"""What a refinement did to each photo: registered or not and why, errors before and after, how far cameras moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from manyview.errors import InputError
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
