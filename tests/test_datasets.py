"""Every kind of data set, written here in its official layout, gives back the geometry that it was made from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from manyview.datasets import KINDS, Augmentation, open_dataset
from manyview.errors import InputError
from manyview.geometry import Camera, pixel_grid, points_from_depth
from manyview.geometry.posed_views import PosedViews

STORED = (72, 96)  # (height, width)
CENTRAL = (47.6, 35.7)  # rounds to the middle, so that a sample of the stored size is the stored picture
PLAIN = Augmentation(colour_jitter=False, crop_jitter=False)
NORMAL, DISTANCE = np.array([0.2, 0.1, 1.0]) / np.linalg.norm([0.2, 0.1, 1.0]), 4.0  # the plane that cameras look at
HOLE = (slice(0, 6), slice(0, 10))  # no depth there


@dataclass(frozen=True)
class Shot:
    """A picture of the textured plane: (H, W, 3) uint8, and (H, W) depth in metres with a hole."""

    camera: Camera
    pixels: np.ndarray
    depth: np.ndarray


def colours(points: np.ndarray) -> np.ndarray:
    """(..., 3) in [0, 1] of points of the plane: smooth, so that resampling keeps it."""
    x, y = points[..., 0], points[..., 1]
    return 0.5 + 0.4 * np.stack([np.sin(2 * x), np.cos(1.5 * y), np.sin(x + 2 * y)], axis=-1)


def shoot(angle: float, size: tuple[int, int] = STORED, principal_point: tuple[float, float] = CENTRAL) -> Shot:
    """From a place on an arc about the plane's middle, in radians."""
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3] = Rotation.from_euler("yxz", [angle, 0.3 * angle, 0.1]).as_matrix()
    world_from_camera[:3, 3] = np.array([0, 0, 4.0]) - 3.5 * world_from_camera[:3, 2]
    K = np.array([[90, 0, principal_point[0]], [0, 91, principal_point[1]], [0, 0, 1.0]])
    camera = Camera(K=K, world_from_camera=world_from_camera, width=size[1], height=size[0])
    near = camera.unproject(pixel_grid(*size), np.ones(size)) - camera.centre
    depth = (DISTANCE - camera.centre @ NORMAL) / (near @ NORMAL)
    pixels = np.rint(255 * colours(camera.centre + depth[..., None] * near)).astype(np.uint8)
    depth[HOLE] = 0
    return Shot(camera, pixels, depth)


@cache
def shots(count: int = 12) -> list[Shot]:
    return [shoot(angle) for angle in np.linspace(-0.4, 0.4, count)]


def save_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({} if path.suffix == ".png" else {"quality": 98, "subsampling": 0}))


def save_millimetres(path: Path, depth: np.ndarray) -> None:
    save_picture(path, np.rint(depth * 1000).astype(np.uint16))


def save_exr(path: Path, depth: np.ndarray, precision: str) -> None:
    """One channel Y, ZIP, "half" or "float"."""
    import av

    encoder = av.CodecContext.create("exr", "w")
    encoder.height, encoder.width = depth.shape
    encoder.pix_fmt, encoder.time_base = "grayf32le", 1
    encoder.options = {"compression": "zip16", "format": precision}
    frame = av.VideoFrame.from_ndarray(depth.astype(np.float32), format="grayf32le")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))


def write_co3d(root: Path, scene: list[Shot], sequence: str = "110_1_1", split: str = "train") -> None:
    numbers = [3 * index + 1 for index in range(len(scene))]
    for number, shot in zip(numbers, scene, strict=True):
        folder, stem = root / "apple" / sequence, f"frame{number:06d}"
        save_picture(folder / "images" / f"{stem}.jpg", shot.pixels)
        largest = shot.depth.max()
        np.savez(
            folder / "images" / f"{stem}.npz",
            camera_intrinsics=shot.camera.K.astype(np.float32),
            camera_pose=shot.camera.world_from_camera.astype(np.float32),
            maximum_depth=largest,
        )
        counts = (shot.depth / largest * 65535).astype(np.uint16)
        save_picture(folder / "depths" / f"{stem}.jpg.geometric.png", counts)
        save_picture(folder / "masks" / f"{stem}.png", np.full(shot.depth.shape, 255, dtype=np.uint8))
    path = root / f"selected_seqs_{split}.json"
    selected = json.loads(path.read_text()) if path.exists() else {"book": {}, "apple": {}}
    selected["apple"][sequence] = numbers
    path.write_text(json.dumps(selected))


