"""From descriptions in plain Python to tensors: a batch of scenes that can be traced at once.

Letters in shapes: B scenes, N views, V = N where something moves and 1 where nothing does, M shapes (the enclosure is
number 0, then the solids and their tools, then the reliefs), S surfaces (the enclosure's faces, then those of the
solids and reliefs), C tools that cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from manyview.worlds.cameras import Viewpoint
from manyview.worlds.description import FACES, KINDS, Layout, Lighting, Motion, Shape, Vector, about_z
from manyview.worlds.materials import Materials, stack_materials
from manyview.worlds.primitives import BOX
from manyview.worlds.sensor import Response

Described = TypeVar("Described", bound=Any)
BELOW = -1000.0
"""Height in metres of the empty slots, where no ray gets."""


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Unit shapes, unit = unit_from_room (room - centre), in one table with a column a shape, scene after scene.

    Shape m of scene b at view n has column (b V + n) M + m (with n = 0 where nothing moves).

    Attributes:
        views: V.
        slots: M; the enclosure is number 0, the solids follow, then the reliefs.
        reliefs: how many of the slots are reliefs.
        table: (16, B V M): unit_from_room (9, row by row), centre (3), half sizes (3), kind.
        surface: (B, M) int64: number of the surface; that of the enclosure depends on the face.
        body: (B, M) bool: solids that are seen for themselves; false for tools and empty slots.
        keeper: (B, M) int64: the tool inside which alone a body is kept, 0 for none.
        cuts: (B, C, 2) int64: slot of a tool and of the body that it cuts; (0, 0) in empty rows.
        patterns: (B, reliefs, 3) height map and repeats of the reliefs.
    """

    views: int
    slots: int
    reliefs: int
    table: Tensor
    surface: Tensor
    body: Tensor
    keeper: Tensor
    cuts: Tensor
    patterns: Tensor

    def scene(self, column: Tensor) -> Tensor:
        """Number of the scene that a column of the table belongs to."""
        return torch.div(column, self.slots * self.views, rounding_mode="floor")


@dataclass(frozen=True, kw_only=True)
class Light:
    """`Lighting` of B scenes: position, colour (B, 2, 3); ambient, horizon, zenith (B, 3); the rest (B,)."""

    position: Tensor
    colour: Tensor
    ambient: Tensor
    horizon: Tensor
    zenith: Tensor
    shadows: Tensor
    occlusion: Tensor
    clouds: Tensor


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """B scenes, ready to be traced. The room's frame has z up, the floor at z = 0 and metres.

    Attributes:
        half: (B, 3) half sizes of the enclosure.
        sky: (B, 6) bool: faces of the enclosure that are sky.
        shapes, materials, light, response: what stands there, its paint, its light, and the camera's response.
        room_from_start: (B, V, S, 4, 4) rigid: carries a surface from where it is at the first view's moment to where
            it is at each view's.
        K: (B, N, 3, 3) pixels.
        room_from_camera: (B, N, 4, 4).
        world_from_room: (B, 4, 4) rigid, applied after `scale`.
        scale: (B,) scene units a metre.
    """

    half: Tensor
    sky: Tensor
    shapes: Shapes
    materials: Materials
    light: Light
    response: Response
    room_from_start: Tensor
    K: Tensor
    room_from_camera: Tensor
    world_from_room: Tensor
    scale: Tensor

    def to(self, device: str | torch.device) -> Worlds:
        """All tensors on a device."""
        return _each_tensor(self, lambda tensor: tensor.to(device))


def _each_tensor(description: Described, change: Callable[[Tensor], Tensor]) -> Described:
    """The same description with `change` applied to all its tensors."""
    changes = {}
    for field in fields(description):
        value = getattr(description, field.name)
        if isinstance(value, Tensor):
            changes[field.name] = change(value)
        elif is_dataclass(value):
            changes[field.name] = _each_tensor(value, change)
    return replace(description, **changes)


