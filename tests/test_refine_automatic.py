"""Refinement as a step of a reconstruction: what is said of it, and that it loses nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manyview.errors import InputError
from manyview.geometry import intrinsics
from manyview.refine.automatic import Wish, refine_as_wished
from manyview.refine.exact_cameras import refine_features
from manyview.refine.options import RefineOptions
from manyview.refine.refine import RefinedScene
from manyview.refine.refined_report import report_of
from manyview.refine.warn import parallax
from sparse_worlds import cameras_around, network_scene, photographed

OPTIONS = RefineOptions(threads=1)


@pytest.fixture(scope="module")
def world():
    return photographed(cameras_around(6))


class Unforeseen(Exception):
    pass


@pytest.mark.parametrize("refine", ["auto", "on"])
@pytest.mark.parametrize(
    "error", [Unforeseen("disk\nfull"), OSError(28, "No space left"), InputError("odd"), ValueError()]
)
def test_whatever_goes_wrong_the_networks_scene_is_kept(world, monkeypatch, refine, error):
    def failing(*arguments, **settings):
        raise error

    monkeypatch.setattr("manyview.refine.refine.refine_scene", failing)
    scene = network_scene(world)
    found = refine_as_wished(scene, Wish(refine=refine))
    assert replace(found.scene, warnings=()).equals(scene) and found.refined is None
    (told,) = found.scene.warnings
    assert type(error).__name__ in told and "nothing of them is lost" in told and "full" not in told
    assert found.words.startswith("the network's: refinement failed with")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_must_end_the_programme_ends_it(world, monkeypatch, error):
    def failing(*arguments, **settings):
        raise error

    monkeypatch.setattr("manyview.refine.refine.refine_scene", failing)
    with pytest.raises(error):
        refine_as_wished(network_scene(world), Wish())


def test_intrinsics_that_do_not_fit_the_photos_are_an_error(world):
    with pytest.raises(InputError, match="far from its middle"):
        refine_as_wished(network_scene(world), Wish(), K=intrinsics(2000, (1600, 1200)))


def test_intrinsics_are_carried_to_every_photo(world, monkeypatch):
    def looking(scene, options, *, given, **settings):
        raise Unforeseen(str([float(K[0, 0]) for K in given.K]))

    monkeypatch.setattr("manyview.refine.refine.refine_scene", looking)
    scene = network_scene(world)
    views = [replace(view, original_size=(240, 320)) if index % 2 else view for index, view in enumerate(scene.views)]
    found = refine_as_wished(replace(scene, views=views), Wish(), K=intrinsics(500, (320, 240)))
    assert "[500.0, 250.0, 500.0, 250.0, 500.0, 250.0]" in found.scene.warnings[0]


# ------------------------------------------------------------------ the report
@pytest.mark.parametrize("kind", ["auto", "shared", "per_view"])
def test_what_is_known_of_lenses_is_passed_on(world, monkeypatch, kind):
    def asked(scene, options, **settings):
        raise RuntimeError(f"asked for {options.intrinsics}")

    monkeypatch.setattr("manyview.refine.refine.refine_scene", asked)
    assert f"asked for {kind}" in refine_as_wished(network_scene(world), Wish(intrinsics=kind)).words


def test_the_report_allows_for_the_lens():
    world = photographed(cameras_around(6), points=400, distortion=-0.25)
    scene = network_scene(world, turn=2, shift=0.1)
    found = refine_features(scene, world.features, replace(OPTIONS, camera_model="SIMPLE_RADIAL"))
    report, _ = report_of(scene, RefinedScene(scene=found.scene, cameras=found))
    assert report.totals.error_after is not None and report.totals.error_before is not None
    assert report.totals.error_after < 1e-3 < report.totals.error_before


# ------------------------------------------------------------------ parallax
def test_rays_that_meet_at_small_angles_are_called_into_question(monkeypatch):
    world = photographed(cameras_around(4, step=1.0))
    scene = network_scene(world, turn=2.0, shift=0.05)
    model = refine_features(scene, world.features, OPTIONS).models[0]
    assert 4 < parallax(model) < 7  # they stand within a tenth of their distance from the middle, up and down
    for limit, is_little in ((parallax(model) + 0.1, True), (parallax(model) - 0.1, False)):
        monkeypatch.setattr("manyview.refine.warn.LITTLE_PARALLAX", limit)
        told = refine_features(scene, world.features, OPTIONS).warnings
        assert any("little parallax" in words for words in told) == is_little
