"""The folder for splat trainers, read back by other programs: cameras, points, masks and depth priors fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import plyfile
import pycolmap
import pytest
from PIL import Image

from manyview.errors import ExportError
from manyview.files import staged
from manyview.formats import splat_folder
from manyview.formats.splat_folder import export, write_splat_folder
from manyview.scene import ExportOptions, Scene
from scenes import (
    NETWORK_SIZE,
    ORIGINAL_SIZE,
    digest_of,
    synthetic_scene,
    with_sparse_points,
    with_view,
    without_camera,
)

HALF = 0.5
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.fixture
def photographed(tmp_path) -> Scene:
    (tmp_path / "photos").mkdir()
    return synthetic_scene(photos=tmp_path / "photos")


def written(scene: Scene, folder: Path, **how) -> Path:
    options = how.pop("options", ExportOptions(max_colmap_points=500, max_points=3000))
    with staged(folder) as staging:
        paths = write_splat_folder(scene, staging, options, **how)
        assert sorted(paths) == sorted(p for p in staging.rglob("*") if not p.is_dir())
    return folder


def frames_of(folder: Path) -> list[dict]:
    return json.loads((folder / "transforms.json").read_text())["frames"]


def in_pixels(frame: dict, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World points (P, 3) -> pixels (P, 2) with the top-left centre at (0, 0), and depth, as the format says."""
    camera_from_world = np.linalg.inv(np.array(frame["transform_matrix"]))
    x, y, z = camera_from_world[:3, :3] @ world.T + camera_from_world[:3, 3:]
    column = frame["cx"] + frame["fl_x"] * x / -z - HALF
    row = frame["cy"] - frame["fl_y"] * y / -z - HALF
    return np.stack([column, row], -1), -z


def test_cameras_and_points_read_back_project_as_in_the_scene(tmp_path, photographed) -> None:
    folder = written(photographed, tmp_path / "out")
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    world = np.array([point.xyz for point in model.points3D.values()])
    assert len(world) == 500 and len({tuple(point.color) for point in model.points3D.values()}) > 10
    for view, frame in zip(photographed.views, frames_of(folder), strict=True):
        assert view.camera is not None
        expected, depth = view.camera.project(world)
        ahead = depth > 0.1
        image = model.find_image_with_name(Path(frame["file_path"]).name)
        assert image is not None and image.camera.model.name == "PINHOLE"
        by_colmap = np.array([image.project_point(point) for point in world[ahead]]) - HALF
        by_transforms, _ = in_pixels(frame, world[ahead])
        assert np.abs(by_colmap - expected[ahead]).max() < 1e-3
        assert np.abs(by_transforms - expected[ahead]).max() < 1e-3
        with Image.open(folder / frame["file_path"]) as picture:
            assert (picture.height, picture.width) == ORIGINAL_SIZE == (image.camera.height, image.camera.width)
            colours = np.asarray(picture)
        seen = image.get_observation_points2D()
        x, y = np.array([point.xy for point in seen]).astype(int).T
        known = np.array([model.points3D[point.point3D_id].color for point in seen], dtype=float)
        assert len(seen) > 100 and np.median(np.abs(colours[y, x] - known)) <= 3


def test_both_kinds_of_initial_points_are_of_the_scene(tmp_path, photographed) -> None:
    folder = written(photographed, tmp_path / "out")
    vertices = plyfile.PlyData.read(folder / "sparse_pc.ply")["vertex"]
    world = np.stack([vertices[axis] for axis in "xyz"], -1)
    assert len(world) == 3000
    everything = np.concatenate([view.points[view.valid] for view in photographed.views])
    assert {tuple(row) for row in world.tolist()} <= {tuple(row) for row in everything.tolist()}