def pack_shapes(layouts: Sequence[Layout], times: Sequence[Sequence[float]]) -> tuple[Shapes, Tensor]:
    """The shapes of all scenes in common slots, and `room_from_start` (see `Worlds`).

    Args:
        times: moments (0..1) of the views of each scene.
    """
    if not any(solid.motion for layout in layouts for solid in layout.solids):
        times = [[0.0] for _ in layouts]
    listed = [list_parts(layout) for layout in layouts]
    solids = max(len(parts) for parts in listed)
    reliefs = max(len(layout.reliefs) for layout in layouts)
    cuts = max(sum(part.cuts for part in parts) for parts in listed)
    rows = [
        pack_scene(layout, parts, (solids, reliefs, cuts), moments)
        for layout, parts, moments in zip(layouts, listed, times, strict=True)
    ]
    numbers = torch.tensor([row.numbers for row in rows])  # (B, V, M, 16)
    rotation, half = numbers[..., :9].unflatten(-1, (3, 3)), numbers[..., 12:15]
    unit_from_room = (rotation.mT / half[..., None]).flatten(-2)
    shapes = Shapes(
        views=numbers.shape[1],
        slots=numbers.shape[2],
        reliefs=reliefs,
        table=torch.cat([unit_from_room, numbers[..., 9:]], dim=-1).flatten(0, 2).T.contiguous(),
        surface=torch.tensor([row.surfaces for row in rows]),
        body=torch.tensor([row.bodies for row in rows]),
        keeper=torch.tensor([row.keepers for row in rows]),
        cuts=torch.tensor([row.cuts for row in rows], dtype=torch.int64).view(len(rows), cuts, 2),
        patterns=torch.tensor([row.patterns for row in rows]).view(len(rows), reliefs, 3),
    )
    return shapes, pack_motions(layouts, times)


@dataclass(frozen=True)
class Part:
    """A shape of a scene: a body, or a tool of the body `of`, with the number of its surface and how it moves."""

    shape: Shape
    surface: int
    motion: Motion | None
    of: int | None = None
    cuts: bool = False


def list_parts(layout: Layout) -> list[Part]:
    """All bodies and tools of a scene."""
    parts: list[Part] = []
    for number, solid in enumerate(layout.solids):
        body = len(parts)
        parts.append(Part(solid.shape, FACES + number, solid.motion))
        parts += [Part(tool.shape, FACES + number, solid.motion, body, tool.cuts) for tool in solid.tools]
    return parts


@dataclass(frozen=True)
class Row:
    """One scene's numbers, padded to the slots of its batch; see `Shapes`."""

    numbers: list[list[tuple[float, ...]]]
    surfaces: list[int]
    bodies: list[bool]
    keepers: list[int]
    cuts: list[tuple[int, int]]
    patterns: list[tuple[float, float, float]]


UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
EMPTY = (*UPRIGHT, 0.0, 0.0, BELOW, 1.0, 1.0, 1.0, BOX)


def pack_scene(layout: Layout, parts: list[Part], most: tuple[int, int, int], times: Sequence[float]) -> Row:
    """Put a scene's shapes into slots: enclosure, parts, reliefs. `most` is how many (parts, reliefs, cuts) fit."""
    solids, reliefs, cuts = most
    spare, fewer = solids - len(parts), reliefs - len(layout.reliefs)
    width, depth, high = layout.half
    enclosure = (*UPRIGHT, 0.0, 0.0, high, width, depth, high, BOX)
    flat = [numbers_of(relief.shape) for relief in layout.reliefs] + [EMPTY] * fewer
    keepers = [0] * (1 + solids + reliefs)
    for slot, part in enumerate(parts, start=1):
        if part.of is not None and not part.cuts:
            keepers[1 + part.of] = slot
    pairs = [(slot, 1 + part.of) for slot, part in enumerate(parts, start=1) if part.of is not None and part.cuts]
    first_relief = FACES + len(layout.solids)
    return Row(
        numbers=[
            [enclosure, *(numbers_of(placed(part, time)) for part in parts), *([EMPTY] * spare), *flat]
            for time in times
        ],
        surfaces=[
            0,
            *(part.surface for part in parts),
            *([FACES] * spare),
            *(first_relief + i for i in range(reliefs)),
        ],
        bodies=[False, *(part.of is None for part in parts), *([False] * (spare + reliefs))],
        keepers=keepers,
        cuts=pairs + [(0, 0)] * (cuts - len(pairs)),
        patterns=[(float(relief.pattern), *relief.repeats) for relief in layout.reliefs] + [(0.0, 1.0, 1.0)] * fewer,
    )


def placed(part: Part, time: float) -> Shape:
    """Where a shape is at a time."""
    return part.motion.place(part.shape, time) if part.motion else part.shape