def tables(scene: list[Shot], names: list[str]) -> dict[str, np.ndarray]:
    """What ScanNet++ and ARKitScenes have in all_metadata.npz, rows in an order that is not that of names."""
    order = np.random.default_rng(0).permutation(len(scene))
    return {
        "scenes": np.array(["0a5c013435", "1ada7a0617"]),
        "sceneids": np.ones(len(scene), dtype=np.int64),
        "images": np.array(names)[order],
        "intrinsics": np.stack([scene[index].camera.K for index in order]).astype(np.float32),
        "trajectories": np.stack([scene[index].camera.world_from_camera for index in order]).astype(np.float32),
        "pairs": np.zeros((0, 3)),
        "counts": np.array([0, 0]),
    }


def write_scannetpp(root: Path, scene: list[Shot]) -> None:
    names = [f"DSC{index:05d}" if index % 2 else f"frame_{index:06d}" for index in range(len(scene))]
    table = tables(scene, names)
    table["intrinsics"][:, :2, 2] += 0.5  # stored with pixel centres at half-integers
    for name, shot in zip(names, scene, strict=True):
        save_picture(root / "1ada7a0617" / "images" / f"{name}.jpg", shot.pixels)
        save_millimetres(root / "1ada7a0617" / "depth" / f"{name}.png", shot.depth)
    np.savez(root / "all_metadata.npz", **table)


def write_arkitscenes(root: Path, scene: list[Shot], folder: str = "Training") -> None:
    stems = [f"1ada7a0617_{10 + index}.033" for index in range(len(scene))]
    for stem, shot in zip(stems, scene, strict=True):
        save_picture(root / folder / "1ada7a0617" / "vga_wide" / f"{stem}.jpg", shot.pixels)
        save_millimetres(root / folder / "1ada7a0617" / "lowres_depth" / f"{stem}.png", shot.depth)
    np.savez(root / folder / "all_metadata.npz", **tables(scene, [f"{stem}.png" for stem in stems]))


def write_habitat(root: Path, scene: list[Shot]) -> None:
    """Two instances of five views."""
    for first in (0, 5):
        for view, shot in enumerate(scene[first : first + 5], start=1):
            base = f"{root / 'hm3d' / '00006-a'}/{first:08d}_{view}"
            save_picture(Path(f"{base}.jpeg"), shot.pixels)
            save_exr(Path(f"{base}_depth.exr"), shot.depth, "half")
            camera = {
                "camera_intrinsics": shot.camera.K.tolist(),
                "R_cam2world": shot.camera.world_from_camera[:3, :3].tolist(),
                "t_cam2world": shot.camera.world_from_camera[:3, 3].tolist(),
            }
            Path(f"{base}_camera_params.json").write_text(json.dumps(camera))
    (root / "Habitat_1000_scenes_train.txt").write_text("hm3d/00006-a/00000000\nhm3d/00006-a/00000005\n")


