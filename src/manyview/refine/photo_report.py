"""What to know about photos before anything is reconstructed from them, each remark with what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np

from manyview.images import Skipped
from manyview.refine.photo_reading import MeasuredPhoto, MeasuredPhotos

Severity = Literal["problem", "doubt", "note"]
FindingKind = Literal[
    "blurred", "darker", "lighter", "overexposed", "underexposed", "plain", "duplicate", "near_duplicate",
    "small", "other_size", "other_focal", "other_camera", "other_time",
    "unreadable", "single_photo", "no_focal", "all_blurred",
    "unlinked", "weakly_linked", "holds_together", "separate_parts",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One remark: of what kind, how serious, and in words that say what to do."""

    kind: FindingKind
    severity: Severity
    words: str


@dataclass(frozen=True, kw_only=True)
class PhotoLimits:
    """From where on a photo is remarked upon.

    Measured on 144 views of 24 made-up worlds and 78 photos of four real scenes, none of which is to be remarked upon:
    none is called blurred, dark or light. With one view of each world changed, all 24 are found that are blurred by 1.5
    pixels or moved by 8 (19 of those blurred by 1, 21 of those moved by 4), and 24 and 21 of those that are two stops
    too dark and too light.
    "Beside the others" compares with the median of the other photos, in units of their robust standard deviation (1.48
    times the median absolute deviation), which is taken to be at least a floor, as small sets agree by chance.

    Attributes:
        blur_score, blur_floor: logarithm of `Sharpness.blur` beside the others. 1 % of the sharp views of worlds are
            above 3.7, no real one above 2.3; a blur of 1 pixel gives 4 to 5, of 1.5 pixels 7, of 2.5 pixels 11.
        blur_pixels: blur in pixels at 1024 pixels that is remarked upon whatever the others are: 1 % of the sharp views
            are above 2.1; views blurred by 2.5 pixels have 2.7.
        streak: how much more than the others' a blurred photo's `Sharpness.streak` is if it was moved, not defocused:
            1 % of the unmoved are above 0.21; those moved by 4 pixels have 0.3 to 0.4, by 8 pixels 0.6 to 0.7.
        gradient: least brightness gradient, 8-bit levels a pixel: bare walls have 0.6, the plainest real photo 6.8.
        stops, stops_score, stops_floor: brightness beside the others. What is in view alone makes up to 0.7 stops.
        clipped_bright, clipped_dark: shares; real photos have up to 0.05 and 0.23; 1.5 stops too much clip 0.1 in 17 of
            24 worlds.
        near_duplicate_bits: how many of 255 bits of the fingerprints differ at most. The same photo compressed again,
            halved or brightened differs by 2 to 8 (median) or 4 to 18 (90th percentile), consecutive frames of a slow
            video by at least 16, hand-held photos of a scene by 26 and more.
        small: long side in pixels below which networks and matchers see less than they could use.
        focal_ratio: difference of focal lengths that one shared camera does not explain.
        seconds: time between a photo and the middle of the set.
    """

    blur_score: float = 4.0
    blur_floor: float = 0.1
    blur_pixels: float = 2.2
    streak: float = 0.22
    gradient: float = 1.0
    stops: float = 1.0
    stops_score: float = 3.0
    stops_floor: float = 0.25
    clipped_bright: float = 0.1
    clipped_dark: float = 0.4
    near_duplicate_bits: int = 15
    small: int = 512
    focal_ratio: float = 1.05
    seconds: float = 3600.0


@dataclass(frozen=True, kw_only=True)
class PhotoFacts:
    """One photo in the report; ready for JSON.

    Attributes:
        name, source: as in `images.View`.
        size: (height, width) of the upright original.
        upright_in_file: False if its orientation flag turned it.
        blur, blur_score: edge width in pixels at 1024 pixels, and how it stands out (None for a single photo).
        brightness_difference: stops from the median of the other photos (None for a single photo).
        median, clipped_bright, clipped_dark: as in `Exposure`.
        focal_mm, focal_35mm, taken, camera: as in `PhotoTags`.
        duplicate_of: an earlier photo that shows the same.
        changes: what decoding changed.
        findings: what to know and to do.
    """

    name: str
    source: str | None
    size: tuple[int, int]
    upright_in_file: bool
    blur: float
    blur_score: float | None
    brightness_difference: float | None
    median: float
    clipped_bright: float
    clipped_dark: float
    focal_mm: float | None
    focal_35mm: float | None
    taken: str | None
    camera: str | None
    duplicate_of: str | None
    changes: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class PhotoReport:
    """All photos of a set, what could not be read, and what concerns the set as a whole."""

    photos: tuple[PhotoFacts, ...]
    skipped: tuple[Skipped, ...]
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    limits: PhotoLimits


