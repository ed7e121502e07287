"""Videos are refined, searched for dense depth and straightened at their full size, as photos are."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from manyview.evaluation.held_out import photograph_world
from manyview.formats.lens import Lens
from manyview.geometry import Camera
from manyview.images import Views, load_views
from manyview.refine.densify import DensifyOptions, depth_in_picture
from manyview.refine.exact_cameras import refine_cameras
from manyview.refine.features import extract_features
from manyview.refine.full_size import Photo, open_one_by_one, open_photo
from manyview.refine.options import RefineOptions
from manyview.refine.result import Refined
from manyview.refine.scene_depth import densify_scene
from manyview.refine.straighten import straighten
from manyview.scene import Provenance, Scene, SceneView
from manyview.worlds.settings import WorldSettings
from sparse_worlds import errors_of

av = pytest.importorskip("av")

SIZE = (288, 384)  # (height, width)
COUNT = 6
OPTIONS = RefineOptions(threads=2)


class Filmed:
    """A made-up world: its photos in a folder, a video of the same pictures, and scenes as a network has them."""

    def __init__(self, folder: Path) -> None:
        one_camera = WorldSettings(focal_jitter=0.0)
        self.pictures, truth = photograph_world(3, COUNT, SIZE, one_camera)
        self.cameras = [camera for camera in truth.cameras if camera is not None]
        self.depths = [
            np.where(np.isfinite(depth) & (depth > 0), depth, 0) for depth in truth.depth if depth is not None
        ]
        self.video = write_video(folder / "clip.mp4", self.pictures)
        self.photos = folder / "photos"
        self.photos.mkdir()
        for number, picture in enumerate(self.pictures):
            Image.fromarray(picture).save(self.photos / f"{number}.png")

    def scene_of(self, views: Views, *, off: float = 0.02) -> Scene:
        """Cameras that are a little off, and exact depth, at the network's size."""
        generator = np.random.default_rng(0)
        made = []
        for number, (view, camera, depth) in enumerate(zip(views, self.cameras, self.depths, strict=True)):
            world_from_camera = np.linalg.inv(self.cameras[0].world_from_camera) @ camera.world_from_camera
            if number:
                world_from_camera[:3, 3] += off * generator.normal(size=3)
            placed = replace(camera, world_from_camera=world_from_camera)
            small = depth_in_picture(depth, np.linalg.inv(view.original_from_network), view.size)
            height, width = view.size
            made.append(
                SceneView.masked(
                    name=view.name,
                    source=view.source,
                    timestamp=view.timestamp,
                    original_size=view.original_size,
                    original_from_network=view.original_from_network,
                    image=view.pixels,
                    camera=placed,
                    depth=small,
                    points=np.zeros((height, width, 3)),
                    confidence=np.full((height, width), 2.0),
                    valid=small > 0,
                )
            )
        return Scene(views=made, provenance=Provenance(model="none", weights_sha256="", weights_licence="none"))

    @property
    def film(self) -> Scene:
        return self.scene_of(load_views(self.video, size=96, fps=2))


