"""Metric scale, orientation and place from satellite positions (EXIF GPS) of the photos."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from manyview.errors import InputError
from manyview.geometry.similarity import Similarity, fit_similarity
from manyview.images.exif import GPS_BLOCK, photo_header
from manyview.refine.world import WorldChange
from manyview.scene import Scene
from manyview.scene_photos import photo_of

_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _ALTITUDE_REF, _ALTITUDE = 1, 2, 3, 4, 5, 6
_EQUATOR, _FLATTENING = 6378137.0, 1 / 298.257223563  # of the ellipsoid WGS 84, metres
_LEAST = 3
_TRIPLES = 400
_WORST_RESIDUAL = 0.3  # of the spread of the positions; beyond that they say nothing about the cameras
_LINE = 0.05  # ratio of the spreads along and across a line, below which positions do not say how to turn about it
_BEST_GPS = 0.01  # metres; no receiver is better, so that a smaller difference is no reason to leave a photo out
_FIT_ROUNDS = 10


@dataclass(frozen=True, kw_only=True)
class GpsPosition:
    """A position on WGS 84: degrees north, degrees east, metres of altitude (None if it is not known)."""

    latitude: float
    longitude: float
    altitude: float | None = None


def read_gps(path: str | Path) -> GpsPosition | None:
    """The position in a photo's EXIF block; None if there is none, or one that cannot be true.

    Raises:
        InputError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        with photo_header(path) as image:
            tags = image.getexif().get_ifd(GPS_BLOCK)
    except Exception:  # decoders raise almost anything on damaged bytes; such a photo says nothing of its place
        return None
    return _position(tags)


def positions_in_photos(scene: Scene) -> list[GpsPosition | None]:
    """One for each view, from its photo's EXIF block; None for frames of videos, arrays, and photos that are gone.

    Raises:
        InputError: fewer than three photos have a position.
    """
    photos = [photo_of(view) for view in scene.views]
    positions = [None if photo is None else read_gps(photo) for photo in photos]
    _refuse_few(sum(position is not None for position in positions), "a GPS position")
    return positions


def local_tangent_plane(positions: Sequence[GpsPosition], origin: GpsPosition) -> np.ndarray:
    """(N, 3) float64 metres east, north and up of an origin, in the plane that touches WGS 84 there.

    Altitudes that are not known count as 0.
    """
    latitude, longitude = math.radians(origin.latitude), math.radians(origin.longitude)
    (sin_lat, cos_lat), (sin_lon, cos_lon) = ((math.sin(angle), math.cos(angle)) for angle in (latitude, longitude))
    local_from_earth = np.array(
        [
            [-sin_lon, cos_lon, 0.0],
            [-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat],
            [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat],
        ]
    )
    centred = np.array([_earth_centred(position) for position in positions]).reshape(-1, 3) - _earth_centred(origin)
    return centred @ local_from_earth.T


def world_from_gps(
    scene: Scene, positions: Sequence[GpsPosition | None] | None = None, *, seed: int = 0
) -> WorldChange:
    """The similarity that takes cameras to the positions of their photos: metres, x east, y down, z north.

    It is robust: found from triples of photos by the least median of distances (Rousseeuw, "Least Median of Squares
    Regression", JASA 1984), then fitted to the photos that agree. The origin is the first of these.

    Args:
        scene: views without a camera, or of low confidence, are not used.
        positions: one a view, None where it is not known; by default they are read from the photos' files.
        seed: of the draw of triples.

    Raises:
        InputError: fewer than three photos have a camera and a position, they lie on one line or in one place, or
            positions and cameras do not agree.
    """
    positions = positions_in_photos(scene) if positions is None else positions
    if len(positions) != len(scene.views):
        raise InputError(
            f"got {len(positions)} positions for {len(scene.views)} views", hint="Give None where it is not known."
        )
    used: list[GpsPosition] = []
    centres = []
    for view, position in zip(scene.views, positions, strict=True):
        if position is not None and view.camera is not None and view.status == "used":
            used.append(position)
            centres.append(view.camera.centre)
    _refuse_few(len(used), "a camera and a GPS position")
    used, about_altitude = _with_altitudes(used)
    return _fitted(np.array(centres), used, about_altitude, seed)


def _fitted(centres: np.ndarray, positions: list[GpsPosition], about_altitude: str, seed: int) -> WorldChange:
    east_north_up = local_tangent_plane(positions, positions[0])
    _refuse_line(centres, "cameras")
    _refuse_line(east_north_up, "GPS positions")
    kept = _agreeing(centres, east_north_up, np.random.default_rng(seed))
    origin = positions[int(np.flatnonzero(kept)[0])]
    target = local_tangent_plane(positions, origin)[:, [0, 2, 1]] * [1.0, -1.0, 1.0]  # east, down, north
    similarity = _robust_fit(centres[kept], target[kept])
    distances = np.linalg.norm(similarity.apply(centres) - target, axis=1)
    residual = float(np.sqrt(np.mean(distances[kept] ** 2)))
    _refuse_disagreement(target[kept], residual)
    check = "; three photos fit exactly, whatever they say" if kept.sum() == _LEAST else ""
    words = (
        f"place, scale and orientation: GPS positions of {int(kept.sum())} of {len(kept)} photos, which fit with a "
        f"root mean square of {residual:.3g} m (largest of all {distances.max():.3g} m){check}; {about_altitude}; "
        f"x is east, y down, z north, the origin {origin.latitude:.8f} degrees north, {origin.longitude:.8f} east, "
        f"{origin.altitude:.3f} m high"
    )
    return WorldChange(similarity=similarity, words=words, metric=True, world="east down north", residual=residual)


