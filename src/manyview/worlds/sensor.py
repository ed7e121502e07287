"""From light to a picture: exposure, vignette, blur, sensor noise, tone curve, saturation and JPEG compression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from manyview.worlds.settings import WorldSettings

FILM_SPEED = 1.3
"""Slope of the film's response at black; its shoulder keeps bright surfaces from turning flat white."""

SHARP = 0.2
"""Blur of a smaller standard deviation than this, in pixels, changes nothing that one could see."""

LOSSLESS = 100
"""JPEG quality from which on pictures are not compressed at all."""


@dataclass(frozen=True, kw_only=True)
class SceneResponse:
    """How the camera of one scene turns light into N pictures.

    Attributes:
        exposure: gains (red, green, blue) of each view: exposure and white balance.
        vignette: how much darker the corners are, 0..1.
        contrast: strength of the S-shaped part of the tone curve; 0 none, below 0 flatter, within (-2, 1).
        saturation: factor on the distance from grey.
        blur: standard deviation of each view's blur, pixels.
        read, shot: standard deviation of the noise in the dark, and what is added at linear brightness 1.
        quality: JPEG quality 1..99 of each view; 100 or more for no compression.
    """

    exposure: tuple[tuple[float, float, float], ...]
    vignette: float = 0.0
    contrast: float = 0.0
    saturation: float = 1.0
    blur: tuple[float, ...]
    read: float = 0.0
    shot: float = 0.0
    quality: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Response:
    """`SceneResponse` of B scenes as float tensors.

    Attributes:
        exposure: (B, N, 3).
        vignette, contrast, saturation, read, shot: (B,).
        blur, quality: (B, N).
    """

    exposure: Tensor
    vignette: Tensor
    contrast: Tensor
    saturation: Tensor
    blur: Tensor
    read: Tensor
    shot: Tensor
    quality: Tensor


def neutral_response(views: int) -> SceneResponse:
    """A perfect camera: only the tone curve is left."""
    return SceneResponse(exposure=((1.0, 1.0, 1.0),) * views, blur=(0.0,) * views, quality=(100.0,) * views)


def draw_response(random: Random, views: int, settings: WorldSettings) -> SceneResponse:
    """Make up the camera of a scene of N views."""
    overall = random.uniform(0.75, 1.35)
    cast = random.gauss(0, 0.04)
    noise = settings.noise * random.random()
    compressed = random.random() < settings.jpeg
    focus = settings.blur * random.random()
    usual = random.uniform(45, 92)
    return SceneResponse(
        exposure=tuple(_view_gains(random, overall, cast, settings.exposure) for _ in range(views)),
        vignette=random.uniform(0, 0.3),
        contrast=random.uniform(-0.25, 0.7),
        saturation=random.uniform(0.75, 1.2),
        blur=tuple(focus * random.uniform(0.6, 1) for _ in range(views)),
        # Drawn so that `settings.noise` is about the deviation of the finished picture's middle tones.
        read=0.15 * noise,
        shot=1.6 * noise,
        quality=tuple(usual + random.uniform(-6, 6) if compressed else 100.0 for _ in range(views)),
    )


def _view_gains(random: Random, overall: float, cast: float, change: float) -> tuple[float, float, float]:
    brightness = overall * (1 + change * random.uniform(-1, 1))
    red, green, blue = (brightness * (1 + 0.4 * change * random.uniform(-1, 1)) for _ in range(3))
    return (red * (1 + cast), green, blue * (1 - cast))


def stack_responses(scenes: Sequence[SceneResponse]) -> Response:
    """The cameras of B scenes, which have the same number of views, as tensors."""
    names = Response.__dataclass_fields__
    return Response(**{name: torch.tensor([getattr(scene, name) for scene in scenes]) for name in names})


