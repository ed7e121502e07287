"""The bank of seamless patterns that materials are painted with: noise, stones, bricks, plaid, spots and so on."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

TILE = 256
"""Texels along each side of a pattern."""


def texture_bank(seed: int = 0) -> Tensor:
    """(T, 3, TILE, TILE) float32: patterns that repeat seamlessly, zero mean and unit deviation over all channels."""
    generator = Generator().manual_seed(seed)
    makers = [
        *[lambda g, slope=slope: fractal_noise(g, slope) for slope in (0.7, 1.0, 1.2, 1.4, 1.7, 2.0)],
        *[lambda g, levels=levels: contours(g, levels) for levels in (2, 3, 4, 6)],
        *[lambda g, cells=cells: stones(g, cells) for cells in (24, 60, 150)],
        *[lambda g, cells=cells: tiles(g, cells) for cells in (4, 8, 16)],
        *[lambda g, rows=rows: bricks(g, rows) for rows in (8, 16)],
        *[lambda g, bands=bands: plaid(g, bands) for bands in (8, 20)],
        *[lambda g, count=count: spots(g, count) for count in (40, 140)],
        *[lambda g, count=count: collage(g, count) for count in (40, 120)],
    ]
    return torch.stack([_normalised(make(generator)) for make in makers])


TEXTURES = 24
"""Patterns in the bank."""


def _normalised(pattern: Tensor) -> Tensor:
    centred = pattern - pattern.mean(dim=(-2, -1), keepdim=True)
    return (centred / centred.std()).clamp(-2.5, 2.5)


def _colours(generator: Generator, count: int) -> Tensor:
    """(count, 3): mostly shades of one brightness scale, partly of different hue."""
    return torch.randn(count, 1, generator=generator) + 0.4 * torch.randn(count, 3, generator=generator)


def fractal_noise(generator: Generator, slope: float) -> Tensor:
    """(3, TILE, TILE): Gaussian noise whose amplitude falls with frequency^-slope; its channels are correlated."""
    frequency = torch.fft.fftfreq(TILE) * TILE
    radius = (frequency[:, None].square() + frequency[None].square()).sqrt()
    amplitude = radius.clamp_min(2).pow(-slope)
    amplitude[0, 0] = 0
    white = torch.randn(4, TILE, TILE, generator=generator)
    noise = torch.fft.ifft2(torch.fft.fft2(white) * amplitude).real
    return noise[:1] + 0.35 * noise[1:]


def contours(generator: Generator, levels: int) -> Tensor:
    """(3, TILE, TILE): smooth noise cut into levels of one colour each, as camouflage."""
    height = _normalised(fractal_noise(generator, 1.9))[0]
    edges = torch.quantile(height.flatten(), torch.linspace(0, 1, levels + 1)[1:-1])
    return _colours(generator, levels)[torch.bucketize(height, edges)].permute(2, 0, 1)


def _grid() -> tuple[Tensor, Tensor]:
    """Row and column (TILE, TILE) of each texel, in tiles."""
    steps = torch.arange(TILE) / TILE
    return steps[:, None].expand(TILE, TILE), steps[None].expand(TILE, TILE)


def _wrapped_distance(generator: Generator, count: int) -> Tensor:
    """(count, TILE, TILE): distance on the torus from random centres, in tiles."""
    rows, columns = _grid()
    centre = torch.rand(count, 2, 1, 1, generator=generator)
    down = (rows - centre[:, 0] + 0.5).remainder(1) - 0.5
    across = (columns - centre[:, 1] + 0.5).remainder(1) - 0.5
    return (down.square() + across.square()).sqrt()


def stones(generator: Generator, cells: int) -> Tensor:
    """(3, TILE, TILE): Voronoi cells of random colours with dark joints."""
    nearest = _wrapped_distance(generator, cells).topk(2, dim=0, largest=False)
    joint = (nearest.values[1] - nearest.values[0] < 0.12 / cells**0.5).float()
    return _colours(generator, cells)[nearest.indices[0]].permute(2, 0, 1) * (1 - joint) - 1.5 * joint


def tiles(generator: Generator, cells: int) -> Tensor:
    """(3, TILE, TILE): a checker whose fields each have a colour of their own."""
    rows, columns = ((axis * cells).long() for axis in _grid())
    checker = ((rows + columns) % 2 * 2 - 1).float()
    return (0.7 * _colours(generator, cells * cells)[rows * cells + columns]).permute(2, 0, 1) + checker


def bricks(generator: Generator, rows: int) -> Tensor:
    """(3, TILE, TILE): bricks twice as wide as high, every second row shifted by half a brick, with bright joints."""
    row, column = _grid()[0] * rows, _grid()[1] * rows / 2
    column = column + 0.5 * (row.floor() % 2)
    index = row.long() * rows + column.remainder(rows / 2).long()
    joint = ((row.frac() < 0.12) | (column.frac() < 0.06)).float()
    return _colours(generator, rows * rows)[index].permute(2, 0, 1) * (1 - joint) + 1.8 * joint


def plaid(generator: Generator, bands: int) -> Tensor:
    """(3, TILE, TILE): stripes of random width and colour, both ways."""
    bounds = torch.rand(2, bands, generator=generator).sort(dim=-1).values
    down = _colours(generator, bands + 1)[torch.bucketize(_grid()[0][:, 0].contiguous(), bounds[0])]
    across = _colours(generator, bands + 1)[torch.bucketize(_grid()[1][0].contiguous(), bounds[1])]
    return down.T[:, :, None] + across.T[:, None]


def spots(generator: Generator, count: int) -> Tensor:
    """(3, TILE, TILE): discs of random size and colour on a plain ground, the later ones on top."""
    distance = _wrapped_distance(generator, count)
    radius = (0.25 + 0.75 * torch.rand(count, 1, 1, generator=generator)) * 0.5 / count**0.5
    top = ((distance < radius).float() * torch.arange(1, count + 1)[:, None, None]).amax(0).long()
    return _colours(generator, count + 1)[top].permute(2, 0, 1)


def collage(generator: Generator, count: int) -> Tensor:
    """(3, TILE, TILE): rectangles of random size and colour over each other, as posters and shelves."""
    corner, extent = torch.rand(count, 2, generator=generator), torch.rand(count, 2, generator=generator)
    colours = _colours(generator, count)
    rows, columns = _grid()
    picture = torch.zeros(TILE, TILE, 3)
    for index in range(count):
        height, width = 0.03 + 1.2 * extent[index].square() / count**0.35
        inside = ((rows - corner[index, 0]).remainder(1) < height) & ((columns - corner[index, 1]).remainder(1) < width)
        picture[inside] = colours[index]
    return picture.permute(2, 0, 1)
