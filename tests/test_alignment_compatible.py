"""The published alignment: its start, its losses and its result on the reference room, and exact toy worlds."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from manyview.alignment import Alignment, KnownCameras, PairMaps, align_pairs
from manyview.alignment.compatible import align_compatible, learning_rate_at
from manyview.alignment.known_cameras import known_cameras_state
from manyview.alignment.objective import published_objective
from manyview.alignment.spanning_tree import InitialState, best_tree, spanning_tree_state
from manyview.alignment.two_views import align_two_views
from manyview.errors import InputError
from manyview.geometry import (
    Similarity,
    fit_similarity,
    intrinsics,
    invert_rigid,
    points_from_depth,
    transform_points,
)

VIEWS = 6


def objective_of(pairs, K, world_from_camera, depth, world_from_pair) -> float:
    return published_objective(
        pairs, world_from_camera=world_from_camera, K=K, depth=depth, world_from_pair=world_from_pair
    )


@pytest.fixture(scope="module")
def folder(shared) -> Path:
    return shared / "reference/dust3r"


@pytest.fixture(scope="module")
def room(folder) -> PairMaps:
    first, second = (np.load(folder / f"golden_ga6_inputs_view{number}.npz") for number in (1, 2))
    points = zip(first["pts3d_1"].astype(np.float32), second["pts3d_2in1"].astype(np.float32), strict=True)
    confidence = zip(first["conf_1"].astype(np.float32), second["conf_2"].astype(np.float32), strict=True)
    return PairMaps.checked(first["edges"], list(points), list(confidence))


@pytest.fixture(scope="module")
def truth(folder) -> dict[str, np.ndarray]:
    return dict(np.load(folder / "golden_ga6_ground_truth.npz"))


def golden(folder: Path, name: str) -> dict[str, np.ndarray]:
    return dict(np.load(folder / f"golden_ga6_{name}.npz"))


def known_of(truth, views) -> KnownCameras:
    return KnownCameras(
        world_from_camera=[truth["gt_poses"][view] if view in views else None for view in range(VIEWS)],
        focal=[float(truth["gt_focals"][view]) if view in views else None for view in range(VIEWS)],
    )


def pair_similarities(parameters: np.ndarray, normalised: bool) -> list[Similarity]:
    """From the published raw numbers: quaternion, signed log translation, log scale."""
    parameters = parameters.astype(np.float64)
    rotations = Rotation.from_quat(parameters[:, :4]).as_matrix()
    translations = np.sign(parameters[:, 4:7]) * np.expm1(np.abs(parameters[:, 4:7]))
    logarithms = parameters[:, 7] + (np.log(0.5) - parameters[:, 7].mean() if normalised else 0.0)
    return [
        Similarity(scale=float(scale), rotation=rotation, translation=scale * translation)
        for scale, rotation, translation in zip(np.exp(logarithms), rotations, translations, strict=True)
    ]


def saved_state(saved: dict, depth=None, *, fixes_scale: bool = False) -> InitialState:
    return InitialState(
        world_from_camera=saved["init_poses"].astype(np.float64),
        camera_found=np.ones(VIEWS, dtype=bool),
        focal=saved["init_focals"].astype(np.float64),
        depth=list(saved["init_depth"] if depth is None else depth),
        world_from_pair=pair_similarities(saved["init_pw_poses_param"], normalised=not fixes_scale),
        tree=np.zeros((VIEWS - 1, 2), dtype=np.int64),
        fixes_scale=fixes_scale,
    )


def pose_errors(cameras: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """RMSE of the centres after a similarity, and the mean error of relative rotations in degrees."""
    cameras = cameras.astype(np.float64)
    centres = fit_similarity(cameras[:, :3, 3], truth[:, :3, 3]).apply(cameras[:, :3, 3]) - truth[:, :3, 3]
    i, j = np.triu_indices(len(cameras), 1)
    found, true = (given[i, :3, :3].transpose(0, 2, 1) @ given[j, :3, :3] for given in (cameras, truth))
    angles = Rotation.from_matrix(found @ true.transpose(0, 2, 1)).magnitude()
    return float(np.sqrt((centres**2).sum(1).mean())), float(np.degrees(angles.mean()))


def assert_pairs_agree(found: list[Similarity], expected: list[Similarity], tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.matrix, theirs.matrix, atol=tolerance)


def test_the_spanning_tree_start_is_the_published_one(room, folder):
    saved = golden(folder, "mst_cosine300")
    state = spanning_tree_state(room, published_focals=True)
    assert state.tree.tolist() == saved["mst_edges"].tolist()
    assert state.camera_found.all()
    np.testing.assert_allclose(state.focal, saved["init_focals"], rtol=1e-5)
    np.testing.assert_allclose(state.world_from_camera, saved["init_poses"], atol=5e-5)
    np.testing.assert_allclose(np.stack(state.depth), saved["init_depth"], rtol=5e-5)
    assert_pairs_agree(state.world_from_pair, pair_similarities(saved["init_pw_poses_param"], True), 5e-5)


def test_the_focal_mix_up_is_published_and_nobody_elses(room, folder, truth):
    published = golden(folder, "mst_cosine300")["init_focals"]
    assert abs(published[3] - published[2]) < 1e-4, "picture 3 starts with the focal length of picture 2"
    own = spanning_tree_state(room).focal
    error = np.abs(own / truth["gt_focals"] - 1)
    assert error.mean() < 0.02
    assert error.mean() < np.abs(published / truth["gt_focals"] - 1).mean() / 2


def test_the_start_with_some_known_cameras_is_the_published_one(room, folder, truth):
    saved = golden(folder, "modular_partial100")
    known = known_of(truth, (0, 3))
    state = spanning_tree_state(room, known, published_focals=True)
    np.testing.assert_allclose(state.focal, saved["init_focals"], rtol=1e-5)
    np.testing.assert_allclose(state.world_from_camera, saved["init_poses"], atol=2e-4)
    assert_pairs_agree(state.world_from_pair, pair_similarities(saved["init_pw_poses_param"], False), 3e-4)
    assert state.fixes_scale
    assert align_compatible(room, known, iterations=0).objective == pytest.approx(float(saved["init_loss"]), rel=1e-3)


def test_the_start_with_all_cameras_known_is_the_published_one(room, folder, truth):
    saved = golden(folder, "known_cosine300")
    known = known_of(truth, range(VIEWS))
    state = known_cameras_state(room, known)
    np.testing.assert_allclose(state.world_from_camera, truth["gt_poses"])
    np.testing.assert_allclose(state.focal, truth["gt_focals"])
    expected = pair_similarities(saved["init_pw_poses_param"], False)
    difference = [
        np.abs(ours.matrix - theirs.matrix).max() for ours, theirs in zip(state.world_from_pair, expected, strict=True)
    ]
    # Pictures that hardly overlap have few inliers: ten tries of RANSAC then depend on the last digit of K.
    assert np.median(difference) < 1e-4
    assert np.sort(difference)[-3] < 2e-3
    assert max(difference) < 0.1
    assert align_compatible(room, known, iterations=0).objective == pytest.approx(float(saved["init_loss"]), rel=1e-3)


def test_learning_rates_fall_as_published():
    assert learning_rate_at(0.0, 0.01, "cosine") == pytest.approx(0.01)
    assert learning_rate_at(0.5, 0.01, "cosine") == pytest.approx((0.01 + 1e-6) / 2)
    assert learning_rate_at(0.25, 0.01, "linear") == pytest.approx(0.0075 + 0.25e-6)
    assert learning_rate_at(1.0, 0.01, "linear") == pytest.approx(1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_first_losses_from_the_saved_start_are_the_published_ones(room, folder, schedule):
    saved = golden(folder, "mst_cosine300")
    start = saved_state(saved)
    expected = golden(folder, f"mst_{schedule}300")
    found = align_compatible(room, schedule=schedule, steps=10, initial=start)
    np.testing.assert_allclose(found.losses, expected["losses"][:10], rtol=1e-3)
    np.testing.assert_allclose(found.world_from_camera, expected["it10_poses"], atol=1e-3)
    np.testing.assert_allclose(found.K[:, 0, 0], expected["it10_focals"], rtol=1e-3)
    assert found.objective == pytest.approx(expected["losses"][10], rel=1e-3)


@pytest.mark.parametrize(("name", "views"), [("known_cosine300", range(VIEWS)), ("modular_partial100", (0, 3))])
def test_the_first_losses_with_known_cameras_are_the_published_ones(room, folder, truth, name, views):
    saved = golden(folder, name)
    known = known_of(truth, views)
    # The reference does not hold the depth of this start.
    own = align_compatible(room, known, iterations=0)
    start = saved_state(saved, own.depth, fixes_scale=True)
    found = align_compatible(room, known, iterations=len(saved["losses"]), steps=10, initial=start)
    np.testing.assert_allclose(found.losses, saved["losses"][:10], rtol=1e-3)
    np.testing.assert_allclose(found.world_from_camera, saved["it10_poses"], atol=1e-3)
    np.testing.assert_allclose(found.K[:, 0, 0], saved["it10_focals"], rtol=1e-3)


def test_the_first_losses_from_our_own_start_are_the_published_ones(room, folder, truth):
    for name, known in (
        ("mst_cosine300", None),
        ("known_cosine300", known_of(truth, range(VIEWS))),
        ("modular_partial100", known_of(truth, (0, 3))),
    ):
        saved = golden(folder, name)
        found = align_compatible(room, known, iterations=len(saved["losses"]), steps=10)
        # Cameras from PnP differ in the last digits, and Adam's first steps have the same length whatever the gradient.
        np.testing.assert_allclose(found.losses, saved["losses"][:10], rtol=5e-3, err_msg=name)


def assert_as_good_as_published(found: Alignment, saved: dict, truth: dict) -> None:
    assert found.objective == pytest.approx(float(saved["final_loss"]), rel=1e-2)
    assert len(found.losses) == len(saved["losses"])
    np.testing.assert_allclose(found.losses, saved["losses"], rtol=2e-2)
    for ours, theirs in zip(
        pose_errors(found.world_from_camera, truth["gt_poses"]),
        pose_errors(saved["final_poses"], truth["gt_poses"]),
        strict=True,
    ):
        assert ours <= 1.1 * theirs + 1e-6
    np.testing.assert_allclose(found.K[:, 0, 0], saved["final_focals"], rtol=1e-2)
    relative = np.abs(np.stack(found.depth) / saved["final_depth"] - 1)
    assert np.median(relative) < 5e-3


def test_the_result_with_some_known_cameras_is_as_good_as_the_published_one(room, folder, truth):
    saved = golden(folder, "modular_partial100")
    found = align_compatible(room, known_of(truth, (0, 3)), iterations=100)
    assert_as_good_as_published(found, saved, truth)
    for view in (0, 3):
        np.testing.assert_array_equal(found.world_from_camera[view], truth["gt_poses"][view])
        assert found.K[view, 0, 0] == truth["gt_focals"][view]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_result_is_as_good_as_the_published_one(room, folder, truth, schedule):
    saved = golden(folder, f"mst_{schedule}300")
    edges, points, confidence = room.edges, room.points, room.confidence
    assert_as_good_as_published(
        align_pairs(edges, points, confidence, mode="compatible", schedule=schedule), saved, truth
    )


@pytest.mark.slow
def test_the_result_with_all_cameras_known_is_as_good_as_the_published_one(room, folder, truth):
    saved = golden(folder, "known_cosine300")
    assert_as_good_as_published(align_compatible(room, known_of(truth, range(VIEWS))), saved, truth)


def test_two_pictures_are_aligned_as_published(room, folder):
    saved = np.load(folder / "golden_pairviewer.npz")
    row_of = {tuple(edge): row for row, edge in enumerate(room.edges.tolist())}
    for i, j in ((1, 0), (2, 5)):
        rows = [row_of[i, j], row_of[j, i]]
        pairs = PairMaps.checked(
            [(0, 1), (1, 0)], [room.points[row] for row in rows], [room.confidence[row] for row in rows]
        )
        found = align_two_views(pairs)
        key = f"{i}_{j}"
        np.testing.assert_allclose(found.world_from_camera, saved[f"poses_{key}"], atol=2e-3)
        np.testing.assert_allclose(found.K[:, 0, 0], saved[f"focals_{key}"], rtol=1e-5)
        np.testing.assert_allclose(np.stack(found.depth), saved[f"depth_{key}"], atol=2e-3)
        np.testing.assert_allclose(np.stack([found.points(k) for k in (0, 1)]), saved[f"pts3d_{key}"], atol=3e-3)
        assert ((np.stack(found.confidence) > 3) == saved[f"mask_{key}"]).all()
        assert found.cameras_not_found == ()
    with pytest.raises(InputError, match=r"expected \(0, 1\) and \(1, 0\)"):
        align_two_views(room)


class Toy:
    """Cameras round a lumpy surface, and what a perfect network would say of every ordered pair."""

    def __init__(self, seed: int, views: int = 4, sizes=((12, 16),), focal=(14.0, 20.0), edges=None) -> None:
        random = np.random.default_rng(seed)
        self.sizes = [sizes[view % len(sizes)] for view in range(views)]
        self.focal = random.uniform(*focal, views)
        self.cameras = np.tile(np.eye(4), (views, 1, 1))
        self.cameras[:, :3, :3] = Rotation.from_rotvec(random.normal(0, 0.2, (views, 3))).as_matrix()
        self.cameras[:, :3, 3] = random.normal(0, 1, (views, 3))
        self.depth = [2 + 3 * random.random(size) for size in self.sizes]
        self.K = np.stack(
            [intrinsics(f, (size[1] / 2, size[0] / 2)) for f, size in zip(self.focal, self.sizes, strict=True)]
        )
        self.edges = np.array(list(permutations(range(views), 2)) if edges is None else edges)
        self.scale = np.exp(random.uniform(-0.6, 0.6, len(self.edges)))
        self.points = [
            tuple(self.seen_from(i, view) * scale for view in (i, j))
            for (i, j), scale in zip(self.edges.tolist(), self.scale, strict=True)
        ]
        self.confidence = [
            tuple(random.uniform(3.5, 9, self.sizes[view]) for view in edge) for edge in self.edges.tolist()
        ]

    def seen_from(self, camera: int, view: int) -> np.ndarray:
        world = points_from_depth(self.depth[view], self.K[view], self.cameras[view])
        return transform_points(invert_rigid(self.cameras[camera]), world)

    def known(self, poses=(), focals=()) -> KnownCameras:
        views = range(len(self.sizes))
        return KnownCameras(
            world_from_camera=[self.cameras[view] if view in poses else None for view in views],
            focal=[float(self.focal[view]) if view in focals else None for view in views],
        )

    def pairs(self) -> PairMaps:
        return PairMaps.checked(self.edges, self.points, self.confidence)

    def align(self, **options) -> Alignment:
        return align_pairs(self.edges, self.points, self.confidence, mode="compatible", **options)


ALL = range(9)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(2, 4), st.booleans())
def test_exact_pairs_start_at_the_true_cameras(seed, views, mixed):
    toy = Toy(seed, views, sizes=((12, 16), (16, 12), (9, 16)) if mixed else ((12, 16),))
    state = spanning_tree_state(toy.pairs())
    np.testing.assert_allclose(state.focal, toy.focal, rtol=1e-4)
    log_scales = np.log([pair.scale for pair in state.world_from_pair])
    assert log_scales.mean() == pytest.approx(np.log(0.5))
    scale = np.exp(np.mean(log_scales + np.log(toy.scale)))
    relative, expected = (np.linalg.inv(cameras[0]) @ cameras for cameras in (state.world_from_camera, toy.cameras))
    np.testing.assert_allclose(relative[:, :3, :3], expected[:, :3, :3], atol=2e-3)
    np.testing.assert_allclose(relative[:, :3, 3], scale * expected[:, :3, 3], atol=1e-2)
    for found, true in zip(state.depth, toy.depth, strict=True):
        np.testing.assert_allclose(found, scale * true, rtol=1e-2)
    world_from_pair = np.stack([pair.matrix for pair in state.world_from_pair])
    K = np.stack([intrinsics(f, (w / 2, h / 2)) for f, (h, w) in zip(state.focal, toy.sizes, strict=True)])
    assert objective_of(toy.pairs(), K, state.world_from_camera, state.depth, world_from_pair) < 5e-3


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6), st.booleans())
def test_exact_pairs_with_all_cameras_known_have_no_loss(seed, mixed):
    toy = Toy(seed, sizes=((12, 16), (16, 12)) if mixed else ((12, 16),), focal=(17.0, 17.0))
    found = toy.align(known=toy.known(ALL, ALL), iterations=0)
    assert found.objective < 5e-3
    np.testing.assert_array_equal(found.world_from_camera, toy.cameras)
    np.testing.assert_array_equal(found.K, toy.K)
    for depth, true in zip(found.depth, toy.depth, strict=True):
        np.testing.assert_allclose(depth, true, rtol=1e-2)


def test_one_known_camera_fixes_the_frame_and_nothing_else():
    toy = Toy(4, focal=(17.0, 17.0))
    free = toy.align(iterations=20)
    held = toy.align(iterations=20, known=toy.known(poses=(2,)))
    np.testing.assert_array_equal(held.world_from_camera[2], toy.cameras[2])
    assert held.objective == pytest.approx(free.objective, rel=0.3, abs=0.02)
    scale = np.exp(np.mean(np.log(np.cbrt(np.linalg.det(held.world_from_pair[:, :3, :3])))))
    assert scale == pytest.approx(0.5, rel=1e-4)
    start = toy.align(iterations=0, known=toy.known(poses=(2,)))
    np.testing.assert_allclose(start.world_from_camera[:, :3, :3], toy.cameras[:, :3, :3], atol=2e-3)


def test_two_known_cameras_fix_the_scale_too():
    toy = Toy(5, focal=(17.0, 17.0))
    found = toy.align(iterations=0, known=toy.known(poses=(1, 3)))
    np.testing.assert_allclose(found.world_from_camera, toy.cameras, atol=1e-2)
    np.testing.assert_allclose(found.world_from_camera[[1, 3]], toy.cameras[[1, 3]], rtol=0, atol=0)


def test_known_cameras_in_one_place_or_along_one_line_are_no_obstacle():
    toy = Toy(6, focal=(17.0, 17.0))
    here = toy.cameras[0].copy()
    turned = here.copy()
    turned[:3, :3] = turned[:3, :3] @ Rotation.from_rotvec([0, 0.1, 0]).as_matrix()
    known = KnownCameras(world_from_camera=[here, turned, None, None])
    assert np.isfinite(toy.align(iterations=2, known=known).objective)
    line = Toy(7, views=2, focal=(17.0, 17.0))
    line.cameras[:, :3, :3] = np.eye(3)
    line.cameras[:, :3, 3] = [[0, 0, 0], [0, 0, 1]]
    line.points = [
        tuple(line.seen_from(i, view) * scale for view in (i, j))
        for (i, j), scale in zip(line.edges.tolist(), line.scale, strict=True)
    ]
    for known in (line.known(ALL), line.known(ALL, ALL)):
        assert line.align(iterations=0, known=known).objective < 5e-3


def test_known_focals_and_principal_points_are_kept():
    toy = Toy(8)
    known = KnownCameras(focal=[15.0, None, None, None], principal_point=[(7.5, 5.5), None, (9.0, 6.0), None])
    found = toy.align(iterations=5, known=known)
    assert found.K[0].tolist() == intrinsics(15.0, (7.5, 5.5)).tolist()
    assert found.K[2, :2, 2].tolist() == [9.0, 6.0]
    assert found.K[1, :2, 2].tolist() == [8.0, 6.0]
    assert found.K[1, 0, 0] != 15.0


def test_a_picture_that_is_never_first_is_placed_by_its_points():
    toy = Toy(9, views=3, edges=[(0, 1), (0, 2), (1, 2)], focal=(17.0, 17.0))
    for known in (None, toy.known(ALL, ALL)):
        found = toy.align(iterations=0, known=known)
        assert found.cameras_not_found == ()
        relative = np.linalg.inv(found.world_from_camera[0]) @ found.world_from_camera
        expected = np.linalg.inv(toy.cameras[0]) @ toy.cameras
        np.testing.assert_allclose(relative[:, :3, :3], expected[:, :3, :3], atol=0.1)


def test_a_camera_that_cannot_be_found_is_named():
    toy = Toy(10, views=3, edges=[(0, 1), (0, 2)])
    # All of picture 2 in one place: no camera sees that.
    toy.points[1] = (toy.points[1][0], np.zeros_like(toy.points[1][1]) + 1.0)
    assert toy.align(iterations=1).cameras_not_found == (2,)


def test_parts_without_a_pair_between_them_have_a_frame_each():
    toy = Toy(11, views=5, edges=[(0, 2), (2, 0), (2, 4), (4, 2), (1, 3), (3, 1)], focal=(17.0, 17.0))
    calls = []
    found = toy.align(iterations=4, progress=lambda *call: calls.append(call))
    assert found.groups == ((0, 2, 4), (1, 3))
    assert calls == [(step, 8, "aligning") for step in range(1, 9)]
    for part in found.groups:
        rows = [row for row, edge in enumerate(toy.edges.tolist()) if edge[0] in part]
        alone = align_compatible(toy.pairs().part(part), iterations=4)
        np.testing.assert_array_equal(found.world_from_camera[list(part)], alone.world_from_camera)
        np.testing.assert_array_equal(found.world_from_pair[rows], alone.world_from_pair)
    assert found.objective == pytest.approx(
        objective_of(toy.pairs(), found.K, found.world_from_camera, found.depth, found.world_from_pair)
    )
    with pytest.raises(InputError, match="not all joined"):
        best_tree(toy.pairs())


def test_masked_pixels_take_no_part():
    toy = Toy(12, focal=(17.0, 17.0))
    sky = np.zeros((12, 16), dtype=bool)
    sky[:4] = True
    for points in toy.points:
        points[0][sky] = points[1][sky] = np.random.default_rng(0).normal(0, 50, (int(sky.sum()), 3))
    spoilt, masked = toy.align(iterations=3), toy.align(iterations=3, masks=[~sky] * 4)
    assert masked.objective < spoilt.objective / 10
    toy.points = [tuple(np.where(sky[..., None], np.nan, given) for given in points) for points in toy.points]
    assert toy.align(iterations=3).objective == pytest.approx(masked.objective, rel=1e-6)
    with pytest.raises(InputError, match="3 masks for 4"):
        toy.align(masks=[None] * 3)
    with pytest.raises(InputError, match="mask of picture 0"):
        toy.align(masks=[sky[:3]] * 4)


def test_the_same_input_gives_the_same_result_and_blocks_do_not_matter(monkeypatch):
    toy = Toy(13, sizes=((12, 16), (16, 12)))
    first, again = toy.align(iterations=6), toy.align(iterations=6)
    np.testing.assert_array_equal(first.world_from_camera, again.world_from_camera)
    monkeypatch.setattr("manyview.alignment.compatible.BLOCK_PIXELS", 1)
    split = toy.align(iterations=6)
    np.testing.assert_allclose(split.losses, first.losses, rtol=1e-4)


def test_arguments_are_left_as_they_are():
    toy = Toy(14)
    points = [tuple(torch.as_tensor(given, dtype=torch.float32) for given in pair) for pair in toy.points]
    confidence = [tuple(torch.as_tensor(given, dtype=torch.float32) for given in pair) for pair in toy.confidence]
    before = [given.clone() for pair in (*points, *confidence) for given in pair]
    align_pairs(toy.edges, points, confidence, mode="compatible", iterations=2)
    assert all(
        torch.equal(given, old)
        for given, old in zip((x for pair in (*points, *confidence) for x in pair), before, strict=True)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "quick"}, "unknown mode"),
        ({"mode": "fast", "iterations": 100}, "iterations given to mode 'fast'"),
        ({"mode": "fast", "learning_rate": 0.1, "schedule": "linear"}, "learning_rate, schedule given"),
        ({"schedule": "step"}, "unknown schedule"),
        ({"iterations": -1}, "expected 0 or more"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"known": KnownCameras(focal=[17.0])}, "1 entries for 4"),
        ({"known": KnownCameras(focal=[3000.0, None, None, None])}, "does not fit pointmaps of 16x12"),
        ({"known": KnownCameras(focal=[0.1, None, None, None])}, "does not fit pointmaps of 16x12"),
        ({"known": KnownCameras(focal=[-17.0, None, None, None])}, "above 0"),
        ({"known": KnownCameras(focal=[float("nan"), None, None, None])}, "above 0"),
        ({"known": KnownCameras(principal_point=[(320.0, 240.0), None, None, None])}, "far outside"),
        ({"known": KnownCameras(principal_point=[(float("nan"), 6.0), None, None, None])}, "far outside"),
        ({"known": KnownCameras(world_from_camera=[np.eye(3), None, None, None])}, "not a rigid"),
        ({"known": KnownCameras(world_from_camera=[np.diag([1.0, 1, -1, 1]), None, None, None])}, "not a rigid"),
    ],
)
def test_options_and_cameras_that_do_not_fit_are_errors(options, message):
    toy = Toy(15)
    with pytest.raises(InputError, match=message):
        align_pairs(toy.edges, toy.points, toy.confidence, **{"mode": "compatible", **options})


def test_pairs_that_do_not_fit_are_errors():
    toy = Toy(16, views=3)

    def align(edges=toy.edges, points=toy.points, confidence=toy.confidence):
        align_pairs(edges, points, confidence, mode="compatible", iterations=1)

    with pytest.raises(InputError, match="points of 5"):
        align(points=toy.points[:5])
    with pytest.raises(InputError, match="joins a picture with itself"):
        align(edges=np.where(toy.edges == 2, 1, toy.edges))
    with pytest.raises(InputError, match=r"pictures \[2\] of 4 are in no edge"):
        align(edges=np.where(toy.edges == 2, 3, toy.edges))
    with pytest.raises(InputError, match="expected \\(H, W, 3\\)"):
        align(points=[(first[..., :2], second) for first, second in toy.points])
    with pytest.raises(InputError, match="at least one edge"):
        align(edges=np.zeros((0, 2)), points=[], confidence=[])
    with pytest.raises(InputError, match="too few of its pixels"):
        align(confidence=[(np.zeros((12, 16)), np.zeros((12, 16)))] * len(toy.edges))
