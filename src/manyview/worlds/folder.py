"""Worlds as folders that any reconstruction program can be tested on: pictures, depth, masks and a COLMAP model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from manyview.errors import InputError
from manyview.files import refuse_results, staged, write_json
from manyview.formats import colmap
from manyview.geometry.cameras import Camera
from manyview.scene import ExportOptions, Provenance, Scene, SceneView
from manyview.worlds.render import WorldBatch, render_worlds
from manyview.worlds.settings import WorldSettings

SCENE_FILE = "scene.json"
LARGEST_COUNT = 65_000  # of the 16-bit depth maps
Progress = Callable[[int, int, str], None]


def write_worlds(
    folder: Path,
    seeds: list[int],
    *,
    views: int,
    size: tuple[int, int],
    settings: WorldSettings = WorldSettings(samples=4),  # noqa: B008 (frozen)
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write one folder a seed, `folder/world-SEED/`; returns all files.

    Each holds `images/*.png`, `depth/*.png` (16-bit z-depth, 0 for the sky, unit in scene.json), `masks/*.png` (255
    where something moves; only if something does), `sparse/0/` (a COLMAP model with the exact cameras and points of
    what stands still) and `scene.json` (cameras in OpenCV axes, settings, units).

    Raises:
        InputError: no seeds, no views, or a size below 16 x 16.
        ExportError: results are there already and `overwrite` is False.
    """
    if not seeds:
        raise InputError("no worlds were asked for", hint="Give at least one seed.")
    if min(size) < 16:
        raise InputError(f"pictures are at least 16 x 16 pixels, got {size[1]} x {size[0]}")
    refuse_results(folder, overwrite=overwrite, names=[f"{world_name(seed)}/{SCENE_FILE}" for seed in seeds])
    with staged(folder, overwrite=overwrite) as staging:
        for done, seed in enumerate(seeds):
            write_world(staging / world_name(seed), render_worlds([seed], views, size, settings), seed, settings)
            if progress is not None:
                progress(done + 1, len(seeds), "worlds")
        names = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
    return [folder / name for name in names]


def world_name(seed: int) -> str:
    """The folder of a world."""
    return f"world-{seed}"


def write_world(folder: Path, batch: WorldBatch, seed: int, settings: WorldSettings) -> None:
    """Write the first scene of a batch into an empty or new folder."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    scene = true_scene(batch, seed)
    colmap.export(scene, folder, ExportOptions(percentile=0, max_colmap_points=20_000, depth_tolerance=0.01))
    unit = max(float(batch.depth[0].max()) / LARGEST_COUNT, 1e-9)
    moving = batch.moving[0].numpy()
    pictures: dict[str, np.ndarray] = {"depth": np.rint(batch.depth[0].double().numpy() / unit).astype(np.uint16)}
    if moving.any():
        pictures["masks"] = np.where(moving, 255, 0).astype(np.uint8)
    for name, stack in pictures.items():
        (folder / name).mkdir()
        for view, picture in zip(scene.views, stack, strict=True):
            Image.fromarray(picture).save(folder / name / view.name)
    write_json(folder / SCENE_FILE, describe(scene, seed, settings, unit))


def true_scene(batch: WorldBatch, seed: int) -> Scene:
    """The first scene of a batch with its true cameras, depth and points; what moves is not valid."""
    moving = batch.moving[0].numpy()
    height, width = batch.depth.shape[-2:]
    views = []
    for index in range(batch.depth.shape[1]):
        pixels = batch.images[0, index].permute(1, 2, 0).numpy()
        views.append(
            SceneView.masked(
                name=f"{index:05d}.png",
                source=None,
                original_size=(height, width),
                original_from_network=np.eye(3),
                image=np.rint(255 * pixels).astype(np.uint8),
                camera=Camera(
                    K=batch.K[0, index].double().numpy(),
                    world_from_camera=batch.world_from_camera[0, index].double().numpy(),
                    width=width,
                    height=height,
                ),
                depth=batch.depth[0, index].numpy(),
                points=batch.points[0, index].numpy(),
                confidence=np.ones((height, width)),
                valid=batch.valid[0, index].numpy() & ~moving[index],
            )
        )
    provenance = Provenance(
        model="procedural world", weights_sha256="", weights_licence="none", settings={"seed": seed}
    )
    return Scene(views=views, provenance=provenance, skipped=[], warnings=[])


def describe(scene: Scene, seed: int, settings: WorldSettings, unit: float) -> dict:
    """What `scene.json` says."""
    cameras = [(view.name, view.camera) for view in scene.views if view.camera is not None]
    return {
        "kind": "manyview world",
        "seed": seed,
        "depth_unit": unit,
        "units": "scene units; the depth of a pixel is its 16-bit count times depth_unit; 0 is the sky",
        "frame": "OpenCV axes (x right, y down, z forward); the world's z axis points up",
        "pixels": "the centre of the top-left pixel is (0, 0) in K",
        "settings": asdict(settings),
        "views": [
            {"name": name, "K": camera.K.tolist(), "world_from_camera": camera.world_from_camera.tolist()}
            for name, camera in cameras
        ],
    }
