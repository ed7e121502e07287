"""What surfaces are painted with: drawing a material for a role, and the colour of a point on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from manyview.worlds.looks import LOOKS, PALETTES, Colour, Look, Role, draw_colour
from manyview.worlds.patterns import PATTERNS, Pattern, pattern_colours
from manyview.worlds.textures import sample_smooth_texture, sample_texture

LAYERS = 2
"""Patterns laid over each other on a surface: its own and one of wear, which hides that the first repeats."""

WILD = 0.1
"""Share of materials that are any pattern in any colour at any size, whatever their role (domain randomisation)."""

BRIGHTEST = 0.8
"""Mean reflectance that no channel of a picture exceeds: that of white paper."""

_KINDS = tuple(sorted({pattern.kind for pattern in PATTERNS}))
_OF_KIND = {kind: [n for n, pattern in enumerate(PATTERNS) if pattern.kind == kind] for kind in _KINDS}
_ANY_COLOUR = {"any": 0.4, "strong": 0.8, **dict.fromkeys(PALETTES, 0.2)}


@dataclass(frozen=True, kw_only=True)
class Material:
    """Paint of one surface, linear colours; surface coordinates are metres.

    Attributes:
        colour: mean colour (red, green, blue).
        gains: for each of LAYERS patterns, what one deviation of it adds to each channel.
        patterns: index of each layer's pattern in `PATTERNS`.
        repeats: tiles of each layer a metre.
        shifts: where (u, v) on its tile each layer begins, tiles.
        shine: strength of the highlight, 0 for a matt surface.
        gloss: exponent of the highlight (Blinn-Phong): the larger, the smaller the highlight.
    """

    colour: Colour
    gains: tuple[Colour, Colour] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    patterns: tuple[int, int] = (0, 0)
    repeats: tuple[float, float] = (1.0, 1.0)
    shifts: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))
    shine: float = 0.0
    gloss: float = 24.0

    def numbers(self) -> list[float]:
        """All numbers in a row, in the order of `Materials.table`."""
        gains = [*self.gains[0], *self.gains[1]]
        shifts = [*self.shifts[0], *self.shifts[1]]
        return [*self.colour, *gains, *self.patterns, *self.repeats, *shifts, self.gloss, self.shine]


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Paint of S surfaces in B scenes: the fields of `Material` as tensors.

    Attributes:
        colour: (B, S, 3) mean colour.
        gain: (B, S, LAYERS, 3) what a layer's pattern adds, a channel.
        texture: (B, S, LAYERS) index of the pattern in the bank, as float.
        repeats: (B, S, LAYERS) tiles a metre.
        shift: (B, S, LAYERS, 2) where on the tile the surface begins, tiles.
        shine: (B, S) strength of the highlight.
        gloss: (B, S) exponent of the highlight.
    """

    colour: Tensor
    gain: Tensor
    texture: Tensor
    repeats: Tensor
    shift: Tensor
    shine: Tensor
    gloss: Tensor

    def table(self) -> Tensor:
        """(P, B, S): the P numbers of each surface as `surface_colour` reads them; last the gloss, then the shine."""
        flat = [self.colour, self.gain.flatten(2), self.texture, self.repeats, self.shift.flatten(2)]
        rows = torch.cat([*flat, self.gloss.unsqueeze(-1), self.shine.unsqueeze(-1)], dim=-1)
        return rows.movedim(-1, 0)


def stack_materials(scenes: Sequence[Sequence[Material]]) -> Materials:
    """The paint of B scenes as tensors; scenes with fewer surfaces than the largest are filled up with plain grey."""
    surfaces = max(len(scene) for scene in scenes)
    filler = Material(colour=(0.5, 0.5, 0.5)).numbers()
    rows = [[m.numbers() for m in scene] + [filler] * (surfaces - len(scene)) for scene in scenes]
    colour, gain, texture, repeats, shift, gloss, shine = torch.tensor(rows).split(
        [3, 3 * LAYERS, LAYERS, LAYERS, 2 * LAYERS, 1, 1], dim=-1
    )
    return Materials(
        colour=colour,
        gain=gain.unflatten(-1, (LAYERS, 3)),
        texture=texture,
        repeats=repeats,
        shift=shift.unflatten(-1, (LAYERS, 2)),
        shine=shine[..., 0],
        gloss=gloss[..., 0],
    )


def draw_material(random: Random, role: Role, texture: float = 1.0) -> Material:
    """Make up a material that suits a role.

    Args:
        random: the scene's own source of random numbers.
        role: what the surface is part of.
        texture: factor on the contrast of the patterns; 0 gives plain colours.
    """
    look = LOOKS[role]
    wildness = 0.0
    if random.random() < WILD:
        wildness = 1.0
        colour, layers = _wild_paint(random)
    elif random.random() < look.plain:
        colour, layers = _plain_paint(random, look)
    else:
        colour, layers = _patterned_paint(random, look)
    (first, first_gain), (second, second_gain) = layers
    zoom = math.exp(wildness * random.uniform(-1, 1))
    shine, gloss = _highlight(random, look)
    return Material(
        colour=colour,
        gains=(_scaled(first_gain, texture), _scaled(second_gain, texture)),
        patterns=(first, second),
        repeats=(zoom * _repeats(random, PATTERNS[first]), _repeats(random, PATTERNS[second])),
        shifts=((random.random(), random.random()), (random.random(), random.random())),
        shine=shine,
        gloss=gloss,
    )


