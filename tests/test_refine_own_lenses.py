"""Photos of one size from one camera, or from several: whichever the matches say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from manyview.refine.colmap_log import quiet_colmap
from manyview.refine.exact_cameras import refine_features
from manyview.refine.lenses import find_lenses
from manyview.refine.matching import MatchDatabase
from manyview.refine.options import GivenCameras, RefineOptions
from manyview.refine.own_lenses import own_cameras
from manyview.refine.result import Refined
from sparse_worlds import FOCAL, SparseWorld, cameras_around, errors_of, network_scene, photographed

OPTIONS = RefineOptions(threads=1)
TWO_LENSES = (520.0, 560.0) * 4


def refined(world: SparseWorld, intrinsics: str = "auto") -> Refined:
    scene = network_scene(world, turn=4.0, shift=0.3, focal=1.1)
    return refine_features(scene, world.features, replace(OPTIONS, intrinsics=intrinsics))


def focals(found: Refined) -> np.ndarray:
    return found.scene.K[:, 0, 0]


def test_photos_of_two_lenses_are_told_apart_and_that_is_said() -> None:
    world = photographed(cameras_around(8, focals=TWO_LENSES), noise=0.2)
    found, shared = refined(world), refined(world, "shared")
    np.testing.assert_allclose(focals(found), TWO_LENSES, rtol=0.01)
    assert any("each was given one of its own" in told for told in found.warnings)
    assert len(set(focals(shared).round(6))) == 1
    errors, of_shared = errors_of(found.scene, world.cameras), errors_of(shared.scene, world.cameras)
    assert all(ours < 0.5 * theirs for ours, theirs in zip(errors, of_shared, strict=True))


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_photos_of_one_camera_share_it(noise: float) -> None:
    world = photographed(cameras_around(8), noise=noise)
    found = refined(world)
    assert len(set(focals(found).round(6))) == 1 and abs(focals(found)[0] / FOCAL - 1) < 0.02
    assert not any("of its own" in told for told in found.warnings)
    np.testing.assert_array_equal(found.scene.world_from_camera, refined(world, "shared").scene.world_from_camera)


def test_few_photos_and_what_is_asked_for_are_left_alone() -> None:
    few = photographed(cameras_around(5, focals=TWO_LENSES[:5]), noise=0.2)
    assert len(set(focals(refined(few)).round(6))) == 1
    world = photographed(cameras_around(8, focals=TWO_LENSES), noise=0.2)
    known = [camera.K for camera in world.cameras]
    found = refine_features(network_scene(world), world.features, OPTIONS, given=GivenCameras(K=known))
    np.testing.assert_allclose(focals(found), TWO_LENSES, rtol=1e-9)
    assert not any("of its own" in told for told in found.warnings)


def test_a_copy_with_own_cameras_is_the_same_model() -> None:
    world = photographed(cameras_around(6), noise=0.2)
    model = refined(world, "shared").models[0]
    copied = own_cameras(model)
    assert copied.num_cameras() == copied.num_reg_images() == model.num_reg_images() == 6 and model.num_cameras() == 1
    assert copied.num_points3D() == model.num_points3D()
    assert copied.compute_num_observations() == model.compute_num_observations()
    copied.update_point_3d_errors()
    assert copied.compute_mean_reprojection_error() == pytest.approx(model.compute_mean_reprojection_error(), rel=1e-6)


def test_a_database_with_own_lenses_has_the_same_verified_matches(tmp_path) -> None:
    world = photographed(cameras_around(4))
    views = network_scene(world).views
    shared = find_lenses(views, GivenCameras(), OPTIONS)
    own = find_lenses(views, GivenCameras(), replace(OPTIONS, intrinsics="per_view"))
    database = MatchDatabase(tmp_path / "m.db", world.features, shared, OPTIONS)
    with quiet_colmap():
        database.match([(0, 1), (1, 2), (2, 3), (0, 2)])
    other = database.with_own_lenses(own)
    assert other.path != database.path and len(set(other.lenses.number_of)) == 4
    before, after = database.verified(), other.verified()
    assert [(pair.first, pair.second) for pair in before] == [(pair.first, pair.second) for pair in after]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old.rows, new.rows)
