"""Photos of one size from one camera, or from several: whichever the matches say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manyview.refine.colmap_log import quiet_colmap
from manyview.refine.exact_cameras import refine_features
from manyview.refine.lenses import FILM_DIAGONAL, find_lenses
from manyview.refine.matching import MatchDatabase
from manyview.refine.options import GivenCameras, RefineOptions
from manyview.refine.own_lenses import own_cameras
from manyview.refine.result import Refined
from manyview.scene import Scene
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


# ------------------------------------------------------------------ what photos say themselves
def tagged(scene: Scene, folder: Path, focals: Sequence[float | None]) -> Scene:
    """The scene with photos whose EXIF blocks have these focal lengths, in pixels of the photo."""
    views = []
    for number, (view, focal) in enumerate(zip(scene.views, focals, strict=True)):
        height, width = view.original_size
        exif = Image.Exif()
        if focal is not None:
            exif.get_ifd(0x8769)[0xA405] = round(focal / np.hypot(height, width) * FILM_DIAGONAL)
        path = folder / f"{number}.jpg"
        Image.new("RGB", (width, height)).save(path, exif=exif)
        views.append(replace(view, source=str(path)))
    return replace(scene, views=views)


def test_photos_that_name_their_focal_length_start_from_it_and_share_it_with_their_like(tmp_path: Path) -> None:
    scene = network_scene(photographed(cameras_around(5)), focal=1.3)
    views = tagged(scene, tmp_path, [600, 900, 600, None, None]).views
    lenses = find_lenses(views, GivenCameras(), OPTIONS)
    assert lenses.number_of == (1, 2, 1, 3, 3)
    for number, focal in ((1, 600), (2, 900)):
        assert lenses.K[number][0, 0] == pytest.approx(focal, rel=0.02)  # the tag is in whole millimetres
        assert lenses.K[number][0, 0] == lenses.K[number][1, 1]
    assert lenses.K[3][0, 0] == pytest.approx(1.3 * FOCAL)
    np.testing.assert_array_equal(lenses.K[1][:2, 2], lenses.K[3][:2, 2])


@pytest.mark.parametrize("known", [{"are_known": True}, {"given": True}, {"kept": True}])
def test_intrinsics_that_are_known_matter_more_than_what_photos_say(tmp_path: Path, known: dict) -> None:
    world = photographed(cameras_around(3))
    views = tagged(network_scene(world), tmp_path, [900, 900, None]).views
    given = GivenCameras(K=[camera.K for camera in world.cameras]) if "given" in known else GivenCameras()
    options = replace(OPTIONS, refine_intrinsics=False) if "kept" in known else OPTIONS
    lenses = find_lenses(views, given, options, are_known="are_known" in known)
    assert len(lenses.K) == 1 and lenses.K[1][0, 0] == pytest.approx(FOCAL)


def test_a_few_photos_of_two_lenses_are_refined_if_they_say_so(tmp_path: Path) -> None:
    world = photographed(cameras_around(5, focals=(520, 900, 520, 900, 520)), noise=0.2)
    scene = network_scene(world, turn=4.0, shift=0.3, focal=1.1)
    # As networks have it that know of one camera only.
    one = replace(scene, views=[replace(view, camera=replace(view.camera, K=scene.K[0])) for view in scene.views])
    told = refine_features(tagged(one, tmp_path, (520, 900, 520, 900, 520)), world.features, OPTIONS)
    untold = refine_features(one, world.features, OPTIONS)
    errors, of_untold = (max(errors_of(found.scene, world.cameras)) for found in (told, untold))
    assert told.kept == "refined" and len(told.registered) == 5 and errors < 0.25 < of_untold
