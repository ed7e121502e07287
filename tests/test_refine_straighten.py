"""Photos of lenses with distortion become those of pinhole cameras; depth, points and observations go along."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manyview.errors import ExportError, InputError
from manyview.formats.lens import Lens
from manyview.geometry import Camera, pixel_grid, points_from_depth
from manyview.refine.straighten import straight_point, straighten
from manyview.refine.world import ImagePoint
from manyview.scene import Provenance, Scene, SceneView, SparsePoints

HEIGHT, WIDTH = 240, 320  # of the photo
FACTOR = 2  # photo pixels to one of the network's
LENS = Lens(
    model="OPENCV",
    params=(260.0, 262.0, 161.0, 119.0, -0.12, 0.03, 0.002, -0.001),
    stored_size=(HEIGHT, WIDTH),
    original_from_stored=np.eye(3),
)
K = np.array([[260.0, 0, 160.5], [0, 262.0, 118.5], [0, 0, 1]])
PLACE = np.array([[0, 0, 1, 2.0], [1, 0, 0, -1], [0, 1, 0, 0.5], [0, 0, 0, 1]])


def pattern(rays: np.ndarray) -> np.ndarray:
    """(..., 3) -> (..., 3): smooth colours, 0..255, by the slopes of rays."""
    x, y = rays[..., 0] / rays[..., 2], rays[..., 1] / rays[..., 2]
    return np.stack([127 + 100 * np.sin(9 * x), 127 + 100 * np.sin(7 * y), 127 + 100 * np.cos(6 * (x + y))], axis=-1)


def slanted(rays: np.ndarray) -> np.ndarray:
    """z-depth of a slanted plane."""
    x, y = rays[..., 0] / rays[..., 2], rays[..., 1] / rays[..., 2]
    return 1 / (0.4 + 0.15 * x - 0.1 * y)


def seen_rays(pixels: np.ndarray) -> np.ndarray:
    return LENS.unproject(pixels.reshape(-1, 2)).reshape(*pixels.shape[:-1], 3)


def straight_rays(camera: Camera, pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1) @ np.linalg.inv(camera.K).T


@pytest.fixture
def distorted(tmp_path: Path) -> Scene:
    """One view of a plane behind the lens, in photo and network pixels, with sparse points."""
    photo = np.rint(pattern(seen_rays(pixel_grid(HEIGHT, WIDTH)))).astype(np.uint8)
    path = tmp_path / "photos" / "wall.png"
    path.parent.mkdir()
    Image.fromarray(photo).save(path)
    shift = (FACTOR - 1) / 2
    original_from_network = np.array([[FACTOR, 0, shift], [0, FACTOR, shift], [0, 0, 1.0]])
    small = HEIGHT // FACTOR, WIDTH // FACTOR
    rays = seen_rays(pixel_grid(*small) * FACTOR + shift)
    depth = slanted(rays).astype(np.float32)
    camera = Camera(K=K, world_from_camera=PLACE, width=WIDTH, height=HEIGHT)
    view = SceneView.masked(
        depth=depth,
        points=points_from_depth(depth, np.linalg.inv(original_from_network) @ K, PLACE),
        confidence=np.ones(small),
        valid=np.ones(small, dtype=bool),
        name="wall.png",
        source=str(path),
        original_size=(HEIGHT, WIDTH),
        original_from_network=original_from_network,
        image=np.rint(pattern(rays)).astype(np.uint8),
        camera=camera,
    )
    pixels = np.array([[20.0, 30.0], [300.25, 200.5], [160.0, 119.0], [0.0, 0.0]])
    at_points = seen_rays(pixels)
    away = slanted(at_points)
    points = at_points / at_points[:, 2:] * away[:, None] @ PLACE[:3, :3].T + PLACE[:3, 3]
    sparse = SparsePoints(
        points=points,
        colours=np.zeros((4, 3), np.uint8),
        errors=np.zeros(4),
        group=np.zeros(4, np.int32),
        view=np.zeros(4, np.int32),
        point=np.arange(4),
        pixels=pixels,
        depth=away,
    )
    return Scene(
        views=(view,), provenance=Provenance(model="none", weights_sha256="", weights_licence="none"), sparse=sparse
    )


def test_the_new_photo_is_what_a_pinhole_camera_sees(distorted: Scene, tmp_path: Path) -> None:
    made = straighten(distorted, {0: LENS}, tmp_path / "new").views[0]
    assert made.camera is not None and made.source is not None
    assert Path(made.source).parent == tmp_path / "new" / "images"
    with Image.open(made.source) as picture:
        drawn = np.asarray(picture).astype(float)
    assert drawn.shape == (HEIGHT, WIDTH, 3) == (*made.original_size, 3)
    expected = pattern(straight_rays(made.camera, pixel_grid(HEIGHT, WIDTH)))
    assert np.abs(drawn - expected).mean() < 0.6  # grey levels: rounding, and bicubic interpolation
    before = np.asarray(Image.open(distorted.views[0].source or "")).astype(float)
    assert np.abs(before - expected).mean() > 4 * np.abs(drawn - expected).mean()


def test_depth_picture_and_points_of_the_network_go_along(distorted: Scene, tmp_path: Path) -> None:
    made = straighten(distorted, {0: LENS}, tmp_path / "new").views[0]
    camera = made.network_camera
    assert camera is not None and made.valid.mean() > 0.98
    rays = straight_rays(camera, pixel_grid(*made.size))
    np.testing.assert_allclose(made.depth[made.valid], slanted(rays)[made.valid], rtol=5e-3)
    inner = np.abs(made.image.astype(float) - pattern(rays))[4:-4, 4:-4]
    assert inner.mean() < 2
    pixels, depth = camera.project(made.points[made.valid].astype(np.float64))
    np.testing.assert_allclose(pixels, pixel_grid(*made.size)[made.valid], atol=1e-3)
    np.testing.assert_allclose(depth, made.depth[made.valid], rtol=1e-5)


def test_observations_are_where_the_new_camera_sees_the_points(distorted: Scene, tmp_path: Path) -> None:
    made = straighten(distorted, {0: LENS}, tmp_path / "new")
    assert made.sparse is not None and made.views[0].camera is not None
    pixels, depth, rows = made.sparse.of_view(0)
    assert list(rows) == [0, 1, 2]  # the corner of the photo is outside: no empty border is kept
    projected, away = made.views[0].camera.project(made.sparse.points[rows])
    np.testing.assert_allclose(projected, pixels, atol=1e-3)
    np.testing.assert_allclose(away, depth, rtol=1e-6)
    assert len(made.sparse) == 4  # points stay


def test_places_in_a_photo_are_found_in_the_one_that_was_drawn_anew(distorted: Scene, tmp_path: Path) -> None:
    made = straighten(distorted, {0: LENS}, tmp_path / "new")
    assert distorted.sparse is not None and made.views[0].camera is not None
    x, y = distorted.sparse.pixels[0]
    moved = straight_point(made, {0: LENS}, ImagePoint(view=0, x=float(x), y=float(y)))
    expected, _ = made.views[0].camera.project(distorted.sparse.points[:1])
    np.testing.assert_allclose([moved.x, moved.y], expected[0], atol=1e-3)
    assert np.hypot(moved.x - x, moved.y - y) > 2
    assert straight_point(made, {}, moved) is moved  # of photos that were not drawn anew nothing moves
    with pytest.raises(InputError, match="cut off"):
        straight_point(made, {0: LENS}, ImagePoint(view=0, x=0, y=0))


def test_a_view_without_a_photo_has_its_picture_straightened_alone(distorted: Scene, tmp_path: Path) -> None:
    scene = replace(distorted, views=(replace(distorted.views[0], source=None),))
    made = straighten(scene, {0: LENS}, tmp_path / "new").views[0]
    assert made.source is None and not (tmp_path / "new").exists()
    assert made.camera is not None and not np.allclose(made.camera.K, K)


def test_what_is_in_the_way_is_kept_and_other_views_stay(distorted: Scene, tmp_path: Path) -> None:
    two = replace(distorted, views=(*distorted.views, distorted.views[0]))
    made = straighten(two, {0: LENS}, tmp_path / "new")
    assert made.views[1] is two.views[1]
    assert "1 photos of lenses with distortion were drawn anew" in made.provenance.changes[-1]
    other = replace(LENS, params=(*LENS.params[:4], -0.05, 0, 0, 0))
    with pytest.raises(ExportError):
        straighten(two, {0: other}, tmp_path / "new")
    straighten(two, {0: other}, tmp_path / "new", overwrite=True)
