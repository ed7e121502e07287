"""Cameras from COLMAP models and transforms.json: in our conventions, upright, and without distortion if asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import plyfile
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from manyview.errors import ExportError, InputError
from manyview.formats.lens import Lens, pinhole_within
from manyview.formats.posed_photos import PosedPhotos, scene_without_depth
from manyview.formats.read_colmap import read_colmap
from manyview.formats.read_transforms import read_transforms
from manyview.formats.undistort import undistort_photos
from manyview.geometry import Camera, transform_points
from manyview.methods.placing import Known
from manyview.refine.gps import GpsPosition, read_gps
from manyview.refine.photo_tags import read_tags
from manyview.scene import ExportOptions
from scenes import synthetic_scene, with_sparse_points, without_camera

HALF = 0.5
SIZE = (90, 120)  # (height, width) of stored photos
LENSES = {
    "SIMPLE_PINHOLE": [110, 60, 45],
    "PINHOLE": [110, 108, 62, 44],
    "SIMPLE_RADIAL": [110, 60, 45, -0.12],
    "RADIAL": [110, 60, 45, -0.12, 0.02],
    "OPENCV": [110, 108, 62, 44, -0.15, 0.03, 0.002, -0.003],
    "FULL_OPENCV": [110, 108, 62, 44, 0.1, 0.01, 0.001, -0.002, 0.002, 0.01, 0.0, 0.0],
    "OPENCV_FISHEYE": [70, 71, 61, 44, 0.02, -0.01, 0.002, 0.0],
    "SIMPLE_RADIAL_FISHEYE": [70, 60, 45, 0.02],
    "FOV": [70, 70, 60, 45, 0.9],
    "THIN_PRISM_FISHEYE": [70, 71, 61, 44, 0.02, -0.01, 0.001, 0.001, 0.0, 0.0, 0.001, 0.001],
}


@dataclass(frozen=True)
class Wall:
    """The plane z = 6 with a smooth picture on it, in front of some cameras."""

    centre: np.ndarray
    rotation: np.ndarray  # world from camera

    @classmethod
    def drawn(cls, seed: int) -> Wall:
        generator = np.random.default_rng(seed)
        turn = Rotation.from_euler("XYZ", generator.uniform(-0.15, 0.15, 3))
        return cls(centre=generator.uniform(-0.5, 0.5, 3), rotation=turn.as_matrix())

    @property
    def world_from_camera(self) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.rotation, self.centre
        return matrix

    def colours(self, rays: np.ndarray) -> np.ndarray:
        """(P, 3) uint8 of rays (P, 3) in the camera's frame."""
        rays = rays @ self.rotation.T
        place = self.centre + rays * ((6 - self.centre[2]) / rays[:, 2])[:, None]
        waves = np.stack([np.sin(place[:, 0]), np.cos(1.3 * place[:, 1]), np.sin(place[:, 0] + place[:, 1])], -1)
        return np.rint(127 + 100 * waves).astype(np.uint8)


def photograph(camera: pycolmap.Camera, wall: Wall) -> np.ndarray:
    x, y = np.meshgrid(np.arange(camera.width) + HALF, np.arange(camera.height) + HALF)
    rays = camera.cam_ray_from_img(np.stack([x, y], -1).reshape(-1, 2))
    return wall.colours(np.asarray(rays)).reshape(camera.height, camera.width, 3)


def project(folder: Path, cameras: Sequence[pycolmap.Camera], *, text: bool = False) -> list[Wall]:
    """A COLMAP project with points on the wall, whose photos are what the cameras see."""
    (folder / "images").mkdir(parents=True)
    (folder / "sparse" / "0").mkdir(parents=True)
    model = pycolmap.Reconstruction()
    walls = [Wall.drawn(seed) for seed in range(len(cameras))]
    points = np.c_[
        np.random.default_rng(9).uniform(-1, 1, (40, 2)) * [3, 2.2], np.full(40, 6.0)
    ]  # some beyond the pictures
    tracks: list[list[pycolmap.TrackElement]] = [[] for _ in points]
    for number, (camera, wall) in enumerate(zip(cameras, walls, strict=True), start=1):
        name = f"photo{number}.png"
        camera_from_world = np.linalg.inv(wall.world_from_camera)[:3]
        pixels = np.asarray(camera.img_from_cam(points @ camera_from_world[:, :3].T + camera_from_world[:, 3]))
        camera.camera_id = number
        model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=name, keypoints=pixels, camera_id=number, image_id=number)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(camera_from_world))
        Image.fromarray(photograph(camera, wall)).save(folder / "images" / name)
        for row, elements in enumerate(tracks):
            elements.append(pycolmap.TrackElement(number, row))
    for point, elements in zip(points, tracks, strict=True):
        model.add_point3D(point, pycolmap.Track(elements), np.array([10, 20, 30], np.uint8))
    (model.write_text if text else model.write_binary)(str(folder / "sparse" / "0"))
    return walls


