"""The second camera of a pair in the first one's frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from manyview.errors import InputError
from manyview.geometry import (
    estimate_focal,
    intrinsics,
    points_from_depth,
    relative_pose_by_pnp,
    relative_pose_by_procrustes,
    transform_points,
)

K = intrinsics(70.0, (41.0, 28.0))


def rotation_degrees(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.degrees(Rotation.from_matrix(first[:3, :3] @ second[:3, :3].T).magnitude()))


def pair(seed: int, noise: float = 0.0):
    """Both runs of a pair, each with a scale of its own, and first_from_second in the first one's unit."""
    rng = np.random.default_rng(seed)
    first_from_second = np.eye(4)
    first_from_second[:3, :3] = Rotation.from_rotvec(rng.normal(size=3) * 0.2).as_matrix()
    first_from_second[:3, 3] = rng.normal(size=3)
    x, y = np.meshgrid(np.linspace(0, 6, 80), np.linspace(0, 5, 60))
    own = [points_from_depth(5 + np.sin(x + phase) + np.cos(1.3 * y), K) for phase in rng.uniform(0, 6, 2)]
    scale = np.exp(rng.uniform(-1, 1, 2))
    forward = own[0] * scale[0], transform_points(first_from_second, own[1]) * scale[0]
    backward = transform_points(np.linalg.inv(first_from_second), own[0]) * scale[1], own[1] * scale[1]
    first_from_second[:3, 3] *= scale[0]
    noisy = [[xyz * (1 + noise * rng.normal(size=(60, 80, 1))) for xyz in maps] for maps in (forward, backward)]
    return tuple(noisy[0]), tuple(noisy[1]), first_from_second


@pytest.mark.parametrize("views", [(1, 0), (2, 5)])
def test_the_published_form_gives_the_reference_camera(shared: Path, views: tuple[int, int]) -> None:
    folder = shared / "reference/dust3r"
    with np.load(folder / "golden_ga6_inputs_view1.npz") as one, np.load(folder / "golden_ga6_inputs_view2.npz") as two:
        edges = [tuple(edge) for edge in one["edges"].tolist()]
        rows = edges.index(views), edges.index(views[::-1])
        own, own_confidence = one["pts3d_1"][list(rows)].astype(np.float32), one["conf_1"][list(rows)]
        other, other_confidence = two["pts3d_2in1"][list(rows)].astype(np.float32), two["conf_2"][list(rows)]
    with np.load(folder / "golden_pairviewer.npz") as golden:
        name = f"{views[0]}_{views[1]}"
        poses, focals = golden[f"poses_{name}"], golden[f"focals_{name}"]
    found_focals = [estimate_focal(xyz, iterations=10) for xyz in own]
    np.testing.assert_allclose(found_focals, focals, rtol=1e-5)
    # The camera of picture k comes from the pair whose world the other picture is.
    world = int(np.allclose(poses[1], np.eye(4)))
    moved = 1 - world
    mask = np.maximum(own_confidence[moved], other_confidence[world]) > 3
    second_K = intrinsics(float(focals[moved]), (32, 24))
    found = relative_pose_by_pnp(other[world], second_K, mask, refine=False)
    assert found is not None
    assert rotation_degrees(found.first_from_second, poses[moved]) < 0.05
    np.testing.assert_allclose(found.first_from_second[:3, 3], poses[moved][:3, 3], atol=2e-3)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_both_ways_find_the_true_camera_and_count_alike(seed: int) -> None:
    forward, backward, truth = pair(seed)
    by_pnp = relative_pose_by_pnp(forward[1], K)
    by_procrustes = relative_pose_by_procrustes(forward, backward, K)
    for found in (by_pnp, by_procrustes):
        assert found is not None
        np.testing.assert_allclose(found.first_from_second, truth, atol=1e-4)
        assert found.inliers == found.points == 4800
        assert found.inlier_ratio == 1.0
        assert found.median_error < 1e-2
        np.testing.assert_allclose(found.inverse() @ truth, np.eye(4), atol=1e-3)


def test_the_weights_keep_outliers_out_of_the_similarity() -> None:
    forward, backward, truth = pair(3, noise=0.01)
    rng = np.random.default_rng(0)
    backward[0][:20] += rng.normal(size=(20, 80, 3)) * 3
    sure = np.ones((60, 80))
    doubted = sure.copy()
    doubted[:20] = 0.0
    plain = relative_pose_by_procrustes(forward, backward, K)
    weighted = relative_pose_by_procrustes(
        forward, backward, K, forward_confidence=(sure, sure), backward_confidence=(doubted, sure)
    )
    assert plain is not None
    assert weighted is not None
    errors = [np.linalg.norm(found.first_from_second - truth) for found in (plain, weighted)]
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("case", ["nan", "one place", "one line"])
def test_points_that_determine_no_camera_give_none(case: str) -> None:
    spoilt = {
        "nan": np.full((60, 80, 3), np.nan),
        "one place": np.ones((60, 80, 3)),
        "one line": np.arange(4800.0).reshape(60, 80, 1) * [1, 2, 3] + [0, 0, 4],
    }[case]
    assert relative_pose_by_pnp(spoilt, K) is None
    assert relative_pose_by_procrustes((spoilt, spoilt), (spoilt, spoilt), K) is None


def test_maps_that_do_not_fit_each_other_are_an_error() -> None:
    forward, backward, _ = pair(0)
    with pytest.raises(InputError, match="shapes"):
        relative_pose_by_procrustes(forward, (backward[0][:30], backward[1]), K)
