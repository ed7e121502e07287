"""Held-out worlds and folders of real scenes: perfect predictions are perfect, and known mistakes are measured."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from manyview.errors import InputError
from manyview.evaluation.folders import evaluate_on_folder, read_folder
from manyview.evaluation.held_out import (
    TrivialModel,
    Truth,
    WorldReport,
    compare_with_truth,
    evaluate_on_worlds,
    mean_depth,
    native_size,
    photograph_world,
    trivial_models,
)
from manyview.geometry import Camera
from manyview.networks.checkpoints.model_file import save_model
from manyview.scene import Scene
from toys import MOVE, oracle_scene, tiny_model

SIZE = (24, 32)
SEED = 1 << 40
HALF = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]])  # the network sees pictures of half the size


def change(scene: Scene, index: int, **changes) -> Scene:
    views = list(scene.views)
    views[index] = replace(views[index], **changes)
    return replace(scene, views=views)


def camera_of(scene: Scene, index: int) -> Camera:
    camera = scene.views[index].camera
    assert camera is not None
    return camera


@dataclass
class Oracle:
    """Knows the worlds from `SEED` on, in the order in which it is asked; `spoil` makes it worse."""

    spoil: Callable[[Scene], Scene] = lambda scene: scene
    asked: list[int] = field(default_factory=list)

    def reconstruct(self, inputs, *, strict: bool = True) -> Scene:
        pictures, truth = photograph_world(SEED + len(self.asked), len(inputs), SIZE)
        np.testing.assert_array_equal(inputs, pictures)
        self.asked.append(len(inputs))
        return self.spoil(oracle_scene(truth))


@pytest.fixture(scope="module")
def truth() -> Truth:
    return photograph_world(SEED + 1, 3, SIZE)[1]


# ---------------------------------------------------------------- one scene
@pytest.mark.parametrize("affine", [np.eye(3), HALF], ids=["same size", "half size"])
def test_the_truth_in_any_frame_and_scale_is_perfect(truth, affine):
    errors = compare_with_truth(oracle_scene(truth, affine), truth)
    assert errors.depth_error == pytest.approx(0, abs=1e-6)
    assert errors.point_error == pytest.approx(0, abs=1e-6)
    assert errors.poses.median_rotation_error < 1e-4 and errors.poses.median_translation_error < 1e-3
    assert (errors.poses.rra[15], errors.poses.rta[15], errors.poses.maa30) == pytest.approx((1, 1, 1))
    assert errors.focal_error == pytest.approx(0) and errors.coverage == 1
    assert (errors.views, errors.cameras_found) == (3, 3)


def test_true_depth_is_taken_from_where_the_network_pixel_lies_in_the_original(truth):
    shifted = HALF + np.array([[0, 0, 3.0], [0, 0, 3.0], [0, 0, 0]])
    scene = oracle_scene(truth, HALF)
    wrong = replace(scene, views=[replace(view, original_from_network=shifted) for view in scene.views])
    assert compare_with_truth(wrong, truth).depth.abs_rel > 0.01


def test_a_camera_turned_by_ten_degrees_is_ten_degrees_wrong(truth):
    scene = oracle_scene(truth)
    camera = camera_of(scene, 1)
    turned = camera.world_from_camera.copy()
    turned[:3, :3] @= Rotation.from_euler("y", 10, degrees=True).as_matrix()
    errors = compare_with_truth(change(scene, 1, camera=replace(camera, world_from_camera=turned)), truth)
    assert errors.poses.rotation_errors == pytest.approx([10, 0, 10], abs=1e-3)
    assert errors.depth_error == pytest.approx(0, abs=1e-6)


def test_depth_that_is_off_by_a_tenth_and_a_longer_focal_length_are_measured(truth):
    scene = oracle_scene(truth)
    view = scene.views[0]
    sign = np.where(np.random.default_rng(0).random(view.size) < 0.5, -0.1, 0.1)
    views = [replace(v, depth=(v.depth * (1 + sign)).astype(np.float32)) for v in scene.views]
    views = [replace(v, camera=replace(v.camera, K=v.camera.K @ np.diag([1.2, 1.2, 1]))) for v in views]
    errors = compare_with_truth(replace(scene, views=views), truth)
    assert errors.depth.abs_rel == pytest.approx(0.1, abs=0.02)
    assert errors.focal_error == pytest.approx(0.2)


def test_noise_in_the_points_is_measured_as_a_share_of_the_distance(truth):
    scene = oracle_scene(truth)
    noise = np.random.default_rng(0).normal(size=(*SIZE, 3)) * MOVE.scale
    figures = [
        compare_with_truth(
            replace(scene, views=[replace(v, points=(v.points + s * noise).astype(np.float32)) for v in scene.views]),
            truth,
        ).point_error
        for s in (0.0, 0.02, 0.2)
    ]
    assert figures[0] < 1e-6 < figures[1] < figures[2]
    assert figures[2] == pytest.approx(10 * figures[1], rel=0.2)


def test_a_camera_that_was_not_found_counts_as_wrong(truth):
    errors = compare_with_truth(change(oracle_scene(truth), 2, camera=None), truth)
    assert errors.cameras_found == 2 and errors.poses.missing == 1
    assert errors.poses.rra[15] == pytest.approx(1 / 3)
    assert errors.focal_error == pytest.approx(0)


def test_a_scene_without_a_single_valid_pixel_is_infinitely_wrong(truth):
    scene = oracle_scene(truth)
    errors = compare_with_truth(replace(scene, views=[replace(v, valid=v.valid & False) for v in scene.views]), truth)
    assert (errors.depth_error, errors.point_error, errors.coverage) == (math.inf, math.inf, 0)
    half = np.arange(SIZE[1]) < SIZE[1] // 2
    errors = compare_with_truth(replace(scene, views=[replace(v, valid=v.valid & half) for v in scene.views]), truth)
    assert 0.3 < errors.coverage < 0.7 and errors.depth_error < 1e-6


def test_what_is_not_known_is_not_measured(truth):
    scene = oracle_scene(truth)
    errors = compare_with_truth(scene, Truth(cameras=[None, None, None], depth=truth.depth))
    assert (errors.poses, errors.point_error, errors.focal_error) == (None, None, None) and errors.depth is not None
    errors = compare_with_truth(scene, Truth(cameras=truth.cameras, depth=[None, None, None]))
    assert (errors.depth, errors.depth_error, errors.point_error, errors.coverage) == (None,) * 4
    assert errors.poses is not None
    holes = [np.full(SIZE, np.nan) for _ in range(3)]
    assert compare_with_truth(scene, Truth(cameras=truth.cameras, depth=holes)).depth_error is None


def test_truth_that_does_not_fit_the_scene_is_an_error(truth):
    with pytest.raises(InputError, match="3 views, 2 true cameras"):
        compare_with_truth(oracle_scene(truth), Truth(cameras=truth.cameras[:2], depth=truth.depth))
    with pytest.raises(InputError, match="true depth of shape"):
        compare_with_truth(oracle_scene(truth), Truth(cameras=truth.cameras, depth=[np.ones((5, 5))] * 3))


# ---------------------------------------------------------------- many worlds
def test_an_oracle_is_perfect_on_the_worlds_of_the_given_seeds():
    calls = []
    oracle = Oracle()
    report = evaluate_on_worlds(
        oracle, views=2, scenes=3, first_seed=SEED, size=SIZE, progress=lambda *call: calls.append(call[:2])
    )
    assert (report.views, report.scenes, oracle.asked) == (2, 3, [2, 2, 2])
    assert max(report.depth_error, report.point_error, report.focal_error) < 1e-6
    assert report.rotation_error < 1e-4
    assert (report.rra15, report.rta15, report.maa30, report.cameras_found, report.coverage) == (1, 1, 1, 1, 1)
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_a_spoiled_oracle_is_worse():
    def without_first_camera(scene: Scene) -> Scene:
        return change(scene, 0, camera=None)

    report = evaluate_on_worlds(Oracle(without_first_camera), views=3, scenes=2, first_seed=SEED, size=SIZE)
    assert report.cameras_found == pytest.approx(2 / 3)
    assert report.rra15 == report.rta15 == pytest.approx(1 / 3)


def test_a_random_network_is_evaluated_as_users_run_it_and_twice_alike():
    model = tiny_model()
    assert native_size(model) == (24, 32)
    pictures, _ = photograph_world(SEED, 2, native_size(model))
    scene = model.reconstruct(pictures)
    np.testing.assert_array_equal([view.image for view in scene.views], pictures)
    reports = [evaluate_on_worlds(model, views=2, scenes=2, first_seed=SEED) for _ in range(2)]
    assert reports[0] == reports[1]
    assert isinstance(reports[0], WorldReport) and reports[0].depth_error > 0.05


@pytest.mark.parametrize(
    ("views", "scenes", "size", "words"),
    [(1, 1, SIZE, "got views=1"), (2, 0, SIZE, "and scenes=0"), (2, 1, None, "no size of the pictures")],
)
def test_impossible_evaluations_are_errors(views, scenes, size, words):
    with pytest.raises(InputError, match=words):
        evaluate_on_worlds(Oracle(), views=views, scenes=scenes, first_seed=SEED, size=size)


# ---------------------------------------------------------------- trivial models
def test_the_trivial_models_look_at_nothing_and_the_mean_depth_map_is_the_better_one():
    constant, mean = trivial_models(tiny_model(), seed=SEED + 1000)
    reports = [evaluate_on_worlds(m, views=2, scenes=12, first_seed=SEED, size=SIZE) for m in (constant, mean)]
    assert 0.02 < reports[1].depth_error < reports[0].depth_error
    assert reports[0].rta15 == reports[0].maa30 == 0
    pictures, _ = photograph_world(SEED, 2, SIZE)
    black = [np.zeros_like(picture) for picture in pictures]
    np.testing.assert_array_equal(mean.reconstruct(pictures).views[0].depth, mean.reconstruct(black).views[0].depth)


def test_the_rotation_error_of_cameras_that_all_look_one_way_is_the_true_rotation_between_them(truth):
    model = TrivialModel(name="constant", depth=np.ones((1, 1)), image_size=32, patch_size=8)
    errors = compare_with_truth(model.reconstruct([np.zeros((*SIZE, 3), np.uint8)] * 3), truth)
    matrices = [camera.world_from_camera[:3, :3] for camera in truth.cameras]
    pairs = [Rotation.from_matrix(matrices[i].T @ matrices[j]).magnitude() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert errors.poses.rotation_errors == pytest.approx(np.degrees(pairs), abs=1e-3)


def test_on_average_the_ground_comes_nearer_towards_the_bottom_of_the_picture():
    depth = mean_depth(SEED + 50, worlds=24)
    assert np.isfinite(depth).all() and depth[-6:].mean() < 0.8 * depth[20:26].mean()
    np.testing.assert_array_equal(depth, mean_depth(SEED + 50, worlds=24))


# ---------------------------------------------------------------- folders
@pytest.fixture
def folder(tmp_path, truth) -> Path:
    """The world of `truth` as a folder: depth of the first view as PNG, of the second as npz, none of the third."""
    pictures, _ = photograph_world(SEED + 1, 3, SIZE)
    frames = []
    for index, (picture, camera) in enumerate(zip(pictures, truth.cameras, strict=True)):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
        frames.append(
            {
                "file": f"{index}.png",
                "width": SIZE[1],
                "height": SIZE[0],
                "K": camera.K.tolist(),
                "cam2world": camera.world_from_camera.tolist(),
            }
        )
    Image.fromarray(np.rint(truth.depth[0] * 1000).astype(np.uint16)).save(tmp_path / "depth0.png")
    np.savez(tmp_path / "depth1.npz", depth=np.where(truth.depth[1] > 0, truth.depth[1], np.nan))
    frames[0]["depth"], frames[1]["depth"] = "depth0.png", "depth1.npz"
    meta = {"name": "room", "kind": "multiview", "units": "metre", "depth_scale": 0.001, "frames": frames}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    return tmp_path


class FolderOracle:
    def __init__(self, truth: Truth) -> None:
        self.truth = truth

    def reconstruct(self, inputs, *, strict: bool = True) -> Scene:
        indices = [int(Path(path).stem) for path in inputs]
        cameras, depth = self.truth.cameras, self.truth.depth
        return oracle_scene(Truth(cameras=[cameras[i] for i in indices], depth=[depth[i] for i in indices]))


def test_a_folder_gives_back_cameras_and_depth(folder, truth):
    scene = read_folder(folder)
    assert (scene.name, scene.units, len(scene.frames)) == ("room", "metre", 3)
    read = scene.truth()
    assert read.depth[2] is None
    np.testing.assert_allclose(read.depth[0], truth.depth[0], atol=0.0006)
    np.testing.assert_allclose(read.depth[1], truth.depth[1])
    np.testing.assert_allclose(read.cameras[1].world_from_camera, truth.cameras[1].world_from_camera)
    assert [frame.path.name for frame in scene.spread(2).frames] == ["0.png", "2.png"]


def test_an_oracle_is_perfect_on_a_folder_and_a_trivial_model_is_not(folder, truth):
    errors = evaluate_on_folder(FolderOracle(truth), folder)
    assert errors.depth.abs_rel < 1e-3 and errors.depth.delta_125 == 1
    assert errors.poses.maa30 == pytest.approx(1) and errors.point_error < 1e-3
    constant = TrivialModel(name="constant", depth=np.ones((1, 1)), image_size=32, patch_size=8)
    assert evaluate_on_folder(constant, folder).depth.abs_rel > 0.05
    assert evaluate_on_folder(FolderOracle(truth), folder, max_views=2).views == 2


def test_a_random_network_is_evaluated_on_a_folder(folder):
    errors = evaluate_on_folder(tiny_model(), folder)
    assert errors.views == 3 and errors.depth.abs_rel > 0.01


def spoil_meta(folder: Path, **changes) -> None:
    path = folder / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("frames", [None, [], [{}], [{"file": "0.png", "K": [[1]], "cam2world": [[1]]}], ["0.png"]])
def test_damaged_descriptions_of_a_folder_are_named(folder, frames):
    spoil_meta(folder, frames=frames)
    with pytest.raises(InputError, match=r"meta\.json"):
        read_folder(folder)


def test_folders_that_cannot_be_evaluated_are_errors(folder, tmp_path_factory):
    with pytest.raises(InputError, match=r"meta\.json"):
        read_folder(tmp_path_factory.mktemp("empty"))
    with pytest.raises(InputError, match="at least one view"):
        read_folder(folder).spread(0)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / "depth0.png")
    with pytest.raises(InputError, match=r"depth0\.png.*16-bit"):
        evaluate_on_folder(tiny_model(), folder)
    spoil_meta(folder, frames=[{"file": "0.png", "width": 1, "height": 1}])
    with pytest.raises(InputError, match="neither cameras nor depth"):
        evaluate_on_folder(tiny_model(), folder)


def test_the_small_real_scenes_are_read(shared):
    counts = {"fountain-p11": 11, "box-rgbd": 25, "motorcycle-stereo": 2, "davis-car-shadow": 40}
    scenes = {name: read_folder(shared / "data" / name) for name in counts}
    assert {name: len(scene.frames) for name, scene in scenes.items()} == counts
    assert scenes["davis-car-shadow"].units is None and scenes["davis-car-shadow"].frames[0].camera is None
    for name, known in (("box-rgbd", 0.35), ("motorcycle-stereo", 0.93)):
        depth = scenes[name].frames[0].depth()
        assert np.mean(depth > 0) == pytest.approx(known, abs=0.1) and 0.2 < np.median(depth[depth > 0]) < 10
    constant = TrivialModel(name="constant", depth=np.ones((1, 1)), image_size=64, patch_size=8)
    errors = evaluate_on_folder(constant, shared / "data/box-rgbd", max_views=3)
    assert 0.05 < errors.depth.abs_rel < 1 and errors.poses.rotation_errors.max() > 5


# ---------------------------------------------------------------- the model card's script
def test_the_model_card_has_a_row_for_each_number_of_views_and_predictor(tmp_path, capsys):
    path = Path(__file__).parents[1] / "benchmarks" / "model_card.py"
    spec = importlib.util.spec_from_file_location("model_card", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    model = tiny_model()
    save_model(model.network, tmp_path / "tiny.safetensors", model.info)
    arguments = ["--model", str(tmp_path / "tiny.safetensors"), "--scenes", "1", "--out", str(tmp_path / "card.json")]
    script.main([*arguments, "--real", str(tmp_path / "missing")])
    record = json.loads((tmp_path / "card.json").read_text())
    rows = [(row["views"], row["predictor"]) for row in record["worlds"]]
    assert rows == [(v, p) for v in (2, 4, 8, 16) for p in ("model", "constant depth", "mean depth map")]
    assert {"command", "hardware", "versions"} <= record.keys() and str(tmp_path) not in json.dumps(record)
    printed = capsys.readouterr()
    table = [line for line in printed.out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 12 and len({line.count("|") for line in table}) == 1
    assert "8 views: 1 of 1" in printed.err and "no real scenes" in printed.err