def camera_of(model: str, size: tuple[int, int] = SIZE) -> pycolmap.Camera:
    return pycolmap.Camera(model=model, width=size[1], height=size[0], params=LENSES[model])


def check_observations(posed: PosedPhotos, tolerance: float) -> int:
    """Each observed point is projected to where it is seen, by the camera and lens; returns how many there are."""
    assert posed.points is not None and posed.points.observations is not None
    everything = zip(posed.cameras, posed.lenses, posed.points.observations, strict=True)
    for camera, lens, seen in everything:
        in_camera = transform_points(camera.camera_from_world, posed.points.points[seen.rows])
        pixels = camera.project(posed.points.points[seen.rows])[0] if lens is None else lens.project(in_camera)
        np.testing.assert_allclose(pixels, seen.pixels, atol=tolerance)
    return sum(len(seen.rows) for seen in posed.points.observations)


def check_pictures(posed: PosedPhotos, walls: Sequence[Wall], turn: np.ndarray | None = None) -> None:
    """Each photo shows, up to its border, what its pinhole camera sees of the wall."""
    for path, camera, wall in zip(posed.paths, posed.cameras, walls, strict=True):
        with Image.open(path) as image:
            picture = np.asarray(image.convert("RGB")).astype(float)
        assert picture.shape[:2] == (camera.height, camera.width)
        x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
        rays = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3) @ np.linalg.inv(camera.K).T
        rays = rays if turn is None else rays @ turn
        difference = np.abs(picture - wall.colours(rays).reshape(picture.shape))
        assert difference.max() <= 6 and difference.mean() < 1


# ------------------------------------------------------------------ COLMAP
@pytest.mark.parametrize("text", [False, True])
def test_a_pinhole_model_gives_its_own_cameras_and_points(tmp_path, text) -> None:
    walls = project(tmp_path, [camera_of("PINHOLE"), camera_of("SIMPLE_PINHOLE")], text=text)
    posed = read_colmap(tmp_path)
    assert posed.names == ("photo1.png", "photo2.png") and not posed.is_distorted and not posed.skipped
    assert np.allclose(posed.K[0], [[110, 0, 62 - HALF], [0, 108, 44 - HALF], [0, 0, 1]], atol=1e-12)
    for matrix, wall in zip(posed.world_from_camera, walls, strict=True):
        np.testing.assert_allclose(matrix, wall.world_from_camera, atol=1e-12)
    assert check_observations(posed, 1e-9) == 80
    assert posed.points is not None and np.array_equal(posed.points.colours[3], [10, 20, 30])
    assert not posed.metric and read_colmap(tmp_path, metric=True).metric
    assert undistort_photos(posed, tmp_path / "work") is posed and not (tmp_path / "work").exists()


@pytest.mark.parametrize("model", [name for name in LENSES if name not in ("SIMPLE_PINHOLE", "PINHOLE")])
def test_photos_of_every_lens_are_drawn_anew_as_a_pinhole_camera_sees_them(tmp_path, model) -> None:
    walls = project(tmp_path, [camera_of(model)])
    posed = read_colmap(tmp_path)
    assert posed.is_distorted and check_observations(posed, 1e-6) == 40
    straight = undistort_photos(posed, tmp_path / "work")
    assert not straight.is_distorted and straight.paths[0].parent == tmp_path / "work" / "images"
    assert np.array_equal(straight.world_from_camera, posed.world_from_camera)
    assert np.array_equal(straight.K[0][:2, 2], posed.K[0][:2, 2])
    kept = check_observations(straight, 1e-4)
    sees_everything = LENSES[model][0] < 100
    assert kept == 40 if sees_everything else 20 <= kept < 40  # what the new picture does not hold is left out
    check_pictures(straight, walls)


