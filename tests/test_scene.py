"""`Scene`: saving gives back the same, files appear whole or not at all, points are chosen as promised."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from manyview import files
from manyview.errors import ExportError, InputError
from manyview.scene import EXPORTERS, Scene, SceneView
from scenes import NETWORK_SIZE, digest_of, synthetic_scene, with_view, without_camera, without_points

NAMES = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=3)


@pytest.mark.parametrize("views", [1, 3])
def test_a_loaded_scene_equals_the_saved_one(tmp_path, views):
    scene = without_camera(synthetic_scene(views), views - 1)
    scene = with_view(scene, 0, timestamp=1.25, upright_in_file=False, source="/photos/Straße 東京.jpg")
    scene = replace(scene, metric=True)
    written = scene.save(tmp_path / "out")
    assert [path.name for path in written] == ["scene.safetensors", "timings.json", "scene.json"] and all(
        p.is_file() for p in written
    )
    loaded = Scene.load(tmp_path / "out")
    assert loaded.equals(scene) and scene.equals(loaded)
    assert loaded.views[-1].camera is None and np.isnan(loaded.world_from_camera[-1]).all()


def test_arrays_that_are_not_contiguous_are_saved_right(tmp_path):
    view = synthetic_scene(1).views[0]
    turned = np.asfortranarray(view.points)
    flipped = np.ascontiguousarray(view.image[..., ::-1])[..., ::-1]
    with_view(synthetic_scene(1), 0, points=turned, image=flipped, valid=view.valid.T.copy().T).save(tmp_path)
    assert Scene.load(tmp_path).equals(synthetic_scene(1))


def test_equals_sees_every_single_difference():
    scene = synthetic_scene(2)
    view = scene.views[1]
    depth = view.depth.copy()
    depth[3, 4] = np.nextafter(depth[3, 4], np.float32(np.inf))
    assert scene.equals(synthetic_scene(2))
    assert not scene.equals(synthetic_scene(2, seed=1))
    assert not scene.equals(with_view(scene, 1, depth=depth))
    assert not scene.equals(with_view(scene, 1, depth=view.depth.astype(np.float64)))
    assert not scene.equals(without_camera(scene, 1))
    assert not scene.equals(replace(scene, provenance=replace(scene.provenance, model="other")))
    assert not scene.equals(replace(scene, warnings=()))
    assert not scene.equals(replace(scene, views=scene.views[:1]))


@settings(max_examples=15, deadline=None)
@given(names=NAMES, reason=st.text(max_size=8), timestamp=st.none() | st.floats(0, 1e6))
def test_any_words_survive_saving(tmp_path_factory, names, reason, timestamp):
    view = synthetic_scene(1).views[0]
    views = tuple(replace(view, name=name, status_reason=reason, timestamp=timestamp) for name in names)
    scene = replace(synthetic_scene(1), views=views, skipped=((names[0], reason),))
    folder = tmp_path_factory.mktemp("words")
    scene.save(folder)
    assert Scene.load(folder).equals(scene)


def test_a_name_that_is_not_utf8_survives_saving(tmp_path):
    scene = with_view(synthetic_scene(1), 0, name=b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
    scene.save(tmp_path)
    assert Scene.load(tmp_path).equals(scene)


def test_scene_json_says_units_frame_and_version_in_words(tmp_path):
    scene = synthetic_scene(2)
    scene.save(tmp_path / "relative")
    replace(scene, metric=True).save(tmp_path / "metric")
    relative, metric = (json.loads((tmp_path / name / "scene.json").read_text()) for name in ("relative", "metric"))
    assert relative["format_version"] == 1 and "first view" in relative["frame"] and "OpenCV" in relative["frame"]
    assert metric["units"] == "metres" and "not metres" in relative["units"]
    assert [view["name"] for view in relative["views"]] == ["view0.png", "view1.png"]
    assert relative["skipped"] == [{"name": "broken.jpg", "reason": "truncated"}] and relative["warnings"] == ["one"]
    with safe_open(tmp_path / "metric" / "scene.safetensors", "np") as arrays:
        assert json.loads(arrays.metadata()["manyview"])["units"] == "metres"


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        synthetic_scene().save(tmp_path / name)
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b")


@pytest.mark.parametrize("field", ["depth", "points", "confidence"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_never_written(tmp_path, field, number):
    scene = synthetic_scene(2)
    array = getattr(scene.views[1], field).copy()
    array[2, 3] = number
    broken = with_view(scene, 1, **{field: array})
    with pytest.raises(ExportError, match=f"view1.png: {field} is not finite"):
        broken.save(tmp_path / "out")
    with pytest.raises(ExportError, match="not finite"):
        broken.export(tmp_path / "out", ["ply"])
    assert not (tmp_path / "out").exists()


def test_words_that_are_not_finite_are_never_written(tmp_path):
    with pytest.raises(ExportError, match="JSON"):
        with_view(synthetic_scene(1), 0, timestamp=float("nan")).save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_masking_takes_out_and_counts_what_is_not_finite():
    height, width = NETWORK_SIZE
    view = synthetic_scene(1).views[0]
    raw = {name: getattr(view, name).astype(np.float64) for name in ("depth", "points", "confidence")}
    raw["depth"][0, 0], raw["points"][0, 1, 2], raw["confidence"][0, 2] = np.nan, np.inf, -np.inf
    raw["depth"][0, 3], raw["depth"][0, 4], raw["points"][0, 5, 0] = -1, 0, 1e300
    others = {"name": "a", "source": None, "original_size": view.original_size, "image": view.image, "camera": None}
    masked = SceneView.masked(
        **raw, **others, valid=np.ones((height, width), bool), original_from_network=view.original_from_network
    )
    assert not masked.valid[0, :6].any() and masked.valid[0, 6]
    assert masked.masked_pixels == 4
    assert not masked.depth[~masked.valid].any() and not masked.points[~masked.valid].any()
    assert all(np.isfinite(a).all() and a.dtype == np.float32 for a in (masked.depth, masked.points, masked.confidence))
    assert masked.confidence.min() >= 1


def test_a_folder_with_results_is_refused_unless_overwrite_is_asked_for(tmp_path):
    synthetic_scene(1).save(tmp_path)
    before = digest_of(tmp_path)
    with pytest.raises(ExportError, match="already holds"):
        synthetic_scene(2).save(tmp_path)
    with pytest.raises(ExportError, match="already holds results"):
        files.refuse_results(tmp_path, overwrite=False)
    files.refuse_results(tmp_path, overwrite=True)
    assert digest_of(tmp_path) == before
    synthetic_scene(2).save(tmp_path, overwrite=True)
    assert len(Scene.load(tmp_path).views) == 2


def test_overwriting_never_touches_files_of_others(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "scene.json").write_text("mine too")
    with pytest.raises(ExportError, match=r"did not write: scene\.json"):
        synthetic_scene(1).save(tmp_path, overwrite=True)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"notes.txt": "mine", "scene.json": "mine too"}
    (tmp_path / "scene.json").unlink()
    synthetic_scene(1).save(tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_manifest_of_another_program_is_left_alone(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(ExportError, match="not a manifest of manyview"):
        synthetic_scene(1).save(tmp_path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_nothing_is_written_through_a_linked_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExportError), files.staged(tmp_path / "out") as staging:
        (staging / "images").mkdir()
        (staging / "images" / "a.png").write_bytes(b"a")
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_an_interrupt_or_a_full_disk_leaves_the_old_result(tmp_path, monkeypatch, error):
    scene = synthetic_scene(1)
    scene.save(tmp_path / "out")
    before = digest_of(tmp_path / "out")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("manyview.scene_files.write_json", fail)
    with pytest.raises(ExportError if isinstance(error, OSError) else KeyboardInterrupt):
        synthetic_scene(2).save(tmp_path / "out", overwrite=True)
    with pytest.raises((ExportError, KeyboardInterrupt)):
        synthetic_scene(2).save(tmp_path / "new")
    assert digest_of(tmp_path / "out") == before and not (tmp_path / "new").exists()


def test_scene_json_comes_last_and_the_manifest_after_it(tmp_path, monkeypatch):
    order = []
    replace_file = files._replace
    monkeypatch.setattr(files, "_replace", lambda a, b: (order.append(b.name), replace_file(a, b)))
    synthetic_scene(1).save(tmp_path)
    assert order == ["manifest.json", "scene.safetensors", "timings.json", "scene.json", "manifest.json"]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["complete"] and manifest["files"] == ["scene.json", "scene.safetensors", "timings.json"]


def test_a_run_killed_between_two_files_can_be_overwritten(tmp_path, monkeypatch):
    def fail(source, target):
        if target.name == "scene.json":
            raise KeyboardInterrupt
        replace_file(source, target)

    replace_file = files._replace
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, "_replace", fail)
        synthetic_scene(1).save(tmp_path)
    assert not json.loads((tmp_path / "manifest.json").read_text())["complete"]
    with pytest.raises(InputError, match=r"scene\.json"):
        Scene.load(tmp_path)
    synthetic_scene(2).save(tmp_path, overwrite=True)
    assert Scene.load(tmp_path).equals(synthetic_scene(2))


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("scene.json", b""),
        ("scene.json", b"{}"),
        ("scene.json", b'{"format": "manyview scene", "format_version": 99}'),
        ("scene.json", b'{"format": "manyview scene", "format_version": 1, "arrays": {"sha256": NaN}}'),
        ("scene.json", b'{"format": "manyview scene", "format_version": 1}'),
        ("scene.safetensors", b"short"),
        ("scene.safetensors", None),
    ],
)
def test_damaged_files_are_an_input_error(tmp_path, name, contents):
    synthetic_scene(1).save(tmp_path)
    (tmp_path / name).unlink()
    if contents is not None:
        (tmp_path / name).write_bytes(contents)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        Scene.load(tmp_path)


def test_arrays_of_another_scene_are_noticed(tmp_path):
    for seed in (0, 1):
        synthetic_scene(1, seed=seed).save(tmp_path / str(seed))
    (tmp_path / "0" / "scene.safetensors").write_bytes((tmp_path / "1" / "scene.safetensors").read_bytes())
    with pytest.raises(InputError, match="not the file"):
        Scene.load(tmp_path / "0")


def test_the_point_cloud_knows_where_its_points_come_from():
    scene = synthetic_scene()
    cloud = scene.point_cloud(percentile=0)
    assert len(cloud) == sum(int(view.valid.sum()) for view in scene.views)
    for row in range(0, len(cloud), 501):
        view, (x, y) = scene.views[cloud.view[row]], cloud.pixel[row]
        assert view.valid[y, x]
        assert np.array_equal(cloud.points[row], view.points[y, x])
        assert np.array_equal(cloud.colours[row], view.image[y, x]) and cloud.confidence[row] == view.confidence[y, x]


@settings(max_examples=20, deadline=None)
@given(percentile=st.floats(0, 100), minimum=st.none() | st.floats(1, 4), most=st.none() | st.integers(0, 6000))
def test_the_point_cloud_keeps_confident_points_up_to_the_cap(percentile, minimum, most):
    scene = synthetic_scene(2)
    every = scene.point_cloud(percentile=percentile, min_confidence=minimum)
    expected = 0
    for index, view in enumerate(scene.views):
        threshold = max(np.percentile(view.confidence[view.valid], percentile), minimum or 1)
        kept = view.valid & (view.confidence >= threshold)
        assert (every.view == index).sum() == kept.sum()
        expected += int(kept.sum())
    drawn = scene.point_cloud(percentile=percentile, min_confidence=minimum, max_points=most)
    assert len(drawn) == (expected if most is None else min(expected, most))
    keys = [{(v, x, y) for v, (x, y) in zip(c.view, c.pixel, strict=True)} for c in (drawn, every)]
    assert len(keys[0]) == len(drawn) and keys[0] <= keys[1]


def test_the_draw_is_repeatable_and_spread_over_the_views():
    scene = synthetic_scene()
    first, again, other = (scene.point_cloud(max_points=600, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.points, again.points) and not np.array_equal(first.points, other.points)
    assert np.bincount(first.view).min() > 150


def test_only_views_in_use_give_points():
    scene = without_camera(with_view(synthetic_scene(), 1, status="low_confidence"), 2)
    assert set(scene.point_cloud().view) == {0}
    assert set(scene.point_cloud(include_low_confidence=True).view) == {0, 1}
    assert set(scene.point_cloud(include_low_confidence=True, views=[1, 2]).view) == {1}
    assert len(without_points(scene).point_cloud(max_points=5)) == 0
    with pytest.raises(InputError, match="percentile"):
        scene.point_cloud(percentile=101)


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(
        ExportError, match=r"no format 'fbx'[\s\S]*colmap, depth, glb, nerfstudio, npz, ply, splat-ready, tum"
    ):
        synthetic_scene(1).export(tmp_path / "out", ["ply", "fbx"])
    assert not (tmp_path / "out").exists()
    assert EXPORTERS == "manyview.exporters"


def test_save_and_exports_share_a_folder(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    scene = synthetic_scene()
    scene.save(tmp_path)
    written = scene.export(tmp_path, ["ply", "tum"])
    assert all(path.is_file() and path.parent == tmp_path for path in written) and not caplog.records
    scene.export(tmp_path, ["glb"])
    with pytest.raises(ExportError, match=r"already holds points\.ply"):
        scene.export(tmp_path, ["npz", "ply"])
    assert not (tmp_path / "scene.npz").exists()
    scene.export(tmp_path, ["npz", "ply"], overwrite=True)
    assert Scene.load(tmp_path).equals(scene)


@given(names=st.lists(st.text(max_size=300) | st.sampled_from(["a.jpg", "A.JPG", "x/a.jpg", "x_a.jpg", "..", "/etc"])))
def test_file_names_are_flat_different_and_not_too_long(names):
    made = files.unique_file_names(names)
    assert len({name.casefold() for name in made}) == len(names)
    for name in made:
        assert name == Path(name).name and name not in (".", "..") and len(name.encode()) <= 200
        assert not set(name) & set('/\\:*?"<>|\0')


# ---------------------------------------------------------------- photos that nothing links
def in_groups(*groups: int) -> Scene:
    """A scene whose views belong to these groups; those of groups beyond 0 keep their cameras as cameras in a group."""
    scene = synthetic_scene(len(groups))
    for index, group in enumerate(groups):
        if group:
            view = scene.views[index]
            scene = with_view(
                scene, index, group=group, camera=None, group_camera=view.camera, status="other_group",
                status_reason="nothing links it",
            )  # fmt: skip
    return scene


def test_groups_are_counted_and_each_is_a_scene_of_its_own():
    scene = in_groups(0, 1, 0, 2)
    assert (scene.groups, synthetic_scene(3).groups, replace(scene, views=()).groups) == (3, 1, 1)
    whole = synthetic_scene(4)
    for number, members in enumerate(([0, 2], [1], [3])):
        part = scene.group(number)
        assert [view.name for view in part.views] == [whole.views[index].name for index in members]
        assert [view.status for view in part.views] == ["used"] * len(members)
        assert np.array_equal(part.world_from_camera, whole.world_from_camera[members])
        assert part.groups == 1
        assert len(part.point_cloud(percentile=0)) == sum(int(whole.views[i].valid.sum()) for i in members)
    for missing in (-1, 3):
        with pytest.raises(InputError, match=f"no group {missing}"):
            scene.group(missing)


def test_a_scene_without_groups_is_its_own_only_one():
    scene = replace(synthetic_scene(2), world="given")
    assert scene.group(0).equals(replace(scene, views=list(scene.views)))


def test_groups_and_the_world_survive_saving(tmp_path):
    scene = replace(in_groups(0, 1, 0), world="given")
    scene.save(tmp_path)
    loaded = Scene.load(tmp_path)
    assert loaded.equals(scene)
    assert loaded.group(1).equals(scene.group(1))
    assert (loaded.world, loaded.group(0).world, loaded.group(1).world) == ("given", "given", "first camera")
    assert not loaded.equals(with_view(loaded, 1, group=2))
    assert not loaded.equals(replace(loaded, world="first camera"))
    described = json.loads((tmp_path / "scene.json").read_text())
    assert "that of the given cameras" in described["frame"]
    assert [view["group"] for view in described["views"]] == [0, 1, 0]


def test_files_from_before_there_were_groups_are_read(tmp_path):
    scene = synthetic_scene(2)
    scene.save(tmp_path)
    described = json.loads((tmp_path / "scene.json").read_text())
    del described["world"]
    for view in described["views"]:
        del view["group"], view["group_camera"]
    (tmp_path / "scene.json").write_text(json.dumps(described))
    assert Scene.load(tmp_path).equals(scene)


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (synthetic_scene(2), "world = camera of the first view"),
        (in_groups(0, 1), "world = camera of the first view"),
        (in_groups(1, 0), "world = camera of the first view that is linked, view1.png"),
        (replace(in_groups(1, 0), world="given"), "world = that of the given cameras"),
        (
            without_camera(synthetic_scene(2), 0),
            "world = about the camera of the first view, which could not be found exactly",
        ),
        (
            without_camera(in_groups(1, 0), 1),
            "world = about the camera of the first view that is linked, view1.png, which could not be found exactly",
        ),
    ],
)
def test_the_origin_is_said_in_words(scene, words):
    assert scene.origin == words
    assert scene.frame == f"{words}, OpenCV axes: x right, y down, z forward"


@pytest.mark.parametrize("write", ["export", "write"])
def test_files_of_a_scene_hold_the_views_that_share_its_world(tmp_path, write):
    scene = in_groups(0, 1, 0)
    getattr(scene, write)(tmp_path / "all", ["npz", "depth", "ply"])
    scene.group(1).export(tmp_path / "one", ["npz"])
    names = {}
    for folder in ("all", "one"):
        with np.load(tmp_path / folder / "scene.npz") as archive:
            names[folder] = archive["name"].tolist()
    assert names == {"all": ["view0.png", "view2.png"], "one": ["view1.png"]}
    assert not (tmp_path / "all" / "depth" / "view1.tif").exists()
    if write == "write":
        assert Scene.load(tmp_path / "all").equals(scene)


def test_a_camera_of_another_group_that_is_not_finite_is_never_written(tmp_path):
    scene = in_groups(0, 1)
    camera = scene.views[1].group_camera
    assert camera is not None
    broken = with_view(scene, 1, group_camera=replace(camera, K=np.full((3, 3), np.nan)))
    with pytest.raises(ExportError, match=r"group_camera\.K is not finite"):
        broken.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
