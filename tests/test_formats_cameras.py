"""COLMAP and nerfstudio folders: cameras that fit their pictures, tracks that fit the points."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import plyfile
import pycolmap
import pytest
from PIL import Image

from manyview.errors import ExportError
from manyview.geometry.cameras import Camera
from manyview.scene import ExportOptions, Scene
from scenes import NETWORK_SIZE, ORIGINAL_SIZE, synthetic_scene, with_view, without_camera

HALF = 0.5  # both formats: the top-left pixel's centre is (0.5, 0.5)


@pytest.fixture
def photographed(tmp_path) -> Scene:
    (tmp_path / "photos").mkdir()
    return synthetic_scene(photos=tmp_path / "photos")


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def turned_photo(scene: Scene, folder: Path, image_format: str = "JPEG") -> Scene:
    """View 0 stored lying on its side, with the flag that turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = folder / "turned.jpg"
    picture = Image.open(folder / "view0.png").transpose(Image.Transpose.ROTATE_90)
    picture.save(path, format=image_format, exif=exif)
    return with_view(scene, 0, name="turned.jpg", source=str(path), upright_in_file=False)


def check_colmap_camera(camera: pycolmap.Camera, expected: Camera) -> None:
    assert camera.model.name == "PINHOLE"
    assert (camera.width, camera.height) == (expected.width, expected.height)
    K = expected.K
    assert np.allclose(camera.params, [K[0, 0], K[1, 1], K[0, 2] + HALF, K[1, 2] + HALF], atol=1e-9)


def test_colmap_has_the_cameras_at_the_original_size(tmp_path, photographed):
    scene = without_camera(photographed, 1)
    scene.export(tmp_path / "out", ["colmap"])
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0"))
    assert sorted(image.name for image in model.images.values()) == ["view0.png", "view2.png"]
    for image in model.images.values():
        view = next(view for view in scene.views if view.name == image.name)
        assert view.camera is not None
        check_colmap_camera(image.camera, view.camera)
        assert np.allclose(
            image.cam_from_world().matrix(), np.linalg.inv(view.camera.world_from_camera)[:3], atol=1e-12
        )
        assert np.allclose(image.projection_center(), view.camera.centre)
        assert opened(tmp_path / "out/images" / image.name).shape[:2] == ORIGINAL_SIZE


def test_colmap_points_have_tracks_through_agreeing_views(tmp_path, photographed):
    options = ExportOptions(max_colmap_points=800)
    photographed.export(tmp_path / "out", ["colmap"], options=options)
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0"))
    cloud = photographed.point_cloud(max_points=800)
    points = sorted(model.points3D.items())
    assert len(points) == 800
    assert np.array_equal(np.array([p.xyz for _, p in points]).astype(np.float32), cloud.points)
    assert np.array_equal([p.color for _, p in points], cloud.colours)
    assert max(p.track.length() for _, p in points) == 3 and model.compute_mean_track_length() > 1.5
    for row, (_, point) in enumerate(points):
        images = [model.images[element.image_id] for element in point.track.elements]
        assert f"view{cloud.view[row]}.png" in [image.name for image in images]
        assert len({image.name for image in images}) == len(images)
        for image, element in zip(images, point.track.elements, strict=True):
            pixel = image.points2D[element.point2D_idx].xy
            assert np.allclose(image.project_point(point.xyz), pixel, atol=1e-3)
            assert 0 <= pixel[0] <= image.camera.width and 0 <= pixel[1] <= image.camera.height
    own = next(e for e in points[0][1].track.elements if model.images[e.image_id].name == f"view{cloud.view[0]}.png")
    affine = photographed.views[cloud.view[0]].original_from_network
    expected = affine[:2, :2] @ cloud.pixel[0] + affine[:2, 2] + HALF
    assert np.allclose(model.images[own.image_id].points2D[own.point2D_idx].xy, expected)
    assert model.compute_mean_reprojection_error() < 1e-3


def test_colmap_tracks_leave_out_views_whose_depth_disagrees(tmp_path):
    scene = synthetic_scene()
    farther = with_view(scene, 1, depth=scene.views[1].depth * np.float32(1.03))
    lengths = {}
    for name, changed, tolerance in (("same", scene, 0.02), ("strict", farther, 0.02), ("lax", farther, 0.1)):
        changed.export(tmp_path / name, ["colmap"], options=ExportOptions(depth_tolerance=tolerance))
        model = pycolmap.Reconstruction(str(tmp_path / name / "sparse/0"))
        lengths[name] = model.compute_mean_track_length()
    assert lengths["strict"] < lengths["same"] - 0.3 < lengths["lax"]


