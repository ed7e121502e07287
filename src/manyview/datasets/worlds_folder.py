"""Posed RGB-D scenes in folders: pictures, 16-bit depth maps and a COLMAP model. `manyview worlds` writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from manyview.datasets.base import Augmentation, Split, WindowedDataset
from manyview.datasets.frames import HALF_PIXEL, Frame, make_frame, read_grey, read_json, read_picture, reading
from manyview.errors import InputError
from manyview.geometry.cameras import Camera, invert_rigid

SCENE_FILE, DEPTH_UNIT = "scene.json", "depth_unit"
_MODEL = Path("sparse", "0")
_KEPT = 256  # scenes whose cameras stay in memory
_PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE")
_Cameras = list[tuple[str, Camera]]


class WorldsFolder(WindowedDataset):
    """Scenes of one's own, or the folder of one. Views are drawn in a window of 5 N pictures in the order of names.

    Pictures are cropped about their middle, so that cameras with an off-centre principal point keep it.
    """

    layout = "<scene>/{scene.json,images/,depth/,sparse/0/}, or is such a scene itself"
    splits = ("train",)
    window = 5
    crops_about_principal_point = False

    def __init__(self, folder: Path, *, split: Split, augmentation: Augmentation) -> None:
        super().__init__(folder, split=split, augmentation=augmentation)
        inside = sorted(path.parent.parent for path in folder.glob(f"*/{_MODEL}") if path.is_dir())
        self._scenes = [folder] if (folder / _MODEL).is_dir() else inside
        self._cameras: dict[int, _Cameras] = {}

    def __len__(self) -> int:
        return len(self._scenes)

    def name(self, index: int) -> str:
        return self._scenes[index].name

    def count(self, index: int) -> int:
        return len(self._cameras_of(index))

    def _frame(self, index: int, place: int) -> Frame:
        folder, (name, camera) = self._scenes[index], self._cameras_of(index)[place]
        path = folder / "images" / name
        image = read_picture(path)
        if image.size != (camera.width, camera.height):
            raise InputError(
                f"{path} has {image.width} x {image.height} pixels and its camera {camera.width} x {camera.height}"
            )
        counts = read_grey((folder / "depth" / name).with_suffix(".png"), np.uint16)
        depth = counts * read_depth_unit(folder / SCENE_FILE)
        return make_frame(path, image, depth, camera.K, camera.world_from_camera)

    def _cameras_of(self, index: int) -> _Cameras:
        if index not in self._cameras:
            if len(self._cameras) >= _KEPT:
                del self._cameras[next(iter(self._cameras))]
            self._cameras[index] = read_cameras(self._scenes[index] / _MODEL)
        return self._cameras[index]


def read_depth_unit(path: Path) -> float:
    """Scene units of one count of the depth maps.

    Raises:
        InputError: the file is missing or holds no such number.
    """
    values = read_json(path)
    unit = values.get(DEPTH_UNIT) if isinstance(values, dict) else None
    if not isinstance(unit, int | float) or not 0 < unit < float("inf"):
        hint = f'Write {{"{DEPTH_UNIT}": 0.001}} where one count is a thousandth of a scene unit.'
        raise InputError(f"{path} has {DEPTH_UNIT} = {unit!r}, expected a number above 0", hint=hint)
    return float(unit)


def read_cameras(folder: Path) -> _Cameras:
    """Names (paths below `images/`) and cameras of a COLMAP model, text or binary, in the order of names.

    Raises:
        InputError: there is no model, none of its pictures has a pose, or a camera is not a pinhole camera.
    """
    import pycolmap

    if not any((folder / f"cameras{suffix}").is_file() for suffix in (".bin", ".txt")):
        raise InputError(f"{folder} has no COLMAP model: expected cameras, images and points3D, as .bin or .txt")
    with reading(folder):
        model = pycolmap.Reconstruction(str(folder))
    images = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    if not images:
        raise InputError(f"{folder} has no picture with a pose")
    return [(image.name, _camera(folder, image)) for image in images]


def _camera(folder: Path, image) -> Camera:
    camera = image.camera
    if camera.model.name not in _PINHOLES:
        hint = "Undistort the pictures first, for example with `colmap image_undistorter`."
        raise InputError(
            f"{folder}: {image.name} has a {camera.model.name} camera, expected {' or '.join(_PINHOLES)}", hint=hint
        )
    K = np.array(camera.calibration_matrix(), dtype=np.float64)
    K[:2, 2] -= HALF_PIXEL
    camera_from_world = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
    return Camera(K=K, world_from_camera=invert_rigid(camera_from_world), width=camera.width, height=camera.height)