def write_blendedmvs(root: Path, scene: list[Shot]) -> None:
    folder = root / "5a3ca9cb270f0e3f14d0eddb"
    (folder / "cams").mkdir(parents=True)
    (folder / "rendered_depth_maps").mkdir()
    pairs = [str(len(scene))]
    for view, shot in enumerate(scene):
        save_picture(folder / "blended_images" / f"{view:08d}.jpg", shot.pixels)
        save_picture(folder / "blended_images" / f"{view:08d}_masked.jpg", shot.pixels // 2)
        header = f"Pf\n{STORED[1]} {STORED[0]}\n-1.0\n".encode()
        (folder / "rendered_depth_maps" / f"{view:08d}.pfm").write_bytes(
            header + np.ascontiguousarray(shot.depth[::-1]).astype("<f4").tobytes()
        )
        extrinsic = "\n".join(" ".join(map(repr, row)) for row in shot.camera.camera_from_world.tolist())
        intrinsic = "\n".join(" ".join(map(repr, row)) for row in shot.camera.K.tolist())
        text = f"extrinsic\n{extrinsic}\n\nintrinsic\n{intrinsic}\n\n0.5 0.01 128 9.0\n"
        (folder / "cams" / f"{view:08d}_cam.txt").write_text(text)
        near = [other for other in (view - 1, view + 1, view + 2) if 0 <= other < len(scene)]
        pairs += [str(view), " ".join([str(len(near)), *(f"{other} 12.5" for other in near)])]
    (folder / "cams" / "pair.txt").write_text("\n".join(pairs) + "\n")
    (root / "train_list.txt").write_text(f"{folder.name}\n")


def write_megadepth(root: Path, scene: list[Shot]) -> None:
    names = [f"{100 + index}_b.jpg" for index in range(len(scene))]
    for name, shot in zip(names, scene, strict=True):
        base = f"{root / '0001' / '0' / name}"
        save_picture(Path(f"{base}.jpg"), shot.pixels)
        save_exr(Path(f"{base}.exr"), shot.depth, "float")
        np.savez(f"{base}.npz", intrinsics=shot.camera.K, cam2world=shot.camera.world_from_camera)
    fields = [("scene_id", "i8"), ("im1_id", "i8"), ("im2_id", "i8"), ("score", "f4")]
    pairs = np.array([(1, index, index + 1, 0.5) for index in range(len(scene) - 1)], dtype=fields)
    held_out = np.array([(0, 0, 1, 0.5)], dtype=fields)
    np.savez(
        root / "all_metadata.npz",
        scenes=np.array(["0015 0", "0001 0"]),
        images=np.array(names),
        pairs=np.concatenate([pairs, held_out]),
    )


def write_worlds_folder(root: Path, scene: list[Shot], name: str = "kitchen") -> None:
    folder = root / name
    (folder / "sparse" / "0").mkdir(parents=True)
    cameras, images = ["# a comment"], []
    for index, shot in enumerate(scene):
        save_picture(folder / "images" / "left" / f"{index:04d}.png", shot.pixels)
        save_picture(folder / "depth" / "left" / f"{index:04d}.png", np.rint(shot.depth / 0.0005).astype(np.uint16))
        K, camera_from_world = shot.camera.K, shot.camera.camera_from_world
        numbers = [STORED[1], STORED[0], K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5]
        cameras.append(f"{index + 1} PINHOLE " + " ".join(map(str, numbers)))
        x, y, z, w = Rotation.from_matrix(camera_from_world[:3, :3]).as_quat().tolist()
        pose = " ".join(map(repr, [w, x, y, z, *camera_from_world[:3, 3].tolist()]))
        images += [f"{index + 1} {pose} {index + 1} left/{index:04d}.png", ""]
    (folder / "sparse" / "0" / "cameras.txt").write_text("\n".join(cameras) + "\n")
    (folder / "sparse" / "0" / "images.txt").write_text("\n".join(images) + "\n")
    (folder / "sparse" / "0" / "points3D.txt").write_text("")
    (folder / "scene.json").write_text(json.dumps({"depth_unit": 0.0005}))


WRITERS: dict[str, Callable[[Path, list[Shot]], None]] = {
    "worlds-folder": write_worlds_folder,
    "co3d": write_co3d,
    "scannetpp": write_scannetpp,
    "arkitscenes": write_arkitscenes,
    "habitat": write_habitat,
    "blendedmvs": write_blendedmvs,
    "megadepth": write_megadepth,
}


@pytest.fixture(scope="module", params=KINDS)
def written(request, tmp_path_factory) -> tuple[str, Path]:
    """A kind and a folder of it; not to be changed."""
    root = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](root, shots())
    return request.param, root


@pytest.fixture
def fresh(request, tmp_path) -> Path:
    """A folder of the kind given by indirect parametrisation, which the test may damage."""
    WRITERS[request.param](tmp_path, shots())
    return tmp_path