def write_video(path: Path, pictures: Sequence[np.ndarray]) -> Path:
    """Two frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(2))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 50_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def filmed(tmp_path_factory) -> Filmed:
    return Filmed(tmp_path_factory.mktemp("filmed"))


@pytest.fixture(scope="module")
def refined(filmed: Filmed) -> Refined:
    return refine_cameras(filmed.film, OPTIONS)


# ------------------------------------------------------------------ cameras
def test_cameras_of_a_video_are_as_exact_as_those_of_its_frames_as_photos(filmed: Filmed, refined: Refined) -> None:
    photos = refine_cameras(filmed.scene_of(load_views(filmed.photos, size=96)), OPTIONS)
    assert refined.kept == photos.kept == "refined"
    assert refined.registered == photos.registered == tuple(range(COUNT))
    assert refined.reprojection_error < 2 * photos.reprojection_error < 1.0
    for own, other in zip(
        errors_of(refined.scene, filmed.cameras), errors_of(photos.scene, filmed.cameras), strict=True
    ):
        assert own < max(3 * other, 2e-3)  # half the colours are lost in the video
    assert refined.warnings == photos.warnings == ()


def test_features_of_frames_are_found_at_their_full_size(filmed: Filmed) -> None:
    found = extract_features(filmed.film.views, OPTIONS)
    photos = extract_features(filmed.scene_of(load_views(filmed.photos, size=96)).views, OPTIONS)
    for own, other in zip(found, photos, strict=True):
        assert own.note == "" and own.resolution == 1
        assert len(own) > 0.8 * len(other)


def test_the_frames_opened_are_those_of_the_views(filmed: Filmed) -> None:
    views = filmed.film.views
    shuffled = [views[4], views[0], views[2], views[0]]
    for index, opened in open_one_by_one(shuffled, 10_000):
        picture = filmed.pictures[(4, 0, 2, 0)[index]].astype(float)
        assert np.abs(opened().pixels - picture).mean() < 6  # what compression took
    small = open_photo(views[3], 192)
    assert small.note == "" and small.pixels.shape == (144, 192, 3)
    np.testing.assert_allclose(small.original_from_photo, [[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])


def test_few_frames_are_held_while_features_are_found(filmed: Filmed, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, held, most = threading.Lock(), [0], [0]

    def counted(views, max_size):
        for index, opened in open_one_by_one([*views], max_size):
            with lock:
                held[0] += 1
                most[0] = max(most[0], held[0])
            yield index, opened_and_counted(opened)

    def opened_and_counted(opened):
        def open_and_count() -> Photo:
            photo = opened()
            with lock:
                held[0] -= 1
            return photo

        return open_and_count

    monkeypatch.setattr("manyview.refine.features.open_one_by_one", counted)
    found = extract_features(
        [filmed.film.views[index % COUNT] for index in range(4 * COUNT)], replace(OPTIONS, threads=1)
    )
    assert len(found) == 4 * COUNT and most[0] <= 3


def test_a_video_that_is_gone_is_matched_in_the_networks_pictures_and_a_warning_says_so(filmed: Filmed) -> None:
    scene = filmed.film
    views = [replace(view, source="/nowhere/clip.mp4") for view in scene.views]
    found = refine_cameras(replace(scene, views=views), OPTIONS)
    told = [words for words in found.scene.warnings if "network's picture" in words]
    assert len(told) == 1 and "clip#000000" in told[0] and "cannot be opened as a video" in told[0]
    assert all(outcome.note for outcome in found.views)


# ------------------------------------------------------------------ dense depth and lenses
def test_dense_depth_is_found_in_the_frames(filmed: Filmed) -> None:
    exact = filmed.scene_of(load_views(filmed.video, size=96, fps=2), off=0)
    found = densify_scene(exact, DensifyOptions(passes=2, long_side=192))
    assert [view.size for view in found.scene.views].count((144, 192)) >= 4
    assert not any("network's picture" in words for words in found.scene.warnings)
    for view, depth in zip(found.dense.views, filmed.depths, strict=True):
        picture = cv2.resize(filmed.pictures[int(view.name[-1])], (192, 144), interpolation=cv2.INTER_AREA)
        assert np.abs(view.image - picture.astype(float)).mean() < 6  # what compression took
        exact_depth = cv2.resize(depth, (192, 144), interpolation=cv2.INTER_NEAREST_EXACT)
        both = view.confirmed & (exact_depth > 0)
        assert not both.any() or np.median(np.abs(view.depth[both] / exact_depth[both] - 1)) < 0.01


def test_frames_seen_through_a_lens_with_distortion_are_drawn_anew_at_their_full_size(
    filmed: Filmed, tmp_path: Path
) -> None:
    scene = filmed.film
    height, width = SIZE
    lens = Lens(
        model="SIMPLE_RADIAL",
        params=(float(width), width / 2, height / 2, -0.05),
        stored_size=SIZE,
        original_from_stored=np.eye(3),
    )
    K = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])
    camera = Camera(K=K, world_from_camera=np.eye(4), width=width, height=height)
    views = [replace(view, camera=camera) for view in scene.views[:3]]
    views[2] = replace(views[2], source="/nowhere/clip.mp4")
    made = straighten(replace(scene, views=views), dict.fromkeys(range(3), lens), tmp_path / "new").views
    for index in (0, 1):
        assert Path(made[index].source or "").parent == tmp_path / "new" / "images"
        assert made[index].timestamp == views[index].timestamp
        drawn, before = open_photo(made[index], 10_000), filmed.pictures[index].astype(float)
        assert drawn.note == "" and drawn.pixels.shape == (*SIZE, 3)
        middle = np.abs(drawn.pixels - before)[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4]
        assert middle.mean() < 12 < np.abs(drawn.pixels - before).max()
    assert made[2].source is None  # the video, should it come back, does not show what this camera sees