def develop(linear: Tensor, response: Response, noise: Tensor | None = None) -> Tensor:
    """Linear colours (B, N, 3, H, W) -> pictures (B, N, 3, H, W) in [0, 1].

    Args:
        linear: what falls on the sensor, at least 0; 0.18 is a mid grey.
        response: of the B cameras, on the same device.
        noise: (B, N, 3, H, W) standard normal; None for no sensor noise.
    """
    light = linear * response.exposure[..., None, None] * _vignette(response.vignette, linear.shape[-2:])
    light = _blurred(light, response.blur)
    if noise is not None:
        light = _noisy(light, response, noise)
    picture = _saturated(tone_curve(light, _per_scene(response.contrast)), _per_scene(response.saturation))
    return compress_jpeg(picture.clamp_(0, 1), response.quality)


def _per_scene(value: Tensor) -> Tensor:
    return value[:, None, None, None, None]


def _vignette(strength: Tensor, size: torch.Size) -> Tensor:
    """(B, 1, 1, H, W): brightness falls with the squared distance from the centre, by `strength` at the corners."""
    across = torch.linspace(-1, 1, size[1], device=strength.device).square()
    down = torch.linspace(-1, 1, size[0], device=strength.device).square()[:, None]
    return 1 - _per_scene(strength) * (across + down) / 2