def shot_of(views: PosedViews, view: int) -> Shot:
    """The shot that a view was taken from, by its camera."""
    pose = views.world_from_camera[0, view].numpy()
    distances = [np.abs(shot.camera.world_from_camera - pose).max() for shot in shots()]
    assert min(distances) < 1e-6
    return shots()[int(np.argmin(distances))]


def assert_equal(first: PosedViews, second: PosedViews) -> None:
    for name, values in vars(first).items():
        assert torch.equal(values, getattr(second, name)), name


def test_a_sample_of_the_stored_size_is_what_is_stored(written):
    kind, root = written
    views = open_dataset(kind, root, augmentation=PLAIN).sample(0, 4, STORED, seed=1)
    for view in range(4):
        shot = shot_of(views, view)
        np.testing.assert_allclose(views.K[0, view], shot.camera.K, atol=1e-4)
        np.testing.assert_allclose(views.depth[0, view], shot.depth, rtol=2**-10, atol=6e-4)  # halves; millimetres
        assert np.array_equal(views.valid[0, view], shot.depth > 0)
        np.testing.assert_allclose(views.images[0, view].permute(1, 2, 0), shot.pixels / 255, atol=0.03)


def test_shapes_types_and_ranges(written):
    kind, root = written
    views = open_dataset(kind, root).sample(0, 3, (32, 48), seed=5)
    shapes = {name: tuple(values.shape) for name, values in vars(views).items()}
    assert shapes == {
        "images": (1, 3, 3, 32, 48),
        "depth": (1, 3, 32, 48),
        "points": (1, 3, 32, 48, 3),
        "valid": (1, 3, 32, 48),
        "K": (1, 3, 3, 3),
        "world_from_camera": (1, 3, 4, 4),
    }
    assert views.valid.dtype == torch.bool and views.valid.float().mean() > 0.9
    assert all(values.dtype == torch.float32 for name, values in vars(views).items() if name != "valid")
    assert views.images.min() >= 0 and views.images.max() <= 1
    assert (views.depth[~views.valid] == 0).all() and (views.points[~views.valid] == 0).all()


def test_points_of_one_view_agree_with_depth_and_colour_of_another(written):
    kind, root = written
    views = open_dataset(kind, root, augmentation=Augmentation(colour_jitter=False)).sample(0, 4, (48, 60), seed=2)
    for source in range(4):
        points = views.points[0, source][views.valid[0, source]].double().numpy()
        colour = views.images[0, source].permute(1, 2, 0)[views.valid[0, source]].numpy()
        assert np.median(np.abs(points @ NORMAL - DISTANCE)) < 0.01
        assert np.median(np.abs(colour - colours(points))) < 0.01
        for target in range(4):
            camera = Camera(
                K=views.K[0, target].double().numpy(),
                world_from_camera=views.world_from_camera[0, target].double().numpy(),
                width=60,
                height=48,
            )
            pixels, depth = camera.project(points)
            x, y = np.rint(pixels).astype(int).T
            seen = (x >= 0) & (x < 60) & (y >= 0) & (y < 48)
            seen[seen] &= views.valid[0, target, y[seen], x[seen]].numpy()
            there = views.depth[0, target, y[seen], x[seen]].numpy()
            assert seen.mean() > 0.3
            assert np.median(np.abs(there / depth[seen] - 1)) < 0.01
            picture = views.images[0, target].permute(1, 2, 0).numpy()
            assert np.median(np.abs(picture[y[seen], x[seen]] - colour[seen])) < 0.03


def test_points_are_depth_seen_by_the_camera_of_the_sample(written):
    kind, root = written
    views = open_dataset(kind, root).sample(0, 2, (40, 40), seed=3)
    for view in range(2):
        geometry = (values[0, view].double().numpy() for values in (views.depth, views.K, views.world_from_camera))
        points = np.nan_to_num(points_from_depth(*geometry))
        np.testing.assert_allclose(views.points[0, view], points, atol=1e-4)


