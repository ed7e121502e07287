"""Where a photo was taken, among posed photos, with a network that knows the truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from exact_pairs import ExactPairs, Photo, photos
from manyview.errors import InputError
from manyview.geometry import Camera, pixel_grid, transform_pixels
from manyview.images.aspect import aspect_frame, trained_shapes
from manyview.methods import localise
from manyview.methods.localise import Localisation, MapImage, localize, map_from_colmap, map_from_scene
from manyview.scene import ExportOptions, Provenance, Scene, SceneView


@pytest.fixture
def world() -> tuple[Photo, ...]:
    return photos()


@pytest.fixture
def network(world: tuple[Photo, ...]) -> ExactPairs:
    return ExactPairs([photo.halved() for photo in world])


def dense(world: tuple[Photo, ...]) -> list[MapImage]:
    return [MapImage(picture=photo.pixels, world_points=photo.world_points) for photo in world[1:]]


def check(found: Localisation, truth: Photo, degrees: float = 0.1, distance: float = 0.005) -> None:
    """`distance` is relative to the median depth of the query."""
    assert found.status == "found", found.reason
    assert found.camera is not None
    pose, true = found.camera.world_from_camera, truth.camera.world_from_camera
    assert np.degrees(Rotation.from_matrix(pose[:3, :3] @ true[:3, :3].T).magnitude()) < degrees
    assert np.linalg.norm(pose[:3, 3] - true[:3, 3]) < distance * np.median(truth.depth[truth.depth > 0])
    assert (found.camera.height, found.camera.width) == truth.depth.shape


@pytest.mark.parametrize("solver", ["pycolmap", "poselib", "opencv"])
def test_the_camera_is_found_from_dense_maps(world, network, solver) -> None:
    if solver == "poselib":
        pytest.importorskip("poselib")
    found = localize(world[0].pixels, dense(world), model=network, K=world[0].camera.K, solver=solver)
    check(found, world[0])
    assert len(found.pixels) == len(found.points) == len(found.map_index) > 3000
    assert found.pose.inliers > 0.95 * len(found.pixels)
    assert set(found.map_index) == {0, 1, 2}
    # Each pair is run once, the query first.
    np.testing.assert_array_equal(np.concatenate(network.calls), [(0, 1), (0, 2), (0, 3)])


def test_one_map_image_with_noise_is_enough_and_the_same_every_time(world, network) -> None:
    results = []
    for _ in range(2):
        network = ExactPairs(network.known, noise=0.01)
        results.append(localize(world[1].pixels, dense(world)[1:2], model=network, K=world[1].camera.K))
        check(results[-1], world[1], degrees=0.3, distance=0.02)
    np.testing.assert_array_equal(results[0].camera.world_from_camera, results[1].camera.world_from_camera)


def test_sparse_points_give_the_camera_too(world, network) -> None:
    rng = np.random.default_rng(0)
    mapped = []
    for photo in world[1:]:
        rows = rng.choice(photo.depth.size, 3000, replace=False)
        pixels = pixel_grid(*photo.depth.shape).reshape(-1, 2)[rows]
        points = photo.world_points.reshape(-1, 3)[rows]
        mapped.append(MapImage(picture=photo.pixels, pixels=pixels, points=points, size=photo.depth.shape))
    found = localize(world[0].pixels, mapped, model=network, K=world[0].camera.K)
    check(found, world[0])
    assert 300 < len(found.pixels) < 9000


def test_the_world_points_of_the_networks_pixels_lie_on_the_surface(world) -> None:
    photo, small = world[0], world[0].halved()
    frame = aspect_frame(photo.depth.shape, trained_shapes(128))
    looked_up = MapImage(picture=photo.pixels, world_points=photo.world_points).network_points(frame)
    smooth = small.depth > 0
    error = np.linalg.norm(looked_up - small.world_points, axis=-1)[smooth] / small.depth[smooth]
    assert np.quantile(error, 0.95) < 1e-4
    assert error.max() < 0.05  # at the edges of things: half a pixel off


def test_of_sparse_points_on_one_pixel_the_nearest_to_its_centre_is_kept() -> None:
    frame = aspect_frame((192, 256), trained_shapes(128))
    offsets = np.array([[0.6, 0.0], [0.1, -0.1], [-0.7, 0.5], [30.0, 0.0], [1e6, 0.0], [np.nan, 0.0]])
    pixels = transform_pixels(frame.original_from_network, np.array([20.0, 30.0])) + offsets
    image = MapImage(picture="unused.png", pixels=pixels, points=np.arange(18.0).reshape(6, 3))
    found = image.network_points(frame)
    np.testing.assert_array_equal(found[30, 20], [3, 4, 5])
    np.testing.assert_array_equal(found[30, 35], [9, 10, 11])
    assert np.isfinite(found).all(axis=-1).sum() == 2


def test_a_query_with_a_known_lens_is_found(world, network) -> None:
    photo, coefficients = world[0], np.array([-0.15, 0.05, 0.001, -0.001])
    straight = localize(photo.pixels, dense(world), model=network, K=photo.camera.K)
    # What the same matches would be if the query had been taken through that lens.
    rays = np.c_[straight.pixels, np.ones(len(straight.pixels))] @ np.linalg.inv(photo.camera.K).T
    bent = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), photo.camera.K, coefficients)[0][:, 0]
    from manyview.geometry import solve_absolute_pose

    pose = solve_absolute_pose(bent, straight.points, photo.camera.K, photo.depth.shape, distortion=coefficients)
    check(replace(straight, pose=pose, camera=_placed(straight.camera, pose.world_from_camera)), photo)
    wrong = localize(photo.pixels, dense(world), model=network, K=photo.camera.K, distortion=coefficients)
    assert wrong.pose.median_error > 1.2 * straight.pose.median_error


def _placed(camera: Camera | None, world_from_camera: np.ndarray | None) -> Camera:
    assert camera is not None
    assert world_from_camera is not None
    return replace(camera, world_from_camera=world_from_camera)


def test_many_map_images_go_in_groups_and_progress_is_told(world, network, monkeypatch) -> None:
    monkeypatch.setattr(localise, "PAIRS_AT_ONCE", 2)
    told = []
    found = localize(
        world[0].pixels,
        dense(world),
        model=network,
        K=world[0].camera.K,
        progress=lambda done, total, what: told.append((done, total, what)),
    )
    check(found, world[0])
    assert [len(edges) for edges in network.calls] == [2, 1]
    assert told == [(2, 3, "matching with the map"), (3, 3, "matching with the map")]
    assert (np.diff(found.map_index) >= 0).all()


def test_a_map_photo_that_cannot_be_read_is_skipped_with_its_reason(world, network, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    broken = MapImage(picture=tmp_path / "broken.jpg", pixels=np.zeros((1, 2)), points=np.zeros((1, 3)), name="b")
    mapped = [broken, *dense(world)]
    found = localize(world[0].pixels, mapped, model=network, K=world[0].camera.K)
    check(found, world[0])
    assert [skipped.name for skipped in found.skipped] == ["b"]
    assert "not an image" in found.skipped[0].reason
    assert set(found.map_index) == {1, 2, 3}
    with pytest.raises(InputError, match="none of 1 map images"):
        localize(world[0].pixels, [broken], model=network, K=world[0].camera.K)


@pytest.mark.parametrize("case", ["no confidence", "no points", "wrong points"])
def test_a_camera_that_cannot_be_found_is_reported_as_not_found(world, network, case: str) -> None:
    mapped = dense(world)
    arguments: dict[str, Any] = {}
    if case == "no confidence":
        arguments = {"least_confidence": 11.0}
    if case == "no points":
        mapped = [replace(image, world_points=np.full(world[0].pixels.shape, np.nan)) for image in mapped]
    if case == "wrong points":
        arguments = {"max_matches": 2000}
        rng = np.random.default_rng(0)
        mapped = [replace(image, world_points=rng.normal(size=world[0].pixels.shape)) for image in mapped]
    found = localize(world[0].pixels, mapped, model=network, K=world[0].camera.K, **arguments)
    assert found.status != "found"
    assert found.reason
    if case != "wrong points":
        assert found.camera is None
        assert "0 matches" in found.reason


def test_what_does_not_fit_is_an_error_before_the_network_runs(world, network) -> None:
    query, K = world[0].pixels, world[0].camera.K
    with pytest.raises(InputError, match="no map images"):
        localize(query, [], model=network, K=K)
    with pytest.raises(InputError, match="does not fit a picture of 256 x 192"):
        localize(query, dense(world), model=network, K=K * [[10], [10], [1]])
    with pytest.raises(InputError, match="coefficients"):
        localize(query, dense(world), model=network, K=K, distortion=np.zeros(3))
    with pytest.raises(InputError, match="solver"):
        localize(query, dense(world), model=network, K=K, solver="magic")  # type: ignore[arg-type]
    other_size = MapImage(picture=world[1].pixels, world_points=world[1].world_points[:100])
    with pytest.raises(InputError, match=r"\(100, 256\)"):
        localize(query, [other_size], model=network, K=K)
    assert network.calls == []


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"world_points": np.zeros((5, 3))},
        {"pixels": np.zeros((5, 2))},
        {"pixels": np.zeros((5, 2)), "points": np.zeros((4, 3))},
        {"world_points": np.zeros((5, 5, 3)), "pixels": np.zeros((5, 2)), "points": np.zeros((5, 3))},
    ],
)
def test_a_map_image_without_points_that_fit_is_an_error(wrong: dict) -> None:
    with pytest.raises(InputError, match="world_points"):
        MapImage(picture="photo.jpg", **wrong)


# ------------------------------------------------------------------ maps that others made
def scene_of(world: tuple[Photo, ...], folder: Path) -> Scene:
    """Views 1, 2, ... as a scene at half the size, with their photos in `folder`."""
    original_from_network = aspect_frame(world[0].depth.shape, trained_shapes(128)).original_from_network
    views = []
    for number, photo in enumerate(world[1:], start=1):
        small, path = photo.halved(), folder / f"{number}.png"
        Image.fromarray(photo.pixels).save(path)
        views.append(
            SceneView.masked(
                name=path.name,
                source=str(path),
                original_size=photo.depth.shape,
                original_from_network=original_from_network,
                image=small.pixels,
                camera=photo.camera,
                depth=small.depth,
                points=small.world_points,
                confidence=np.full(small.depth.shape, 5.0),
                valid=small.depth > 0,
            )
        )
    return Scene(views=views, provenance=Provenance(model="truth", weights_sha256="", weights_licence="none"))


def test_a_query_is_found_in_a_scene(world, network, tmp_path: Path) -> None:
    scene = scene_of(world, tmp_path)
    mapped = map_from_scene(scene)
    assert [image.name for image in mapped] == ["1.png", "2.png", "3.png"]
    check(localize(world[0].pixels, mapped, model=network, K=world[0].camera.K), world[0])
    doubted = replace(scene, views=[replace(scene.views[0], status="low_confidence"), *scene.views[1:]])
    assert len(map_from_scene(doubted)) == 2


def test_views_whose_photos_are_gone_show_what_the_network_saw(world, network, tmp_path: Path) -> None:
    scene = scene_of(world, tmp_path)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    mapped = map_from_scene(scene)
    assert mapped[0].size == (96, 128)
    check(localize(world[0].pixels, mapped, model=network, K=world[0].camera.K), world[0])


def test_a_query_is_found_in_a_colmap_model(world, network, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    scene = scene_of(world, tmp_path / "photos")
    scene.export(tmp_path / "out", ["colmap"], options=ExportOptions(max_colmap_points=6000))
    model, pictures = tmp_path / "out/sparse/0", tmp_path / "out/images"
    mapped = map_from_colmap(model, pictures)
    assert [image.name for image in mapped] == ["1.png", "2.png", "3.png"]
    for image, photo in zip(mapped, world[1:], strict=True):
        assert image.points is not None
        seen, _ = photo.camera.project(image.points)
        assert np.median(np.abs(seen - image.pixels)) < 0.05  # the half pixel between both conventions is taken off
    check(localize(world[0].pixels, mapped, model=network, K=world[0].camera.K), world[0])
    assert [image.name for image in map_from_colmap(model, pictures, names=["3.png"])] == ["3.png"]
    with pytest.raises(InputError, match=r"nobody\.png"):
        map_from_colmap(model, pictures, names=["nobody.png"])


def test_a_folder_without_a_colmap_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="COLMAP"):
        map_from_colmap(tmp_path, tmp_path)