def test_only_photos_of_lenses_with_distortion_are_drawn_anew(tmp_path) -> None:
    project(tmp_path, [camera_of("PINHOLE"), camera_of("OPENCV")])
    straight = undistort_photos(read_colmap(tmp_path), tmp_path / "work")
    assert [path.parent.parent.name for path in straight.paths] == [tmp_path.name, "work"]
    undistort_photos(read_colmap(tmp_path), tmp_path / "work")  # equal pictures are left as they are
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "images" / "photo2.png")
    with pytest.raises(ExportError, match="already holds"):
        undistort_photos(read_colmap(tmp_path), tmp_path / "work")
    undistort_photos(read_colmap(tmp_path), tmp_path / "work", overwrite=True)
    with Image.open(tmp_path / "work" / "images" / "photo2.png") as image:
        assert not np.asarray(image).any()


def test_coefficients_of_zero_are_no_distortion_but_a_fisheye_is_one(tmp_path) -> None:
    straight = pycolmap.Camera(model="OPENCV", width=120, height=90, params=[110, 110, 60, 45, 0, 0, 0, 0])
    fisheye = pycolmap.Camera(model="OPENCV_FISHEYE", width=120, height=90, params=[110, 110, 60, 45, 0, 0, 0, 0])
    project(tmp_path, [straight, fisheye])
    assert [lens is None for lens in read_colmap(tmp_path).lenses] == [True, False]


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("model", ["PINHOLE", "OPENCV", "FOV"])
def test_cameras_of_photos_that_lie_on_their_side_are_turned_upright(tmp_path, model, orientation) -> None:
    walls = project(tmp_path, [camera_of(model)])
    path = tmp_path / "images" / "photo1.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.load()
    image.save(path, exif=exif)
    posed = read_colmap(tmp_path)
    upright = SIZE[::-1] if orientation in (6, 8) else SIZE
    assert (posed.cameras[0].height, posed.cameras[0].width) == upright
    assert np.linalg.det(posed.world_from_camera[0]) == pytest.approx(1)
    check_observations(posed, 1e-6)
    straight = undistort_photos(posed, tmp_path / "work")
    check_observations(straight, 1e-4)
    Known.checked(views_of(straight), straight.K, straight.world_from_camera)
    if model != "PINHOLE":
        turn = np.linalg.inv(walls[0].rotation) @ straight.world_from_camera[0][:3, :3]
        check_pictures(straight, walls, turn=turn.T)


def test_what_the_camera_wrote_stays_with_a_photo_that_is_drawn_anew(tmp_path) -> None:
    project(tmp_path, [camera_of("OPENCV")])
    path = tmp_path / "images" / "photo1.png"
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0100] = 6, "Maker", 120
    exif[0x8769] = {0x920A: 24.0, 0x9003: "2024:05:31 13:45:00", 0xA002: 120, 0x927C: b"notes"}
    exif[0x8825] = {1: "N", 2: (47.0, 30.0, 0.0), 3: "E", 4: (8.0, 15.0, 0.0), 5: b"\x00", 6: 430.0}
    with Image.open(path) as image:
        image.load()
    image.save(path, exif=exif)
    drawn = undistort_photos(read_colmap(tmp_path), tmp_path / "work").paths[0]
    assert read_gps(drawn) == read_gps(path) == GpsPosition(latitude=47.5, longitude=8.25, altitude=430)
    assert read_tags(drawn) == read_tags(path) and read_tags(drawn).focal_mm == 24
    with Image.open(drawn) as image:
        found = image.getexif()
        assert found[0x0112] == 1 and 0x0100 not in found  # upright, and nothing about the old pixels
        assert not {0xA002, 0x927C} & set(found.get_ifd(0x8769))