def photo_report(measured: MeasuredPhotos, limits: PhotoLimits | None = None) -> PhotoReport:
    """Compare photos with each other; no network and no matching is needed.

    Args:
        measured: from `measure_photos`.
        limits: other thresholds than the usual ones.
    """
    limits = limits or PhotoLimits()
    photos = measured.photos
    blur = [float(np.log(max(photo.sharpness.blur, 1e-3))) for photo in photos]
    scores = beside_others(blur, limits.blur_floor)
    brightness = [photo.exposure.brightness for photo in photos]
    stands_out = beside_others(brightness, limits.stops_floor)
    medians = _medians(brightness)
    differences = [None if usual is None else own - usual for own, usual in zip(brightness, medians, strict=True)]
    duplicates = _duplicates(photos, limits)
    findings: list[list[Finding | None]] = [
        [
            _blurred(photos, index, scores[index], limits),
            _plain(photo, limits),
            _duplicate(photos, duplicates, index),
            _exposed(differences[index], stands_out[index], limits),
            *_clipped(photo, limits),
            _small(photo, limits),
            *_unlike_the_others(photos, index, limits),
        ]
        for index, photo in enumerate(photos)
    ]
    facts = tuple(
        _facts(photo, scores[i], differences[i], duplicates.get(i), photos, [f for f in findings[i] if f is not None])
        for i, photo in enumerate(photos)
    )
    return PhotoReport(
        photos=facts,
        skipped=measured.skipped,
        findings=tuple(_of_the_set(measured, facts)),
        warnings=measured.warnings,
        limits=limits,
    )


def beside_others(values: Sequence[float], floor: float) -> list[float | None]:
    """How far each value is from the median of the others, in their robust standard deviations of at least `floor`.

    None where there are no others.
    """
    numbers = np.asarray(values, dtype=np.float64)
    scores: list[float | None] = []
    for index, median in enumerate(_medians(values)):
        if median is None:
            scores.append(None)
            continue
        spread = 1.4826 * float(np.median(np.abs(np.delete(numbers, index) - median)))
        scores.append(float((numbers[index] - median) / max(spread, floor)))
    return scores


def _medians(values: Sequence[float]) -> list[float | None]:
    """For each value the median of the others."""
    if len(values) < 2:
        return [None] * len(values)
    return [float(np.median(np.delete(np.asarray(values, dtype=np.float64), index))) for index in range(len(values))]


def _facts(
    photo: MeasuredPhoto,
    score: float | None,
    difference: float | None,
    duplicate: int | None,
    photos: Sequence[MeasuredPhoto],
    findings: Sequence[Finding],
) -> PhotoFacts:
    return PhotoFacts(
        name=photo.name,
        source=photo.source,
        size=photo.size,
        upright_in_file=photo.upright_in_file,
        blur=round(photo.sharpness.blur, 3),
        blur_score=None if score is None else round(score, 2),
        brightness_difference=None if difference is None else round(difference, 2),
        median=round(photo.exposure.median, 3),
        clipped_bright=round(photo.exposure.clipped_bright, 4),
        clipped_dark=round(photo.exposure.clipped_dark, 4),
        focal_mm=photo.tags.focal_mm,
        focal_35mm=photo.tags.focal_35mm,
        taken=photo.tags.taken,
        camera=photo.tags.camera,
        duplicate_of=None if duplicate is None else photos[duplicate].name,
        changes=photo.changes,
        findings=tuple(findings),
    )


