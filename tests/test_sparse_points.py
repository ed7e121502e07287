"""Points triangulated from matches stay with a scene: on disk, in groups, in other worlds, in COLMAP's files."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import trimesh
from PIL import Image

from manyview.errors import ExportError, InputError
from manyview.files import read_json
from manyview.geometry import Similarity
from manyview.refine.world import apply
from manyview.scene import ExportOptions, FusedPoints, Scene, SparsePoints
from scenes import synthetic_scene, with_sparse_points


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    (tmp_path / "photos").mkdir()
    return with_sparse_points(synthetic_scene(photos=tmp_path / "photos"))


def test_they_are_saved_and_read_to_the_last_bit(scene: Scene, tmp_path: Path) -> None:
    scene.save(tmp_path / "out")
    found = Scene.load(tmp_path / "out")
    assert found.equals(scene) and found.sparse is not None
    assert not found.equals(replace(scene, sparse=None))
    assert read_json(tmp_path / "out" / "scene.json")["sparse_points"] == len(scene.sparse or ())
    assert Scene.load(tmp_path / "out").sparse is not None


def test_a_scene_without_them_has_none_after_reading(scene: Scene, tmp_path: Path) -> None:
    replace(scene, sparse=None).save(tmp_path / "out")
    assert Scene.load(tmp_path / "out").sparse is None


def test_numbers_that_are_not_finite_are_not_written(scene: Scene, tmp_path: Path) -> None:
    assert scene.sparse is not None
    broken = replace(scene, sparse=replace(scene.sparse, depth=scene.sparse.depth * np.nan))
    with pytest.raises(ExportError, match=r"sparse\.depth"):
        broken.save(tmp_path / "out")


def test_they_move_with_the_world(scene: Scene) -> None:
    turn = np.array([[0, -1.0, 0], [1, 0, 0], [0, 0, 1]])
    similarity = Similarity(scale=2.5, rotation=turn, translation=np.array([1.0, 2, 3]))
    moved = apply(scene, similarity, metric=True, world="gravity up")
    assert moved.sparse is not None and scene.sparse is not None
    for index, view in enumerate(moved.views):
        pixels, depth, rows = moved.sparse.of_view(index)
        assert view.camera is not None
        projected, away = view.camera.project(moved.sparse.points[rows])
        np.testing.assert_allclose(projected, pixels, atol=1e-6)
        np.testing.assert_allclose(away, depth, rtol=1e-9)


def test_a_group_takes_its_points_along_and_is_not_metric_by_anothers_scale(scene: Scene) -> None:
    """Views 0 and 1 are a group, and so is view 2; of the points, the last ten are of that one."""
    assert scene.sparse is not None
    sparse = replace(scene.sparse, group=np.array([0] * 50 + [1] * 10, dtype=np.int32))
    last = scene.views[2]
    other = replace(last, group=1, group_camera=last.camera, camera=None, status="other_group")
    grouped = replace(scene, views=(*scene.views[:2], other), sparse=sparse, metric=True)
    first, second = grouped.group(0), grouped.group(1)
    assert first.metric and not second.metric
    assert first.sparse is not None and second.sparse is not None
    assert (len(first.sparse), len(second.sparse)) == (50, 10)
    np.testing.assert_array_equal(second.sparse.points, sparse.points[50:])
    assert set(second.sparse.view.tolist()) <= {0} and set(first.sparse.view.tolist()) <= {0, 1}
    pixels, depth, rows = second.sparse.of_view(0)
    camera = second.views[0].camera
    assert camera is not None
    projected, away = camera.project(second.sparse.points[rows])
    np.testing.assert_allclose(projected, pixels, atol=1e-6)
    np.testing.assert_allclose(away, depth, rtol=1e-9)
    with pytest.raises(InputError):
        grouped.group(2)


def test_a_colmap_model_has_the_matches_as_tracks(scene: Scene, tmp_path: Path) -> None:
    scene.export(tmp_path, ["colmap"], options=ExportOptions(link_images="copy"))
    model = pycolmap.Reconstruction(str(tmp_path / "sparse" / "0"))
    assert scene.sparse is not None
    count = np.bincount(scene.sparse.point, minlength=len(scene.sparse))
    assert model.num_points3D() == (count > 1).sum() > 0
    assert model.compute_num_observations() == count[count > 1].sum()
    assert model.compute_mean_reprojection_error() < 1e-3
    assert "matches" in read_json(tmp_path / "sparse" / "0" / "manyview.json")["points"]


def test_of_too_many_points_those_that_most_views_see_are_kept(scene: Scene, tmp_path: Path) -> None:
    scene.export(tmp_path, ["colmap"], options=ExportOptions(link_images="copy", max_colmap_points=5))
    model = pycolmap.Reconstruction(str(tmp_path / "sparse" / "0"))
    assert scene.sparse is not None
    count = np.sort(np.bincount(scene.sparse.point))[::-1]
    assert sorted((p.track.length() for p in model.points3D.values()), reverse=True) == list(count[:5])


def test_a_folder_for_splats_starts_from_the_dense_points_all_the_same(scene: Scene, tmp_path: Path) -> None:
    scene.export(tmp_path, ["splat-ready"], options=ExportOptions(link_images="copy"))
    model = pycolmap.Reconstruction(str(tmp_path / "sparse" / "0"))
    assert model.num_points3D() > 10 * len(scene.sparse or ())


def test_masks_come_from_a_folder(scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    height, width = scene.views[0].original_size
    masks = tmp_path / "masks"
    masks.mkdir()
    white = np.zeros((height, width), dtype=np.uint8)
    white[: height // 2] = 255
    Image.fromarray(white).save(masks / f"{Path(scene.views[0].name).stem}.png")
    options = ExportOptions(link_images="copy", masks=masks)
    Image.fromarray(white).save(masks / "typing-error.png")
    with caplog.at_level("WARNING"):
        scene.export(tmp_path / "out", ["splat-ready"], options=options)
    assert "2 without a mask" in caplog.text and "typing-error.png" in caplog.text
    frames = read_json(tmp_path / "out" / "transforms.json")["frames"]
    found = [np.asarray(Image.open(tmp_path / "out" / frame["mask_path"])) for frame in frames]
    np.testing.assert_array_equal(found[0], white)
    assert (found[1] == 255).all()


@pytest.mark.parametrize(("make", "words"), [(False, "no folder of masks"), (True, "named as one of the photos")])
def test_a_folder_of_masks_that_has_none_is_refused(scene: Scene, tmp_path: Path, make: bool, words: str) -> None:
    if make:
        (tmp_path / "masks").mkdir()
    with pytest.raises(ExportError, match=words):
        scene.export(tmp_path / "out", ["splat-ready"], options=ExportOptions(masks=tmp_path / "masks"))


def test_every_field_has_one_row_for_each_point_or_each_observation(scene: Scene) -> None:
    assert scene.sparse is not None
    lengths = {field.name: len(getattr(scene.sparse, field.name)) for field in fields(SparsePoints)}
    assert len({lengths[name] for name in ("points", "colours", "errors", "group")}) == 1
    assert len({lengths[name] for name in ("view", "point", "pixels", "depth")}) == 1


# ------------------------------------------------------------------ fused points
def fused_of(scene: Scene) -> FusedPoints:
    """Every seventh point of the scene's depth maps, as if two views had confirmed it."""
    cloud = scene.point_cloud(percentile=0)
    arrays = {f.name: getattr(cloud, f.name)[::7] for f in fields(cloud)}
    return FusedPoints(**arrays, view_counts=np.full(len(arrays["view"]), 2, dtype=np.int32))


