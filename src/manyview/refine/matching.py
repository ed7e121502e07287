"""Matches between the features of photos, verified geometrically, in a COLMAP database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manyview.formats.describe import HALF_PIXEL
from manyview.refine.features import Features
from manyview.refine.lenses import Lenses, distortion_of, straightened
from manyview.refine.options import RefineOptions

if TYPE_CHECKING:
    import pycolmap


@dataclass(frozen=True, kw_only=True, eq=False)
class VerifiedPair:
    """Matches of two views that agree with one geometry.

    Attributes:
        first, second: indices of the views, first < second.
        rows: (M, 2) int64, the features in both views.
        first_pixels, second_pixels: (M, 2) float64, original pixels.
        candidates: how many matches there were before verification.
    """

    first: int
    second: int
    rows: np.ndarray
    first_pixels: np.ndarray
    second_pixels: np.ndarray
    candidates: int

    def __len__(self) -> int:
        return len(self.rows)


class MatchDatabase:
    """Features, cameras and matches of N views in a COLMAP database. View i is image i + 1, named by number.

    Matches are verified without intrinsics where those are not known exactly. `resolution` is how many original pixels
    a pixel of the pictures is in which features were looked for (the median): limits grow with it.
    """

    def __init__(self, path: Path, features: Sequence[Features], lenses: Lenses, options: RefineOptions):
        self.path = path
        self.features = features
        self.lenses = lenses
        self.options = options
        self.resolution = max(1.0, float(np.median([one.resolution for one in features]))) if features else 1.0
        self._write()

    def with_lenses(self, lenses: Lenses) -> MatchDatabase:
        """The same matches with other intrinsics; the file's cameras change with it."""
        other = copy(self)
        other.lenses = lenses
        other.set_cameras([lenses.colmap_camera(number) for number in sorted(set(lenses.number_of))])
        return other

    def with_own_lenses(self, lenses: Lenses) -> MatchDatabase:
        """The same features and verified matches in a file of its own, with other cameras for the views."""
        import pycolmap

        other = MatchDatabase(self.path.with_suffix(".own.db"), self.features, lenses, self.options)
        with (
            pycolmap.Database.open(str(self.path)) as source,
            pycolmap.Database.open(str(other.path)) as target,
            pycolmap.DatabaseTransaction(target),
        ):
            for pair_id, geometry in zip(*source.read_two_view_geometries(), strict=True):
                first, second = pycolmap.pair_id_to_image_pair(pair_id)
                target.write_two_view_geometry(first, second, geometry)
        return other

    def match(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Match pairs of views by their descriptors, and verify what matches by RANSAC."""
        import pycolmap

        if not pairs:
            return
        listed = self.path.with_suffix(".pairs.txt")
        listed.write_text("".join(f"{image_name(i)} {image_name(j)}\n" for i, j in pairs), encoding="ascii")
        matching = pycolmap.FeatureMatchingOptions()
        matching.use_gpu, matching.num_threads = False, self.options.thread_count
        pairing = pycolmap.ImportedPairingOptions()
        pairing.match_list_path = str(listed)
        verification = pycolmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = self.options.seed
        verification.ransac.max_error *= self.resolution
        verification.min_num_inliers = self.options.min_matches
        pycolmap.match_image_pairs(str(self.path), matching, pairing, verification, device=pycolmap.Device.cpu)
        listed.unlink()

    def verified(self) -> list[VerifiedPair]:
        """The pairs with enough verified matches, in order."""
        import pycolmap

        with pycolmap.Database.open(str(self.path)) as database:
            found = []
            candidates = dict(zip(*database.read_num_matches(), strict=True))
            for pair_id, geometry in zip(*database.read_two_view_geometries(), strict=True):
                rows = np.asarray(geometry.inlier_matches, dtype=np.int64).reshape(-1, 2)
                if len(rows) < self.options.min_matches:
                    continue
                first, second = (int(image) - 1 for image in pycolmap.pair_id_to_image_pair(pair_id))
                found.append(self._pair(first, second, rows, int(candidates.get(pair_id, len(rows)))))
        return sorted(found, key=lambda pair: (pair.first, pair.second))

    def cache(self, members: Sequence[int]) -> pycolmap.DatabaseCache:
        """What mapping needs to know of some of the views."""
        import pycolmap

        wanted = pycolmap.DatabaseCacheOptions()
        wanted.min_num_matches = self.options.min_matches
        wanted.image_names = {image_name(view) for view in members}
        with pycolmap.Database.open(str(self.path)) as database:
            return pycolmap.DatabaseCache.create(database, wanted)

    def set_cameras(self, cameras: Sequence[pycolmap.Camera]) -> None:
        """Replace the cameras, which keep their numbers."""
        import pycolmap

        with pycolmap.Database.open(str(self.path)) as database:
            for camera in cameras:
                database.update_camera(camera)

    def _pair(self, first: int, second: int, rows: np.ndarray, candidates: int) -> VerifiedPair:
        if first > second:
            first, second, rows = second, first, rows[:, ::-1]
        return VerifiedPair(
            first=first,
            second=second,
            rows=rows,
            first_pixels=self.features[first].pixels[rows[:, 0]],
            second_pixels=self.features[second].pixels[rows[:, 1]],
            candidates=candidates,
        )

    def _write(self) -> None:
        import pycolmap

        self.path.unlink(missing_ok=True)
        with pycolmap.Database.open(str(self.path)) as database, pycolmap.DatabaseTransaction(database):
            for number in sorted(set(self.lenses.number_of)):
                camera = self.lenses.colmap_camera(number)
                database.write_camera(camera, use_camera_id=True)
                rig = pycolmap.Rig(rig_id=number)
                rig.add_ref_sensor(camera.sensor_id)
                database.write_rig(rig, use_rig_id=True)
            for index, features in enumerate(self.features):
                _write_image(database, index, self.lenses.number_of[index], features)


def image_name(view: int) -> str:
    """Name of a view in the database: safe in lists that separate names by spaces."""
    return f"{view:06d}"


def linked_parts(pairs: Sequence[VerifiedPair], views: int) -> list[tuple[int, ...]]:
    """Sets of views that verified matches link, the largest first (then by lowest view); singles are parts too."""
    return connected([(pair.first, pair.second) for pair in pairs], views)


def connected(edges: Sequence[tuple[int, int]], count: int) -> list[tuple[int, ...]]:
    """The connected parts of a graph of `count` nodes, the largest first, then by lowest node."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not count:
        return []
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    number, label = connected_components(graph, directed=False)
    parts = [tuple(np.flatnonzero(label == part).tolist()) for part in range(number)]
    return sorted(parts, key=lambda part: (-len(part), part))


def without_distortion(pairs: Sequence[VerifiedPair], lenses: Mapping[int, pycolmap.Camera]) -> list[VerifiedPair]:
    """The pairs with pixels where pinholes would show them, in the views (by index) that have a lens here."""
    bent = {view: lens for view, lens in lenses.items() if distortion_of(lens).any()}
    if not bent:
        return list(pairs)
    return [
        replace(
            pair,
            first_pixels=straightened(bent.get(pair.first), pair.first_pixels),
            second_pixels=straightened(bent.get(pair.second), pair.second_pixels),
        )
        for pair in pairs
    ]


def _write_image(database: pycolmap.Database, index: int, camera: int, features: Features) -> None:
    import pycolmap

    image = pycolmap.Image(name=image_name(index), camera_id=camera, image_id=index + 1)
    database.write_image(image, use_image_id=True)
    frame = pycolmap.Frame(frame_id=index + 1, rig_id=camera)
    frame.add_data_id(image.data_id)
    database.write_frame(frame, use_frame_id=True)
    keypoints = np.column_stack([features.pixels + HALF_PIXEL, features.scales, features.angles]).astype(np.float32)
    database.write_keypoints(index + 1, keypoints)
    database.write_descriptors(
        index + 1, pycolmap.FeatureDescriptors(pycolmap.FeatureExtractorType.SIFT, features.descriptors)
    )
