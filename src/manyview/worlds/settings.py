"""What a procedural world may look like: the knobs of `render_worlds`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from manyview.errors import InputError

Composition = Literal[
    "room", "corridor", "tabletop", "object", "courtyard", "facade", "street", "terrain", "clutter", "pile"
]
CameraPath = Literal["orbit", "walk", "forward", "handheld", "photographs", "panorama"]
COMPOSITIONS: tuple[Composition, ...] = get_args(Composition)
CAMERA_PATHS: tuple[CameraPath, ...] = get_args(CameraPath)
OUTDOORS: tuple[Composition, ...] = ("object", "courtyard", "facade", "street", "terrain", "pile")


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """Ranges from which every scene draws its own values. Lengths are in metres before `scale` is applied.

    Attributes:
        compositions: what a scene shows; each entry is equally likely, one named twice twice as much. Those of
            `OUTDOORS` have a sky, the others are closed.
        paths: how the cameras move; each entry is equally likely.
        solids: fewest and most solids of a "clutter" (in a room) or a "pile" (under the sky).
        moving: fewest and most moving objects of a scene.
        field_of_view: horizontal, degrees, drawn once a scene.
        focal_jitter: largest relative difference of a view's focal length from the scene's.
        off_centre: largest distance of the principal point from the middle of the picture, in picture sizes.
        spread: how far the cameras move and turn between views. 0 puts all of them at one place, about 0.4 is
            easy (large overlap), 1 is a usual set of photographs, 2 is hard (little overlap).
        turned_away: probability that a view after the first looks somewhere else and shares nothing with the others.
        roll: largest roll of a camera about its viewing direction, degrees.
        scale: range of the factor from metres to scene units (log-uniform).
        texture: contrast of the textures; 0 paints every surface in one colour.
        shadows: probability that a scene's main light casts shadows.
        occlusion: probability that corners and the places below things are darker (ambient occlusion).
        exposure: largest relative change of brightness and of white balance between the views of a scene.
        noise: standard deviation of the sensor noise, drawn between 0 and this for each scene.
        blur: largest standard deviation of a view's blur, pixels.
        jpeg: probability that a scene's pictures went through JPEG.
        samples: rays a pixel that colours are averaged over; depth is always the pixel centre's.
    """

    compositions: tuple[Composition, ...] = COMPOSITIONS
    paths: tuple[CameraPath, ...] = CAMERA_PATHS
    solids: tuple[int, int] = (4, 14)
    moving: tuple[int, int] = (0, 0)
    field_of_view: tuple[float, float] = (35.0, 80.0)
    focal_jitter: float = 0.03
    off_centre: float = 0.0
    spread: float = 1.0
    turned_away: float = 0.0
    roll: float = 5.0
    scale: tuple[float, float] = (0.5, 2.0)
    texture: float = 1.0
    shadows: float = 0.5
    occlusion: float = 0.4
    exposure: float = 0.08
    noise: float = 0.015
    blur: float = 0.5
    jpeg: float = 0.3
    samples: int = 1

    def __post_init__(self) -> None:
        for name, known in (("compositions", COMPOSITIONS), ("paths", CAMERA_PATHS)):
            given = getattr(self, name)
            fits = len(given) > 0 and set(given) <= set(known)
            _expect(fits, f"{name} are one or more of {', '.join(known)}, got {', '.join(given) or 'none'}")
        for name, most in (("solids", 64), ("moving", 16)):
            low, high = getattr(self, name)
            _expect(0 <= low <= high <= most, f"{name} is (fewest, most) of 0..{most}, got {(low, high)}")
        low, high = self.field_of_view
        _expect(5 <= low <= high <= 140, f"field_of_view is (low, high) within 5..140 degrees, got {(low, high)}")
        _expect(0 <= self.focal_jitter < 0.9, f"focal_jitter is between 0 and 0.9, got {self.focal_jitter}")
        _expect(0 <= self.off_centre <= 0.5, f"off_centre is between 0 and 0.5, got {self.off_centre}")
        _expect(0 < self.scale[0] <= self.scale[1], f"scale is (low, high), both above 0, got {self.scale}")
        for name in ("turned_away", "shadows", "occlusion", "jpeg"):
            _expect(
                0 <= getattr(self, name) <= 1, f"{name} is a probability between 0 and 1, got {getattr(self, name)}"
            )
        for name in ("spread", "roll", "texture", "exposure", "noise", "blur"):
            _expect(getattr(self, name) >= 0, f"{name} is at least 0, got {getattr(self, name)}")
        _expect(1 <= self.samples <= 64, f"samples is 1..64, got {self.samples}")


def named_settings(compositions: Sequence[str], paths: Sequence[str], **others: Any) -> WorldSettings:
    """Settings from names that a user typed; all compositions and paths where none are named.

    Raises:
        InputError: a name is not known.
    """
    return WorldSettings(
        compositions=cast("tuple[Composition, ...]", tuple(compositions)) or COMPOSITIONS,
        paths=cast("tuple[CameraPath, ...]", tuple(paths)) or CAMERA_PATHS,
        **others,
    )


def _expect(fits: bool, message: str) -> None:
    if not fits:
        raise InputError(f"WorldSettings: {message}")