def numbers_of(shape: Shape) -> tuple[float, ...]:
    """Rotation, centre, half sizes and kind of a shape: 16 numbers."""
    a, b, c = shape.rotation
    return (*a, *b, *c, *shape.centre, *shape.half, float(KINDS.index(shape.kind)))


def pack_motions(layouts: Sequence[Layout], times: Sequence[Sequence[float]]) -> Tensor:
    """`room_from_start` of `Worlds`: identities but for the surfaces that move."""
    surfaces = FACES + max(len(layout.solids) + len(layout.reliefs) for layout in layouts)
    motions = torch.eye(4).repeat(len(layouts), len(times[0]), surfaces, 1, 1)
    for scene, layout in enumerate(layouts):
        for number, solid in enumerate(layout.solids):
            if solid.motion is not None:
                for view, time in enumerate(times[scene]):
                    motions[scene, view, FACES + number] = rigid(solid.motion, time)
    return motions


def rigid(motion: Motion, time: float) -> Tensor:
    """(4, 4) where a motion carries points until a time."""
    carried = motion.place(Shape("box", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), about_z(0.0)), time)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.tensor(carried.rotation, dtype=torch.float64)
    matrix[:3, 3] = torch.tensor(carried.centre, dtype=torch.float64)
    return matrix.float()


def pack_materials(layouts: Sequence[Layout]) -> Materials:
    """Paint of all surfaces: the enclosure's faces, the solids, the reliefs."""
    return stack_materials(
        [
            [*layout.faces, *(s.material for s in layout.solids), *(relief.material for relief in layout.reliefs)]
            for layout in layouts
        ]
    )


def pack_light(lightings: Sequence[Lighting]) -> Light:
    """The lamps and skies of all scenes."""
    column = lambda name: torch.tensor([getattr(lighting, name) for lighting in lightings])  # noqa: E731
    return Light(
        position=column("positions"),
        colour=column("colours"),
        ambient=column("ambient"),
        horizon=column("horizon"),
        zenith=column("zenith"),
        shadows=column("shadows"),
        occlusion=column("occlusion"),
        clouds=column("clouds"),
    )


def pack_cameras(viewpoints: Sequence[Sequence[Viewpoint]]) -> tuple[Tensor, Tensor]:
    """K (B, N, 3, 3) and room_from_camera (B, N, 4, 4)."""
    position, aim = (vectors(viewpoints, name) for name in ("position", "aim"))
    roll = torch.tensor([[view.roll for view in scene] for scene in viewpoints])
    intrinsics = torch.tensor(
        [
            [[[v.focal, 0.0, v.centre[0]], [0.0, v.focal, v.centre[1]], [0.0, 0.0, 1.0]] for v in scene]
            for scene in viewpoints
        ]
    )
    return intrinsics, look_at(position, aim, roll)


def vectors(viewpoints: Sequence[Sequence[Viewpoint]], name: str) -> Tensor:
    """(B, N, 3) of an attribute."""
    return torch.tensor([[getattr(view, name) for view in scene] for scene in viewpoints])


def look_at(position: Tensor, aim: Tensor, roll: Tensor) -> Tensor:
    """Cameras at `position` (..., 3) that see `aim` (..., 3) in the middle, upright but for `roll` (...) radians.

    Returns:
        (..., 4, 4) room_from_camera. A camera that looks straight up or down is not defined.
    """
    forward = torch.nn.functional.normalize(aim - position, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    cosine, sine = roll.cos()[..., None], roll.sin()[..., None]
    matrix = torch.zeros(*position.shape[:-1], 4, 4)
    matrix[..., :3, 0] = cosine * right + sine * down
    matrix[..., :3, 1] = cosine * down - sine * right
    matrix[..., :3, 2] = forward
    matrix[..., :3, 3] = position
    matrix[..., 3, 3] = 1
    return matrix


def world_frames(yaws: Sequence[float], origins: Sequence[Vector]) -> Tensor:
    """(B, 4, 4) world_from_room: turned about the vertical and moved."""
    rows = []
    for yaw, origin in zip(yaws, origins, strict=True):
        turned = zip(about_z(yaw), origin, strict=True)
        rows.append([*((*row, offset) for row, offset in turned), (0.0, 0.0, 0.0, 1.0)])
    return torch.tensor(rows)