def test_fused_points_are_saved_and_read_to_the_last_bit(scene: Scene, tmp_path: Path) -> None:
    scene = replace(scene, fused=fused_of(scene))
    scene.save(tmp_path / "out")
    found = Scene.load(tmp_path / "out")
    assert found.equals(scene) and isinstance(found.fused, FusedPoints)
    assert read_json(tmp_path / "out" / "scene.json")["fused_points"] == len(found.fused)


def test_the_point_cloud_and_its_exports_are_the_fused_points_where_there_are_any(scene: Scene, tmp_path: Path) -> None:
    fused = fused_of(scene)
    scene = replace(scene, fused=fused)
    cloud = scene.point_cloud(percentile=0)
    np.testing.assert_array_equal(cloud.points, fused.points)
    np.testing.assert_array_equal(scene.point_cloud(percentile=0, views=[1]).points, fused.points[fused.view == 1])
    half = scene.point_cloud(percentile=50)
    assert 0.3 * len(fused) < len(half) < 0.7 * len(fused)
    assert len(scene.point_cloud(percentile=0, max_points=40)) == 40
    scene.export(tmp_path / "out", ["ply"], options=ExportOptions(percentile=0))
    found = trimesh.load(tmp_path / "out" / "points.ply")
    assert isinstance(found, trimesh.PointCloud)
    np.testing.assert_allclose(np.asarray(found.vertices), fused.points, atol=1e-6)


