"""A folder of results: refused or replaced whole, nothing deleted that is not ours, equal bytes for equal runs."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from manyview.errors import ExportError
from manyview.files import refuse_results, replaced
from manyview.scene import ExportOptions, Scene
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


def test_doubtful_cameras_are_left_out_and_named_or_kept_and_marked(tmp_path):
    import json

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


@pytest.mark.parametrize("options", [{"percentile": 150}, {"percentile": -1}, {"max_points": 0}])
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