def test_mirrored_photos_and_cameras_of_upright_photos(tmp_path) -> None:
    project(tmp_path, [camera_of("PINHOLE"), camera_of("PINHOLE")])
    for name, orientation in (("photo1.png", 2), ("photo2.png", 1)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / "images" / name
        with Image.open(path) as image:
            image.load()
        image.save(path, exif=exif)
    posed = read_colmap(tmp_path)
    assert posed.names == ("photo2.png",) and "mirrored" in posed.skipped[0][1]
    # Stored on its side, but the camera is of the upright photo: nothing is to be turned.
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "images" / "photo2.png"
    with Image.open(path) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    assert np.array_equal(read_colmap(tmp_path).K[0], posed.K[0])


def test_a_point_that_one_view_alone_sees_is_not_written_however_often_it_sees_it(tmp_path) -> None:
    scene = with_sparse_points(synthetic_scene())
    sparse = scene.sparse
    assert sparse is not None
    kept = (sparse.point != 3) | (sparse.view == sparse.view[sparse.point == 3][0])
    rows = np.flatnonzero(kept).tolist() + np.flatnonzero(kept & (sparse.point == 3)).tolist() * 2
    fields = {name: getattr(sparse, name)[rows] for name in ("view", "point", "pixels", "depth")}
    counts = []
    for points in (replace(sparse, **fields), sparse):
        replace(scene, sparse=points).export(tmp_path / f"{len(counts)}", ["colmap"])
        counts.append(pycolmap.Reconstruction(str(tmp_path / f"{len(counts)}" / "sparse" / "0")).num_points3D())
    assert counts[0] == counts[1] - 1


def views_of(posed: PosedPhotos):
    from manyview.images.load import load_views

    return load_views(list(posed.paths), size=64, strict=True)


def test_photos_at_another_size_scale_their_camera(tmp_path) -> None:
    project(tmp_path, [camera_of("PINHOLE"), camera_of("OPENCV")])
    small = read_colmap(tmp_path)
    for path in sorted((tmp_path / "images").iterdir()):
        with Image.open(path) as image:
            image.resize((360, 270)).save(path)
    posed = read_colmap(tmp_path)
    assert [(camera.width, camera.height) for camera in posed.cameras] == [(360, 270)] * 2
    check_observations(posed, 1e-6)
    assert posed.K[0][0, 2] == pytest.approx(3 * small.K[0][0, 2] + 1)  # x_large = 3 x + (3 - 1) / 2


def test_photos_that_are_missing_or_of_another_shape_are_named(tmp_path) -> None:
    project(tmp_path, [camera_of("PINHOLE")] + [camera_of("PINHOLE") for _ in range(4)])
    photos = tmp_path / "images"
    (photos / "photo1.png").unlink()
    Image.new("RGB", (50, 90)).save(photos / "photo2.png")
    (photos / "photo3.png").write_bytes(b"words")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)).save(photos / "photo5.png")
    (photos / "photo5.png").write_bytes((photos / "photo5.png").read_bytes()[:9000])
    posed = read_colmap(tmp_path)
    assert posed.names == ("photo4.png",) and check_observations(posed, 1e-9) == 40
    reasons = dict(posed.skipped)
    assert "no such file" in reasons["photo1.png"] and "50 x 90" in reasons["photo2.png"]
    assert "not a photo" in reasons["photo3.png"] and "truncated" in reasons["photo5.png"]
    (photos / "photo4.png").unlink()
    with pytest.raises(InputError, match="none of the 5 photos") as caught:
        read_colmap(tmp_path)
    assert "photos=" in caught.value.hint


def test_what_is_no_model_is_an_error(tmp_path) -> None:
    with pytest.raises(InputError, match="no COLMAP model"):
        read_colmap(tmp_path)
    project(tmp_path, [camera_of("PINHOLE")])
    with pytest.raises(InputError, match="no folder of photos"):
        (tmp_path / "images").rename(tmp_path / "elsewhere")
        read_colmap(tmp_path)
    assert len(read_colmap(tmp_path / "sparse" / "0", tmp_path / "elsewhere")) == 1
    damaged = tmp_path / "sparse" / "0" / "images.bin"
    damaged.write_bytes(damaged.read_bytes()[:30])
    with pytest.raises(InputError, match="can be read"):
        read_colmap(tmp_path, tmp_path / "elsewhere")


# ------------------------------------------------------------------ lenses
@given(st.sampled_from(sorted(LENSES)), st.integers(0, 2**32 - 1), st.sampled_from(["upright", "turned"]))
@settings(max_examples=30, deadline=None)
def test_a_lens_takes_pixels_to_rays_and_back(model, seed, how) -> None:
    turn = np.eye(3) if how == "upright" else np.array([[0.0, -1, SIZE[0] - 1], [1, 0, 0], [0, 0, 1]])
    lens = Lens(model=model, params=tuple(LENSES[model]), stored_size=SIZE, original_from_stored=turn)
    size = SIZE if how == "upright" else SIZE[::-1]
    pixels = np.random.default_rng(seed).uniform(0, 1, (20, 2)) * [size[1] - 1, size[0] - 1]
    np.testing.assert_allclose(lens.project(lens.unproject(pixels)), pixels, atol=1e-5)


