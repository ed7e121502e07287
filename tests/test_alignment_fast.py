"""The default global alignment: as good as the published procedure, in a small part of its time."""

from __future__ import annotations

import json
import time
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation

import manyview.alignment.fast_solve as fast_solve
from manyview.alignment import KnownCameras, PairMaps
from manyview.alignment.fast import Search, align_fast, pair_middles
from manyview.alignment.fast_samples import Observations
from manyview.alignment.fast_solve import Freedom, solve
from manyview.alignment.fast_state import Placement, rotation_from_vector
from manyview.alignment.fast_system import Limits, depth_shift, distances, linearise
from manyview.alignment.initial import fit_similarities, initial_placement
from manyview.alignment.objective import published_objective
from manyview.evaluation.noisy_pairs import TrueGeometry, alignment_errors, noisy_pairs
from manyview.geometry import fit_similarity, intrinsics

NOTHING = KnownCameras()
VIEWS = 6


def both_ways(edges):
    return [directed for i, j in edges for directed in ((i, j), (j, i))]


@lru_cache
def golden_pairs(folder) -> PairMaps:
    first, second = (np.load(folder / f"golden_ga6_inputs_view{side}.npz") for side in (1, 2))
    points = [tuple(pair) for pair in zip(np.float32(first["pts3d_1"]), np.float32(second["pts3d_2in1"]), strict=True)]
    sure = [tuple(pair) for pair in zip(np.float32(first["conf_1"]), np.float32(second["conf_2"]), strict=True)]
    return PairMaps.checked(first["edges"], points, sure)


@pytest.fixture(scope="module")
def reference(shared):
    return shared / "reference" / "dust3r"


@pytest.fixture(scope="module")
def ga6(reference) -> PairMaps:
    return golden_pairs(reference)


@pytest.fixture(scope="module")
def truth(reference) -> TrueGeometry:
    stored = np.load(reference / "golden_ga6_ground_truth.npz")
    K = np.stack([intrinsics(focal, (32, 24)) for focal in stored["gt_focals"]])
    return TrueGeometry(world_from_camera=stored["gt_poses"], K=K, depth=stored["gt_depth"])


@pytest.fixture(scope="module")
def aligned(ga6):
    return align_fast(ga6, NOTHING)


@lru_cache
def small_pairs(edges: tuple | None = None, views: int = VIEWS, noise: float = 1.0):
    return noisy_pairs(21, views, (24, 32), edges, noise=noise)


def mean_scale(aligned) -> float:
    return float(np.exp(np.log(np.linalg.det(aligned.world_from_pair[:, :3, :3])).mean() / 3))


def expect_sound(aligned, pairs: PairMaps) -> None:
    assert np.isfinite(aligned.world_from_camera).all() and np.isfinite(aligned.world_from_pair).all()
    assert (aligned.K[:, 0, 0] > 0).all() and np.isfinite(aligned.K).all()
    for depth, sure, size in zip(aligned.depth, aligned.confidence, pairs.sizes, strict=True):
        assert depth.shape == sure.shape == size
        assert np.isfinite(depth).all() and (depth > 0).all()
    published = published_objective(
        pairs,
        world_from_camera=aligned.world_from_camera,
        K=aligned.K,
        depth=aligned.depth,
        world_from_pair=aligned.world_from_pair,
    )
    assert aligned.objective == pytest.approx(published, rel=1e-4, abs=1e-6)


# The objective


@pytest.mark.parametrize("name", ["mst_cosine300", "known_cosine300", "modular_partial100"])
def test_the_objective_of_the_reference_results_is_the_reference_loss(reference, ga6, name):
    stored = np.load(reference / f"golden_ga6_{name}.npz")
    loss = published_objective(
        ga6,
        world_from_camera=stored["final_poses"].astype(float),
        K=np.stack([intrinsics(float(focal), (32, 24)) for focal in stored["final_focals"]]),
        depth=stored["final_depth"],
        world_from_pair=stored_similarities(stored["final_pw_poses_param"].astype(float), name.startswith("mst")),
    )
    assert loss == pytest.approx(float(stored["final_loss"]), rel=1e-5)


