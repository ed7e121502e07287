"""A small scene with exact cameras, depth and points, for tests of everything that takes a `Scene`."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from manyview.geometry.cameras import Camera, pixel_grid
from manyview.scene import Provenance, Scene, SceneView, SparsePoints

ORIGINAL_SIZE = (120, 200)  # (height, width)
NETWORK_SIZE = (36, 52)
# Unequal scales and an offset, so that no pixel has the same coordinates in both pictures.
ORIGINAL_FROM_NETWORK = np.array([[3.1, 0, 15.3], [0, 2.7, 9.6], [0, 0, 1]])
ROOM = np.array([4.0, 3.0, 6.0])  # half the size of the box that the cameras stand in


def synthetic_scene(views: int = 3, seed: int = 0, photos: Path | None = None) -> Scene:
    """Views from inside a box with coloured walls; the world is the first camera's frame.

    Args:
        views: how many.
        seed: of camera positions and confidence.
        photos: a folder; if given, pictures of the original size are written into it and are the views' sources.
    """
    generator = np.random.default_rng(seed)
    room_from_cameras = [_camera_in_room(generator) for _ in range(views)]
    items = [_view(index, room_from_cameras, generator) for index in range(views)]
    if photos is not None:
        items = [_with_photo(view, room_from_cameras[0], photos) for view in items]
    provenance = Provenance(
        model="synthetic-box",
        weights_sha256="0" * 64,
        weights_licence="none",
        settings={"seed": seed, "exact": True},
        versions={"manyview": "0"},
        seconds={"forward": 0.25},
        changes=("cropped",),
    )
    return Scene(views=tuple(items), provenance=provenance, skipped=(("broken.jpg", "truncated"),), warnings=("one",))


def with_sparse_points(scene: Scene, per_view: int = 60, seed: int = 0) -> Scene:
    """Points of the first view, seen by all that have them in the picture."""
    generator = np.random.default_rng(seed)
    first = scene.views[0]
    rows, columns = np.nonzero(first.valid)
    chosen = generator.choice(len(rows), per_view, replace=False)
    points = first.points[rows[chosen], columns[chosen]].astype(np.float64)
    view, point, pixels, depth = [], [], [], []
    for index, other in enumerate(scene.views):
        assert other.camera is not None
        shown, away = other.camera.project(points)
        size = np.array([other.camera.width, other.camera.height])
        seen = (away > 0) & (shown > -0.5).all(axis=1) & (shown < size - 0.5).all(axis=1)
        view.append(np.full(int(seen.sum()), index, dtype=np.int32))
        point.append(np.flatnonzero(seen))
        pixels.append(shown[seen])
        depth.append(away[seen])
    sparse = SparsePoints(
        points=points,
        colours=first.image[rows[chosen], columns[chosen]],
        errors=np.zeros(per_view),
        group=np.zeros(per_view, dtype=np.int32),
        view=np.concatenate(view),
        point=np.concatenate(point),
        pixels=np.concatenate(pixels),
        depth=np.concatenate(depth),
    )
    return replace(scene, sparse=sparse)


def with_view(scene: Scene, index: int, **changes) -> Scene:
    """The scene with fields of one view changed."""
    views = list(scene.views)
    views[index] = replace(views[index], **changes)
    return replace(scene, views=tuple(views))


def without_camera(scene: Scene, index: int) -> Scene:
    return with_view(scene, index, camera=None, status="camera_not_found", status_reason="too little overlap")


def without_points(scene: Scene) -> Scene:
    """The scene with no valid pixel at all."""
    views = [
        replace(v, valid=v.valid & False, depth=np.zeros_like(v.depth), points=np.zeros_like(v.points))
        for v in scene.views
    ]
    return replace(scene, views=tuple(views))


def digest_of(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder; links by where they point."""
    contents = {
        p: str(p.readlink()).encode() if p.is_symlink() else p.read_bytes() for p in folder.rglob("*") if not p.is_dir()
    }
    return {str(p.relative_to(folder)): hashlib.sha256(data).hexdigest() for p, data in contents.items()}


def _camera_in_room(generator: np.random.Generator) -> np.ndarray:
    yaw, pitch = generator.uniform(-0.3, 0.3), generator.uniform(-0.15, 0.15)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    room_from_camera = np.eye(4)
    room_from_camera[:3, :3] = turn @ tilt
    room_from_camera[:3, 3] = generator.uniform(-1, 1, 3)
    return room_from_camera


def _view(index: int, room_from_cameras: list[np.ndarray], generator: np.random.Generator) -> SceneView:
    height, width = ORIGINAL_SIZE
    K = np.array([[150.0 + 4 * index, 0, 101.7], [0, 160.0 + 3 * index, 57.2], [0, 0, 1]])
    world_from_camera = np.linalg.inv(room_from_cameras[0]) @ room_from_cameras[index]
    camera = Camera(K=K, world_from_camera=world_from_camera, width=width, height=height)
    pixels = pixel_grid(*NETWORK_SIZE) @ ORIGINAL_FROM_NETWORK[:2, :2].T + ORIGINAL_FROM_NETWORK[:2, 2]
    depth = _depth(camera, room_from_cameras[0], pixels)
    valid = np.ones(NETWORK_SIZE, dtype=bool)
    valid[:, -2:] = False  # as if padded
    points = camera.unproject(pixels, depth)
    return SceneView.masked(
        name=f"view{index}.png",
        source=None,
        original_size=ORIGINAL_SIZE,
        original_from_network=ORIGINAL_FROM_NETWORK.copy(),
        image=_colours(points, room_from_cameras[0]),
        camera=camera,
        depth=depth,
        points=points,
        confidence=1 + generator.exponential(size=NETWORK_SIZE),
        valid=valid,
    )


def _with_photo(view: SceneView, room_from_world: np.ndarray, folder: Path) -> SceneView:
    assert view.camera is not None
    pixels = pixel_grid(*ORIGINAL_SIZE)
    points = view.camera.unproject(pixels, _depth(view.camera, room_from_world, pixels))
    path = folder / view.name
    Image.fromarray(_colours(points, room_from_world)).save(path)
    return replace(view, source=str(path))


def _depth(camera: Camera, room_from_world: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """z-depth of the walls at original pixels (..., 2)."""
    room_from_camera = room_from_world @ camera.world_from_camera
    rays = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1) @ np.linalg.inv(camera.K).T
    directions = rays @ room_from_camera[:3, :3].T
    with np.errstate(divide="ignore"):
        return ((np.sign(directions) * ROOM - room_from_camera[:3, 3]) / directions).min(axis=-1)


def _colours(points: np.ndarray, room_from_world: np.ndarray) -> np.ndarray:
    """Smooth colours with a chequer on them, by place on the wall: the same from every view."""
    place = points @ room_from_world[:3, :3].T + room_from_world[:3, 3]
    chequer = np.floor(place + 0.25).sum(-1, keepdims=True) % 2
    return np.clip(40 + 60 * chequer + 140 * (place / ROOM + 1) / 2, 0, 255).astype(np.uint8)