def test_a_lens_that_bends_the_border_beyond_any_ray_is_an_error() -> None:
    K = np.array([[100.0, 0, 59.5], [0, 100, 44.5], [0, 0, 1]])
    camera = Camera(K=K, world_from_camera=np.eye(4), width=120, height=90)
    for coefficients in ((-3.0, 0.0), (0.0, -20.0)):
        params = (100.0, 60.0, 45.0, *coefficients)
        lens = Lens(model="RADIAL", params=params, stored_size=SIZE, original_from_stored=np.eye(3))
        with pytest.raises(InputError, match="cannot be undistorted"):
            pinhole_within(lens, camera)


def test_of_a_fisheye_that_sees_more_than_half_of_all_directions_the_middle_is_kept() -> None:
    params = (30.0, 30.0, 60.0, 45.0, 0.0, 0.0, 0.0, 0.0)  # 115 degrees to each side
    lens = Lens(model="OPENCV_FISHEYE", params=params, stored_size=SIZE, original_from_stored=np.eye(3))
    K = np.array([[30.0, 0, 59.5], [0, 30, 44.5], [0, 0, 1]])
    pinhole = pinhole_within(lens, Camera(K=K, world_from_camera=np.eye(4), width=120, height=90))
    assert 2 * np.degrees(np.arctan(60 / pinhole.K[0, 0])) == pytest.approx(126.9, abs=0.1)


# ------------------------------------------------------------------ transforms.json
def transforms(folder: Path, frames: list[dict], **shared) -> Path:
    path = folder / "transforms.json"
    path.write_text(json.dumps({**shared, "frames": frames}))
    return path


def opengl(wall: Wall, digits: int = 17) -> list[list[float]]:
    return np.round(wall.world_from_camera @ np.diag([1.0, -1, -1, 1]), digits).tolist()


def photo(folder: Path, name: str, camera: pycolmap.Camera, wall: Wall) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photograph(camera, wall)).save(path)
    return name


SHARED = {"fl_x": 110, "fl_y": 108, "cx": 62, "cy": 44, "w": 120, "h": 90}


def test_transforms_give_the_cameras_in_our_conventions(tmp_path) -> None:
    walls = [Wall.drawn(0), Wall.drawn(1)]
    wide = pycolmap.Camera(model="PINHOLE", width=120, height=90, params=[80, 80, 60, 45])
    frames = [
        {
            "file_path": photo(tmp_path, "images/a.png", camera_of("PINHOLE"), walls[0]),
            "transform_matrix": opengl(walls[0], 5),
        },
        {"file_path": photo(tmp_path, "images/b.png", wide, walls[1]), "transform_matrix": opengl(walls[1])[:3]},
    ]
    frames[1] |= {"fl_x": 80, "fl_y": 80, "cx": 60, "cy": 45}
    path = transforms(tmp_path, frames, **SHARED, camera_model="OPENCV", orientation_override="none", aabb_scale=16)
    posed = read_transforms(path)
    assert posed.names == ("images/a.png", "images/b.png") and not posed.is_distorted and posed.points is None
    np.testing.assert_allclose(posed.world_from_camera[0], walls[0].world_from_camera, atol=2e-5)
    rotation = posed.world_from_camera[0][:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)  # exactly rigid, although rounded
    np.testing.assert_allclose(posed.K[1], [[80, 0, 59.5], [0, 80, 44.5], [0, 0, 1]])
    check_pictures(posed, walls)
    assert np.array_equal(read_transforms(tmp_path).K, posed.K)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("OPENCV", {"k1": -0.15, "k2": 0.03, "p1": 0.002, "p2": -0.003}),
        ("FULL_OPENCV", {"k1": -0.15, "k2": 0.03, "p1": 0.002, "p2": -0.003, "k3": 0.004, "camera_model": "OPENCV"}),
        ("OPENCV_FISHEYE", {"k1": 0.02, "k2": -0.01, "k3": 0.002, "k4": 0.001, "is_fisheye": True}),
        ("OPENCV_FISHEYE", {"k1": 0.02, "k2": -0.01, "k3": 0.002, "k4": 0.001, "camera_model": "OPENCV_FISHEYE"}),
    ],
)
def test_distortion_of_transforms_is_undone(tmp_path, model, said) -> None:
    order = {"FULL_OPENCV": ["k1", "k2", "p1", "p2", "k3"], "OPENCV_FISHEYE": ["k1", "k2", "k3", "k4"]}
    coefficients = [said[key] for key in order.get(model, ["k1", "k2", "p1", "p2"])]
    params = [110, 108, 62, 44, *coefficients, *([0, 0, 0] if model == "FULL_OPENCV" else [])]
    camera = pycolmap.Camera(model=model, width=120, height=90, params=params)
    wall = Wall.drawn(2)
    transforms(
        tmp_path,
        [{"file_path": photo(tmp_path, "a.png", camera, wall), "transform_matrix": opengl(wall)}],
        **SHARED,
        **said,
    )
    posed = read_transforms(tmp_path)
    assert posed.is_distorted
    check_pictures(undistort_photos(posed, tmp_path / "work"), [wall])