def stored_similarities(raw: np.ndarray, normalised: bool) -> np.ndarray:
    """(E, 4, 4) from quaternion, signed-log translation and log scale."""
    scale = np.exp(raw[:, 7] + (np.log(0.5) - raw[:, 7].mean() if normalised else 0.0))
    matrices = np.tile(np.eye(4), (len(raw), 1, 1))
    matrices[:, :3, :3] = scale[:, None, None] * Rotation.from_quat(raw[:, :4]).as_matrix()
    matrices[:, :3, 3] = scale[:, None] * np.sign(raw[:, 4:7]) * np.expm1(np.abs(raw[:, 4:7]))
    return matrices


# As good as the published procedure


def test_ga6_ends_below_the_published_objective_with_smaller_errors(reference, ga6, truth, aligned):
    stored = np.load(reference / "golden_ga6_mst_cosine300.npz")
    published = json.loads(str(stored["metrics_json"]))["err_final"]
    expect_sound(aligned, ga6)
    assert aligned.objective < 0.998 * float(stored["final_loss"])
    errors = alignment_errors(aligned, truth)
    assert errors.centre < 0.5 * published["ate_rmse"]
    assert errors.rotation < published["rel_rot_deg_mean"]
    assert errors.depth < published["depth_absrel"]
    assert errors.focal < 0.5 * published["focal_relerr_mean"]


def test_lengths_and_the_world_are_fixed_as_stated(aligned):
    assert mean_scale(aligned) == pytest.approx(0.5, rel=1e-6)
    assert aligned.world_from_camera[0] == pytest.approx(np.eye(4), abs=1e-9)
    rotations = aligned.world_from_camera[:, :3, :3]
    assert rotations @ rotations.transpose(0, 2, 1) == pytest.approx(np.tile(np.eye(3), (6, 1, 1)), abs=1e-9)


def test_the_sampled_pixels_give_nearly_the_result_of_all(aligned):
    assert aligned.losses[0] < 1.005 * aligned.objective
    assert (np.diff(aligned.losses) < 0).all()


def test_a_noisy_world_ends_as_low_as_three_hundred_steps_of_adam():
    from manyview.alignment.compatible import align_compatible

    pairs, true = small_pairs()
    fast = align_fast(pairs, NOTHING)
    expect_sound(fast, pairs)
    slow = align_compatible(pairs, NOTHING, iterations=300, learning_rate=0.01, schedule="cosine")
    assert fast.objective < 1.001 * slow.objective
    found, published = alignment_errors(fast, true), alignment_errors(slow, true)
    assert found.relative_centre < 1.1 * published.relative_centre
    assert found.rotation < 1.1 * published.rotation
    assert found.depth < 1.1 * published.depth
    assert fast.seconds < slow.seconds / 3


@pytest.mark.slow
def test_ga6_takes_less_than_a_tenth_of_the_time(ga6):
    from manyview.alignment.compatible import align_compatible

    align_fast(ga6, NOTHING)
    fast = min(align_fast(ga6, NOTHING).seconds for _ in range(3))
    start = time.perf_counter()
    align_compatible(ga6, NOTHING, iterations=300, learning_rate=0.01, schedule="cosine")
    assert fast < (time.perf_counter() - start) / 10


def test_exact_pointmaps_give_exact_cameras():
    pairs, true = small_pairs(noise=0.0)
    middles = [(float(K[0, 2]), float(K[1, 2])) for K in true.K]
    aligned = align_fast(pairs, KnownCameras(principal_point=middles))
    errors = alignment_errors(aligned, true)
    assert errors.relative_centre < 1e-3 and errors.rotation < 0.02
    assert errors.depth < 1e-3 and errors.focal < 1e-3
    assert aligned.objective < 1e-3


# Known cameras


def test_with_all_known_it_ends_where_the_published_procedure_does(reference, ga6, truth):
    known = KnownCameras(world_from_camera=list(truth.world_from_camera), focal=list(truth.K[:, 0, 0]))
    aligned = align_fast(ga6, known)
    expect_sound(aligned, ga6)
    stored = np.load(reference / "golden_ga6_known_cosine300.npz")
    assert aligned.objective < 1.001 * float(stored["final_loss"])
    assert aligned.world_from_camera == pytest.approx(truth.world_from_camera, abs=1e-9)
    assert pytest.approx(truth.K) == aligned.K
    assert alignment_errors(aligned, truth).depth < 0.0125