def test_equal_arguments_give_equal_samples_and_other_seeds_others(written):
    kind, root = written
    first = open_dataset(kind, root).sample(0, 5, (32, 40), seed=7)
    assert_equal(first, open_dataset(kind, root).sample(0, 5, (32, 40), seed=7))
    assert not torch.equal(first.images, open_dataset(kind, root).sample(0, 5, (32, 40), seed=8).images)


def test_pictures_are_repeated_where_there_are_too_few(written):
    kind, root = written
    views = open_dataset(kind, root, augmentation=PLAIN).sample(0, 20, (24, 32), seed=0)
    assert views.images.shape == (1, 20, 3, 24, 32)
    assert 2 < len({poses.numpy().tobytes() for poses in views.world_from_camera[0]}) < 20


def test_weights_go_with_the_scenes(written):
    kind, root = written
    dataset = open_dataset(kind, root)
    assert dataset.weights.shape == (len(dataset),) and (dataset.weights > 0).all()
    assert len({dataset.name(index) for index in range(len(dataset))}) == len(dataset)


@pytest.mark.parametrize(
    ("index", "views", "size", "seed"),
    [(99, 2, (8, 8), 0), (-1, 2, (8, 8), 0), (0, 0, (8, 8), 0), (0, 2, (0, 8), 0), (0, 2, (8, 8), -1)],
)
def test_arguments_out_of_range_are_refused(written, index, views, size, seed):
    kind, root = written
    with pytest.raises(InputError, match=r"got|counted from 0"):
        open_dataset(kind, root).sample(index, views, size, seed)


def test_an_unknown_kind_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(InputError, match=r"'kitti'.*worlds-folder, co3d.*megadepth"):
        open_dataset("kitti", tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_and_an_empty_folder_say_what_is_expected(kind, tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError) as caught:
            open_dataset(kind, folder)
        assert str(folder) in str(caught.value)
        assert f"A folder of kind '{kind}' holds" in caught.value.hint and "\n" not in caught.value.hint


@pytest.mark.parametrize("kind", ["scannetpp", "worlds-folder"])
def test_sets_without_held_out_scenes_say_so(kind, tmp_path):
    with pytest.raises(InputError, match="no split 'test', expected one of train"):
        open_dataset(kind, tmp_path, split="test")


DATA_FILES = [
    ("worlds-folder", "**/images/*/*.png"),
    ("worlds-folder", "**/depth/*/*.png"),
    ("worlds-folder", "**/scene.json"),
    ("worlds-folder", "**/cameras.txt"),
    ("co3d", "**/*.jpg"),
    ("co3d", "**/*.npz"),
    ("co3d", "**/*.geometric.png"),
    ("co3d", "**/masks/*.png"),
    ("scannetpp", "**/*.jpg"),
    ("scannetpp", "**/depth/*.png"),
    ("arkitscenes", "**/*.jpg"),
    ("arkitscenes", "**/lowres_depth/*.png"),
    ("habitat", "**/*.jpeg"),
    ("habitat", "**/*.exr"),
    ("habitat", "**/*.json"),
    ("blendedmvs", "**/*0?.jpg"),
    ("blendedmvs", "**/*.pfm"),
    ("blendedmvs", "**/*_cam.txt"),
    ("blendedmvs", "**/pair.txt"),
    ("megadepth", "**/*.jpg.jpg"),
    ("megadepth", "**/*.exr"),
    ("megadepth", "0001/**/*.npz"),
]


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
@pytest.mark.parametrize(("fresh", "pattern"), DATA_FILES, indirect=["fresh"], ids=lambda value: str(value))
def test_missing_and_corrupt_files_are_named(fresh, pattern, damage, request):
    kind = request.node.callspec.params["fresh"]
    files = sorted(fresh.glob(pattern))
    assert files
    for path in files:
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(b"\x89 damaged")
    with pytest.raises(InputError) as caught:
        open_dataset(kind, fresh).sample(0, 2, (24, 32), seed=0)
    # COLMAP's own reader reads the cameras, and does not say which of its three files is the damaged one.
    named = [path.parent if path.name == "cameras.txt" else path for path in files]
    assert any(str(path) in str(caught.value) for path in named)
