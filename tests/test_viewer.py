"""The viewer shows what its settings say, on this machine alone, and says what it does not show."""

from __future__ import annotations

import math
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from manyview.app.viewer import Viewer, view
from manyview.app.viewer_state import (
    SceneBox,
    Shown,
    confidence_colours,
    confidence_range,
    frustum,
    report,
    scene_box,
    starting_place,
    thumbnail,
    view_colour,
    visible_points,
    visible_views,
)
from manyview.errors import InputError, ManyviewError
from manyview.scene import Scene
from scenes import synthetic_scene, with_view, without_camera, without_points

pytest.importorskip("viser", reason="the viewer needs the extra manyview[app]")

ALL = Shown(percentile=0, max_points=None)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Four views in use, one of low confidence (4), one whose camera was not found (5)."""
    six = without_camera(synthetic_scene(6), 5)
    return with_view(six, 4, status="low_confidence", status_reason="median confidence 1.1")


@pytest.fixture
def viewer(scene: Scene) -> Iterator[Viewer]:
    with view(scene, port=0, block=False) as viewer:
        yield viewer


# Points and colours


def test_all_valid_points_of_the_views_in_use_are_shown_at_percentile_zero(scene: Scene) -> None:
    parts = visible_points(scene, ALL)
    assert len(parts) == len(scene.views)
    for index in range(4):
        used = scene.views[index]
        np.testing.assert_array_equal(parts[index].points, used.points[used.valid])
        np.testing.assert_array_equal(parts[index].colours, used.image[used.valid])


def test_low_confidence_views_are_shown_on_request_and_views_without_a_camera_never(scene: Scene) -> None:
    assert [len(part.points) > 0 for part in visible_points(scene, ALL)] == [True] * 4 + [False] * 2
    asked = visible_points(scene, replace(ALL, include_low_confidence=True))
    assert [len(part.points) > 0 for part in asked] == [True] * 5 + [False]


@budget(max_examples=15, deadline=None)
@given(percentile=st.floats(0, 95))
def test_the_percentile_keeps_the_most_confident_share_of_each_view(percentile: float) -> None:
    scene = synthetic_scene(2)
    parts = visible_points(scene, replace(ALL, percentile=percentile))
    for scene_view, part in zip(scene.views, parts, strict=True):
        valid = scene_view.valid
        cut = np.percentile(scene_view.confidence[valid], percentile)
        np.testing.assert_array_equal(part.points, scene_view.points[valid & (scene_view.confidence >= cut)])


@pytest.mark.parametrize("most", [0, 1, 777, 10**9])
def test_the_cap_counts_over_all_views_and_draws_the_same_points_each_time(scene: Scene, most: int) -> None:
    settings = replace(ALL, max_points=most)
    first, second = visible_points(scene, settings), visible_points(scene, settings)
    everything = sum(len(part.points) for part in visible_points(scene, ALL))
    assert sum(len(part.points) for part in first) == min(most, everything)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.points, b.points)
        assert len(a.points) == len(a.colours)


def test_points_are_the_ones_that_export_would_write_with_the_same_settings(scene: Scene) -> None:
    parts = visible_points(scene, Shown(percentile=30, max_points=500))
    cloud = scene.point_cloud(percentile=30, max_points=500)
    np.testing.assert_array_equal(np.concatenate([part.points for part in parts]), cloud.points)
    np.testing.assert_array_equal(np.concatenate([part.colours for part in parts]), cloud.colours)


def test_coloured_by_view_each_view_has_the_one_colour_of_its_camera(scene: Scene) -> None:
    parts = visible_points(scene, replace(ALL, colour_by="view"))
    for index, part in enumerate(parts[:4]):
        assert np.unique(part.colours, axis=0).tolist() == [list(view_colour(index, len(scene.views)))]
    assert len({view_colour(index, 6) for index in range(6)}) == 6


def test_coloured_by_confidence_low_is_blue_and_high_is_red_on_one_scale_for_all_views() -> None:
    low, high = np.full((36, 52), 1.5, np.float32), np.full((36, 52), 9.0, np.float32)
    scene = with_view(with_view(synthetic_scene(2), 0, confidence=low), 1, confidence=high)
    first, second = visible_points(scene, replace(ALL, colour_by="confidence"))
    np.testing.assert_array_equal(first.colours, np.broadcast_to([48, 18, 59], first.colours.shape))
    np.testing.assert_array_equal(second.colours, np.broadcast_to([122, 4, 3], second.colours.shape))


def test_the_confidence_map_is_turbo() -> None:
    # Ends and middle of the published table (Mikhailov, "Turbo, an improved rainbow colormap", 2019).
    colours = confidence_colours(np.array([1.0, 2.0, 3.0, -5.0, 99.0]), 1.0, 3.0)
    expected = [[48, 18, 59], [164, 252, 60], [122, 4, 3], [48, 18, 59], [122, 4, 3]]
    np.testing.assert_allclose(colours.astype(int), expected, atol=6)


def test_a_few_enormous_confidences_do_not_move_the_colours() -> None:
    scene = synthetic_scene(2)
    confidence = scene.views[0].confidence.copy()
    confidence[0, :5] = 1e9
    changed = with_view(scene, 0, confidence=confidence)
    np.testing.assert_allclose(confidence_range(changed), confidence_range(scene), rtol=0.1)


def test_equal_confidence_everywhere_gives_one_colour_and_no_warning() -> None:
    colours = confidence_colours(np.full(5, 2.0, np.float32), 2.0, 2.0)
    assert len(np.unique(colours, axis=0)) == 1


def test_a_scene_without_any_valid_pixel_gives_empty_arrays() -> None:
    empty = without_points(synthetic_scene(2))
    for colour_by in ("picture", "confidence", "view"):
        parts = visible_points(empty, replace(ALL, colour_by=colour_by))
        assert [part.points.shape for part in parts] == [(0, 3), (0, 3)]
        assert [part.colours.shape for part in parts] == [(0, 3), (0, 3)]
    assert confidence_range(empty) == (1.0, 1.0)


# Playback


def test_cumulative_stepping_shows_all_views_so_far_and_single_stepping_one(scene: Scene) -> None:
    assert visible_views(scene, Shown()) == [True] * 4 + [False] * 2
    assert visible_views(scene, Shown(timestep=1)) == [True] * 2 + [False] * 4
    assert visible_views(scene, Shown(timestep=1, cumulative=False)) == [False, True] + [False] * 4
    assert visible_views(scene, Shown(timestep=99, include_low_confidence=True)) == [True] * 5 + [False]
    assert not any(visible_views(scene, Shown(timestep=5, cumulative=False, include_low_confidence=True)))


def test_stepping_leaves_every_point_where_it_was(scene: Scene) -> None:
    now, later = visible_points(scene, Shown(timestep=0)), visible_points(scene, Shown(timestep=3, cumulative=False))
    for a, b in zip(now, later, strict=True):
        np.testing.assert_array_equal(a.points, b.points)


@pytest.mark.parametrize(
    "wrong",
    [
        {"percentile": -1.0},
        {"percentile": 96.0},
        {"percentile": math.nan},
        {"colour_by": "depth"},
        {"point_size": 0.0},
        {"camera_size": math.inf},
        {"max_points": -1},
        {"timestep": -1},
    ],
)
def test_settings_out_of_range_are_refused_with_what_was_got(wrong: dict) -> None:
    with pytest.raises(InputError) as error:
        Shown(**wrong)
    assert str(next(iter(wrong.values()))) in str(error.value)
    assert error.value.hint


# Size and place


def test_the_scene_box_scales_with_the_scene_and_ignores_stray_points() -> None:
    scene = synthetic_scene(3)
    box = scene_box(scene)
    larger = replace(scene, views=tuple(replace(v, points=v.points * 1000) for v in scene.views))
    assert scene_box(larger).size == pytest.approx(1000 * box.size, rel=1e-4)
    stray = scene.views[0].points.copy()
    stray[:3] = 1e6
    assert scene_box(with_view(scene, 0, points=stray)).size == pytest.approx(box.size, rel=0.1)


def test_the_box_is_the_20_to_80_percentile_diagonal() -> None:
    scene = synthetic_scene(1)
    points = scene.views[0].points[scene.views[0].valid].astype(np.float64)
    low, high = np.percentile(points, (20, 80), axis=0)
    assert scene_box(scene).size == pytest.approx(np.linalg.norm(high - low), rel=1e-6)
    np.testing.assert_allclose(scene_box(scene).centre, np.median(points, axis=0), rtol=1e-6)


def test_a_scene_without_points_or_cameras_still_has_a_size() -> None:
    empty = without_points(synthetic_scene(3))
    assert scene_box(empty).size > 0
    lost = without_camera(without_camera(without_camera(empty, 0), 1), 2)
    assert scene_box(lost).size == 1.0
    single = without_points(synthetic_scene(1))
    assert scene_box(single).size == 1.0


def test_the_visitor_starts_behind_the_cameras_and_looks_at_the_scene() -> None:
    scene = synthetic_scene(3)
    box = scene_box(scene)
    place, target = starting_place(scene, box)
    forward = (target - place) / np.linalg.norm(target - place)
    for scene_view in scene.views:
        assert scene_view.camera is not None
        assert (scene_view.camera.centre - place) @ scene_view.camera.world_from_camera[:3, 2] > 0
    assert forward @ (box.centre - place) / np.linalg.norm(box.centre - place) > 0.9


def test_the_starting_place_is_finite_and_apart_from_its_target_for_odd_scenes() -> None:
    scene = without_points(synthetic_scene(2))
    turned = scene.views[0].camera
    assert turned is not None
    away = turned.world_from_camera @ np.diag([-1.0, 1, -1, 1])
    opposite = with_view(scene, 1, camera=replace(turned, world_from_camera=away))
    lost = without_camera(without_camera(scene, 0), 1)
    for odd in (scene, opposite, lost):
        for box in (scene_box(odd), SceneBox(centre=np.array([0, 0, -50.0]), size=1.0)):
            place, target = starting_place(odd, box)
            assert np.isfinite([place, target]).all()
            assert np.linalg.norm(target - place) > 0.01 * box.size


# Cameras and pictures


def test_a_frustum_spans_the_angle_that_the_network_picture_spans() -> None:
    scene_view = synthetic_scene(2).views[1]
    shape, camera = frustum(scene_view), scene_view.network_camera
    assert shape is not None
    assert camera is not None
    edges = np.array([[0, -0.5], [0, camera.height - 0.5], [-0.5, 0], [camera.width - 0.5, 0]])
    rays = np.concatenate([edges, np.ones((4, 1))], axis=1) @ np.linalg.inv(camera.K).T
    height, width = rays[1, 1] - rays[0, 1], rays[3, 0] - rays[2, 0]
    assert shape.fov == pytest.approx(2 * math.atan(height / 2))
    assert shape.aspect == pytest.approx(width / height)
    np.testing.assert_array_equal(shape.world_from_camera, camera.world_from_camera)


def test_a_camera_that_was_not_found_has_no_frustum(scene: Scene) -> None:
    assert frustum(scene.views[5]) is None


def test_thumbnails_average_blocks_down_to_the_size_asked_for() -> None:
    checks = np.zeros((40, 60, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 200
    scene_view = replace(
        synthetic_scene(1).views[0], image=checks, **{n: np.zeros((40, 60)) for n in ("depth", "confidence")}
    )
    small = thumbnail(scene_view, longest=30)
    assert small.shape == (20, 30, 3)
    np.testing.assert_array_equal(small, 100)
    np.testing.assert_array_equal(thumbnail(scene_view, longest=60), checks)


# The report


def test_the_report_names_every_view_and_file_that_is_not_shown_with_its_reason(scene: Scene) -> None:
    text = report(scene)
    for said in ("4 used", "1 low confidence", "1 camera not found", "view4.png", "median confidence 1.1"):
        assert said in text
    for said in ("view5.png", "too little overlap", "broken.jpg", "truncated", "not metres", "synthetic-box"):
        assert said in text
    assert "view1.png" not in text


def test_names_of_files_cannot_become_html(scene: Scene) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    bad = replace(
        with_view(scene, 4, name=hostile, status_reason=hostile),
        skipped=((hostile, hostile),),
        warnings=(hostile,),
        provenance=replace(scene.provenance, model=hostile, weights_licence=hostile),
    )
    assert "<img" not in report(bad)
    assert report(bad).count("&lt;img src=x onerror=alert(1)&gt;") == 7


# The server


def test_the_viewer_serves_a_page_on_loopback_only(viewer: Viewer) -> None:
    assert viewer.host == "127.0.0.1"
    assert viewer.url == f"http://127.0.0.1:{viewer.port}"
    with urllib.request.urlopen(viewer.url, timeout=10) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/html")
        assert b"<html" in answer.read().lower()
    # Bound to all interfaces, it would answer on every loopback address too.
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", viewer.port), timeout=1):
        pass


def test_the_viewer_opens_no_tunnel_even_when_asked(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    import viser._viser

    def refuse(*_: object) -> None:
        raise AssertionError("a tunnel was opened")

    monkeypatch.setattr(viser._viser, "ViserTunnel", refuse)
    assert viewer.server.request_share_url() is None


def test_there_is_one_cloud_a_view_and_one_frustum_a_camera_that_was_found(viewer: Viewer, scene: Scene) -> None:
    clouds, cameras = viewer._content.clouds, viewer._content.cameras
    assert len(clouds) == 6
    assert sorted(cameras) == [0, 1, 2, 3, 4]
    assert [cloud.visible for cloud in clouds] == [True] * 4 + [False] * 2
    assert [camera.visible for camera in cameras.values()] == [True] * 4 + [False]
    for index, part in enumerate(visible_points(scene, viewer.settings)):
        np.testing.assert_array_equal(clouds[index].points, part.points)
    scene_view = scene.views[2]
    assert scene_view.camera is not None
    np.testing.assert_allclose(cameras[2].position, scene_view.camera.centre)
    from viser.transforms import SO3

    np.testing.assert_allclose(SO3(cameras[2].wxyz).as_matrix(), scene_view.camera.world_from_camera[:3, :3], atol=1e-9)


def test_up_is_minus_y(viewer: Viewer) -> None:
    from viser import _messages

    sent = viewer.server._websock_server._broadcast_buffer.message_from_id.values()
    turns = [message for message in sent if isinstance(message, _messages.SetOrientationMessage) and not message.name]
    from viser.transforms import SO3

    np.testing.assert_allclose(SO3(np.array(turns[-1].wxyz)) @ np.array([0, -1.0, 0]), [0, 1, 0], atol=1e-6)


def test_a_moved_control_changes_what_is_shown(viewer: Viewer, scene: Scene) -> None:
    panel, content, size = viewer._panel, viewer._content, scene_box(scene).size
    before = len(content.clouds[0].points)
    panel.percentile.value = 80.0
    assert len(content.clouds[0].points) == pytest.approx(before / 4, rel=0.05)
    assert len(content.clouds[0].colors) == len(content.clouds[0].points)
    panel.colour_by.value = "view"
    assert content.clouds[1].colors[0].tolist() == list(view_colour(1, 6))
    panel.point_size.value = 1.0
    assert content.clouds[3].point_size == pytest.approx(0.01 * size)
    panel.camera_size.value = 10.0
    assert content.cameras[0].scale == pytest.approx(0.1 * size)
    panel.show_cameras.value = False
    assert not any(camera.visible for camera in content.cameras.values())
    assert content.clouds[0].visible
    panel.max_points.value = 100
    assert sum(len(cloud.points) for cloud in content.clouds) == 100
    assert panel.count.content == "100 points of 4 views"


def test_show_sets_every_control_and_settings_read_them_back(viewer: Viewer) -> None:
    wanted = Shown(
        percentile=55.0,
        colour_by="confidence",
        include_low_confidence=True,
        max_points=400,
        point_size=0.004,
        camera_size=0.02,
        show_cameras=False,
        timestep=2,
        cumulative=False,
    )
    viewer.show(wanted)
    assert viewer.settings == wanted
    assert [cloud.visible for cloud in viewer._content.clouds] == [False, False, True, False, False, False]
    viewer.show(Shown(include_low_confidence=True, max_points=None))
    assert [cloud.visible for cloud in viewer._content.clouds] == [True] * 5 + [False]


def test_stepping_sends_no_points(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    import manyview.app.viewer as module

    monkeypatch.setattr(module, "visible_points", lambda *_: pytest.fail("points were computed anew"))
    viewer.step()
    assert viewer.settings.timestep == 0  # from the last view to the first
    assert [cloud.visible for cloud in viewer._content.clouds] == [True] + [False] * 5
    viewer.step(-1)
    assert viewer.settings.timestep == 5


def test_playing_steps_by_itself_until_paused(viewer: Viewer) -> None:
    assert viewer._panel.frames_per_second is not None
    viewer._panel.frames_per_second.value = 50.0
    viewer.play()
    seen = set()
    deadline = time.monotonic() + 10
    while len(seen) < 4 and time.monotonic() < deadline:
        seen.add(viewer.settings.timestep)
        time.sleep(0.005)
    assert len(seen) >= 4
    viewer.pause()
    assert not viewer.playing
    still = viewer.settings.timestep
    time.sleep(0.1)
    assert viewer.settings.timestep == still


def test_clicking_a_camera_moves_that_visitor_there(viewer: Viewer, scene: Scene) -> None:
    from contextlib import nullcontext

    from viser.transforms import SO3

    visitor = SimpleNamespace(camera=SimpleNamespace(), atomic=nullcontext)
    (clicked,) = viewer._content.cameras[3]._impl.click_cb
    clicked.callback(SimpleNamespace(client=visitor))
    camera = scene.views[3].camera
    assert camera is not None
    np.testing.assert_allclose(visitor.camera.position, camera.centre)
    np.testing.assert_allclose(SO3(visitor.camera.wxyz).as_matrix(), camera.world_from_camera[:3, :3], atol=1e-9)
    with pytest.raises(InputError, match=r"view5\.png"):
        viewer.look_through(visitor, 5)  # type: ignore[arg-type]


def test_a_scene_of_one_view_and_one_without_points_can_be_shown() -> None:
    for odd in (synthetic_scene(1), without_points(synthetic_scene(2)), without_camera(synthetic_scene(1), 0)):
        with view(odd, port=0, block=False) as viewer:
            viewer.step()
            viewer.play()
            viewer.show(Shown(percentile=50, colour_by="confidence"))
            assert "points of" in viewer._panel.count.content


def test_a_taken_port_is_an_error_that_names_the_option(scene: Scene) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} .*in use") as error:
            view(scene, port=port, block=False)
    assert "--port" in error.value.hint


@pytest.mark.parametrize(("host", "port"), [("203.0.113.7", 0), ("no such host", 8080), ("127.0.0.1", 70000)])
def test_an_address_that_cannot_be_served_is_an_error_and_not_a_hang(scene: Scene, host: str, port: int) -> None:
    with pytest.raises(InputError) as error:
        view(scene, host=host, port=port, block=False)
    assert "--host" in error.value.hint or "--port" in error.value.hint


def test_a_scene_without_views_is_refused(scene: Scene) -> None:
    with pytest.raises(InputError, match="no views"):
        view(replace(scene, views=()), block=False)


def test_a_missing_viser_names_the_extra(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ManyviewError) as error:
        view(scene, block=False)
    assert 'pip install "manyview[app]"' in error.value.hint


def test_stop_frees_the_port_ends_the_wait_and_may_be_repeated(scene: Scene) -> None:
    viewer = view(scene, port=0, block=False)
    waiting = threading.Thread(target=viewer.wait, daemon=True)
    waiting.start()
    viewer.stop()
    viewer.stop()
    waiting.join(timeout=5)
    assert not waiting.is_alive()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", viewer.port), timeout=1)


def test_ctrl_c_stops_a_blocking_viewer_quietly(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Viewer) -> None:
        def wait(_: float) -> bool:
            raise KeyboardInterrupt

        monkeypatch.setattr(self._stopped, "wait", wait)
        original(self)

    original = Viewer.wait
    monkeypatch.setattr(Viewer, "wait", interrupted)
    viewer = view(scene, port=0)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", viewer.port), timeout=1)


def test_importing_the_viewer_does_not_import_viser() -> None:
    import subprocess

    code = "import sys, manyview.app.viewer; sys.exit('viser' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