def test_with_some_known_it_ends_below_the_published_procedure(reference, ga6, truth):
    cameras, focals = ([None] * VIEWS for _ in range(2))
    for view in (0, 3):
        cameras[view], focals[view] = truth.world_from_camera[view], truth.K[view, 0, 0]
    aligned = align_fast(ga6, KnownCameras(world_from_camera=cameras, focal=focals))
    stored = np.load(reference / "golden_ga6_modular_partial100.npz")
    assert aligned.objective < float(stored["final_loss"])
    published = json.loads(str(stored["metrics_json"]))["err_final"]
    errors = alignment_errors(aligned, truth)
    assert errors.centre < published["ate_rmse"] and errors.depth < published["depth_absrel"]
    for view in (0, 3):
        assert aligned.world_from_camera[view] == pytest.approx(truth.world_from_camera[view], abs=1e-9)


def test_one_known_camera_fixes_the_world_but_not_lengths(ga6, truth, aligned):
    cameras = [None, truth.world_from_camera[1], *[None] * 4]
    placed = align_fast(ga6, KnownCameras(world_from_camera=cameras))
    assert placed.world_from_camera[1] == pytest.approx(truth.world_from_camera[1], abs=1e-9)
    assert mean_scale(placed) == pytest.approx(0.5, rel=1e-6)
    assert placed.objective == pytest.approx(aligned.objective, rel=1e-3)


def test_known_cameras_in_one_place_do_not_set_lengths():
    pairs, true = small_pairs()
    cameras = [true.world_from_camera[0], true.world_from_camera[0], *[None] * 4]
    placed = align_fast(pairs, KnownCameras(world_from_camera=cameras))
    expect_sound(placed, pairs)
    assert mean_scale(placed) == pytest.approx(0.5, rel=1e-6)


def test_known_focal_lengths_are_kept_and_improve_depth(ga6, truth, aligned):
    placed = align_fast(ga6, KnownCameras(focal=list(truth.K[:, 0, 0])))
    assert pytest.approx(truth.K) == placed.K
    assert alignment_errors(placed, truth).depth < alignment_errors(aligned, truth).depth


# Difficult graphs and pictures