def test_colmap_points_behind_walls_are_not_observed(tmp_path):
    """A point beyond what the other views see there has a track of its own view alone."""
    scene = synthetic_scene()
    view = scene.views[0]
    assert view.camera is not None
    moved = with_view(scene, 0, points=(view.points * np.float32(1.5)))
    moved.export(tmp_path, ["colmap"], options=ExportOptions(max_colmap_points=500))
    model = pycolmap.Reconstruction(str(tmp_path / "sparse/0"))
    cloud = moved.point_cloud(max_points=500)
    lengths = np.array([point.track.length() for _, point in sorted(model.points3D.items())])
    assert lengths[cloud.view == 0].mean() < 1.1 < lengths[cloud.view != 0].mean()


def filmed(scene: Scene, video: Path) -> Scene:
    """The scene as of a video, which is written with the pictures of its photos as frames, two a second."""
    import av

    height, width = ORIGINAL_SIZE
    with av.open(str(video), "w") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 20_000_000
        for view in scene.views:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(opened(Path(view.source or "")), format="rgb24")))
        container.mux(stream.encode(None))
    for index in range(len(scene.views)):
        scene = with_view(scene, index, name=f"clip#{index:06d}", source=str(video), timestamp=index / 2)
    return scene


def test_frames_of_videos_are_written_at_their_full_size_with_their_cameras(tmp_path, photographed, caplog):
    caplog.set_level(logging.WARNING)
    scene = without_camera(filmed(photographed, tmp_path / "clip.mp4"), 1)
    scene.export(tmp_path / "out", ["colmap", "nerfstudio"])
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0"))
    names = ["clip#000000.png", "clip#000002.png"]
    assert sorted(path.name for path in (tmp_path / "out/images").iterdir()) == names
    frames = json.loads((tmp_path / "out/transforms.json").read_text())["frames"]
    for index, name, frame in zip((0, 2), names, frames, strict=True):
        image = model.find_image_with_name(name)
        camera = scene.views[index].camera
        assert image is not None and camera is not None
        check_colmap_camera(image.camera, camera)
        assert (frame["h"], frame["w"], frame["cx"]) == (*ORIGINAL_SIZE, pytest.approx(camera.K[0, 2] + HALF))
        photo = opened(Path(photographed.views[index].source or "")).astype(float)
        assert np.abs(opened(tmp_path / "out/images" / name) - photo).mean() < 6  # what compression took
    for file in ("sparse/0/manyview.json", "transforms.json"):
        assert json.loads((tmp_path / "out" / file).read_text())["notes"] == {}
    assert not any("network" in record.getMessage() for record in caplog.records)


def test_frames_of_a_video_that_has_changed_have_the_network_size_and_that_is_noted(tmp_path, photographed):
    scene = filmed(photographed, tmp_path / "clip.mp4")
    scene = with_view(scene, 1, timestamp=0.7)
    scene = with_view(scene, 2, image=255 - scene.views[2].image)
    scene.export(tmp_path / "out", ["colmap", "nerfstudio"])
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0"))
    sizes = {image.name: (image.camera.height, image.camera.width) for image in model.images.values()}
    assert [size for _, size in sorted(sizes.items())] == [ORIGINAL_SIZE, NETWORK_SIZE, NETWORK_SIZE]
    for index, words in ((1, "not there any more"), (2, "shows something else")):
        name = f"images/clip#{index:06d}.png"
        assert np.array_equal(opened(tmp_path / "out" / name), scene.views[index].image)
        notes = json.loads((tmp_path / "out/sparse/0/manyview.json").read_text())["notes"]
        assert words in notes[name] and "network's size" in notes[name]


