"""Cameras, depth, and which pixels are chosen."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from manyview.geometry import (
    Camera,
    confidence_threshold,
    confident_pixels,
    depth_from_points,
    finite_points,
    intrinsics,
    invert_rigid,
    pixel_grid,
    points_from_depth,
    project_points,
    spread_sample,
    transform_pixels,
    transform_points,
)

seeds = st.integers(0, 2**32 - 1)


def random_rigid(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.random(rng=rng).as_matrix(), rng.normal(size=3) * 5
    return matrix


def random_camera(seed: int) -> Camera:
    K = intrinsics(float(np.random.default_rng(seed).uniform(10, 100)), (9.25, 6.5))
    K[0, 1] = 0.3
    return Camera(K=K, world_from_camera=random_rigid(seed), width=20, height=14)


def test_importing_the_room_loads_neither_torch_nor_opencv() -> None:
    heavy = "{'torch', 'cv2', 'scipy', 'manyview.training'} & set(sys.modules)"
    code = f"import sys, manyview.geometry, manyview.evaluation; print({heavy})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@given(seeds)
def test_a_rigid_motion_composed_with_its_inverse_is_the_identity(seed: int) -> None:
    matrices = np.stack([random_rigid(seed), random_rigid(seed + 1)])
    np.testing.assert_allclose(invert_rigid(matrices) @ matrices, np.broadcast_to(np.eye(4), (2, 4, 4)), atol=1e-12)


def test_the_inverse_of_whole_numbers_is_not_rounded() -> None:
    quarter_turn = np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
    assert invert_rigid(quarter_turn).dtype == np.float64


@given(seeds)
def test_projecting_what_was_unprojected_returns_pixels_and_depth(seed: int) -> None:
    camera, rng = random_camera(seed), np.random.default_rng(seed)
    pixels, depth = pixel_grid(14, 20), rng.uniform(0.5, 9, size=(14, 20))
    seen, seen_depth = camera.project(camera.unproject(pixels, depth))
    np.testing.assert_allclose(seen, pixels, atol=1e-8)
    np.testing.assert_allclose(seen_depth, depth, atol=1e-10)


@given(seeds)
def test_depth_to_points_and_back_returns_the_depth_and_agrees_with_the_camera(seed: int) -> None:
    camera, rng = random_camera(seed), np.random.default_rng(seed)
    depth = rng.uniform(0.5, 9, size=(14, 20))
    world = points_from_depth(depth, camera.K, camera.world_from_camera)
    np.testing.assert_allclose(world, camera.unproject(pixel_grid(14, 20), depth), atol=1e-10)
    np.testing.assert_allclose(depth_from_points(world, camera.camera_from_world), depth, atol=1e-10)
    in_camera = points_from_depth(depth, camera.K)
    np.testing.assert_allclose(transform_points(camera.world_from_camera, in_camera), world, atol=1e-10)
    np.testing.assert_allclose(depth_from_points(in_camera), depth, atol=1e-12)
    pixels, projected_depth = project_points(in_camera, camera.K)
    np.testing.assert_allclose(pixels, pixel_grid(14, 20), atol=1e-8)
    np.testing.assert_allclose(projected_depth, depth, atol=1e-12)


def test_a_pixel_centre_is_a_whole_number_and_depth_is_along_the_axis() -> None:
    points = points_from_depth(np.full((5, 7), 2.0), intrinsics(10.0, (3.0, 2.0)))
    np.testing.assert_allclose(points[2, 3], [0, 0, 2])
    np.testing.assert_allclose(points[0, 6], [0.6, -0.4, 2])


def test_pixels_without_depth_have_no_point_and_points_behind_the_camera_no_depth() -> None:
    depth = np.array([[1.0, 0.0, -1.0, np.nan, np.inf]])
    points = points_from_depth(depth, intrinsics(10.0, (0.0, 0.0)))
    assert finite_points(points).tolist() == [[True, False, False, False, False]]
    np.testing.assert_array_equal(depth_from_points(points), [[1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(depth_from_points(points, np.eye(4)), [[1, 0, 0, 0, 0]])
    bad = np.array([[np.nan, 0, 1], [0, np.inf, 1], [0, 0, -1], [0, 0, 1.0]])
    np.testing.assert_array_equal(depth_from_points(bad), [0, 0, 0, 1])
    np.testing.assert_array_equal(depth_from_points(bad, np.eye(4)), [0, 0, 0, 1])
    pixels, _ = project_points(bad[2:], intrinsics(10.0, (1.0, 2.0)))
    np.testing.assert_array_equal(pixels, [[np.nan, np.nan], [1, 2]])


@given(seeds, st.floats(0, 1))
def test_the_threshold_is_the_interpolated_quantile_of_the_finite_values(seed: int, fraction: float) -> None:
    confidence = np.random.default_rng(seed).uniform(1, 9, size=(6, 7))
    expected = np.quantile(confidence, fraction)
    confidence = np.append(confidence, [np.nan, np.inf])
    assert confidence_threshold(confidence, fraction) == pytest.approx(expected)
    assert not confident_pixels(confidence, fraction)[-2:].any()
    assert confident_pixels(confidence, 0.0)[:-2].all()


def test_without_a_finite_confidence_no_pixel_is_confident() -> None:
    assert not confident_pixels(np.full((3, 3), np.nan), 0.0).any()


@given(seeds, st.integers(1, 400), st.floats(0, 1), st.booleans())
def test_a_sample_is_within_the_mask_without_repeats_and_no_larger_than_asked(
    seed: int, max_points: int, share: float, with_confidence: bool
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((23, 31)) < share
    chosen = spread_sample(mask, max_points, confidence=rng.random((23, 31)) if with_confidence else None, seed=seed)
    assert mask.reshape(-1)[chosen].all()
    assert len(np.unique(chosen)) == len(chosen) <= max_points
    assert len(chosen) >= min(mask.sum(), max_points) / 8


def test_a_sample_reaches_all_parts_of_the_picture_and_takes_the_most_confident_pixel() -> None:
    confidence = np.random.default_rng(0).random((64, 64))
    confidence[5, 6] = np.nan
    chosen = spread_sample(np.ones((64, 64), dtype=bool), 64, confidence=confidence)
    blocks = confidence.reshape(8, 8, 8, 8).swapaxes(1, 2).reshape(64, 64)
    np.testing.assert_array_equal(confidence.reshape(-1)[chosen], np.nanmax(blocks, axis=1))


@given(seeds, st.floats(0.1, 10))
def test_a_frustum_is_the_centre_and_the_corners_of_the_picture(seed: int, depth: float) -> None:
    camera = random_camera(seed)
    frustum = camera.frustum(depth)
    np.testing.assert_array_equal(frustum[0], camera.centre)
    pixels, depths = camera.project(frustum[1:])
    right, bottom = camera.width - 0.5, camera.height - 0.5
    np.testing.assert_allclose(pixels, [[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]], atol=1e-4)
    np.testing.assert_allclose(depths, depth, rtol=1e-6)


def test_affine_matrices_apply_to_pixels_of_any_shape() -> None:
    matrix = np.array([[2.0, 0.5, 3.0], [0.0, 4.0, -1.0], [0.0, 0.0, 1.0]])
    pixels = np.random.default_rng(0).normal(size=(3, 4, 2))
    homogeneous = np.concatenate([pixels, np.ones((3, 4, 1))], axis=-1)
    np.testing.assert_allclose(transform_pixels(matrix, pixels), (homogeneous @ matrix.T)[..., :2])
