"""`view`: look at a `Scene` in a web browser on this machine."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from manyview.app.viewer_panel import add_panel
from manyview.app.viewer_state import (
    SceneBox,
    Shown,
    ViewPoints,
    frustum,
    scene_box,
    starting_place,
    thumbnail,
    view_colour,
    visible_points,
    visible_views,
)
from manyview.errors import InputError
from manyview.scene import Scene

if TYPE_CHECKING:
    import viser

__all__ = ["Viewer", "view"]

LOW_CONFIDENCE_COLOUR = (128, 128, 128)  # cameras of views that are not to be trusted
NEAREST, FARTHEST = 0.002, 500.0  # clipping planes as multiples of the scene's size


def view(scene: Scene, *, host: str = "127.0.0.1", port: int = 8080, block: bool = True) -> Viewer:
    """Show a scene in the browser: points, cameras with their pictures, and a panel of settings.

    viser prints the address to open when the server starts; `Viewer.url` has it too. Nothing is published: the server
    listens on `host` alone and opens no tunnels. Whoever can reach `host` and `port` sees the pictures.

    Args:
        scene: what to show; it is not changed.
        host: address to listen on. The default can be reached from this machine only.
        port: TCP port; 0 takes any free one.
        block: wait until Ctrl-C or `Viewer.stop` and return a stopped viewer. Otherwise return at once, with the
            server running in the background until `Viewer.stop` or the end of the program.

    Raises:
        InputError: the scene has no views; viser is not installed; the port is taken; or `host` is not this machine's.
    """
    if not scene.views:
        raise InputError("the scene has no views", hint="Reconstruct at least one picture.")
    _require_viser()
    from manyview.app.viewer_server import open_server

    server = open_server(host, port, label="manyview")
    try:
        viewer = Viewer(scene, server)
    except BaseException:
        server.stop()
        raise
    if block:
        viewer.wait()
    return viewer


def _require_viser() -> None:
    try:
        import viser  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f"the viewer needs the package {error.name!r}, which is not installed",
            hint='Install it with: pip install "manyview[app]"',
        ) from error


class Viewer:
    """A scene on show. `view` makes one; as a context manager it stops at the end of the block."""

    def __init__(self, scene: Scene, server: viser.ViserServer) -> None:
        self.scene = scene
        self.server = server
        self._lock = threading.RLock()  # visitors' clicks arrive on several threads
        self._writing = False
        self._shown: Shown | None = None
        self._stopped = threading.Event()
        self._playing: threading.Event | None = None
        settings = Shown()
        box = scene_box(scene)
        _stand_at_start(server, scene, box)
        self._content = _Content(server, scene, box, settings)
        self._panel = add_panel(server, scene, settings)
        self._connect()
        self._refresh()

    @property
    def host(self) -> str:
        """The address that the server listens on."""
        return self.server.get_host()

    @property
    def port(self) -> int:
        """The TCP port that the server listens on."""
        return self.server.get_port()

    @property
    def url(self) -> str:
        """What to open in a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def settings(self) -> Shown:
        """What the panel says now."""
        return self._panel.read()

    def show(self, settings: Shown) -> None:
        """Set the panel, for all visitors, and show what it says."""
        with self._lock:
            self._writing = True
            try:
                self._panel.write(settings)
            finally:
                self._writing = False
            self._refresh()

    def step(self, by: int = 1) -> None:
        """Go `by` views on (or back, if negative), from the last view to the first."""
        if self._panel.timestep is not None:
            with self._lock:
                self._panel.timestep.value = (self._panel.timestep.value - 1 + by) % len(self.scene.views) + 1

    @property
    def playing(self) -> bool:
        """Whether the viewer steps through the views by itself."""
        return self._playing is not None

    def play(self) -> None:
        """Step through the views, at the panel's speed, until `pause`. A scene of one view stands still."""
        with self._lock:
            if self.playing or self._panel.play is None:
                return
            self._panel.play.label = "Pause"
            self._playing = threading.Event()
            threading.Thread(target=self._run, args=(self._playing,), name="manyview-playback", daemon=True).start()

    def pause(self) -> None:
        """Stop stepping."""
        with self._lock:
            if self._playing is None or self._panel.play is None:
                return
            self._playing.set()
            self._playing = None
            self._panel.play.label = "Play"

    def look_through(self, client: viser.ClientHandle, index: int) -> None:
        """Move one visitor to the camera of view `index`, looking where it looked."""
        from viser.transforms import SO3

        camera = self.scene.views[index].camera
        if camera is None:
            raise InputError(f"the camera of view {self.scene.views[index].name} was not found")
        with client.atomic():
            client.camera.position = camera.centre
            client.camera.wxyz = SO3.from_matrix(camera.world_from_camera[:3, :3]).wxyz

    def wait(self) -> None:
        """Wait until `stop` is called elsewhere, or until Ctrl-C, which stops the viewer and is then done with."""
        try:
            while not self._stopped.wait(1.0):  # a wait without an end cannot be interrupted on Windows
                pass
        except KeyboardInterrupt:
            self.stop()

    def stop(self) -> None:
        """Stop serving. Doing so twice is no error."""
        if not self._stopped.is_set():
            self.pause()
            self._stopped.set()
            self.server.stop()

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _connect(self) -> None:
        """Let controls and cameras do their work."""
        for control in self._panel.controls():
            control.on_update(lambda _: self._refresh())
        if self._panel.play is not None and self._panel.steps is not None:
            self._panel.play.on_click(lambda _: self.pause() if self.playing else self.play())
            self._panel.steps.on_click(lambda event: self.step(1 if event.target.value == "Next" else -1))
        for index, handle in self._content.cameras.items():
            handle.on_click(lambda event, index=index: self.look_through(event.client, index))

    def _refresh(self) -> None:
        # Calls that waited for the lock while a slider was dragged find their work done, and return at once.
        with self._lock:
            if not self._writing:
                settings = self.settings
                if settings != self._shown:
                    self._shown = settings
                    self._panel.count.content = self._content.update(settings)

    def _run(self, done: threading.Event) -> None:
        while not done.wait(1 / self._panel.speed()):
            with self._lock:
                if not done.is_set():
                    self.step()