def test_the_nerf_scenes_say_an_angle_and_leave_the_ending_out(tmp_path) -> None:
    wall, focal = Wall.drawn(3), 100.0
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=120, height=90, params=[focal, 60, 45])
    photo(tmp_path, "train/r_0.png", camera, wall)
    frame = {"file_path": "./train/r_0", "transform_matrix": opengl(wall), "rotation": 0.01}
    transforms(tmp_path, [frame], camera_angle_x=float(2 * np.arctan(60 / focal)))
    posed = read_transforms(tmp_path)
    assert np.allclose(posed.K[0], [[focal, 0, 59.5], [0, focal, 44.5], [0, 0, 1]])
    check_pictures(posed, [wall])


def test_the_applied_transform_is_undone_only_on_request(tmp_path) -> None:
    """As nerfstudio's own conversion: the file's world is scale * applied_transform @ the COLMAP world."""
    wall = Wall.drawn(4)
    applied = np.array([[1.0, 0, 0, 0.5], [0, 0, 1, -1], [0, -1, 0, 2]])
    motion = np.vstack([applied, [0, 0, 0, 1]])
    in_file = motion @ np.array(opengl(wall))
    in_file[:3, 3] *= 0.25
    points = np.array([[0.0, 1, 6], [1, 0, 6]])
    moved = 0.25 * transform_points(motion, points)
    vertices = np.array(
        [(*p, 1, 2, 3) for p in moved.tolist()],
        dtype=[(n, "f4") for n in "xyz"] + [(n, "u1") for n in ("red", "green", "blue")],
    )
    plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")]).write(tmp_path / "cloud.ply")
    frame = {"file_path": photo(tmp_path, "a.png", camera_of("PINHOLE"), wall), "transform_matrix": in_file.tolist()}
    extra = {"applied_transform": applied.tolist(), "applied_scale": 0.25, "ply_file_path": "cloud.ply"}
    transforms(tmp_path, [frame], **SHARED, **extra)
    kept, undone = read_transforms(tmp_path), read_transforms(tmp_path, undo_applied_transform=True)
    np.testing.assert_allclose(kept.world_from_camera[0] @ np.diag([1, -1, -1, 1]), in_file, atol=1e-12)
    np.testing.assert_allclose(undone.world_from_camera[0], wall.world_from_camera, atol=1e-12)
    assert kept.points is not None and undone.points is not None
    np.testing.assert_allclose(kept.points.points, moved, atol=1e-6)
    np.testing.assert_allclose(undone.points.points, points, atol=1e-5)
    assert np.array_equal(kept.points.colours, [[1, 2, 3]] * 2)