# ------------------------------------------------------------------ sharpness
def _blurred(photos: Sequence[MeasuredPhoto], index: int, score: float | None, limits: PhotoLimits) -> Finding | None:
    own = photos[index].sharpness
    stands_out = score is not None and score >= limits.blur_score
    if own.gradient < limits.gradient or not (stands_out or own.blur >= limits.blur_pixels):
        return None
    others = [photo.sharpness for i, photo in enumerate(photos) if i != index]
    words = f"blurred: its edges are {own.blur:.1f} pixels wide at 1024 pixels"
    if stands_out:
        usual = float(np.median([other.blur for other in others]))
        words = f"blurred beside the others: its edges are {own.blur:.1f} pixels wide, theirs {usual:.1f}"
    usual_streak = float(np.median([other.streak for other in others])) if others else 0.22
    if own.streak - usual_streak < limits.streak:
        return Finding("blurred", "problem", f"{words}. Leave it out, or focus and take it again.")
    shutter = photos[index].tags.shutter_seconds
    exposed = f" ({_shutter(shutter)} here)" if shutter else ""
    return Finding(
        "blurred",
        "problem",
        f"{words}, in one direction: the camera moved. Leave it out, or take it again with more light or a shorter "
        f"exposure{exposed}.",
    )


def _shutter(seconds: float) -> str:
    return f"1/{round(1 / seconds)} s" if seconds < 0.5 else f"{seconds:.1f} s"


def _plain(photo: MeasuredPhoto, limits: PhotoLimits) -> Finding | None:
    if photo.sharpness.gradient >= limits.gradient:
        return None
    return Finding(
        "plain",
        "doubt",
        "hardly anything to recognise is in view. Step back, or turn to something with a pattern.",
    )


# ------------------------------------------------------------------ exposure
def _exposed(difference: float | None, score: float | None, limits: PhotoLimits) -> Finding | None:
    if difference is None or score is None:
        return None
    if abs(difference) < limits.stops or abs(score) < limits.stops_score:
        return None
    word: Literal["darker", "lighter"] = "darker" if difference < 0 else "lighter"
    return Finding(
        word,
        "doubt",
        f"{abs(difference):.1f} stops {word} than the others. Fix the exposure for all photos, or take it again.",
    )


def _clipped(photo: MeasuredPhoto, limits: PhotoLimits) -> list[Finding]:
    findings = []
    if photo.exposure.clipped_bright >= limits.clipped_bright:
        words = f"{photo.exposure.clipped_bright:.0%} of it is pure white. Expose shorter: nothing can be found there."
        findings.append(Finding("overexposed", "doubt", words))
    if photo.exposure.clipped_dark >= limits.clipped_dark:
        words = f"{photo.exposure.clipped_dark:.0%} of it is pure black. Expose longer: nothing can be found there."
        findings.append(Finding("underexposed", "doubt", words))
    return findings


# ------------------------------------------------------------------ duplicates
def _duplicates(photos: Sequence[MeasuredPhoto], limits: PhotoLimits) -> dict[int, int]:
    """For photos that repeat an earlier one, the index of that one, which is none of them itself.

    Plain photos are compared by their pixels only: there is nothing in them that a fingerprint could tell.
    """
    first_of: dict[str, int] = {}
    originals: list[int] = []
    repeats: dict[int, int] = {}
    prints = np.array([photo.fingerprint for photo in photos])
    for index, photo in enumerate(photos):
        if photo.digest in first_of:
            repeats[index] = first_of[photo.digest]
            continue
        first_of[photo.digest] = index
        if photo.sharpness.gradient < limits.gradient:
            continue
        differing = (prints[originals] != prints[index]).sum(axis=1) if originals else np.zeros(0)
        if differing.size and differing.min() <= limits.near_duplicate_bits:
            first_of[photo.digest] = repeats[index] = originals[int(differing.argmin())]
        else:
            originals.append(index)
    return repeats


def _duplicate(photos: Sequence[MeasuredPhoto], duplicates: dict[int, int], index: int) -> Finding | None:
    if index not in duplicates:
        return None
    original = photos[duplicates[index]]
    if original.digest == photos[index].digest:
        return Finding("duplicate", "doubt", f"the same pixels as {original.name}. Leave it out.")
    return Finding(
        "near_duplicate",
        "note",
        f"nearly the same as {original.name}. It adds time and hardly any depth: leave the less sharp one out.",
    )