def test_fused_points_of_views_whose_camera_is_doubtful_are_left_out(scene: Scene) -> None:
    doubtful = replace(scene.views[1], status="low_confidence")
    scene = replace(scene, fused=fused_of(scene), views=(scene.views[0], doubtful, *scene.views[2:]))
    assert 1 not in scene.point_cloud(percentile=0).view
    assert 1 in scene.point_cloud(percentile=0, include_low_confidence=True).view


def test_fused_points_move_with_the_world_and_belong_to_its_group(scene: Scene) -> None:
    scene = replace(scene, fused=fused_of(scene))
    similarity = Similarity(scale=3.0, rotation=np.diag([-1.0, -1, 1]), translation=np.array([0.0, 1, 0]))
    moved = apply(scene, similarity, metric=True, world="gravity up")
    assert moved.fused is not None and scene.fused is not None
    np.testing.assert_allclose(moved.fused.points, similarity.apply(scene.fused.points), rtol=1e-5, atol=1e-5)
    first = scene.views[0]
    alone = replace(first, group=1, group_camera=first.camera, camera=None, status="other_group")
    linked = replace(scene, views=(alone, *scene.views[1:])).group(0)
    assert linked.fused is not None
    kept = scene.fused.view > 0
    np.testing.assert_array_equal(linked.fused.points, scene.fused.points[kept])
    np.testing.assert_array_equal(linked.fused.view, scene.fused.view[kept] - 1)


def test_depth_priors_are_of_all_that_a_view_sees_and_not_of_what_it_was_the_first_to_see(
    scene: Scene, tmp_path: Path
) -> None:
    scene.export(tmp_path / "plain", ["splat-ready"])
    replace(scene, fused=fused_of(scene)).export(tmp_path / "fused", ["splat-ready"])
    priors = sorted((tmp_path / "plain" / "depths").glob("*.npy"))
    assert len(priors) == 3
    for path in priors:
        np.testing.assert_array_equal(np.load(path), np.load(tmp_path / "fused" / "depths" / path.name))


# ------------------------------------------------------------------ cameras without depth
def without_depth(scene: Scene) -> Scene:
    """As an imported project without a network."""
    views = [
        replace(view, valid=np.zeros_like(view.valid), depth=view.depth * 0, points=view.points * 0)
        for view in scene.views
    ]
    return replace(scene, views=views)


def test_a_scene_without_depth_gives_its_sparse_points_to_every_format(scene: Scene, tmp_path: Path) -> None:
    scene = without_depth(scene)
    assert scene.sparse is not None
    scene.export(tmp_path, ["ply", "glb", "splat-ready"], options=ExportOptions(max_points=45, max_colmap_points=30))
    found = trimesh.load(tmp_path / "points.ply")
    assert isinstance(found, trimesh.PointCloud) and len(found.vertices) == 45
    assert {tuple(p) for p in found.vertices.astype(np.float32)} <= {
        tuple(p) for p in scene.sparse.points.astype(np.float32)
    }
    assert pycolmap.Reconstruction(str(tmp_path / "sparse" / "0")).num_points3D() == 30
    assert not (tmp_path / "depths").exists()
    assert all("depth_file_path" not in frame for frame in read_json(tmp_path / "transforms.json")["frames"])


def test_a_folder_without_any_camera_is_called_so(
    scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = [replace(view, camera=None, status="camera_not_found") for view in scene.views]
    with caplog.at_level("WARNING"):
        replace(scene, views=lost, sparse=None).export(tmp_path, ["splat-ready"])
    assert len({words for words in caplog.messages if "has no camera" in words}) == 1
