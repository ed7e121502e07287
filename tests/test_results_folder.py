"""A folder of results: refused or replaced whole, nothing deleted that is not ours, equal bytes for equal runs."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from manyview.errors import ExportError
from manyview.files import refuse_inputs_inside, refuse_results, replaced, staged
from manyview.scene import ExportOptions, Scene, result_names
from scenes import synthetic_scene, with_view, without_camera

ALL = ["ply", "glb", "colmap", "nerfstudio", "depth", "npz", "tum"]


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_writing_again_leaves_nothing_of_the_earlier_result_and_everything_of_others(tmp_path):
    out, scene = tmp_path / "out", synthetic_scene(views=3)
    scene.write(out, ["ply", "colmap", "tum"])
    (out / "mine.txt").write_text("keep")
    (out / "sparse" / "mine.txt").write_text("keep")
    other = synthetic_scene(views=2, seed=5)
    written = other.write(out, ["glb"], overwrite=True)
    kept = {"mine.txt", "sparse/mine.txt", "manifest.json"}
    assert set(digests(out)) == kept | {path.relative_to(out).as_posix() for path in written}
    assert not (out / "sparse" / "0").exists()
    assert Scene.load(out).equals(other)


def test_a_failed_write_leaves_the_earlier_result_as_it_was(tmp_path):
    out, scene = tmp_path / "out", synthetic_scene(views=2)
    scene.write(out, ["ply"])
    before = digests(out)
    with pytest.raises(ExportError):
        scene.write(out, ["stl"], overwrite=True)
    with pytest.raises(ExportError, match="already holds"):
        scene.write(out, ["ply"])
    assert digests(out) == before


def test_equal_scenes_give_equal_bytes_in_all_files_but_the_timings(tmp_path):
    scene = synthetic_scene(views=3)
    slower = replace(scene, provenance=replace(scene.provenance, seconds={"network": 99.0}))
    scene.write(tmp_path / "one", ALL)
    slower.write(tmp_path / "two", ALL)
    one, two = digests(tmp_path / "one"), digests(tmp_path / "two")
    assert one.keys() == two.keys()
    assert {name for name in one if one[name] != two[name]} == {"timings.json"}
    assert Scene.load(tmp_path / "two").provenance.seconds == {"network": 99.0}


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX systems")
def test_files_get_the_permissions_that_the_user_wants(tmp_path):
    previous = os.umask(0o022)
    try:
        written = synthetic_scene(views=2).write(tmp_path / "out", ["ply"])
    finally:
        os.umask(previous)
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o644}


def test_folders_that_are_not_ours_are_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="is a file"):
        refuse_results(tmp_path / "file", overwrite=True)
    with pytest.raises(ExportError, match="did not write"):
        refuse_results(tmp_path, overwrite=True)
    (tmp_path / "empty").mkdir()
    refuse_results(tmp_path / "empty", overwrite=False)
    refuse_results(tmp_path / "new", overwrite=False)
    synthetic_scene(views=2).write(tmp_path / "ours")
    with pytest.raises(ExportError, match="already holds results"):
        refuse_results(tmp_path / "ours", overwrite=False)
    refuse_results(tmp_path / "ours", overwrite=True)


def test_inputs_in_the_output_folder_are_refused(tmp_path):
    refuse_inputs_inside(tmp_path / "out", [tmp_path / "photos", tmp_path / "outside.jpg"])
    for given in ("out", "out/photos", "out/photos/../photos/a.jpg"):
        with pytest.raises(ExportError, match="lies in the output folder"):
            refuse_inputs_inside(tmp_path / "out", [tmp_path / given])


def test_doubtful_cameras_are_left_out_and_named_or_kept_and_marked(tmp_path):
    import pycolmap

    doubtful = {"status": "low_confidence", "status_reason": "few points agree"}
    scene = without_camera(with_view(synthetic_scene(views=4), 1, **doubtful), 2)
    names = [view.name for view in scene.views]
    for include, images in ((False, 2), (True, 3)):
        out = tmp_path / str(include)
        scene.write(out, ALL, options=ExportOptions(include_low_confidence=include))
        assert len(pycolmap.Reconstruction(str(out / "sparse" / "0")).images) == images
        assert len([n for n in (out / "trajectory.txt").read_text().splitlines() if n[0] != "#"]) == images
        for file in ("transforms.json", "sparse/0/manyview.json"):
            about = json.loads((out / file).read_text())
            said = f"{names[1]}: low_confidence, few points agree"
            lost = next(line for line in about["left_out"] if line.startswith(names[2]))
            assert about["left_out"] == ([lost] if include else [said, lost])
            assert about["doubtful"] == ([said] if include else [])


def test_the_frame_is_not_said_to_be_a_camera_that_was_not_found():
    scene = synthetic_scene(views=3)
    assert scene.frame.startswith("world = camera of the first view")
    assert "could not be found" in without_camera(scene, 0).frame


@pytest.mark.parametrize(
    "options",
    [
        {"percentile": 150},
        {"percentile": -1},
        {"percentile": float("nan")},
        {"max_points": 0},
        {"min_confidence": float("nan")},
        {"depth_tolerance": -0.1},
        {"seed": -1},
        {"link_images": "move"},
    ],
)
def test_impossible_options_are_refused_at_once(options):
    with pytest.raises(ExportError, match="Give"):
        ExportOptions(**options)


def test_a_replaced_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), replaced(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    with replaced(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_photos_of_ours_are_kept_when_a_scene_of_them_replaces_their_result(tmp_path):
    out = tmp_path / "out"
    with staged(out) as staging:
        (staging / "photos").mkdir()
        scene = synthetic_scene(photos=staging / "photos")
        (staging / "old.txt").write_text("stale")
    views = [replace(view, source=str(out / "photos" / view.name)) for view in scene.views]
    before = digests(out / "photos")
    replace(scene, views=views).write(out, ["colmap"], overwrite=True)
    assert digests(out / "photos") == before and len(before) == 3
    assert not (out / "old.txt").exists()
    replace(scene, views=views).write(out, overwrite=True)
    assert digests(out / "photos") == before and not (out / "images").exists()


@pytest.mark.parametrize("link_images", ["link", "copy"])
def test_exported_pictures_can_be_the_photos_of_the_next_run(tmp_path, link_images):
    (tmp_path / "photos").mkdir()
    out, scene = tmp_path / "out", synthetic_scene(photos=tmp_path / "photos")
    scene.write(out, ["colmap"], options=ExportOptions(link_images=link_images))
    before = digests(out / "images")
    views = [replace(view, source=str(out / "images" / view.name)) for view in scene.views]
    replace(scene, views=views).write(out, ["colmap"], overwrite=True)
    assert digests(out / "images") == before and len(before) == 3


def test_a_folder_in_the_place_of_an_old_file_is_left_alone(tmp_path):
    synthetic_scene(1).write(tmp_path, ["ply"])
    (tmp_path / "points.ply").unlink()
    (tmp_path / "points.ply").mkdir()
    synthetic_scene(1).write(tmp_path, overwrite=True)
    assert (tmp_path / "points.ply").is_dir() and '"complete": true' in (tmp_path / "manifest.json").read_text()


def test_old_files_behind_a_link_or_outside_the_folder_are_not_deleted(tmp_path):
    out = tmp_path / "out"
    synthetic_scene(1).write(out, ["depth"])
    (out / "depth").rename(tmp_path / "elsewhere")
    (out / "depth").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "mine.txt").write_text("keep")
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"] += ["../mine.txt", str(tmp_path / "mine.txt")]
    (out / "manifest.json").write_text(json.dumps(manifest))
    before = digests(tmp_path / "elsewhere")
    synthetic_scene(1).write(out, overwrite=True)
    assert digests(tmp_path / "elsewhere") == before and (tmp_path / "mine.txt").read_text() == "keep"


def test_a_run_killed_while_old_files_are_deleted_is_not_said_to_be_complete(tmp_path, monkeypatch):
    synthetic_scene(1).write(tmp_path, ["ply"])

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("manyview.files._delete", kill)
        synthetic_scene(2).write(tmp_path, overwrite=True)
    assert '"complete": false' in (tmp_path / "manifest.json").read_text()
    synthetic_scene(2).write(tmp_path, overwrite=True)
    assert not (tmp_path / "points.ply").exists() and '"complete": true' in (tmp_path / "manifest.json").read_text()


def test_files_of_others_in_the_way_are_found_before_the_work(tmp_path):
    synthetic_scene(1).write(tmp_path, ["tum"])
    names = result_names(["ply", "tum"])
    refuse_results(tmp_path, overwrite=True, names=names)
    (tmp_path / "points.ply").write_text("mine")
    with pytest.raises(ExportError, match=r"did not write: points\.ply"):
        refuse_results(tmp_path, overwrite=True, names=names)
    refuse_results(tmp_path, overwrite=True, names=result_names(["tum"]))
    (tmp_path / "images").mkdir()
    refuse_results(tmp_path, overwrite=True, names=result_names(["colmap"]))
    (tmp_path / "images" / "a.jpg").write_text("mine")
    with pytest.raises(ExportError, match="did not write: images"):
        refuse_results(tmp_path, overwrite=True, names=result_names(["colmap"]))


def test_a_path_through_a_file_is_found_before_the_work_and_leftovers_are_not_in_the_way(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="does not allow it"):
        refuse_results(tmp_path / "file" / "out", overwrite=True)
    (tmp_path / "out" / ".manyview-killed").mkdir(parents=True)
    refuse_results(tmp_path / "out", overwrite=False)


def test_the_names_that_are_checked_are_those_that_are_written(tmp_path):
    for index, name in enumerate(ALL):
        synthetic_scene(2).write(tmp_path / str(index), [name])
        made = {path.name for path in (tmp_path / str(index)).iterdir()} - {"manifest.json"}
        assert made == set(result_names([name]))


def test_scenes_saved_with_their_timings_inside_can_still_be_read(tmp_path):
    scene = synthetic_scene(1)
    scene.save(tmp_path)
    (tmp_path / "timings.json").unlink()
    assert Scene.load(tmp_path).equals(scene) and Scene.load(tmp_path).provenance.seconds == {}
    described = json.loads((tmp_path / "scene.json").read_text())
    described["provenance"]["seconds"] = {"network": 2.0}
    (tmp_path / "scene.json").write_text(json.dumps(described))
    assert Scene.load(tmp_path).provenance.seconds == {"network": 2.0}


def test_archives_hold_no_time(tmp_path):
    synthetic_scene(1).write(tmp_path, ["npz"])
    with zipfile.ZipFile(tmp_path / "scene.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_every_file_with_cameras_says_what_is_left_out_or_doubtful(tmp_path):
    scene = with_view(
        synthetic_scene(3), 1, status="low_confidence", status_reason="few points\nagree", name="caf\udce9"
    )
    for include, word in ((False, "left out"), (True, "doubtful")):
        out = tmp_path / str(include)
        scene.write(out, ["tum", "glb"], options=ExportOptions(include_low_confidence=include))
        (line,) = (line for line in (out / "trajectory.txt").read_text().splitlines() if "few points agree" in line)
        assert line.startswith(f"# {word}: caf")
        glb = (out / "scene.glb").read_bytes()
        extras = json.loads(glb[20 : 20 + int.from_bytes(glb[12:16], "little")])["asset"]["extras"]
        assert [len(extras[key]) for key in ("left_out", "doubtful")] == ([0, 1] if include else [1, 0])


def test_the_glb_too_says_that_the_first_camera_was_not_found(tmp_path):
    without_camera(synthetic_scene(2), 0).write(tmp_path, ["glb"])
    assert b"could not be found" in (tmp_path / "scene.glb").read_bytes()
