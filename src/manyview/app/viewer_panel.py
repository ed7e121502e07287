"""The viewer's panel: its controls, and what they say as `Shown`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, get_args

from manyview.app.viewer_state import MOST_PERCENTILE, ColourBy, Shown, report
from manyview.scene import Scene

if TYPE_CHECKING:
    import viser

__all__ = ["Panel", "add_panel"]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The controls. Those that a scene has no use for (playback of one view, ...) are None."""

    percentile: viser.GuiSliderHandle[float]
    colour_by: viser.GuiDropdownHandle[ColourBy]
    point_size: viser.GuiSliderHandle[float]
    max_points: viser.GuiNumberHandle[int]
    include_low_confidence: viser.GuiCheckboxHandle | None
    show_cameras: viser.GuiCheckboxHandle
    camera_size: viser.GuiSliderHandle[float]
    timestep: viser.GuiSliderHandle[int] | None = None
    cumulative: viser.GuiCheckboxHandle | None = None
    steps: viser.GuiButtonGroupHandle | None = None
    play: viser.GuiButtonHandle | None = None
    frames_per_second: viser.GuiSliderHandle[float] | None = None
    count: viser.GuiMarkdownHandle

    def controls(self) -> list[Any]:
        """The controls that change what is shown."""
        found = [getattr(self, field.name) for field in fields(Shown)]
        return [control for control in found if control is not None]

    def read(self) -> Shown:
        return Shown(
            percentile=self.percentile.value,
            colour_by=self.colour_by.value,
            point_size=self.point_size.value / 100,
            max_points=self.max_points.value,
            include_low_confidence=_value(self.include_low_confidence, False),
            show_cameras=self.show_cameras.value,
            camera_size=self.camera_size.value / 100,
            timestep=None if self.timestep is None else self.timestep.value - 1,
            cumulative=_value(self.cumulative, True),
        )

    def write(self, settings: Shown) -> None:
        self.percentile.value = settings.percentile
        self.colour_by.value = settings.colour_by
        self.point_size.value = settings.point_size * 100
        self.max_points.value = int(self.max_points.max or 0) if settings.max_points is None else settings.max_points
        self.show_cameras.value = settings.show_cameras
        self.camera_size.value = settings.camera_size * 100
        if self.include_low_confidence is not None:
            self.include_low_confidence.value = settings.include_low_confidence
        if self.timestep is not None and self.cumulative is not None:
            last = int(self.timestep.max)
            self.timestep.value = last if settings.timestep is None else min(settings.timestep + 1, last)
            self.cumulative.value = settings.cumulative

    def speed(self) -> float:
        """Views a second."""
        return 1.0 if self.frames_per_second is None else self.frames_per_second.value


def _value(control: Any, otherwise: bool) -> bool:
    return otherwise if control is None else control.value


def add_panel(server: viser.ViserServer, scene: Scene, settings: Shown) -> Panel:
    gui = server.gui
    with gui.add_folder("Points"):
        points = _add_point_controls(gui, scene, settings)
    with gui.add_folder("Cameras"):
        cameras = {
            "show_cameras": gui.add_checkbox("Show", settings.show_cameras, hint="Click a camera to look through it."),
            "camera_size": _add_percentage(gui, "Size (%)", 0.1, 20.0, settings.camera_size),
        }
    playback = _add_playback(gui, len(scene.views)) if len(scene.views) > 1 else {}
    with gui.add_folder("Scene"):
        gui.add_html(report(scene))
    return Panel(**points, **cameras, **playback)


def _add_point_controls(gui: viser.GuiApi, scene: Scene, settings: Shown) -> dict[str, Any]:
    total = sum(int(scene_view.valid.sum()) for scene_view in scene.views)
    most = total if settings.max_points is None else min(total, settings.max_points)
    has_low = any(scene_view.status == "low_confidence" for scene_view in scene.views)
    return {
        "percentile": gui.add_slider(
            "Confidence",
            0.0,
            MOST_PERCENTILE,
            1.0,
            settings.percentile,
            hint="In each view, the percentage of its points, those of lowest confidence, that is left out.",
        ),
        "colour_by": gui.add_dropdown("Colour by", get_args(ColourBy), initial_value=settings.colour_by),
        "point_size": _add_percentage(gui, "Size (%)", 0.01, 2.0, settings.point_size),
        "max_points": gui.add_number("Most", most, min=0, max=total, step=1000, hint="Most points over all views."),
        "include_low_confidence": gui.add_checkbox(
            "Low confidence", settings.include_low_confidence, hint="Also show views that are marked so."
        )
        if has_low
        else None,
        "count": gui.add_markdown(""),
    }


def _add_percentage(gui: viser.GuiApi, label: str, low: float, high: float, initial: float) -> Any:
    return gui.add_slider(label, low, high, low, initial * 100, hint="As a percentage of the scene's size.")


def _add_playback(gui: viser.GuiApi, views: int) -> dict[str, Any]:
    with gui.add_folder("Playback"):
        return {
            "timestep": gui.add_slider("View", 1, views, 1, views),
            "cumulative": gui.add_checkbox("All up to it", True, hint="Otherwise, this view alone."),
            "steps": gui.add_button_group("Step", ("Previous", "Next")),
            "play": gui.add_button("Play"),
            "frames_per_second": gui.add_slider("Views a second", 0.25, 60.0, 0.25, 4.0),
        }