def test_our_own_exports_come_back(tmp_path) -> None:
    (tmp_path / "photos").mkdir()
    scene = without_camera(synthetic_scene(photos=tmp_path / "photos"), 1)
    scene.export(tmp_path / "out", ["colmap", "nerfstudio"], options=ExportOptions(max_colmap_points=200))
    for posed in (read_colmap(tmp_path / "out"), read_transforms(tmp_path / "out")):
        assert [path.name for path in posed.paths] == ["view0.png", "view2.png"] and not posed.metric
        for index, camera in zip((0, 2), posed.cameras, strict=True):
            np.testing.assert_allclose(camera.K, scene.K[index], atol=1e-9)
            np.testing.assert_allclose(camera.world_from_camera, scene.world_from_camera[index], atol=1e-12)
    assert check_observations(read_colmap(tmp_path / "out"), 1e-3) > 200


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"transform_matrix": None}, "expected a matrix"),
        ({"transform_matrix": [[1, 2], [3]]}, "expected a matrix"),
        ({"transform_matrix": np.diag([2.0, 2, 2, 1]).tolist()}, "not a rigid"),
        ({"transform_matrix": np.diag([1.0, 1, -1, 1]).tolist()}, "not a rigid"),
        ({"fl_x": 0}, "no focal length"),
        ({"fl_x": None, "fl_y": None}, "no focal length"),
        ({"fl_x": "long"}, "expected a number"),
        ({"camera_model": "EQUIRECTANGULAR"}, "camera_model"),
        ({"k4": 0.1}, "k4"),
        ({"w": 33}, "33 x 90"),
        ({"file_path": "gone.png"}, "no such file"),
    ],
)
def test_frames_that_cannot_be_used_are_named_with_a_reason(tmp_path, changes, reason) -> None:
    wall = Wall.drawn(0)
    frame = {
        "file_path": photo(tmp_path, "a.png", camera_of("PINHOLE"), wall),
        "transform_matrix": opengl(wall),
        **SHARED,
    }
    transforms(tmp_path, [{**frame, **changes}, frame])
    posed = read_transforms(tmp_path)
    assert len(posed) == 1 and reason in posed.skipped[0][1]
    transforms(tmp_path, [{**frame, **changes}])
    with pytest.raises(InputError, match="none of the 1 photos"):
        read_transforms(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"frames": []}', '{"frames": [3]}', "no json", '{"frames": [{}]}'])
def test_what_describes_no_cameras_is_an_error(tmp_path, text) -> None:
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(InputError):
        read_transforms(tmp_path)


def test_wrong_transforms_and_points_of_the_world_are_errors(tmp_path) -> None:
    wall = Wall.drawn(0)
    frame = {"file_path": photo(tmp_path, "a.png", camera_of("PINHOLE"), wall), "transform_matrix": opengl(wall)}
    transforms(tmp_path, [frame], **SHARED)
    with pytest.raises(InputError, match="no applied_transform"):
        read_transforms(tmp_path, undo_applied_transform=True)
    transforms(tmp_path, [frame], **SHARED, applied_transform=np.diag([1.0, 2, 3])[:, [0, 1, 2, 2]].tolist())
    with pytest.raises(InputError, match="not a similarity"):
        read_transforms(tmp_path, undo_applied_transform=True)
    transforms(tmp_path, [frame], **SHARED, ply_file_path="gone.ply")
    with pytest.raises(InputError, match=r"gone\.ply"):
        read_transforms(tmp_path)


# ------------------------------------------------------------------ what follows
def test_a_scene_without_depth_has_the_cameras_and_nothing_else(tmp_path) -> None:
    project(tmp_path, [camera_of("PINHOLE"), camera_of("OPENCV")])
    posed = read_colmap(tmp_path, metric=True)
    with pytest.raises(InputError, match="1 of 2 cameras have lens distortion") as caught:
        scene_without_depth(posed)
    assert "undistort_photos" in caught.value.hint
    straight = undistort_photos(posed, tmp_path / "work")
    scene = scene_without_depth(straight, size=64)
    assert scene.metric and scene.world == "given" and not any(view.valid.any() for view in scene.views)
    np.testing.assert_array_equal(scene.K, straight.K)
    np.testing.assert_array_equal(scene.world_from_camera, np.array(straight.world_from_camera))
    scene.save(tmp_path / "scene")
    assert scene.equals(type(scene).load(tmp_path / "scene"))


def test_known_cameras_are_what_the_models_take(tmp_path) -> None:
    project(tmp_path, [camera_of("OPENCV"), camera_of("SIMPLE_RADIAL")])
    straight = undistort_photos(read_colmap(tmp_path), tmp_path / "work")
    known = Known.checked(views_of(straight), straight.K, straight.world_from_camera)
    assert known.K is not None and np.array_equal(known.K, straight.K)
