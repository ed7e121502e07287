"""Cameras that are known already become a scene, with depth by a network that agrees with their sparse points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import manyview
from manyview.errors import InputError, WeightsError
from manyview.methods.importing import import_scene
from manyview.scene import ExportOptions, Scene
from scenes import synthetic_scene, with_sparse_points

EVERYTHING = ExportOptions(percentile=0, link_images="copy")


@pytest.fixture
def project(tmp_path: Path) -> tuple[Path, Scene]:
    """A COLMAP project with photos and tracks, and the scene it was made of."""
    (tmp_path / "photos").mkdir()
    scene = with_sparse_points(synthetic_scene(photos=tmp_path / "photos"))
    scene.export(tmp_path / "project", ["colmap"], options=EVERYTHING)
    return tmp_path / "project", scene


def test_cameras_and_tracks_of_a_colmap_project_come_back(project: tuple[Path, Scene]) -> None:
    folder, scene = project
    found = import_scene(folder, model=None)
    assert found.world == "given" and not found.metric
    assert [view.name for view in found.views] == [view.name for view in scene.views]
    np.testing.assert_allclose(found.world_from_camera, scene.world_from_camera, atol=1e-9)
    np.testing.assert_allclose(found.K, scene.K, atol=1e-9)
    assert found.sparse is not None and scene.sparse is not None
    seen_twice = np.bincount(scene.sparse.point) > 1
    assert len(found.sparse) == seen_twice.sum()
    assert found.sparse.errors.max() < 1e-3
    for index, view in enumerate(found.views):
        pixels, depth, rows = found.sparse.of_view(index)
        assert view.camera is not None
        projected, away = view.camera.project(found.sparse.points[rows])
        np.testing.assert_allclose(projected, pixels, atol=1e-3)
        np.testing.assert_allclose(away, depth, rtol=1e-9)


def test_transforms_json_gives_the_same_cameras(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    scene = synthetic_scene(photos=tmp_path / "photos")
    scene.export(tmp_path / "project", ["nerfstudio"], options=EVERYTHING)
    for source in (tmp_path / "project", tmp_path / "project" / "transforms.json"):
        found = import_scene(source, model=None)
        np.testing.assert_allclose(found.world_from_camera, scene.world_from_camera, atol=1e-9)
        assert found.sparse is None  # the format does not say who sees which point


def test_an_imported_scene_is_saved_exported_and_read_again(project: tuple[Path, Scene], tmp_path: Path) -> None:
    found = import_scene(project[0], model=None, metric=True)
    assert found.metric
    found.save(tmp_path / "saved")
    assert Scene.load(tmp_path / "saved").equals(found)
    found.export(tmp_path / "again", ["colmap"], options=EVERYTHING)
    again = import_scene(tmp_path / "again", model=None)
    assert again.metric  # the export says so
    np.testing.assert_allclose(again.world_from_camera, found.world_from_camera, atol=1e-9)


def test_depth_of_the_network_is_fitted_to_the_sparse_points(project: tuple[Path, Scene]) -> None:
    """Cameras stay to the last bit of float64's rounding; depth has the scale of the points."""
    folder, scene = project
    with_depth = import_scene(folder, device="cpu")
    np.testing.assert_allclose(with_depth.world_from_camera, scene.world_from_camera, atol=1e-6)
    assert with_depth.sparse is not None
    for index, view in enumerate(with_depth.views):
        pixels, depth, _ = with_depth.sparse.of_view(index)
        in_network = np.rint((pixels - view.original_from_network[:2, 2]) / np.diag(view.original_from_network)[:2])
        x, y = in_network.astype(int).T
        inside = (x >= 0) & (y >= 0) & (x < view.size[1]) & (y < view.size[0])
        found = view.depth[y[inside], x[inside]]
        assert np.median(np.abs(found / depth[inside] - 1)[found > 0]) < 0.25


def test_a_model_that_takes_no_cameras_is_refused(project: tuple[Path, Scene]) -> None:
    with pytest.raises(InputError, match="camera"):
        import_scene(project[0], model=manyview.load("manyview-small", device="cpu"))


def test_what_cannot_be_imported_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no COLMAP model"):
        import_scene(tmp_path)
    with pytest.raises(InputError):
        import_scene(tmp_path / "nothing")


def test_a_damaged_photo_is_left_out_and_named(project: tuple[Path, Scene]) -> None:
    folder, scene = project
    photo = next((folder / "images").iterdir())
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    for model in (None, "manyview-small-pairs"):
        found = import_scene(folder, model=model, device="cpu")
        assert [view.name for view in found.views] == [v.name for v in scene.views if v.name != photo.name]
        assert [name for name, _ in found.skipped] == [photo.name] and "cannot be read" in found.skipped[0][1]
        assert found.provenance.settings["cameras_from"] == "given"


def test_distortion_needs_a_folder_for_the_photos(project: tuple[Path, Scene], tmp_path: Path) -> None:
    import pycolmap

    folder, _ = project
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    for camera in model.cameras.values():
        fx, fy, cx, cy = camera.params
        camera.model = pycolmap.CameraModelId.OPENCV
        camera.params = [fx, fy, cx, cy, -0.05, 0.01, 0, 0]
    model.write_binary(str(folder / "sparse" / "0"))
    with pytest.raises(InputError, match="undistorted="):
        import_scene(folder, model=None)
    with pytest.raises(WeightsError):
        import_scene(folder, model="no-such-model", undistorted=tmp_path / "new")
    assert not (tmp_path / "new").exists()  # the model is looked for before photos are drawn
    found = import_scene(folder, model=None, undistorted=tmp_path / "new")
    assert all(Path(view.source or "").parent == tmp_path / "new" / "images" for view in found.views)