# ------------------------------------------------------------------ size and EXIF
def _small(photo: MeasuredPhoto, limits: PhotoLimits) -> Finding | None:
    if max(photo.size) >= limits.small:
        return None
    return Finding(
        "small", "note", f"only {_size(photo.size)} pixels. Use the original instead of a preview if there is one."
    )


def _unlike_the_others(photos: Sequence[MeasuredPhoto], index: int, limits: PhotoLimits) -> list[Finding]:
    """Differences in size, camera, focal length and time from most of the set."""
    own_intrinsics = "Refinement gives it intrinsics of its own; other programs have to be told."
    photo, findings = photos[index], []
    # Portrait and landscape photos of one camera are of one size.
    usual, _ = Counter((max(other.size), min(other.size)) for other in photos).most_common(1)[0]
    if (max(photo.size), min(photo.size)) != usual:
        words = f"{_size(photo.size)} pixels, where most have {usual[0]} x {usual[1]}. {own_intrinsics}"
        findings.append(Finding("other_size", "note", words))
    cameras = Counter(other.tags.camera for other in photos if other.tags.camera)
    if photo.tags.camera and photo.tags.camera != cameras.most_common(1)[0][0]:
        words = f"taken with {photo.tags.camera}, most with {cameras.most_common(1)[0][0]}. {own_intrinsics}"
        findings.append(Finding("other_camera", "note", words))
    findings += _other_focal(photos, index, limits, own_intrinsics)
    return findings + _other_time(photos, index, limits)


def _other_focal(photos: Sequence[MeasuredPhoto], index: int, limits: PhotoLimits, advice: str) -> list[Finding]:
    by_film = sum(photo.tags.focal_35mm is not None for photo in photos) >= 2
    focals = [photo.tags.focal_35mm if by_film else photo.tags.focal_mm for photo in photos]
    own = focals[index]
    known = [focal for focal in focals if focal is not None]
    if own is None:
        return []
    usual = float(np.median(known))
    if max(own / usual, usual / own) < limits.focal_ratio:
        return []
    unit = "mm on 35 mm film" if by_film else "mm"
    return [Finding("other_focal", "note", f"focal length {own:g} {unit}, usual here is {usual:g}. {advice}")]


def _other_time(photos: Sequence[MeasuredPhoto], index: int, limits: PhotoLimits) -> list[Finding]:
    own = photos[index].tags.taken
    if own is None:
        return []
    times = [_seconds(photo.tags.taken) for photo in photos if photo.tags.taken]
    apart = abs(_seconds(own) - float(np.median(times)))
    if apart <= limits.seconds:
        return []
    words = f"{apart / 3600:.1f} hours" if apart < 48 * 3600 else f"{apart / 86400:.0f} days"
    return [
        Finding("other_time", "note", f"taken {words} from the others: light and things may differ. Look it through.")
    ]


def _seconds(taken: str) -> float:
    """By the camera's clock, which knows of no zones; any year will do, for a clock may never have been set."""
    return (datetime.fromisoformat(taken) - datetime(1970, 1, 1)).total_seconds()


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"


# ------------------------------------------------------------------ the set
def _of_the_set(measured: MeasuredPhotos, facts: Sequence[PhotoFacts]) -> list[Finding]:
    findings = [
        Finding("unreadable", "problem", f"{item.name} could not be read: {item.reason}.") for item in measured.skipped
    ]
    if len(facts) == 1:
        words = "one photo: it gives depth, but cameras and scale need a second one from another place."
        findings.append(Finding("single_photo", "doubt", words))
    blurred = sum(any(finding.kind == "blurred" for finding in photo.findings) for photo in facts)
    if 1 < len(facts) < 2 * blurred:
        words = f"{blurred} of {len(facts)} photos are blurred. Clean the lens, use more light, hold the camera still."
        findings.append(Finding("all_blurred", "problem", words))
    if all(photo.focal_mm is None and photo.focal_35mm is None for photo in facts):
        words = "no photo says its focal length (EXIF): it is estimated. Use original files if you have them."
        findings.append(Finding("no_focal", "note", words))
    return findings