def test_pictures_of_arrays_and_of_videos_that_are_gone_have_the_network_size_and_its_camera(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    scene = with_view(synthetic_scene(), 1, name="clip.mp4#000120", source="clip.mp4", timestamp=4.0)
    scene.export(tmp_path, ["colmap", "nerfstudio"])
    model = pycolmap.Reconstruction(str(tmp_path / "sparse/0"))
    cloud = scene.point_cloud()
    names = ["view0.png", "clip.mp4#000120.png", "view2.png"]
    for view, name in zip(scene.views, names, strict=True):
        image = model.find_image_with_name(name)
        assert image is not None and np.array_equal(opened(tmp_path / "images" / name), view.image)
        assert (image.camera.height, image.camera.width) == NETWORK_SIZE
        y, x = 11, 23
        assert np.allclose(image.project_point(view.points[y, x].astype(float)), [x + HALF, y + HALF], atol=1e-4)
        centres = np.array([point.xy for point in image.points2D])
        own = np.array([[x + HALF, y + HALF] for x, y in cloud.pixel[cloud.view == scene.views.index(view)]])
        assert np.allclose(centres[: len(own)], own)  # its own points come first
        assert any(view.name in r.getMessage() for r in caplog.records)
    for file in ("sparse/0/manyview.json", "transforms.json"):
        notes = json.loads((tmp_path / file).read_text())["notes"]
        assert set(notes) == {f"images/{name}" for name in names} and "network's size" in notes["images/view0.png"]


def test_upright_photos_are_linked_relative_or_copied(tmp_path, photographed):
    photographed.export(tmp_path / "linked", ["colmap"])
    photographed.export(tmp_path / "copied", ["colmap"], options=ExportOptions(link_images="copy"))
    source = Path(photographed.views[0].source or "")
    link, copy = (tmp_path / name / "images" / "view0.png" for name in ("linked", "copied"))
    assert link.is_symlink() and not link.readlink().is_absolute() and link.resolve() == source.resolve()
    assert not copy.is_symlink() and copy.read_bytes() == source.read_bytes()


def test_photos_are_copied_where_links_are_not_possible(tmp_path, photographed, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    photographed.export(tmp_path / "out", ["colmap"])
    copy = tmp_path / "out/images/view0.png"
    assert not copy.is_symlink() and copy.read_bytes() == Path(photographed.views[0].source or "").read_bytes()


def test_overwriting_replaces_a_link_and_never_the_photo_behind_it(tmp_path, photographed):
    source = Path(photographed.views[0].source or "")
    before = source.read_bytes()
    photographed.export(tmp_path / "out", ["colmap"])
    synthetic_scene().export(tmp_path / "out", ["colmap"], overwrite=True)
    assert source.read_bytes() == before and not (tmp_path / "out/images/view0.png").is_symlink()


@pytest.mark.parametrize("formats", [["colmap"], ["colmap", "nerfstudio"]])
def test_photos_turned_by_a_flag_are_written_upright_at_full_size(tmp_path, photographed, formats):
    scene = turned_photo(photographed, tmp_path / "photos")
    scene.export(tmp_path / "out", formats)
    written = tmp_path / "out/images/turned.jpg"
    assert not written.is_symlink()
    with Image.open(written) as image:
        assert image.getexif().get(0x0112, 1) == 1 and (image.height, image.width) == ORIGINAL_SIZE
    difference = opened(written).astype(float) - opened(tmp_path / "photos/view0.png")
    assert np.abs(difference).mean() < 8
    image = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0")).find_image_with_name("turned.jpg")
    assert image is not None and scene.views[0].camera is not None
    check_colmap_camera(image.camera, scene.views[0].camera)


def test_formats_that_trainers_cannot_read_are_converted(tmp_path, photographed):
    path = tmp_path / "photos" / "first.gif"
    Image.open(tmp_path / "photos" / "view0.png").save(path)
    scene = with_view(photographed, 0, name="first.gif", source=str(path))
    scene.export(tmp_path / "out", ["colmap"])
    assert opened(tmp_path / "out/images/first.gif.png").shape == (*ORIGINAL_SIZE, 3)


@pytest.mark.parametrize("how", ["missing", "resized", "damaged", "no picture"])
def test_a_photo_that_is_no_longer_what_it_was_gives_way_to_the_networks_picture(tmp_path, photographed, how):
    scene = turned_photo(photographed, tmp_path / "photos") if how == "damaged" else photographed
    path = Path(scene.views[0].source or "")
    if how == "missing":
        path.unlink()
    elif how == "resized":
        Image.new("RGB", (20, 10)).save(path)
    else:
        path.write_bytes(path.read_bytes()[:900] if how == "damaged" else b"words")
    scene.export(tmp_path / "out", ["nerfstudio", "colmap"])
    about = json.loads((tmp_path / "out/sparse/0/manyview.json").read_text())
    assert list(about["notes"]) == [f"images/{scene.views[0].name}"]
    frame = json.loads((tmp_path / "out/transforms.json").read_text())["frames"][0]
    assert (frame["h"], frame["w"]) == NETWORK_SIZE
    assert opened(tmp_path / "out" / frame["file_path"]).shape[:2] == NETWORK_SIZE
    image = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0")).find_image_with_name(scene.views[0].name)
    assert image is not None and (image.camera.height, image.camera.width) == NETWORK_SIZE


def test_equal_names_from_different_folders_stay_apart(tmp_path, photographed):
    views = []
    for index, view in enumerate(photographed.views):
        folder = tmp_path / "photos" / str(index)
        folder.mkdir()
        path = Path(view.source or "").rename(folder / "Bild ä.png")
        views.append(replace(view, name=f"{index % 2}/Bild ä.png", source=str(path)))
    scene = replace(photographed, views=tuple(views))
    scene.export(tmp_path / "out", ["colmap", "nerfstudio"])
    frames = json.loads((tmp_path / "out/transforms.json").read_text(encoding="utf-8"))["frames"]
    assert len({frame["file_path"] for frame in frames}) == 3
    model = pycolmap.Reconstruction(str(tmp_path / "out/sparse/0"))
    for view, frame in zip(scene.views, frames, strict=True):
        assert (tmp_path / "out" / frame["file_path"]).read_bytes() == Path(view.source or "").read_bytes()
        assert model.find_image_with_name(frame["file_path"].removeprefix("images/")) is not None


def test_nerfstudio_frames_project_the_points_to_their_pixels(tmp_path, photographed):
    photographed.export(tmp_path / "out", ["nerfstudio"])
    transforms = json.loads((tmp_path / "out/transforms.json").read_text())
    vertices = plyfile.PlyData.read(tmp_path / "out" / transforms["ply_file_path"])["vertex"]
    cloud = photographed.point_cloud()
    world = np.stack([vertices[axis] for axis in "xyz"], -1).astype(np.float64)
    assert np.array_equal(world.astype(np.float32), cloud.points)
    for index, (view, frame) in enumerate(zip(photographed.views, transforms["frames"], strict=True)):
        rows = cloud.view == index
        camera_from_world = np.linalg.inv(np.array(frame["transform_matrix"]))
        x, y, z = camera_from_world[:3, :3] @ world[rows].T + camera_from_world[:3, 3:]
        assert (z < 0).all()  # OpenGL cameras look along -z, y is up
        column = frame["cx"] + frame["fl_x"] * x / -z
        row = frame["cy"] - frame["fl_y"] * y / -z
        affine = view.original_from_network
        expected = cloud.pixel[rows] @ affine[:2, :2].T + affine[:2, 2] + HALF
        assert np.allclose(np.stack([column, row], -1), expected, atol=1e-3)
        picture = opened(tmp_path / "out" / frame["file_path"])
        assert picture.shape[:2] == (frame["h"], frame["w"]) == ORIGINAL_SIZE
        colours = picture[row.astype(int), column.astype(int)]
        assert np.median(np.abs(colours.astype(float) - cloud.colours[rows])) <= 2


def test_colmap_and_nerfstudio_share_their_pictures_also_when_written_one_after_the_other(tmp_path, photographed):
    scene = turned_photo(photographed, tmp_path / "photos")
    scene.export(tmp_path / "out", ["colmap"])
    scene.export(tmp_path / "out", ["nerfstudio"])
    assert (tmp_path / "out/transforms.json").is_file()
    with pytest.raises(ExportError, match="already holds images"):
        synthetic_scene().export(tmp_path / "out", ["colmap"])
    with pytest.raises(ExportError, match="already holds sparse"):
        scene.export(tmp_path / "out", ["colmap"])


def test_cameras_with_skew_are_refused(tmp_path):
    scene = synthetic_scene(1)
    camera = scene.views[0].camera
    assert camera is not None
    skewed = with_view(scene, 0, camera=replace(camera, K=camera.K + np.array([[0, 5.0, 0], [0, 0, 0], [0, 0, 0]])))
    with pytest.raises(ExportError, match="skew"):
        skewed.export(tmp_path / "out", ["colmap"])
    assert not (tmp_path / "out").exists()
