"""Drawing the light of a scene: lamps in rooms, sun and sky outdoors, low and high, warm and cold."""

from __future__ import annotations

import math
from random import Random

from manyview.worlds.description import Layout, Lighting, Vector, scaled
from manyview.worlds.settings import WorldSettings

FAR = 60.0
"""Distance of the sun, metres."""


def draw_lighting(random: Random, layout: Layout, settings: WorldSettings) -> Lighting:
    """A main lamp and a weaker one; outdoors the main one is the sun, or hidden behind clouds."""
    outside = any(layout.sky)
    overcast = outside and random.random() < 0.35
    warmth = random.uniform(-0.2, 0.2)
    main = random.uniform(0.15, 0.4) if overcast else random.uniform(0.6, 1.2)
    fill, ambient = random.uniform(0.05, 0.4), random.uniform(0.5, 0.8) if overcast else random.uniform(0.22, 0.55)
    horizon, zenith = draw_sky(random, overcast)
    # Drawn in any case, so that switching one effect off changes nothing else.
    shadows, occlusion = random.random() < settings.shadows, random.random() < settings.occlusion
    depth_of_corners = random.uniform(0.4, 1.0)
    return Lighting(
        positions=(sun(random), sun(random)) if outside else (ceiling_lamp(random, layout), window(random, layout)),
        colours=(tinted(main, warmth), tinted(fill, random.uniform(-0.2, 0.2))),
        ambient=tinted(ambient, -0.6 * warmth if outside else random.uniform(-0.1, 0.1)),
        horizon=horizon,
        zenith=zenith,
        shadows=shadows and not overcast,
        occlusion=depth_of_corners if occlusion else 0.0,
        clouds=random.uniform(0.0, 0.25),
    )


def tinted(strength: float, warmth: float) -> Vector:
    """A light's colour: warmer is redder."""
    return scaled((1 + warmth, 1.0, 1 - warmth), strength)


def sun(random: Random) -> Vector:
    """A lamp far away, at any height above the horizon."""
    angle, rise = random.uniform(-math.pi, math.pi), random.uniform(0.25, 1.4)
    return scaled((math.cos(angle) * math.cos(rise), math.sin(angle) * math.cos(rise), math.sin(rise)), FAR)


def ceiling_lamp(random: Random, layout: Layout) -> Vector:
    """Below the ceiling."""
    width, depth, high = layout.half
    return random.uniform(-0.8, 0.8) * width, random.uniform(-0.8, 0.8) * depth, random.uniform(1.5, 1.92) * high


def window(random: Random, layout: Layout) -> Vector:
    """Light from the side, at breast height or higher."""
    width, depth, high = layout.half
    return random.uniform(-0.9, 0.9) * width, random.uniform(-0.9, 0.9) * depth, random.uniform(0.8, 1.9) * high


def draw_sky(random: Random, overcast: bool) -> tuple[Vector, Vector]:
    """Colours at the horizon and at the zenith."""
    brightness = random.uniform(0.5, 1.1)
    if overcast:
        return scaled((1, 1, 1), brightness), scaled((1, 1, 1.02), brightness * random.uniform(0.75, 1.1))
    blue = random.uniform(0.3, 1.0)
    horizon = tinted(brightness, random.uniform(-0.1, 0.15))
    return horizon, scaled((1 - 0.75 * blue, 1 - 0.45 * blue, 1.0), brightness * random.uniform(0.7, 1.0))
