"""What a procedural world may look like: the knobs of `render_worlds`."""

from __future__ import annotations

from dataclasses import dataclass

from manyview.errors import InputError


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """Ranges from which every scene draws its own values. Lengths are in metres before `scale` is applied.

    Attributes:
        rooms: probability that a scene is the inside of a room; the others are open ground under a sky.
        solids: fewest and most boxes, ellipsoids and cylinders of a scene.
        posters: most thin boxes hanging on the walls of a room.
        field_of_view: horizontal, degrees, drawn once a scene.
        focal_jitter: largest relative difference of a view's focal length from the scene's.
        spread: how far the cameras move and turn between views. 0 puts all of them at one place, about 0.4 is
            easy (large overlap), 1 is a usual set of photographs, 2 is hard (little overlap).
        roll: largest roll of a camera about its viewing direction, degrees.
        scale: range of the factor from metres to scene units (log-uniform).
        texture: contrast of the textures; 0 paints every surface in one colour.
        shadows: trace a shadow ray to the main light.
        exposure: largest relative change of brightness and of white balance between the views of a scene.
        noise: standard deviation of the sensor noise, drawn between 0 and this for each scene.
        supersampling: rays along each side of a pixel that colours are averaged over; depth is always the pixel
            centre's.
    """

    rooms: float = 0.65
    solids: tuple[int, int] = (4, 11)
    posters: int = 4
    field_of_view: tuple[float, float] = (40.0, 75.0)
    focal_jitter: float = 0.03
    spread: float = 1.0
    roll: float = 5.0
    scale: tuple[float, float] = (0.5, 2.0)
    texture: float = 1.0
    shadows: bool = False
    exposure: float = 0.08
    noise: float = 0.015
    supersampling: int = 1

    def __post_init__(self) -> None:
        _expect(0 <= self.rooms <= 1, f"rooms is a probability between 0 and 1, got {self.rooms}")
        _expect(0 <= self.solids[0] <= self.solids[1] <= 64, f"solids is (fewest, most) of 0..64, got {self.solids}")
        _expect(0 <= self.posters <= 32, f"posters is 0..32, got {self.posters}")
        low, high = self.field_of_view
        _expect(5 <= low <= high <= 140, f"field_of_view is (low, high) within 5..140 degrees, got {(low, high)}")
        _expect(0 <= self.focal_jitter < 0.9, f"focal_jitter is between 0 and 0.9, got {self.focal_jitter}")
        _expect(self.spread >= 0, f"spread is at least 0, got {self.spread}")
        _expect(0 < self.scale[0] <= self.scale[1], f"scale is (low, high), both above 0, got {self.scale}")
        for name in ("roll", "texture", "exposure", "noise"):
            _expect(getattr(self, name) >= 0, f"{name} is at least 0, got {getattr(self, name)}")
        _expect(1 <= self.supersampling <= 8, f"supersampling is 1..8, got {self.supersampling}")


def _expect(fits: bool, message: str) -> None:
    if not fits:
        raise InputError(f"WorldSettings: {message}")
