"""Similarities: group laws, recovery of known ones, and Fast3R's local-to-global alignment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from manyview.errors import InputError
from manyview.geometry import Similarity, align_local_to_global, fit_similarity, transform_points

seeds = st.integers(0, 2**32 - 1)


def random_similarity(seed: int) -> Similarity:
    rng = np.random.default_rng(seed)
    return Similarity(
        scale=float(np.exp(rng.uniform(-3, 3))),
        rotation=Rotation.random(rng=rng).as_matrix(),
        translation=rng.normal(size=3) * 10,
    )


@given(seeds)
def test_a_similarity_composed_with_its_inverse_changes_nothing(seed: int) -> None:
    similarity = random_similarity(seed)
    points = np.random.default_rng(seed).normal(size=(7, 3))
    for both in (similarity.compose(similarity.inverse()), similarity.inverse().compose(similarity)):
        np.testing.assert_allclose(both.apply(points), points, atol=1e-9)


@given(seeds, seeds)
def test_compose_applies_the_argument_first_and_agrees_with_the_matrices(first_seed: int, second_seed: int) -> None:
    first, second = random_similarity(first_seed), random_similarity(second_seed)
    points = np.random.default_rng(first_seed).normal(size=(2, 5, 3))
    both = second.compose(first)
    np.testing.assert_allclose(both.apply(points), second.apply(first.apply(points)), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(both.matrix, second.matrix @ first.matrix, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(transform_points(both.matrix, points), both.apply(points), rtol=1e-9, atol=1e-9)


def test_a_moved_camera_stays_rigid_and_sees_the_moved_points_scaled() -> None:
    similarity, camera = random_similarity(1), np.eye(4)
    camera[:3, :3], camera[:3, 3] = Rotation.from_euler("xyz", [0.1, 0.2, 0.3]).as_matrix(), [1, 2, 3]
    in_camera = np.array([[0.3, -0.2, 4.0]])
    moved = similarity.apply_to_camera(camera)
    np.testing.assert_allclose(moved[:3, :3] @ moved[:3, :3].T, np.eye(3), atol=1e-12)
    expected = similarity.apply(transform_points(camera, in_camera))
    np.testing.assert_allclose(transform_points(moved, similarity.scale * in_camera), expected, atol=1e-9)


@given(seeds, st.integers(3, 40), st.booleans())
def test_the_fit_recovers_a_known_similarity(seed: int, count: int, with_scale: bool) -> None:
    truth = random_similarity(seed)
    if not with_scale:
        truth = Similarity(scale=1.0, rotation=truth.rotation, translation=truth.translation)
    source = np.random.default_rng(seed + 1).normal(size=(count, 3))
    found = fit_similarity(source, truth.apply(source), with_scale=with_scale)
    np.testing.assert_allclose(found.matrix, truth.matrix, atol=1e-6 * max(1, truth.scale))
    assert with_scale or found.scale == 1.0


@given(seeds)
def test_the_fit_of_mirrored_points_is_a_rotation_and_never_a_reflection(seed: int) -> None:
    source = np.random.default_rng(seed).normal(size=(20, 3))
    found = fit_similarity(source, source * [1, 1, -1])
    assert np.linalg.det(found.rotation) == pytest.approx(1.0)
    assert found.scale >= 0


def test_the_fit_is_a_minimum_for_noisy_points() -> None:
    rng = np.random.default_rng(0)
    source, weights = rng.normal(size=(30, 3)), rng.uniform(size=30)
    target = random_similarity(3).apply(source) + rng.normal(size=(30, 3))
    best = fit_similarity(source, target, weights)

    def cost(similarity: Similarity) -> float:
        return float(weights @ np.sum((similarity.apply(source) - target) ** 2, axis=1))

    for seed in range(20):
        step = np.random.default_rng(seed).normal(size=7) * 1e-3
        nearby = Similarity(
            scale=best.scale * (1 + step[0]),
            rotation=Rotation.from_rotvec(step[1:4]).as_matrix() @ best.rotation,
            translation=best.translation + step[4:],
        )
        assert cost(best) < cost(nearby)


def test_points_without_weight_or_with_non_finite_numbers_do_not_count() -> None:
    rng, truth = np.random.default_rng(0), random_similarity(5)
    source = rng.normal(size=(20, 3))
    target, weights = truth.apply(source), np.ones(20)
    target[0], weights[0] = 1e6, 0.0
    target[1], source[2], weights[3], target[4] = np.nan, np.inf, np.nan, -np.inf
    np.testing.assert_allclose(fit_similarity(source, target, weights).matrix, truth.matrix, atol=1e-8)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros((2, 3)), "do not determine"),
        (np.ones((10, 3)), "do not determine"),
        (np.outer(np.arange(10.0), [1, 2, 3]), "do not determine"),
        (np.full((10, 3), np.nan), "do not determine"),
        (np.zeros((10, 2)), "expected two of"),
    ],
)
def test_points_that_determine_no_similarity_are_an_error_that_says_so(source: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        fit_similarity(source, source)


def test_negative_weights_are_an_error() -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    with pytest.raises(InputError, match="weights"):
        fit_similarity(points, points, np.array([1, 1, 1, 1, -1.0]))


@pytest.mark.parametrize("view", range(4))
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("percentile", [0, 85])
def test_alignment_gives_the_reference_points(shared: Path, view: int, masked: bool, percentile: int) -> None:
    with np.load(shared / "reference/fast3r/golden_geometry.npz") as golden:
        local = golden[f"in_v{view}_pts3d_local"][0]
        similarity = align_local_to_global(
            local,
            golden[f"in_v{view}_pts3d_in_other_view"][0],
            golden[f"in_v{view}_conf"][0],
            percentile=percentile,
            valid=golden[f"in_v{view}_valid_mask"][0] if masked else None,
        )
        expected = golden[f"align_pct{percentile}_{'mask' if masked else 'nomask'}_v{view}"][0]
    assert similarity is not None
    np.testing.assert_allclose(similarity.apply(local), expected, atol=1e-5)


def synthetic_view(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, Similarity]:
    rng, truth = np.random.default_rng(seed), random_similarity(seed)
    local = rng.normal(size=(30, 40, 3)) + np.array([0, 0, 5])
    return local, truth.apply(local), 1 + rng.uniform(size=(30, 40)), truth


def test_alignment_disregards_confidence_where_fewer_than_three_pixels_reach_it() -> None:
    local, world, confidence, truth = synthetic_view()
    confidence[0, 0], valid = 100.0, np.ones((30, 40), dtype=bool)
    valid[0, 0] = False
    world[0, 0] = 1e3
    found = align_local_to_global(local, world, confidence, percentile=100, valid=valid)
    assert found is not None
    np.testing.assert_allclose(found.matrix, truth.matrix, atol=1e-8)


def test_alignment_of_a_well_spread_part_is_near_that_of_all_pixels() -> None:
    local, world, confidence, truth = synthetic_view()
    noisy = world + np.random.default_rng(1).normal(size=world.shape) * 0.01 * truth.scale
    found = align_local_to_global(local, noisy, confidence, max_points=300)
    assert found is not None
    assert found.scale == pytest.approx(truth.scale, rel=3e-3)


def test_alignment_masks_non_finite_pixels() -> None:
    local, world, confidence, truth = synthetic_view()
    local[3, 4], world[5, 6], confidence[7, 8], world[7, 8] = np.nan, np.inf, np.nan, 1e9
    found = align_local_to_global(local, world, confidence)
    assert found is not None
    np.testing.assert_allclose(found.matrix, truth.matrix, atol=1e-8)


@pytest.mark.parametrize("case", ["too few", "one place", "one line", "nan", "no confidence, none valid"])
def test_alignment_that_cannot_be_determined_is_none_and_never_the_identity(case: str) -> None:
    local, world, confidence, _ = synthetic_view()
    valid = np.ones((30, 40), dtype=bool)
    if case == "too few":
        valid[:] = False
        valid[0, :2] = True
    elif case == "one place":
        local[:] = [0, 0, 1]
    elif case == "one line":
        local = np.arange(1200.0).reshape(30, 40, 1) * [1, 2, 3]
    elif case == "nan":
        world[:] = np.nan
    else:
        confidence[:], valid[:] = np.nan, False
    assert align_local_to_global(local, world, confidence, valid=valid) is None


@settings(max_examples=20)
@given(seeds, st.floats(0, 100))
def test_alignment_never_fails_on_single_precision_input(seed: int, percentile: float) -> None:
    local, world, confidence, truth = synthetic_view(seed)
    arrays = [array.astype(np.float32) for array in (local, world, confidence)]
    found = align_local_to_global(*arrays, percentile=percentile)
    assert found is not None
    assert found.scale == pytest.approx(truth.scale, rel=1e-3)
