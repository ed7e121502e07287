"""Patterns of grown and weathered things: leaves, grass, stones, bark, wood, rock, earth and rust."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from manyview.worlds.brushes import (
    Array,
    cells,
    grid,
    noise,
    over,
    plain,
    ramp,
    relief,
    shades,
    speckled,
    stamp_ellipse,
    vivid,
    warped,
)


def fractal(random: Generator, slope: float, contrast: float = 0.3, hue: float = 0.2) -> Array:
    """Noise of all scales whose channels are correlated."""
    brightness = noise(random, slope)
    colour = brightness[..., None] + hue * noise(random, slope)[..., None] * np.array([0.9, 0.0, -1.1])
    return 0.4 * np.exp(contrast * colour)


def contours(random: Generator, levels: int, slope: float = 1.9) -> Array:
    """Smooth noise cut into levels of one colour each, as camouflage or flaking paint."""
    height = noise(random, slope)
    edges = np.quantile(height, np.linspace(0, 1, levels + 1)[1:-1])
    return speckled(random, shades(random, (0.4, 0.4, 0.4), levels, 0.6, 0.12)[np.digitize(height, edges)], 0.04)


def leaf_sizes(random: Generator, count: int, smallest: float, largest: float) -> Array:
    """(count,) radii whose number falls with the third power of the size, as things in natural pictures do."""
    share = random.random(count)
    return 1 / np.sqrt(share / smallest**2 + (1 - share) / largest**2)


def leaves(
    random: Generator, colours: Array, sizes: Array, slimness: tuple[float, float] = (0.35, 0.7), shading: float = 0.25
) -> Array:
    """Ellipses lying on each other in random order (dead leaves; Lee, Mumford and Huang, 2001).

    Args:
        random: source of random numbers.
        colours: (count, 3).
        sizes: (count,) half lengths, tiles.
        slimness: range of width over length.
        shading: strength of the light's change across each leaf.
    """
    picture = plain(colours.mean(0) * 0.3)
    centres, angles = random.random((len(sizes), 2)), random.uniform(0, np.pi, len(sizes))
    slim = random.uniform(*slimness, len(sizes))
    for number, size in enumerate(sizes):
        axes = size, size * slim[number]
        stamp_ellipse(picture, centres[number], axes, angles[number], colours[number], shading)
    return picture


def foliage(random: Generator, count: int, smallest: float, largest: float) -> Array:
    """Leaves in greens over the dark between them: the later ones lie outside and are brighter."""
    outside = np.linspace(0.25, 1.15, count)[:, None]
    colours = shades(random, (0.085, 0.135, 0.035), count, 0.35, 0.14) * outside
    colours[random.random(count) < 0.04] *= (1.9, 1.3, 1.1)
    return leaves(random, colours, leaf_sizes(random, count, smallest, largest), (0.3, 0.65), 0.35)


def litter(random: Generator, count: int = 900) -> Array:
    """Fallen leaves on the ground, in browns and yellows."""
    colours = shades(random, (0.20, 0.12, 0.055), count, 0.45, 0.14) * np.linspace(0.5, 1.1, count)[:, None]
    return leaves(random, colours, leaf_sizes(random, count, 0.015, 0.07), (0.4, 0.75), 0.3)


def confetti(random: Generator, count: int = 1200) -> Array:
    """Discs of all sizes in subdued colours, with the statistics of natural pictures."""
    colours = shades(random, (0.32, 0.30, 0.27), count, 0.6, 0.22)
    return leaves(random, colours, leaf_sizes(random, count, 0.008, 0.25), (0.5, 1), 0.2)


def grass(random: Generator, blades: int = 2600, length: float = 0.045, dry: float = 0.12) -> Array:
    """Blades in all directions, some of them dry, in patches."""
    colours = shades(random, (0.085, 0.13, 0.035), blades, 0.3, 0.1) * np.linspace(0.35, 1.25, blades)[:, None]
    is_dry = random.random(blades) < dry
    colours[is_dry] = colours[is_dry] * (2.2, 1.45, 1.7)
    picture = leaves(random, colours, length * random.uniform(0.5, 1.1, blades), (0.07, 0.14), 0.1)
    return picture * np.exp(0.16 * noise(random, 1.6, 1))[..., None]


def gravel(random: Generator, count: int = 1700, smallest: float = 0.008, largest: float = 0.035) -> Array:
    """Pebbles on each other, rounded by their shading."""
    colours = shades(random, (0.30, 0.27, 0.23), count, 0.35, 0.09) * np.linspace(0.4, 1.05, count)[:, None]
    stones = leaves(random, colours, leaf_sizes(random, count, smallest, largest), (0.55, 0.95), 0.45)
    return speckled(random, stones, 0.08)


def earth(random: Generator) -> Array:
    """Soil: crumbs of all sizes, damp patches and a few pebbles."""
    height = noise(random, 1.1, 3)
    damp = noise(random, 1.9, 1)
    soil = plain((0.2, 0.145, 0.095)) * (relief(height, 0.28) * np.exp(0.2 * damp + 0.12 * height))[..., None]
    for size in leaf_sizes(random, 140, 0.006, 0.03):
        stamp_ellipse(soil, random.random(2), (size, size * 0.75), random.uniform(0, 3), _pebble(random), 0.4)
    return soil


def _pebble(random: Generator) -> Array:
    return shades(random, (0.26, 0.22, 0.18), 1, 0.35, 0.08)[0]


def rock(random: Generator, layers: float = 1.0) -> Array:
    """Broken rock: facets, cracks and lichen; `layers` above 1 stretches it into beds."""
    height = noise(random, 1.5, 2, (layers, 1 / layers))
    facets, border = cells(random, 6, 0.95, max(3, round(6 * layers)))
    twist = 7 * noise(random, 1.7), 7 * noise(random, 1.7)
    tone = 0.16 * warped(random.standard_normal(facets.max() + 1)[facets], *twist)
    cracks = 1 - 0.6 * (1 - ramp(warped(border, *twist), 0.0, 0.06))
    stone = shades(random, (0.33, 0.31, 0.28), 1, 0, 0.05)[0] * np.exp(tone + 0.18 * height)[..., None]
    stone = stone * (relief(5 * height, 0.13) * cracks)[..., None]
    return over(speckled(random, stone, 0.08), (0.36, 0.36, 0.22), 0.6 * ramp(noise(random, 1.3), 1.3, 2))


def bark(random: Generator, stretch: float = 3.0) -> Array:
    """Upright ridges with dark furrows between them."""
    twist = 6 * noise(random, 1.8), 9 * noise(random, 1.6)
    _, border = cells(random, 14, 1.0, max(3, round(14 / stretch / 1.4)))
    furrow = ramp(warped(border, *twist), 0.02, 0.3)
    grain = noise(random, 1.1, 4, (stretch, 1 / stretch**0.5))
    wood = (
        shades(random, (0.19, 0.145, 0.105), 1, 0, 0.06)[0] * ((0.2 + 0.8 * furrow) * np.exp(0.28 * grain))[..., None]
    )
    return over(wood, (0.22, 0.25, 0.15), 0.45 * ramp(noise(random, 1.6), 0.9, 2))


def wood_grain(random: Generator, rings: float, figure: float = 1.0, contrast: float = 0.22) -> Array:
    """Factor (TILE, TILE) of sawn wood along the rows: bent year rings, pores and streaks."""
    rows, _ = grid()
    bend = figure * noise(random, 2.4, 1, (0.6, 3.0)) * 0.06
    phase = rings * (rows + bend)
    year = (phase - np.floor(phase)) ** 1.7
    streaks = noise(random, 0.8, 3, (0.15, 9.0))
    late = year * ramp(1 - (phase - np.floor(phase)), 0.0, 0.12)
    return np.exp(contrast * (1.3 * (0.35 - late) + 0.35 * streaks + 0.3 * noise(random, 1.7, 1, (0.5, 3))))


def wood(random: Generator, rings: int = 16, knots: int = 3) -> Array:
    """One sheet of sawn wood, grain along the rows, with some knots."""
    brightness = wood_grain(random, rings)
    picture = plain((0.36, 0.245, 0.15)) * np.stack([brightness**power for power in (0.85, 1.05, 1.3)], axis=-1)
    for _ in range(knots):
        centre, size = random.random(2), random.uniform(0.006, 0.016)
        for scale, shade in ((2.0, 0.75), (1.5, 0.9), (1.0, 0.4), (0.55, 0.65)):
            colour = np.array([0.3, 0.19, 0.11]) * shade
            stamp_ellipse(picture, centre, (1.6 * scale * size, scale * size), 0.1, colour)
    return speckled(random, picture, 0.03)


def marble(random: Generator, veins: float = 1.0) -> Array:
    """Clouds with thin bent veins where warped noise changes its sign."""
    twist = 14 * noise(random, 2.0), 14 * noise(random, 2.0)
    field = warped(noise(random, 2.0, 1), *twist)
    fine = warped(noise(random, 1.6, 3), *twist)
    clouds = np.exp(0.09 * field + 0.04 * noise(random, 1.2))
    vein = 0.75 * np.exp(-np.abs(field) / 0.09) + 0.35 * np.exp(-np.abs(fine) / 0.07) * ramp(field, -0.5, 1)
    stone = plain((0.55, 0.54, 0.52)) * clouds[..., None]
    return over(stone, (0.2, 0.19, 0.18), np.clip(veins * vein, 0, 0.9))


def dirt(random: Generator) -> Array:
    """A wall with stains: blotches with soft edges, and streaks running down."""
    blotches = ramp(noise(random, 1.5), 0.3, 1.8)
    streaks = ramp(noise(random, 1.1, 3, (6, 0.4)), 0.6, 2.6)
    picture = plain((0.5, 0.49, 0.46)) * np.exp(0.06 * noise(random, 1.2))[..., None]
    return over(over(picture, (0.2, 0.17, 0.13), 0.65 * blotches), (0.14, 0.12, 0.10), 0.5 * streaks)


def rust(random: Generator) -> Array:
    """Painted sheet metal that rusts in patches and runs."""
    patches = ramp(noise(random, 1.4), 0.1, 0.6)
    iron = shades(random, (0.19, 0.075, 0.035), 1, 0, 0.05)[0] * np.exp(0.4 * noise(random, 1.0, 4))[..., None]
    runs = ramp(noise(random, 1.2, 3, (5, 0.5)), 0.5, 2.5)
    paint = plain((0.33, 0.35, 0.36)) * np.exp(0.07 * noise(random, 1.3))[..., None]
    return over(over(paint, (0.22, 0.11, 0.06), 0.7 * runs), iron, patches)


def wear(random: Generator, slope: float) -> Array:
    """Unevenness of a large surface: mostly coarse, brown where it is dark."""
    field = noise(random, slope, 1)
    return 0.5 * np.exp(0.2 * field[..., None] * np.array([0.9, 1.0, 1.12]) + 0.02 * noise(random, 1)[..., None])


def landscape(random: Generator) -> Array:
    """A picture as on a calendar: sky with clouds, ranges of hills that darken towards the viewer, water or a field."""
    rows, _ = grid()
    sky = plain((0.30, 0.45, 0.70)) + rows[..., None] * np.array([0.75, 0.5, 0.2])
    picture = over(sky * 0.8, (0.85, 0.85, 0.87), ramp(noise(random, 1.7, 1, (0.5, 2)), 0.2, 1.6))
    ranges = int(random.integers(3, 6))
    base = shades(
        random, ((0.10, 0.13, 0.06), (0.16, 0.12, 0.07), (0.10, 0.12, 0.16))[int(random.integers(3))], 1, 0.3
    )[0]
    for number in range(ranges):
        near = (number + 1) / ranges
        ridge = 0.3 + 0.55 * near + 0.07 * noise(random, 1.3 + 0.3 * near)[0] - 0.05
        land = over(
            plain(base * np.exp(0.3 * noise(random, 1.1))[..., None]), (0.45, 0.52, 0.6), 0 * rows + 0.7 * (1 - near)
        )
        picture = over(picture, land, ramp(rows - ridge[None], -0.003, 0.003))
    return picture


def bouquet(random: Generator, count: int = 500) -> Array:
    """A picture of flowers: petals in two colours over leaves."""
    picture = foliage(random, 700, 0.015, 0.06)
    hues = vivid(random, 3) * 0.7 + 0.15
    for flower in range(count // 8):
        centre, size, hue = random.random(2), random.uniform(0.012, 0.05), hues[flower % 3] * random.uniform(0.7, 1.1)
        for petal in range(6):
            angle = petal * np.pi / 3 + flower
            place = centre + 0.9 * size * np.array([np.sin(angle), np.cos(angle)])
            stamp_ellipse(picture, place, (size, 0.5 * size), angle, hue, 0.3)
        stamp_ellipse(picture, centre, (0.4 * size, 0.4 * size), 0, np.array([0.6, 0.45, 0.08]), 0.3)
    return picture
