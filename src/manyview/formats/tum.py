"""The cameras as a trajectory in the format of the TUM RGB-D benchmark."""

from __future__ import annotations

from pathlib import Path

from manyview.formats.describe import comment_lines, doubtful, left_out, plain_ascii, views_with_camera
from manyview.geometry.cameras import Camera
from manyview.scene import ExportOptions, Scene

WRITES = ("trajectory.txt",)


def export(scene: Scene, folder: Path, options: ExportOptions) -> list[Path]:
    """Write `trajectory.txt`: lines `timestamp tx ty tz qx qy qz qw`, world from camera (OpenCV axes).

    The timestamp is in seconds if every view with a camera has one, else the index of the view; a comment says which.
    """
    chosen = views_with_camera(scene, "trajectory.txt", options)
    stamps = [view.timestamp for _, view, _ in chosen if view.timestamp is not None]
    in_seconds = bool(stamps) and len(stamps) == len(chosen)
    times = stamps if in_seconds else [index for index, _, _ in chosen]
    lines = [
        *(f"# {line}" for line in comment_lines(scene)),
        *(f"# left out: {line}" for line in plain_ascii(left_out(scene, options))),
        *(f"# doubtful: {line}" for line in plain_ascii(doubtful(scene, options))),
        f"# timestamp: {'seconds' if in_seconds else 'index of the view'}",
        "# timestamp tx ty tz qx qy qz qw (world from camera)",
        *(_line(time, camera) for time, (_, _, camera) in zip(times, chosen, strict=True)),
    ]
    path = folder / "trajectory.txt"
    path.write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")
    return [path]


def _line(time: float, camera: Camera) -> str:
    from scipy.spatial.transform import Rotation

    quaternion = Rotation.from_matrix(camera.world_from_camera[:3, :3]).as_quat(canonical=True)
    numbers = [float(number) for number in (*camera.centre, *quaternion)]
    return " ".join(repr(number) for number in (time, *numbers))
