"""From photos to a scene by pairs: with true pointmaps the truth comes back; what nothing links is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import manyview
from exact_network import (
    ExactNetwork,
    Photo,
    cameras_in_first,
    exact_model,
    expect_points_are_unprojected_depth,
    expect_true,
    network_of,
    photos,
    scale_of,
    take_photo,
    true_depth,
)
from manyview.alignment.groups import groups
from manyview.alignment.pairs import make_pairs
from manyview.app.console import summarise
from manyview.app.viewer_state import Shown, frustum, report, scene_box, starting_place, visible_points
from manyview.errors import InputError
from manyview.images import Views, load_views
from manyview.methods import dust3r
from manyview.methods.dust3r import Dust3ROptions, choose_pairs
from manyview.methods.fast3r import Fast3ROptions
from manyview.methods.localise import Localisation, MapImage
from manyview.methods.model import Model, named_options
from manyview.methods.placing import Clock, Job, Known
from manyview.networks.checkpoints.model_file import save_model
from manyview.scene import ExportOptions, Scene
from toys import PAIRS_INFO, random_pair_network, tiny_model


def pixels_of(known: list[Photo]) -> list[np.ndarray]:
    return [photo.pixels for photo in known]


def reconstruct(known: list[Photo], model: Model | None = None, **options) -> Scene:
    return (model or exact_model(known)).reconstruct(pixels_of(known), **options)


def in_rooms(*rooms: int) -> list[Photo]:
    return [take_photo(number, room=room) for number, room in enumerate(rooms)]


# ---------------------------------------------------------------- true pointmaps
@pytest.mark.parametrize(
    ("sizes", "tolerance"),
    [
        ([(96, 128)] * 4, 1e-4),
        ([(192, 256)] * 3, 1e-4),
        ([(250, 400)] * 3, 5e-3),  # resized by factors that differ a little, and cropped
        ([(128, 96)] * 3, 1e-4),
        ([(96, 128), (256, 192), (150, 200), (100, 100)], 2e-3),
    ],
    ids=["plain", "large", "cropped", "portrait", "mixed"],
)
def test_true_pointmaps_give_true_cameras_depth_and_focal_lengths_in_original_pixels(sizes, tolerance):
    known = [take_photo(number, size=size) for number, size in enumerate(sizes)]
    scene = reconstruct(known)
    expect_true(scene, known, tolerance=tolerance)
    np.testing.assert_array_equal(scene.world_from_camera[0], np.eye(4))
    assert scene.warnings == [] or all("lost a part" in warning for warning in scene.warnings)
    assert scene.world == "first camera"
    assert scene.groups == 1


def test_mixed_cameras_get_a_focal_length_each():
    known = [take_photo(number, focal=focal) for number, focal in enumerate((0.8, 1.1, 1.6))]
    expect_true(reconstruct(known), known, tolerance=1e-3)


def test_padding_keeps_the_whole_photo_and_stays_invalid():
    known = photos(3, size=(90, 128))
    scene = reconstruct(known, exact_model(known, fit="pad"), fit="pad")
    expect_true(scene, known, tolerance=5e-3)
    assert all(0.9 < view.valid.mean() < 1 for view in scene.views)


def test_the_principal_point_is_the_true_centre_of_the_original():
    known = photos(2, size=(250, 401))
    for K in reconstruct(known).K:
        assert (K[0, 2], K[1, 2]) == ((401 - 1) / 2, (250 - 1) / 2)
        assert K[0, 0] == K[1, 1]


def test_noise_is_averaged_over_the_pairs():
    errors = []
    for count in (2, 5):
        known = photos(count)
        scene = reconstruct(known, exact_model(known, noise=0.02), intrinsics=known[0].camera.K)
        scale = scale_of(scene, known)
        errors.append([np.abs(v.depth / scale / true_depth(p, v) - 1).mean()
                       for v, p in zip(scene.views, known, strict=True)])  # fmt: skip
    assert np.mean(errors[1]) < 0.8 * np.mean(errors[0])


def test_one_photo_is_shown_to_the_network_twice():
    known = photos(1)
    model = exact_model(known)
    scene = reconstruct(known, model)
    expect_true(scene, known, tolerance=1e-3)
    np.testing.assert_array_equal(scene.world_from_camera[0], np.eye(4))
    assert network_of(model).asked == [(0, 0)]
    assert network_of(model).encoded == 1
    assert scene.provenance.settings["pairs_run"] == 1
    compatible = reconstruct(known, options=Dust3ROptions(alignment="compatible", iterations=2))
    np.testing.assert_array_equal(compatible.views[0].depth, scene.views[0].depth)


def test_two_photos_are_run_both_ways():
    known = photos(2)
    model = exact_model(known)
    expect_true(reconstruct(known, model), known, tolerance=1e-3)
    assert sorted(network_of(model).asked) == [(0, 1), (1, 0)]


def test_duplicates_are_kept_with_a_warning_and_stand_in_one_place():
    known = photos(3)
    known = [*known, known[1]]
    scene = reconstruct(known)
    expect_true(scene, known, tolerance=1e-3)
    np.testing.assert_allclose(scene.world_from_camera[3], scene.world_from_camera[1], atol=1e-3)
    assert any("same pixels" in warning for warning in scene.warnings)
    assert len(reconstruct(known, dedup=True).views) == 3


def test_numbers_that_are_not_finite_are_masked_and_counted(monkeypatch):
    known = photos(3)
    model = exact_model(known)
    decode = ExactNetwork.decode

    def broken(self, *args):
        result = decode(self, *args)
        for points in result.points:
            points[:, :2] = torch.nan  # the two uppermost rows, in all pairs
        result.points[0][:, 5] = torch.inf  # another one, of first pictures only
        return result

    monkeypatch.setattr(ExactNetwork, "decode", broken)
    scene = reconstruct(known, model)
    for view, photo in zip(scene.views, known, strict=True):
        assert not view.valid[:2].any()
        assert view.valid[2:].all()
        assert view.masked_pixels == 2 * 64
        np.testing.assert_allclose(view.depth[5], scale_of(scene, known) * true_depth(photo, view)[5], rtol=1e-3)
    assert "array#0: 128 pixels were not finite and are masked" in scene.warnings
    assert any(f"{6 * (4 + 1) * 64} pixels of all pairs were not finite" in warning for warning in scene.warnings)


def test_one_photo_whose_points_contradict_every_focal_length_has_no_camera(monkeypatch):
    model = exact_model(photos(1))
    decode = ExactNetwork.decode

    def mirrored(self, *args):
        result = decode(self, *args)
        for points in result.points:
            points[..., :2] *= -1
        return result

    monkeypatch.setattr(ExactNetwork, "decode", mirrored)
    scene = reconstruct(photos(1), model)
    assert scene.views[0].status == "camera_not_found"
    assert scene.views[0].camera is None
    assert "could not be found" in scene.origin


# ---------------------------------------------------------------- which pairs
@pytest.mark.parametrize("graph", ["complete", "swin-1", "swin-2-noncyclic", "logwin-2", "oneref-1"])
def test_the_pairs_of_a_named_graph_are_run_and_suffice(graph):
    known = photos(5)
    model = exact_model(known)
    scene = reconstruct(known, model, options=Dust3ROptions(pairs=graph))
    expect_true(scene, known)
    assert sorted(network_of(model).asked) == sorted(map(tuple, make_pairs(5, graph).tolist()))
    assert network_of(model).encoded == 5
    assert scene.provenance.settings["pairs"] == graph
    assert scene.provenance.settings["pairs_run"] == len(network_of(model).asked)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("graph", ["all", "swin-0", "swin-x", "oneref-7", ""])
def test_a_graph_that_is_not_known_is_an_error_before_the_network_runs(graph, count):
    model = exact_model(photos(count))
    with pytest.raises(InputError, match="pair graph"):
        reconstruct(photos(count), model, options=Dust3ROptions(pairs=graph))
    assert network_of(model).encoded == 0


def test_all_pairs_of_few_photos_are_run_and_similar_ones_of_many():
    for count, expected in ((16, 16 * 15), (20, None)):
        known = photos(count)
        model = exact_model(known, image_size=32)
        scene = reconstruct(known, model)
        asked = network_of(model).asked
        assert len(set(asked)) == len(asked) == (expected or len(asked))
        assert {(second, first) for first, second in asked} == set(asked)
        assert network_of(model).encoded == count
    assert len(asked) < 0.8 * 20 * 19
    expect_true(scene, known)


def random_tokens(views: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(views)
    return [torch.randn(12, 8, generator=generator) for _ in range(views)]


def test_the_number_of_pairs_grows_linearly_and_the_graph_is_connected():
    counts = {views: len(choose_pairs(views, "auto", random_tokens(views))) for views in (17, 35, 70)}
    for views, pairs in counts.items():
        assert 2 * (views - 1) <= pairs <= 2 * 9 * views
        assert len(groups(choose_pairs(views, "auto", random_tokens(views)), views)) == 1
    assert counts[70] < 2.2 * counts[35]


def test_frames_of_a_video_are_paired_with_the_next_one_too():
    views, tokens = 30, random_tokens(30)
    neighbours = {(i, i + 1) for i in range(views - 1)} | {(i + 1, i) for i in range(views - 1)}
    for sequence, is_promised in ((True, True), (False, False)):
        pairs = choose_pairs(views, "auto", tokens, sequence=sequence)
        assert (neighbours <= set(map(tuple, pairs.tolist()))) == is_promised


def test_views_with_timestamps_are_taken_for_a_video():
    known = photos(18)
    model = exact_model(known, image_size=32)
    loaded = load_views(pixels_of(known), size=32, patch_size=8, square_ok=True)
    runs = []
    for stamped in (True, False):
        items = tuple(replace(v, timestamp=float(n)) if stamped or n else v for n, v in enumerate(loaded))
        network_of(model).asked.clear()
        dust3r.run(network_of(model), job_of(model, Views(items=items)), "auto")
        runs.append(set(network_of(model).asked))
    assert {(i, i + 1) for i in range(17)} <= runs[0]
    assert runs[1] < runs[0]  # one frame without a timestamp: not a video


def job_of(model: Model, views: Views) -> Job:
    return Job(views=views, info=model.info, device=model.device, dtype=model.dtype, seed=0, known=Known(),
               clock=Clock(), progress=None)  # fmt: skip


# ---------------------------------------------------------------- photos that nothing links
@pytest.fixture(scope="module")
def apart() -> tuple[list[Photo], Scene]:
    """Three photos of one room, two of another, one of a third, mixed; not to be changed."""
    known = in_rooms(0, 1, 0, 2, 1, 0)
    return known, reconstruct(known)


def test_groups_are_reported_with_their_photos_and_each_has_its_own_frame(apart):
    known, scene = apart
    assert [view.group for view in scene.views] == [0, 1, 0, 2, 1, 0]
    assert scene.groups == 3
    assert [view.status for view in scene.views] == [
        "used", "other_group", "used", "other_group", "other_group", "used",
    ]  # fmt: skip
    assert scene.views[1].status_reason == "nothing links group 1 to the others"
    assert scene.views[3].status_reason == "no pair links it to another photo"
    assert scene.warnings == [
        "the photos fall into 3 groups without a link; each has its own frame. group 0: array#0, array#2, array#5; "
        "group 1: array#1, array#4; group 2: array#3"
    ]
    for number, members in enumerate(((0, 2, 5), (1, 4), (3,))):
        own = [known[view] for view in members]
        expect_true(scene.group(number), own, tolerance=1e-3)
        np.testing.assert_array_equal(scene.group(number).world_from_camera[0], np.eye(4))


def test_a_view_of_another_group_has_no_camera_in_the_scene(apart):
    _, scene = apart
    for view in scene.views:
        assert (view.camera is None) == (view.group > 0) == (view.group_camera is not None)
        assert np.isnan(scene.world_from_camera[list(scene.views).index(view)]).all() == (view.group > 0)
        camera = view.group_camera if view.group else view.camera
        assert camera is not None
        expect_points_are_unprojected_depth(view, camera)
    assert set(scene.point_cloud(percentile=0, include_low_confidence=True).view) == {0, 2, 5}


def test_groups_survive_saving_and_are_exported_one_by_one(apart, tmp_path):
    _, scene = apart
    scene.save(tmp_path / "saved")
    loaded = Scene.load(tmp_path / "saved")
    assert loaded.equals(scene)
    options = ExportOptions(link_images="copy", percentile=0)
    sizes = {}
    for name, part in (("whole", loaded), ("first", loaded.group(0)), ("second", loaded.group(1))):
        part.export(tmp_path / name, ["npz", "ply", "tum", "depth"], options=options)
        with np.load(tmp_path / name / "scene.npz") as archive:
            sizes[name] = archive["name"].tolist()
            assert archive["has_camera"].all()
        assert len(json.loads((tmp_path / name / "depth/depth.json").read_text())["views"]) == len(sizes[name])
    assert sizes == {
        "whole": ["array#0", "array#2", "array#5"],
        "first": ["array#0", "array#2", "array#5"],
        "second": ["array#1", "array#4"],
    }
    assert (tmp_path / "whole/points.ply").read_bytes() == (tmp_path / "first/points.ply").read_bytes()


def test_the_viewer_and_the_summary_say_what_is_in_another_group(apart):
    _, scene = apart
    words = report(scene)
    assert "3 used" in words
    assert "3 in another group" in words
    assert "nothing links group 1" in words
    assert [frustum(view) is not None for view in scene.views] == [True, False, True, False, False, True]
    shown = visible_points(scene, Shown(percentile=0, max_points=None, include_low_confidence=True))
    assert [len(part.points) > 0 for part in shown] == [True, False, True, False, False, True]
    assert np.isfinite(np.concatenate(starting_place(scene, scene_box(scene)))).all()
    figures = summarise(scene, ExportOptions(), [], 1.0)
    assert (figures.views, figures.used, figures.cameras_found) == (6, 3, 3)
    assert "array#3: other_group, no pair links it to another photo" in figures.not_used


def test_a_first_photo_that_nothing_links_is_not_called_the_world():
    known = in_rooms(1, 0, 0)
    scene = reconstruct(known)
    assert [view.status for view in scene.views] == ["other_group", "used", "used"]
    assert scene.origin == "world = camera of the first view that is linked, array#1"
    np.testing.assert_array_equal(scene.world_from_camera[1], np.eye(4))
    expect_true(scene.group(0), known[1:], tolerance=1e-3)
    assert scene.group(0).origin == scene.group(1).origin == "world = camera of the first view"


def test_photos_none_of_which_is_linked_are_all_flagged():
    scene = reconstruct(in_rooms(0, 1, 2))
    assert [view.status for view in scene.views] == ["low_confidence", "other_group", "other_group"]
    assert "confidence of 1.05, expected 2.0" in scene.views[0].status_reason
    assert scene.groups == 3
    assert len(scene.point_cloud()) == 0


def test_unlinked_pairs_take_no_part_in_the_default_alignment(apart):
    known, scene = apart
    alone = reconstruct([known[view] for view in (0, 2, 5)])
    turns = [result.world_from_camera[:, :3, :3] for result in (scene.group(0), alone)]
    np.testing.assert_allclose(turns[0], turns[1], atol=1e-5)
    assert scene.provenance.settings["pairs_run"] == 30


def test_there_is_no_group_beyond_the_last(apart):
    with pytest.raises(InputError, match="no group 3"):
        apart[1].group(3)


# ---------------------------------------------------------------- options
def test_the_compatible_alignment_is_run_by_its_iterations():
    known = photos(3)
    options = Dust3ROptions(alignment="compatible", iterations=3)
    told = []
    scene = reconstruct(known, options=options, progress=lambda *report: told.append(report))
    turned = Rotation.from_matrix(
        scene.world_from_camera[:, :3, :3] @ cameras_in_first(known)[:, :3, :3].swapaxes(1, 2)
    )
    assert np.degrees(turned.magnitude()).max() < 5
    settings = scene.provenance.settings
    assert (settings["alignment"], settings["iterations"]) == ("compatible", 3)
    assert max(done for done, _, what in told if what == "aligning") == 3
    longer = reconstruct(known, options=replace(options, iterations=30))
    objectives = [float(str(result.provenance.settings["objective"])) for result in (longer, scene)]
    assert objectives[0] < objectives[1]


def test_progress_tells_of_every_part():
    told = []
    reconstruct(photos(3), progress=lambda done, total, what: told.append((done, total, what)))
    for part in ("reading photos", "encoding pictures", "pairs", "aligning"):
        counts = [(done, total) for done, total, what in told if what == part]
        assert counts, part
        assert counts[-1][0] == counts[-1][1]
        assert [done for done, _ in counts] == sorted(done for done, _ in counts)


def test_options_that_make_no_sense_are_errors():
    with pytest.raises(InputError, match="iterations") as caught:
        Dust3ROptions(iterations=5)
    assert "compatible" in caught.value.hint
    with pytest.raises(InputError, match="unknown alignment 'slow'"):
        Dust3ROptions(alignment="slow")  # pyright: ignore[reportArgumentType]


def test_options_of_the_wrong_family_are_errors_that_name_the_right_ones():
    with pytest.raises(InputError, match="family dust3r, and the options are Fast3ROptions") as caught:
        reconstruct(photos(1), options=Fast3ROptions())
    assert "Dust3ROptions to DUSt3R models" in caught.value.hint
    with pytest.raises(InputError, match="family fast3r, and the options are Dust3ROptions"):
        tiny_model().reconstruct(pixels_of(photos(1)), options=Dust3ROptions())
    given = {"focal": "shared", "cameras": None, "pairs": None, "alignment": None, "iterations": None}
    with pytest.raises(InputError, match="--focal does not concern models of the family dust3r") as caught:
        named_options("dust3r", given)
    assert caught.value.hint == "These have --pairs, --alignment, --iterations."
    with pytest.raises(InputError, match="--alignment slow"):
        named_options("dust3r", {"alignment": "slow"})
    assert named_options("dust3r", {"pairs": "swin-5", "focal": None}) == Dust3ROptions(pairs="swin-5")


def test_cleaning_can_be_left_out():
    known = photos(3)
    model = exact_model(known, noise=0.05)
    cleaned, raw = (reconstruct(known, model, options=Dust3ROptions(clean=clean)) for clean in (True, False))
    for one, other in zip(cleaned.views, raw.views, strict=True):
        np.testing.assert_array_equal(one.depth, other.depth)
        assert one.confidence.mean() <= other.confidence.mean() == pytest.approx(10)


# ---------------------------------------------------------------- the public doors
@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    """An untrained model whose pairs all count as linked."""
    path = tmp_path_factory.mktemp("model") / "pairs.safetensors"
    save_model(random_pair_network(), path, replace(PAIRS_INFO, image_size=32, least_link=1.0))
    return path


def test_equal_inputs_and_seeds_give_equal_files(model_file, tmp_path):
    pictures = pixels_of(photos(3))
    for name in ("one", "two"):
        manyview.reconstruct(pictures, model_file, seed=3, device="cpu").save(tmp_path / name)
    for file in ("scene.json", "scene.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_scene_of_an_untrained_model_says_where_it_comes_from(model_file):
    scene = manyview.reconstruct(pixels_of(photos(2)), str(model_file), device="cpu")
    assert scene.provenance.model == "toy-pairs"
    assert len(scene.provenance.weights_sha256) == 64
    assert set(scene.provenance.seconds) == {"load_images", "network", "alignment"}
    assert scene.provenance.settings["known_cameras"] == 0
    assert all(np.isfinite(view.points).all() for view in scene.views)


def test_a_pairwise_model_predicts_pairs_and_another_one_says_which_does():
    known = photos(2)
    views = load_views(pixels_of(known), size=64, patch_size=8, square_ok=True)
    maps = exact_model(known).predict_pairs([view.pixels for view in views], np.array([[1, 0]]))
    assert maps.sizes == ((48, 64), (48, 64))
    points, depth = maps.points[0][0].numpy(), true_depth(known[1], views[1])  # pyright: ignore[reportArgumentType]
    assert np.ptp(points[..., 2] / depth) < 1e-4
    motion = cameras_in_first(known)[1]
    in_second = (points / (points[..., 2] / depth).mean()) @ motion[:3, :3].T + motion[:3, 3]
    assert np.isfinite(in_second).all()
    with pytest.raises(InputError, match="pairs need a DUSt3R model") as caught:
        tiny_model().predict_pairs(pixels_of(known), np.array([[0, 1]]))
    assert "manyview-small-pairs" in caught.value.hint


def test_localisation_takes_the_path_of_a_model_file(model_file):
    known = photos(2, size=(96, 128))
    world_points = known[1].points_at(np.stack(np.meshgrid(np.arange(128.0), np.arange(96.0)), axis=-1))
    found = manyview.localize(
        known[0].pixels,
        [MapImage(picture=known[1].pixels, world_points=world_points)],
        model=str(model_file),
        K=known[0].camera.K,
        least_confidence=1.0,
    )
    assert isinstance(found, Localisation)
    assert len(found.pixels) == len(found.points) > 0
    exact = manyview.localize(
        known[0].pixels,
        [MapImage(picture=known[1].pixels, world_points=world_points)],
        model=exact_model(known),
        K=known[0].camera.K,
    )
    assert exact.camera is not None
    np.testing.assert_allclose(exact.camera.world_from_camera, known[0].camera.world_from_camera, atol=0.15)