class _Content:
    """Points and cameras in the browser: one handle a view for each, so that stepping sends next to nothing."""

    def __init__(self, server: viser.ViserServer, scene: Scene, box: SceneBox, settings: Shown) -> None:
        self._server, self._scene, self._size = server, scene, box.size
        self._shown = settings
        self._points = visible_points(scene, settings)
        self.clouds = [
            server.scene.add_point_cloud(
                f"/points/{index}",
                points=part.points,
                colors=part.colours,
                point_size=settings.point_size * box.size,
                point_shape="rounded",
                point_shading="flat",
                precision="float32",  # half precision shows as steps in what is close
            )
            for index, part in enumerate(self._points)
        ]
        self.cameras = _add_cameras(server, scene, settings.camera_size * box.size)

    def update(self, settings: Shown) -> str:
        """Show what `settings` say; returns how many points those are, in words."""
        new_points = _points_differ(self._shown, settings)
        if new_points:
            self._points = visible_points(self._scene, settings)
        with self._server.atomic():
            if new_points:
                self._send_points()
            self._resize(settings)
            visible = visible_views(self._scene, settings)
            for cloud, part, shown in zip(self.clouds, self._points, visible, strict=True):
                cloud.visible = shown and len(part.points) > 0
            for index, camera in self.cameras.items():
                camera.visible = visible[index] and settings.show_cameras
        self._shown = settings
        return _count(self._points, visible)

    def _send_points(self) -> None:
        for cloud, part in zip(self.clouds, self._points, strict=True):
            cloud.points, cloud.colors = part.points, part.colours

    def _resize(self, settings: Shown) -> None:
        for cloud in self.clouds:
            cloud.point_size = settings.point_size * self._size
        for camera in self.cameras.values():
            camera.scale = settings.camera_size * self._size


def _points_differ(before: Shown, after: Shown) -> bool:
    names = ("percentile", "colour_by", "include_low_confidence", "max_points")
    return any(getattr(before, name) != getattr(after, name) for name in names)


def _count(points: list[ViewPoints], visible: list[bool]) -> str:
    shown = sum(len(part.points) for part, is_shown in zip(points, visible, strict=True) if is_shown)
    return f"{shown:,} points of {sum(visible)} views"


def _add_cameras(server: viser.ViserServer, scene: Scene, scale: float) -> dict[int, viser.CameraFrustumHandle]:
    """A frustum with its picture for each view whose camera was found, by the view's index."""
    from viser.transforms import SO3

    handles = {}
    for index, scene_view in enumerate(scene.views):
        shape = frustum(scene_view)
        if shape is None:
            continue
        trusted = scene_view.status == "used"
        handles[index] = server.scene.add_camera_frustum(
            f"/cameras/{index}",
            fov=shape.fov,
            aspect=shape.aspect,
            scale=scale,
            thickness=2.0,
            thickness_units="screen",
            color=view_colour(index, len(scene.views)) if trusted else LOW_CONFIDENCE_COLOUR,
            image=thumbnail(scene_view),
            wxyz=SO3.from_matrix(shape.world_from_camera[:3, :3]).wxyz,
            position=shape.world_from_camera[:3, 3],
            cast_shadow=False,
            receive_shadow=False,
        )
    return handles


def _stand_at_start(server: viser.ViserServer, scene: Scene, box: SceneBox) -> None:
    server.scene.set_up_direction("-y")
    camera = server.initial_camera
    camera.position, camera.look_at = starting_place(scene, box)
    camera.near, camera.far = NEAREST * box.size, FARTHEST * box.size
