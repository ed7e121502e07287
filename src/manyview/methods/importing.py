"""Scenes from cameras that are known: a COLMAP project or a `transforms.json`, to which the network adds depth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from manyview.errors import InputError
from manyview.formats.posed_photos import PosedPhotos, scene_without_depth
from manyview.formats.read_colmap import find_model, read_colmap
from manyview.formats.read_transforms import read_transforms
from manyview.formats.undistort import undistort_photos
from manyview.images import Progress
from manyview.methods.devices import DtypeName
from manyview.methods.model import Model, load
from manyview.refine.scene_depth import refit_scene
from manyview.scene import Scene, SparsePoints

PAIRWISE_MODEL = "manyview-small-pairs"


def import_scene(
    source: str | Path,
    *,
    photos: str | Path | None = None,
    model: str | Path | Model | None = PAIRWISE_MODEL,
    undistorted: str | Path | None = None,
    metric: bool | None = None,
    device: str = "auto",
    dtype: DtypeName | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Scene:
    """A COLMAP project or a `transforms.json` as a `Scene` in its own world, with depth by a network.

    Where the file has sparse points and says who sees them, every depth map is fitted to them.

    Args:
        source: a COLMAP model or its project's folder, or a `transforms.json` or its folder.
        photos: the folder that the file's names of photos start from; by default what is usual for the format.
        model: a DUSt3R model, as `manyview.load` takes it, or a loaded one; None for cameras and sparse points alone.
        undistorted: a folder; photos of lenses with distortion are drawn anew in its `images`.
        metric: whether lengths are metres; by default what the file says, if manyview has written it.
        device, dtype: as in `manyview.load`.
        overwrite: replace photos that an earlier call has drawn.
        progress: called as (done, total, what).

    Raises:
        InputError: the file cannot be read, none of its photos can be used, the model is not pairwise, or a lens has
            distortion and there is no folder for the photos that are drawn anew.
    """
    posed = _posed(Path(source), photos, metric)
    if posed.is_distorted and undistorted is None:
        count = sum(lens is not None for lens in posed.lenses)
        raise InputError(
            f"{count} of {len(posed)} photos are of lenses with distortion, and cameras of a scene are pinholes",
            hint="Give a folder in which these photos are drawn anew: undistorted=...",
        )
    loaded = load(model, device=device, dtype=dtype) if isinstance(model, str | Path) else model
    read = posed
    if undistorted is not None:
        posed = undistort_photos(posed, undistorted, overwrite=overwrite)
    scene = _with_depth(posed, loaded, progress)
    sparse = sparse_points_of(posed)
    scene = replace(
        scene,
        metric=posed.metric,
        world="given",
        sparse=sparse,
        skipped=list(dict.fromkeys([*scene.skipped, *posed.skipped])),
        provenance=replace(
            scene.provenance,
            settings={**scene.provenance.settings, "cameras_from": "given"},
            changes=(*scene.provenance.changes, *_redrawn(read, posed)),
        ),
    )
    return scene if sparse is None else refit_scene(scene, sparse)[0]


def _redrawn(before: PosedPhotos, after: PosedPhotos) -> list[str]:
    """A sentence, if photos were drawn anew."""
    count = sum(path not in before.paths for path in after.paths)
    return [f"{count} photos of lenses with distortion were drawn anew as pinhole cameras see them"] if count else []


def _posed(source: Path, photos: str | Path | None, metric: bool | None) -> PosedPhotos:
    if source.suffix == ".json" or not source.is_dir():
        return read_transforms(source, photos, metric=metric)
    if find_model(source) is None and (source / "transforms.json").is_file():
        return read_transforms(source, photos, metric=metric)
    return read_colmap(source, photos, metric=metric)


def _with_depth(posed: PosedPhotos, model: Model | None, progress: Progress | None) -> Scene:
    if model is None:
        return scene_without_depth(posed, progress=progress)
    return model.reconstruct(
        list(posed.paths),
        intrinsics=posed.K,
        world_from_camera=posed.world_from_camera,
        strict=True,
        progress=progress,
    )


def sparse_points_of(posed: PosedPhotos) -> SparsePoints | None:
    """The points of known cameras as a scene has them; None where the file does not say who sees what."""
    points = posed.points
    if points is None or points.observations is None:
        return None
    view, point, pixels, depth, missed = [], [], [], [], []
    for index, (seen, camera) in enumerate(zip(points.observations, posed.cameras, strict=True)):
        shown, away = camera.project(points.points[seen.rows])
        kept = away > 0
        view.append(np.full(int(kept.sum()), index, dtype=np.int32))
        point.append(seen.rows[kept])
        pixels.append(seen.pixels[kept])
        depth.append(away[kept])
        missed.append(np.linalg.norm(shown[kept] - seen.pixels[kept], axis=1))
    rows = np.concatenate(point).astype(np.int64)
    count = np.bincount(rows, minlength=len(points))
    return SparsePoints(
        points=points.points,
        colours=points.colours,
        errors=np.bincount(rows, np.concatenate(missed), minlength=len(points)) / np.maximum(count, 1),
        group=np.zeros(len(points), dtype=np.int32),
        view=np.concatenate(view),
        point=rows,
        pixels=np.concatenate(pixels),
        depth=np.concatenate(depth),
    )
