"""Dense depth around rough depth: found where pictures tell, unsure where they do not, and never claimed alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from manyview.errors import InputError
from manyview.evaluation.held_out import photograph_world
from manyview.refine.densify import (
    Densified,
    DensifyOptions,
    PosedPhoto,
    densify,
    depth_in_picture,
    filled,
    resized_camera,
    shrunk,
)
from manyview.refine.scene_depth import densify_scene
from manyview.scene import Provenance, Scene, SceneView
from textured_planes import WALL, Photo, Surface, camera_at, photograph, row_of_photos

OPTIONS = DensifyOptions(passes=2)


def rough(photo: Photo, seed: int, amount: float = 0.1) -> np.ndarray:
    """Depth that is off by a smooth factor."""
    down, across = np.mgrid[0:1:72j, 0:1:96j]
    phase = np.random.default_rng(seed).uniform(0, 6, 2)
    return photo.depth * (1 + amount * np.sin(3 * down + phase[0]) * np.sin(4 * across + phase[1]))


def posed(photos: Sequence[Photo], amount: float = 0.1) -> list[PosedPhoto]:
    return [
        PosedPhoto(name=f"{i}.jpg", image=photo.pixels, camera=photo.camera, depth=rough(photo, i, amount))
        for i, photo in enumerate(photos)
    ]


def relative_errors(found: Densified, photos: Sequence[Photo]) -> list[np.ndarray]:
    return [np.abs(view.depth / photo.depth - 1) for view, photo in zip(found.views, photos, strict=True)]


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    return row_of_photos(5, gap=0.8)


@pytest.fixture(scope="module")
def found(photos: list[Photo]) -> Densified:
    return densify(posed(photos), OPTIONS)


# ------------------------------------------------------------------ what is found
def test_depth_is_found_to_a_fraction_of_what_it_was_off(found: Densified, photos: list[Photo]) -> None:
    for view, photo, error in zip(found.views, photos, relative_errors(found, photos), strict=True):
        before = np.median(np.abs(rough(photo, int(view.name[0])) / photo.depth - 1))
        assert view.confirmed.mean() > 0.6
        assert np.median(error[view.confirmed]) < 0.002 and before > 0.02
        assert (error[view.confirmed] > 0.03).mean() < 0.02
    assert found.warnings == ()


def test_the_cloud_lies_on_the_surfaces_and_views_agree_within_a_pixel(found: Densified, photos: list[Photo]) -> None:
    cloud = found.cloud
    assert len(cloud) > 5000 and cloud.view_counts.min() >= 3
    for photo in photos:
        pixels, depth = photo.camera.project(cloud.points.astype(float))
        column, row = np.rint(pixels).astype(int).T
        inside = (column >= 0) & (column < 96) & (row >= 0) & (row < 72)
        true = photo.depth[row[inside], column[inside]]
        in_front = depth[inside] < 0.97 * true
        assert in_front.mean() < 0.03  # nothing hangs in the air before what a photo shows
        assert np.median(np.abs(depth[inside] / true - 1)) < 0.003


def test_a_world_of_many_shapes_is_found_too() -> None:
    pictures, truth = photograph_world(1, 5, (96, 128))
    depths = [np.where(np.isfinite(d) & (d > 0), d, 0) for d in truth.depth if d is not None]
    inputs = [
        PosedPhoto(name=str(i), image=picture, camera=camera, depth=(1.05 - 0.02 * i) * depth)
        for i, (picture, camera, depth) in enumerate(zip(pictures, truth.cameras, depths, strict=True))
        if camera is not None
    ]
    result = densify(inputs, DensifyOptions(min_views=1))
    known = [view.confirmed & (depth > 0) for view, depth in zip(result.views, depths, strict=True)]
    errors = np.concatenate(
        [np.abs(v.depth[k] / d[k] - 1) for v, d, k in zip(result.views, depths, known, strict=True)]
    )
    assert len(errors) > 3000 and np.median(errors) < 0.004


def test_the_same_call_gives_the_same_depth(found: Densified, photos: list[Photo]) -> None:
    again = densify(posed(photos), OPTIONS)
    for one, other in zip(found.views, again.views, strict=True):
        np.testing.assert_array_equal(one.depth, other.depth)
        np.testing.assert_array_equal(one.confidence, other.confidence)
    np.testing.assert_array_equal(found.cloud.points, again.cloud.points)


def test_what_is_given_stays_as_it_was(photos: list[Photo]) -> None:
    given = posed(photos[:2])
    before = copy.deepcopy(given)
    densify(given, OPTIONS)
    for one, other in zip(given, before, strict=True):
        np.testing.assert_array_equal(one.depth, other.depth)
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.camera.K, other.camera.K)


def test_where_nothing_has_texture_confidence_is_low_and_nothing_is_confirmed() -> None:
    plain = row_of_photos(4, [replace(WALL, texture=0.0)])
    noise = np.random.default_rng(0)
    noisy = [replace(p, pixels=(p.pixels + noise.integers(0, 2, p.pixels.shape)).astype(np.uint8)) for p in plain]
    result = densify(posed(noisy), OPTIONS)
    for view in result.views:
        assert np.mean(view.confidence) < 0.1
        assert view.confirmed.mean() < 0.1


def test_confidence_tells_right_depth_from_wrong(found: Densified, photos: list[Photo]) -> None:
    error = np.concatenate([e.ravel() for e in relative_errors(found, photos)])
    sure = np.concatenate([view.confidence.ravel() for view in found.views])
    assert np.mean(error[sure > 0.8] > 0.01) < 0.3 * np.mean(error[sure < 0.2] > 0.01)


def test_holes_in_the_given_depth_are_filled_and_searched() -> None:
    photos = row_of_photos(5, [WALL], gap=0.8)
    given = posed(photos, amount=0.02)
    for index, value in ((0, 0.0), (1, np.nan), (2, np.inf), (3, -1.0)):
        depth = given[index].depth.copy()
        depth[10:30, 60:80] = value
        given[index] = replace(given[index], depth=depth)
    result = densify(given, OPTIONS)
    errors = relative_errors(result, photos)
    for view in result.views:
        assert np.isfinite(view.depth).all() and (view.depth > 0).all()
    for error in errors[1:4]:  # in the outer ones, few others see this part of the wall
        assert np.median(error[12:28, 62:78]) < 0.005


# ------------------------------------------------------------------ what cannot be found
def test_a_lone_photo_keeps_its_depth_and_says_why(photos: list[Photo]) -> None:
    result = densify(posed(photos[:1]), OPTIONS)
    np.testing.assert_allclose(result.views[0].depth, rough(photos[0], 0), rtol=1e-5)
    assert not result.views[0].confirmed.any() and len(result.cloud) == 0
    assert "no other view" in result.views[0].words and result.warnings == (f"0.jpg: {result.views[0].words}",)


def test_two_photos_confirm_each_other_and_a_warning_says_so(photos: list[Photo]) -> None:
    result = densify(posed(photos[1:3]), OPTIONS)
    assert all(view.needed == 1 and view.confirmed.mean() > 0.3 for view in result.views)
    assert len(result.warnings) == 1 and "fewer than 2" in result.warnings[0]


def test_a_photo_without_any_depth_stays_without(photos: list[Photo]) -> None:
    given = posed(photos[:3])
    given[1] = replace(given[1], depth=np.zeros_like(given[1].depth))
    result = densify(given, OPTIONS)
    assert (result.views[1].depth == 0).all() and "no depth to start from" in result.views[1].words
    assert not result.views[1].confirmed.any()
    assert not (result.cloud.view == 1).any()


def test_a_photo_of_something_else_takes_no_part(photos: list[Photo]) -> None:
    away = photograph(camera_at((0, 0, 0), turn=np.pi), [Surface(normal=(0, 0, -1.0), distance=3.0)])
    result = densify(posed([*photos[:3], away]), OPTIONS)
    assert "no other view" in result.views[3].words
    assert all(view.confirmed.mean() > 0.4 for view in result.views[:3])


# ------------------------------------------------------------------ options and devices
@pytest.mark.parametrize(
    "options",
    [{name: 0} for name in ("long_side", "neighbours", "compared", "best", "passes", "radius", "min_views")]
    + [{"least_patch": 0}, {"search": 0.0}, {"search": 5.0}, {"search": float("nan")}, {"smoothness": -0.1}],
)
def test_options_are_validated(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        DensifyOptions(**options)  # type: ignore[arg-type]


def test_inputs_are_validated(photos: list[Photo]) -> None:
    one = posed(photos[:1])[0]
    with pytest.raises(InputError, match="no photos"):
        densify([])
    with pytest.raises(InputError, match="image of shape"):
        replace(one, depth=one.depth[1:])
    with pytest.raises(InputError, match="float64"):
        replace(one, image=one.image / 255)
    with pytest.raises(InputError, match="camera is of a picture"):
        replace(one, camera=camera_at((0, 0, 0), size=(60, 80)))


def test_progress_counts_every_view_of_every_pass(photos: list[Photo]) -> None:
    calls: list[tuple[int, int | None, str]] = []
    densify(posed(photos[:2]), OPTIONS, progress=lambda done, total, what: calls.append((done, total, what)))
    assert [call[:2] for call in calls] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_search_runs_where_it_is_told_to(photos: list[Photo]) -> None:
    with pytest.raises(RuntimeError, match="nowhere"):
        densify(posed(photos[:2]), OPTIONS, device="nowhere")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_finds_what_the_cpu_finds(found: Densified, photos: list[Photo]) -> None:
    result = densify(posed(photos), OPTIONS, device="cuda")
    for one, other in zip(found.views, result.views, strict=True):
        assert np.mean(np.abs(one.depth / other.depth - 1) < 1e-3) > 0.98
    assert len(result.cloud) == pytest.approx(len(found.cloud), rel=0.02)


# ------------------------------------------------------------------ sizes
def test_a_smaller_picture_shows_the_same_world(photos: list[Photo]) -> None:
    small = shrunk(posed(photos[:1])[0], 48)
    assert small.image.shape == (36, 48, 3) and small.depth.shape == (36, 48)
    exact = photograph(small.camera, [WALL])
    wall = np.abs(small.depth / exact.depth - 1) < 0.11
    assert wall.mean() > 0.7
    assert shrunk(small, 48) is small
    corner = resized_camera(photos[0].camera, 36, 48).unproject(np.array([[-0.5, -0.5]]), np.array([1.0]))
    np.testing.assert_allclose(corner, photos[0].camera.unproject(np.array([[-0.5, -0.5]]), np.array([1.0])))


def test_depth_is_carried_to_the_pixels_of_another_crop(photos: list[Photo]) -> None:
    affine = np.array([[2.0, 0, -20.0], [0, 2.0, 6.0], [0, 0, 1]])
    carried = depth_in_picture(photos[0].depth, affine, (60, 90))
    assert carried[6, 0] == pytest.approx(photos[0].depth[0, 10])
    assert carried[40, 31] == pytest.approx(photos[0].depth[17, 25:27].mean(), rel=1e-2)
    assert (carried[:5] == 0).all()


def test_holes_are_filled_with_what_surrounds_them() -> None:
    across = torch.linspace(1, 2, 40).expand(30, 40)
    weights = torch.ones(30, 40)
    weights[10:20, 15:30] = 0
    smooth = filled(torch.where(weights > 0, across, 77.0), weights)
    assert float((smooth - across).abs().max()) < 0.15
    torch.testing.assert_close(filled(torch.full((5, 7), 3.0), torch.zeros(5, 7)).isfinite().all(), torch.tensor(True))


# ------------------------------------------------------------------ scenes
def scene_of(photos: Sequence[Photo], folder: Path | None = None) -> Scene:
    views = []
    for index, photo in enumerate(photos):
        name = f"{index}.png"
        if folder is not None:
            Image.fromarray(photo.pixels).save(folder / name)
        shown = photo.depth[1::2, 1::2].shape
        views.append(
            SceneView.masked(
                name=name,
                source=None if folder is None else str(folder / name),
                original_size=photo.depth.shape,
                original_from_network=np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]]),
                image=photo.pixels[::2, ::2],
                camera=photo.camera,
                depth=rough(photo, index)[::2, ::2],
                points=np.ones((*shown, 3)),
                confidence=np.full(shown, 2.0),
                valid=np.ones(shown, dtype=bool),
            )
        )
    return Scene(views=tuple(views), provenance=Provenance(model="", weights_sha256="", weights_licence=""))


def test_a_scene_gets_depth_at_the_size_of_its_photos(photos: list[Photo], tmp_path: Path) -> None:
    scene = scene_of(photos, tmp_path)
    result = densify_scene(scene, OPTIONS)
    assert result.indices == (0, 1, 2, 3, 4) and result.scene.warnings == []
    for view, photo in zip(result.scene.views, photos, strict=True):
        assert view.size == photo.depth.shape and view.camera is photo.camera
        np.testing.assert_allclose(view.original_from_network, np.eye(3), atol=1e-12)
        assert view.valid.mean() > 0.6
        assert np.median(np.abs(view.depth / photo.depth - 1)[view.valid]) < 0.002
        pixels, depth = photo.camera.project(view.points[view.valid].astype(float))
        row, column = np.nonzero(view.valid)
        np.testing.assert_allclose(pixels, np.stack([column, row], -1), atol=1e-3)
        np.testing.assert_allclose(depth, view.depth[view.valid], rtol=1e-5)
    assert scene.views[0].size == (36, 48)  # the one that was given has not changed


def test_the_points_of_a_densified_scene_are_the_fused_ones(photos: list[Photo], tmp_path: Path) -> None:
    away = photograph(camera_at((0, 0, 0), turn=np.pi), [Surface(normal=(0, 0, -1.0), distance=3.0)])
    scene = densify_scene(scene_of([away, *photos], tmp_path), OPTIONS).scene
    cloud = scene.point_cloud(percentile=0)
    assert scene.fused is not None and len(cloud) == len(scene.fused)
    assert len(cloud) < 0.5 * sum(view.valid.sum() for view in scene.views[1:])  # each surface once, not once a view
    assert set(cloud.view.tolist()) <= set(range(1, 6))  # numbers of the scene's views, not of those that were searched
    for index in range(1, 6):
        own = cloud.view == index
        x, y = cloud.pixel[own].T
        np.testing.assert_allclose(cloud.points[own], scene.views[index].points[y, x], rtol=0.01, atol=0.01)
        np.testing.assert_array_equal(cloud.confidence[own], scene.views[index].confidence[y, x])


def test_a_scene_that_nothing_confirms_keeps_the_points_of_its_depth_maps(photos: list[Photo], tmp_path: Path) -> None:
    scene = scene_of(photos[:2], tmp_path)
    scene = densify_scene(scene, replace(OPTIONS, least_patch=10_000)).scene
    assert scene.fused is None and len(scene.point_cloud()) > 0


def test_views_that_cannot_be_compared_keep_what_they_had(photos: list[Photo], tmp_path: Path) -> None:
    away = photograph(camera_at((0, 0, 0), turn=np.pi), [Surface(normal=(0, 0, -1.0), distance=3.0)])
    scene = scene_of([*photos[:3], away, photos[3]], tmp_path)
    lost = replace(scene.views[4], camera=None, status="other_group", group=1, group_camera=photos[3].camera)
    scene = replace(scene, views=(*scene.views[:4], lost))
    result = densify_scene(scene, OPTIONS)
    assert result.indices == (0, 1, 2, 3)
    assert result.scene.views[3] is scene.views[3] and result.scene.views[4] is lost
    assert any(warning.startswith("3.png: no other view") for warning in result.scene.warnings)
    assert all(result.scene.views[index].size == (72, 96) for index in (0, 1, 2))


def test_views_whose_depth_nothing_confirms_keep_what_they_had(photos: list[Photo], tmp_path: Path) -> None:
    wrong = replace(photos[1], pixels=np.random.default_rng(0).integers(0, 255, (72, 96, 3)).astype(np.uint8))
    scene = scene_of([photos[0], wrong, photos[2], photos[3]], tmp_path)
    result = densify_scene(scene, replace(OPTIONS, least_patch=200))
    assert result.scene.views[1] is scene.views[1]
    assert any("1.png" in warning and "confirmed" in warning for warning in result.scene.warnings)


def test_without_photos_the_networks_pictures_serve_and_a_warning_says_so(photos: list[Photo]) -> None:
    result = densify_scene(scene_of(photos), OPTIONS)
    assert all(view.size == (36, 48) for view in result.scene.views)
    assert any("network's picture" in warning for warning in result.scene.warnings)
    np.testing.assert_allclose(result.scene.views[0].original_from_network[:2, 2], 0.5)


def test_a_networks_picture_larger_than_asked_for_is_shrunk_with_its_place_in_the_photo(photos: list[Photo]) -> None:
    for view in densify_scene(scene_of(photos), replace(OPTIONS, long_side=24)).scene.views:
        np.testing.assert_allclose(view.original_from_network @ [-0.5, -0.5, 1], [-0.5, -0.5, 1], atol=1e-9)
        np.testing.assert_allclose(view.original_from_network @ [23.5, 17.5, 1], [95.5, 71.5, 1], atol=1e-9)
        assert view.size == (18, 24)


def test_a_scene_without_cameras_cannot_be_densified(photos: list[Photo]) -> None:
    scene = scene_of(photos[:2])
    views = [replace(view, camera=None, status="no_camera") for view in scene.views]
    with pytest.raises(InputError, match="no view has a camera"):
        densify_scene(replace(scene, views=views))