Layers = tuple[tuple[int, Colour], tuple[int, Colour]]
"""Pattern and gain of each layer."""


def _patterned_paint(random: Random, look: Look) -> tuple[Colour, Layers]:
    """A pattern of a kind that suits the look, and faint wear over it."""
    pattern = _pick_pattern(random, look.kinds)
    colour, gain = _tinted(random, pattern, draw_colour(random, look.palettes))
    contrast = random.uniform(0.75, 1.15)
    return colour, ((pattern, _scaled(gain, contrast)), _wear(random, colour, random.uniform(0.02, 0.12)))


def _plain_paint(random: Random, look: Look) -> tuple[Colour, Layers]:
    """One colour with hardly visible unevenness, both coarse and fine."""
    colour = draw_colour(random, look.palettes)
    grain = _pick_pattern(random, {"plaster": 1})
    return colour, (
        (grain, _scaled(colour, random.uniform(0, 0.02))),
        _wear(random, colour, random.uniform(0.01, 0.05)),
    )


def _wild_paint(random: Random) -> tuple[Colour, Layers]:
    """Any pattern and noise over each other in any colours."""
    colour = draw_colour(random, _ANY_COLOUR)
    first, second = random.randrange(len(PATTERNS)), _pick_pattern(random, {"noise": 1, "wear": 1})
    return colour, ((first, _wild_gain(random, colour)), (second, _wild_gain(random, colour)))


def _wild_gain(random: Random, colour: Colour) -> Colour:
    """Of either sign, so that what is usually dark is bright as well."""
    strength = random.choice((-1, 1)) * random.uniform(0.1, 0.5)
    red, green, blue = (strength * channel * random.uniform(0.5, 1.5) for channel in colour)
    return (red, green, blue)


def _tinted(random: Random, pattern: int, paint: Colour) -> tuple[Colour, Colour]:
    """Mean colour and gain of a pattern: its own colours slightly changed, or the paint's if it has none."""
    own = pattern_colours()[pattern]
    if PATTERNS[pattern].coloured:
        brightness = min(math.exp(random.gauss(0, 0.2)), BRIGHTEST / max(own.mean))
        tint = [brightness * random.uniform(0.88, 1.12) for _ in range(3)]
    else:
        tint = [channel / max(mean, 1e-3) for channel, mean in zip(paint, own.mean, strict=True)]
    red, green, blue = (factor * mean for factor, mean in zip(tint, own.mean, strict=True))
    return (red, green, blue), (tint[0] * own.deviation, tint[1] * own.deviation, tint[2] * own.deviation)


def _wear(random: Random, colour: Colour, strength: float) -> tuple[int, Colour]:
    """Stains and unevenness: noise whose features are larger than those of most patterns."""
    warmth = random.uniform(-0.15, 0.15)
    return _pick_pattern(random, {"wear": 1}), (
        strength * colour[0] * (1 + warmth),
        strength * colour[1],
        strength * colour[2] * (1 - warmth),
    )


def _pick_pattern(random: Random, kinds: Mapping[str, float]) -> int:
    (kind,) = random.choices(list(kinds), list(kinds.values()))
    return random.choice(_OF_KIND[kind])


def _repeats(random: Random, pattern: Pattern) -> float:
    """Tiles a metre: a size at which the pattern occurs, log-uniform."""
    low, high = pattern.metres
    return 1 / math.exp(random.uniform(math.log(low), math.log(high)))


def _highlight(random: Random, look: Look) -> tuple[float, float]:
    """Strength and exponent of the highlight."""
    strength, exponent = random.uniform(0.1, 0.6), math.exp(random.uniform(math.log(8), math.log(80)))
    return (strength if random.random() < look.glossy else 0.0), exponent


def _scaled(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def surface_colour(parameters: Tensor, u: Tensor, v: Tensor, footprint: Tensor, atlas: Tensor) -> Tensor:
    """Linear colours (3, ...) of surface points.

    Args:
        parameters: (P, ...) rows of `Materials.table` of the surface each ray met.
        u, v: (...) coordinates on the surface, metres.
        footprint: (...) size of the pixel on the surface, metres.
        atlas: of `texture_atlas`.
    """
    gains = parameters[3 : 3 + 3 * LAYERS].unflatten(0, (LAYERS, 3))
    rest = parameters[3 + 3 * LAYERS :]
    colour = parameters[:3]
    for layer, sample in enumerate((sample_texture, sample_smooth_texture)):
        repeats = rest[LAYERS + layer]
        shift_u, shift_v = rest[2 * LAYERS + 2 * layer], rest[2 * LAYERS + 2 * layer + 1]
        tile_u, tile_v = torch.addcmul(shift_u, u, repeats), torch.addcmul(shift_v, v, repeats)
        pattern = sample(atlas, rest[layer], tile_u, tile_v, footprint * repeats)
        colour = torch.addcmul(colour, gains[layer], pattern)
    return colour.clamp_(0.015, 1)