GRAPHS = {
    "chain, one direction": tuple((i, i + 1) for i in range(VIEWS - 1)),
    "chain, both directions": tuple(both_ways((i, i + 1) for i in range(VIEWS - 1))),
    "star, outwards": tuple((0, i) for i in range(1, VIEWS)),
    "star, inwards": tuple((i, 0) for i in range(1, VIEWS)),
    "ring": tuple((i, (i + 1) % VIEWS) for i in range(VIEWS)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_sparse_graphs_are_aligned(name):
    pairs, true = small_pairs(GRAPHS[name])
    aligned = align_fast(pairs, NOTHING)
    expect_sound(aligned, pairs)
    errors = alignment_errors(aligned, true)
    assert errors.rotation < 5 and errors.relative_centre < 0.25


def test_a_single_pair_is_aligned():
    pairs, _ = small_pairs(((1, 0),), views=2)
    aligned = align_fast(pairs, NOTHING)
    expect_sound(aligned, pairs)
    assert aligned.objective < 0.1


def test_pictures_of_different_sizes_are_aligned():
    pairs, true = small_pairs()
    cropped = [crop_second_picture(pairs, edge) for edge in range(len(pairs.edges))]
    mixed = PairMaps.checked(pairs.edges, [points for points, _ in cropped], [sure for _, sure in cropped])
    assert mixed.sizes[2] == (20, 30)
    K = true.K.copy()
    K[2, :2, 2] -= (2, 3)
    middles = [(float(own[0, 2]), float(own[1, 2])) for own in K]
    aligned = align_fast(mixed, KnownCameras(principal_point=middles))
    expect_sound(aligned, mixed)
    depth = [values[3:23, 2:] if view == 2 else values for view, values in enumerate(true.depth)]
    errors = alignment_errors(aligned, TrueGeometry(world_from_camera=true.world_from_camera, K=K, depth=depth))
    assert errors.rotation < 1 and errors.depth < 0.04 and errors.focal < 0.02


def crop_second_picture(pairs: PairMaps, edge: int):
    views = pairs.edges[edge]
    rows = [(slice(3, 23), slice(2, None)) if view == 2 else (slice(None), slice(None)) for view in views]
    points = tuple(values[cut] for values, cut in zip(pairs.points[edge], rows, strict=True))
    return points, tuple(values[cut] for values, cut in zip(pairs.confidence[edge], rows, strict=True))


@pytest.mark.parametrize("worthless", [0.0, 1.0])
def test_a_picture_without_weight_is_placed_and_disturbs_nothing(worthless):
    pairs, true = small_pairs()
    confidence = [
        tuple(torch.full_like(sure, worthless) if view == 5 else sure for view, sure in zip(edge, sides, strict=True))
        for edge, sides in zip(pairs.edges.tolist(), pairs.confidence, strict=True)
    ]
    aligned = align_fast(PairMaps.checked(pairs.edges, pairs.points, confidence), NOTHING)
    expect_sound(aligned, PairMaps.checked(pairs.edges, pairs.points, confidence))
    others = slice(0, 5)
    errors = alignment_errors(
        replace_views(aligned, others),
        TrueGeometry(world_from_camera=true.world_from_camera[others], K=true.K[others], depth=true.depth[others]),
    )
    assert errors.rotation < 1 and errors.depth < 0.04


def replace_views(aligned, views: slice):
    from dataclasses import replace

    return replace(
        aligned,
        world_from_camera=aligned.world_from_camera[views],
        K=aligned.K[views],
        depth=aligned.depth[views],
        confidence=aligned.confidence[views],
    )


def test_nothing_but_worthless_pixels_gives_no_nan():
    pairs, _ = small_pairs(views=3)
    nothing = [tuple(torch.zeros_like(sure) for sure in sides) for sides in pairs.confidence]
    aligned = align_fast(PairMaps.checked(pairs.edges, pairs.points, nothing), NOTHING)
    expect_sound(aligned, pairs := PairMaps.checked(pairs.edges, pairs.points, nothing))
    assert aligned.objective == 0 or aligned.objective < 1e-9


def test_pairs_of_nonsense_with_low_confidence_do_little_harm():
    pairs, true = small_pairs()
    random = np.random.default_rng(0)
    points, confidence = list(pairs.points), list(pairs.confidence)
    for edge in (3, 11, 17):
        points[edge] = tuple(torch.from_numpy(random.normal(size=p.shape)) for p in points[edge])
        confidence[edge] = tuple(torch.full_like(sure, 1.2) for sure in confidence[edge])
    spoilt = PairMaps.checked(pairs.edges, points, confidence)
    aligned = align_fast(spoilt, NOTHING)
    expect_sound(aligned, spoilt)
    errors = alignment_errors(aligned, true)
    assert errors.rotation < 1 and errors.depth < 0.04


def test_the_unit_of_the_pointmaps_does_not_matter():
    pairs, _ = small_pairs()
    tiny = [tuple(1e-4 * side for side in sides) for sides in pairs.points]
    plain, scaled = (
        align_fast(PairMaps.checked(pairs.edges, points, pairs.confidence), NOTHING) for points in (pairs.points, tiny)
    )
    assert scaled.objective / 1e-4 == pytest.approx(plain.objective, rel=1e-3)


# Repeatability and progress


def test_equal_seeds_give_equal_results_and_others_nearly_equal_ones():
    pairs, _ = small_pairs()
    first, again, other = (align_fast(pairs, NOTHING, seed=seed) for seed in (3, 3, 4))
    assert (first.world_from_camera == again.world_from_camera).all() and first.objective == again.objective
    assert other.objective == pytest.approx(first.objective, rel=2e-3)


def test_progress_rises_to_its_end():
    pairs, _ = small_pairs(views=3)
    calls = []
    align_fast(pairs, NOTHING, progress=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert done == sorted(done) and len(set(done)) == len(done)
    assert calls[-1] == (calls[-1][1], calls[-1][1], "aligning")


# The parts


def test_the_quadratic_form_is_that_of_automatic_differentiation():
    """Residuals differentiated in float64 by all unknowns, depths eliminated by the Schur complement."""
    pairs, _ = small_pairs(views=3)
    observations = Observations(pairs, NOTHING, "cpu")
    samples = [observations.sample(view, 12, 0) for view in range(3)]
    placement, depth = initial_placement(samples, pairs.edges, pairs.scores, NOTHING)
    pivots = placement.place(pair_middles(samples, len(pairs.edges)))
    observed = samples[1]
    found = distances(observed, placement, pivots, depth[1], Limits(1e-3, 1e-6, 40))
    block = linearise(observed, found)
    count, pixels = len(observed.edges), len(found.depth)

    def residuals(motion):
        moves = torch.zeros(len(pairs.edges), 7, dtype=torch.float64)
        moves = moves.index_add(0, observed.edges, motion[: 7 * count].view(-1, 7))
        cameras = torch.cat([torch.zeros(1, 7), motion[7 * count : 7 * count + 7][None], torch.zeros(1, 7)])
        at = moved_differentiably(placement, moves, cameras, pivots)
        placed = (
            torch.einsum("eij,epj->epi", at.pair_linear[observed.edges], observed.points.double())
            + at.pair_translation[observed.edges][:, None]
        )
        focal = at.log_focal[1].exp()
        rays = torch.cat([observed.offsets.double() / focal, torch.ones(pixels, 1)], dim=1) @ at.camera_rotation[1].T
        points = at.camera_centre[1] + rays * (found.depth.double() + motion[7 * count + 7 :])[:, None]
        return (found.weights.double().sqrt()[..., None] * (placed - points)).flatten()

    start = torch.zeros(7 * count + 7 + pixels, dtype=torch.float64)
    jacobian = torch.func.jacfwd(residuals)(start)
    matrix, gradient = jacobian.T @ jacobian, jacobian.T @ residuals(start)
    known = 7 * count + 7
    gain = matrix[:known, known:] @ torch.linalg.inv(matrix[known:, known:])
    expected = matrix[:known, :known] - gain @ matrix[known:, :known]
    expected_gradient = gradient[:known] - gain @ gradient[known:]
    pairs_matrix, coupling = block.pairs.double(), block.coupling
    got = torch.cat([torch.cat([pairs_matrix, coupling], 1), torch.cat([coupling.T, block.camera], 1)])
    scale = expected.diagonal().sqrt()
    assert (got / scale / scale[:, None]).numpy() == pytest.approx(
        (expected / scale / scale[:, None]).numpy(), abs=2e-4
    )
    size = float((expected_gradient / scale).abs().max())
    got_gradient = torch.cat([block.pair_gradient, block.camera_gradient])
    assert (got_gradient / scale).numpy() == pytest.approx((expected_gradient / scale).numpy(), abs=2e-3 * size)


def moved_differentiably(placement: Placement, pairs, cameras, pivots) -> Placement:
    with torch.enable_grad():
        return placement.moved(pairs, cameras.double(), pivots)


def blocks_of(pairs: PairMaps):
    observations = Observations(pairs, NOTHING, "cpu")
    samples = [observations.sample(view, 100, 0) for view in range(pairs.views)]
    placement, depth = initial_placement(samples, pairs.edges, pairs.scores, NOTHING)
    pivots = placement.place(pair_middles(samples, len(pairs.edges)))
    return [
        linearise(observed, distances(observed, placement, pivots, start, Limits(1e-3, 1e-6, 5)))
        for observed, start in zip(samples, depth, strict=True)
    ]


@pytest.mark.parametrize("keep_scale", [True, False])
def test_conjugate_gradients_and_elimination_give_the_step_of_the_whole_matrix(monkeypatch, keep_scale):
    monkeypatch.setattr(fast_solve, "ACCURACY", 1e-7)
    pairs, _ = small_pairs(views=4)
    blocks, edges, damping = blocks_of(pairs), len(pairs.edges), 1e-3
    free = torch.ones(4, 7, dtype=torch.bool)
    free[1, :6] = free[2, 6] = False
    moved, cameras = solve(blocks, edges, Freedom(cameras=free, keep_scale=keep_scale), damping)

    matrix, gradient = whole_system(blocks, edges)
    matrix.diagonal().mul_(1 + damping)
    used = torch.cat([torch.ones(7 * edges, dtype=torch.bool), free.flatten()])
    scale = torch.zeros(len(used), 1, dtype=torch.float64)
    scale[6 : 7 * edges : 7] = float(keep_scale)
    corner = torch.full((1, 1), 0.0 if keep_scale else 1.0, dtype=torch.float64)
    system = torch.cat([torch.cat([matrix[used][:, used], scale[used]], 1), torch.cat([scale[used].T, corner], 1)])
    answer = torch.linalg.solve(system, torch.cat([-gradient[used], torch.zeros(1, dtype=torch.float64)]))[:-1]
    step = torch.cat([moved.flatten(), cameras.flatten()])
    assert (step[~used] == 0).all()
    assert step[used].numpy() == pytest.approx(answer.numpy(), rel=1e-2, abs=2e-3 * float(answer.abs().max()))


def whole_system(blocks, edges: int):
    size = 7 * (edges + len(blocks))
    matrix, gradient = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for block in blocks:
        starts = torch.cat([block.edges, torch.tensor([edges + block.view])])
        where = (7 * starts[:, None] + torch.arange(7)).flatten()
        top = torch.cat([block.pairs.double(), block.coupling], dim=1)
        matrix[where[:, None], where] += torch.cat([top, torch.cat([block.coupling.T, block.camera], dim=1)])
        gradient[where] += torch.cat([block.pair_gradient, block.camera_gradient])
    return matrix, gradient


def test_every_accepted_round_lowers_the_objective_of_the_sample():
    pairs, _ = small_pairs()
    losses = []
    with torch.no_grad():
        search = Search(pairs, NOTHING, 0, "cpu", None)
        current = search._sampled_round(search.placement, search.depth, search._floor(0.0))
        for _ in range(4):
            losses.append(current.loss)
            current = search._sampled_round(search._step(current, 1e-4), current.depth, search._floor(current.loss))
    assert (np.diff(losses) < 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_the_depth_of_a_pixel_is_where_its_weighted_distances_are_least(seed, observations):
    random = np.random.default_rng(seed)
    along, aside, weights = random.normal(size=observations), random.random(observations), random.random(observations)
    maps = [torch.tensor(values + 1e-2 * (values is aside))[:, None] for values in (along, aside, weights)]
    found = float(depth_shift(*maps, steps=300))
    best = minimize_scalar(
        lambda s: float(weights @ np.sqrt((s - along) ** 2 + aside + 1e-2)), bounds=(-5, 5), options={"xatol": 1e-9}
    )
    assert found == pytest.approx(best.x, abs=2e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_plain_similarity_fits_are_those_of_the_closed_form(seed):
    random = np.random.default_rng(seed)
    source, weights = random.normal(size=(1, 12, 3)), random.random((1, 12))
    target = 1.7 * source @ Rotation.from_rotvec(random.normal(size=3)).as_matrix().T + random.normal(size=3)
    target = target + 0.1 * random.normal(size=target.shape)
    scale, rotation, translation = fit_similarities(*(torch.tensor(a) for a in (source, target, weights)), steps=0)
    expected = fit_similarity(source[0], target[0], weights[0])
    assert float(scale) == pytest.approx(expected.scale)
    assert rotation[0].numpy() == pytest.approx(expected.rotation, abs=1e-9)
    assert translation[0].numpy() == pytest.approx(expected.translation, abs=1e-9)


def test_reweighted_similarity_fits_bear_outliers():
    random = np.random.default_rng(0)
    source = random.normal(size=(1, 60, 3))
    target = 0.5 * source @ Rotation.from_rotvec([0.3, -1.0, 0.4]).as_matrix().T + 2
    target[:, :10] += random.normal(size=(1, 10, 3))
    arguments = [torch.tensor(a) for a in (source, target, np.ones((1, 60)))]
    plain, robust = (abs(float(fit_similarities(*arguments, steps=steps)[0]) - 0.5) for steps in (0, 10))
    assert robust < 0.1 * plain


def test_small_turns_are_rotations_about_their_axis():
    vectors = torch.tensor([[0.3, -0.2, 0.9], [0.0, 0.0, 0.0]], dtype=torch.float64)
    expected = Rotation.from_rotvec(vectors.numpy()).as_matrix()
    assert rotation_from_vector(vectors).numpy() == pytest.approx(expected, abs=1e-12)