# ------------------------------------------------------------------ EXIF
def _position(tags: Any) -> GpsPosition | None:
    latitude = _degrees(tags.get(_LATITUDE), tags.get(_LATITUDE_REF), "S")
    longitude = _degrees(tags.get(_LONGITUDE), tags.get(_LONGITUDE_REF), "W")
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    if latitude == 0 and longitude == 0:
        return None  # what receivers write before they know where they are
    altitude = _number(tags.get(_ALTITUDE))
    if altitude is not None and tags.get(_ALTITUDE_REF) in (1, b"\x01"):
        altitude = -altitude
    return GpsPosition(latitude=latitude, longitude=longitude, altitude=altitude)


def _degrees(value: Any, reference: Any, negative: str) -> float | None:
    """From degrees, minutes and seconds."""
    if not isinstance(value, tuple) or len(value) != 3:
        return None
    parts = [_number(part) for part in value]
    if any(part is None for part in parts):
        return None
    degrees = sum(part / 60**power for power, part in enumerate(parts) if part is not None)
    return -degrees if str(reference).strip("\x00 ").upper() == negative else degrees


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def _with_altitudes(positions: list[GpsPosition]) -> tuple[list[GpsPosition], str]:
    """Altitudes of all, or of none: then all photos are taken to be at one height, and words that say so."""
    unknown = sum(position.altitude is None for position in positions)
    if not unknown:
        return positions, "with altitudes"
    flat = [replace(position, altitude=0.0) for position in positions]
    return flat, f"{unknown} have no altitude, so all were taken to be at one height, here 0"


# ------------------------------------------------------------------ geometry
def _earth_centred(position: GpsPosition) -> np.ndarray:
    """(3,) metres: WGS 84's earth-centred, earth-fixed coordinates."""
    latitude, longitude = math.radians(position.latitude), math.radians(position.longitude)
    squared_eccentricity = _FLATTENING * (2 - _FLATTENING)
    radius = _EQUATOR / math.sqrt(1 - squared_eccentricity * math.sin(latitude) ** 2)
    height = position.altitude or 0.0
    across = (radius + height) * math.cos(latitude)
    along = (radius * (1 - squared_eccentricity) + height) * math.sin(latitude)
    return np.array([across * math.cos(longitude), across * math.sin(longitude), along])


def _refuse_few(count: int, what: str) -> None:
    if count < _LEAST:
        raise InputError(
            f"{count} photos have {what}, and at least {_LEAST} are needed",
            hint="Give a known distance, a baseline or a camera height instead.",
        )


def _refuse_line(points: np.ndarray, what: str) -> None:
    spreads = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if not spreads[1] > _LINE * spreads[0]:
        raise InputError(
            f"the {what} of {len(points)} photos lie on one line or in one place, which leaves the orientation open",
            hint="Give a known distance for the scale and a direction up instead.",
        )


def _refuse_disagreement(target: np.ndarray, residual: float) -> None:
    spreads = np.linalg.svd(target - target.mean(axis=0), compute_uv=False) / math.sqrt(len(target))
    if residual > _WORST_RESIDUAL * spreads[0] or residual > spreads[1]:
        raise InputError(
            f"the GPS positions do not agree with the cameras: {residual:.3g} m are left over, and the photos are "
            f"spread over {spreads[0]:.3g} m by {spreads[1]:.3g} m",
            hint="GPS is good to a few metres: photos have to be tens of metres apart. Give a known distance instead.",
        )


def _agreeing(source: np.ndarray, target: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(N,) bool, the positions that agree with the best similarity of a triple."""
    count = len(source)
    if count == _LEAST:
        return np.ones(count, dtype=bool)
    majority = (count + _LEAST + 1) // 2  # with fewer, three that fit exactly would decide alone
    best, best_score = np.zeros(count), math.inf
    for triple in _triples(count, generator):
        try:
            similarity = fit_similarity(source[triple], target[triple])
        except InputError:  # these three lie on one line
            continue
        distances = np.linalg.norm(similarity.apply(source) - target, axis=1)
        score = float(np.partition(distances, majority - 1)[majority - 1])
        if score < best_score:
            best, best_score = distances, score
    # 1.4826 makes a median a standard deviation; the last factor corrects small samples (Rousseeuw and Leroy, 1987).
    deviation = 1.4826 * best_score * (1 + 5 / (count - _LEAST))
    return best <= max(2.5 * deviation, _BEST_GPS)


def _triples(count: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    if math.comb(count, _LEAST) <= _TRIPLES:
        yield from (np.array(triple) for triple in combinations(range(count), _LEAST))
    else:
        yield from (generator.choice(count, _LEAST, replace=False) for _ in range(_TRIPLES))


def _robust_fit(source: np.ndarray, target: np.ndarray) -> Similarity:
    """Huber's fit by reweighting: positions that are further off than usual count less."""
    weights = np.ones(len(source))
    similarity = fit_similarity(source, target)
    for _ in range(_FIT_ROUNDS):
        distances = np.linalg.norm(similarity.apply(source) - target, axis=1)
        usual = max(1.345 * 1.4826 * float(np.median(distances)), 1e-12)
        weights = usual / np.maximum(distances, usual)
        similarity = fit_similarity(source, target, weights)
    return similarity