def _blurred(light: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each view (B, N, ...) by its own standard deviation (B, N) in pixels."""
    widest = float(sigma.max())
    if widest < SHARP:
        return light
    sigma = sigma.masked_fill(sigma < SHARP, 1e-3)[..., None]
    steps = torch.arange(-math.ceil(2 * widest), math.ceil(2 * widest) + 1, device=sigma.device)
    # Each view is cut off at its own width and summed in order, so that it does not depend on the rest of its batch.
    weights = torch.exp(-0.5 * (steps / sigma).square()) * (steps.abs() <= (2 * sigma).ceil())
    weights = weights / weights.cumsum(dim=-1)[..., -1:]
    return _filtered(_filtered(light, weights, -1), weights, -2)


def _filtered(light: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Weighted mean of 2 r + 1 neighbours along an axis; weights (B, N, 2 r + 1); the border is repeated."""
    radius, length = weights.shape[-1] // 2, light.shape[axis]
    before, after = light.narrow(axis, 0, 1), light.narrow(axis, length - 1, 1)
    padded = torch.cat([before] * radius + [light] + [after] * radius, dim=axis)
    total = torch.zeros_like(light)
    for step in range(2 * radius + 1):
        total.addcmul_(padded.narrow(axis, step, length), weights[..., step, None, None, None])
    return total


def _noisy(light: Tensor, response: Response, noise: Tensor) -> Tensor:
    """Photon noise, whose variance grows with brightness, and the electronics' noise, which is the same everywhere."""
    variance = _per_scene(response.read.square()) + _per_scene(response.shot.square()) * light
    return torch.addcmul(light, variance.clamp_min_(0).sqrt_(), noise).clamp_min_(0)


def tone_curve(light: Tensor, contrast: Tensor | float = 0.0) -> Tensor:
    """Linear light -> picture in [0, 1): a film's response, gamma 2, and an S-curve about the middle.

    Without contrast it stays close to the sRGB curve up to mid tones and then bends into a shoulder.
    """
    picture = (light * -FILM_SPEED).expm1_().neg_().clamp_min_(0).sqrt_()
    return picture + contrast * (picture - picture.square()) * (2 * picture - 1)


def _saturated(picture: Tensor, saturation: Tensor) -> Tensor:
    grey = 0.299 * picture[:, :, :1] + 0.587 * picture[:, :, 1:2] + 0.114 * picture[:, :, 2:]
    return torch.lerp(grey, picture, saturation.expand_as(picture))


def compress_jpeg(pictures: Tensor, quality: Tensor) -> Tensor:
    """What is left of pictures (B, N, 3, H, W) in [0, 1] after baseline JPEG with 4:2:0 chroma (ITU-T T.81).

    Args:
        quality: (B, N) on the scale of the Independent JPEG Group, 1..99; views of 100 or more are left as they are.
    """
    chosen = quality < LOSSLESS
    if not bool(chosen.any()):
        return pictures
    height, width = pictures.shape[-2:]
    some = functional.pad(pictures[chosen], (0, -width % 16, 0, -height % 16), mode="replicate")
    luma, chroma = _luma_chroma(some * 255)
    tables = _quantisation(quality[chosen])
    luma = _through_blocks(luma, tables[:, 0])
    chroma = _through_blocks(functional.avg_pool2d(chroma, 2), tables[:, 1])
    chroma = functional.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    result = pictures.clone()
    result[chosen] = (_rgb(luma, chroma)[..., :height, :width] / 255).clamp_(0, 1)
    return result


def _luma_chroma(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """(V, 3, H, W) 0..255 -> brightness (V, 1, H, W) and colour differences (V, 2, H, W), all about 0 (JFIF)."""
    luma = 0.299 * rgb[:, :1] + 0.587 * rgb[:, 1:2] + 0.114 * rgb[:, 2:]
    chroma = torch.cat([(rgb[:, 2:] - luma) / 1.772, (rgb[:, :1] - luma) / 1.402], dim=1)
    return (luma - 128).round_(), chroma.round_()


def _rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    luma, blue, red = luma + 128, chroma[:, :1], chroma[:, 1:]
    return torch.cat([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], dim=1)


def _through_blocks(planes: Tensor, table: Tensor) -> Tensor:
    """Quantise the cosine transform of each 8 x 8 block of planes (V, C, H, W) by table (V, 64)."""
    transform = _cosine_transform(str(planes.device))
    rows, columns = planes.shape[-2] // 8, planes.shape[-1] // 8
    blocks = planes.unflatten(-1, (columns, 8)).unflatten(-3, (rows, 8)).transpose(-3, -2).flatten(-2)
    # One product a view: the same numbers for a view whatever the size of its batch, to the last bit before rounding.
    transform, step = transform.expand(len(planes), 64, 64), table[:, None]
    coefficients = torch.bmm(blocks.flatten(1, -2), transform.mT).div_(step).round_().mul_(step)
    restored = torch.bmm(coefficients, transform).view(blocks.shape)
    return restored.unflatten(-1, (8, 8)).transpose(-3, -2).reshape(planes.shape)


@lru_cache(maxsize=4)
def _cosine_transform(device: str) -> Tensor:
    """(64, 64) orthonormal: the two-dimensional discrete cosine transform of a block of 8 x 8, row by row."""
    steps = torch.arange(8, dtype=torch.float64)
    once = torch.cos((2 * steps + 1) * steps[:, None] * math.pi / 16) / 2
    once[0] /= math.sqrt(2)
    return torch.kron(once, once).float().to(device)


def _quantisation(quality: Tensor) -> Tensor:
    """(V, 2, 64): steps of luma and chroma coefficients for qualities (V,)."""
    quality = quality.clamp(1, LOSSLESS).round()
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    return ((_standard_tables(str(quality.device)) * percent[:, None, None] + 50) / 100).floor().clamp(1, 255)


@lru_cache(maxsize=4)
def _standard_tables(device: str) -> Tensor:
    """(2, 64): the example tables of ITU-T T.81, annex K.1, at quality 50."""
    luma = """
        16 11 10 16 24 40 51 61   12 12 14 19 26 58 60 55     14 13 16 24 40 57 69 56      14 17 22 29 51 87 80 62
        18 22 37 56 68 109 103 77   24 35 55 64 81 104 113 92   49 64 78 87 103 121 120 101   72 92 95 98 112 100 103 99
    """
    chroma = "17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99   24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99"
    values = [*map(int, luma.split()), *map(int, chroma.split()), *[99] * 32]
    return torch.tensor(values, dtype=torch.float32, device=device).view(2, 64)