def test_depth_priors_are_thousandths_of_z_depth_over_the_whole_picture(tmp_path, photographed) -> None:
    """Read as nerfstudio does: scaled by its default, stretched over the picture by nearest pixels."""
    folder = written(photographed, tmp_path / "out", options=ExportOptions(percentile=0))
    for view, frame in zip(photographed.views, frames_of(folder), strict=True):
        values = np.load(folder / frame["depth_file_path"])
        assert values.dtype == np.float32 and np.isfinite(values).all() and (values >= 0).all()
        assert 0.3 < values.size / (ORIGINAL_SIZE[0] * ORIGINAL_SIZE[1] / (3.1 * 2.7)) < 3  # about the network's pixels
        height, width = ORIGINAL_SIZE
        rows = np.arange(height) * values.shape[0] // height
        columns = np.arange(width) * values.shape[1] // width
        stretched = values[rows[:, None], columns] * 0.001
        y, x = np.mgrid[4:30:5, 4:46:5]  # network pixels away from borders
        world = view.points[y, x].reshape(-1, 3).astype(np.float64)
        pixels, depth = in_pixels(frame, world)
        column, row = np.rint(pixels).astype(int).T
        np.testing.assert_allclose(stretched[row, column], depth, rtol=0.06)  # a pixel of the network off, at most
        assert np.median(np.abs(stretched[row, column] / depth - 1)) < 0.01
        assert (stretched[:5] == 0).all() and (stretched[:, :10] == 0).all()  # what the network did not see


@pytest.mark.parametrize("axis", [0, 1])
def test_depth_priors_lie_where_the_picture_is_to_a_fraction_of_a_pixel(tmp_path, photographed, axis) -> None:
    ramp = np.broadcast_to(100.0 + np.indices(NETWORK_SIZE)[axis], NETWORK_SIZE).astype(np.float32)
    valid = np.ones(NETWORK_SIZE, dtype=bool)
    folder = written(
        with_view(photographed, 0, depth=ramp, valid=valid), tmp_path / "out", options=ExportOptions(percentile=0)
    )
    values = np.load(folder / "depths" / "view0.png.npy") / 1000
    seen = np.argwhere(values > 0)
    centres = (seen[:, axis] + HALF) * ORIGINAL_SIZE[axis] / values.shape[axis] - HALF  # original pixels
    expected = 100 + (centres - (9.6, 15.3)[axis]) / (2.7, 3.1)[axis]
    error = values[tuple(seen.T)] - expected
    assert np.abs(error).max() < 0.51 and abs(error.mean()) < 0.05


def test_depth_priors_leave_out_what_is_not_sure_or_not_valid(tmp_path) -> None:
    scene = synthetic_scene(1)
    folder = written(scene, tmp_path / "out", options=ExportOptions(percentile=50))
    values = np.load(folder / "depths" / "view0.png.npy")
    view = scene.views[0]
    assert values.shape == NETWORK_SIZE  # arrays have pictures of the network's size
    kept = values > 0
    assert not kept[~view.valid].any() and 0.45 < kept[view.valid].mean() < 0.55
    assert view.confidence[kept].min() >= view.confidence[view.valid & ~kept].max()
    np.testing.assert_allclose(values[kept] / 1000, view.depth[kept], rtol=1e-6)


