"""A folder that splat trainers start from: a COLMAP model, `transforms.json`, pictures, and priors of masks and depth.

See docs/splats.md for the trainers' commands.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from manyview.errors import ExportError
from manyview.files import read_json, write_json
from manyview.formats import colmap, nerfstudio
from manyview.formats.describe import chosen_points, exported_views
from manyview.geometry.cameras import pixel_grid, transform_pixels
from manyview.scene import ExportOptions, Scene, SceneView

logger = logging.getLogger(__name__)

MASKS, DEPTHS = "masks", "depths"
# nerfstudio multiplies depth maps by 0.001 unless told otherwise, as if they were in millimetres.
DEPTH_STEPS = 1000.0
WRITES = tuple(dict.fromkeys((*colmap.WRITES, *nerfstudio.WRITES, MASKS, DEPTHS)))


def export(scene: Scene, folder: Path, options: ExportOptions) -> list[Path]:
    """Write the folder with depth priors, and with masks if `options` names a folder of them; `write_splat_folder`."""
    masks = None if options.masks is None else read_masks(scene, Path(options.masks))
    return write_splat_folder(scene, folder, options, masks=masks)


def write_splat_folder(
    scene: Scene,
    folder: Path,
    options: ExportOptions,
    *,
    masks: Sequence[np.ndarray | None] | None = None,
    depths: bool = True,
) -> list[Path]:
    """Write `images/`, `sparse/0`, `transforms.json`, `sparse_pc.ply`, and on request `masks/` and `depths/`.

    Pictures and cameras are those of the exports "colmap" and "nerfstudio": upright, at their original size, pinhole.
    Both hold initial points from the dense cloud, with colours.

    `masks/<picture>.png` is 8-bit, of the picture's size: 255 where to train, 0 where not. `depths/<picture>.npy` is
    float32 z-depth in thousandths of the scene's unit, 0 where there is none, at about the network's size and with
    the picture's whole extent; pixels below the confidence that `options` asks for have none.

    Args:
        scene: its views of group 0 are written.
        folder: exists, and is empty or holds the same pictures.
        options: as for the other formats; its folder of masks does not count here.
        masks: for each view of the scene (H, W) bool, at its original or at the network's size, False where not to
            train (what moves, people, the sky); None for a view to train on all of it.
        depths: whether to write depth priors, if the scene has depth at all.

    Raises:
        ExportError: the masks do not fit the views, or as the exports "colmap" and "nerfstudio".
    """
    if masks is not None:
        _check_masks(scene, masks)
    written = [*colmap.write_dense_model(scene, folder, options), *nerfstudio.export(scene, folder, options)]
    transforms = read_json(folder / "transforms.json")
    maps = replace(scene, fused=None)  # priors are of all that a view sees, not of what it is the first to see
    depths = depths and any(view.valid.any() for view in scene.views)
    for frame, (index, view, _) in zip(transforms["frames"], exported_views(scene, options), strict=True):
        size = (frame["h"], frame["w"])
        name = Path(frame["file_path"]).name
        if masks is not None:
            written.append(_write_mask(folder / MASKS / f"{name}.png", view, masks[index], size))
            frame["mask_path"] = f"{MASKS}/{name}.png"
        if depths:
            written.append(_write_depth(folder / DEPTHS / f"{name}.npy", maps, index, size, options))
            frame["depth_file_path"] = f"{DEPTHS}/{name}.npy"
    write_json(folder / "transforms.json", {**transforms, **_about(scene, masks is not None, depths)})
    return list(dict.fromkeys(written))


def _about(scene: Scene, masks: bool, depths: bool) -> dict[str, Any]:
    about: dict[str, Any] = {}
    if masks:
        about["masks"] = "255 where to train, 0 where not"
    if depths:
        about["depths"] = f"float32 z-depth, 0 where there is none, divided by {DEPTH_STEPS:g}: {scene.units}"
        about["depth_unit_scale_factor"] = 1 / DEPTH_STEPS
    return about


# ------------------------------------------------------------------ masks
def read_masks(scene: Scene, folder: Path) -> list[np.ndarray | None]:
    """The masks of a scene's photos from a folder of pictures: bright where to train.

    A photo's mask has its name and ".png" at the end, or ".png" instead of its ending.

    Raises:
        ExportError: there is no such folder, none of its files is a mask of one of the photos, or one cannot be read.
    """
    if not folder.is_dir():
        raise ExportError(f"there is no folder of masks {folder}", hint="Give a folder with a picture for each photo.")
    paths = [_mask_file(folder, view) for view in scene.views]
    masks = [None if path is None else _read_mask(path) for path in paths]
    bare = [view.name for view, path in zip(scene.views, paths, strict=True) if path is None]
    unused = sorted(path.name for path in {*folder.glob("*.png")} - {*paths})
    for names, what in ((bare, "without a mask, trained on whole"), (unused, "named as no photo, not used as masks")):
        if names:
            logger.warning("%d %s: %s%s", len(names), what, ", ".join(names[:5]), ", ..." if len(names) > 5 else "")
    if all(mask is None for mask in masks):
        first = scene.views[0].name if scene.views else "photo.jpg"
        raise ExportError(
            f"no file in {folder} is named as one of the photos", hint=f"For {first}: {first}.png. White is trained on."
        )
    return masks


def _mask_file(folder: Path, view: SceneView) -> Path | None:
    names = dict.fromkeys([f"{view.name}.png", f"{Path(view.name).stem}.png"])
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_mask(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L")) > 127
    except OSError as error:
        raise ExportError(f"the mask {path} cannot be read: {error}") from error


def _check_masks(scene: Scene, masks: Sequence[np.ndarray | None]) -> None:
    if len(masks) != len(scene.views):
        raise ExportError(
            f"got {len(masks)} masks for {len(scene.views)} views", hint="Give None for views without a mask."
        )
    for view, mask in zip(scene.views, masks, strict=True):
        if mask is not None and np.shape(mask) not in (view.size, tuple(view.original_size)):
            raise ExportError(
                f"the mask of {view.name} has shape {np.shape(mask)}, expected {view.original_size} or {view.size}",
                hint="Give it at the size of the upright original, or at the network's.",
            )


def _write_mask(path: Path, view: SceneView, mask: np.ndarray | None, size: tuple[int, int]) -> Path:
    path.parent.mkdir(exist_ok=True)
    kept = np.ones(size, dtype=bool) if mask is None else _mask_of_size(view, np.asarray(mask, dtype=bool), size)
    Image.fromarray(np.where(kept, np.uint8(255), np.uint8(0))).save(path)
    return path


def _mask_of_size(view: SceneView, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask in the pixels of the exported picture (original or network); True beyond what the network saw."""
    if mask.shape == size:
        return mask
    if mask.shape == tuple(view.original_size):  # the picture is the network's
        x, y = np.rint(transform_pixels(view.original_from_network, pixel_grid(*size))).astype(int).transpose(2, 0, 1)
        return mask[np.clip(y, 0, mask.shape[0] - 1), np.clip(x, 0, mask.shape[1] - 1)]
    return _sampled(mask, np.linalg.inv(view.original_from_network), size, outside=True)


