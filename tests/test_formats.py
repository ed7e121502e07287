"""Exports read back by independent readers: points, frusta, depth, archives, trajectories."""

from __future__ import annotations

import json
import logging
import struct
from dataclasses import replace

import cv2
import numpy as np
import plyfile
import pycolmap
import pytest
import trimesh
from PIL import Image

from manyview.scene import ExportOptions, Scene
from scenes import digest_of, synthetic_scene, with_view, without_camera, without_points

FORMATS = ["ply", "glb", "colmap", "nerfstudio", "depth", "npz", "tum"]
OPENCV_TO_GLTF = np.array([1, -1, -1])


def glb_header(path) -> dict:
    data = path.read_bytes()
    return json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])


def awkward_scenes() -> dict[str, Scene]:
    scene = synthetic_scene()
    names = ("a/Straße 1.jpg", "b/Straße 1.jpg", "../東京 #%?.png")
    named = scene
    for index, name in enumerate(names):
        named = with_view(named, index, name=name)
    no_camera = replace(scene, views=tuple(without_camera(scene, i).views[i] for i in range(3)))
    return {
        "plain": scene,
        "one view": synthetic_scene(1),
        "no camera for one": without_camera(scene, 1),
        "no camera at all": no_camera,
        "no valid depth": without_points(scene),
        "one view without valid depth": replace(scene, views=(scene.views[0], *without_points(scene).views[1:])),
        "low confidence": with_view(scene, 0, status="low_confidence"),
        "awkward names": named,
        "equal names": replace(scene, views=tuple(replace(view, name="same") for view in scene.views)),
        "not utf-8": with_view(scene, 0, name="caf\udce9"),
    }


@pytest.mark.parametrize("case", awkward_scenes())
def test_every_format_writes_every_scene_and_changes_nothing(tmp_path, case):
    scene, untouched = awkward_scenes()[case], awkward_scenes()[case]
    written = scene.export(tmp_path / "out", FORMATS)
    assert scene.equals(untouched)
    on_disk = set(digest_of(tmp_path / "out")) - {"manifest.json"}
    assert on_disk == {str(path.relative_to(tmp_path / "out")) for path in written}
    assert all(path.stat().st_size > 0 for path in written) and len(set(written)) == len(written)
    cameras = sum(view.camera is not None and view.status == "used" for view in scene.views)
    assert len(list((tmp_path / "out").glob("images/*"))) == cameras
    assert len(list((tmp_path / "out" / "depth").glob("*.tif"))) == len(scene.views)


def test_exporting_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        synthetic_scene().export(tmp_path / name, FORMATS)
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b")