def test_masks_are_of_the_pictures_size_for_every_picture(tmp_path, photographed) -> None:
    """One at the original size, one at the network's, one that is all to be trained on."""
    original = np.ones(ORIGINAL_SIZE, dtype=bool)
    original[:60] = False
    small = np.ones(NETWORK_SIZE, dtype=bool)
    small[:, :26] = False
    folder = written(photographed, tmp_path / "out", masks=[original, small, None])
    masks = []
    for frame in frames_of(folder):
        with Image.open(folder / frame["mask_path"]) as picture:
            assert picture.mode == "L" and (picture.height, picture.width) == (frame["h"], frame["w"])
            masks.append(np.asarray(picture))
    assert np.array_equal(masks[0], np.where(original, 255, 0)) and (masks[2] == 255).all()
    border = 15.3 + 3.1 * 25.5  # between the network's columns 25 and 26
    columns = np.arange(ORIGINAL_SIZE[1])
    seen = (columns > 15.3 + 3.1 * -0.5) & (columns < 15.3 + 3.1 * 51.5)
    expected = np.where((columns < border) & seen, 0, 255)
    middle = masks[1][ORIGINAL_SIZE[0] // 2]
    assert (middle != expected).sum() <= 2 and set(np.unique(middle)) == {0, 255}
    assert (masks[1][:8] == 255).all()  # the network did not see these rows, and so no mask speaks of them


def test_masks_of_arrays_are_brought_to_the_networks_size(tmp_path) -> None:
    mask = np.ones(ORIGINAL_SIZE, dtype=bool)
    mask[:, : ORIGINAL_SIZE[1] // 2] = False
    folder = written(synthetic_scene(1), tmp_path / "out", masks=[mask])
    with Image.open(folder / "masks" / "view0.png.png") as picture:
        values = np.asarray(picture)
    assert values.shape == NETWORK_SIZE
    assert (values[:, 28:] == 255).all() and (values[:, :27] == 0).all()


@pytest.mark.parametrize(
    ("masks", "reason"),
    [([None], "1 masks for 3 views"), ([np.ones((5, 5), bool), None, None], r"shape \(5, 5\)")],
)
def test_masks_that_do_not_fit_are_errors_and_nothing_is_written(tmp_path, masks, reason) -> None:
    with pytest.raises(ExportError, match=reason) as caught:
        written(synthetic_scene(), tmp_path / "out", masks=masks)
    assert caught.value.hint and not (tmp_path / "out").exists()


def test_views_without_camera_are_left_out_everywhere(tmp_path, photographed) -> None:
    folder = written(without_camera(photographed, 1), tmp_path / "out", masks=[None, None, None])
    names = ["view0.png", "view2.png"]
    assert [Path(frame["file_path"]).name for frame in frames_of(folder)] == names
    for place, suffix in (("images", ""), ("masks", ".png"), ("depths", ".npy")):
        assert sorted(path.name for path in (folder / place).iterdir()) == [name + suffix for name in names]


def test_without_priors_frames_name_none(tmp_path) -> None:
    folder = written(synthetic_scene(), tmp_path / "out", depths=False)
    assert not (folder / "depths").exists() and not (folder / "masks").exists()
    assert all("depth_file_path" not in frame and "mask_path" not in frame for frame in frames_of(folder))


def test_a_view_without_any_depth_has_an_empty_prior(tmp_path) -> None:
    scene = synthetic_scene()
    view = scene.views[1]
    scene = with_view(scene, 1, valid=view.valid & False, depth=view.depth * 0, points=view.points * 0)
    folder = written(scene, tmp_path / "out")
    assert not np.load(folder / "depths" / "view1.png.npy").any()


def test_units_are_stated_and_equal_scenes_give_equal_bytes(tmp_path) -> None:
    scene = replace(synthetic_scene(), metric=True)
    first, second = written(scene, tmp_path / "a"), written(scene, tmp_path / "b")
    assert digest_of(first) == digest_of(second)
    about = json.loads((first / "transforms.json").read_text())
    assert about["units"] == "metres" and "metres" in about["depths"] and about["depth_unit_scale_factor"] == 0.001


def test_it_is_an_exporter_that_says_what_it_writes(tmp_path) -> None:
    with staged(tmp_path / "out") as staging:
        export(synthetic_scene(), staging, ExportOptions())
        assert {path.name for path in staging.iterdir()} <= set(splat_folder.WRITES)


@pytest.mark.parametrize("formats", [["splat-ready", "colmap", "nerfstudio"], ["nerfstudio", "colmap", "splat-ready"]])
def test_other_formats_in_the_same_folder_take_nothing_away(tmp_path, photographed, formats) -> None:
    options = ExportOptions(max_colmap_points=500, max_points=3000)
    scene = with_sparse_points(photographed)
    scene.export(tmp_path / "together", formats, options=options)
    scene.export(tmp_path / "alone", ["splat-ready"], options=options)
    assert digest_of(tmp_path / "together") == digest_of(tmp_path / "alone")