# ------------------------------------------------------------------ depth
def _write_depth(path: Path, scene: Scene, index: int, size: tuple[int, int], options: ExportOptions) -> Path:
    path.parent.mkdir(exist_ok=True)
    view = scene.views[index]
    sure = np.zeros(view.size, dtype=bool)
    if view.valid.any():
        x, y = chosen_points(scene, options, None, [index]).pixel.T
        sure[y, x] = True
    depth = np.where(sure, view.depth * np.float32(DEPTH_STEPS), np.float32(0))
    np.save(path, _whole_extent(view, depth, size), allow_pickle=False)
    return path


def _whole_extent(view: SceneView, depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) float32: a network map over the whole exported picture of `size`, nearest pixels, about as fine as it was.

    Trainers stretch depth maps over pictures, but what a network saw may be cropped, or padded.
    """
    if size == view.size:
        return depth
    scale = np.sqrt(abs(np.linalg.det(view.original_from_network[:2, :2])))
    height, width = (max(round(extent / scale), 1) for extent in size)
    step_y, step_x = size[0] / height, size[1] / width
    original_from_map = np.array([[step_x, 0, (step_x - 1) / 2], [0, step_y, (step_y - 1) / 2], [0, 0, 1]])
    network_from_map = np.linalg.inv(view.original_from_network) @ original_from_map
    return _sampled(depth, network_from_map, (height, width), outside=np.float32(0))


def _sampled(values: np.ndarray, source_from_target: np.ndarray, size: tuple[int, int], outside: Any) -> np.ndarray:
    """`values` at the nearest pixel to each of a picture of `size`; `outside` where that is beyond the border."""
    x, y = np.rint(transform_pixels(source_from_target, pixel_grid(*size))).astype(int).transpose(2, 0, 1)
    height, width = values.shape
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return np.where(inside, values[np.where(inside, y, 0), np.where(inside, x, 0)], outside)
