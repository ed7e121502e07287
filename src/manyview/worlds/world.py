"""One scene in plain Python, from a supply of chance: layout, light, cameras and the camera's response."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import torch

from manyview.worlds.cameras import Viewpoint, clear_of, sample_viewpoints
from manyview.worlds.compositions import compose
from manyview.worlds.description import Layout, Lighting, Solid, Vector
from manyview.worlds.lighting import draw_lighting
from manyview.worlds.packing import (
    Worlds,
    pack_cameras,
    pack_light,
    pack_materials,
    pack_shapes,
    world_frames,
)
from manyview.worlds.sensor import SceneResponse, draw_response, stack_responses
from manyview.worlds.settings import WorldSettings


@dataclass(frozen=True)
class World:
    """A scene and its photographer.

    Attributes:
        times: moment of each view, from 0 (the first of the scene) to 1 (the last).
        yaw, origin, scale: where the room lies in the world: scaled, turned about the vertical (radians), moved.
    """

    layout: Layout
    lighting: Lighting
    viewpoints: tuple[Viewpoint, ...]
    response: SceneResponse
    times: tuple[float, ...]
    yaw: float
    origin: Vector
    scale: float

    def view(self, number: int, described: tuple[int, int], size: tuple[int, int]) -> World:
        """The same scene with one view only, its picture of another (height, width) than `described`.

        The field of view along the picture's longer side stays the same.
        """
        seen = self.viewpoints[number]
        factor = max(size) / max(described)
        aside = [(c - (old - 1) / 2) / old for c, old in zip(seen.centre, described[::-1], strict=True)]
        centre = ((size[1] - 1) / 2 + aside[0] * size[1], (size[0] - 1) / 2 + aside[1] * size[0])
        response = replace(
            self.response,
            exposure=self.response.exposure[number : number + 1],
            blur=self.response.blur[number : number + 1],
            quality=self.response.quality[number : number + 1],
        )
        viewpoint = replace(seen, focal=seen.focal * factor, centre=centre)
        return replace(self, viewpoints=(viewpoint,), response=response, times=(self.times[number],))


def describe_world(random: Random, views: int, size: tuple[int, int], settings: WorldSettings) -> World:
    """Make up a scene and N cameras that look at it; things that would stand in a camera's way are left out."""
    layout = compose(random, settings)
    viewpoints = sample_viewpoints(random, layout, views, size, settings)
    layout = replace(layout, solids=out_of_the_way(layout, viewpoints))
    return World(
        layout=layout,
        lighting=draw_lighting(random, layout, settings),
        viewpoints=tuple(viewpoints),
        response=draw_response(random, views, settings),
        times=tuple(view / max(views - 1, 1) for view in range(views)),
        yaw=random.uniform(-math.pi, math.pi),
        origin=(random.uniform(-2, 2), random.uniform(-2, 2), random.uniform(-2, 2)),
        scale=math.exp(random.uniform(*(math.log(bound) for bound in settings.scale))),
    )


def out_of_the_way(layout: Layout, viewpoints: Sequence[Viewpoint]) -> tuple[Solid, ...]:
    """The solids of the things that no camera is in or close to, at any time."""
    hit = {solid.thing for solid in layout.solids if not keeps_clear(solid, viewpoints, layout.focus.gap)}
    return tuple(solid for solid in layout.solids if solid.thing not in hit)


def keeps_clear(solid: Solid, viewpoints: Sequence[Viewpoint], gap: float) -> bool:
    """Whether no camera is in or close to a solid, wherever it is while the pictures are taken."""
    times = (0.0, 0.25, 0.5, 0.75, 1.0) if solid.motion else (0.0,)
    placed = [solid.motion.place(solid.shape, time) if solid.motion else solid.shape for time in times]
    return all(clear_of(shape, view.position, gap) for shape in placed for view in viewpoints)


def pack_worlds(worlds: Sequence[World]) -> Worlds:
    """Scenes of equally many views -> tensors."""
    layouts = [world.layout for world in worlds]
    shapes, room_from_start = pack_shapes(layouts, [world.times for world in worlds])
    intrinsics, room_from_camera = pack_cameras([world.viewpoints for world in worlds])
    return Worlds(
        half=torch.tensor([layout.half for layout in layouts]),
        sky=torch.tensor([layout.sky for layout in layouts]),
        shapes=shapes,
        materials=pack_materials(layouts),
        light=pack_light([world.lighting for world in worlds]),
        response=stack_responses([world.response for world in worlds]),
        room_from_start=room_from_start,
        K=intrinsics,
        room_from_camera=room_from_camera,
        world_from_room=world_frames([world.yaw for world in worlds], [world.origin for world in worlds]),
        scale=torch.tensor([world.scale for world in worlds]),
    )