def test_views_without_a_camera_are_reported(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    without_camera(synthetic_scene(), 1).export(tmp_path, ["colmap", "nerfstudio", "tum", "glb"])
    for what in ("pictures", "trajectory.txt", "scene.glb"):
        assert any(what in r.getMessage() and "view1.png" in r.getMessage() for r in caplog.records)
    assert json.loads((tmp_path / "transforms.json").read_text())["left_out"] == [
        "view1.png: camera_not_found, too little overlap"
    ]
    assert json.loads((tmp_path / "sparse/0/manyview.json").read_text())["left_out"] == [
        "view1.png: camera_not_found, too little overlap"
    ]


@pytest.mark.parametrize("metric", [False, True])
def test_every_file_says_units_and_frame(tmp_path, metric):
    scene = replace(synthetic_scene(), metric=metric)
    scene.export(tmp_path, FORMATS)
    said = [" ".join(plyfile.PlyData.read(tmp_path / name).comments) for name in ("points.ply", "sparse_pc.ply")]
    said.append(str(glb_header(tmp_path / "scene.glb")["asset"]["extras"]))
    said += [(tmp_path / n).read_text() for n in ("transforms.json", "sparse/0/manyview.json", "depth/depth.json")]
    said.append((tmp_path / "trajectory.txt").read_text())
    said.append(str(np.load(tmp_path / "scene.npz")["about"]))
    for text in said:
        assert "camera of the first view" in text and "units" in text
        assert ("not metres" in text) != metric and "metres" in text


def test_ply_is_read_by_plyfile_and_trimesh(tmp_path):
    scene = synthetic_scene()
    scene.export(tmp_path, ["ply"], options=ExportOptions(percentile=0))
    cloud = scene.point_cloud(percentile=0)
    vertices = plyfile.PlyData.read(tmp_path / "points.ply")["vertex"]
    assert np.array_equal(np.stack([vertices[n] for n in ("x", "y", "z")], -1), cloud.points)
    assert np.array_equal(np.stack([vertices[n] for n in ("red", "green", "blue")], -1), cloud.colours)
    assert np.array_equal(vertices["confidence"], cloud.confidence)
    read = trimesh.load(tmp_path / "points.ply")
    assert np.array_equal(read.vertices, cloud.points) and np.array_equal(read.colors[:, :3], cloud.colours)


def test_words_cannot_break_the_ply_header(tmp_path):
    scene = synthetic_scene(1)
    scene = replace(scene, provenance=replace(scene.provenance, model="modèle\nelement vertex 7\nend_header"))
    scene.export(tmp_path, ["ply"])
    assert len(plyfile.PlyData.read(tmp_path / "points.ply")["vertex"]) == len(scene.point_cloud())


@pytest.mark.parametrize("name", ["ply", "glb"])
def test_points_are_capped_without_bias_to_a_view(tmp_path, name):
    synthetic_scene().export(tmp_path, [name], options=ExportOptions(max_points=500))
    if name == "ply":
        assert len(plyfile.PlyData.read(tmp_path / "points.ply")["vertex"]) == 500
    else:
        assert len(trimesh.load(tmp_path / "scene.glb").geometry["points"].vertices) == 500


def test_glb_has_points_and_frusta_with_y_up(tmp_path):
    scene = without_camera(synthetic_scene(), 1)
    scene.export(tmp_path, ["glb"])
    read = trimesh.load(tmp_path / "scene.glb")
    assert set(read.geometry) == {"points", "camera 0 view0.png", "camera 2 view2.png"}
    cloud = scene.point_cloud()
    assert np.array_equal(read.geometry["points"].vertices, (cloud.points * OPENCV_TO_GLTF).astype(np.float32))
    assert np.array_equal(read.geometry["points"].colors[:, :3], cloud.colours)
    assert np.allclose(read.graph.get("camera 2 view2.png")[0], np.eye(4))
    vertices = np.unique(np.round(read.geometry["camera 2 view2.png"].vertices, 5), axis=0)
    camera = scene.views[2].camera
    assert camera is not None and len(vertices) == 5
    in_camera = np.linalg.inv(camera.world_from_camera) @ np.vstack([(vertices * OPENCV_TO_GLTF).T, np.ones(5)])
    apex, corners = in_camera[:3].T[np.argsort(in_camera[2])][:1], in_camera[:3].T[np.argsort(in_camera[2])][1:]
    assert np.allclose(apex, 0, atol=1e-4)
    seen = corners @ camera.K.T
    expected = {(-0.5, -0.5), (camera.width - 0.5, -0.5), (-0.5, camera.height - 0.5)}
    got = {tuple(np.round(p[:2] / p[2], 1) + 0.0) for p in seen}
    assert expected < got and len(got) == 4


def test_depth_maps_are_read_back(tmp_path):
    scene = with_view(synthetic_scene(), 1, name="b/ä 1.png")
    scene.export(tmp_path, ["depth"])
    about = json.loads((tmp_path / "depth" / "depth.json").read_text(encoding="utf-8"))
    for view, entry in zip(scene.views, about["views"], strict=True):
        assert entry["name"] == view.name
        exact = cv2.imread(str(tmp_path / "depth" / entry["tif"]), cv2.IMREAD_UNCHANGED)
        assert exact is not None and exact.dtype == np.float32 and np.array_equal(exact, view.depth)
        compact = cv2.imread(str(tmp_path / "depth" / entry["png"]), cv2.IMREAD_UNCHANGED)
        assert compact is not None and compact.dtype == np.uint16 and np.array_equal(compact > 0, view.valid)
        assert np.abs(compact * entry["png_scale"] - view.depth).max() <= 0.51 * entry["png_scale"]
        assert compact.max() == 65535
        assert np.array_equal(entry["original_from_network"], view.original_from_network)
        with Image.open(tmp_path / "depth" / entry["preview"]) as preview:
            shown = np.asarray(preview)
        assert not shown[~view.valid].any() and shown[view.valid].any(-1).all()
    with Image.open(tmp_path / "depth" / about["views"][1]["tif"]) as image:
        assert "units" in str(image.tag_v2[270])  # type: ignore[attr-defined]
    with Image.open(tmp_path / "depth" / about["views"][1]["png"]) as image:
        assert "units" in image.info["Description"]


def test_npz_holds_everything_and_nothing_that_is_not_finite(tmp_path):
    scene = without_camera(synthetic_scene(), 1)
    scene.export(tmp_path, ["npz"])
    with np.load(tmp_path / "scene.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")
    assert arrays["has_camera"].tolist() == [True, False, True]
    assert arrays["name"].tolist() == [view.name for view in scene.views]
    for index, view in enumerate(scene.views):
        for field in ("depth", "points", "confidence", "valid", "image"):
            assert np.array_equal(arrays[f"{field}_{index:04d}"], getattr(view, field))
        if view.camera is not None:
            assert np.array_equal(arrays["K"][index], view.camera.K)
            assert np.array_equal(arrays["world_from_camera"][index], view.camera.world_from_camera)


@pytest.mark.parametrize("in_seconds", [True, False])
def test_tum_gives_back_world_from_camera(tmp_path, in_seconds):
    scene = without_camera(synthetic_scene(4), 1)
    if in_seconds:
        for index in range(4):
            scene = with_view(scene, index, timestamp=0.1 * index)
    scene.export(tmp_path, ["tum"])
    rows = np.loadtxt(tmp_path / "trajectory.txt")
    assert np.allclose(rows[:, 0], [0, 0.2, 0.3] if in_seconds else [0, 2, 3])
    for row, matrix in zip(rows, scene.world_from_camera[[0, 2, 3]], strict=True):
        assert np.allclose(pycolmap.Rotation3d(row[4:]).matrix(), matrix[:3, :3], atol=1e-12)
        assert np.array_equal(row[1:4], matrix[:3, 3])
